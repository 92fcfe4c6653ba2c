//! What a step refuses by itself, as `pvemig step` asks it, out of its turn.

use pvemig::base::check::{Answer, Problem};
use pvemig::base::permit::Thing;
use pvemig::engine::step::{RunInfo, Seen};
use pvemig::lab::{FaultEffect, FaultRule, Front};

use super::refused::{befallen, vm_is_a_worker};
use super::*;
use crate::harness::scene::Scenes;

const DEAD: Case = Case { dead: true, ..MAC };

/// What is in the way of a step that has all consents.
async fn refuses(rig: &Rig, case: Case, id: &str) -> Vec<Problem> {
    let (before, held) = (rig.changes(), Default::default());
    let run = RunInfo { consents: case.consents().into_iter().map(Thing).collect(), ..RunInfo::default() };
    let step = rig.steps.iter().find(|step| step.id() == id).unwrap();
    let check = step.check(&rig.estate, Seen { since: None, got: &[], held: &held, run: &run }).await.unwrap();
    assert_eq!(rig.changes(), before, "{id}");
    let Answer::Blocked { problems } = check.answer else { panic!("{id}: {check:#?}") };
    problems
}

/// A problem in these words, and the step that mends it.
fn assert_in(problems: &[Problem], words: &str, mended_by: Option<&str>) {
    let found = problems.iter().filter(|p| p.text.contains(words) && p.mended_by.as_deref() == mended_by).count();
    assert_eq!(found, 1, "{words}, mended by {mended_by:?}: {problems:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_refuses_what_its_turn_has_not_come_for() {
    let rig = rig(MAC).await;
    let none = "no snapshot of this etcd is kept in this run, nor a whole one in another run of this site";
    assert_in(&refuses(&rig, MAC, "03-leave-or-remove").await, none, Some("01-snapshot"));
    let problems = refuses(&rig, MAC, "04-shutdown").await;
    let member = "talos-mac is a member of etcd: switched off, it counts as a voter that does not answer";
    assert_in(&problems, member, Some("03-leave-or-remove"));
    assert_in(&problems, "node talos-mac is not cordoned: what runs on it would be killed", Some("02-drain"));
    let problems = refuses(&rig, MAC, "08-node-object").await;
    let off = "talos-mac is not shown to be off: with its Node object gone, what runs on it would run on";
    assert_in(&problems, off, Some("04-shutdown"));
    assert!(problems[0].help.contains("shutdown --force"), "{problems:#?}");
    // Under one name the old machine would pass for the new one.
    let rig = self::rig(MAC_IN_PLACE).await;
    let there = "is still there: it is not given the configuration of the new one";
    assert_in(&refuses(&rig, MAC_IN_PLACE, "06-apply").await, there, Some("05-swap"));
    // Nobody has what a snapshot could be taken of.
    let befell = |world: &mut World| {
        vm_is_a_worker(world);
        world.talos.lost.insert("talos-mac".into(), Loss::Dead);
    };
    let rig = befallen(DEAD, "two voters, one dead", befell, |_| {}).await;
    let well = "no voter of etcd homelab is well: there is nobody to take a snapshot from";
    assert_in(&refuses(&rig, DEAD, "01-snapshot").await, well, None);
    assert_eq!(rig.changes(), 0);
}

/// What is not known is not taken for "off", nor for "no member".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_keeps_the_member_the_machine_and_the_node() {
    let stranger = |world: &mut World| {
        let run = world.talos.nodes.get_mut("talos-mac").unwrap().run.as_mut().unwrap();
        run.wants.authority = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0teA==".into();
    };
    let rig = rig_with(MAC, stranger, |_| {}).await;
    let mut refused = 0;
    for (id, words, by) in [
        ("03-leave-or-remove", "whether talos-mac is alive is not known", None),
        ("04-shutdown", "whether talos-mac is off is not known", None),
        ("08-node-object", "talos-mac is not shown to be off", Some("04-shutdown")),
    ] {
        assert_in(&refuses(&rig, MAC, id).await, words, by);
        refused += 1;
    }
    let rig = self::rig(MAC).await;
    let none = FaultEffect::Status(2, "etcdserver: no leader".into());
    rig.lab.fault(FaultRule::on(Front::Talos, none).path("*/EtcdMemberList"));
    let words = "no control plane tells the members of etcd";
    assert_in(&refuses(&rig, MAC, "03-leave-or-remove").await, words, None);
    assert_eq!((refused, rig.changes()), (3, 0));
}

/// What 01 kept is read back right before the member goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_was_damaged_since_keeps_the_member() {
    let mut rig = rig(DEAD).await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &DEAD.consenting()).await;
    assert_done(&run, "undisturbed");
    let turn = rig.steps.iter().position(|step| step.id() == "03-leave-or-remove").unwrap();
    let mut damaged = 0;
    // A bit, and a disk that was full.
    for cut in [false, true] {
        rig.go_back(&settled[turn]);
        let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap();
        let path = files.join("01-snapshot/etcd.db");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes.truncate(if cut { middle } else { bytes.len() });
        std::fs::write(&path, bytes).unwrap();
        let before = rig.changes();
        let stopped = rig.forward(Some(&run.id), &DEAD.consenting()).await;
        let (key, text) = why(&stopped);
        assert_eq!((key, rig.changes(), voters(&rig).len()), ("03-leave-or-remove", before, 3), "{text}");
        assert!(text.contains("the snapshot of this run, ") && text.contains("etcd.db, does not count"), "{text}");
        damaged += 1;
    }
    assert_eq!(damaged, 2);
    rig.go_back(&settled[turn]);
    assert_done(&rig.forward(Some(&run.id), &DEAD.consenting()).await, "whole");
}
