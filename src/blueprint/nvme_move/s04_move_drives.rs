//! 04: a person moves the drives, and switches the machine on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, DriveMove, Hands, Problem};
use crate::base::drives::{Act, Layout, Plan, Scenario, acts, drawing};
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Peer;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::site::OutOfBand;

use super::anew::{Anew, switch_off};
use super::params::Medium;
use super::remembered::{answering, were_up};
use super::s02_drain::DrainNode;
use super::sight::{Stand, facts, known, last, stand};
use super::way_out::{GRACE, Way, alone, once_more, way_out, with_help};

/// The width of the drawing: a hint is shown in 80 columns too.
const WIDTH: usize = 76;

/// Who has the drives of a VM, where it is not known yet by name.
pub(super) const ITS_HOST: &str = "its host";

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
            "Talos has no `talosctl write`, and so no `/sys/bus/pci/rescan`: a drive that is not seen is seated anew with the power off."
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
            Stand::Waits(_, problems, notes) => {
                let hint: Vec<String> = problems.into_iter().map(|problem| problem.text).collect();
                Check::manual(switch_off(name).0, Some(hint.join("\n")), None).notes(notes)
            }
            // The hold of 03 switches it off; a plan that ends before 05 has none.
            Stand::Amiss(problems, notes) => {
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
                let from = last(&known, seen.run)?;
                self.asked(cx, seen.run, &known.plan, (&from, &before.layout), (None, None))?.note(how)
            }
        })
    }
}

impl MoveDrives {
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

    /// What a person is asked. The same words as long as nothing is seen of what was done.
    fn asked<B>(
        &self,
        cx: &Estate,
        run: &RunInfo,
        plan: &Plan,
        (from, to): (&Layout, &Layout),
        (anew, before): (Option<&Anew>, Option<Before>),
    ) -> Result<Check<B>, Failure>
    where
        Check<B>: From<Asked>,
    {
        Ok(self.asked_of(cx, run, plan, (from, to), (anew, before))?.into())
    }

    pub(super) fn asked_of(
        &self,
        cx: &Estate,
        run: &RunInfo,
        plan: &Plan,
        (from, to): (&Layout, &Layout),
        (anew, before): (Option<&Anew>, Option<Before>),
    ) -> Result<Asked, Failure> {
        let name = &self.machine.name;
        let mut lines: Vec<String> =
            acts(from, to).iter().enumerate().map(|(n, act)| format!("{}. {}", n + 1, line(plan, act))).collect();
        // The board of a VM is nobody's to look for.
        let card = if self.machine.vm.is_none() { self.card(run)? } else { None };
        if let Some(card) = card {
            lines.insert(0, format!("the machine: {card}"));
        }
        if let Some(OutOfBand::AtTheMachine(place)) =
            cx.site().talos_node(name).and_then(|(_, node)| node.out_of_band.as_ref())
        {
            lines.push(format!("see first that it is off ({place}): only its silence says so from here"));
        }
        // Where another drive becomes the system disk it is plugged in.
        if let (Some(medium), Scenario::SystemMoved) = (&self.medium, plan.scenario) {
            lines
                .push(format!("have a stick with Talos {} at hand: it boots where the drive does not", medium.version));
        }
        lines.push("power cable out, and a hand on the case before one on a drive".into());
        lines.push("what is done already stays as it is".into());
        lines.push("a drive that is in another slot by now goes from there to where the table has it".into());
        if let Some(anew) = anew {
            lines.push(format!(
                "then {}, and have {name} boot from it (the boot menu of its firmware): it goes on as soon as it waits there",
                anew.plug_in()
            ));
            lines.push("the drive that came out is the way back: lay it aside, and do not put it in again".into());
            lines.push(anew.bare.looked_for());
        } else if self.anew.is_some() {
            lines.push("take the stick out before it is switched on".into());
        }
        lines.extend(drawing(name, plan, from, to, WIDTH, true));
        let hands = Hands::Drives {
            node: name.clone(),
            moves: moves(plan, from, to),
            medium: anew.map(|anew| anew.medium.clone()),
            on: true,
        };
        Ok(Asked { ask: self.sentence(plan, (from, to), anew), hint: lines.join("\n"), hands, before })
    }

