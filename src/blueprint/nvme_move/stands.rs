//! Which slots a machine's drives were in when an inventory was taken, and at which port each slot is.
//!
//! A site file need not have the ports of its slots: they are learned from a machine whose layout is known. So that a
//! machine which is as it is to be already is not taken for one that was never touched, what one run has learned counts
//! for the next.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::drives::{Inventory, Layout, Plan, Port, Sight, Slot, Unasked, name};

/// What an inventory showed of the slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Stands {
    /// The node.
    pub(super) node: String,
    /// When.
    pub(super) taken: Timestamp,
    /// Which drive was where; empty where that cannot be told.
    pub(super) layout: Layout,
    /// The ports of the slots, as far as they are known.
    pub(super) ports: BTreeMap<String, Port>,
    /// It was guessed which of two layouts it is: nobody is to learn from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) guessed: bool,
}

/// Which layout a machine is in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Placed {
    /// Which drive is where; empty where that cannot be told.
    pub(super) layout: Layout,
    /// The ports of the slots, as far as they are known, or follow from the layout.
    pub(super) ports: BTreeMap<String, Port>,
    /// The other layout of the plan would look the same, or the one after the move is not proven by ports.
    pub(super) guessed: bool,
}

/// Which layout a machine is in. The ports that are known decide; without them it is as in `current`, or where that cannot
/// be, as in `target`. Neither: none is said.
///
/// # Errors
/// As for [`name`].
pub(super) fn stands(plan: &Plan, learned: &BTreeMap<String, Port>, live: &Inventory) -> Result<Placed, Unasked> {
    let plan = with_ports(plan, learned);
    let ports: BTreeMap<String, Port> =
        plan.slots.iter().filter_map(|slot| Some((slot.name.clone(), slot.port.clone()?))).collect();
    let named = name(&plan, live)?;
    let at: BTreeMap<&str, Port> = named
        .found
        .iter()
        .filter_map(|found| Some((found.name.as_str(), live.drives.get(found.at)?.port()?)))
        .collect();
    let slot_at = |port: &Port| ports.iter().find(|(_, of)| *of == port).map(|(slot, _)| slot.clone());
    let known: Option<Layout> = at.iter().map(|(name, port)| Some((slot_at(port)?, (*name).to_owned()))).collect();
    if let Some(layout) = known.filter(|layout| !layout.is_empty() && layout.len() == named.found.len()) {
        return Ok(Placed { layout, ports, guessed: false });
    }
    let both = [&plan.current, &plan.target];
    Ok(match both.into_iter().find(|layout| may_be(&plan, layout, &named, &at, &ports)) {
        Some(layout) => {
            let guessed = is_guess(&plan, layout, &ports);
            let mut all = ports;
            all.extend(layout.iter().filter_map(|(slot, name)| Some((slot.clone(), at.get(name.as_str())?.clone()))));
            Placed { layout: layout.clone(), ports: all, guessed }
        }
        None => Placed { ports, ..Placed::default() },
    })
}

/// Whether what is taken for one of the two layouts may be something else. That it is as in `current` is the word of the site
/// file, where it can be told from the other at all; that it is as in `target` takes the port of a slot that is new to its
/// drive: one that is to come may have been put into any slot beforehand.
fn is_guess(plan: &Plan, layout: &Layout, ports: &BTreeMap<String, Port>) -> bool {
    if *layout == plan.current {
        return changing(plan).next().is_some() && look_alike(plan);
    }
    let mut new = layout.iter().filter(|(slot, name)| plan.current.get(*slot) != Some(*name)).peekable();
    new.peek().is_some() && !new.any(|(slot, _)| ports.contains_key(slot))
}

/// The slots that have another drive afterwards, or none.
pub(super) fn changing(plan: &Plan) -> impl Iterator<Item = &Slot> {
    plan.slots.iter().filter(|slot| plan.current.get(&slot.name) != plan.target.get(&slot.name))
}

/// Whether nothing tells `current` from `target`: the same drives, and no port is known of a slot that changes.
pub(super) fn look_alike(plan: &Plan) -> bool {
    let all = |layout: &Layout| {
        let mut names: Vec<String> = layout.values().cloned().collect();
        names.sort();
        names
    };
    all(&plan.current) == all(&plan.target) && changing(plan).all(|slot| slot.port.is_none())
}

/// Whether exactly the drives of a layout are there, and none is where that layout has another slot.
fn may_be(
    plan: &Plan,
    layout: &Layout,
    named: &Sight,
    at: &BTreeMap<&str, Port>,
    ports: &BTreeMap<String, Port>,
) -> bool {
    let all = plan.drives.keys().all(|name| named.of(name).is_some() == Plan::slot_of(layout, name).is_some());
    all && layout.iter().all(|(slot, name)| {
        let Some(port) = at.get(name.as_str()) else { return false };
        match ports.get(slot) {
            Some(own) => own == port,
            None => !ports.values().any(|other| other == port),
        }
    })
}

