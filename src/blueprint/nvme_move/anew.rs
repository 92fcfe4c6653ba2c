//! A machine whose system disk is another one: what it is installed with, and what speaks against that, whatever anybody
//! has consented to.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::check::{Hands, Problem};
use crate::base::drives::{Inventory, Plan, Purpose};
use crate::base::fault::Failure;
use crate::base::selector;
use crate::base::survey::{Disk, Layer, MachineConfig, SystemDisk};
use crate::blueprint::install::bare::still_waits;
use crate::blueprint::install::{Bare, Stand};
use crate::blueprint::own_vm;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::talos::Talos;

use super::on;
use super::sight::facts;

/// What a machine is installed anew with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anew {
    /// The machine with its configuration, and the serial number of its new system disk.
    pub bare: Bare,
    /// The version of Talos on the medium that it is installed from, `v1.11.5`.
    pub medium: String,
    /// The schematic of that medium; None: it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schematic: Option<String>,
}

impl Anew {
    /// What to do to have it wait for its configuration.
    pub(super) fn plug_in(&self) -> String {
        format!("plug the stick with Talos {} in", self.medium)
    }

    /// The machine where it waits for its first configuration.
    ///
    /// # Errors
    /// What keeps it from telling; a fingerprint that is another one.
    pub(super) async fn waits(&self, cx: &Estate) -> Result<Option<Arc<Talos>>, Failure> {
        Ok(match self.bare.stand(cx).await? {
            Stand::Waits(talos) if still_waits(&talos).await? => Some(talos),
            _ => None,
        })
    }

    /// Why what waits there is not the machine that was opened: whoever waits is sent the secrets of the cluster.
    ///
    /// # Errors
    /// What keeps it, or Proxmox, from telling.
    pub(super) async fn another(&self, cx: &Estate, run: &RunInfo, waits: &Talos) -> Result<Vec<Problem>, Failure> {
        let mut problems = self.bare.is_another(cx, waits).await?;
        let before = facts(&self.bare.machine, run)?;
        let before = before.and_then(|facts| facts.board.get().ok().map(|board| board.uuid.clone()));
        let (Some(was), Some(is)) = (before.filter(|uuid| !uuid.is_empty()), own_vm::of_node(waits).await?) else {
            return Ok(problems);
        };
        if !was.eq_ignore_ascii_case(&is) {
            problems.push(Problem::new(
                format!("what waits at the address of {} has the uuid {is}, and {0} has {was}", self.bare.name()),
                "another machine waits there: switch it off, or correct `at:` of the migration",
            ));
        }
        Ok(problems)
    }

    /// Why nothing is installed on the disk: it holds what is in use, or nobody can tell. No consent helps.
    ///
    /// # Errors
    /// What this run has kept cannot be read.
    pub(super) fn in_use(&self, run: &RunInfo, live: &Inventory) -> Result<Vec<Problem>, Failure> {
        let (name, disk) = (self.bare.name(), self.bare.disk.as_str());
        let Some(facts) = facts(&self.bare.machine, run)? else {
            let text = format!("what the disks of {name} were for is not kept in this run: disk {disk} may be in use");
            return Ok(vec![
                Problem::new(text, "`pvemig run` of the whole migration keeps it first, and goes on from there")
                    .mended_by(on::BACKUP),
            ]);
        };
        let before = facts.bays.inventory();
        let before = before.map_err(|why| Failure::plain(why.unknown.clone(), why.help.clone()))?;
        let mut problems = in_use(name, disk, &[&before, live]);
        // A pool names its disk by a link with the serial number in it, also while that lies beside the machine.
        let lost = facts.bays.on_no_drive.iter().filter(|line| line.contains(disk));
        problems.extend(lost.map(|line| holds(name, disk, line)));
        if !before.not_asked.is_empty() && !live.not_asked.is_empty() {
            let why: BTreeSet<&String> = before.not_asked.iter().collect();
            let why = why.into_iter().cloned().collect::<Vec<_>>().join("; ");
            problems.push(Problem::new(
                format!("whether disk {disk} of {name} is in use could not be asked: {why}"),
                "let that be asked, and begin another run",
            ));
        }
        Ok(problems)
    }
}

