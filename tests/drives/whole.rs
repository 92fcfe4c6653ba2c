//! The blueprint as it is registered, on its world: forwards, once more, back; with a volume that is made on the new drive.

use super::*;

use serde_json::json;

use crate::harness::story::unmeasured;

/// The world's own migration.
async fn whole(edit: impl FnOnce(&mut Value)) -> Rig {
    Rig::of(at_rest("nvme-data"), |site| {
        unmeasured(site);
        edit(site);
    })
    .await
}

/// `fresh` is for a volume that 06 adds.
fn with_scratch(site: &mut Value) {
    crate::harness::story::with_volume(site, "scratch");
}

fn ids(rig: &Rig) -> Vec<&'static str> {
    rig.steps.iter().map(|step| step.id()).collect()
}

/// Nothing of it is destroyed, and there is one etcd.
fn assert_safe(rig: &Rig, what: &str) {
    let (clusters, wiped) = rig.lab.shared().read(|w| (w.etcd_clusters(), w.talos.wiped.clone()));
    assert!(clusters == 1 && wiped.is_empty(), "{what}: {clusters} {wiped:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drives_of_the_world_are_moved_forwards_once_more_and_back() {
    let rig = whole(|_| {}).await;
    assert!(!ids(&rig).contains(&"06-apply-config"), "no volume comes");
    let (picture, starts) = (rig.picture().await, bays(&rig).1);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    assert_eq!((bays(&rig), calls(&run.records)), ((target(), starts + 1), rig.changes()));
    // What Mayastor had to make good is made good by then.
    let whole = rig.lab.compared()["kubernetes"]["replicas"].as_object().unwrap().clone();
    assert!(whole.len() == 4 && whole.values().all(|whole| *whole == true), "{whole:#?}");
    let volumes = notes(&run, "07-verify-volumes");
    assert!(volumes.contains(&format!("u-media is ready on {DATA}")), "{volumes}");
    assert!(volumes.contains("pool pool-nuc is Online"), "{volumes}");
    let validated = notes(&run, "09-validate");
    assert!(validated.contains("is on media, as before") && validated.contains("are in step"), "{validated}");
    // Nothing that only time changes is told as a difference.
    let told: Vec<&str> =
        validated.lines().filter(|line| line.contains(" was ") && line.contains(", and is ")).collect();
    assert_eq!(told, Vec::<&str>::new());
    let (last, before) = (rig.picture().await, rig.changes());
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!((calls(&again.records), rig.changes()), (0, before));
    assert_same(&rig.picture().await, &last, "once more");
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    assert_eq!(bays(&rig), (first(), starts + 2));
    assert_same(&rig.picture().await, &picture, "back");
    assert_safe(&rig, "back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_made_on_the_drive_that_comes_and_its_document_is_taken_back() {
    let rig = whole(with_scratch).await;
    assert!(ids(&rig).contains(&"06-apply-config"));
    let config = |rig: &Rig| rig.lab.shared().read(|w| w.talos.nodes[NUC].config.clone());
    let was = config(&rig);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    assert_eq!(calls(&run.records), rig.changes());
    assert!(config(&rig).contains("name: scratch") && config(&rig).contains("disk.serial == \"S676NF0W712345\" ||"));
    let made = |rig: &Rig| {
        rig.lab.shared().read(|w| {
            let disks = &w.talos.nodes[NUC].disks;
            let with = disks.iter().filter(|disk| disk.partitions.iter().any(|part| part.label == "u-scratch"));
            with.map(|disk| disk.serial.clone()).collect::<Vec<_>>()
        })
    };
    assert_eq!(made(&rig), [NEW]);
    let volumes = notes(&run, "07-verify-volumes");
    assert!(volumes.contains("u-scratch is new, and ready on fresh"), "{volumes}");
    let before = rig.changes();
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!((calls(&again.records), rig.changes()), (0, before));
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "back");
    // Byte for byte; the partition is on the drive that left, and is said to stay.
    assert_eq!((config(&rig), bays(&rig).0, made(&rig)), (was, first(), vec![NEW.to_owned()]));
    let told = notes(&back, "06-apply-config");
    assert!(told.contains("the partition u-scratch that Talos has made of fresh stays"), "{told}");
    assert_safe(&rig, "back");
}

/// Right where it would be written: the drive that came has something on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_for_a_drive_that_comes_with_something_on_it() {
    let held = |world: &mut World| {
        let disks = &mut world.talos.nodes.get_mut(NUC).unwrap().disks;
        let fresh = disks.iter_mut().find(|disk| disk.serial == NEW).unwrap();
        let part = json!({ "label": "u-films", "holds": "xfs", "size": 1 << 30 });
        fresh.partitions.push(serde_json::from_value(part).unwrap());
    };
    let edit = |site: &mut Value| {
        unmeasured(site);
        with_scratch(site);
    };
    let rig = Rig::of(at_rest_after("nvme-data", "films", held), edit).await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!(key, "06-apply-config", "{text}");
    assert!(text.contains("which holds the volume u-films"), "{text}");
    assert!(!rig.lab.shared().read(|w| w.talos.nodes[NUC].config.contains("scratch")));
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    assert_eq!(bays(&rig).0, first());
}

