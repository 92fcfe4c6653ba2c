//! `system-moved` end to end, through the registered blueprint: the system disk goes into another slot as it is.

use std::time::Duration;

use pvemig::lab::talos::lost::Loss;

use super::*;
use crate::harness::rights::requests;

/// The steps of the world's own migration. Nothing is measured: that takes a pod, once before and once after.
pub(super) async fn registered(world: World) -> Rig {
    Rig::of(world, |site| site["migrations"]["nuc-drives"]["params"]["measure"] = json!("off")).await
}

/// How many changing requests each front saw.
pub(super) fn by_front(rig: &Rig) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for request in requests(rig).into_iter().filter(|request| request["class"] == "change") {
        *all.entry(request["front"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    all
}

fn swapped() -> BTreeMap<String, String> {
    in_bays(&[("M2_1", DATA), ("M2_2", SYS)])
}

/// The changing requests that would make an installation, or unmake one.
pub(super) fn installs(rig: &Rig) -> Vec<Value> {
    let words = ["ApplyConfiguration", "Reset", "Upgrade", "Bootstrap", "Wipe", "MetaWrite"];
    let is = |request: &Value| words.iter().any(|word| request["path"].as_str().unwrap_or_default().contains(word));
    requests(rig).into_iter().filter(|request| request["class"] == "change" && is(request)).collect()
}

/// Put wrong on the way back: who is asked next is told of what was seen last, and not of what was there first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_back_it_is_asked_by_what_was_seen_last() {
    let rig = registered(at_rest("nvme-system")).await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "there");
    let lab = rig.lab.clone();
    let turn = std::sync::atomic::AtomicUsize::new(0);
    // To the riser with the system disk, and the other one into its place; then off by its button, as is asked.
    let hands = move |_: &Hands| match turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => {
            for (drive, to) in [(DATA, "bench"), (SYS, "talos-nuc:M2_3"), (DATA, "talos-nuc:M2_2")] {
                lab.move_drive(drive, to).unwrap();
            }
            lab.press_button(NUC).unwrap();
        }
        1 => {
            lab.move_drive(SYS, "talos-nuc:M2_1").unwrap();
            lab.press_button(NUC).unwrap();
        }
        more => panic!("asked for the {more}th time"),
    };
    let lab = rig.lab.clone();
    let reader: crate::harness::Reader = std::sync::Arc::new(move |record: &pvemig::engine::event::Record| {
        if matches!(&record.event, Event::Asked { ask, .. } if ask.starts_with("switch talos-nuc off")) {
            lab.press_button(NUC).unwrap();
        }
    });
    let how = How { reader: Some(reader), ..How::default() };
    let back = rig.bench.go(&rig.estate, &rig.steps, Some(&run.id), true, &how, hands).await;
    assert_undone(&back, "back");
    let asks: Vec<&str> = (back.records.iter())
        .filter_map(|record| match &record.event {
            Event::Asked { key, ask, .. } if key.as_str() == "04-move-drives" => Some(ask.as_str()),
            _ => None,
        })
        .collect();
    assert!(
        asks.iter().any(|ask| ask.starts_with("switch talos-nuc off, so that its drives can be put back")),
        "{asks:#?}"
    );
    let last = asks.last().unwrap();
    assert!(last.contains(&format!("move sys ({SYS}) from M2_3")) && last.contains("to M2_1"), "{asks:#?}");
    assert!(!last.contains("move media"), "{asks:#?}");
}

/// What a resume would do, and cannot: that is told with the drives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_it_from_going_off_once_more_is_told_with_its_drives() {
    let rig = registered(at_rest("nvme-system")).await;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    rig.lab.shared().change(|world| world.cut_power("talos-mac"));
    rig.lab.press_button(NUC).unwrap();
    let up = |w: &World| w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.booted).then_some(());
    rig.lab.shared().until(Duration::from_secs(600), up).await.unwrap();
    let stopped = rig.forward(Some(&run.id), &How { no_hands: true, ..How::default() }).await;
    let (key, text) = crate::harness::why(&stopped);
    let words = "03-shutdown cannot do that as long as this is so: ";
    assert!(key == "04-move-drives" && text.contains(words) && text.contains("talos-mac"), "{key}: {text}");
    rig.lab.press_button("talos-mac").unwrap();
    let whole = |w: &World| w.talos.nodes["talos-mac"].run.as_ref().is_some_and(|run| run.booted).then_some(());
    rig.lab.shared().until(Duration::from_secs(600), whole).await.unwrap();
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "with the other one back");
    assert_eq!(bays(&rig).0, swapped());
}

/// No disk was wiped, and there is one etcd.
pub(super) fn assert_untouched(rig: &Rig, voters: usize) {
    let (wiped, clusters, members) =
        rig.lab.shared().read(|w| (w.talos.wiped.len(), w.etcd_clusters(), w.talos.etcd.members.len()));
    assert_eq!((wiped, clusters, members), (0, 1, voters));
}

