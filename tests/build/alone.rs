//! What a step refuses by itself, out of its turn, and what an undo does not write over.

use pvemig::base::check::{Answer, Problem};

use super::elsewhere::ask;
use super::*;

async fn refuses(rig: &Rig, id: &str, key: &str) -> Vec<Problem> {
    let before = rig.changes();
    let check = ask(rig, id, key, &consenting()).await;
    assert_eq!(rig.changes(), before, "{key}");
    let Answer::Blocked { problems } = check.answer else { panic!("{key}: {check:#?}") };
    problems
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_refuses_what_its_turn_has_not_come_for() {
    let mut rig = fresh().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    rig.go_back(&settled[0]);
    let problems = refuses(&rig, &run.id, "04-bootstrap").await;
    let no = "talos-nuc has no configuration of this cluster yet, or does not answer";
    assert!(problems[0].text.contains(no), "{problems:#?}");
    assert_eq!(problems[0].mended_by.as_deref(), Some("02-apply-config"));
    assert_eq!(rig.lab.shared().read(|w| w.etcd_clusters()), 0);
    // Installed on another disk than the one that is named, and on none yet.
    rig.go_back(settled.last().unwrap());
    let nuc = |rig: &Rig, change: &dyn Fn(&mut pvemig::lab::talos::node::Node)| {
        rig.lab.shared().change(|w| change(w.talos.nodes.get_mut("talos-nuc").unwrap()));
    };
    nuc(&rig, &|node| node.disks[1].serial = "S0OTHER".into());
    let problems = refuses(&rig, &run.id, "01-check-disks@talos-nuc").await;
    assert!(problems[0].text.contains("(S0OTHER), and not on disk S5GXNF0R601234"), "{problems:#?}");
    nuc(&rig, &|node| node.disks.iter_mut().for_each(|disk| disk.system = false));
    let check = ask(&rig, &run.id, "01-check-disks@talos-nuc", &consenting()).await;
    let Answer::Waiting { reason, .. } = &check.answer else { panic!("{check:#?}") };
    assert_eq!(reason, "talos-nuc has its configuration and does not run from a disk yet");
}

/// What somebody wrote into the kubeconfig after the run is not taken for what the run wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_does_not_write_over_what_somebody_else_wrote() {
    let rig = fresh().await;
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "build");
    let mut refused = 0;
    for name in ["kubeconfig", "talosconfig"] {
        let path = rig.dir().join(name);
        let written = std::fs::read_to_string(&path).unwrap();
        let changed = format!("{written}# by hand\n");
        pvemig::base::private::write(&path, changed.as_bytes()).unwrap();
        let past = rig.steps.iter().filter(|step| step.id() == "02-apply-config").map(|step| step.key().to_string());
        let undo = rig.backward(&run.id, &How { past: past.collect(), ..How::default() }).await;
        let said = format!("{:?}", undo.ended);
        assert!(said.contains("somebody else has changed it since") && said.contains(name), "{name}: {said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), changed, "{name}");
        pvemig::base::private::write(&path, written.as_bytes()).unwrap();
        refused += 1;
    }
    assert_eq!(refused, 2);
}
