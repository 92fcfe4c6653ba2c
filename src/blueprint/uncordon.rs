//! A node that takes pods again after a reboot: what the closers of a drain share.

use serde::Deserialize;
use serde_json::Value;

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::hold::MARK;
use crate::base::permit::Permit;
use crate::engine::step::{RunInfo, Seen};
use crate::estate::Estate;
use crate::k8s::{FIELD_MANAGER, Node};

use super::cordon::{Former, cordon_writer, release};
use super::hold::known;
use super::node::KubeNode;

/// What takes the hold on a node off.
#[derive(Debug, Clone, Copy)]
pub struct Closer<'a> {
    /// The node.
    pub node: &'a KubeNode,
    /// The holder's id.
    pub holder: &'static str,
}

/// What is to be done about the cordon.
#[derive(Debug, PartialEq, Eq)]
enum Closing {
    /// Nothing.
    Nothing,
    /// Nothing: the cordon is not ours, and why that is known.
    NotOurs(String),
    /// The mark goes and this `spec.unschedulable` comes back.
    Release(bool),
    /// The mark is of a run that is not known here.
    Blocked(Problem),
}

impl Closer<'_> {
    /// Whether the node is as schedulable as before the hold.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn check(&self, cx: &Estate, seen: &Seen<'_, Former>) -> Result<Check<Former>, Failure> {
        let node = match self.node.find(cx).await? {
            Ok(node) => node,
            Err(missing) => return Ok(Check::blocked(vec![missing])),
        };
        Ok(match self.closing(&node, seen) {
            Closing::Nothing => Check::done(),
            Closing::NotOurs(why) => Check::not_needed(why),
            Closing::Blocked(problem) => Check::blocked(vec![problem]),
            Closing::Release(to) => {
                let before = Former { unschedulable: node.unschedulable };
                Check::todo(release(&self.node.name, &node, to), before)
            }
        })
    }

    /// Takes the mark off, and the cordon where it is ours.
    ///
    /// # Errors
    /// What keeps the API from doing it.
    pub async fn apply(&self, cx: &Estate, seen: &Seen<'_, Former>, permit: &Permit) -> Result<(), Failure> {
        let Ok(node) = self.node.find(cx).await? else { return Ok(()) };
        if let Closing::Release(to) = self.closing(&node, seen) {
            cx.kubernetes(&self.node.cluster).await?.release_node(permit, &self.node.name, to).await?;
        }
        Ok(())
    }

    fn closing(&self, node: &Node, seen: &Seen<'_, Former>) -> Closing {
        // The one call of a closer is the one that lets the node go.
        closing(node, seen.held.get(self.holder), !seen.got.is_empty(), seen.run)
    }
}

/// Whose the cordon is: the mark says it, else what this run remembers of the holder, as long as this step has not let
/// the node go (`gone`) and nobody else is known to have written the cordon since.
fn closing(node: &Node, holder: Option<&Value>, gone: bool, run: &RunInfo) -> Closing {
    let remembered = holder.and_then(|v| Former::deserialize(v).ok());
    let name = &node.meta.name;
    match known(&format!("node {name}"), &node.meta, run) {
        Ok(Some(mark)) => {
            match remembered.filter(|_| mark.run == run.id).or_else(|| Former::deserialize(&mark.was).ok()) {
                Some(former) => Closing::Release(former.unschedulable),
                None => Closing::Blocked(Problem::new(
                    format!("the hold's mark on node {name} does not say how it was before"),
                    format!(
                        "`kubectl uncordon {name}` where it may take pods, then `kubectl annotate node {name} {MARK}-`"
                    ),
                )),
            }
        }
        Err(problem) => Closing::Blocked(problem),
        Ok(None) if !node.unschedulable => Closing::Nothing,
        Ok(None) => match remembered {
            Some(Former { unschedulable: false }) if !gone && !of_others(node) => Closing::Release(false),
            _ => Closing::NotOurs(format!(
                "node {name} is cordoned, and not by this run: that stays; {}",
                cordon_writer(node)
            )),
        },
    }
}

/// Whether the API says that others wrote the cordon, and we did not.
fn of_others(node: &Node) -> bool {
    let owners = node.cordon_owners();
    !owners.is_empty() && owners.iter().all(|owner| owner.manager != FIELD_MANAGER)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::hold::Mark;
    use crate::engine::step::Standing;
    use crate::k8s::meta::Meta;

    fn node(mark: Option<(&str, bool)>, unschedulable: bool) -> Node {
        let annotation = mark.map(|(run, was)| {
            let mark = Mark { run: run.into(), host: "h".into(), was: json!({"unschedulable": was}) };
            (MARK.to_owned(), mark.to_annotation())
        });
        Node {
            meta: Meta { name: "n".into(), annotations: annotation.into_iter().collect(), ..Meta::default() },
            unschedulable,
            ..Node::default()
        }
    }

    /// A node whose cordon was written by `manager`.
    fn cordoned_by(manager: &str) -> Node {
        let mut node = node(None, true);
        node.meta.managed_fields = serde_json::from_value(json!([{
            "manager": manager, "operation": "Update", "apiVersion": "v1",
            "fieldsV1": {"f:spec": {"f:unschedulable": {}}},
        }]))
        .unwrap();
        assert_eq!(node.cordon_owners().len(), 1);
        node
    }

    #[test]
    fn only_our_own_cordon_is_taken_back() {
        let run =
            RunInfo { id: "me".into(), others: [("single".to_owned(), Standing::Closed)].into(), ..RunInfo::default() };
        let run = RunInfo { host: "h".into(), ..run };
        let held = json!({"unschedulable": false});
        let ask = |node: &Node, held: Option<&Value>, gone| closing(node, held, gone, &run);
        assert_eq!(ask(&node(Some(("me", false)), true), Some(&held), false), Closing::Release(false));
        // Cordoned before by somebody else: the mark goes, the cordon stays.
        assert_eq!(ask(&node(Some(("single", true)), true), None, false), Closing::Release(true));
        // Uncordoned by somebody while our mark is up: the mark goes.
        assert_eq!(ask(&node(Some(("me", false)), false), Some(&held), false), Closing::Release(false));
        let Closing::Blocked(problem) = ask(&node(Some(("foreign", false)), true), None, false) else { panic!() };
        assert!(problem.text.contains("foreign of this machine"), "{problem:?}");
        assert_eq!(ask(&node(None, false), Some(&held), true), Closing::Nothing);
        assert!(matches!(ask(&node(None, true), None, false), Closing::NotOurs(_)));
        // The mark was taken off by something else; this run remembers.
        assert_eq!(ask(&node(None, true), Some(&held), false), Closing::Release(false));
        // Released by this step, and cordoned anew by somebody else.
        assert!(matches!(ask(&node(None, true), Some(&held), true), Closing::NotOurs(_)));
        // The same where the answer to our patch was lost, or the cordon came between the look and the patch.
        assert!(matches!(ask(&cordoned_by("kubectl-cordon"), Some(&held), false), Closing::NotOurs(_)));
        assert_eq!(ask(&cordoned_by(FIELD_MANAGER), Some(&held), false), Closing::Release(false));
    }
}