    /// One sentence, in an order that a person can follow.
    fn sentence(&self, plan: &Plan, (from, to): (&Layout, &Layout), anew: Option<&Anew>) -> String {
        let name = &self.machine.name;
        let acts: Vec<String> = acts(from, to).iter().map(|act| line(plan, act)).collect();
        let on = match anew {
            Some(anew) => format!("{}, and boot it from that", anew.plug_in()),
            None => "switch it on".to_owned(),
        };
        if acts.is_empty() && self.machine.vm.is_some() {
            return format!(
                "{name} is off: switch {ITS_HOST} off, see that each drive is where the table has it, then switch that on"
            );
        }
        if acts.is_empty() {
            return format!("see that each drive of {name} is where the table has it, and {on}");
        }
        if self.machine.vm.is_some() {
            return format!("{name} is off: switch {ITS_HOST} off, {}, then switch that on", acts.join(", "));
        }
        format!("{name} is off: {}, then {on}", acts.join(", "))
    }

    /// By what a person knows the machine that he stands before.
    fn card(&self, run: &RunInfo) -> Result<Option<String>, Failure> {
        let Some(facts) = facts(&self.machine, run)? else { return Ok(None) };
        let Ok(board) = facts.board.get() else { return Ok(None) };
        let serial = if board.serial.is_empty() { String::new() } else { format!(", serial number {}", board.serial) };
        Ok(Some(format!("{} {}{serial}, uuid {}", board.manufacturer, board.product, board.uuid)))
    }
}

/// What a person is asked, before it is known for which way.
pub(super) struct Asked {
    pub(super) ask: String,
    pub(super) hint: String,
    hands: Hands,
    before: Option<Before>,
}

impl From<Asked> for Check<Before> {
    fn from(asked: Asked) -> Self {
        let mut check = Self::manual(asked.ask, Some(asked.hint), Some(asked.hands));
        if let crate::base::check::Answer::Manual { before, .. } = &mut check.answer {
            *before = asked.before;
        }
        check
    }
}

impl From<Asked> for Check<()> {
    fn from(asked: Asked) -> Self {
        Self::manual(asked.ask, Some(asked.hint), Some(asked.hands))
    }
}

/// A drive as its label has it.
pub(super) fn called(plan: &Plan, name: &str) -> String {
    match plan.drives.get(name).map(|wanted| wanted.serial.trim()) {
        Some(serial) if !serial.is_empty() => format!("{name} ({serial})"),
        _ => name.to_owned(),
    }
}

fn place(plan: &Plan, slot: &str) -> String {
    match plan.slots.iter().find(|one| one.name == slot) {
        Some(one) if !one.position.is_empty() => format!("{slot} ({})", one.position),
        _ => slot.to_owned(),
    }
}

fn line(plan: &Plan, act: &Act) -> String {
    let drive = called(plan, &act.drive);
    match (&act.from, &act.to) {
        (Some(from), Some(to)) => format!("move {drive} from {} to {}", place(plan, from), place(plan, to)),
        (Some(from), None) => format!("take {drive} out of {}", place(plan, from)),
        (None, Some(to)) => format!("put {drive} into {}", place(plan, to)),
        (None, None) => format!("leave {drive} outside"),
    }
}

