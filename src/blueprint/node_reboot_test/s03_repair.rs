//! 03: the node's image and modules fit it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::Permit;
use crate::blueprint::configs;
use crate::blueprint::machine::{Boot, Machine};
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::{KeptConfig, reboots_for_an_image};

use super::mend_image::Swap;
use super::repair::{Image, Repair, facts, judge, patches, unloaded};
use crate::blueprint::stand::may_pass;

/// Mends what keeps a node from coming up whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RepairNode {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// `repair:` of the site.
    pub repair: bool,
    /// The image that the site names for it.
    pub image: Option<String>,
}

/// What it was like.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "mends")]
pub enum Before {
    /// The machine configuration.
    Config {
        /// What it was: a run file.
        kept: KeptConfig,
    },
    /// The image.
    Image {
        /// What was booted.
        boot: Boot,
        /// Its installer; None where that could not be told.
        from: Option<String>,
        /// The installer of the one that takes its place.
        to: String,
    },
}

impl Step<Estate> for RepairNode {
    const ID: &'static str = "03-repair";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.machine.name.clone())
    }

    fn title(&self) -> String {
        format!("image and modules of {} fit it", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "NVIDIA's extensions without their kernel modules, or without such a device, leave a service waiting for a \
             file that never comes: Talos stays `booting`, and reboots after 70 minutes, while `kubectl` says Ready."
                .into(),
            "Missing modules are merged into the machine configuration, which is applied without a reboot; an undo puts \
             the former one back, byte for byte."
                .into(),
            "A wrong image is replaced by the one of `images`, else by the schematic of `machine.install.image`, in the \
             version that runs: no version is changed. Extensions come from the image alone: what the new one does not \
             have is lost, and said before."
                .into(),
            "Where another configuration than the one in effect waits on the disk (staged, or one is on trial) nothing is \
             applied: it would take the place of the first, and make the second one stay."
                .into(),
            "Up to Talos 1.12 the node drains itself and reboots for it, so the quorum is asked for before; the former \
             image stays in the other slot, and an undo swaps the two, with a reboot."
                .into(),
            format!(
                "By hand: {}, or {}; to see: {}, `get pcidevices`, `services`.",
                self.machine.talosctl("patch machineconfig"),
                self.machine.talosctl("upgrade --image .."),
                self.machine.talosctl("get extensions")
            ),
            "What the machine configuration says by then must be said by its source as well (talhelper, git): the report \
             has the lines."
                .into(),
        ]
    }

    /// An image is pulled and written, and the node reboots for it.
    fn limit(&self) -> Duration {
        Duration::from_secs(1_800)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let name = &self.machine.name;
        let what =
            format!("{name} gets the kernel modules or the image that it needs; up to Talos 1.12 it reboots into that");
        let back = format!("drains {name} and reboots it, where it has booted another image by then");
        if self.repair { Outlook::default().maybe(what).maybe_back(back) } else { Outlook::default() }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        if !self.repair {
            return Ok(Check::not_needed("`repair` is not true in the site file"));
        }
        match self.look(cx, &seen).await {
            Err(failure) if may_pass(&failure) && seen.since.is_some() => Ok(Check::waiting(failure.to_string())),
            other => other,
        }
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let key = self.step_key();
        match seen.since {
            Some(Before::Config { kept }) => configs::apply(cx, &self.machine, kept, &patches(), permit).await,
            Some(Before::Image { boot, from, to }) => self.swap(&seen, &key, boot, (from, to)).apply(cx, permit).await,
            None => Ok(()),
        }
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let key = self.step_key();
        let back = match before {
            Before::Config { kept } => {
                let stored = stored(seen.run, &key, kept)?;
                configs::back(cx, &self.machine, kept, stored, &patches()).await
            }
            Before::Image { boot, from, to } => self.swap(&seen, &key, boot, (from, to)).back(cx).await,
        };
        match back {
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => other,
        }
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let key = self.step_key();
        match before {
            Before::Config { kept } => {
                let stored = stored(seen.run, &key, kept)?;
                configs::undo(cx, &self.machine, kept, stored, permit).await
            }
            Before::Image { boot, from, to } => self.swap(&seen, &key, boot, (from, to)).undo(cx, permit).await,
        }
    }

    /// Up to 1.12 the one call for an image reboots the node too.
    fn takes_down(&self, before: &Before) -> Option<String> {
        match before {
            Before::Image { boot, .. } => reboots_for_an_image(&boot.version).then(|| self.machine.as_a_whole()),
            Before::Config { .. } => None,
        }
    }
}

