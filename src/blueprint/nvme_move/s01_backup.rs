//! 01: what the machine is and holds is kept before a drive is touched.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::age::Recipient;
use crate::base::check::{Change, Check};
use crate::base::drives::Plan;
use crate::base::drives::sheet::Told;
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::blueprint::backup::{AGE, kept, place, sealed, snapshot, voter};
use crate::blueprint::configs::{FORMER, configs};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Peer, Said, look};
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::kind;

use super::behind;
use super::readiness::{READY, readiness};
use super::sight::{learned, unasked};
use super::stands::{Placed, Stands, stands};

/// What it is made of, as `pvemig survey --hardware` writes it.
pub(super) const INVENTORY: &str = "inventory.yaml";
/// Which drive was in which slot.
pub(super) const STANDS: &str = "slots.json";
/// What is known of the snapshot, which may be encrypted itself.
const TAKEN: &str = "snapshot.json";
/// What was mounted where.
pub(super) const MOUNTS: &str = "mounts.json";
/// The cluster as a whole.
pub(super) const SURVEY: &str = "survey.json";
const SNAPSHOT: &str = "etcd.snapshot";

/// Keeps machine configuration, inventory, mounts, survey, and of a control plane a snapshot of etcd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backup {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// What is to become of its drives.
    pub plan: Plan,
    /// For whom alone the files with secrets are; none: they are as they are, for their owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
}

/// There was none in this run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

/// Whether this run has a snapshot of etcd: what did not count was not stored.
///
/// # Errors
/// It is there and cannot be read.
pub(super) fn has_snapshot(run: &RunInfo) -> Result<bool, Failure> {
    Ok(any(run, SNAPSHOT)? && any(run, TAKEN)?)
}

/// When this run took its snapshot of etcd; None: it has none, or does not tell.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn snapshot_at(run: &RunInfo) -> Result<Option<jiff::Timestamp>, Failure> {
    let Some(bytes) = kept(run, Backup::ID, TAKEN, TAKEN)? else { return Ok(None) };
    let told: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::plain(format!("{TAKEN} of this run cannot be read: {error}"), None))?;
    Ok(told.get("at").and_then(|at| at.as_str()?.parse().ok()))
}

/// Whether a run file is there, encrypted or not.
fn any(run: &RunInfo, name: &str) -> Result<bool, Failure> {
    let plain = kept(run, Backup::ID, name, name)?;
    Ok(plain.is_some() || kept(run, Backup::ID, &format!("{name}{AGE}"), name)?.is_some())
}

impl Step<Estate> for Backup {
    const ID: &'static str = "01-backup";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("what {} is and holds is kept", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        let name = &self.machine.name;
        vec![
            "The machine configuration and, of a control plane, a snapshot of etcd are the way back where a drive does not come \
             up again. They hold the cluster's secrets: the files are for their owner alone, with `recipients` for these alone."
                .into(),
            "The inventory is what each drive is known by afterwards: serial number, World Wide Name, the uuids of its \
             partitions, and in which slot it was."
                .into(),
            "Drives and mounts are asked of the API: there is no `talosctl execute`, and etcd is no pod that `kubectl -l \
             component=etcd` would find."
                .into(),
            format!(
                "By hand: {}, {}, `talosctl etcd snapshot FILE`, `pvemig survey --hardware {name}`.",
                self.machine.talosctl("get machineconfig v1alpha1 -o yaml"),
                self.machine.talosctl("mounts"),
            ),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let stays = Some(format!("what was kept of {}, with the run", self.machine.name));
        Outlook { stays, keeps: true, ..Outlook::default() }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        let mut missing = Vec::new();
        let files = [
            (FORMER, "its machine configuration"),
            (INVENTORY, "its inventory"),
            (STANDS, "which drive is in which slot"),
            (MOUNTS, "what it has mounted"),
            (READY, "which of its volumes are ready"),
            (SURVEY, "a survey of its cluster"),
        ];
        for (file, what) in files {
            if !any(seen.run, file)? {
                missing.push(Change::act(format!("{name}: {what} is kept")));
            }
        }
        let snapshot = has_snapshot(seen.run)?;
        if !snapshot && !self.is_worker(cx).await? {
            missing.push(Change::act(format!("a snapshot of etcd of {} is kept", self.machine.cluster)));
        }
        if !missing.is_empty() {
            return Ok(Check::todo(missing, Before {}));
        }
        let at = place(seen.run, Self::ID, "");
        let check = Check::done().note(format!("{} files in {at}", files.len() + 2 * usize::from(snapshot)));
        Ok(if snapshot || self.recipients.is_empty() { check } else { check.note("a worker has no etcd") })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (to, talos) = (self.recipients()?, self.machine.open(cx).await?);
        // What is there already stays: after a crash the rest is added, and the journal has the digest of each.
        if !any(seen.run, FORMER)? {
            let config = configs(&self.machine, &talos).await?.active;
            sealed(permit, FORMER, config.expose().as_bytes(), &to)?;
        }
        self.keep_hardware(cx, seen.run, permit).await?;
        permit.go_on()?;
        if !any(seen.run, MOUNTS)? {
            let mounts = talos.list(&kind::MOUNTS).await?.into_iter();
            let mounts: Vec<_> = mounts
                .map(|mount| {
                    let (id, of) = (mount.id, mount.spec);
                    json!({"id": id, "source": of.source, "target": of.target, "filesystem": of.filesystem, "readOnly": of.read_only})
                })
                .collect();
            permit.file(MOUNTS, &written(MOUNTS, &mounts)?)?;
        }
        if !any(seen.run, READY)? {
            permit.file(READY, &written(READY, &readiness(cx, &self.machine).await?)?)?;
        }
        if !any(seen.run, SURVEY)? {
            let names: Vec<String> = self.peers.iter().map(|peer| peer.name.clone()).collect();
            let survey = Box::pin(cx.survey(&names)).await?;
            permit.file(SURVEY, &written(SURVEY, &survey)?)?;
        }
        permit.go_on()?;
        if has_snapshot(seen.run)? { Ok(()) } else { self.keep_etcd(cx, permit, &to).await }
    }

    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done().stays([format!("what was kept of {} stays with the run", self.machine.name)]))
    }
}

