//! The state directory: who is at work, and what is left when journals are lost or damaged.

use pvemig::base::clock::Clock;
use pvemig::engine::event::Opened;
use pvemig::engine::run::{Ended, Why};
use pvemig::engine::state::Phase;
use pvemig::engine::step::Standing;
use pvemig::engine::store::{GivenUp, Holder, StoreError};
use pvemig::report::{self, Report};

use crate::harness::toy::Estate;
use crate::harness::{Bench, How};

fn holder(run: &str) -> Holder {
    Holder { run: run.into(), pid: std::process::id(), host: "here".into(), since: "now".into() }
}

#[test]
fn a_run_at_work_is_known_from_one_that_is_not() {
    let bench = Bench::new();
    assert_eq!(bench.store.at_work().unwrap(), None, "nobody ever was");
    let lock = bench.store.lock(&holder("(beginning)")).unwrap();
    lock.name(&holder("7k2")).unwrap();
    assert_eq!(bench.store.at_work().unwrap(), Some(holder("7k2")));
    assert!(matches!(bench.store.lock(&holder("9zz")), Err(StoreError::Held { holder, .. }) if holder.run == "7k2"));
    drop(lock);
    assert_eq!(bench.store.at_work().unwrap(), None, "the file still names it, the process is gone");
    let _lock = bench.store.lock(&holder("abc")).unwrap();
    assert_eq!(bench.store.at_work().unwrap(), Some(holder("abc")));
}

fn opened() -> Opened {
    Opened {
        tool: "test".into(),
        site: "lab".into(),
        site_digest: String::new(),
        migration: None,
        blueprint: "(lost)".into(),
        blueprint_version: 0,
        single: false,
        argv: Vec::new(),
        host: "here".into(),
        plan: Vec::new(),
    }
}

fn give_up(bench: &Bench, id: &str) -> Option<GivenUp> {
    bench.store.run(id).unwrap().give_up(Clock::real().now(), opened(), "the disk was full").unwrap()
}

fn journal(bench: &Bench, id: &str) -> std::path::PathBuf {
    bench.store.run(id).unwrap().journal()
}

/// A run that stops where a person is needed, with a hold up.
async fn held(bench: &Bench, estate: &std::sync::Arc<Estate>) -> String {
    let stopped = super::run(bench, estate, None, How { no_hands: true, ..How::default() }).await;
    assert_eq!(super::stop(&stopped).key.as_str(), "03-carry");
    stopped.id
}

#[tokio::test]
async fn an_empty_journal_says_nothing_of_what_was_changed_and_is_given_up() {
    for (text, gone) in [("", false), ("{\"v\":1,\"seq\":0", false), ("", true)] {
        let (bench, estate) = (Bench::new(), Estate::new());
        let id = held(&bench, &estate).await;
        let path = journal(&bench, &id);
        std::fs::write(&path, text).unwrap();
        if gone {
            std::fs::remove_file(&path).unwrap();
        }
        let empty = bench.store.run(&id).unwrap().read().unwrap_err();
        assert!(matches!(empty, StoreError::Empty { .. }) && !empty.to_string().contains("changed nothing"), "{empty}");
        let (runs, bad) = bench.store.every_run().unwrap();
        assert_eq!((runs.len(), bad.len(), bad[0].id.as_str()), (0, 1, id.as_str()));
        assert!(bad[0].good.is_none() && bench.store.runs().unwrap().is_empty());
        // What it holds is nobody's to take until an operator gives it up.
        let info = bench.store.info("", "here").unwrap();
        assert_eq!(info.others.get(&id), Some(&Standing::Unreadable));
        let blocked = super::run(&bench, &estate, None, How::default()).await;
        assert!(matches!(super::stop(&blocked).why, Why::Blocked(_)), "{:?}", blocked.ended);
        let kept = give_up(&bench, &id).unwrap().kept;
        assert_eq!(kept.map(|kept| std::fs::read_to_string(kept).unwrap()), (!gone).then(|| text.to_owned()));
        let state = bench.read(&id).state;
        assert_eq!((state.phase, state.opened.blueprint.as_str()), (Phase::Abandoned, "(lost)"));
        assert!(give_up(&bench, &id).is_none(), "it holds now");
        let report = report::text(&Report::of(&id, &bench.read(&id).records).unwrap().unwrap());
        assert!(report.contains("the disk was full (what it did is not known in full: "), "{report}");
        assert!(!report.contains("nothing was changed"), "{report}");
        let taken = super::run(&bench, &estate, None, How::default()).await;
        assert!(matches!(taken.ended, Ok(Ended::Done)), "{:?}", taken.ended);
        assert_eq!(estate.world().replicas, 2, "as the mark says");
    }
}