/// What a person is asked where a machine waits and is to be off. Before 1.13 it takes no call to shut down then, and later
/// from nobody who has no certificate (siderolabs/talos `internal/app/maintenance`).
pub(super) fn switch_off(name: &str) -> (String, Hands) {
    let ask = format!("switch {name} off by its power button: it waits for a configuration, and nothing runs on it");
    (ask, Hands::Drives { node: name.to_owned(), moves: Vec::new(), medium: None, on: false })
}

/// What of these inventories speaks against an installation on a disk.
pub(super) fn in_use(name: &str, disk: &str, inventories: &[&Inventory]) -> Vec<Problem> {
    let all = inventories.iter().flat_map(|one| &one.drives).filter(|drive| drive.serial() == disk);
    let purposes: BTreeSet<&Purpose> = all.flat_map(|drive| &drive.purposes).collect();
    let problem = |purpose: &Purpose| {
        Some(match purpose {
            Purpose::Spare => return None,
            Purpose::System => Problem::new(
                format!("disk {disk} is the one that {name} runs from: nothing has to be wiped"),
                "write `scenario: system-moved` where it goes into another slot, `data` where it stays",
            ),
            Purpose::UserVolume(volume) => holds(name, disk, &format!("the volume {volume} (u-{volume})")),
            Purpose::RawVolume(volume) => holds(name, disk, &format!("the volume {volume} (r-{volume})")),
            Purpose::Mayastor(pool) => holds(name, disk, &format!("the pool {pool} of Mayastor")),
            Purpose::Local(volume) => holds(name, disk, &format!("the persistent volume {volume}")),
        })
    };
    purposes.into_iter().filter_map(problem).collect()
}

fn holds(name: &str, disk: &str, what: &str) -> Problem {
    Problem::new(
        format!("disk {disk}, which {name} is to be installed on, holds {what}"),
        "take another drive as the system disk; where nobody needs that any more, take it out of the machine configuration and of \
         Kubernetes, and wipe the drive by hand: no consent is asked for it here",
    )
}

/// What is wrong with how a configuration names disks, on these: the installation must mean that one disk alone, and no
/// volume several.
pub(super) fn selectors(shown: &str, config: &MachineConfig, disk: &str, disks: &[Disk]) -> Vec<Problem> {
    let target = disks.iter().find(|one| one.serial.trim() == disk);
    let system = target
        .map_or(Layer::Absent, |one| Layer::Known(SystemDisk { id: one.id.clone(), dev_path: one.dev_path.clone() }));
    let named = |all: &[&Disk]| {
        let one = |disk: &&Disk| format!("{} ({})", disk.id, disk.serial);
        if all.is_empty() { "none".to_owned() } else { all.iter().map(one).collect::<Vec<_>>().join(", ") }
    };
    let mut problems = Vec::new();
    for selector in selector::all(config) {
        let help = format!("correct it in {shown}: `disk.serial == \"..\"`");
        if selector.moves() {
            let text = format!("{} of {shown} goes by place, and may mean another drive", selector.shown());
            problems.push(Problem::new(text, help));
            continue;
        }
        match (selector.means_of(&system, disks), &selector.volume) {
            (Err(why), _) => {
                let text = format!("which disks {} of {shown} means cannot be told: {why}", selector.shown());
                problems.push(Problem::new(text, help));
            }
            (Ok(means), None) if means.len() != 1 || means.iter().any(|one| one.serial.trim() != disk) => {
                let text =
                    format!("{} of {shown} means {}, and not disk {disk} alone", selector.shown(), named(&means));
                problems.push(Problem::new(text, help));
            }
            (Ok(means), Some(_)) if means.len() > 1 => {
                let text = format!("{} of {shown} means {} disks: {}", selector.shown(), means.len(), named(&means));
                problems.push(Problem::new(text, help));
            }
            (Ok(_), _) => {}
        }
    }
    problems
}

