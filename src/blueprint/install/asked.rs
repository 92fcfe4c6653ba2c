//! What a machine is asked about its disks before it is installed, and after.

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Thing;
use crate::blueprint::machine::Machine;
use crate::talos::kind::InstallPhase;
use crate::talos::{Error, Talos, kind};

use super::Bare;
use super::disk::{Chosen, choose, with_data};

/// The disk that an installed machine runs from: its name and its serial number. None where it runs from an image.
///
/// # Errors
/// What keeps it from answering.
pub async fn runs_from(talos: &Talos) -> Result<Option<(String, String)>, Error> {
    let (system, disks) = futures::try_join!(talos.single(&kind::SYSTEM_DISK), talos.list(&kind::DISKS))?;
    let Some(system) = system.filter(|system| !system.spec.disk_id.is_empty()) else { return Ok(None) };
    let id = system.spec.disk_id;
    let serial = disks.into_iter().find(|disk| disk.id == id).map(|disk| disk.spec.serial).unwrap_or_default();
    Ok(Some((id, serial)))
}

/// What a machine says of an installation that it does by itself; None: it does none, or is of a version that knows none.
///
/// # Errors
/// What keeps it from answering.
pub async fn unattended(talos: &Talos) -> Result<Option<kind::UnattendedInstall>, Error> {
    match talos.single(&kind::UNATTENDED_INSTALL).await {
        Ok(found) => Ok(found.map(|found| found.spec)),
        Err(Error::NoSuchKind { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is said of a machine that installs itself and has not come to its end with that; None: it has, or does not.
/// `runs`: it runs from a disk.
pub fn under_way<Before>(
    machine: &Machine,
    install: Option<&kind::UnattendedInstall>,
    runs: bool,
) -> Option<Check<Before>> {
    let (name, install) = (&machine.name, install?);
    let why = if install.error.is_empty() { String::new() } else { format!(": {}", install.error) };
    let image = if install.image.is_empty() { "the image that it runs" } else { &install.image };
    let by = "by its `UnattendedInstallConfig`";
    match install.phase {
        InstallPhase::Pending => Some(Check::waiting(format!("{name} is to install itself, {by}, and waits{why}"))),
        InstallPhase::Installing => Some(Check::waiting(format!("{name} installs itself from {image}, {by}{why}"))),
        InstallPhase::WaitingForReboot => {
            Some(Check::waiting(format!("{name} has installed itself from {image}, and is about to reboot")))
        }
        InstallPhase::Failed => Some(Check::manual(
            format!(
                "mend what keeps {name} from installing itself; it tries again by itself: {}",
                machine.talosctl("get unattendedinstallstatuses -o yaml")
            ),
            Some(format!("its installation from {image}, {by}, failed{why}")),
            None,
        )),
        InstallPhase::Installed if !runs => Some(Check::manual(
            format!("reboot {name}: {}", machine.talosctl("reboot")),
            Some(
                "it has installed itself and does not reboot by itself: the `UnattendedInstallConfig` says `reboot: false`, or names \
                 no image"
                    .to_owned(),
            ),
            None,
        )),
        InstallPhase::Unknown => {
            Some(Check::waiting(format!("{name} installs itself, {by}, and is in a phase that is not known here{why}")))
        }
        InstallPhase::Installed => None,
    }
}

/// A machine without a configuration of this cluster that installs itself all the same, by one that its image has brought.
pub fn by_its_own(name: &str, install: &kind::UnattendedInstall) -> Problem {
    let why = if install.error.is_empty() { String::new() } else { format!(" ({})", install.error) };
    Problem::new(
        format!(
            "{name} waits for a configuration and installs itself all the same, by one that its image has brought{why}"
        ),
        format!(
            "start {name} from a Talos medium without a configuration of its own: which disk that one takes is not what this migration \
             looks at"
        ),
    )
}

/// The disk that is meant on a machine that waits, or why there is none.
///
/// # Errors
/// What keeps it from answering.
pub async fn chosen(bare: &Bare, talos: &Talos) -> Result<Result<Chosen, Problem>, Failure> {
    let (disks, volumes) = futures::try_join!(talos.list(&kind::DISKS), talos.list(&kind::DISCOVERED_VOLUMES))?;
    Ok(choose(bare.name(), &bare.disk, &disks, &volumes))
}

/// Data of another installation on a disk that stays.
///
/// # Errors
/// What keeps it from answering.
pub async fn other_data(bare: &Bare, talos: &Talos) -> Result<Vec<Problem>, Failure> {
    let (disks, volumes) = futures::try_join!(talos.list(&kind::DISKS), talos.list(&kind::DISCOVERED_VOLUMES))?;
    let others = with_data(&disks, &volumes).into_iter().filter(|(_, serial)| *serial != bare.disk);
    let problem = |(disk, _): (String, String)| {
        Problem::new(
            format!(
                "{} has data of an older installation on {disk}, which is not the disk that is to be installed on",
                bare.name()
            ),
            "take that disk out, or wipe it by hand once it is certain that nobody needs it: Talos would find its volumes by \
             their labels",
        )
    };
    Ok(others.map(problem).collect())
}

/// It is made anew, and nobody said that it may be.
pub fn unconsented(bare: &Bare, chosen: &Chosen, consented: impl Fn(&Thing) -> bool) -> Option<Problem> {
    let thing = Thing::disk(&bare.disk);
    if consented(&thing) {
        return None;
    }
    let holds = if chosen.holds.is_empty() {
        "on which Talos recognises nothing".to_owned()
    } else {
        format!("which holds {}", chosen.holds.join("; "))
    };
    let text = format!("an installation of {} would wipe {}, {holds}", bare.name(), chosen.named);
    Some(Problem::new(text, format!("add `--destroy {thing}` where all of that may be lost, else name another disk")))
}
