//! 05: the new machine is there, and waits for its configuration.

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Check, Hands, Problem};
use crate::base::fault::Failure;
use crate::blueprint::install::asked::{chosen, other_data, runs_from};
use crate::blueprint::install::{Stand, bare::still_waits};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::Talos;

use super::s03_leave_or_remove::is_back;
use super::swap::Swap;

/// Has a person put the new machine in its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwapMachine {
    /// What goes and what comes.
    pub swap: Swap,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for SwapMachine {
    const ID: &'static str = "05-swap";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} is there: it waits for its configuration, or has it", self.swap.comer())
    }

    fn why(&self) -> Vec<String> {
        let (at, disk) = (self.swap.new.waits_at(), &self.swap.new.disk);
        vec![
            "A machine that is started from a Talos stick or ISO, without an installation on its disks, waits for a configuration and \
             says so on its console, with its address."
                .into(),
            format!(
                "It is looked for at {at}, and taken for the one that is meant where it has the disk {disk}, no data of an older \
                 installation on another one, and, as a VM, the uuid of the site's. The old machine is not: it has no such disk, \
                 or its old data."
            ),
            format!("By hand: `talosctl get disks --insecure -n {at}`."),
        ]
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::default().asks(format!("{}, where it does not wait there yet", self.ask().0))
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let check = self.look(cx).await?;
        // While a person is asked, the old one may have been started with its old disk: that is what is to be said then.
        if matches!(check.answer, Answer::Manual { .. })
            && let Some(problem) = is_back(cx, &self.swap, seen.run).await
        {
            return Ok(Check::blocked(vec![problem]));
        }
        Ok(check)
    }
}

impl SwapMachine {
    async fn look(&self, cx: &Estate) -> Result<Check<Before>, Failure> {
        let new = &self.swap.new;
        Ok(match new.stand(cx).await? {
            Stand::Waits(talos) => self.is_it(cx, &talos).await?,
            Stand::Ours(talos) => match runs_from(&talos).await? {
                Some((_, serial)) if serial == new.disk => {
                    Check::done().note(format!("{} is installed on disk {serial} already", new.name()))
                }
                Some((id, serial)) if self.swap.same_name() => self.manual().note(format!(
                    "the machine that answers as {} runs from {id} ({serial}): it is the old one",
                    new.name()
                )),
                Some((id, serial)) => Check::blocked(vec![Problem::new(
                    format!("{} runs from {id} ({serial}), and not from disk {}", new.name(), new.disk),
                    "take another machine; only where this one is no node yet, correct `disk` of `new`",
                )]),
                None => {
                    Check::waiting(format!("{} has its configuration and does not run from a disk yet", new.name()))
                }
            },
            Stand::Foreign => Check::blocked(vec![new.foreign()]),
            Stand::Silent(why) => self.manual().note(why.to_string()).notes(self.runs_silently(cx).await),
        })
    }

    /// What is to be known of a VM that runs and does not wait.
    async fn runs_silently(&self, cx: &Estate) -> Option<String> {
        let vm = self.swap.new.machine.vm.as_ref()?;
        match vm.there(cx, async |pve, at| Ok(pve.status(at).await?)).await {
            Ok((_, _, status)) => status.pid.map(|_| {
                let back = if self.swap.same_name() {
                    format!(
                        "; where it came up from its old disk, `qm stop {0}`, and `qm set {0} --boot order=ide2` (the ISO's drive) \
                         before it is started again",
                        vm.vmid
                    )
                } else {
                    String::new()
                };
                format!("vm {} runs, and does not wait for a configuration{back}", vm.vmid)
            }),
            Err(failure) => Some(format!("whether vm {} runs is not known: {failure}", vm.vmid)),
        }
    }

    fn ask(&self) -> (String, String) {
        let (start, mut hint) = self.swap.new.start_it();
        if self.swap.same_name() {
            // Switched on as it is, the old one would come up.
            let order = self.swap.new.machine.vm.as_ref().map(|vm| {
                format!(
                    " (the drive of the ISO comes first: `qm config {0}` shows which one that is, `qm set {0} --boot order=ide2`)",
                    vm.vmid
                )
            });
            hint = format!(
                "from that medium, and not from a disk with the old installation: with that it comes back as the old {}{}; {}",
                self.swap.old(),
                order.unwrap_or_default(),
                self.swap.new.looked_for()
            );
            let ask = format!(
                "put the machine with disk {} in the place of {}: {start}",
                self.swap.new.disk,
                self.swap.old()
            );
            return (ask, hint);
        }
        (start, hint)
    }

    fn manual(&self) -> Check<Before> {
        let (ask, hint) = self.ask();
        let hands = Hands::Swap { old: self.swap.old().to_owned(), new: self.swap.new.name().to_owned() };
        Check::manual(ask, Some(hint), Some(hands))
    }

    /// Whether what waits there is the machine that is meant.
    async fn is_it(&self, cx: &Estate, talos: &Talos) -> Result<Check<Before>, Failure> {
        let new = &self.swap.new;
        if !still_waits(talos).await? {
            return Ok(Check::done().note(format!("{} installs itself", new.name())));
        }
        let mut problems: Vec<Problem> = chosen(new, talos).await?.err().into_iter().collect();
        problems.extend(other_data(new, talos).await?);
        problems.extend(new.is_another(cx, talos).await?);
        if problems.is_empty() {
            return Ok(Check::done().note(format!("{} waits, with disk {}", new.name(), new.disk)));
        }
        let notes = problems.iter().map(|problem| format!("what waits at {}: {}", new.waits_at(), problem.text));
        Ok(self.manual().notes(notes))
    }
}
