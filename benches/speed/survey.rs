//! A survey of three Talos nodes and of twelve, alone and within a large estate: what is asked grows with the nodes that
//! are asked for, and what is none of its business costs no more than the lists in which it stands.

use std::collections::BTreeMap;
use std::time::Duration;

use pvemig::lab::{self, large};

use crate::Scale;
use crate::bed::{Bed, Took, median, ms};
use crate::process::{mib, peak};

/// The nodes that the world has without any more.
const OWN: [&str; 3] = ["talos-mac", "talos-nuc", "talos-vm"];

/// What one survey showed.
struct Shown {
    took: Took,
    /// KiB
    memory: u64,
    /// How often each question was asked, without later pages of lists.
    asked: BTreeMap<String, usize>,
    /// Later pages of lists.
    pages: usize,
}

impl Shown {
    fn requests(&self) -> usize {
        self.asked.values().sum()
    }
}

pub(crate) async fn measure(scale: Scale) {
    let (nodes, pods, machines) = if scale.whole { (12, 5_000, 200) } else { (5, 600, 60) };
    let round = Duration::from_millis(u64::from(scale.whole));
    println!("\nsurvey: of Talos nodes, at {} ms round trip; alone, and in an estate of", round.as_millis());
    println!("{nodes} Talos nodes with {pods} pods, {machines} VMs, and 10 hosts");
    let small = Bed::new(lab::load("talos-three").unwrap(), 1, round, |_| {}).await;
    // The pods are on the Talos nodes, so that reading those that are asked for is what there is to do.
    let world = large::workers(lab::load("talos-three").unwrap(), nodes - OWN.len(), pods);
    let size = large::Size { hosts: 10, machines, nodes: 10, claims: 10, pods: pods / 10 };
    let large = Bed::new(large::around(world, &size), 1, round, |_| {}).await;
    let all = names(&large);
    assert_eq!(all.len(), nodes);
    let three = show(scale, &small, &OWN).await;
    let beside = show(scale, &large, &OWN).await;
    let one = show(scale, &large, &OWN[..1]).await;
    let six: Vec<&str> = all.iter().map(String::as_str).take(nodes / 2).collect();
    let half = show(scale, &large, &six).await;
    let whole: Vec<&str> = all.iter().map(String::as_str).collect();
    let whole = show(scale, &large, &whole).await;
    println!(
        "{:>26} {:>9} {:>10} {:>9} {:>7} {:>12} {:>12} {:>10}",
        "", "wall ms", "waited ms", "requests", "pages", "connections", "bytes", "peak MiB"
    );
    let line = |what: &str, shown: &Shown| {
        println!(
            "{what:>26} {:>9} {:>10} {:>9} {:>7} {:>12} {:>12} {:>10}",
            ms(shown.took.wall),
            ms(shown.took.waited),
            shown.requests(),
            shown.pages,
            shown.took.connections,
            shown.took.bytes,
            mib(shown.memory)
        );
    };
    line("3 of 3, alone", &three);
    line(&format!("3 of {nodes}, in the large one"), &beside);
    line(&format!("1 of {nodes}"), &one);
    line(&format!("{} of {nodes}", six.len()), &half);
    line(&format!("{nodes} of {nodes}"), &whole);
    assert_eq!(three.asked, beside.asked, "what is none of its business is asked for");
    // A worker has no seat in etcd, and one node is in a VM: no node costs more than these.
    let each = |shown: &Shown, count: usize| shown.requests().div_ceil(count);
    assert!(each(&whole, nodes) <= each(&one, 1), "{} for each, {} for one", each(&whole, nodes), each(&one, 1));
    assert!(one.requests() > 20, "{:?}", one.asked);
}

fn names(bed: &Bed) -> Vec<String> {
    bed.lab.reach().talos.nodes.keys().cloned().collect()
}

async fn show(scale: Scale, bed: &Bed, nodes: &[&str]) -> Shown {
    let args: Vec<&str> = ["survey", "--json"].iter().chain(nodes).copied().collect();
    let mut all = Vec::new();
    for _ in 0..scale.times() {
        all.push(bed.run(&args).await);
    }
    let before = bed.requests();
    let memory = tokio::task::block_in_place(|| peak(bed.command(&args).into_std()));
    let (mut asked, mut pages) = (BTreeMap::new(), 0);
    for seen in bed.lab.shared().log.seen().split_off(before) {
        if seen.line.contains("continue=") {
            pages += 1;
        } else {
            *asked.entry(format!("{:?} {}", seen.front, seen.line)).or_default() += 1;
        }
    }
    Shown { took: median(all), memory, asked, pages }
}
