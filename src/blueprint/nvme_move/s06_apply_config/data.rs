//! 06 of a node that keeps its installation: what each selector of its configuration means on the drives that are there.

use std::collections::BTreeMap;

use crate::base::check::{Answer, Check, Problem};
use crate::base::drives::{Drive, Inventory, Plan, Purpose};
use crate::base::fault::Failure;
use crate::base::selector::{self, By, Selector};
use crate::base::survey::{Disk, Layer, MachineConfig, SystemDisk};
use crate::blueprint::configs::{self, configs};
use crate::engine::step::Seen;
use crate::estate::{Estate, read_config, surveyed};
use crate::talos::kind::{self, Stage};

use super::{ApplyConfig, Before};
use crate::blueprint::nvme_move::volumes::{Drives, drives};

const BY_SERIAL: &str = "name the drive by what goes with it, `disk.serial == \"..\"`: `talosctl edit machineconfig`";

pub(super) async fn look(step: &ApplyConfig, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
    let machine = &step.machine;
    let talos = machine.open(cx).await?;
    let status = talos.single(&kind::MACHINE_STATUS).await?;
    if status.is_none_or(|status| status.spec.stage != Stage::Running) {
        return Ok(Check::waiting(format!("{} is not booted yet", machine.name)));
    }
    let both = configs(machine, &talos).await?;
    if let Some(waits) = both.waits(machine) {
        return Ok(Check::blocked(vec![waits]));
    }
    let patched = configs::merged(machine, both.active.expose(), &step.volumes)?;
    let config = read_config(&patched.text)
        .map_err(|why| Failure::plain(format!("the machine configuration of {}: {why}", machine.name), None))?;
    let (disks, system) = futures::try_join!(talos.list(&kind::DISKS), talos.single(&kind::SYSTEM_DISK))?;
    let disks: Vec<Disk> = disks.into_iter().filter(|disk| disk.spec.is_hardware()).map(surveyed).collect();
    let system = system.map_or(Layer::Absent, |found| {
        Layer::Known(SystemDisk { id: found.spec.disk_id, dev_path: found.spec.dev_path })
    });
    let drives = drives(cx, machine, &step.plan, seen.run).await?;
    let judged = judge(&step.plan, &config, (&system, &disks), &drives);
    Ok(if !judged.problems.is_empty() {
        Check::blocked(judged.problems).notes(judged.notes)
    } else if let (Some(why), false) = (judged.unknown, patched.same) {
        Check::waiting(why)
    } else if patched.same {
        Check::done().notes(judged.notes)
    } else {
        let before = seen.since.cloned();
        let before = before.unwrap_or_else(|| Before { kept: Some(both.active.kept(configs::FORMER)) });
        Check::todo(configs::changes(machine, &both.active, &step.volumes)?, before).notes(judged.notes)
    })
}

/// Right before it is written: Talos makes a volume at once, on whatever its selector means at that moment.
pub(super) async fn once_more(step: &ApplyConfig, cx: &Estate, seen: &Seen<'_, Before>) -> Result<(), Failure> {
    match look(step, cx, seen).await?.answer {
        Answer::Blocked { problems } => Err(Failure::barred(problems)),
        Answer::Waiting { reason, .. } => {
            Err(Failure::plain(reason, Some("`pvemig resume` asks again, and writes it then".into())))
        }
        Answer::Done | Answer::Todo { .. } | Answer::Manual { .. } => Ok(()),
    }
}

/// What the selectors come to.
#[derive(Debug, Default)]
struct Judged {
    problems: Vec<Problem>,
    notes: Vec<String>,
    /// What would have to be known of a drive before a volume is made on it.
    unknown: Option<String>,
}

/// Each selector on the drives that are there.
fn judge(
    plan: &Plan,
    config: &MachineConfig,
    (system, disks): (&Layer<SystemDisk>, &[Disk]),
    drives: &Drives,
) -> Judged {
    let mut out = Judged::default();
    let belongs = belongs(plan, drives);
    for selector in selector::all(config) {
        if selector.moves() {
            let text = format!("{} goes by place, and may mean another drive after each boot", selector.shown());
            out.problems.push(Problem::new(text, BY_SERIAL));
            continue;
        }
        // The disk of the installation counts when it is installed; a volume that exists is chosen by what is on it.
        let Some(label) = &selector.volume else { continue };
        if label.is_empty() && matches!(selector.by, By::Cel(_)) {
            continue;
        }
        match selector.means_of(system, disks) {
            Ok(means) => one(&selector, label, &means, belongs.get(label), drives, &mut out),
            Err(why) => {
                let text = format!("which drives {} means cannot be told: {why}", selector.shown());
                out.problems.push(Problem::new(text, BY_SERIAL));
            }
        }
    }
    out
}

/// The labels of the plan's volumes: the operator's name of the drive, and its place among the live ones.
fn belongs(plan: &Plan, drives: &Drives) -> BTreeMap<String, (String, usize)> {
    let mut all = BTreeMap::new();
    for found in &drives.sight.found {
        let Some(wanted) = plan.drives.get(&found.name) else { continue };
        if Plan::slot_of(&plan.target, &found.name).is_none() {
            continue;
        }
        let labels = wanted.purposes.iter().filter_map(Purpose::label);
        all.extend(labels.map(|label| (label, (found.name.clone(), found.at))));
    }
    all
}

