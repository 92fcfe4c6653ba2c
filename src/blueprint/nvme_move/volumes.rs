//! The volumes of a machine against how they were: ready, on the drive that has their partition, mounted where they were.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::check::{Check, Problem};
use crate::base::drives::{Drive, Inventory, Plan, Purpose, Sight, Wanted, name, placed};
use crate::base::fault::Failure;
use crate::blueprint::backup::kept;
use crate::blueprint::machine::Machine;
use crate::blueprint::stand::may_pass;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::k8s::mayastor::DiskPool;
use crate::talos::kind::{self, Mount, Stage, VolumeStatus};

use super::behind;
use super::diagnose::not_mounted;
use super::on;
use super::readiness::{self, Readiness};
use super::s01_backup::MOUNTS;
use super::sight::{Known, facts, known, unasked};

/// Volumes of an installation by their labels; each is found wherever its disk is, and stays what it is.
const OWN: &[&str] = &["META", "STATE", "EPHEMERAL", "ETCD"];
/// Where Talos mounts user volumes, by their names.
const USER_VOLUMES: &str = "/var/mnt/";

/// The drives of a machine, and which of the plan's each is.
pub(super) struct Drives {
    pub(super) known: Known,
    pub(super) live: Inventory,
    pub(super) sight: Sight,
}

impl Drives {
    /// What a drive of the plan is for.
    pub(super) fn wanted(&self, name: &str) -> &[Purpose] {
        self.known.plan.drives.get(name).map_or(&[], |wanted| &wanted.purposes)
    }

    /// The operator's name of a live drive.
    fn named(&self, at: usize) -> Option<&str> {
        self.sight.found.iter().find(|found| found.at == at).map(|found| found.name.as_str())
    }
}

/// Asks for the drives.
///
/// # Errors
/// What keeps the machine from telling.
pub(super) async fn drives(cx: &Estate, machine: &Machine, plan: &Plan, run: &RunInfo) -> Result<Drives, Failure> {
    let live = behind::inventory(cx, machine).await?;
    let known = known(cx, machine, plan, run, Some(&live))?;
    let sight = placed(&known.plan, &plan.target, &known.before, &live).map_err(unasked)?;
    Ok(Drives { known, live, sight })
}

/// What came of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// What waiting does not mend.
    pub(super) problems: Vec<Problem>,
    /// What is on its way.
    pub(super) waits: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Judged {
    pub(super) fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self.waits.extend(other.waits);
        self.notes.extend(other.notes);
        self
    }

    pub(super) fn check<B>(self) -> Check<B> {
        if !self.problems.is_empty() {
            Check::blocked(self.problems).notes(self.notes)
        } else if self.waits.is_empty() {
            Check::done().notes(self.notes)
        } else {
            Check::waiting(self.waits.join("; ")).notes(self.notes)
        }
    }
}

/// A volume that was there before anything was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Was {
    /// Its label, which is its id.
    id: String,
    /// The uuid of its partition.
    uuid: String,
    /// The drive that it was on.
    drive: Drive,
    /// The operator's name of that drive.
    name: Option<String>,
}

/// A mount, as 01 has written it down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mounted {
    id: String,
    target: String,
    #[serde(default)]
    source: String,
    read_only: bool,
}

/// What was there, as far as it stays.
#[derive(Debug, Default)]
struct Former {
    volumes: Vec<Was>,
    mounts: Vec<Mounted>,
    /// What served; None: that is not known, and all of it is asked for.
    ready: Option<Readiness>,
    notes: Vec<String>,
}

/// What is there.
struct Now {
    booted: bool,
    statuses: BTreeMap<String, VolumeStatus>,
    mounts: Vec<(String, Mount)>,
}

