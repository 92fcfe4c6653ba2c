//! 03: the node has installed itself and runs from its disk.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::blueprint::install::asked::{runs_from, unattended, under_way};
use crate::blueprint::install::disk::also_boot;
use crate::blueprint::install::{Bare, Stand};
use crate::blueprint::machine::running;
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::{Talos, kind};

/// Waits until one node runs from its disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitInstalled {
    /// The machine.
    pub bare: Bare,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for WaitInstalled {
    const ID: &'static str = "03-wait-installed";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.bare.name().to_owned())
    }

    fn title(&self) -> String {
        format!("{} runs from disk {}", self.bare.name(), self.bare.disk)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A machine whose firmware still starts the stick first comes up as empty as before, or not at all; one with an old \
             installation on another disk may boot that."
                .into(),
            "That it is installed shows when it answers with a certificate of the cluster, and names the disk that it runs from."
                .into(),
            "Other disks with an EFI system partition are named: the firmware may still have an entry for them.".into(),
            format!(
                "By hand: {}, {}.",
                self.bare.machine.talosctl("get systemdisk"),
                self.bare.machine.talosctl("get discoveredvolumes")
            ),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(1_200)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::default().asks(self.bare.boot_its_disk())
    }

    async fn check(&self, cx: &Estate, _: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = self.bare.name();
        match self.bare.stand(cx).await? {
            Stand::Ours(talos) => match self.installed(&talos).await {
                Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
                other => other,
            },
            Stand::Silent(why) => Ok(Check::waiting(format!("{name} comes up: {why}"))),
            Stand::Foreign => Ok(Check::blocked(vec![self.bare.foreign()])),
            Stand::Waits(_) => {
                let hint = "its firmware started the medium again, or the installation failed: its console says which"
                    .to_owned();
                Ok(Check::manual(self.bare.boot_its_disk(), Some(hint), None)
                    .note(format!("{name} waits for a configuration again")))
            }
        }
    }
}

impl WaitInstalled {
    async fn installed(&self, talos: &Talos) -> Result<Check<Before>, Failure> {
        let name = self.bare.name();
        let (runs, install) = futures::try_join!(runs_from(talos), unattended(talos))?;
        if let Some(under_way) = under_way(&self.bare.machine, install.as_ref(), runs.is_some()) {
            return Ok(under_way);
        }
        let Some((id, serial)) = runs else {
            return Ok(Check::waiting(format!("{name} runs from an image, and not from its disk yet")));
        };
        if serial != self.bare.disk {
            let text = format!("{name} runs from {id} ({serial}), and not from disk {}", self.bare.disk);
            let help = "its firmware starts another disk first: correct its boot order, or take that disk out; `pvemig resume` \
                        looks again";
            return Ok(Check::blocked(vec![Problem::new(text, help)]));
        }
        let (running, disks, volumes) =
            futures::try_join!(running(talos), talos.list(&kind::DISKS), talos.list(&kind::DISCOVERED_VOLUMES))?;
        let others = also_boot(&id, &disks, &volumes);
        let wanted = self.bare.wanted().await?;
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
}
