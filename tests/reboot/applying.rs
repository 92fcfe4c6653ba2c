//! How 03 writes a machine configuration: tried before, and only over the one that was looked at.

use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, World};

use super::{calls, rig, stop, told};
use crate::harness::How;
use crate::harness::estate::Rig;
use crate::harness::same::{assert_done, assert_undone};

const NUC: &str = "talos-nuc";
const KEY: &str = "03-repair@talos-nuc";

fn applied(run: &crate::harness::Run) -> usize {
    calls(run).iter().filter(|call| call.contains("ApplyConfiguration")).count()
}

/// What the NUC was asked of its configuration, in order: read, tried, written.
fn asked(rig: &Rig) -> Vec<&'static str> {
    let word = |seen: pvemig::lab::log::Seen| match seen.class {
        _ if !seen.line.contains(NUC) => None,
        Class::Read if seen.line.contains("ApplyConfiguration") => Some("tried"),
        Class::Change if seen.line.contains("ApplyConfiguration") => Some("written"),
        Class::Read if seen.line.contains("MachineConfigs") => Some("read"),
        _ => None,
    };
    rig.lab.shared().log.seen().into_iter().filter_map(word).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_tried_and_read_once_more_before_it_is_written() {
    let rig = rig("talos-three-no-modules", &[NUC], |_| {}).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "mended");
    let order = |asked: &[&str]| {
        let at = asked.iter().position(|word| *word == "written").unwrap();
        // The one in effect and the one on the disk.
        assert_eq!(&asked[at - 3..at], ["tried", "read", "read"], "{asked:?}");
        assert_eq!((asked[..at].iter().filter(|w| **w == "tried").count(), applied(&run)), (1, 1));
        assert_eq!(asked.iter().filter(|word| **word == "written").count(), 1);
        asked.len()
    };
    let there = order(&asked(&rig));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    order(&asked(&rig)[there..]);
}

/// The node's word for a configuration that takes a reboot, up to 1.13.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_node_would_reboot_for_is_not_written() {
    let rig = rig("talos-three-no-modules", &[NUC], |_| {}).await;
    let said = "this config change can't be applied in immediate mode\ndiff: machine.env";
    let rule = FaultRule::on(Front::Talos, FaultEffect::Status(400, said.into()));
    rig.lab.fault(rule.path("/talos-nuc/*ApplyConfiguration*").class(Class::Read));
    let run = rig.forward(None, &How::default()).await;
    let stop = stop(&run);
    let Why::Failed { error, help, .. } = &stop.why else { panic!("{stop:#?}") };
    let error = error.join(" ");
    assert!(stop.key.as_str() == KEY && error.contains("can't be applied in immediate mode"), "{stop:#?}");
    assert!(error.contains("talos-nuc does not take this configuration without a reboot"), "{stop:#?}");
    assert!(help.join(" ").contains("nothing was written") && help.join(" ").contains("--mode staged"), "{stop:#?}");
    assert_eq!((applied(&run), asked(&rig).contains(&"written")), (0, false));
    drop(rig.lab.shared().clear_faults());
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "taken");
}

/// Somebody applies another one, between the look at it and the writing.
fn another(w: &mut World) {
    let node = w.talos.nodes.get_mut(NUC).unwrap();
    let other = node.config.replace("vm.nr_hugepages: \"1024\"", "vm.nr_hugepages: \"2048\"");
    assert_ne!(other, node.config);
    node.config.clone_from(&other);
    node.run.as_mut().unwrap().active = other;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_changed_just_now_is_not_written_over() {
    let rig = rig("talos-three-no-modules", &[NUC], |_| {}).await;
    let shared = rig.lab.shared().clone();
    let run = told(&rig, move |record| {
        // The former one is kept: what comes next is the writing.
        if matches!(&record.event, Event::Filed { key, .. } if key.as_str() == KEY) {
            shared.change(another);
        }
    })
    .await;
    let stop = stop(&run);
    let Why::Failed { error, help, .. } = &stop.why else { panic!("{stop:#?}") };
    let said = "somebody changed the machine configuration of talos-nuc just now";
    assert!(stop.key.as_str() == KEY && error.join(" ").contains(said) && !help.is_empty(), "{stop:#?}");
    assert_eq!(applied(&run), 0);
    let config = rig.lab.shared().read(|w| w.talos.nodes[NUC].config.clone());
    assert!(config.contains("2048") && !config.contains("nvidia_uvm"), "theirs was written over");
}