/// Every volume that this run knows, and the new ones of the plan, and the pools of Mayastor.
///
/// # Errors
/// What keeps the machine from telling, and what was kept and cannot be read.
pub(super) async fn look(
    cx: &Estate,
    machine: &Machine,
    plan: &Plan,
    volumes: &[String],
    run: &RunInfo,
) -> Result<Judged, Failure> {
    let talos = machine.open(cx).await?;
    let (status, statuses, mounts) = futures::try_join!(
        talos.single(&kind::MACHINE_STATUS),
        talos.list(&kind::VOLUME_STATUSES),
        talos.list(&kind::MOUNTS),
    )?;
    let now = Now {
        booted: status.is_some_and(|status| status.spec.stage == Stage::Running),
        statuses: statuses.into_iter().map(|one| (one.id, one.spec)).collect(),
        mounts: mounts.into_iter().map(|one| (one.id, one.spec)).collect(),
    };
    let drives = drives(cx, machine, plan, run).await?;
    let former = former(machine, &drives, run)?;
    let talosctl = |rest: &str| machine.talosctl(rest);
    let of_volumes = judge(&former, volumes, &now, &drives, &talosctl);
    Ok(of_volumes.and(pools(cx, machine, &drives, former.ready.as_ref()).await?))
}

/// What 01 of this run has kept of the volumes.
fn former(machine: &Machine, drives: &Drives, run: &RunInfo) -> Result<Former, Failure> {
    let Some(facts) = facts(machine, run)? else {
        let note = format!("no inventory of {} was kept: there is nothing to hold its volumes against", machine.name);
        return Ok(Former { notes: if run.id.is_empty() { Vec::new() } else { vec![note] }, ..Former::default() });
    };
    let before = facts.bays.inventory();
    let before = before.map_err(|why| Failure::plain(why.unknown.clone(), why.help.clone()))?;
    let mounts: Vec<Mounted> = match kept(run, on::BACKUP, MOUNTS, MOUNTS)? {
        None => Vec::new(),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Failure::plain(format!("{MOUNTS} of this run cannot be read: {error}"), None))?,
    };
    let former = staying(&drives.known.plan, &before, mounts)?;
    Ok(Former { ready: readiness::former(run)?, ..former })
}

/// The volumes and mounts that are to be there afterwards, too: what leaves with its drive is not.
fn staying(plan: &Plan, before: &Inventory, mounts: Vec<Mounted>) -> Result<Former, Failure> {
    let mut out = Former::default();
    let named = name(plan, before).map_err(unasked)?;
    let (mut left, mut gone) = (Vec::new(), Vec::new());
    for (at, drive) in before.drives.iter().enumerate() {
        let name = named.found.iter().find(|found| found.at == at).map(|found| found.name.clone());
        let stays = name.as_ref().is_none_or(|name| Plan::slot_of(&plan.target, name).is_some());
        if !stays {
            gone.push(drive.id.clone());
        }
        let is_system = drive.purposes.contains(&Purpose::System);
        let own = |label: &str| is_system && OWN.contains(&label);
        let made = |label: &str| ["u-", "r-", "s-"].iter().any(|before| label.starts_with(before));
        for part in drive.parts.known().into_iter().flatten() {
            if part.uuid.is_empty() || !(own(&part.label) || made(&part.label)) {
                continue;
            }
            if stays {
                let (id, uuid) = (part.label.clone(), part.uuid.clone());
                out.volumes.push(Was { id, uuid, drive: drive.clone(), name: name.clone() });
            } else if made(&part.label) {
                out.notes.push(format!("the volume {} has left with {}", part.label, drive.shown()));
                left.push(part.label.clone());
            }
        }
    }
    let counts = |mount: &Mounted| {
        let own = OWN.contains(&mount.id.as_str()) || mount.target.starts_with(USER_VOLUMES);
        // `machine.disks` are mounted wherever the configuration has them.
        let of_a_disk = mount.source.starts_with("/dev/") && !mount.source.starts_with("/dev/loop");
        let left = left.contains(&mount.id) || gone.iter().any(|disk| is_below(&mount.source, disk));
        (own || of_a_disk) && !left
    };
    out.mounts = mounts.into_iter().filter(counts).collect();
    Ok(out)
}