/// A drive that the kernel finds late: as long as the machine boots it is waited for; past that it is missed, and found by a
/// resume, with no hand on the machine again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_is_slow_to_come_up_is_waited_for_or_found_by_a_resume() {
    let mut done = 0;
    for (slow, missed) in [(11_000, false), (60_000, true)] {
        let rig = whole(|_| {}).await;
        let starts = bays(&rig).1;
        rig.lab.shared().change(|world| {
            let disks = &mut world.talos.nodes.get_mut(NUC).unwrap().disks;
            disks.iter_mut().find(|disk| disk.serial == DATA).unwrap().slow = slow;
        });
        let mut run = rig.forward(None, &How::default()).await;
        let asked_once = asked(&run, "04-move-drives");
        if missed {
            let (key, text) = why(&run);
            assert!(
                key == "04-move-drives" && text.contains("media (22471A806001) does not come up in M2_3"),
                "{key}: {text}"
            );
            let there = |w: &World| w.talos.nodes[NUC].run.as_ref().filter(|run| run.names.len() == 4).map(|_| ());
            rig.lab.shared().until(std::time::Duration::from_secs(120), there).await.unwrap();
            run = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
        }
        assert_done(&run, &format!("{slow} ms"));
        assert_eq!((bays(&rig), asked_once), ((target(), starts + 1), 1), "{slow} ms");
        assert_safe(&rig, "slow");
        done += 1;
    }
    assert_eq!(done, 2);
}

/// The drive that is to come was put into a free slot already: nothing tells that from a machine on which all is done, and that
/// is said. With the port of its slot it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_came_beforehand_is_not_taken_for_a_move_that_was_done() {
    let early = |world: &mut World| {
        let disks = &mut world.talos.nodes.get_mut(NUC).unwrap().disks;
        let fresh = disks.iter_mut().find(|disk| disk.serial == NEW).unwrap();
        (fresh.bay, fresh.unplugged) = ("M2_3".into(), false);
    };
    let words = "each one of `target` is in the machine, in whatever slot, and of M2_2, M2_3 no port is known";
    let rig = Rig::of(at_rest_after("nvme-data", "it came", early), unmeasured).await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert!(key == "00-preflight" && text.contains(words) && rig.changes() == 0, "{key}: {text}");
    assert!(text.contains("if fresh is in M2_2, add `port: \"0000:00:06.0\"` to M2_2"), "{text}");
    // Nor is it by steps that stand alone, and what one of them keeps teaches nobody.
    let mut rig = Rig::of(at_rest_after("nvme-data", "it came", early), unmeasured).await;
    let all = std::mem::take(&mut rig.steps);
    let (mut backup, mut checks) = (Vec::new(), Vec::new());
    for step in all {
        match step.id() {
            "01-backup" => backup.push(step),
            "04-move-drives" | "05-verify-disks" => checks.push(step),
            _ => {}
        }
    }
    rig.steps = backup;
    assert_done(&rig.forward(None, &How::default()).await, "01 alone");
    let mut told = 0;
    for step in checks {
        let id = step.id();
        rig.steps = vec![step];
        let run = rig.forward(None, &How::default()).await;
        let (key, text) = why(&run);
        assert!(key == id && text.contains("no port tells their slots"), "{key}: {text}");
        told += 1;
    }
    assert_eq!(told, 2);
    let port = |site: &mut Value| {
        unmeasured(site);
        site.pointer_mut("/talos/homelab/nodes/talos-nuc/slots/M2_3").unwrap()["port"] = json!("0000:00:06.0");
    };
    let rig = Rig::of(at_rest_after("nvme-data", "it came", early), port).await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert!(key == "00-preflight" && text.contains("neither as in `current` nor as in `target`"), "{key}: {text}");
}

