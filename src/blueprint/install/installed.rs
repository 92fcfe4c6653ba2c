//! Whether a machine runs from the disk that it was to be installed on.

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::blueprint::machine::running;
use crate::blueprint::stand::may_pass;
use crate::estate::Estate;
use crate::talos::{Talos, kind};

use super::asked::{runs_from, unattended, under_way};
use super::disk::also_boot;
use super::{Bare, Stand};

/// Whether it is through with its installation: for a step that only waits for that.
///
/// # Errors
/// What keeps it from answering.
pub async fn check<B>(cx: &Estate, bare: &Bare) -> Result<Check<B>, Failure> {
    let name = bare.name();
    match bare.stand(cx).await? {
        Stand::Ours(talos) => match installed(bare, &talos).await {
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => other,
        },
        Stand::Silent(why) => Ok(Check::waiting(format!("{name} comes up: {why}"))),
        Stand::Foreign => Ok(Check::blocked(vec![bare.foreign()])),
        Stand::Waits(_) => {
            let hint =
                "its firmware started the medium again, or the installation failed: its console says which".to_owned();
            Ok(Check::manual(bare.boot_its_disk(), Some(hint), None)
                .note(format!("{name} waits for a configuration again")))
        }
    }
}

/// What a step answers where a machine does not run from its disk; `runs` is what [`runs_from`] says.
pub fn elsewhere<B>(bare: &Bare, runs: Option<&(String, String)>) -> Option<Check<B>> {
    let name = bare.name();
    match runs {
        Some((_, serial)) if *serial == bare.disk => None,
        Some((id, serial)) => {
            let text = format!("{name} runs from {id} ({serial}), and not from disk {}", bare.disk);
            let help = "its firmware starts another disk first: correct its boot order, or take that disk out; `pvemig resume` \
                        looks again";
            Some(Check::blocked(vec![Problem::new(text, help)]))
        }
        None => Some(Check::waiting(format!("{name} runs from an image, and not from its disk yet"))),
    }
}

async fn installed<B>(bare: &Bare, talos: &Talos) -> Result<Check<B>, Failure> {
    let name = bare.name();
    let (runs, install) = futures::try_join!(runs_from(talos), unattended(talos))?;
    if let Some(under_way) = under_way(&bare.machine, install.as_ref(), runs.is_some()) {
        return Ok(under_way);
    }
    if let Some(elsewhere) = elsewhere(bare, runs.as_ref()) {
        return Ok(elsewhere);
    }
    let id = runs.map(|(id, _)| id).unwrap_or_default();
    let (running, disks, volumes) =
        futures::try_join!(running(talos), talos.list(&kind::DISKS), talos.list(&kind::DISCOVERED_VOLUMES))?;
    let others = also_boot(&id, &disks, &volumes);
    let wanted = bare.wanted().await?;
    let mut notes = vec![format!("{name} runs Talos {} from {id}", running.version)];
    notes.extend(
        others.iter().map(|disk| format!("{name} can boot from {disk} as well: an old entry of its firmware may")),
    );
    // An upgrade does not write its image there.
    if let Some(image) = wanted.facts.image.as_deref().filter(|image| !running.is(image)) {
        notes.push(format!("the image that its configuration names is another one by now: {image}"));
    }
    Ok(Check::done().notes(notes))
}