/// Pure: what was against what is.
fn judge(former: &Former, volumes: &[String], now: &Now, drives: &Drives, talosctl: &dyn Fn(&str) -> String) -> Judged {
    let mut out = Judged { notes: former.notes.clone(), ..Judged::default() };
    for was in &former.volumes {
        let served = former.ready.as_ref().is_none_or(|ready| ready.volumes.contains(&was.id));
        known_volume((was, served), now, drives, talosctl, &mut out);
    }
    for name in volumes {
        new_volume(name, now, drives, &mut out);
    }
    for was in &former.mounts {
        // A volume that is not ready has a line of its own.
        let ready = now.statuses.get(&was.id).is_none_or(|status| status.phase == "ready");
        match now.mounts.iter().find(|(_, mount)| mount.target == was.target) {
            None if ready => out.waits.push(format!("{} is not mounted at {}", was.id, was.target)),
            None => {}
            Some((_, mount)) if mount.read_only && !was.read_only => out.problems.push(Problem::new(
                format!("{} at {} is mounted read-only, and was not before", was.id, was.target),
                format!("its file system has found something wrong: {} has the kernel's words", talosctl("dmesg")),
            )),
            Some(_) => {}
        }
    }
    out
}

/// `served`: it was ready before; what was not is not waited for.
fn known_volume(
    (was, served): (&Was, bool),
    now: &Now,
    drives: &Drives,
    talosctl: &dyn Fn(&str) -> String,
    out: &mut Judged,
) {
    let live = &drives.live.drives;
    let has = |drive: &Drive| drive.parts.known().is_some_and(|parts| parts.iter().any(|part| part.uuid == was.uuid));
    let found: Vec<usize> = (0..live.len()).filter(|at| live.get(*at).is_some_and(has)).collect();
    let status = now.statuses.get(&was.id);
    let phase = status.map_or("unknown to Talos", |status| status.phase.as_str());
    let error = status.map_or("", |status| status.error_message.as_str());
    let on = found.first().and_then(|at| live.get(*at));
    let help = format!("{} and {} show where it is", talosctl("get volumestatus"), talosctl("get discoveredvolumes"));
    let mut refuse = |text: String| out.problems.push(Problem::new(text, help.clone()));
    match found.as_slice() {
        [] => {
            let unread = live.iter().find_map(|drive| drive.parts.reason().map(|why| (drive, why)));
            let text = not_mounted(&was.id, phase, error, None);
            match unread {
                Some((drive, why)) => {
                    out.waits.push(format!("{}: what is on {} is not known: {why}", was.id, drive.shown()));
                }
                None if now.booted => refuse(format!("{text}; it was on {}", was.drive.shown())),
                None => out.waits.push(text),
            }
            return;
        }
        [at] => {
            if let Some(drive) = on.filter(|drive| !is_same(was, drive, drives.named(*at))) {
                refuse(format!("{} is on {}, and was on {}", was.id, drive.shown(), was.drive.shown()));
                return;
            }
        }
        several => {
            let all: Vec<String> = several.iter().filter_map(|at| live.get(*at)).map(Drive::shown).collect();
            refuse(format!("the partition of {} is on {} drives: {}", was.id, all.len(), all.join(", ")));
            return;
        }
    }
    let Some(drive) = on else { return };
    match status {
        Some(status) if status.phase == "ready" => {
            let at = [&status.parent_location, &status.location].into_iter().find(|at| !at.is_empty());
            match at.filter(|at| !is_below(at, &drive.id)) {
                Some(at) => refuse(format!("{} is {at}, and its partition is on {}", was.id, drive.shown())),
                None => out.notes.push(format!("{} is ready on {}", was.id, drive.shown())),
            }
        }
        _ if !served => {
            out.notes.push(format!("{} on {} is not ready ({phase}), and was not before", was.id, drive.shown()));
        }
        // Talos looks again whenever something changes on the drives.
        _ => out.waits.push(not_mounted(&was.id, phase, error, Some(&drive.shown()))),
    }
}

/// `/dev/nvme0n1` or one of its partitions.
fn is_below(path: &str, disk: &str) -> bool {
    let rest = path.strip_prefix("/dev/").and_then(|name| name.strip_prefix(disk));
    rest.is_some_and(|rest| rest.is_empty() || rest.trim_start_matches('p').bytes().all(|byte| byte.is_ascii_digit()))
}

/// The drive that a volume was on.
fn is_same(was: &Was, drive: &Drive, name: Option<&str>) -> bool {
    match (&was.name, name) {
        (Some(was), Some(name)) => was == name,
        _ if was.drive.serial().is_empty() || drive.serial().is_empty() => {
            (was.drive.model.trim(), was.drive.size) == (drive.model.trim(), drive.size)
        }
        _ => was.drive.serial() == drive.serial(),
    }
}

