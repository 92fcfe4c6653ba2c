//! 08: Kubernetes knows the new machine, and not the old one: its Node object, its lease, and the volumes attached to it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::install::Stand;
use crate::blueprint::own_vm;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::k8s::gone::{Attachment, Lease};
use crate::k8s::{Kubernetes, Node};

use super::on;
use super::shell::kubectl;
use super::sight::{Life, life};
use super::swap::Swap;
use super::word;

/// What says of a node that its machine is gone, and has nothing to say of the new one.
pub(super) const STALE: [&str; 1] = ["node.kubernetes.io/out-of-service"];
/// What the control plane takes off by itself once it hears the kubelet.
const PASSES: [&str; 2] = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"];

/// Settles the Node object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SettleNode {
    /// What goes and what comes.
    pub swap: Swap,
}

/// What there was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// The uid of the Node object; None where it was gone.
    pub node: Option<String>,
    /// When its kubelet was heard last; None where it had no lease.
    pub lease: Option<String>,
    /// The volumes that were attached to it.
    pub attached: Vec<String>,
    /// Taints that say that its machine is gone.
    pub taints: Vec<String>,
}

/// What Kubernetes has of the old name.
struct Found {
    node: Option<Node>,
    lease: Option<Lease>,
    attached: Vec<Attachment>,
}

impl Found {
    async fn look(kube: &Kubernetes, host: &str) -> Result<Self, Failure> {
        let (node, lease, attached) =
            futures::try_join!(kube.node(host), kube.node_lease(host), kube.attachments_of(host))?;
        Ok(Self { node, lease, attached })
    }

    /// A lease that no garbage collection takes.
    fn left(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| self.node.is_none() && lease.owners.is_empty())
    }

    fn stale(&self) -> Vec<String> {
        let taints = self.node.iter().flat_map(|node| &node.taints);
        taints.map(|taint| taint.key.clone()).filter(|key| STALE.contains(&key.as_str())).collect()
    }

    fn before(&self) -> Before {
        Before {
            node: self.node.as_ref().map(|node| node.meta.uid.clone()),
            lease: self.lease.as_ref().map(|lease| lease.renewed.clone()),
            attached: self.attached.iter().map(ToString::to_string).collect(),
            taints: self.stale(),
        }
    }
}

impl Step<Estate> for SettleNode {
    const ID: &'static str = "08-node-object";
    const RISK: Risk = Risk::Destroys;
    type Before = Before;

    fn title(&self) -> String {
        if self.swap.same_name() {
            format!("node {} speaks of the new machine", self.swap.host())
        } else {
            format!("kubernetes knows no node {} any more", self.swap.host())
        }
    }

