//! After a kill: from the start of the process to its first request.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Scale;
use crate::bed::{Bed, SPEED, ms, spread, target, world};

pub(crate) async fn measure(scale: Scale) {
    println!("\nresume: killed once the source has let go of the stick; process start to the first request");
    let mut firsts = Vec::new();
    for _ in 0..scale.times() {
        let bed = Bed::new(world(), SPEED, Duration::ZERO, |_| {}).await;
        let mut run =
            bed.command(&["run", "frigate-coral", "--yes", "--wait=10m"]).stderr(Stdio::null()).spawn().unwrap();
        bed.freed().await;
        run.kill().await.unwrap();
        bed.lab.move_stick("coral", Some(target())).unwrap();
        let before = bed.requests();
        let begun = Instant::now();
        let mut child = bed.command(&["resume"]).stderr(Stdio::null()).spawn().unwrap();
        let lab = bed.lab.shared().clone();
        let first = tokio::task::spawn_blocking(move || {
            while lab.log.seen().len() == before {
                std::thread::sleep(Duration::from_micros(100));
            }
            begun.elapsed()
        });
        firsts.push(first.await.unwrap());
        assert!(child.wait().await.unwrap().success());
    }
    assert_eq!(firsts.len(), scale.times());
    let (least, middle, most) = spread(firsts);
    println!("{} ms ({} to {}; of {})", ms(middle), ms(least), ms(most), scale.times());
}
