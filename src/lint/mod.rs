//! What is wrong with an estate, told from a survey of it alone: one rule a trap, each with its number.
//!
//! A rule looks at what is known. Where a layer that it needs is unknown it finds nothing and says so ([`Unlooked`]):
//! unknown is not no. A cause has one finding: a rule that knows the cause silences those that see what follows from it.

mod disks;
mod etcd;
mod explain;
mod identity;
mod kubernetes;
mod layers;
mod nvidia;
mod proxmox;
mod talos;
#[cfg(test)]
mod tests;
mod votes;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::names::Dial;
use crate::base::redact;
use crate::base::survey::{Layer, Node, Survey};

pub use explain::Explain;
pub use kubernetes::BY_JOIN;
pub use votes::{BY_ADD, BY_RECOVER, BY_REPLACE, BY_STATUS};

/// A rule.
pub struct Rule {
    /// `L01`; never given to another rule.
    pub number: &'static str,
    /// What it finds, in one line.
    pub title: &'static str,
    /// Why it matters.
    pub explain: Explain,
    /// The rules that say nothing of the same thing where this one found the cause.
    silences: &'static [&'static str],
    look: fn(&Survey, &mut Out),
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's number.
    pub rule: &'static str,
    /// The node or cluster that it is about, by its name in the site file.
    pub what: String,
    /// What is wrong, and why.
    pub text: String,
    /// The one next thing to do.
    pub help: String,
}

/// A rule that could not look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unlooked {
    /// The rule's number.
    pub rule: &'static str,
    /// The node or cluster that it could not look at.
    pub what: String,
    /// What it would have needed, and why that is not known.
    pub reason: String,
}

/// Rules that could not look at one thing for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blind {
    /// The node or cluster.
    pub what: String,
    /// What they would have needed, and why that is not known.
    pub reason: String,
    /// The rules' numbers.
    pub rules: Vec<&'static str>,
}

/// What all rules say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Looked {
    /// What is wrong: the gravest first, then what is of clusters before what is of nodes, each in the order of the rules.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unlooked: Vec<Unlooked>,
}

impl Looked {
    /// What could not be looked at, a line for each thing and reason.
    pub fn blind(&self) -> Vec<Blind> {
        let mut all: Vec<Blind> = Vec::new();
        for Unlooked { rule, what, reason } in &self.unlooked {
            match all.iter_mut().find(|blind| blind.what == *what && blind.reason == *reason) {
                Some(blind) => blind.rules.push(rule),
                None => all.push(Blind { what: what.clone(), reason: reason.clone(), rules: vec![rule] }),
            }
        }
        all
    }
}

/// Every rule by its number.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let by_theme = [
        nvidia::RULES,
        proxmox::RULES,
        disks::RULES,
        etcd::RULES,
        votes::RULES,
        kubernetes::RULES,
        talos::RULES,
        layers::RULES,
        identity::RULES,
    ];
    let mut all: Vec<&Rule> = by_theme.into_iter().flatten().collect();
    all.sort_by_key(|rule| rule.number);
    all.into_iter()
}

/// A rule by its number, whatever its case; the zero may be left out.
pub fn rule(number: &str) -> Option<&'static Rule> {
    let short = |rule: &Rule| rule.number.replacen("L0", "L", 1);
    rules().find(|rule| rule.number.eq_ignore_ascii_case(number) || short(rule).eq_ignore_ascii_case(number))
}

/// What is wrong, and what could not be looked at.
pub fn look(survey: &Survey) -> Looked {
    let mut looked = each_rule(survey);
    let silences: BTreeMap<&str, &[&str]> = rules().map(|rule| (rule.number, rule.silences)).collect();
    let mut found: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for Finding { rule, what, .. } in &looked.findings {
        found.entry(what.clone()).or_default().push(rule);
    }
    let heard = |rule: &str, what: &str| found.get(what).is_none_or(|found| is_heard(rule, found, &silences));
    looked.findings.retain(|finding| heard(finding.rule, &finding.what));
    // What is wrong with a cluster is wrong for all of its nodes.
    looked.findings.sort_by_key(|finding| (gravity(finding.rule), survey.node(&finding.what).is_some()));
    for finding in &mut looked.findings {
        wait_for_majority(survey, finding);
    }
    looked.unlooked.retain(|unlooked| heard(unlooked.rule, &unlooked.what));
    looked
}

/// The rules whose findings stand above all others, and those that come next: data that may be lost and an API that is
/// down; a redundancy that is gone; nodes that do not work.
const GRAVE: [&[&str]; 3] = [
    &["L37", "L40"],
    &["L12", "L13", "L14", "L16", "L38", "L39", "L41"],
    &["L01", "L02", "L04", "L19", "L24", "L25", "L26", "L27", "L28", "L32"],
];

/// How grave a rule's findings are; the least number is the gravest.
fn gravity(rule: &str) -> usize {
    GRAVE.iter().position(|rules| rules.contains(&rule)).unwrap_or(GRAVE.len())
}

/// Rules whose help may bring a voter back.
const AT_ONCE: [&str; 2] = ["L27", "L28"];
/// Words of commands that change a node or take it down.
const CHANGES: [&str; 8] =
    [" patch mc ", " edit mc ", " upgrade", " reboot", "remove-member", " kubelet restart", " delete ", " --delete "];