/// The same for hands that take all out before one goes in.
fn moves(plan: &Plan, from: &Layout, to: &Layout) -> Vec<DriveMove> {
    let differs = |name: &&String| Plan::slot_of(from, name) != Plan::slot_of(to, name);
    let one = |name: &String| DriveMove {
        serial: plan.drives.get(name).map(|wanted| wanted.serial.trim().to_owned()).unwrap_or_default(),
        from: Plan::slot_of(from, name).map(str::to_owned),
        to: Plan::slot_of(to, name).map(str::to_owned),
    };
    plan.drives.keys().filter(differs).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::check::Answer;
    use crate::base::drives::{Purpose, Slot, Wanted};
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;

    fn layout(text: &str) -> Layout {
        text.split(' ').filter_map(|p| p.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    fn step(current: &str, target: &str) -> MoveDrives {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        let machine = Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() };
        let wanted = |serial: &str| Wanted { serial: serial.into(), ..Wanted::default() };
        let slot = |(name, at): (&str, &str)| Slot { name: name.into(), position: at.into(), port: None };
        let plan = Plan {
            slots: [("1", "under the battery"), ("2", ""), ("3", "on the riser")].map(slot).into(),
            drives: [("sys", "S1"), ("media", "D1"), ("pool", "")].map(|(n, s)| (n.to_owned(), wanted(s))).into(),
            current: layout(current),
            target: layout(target),
            scenario: Scenario::Data,
        };
        MoveDrives { machine, peers: Vec::new(), plan, medium: None, anew: None }
    }

    #[test]
    fn a_person_is_told_what_goes_where_and_hands_get_the_same_as_data() {
        let one = step("1=sys 2=media", "1=sys 3=media 2=pool");
        let (from, to) = (&one.plan.current, &one.plan.target);
        assert_eq!(
            one.sentence(&one.plan, (from, to), None),
            "n1 is off: move media (D1) from 2 to 3 (on the riser), put pool into 2, then switch it on"
        );
        assert_eq!(
            one.sentence(&one.plan, (to, from), None),
            "n1 is off: take pool out of 2, move media (D1) from 3 (on the riser) to 2, then switch it on"
        );
        let shown = |moves: Vec<DriveMove>| -> Vec<String> {
            let place = |slot: Option<String>| slot.unwrap_or_else(|| "-".into());
            moves.into_iter().map(|m| format!("{} {} {}", m.serial, place(m.from), place(m.to))).collect()
        };
        assert_eq!(shown(moves(&one.plan, from, to)), ["D1 2 3", " - 2"]);
        // A circle goes over the bench by hand, and is two moves for hands.
        let swap = step("1=sys 2=media", "1=media 2=sys");
        assert_eq!(acts(&swap.plan.current, &swap.plan.target).len(), 3);
        assert_eq!(shown(moves(&swap.plan, &swap.plan.current, &swap.plan.target)), ["D1 2 1", "S1 1 2"]);
        let same = swap.sentence(&swap.plan, (to, to), None);
        assert_eq!(same, "see that each drive of n1 is where the table has it, and switch it on");
    }

    #[test]
    fn a_machine_that_stays_dark_has_a_way_out_for_each_way() {
        let mut one = step("1=sys 2=media", "1=media 2=sys");
        let said = |one: &MoveDrives, layout: &Layout, way: Way<'_>| way_out(&one.machine, &one.plan, layout, way);
        let (from, to) = (one.plan.current.clone(), one.plan.target.clone());
        let unknown = said(&one, &to, Way::Forth(None));
        assert!(unknown.contains("choose its system disk in its boot menu"), "{unknown}");
        one.plan.drives.get_mut("sys").unwrap().purposes = vec![Purpose::System];
        let moved = said(&one, &to, Way::Forth(None));
        assert!(moved.contains("choose sys (S1) in its boot menu"), "{moved}");
        assert!(moved.ends_with("put the drives back, and `pvemig undo`"), "{moved}");
        let back = said(&one, &from, Way::Back(None));
        assert!(back.contains("choose sys (S1)") && !back.contains("pvemig undo"), "{back}");
        // One part of a reason: of more than two the display shows the number alone.
        assert!([unknown, moved, back].iter().all(|text| !text.contains("; ")));
    }

    #[test]
    fn the_way_back_is_kept_with_the_ask() {
        let hands = Hands::Drives { node: "n1".into(), moves: Vec::new(), medium: None, on: true };
        let before = Some(Before { layout: layout("1=sys") });
        let asked = Asked { ask: "a".into(), hint: "b".into(), hands, before: before.clone() };
        let check: Check<Before> = asked.into();
        let Answer::Manual { before: kept, hint, .. } = check.answer else { panic!() };
        assert_eq!((kept, hint.as_deref()), (before, Some("b")));
    }
}
