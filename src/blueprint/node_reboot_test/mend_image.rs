//! 03 where the node needs another image: written to the other slot, and taken back by swapping the two.

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::Permit;
use crate::base::schematic::FactoryImage;
use crate::blueprint::machine::{Boot, Machine};
use crate::blueprint::quorum::{self, Peer};
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::talos::{Talos, Upgrade};

use super::s04_reboot::begun;
use super::stand::{is_on_its_way, up_again};

/// The run file with the image that is written.
const IMAGE: &str = "image.json";
/// The run file that is there once an image is written and not booted.
const WRITTEN: &str = "written.json";
/// As [`WRITTEN`], of the former image at an undo.
const RETURNED: &str = "returned.json";

/// What is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    to: String,
}

/// From where to where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swap<'a> {
    /// The node.
    pub(super) machine: &'a Machine,
    /// All nodes of its cluster.
    pub(super) peers: &'a [Peer],
    /// The run.
    pub(super) run: &'a RunInfo,
    /// The step.
    pub(super) key: &'a StepKey,
    /// What was booted before.
    pub(super) boot: &'a Boot,
    /// Its installer.
    pub(super) from: &'a str,
    /// The other one's.
    pub(super) to: &'a str,
}

/// The image that 03 of a run wrote.
///
/// # Errors
/// What it wrote down cannot be read.
pub(super) fn written(run: &RunInfo, key: &StepKey) -> Result<Option<String>, Failure> {
    let unread = |why: String| Failure::plain(format!("the run's file {key}/{IMAGE} cannot be read: {why}"), None);
    let Some(bytes) = run.file(key, IMAGE).map_err(|error| unread(error.to_string()))? else { return Ok(None) };
    let note: Note = serde_json::from_slice(&bytes).map_err(|error| unread(error.to_string()))?;
    Ok(Some(note.to))
}

impl Swap<'_> {
    /// Whether the other image runs, or is the one that is booted next.
    pub(super) async fn check<B>(&self, cx: &Estate, todo: Check<B>) -> Result<Check<B>, Failure> {
        let name = &self.machine.name;
        let now = self.machine.boot(cx).await?;
        if runs(&now, self.to) {
            return Ok(match up_again(cx, self.machine, self.peers).await? {
                Some(why) => Check::waiting(why),
                None => Check::done().note(format!("{name} runs {}", self.to)),
            });
        }
        if is_on_its_way(&*self.machine.open(cx).await?).await? {
            return Ok(Check::waiting(format!("{name} is being upgraded")));
        }
        if self.has(WRITTEN)? {
            return Ok(Check::done().note(format!("{} is written, and booted by 04", self.to)));
        }
        if now.id != self.boot.id && up_again(cx, self.machine, self.peers).await?.is_none() {
            return Ok(Check::blocked(vec![Problem::new(
                format!("{name} was to boot {}, and has booted {} again", self.to, now.version),
                format!("the boot failed and fell back: `talosctl -n {name} dmesg`, and its console, say why"),
            )]));
        }
        Ok(todo)
    }

    /// Writes it. Up to 1.12 the node reboots into it by itself; then the gate's question comes before.
    pub(super) async fn apply(&self, cx: &Estate, permit: &Permit) -> Result<(), Failure> {
        let talos = self.machine.open(cx).await?;
        let now = self.machine.boot(cx).await?;
        if runs(&now, self.to) || self.has(WRITTEN)? || is_on_its_way(&talos).await? {
            return Ok(());
        }
        self.keep(IMAGE, permit)?;
        self.write(cx, &talos, self.to, WRITTEN, permit).await
    }

    /// Whether the former image runs, and is the one that is booted next.
    pub(super) async fn back(&self, cx: &Estate) -> Result<Check<()>, Failure> {
        if written(self.run, self.key)?.is_none() {
            return Ok(Check::done());
        }
        let name = &self.machine.name;
        let now = self.machine.boot(cx).await?;
        if is_on_its_way(&*self.machine.open(cx).await?).await? {
            return Ok(Check::waiting(format!("{name} is on its way down")));
        }
        if runs(&now, self.to) {
            return Ok(Check::todo(vec![Change::set(format!("{name} image"), self.to, self.from)], ()));
        }
        if (&now.version, &now.schematic) != (&self.boot.version, &self.boot.schematic) {
            let shown = now.schematic.unwrap_or_else(|| "none".to_owned());
            return Ok(Check::blocked(vec![Problem::new(
                format!(
                    "{name} ran {}, this run wrote {}, and now it runs {} of schematic {shown}",
                    self.from, self.to, now.version
                ),
                format!(
                    "`talosctl -n {name} upgrade --image {}` brings the first one back; then undo again",
                    self.from
                ),
            )]));
        }
        if self.waits(&now)? {
            let what = format!("{name} image of the next boot");
            return Ok(Check::todo(vec![Change::set(what, self.to, self.from)], ()));
        }
        Ok(match up_again(cx, self.machine, self.peers).await? {
            Some(why) => Check::waiting(why),
            None => Check::done().note(format!("the slot that {name} does not boot may still hold {}", self.to)),
        })
    }

    /// Swaps the slots, and reboots with that; where the new image was never booted, the former one is written over it.
    pub(super) async fn undo(&self, cx: &Estate, permit: &Permit) -> Result<(), Failure> {
        let talos = self.machine.open(cx).await?;
        if is_on_its_way(&talos).await? {
            return Ok(());
        }
        let now = self.machine.boot(cx).await?;
        if runs(&now, self.to) {
            self.gate(cx, permit).await?;
            return Ok(talos.roll_back(permit).await?);
        }
        if self.waits(&now)? {
            return self.write(cx, &talos, self.from, RETURNED, permit).await;
        }
        Ok(())
    }

    /// Whether the other image is written and waits for the next boot; one that there was since took it, or fell back.
    fn waits(&self, now: &Boot) -> Result<bool, Failure> {
        Ok(now.id == self.boot.id && self.has(WRITTEN)? && !self.has(RETURNED)?)
    }

    async fn gate(&self, cx: &Estate, permit: &Permit) -> Result<(), Failure> {
        quorum::pass(cx, &self.machine.cluster, &self.machine.name, self.peers, permit).await
    }

    async fn write(&self, cx: &Estate, talos: &Talos, image: &str, mark: &str, permit: &Permit) -> Result<(), Failure> {
        self.gate(cx, permit).await?;
        match talos.upgrade(permit, image).await? {
            Upgrade::Begun { actor } => begun(talos, &actor).await,
            Upgrade::Written => self.keep(mark, permit),
        }
    }

    fn keep(&self, file: &str, permit: &Permit) -> Result<(), Failure> {
        let note = serde_json::to_vec(&Note { to: self.to.to_owned() });
        let note = note.map_err(|error| Failure::plain(format!("{file}: {error}"), None))?;
        Ok(permit.file(file, &note)?)
    }

    fn has(&self, file: &str) -> Result<bool, Failure> {
        let found = self.run.file(self.key, file);
        let unread =
            |error| Failure::plain(format!("the run's file {}/{file} cannot be read: {error}", self.key), None);
        found.map(|bytes| bytes.is_some()).map_err(unread)
    }
}

fn runs(boot: &Boot, image: &str) -> bool {
    match FactoryImage::of(image) {
        Some(it) => boot.schematic.as_deref() == Some(it.schematic) && it.version == boot.version,
        None => boot.schematic.is_none() && image.ends_with(&format!(":{}", boot.version)),
    }
}