fn written(name: &str, value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec_pretty(value).map_err(|error| Failure::plain(format!("{name}: {error}"), None))
}

impl Backup {
    fn recipients(&self) -> Result<Vec<Recipient>, Failure> {
        let read = |text: &String| {
            let help = || Some("correct `recipients` of the migration, and begin another run".to_owned());
            text.parse().map_err(|error: crate::base::age::BadRecipient| Failure::plain(error.to_string(), help()))
        };
        self.recipients.iter().map(read).collect()
    }

    /// What is not known is no worker.
    async fn is_worker(&self, cx: &Estate) -> Result<bool, Failure> {
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        match etcd.said_by(&self.machine.name) {
            Some(Said::Worker) => Ok(true),
            Some(Said::View(_)) => Ok(false),
            Some(Said::Silent(why)) => {
                let help = format!("{} tells more", self.machine.talosctl("service etcd"));
                let text = format!("whether {} has a member of etcd is not known: {why}", self.machine.name);
                Err(Failure::plain(text, Some(help)))
            }
            None => Err(Failure::plain(format!("{} is no node of its Talos cluster", self.machine.name), None)),
        }
    }

    /// The inventory, and what it shows of the slots.
    async fn keep_hardware(&self, cx: &Estate, run: &RunInfo, permit: &Permit) -> Result<(), Failure> {
        let name = &self.machine.name;
        let there = (any(run, STANDS)?, any(run, INVENTORY)?);
        if there == (true, true) {
            return Ok(());
        }
        let sheet = Box::pin(cx.hardware(std::slice::from_ref(name))).await?;
        let live = match sheet.nodes.get(name) {
            Some(Told::Is(facts)) => facts.bays.inventory(),
            Some(Told::Not(why)) => Err(why),
            None => return Err(Failure::plain(format!("{name} tells nothing of its hardware"), None)),
        };
        let mut live = live.map_err(|why| Failure::plain(why.unknown.clone(), why.help.clone()))?;
        if let Some(vm) = &self.machine.vm {
            live = behind::in_host(cx, vm, live).await?;
        }
        if !there.0 {
            let learned = learned(cx, &self.machine, run)?;
            let Placed { layout, ports, guessed } = stands(&self.plan, &learned, &live).map_err(unasked)?;
            let at = Stands { node: name.clone(), taken: sheet.taken, layout, ports, guessed };
            permit.file(STANDS, &written(STANDS, &at)?)?;
        }
        if !there.1 {
            let text = serde_saphyr::to_string(&sheet)
                .map_err(|error| Failure::plain(format!("{INVENTORY}: {error}"), None))?;
            permit.file(INVENTORY, text.as_bytes())?;
        }
        Ok(())
    }

    async fn keep_etcd(&self, cx: &Estate, permit: &Permit, to: &[Recipient]) -> Result<(), Failure> {
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        if let Some(Said::Worker) = etcd.said_by(&self.machine.name) {
            return Ok(());
        }
        let Some(from) = voter(&etcd, &self.peers, &self.machine.name) else {
            let text = format!("no voter of etcd {} is well: there is nobody to take a snapshot from", etcd.cluster);
            return Err(Failure::plain(
                text,
                Some("`pvemig survey` shows its members, and what is wrong with them".into()),
            ));
        };
        let (taken, bytes) = snapshot(cx, &from, SNAPSHOT).await?;
        let file = sealed(permit, SNAPSHOT, &bytes, to)?;
        let told =
            json!({"file": file, "size": taken.size, "sha256": taken.sha256, "member": from, "at": cx.clock().now()});
        permit.file(TAKEN, &written(TAKEN, &told)?)?;
        permit.progress(&format!("{} bytes of etcd from {from}, sha256 {}", taken.size, taken.sha256));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_counts_once_it_is_known_of_when() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunInfo { files: Some(dir.path().to_owned()), ..RunInfo::default() };
        let folder = dir.path().join(Backup::ID);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(SNAPSHOT), "its bytes").unwrap();
        assert_eq!((has_snapshot(&run).unwrap(), snapshot_at(&run).unwrap()), (false, None));
        std::fs::write(folder.join(TAKEN), "{\"at\":\"2026-11-01T00:00:00Z\"}").unwrap();
        assert!(has_snapshot(&run).unwrap() && snapshot_at(&run).unwrap().is_some());
    }
}