/// There, once more without a change, and back: the first layout and the first picture.
pub(super) async fn there_and_back(rig: &Rig, there: &BTreeMap<String, String>, voters: usize) -> (Run, Run) {
    let picture = rig.picture().await;
    let (from, starts) = bays(rig);
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "forwards");
    assert_eq!((bays(rig), cordoned(rig).await), ((there.clone(), starts + 1), false));
    assert_eq!((calls(&run.records), asked(&run, "04-move-drives")), (rig.changes(), 1));
    assert_eq!(installs(rig), Vec::<Value>::new());
    assert_untouched(rig, voters);

    let (whole, before) = (rig.picture().await, by_front(rig));
    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "once more");
    assert_eq!((calls(&again.records), by_front(rig), bays(rig).1), (0, before, starts + 1));
    assert_eq!(asked(&again, "04-move-drives"), 0);
    assert_same(&rig.picture().await, &whole, "once more");

    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "back");
    assert_eq!((bays(rig), cordoned(rig).await), ((from, starts + 2), false));
    assert_eq!((asked(&back, "04-move-drives"), installs(rig)), (1, Vec::new()));
    assert_untouched(rig, voters);
    assert_same(&rig.picture().await, &picture, "back");
    (run, back)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_disk_changes_its_slot_with_no_reset_and_no_apply() {
    let rig = registered(at_rest("nvme-system")).await;
    let (run, _) = there_and_back(&rig, &swapped(), 3).await;
    let seen = notes(&run, "00-preflight");
    assert!(seen.contains(&format!("the firmware finds {SYS} by its partition, in any slot (Boot0001")), "{seen}");
    assert!(seen.contains("sys <- M2_1") && seen.contains("media <- M2_2"), "{seen}");
    let kept = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap().join("01-backup/etcd.snapshot");
    assert!(kept.exists());
    let known = notes(&run, "05-verify-disks");
    assert!(known.contains(&format!("sys is {SYS} in M2_2, by its serial number")), "{known}");
    // The stick is at hand, and not plugged in.
    let hint = run.records.iter().find_map(|record| match &record.event {
        Event::Asked { hint, .. } => hint.clone(),
        _ => None,
    });
    assert!(hint.is_some_and(|hint| hint.contains("have a stick with Talos v1.11.5 at hand")));
}

/// Another voter is down: nothing is drained, and a step that stands alone asks the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_off_only_where_etcd_can_spare_it() {
    let down = |world: &mut World| {
        world.talos.lost.insert("talos-mac".into(), Loss::Dead);
    };
    let mut rig = registered(at_rest_after("nvme-system", "the mac is down", down)).await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("00-preflight", 0), "{text}");
    assert!(text.contains("while talos-nuc is down 3 voters, 1 healthy, 2 needed: no majority"), "{text}");
    rig.steps.retain(|step| ["01-backup", "03-shutdown"].contains(&step.id()));
    let before = bays(&rig);
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, bays(&rig), rig.changes()), ("03-shutdown", before, 0), "{text}");
    assert!(text.contains("no majority"), "{text}");
}

/// The firmware boots what is in one slot: told before, and where it stays dark told with the way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firmware_that_goes_by_the_slot_is_told_before_and_after() {
    let mut rig = registered(at_rest("nvme-system-slot-entry")).await;
    let picture = rig.picture().await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("00-preflight", 0), "{text}");
    let words = [
        "the firmware of talos-nuc boots S5GXNF0R601234 by the way to its slot alone (Boot0001 `Talos`, 1b.0/00.0)",
        "take that entry out in the firmware's setup",
    ];
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    // Who knows better.
    rig.steps.retain(|step| step.id() != "00-preflight");
    let how = How { limit: Some(Duration::from_secs(6)), ..How::default() };
    let run = rig.forward(None, &how).await;
    let (key, text) = why(&run);
    assert_eq!((key, bays(&rig).0), ("04-move-drives", swapped()), "{text}");
    for word in [
        "`cat` says that it is on, and Talos does not answer",
        "choose sys (S5GXNF0R601234) in its boot menu",
        "hold its power button until it is off, put the drives back, and `pvemig undo`",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_untouched(&rig, 3);
    // A person holds the button and puts them back.
    rig.lab.press_button(NUC).unwrap();
    rig.lab.move_drive(DATA, "bench").unwrap();
    rig.lab.move_drive(SYS, "talos-nuc:M2_1").unwrap();
    rig.lab.move_drive(DATA, "talos-nuc:M2_2").unwrap();
    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "back");
    assert_eq!((bays(&rig).0, installs(&rig)), (first(), Vec::new()));
    assert_same(&rig.picture().await, &picture, "back");
}
