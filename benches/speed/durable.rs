//! Durable writes: at most two for each changing call and two for each step that was applied.

use std::time::Duration;

use crate::bed::{Bed, SPEED, world};

pub(crate) async fn measure() {
    println!("\ndurable: lines of a whole run's journal that are on the disk before it goes on");
    let bed = Bed::new(world(), SPEED, Duration::ZERO, |_| {}).await;
    bed.migrate().await;
    let journals = std::fs::read_dir(bed.at("state/homelab/runs")).unwrap();
    let mut read = 0;
    for journal in journals.map(|entry| entry.unwrap().path().join("journal.jsonl")) {
        let text = std::fs::read_to_string(journal).unwrap();
        let (mut durable, mut calls, mut steps) = (0_usize, 0_usize, 0_usize);
        for line in text.lines() {
            let is = |name: &str| line.contains(&format!("\"is\":\"{name}\""));
            durable += usize::from(!["checked", "already-so", "asked"].iter().any(|name| is(name)));
            calls += usize::from(is("call"));
            steps += usize::from(is("applied"));
        }
        let most = 2 * calls + 2 * steps;
        println!("{durable} durable lines, {calls} calls, {steps} applied steps: at most {most}");
        // Beside them the run's own beginning and end.
        assert!(calls > 10 && durable <= most + 2, "{durable} > {most}");
        read += 1;
    }
    assert_eq!(read, 1);
}
