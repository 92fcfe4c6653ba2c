//! What it costs to start: `--version`, and `status` of a site with a run behind it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Scale;
use crate::bed::{Bed, SPEED, ms, spread, world, yes};
use crate::process::{mib, peak};

/// `--version` is to be over before anybody waits for it.
const WITHIN: Duration = Duration::from_millis(10);

pub(crate) async fn measure(scale: Scale) {
    println!("\nstart: a process from its start to its end, and the most memory that it had");
    println!("{:>12} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "min ms", "median ms", "max ms", "MiB", "requests");
    let bed = Bed::new(world(), SPEED, Duration::ZERO, |_| {}).await;
    bed.migrate().await;
    let mut lines = 0;
    for args in [&["--version"][..], &["status"]] {
        let command = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pvemig"));
            command.args(args);
            if args == ["status"] {
                command.args(["--site".as_ref(), bed.at("site.yaml").as_os_str()]);
                command.args(["--state".as_ref(), bed.at("state").as_os_str()]);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let before = bed.requests();
        let took = (0..scale.times() * 3).map(|_| {
            let begun = Instant::now();
            assert!(command().status().unwrap().success(), "{args:?}");
            begun.elapsed()
        });
        let (least, middle, most) = spread(took.collect());
        let memory = peak(command());
        let requests = bed.requests() - before;
        let judged = match args {
            ["--version"] if scale.whole => format!(" under {} ms: {}", ms(WITHIN), yes(middle < WITHIN)),
            _ => String::new(),
        };
        println!(
            "{:>12} {:>9} {:>9} {:>9} {:>9} {requests:>9}{judged}",
            args.join(" "),
            ms(least),
            ms(middle),
            ms(most),
            mib(memory)
        );
        // Neither talks to anybody.
        assert_eq!(requests, 0, "{args:?}");
        lines += 1;
    }
    assert_eq!(lines, 2);
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_pvemig")).unwrap().len();
    println!("the program is a file of {} MiB", mib(size / 1_024));
    assert!(size > 0);
}
