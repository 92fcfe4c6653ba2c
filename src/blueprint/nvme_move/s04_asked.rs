//! 04: the words of what a person is asked to do, and the same as data for hands.

use crate::base::check::{Check, DriveMove, Hands};
use crate::base::drives::{Act, Layout, Plan, Scenario, acts, drawing};
use crate::base::fault::Failure;
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::site::OutOfBand;

use super::anew::Anew;
use super::s04_move_drives::{Before, MoveDrives};
use super::sight::facts;

/// The width of the drawing: a hint is shown in 80 columns too.
const WIDTH: usize = 76;

/// Who has the drives of a VM, where it is not known yet by name.
pub(super) const ITS_HOST: &str = "its host";

impl MoveDrives {
    /// What a person is asked. The same words as long as nothing is seen of what was done.
    pub(super) fn asked<B>(
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
    pub(super) fn sentence(&self, plan: &Plan, (from, to): (&Layout, &Layout), anew: Option<&Anew>) -> String {
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
    use std::sync::Arc;

    use super::*;
    use crate::base::check::Answer;
    use crate::base::drives::{Purpose, Slot, Wanted};
    use crate::base::names::Dial;
    use crate::blueprint::machine::Machine;
    use crate::blueprint::node::KubeNode;
    use crate::blueprint::nvme_move::way_out::{Way, way_out};

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
        MoveDrives { machine, peers: Vec::new(), plan, medium: None, anew: None, seen: Arc::default() }
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
