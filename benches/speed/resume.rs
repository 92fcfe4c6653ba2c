//! After a kill: from the start of the process to the first request that asks the estate something: no login, no ping.

use std::process::Stdio;
use std::time::{Duration, Instant};

use pvemig::lab::{Class, Shared};

use crate::Scale;
use crate::bed::{Bed, SPEED, ms, spread, target, world};

pub(crate) async fn measure(scale: Scale) {
    println!(
        "\nresume: killed once the source has let go of the stick; process start to the first useful request (no login)"
    );
    let mut firsts = Vec::new();
    for _ in 0..scale.times() {
        let bed = Bed::new(world(), SPEED, Duration::ZERO, |_| {}).await;
        let mut run =
            bed.command(&["run", "frigate-coral", "--yes", "--wait=10m"]).stderr(Stdio::null()).spawn().unwrap();
        bed.freed().await;
        run.kill().await.unwrap();
        bed.lab.move_stick("coral", Some(target())).unwrap();
        // What it asks for its rights, or to get in, is not what it came for.
        let useful =
            |lab: &Shared| lab.log.seen().iter().filter(|s| !matches!(s.class, Class::Login | Class::Ping)).count();
        let before = useful(bed.lab.shared());
        let begun = Instant::now();
        let mut child = bed.command(&["resume"]).stderr(Stdio::null()).spawn().unwrap();
        let lab = bed.lab.shared().clone();
        let first = tokio::task::spawn_blocking(move || {
            while useful(&lab) == before {
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