/// Without a majority of etcd a node that still has its data is not to be touched for anything less.
fn wait_for_majority(survey: &Survey, finding: &mut Finding) {
    let lost = survey.node(&finding.what).is_some_and(|node| votes::is_lost(survey, node));
    let changes = CHANGES.iter().any(|word| finding.help.contains(word));
    if lost && changes && !AT_ONCE.contains(&finding.rule) {
        finding.help.insert_str(0, "not before etcd has its majority again (L37): ");
    }
}

/// What these rules have found of a thing does not silence this one: who is silenced himself silences nobody. No rule
/// silences itself by way of others.
fn is_heard(rule: &str, found: &[&str], silences: &BTreeMap<&str, &[&str]>) -> bool {
    let silencing = |other: &str| silences.get(other).is_some_and(|silences| silences.contains(&rule));
    !found.iter().any(|other| silencing(other) && is_heard(other, found, silences))
}

/// What each rule says by itself.
fn each_rule(survey: &Survey) -> Looked {
    let mut looked = Looked::default();
    for rule in rules() {
        let mut out = Out { rule: rule.number, survey, looked: Looked::default() };
        (rule.look)(survey, &mut out);
        looked.findings.append(&mut out.looked.findings);
        looked.unlooked.append(&mut out.looked.unlooked);
    }
    looked
}

/// Where a rule puts what it says.
struct Out<'s> {
    rule: &'static str,
    survey: &'s Survey,
    looked: Looked,
}

/// The command of a help, as far as it may get flags.
const TALOSCTL: &str = "`talosctl ";
const KUBECTL: &str = "`kubectl ";

impl Out<'_> {
    /// Something is wrong.
    fn find(&mut self, what: &str, text: impl Into<String>, help: impl Into<String>) {
        let (text, help) = (redact::text(&text.into()), redact::text(&self.reached(what, help.into())));
        self.looked.findings.push(Finding { rule: self.rule, what: what.to_owned(), text, help });
    }

    /// A help whose commands name the site's talosconfig, kubeconfig and contexts: without them they would ask whatever
    /// cluster is the current one of whoever pastes them.
    fn reached(&self, what: &str, help: String) -> String {
        let node = self.survey.node(what);
        let mut clusters = self.survey.talos.iter();
        let talos = match node {
            Some(node) => clusters.find(|cluster| node.talos_cluster.as_ref() == Some(&cluster.name)),
            None => clusters.find(|cluster| cluster.name == what || cluster.kubernetes == what),
        };
        let of = node.map(|node| &node.kubernetes).or(talos.map(|cluster| &cluster.kubernetes));
        let of = of.map_or(what, String::as_str);
        let kubernetes = self.survey.kubernetes.iter().find(|cluster| cluster.name == of);
        let help = match talos {
            // Who names one by himself, or makes one, needs no other.
            Some(cluster) if !help.contains("--talosconfig") && !help.contains(" gen config ") => {
                help.replace(TALOSCTL, &format!("{TALOSCTL}{} ", cluster.flags()))
            }
            _ => help,
        };
        match kubernetes {
            Some(cluster) => help.replace(KUBECTL, &format!("{KUBECTL}{} ", cluster.flags())),
            None => help,
        }
    }

    /// It could not look.
    fn cannot(&mut self, what: &str, reason: impl Into<String>) {
        let unlooked = Unlooked { rule: self.rule, what: what.to_owned(), reason: redact::text(&reason.into()) };
        if !self.looked.unlooked.contains(&unlooked) {
            self.looked.unlooked.push(unlooked);
        }
    }

    /// The layer where it is known; where it could not be asked that is noted.
    fn need<'l, T>(&mut self, what: &str, layer: &'l Layer<T>) -> Option<&'l T> {
        if let Some(reason) = layer.reason() {
            self.cannot(what, reason);
        }
        layer.known()
    }
}

impl Out<'_> {
    /// A part of Talos' own account, of which there is always something to tell: a version that does not is no empty list.
    fn part<'l, T>(&mut self, what: &str, layer: &'l Layer<T>, name: &str) -> Option<&'l T> {
        if layer.is_absent() {
            self.cannot(what, format!("its version of Talos does not tell its {name}"));
        }
        self.need(what, layer)
    }
}

/// Looks at every node.
fn each(survey: &Survey, out: &mut Out, look: impl Fn(&Node, &mut Out) -> Option<()>) {
    for node in &survey.nodes {
        let _ = look(node, out);
    }
}

/// A command to a Talos node itself, past whatever endpoints the talosconfig names.
fn talosctl(node: &Node, rest: &str) -> String {
    let given = node.address.as_deref().unwrap_or(&node.node_name);
    Dial::to(given, node.tls_name.as_deref()).talosctl(&node.name, rest)
}

/// Commands on the host of a node's VM, `{}` standing for its number.
fn qm(node: &Node, commands: &str) -> String {
    let vmid = node.place.as_ref().map_or_else(|| "VMID".to_owned(), |place| place.vmid.to_string());
    let host = node.vm().map_or("its Proxmox host", |vm| vm.host.as_str());
    format!("on {host}: `{}`", commands.replace("{}", &vmid))
}

/// What a command takes down besides, said behind it.
fn reboots(node: &Node) -> &'static str {
    if node.etcd.is_absent() { " (it reboots the node)" } else { " (it reboots the node: see that etcd can spare it)" }
}

/// What starts a node's VM where it is known to be off, and nobody holds it so.
fn start(node: &Node) -> Option<String> {
    node.vm().filter(|_| node.held_off.is_none()).filter(|vm| !vm.is_running()).map(|_| qm(node, "qm start {}"))
}

/// `a`, `b` and `c`, each in back-quotes.
fn quoted<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}

/// Major and minor number of a version: `v1.34.1+k3s1`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
