//! Roles and access control entries for `pveum`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::blueprint::rights::{PveNeed, Rights, Weight};
use crate::site::ProxmoxAuth;

use super::super::words::quoted;
use super::{Page, WITHOUT, condition, json_of, numbers};

/// The versions that differ.
const VERSIONS: [u32; 2] = [9, 8];

/// Who the rights are for.
pub(super) struct Who {
    /// The user that gets them; None: it has them all.
    user: Option<String>,
    /// The token that gets them.
    token: Option<String>,
    /// How the site file logs in.
    login: String,
    /// Whether nothing has to be given for that.
    all: bool,
}

impl Who {
    pub(super) fn of(auth: Option<&ProxmoxAuth>) -> Self {
        match auth {
            Some(ProxmoxAuth::Token { id, .. }) => {
                let user = id.split('!').next().unwrap_or_default();
                Self {
                    user: (user != "root@pam").then(|| user.to_owned()),
                    token: Some(id.clone()),
                    login: format!("The site file logs in with token {id}."),
                    all: false,
                }
            }
            Some(ProxmoxAuth::Ticket { user, .. }) if user != "root@pam" => Self {
                user: Some(user.clone()),
                token: None,
                login: format!("The site file logs in as {user} with a password."),
                all: false,
            },
            _ => Self {
                user: Some("pvemig@pve".into()),
                token: Some("pvemig@pve!pvemig".into()),
                login: "The site file logs in as root@pam with a password: that may do everything, and no role is \
                        needed. A token of its own would need what follows."
                    .into(),
                all: true,
            },
        }
    }
}

/// What is given on a path.
struct Grant<'r> {
    path: &'r str,
    role: String,
    needs: Vec<&'r PveNeed>,
}

/// A role for each path.
pub(super) struct Grants<'r>(Vec<Grant<'r>>);

impl<'r> Grants<'r> {
    pub(super) fn of(rights: &'r Rights, migration: &str) -> Self {
        let mut paths: BTreeMap<&str, Vec<&PveNeed>> = BTreeMap::new();
        for need in &rights.pve {
            paths.entry(&need.path).or_default().push(need);
        }
        let grant = |(path, needs): (&'r str, Vec<&'r PveNeed>)| Grant { path, role: role(migration, path), needs };
        Self(paths.into_iter().map(grant).collect())
    }

    pub(super) fn print(&self, rights: &Rights, who: &Who, only: Option<u32>, all: bool, page: &mut Page) {
        page.words(&who.login);
        for note in &rights.pve_notes {
            page.words(note);
        }
        page.words("As root on a Proxmox host (a role that is there already: `pveum role modify` for `role add`):");
        if let (true, Some(user), Some(token)) = (who.all, &who.user, &who.token) {
            let id = token.split('!').next_back().unwrap_or_default();
            page.line("");
            page.words("A user and a token, whose secret is shown once:");
            page.command("", &command(&["pveum", "user", "add", user], &[]));
            page.command("", &command(&["pveum", "user", "token", "add", user, id], &[("--privsep", "1".into())]));
        }
        for grant in &self.0 {
            page.line("");
            grant.print(who, only, all, page);
        }
        page.line("");
        closing(who, page);
    }