fn new_volume(name: &str, now: &Now, drives: &Drives, out: &mut Judged) {
    let (id, purpose) = (format!("u-{name}"), Purpose::UserVolume(name.to_owned()));
    let is_for = |wanted: &Wanted| wanted.purposes.contains(&purpose);
    let plan = &drives.known.plan;
    let of = plan.drives.iter().find(|(_, wanted)| is_for(wanted)).map(|(name, _)| name.as_str());
    let drive = of.and_then(|name| drives.sight.of(name)).and_then(|found| drives.live.drives.get(found.at));
    let (Some(of), Some(drive)) = (of, drive) else {
        out.waits.push(format!("{id}: its drive is not there"));
        return;
    };
    let Some(status) = now.statuses.get(&id) else {
        out.waits.push(format!("Talos does not know {id} yet"));
        return;
    };
    if status.phase != "ready" {
        let is_there = drive.parts.known().into_iter().flatten().any(|part| part.label == id);
        let on = is_there.then(|| drive.shown());
        out.waits.push(not_mounted(&id, &status.phase, &status.error_message, on.as_deref()));
        return;
    }
    if !is_below(&status.location, &drive.id) {
        let text = format!("{id} is {}, and the plan has it on {of} ({})", status.location, drive.shown());
        out.problems.push(Problem::new(text, "look at its `UserVolumeConfig`: `talosctl get machineconfig -o yaml`"));
        return;
    }
    let target = format!("{USER_VOLUMES}{name}");
    match now.mounts.iter().find(|(_, mount)| mount.target == target) {
        None => out.waits.push(format!("{id} is not mounted at {target}")),
        Some((_, mount)) if mount.read_only => {
            out.problems.push(Problem::new(format!("{id} at {target} is mounted read-only"), "`talosctl dmesg`"));
        }
        Some(_) => out.notes.push(format!("{id} is new, and ready on {of} ({})", drive.shown())),
    }
}

/// The pools of Mayastor on the node serve again.
async fn pools(cx: &Estate, machine: &Machine, drives: &Drives, ready: Option<&Readiness>) -> Result<Judged, Failure> {
    let asked = async {
        let kube = cx.kubernetes(&machine.node.cluster).await?;
        Ok::<_, Failure>(kube.disk_pools().await?)
    };
    match asked.await {
        Ok(pools) => Ok(of_pools(&pools.unwrap_or_default(), &machine.node.name, drives, ready)),
        Err(failure) if may_pass(&failure) => {
            let waits = vec![format!("the pools of Mayastor cannot be asked yet: {failure}")];
            Ok(Judged { waits, ..Judged::default() })
        }
        Err(failure) => Err(failure),
    }
}

fn of_pools(pools: &[DiskPool], node: &str, drives: &Drives, ready: Option<&Readiness>) -> Judged {
    let mut out = Judged::default();
    for pool in pools.iter().filter(|pool| pool.node == node) {
        let name = &pool.name;
        if pool.going {
            out.notes.push(format!("pool {name} is being deleted"));
        } else if pool.is_online() {
            out.notes.push(format!("pool {name} is Online"));
        } else if ready.is_some_and(|ready| !ready.pools.contains(name)) {
            out.notes.push(format!("pool {name} of Mayastor is {}, and was not Online before", pool.health));
        } else {
            let made = if pool.created { "" } else { ", and not made" };
            out.waits.push(format!("pool {name} of Mayastor is {}{made}", pool.health));
        }
    }
    for found in &drives.sight.found {
        let stays = Plan::slot_of(&drives.known.plan.target, &found.name).is_some();
        for purpose in drives.wanted(&found.name).iter().filter(|_| stays) {
            let Purpose::Mayastor(name) = purpose else { continue };
            if pools.iter().any(|pool| pool.name == *name) {
                continue;
            }
            let links = drives.live.drives.get(found.at).map(|drive| drive.symlinks.as_slice()).unwrap_or_default();
            let link =
                links.iter().find(|link| link.starts_with("/dev/disk/by-id/")).map_or("/dev/disk/by-id/..", |l| l);
            out.notes.push(format!("nothing makes the pool {name} yet: a DiskPool with {link} on {node} does"));
        }
    }
    out
}

#[cfg(test)]
mod tests;
