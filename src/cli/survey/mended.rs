//! What the site's own migrations and runs have to do with a finding: what a migration mends is left to it (it is shown
//! before, asked of etcd, and can be taken back), and what a run that is at work has put up is nothing wrong.

use serde::Serialize;
use serde_json::Value;

use crate::base::survey::{Majority, Node, Survey};
use crate::blueprint;
use crate::estate::Estate;
use crate::lint::{BY_ADD, BY_JOIN, BY_RECOVER, BY_REPLACE, BY_STATUS, Finding};
use crate::site::{Migration, Site};

use super::super::session::Session;

/// The rules whose findings a repair is for.
const MENDED: [&str; 2] = ["L01", "L02"];
/// The step that repairs a node.
const REPAIR: &str = "03-repair";

/// The rule that finds a cordon.
pub(super) const CORDONED: &str = "L33";

/// Takes out the cordons of the run that is at work at this moment; what is to be said of them instead.
pub(super) fn by_our_runs(session: &Session, survey: &Survey, findings: &mut Vec<Finding>) -> Vec<String> {
    if !findings.iter().any(|finding| finding.rule == CORDONED) {
        return Vec::new();
    }
    let holder = match session.store.at_work() {
        Ok(Some(holder)) => holder,
        Ok(None) => return Vec::new(),
        // Then the findings stand, and say where to look; the error is told with the runs.
        Err(_) => return Vec::new(),
    };
    let mark = format!("run {} on {}", holder.run, holder.host);
    let mark_of = |name: &str| survey.node(name)?.kubelet()?.cordon_mark.as_deref();
    let mut notes = Vec::new();
    findings.retain(|finding| {
        let ours = finding.rule == CORDONED && mark_of(&finding.what) == Some(mark.as_str());
        if ours {
            notes.push(format!("{} is cordoned by {holder}, which is at work on it", finding.what));
        }
        !ours
    });
    notes
}

/// The blueprints of lost nodes.
const BUILD: &str = "cluster-build";
const REPLACE: &str = "node-replace";
const RECOVER: &str = "quorum-recover";

/// Findings whose help is the migration, where there is one. What a person has to find out first stays: no repair does it.
pub(super) fn by_migrations(session: &Session, survey: &Survey, findings: &mut [Finding]) {
    for finding in &mut *findings {
        of_lost_nodes(&session.site, survey, finding);
    }
    let by_hand = |help: &str| {
        (help.contains(" patch mc ") || help.contains(" upgrade --image ")) && !help.contains("make a schematic")
    };
    for finding in findings.iter_mut().filter(|finding| MENDED.contains(&finding.rule) && by_hand(&finding.help)) {
        if let Some(name) = that_mends(&session.site, &session.estate, &finding.what) {
            finding.help = format!(
                "`pvemig plan {name}` shows how its step {REPAIR} mends it, with what that takes down and back"
            );
        }
    }
}

/// Names the site's own migration where the help is to write one.
fn of_lost_nodes(site: &Site, survey: &Survey, finding: &mut Finding) {
    let what = finding.what.as_str();
    if finding.help.contains(BY_RECOVER) {
        finding.help = finding.help.replace(BY_RECOVER, &recover(site, what));
    }
    if finding.help.contains(BY_ADD)
        && let Some(found) = adds(site, survey, what)
    {
        finding.help = finding.help.replace(BY_ADD, &found);
    }
    if finding.help.contains(BY_JOIN)
        && let Some(found) = takes_in(site, what)
    {
        finding.help = finding.help.replace(BY_JOIN, &found);
    }
    if finding.help.contains(BY_REPLACE)
        && let Some(name) = first(site, REPLACE, |params| params.get("old").is_some_and(|old| old == what))
    {
        let new = site.migrations.get(name).and_then(|of| of.params.pointer("/new/node")).and_then(Value::as_str);
        let waits = new.filter(|new| survey.node(new).is_some_and(|node| node.waiting.is_some()));
        let with = waits.map(|new| format!(", for which {new} waits")).unwrap_or_default();
        finding.help = finding.help.replace(BY_REPLACE, &format!("`pvemig plan {name}`{with}"));
    }
}

