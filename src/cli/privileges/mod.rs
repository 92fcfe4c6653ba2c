//! `pvemig privileges MIGRATION`: the least that it has to be allowed, ready to be pasted.

mod kube;
mod pve;
mod talos;

use serde_json::{Value, json};

use crate::blueprint::rights::Weight;

use super::args::{Global, PrivilegesArgs, System};
use super::exit::Exit;
use super::fail;
use super::given::{blueprint_of, load};
use super::out::Out;
use super::words::wrap;

/// How wide a line may be, comments included.
const WIDTH: usize = 80;

/// Prints what the site file tells; asks no system.
pub(super) fn privileges(global: &Global, args: &PrivilegesArgs, out: &Out) -> anyhow::Result<Exit> {
    let width = out.width();
    let site = load(global, out)?;
    let name = args.migration.as_str();
    let blueprint = blueprint_of(&site, name)?;
    let rights = blueprint.rights(&site, name).map_err(|error| fail::site_error(&error, width))?;
    let cluster = rights.proxmox.as_ref().and_then(|name| site.proxmox.get(name));
    let who = pve::Who::of(cluster.map(|cluster| &cluster.auth));
    let grants = pve::Grants::of(&rights, name);
    let rules = kube::Rules::of(&rights, name);
    let all = args.with_optional;
    let wanted = |system| args.only.is_none_or(|only| only == system);
    if out.json {
        let mut said = json!({ "migration": name, "blueprint": blueprint.name });
        if wanted(System::Proxmox) && rights.proxmox.is_some() {
            said["proxmox"] = grants.json(&rights, &who, args.pve, all);
        }
        if wanted(System::Kubernetes) {
            said["kubernetes"] = rules.json(&rights, all);
        }
        if let Some(talos) = rights.talos.as_ref().filter(|_| wanted(System::Talos)) {
            said["talos"] = talos::json(talos);
        }
        out.data(&format!("{said:#}\n"))?;
        return Ok(Exit::Done);
    }
    let mut page = Page::default();
    page.words(&format!("What migration {name} ({}) has to be allowed, by its site file.", blueprint.name));
    let asks = out.commands(&format!("`pvemig plan {name}`"));
    page.words(&format!("Numbers are steps (`pvemig explain 04`). {asks} holds it against the estate."));
    if !all {
        page.words(
            "This is the least that a run needs. What it can do without, and what only some estates take, is in \
             comments, with what that is for; `--with-optional` prints it as well.",
        );
    }
    if let Some(cluster) = rights.proxmox.as_ref().filter(|_| wanted(System::Proxmox)) {
        page.title(&format!("Proxmox cluster {cluster}"));
        grants.print(&rights, &who, args.pve, all, &mut page);
    }
    if wanted(System::Kubernetes) {
        page.title(&format!("Kubernetes cluster {}", rights.kubernetes));
        rules.print(&rights, name, all, *out, &mut page);
    }
    if let Some(talos) = rights.talos.as_ref().filter(|_| wanted(System::Talos)) {
        page.title(&format!("Talos cluster {}", talos.cluster));
        talos::print(talos, &mut page);
    }
    out.data(&page.0)?;
    Ok(Exit::Done)
}

/// Lines with comments that are broken where a terminal of 80 columns ends.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// A comment.
    fn words(&mut self, text: &str) {
        self.hanging("# ", text);
    }

    /// A comment behind a head; what follows its first line stands below its words.
    fn hanging(&mut self, head: &str, text: &str) {
        let wide = head.chars().count();
        let indent = head.chars().take_while(|c| *c == ' ').count();
        let rest = format!("{}#{}", " ".repeat(indent), " ".repeat(wide.saturating_sub(indent + 1)));
        for (n, line) in wrap(text, WIDTH - wide).iter().enumerate() {
            self.line(&format!("{}{line}", if n == 0 { head } else { &rest }));
        }
    }

    /// Lines of YAML that are not meant for use as they stand: a `#` takes the place of each one's first blank.
    fn left_out(&mut self, lines: &Self) {
        for line in lines.0.lines() {
            match line.strip_prefix(' ') {
                Some(rest) if !rest.trim_start().starts_with('#') => self.line(&format!("#{rest}")),
                Some(_) => self.line(line),
                None if line.starts_with('#') => self.line(line),
                None => self.line(&format!("#{line}")),
            }
        }
    }

    fn title(&mut self, text: &str) {
        let head = format!("# == {text} ");
        self.line("");
        self.line(&format!("{head}{}", "=".repeat(WIDTH.saturating_sub(head.chars().count()))));
    }

    /// A command, broken between its words where it is too long. `head` makes a comment of it.
    fn command(&mut self, head: &str, words: &[String]) {
        let mut line = head.to_owned();
        let mut fresh = true;
        for word in words {
            if !fresh && line.chars().count() + word.chars().count() + 3 > WIDTH {
                self.line(&format!("{line} \\"));
                line = format!("{head}  ");
                fresh = true;
            }
            line = if fresh { format!("{line}{word}") } else { format!("{line} {word}") };
            fresh = false;
        }
        self.line(&line);
    }
}

/// The numbers of steps, in their order: `00 01 04a`.
fn numbers(steps: &[&'static str]) -> String {
    let mut numbers: Vec<&str> = steps.iter().filter_map(|step| step.split('-').next()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.join(" ")
}

/// What stands above rights that are left out.
const WITHOUT: &str = "Left out of the least:";

/// What stands above a right that not everybody needs.
fn condition(weight: &Weight) -> Option<String> {
    match weight {
        Weight::Needed => None,
        Weight::Optional(lost) => Some(format!("Optional. Without it: {lost}.")),
        Weight::If(so) => Some(format!("Only if {so}.")),
    }
}

fn json_of(weight: &Weight) -> (bool, Value, Value) {
    match weight {
        Weight::Needed => (true, Value::Null, Value::Null),
        Weight::Optional(lost) => (false, lost.as_str().into(), Value::Null),
        Weight::If(so) => (false, Value::Null, so.as_str().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_no_yaml() {
        let (mut lines, mut page) = (Page::default(), Page::default());
        ["# why", "a: b", "  # why", "  - c: d", "    e: f"].iter().for_each(|line| lines.line(line));
        page.left_out(&lines);
        assert_eq!(page.0, "# why\n#a: b\n  # why\n# - c: d\n#   e: f\n");
    }

    #[test]
    fn lines_end_where_a_terminal_does() {
        let mut page = Page::default();
        page.hanging("  # - ", &"word ".repeat(40));
        page.title("Proxmox cluster home");
        let words = ["pveum".to_owned(), "role".into(), "x".repeat(60), "--privs".into(), "'A B'".into()];
        page.command("", &words);
        page.command("# ", &words);
        assert!(page.0.lines().all(|line| line.chars().count() <= WIDTH), "{}", page.0);
        let lines: Vec<&str> = page.0.lines().collect();
        assert!(lines[0].starts_with("  # - word") && lines[1].starts_with("  #   word"), "{}", page.0);
        assert!(page.0.contains("x \\\n  'A B'\n") || page.0.contains("--privs 'A B'\n"), "{}", page.0);
        assert_eq!(numbers(&["04-add-usb", "00-preflight", "04a-drain-node", "04-add-usb"]), "00 04 04a");
    }
}