/// A partition of a volume that nobody has in the configuration any more: it was not ready before, and is not waited for, there
/// nor back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_ready_before_holds_up_neither_the_run_nor_its_undo() {
    let left_over = |world: &mut World| {
        let part = json!({ "label": "u-old", "holds": "xfs", "size": 1 << 30 });
        let disk = json!({
            "model": "CT500MX500SSD1", "serial": "1904E1E2F3A4", "transport": "sata", "size": 500_107_862_016_u64,
            "bus_path": "/pci0000:00/0000:00:17.0/ata4/host3/target3:0:0/3:0:0:0", "partitions": [part],
        });
        world.talos.nodes.get_mut(NUC).unwrap().disks.push(serde_json::from_value(disk).unwrap());
    };
    let rig = Rig::of(at_rest_after("nvme-data", "left over", left_over), unmeasured).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    let told = notes(&run, "07-verify-volumes");
    assert!(told.contains("u-old on 1904E1E2F3A4 is not ready (") && told.contains("and was not before"), "{told}");
    assert_undone(&rig.backward(&run.id, &How::default()).await, "back");
    assert_eq!((bays(&rig).0, cordoned(&rig).await), (first(), false));
}

/// A cable that came loose while the machine was open: the pool on that disk is waited for, and named; put back, it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_came_loose_beside_the_slots_is_missed_before_pods_are_let_on() {
    const POOL: &str = "2021E2A4C7D8";
    let rig = whole(|_| {}).await;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    let loose = |is: bool| {
        rig.lab.shared().change(|world| {
            let disks = &mut world.talos.nodes.get_mut(NUC).unwrap().disks;
            disks.iter_mut().find(|disk| disk.serial == POOL).unwrap().unplugged = is;
        });
    };
    loose(true);
    let how = How { limit: Some(std::time::Duration::from_secs(20)), ..How::default() };
    let stopped = rig.forward(Some(&run.id), &how).await;
    let (key, text) = why(&stopped);
    assert!(key == "07-verify-volumes" && text.contains("pool pool-nuc of Mayastor is "), "{key}: {text}");
    assert!(cordoned(&rig).await, "nothing is let onto it");
    // Back on, at its next boot.
    rig.lab.shared().change(|world| world.cut_power(NUC));
    loose(false);
    rig.lab.press_button(NUC).unwrap();
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "its cable is in");
    assert!(!cordoned(&rig).await);
    assert_safe(&rig, "its cable is in");
}

/// The same on the way back: no pod is let on before its volumes are proven, as 07 proves them on the way forth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_lets_no_pod_on_before_its_volumes_are_there() {
    const POOL: &str = "2021E2A4C7D8";
    let rig = whole(|_| {}).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    let loose = |is: bool| {
        rig.lab.shared().change(|world| {
            let disks = &mut world.talos.nodes.get_mut(NUC).unwrap().disks;
            disks.iter_mut().find(|disk| disk.serial == POOL).unwrap().unplugged = is;
        });
    };
    // Somebody presses the button, and moves no drive yet.
    let off = rig.backward(&run.id, &How { no_hands: true, ..How::default() }).await;
    let Ok(pvemig::engine::run::Ended::Stopped(_)) = &off.ended else { panic!("{:#?}", off.ended) };
    loose(true);
    let how = How { limit: Some(std::time::Duration::from_secs(20)), ..How::default() };
    let stopped = rig.backward(&run.id, &how).await;
    let (key, text) = why(&stopped);
    assert!(key == "02-drain" && text.contains("pool pool-nuc of Mayastor is "), "{key}: {text}");
    assert!(cordoned(&rig).await, "nothing is let onto it");
    rig.lab.shared().change(|world| world.cut_power(NUC));
    loose(false);
    rig.lab.press_button(NUC).unwrap();
    assert_undone(&rig.backward(&run.id, &How::default()).await, "its cable is in");
    assert!(!cordoned(&rig).await);
    assert_safe(&rig, "its cable is in");
}

/// The other worlds' own migrations, of a system disk and of the only control plane.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_disk_and_the_only_control_plane_are_held_against_how_they_were() {
    let mut done = 0;
    for world in ["nvme-system", "nvme-single"] {
        let rig = Rig::of(at_rest(world), |site| {
            let params = site.pointer_mut("/migrations/nuc-drives/params").unwrap();
            params["measure"] = json!("off");
            params["medium"] = json!({ "version": "v1.11.5" });
            params["without_api"] = json!(world == "nvme-single");
        })
        .await;
        let run = rig.forward(None, &How::default()).await;
        assert_done(&run, world);
        let before = rig.changes();
        let again = rig.forward(None, &How::default()).await;
        assert_done(&again, world);
        assert_eq!((calls(&again.records), rig.changes()), (0, before), "{world}");
        assert_undone(&rig.backward(&run.id, &How::default()).await, world);
        assert_safe(&rig, world);
        done += 1;
    }
    assert_eq!(done, 2);
}