#[tokio::test]
async fn a_bad_line_stops_what_changes_and_the_other_runs_are_still_listed() {
    let (bench, estate) = (Bench::new(), Estate::new());
    let done = super::run(&bench, &estate, None, How::default()).await;
    estate.world().stick_at = "old".into();
    estate.world().slots.clear();
    let id = held(&bench, &estate).await;
    let path = journal(&bench, &id);
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines = whole.lines().count();
    let damaged = whole.replacen("\"is\":\"asked\"", "\"is\":\"bsked\"", 1);
    assert_ne!(damaged, whole);
    std::fs::write(&path, format!("{damaged}{}\n", whole.lines().last().unwrap())).unwrap();
    let (runs, bad) = bench.store.every_run().unwrap();
    assert_eq!((runs.len(), runs[0].id.as_str(), bad.len()), (1, done.id.as_str(), 1));
    let at = damaged.lines().position(|line| line.contains("bsked")).unwrap() + 1;
    assert!(bad[0].why.to_string().contains(&format!("line {at}: ")), "{}", bad[0].why);
    let good = bad[0].good.as_ref().unwrap();
    assert_eq!((good.records.len(), good.state.holds_up().len()), (at - 1, 1));
    // A plan may look; a run does not begin.
    assert_eq!(bench.store.info("", "here").unwrap().others.get(&id), Some(&Standing::Unreadable));
    assert!(bench.store.info("another", "here").is_err() && bench.store.runs().is_err());
    let kept = give_up(&bench, &id).unwrap().kept.unwrap();
    assert!(std::fs::read_to_string(&kept).unwrap().lines().count() > lines, "nothing of it is lost");
    let state = bench.read(&id);
    assert_eq!((state.records.len(), state.state.phase), (at, Phase::Abandoned));
    assert_eq!(bench.store.runs().unwrap().len(), 2);
    assert_eq!(bench.store.info("another", "here").unwrap().others.get(&id), Some(&Standing::Abandoned));
}

#[tokio::test]
async fn a_run_that_was_over_before_the_damage_is_given_up_all_the_same() {
    let (bench, estate) = (Bench::new(), Estate::new());
    let done = super::run(&bench, &estate, None, How::default()).await;
    let path = journal(&bench, &done.id);
    let whole = std::fs::read_to_string(&path).unwrap();
    let last = whole.lines().last().unwrap();
    assert!(last.contains("closed"));
    std::fs::write(&path, format!("{whole}{last}\n{last}\n")).unwrap();
    assert_eq!(bench.store.run(&done.id).unwrap().good_part().unwrap().state.phase, Phase::Done);
    give_up(&bench, &done.id).unwrap();
    let state = bench.read(&done.id);
    assert_eq!((state.state.phase, state.records.len()), (Phase::Abandoned, whole.lines().count()));
    // A journal of another version is not damaged.
    let newer = whole.replacen("\"v\":1", "\"v\":7", 1);
    std::fs::write(&path, &newer).unwrap();
    let error = bench.store.run(&done.id).unwrap().give_up(Clock::real().now(), opened(), "x").unwrap_err();
    assert!(!error.is_damage() && error.to_string().contains("format 7"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn a_run_that_could_not_begin_leaves_nothing_and_nothing_names_none() {
    let bench = Bench::new();
    let dir = bench.store.new_run().unwrap();
    assert_eq!(bench.store.every_run().unwrap().1.len(), 1);
    // The beginning of every id is none.
    assert!(matches!(bench.store.run(""), Err(StoreError::NoRun { .. })));
    dir.discard().unwrap();
    let (runs, damaged) = bench.store.every_run().unwrap();
    assert_eq!((runs.len(), damaged.len()), (0, 0));
}
