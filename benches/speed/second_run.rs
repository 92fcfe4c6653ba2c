//! A second run with nothing to do: wall time beside what was waited for, and beside the script.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Scale;
use crate::bed::{Bed, SPEED, Took, median, ms, times_as, world, yes};
use crate::script;

/// So much more than the sum of what it had to wait for may a run take.
const WITHIN: f64 = 1.5;

/// Round trips one after the other that the run needs: each step asks after the one before it, and a step mostly asks two
/// systems side by side; with them the handshakes (TCP, TLS, login, ssh) of the first questions. More are needless ones.
const TRIPS: f64 = 40.0;
/// What a run with nothing to do may ask, and by how many connections: a question more in each step, or a connection for
/// each question, is seen here. How many are open side by side varies with what else the machine does.
const REQUESTS: usize = 116;
const CONNECTIONS: usize = 30;

pub(crate) async fn measure(scale: Scale) {
    let rounds: &[u64] = if scale.whole { &[0, 1, 20] } else { &[0] };
    println!("\nsecond-run: nothing to do (18 steps), and the same twelve steps looked at by a shell script");
    println!(
        "waited: while at least one answer was outstanding; trips: waited / rtt; ratio: wall / waited, the middle of all runs"
    );
    println!(
        "{:>6} {:>8} {:>10} {:>10} {:>9} {:>12} {:>6} {:>6}",
        "rtt ms", "asked by", "wall ms", "waited ms", "requests", "connections", "trips", "ratio"
    );
    let mut lines = 0;
    // By who asked: the wall time at each round trip.
    let mut walls = BTreeMap::<&str, Vec<(u64, Duration)>>::new();
    for &round in rounds {
        for access in ["ssh", "agent"] {
            let edit = |site: &mut Value| {
                for node in site["nodes"].as_object_mut().unwrap().values_mut() {
                    node["access"] = json!([access]);
                }
            };
            let bed = Bed::new(world(), SPEED, Duration::from_millis(round), edit).await;
            bed.migrate().await;
            let mut all = Vec::new();
            for _ in 0..scale.times() {
                all.push(bed.run(&["run", "frigate-coral", "--yes"]).await);
            }
            let mut ratios: Vec<f64> = all.iter().map(|took| times_as(took.wall, took.waited)).collect();
            ratios.sort_by(f64::total_cmp);
            let (ratio, most) = (ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
            let took = median(all);
            let within = yes(ratio <= WITHIN);
            let judged =
                if scale.whole { format!("within {WITHIN}: {within} (at most {most:.2})") } else { String::new() };
            println!("{} {judged}", line(round, access, &took, ratio));
            walls.entry(access).or_default().push((round, took.wall));
            assert!((20..=REQUESTS).contains(&took.requests), "{took:?}");
            assert!((2..=CONNECTIONS).contains(&took.connections), "{took:?}");
            lines += 1;
            if access == "ssh" {
                let script = script::look(&bed, scale.times()).await;
                let times = times_as(script.wall, took.wall);
                let ratio = times_as(script.wall, script.waited);
                println!("{} {times:.1} times as long", line(round, "(script)", &script, ratio));
                walls.entry("(script)").or_default().push((round, script.wall));
                assert!(script.requests > 20 && script.connections > 10, "{script:?}");
            }
        }
    }
    assert_eq!(lines, rounds.len() * 2);
    for (who, walls) in walls {
        if let (Some((least, near)), Some((most, far))) = (walls.first(), walls.last())
            && most > least
        {
            let slope = far.saturating_sub(*near).as_secs_f64() * 1_000.0 / (most - least) as f64;
            let judged =
                if who == "(script)" { String::new() } else { format!("; at most {TRIPS}: {}", yes(slope <= TRIPS)) };
            println!("{who}: {slope:.0} round trips one after the other, by how wall time grows with the rtt{judged}");
        }
    }
}

fn line(round: u64, who: &str, took: &Took, ratio: f64) -> String {
    let trips =
        if round < 10 { "-".to_owned() } else { format!("{:.0}", took.waited.as_secs_f64() * 1_000.0 / round as f64) };
    format!(
        "{round:>6} {who:>8} {:>10} {:>10} {:>9} {:>12} {trips:>6} {ratio:>6.2}",
        ms(took.wall),
        ms(took.waited),
        took.requests,
        took.connections,
    )
}
