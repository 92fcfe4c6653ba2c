//! The state directory: who is at work, and what is left when journals are lost or damaged.

use pvemig::engine::store::{Holder, StoreError};

use crate::harness::Bench;

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
