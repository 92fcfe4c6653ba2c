//! What is asked grows with the nodes that are asked for, and with nothing else.

use pvemig::lab::large::{self, Size};
use pvemig::lab::{Front, Lab, load};

use super::Bench;

fn rest(world: pvemig::lab::World) -> pvemig::lab::World {
    Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_of_what_is_none_of_its_business() {
    let size = Size { hosts: 6, machines: 40, nodes: 8, claims: 20, pods: 900 };
    let mut compared = 0;
    for world in ["talos-three", "usb-move"] {
        let small = Bench::new(world).await;
        let large = Bench::of(rest(large::around(load(world).unwrap(), &size))).await;
        let (few, many) = (small.survey(&[]).await, large.survey(&[]).await);
        assert_eq!(few.nodes.len(), many.nodes.len());
        assert_eq!(many.kubernetes[0].strangers.known().unwrap().len(), 8);
        // The end of a program in a guest is asked for as often as it takes.
        let of = |bench: &Bench| {
            let mut asked = bench.asked(0);
            asked.retain(|line, _| !line.contains("exec-status"));
            asked
        };
        let (asked, beside) = (of(&small), of(&large));
        assert!(asked.len() > 10, "{asked:#?}");
        assert_eq!(asked, beside);
        compared += 1;
    }
    assert_eq!(compared, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_twice_and_each_node_costs_the_same() {
    let bench = Bench::new("talos-three").await;
    let mut counts = Vec::new();
    for only in [&["talos-mac"][..], &["talos-mac", "talos-nuc"][..]] {
        let from = bench.lab.shared().log.seen().len();
        bench.survey(only).await;
        let asked = bench.asked(from);
        // Of files the log has no names: the boot id, and for how long it has been up.
        let most = |line: &str| if line.ends_with("/Read") { 2 } else { 1 };
        let twice: Vec<_> = asked.iter().filter(|(line, count)| **count > most(line)).collect();
        assert!(twice.is_empty(), "{twice:#?}");
        assert!(!asked.keys().any(|line| line.starts_with("Proxmox")), "neither is a VM: {asked:#?}");
        let of = |front: Front| asked.keys().filter(|line| line.starts_with(&format!("{front:?} "))).count();
        counts.push((of(Front::Talos), of(Front::Kubernetes)));
    }
    let [(one, kube), (two, both)] = counts.as_slice() else { panic!("{counts:?}") };
    // Lists of the cluster once, and the pods of each node.
    assert_eq!((*two, *both), (2 * one, kube + 1), "{counts:?}");
    assert!(*one > 15 && *kube < 8, "{counts:?}");
}