fn one(
    selector: &Selector<'_>,
    label: &str,
    means: &[&Disk],
    belongs: Option<&(String, usize)>,
    drives: &Drives,
    out: &mut Judged,
) {
    let live = &drives.live;
    let shown = |disk: &&Disk| {
        let drive = live.drives.iter().find(|drive| drive.id == disk.id).map(Drive::shown);
        format!("{} ({})", disk.id, drive.unwrap_or_else(|| disk.serial.clone()))
    };
    let exists = !label.is_empty() && live.drives.iter().any(|drive| has(drive, label));
    let mut refuse = |text: String, help: &str| out.problems.push(Problem::new(text, help));
    match (means, belongs) {
        ([], _) if exists => out.notes.push(format!(
            "{} means no drive any more; Talos finds {label} by what is on it, and would not make it again: {BY_SERIAL}",
            selector.shown()
        )),
        ([], Some((name, _))) => {
            refuse(format!("{} means no drive, and the plan has {label} on {name}", selector.shown()), BY_SERIAL);
        }
        ([], None) => out.notes.push(format!("{} means no drive, and is none of the plan's", selector.shown())),
        ([only], Some((name, at))) => match live.drives.get(*at).filter(|drive| drive.id == only.id) {
            None => {
                let text =
                    format!("{} means {}, and the plan has {label} on {name}", selector.shown(), shown(only));
                refuse(text, BY_SERIAL);
            }
            Some(_) if exists => {
                out.notes.push(format!("{} means {name} alone, and {label} is there", selector.place));
            }
            Some(drive) => {
                let own: Vec<String> = drives.wanted(name).iter().filter_map(Purpose::label).collect();
                match holds(drive, &own, live) {
                    Err(why) => out.unknown = Some(why),
                    Ok(held) if held.is_empty() => {
                        out.notes.push(format!("{} means {name} ({}) alone, and that is blank", selector.place, drive.shown()));
                    }
                    Ok(held) => refuse(
                        format!("{} means {name} ({}), which holds {}", selector.shown(), drive.shown(), held.join(", ")),
                        "name another drive for it, or move what is on this one first; nothing here wipes it",
                    ),
                }
            }
        },
        ([only], None) => {
            if let Some(name) = made_on(selector, only, drives).filter(|_| !exists) {
                refuse(
                    format!("{} means {name} ({}) alone, and the plan has {label} on no drive", selector.shown(), shown(only)),
                    BY_SERIAL,
                );
            }
        }
        (several, _) => {
            let all: Vec<String> = several.iter().map(shown).collect();
            let help = "add a condition that one drive alone has, `disk.serial == \"..\"`: `talosctl edit machineconfig`";
            refuse(format!("{} means {} drives: {}", selector.shown(), all.len(), all.join(", ")), help);
        }
    }
}

/// The drive that came, where a volume would be made on it.
fn made_on<'d>(selector: &Selector<'_>, only: &Disk, drives: &'d Drives) -> Option<&'d str> {
    if !selector.makes_a_volume() {
        return None;
    }
    let found = drives.sight.found.iter().find(|f| drives.live.drives.get(f.at).is_some_and(|d| d.id == only.id))?;
    let wanted = drives.known.plan.drives.get(&found.name)?;
    wanted.new.then_some(found.name.as_str())
}

fn has(drive: &Drive, label: &str) -> bool {
    drive.parts.known().into_iter().flatten().any(|part| part.label == label)
}

/// What is on a drive besides the volumes that are made there.
fn holds(drive: &Drive, own: &[String], live: &Inventory) -> Result<Vec<String>, String> {
    let unknown = |why: &str| format!("what is on {} is not known: {why}", drive.shown());
    let parts = match &drive.parts {
        Layer::Known(parts) => parts,
        Layer::Unknown { reason, .. } => return Err(unknown(reason)),
        Layer::Absent => return Err(unknown("it does not tell")),
    };
    let mut held: Vec<String> = Vec::new();
    for part in parts.iter().filter(|part| !own.contains(&part.label)) {
        let what = [&part.label, &part.content].into_iter().find(|text| !text.is_empty());
        held.push(match what {
            Some(what) if part.label.is_empty() => format!("{what} without a label"),
            Some(label) => format!("the volume {label}"),
            None => format!("partition {}", part.index),
        });
    }
    let is_own = |purpose: &Purpose| purpose.label().is_some_and(|label| own.contains(&label));
    let used = drive.purposes.iter().filter(|purpose| **purpose != Purpose::Spare && !is_own(purpose));
    held.extend(used.map(ToString::to_string));
    // A pool takes the whole drive and leaves nothing that Talos would see.
    match live.not_asked.first() {
        Some(why) if held.is_empty() => Err(unknown(why)),
        _ => Ok(held),
    }
}

#[cfg(test)]
mod tests;
