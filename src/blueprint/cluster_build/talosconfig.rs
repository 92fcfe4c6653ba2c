//! A cluster's addresses in a talosconfig (siderolabs/talos `pkg/machinery/client/config`): everything else of it stays.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::check::Change;
use crate::base::fault::Failure;
use crate::base::names::Dial;
use crate::base::yaml;
use crate::base::yaml::path::Part;
use crate::blueprint::quorum::{Peer, look};
use crate::estate::Estate;
use crate::talos::Context;

use crate::blueprint::install::Bare;

/// The talosconfig of the site, and whose addresses belong into it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addresses {
    /// The file, absolute.
    pub file: PathBuf,
    /// The machines of this migration: their configurations say which are control planes.
    pub machines: Vec<Bare>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
}

/// The addresses that belong into a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Of the control planes.
    pub(super) endpoints: Vec<String>,
    /// Of all nodes.
    pub(super) nodes: Vec<String>,
}

impl Addresses {
    /// The addresses of the cluster. Who is a control plane the configurations say, and of nodes that are none of this
    /// migration's their own etcd.
    ///
    /// # Errors
    /// A configuration cannot be read.
    pub(super) async fn wanted(&self, cx: &Estate, cluster: &str, notes: &mut Vec<String>) -> Result<Wanted, Failure> {
        let mut wanted = Wanted { endpoints: Vec::new(), nodes: Vec::new() };
        let others: Vec<Peer> = self
            .peers
            .iter()
            .filter(|peer| self.machines.iter().all(|bare| bare.name() != peer.name))
            .cloned()
            .collect();
        for bare in &self.machines {
            if bare.wanted().await?.is_control_plane() {
                add(&mut wanted.endpoints, &endpoint(&bare.machine.dial));
            }
        }
        let etcd = if others.is_empty() { None } else { Some(look(cx, cluster, &others).await) };
        for peer in &others {
            if etcd.as_ref().is_some_and(|etcd| etcd.knows(&peer.name)) {
                add(&mut wanted.endpoints, &endpoint(&peer.dial));
            }
        }
        for (name, why) in etcd.iter().flat_map(|etcd| etcd.silent()) {
            notes.push(format!("whether {name} is a control plane is not known ({why}): it is added to no endpoints"));
        }
        self.peers.iter().for_each(|peer| add(&mut wanted.nodes, &peer.dial.host));
        Ok(wanted)
    }
}

fn add(list: &mut Vec<String>, address: &str) {
    if !address.is_empty() && !list.iter().any(|it| it == address) {
        list.push(address.to_owned());
    }
}

/// As it stands in a file: without a shell's quotes.
fn endpoint(dial: &Dial) -> String {
    dial.endpoint.trim_matches('\'').to_owned()
}

/// What a context has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Now {
    /// Its name.
    pub(super) name: String,
    /// Its endpoints, that of an old file's `target` last.
    pub(super) endpoints: Vec<String>,
    /// Its nodes.
    pub(super) nodes: Vec<String>,
}

impl From<&Context> for Now {
    fn from(context: &Context) -> Self {
        Self { name: context.name.clone(), endpoints: context.endpoints.clone(), nodes: context.nodes.clone() }
    }
}

/// What would be written.
#[derive(Debug, PartialEq)]
pub(super) struct Merged {
    /// All of the file.
    pub(super) text: String,
    /// What differs.
    pub(super) changes: Vec<Change>,
}

/// What is missing in a context. Endpoints that somebody named stay, and those of the cluster come behind them. Nodes that
/// somebody named are left alone: they are what a command without `-n` goes to, and `talosctl reset` is such a command.
pub(super) fn missing(context: &Now, wanted: &Wanted) -> Wanted {
    let there = |name: &&String| !context.endpoints.contains(name);
    Wanted {
        endpoints: wanted.endpoints.iter().filter(there).cloned().collect(),
        nodes: if context.nodes.is_empty() { wanted.nodes.clone() } else { Vec::new() },
    }
}

impl Wanted {
    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.nodes.is_empty()
    }
}

