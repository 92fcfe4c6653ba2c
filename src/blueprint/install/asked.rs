//! What a machine is asked about its disks before it is installed, and after.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::permit::Thing;
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
