//! 09: the node is what it was before its drives were moved, but for what the plan changes.

mod diff;
mod rejoin;
mod standstill;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Check, Problem};
use crate::base::drives::{Inventory, Plan, Purpose};
use crate::base::fault::Failure;
use crate::base::survey::Survey;
use crate::blueprint::backup::kept;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Etcd, Peer, Said, amiss, look, unwell};
use crate::blueprint::stand::{kubelet, may_pass, missing, static_pods};
use crate::engine::step::{Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::k8s::mayastor::MayastorVolume;
use crate::talos::kind;

use super::on;
use super::params::Params;
use super::s01_backup::SURVEY;
use super::s07_verify_volumes::names;
use super::sight::{Stand, facts, stand};
use super::volumes::{self, Judged, drives};
use standstill::Standstill;

/// How long nothing may come nearer.
const STILL: Duration = Duration::from_secs(1_800);

/// Holds the node against how it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Validate {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// What is to become of its drives.
    pub plan: Plan,
    /// The names of the user volumes that are new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    #[serde(skip)]
    still: Standstill,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl From<&Params> for Validate {
    fn from(p: &Params) -> Self {
        Self {
            machine: p.machine.clone(),
            peers: p.peers.clone(),
            plan: p.plan.clone(),
            volumes: names(&p.volumes),
            still: Standstill::default(),
        }
    }
}

impl Step<Estate> for Validate {
    const ID: &'static str = "09-validate";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} is what it was, but for its drives", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "The survey that 01 has kept is held against one of now: drives by what they are, mounts, the node with its uid, its static \
             pods, local volumes on their drives, Talos, etcd. What only time changes is left out."
                .into(),
            "Mayastor rebuilds what its replicas have missed, which may take hours: it is waited for as long as that goes on, and half \
             an hour where nothing moves."
                .into(),
            "Static pods are Talos' own here, and etcd is no pod at all: `kubectl -l component=etcd` finds nothing. Certificates are \
             looked at with `talosctl get apidcertificates`; there is no `get certificates`."
                .into(),
            format!(
                "By hand: {}, {}, `kubectl get node {}`, `kubectl get diskpools -A`, and `pvemig survey {}` against 01's.",
                self.machine.talosctl("services"),
                self.machine.talosctl("etcd status"),
                self.machine.node.name,
                self.machine.name
            ),
        ]
    }

    /// A rebuild of terabytes goes on for long; where nothing moves half an hour is all.
    fn limit(&self) -> Duration {
        Duration::from_secs(24 * 3_600)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (judged, progress) = match Box::pin(self.look(cx, seen.run)).await {
            Err(failure) if may_pass(&failure) => {
                (Judged { waits: vec![failure.to_string()], ..Judged::default() }, String::new())
            }
            other => other?,
        };
        let waits = judged.waits.clone();
        let check = judged.check();
        if !matches!(check.answer, Answer::Waiting { .. }) {
            return Ok(check);
        }
        // Whoever waits for it wants to know why it does not come.
        let check = check.notes(rejoin::signs(cx, &self.machine).await);
        let help = format!("`pvemig resume` waits on; {} shows how it is", self.machine.talosctl("services"));
        match self.still.stands(cx.clock().instant(), &progress, waits.len()) {
            Some(stands) if stands > STILL => {
                let text = format!("nothing has come nearer for half an hour: {}", waits.join("; "));
                let told = check.notes.join("; ");
                Err(Failure::plain(if told.is_empty() { text } else { format!("{text}; {told}") }, Some(help)))
            }
            _ => Ok(check),
        }
    }
}

impl Validate {
    /// The cheap questions first: as long as it is not up the others are not asked.
    async fn look(&self, cx: &Estate, run: &RunInfo) -> Result<(Judged, String), Failure> {
        let mut judged = Judged { waits: Box::pin(self.up(cx)).await?, ..Judged::default() };
        if !judged.waits.is_empty() {
            return Ok((judged, String::new()));
        }
        let (mayastor, progress) = Box::pin(self.mayastor(cx)).await?;
        judged = judged.and(mayastor);
        if !judged.waits.is_empty() {
            return Ok((judged, progress));
        }
        judged =
            judged.and(match Box::pin(stand(cx, &self.machine, &self.plan, run, &self.plan.target, None)).await? {
                Stand::There(notes) => Judged { notes, ..Judged::default() },
                Stand::Amiss(problems, notes) => {
                    // The node is in use again: nothing is switched off from here.
                    let problems = problems.into_iter().map(|problem| Problem { mended_by: None, ..problem }).collect();
                    Judged { problems, notes, ..Judged::default() }
                }
                Stand::Waits(..) => {
                    let why = format!("{} waits for a configuration", self.machine.name);
                    Judged { waits: vec![why], ..Judged::default() }
                }
                Stand::Between(why) | Stand::Deaf(why) | Stand::Other(why) | Stand::Off(why) => {
                    Judged { waits: vec![why], ..Judged::default() }
                }
            });
        judged = judged.and(Box::pin(volumes::look(cx, &self.machine, &self.plan, &self.volumes, run)).await?);
        judged = judged.and(Box::pin(self.local(cx, run)).await?);
        Ok((judged.and(Box::pin(self.surveyed(cx, run)).await?), progress))
    }