/// What leads out of the lost majority of a cluster.
pub(super) fn recover(site: &Site, cluster: &str) -> String {
    let found = first(site, RECOVER, |params| params.get("talos").is_some_and(|talos| talos == cluster));
    found.map_or_else(|| BY_RECOVER.to_owned(), |name| format!("`pvemig plan {name}`"))
}

/// The site's own migration that puts another machine in the place of a node.
pub(super) fn replace(site: &Site, old: &str) -> Option<String> {
    let found = first(site, REPLACE, |params| params.get("old").is_some_and(|name| name == old));
    found.map(|name| format!("`pvemig plan {name}`"))
}

/// The site's own migrations that give a cluster a control plane with a vote: in the place of one that has none any more,
/// else one more.
fn adds(site: &Site, survey: &Survey, cluster: &str) -> Option<String> {
    let of = survey.talos.iter().find(|of| of.name == cluster)?;
    let ballots = survey.ballots(of);
    let votes = |name: &str| ballots.iter().any(|ballot| ballot.member_of(name).is_some());
    let plane = |name: &str| survey.node(name)?.kubelet().map(|kubelet| kubelet.registered && kubelet.control_plane);
    let own = |params: &Value| params.get("talos").is_some_and(|talos| talos == cluster);
    let text = |params: &Value, at: &str| params.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let replaces = |params: &Value| -> Option<(String, String)> {
        let (old, new) = (text(params, "/old")?, text(params, "/new/node")?);
        (own(params) && !votes(&old) && !votes(&new) && plane(&old) == Some(true)).then_some((old, new))
    };
    let each: Vec<String> = site
        .migrations
        .iter()
        .filter(|(_, of)| of.blueprint == REPLACE)
        .filter_map(|(name, of)| {
            let (old, new) = replaces(&of.params)?;
            let who = if old == new { "another machine".to_owned() } else { new };
            Some(format!("`pvemig plan {name}` puts {who} in the place of {old}"))
        })
        .collect();
    if !each.is_empty() {
        return Some(each.join(", "));
    }
    let joins = |params: &Value| {
        let nodes = params.get("nodes").and_then(Value::as_array);
        let mut names = nodes.into_iter().flatten().filter_map(|of| of.get("node")?.as_str());
        own(params) && names.any(|name| !votes(name) && survey.node(name).is_some_and(|node| node.waiting.is_some()))
    };
    first(site, BUILD, joins).map(|name| format!("`pvemig plan {name}` lets the machine that waits join"))
}

/// What becomes of a machine that is no node yet and does not answer, by the site's own migrations.
fn takes_in(site: &Site, node: &str) -> Option<String> {
    let replaces = |params: &Value| {
        let old = params.get("old").and_then(Value::as_str);
        old != Some(node) && params.pointer("/new/node").is_some_and(|new| new == node)
    };
    if let Some(name) = first(site, REPLACE, replaces) {
        let params = site.migrations.get(name).map(|of| &of.params);
        let old = params.and_then(|params| params.get("old")?.as_str()).unwrap_or("another");
        return Some(format!("it is to take the place of {old}, and is switched on for that: `pvemig plan {name}`"));
    }
    let builds = |params: &Value| {
        let nodes = params.get("nodes").and_then(Value::as_array);
        nodes.into_iter().flatten().any(|of| of.get("node").is_some_and(|name| name == node))
    };
    let name = first(site, BUILD, builds)?;
    Some(format!("switch it on from a Talos stick or ISO where it is to join: `pvemig plan {name}`"))
}