/// The volumes on drives that stay, and that a configuration has no document of: Talos would not mount them any more.
pub(super) fn forgotten(
    name: &str,
    shown: &str,
    config: &MachineConfig,
    plan: &Plan,
    before: &Inventory,
) -> Vec<Problem> {
    let stays = |serial: &str| {
        let of = |drive: &String| plan.drives.get(drive).is_some_and(|wanted| wanted.serial.trim() == serial);
        plan.target.values().any(of)
    };
    let mut problems = Vec::new();
    for drive in before.drives.iter().filter(|drive| stays(drive.serial()) || drive.transport != "nvme") {
        for purpose in &drive.purposes {
            let (kind, volume) = match purpose {
                Purpose::UserVolume(volume) => ("UserVolumeConfig", volume),
                Purpose::RawVolume(volume) => ("RawVolumeConfig", volume),
                _ => continue,
            };
            if config.volumes.iter().any(|one| one.kind == kind && one.name == *volume) {
                continue;
            }
            problems.push(Problem::new(
                format!("{shown} has no {kind} {volume}, and {name} has that volume on {}: it would not be mounted any more", drive.shown()),
                format!("add that document to {shown}, or `{{ user-volume: {{ name: {volume}, disk: .. }} }}` to `patches`"),
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::drives::Drive;
    use crate::base::survey::{InstallDisk, NamedSelector};

    fn drive(serial: &str, purposes: &[Purpose]) -> Inventory {
        let drive = Drive { serial: serial.into(), purposes: purposes.to_vec(), ..Drive::default() };
        Inventory { drives: vec![drive], ..Inventory::default() }
    }

    #[test]
    fn a_disk_that_is_in_use_is_not_installed_on() {
        let cases: [(Purpose, &str); 5] = [
            (
                Purpose::UserVolume("media".into()),
                "disk S, which n1 is to be installed on, holds the volume media (u-media)",
            ),
            (Purpose::RawVolume("scratch".into()), "holds the volume scratch (r-scratch)"),
            (Purpose::Mayastor("pool".into()), "holds the pool pool of Mayastor"),
            (Purpose::Local("pv-a".into()), "holds the persistent volume pv-a"),
            (Purpose::System, "disk S is the one that n1 runs from: nothing has to be wiped"),
        ];
        assert_eq!(cases.len(), 5);
        for (purpose, words) in cases {
            // Whether it was so before, or is so now.
            let (with, without) = (drive("S", &[purpose]), drive("S", &[]));
            for both in [[&with, &without], [&without, &with], [&with, &with]] {
                let problems = in_use("n1", "S", &both);
                assert!(problems.len() == 1 && problems[0].text.contains(words), "{words}: {problems:?}");
            }
            assert_eq!(in_use("n1", "T", &[&with]), []);
        }
        assert_eq!(in_use("n1", "S", &[&drive("S", &[Purpose::Spare]), &drive("S", &[])]), []);
    }

    #[test]
    fn an_installation_means_one_disk_and_a_volume_no_two() {
        let disk = |id: &str, serial: &str| Disk {
            id: id.into(),
            dev_path: format!("/dev/{id}"),
            serial: serial.into(),
            transport: "nvme".into(),
            ..Disk::default()
        };
        let disks = [disk("nvme0n1", "S"), disk("nvme1n1", "D")];
        let config = |key: &str, value: &str, volume: &str| MachineConfig {
            install: InstallDisk { selector: [(key.to_owned(), value.to_owned())].into(), ..InstallDisk::default() },
            volumes: vec![NamedSelector {
                kind: "UserVolumeConfig".into(),
                name: "media".into(),
                expression: volume.into(),
            }],
            ..MachineConfig::default()
        };
        let cases = [
            (config("serial", "S", "disk.serial == \"D\""), None),
            (config("serial", "S", "!system_disk"), None),
            (config("serial", "D", "!system_disk"), Some("means nvme1n1 (D), and not disk S alone")),
            (config("type", "nvme", "!system_disk"), Some("means nvme0n1 (S), nvme1n1 (D), and not disk S alone")),
            (config("serial", "T", "!system_disk"), Some("means none, and not disk S alone")),
            (config("serial", "S", "disk.transport == \"nvme\""), Some("UserVolumeConfig media")),
            (config("busPath", "/pci*", "!system_disk"), Some("goes by place")),
            (config("serial", "S", "disk.serial =="), Some("cannot be told")),
        ];
        assert_eq!(cases.len(), 8);
        for (config, words) in cases {
            let problems = selectors("f.yaml", &config, "S", &disks);
            assert_eq!(problems.len(), usize::from(words.is_some()), "{words:?}: {problems:?}");
            assert!(words.is_none_or(|words| problems[0].text.contains(words)), "{words:?}: {problems:?}");
        }
    }
}