/// Adds what is missing to a context in the text itself; None where that cannot be done with all else kept.
pub(super) fn merge(text: &str, context: &Now, missing: &Wanted) -> Option<Merged> {
    let mut all: Value = serde_saphyr::from_str(text).ok()?;
    let (mut text, mut changes) = (text.to_owned(), Vec::new());
    let whole: Vec<String> = context.endpoints.iter().chain(&missing.endpoints).cloned().collect();
    let lists = [
        ("endpoints", &context.endpoints, whole, !missing.endpoints.is_empty()),
        ("nodes", &context.nodes, missing.nodes.clone(), !missing.nodes.is_empty()),
    ];
    for (key, was, is, differs) in lists {
        if !differs {
            continue;
        }
        let own = all.get_mut("contexts")?.get_mut(&context.name)?;
        // The one endpoint of old files stands under another key.
        let written = own.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        let path = [Part::key("contexts"), Part::key(&context.name), Part::key(key)];
        text = if written == 0 {
            yaml::set(&text, 0, &path, &json!(is)).ok()?
        } else {
            is.iter().skip(was.len()).enumerate().try_fold(text, |text, (at, value)| {
                let mut path = path.to_vec();
                path.push(Part::At(written + at));
                yaml::set(&text, 0, &path, &json!(value)).ok()
            })?
        };
        let mut list: Vec<Value> = own.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        list.extend(is.iter().skip(if written == 0 { 0 } else { was.len() }).map(|value| json!(value)));
        own[key] = json!(list);
        let what = format!("context {}: {key}", context.name);
        changes.push(match was.as_slice() {
            [] => Change::add(what, is.join(", ")),
            was => Change::set(what, was.join(", "), is.join(", ")),
        });
    }
    let read: Value = serde_saphyr::from_str(&text).ok()?;
    (read == all).then_some(Merged { text, changes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "context: home\ncontexts:\n    home:\n        endpoints: []\n        ca: Y2E= # of 2026\n    work:\n        # by VPN\n        \
                        endpoints:\n            - 10.9.9.9\n        nodes: [10.9.9.9]\n        ca: Y2E=\n    old:\n        target: 10.8.8.8\n";

    fn wanted() -> Wanted {
        Wanted {
            endpoints: vec!["10.0.0.1".into(), "10.0.0.2".into()],
            nodes: vec!["10.0.0.1".into(), "10.0.0.3".into()],
        }
    }

    fn now(name: &str, endpoints: &[&str], nodes: &[&str]) -> Now {
        let all = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Now { name: name.into(), endpoints: all(endpoints), nodes: all(nodes) }
    }

    #[test]
    fn addresses_are_added_and_all_else_stays() {
        let cases = [
            (now("home", &[], &[]), "10.0.0.1 10.0.0.2 | 10.0.0.1 10.0.0.3", 2),
            (now("work", &["10.9.9.9"], &["10.9.9.9"]), "10.9.9.9 10.0.0.1 10.0.0.2 | 10.9.9.9", 1),
            (now("old", &["10.8.8.8"], &[]), "10.8.8.8 10.0.0.1 10.0.0.2 | 10.0.0.1 10.0.0.3", 2),
        ];
        for (now, expected, count) in cases {
            let merged = merge(FILE, &now, &missing(&now, &wanted())).unwrap();
            assert_eq!(merged.changes.len(), count, "{:?}", merged.changes);
            for line in FILE.lines().filter(|line| line.contains('#') || line.contains("ca:")) {
                assert!(merged.text.lines().any(|kept| kept == line), "{line}\n{}", merged.text);
            }
            let all: Value = serde_saphyr::from_str(&merged.text).unwrap();
            let list = |key: &str| {
                let list = all["contexts"][&now.name][key].as_array().unwrap();
                list.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(format!("{} | {}", list("endpoints"), list("nodes")), expected);
            let known = |text: &str| text.split(' ').map(str::to_owned).collect();
            let then =
                Now { name: now.name.clone(), endpoints: known(&list("endpoints")), nodes: known(&list("nodes")) };
            assert!(missing(&then, &wanted()).is_empty(), "twice is once");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_not_written() {
        let aliased = "context: home\ncontexts:\n    home: &all\n        endpoints: []\n    work: *all\n";
        let now = now("work", &[], &[]);
        assert_eq!(merge(aliased, &now, &missing(&now, &wanted())), None);
    }
}
