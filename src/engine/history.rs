//! How long a blueprint's steps usually take, by the journals of earlier runs.

use std::time::Duration;

use jiff::Timestamp;

use crate::base::names::StepKey;

use super::event::{Event, Record};
use super::store::RunRead;

/// How long a step usually takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual {
    /// Half of the times it took less, half of them more.
    pub time: Duration,
    /// How often it was seen.
    pub times: usize,
}

/// How long a step of a blueprint usually takes; None where no run has shown it. An undo is another thing, and says nothing
/// of it.
pub fn usual(runs: &[RunRead], blueprint: &str, id: &str) -> Option<Usual> {
    let own = runs.iter().filter(|run| run.state.opened.blueprint == blueprint);
    median(own.flat_map(|run| took(&run.records, id)).collect())
}

fn median(mut all: Vec<Duration>) -> Option<Usual> {
    all.sort_unstable();
    let times = all.len();
    let upper = all.get(times / 2)?;
    // Of an even number the mean of the two in the middle.
    let lower = if times.is_multiple_of(2) { all.get(times / 2 - 1)? } else { upper };
    Some(Usual { time: (*lower + *upper) / 2, times })
}

/// How long each turn of a step took in a run, from the first line about it to the one that it is so. A turn in which nothing
/// had to be done tells nothing, and neither does one in which the run stopped: nobody knows for how long it stood.
fn took(records: &[Record], id: &str) -> Vec<Duration> {
    let mut all = Vec::new();
    let mut turn: Option<(&StepKey, Timestamp)> = None;
    let mut stopped: Vec<&StepKey> = Vec::new();
    for record in records {
        let Some(key) = record.event.key() else { continue };
        match &record.event {
            Event::Undoing { .. } => break,
            // Whose turn it is is told by whose was over last: a hold asks the steps behind it before its own.
            Event::Applied { .. } | Event::AlreadySo { .. } => {
                let since = turn.take().filter(|(of, _)| *of == key && !stopped.contains(of));
                let since = since.and_then(|(_, since)| Duration::try_from(record.at.duration_since(since)).ok());
                all.extend(since);
            }
            Event::Failed { .. } | Event::Interrupted { .. } => {
                stopped.push(key);
                turn = None;
            }
            // It is so before anything was done, or it is the way back that was asked.
            Event::Checked { answer, back, .. } if *back || answer == "done" => {}
            _ if key.id() == id && turn.is_none() => turn = Some((key, record.at)),
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::base::fault::Effect;

    fn at(second: i64, event: Event) -> Record {
        Record { v: super::super::event::FORMAT, seq: 0, at: Timestamp::from_second(second).unwrap(), event }
    }
    fn checked(key: &str, answer: &str) -> Event {
        Event::Checked { key: key.into(), answer: answer.into(), back: false, notes: Vec::new() }
    }
    fn applying(key: &str) -> Event {
        Event::Applying { key: key.into(), before: Value::Null, changes: Vec::new() }
    }
    fn applied(key: &str) -> Event {
        Event::Applied { key: key.into(), notes: Vec::new() }
    }
    fn already(key: &str) -> Event {
        Event::AlreadySo { key: key.into(), needless: false, notes: Vec::new() }
    }
    fn seconds(records: &[Record], id: &str) -> Vec<u64> {
        took(records, id).iter().map(Duration::as_secs).collect()
    }

    #[test]
    fn a_turn_is_from_the_first_line_about_a_step_to_the_one_that_it_is_so() {
        let run = [
            // A hold asks what is behind it before it is put up.
            at(0, checked("03-move", "manual")),
            at(1, checked("02-drain", "todo")),
            at(1, applying("02-drain")),
            at(31, applied("02-drain")),
            at(32, checked("03-move", "manual")),
            // The hold is looked at in between.
            at(40, checked("02-drain", "done")),
            at(1_832, checked("03-move", "done")),
            at(1_832, already("03-move")),
            // It was so: nothing is learned of it.
            at(1_833, checked("04-config", "done")),
            at(1_833, already("04-config")),
            at(1_834, applying("05-reboot@a")),
            at(1_894, applied("05-reboot@a")),
            at(1_895, checked("05-reboot@b", "todo")),
            at(2_015, applied("05-reboot@b")),
        ];
        assert_eq!(seconds(&run, "02-drain"), [30]);
        assert_eq!(seconds(&run, "03-move"), [1_800]);
        assert!(seconds(&run, "04-config").is_empty());
        assert_eq!(seconds(&run, "05-reboot"), [60, 120]);
        assert!(seconds(&run, "06-nothing").is_empty());
    }

    #[test]
    fn a_turn_in_which_the_run_stopped_and_the_way_back_tell_nothing() {
        let failed = Event::Failed {
            key: "02-b".into(),
            error: Vec::new(),
            effect: Effect::None,
            help: Vec::new(),
            voids: Vec::new(),
        };
        let stopped = [
            at(0, applying("01-a")),
            at(5, applied("01-a")),
            at(6, applying("02-b")),
            at(7, failed),
            at(90_000, checked("02-b", "todo")),
            at(90_001, applied("02-b")),
            at(90_002, applying("03-c")),
            at(90_009, applied("03-c")),
            at(90_010, Event::Undoing { key: "03-c".into() }),
            at(90_011, applying("03-c")),
            at(99_999, applied("03-c")),
        ];
        assert_eq!(seconds(&stopped, "01-a"), [5]);
        assert!(seconds(&stopped, "02-b").is_empty());
        assert_eq!(seconds(&stopped, "03-c"), [7]);
        // A clock that was set back is no time.
        assert!(seconds(&[at(9, applying("01-a")), at(5, applied("01-a"))], "01-a").is_empty());
    }

    #[test]
    fn what_is_usual_is_the_one_in_the_middle() {
        let of = |all: &[u64]| {
            median(all.iter().map(|s| Duration::from_secs(*s)).collect())
                .map(|usual| (usual.time.as_secs(), usual.times))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some((7, 1)));
        assert_eq!(of(&[9, 1]), Some((5, 2)));
        assert_eq!(of(&[3_600, 10, 20]), Some((20, 3)));
    }
}