    fn why(&self) -> Vec<String> {
        let host = self.swap.host();
        if self.swap.same_name() {
            return vec![
                "The Node object stays, with its labels: the new kubelet takes it over, and tells the uuid of its machine.".into(),
                "A taint that somebody put there because the old machine was gone is none of the new one's.".into(),
                format!("By hand: `kubectl get node {host} -o yaml`, `kubectl taint node {host} {}-`.", STALE[0]),
            ];
        }
        vec![
            "With its Node object Kubernetes forgets the pods of a node, and starts those that only wait for its word elsewhere. On a \
             machine that is only cut off they would run on beside those: so 04 shows first that it is off."
                .into(),
            "Its lease in kube-node-lease goes with it. Volumes that were attached to it are let go of by Kubernetes (about six minutes \
             later) and by their driver: they are named here."
                .into(),
            format!("By hand: `kubectl delete node {host}`. It takes `--destroy {}`.", self.swap.node()),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let what = format!("node {}", self.swap.host());
        let destroys = if self.swap.same_name() { Vec::new() } else { vec![self.swap.node()] };
        let words = destroys.iter().map(|_| self.swap.off()).collect();
        let may_destroy: &[_] = if destroys.is_empty() { &[] } else { &["off"] };
        Outlook {
            spares: destroys.is_empty(),
            destroys,
            words,
            may_destroy,
            ..Outlook::changes(System::Kubernetes, [what])
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let kube = cx.kubernetes(&self.swap.old.node.cluster).await?;
        let found = Found::look(&kube, self.swap.host()).await?;
        if self.swap.same_name() { self.taken_over(cx, &found).await } else { self.forgotten(cx, &found, &seen).await }
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (host, kube) = (self.swap.host(), cx.kubernetes(&self.swap.old.node.cluster).await?);
        let found = Found::look(&kube, host).await?;
        if self.swap.same_name() {
            if let Some(node) = &found.node {
                kube.remove_taints(permit, node, &STALE).await?;
            }
            return Ok(());
        }
        let heard = |lease: &Lease| seen.since.is_none_or(|since| since.lease.as_ref() != Some(&lease.renewed));
        // Once more: from here on its pods are forgotten. Once they are, nothing more is lost with a lease that nobody renews.
        if found.node.is_some() || found.left().is_some_and(heard) {
            let life = life(cx, &self.swap).await?;
            if let Some(problem) = self.still_runs(&life, seen.run) {
                return Err(Failure::plain(problem.text, Some(problem.help)));
            }
            word::keep(&life, &self.swap, seen.run, permit).await?;
        }
        // One that had registered anew, and is silent again, is the same machine's.
        if let Some(node) = &found.node {
            kube.delete_node(permit, host, &node.meta.uid).await?;
        }
        self.sweep(&kube, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let (host, kube) = (self.swap.host(), cx.kubernetes(&self.swap.old.node.cluster).await?);
        let node = kube.node(host).await?;
        if self.swap.same_name() {
            let stays = before.taints.iter().map(|key| format!("node {host} without the taint {key}"));
            return Ok(Check::done().stays(stays));
        }
        Ok(match (node, &before.node) {
            (None, Some(_)) => Check::todo(
                vec![Change::act(format!(
                    "the Node object {host} is gone: it comes back, without labels that somebody set, when its kubelet does"
                ))],
                (),
            ),
            _ => Check::done(),
        })
    }
}

impl SettleNode {
    /// Under a name of its own: the old one's is gone.
    async fn forgotten(&self, cx: &Estate, found: &Found, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let host = self.swap.host();
        let Some(node) = &found.node else {
            return Ok(match (&found.lease, found.left()) {
                (Some(_), Some(lease)) => {
                    let change =
                        Change::remove(format!("lease of {host}"), format!("renewed last at {}", lease.renewed));
                    Check::todo(vec![change], found.before())
                }
                (Some(_), None) => Check::waiting(format!("the lease of {host} goes with its Node object")),
                (None, _) => Check::done().notes(account(cx, &self.swap, seen.since, &found.attached)),
            });
        };
        let anew = seen.since.and_then(|since| since.node.as_ref()).is_some_and(|uid| *uid != node.meta.uid);
        if let Some(mut problem) = self.still_runs(&life(cx, &self.swap).await?, seen.run) {
            if anew {
                problem.text =
                    format!("node {host} has registered anew: its machine was started again; {}", problem.text);
            }
            return Ok(Check::blocked(vec![problem]));
        }
        let mut notes: Vec<String> = found.attached.iter().map(|one| format!("attached to {host}: {one}")).collect();
        notes.extend(found.lease.iter().map(|lease| format!("lease of {host}, renewed last at {}", lease.renewed)));
        if !seen.run.consents.contains(&self.swap.node()) {
            return Ok(Check::blocked(vec![unconsented(&self.swap)]).notes(notes));
        }
        let mut changes =
            vec![Change::remove("kubernetes", format!("node {host}, and what is known of the pods on it"))];
        changes.extend(found.lease.iter().map(|_| Change::remove("kube-node-lease", format!("lease {host}"))));
        Ok(Check::todo(changes, found.before()).notes(notes))
    }

    /// Under the same name: it is the new machine's.
    async fn taken_over(&self, cx: &Estate, found: &Found) -> Result<Check<Before>, Failure> {
        let host = self.swap.host();
        let Some(node) = &found.node else {
            return Ok(Check::waiting(format!("kubernetes has no node {host} yet")));
        };
        let Stand::Ours(talos) = self.swap.new.stand(cx).await? else {
            let text = format!("{} is no part of the cluster yet", self.swap.comer());
            return Ok(Check::blocked(vec![Problem::new(text, "let it join first").mended_by(on::JOIN)]));
        };
        let (own, boot) = futures::try_join!(own_vm::of_node(&talos), talos.this_boot())?;
        let same_board = own.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(&node.system_uuid));
        // Boards of a vendor may have one uuid, or none; no two starts have the same boot id.
        if !same_board || node.boot_id != boot {
            return Ok(Check::waiting(format!(
                "node {host} still speaks of the machine {} (boot {}): the new kubelet has not told yet",
                node.system_uuid, node.boot_id
            )));
        }
        let stale = found.stale();
        if !stale.is_empty() {
            let changes = stale.iter().map(|key| Change::remove(format!("node {host}"), format!("taint {key}")));
            return Ok(Check::todo(changes.collect(), found.before()));
        }
        let left: Vec<&str> =
            node.taints.iter().map(|taint| taint.key.as_str()).filter(|key| PASSES.contains(key)).collect();
        if !left.is_empty() {
            return Ok(Check::waiting(format!("node {host} is still tainted {}", left.join(", "))));
        }
        let uuid = own.map(|own| format!("node {host} runs on the machine {own}"));
        let notes = uuid.into_iter().chain(stays(node, found.lease.as_ref()));
        Ok(Check::done().notes(notes).notes(account(cx, &self.swap, None, &found.attached)))
    }

    /// Why the Node object must not be deleted.
    fn still_runs(&self, life: &Life, run: &RunInfo) -> Option<Problem> {
        if let Some(problem) = life.unsure(&self.swap, run) {
            return Some(problem);
        }
        (!life.is_down()).then(|| {
            let text = format!(
                "{} is not shown to be off: with its Node object gone, what runs on it would run on beside its successors",
                self.swap.goer()
            );
            let off = match life {
                Life::Alive(_) => {
                    format!("switch it off ({}), and see that it stays off", self.swap.old.talosctl("shutdown --force"))
                }
                _ => "let it be off first".into(),
            };
            Problem::new(text, off).mended_by(on::SHUTDOWN)
        })
    }

    /// A lease that nobody else takes.
    async fn sweep(&self, kube: &Kubernetes, permit: &Permit) -> Result<(), Failure> {
        match Found::look(kube, self.swap.host()).await?.left() {
            Some(lease) => Ok(kube.delete_lease(permit, lease).await?),
            None => Ok(()),
        }
    }
}

/// The consent that is missing.
pub(super) fn unconsented(swap: &Swap) -> Problem {
    Problem::new(
        format!("the Node object {} would be deleted, and what Kubernetes knows of its pods with it", swap.host()),
        format!("add `--destroy {}` where it may", swap.node()),
    )
}

/// What the new machine has taken over under the same name.
fn stays(node: &Node, lease: Option<&Lease>) -> [String; 2] {
    let lease = lease.map_or_else(
        || format!("kubernetes has no lease of {} yet: its kubelet makes one", node.meta.name),
        |lease| format!("its lease stays, for the new kubelet to renew: last at {}", lease.renewed),
    );
    [format!("its Node object stays, with its labels ({})", node.meta.uid), lease]
}

/// What became of all that belonged to the old machine.
pub(super) fn account(cx: &Estate, swap: &Swap, since: Option<&Before>, attached: &[Attachment]) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(since) = since {
        notes.extend(since.node.as_ref().map(|uid| format!("its Node object is gone ({uid})")));
        notes.extend(since.lease.as_ref().map(|at| format!("its lease is gone, renewed last at {at}")));
        let left: Vec<String> = attached.iter().map(ToString::to_string).collect();
        notes.extend(since.attached.iter().filter(|was| !left.contains(was)).map(|was| format!("{was} is detached")));
    }
    notes.extend(attached.iter().map(|one| {
        // It may be the new machine's as well: nobody is told to delete what a pod uses.
        if swap.same_name() {
            return format!(
                "{one} names {}, which is the new machine by now: Kubernetes keeps it where a pod there uses the volume, and \
                 detaches it where none does",
                one.node
            );
        }
        let going =
            if one.going { "its driver is at it" } else { "Kubernetes detaches it about six minutes after its pod" };
        let by_hand = kubectl(cx, swap, &format!("delete volumeattachment {}", one.name));
        format!("{one} still names {}: {going}; by hand, once the machine is off for good: {by_hand}", one.node)
    }));
    notes
}