impl RepairNode {
    async fn look(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let key = self.step_key();
        if let Some(Before::Image { boot, from, to }) = seen.since {
            let was = from.clone().unwrap_or_else(|| boot.image());
            let change = Change::set(format!("{} image", self.machine.name), was, to);
            let todo =
                Check::todo(vec![change], Before::Image { boot: boot.clone(), from: from.clone(), to: to.clone() });
            return self.swap(seen, &key, boot, (from, to)).check(cx, todo).await;
        }
        let facts = facts(cx, &self.machine).await?;
        Ok(match judge(&self.machine, &facts, self.image.as_deref()) {
            Err(refused) => Check::blocked(vec![refused.problem()]),
            Ok(Repair::Nothing(why)) if seen.since.is_none() => Check::done().note(why),
            Ok(Repair::Nothing(why)) => match unloaded(&facts).as_slice() {
                [] => Check::done().note(why),
                missing => Check::waiting(format!("{} has not loaded {}", self.machine.name, missing.join(", "))),
            },
            Ok(Repair::Config(patches)) => {
                let changes = configs::changes(&self.machine, &facts.configs.active, &patches)?;
                Check::todo(changes, Before::Config { kept: facts.configs.active.kept(configs::FORMER) })
            }
            Ok(Repair::Image(image)) => self.another(cx, image).await?,
        })
    }

    /// What another image comes to: what it loses is said before.
    async fn another(&self, cx: &Estate, image: Image) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        let boot = self.machine.boot(cx).await?;
        let was = image.from.clone().unwrap_or_else(|_| boot.image());
        let mut changes = vec![Change::set(format!("{name} image"), was, &image.to)];
        let note = match &image.loses {
            Some((lost, kept)) => {
                changes.extend(lost.iter().map(|extension| Change::remove(format!("{name} extension"), extension)));
                (!kept.is_empty()).then(|| format!("{name} keeps {}", kept.join(", ")))
            }
            None => Some(format!("which extensions {name} keeps cannot be told from the id of that schematic alone")),
        };
        let untold = image.from.as_ref().err().map(|why| {
            format!(
                "which installer {name} was given cannot be told ({why}): an undo swaps the slots, and cannot write it"
            )
        });
        let before = Before::Image { boot, from: image.from.ok(), to: image.to };
        Ok(Check::todo(changes, before).note(image.why).notes(note).notes(untold))
    }

    fn step_key(&self) -> StepKey {
        StepKey::new(Self::ID, Some(&self.machine.name))
    }

    fn swap<'a>(
        &'a self,
        seen: &Seen<'a, Before>,
        key: &'a StepKey,
        boot: &'a Boot,
        (from, to): (&'a Option<String>, &'a str),
    ) -> Swap<'a> {
        let (run, got, from) = (seen.run, seen.got, from.as_deref());
        Swap { machine: &self.machine, peers: &self.peers, run, key, got, boot, from, to }
    }
}

/// The former configuration, as this run stored it.
fn stored(run: &RunInfo, key: &StepKey, kept: &KeptConfig) -> Result<Option<Vec<u8>>, Failure> {
    let unread = |error| Failure::plain(format!("the run's file {key}/{} cannot be read: {error}", kept.file), None);
    run.file(key, &kept.file).map_err(unread)
}
