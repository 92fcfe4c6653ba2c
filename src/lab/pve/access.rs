//! Users, tokens, roles and access control lists, and what follows from them for a path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Who may do what.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// By user id, `root@pam`.
    pub users: BTreeMap<String, User>,
    /// By full token id, `root@pam!pvemig`.
    pub tokens: BTreeMap<String, Token>,
    /// Roles of the site's own, by name.
    pub roles: BTreeMap<String, BTreeSet<String>>,
    /// Entries of the access control list.
    pub acl: Vec<Acl>,
    /// The major version of the hosts, which decides what privileges there are; none: the newest.
    #[serde(skip)]
    pub major: Option<u32>,
}

/// A user of the realm `pam` or `pve`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    /// Made at the start of the lab where the world names none.
    pub password: String,
}

/// An API token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    /// Made at the start of the lab where the world names none.
    pub secret: String,
    /// True: it has rights of its own, cut down to its user's.
    pub privsep: bool,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User(…)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("privsep", &self.privsep).finish_non_exhaustive()
    }
}

impl Default for Token {
    fn default() -> Self {
        Self { secret: String::new(), privsep: true }
    }
}

/// One line of the access control list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    /// `/`, `/vms/108`, `/mapping/usb`
    pub path: String,
    /// A user id or a full token id.
    pub who: String,
    /// Role name.
    pub role: String,
    /// Also below the path.
    #[serde(default = "yes")]
    pub propagate: bool,
}

fn yes() -> bool {
    true
}

/// Every privilege of PVE 9 that this front knows.
pub const PRIVILEGES: &[&str] = &[
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Replicate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// Those of them that came with PVE 9 (pve-access-control 9.0, `AccessControl.pm`), and what was there in their place.
const SINCE_9: &[&str] = &[
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Replicate",
];
const UP_TO_8: &[&str] = &["VM.Monitor"];

/// Privilege -> whether it reaches below the path.
pub type Rights = BTreeMap<String, bool>;

impl Access {
    /// Whether the hosts are of a version before 9.
    pub fn before_9(&self) -> bool {
        self.major.is_some_and(|major| major < 9)
    }

    /// The privileges that there are.
    fn privileges(&self) -> impl Iterator<Item = &'static str> {
        let (gone, more): (&[&str], &[&str]) = if self.before_9() { (SINCE_9, UP_TO_8) } else { (&[], &[]) };
        PRIVILEGES.iter().chain(more).copied().filter(move |privilege| !gone.contains(privilege))
    }

    /// A role's privileges. What this version does not know is passed over (pve-access-control, reading of user.cfg).
    fn role(&self, name: &str) -> BTreeSet<String> {
        let mut all = self.named(name);
        all.retain(|privilege| self.privileges().any(|known| known == privilege));
        all
    }

    fn named(&self, name: &str) -> BTreeSet<String> {
        let pick = |keep: &dyn Fn(&str) -> bool| {
            self.privileges().filter(|p| keep(p)).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        match name {
            "Administrator" => pick(&|_| true),
            "PVEAuditor" => pick(&|p| p.ends_with(".Audit") && p != "VM.GuestAgent.Audit"),
            "PVEVMAdmin" => pick(&|p| p.starts_with("VM.")),
            "PVEVMUser" => ["VM.Audit", "VM.Backup", "VM.Config.CDROM", "VM.Config.Cloudinit", "VM.Console"]
                .into_iter()
                .chain(["VM.PowerMgmt", "VM.GuestAgent.Audit"])
                .map(str::to_owned)
                .collect(),
            "PVEMappingAdmin" => pick(&|p| p.starts_with("Mapping.")),
            "PVEMappingUser" => pick(&|p| p == "Mapping.Use"),
            "PVEMappingAuditor" => pick(&|p| p == "Mapping.Audit"),
            "PVESysAdmin" => pick(&|p| p.starts_with("Sys.") && p != "Sys.Modify" && p != "Sys.PowerMgmt"),
            "PVEDatastoreAdmin" => pick(&|p| p.starts_with("Datastore.")),
            _ => self.roles.get(name).cloned().unwrap_or_default(),
        }
    }

    /// What `who` may do at `path`: `root@pam` everything; a token with separated privileges what both it and its
    /// user may; a deeper entry replaces those above it (pve-access-control `RPCEnvironment.pm`).
    pub fn rights(&self, who: &str, path: &str) -> Rights {
        if who == "root@pam" {
            return self.privileges().map(|p| (p.to_owned(), true)).collect();
        }
        let Some((user, _)) = who.split_once('!') else { return self.listed(who, path) };
        let users = if user == "root@pam" { self.rights(user, path) } else { self.listed(user, path) };
        match self.tokens.get(who) {
            None => Rights::new(),
            Some(token) if !token.privsep => users,
            Some(_) => {
                let own = self.listed(who, path);
                own.into_iter().filter_map(|(p, down)| users.get(&p).map(|theirs| (p, down && *theirs))).collect()
            }
        }
    }

    fn listed(&self, who: &str, path: &str) -> Rights {
        let mut rights = Rights::new();
        for level in levels(path) {
            let here: Vec<&Acl> = self
                .acl
                .iter()
                .filter(|e| e.who == who && trimmed(&e.path) == level && (e.propagate || level == path))
                .collect();
            if !here.is_empty() {
                rights.clear();
            }
            for entry in here {
                for privilege in self.role(&entry.role) {
                    rights.insert(privilege, entry.propagate);
                }
            }
        }
        rights
    }

    /// Whether `who` has any of `privileges` at `path`.
    pub fn may(&self, who: &str, path: &str, privileges: &[&str]) -> bool {
        let rights = self.rights(who, path);
        privileges.iter().any(|p| rights.contains_key(*p))
    }

    /// The paths that the list names, with the fixed ones that `GET /access/permissions` always shows.
    pub fn known_paths(&self) -> BTreeSet<String> {
        let fixed = [
            "/",
            "/access",
            "/access/groups",
            "/access/realm",
            "/mapping",
            "/nodes",
            "/pool",
            "/sdn",
            "/storage",
            "/vms",
        ];
        fixed.into_iter().map(str::to_owned).chain(self.acl.iter().map(|e| trimmed(&e.path).to_owned())).collect()
    }
}

fn trimmed(path: &str) -> &str {
    let short = path.trim_end_matches('/');
    if short.is_empty() { "/" } else { short }
}

/// `/vms/108` -> `/`, `/vms`, `/vms/108`
fn levels(path: &str) -> Vec<&str> {
    let mut out = vec!["/"];
    out.extend(path.char_indices().skip(1).filter(|(_, c)| *c == '/').filter_map(|(i, _)| path.get(..i)));
    if path != "/" {
        out.push(path);
    }
    out
}
