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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_at_a_third_host_is_said_to_be_there() {
    let rig = Rig::new("usb-move").await;
    let at = |host: &str, port: &str| Some(Place { host: host.into(), port: port.into() });
    rig.lab.move_stick("coral", at("pve", "2-1")).unwrap();
    let (_, answer) = asked(&rig, "03").await;
    assert!(
        answer.contains("into still-fawn") && answer.contains("it is seen as 1a6e:089a at pve port 2-1"),
        "{answer}"
    );
    // It was on its way by then: to bring it back there would be wrong, and nobody says that nothing is known of it.
    assert!(answer.contains("\"place\": Null") && answer.contains("on_its_way"), "{answer}");
    let step = rig.steps.iter().find(|step| step.id().starts_with("03")).unwrap();
    let place = json!({"host": "pve", "port": "2-1", "id": "1a6e:089a", "speed": 5000});
    let info = rig.bench.store.info("", "here").unwrap();
    let held = std::collections::BTreeMap::new();
    let seen = || Seen { since: None, got: &[], held: &held, run: &info };
    for (before, words) in [
        (
            json!({"place": null, "on_its_way": place}),
            "on its way already when a person was asked for it, as 1a6e:089a at",
        ),
        // As an earlier version kept it.
        (json!({"place": null}), "unless step 01 took it from vm 105"),
    ] {
        let check = step.back(&rig.estate, &before, seen()).await.unwrap();
        assert!(check.is_done() && check.notes.len() == 1 && check.notes[0].contains(words), "{check:?}");
    }
}
