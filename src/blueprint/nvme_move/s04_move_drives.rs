//! 04: a person moves the drives, and switches the machine on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::drives::{Layout, Plan};
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::Talos;

use super::anew::{Anew, switch_off};
use super::params::Medium;
use super::remembered::{answering, were_up};
use super::s02_drain::DrainNode;
use super::s04_asked::ITS_HOST;
use super::sight::{Stand, known, last, layout_now, stand};
use super::way_out::{GRACE, Way, alone, once_more, way_out, with_help};

/// Has a person move the drives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveDrives {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// What is to become of its drives.
    pub plan: Plan,
    /// What it boots from where its system disk does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
    /// What it is installed anew with, where its system disk is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Anew>,
    /// Where the drives were when it answered last on the way back, for who is asked once it is off: nothing of it is kept.
    #[serde(skip)]
    pub seen: Arc<Mutex<Option<Layout>>>,
}

/// How the drives were before anybody was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Which was in which slot.
    pub layout: Layout,
}

impl Step<Estate> for MoveDrives {
    const ID: &'static str = "04-move-drives";
    const RISK: Risk = Risk::Reads;
    /// With the only control plane off there is no API to ask.
    const BLIND_TO: &'static [&'static str] = &[<DrainNode as Step<Estate>>::ID];
    type Before = Before;

    fn title(&self) -> String {
        format!("the drives of {} are in their new slots, and it answers", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        let name = &self.machine.name;
        vec![
            "Take the power cable out, or switch the power supply off, and touch the case before a drive: a spark that nobody feels \
             kills it. A drive that was at work is hot."
                .into(),
            "Look at the label of each drive: kernel names (`nvme0n1`) go by the order in which drives answer, and are others after \
             this."
                .into(),
            format!("It goes on by itself as soon as {name} is on, answers, and each drive is found in its slot."),
            "Where a drive is elsewhere, or nowhere, it stops; `pvemig resume` switches the machine off again and asks once more.".into(),
            "Talos writes no file of the kernel for anybody, and so no `/sys/bus/pci/rescan`: a drive that is not seen is seated anew with the power off."
                .into(),
            format!("By hand: {} shows each drive with its bus path.", self.machine.talosctl("get disks -o yaml")),
        ]
    }

    /// Firmware and boot of a machine that was switched on; a person takes as long as it takes.
    fn limit(&self) -> Duration {
        Duration::from_secs(900)
    }

    fn outlook(&self, cx: &Estate) -> Outlook {
        let plan = &self.plan;
        let todo = self.sentence(plan, (&plan.current, &plan.target), self.anew.as_ref());
        let back = self.sentence(plan, (&plan.target, &plan.current), None);
        let named = |text: String| match self.host_in_site(cx) {
            Some(host) => text.replacen(ITS_HOST, &format!("{ITS_HOST} {host}"), 1),
            None => text,
        };
        Outlook::default().asks(named(todo)).asks_back(named(back))
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        if let Some(shut) = self.host_of_a_vm(cx, seen.run).await? {
            return self.in_a_host(cx, shut, seen.run, &self.plan.target, true).await;
        }
        let anew = self.anew.as_ref();
        Ok(match stand(cx, &self.machine, &self.plan, seen.run, &self.plan.target, anew).await? {
            Stand::There(notes) => Check::done().notes(notes),
            Stand::Waits(_, problems, notes) if problems.is_empty() => Check::done().notes(notes),
            Stand::Waits(_, problems, notes) | Stand::Amiss(problems, notes) => {
                if let Some(help) = alone(&self.machine, seen.run)? {
                    return Ok(Check::blocked(with_help(problems, &help)).notes(notes));
                }
                Check::blocked(once_more(problems)).notes(notes)
            }
            Stand::Between(why) => Check::waiting(why),
            Stand::Deaf(why) => {
                Check::waiting(why).late(GRACE, way_out(&self.machine, &self.plan, &self.plan.target, Way::Forth(anew)))
            }
            Stand::Other(why) => Check::blocked(vec![self.another(&why)]),
            Stand::Off(how) => {
                if let Some(problem) = self.wrong_machine(cx, seen.run).await? {
                    return Ok(Check::blocked(vec![problem]));
                }
                let known = known(cx, &self.machine, &self.plan, seen.run, None)?;
                let before = Before { layout: known.plan.current.clone() };
                let from = last(&known, seen.run)?;
                let medium = self.anew.as_ref();
                self.asked(cx, seen.run, &known.plan, (&from, &self.plan.target), (medium, Some(before)))?.note(how)
            }
        })
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let name = &self.machine.name;
        if let Some(shut) = self.host_of_a_vm(cx, seen.run).await? {
            return self.in_a_host(cx, shut, seen.run, &before.layout, false).await;
        }
        let anew = self.anew.as_ref();
        Ok(match stand(cx, &self.machine, &self.plan, seen.run, &before.layout, anew).await? {
            Stand::There(notes) => Check::done().notes(notes),
            Stand::Waits(talos, problems, notes) => {
                self.look_where(cx, seen.run, Some(&*talos)).await?;
                let hint: Vec<String> = problems.into_iter().map(|problem| problem.text).collect();
                Check::manual(switch_off(name).0, Some(hint.join("\n")), None).notes(notes)
            }
            // The hold of 03 switches it off; a plan that ends before 05 has none.
            Stand::Amiss(problems, notes) => {
                self.look_where(cx, seen.run, None).await?;
                let what = problems.into_iter().map(|problem| problem.text).collect::<Vec<_>>().join("; ");
                let ask = format!(
                    "switch {name} off, so that its drives can be put back: {}",
                    self.machine.talosctl("shutdown")
                );
                Check::manual(ask, Some(what), None).notes(notes)
            }
            Stand::Between(why) => Check::waiting(why),
            Stand::Deaf(why) => {
                Check::waiting(why).late(GRACE, way_out(&self.machine, &self.plan, &before.layout, Way::Back(anew)))
            }
            Stand::Other(why) => Check::blocked(vec![self.another(&why)]),
            Stand::Off(how) => {
                if let Some(problem) = self.wrong_machine(cx, seen.run).await? {
                    return Ok(Check::blocked(vec![problem]));
                }
                let known = known(cx, &self.machine, &self.plan, seen.run, None)?;
                let from = match self.seen.lock().ok().and_then(|seen| seen.clone()) {
                    Some(seen) => seen,
                    None => last(&known, seen.run)?,
                };
                self.asked(cx, seen.run, &known.plan, (&from, &before.layout), (None, None))?.note(how)
            }
        })
    }
}

