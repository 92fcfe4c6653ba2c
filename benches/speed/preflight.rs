//! The preflight on a small estate and on a large one: what is none of its business must not cost it anything but the
//! lists in which that stands.

use std::collections::BTreeMap;
use std::time::Duration;

use pvemig::lab::{World, large};

use crate::Scale;
use crate::bed::{Bed, Took, median, ms, world};
use crate::process::{mib, peak};

const ARGS: &[&str] = &["step", "00-preflight", "-m", "frigate-coral", "--yes"];

/// What one estate showed.
struct Shown {
    took: Took,
    /// KiB
    memory: u64,
    asked: Asked,
}

/// The requests of one preflight, by what they are about.
#[derive(Debug, Default)]
struct Asked {
    /// How often each was made that is about the migration itself. Names that the lab makes up are left out.
    own: BTreeMap<String, usize>,
    /// Later pages of a list.
    pages: usize,
    /// Other machines on the two hosts: one of them may have the device.
    machines: usize,
    /// USB lists of the other hosts: the device may be in one of them.
    hosts: usize,
}

pub(crate) async fn measure(scale: Scale) {
    let size = if scale.whole {
        large::Size { hosts: 10, machines: 200, nodes: 50, claims: 50, pods: 5_000 }
    } else {
        large::Size { hosts: 10, machines: 60, nodes: 12, claims: 50, pods: 600 }
    };
    let round = Duration::from_millis(u64::from(scale.whole));
    println!(
        "\npreflight: 00 alone, at {} ms round trip, on the estate of usb-move and on one around it with",
        round.as_millis()
    );
    println!(
        "{} hosts, {} VMs, {} nodes, {} claims and {} pods",
        size.hosts, size.machines, size.nodes, size.claims, size.pods
    );
    let small = show(scale, world(), round).await;
    let large = show(scale, large::around(world(), &size), round).await;
    println!("{:>22} {:>10} {:>10} {:>7}", "", "small", "large", "ratio");
    let duration = |what: &str, small: Duration, large: Duration| {
        row(what, (&ms(small), &ms(large)), small.as_secs_f64(), large.as_secs_f64());
    };
    let number = |what: &str, small: usize, large: usize| {
        row(what, (&small.to_string(), &large.to_string()), small as f64, large as f64);
    };
    duration("wall ms", small.took.wall, large.took.wall);
    duration("of it waited ms", small.took.waited, large.took.waited);
    number("requests", small.took.requests, large.took.requests);
    number("further pages of lists", small.asked.pages, large.asked.pages);
    number("machines on both hosts", small.asked.machines, large.asked.machines);
    number("usb of other hosts", small.asked.hosts, large.asked.hosts);
    number("connections", small.took.connections, large.took.connections);
    number("bytes", small.took.bytes, large.took.bytes);
    row("peak memory MiB", (&mib(small.memory), &mib(large.memory)), small.memory as f64, large.memory as f64);
    assert!(small.asked.own.len() > 20, "{:?}", small.asked);
    assert_eq!(small.asked.own, large.asked.own, "what is none of its business is asked for");
    // A device may be with any machine of the two hosts, and in any host: that grows with them, and with nothing else.
    let most = 2 * size.machines.div_ceil(size.hosts) * 2;
    assert!(large.asked.machines <= most, "{} > {most}", large.asked.machines);
    assert!(large.asked.hosts <= size.hosts, "{:?}", large.asked);
}

fn row(what: &str, (small, large): (&str, &str), of: f64, to: f64) {
    let ratio = if of > 0.0 { format!("{:.2}", to / of) } else { "-".to_owned() };
    println!("{what:>22} {small:>10} {large:>10} {ratio:>7}");
}

async fn show(scale: Scale, world: World, round: Duration) -> Shown {
    // In real time: what the lab's own controllers do in passing is not to be measured.
    let bed = Bed::new(world, 1, round, |_| {}).await;
    let mut all = Vec::new();
    for _ in 0..scale.times() {
        all.push(bed.run(ARGS).await);
    }
    let before = bed.requests();
    let memory = tokio::task::block_in_place(|| peak(bed.command(ARGS).into_std()));
    let mut asked = Asked::default();
    for seen in bed.lab.shared().log.seen().split_off(before) {
        let line = seen.line;
        if line.contains("continue=") {
            asked.pages += 1;
        } else if line.contains("/nodes/host-") {
            assert!(!line.contains("/qemu/"), "a machine on a host that has nothing to do with it: {line}");
            asked.hosts += 1;
        } else if other_machine(&line) {
            asked.machines += 1;
        } else if !line.contains("/exec-status") {
            // An answer that is waited for is asked for as often as it takes; everything else has its number.
            let words = line.split("/pvc-").enumerate();
            let words =
                words.map(|(n, part)| if n == 0 { part } else { part.split_once('_').map_or("", |(_, rest)| rest) });
            *asked.own.entry(words.collect::<Vec<_>>().join("/pvc_")).or_default() += 1;
        }
    }
    Shown { took: median(all), memory, asked }
}

/// The machines that the estate has around the migration's have ids of four digits.
fn other_machine(line: &str) -> bool {
    let id = line.split("/qemu/").nth(1).and_then(|rest| rest.split('/').next());
    id.is_some_and(|id| id.len() >= 4)
}