    /// What is missing until it is up: Talos, kubelet, etcd, static pods.
    async fn up(&self, cx: &Estate) -> Result<Vec<String>, Failure> {
        let (machine, node) = (&self.machine, &self.machine.node);
        let talos = machine.open(cx).await?;
        let (status, services) = futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services())?;
        let Some(status) = status.map(|status| status.spec) else {
            return Ok(vec![format!("{} does not tell its stage yet", machine.name)]);
        };
        let mut lines = missing(machine, &status, &services);
        let kube = cx.kubernetes(&node.cluster).await?;
        let boot = talos.this_boot().await?;
        lines.extend(kubelet(machine, kube.node(&node.name).await?.as_ref(), &boot));
        let etcd = look(cx, &machine.cluster, &self.peers).await;
        lines.extend(amiss(&machine.name, &etcd).map(|problem| problem.text));
        lines.extend(unwell(&etcd).into_iter().filter(|line| !lines.contains(line)).collect::<Vec<_>>());
        let pods = kube.pods_on(&node.name).await?;
        lines.extend(static_pods(&pods));
        let serves = pods.iter().any(|pod| pod.is_mirror() && pod.meta.name.starts_with("kube-apiserver-"));
        if is_control_plane(&machine.name, &etcd) && !serves {
            lines.push(format!("no API server runs on {} yet", node.name));
        }
        Ok(lines)
    }

    /// Replicas that are on the node are in step again. `1`: how far rebuilds are.
    async fn mayastor(&self, cx: &Estate) -> Result<(Judged, String), Failure> {
        let kube = cx.kubernetes(&self.machine.node.cluster).await?;
        let pools = kube.disk_pools().await?.unwrap_or_default();
        let Some(first) = pools.first() else { return Ok((Judged::default(), String::new())) };
        let volumes = kube.mayastor_volumes(&first.namespace).await?;
        Ok(in_step(&volumes, &self.machine.node.name))
    }

    /// Local volumes of Kubernetes are on the drives that they were on.
    async fn local(&self, cx: &Estate, run: &RunInfo) -> Result<Judged, Failure> {
        let Some(facts) = facts(&self.machine, run)? else { return Ok(Judged::default()) };
        let before = facts.bays.inventory();
        let before = before.map_err(|why| Failure::plain(why.unknown.clone(), why.help.clone()))?;
        let drives = drives(cx, &self.machine, &self.plan, run).await?;
        let volumes = cx.kubernetes(&self.machine.node.cluster).await?.volumes().await?;
        let there: Vec<&str> = volumes.iter().map(|volume| volume.meta.name.as_str()).collect();
        Ok(diff::local(&drives.known.plan, &before, &drives.live, &there))
    }

    /// The survey of 01 against one of now.
    async fn surveyed(&self, cx: &Estate, run: &RunInfo) -> Result<Judged, Failure> {
        let unread = |why: String| {
            let help = "`pvemig abandon` this run, and begin another one".to_owned();
            Failure::plain(format!("{SURVEY} of this run cannot be read: {why}"), Some(help))
        };
        let Some(bytes) = kept(run, on::BACKUP, SURVEY, SURVEY)? else {
            let notes = vec!["this run has no survey of before: there is nothing to hold this one against".to_owned()];
            return Ok(Judged { notes, ..Judged::default() });
        };
        let then: Survey = serde_json::from_slice(&bytes).map_err(|error| unread(error.to_string()))?;
        let names: Vec<String> = self.peers.iter().map(|peer| peer.name.clone()).collect();
        let now = Box::pin(cx.survey(&names)).await?;
        let name = &self.machine.name;
        match (then.node(name), now.node(name)) {
            (Some(then), Some(now)) => Ok(diff::node(&self.plan, then, now)),
            (None, _) => Err(unread(format!("{name} is not in it"))),
            (_, None) => Err(Failure::plain(format!("{name} is no node of the site file"), None)),
        }
    }
}

fn is_control_plane(name: &str, etcd: &Etcd) -> bool {
    matches!(etcd.said_by(name), Some(Said::View(_)))
}

/// Which volumes of Mayastor still miss something on the node, and how far their rebuilds are.
fn in_step(volumes: &[MayastorVolume], node: &str) -> (Judged, String) {
    let mut out = Judged::default();
    let mut progress = Vec::new();
    for volume in volumes.iter().filter(|volume| !volume.is_whole()) {
        let far = volume.replicas.iter().filter_map(|replica| replica.rebuild).map(|far| format!("{far} %"));
        let far = far.collect::<Vec<_>>().join(", ");
        if volume.may_be_on(node) || volume.rebuilds() {
            progress.push(format!("{} {far}", volume.uuid));
            let how = if far.is_empty() { volume.health.to_string() } else { format!("being rebuilt: {far}") };
            out.waits.push(format!("volume {} of Mayastor is not whole: {how}", volume.uuid));
        } else {
            out.notes
                .push(format!("volume {} of Mayastor is {}, and has nothing on {node}", volume.uuid, volume.health));
        }
    }
    if out.waits.is_empty() && !volumes.is_empty() {
        out.notes
            .push(format!("the {} volumes of Mayastor with a replica on {node} or none are in step", volumes.len()));
    }
    (out, progress.join("; "))
}

/// What local volumes were on a drive.
fn local_of(drive: &crate::base::drives::Drive) -> impl Iterator<Item = &str> {
    drive.purposes.iter().filter_map(|purpose| match purpose {
        Purpose::Local(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The drive that has a local volume.
fn has_local<'i>(inventory: &'i Inventory, name: &str) -> Option<&'i crate::base::drives::Drive> {
    inventory.drives.iter().find(|drive| local_of(drive).any(|local| local == name))
}

#[cfg(test)]
mod tests;