impl MoveDrives {
    /// Keeps in mind where the drives are.
    async fn look_where(&self, cx: &Estate, run: &RunInfo, waits: Option<&Talos>) -> Result<(), Failure> {
        let now = layout_now(cx, &self.machine, &self.plan, run, waits).await?;
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Some(now);
        }
        Ok(())
    }

    fn another(&self, why: &str) -> Problem {
        let name = &self.machine.name;
        Problem::new(
            format!("what answers as {name} is not its installation: {why}"),
            format!(
                "see its screen and the boot order of its firmware; is its system disk in? `pvemig resume` asks {name} again"
            ),
        )
    }

    /// A machine that answered when this one went off, and does not any more.
    pub(super) async fn wrong_machine(&self, cx: &Estate, run: &RunInfo) -> Result<Option<Problem>, Failure> {
        let (name, up) = (&self.machine.name, were_up(run)?);
        let now = answering(cx, &up, name).await?;
        let gone: Vec<&str> = up.iter().filter(|peer| !now.contains(peer)).map(String::as_str).collect();
        let text = |gone: &[&str]| {
            let (does, all) = (if gone.len() == 1 { "does" } else { "do" }, gone.join(", "));
            format!("{all} {does} not answer any more: {name} is the one to be opened, and stays off")
        };
        let help = |gone: &[&str]| {
            format!(
                "switch {} on again, and not {name}; then `pvemig resume`: `pvemig survey` shows who answers",
                gone.join(", ")
            )
        };
        Ok((!gone.is_empty()).then(|| Problem::new(text(&gone), help(&gone))))
    }
}
