//! 01: the disk that a machine is to be installed on is there, is the one, and holds nothing that somebody wants.

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Thing;
use crate::blueprint::install::asked::{by_its_own, chosen, other_data, runs_from, unattended, unconsented, under_way};
use crate::blueprint::install::disk::Chosen;
use crate::blueprint::install::{Bare, Stand};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::Talos;

/// Looks at the disks of one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckDisks {
    /// The machine.
    pub bare: Bare,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for CheckDisks {
    const ID: &'static str = "01-check-disks";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.bare.name().to_owned())
    }

    fn title(&self) -> String {
        format!("{} can be installed on disk {}", self.bare.name(), self.bare.disk)
    }

    fn why(&self) -> Vec<String> {
        let at = self.bare.waits_at();
        vec![
            "An installation makes the disk anew: whatever is on it is gone. So the disk is named by its serial number, and \
             looked for among those that the machine has now; a device path is another disk after the next boot."
                .into(),
            "Talos takes the first disk that a selector means and says nothing of the others: two with one serial number are \
             refused."
                .into(),
            format!(
                "What is on it is shown, and it needs `--destroy {}`, one that looks empty too: Talos knows neither old partition \
                 tables (MBR) nor NTFS, md, btrfs or the pools of Mayastor.",
                Thing::disk(&self.bare.disk)
            ),
            "Data of an older installation on another disk is refused: Talos finds its volumes by label, and it may be the last \
             copy of an etcd."
                .into(),
            format!("By hand: `talosctl get disks --insecure -n {at}`, and `get discoveredvolumes`."),
        ]
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::default().asks(self.bare.start_it().0)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let talos = match self.bare.stand(cx).await? {
            Stand::Waits(talos) => talos,
            Stand::Ours(talos) => return self.installed(&talos).await,
            Stand::Foreign => return Ok(Check::blocked(vec![self.bare.foreign()])),
            Stand::Silent(why) => {
                let (ask, hint) = self.bare.start_it();
                return Ok(Check::manual(ask, Some(hint), None).note(why.to_string()));
            }
        };
        if let Some(install) = unattended(&talos).await? {
            return Ok(Check::blocked(vec![by_its_own(self.bare.name(), &install)]));
        }
        Ok(match chosen(&self.bare, &talos).await? {
            Err(problem) => Check::blocked(vec![problem]),
            Ok(chosen) => {
                let mut problems = other_data(&self.bare, &talos).await?;
                problems.extend(unconsented(&self.bare, &chosen, |thing| seen.run.consents.contains(thing)));
                if problems.is_empty() { Check::done().notes(notes(&chosen)) } else { Check::blocked(problems) }
            }
        })
    }
}

impl CheckDisks {
    /// It has its configuration already: then it must run from that disk.
    async fn installed(&self, talos: &Talos) -> Result<Check<Before>, Failure> {
        let name = self.bare.name();
        let (runs, install) = futures::try_join!(runs_from(talos), unattended(talos))?;
        if let Some(under_way) = under_way(&self.bare.machine, install.as_ref(), runs.is_some()) {
            return Ok(under_way);
        }
        Ok(match runs {
            Some((_, serial)) if serial == self.bare.disk => {
                Check::done().note(format!("{name} is installed on disk {serial} already"))
            }
            Some((id, serial)) => Check::blocked(vec![Problem::new(
                format!("{name} is installed on {id} ({serial}), and not on disk {}", self.bare.disk),
                format!(
                    "correct `disk` of the node in the parameters; to install it anew: {}, which wipes {id}",
                    self.bare.machine.talosctl("reset")
                ),
            )]),
            None => Check::waiting(format!("{name} has its configuration and does not run from a disk yet")),
        })
    }
}

fn notes(chosen: &Chosen) -> Vec<String> {
    let head = format!("{} is wiped, by your consent", chosen.named);
    if chosen.holds.is_empty() {
        return vec![format!("{head}; Talos recognises nothing on it")];
    }
    std::iter::once(format!("{head}; it holds")).chain(chosen.holds.iter().cloned()).collect()
}
