//! 03 where somebody else's configuration waits on the disk of a node, or is on trial.

use pvemig::engine::event::Event;
use pvemig::engine::run::Why;
use pvemig::lab::World;

use super::{calls, problems, rig, stop, told};
use crate::harness::How;
use crate::harness::estate::Rig;
use crate::harness::same::{assert_done, assert_undone};

const NUC: &str = "talos-nuc";
const KEY: &str = "03-repair@talos-nuc";
const WAITS: &str = "a staged or tried configuration waits";

fn other(config: &str) -> String {
    let other = config.replace("vm.nr_hugepages: \"1024\"", "vm.nr_hugepages: \"2048\"");
    assert_ne!(other, config);
    other
}

/// Somebody has staged one: it is on the disk alone.
fn stage(w: &mut World) {
    let node = w.talos.nodes.get_mut(NUC).unwrap();
    node.config = other(&node.config);
}

/// Somebody tries one: it is in effect alone.
fn try_out(w: &mut World) {
    let run = w.talos.nodes.get_mut(NUC).unwrap().run.as_mut().unwrap();
    run.active = other(&run.active);
}

/// What is in effect, and what is on the disk.
fn both(rig: &Rig) -> (String, String) {
    rig.lab.shared().read(|w| {
        let node = &w.talos.nodes[NUC];
        (node.run.as_ref().unwrap().active.clone(), node.config.clone())
    })
}

fn applied(run: &crate::harness::Run) -> usize {
    calls(run).iter().filter(|call| call.contains("ApplyConfiguration")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_applied_over_it() {
    let mut met = 0;
    for waits in [stage, try_out] {
        let rig = rig("talos-three-no-modules", &[NUC], waits).await;
        let before = both(&rig);
        assert_ne!(before.0, before.1);
        let found = problems(&rig, "00-preflight").await;
        let found = found.iter().find(|p| p.finding.as_deref() == Some("machine-config-waits")).unwrap();
        assert_eq!(found.protects.as_ref().unwrap().as_str(), KEY);
        let said = problems(&rig, KEY).await;
        assert!(said[0].text.contains(WAITS) && said[0].help.contains("apply-config"), "{said:#?}");
        let run = rig.forward(None, &How::default()).await;
        assert_eq!((stop(&run).key.as_str(), rig.changes()), ("00-preflight", 0));
        assert!(both(&rig) == before);
        met += 1;
    }
    assert_eq!(met, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_at_the_last_moment_is_left_alone_too() {
    let rig = rig("talos-three-no-modules", &[NUC], |_| {}).await;
    let (former, _) = both(&rig);
    let shared = rig.lab.shared().clone();
    let run = told(&rig, move |record| {
        if matches!(&record.event, Event::Applying { key, .. } if key.as_str() == KEY) {
            shared.change(stage);
        }
    })
    .await;
    let stop = stop(&run);
    let Why::Failed { error, help, .. } = &stop.why else { panic!("{stop:#?}") };
    assert!(stop.key.as_str() == KEY && error.join(" ").contains(WAITS) && !help.is_empty(), "{stop:#?}");
    assert_eq!((applied(&run), both(&rig)), (0, (former.clone(), other(&former))));
    // Settled by hand, it goes on.
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(NUC).unwrap().config.clone_from(&former));
    let run = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&run, "settled");
    assert_eq!(applied(&run), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_leaves_it_alone_as_well() {
    let rig = rig("talos-three-no-modules", &[NUC], |_| {}).await;
    let (former, _) = both(&rig);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    let (mended, _) = both(&rig);
    rig.lab.shared().change(stage);
    let undo = rig.backward(&run.id, &How::default()).await;
    let stop = stop(&undo);
    let Why::Blocked(problems) = &stop.why else { panic!("{stop:#?}") };
    assert!(stop.key.as_str() == KEY && problems[0].text.contains(WAITS), "{stop:#?}");
    assert_eq!((applied(&undo), both(&rig)), (0, (mended.clone(), other(&mended))));
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(NUC).unwrap().config.clone_from(&mended));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "settled");
    assert_eq!(both(&rig), (former.clone(), former));
}
