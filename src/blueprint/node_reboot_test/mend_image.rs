//! 03 where the node needs another image: written to the other slot, and taken back by swapping the two.

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::Permit;
use crate::blueprint::configs::{configs, none_waits};
use crate::blueprint::machine::{Boot, Machine};
use crate::blueprint::quorum::{self, Peer};
use crate::engine::step::{Got, RunInfo};
use crate::estate::Estate;
use crate::talos::{Error, Fetched, Talos, Upgrade};

use super::sight::begun;
use crate::blueprint::stand::{is_on_its_way, up_again};

/// The run file with the image that is written.
const IMAGE: &str = "image.json";

/// What became of an image: from then on a run file with this name is there, and with the boot's in which it was written
/// without a reboot. What was written in one boot says nothing of the next.
#[derive(Debug, Clone, Copy)]
enum Mark {
    /// The call is going out: the slot may hold it, and be the one that is booted next.
    Writing,
    /// It is written.
    Written,
    /// The former one is written over it, by an undo.
    Returned,
    /// Up to 1.12, by the call's actor: the node has said that it did not begin. A reboot that follows is another's.
    Refused,
}

impl Mark {
    fn file(self, of: &str) -> String {
        let what = match self {
            Self::Writing => "writing",
            Self::Written => "written",
            Self::Returned => "returned",
            Self::Refused => "refused",
        };
        // A node's word does not become a path.
        let of: String = sha256(of.as_bytes()).chars().take(12).collect();
        format!("{what}-{of}.json")
    }
}

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
    /// What its calls left.
    pub(super) got: &'a [Got],
    /// What was booted before.
    pub(super) boot: &'a Boot,
    /// Its installer; None where that could not be told.
    pub(super) from: Option<&'a str>,
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
        if now.runs(self.to) {
            return Ok(match up_again(cx, self.machine, self.peers).await? {
                Some(why) => Check::waiting(why),
                None => Check::done().note(format!("{name} runs {}", self.to)),
            });
        }
        if is_on_its_way(&*self.machine.open(cx).await?).await? {
            return Ok(Check::waiting(format!("{name} is being upgraded")));
        }
        if self.has(Mark::Written, &now.id)? {
            return Ok(Check::done().note(format!("{} is written, and booted by 04", self.to)));
        }
        if now.id == self.boot.id {
            return Ok(todo);
        }
        if let Some(why) = up_again(cx, self.machine, self.peers).await? {
            return Ok(Check::waiting(why));
        }
        // A reboot that had nothing to do with it is no boot that failed.
        Ok(if self.accepted()? {
            Check::blocked(vec![Problem::new(
                format!("{name} was to boot {}, and has booted {} again", self.to, now.image()),
                format!(
                    "the boot failed and fell back, or its upgrade was given up: {}, and its console, say why; `pvemig \
                     undo` ends the run",
                    self.machine.talosctl("dmesg")
                ),
            )])
        } else {
            todo
        })
    }

    /// Whether the image was due at the boot after the one that it was begun in.
    fn accepted(&self) -> Result<bool, Failure> {
        // Up to 1.12 the one call leaves its actor, before the node says whether it begins.
        for got in self.got.iter().filter(|got| got.handle.kind == "actor") {
            if !self.has(Mark::Refused, &got.handle.value)? {
                return Ok(true);
            }
        }
        self.has(Mark::Written, &self.boot.id)
    }

    /// Writes it. Up to 1.12 the node reboots into it by itself; then the gate's question comes before.
    pub(super) async fn apply(&self, cx: &Estate, permit: &Permit) -> Result<(), Failure> {
        let talos = self.machine.open(cx).await?;
        let now = self.machine.boot(cx).await?;
        let begun = now.id != self.boot.id && self.accepted()?;
        if now.runs(self.to) || begun || self.has(Mark::Written, &now.id)? || is_on_its_way(&talos).await? {
            return Ok(());
        }
        self.keep(IMAGE, permit)?;
        self.write(cx, &talos, self.to, Mark::Written, permit).await
    }

    /// Whether the former image runs, and is the one that is booted next.
    pub(super) async fn back(&self, cx: &Estate) -> Result<Check<()>, Failure> {
        if written(self.run, self.key)?.is_none() {
            return Ok(Check::done());
        }
        let name = &self.machine.name;
        let (now, was) = (self.machine.boot(cx).await?, self.was());
        if is_on_its_way(&*self.machine.open(cx).await?).await? {
            return Ok(Check::waiting(format!("{name} is on its way down")));
        }
        if now.runs(self.to) {
            // The slots are swapped with a reboot.
            let waits = configs(self.machine, &*self.machine.open(cx).await?).await?.waits(self.machine);
            if let Some(waits) = waits {
                return Ok(Check::blocked(vec![waits]));
            }
            let reboot = Change::act(format!("{name} is drained, and reboots into it"));
            return Ok(Check::todo(vec![Change::set(format!("{name} image"), self.to, was), reboot], ()));
        }
        let upgrade = self.machine.talosctl(&format!("upgrade --image {}", self.from.unwrap_or("INSTALLER")));
        if (&now.version, &now.schematic) != (&self.boot.version, &self.boot.schematic) {
            return Ok(Check::blocked(vec![Problem::new(
                format!("{name} ran {was}, this run wrote {}, and now it runs {}", self.to, now.image()),
                format!("{upgrade} brings the first one back; then undo again"),
            )]));
        }
        if self.waits(&now)? {
            if self.from.is_none() {
                return Ok(Check::blocked(vec![Problem::new(
                    format!(
                        "{} is or may be what {name} boots next; it runs {was}, and what installer that is from could not \
                         be told",
                        self.to
                    ),
                    format!("{upgrade} with the installer of {was} brings it back; then undo again"),
                )]));
            }
            let what = format!("{name} image of the next boot");
            return Ok(Check::todo(vec![Change::set(what, self.to, was)], ()));
        }
        Ok(match up_again(cx, self.machine, self.peers).await? {
            Some(why) => Check::waiting(why),
            None => Check::done().stays([format!("the slot that {name} does not boot may still hold {}", self.to)]),
        })
    }

    /// Swaps the slots, and reboots with that; where the new image was never booted, the former one is written over it.
    pub(super) async fn undo(&self, cx: &Estate, permit: &Permit) -> Result<(), Failure> {
        let talos = self.machine.open(cx).await?;
        if is_on_its_way(&talos).await? {
            return Ok(());
        }
        let now = self.machine.boot(cx).await?;
        if now.runs(self.to) {
            // The gate may wait for an election.
            self.gate(cx, permit).await?;
            none_waits(self.machine, &talos).await?;
            let boot = talos.this_boot().await?;
            return Ok(talos.roll_back(&permit.in_boot(&boot)).await?);
        }
        match self.from {
            Some(from) if self.waits(&now)? => self.write(cx, &talos, from, Mark::Returned, permit).await,
            _ => Ok(()),
        }
    }

    /// What ran before, by its installer where that is known.
    fn was(&self) -> String {
        self.from.map_or_else(|| self.boot.image(), str::to_owned)
    }

    /// Whether the other image is written and waits for the next boot, or may be, where the end of the call was not
    /// seen; a boot that there was since took it, or fell back.
    fn waits(&self, now: &Boot) -> Result<bool, Failure> {
        Ok(self.has(Mark::Writing, &now.id)? && !self.has(Mark::Returned, &now.id)?)
    }

    async fn gate(&self, cx: &Estate, permit: &Permit) -> Result<(), Failure> {
        quorum::pass(cx, &self.machine.cluster, &self.machine.name, self.peers, permit).await
    }

    async fn write(&self, cx: &Estate, talos: &Talos, image: &str, mark: Mark, permit: &Permit) -> Result<(), Failure> {
        self.gate(cx, permit).await?;
        let fetched = talos.fetch(permit, image).await?;
        // A pull takes minutes.
        let boot = talos.this_boot().await?;
        let permit = &permit.in_boot(&boot);
        match fetched {
            Fetched::Pulled { .. } => self.keep(&Mark::Writing.file(&boot), permit)?,
            Fetched::Whole { .. } => none_waits(self.machine, talos).await?,
        }
        match talos.put(permit, &fetched).await? {
            Upgrade::Begun { actor } => {
                let begun = begun(talos, &actor).await;
                if begun.as_ref().is_err_and(is_refusal) {
                    self.keep(&Mark::Refused.file(&actor), permit)?;
                }
                begun
            }
            Upgrade::Written => self.keep(&mark.file(&boot), permit),
        }
    }

    fn keep(&self, file: &str, permit: &Permit) -> Result<(), Failure> {
        let note = serde_json::to_vec(&Note { to: self.to.to_owned() });
        let note = note.map_err(|error| Failure::plain(format!("{file}: {error}"), None))?;
        Ok(permit.file(file, &note)?)
    }

    fn has(&self, mark: Mark, of: &str) -> Result<bool, Failure> {
        let file = mark.file(of);
        let found = self.run.file(self.key, &file);
        let unread =
            |error| Failure::plain(format!("the run's file {}/{file} cannot be read: {error}", self.key), None);
        found.map(|bytes| bytes.is_some()).map_err(unread)
    }
}

/// Whether the node says that what it was asked for has not begun.
fn is_refusal(failure: &Failure) -> bool {
    matches!(failure.downcast_ref::<Error>(), Some(Error::Busy { .. } | Error::SequenceFailed { .. }))
}