    pub(super) fn json(&self, rights: &Rights, who: &Who, only: Option<u32>, all: bool) -> Value {
        let version = |major: u32| {
            let given: Vec<(&Grant<'_>, Vec<&str>)> = self
                .0
                .iter()
                .map(|g| (g, g.given(all).map(|need| need.privilege.of(major)).collect::<Vec<_>>()))
                .filter(|(_, names)| !names.is_empty())
                .collect();
            let role = |(g, names): &(&Grant<'_>, Vec<&str>)| (g.role.clone(), json!(names));
            let acl = |(g, _): &(&Grant<'_>, Vec<&str>)| json!({ "path": g.path, "role": g.role });
            let privileges = self.0.iter().flat_map(|g| g.needs.iter().map(move |need| (g, need))).map(|(g, need)| {
                let (needed, without, when) = json_of(&need.weight);
                json!({ "path": g.path, "role": g.role, "privilege": need.privilege.of(major), "steps": need.steps,
                    "purpose": need.purpose, "needed": needed, "without": without, "if": when })
            });
            json!({
                "version": major,
                "roles": given.iter().map(role).collect::<serde_json::Map<_, _>>(),
                "acl": given.iter().map(acl).collect::<Vec<_>>(),
                "privileges": privileges.collect::<Vec<_>>(),
            })
        };
        let majors = VERSIONS.into_iter().filter(|major| only.is_none_or(|only| only == *major));
        json!({
            "cluster": rights.proxmox, "user": who.user, "token": who.token, "role_needed": !who.all,
            "notes": rights.pve_notes, "versions": majors.map(version).collect::<Vec<_>>(),
        })
    }
}

impl<'r> Grant<'r> {
    /// What is printed for use.
    fn given(&self, all: bool) -> impl Iterator<Item = &'r PveNeed> {
        self.needs.iter().copied().filter(move |need| all || need.weight == Weight::Needed)
    }

    fn print(&self, who: &Who, only: Option<u32>, all: bool, page: &mut Page) {
        let Self { path, role, needs } = self;
        let (needed, other): (Vec<&PveNeed>, Vec<&PveNeed>) =
            needs.iter().copied().partition(|need| need.weight == Weight::Needed);
        let add = |privs: String| command(&["pveum", "role", "add", role], &[("--privs", privs)]);
        let mut to = vec![("--roles", role.clone())];
        to.extend(who.user.iter().map(|user| ("--users", quoted(user))));
        to.extend(who.token.iter().map(|token| ("--tokens", shell(token))));
        let entry = command(&["pveum", "acl", "modify", path], &to);
        // What is not for use as it stands is a comment.
        let head = if all { "" } else { "# " };
        page.words(&format!("On {path}:"));
        let purpose = |need: &PveNeed, page: &mut Page| {
            let name = need.privilege.names(only).join(" or ");
            page.hanging("# - ", &format!("{name} for {} ({})", need.purpose, numbers(&need.steps)));
        };
        if !needed.is_empty() {
            needed.iter().for_each(|need| purpose(need, page));
            by_version("", &needed, only, page, add);
            page.command("", &entry);
        }
        if !all && !other.is_empty() {
            page.words(WITHOUT);
        }
        if needed.is_empty() {
            page.command(head, &command(&["pveum", "role", "add", role], &[]));
            page.command(head, &entry);
        }
        for need in other {
            purpose(need, page);
            condition(&need.weight).iter().for_each(|text| page.hanging("#   ", text));
            let append = |privs: String| {
                command(&["pveum", "role", "modify", role], &[("--append", "1".into()), ("--privs", privs)])
            };
            by_version(head, &[need], only, page, append);
        }
    }
}

/// What holds of all of them.
fn closing(who: &Who, page: &mut Page) {
    page.words(
        "An entry on a path takes the place of what the same user or token has further up: each role has all that \
         its path takes.",
    );
    let Some(token) = &who.token else { return };
    match &who.user {
        Some(user) => page.words(&format!(
            "A token with privilege separation may do what both it and {user} may. Without separation it has what \
             {user} has, and `--tokens` can be left out."
        )),
        None => page.words(&format!(
            "{token} is not root@pam itself, whatever it may do. Without privilege separation it has every \
             privilege, and nothing of this is needed."
        )),
    }
}

/// A command with the privileges; twice where the versions name them differently, the older one as a comment.
fn by_version(
    head: &str,
    needs: &[&PveNeed],
    only: Option<u32>,
    page: &mut Page,
    line: impl Fn(String) -> Vec<String>,
) {
    let privs = |major: u32| {
        let names: Vec<&str> = needs.iter().map(|need| need.privilege.of(major)).collect();
        format!("'{}'", names.join(" "))
    };
    match only {
        Some(major) => page.command(head, &line(privs(major))),
        None if privs(8) == privs(9) => page.command(head, &line(privs(9))),
        None => {
            page.command(head, &line(privs(9)));
            page.words("on Proxmox VE 8 instead:");
            page.command("# ", &line(privs(8)));
        }
    }
}

/// A command's words; an option and its value stay together.
fn command(words: &[&str], options: &[(&str, String)]) -> Vec<String> {
    let options = options.iter().map(|(option, value)| format!("{option} {value}"));
    words.iter().map(|word| (*word).to_owned()).chain(options).collect()
}

/// As a shell takes it that looks for `!` in a history.
fn shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A role's id: letters, digits, `.`, `-` and `_`, and not beginning with `PVE` in any case, which is Proxmox's own
/// (pve-access-control, `PVE/API2/Role.pm` and the format `pve-roleid`).
fn role(migration: &str, path: &str) -> String {
    let place = if path == "/" { "cluster" } else { path.trim_start_matches('/') };
    let id = format!("{migration}-{place}").replace(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)), "-");
    if id.to_ascii_lowercase().starts_with("pve") { format!("m-{id}") } else { id }
}

#[cfg(test)]
mod tests {
    use super::role;

    #[test]
    fn roles_have_ids_that_proxmox_takes() {
        assert_eq!(role("frigate-coral", "/vms/108"), "frigate-coral-vms-108");
        assert_eq!(role("frigate-coral", "/"), "frigate-coral-cluster");
        assert_eq!(role("PVE to µ", "/mapping/usb/a"), "m-PVE-to---mapping-usb-a");
    }
}
