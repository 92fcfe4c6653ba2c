//! The node label that the workload selects: set or not, and who would put it back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::estate::Estate;
use crate::k8s::Node;
use crate::k8s::meta::Meta;

use super::params::KubeNode;

/// The label's value before; None where there was no label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The value.
    pub value: Option<String>,
}

/// A label of a node, and the value that it should have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) node: &'a KubeNode,
    pub(super) key: &'a str,
    pub(super) value: Option<&'a str>,
}

impl Wanted<'_> {
    /// Whether it is so; where the site names no label there is nothing to be so.
    pub(super) async fn check(wanted: Option<Self>, cx: &Estate) -> Result<Check<Before>, Failure> {
        let Some(this) = wanted else { return Ok(Check::not_needed("the site names no label")) };
        let node = match this.node.find(cx).await? {
            Ok(node) => node,
            Err(missing) => return Ok(Check::blocked(vec![missing])),
        };
        let now = this.now(&node);
        if now == this.value {
            return Ok(Check::done());
        }
        let found = put_back_by(&node.meta, this.key);
        let writer =
            node.label_owners(this.key).into_iter().next().map(|by| format!("label {} was written by {by}", this.key));
        let check = Check::todo(this.change(now, this.value), Before { value: now.map(str::to_owned) });
        Ok(check.notes(writer.into_iter().chain(found)))
    }

    pub(super) async fn apply(wanted: Option<Self>, cx: &Estate, permit: &Permit) -> Result<(), Failure> {
        let Some(this) = wanted else { return Ok(()) };
        let Ok(node) = this.node.find(cx).await? else { return Ok(()) };
        this.write(cx, &node, this.value, permit).await
    }

    pub(super) async fn back(wanted: Option<Self>, cx: &Estate, before: &Before) -> Result<Check<()>, Failure> {
        let Some(this) = wanted else { return Ok(Check::done()) };
        let was = before.value.as_deref();
        let node = match this.node.find(cx).await? {
            Ok(node) => node,
            Err(missing) => return Ok(Check::blocked(vec![missing])),
        };
        let now = this.now(&node);
        Ok(if now == was {
            Check::done()
        } else if now == this.value {
            Check::todo(this.change(now, was), ())
        } else {
            let show = |value: Option<&str>| value.map_or_else(|| "absent".to_owned(), |v| format!("`{v}`"));
            Check::blocked(vec![Problem::new(
                format!(
                    "label {} of node {} was {}, this run made it {}, and now it is {}",
                    this.key,
                    this.node.name,
                    show(was),
                    show(this.value),
                    show(now)
                ),
                format!("set it to one of the first two with `kubectl label node {} {}=..`", this.node.name, this.key),
            )])
        })
    }

    pub(super) async fn undo(
        wanted: Option<Self>,
        cx: &Estate,
        before: &Before,
        permit: &Permit,
    ) -> Result<(), Failure> {
        let Some(this) = wanted else { return Ok(()) };
        match this.node.find(cx).await? {
            Ok(node) if this.now(&node) == this.value => this.write(cx, &node, before.value.as_deref(), permit).await,
            _ => Ok(()),
        }
    }

    fn now<'n>(&self, node: &'n Node) -> Option<&'n str> {
        node.meta.labels.get(self.key).map(String::as_str)
    }

    fn change(&self, from: Option<&str>, to: Option<&str>) -> Vec<Change> {
        let what = format!("node {} label {}", self.node.name, self.key);
        vec![match (from, to) {
            (Some(from), Some(to)) => Change::set(what, from, to),
            (Some(from), None) => Change::remove(what, from),
            (None, to) => Change::add(what, to.unwrap_or_default()),
        }]
    }

    async fn write(&self, cx: &Estate, node: &Node, value: Option<&str>, permit: &Permit) -> Result<(), Failure> {
        if self.now(node) == value {
            return Ok(());
        }
        let k8s = cx.kubernetes(&self.node.cluster).await?;
        match value {
            Some(value) => k8s.set_node_label(permit, &self.node.name, self.key, value).await?,
            None => k8s.remove_node_label(permit, &self.node.name, self.key).await?,
        }
        Ok(())
    }
}

/// Where a label is declared besides the API, by what the distributions write on their nodes: k3s and RKE2 the
/// arguments of their start (k3s pkg/nodeconfig, and pkg/agent sets `--node-label` at each start), Talos the labels
/// that its machine config owns, node-feature-discovery those that it found.
pub(super) fn put_back_by(node: &Meta, key: &str) -> Vec<String> {
    let annotation = |name: &str| node.annotations.get(name).map(String::as_str).unwrap_or_default();
    let mut found = Vec::new();
    for name in ["k3s.io/node-args", "rke2.io/node-args"] {
        let arguments: Vec<String> = list(annotation(name));
        let mut labels = arguments.iter().enumerate().filter_map(|(at, argument)| match argument.as_str() {
            "--node-label" => arguments.get(at + 1).map(String::as_str),
            argument => argument.strip_prefix("--node-label="),
        });
        if labels.any(|l| l.split(',').any(|l| l.split('=').next() == Some(key))) {
            let program = name.split('.').next().unwrap_or_default();
            found.push(format!(
                "{program} on {} is started with `--node-label {key}=..` and sets the label again at each start: \
                 take it out of its config",
                node.name
            ));
        }
    }
    if list(annotation("talos.dev/owned-labels")).iter().any(|owned| owned == key) {
        found.push(format!(
            "the machine config of {} declares label {key} (machine.nodeLabels) and Talos sets it again at once: take \
             it out there",
            node.name
        ));
    }
    let features = annotation("nfd.node.kubernetes.io/feature-labels").split(',').map(str::trim);
    if features.into_iter().any(|f| f == key || format!("feature.node.kubernetes.io/{f}") == key) {
        found.push(format!("node-feature-discovery sets label {key} as long as it finds the feature on {}", node.name));
    }
    found
}

/// A JSON list of strings; anything else is none.
fn list(text: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_puts_a_label_back_is_read_from_the_node() {
        let node = |name: &str, value: &str| Meta {
            name: "n".into(),
            annotations: [(name.to_owned(), value.to_owned())].into(),
            ..Meta::default()
        };
        let cases = [
            ("k3s.io/node-args", r#"["agent","--node-label","coral=true"]"#, 1),
            ("k3s.io/node-args", r#"["agent","--node-label=disk=ssd,coral=true"]"#, 1),
            ("rke2.io/node-args", r#"["agent","--node-label","coral"]"#, 1),
            ("k3s.io/node-args", r#"["agent","--node-label","coralline=true","--x","coral=true"]"#, 0),
            ("k3s.io/node-args", "not json", 0),
            ("talos.dev/owned-labels", r#"["coral"]"#, 1),
            ("talos.dev/owned-labels", r#"["corals"]"#, 0),
            ("nfd.node.kubernetes.io/feature-labels", "usb-1a6e.present, coral", 1),
        ];
        for (name, value, count) in cases {
            assert_eq!(put_back_by(&node(name, value), "coral").len(), count, "{name} {value}");
        }
        assert_eq!(put_back_by(&Meta::default(), "coral"), Vec::<String>::new());
    }
}