/// The first migration of a blueprint whose parameters fit.
fn first<'s>(site: &'s Site, blueprint: &str, fits: impl Fn(&Value) -> bool) -> Option<&'s str> {
    let fits = |(_, of): &(&String, &Migration)| of.blueprint == blueprint && fits(&of.params);
    site.migrations.iter().find(fits).map(|(name, _)| name.as_str())
}

/// What is next for machines that wait for their first configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Next {
    /// Their names in the site file.
    pub(super) nodes: Vec<String>,
    /// The one next thing to do.
    pub(super) help: String,
}

/// A finding that is about machines that wait says what is next for the one that it names.
pub(super) fn by_waiting(findings: &mut [Finding], next: &[Next]) {
    for finding in findings.iter_mut().filter(|finding| finding.help.contains(BY_STATUS)) {
        let named = |next: &&Next| next.nodes.iter().any(|node| finding.help.starts_with(&format!("{node} ")));
        if let Some(next) = next.iter().find(named) {
            finding.help = finding.help.replace(BY_STATUS, &next.help);
        }
    }
}

/// What is next, once for all machines of which it is the same; `in_hand` says it of one that an open run has.
pub(super) fn next_of_waiting(site: &Site, survey: &Survey, in_hand: impl Fn(&str) -> Option<String>) -> Vec<Next> {
    let mut all: Vec<Next> = Vec::new();
    for node in survey.nodes.iter().filter(|node| node.waiting.is_some()) {
        let help = next(site, survey, node, &in_hand);
        match all.iter_mut().find(|next| next.help == help) {
            Some(next) => next.nodes.push(node.name.clone()),
            None => all.push(Next { nodes: vec![node.name.clone()], help }),
        }
    }
    all
}

fn next(site: &Site, survey: &Survey, node: &Node, in_hand: &impl Fn(&str) -> Option<String>) -> String {
    let of = survey.talos.iter().find(|cluster| node.talos_cluster.as_ref() == Some(&cluster.name));
    let etcd = of.map(|cluster| survey.ballots(cluster)).unwrap_or_default();
    if etcd.iter().any(|ballot| ballot.majority == Majority::Lost) {
        return "leave it as it is: nobody can join before etcd has its majority again (L37)".to_owned();
    }
    if let Some(of_a_run) = in_hand(&node.name) {
        return of_a_run;
    }
    let named = |at: &Value| at.as_str() == Some(node.name.as_str());
    let builds = |params: &Value| {
        let nodes = params.get("nodes").and_then(Value::as_array);
        nodes.into_iter().flatten().any(|of| of.get("node").is_some_and(named))
    };
    let replaces = |params: &Value| params.pointer("/new/node").is_some_and(named);
    let begun = !etcd.iter().all(|ballot| ballot.majority == Majority::NotBegun);
    // Where there is a cluster it takes another's place; else it is built with the others.
    let build = || first(site, BUILD, builds);
    let found = if begun { first(site, REPLACE, replaces).or_else(build) } else { build() };
    match found {
        Some(name) => format!("`pvemig plan {name}` shows what becomes of it"),
        None if begun => format!(
            "a migration of the blueprint {REPLACE} lets it take another's place, one of {BUILD} lets it join: `pvemig explain \
             {REPLACE}`"
        ),
        None => format!("write a migration of the blueprint {BUILD} with it (`pvemig site example`)"),
    }
}

/// The first migration with a repair of this node.
fn that_mends<'s>(site: &'s Site, estate: &Estate, node: &str) -> Option<&'s str> {
    let repairs = |name: &str, blueprint: &str| {
        // One that cannot be read `pvemig site check` tells of.
        let steps =
            blueprint::named(blueprint).and_then(|blueprint| blueprint.build(site, name).ok()).unwrap_or_default();
        let mut of_node = steps.iter().filter(|step| step.id() == REPAIR && step.key().instance() == Some(node));
        of_node.any(|step| step.outlook(estate).maybe.is_some())
    };
    site.migrations.iter().find(|(name, of)| repairs(name, &of.blueprint)).map(|(name, _)| name.as_str())
}
