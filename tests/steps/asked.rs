//! What the steps ask, and of whom: no question twice in one check, and of a machine always where it is.

use super::*;

/// The questions of one check to Proxmox and Kubernetes, in the order of their arrival, and what came of it.
async fn asked(rig: &Rig, id: &str) -> (Vec<String>, String) {
    let step = rig.steps.iter().find(|step| step.id().starts_with(id)).unwrap();
    let log = &rig.lab.shared().log;
    let before = log.seen().len();
    let info = rig.bench.store.info("", "here").unwrap();
    let held = std::collections::BTreeMap::new();
    let seen = Seen { since: None, got: &[], held: &held, run: &info };
    let check = step.check(&rig.estate, seen).await.unwrap();
    let api = |seen: &pvemig::lab::log::Seen| matches!(seen.front, Front::Proxmox | Front::Kubernetes);
    let lines = log.seen().into_iter().skip(before).filter(api).map(|seen| seen.line).collect();
    (lines, format!("{:?}", check.answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_moved_is_asked_where_it_is() {
    let rig = Rig::new("usb-move").await;
    let (first, answer) = asked(&rig, "03").await;
    assert!(answer.contains("into still-fawn") && first.iter().any(|line| line.contains("/cluster/resources")));
    let (second, _) = asked(&rig, "03").await;
    assert_eq!(second.len(), 4, "the state of both, and what their hosts show: {second:?}");
    rig.lab.shared().change(|world| world.vms.get_mut(&108).unwrap().node = "pve".into());
    // Its former host would go on telling of its sockets.
    let (moved, answer) = asked(&rig, "03").await;
    assert!(answer.contains("into pve") && !answer.contains("still-fawn"), "{answer}");
    assert_eq!(moved.iter().filter(|line| line.contains("/cluster/resources")).count(), 1, "{moved:?}");
    rig.lab.shared().change(|world| world.vms.get_mut(&105).unwrap().node = "still-fawn".into());
    let (lines, answer) = asked(&rig, "01").await;
    for what in ["/nodes/still-fawn/qemu/105/pending", "/nodes/still-fawn/hardware/usb"] {
        assert!(lines.iter().any(|line| line.ends_with(what)), "{answer}: {lines:?}");
    }
    for id in ["04", "05", "04a"] {
        let (lines, _) = asked(&rig, id).await;
        assert!(!lines.iter().any(|line| line.contains("/nodes/still-fawn/qemu/108")), "{id}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_is_done_little_is_asked() {
    let rig = Rig::new("usb-move").await;
    let run = rig.forward(None, &How::default()).await;
    assert!(matches!(run.ended, Ok(Ended::Done)), "{:#?}", run.ended);
    // The preflight asks a lot, and nothing of it twice.
    let (mut lines, _) = asked(&rig, "00-").await;
    println!("00-preflight: {} requests", lines.len());
    assert_eq!(lines.iter().filter(|line| line.contains("selfsubjectaccessreviews")).count(), 1, "{lines:?}");
    lines.sort();
    let twice: Vec<_> = lines.windows(2).filter(|two| two[0] == two[1]).map(|two| &two[0]).collect();
    assert!(twice.is_empty() && lines.len() > 30, "{twice:#?}");
    let table = [
        ("00a", 4),
        ("01", 3),
        ("02", 1),
        ("03", 2),
        ("04-", 3),
        ("04a", 3),
        ("05", 3),
        ("06a", 1),
        ("09-", 1),
        ("11", 4),
    ];
    for (id, count) in table {
        let (lines, answer) = asked(&rig, id).await;
        assert_eq!((lines.len(), answer.as_str()), (count, "Done"), "{id}: {lines:#?}");
    }
    // Workload, claims, two nodes, owners, automations; and two live objects.
    let (survey, _) = asked(&rig, "00b").await;
    let (deploy, answer) = asked(&rig, "10").await;
    assert_eq!((survey.len(), answer.as_str()), (6 + 2, "Done"), "{survey:#?}");
    // The source, the live objects, the pods, and the proof.
    assert_eq!(deploy.len(), 6 + 1 + 2 + 2, "{deploy:#?}");
}