/// A plan with the ports that were learned, where the site file has none.
pub(super) fn with_ports(plan: &Plan, learned: &BTreeMap<String, Port>) -> Plan {
    let mut plan = plan.clone();
    for slot in plan.slots.iter_mut().filter(|slot| slot.port.is_none()) {
        slot.port = learned.get(&slot.name).cloned();
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::drives::{Drive, Purpose, Scenario, Wanted};

    const PORTS: [&str; 3] = ["0000:00:1b.0", "0000:00:1d.0", "0000:00:06.0"];

    /// `1=a 2=b`.
    fn layout(text: &str) -> Layout {
        text.split(' ').filter_map(|p| p.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    fn plan(current: &str, target: &str) -> Plan {
        let wanted = |serial: &str, new| Wanted {
            serial: serial.into(),
            purposes: vec![Purpose::Spare],
            new,
            model: "M".into(),
            size: Some(7),
            ..Wanted::default()
        };
        Plan {
            slots: ["1", "2", "3"].map(|n| Slot { name: n.into(), position: String::new(), port: None }).into(),
            drives: [("a", false), ("b", false), ("c", true)]
                .map(|(name, new)| (name.to_owned(), wanted(name, new)))
                .into_iter()
                .filter(|(name, _)| name != "c" || target.contains("=c"))
                .collect(),
            current: layout(current),
            target: layout(target),
            scenario: Scenario::Data,
        }
    }

    /// `a` in the first of the ports, and so on.
    fn live(drives: &[(&str, usize)]) -> Inventory {
        let drive = |(serial, at): &(&str, usize)| Drive {
            id: format!("nvme{at}n1"),
            model: "M".into(),
            serial: (*serial).into(),
            size: 7,
            transport: "nvme".into(),
            bus_path: format!("/pci0000:00/{}/0000:04:00.0/nvme", PORTS[*at]),
            ..Drive::default()
        };
        Inventory { drives: drives.iter().map(drive).collect(), ..Inventory::default() }
    }

    fn shown(plan: &Plan, learned: &[(&str, usize)], drives: &[(&str, usize)]) -> String {
        let learned = learned.iter().map(|(slot, at)| ((*slot).to_owned(), PORTS[*at].parse().unwrap())).collect();
        let Placed { layout, guessed, .. } = stands(plan, &learned, &live(drives)).unwrap();
        let shown = layout.iter().map(|(slot, name)| format!("{slot}={name}")).collect::<Vec<_>>().join(" ");
        if guessed { format!("{shown}?") } else { shown }
    }

    #[test]
    fn a_machine_that_was_worked_on_is_not_taken_for_one_that_was_not() {
        let new = plan("1=a 2=b", "1=a 3=b 2=c");
        let swap = plan("1=a 2=b", "1=b 2=a");
        type At = &'static [(&'static str, usize)];
        let cases: [(&Plan, At, At, &str); 11] = [
            // Nothing is learned: the drives that are there tell.
            (&new, &[], &[("a", 0), ("b", 1)], "1=a 2=b"),
            // The one that comes is there: in its slot, or in any other.
            (&new, &[], &[("a", 0), ("b", 2), ("c", 1)], "1=a 2=c 3=b?"),
            (&new, &[("1", 0)], &[("a", 0), ("b", 2), ("c", 1)], "1=a 2=c 3=b?"),
            (&new, &[("2", 1)], &[("a", 0), ("b", 2), ("c", 1)], "1=a 2=c 3=b"),
            // One is missing: nobody can tell where the other one is.
            (&new, &[], &[("a", 0)], ""),
            (&new, &[("1", 0), ("2", 1), ("3", 2)], &[("a", 0)], "1=a"),
            // Two that change places look the same before and after.
            (&swap, &[], &[("a", 1), ("b", 0)], "1=a 2=b?"),
            (&swap, &[("1", 0), ("2", 1)], &[("a", 1), ("b", 0)], "1=b 2=a"),
            (&swap, &[("1", 0)], &[("a", 1), ("b", 0)], "1=b 2=a"),
            (&swap, &[("1", 0), ("2", 1)], &[("a", 0), ("b", 1)], "1=a 2=b"),
            // A third slot that neither layout has.
            (&swap, &[("1", 0), ("2", 1), ("3", 2)], &[("a", 0), ("b", 2)], "1=a 3=b"),
        ];
        assert_eq!(cases.len(), 11);
        for (plan, learned, drives, expected) in cases {
            assert_eq!(shown(plan, learned, drives), expected, "{learned:?} {drives:?}");
        }
    }
}
