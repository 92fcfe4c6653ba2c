//! What a person does with the drives, one after the other.

use serde::{Deserialize, Serialize};

use super::{Layout, Plan};

/// One act: a drive goes from a slot to a slot. None is outside of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// The operator's name of the drive.
    pub drive: String,
    /// Where it is.
    pub from: Option<String>,
    /// Where it goes.
    pub to: Option<String>,
}

/// The acts that make one layout of another, in an order in which each slot is free before something is put into it and as
/// few drives as possible lie on the bench. Where drives change places in a circle, one of them goes over the bench.
pub fn acts(from: &Layout, to: &Layout) -> Vec<Act> {
    let mut now = from.clone();
    let mut done = Vec::new();
    let mut go = |now: &mut Layout, drive: &str, slot: Option<&str>| {
        let was = Plan::slot_of(now, drive).map(str::to_owned);
        now.retain(|_, other| other != drive);
        if let Some(slot) = slot {
            now.insert(slot.to_owned(), drive.to_owned());
        }
        done.push(Act { drive: drive.to_owned(), from: was, to: slot.map(str::to_owned) });
    };
    // What leaves makes room.
    let leaving: Vec<&String> = from.values().filter(|drive| Plan::slot_of(to, drive).is_none()).collect();
    for drive in leaving {
        go(&mut now, drive, None);
    }
    // Each round puts a drive where it belongs, or breaks one circle; a circle is broken once.
    for _ in 0..2 * to.len() {
        let open = || to.iter().filter(|(slot, drive)| now.get(*slot) != Some(*drive));
        let Some(first) = open().next() else { break };
        let free = open().find(|(slot, _)| !now.contains_key(*slot));
        match free {
            Some((slot, drive)) => go(&mut now, drive, Some(slot)),
            None => {
                let Some(there) = now.get(first.0).cloned() else { break };
                go(&mut now, &there, None);
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(pairs: &[(&str, &str)]) -> Layout {
        pairs.iter().map(|(slot, drive)| ((*slot).to_owned(), (*drive).to_owned())).collect()
    }

    /// `a: 1 > 2`.
    fn shown(from: &[(&str, &str)], to: &[(&str, &str)]) -> Vec<String> {
        let place = |slot: &Option<String>| slot.clone().unwrap_or_else(|| "-".into());
        let acts = acts(&layout(from), &layout(to));
        acts.iter().map(|act| format!("{}: {} > {}", act.drive, place(&act.from), place(&act.to))).collect()
    }

    #[test]
    fn acts_come_in_an_order_that_a_person_can_follow() {
        type Pairs = &'static [(&'static str, &'static str)];
        let cases: &[(Pairs, Pairs, &[&str])] = &[
            (&[("1", "a")], &[("1", "a")], &[]),
            (&[("1", "a")], &[("2", "a")], &["a: 1 > 2"]),
            (&[("1", "a"), ("2", "b")], &[("1", "a"), ("3", "b"), ("2", "c")], &["b: 2 > 3", "c: - > 2"]),
            (&[("1", "a"), ("2", "b")], &[("1", "b"), ("2", "a")], &["a: 1 > -", "b: 2 > 1", "a: - > 2"]),
            (&[("1", "a"), ("2", "b")], &[("2", "a")], &["b: 2 > -", "a: 1 > 2"]),
            (
                &[("1", "a"), ("2", "b"), ("3", "c")],
                &[("1", "c"), ("2", "a"), ("3", "b")],
                &["a: 1 > -", "c: 3 > 1", "b: 2 > 3", "a: - > 2"],
            ),
            (
                &[("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")],
                &[("1", "b"), ("2", "a"), ("3", "d"), ("4", "c")],
                &["a: 1 > -", "b: 2 > 1", "a: - > 2", "c: 3 > -", "d: 4 > 3", "c: - > 4"],
            ),
        ];
        assert_eq!(cases.len(), 7);
        for (from, to, expected) in cases {
            assert_eq!(shown(from, to), *expected);
        }
    }

    proptest! {
        #[test]
        fn no_slot_ever_holds_two_and_the_end_is_what_was_wanted(
            from in Just("abcdef".chars().collect::<Vec<_>>()).prop_shuffle(),
            to in Just("abcdef".chars().collect::<Vec<_>>()).prop_shuffle(),
            here in 0..7_usize,
            there in 0..7_usize,
        ) {
            let of = |drives: &[char], count: usize| -> Layout {
                drives.iter().take(count).enumerate().map(|(i, drive)| (format!("M2_{i}"), drive.to_string())).collect()
            };
            let (from, to) = (of(&from, here), of(&to, there));
            let mut now = from.clone();
            for act in acts(&from, &to) {
                prop_assert_eq!(Plan::slot_of(&now, &act.drive), act.from.as_deref());
                now.retain(|_, drive| *drive != act.drive);
                if let Some(slot) = act.to {
                    prop_assert_eq!(now.insert(slot, act.drive), None);
                }
            }
            prop_assert_eq!(now, to);
        }
    }
}
