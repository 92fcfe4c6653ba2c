//! Whole runs there and back on the worlds and sites that the proof does not go through: other ways of attaching, other
//! credentials, a push by hand, a machine that is kept by high availability, two equal devices.

use super::*;
use crate::harness::estate::at_rest;
use crate::harness::same::{assert_done, assert_same, assert_undone};
use pvemig::base::check::Hands;
use pvemig::engine::point::{Point, Side};
use pvemig::lab::world::{Stick, StickState, UsbMapping};
use pvemig::lab::{self, Lab, World};

/// Forwards to the end, once more without a change, and back to the first world; `at_the_end` looks at what was made.
/// Each changing request has its call and the other way round, all the way. The runs there and back.
async fn there_and_back(rig: &Rig, at_the_end: impl FnOnce(&Rig, &Run)) -> (Run, Run) {
    let first = rig.picture().await;
    assert!(first.as_object().is_some_and(|o| o.len() > 3), "a picture of nothing proves nothing");
    let there = rig.forward(None, &How::default()).await;
    assert_done(&there, "there");
    let made = calls(&there.records);
    assert!(made > 10, "{made} calls");
    assert_eq!(rig.changes(), made, "there");
    assert_ne!(rig.picture().await, first);

    let again = rig.forward(None, &How::default()).await;
    assert_done(&again, "again");
    assert_eq!((calls(&again.records), rig.changes()), (0, made), "a second run changes nothing");
    at_the_end(rig, &there);
    let asked = there.records.iter().filter_map(|r| match &r.event {
        Event::Asked { key, .. } => Some(key.id()),
        _ => None,
    });
    assert_eq!(asked.filter(|id| !pvemig::blueprint::row(id).unwrap().asks).count(), 0, "a list says who may ask");

    let back = rig.backward(&there.id, &How::default()).await;
    assert_undone(&back, "back");
    assert!(calls(&back.records) > 10, "{} calls", calls(&back.records));
    assert_eq!(rig.changes(), made + calls(&back.records), "back");
    assert_same(&rig.picture().await, &first, "back");
    (there, back)
}

/// Cuts runs in fresh worlds at each point that `seen` passed in a step, and goes on from there: to the end and back, or
/// back again where it is the undo that is cut. How often.
async fn cut_around(fresh: impl AsyncFn() -> Rig, seen: &Run, key: &str, undo: bool) -> usize {
    let first = fresh().await.picture().await;
    let points: Vec<u64> = seen.points.passed().iter().filter(|p| p.key == key).map(|p| p.n).collect();
    for n in &points {
        let rig = fresh().await;
        let (whole, cut) = (How::default(), How { cut_at: Some(*n), ..How::default() });
        let run = rig.forward(None, if undo { &whole } else { &cut }).await;
        if undo {
            assert_done(&run, "before the cut");
            assert!(rig.backward(&run.id, &cut).await.points.is_cut(), "{key} {n}");
        } else {
            assert!(run.points.is_cut(), "{key} {n}");
            assert_done(&rig.forward(Some(&run.id), &whole).await, "after the cut");
        }
        assert_undone(&rig.backward(&run.id, &whole).await, "after the cut");
        assert_same(&rig.picture().await, &first, &format!("{key}, cut at {n}"));
    }
    points.len()
}

/// The USB keys of a VM's config.
fn usb(rig: &Rig, vmid: u32) -> Vec<(String, String)> {
    let usb = |world: &World| {
        let config = world.vms[&vmid].config.clone();
        config.into_iter().filter(|(key, _)| key.starts_with("usb")).collect()
    };
    rig.lab.shared().read(usb)
}

fn keys(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn mapping(rig: &Rig) -> Option<Vec<String>> {
    rig.lab.shared().read(|world| world.mappings.get("coral").map(|m| m.map.clone()))
}

/// How often the calls of a run name something.
fn called(run: &Run, what: &str) -> usize {
    let of = |event: &Event| matches!(event, Event::Call { note, .. } if note.text.contains(what));
    run.records.iter().filter(|r| of(&r.event)).count()
}

fn set_attach(site: &mut Value, attach: &str) {
    let params = &mut site["migrations"]["frigate-coral"]["params"];
    assert_eq!(params["attach"], "id");
    params["attach"] = json!(attach);
    if attach == "mapping" {
        site["devices"]["coral"]["mapping"] = json!("coral");
    }
}

/// The commits that somebody was asked to push.
fn asked_to_push(run: &Run) -> Vec<String> {
    let of = |event: &Event| match event {
        Event::Asked { key, ask, hint, hands: Some(Hands::Push { commit, branch, .. }), .. } => {
            assert_eq!((key.as_str(), branch.as_str()), ("09a-update-manifests", "main"));
            assert!(ask.starts_with("push commit ") && ask.contains(&commit[..7]), "{ask}");
            assert!(hint.as_ref().is_some_and(|h| h.contains(&format!("{commit}:refs/heads/main"))), "{hint:?}");
            Some(commit.clone())
        }
        _ => None,
    };
    run.records.iter().filter_map(|r| of(&r.event)).collect()
}

/// A site that lets pvemig commit, and leaves the push to a person.
async fn pushed_by_hand() -> Rig {
    let edit = |site: &mut Value| {
        assert_eq!(site["checkouts"]["gitops"]["push"], true);
        site["checkouts"]["gitops"]["push"] = json!(false);
    };
    Rig::of(at_rest("usb-move"), edit).await
}

fn tip(rig: &Rig) -> String {
    std::fs::read_to_string(rig.dir().join("gitops.git/refs/heads/main")).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_pvemig_may_not_push_hands_do_it_and_the_run_goes_on() {
    let rig = pushed_by_hand().await;
    let (there, back) = there_and_back(&rig, |rig, run| assert_eq!(asked_to_push(run), [tip(rig)])).await;
    assert_eq!(asked_to_push(&back), [tip(&rig)]);
    for run in [&there, &back] {
        assert_eq!((called(run, "git commit"), called(run, "git push")), (1, 0));
    }
    for (run, undo) in [(&there, false), (&back, true)] {
        let cuts = cut_around(pushed_by_hand, run, "09a-update-manifests", undo).await;
        assert!((4..=8).contains(&cuts), "{cuts}");
    }
}

/// How often the calls of a whole run name something.
fn called_in(rig: &Rig, run: &Run, what: &str) -> usize {
    let records = rig.bench.read(&run.id).records;
    let of = |event: &Event| matches!(event, Event::Call { note, .. } if note.text.contains(what));
    records.iter().filter(|r| of(&r.event)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_pushed_need_not_be_taken_back() {
    let rig = pushed_by_hand().await;
    let (first, main) = (rig.picture().await, tip(&rig));
    let alone = How { no_hands: true, ..How::default() };
    let run = rig.forward(None, &alone).await;
    assert_eq!(stop(&run).key.as_str(), "03-check-host-hardware");
    rig.lab.move_stick("coral", Some(Place { host: "still-fawn".into(), port: "2-3".into() })).unwrap();
    let asked = rig.forward(Some(&run.id), &alone).await;
    assert!(matches!(&stop(&asked).why, Why::Manual { hands: Some(Hands::Push { .. }), .. }), "{:#?}", asked.ended);
    assert_eq!((asked_to_push(&asked).len(), called_in(&rig, &run, "git commit"), tip(&rig)), (1, 1, main.clone()));
    // The commit has not left the clone: the lab has seen all calls but that one.
    assert_eq!(rig.changes() + 1, called_in(&rig, &run, ""));

    let back = rig.backward(&run.id, &How::default()).await;
    assert_undone(&back, "nobody pushed");
    assert_eq!((asked_to_push(&back).len(), called(&back, "git commit"), tip(&rig)), (0, 0, main));
    assert_same(&rig.picture().await, &first, "nobody pushed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_a_mapping_gets_there_and_back() {
    let rig = Rig::new("usb-move-token").await;
    let source = "node=pumped-piglet,id=18d1:9302,path=2-1";
    let (_, back) = there_and_back(&rig, |rig, _| {
        assert_eq!((usb(rig, 105), usb(rig, 108)), (vec![], keys(&[("usb0", "mapping=coral,usb3=1")])));
        let map = mapping(rig).unwrap();
        assert!(map.len() == 2 && map.contains(&source.to_owned()), "{map:?}");
        assert!(map.iter().any(|e| e.contains("node=still-fawn") && e.contains("path=2-3")), "{map:?}");
    })
    .await;
    // Carried about, the Coral shows its first id again, and an entry that names the other one would give nothing.
    assert_eq!(mapping(&rig).unwrap(), [source.replace("18d1:9302", "1a6e:089a")]);
    let fresh = async || Rig::new("usb-move-token").await;
    let cuts = cut_around(fresh, &back, "01-remove-usb", true).await;
    assert!((6..=9).contains(&cuts), "{cuts}");
}

/// As `usb-move-token`, with machines that learn of a device when they start.
fn token_on_old_machines() -> World {
    let machine = |vmid: &str, machine: &str| format!("  \"{vmid}\": {{ config: {{ machine: {machine} }} }}\n");
    let vms = machine("105", "pc-q35-6.2") + &machine("108", "pc-i440fx-6.2");
    let world = lab::read(&format!("extends: usb-move-token\nname: usb-move-token-old\nvms:\n{vms}")).unwrap();
    Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_finds_the_mapping_at_the_id_that_the_device_shows() {
    let world = token_on_old_machines();
    let rig = Rig::of(world.clone(), |_| {}).await;
    let (there, _) = there_and_back(&rig, |rig, _| {
        assert_eq!(usb(rig, 108), keys(&[("usb0", "mapping=coral,usb3=1")]));
        let held = |world: &World| world.vms[&108].running.as_ref().unwrap().usb.len();
        assert_eq!(rig.lab.shared().read(held), 1);
    })
    .await;
    let point = |p: &&Point| p.key == "05-reboot-vm" && p.event == "call" && p.side == Side::Before;
    let starts: Vec<Point> = there.points.passed().iter().filter(point).cloned().collect();
    assert_eq!(starts.len(), 2, "{starts:?}");
    // Cut while it is off, and by then the device has shown its other id: to another machine, or on the host.
    for undo in [false, true] {
        let rig = Rig::of(world.clone(), |_| {}).await;
        let first = rig.picture().await;
        let cut = rig.forward(None, &How { cut_at: Some(starts[1].n), ..How::default() }).await;
        assert!(cut.points.is_cut());
        rig.lab.shared().change(|world| {
            assert!(world.vms[&108].running.is_none());
            world.sticks.get_mut("coral").unwrap().state = StickState::Run;
        });
        if undo {
            assert_undone(&rig.backward(&cut.id, &How::default()).await, "off, undone");
        } else {
            assert_done(&rig.forward(Some(&cut.id), &How::default()).await, "off, resumed");
            assert!(mapping(&rig).unwrap().iter().any(|e| e.contains("still-fawn,id=18d1:9302")));
            assert_undone(&rig.backward(&cut.id, &How::default()).await, "off, resumed, undone");
        }
        assert_same(&rig.picture().await, &first, "off");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_port_there_and_back() {
    let rig = Rig::of(at_rest("usb-move"), |site| set_attach(site, "port")).await;
    there_and_back(&rig, |rig, _| {
        let both = keys(&[("usb0", "host=2-3,usb3=1"), ("usb1", "host=1-3,usb3=1")]);
        assert_eq!((usb(rig, 105), usb(rig, 108)), (vec![], both));
    })
    .await;
    assert_eq!(usb(&rig, 105).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_is_made_and_goes_again() {
    let rig = Rig::of(at_rest("usb-move"), |site| set_attach(site, "mapping")).await;
    assert_eq!(mapping(&rig), None);
    let (there, back) = there_and_back(&rig, |rig, _| {
        assert_eq!((usb(rig, 105), usb(rig, 108)), (vec![], keys(&[("usb0", "mapping=coral,usb3=1")])));
        let map = mapping(rig).unwrap();
        assert!(map.len() == 1 && map[0].contains("node=still-fawn") && map[0].contains("path=2-3"), "{map:?}");
    })
    .await;
    assert_eq!((called(&there, "mapping"), called(&back, "mapping")), (2, 1));
    assert_eq!(mapping(&rig), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mapping_said_of_the_host_is_restored() {
    let mut world = at_rest("usb-move");
    let old = ["node=pumped-piglet,id=18d1:9302,path=2-1", "node=still-fawn,id=1a6e:089a,path=2-2"];
    let map = old.map(str::to_owned).to_vec();
    world.mappings.insert("coral".into(), UsbMapping { description: Some("Coral".into()), map });
    let rig = Rig::of(world, |site| set_attach(site, "mapping")).await;
    there_and_back(&rig, |rig, _| {
        let map = mapping(rig).unwrap();
        assert_eq!((map.len(), &map[0]), (2, &old[0].to_owned()));
        assert!(map[1].contains("node=still-fawn") && map[1].contains("path=2-3"), "{map:?}");
    })
    .await;
    assert_eq!(mapping(&rig).unwrap(), old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_high_availability_keeps_is_rebooted_in_one() {
    let mut world = at_rest("usb-move-old");
    world.ha.insert(108, "started".into());
    let rig = Rig::of(world, |_| {}).await;
    let pid = |rig: &Rig| rig.lab.shared().read(|world| world.vms[&108].running.as_ref().unwrap().pid);
    let before = pid(&rig);
    let sent = |rig: &Rig, what: &str| {
        let seen = rig.lab.shared().log.seen();
        seen.iter().filter(|s| s.line.starts_with("POST ") && s.line.contains(what)).count()
    };
    there_and_back(&rig, |rig, _| {
        assert_ne!(pid(rig), before);
        let counts = ["/108/status/reboot", "/108/status/shutdown", "/108/status/start"].map(|w| sent(rig, w));
        assert_eq!(counts, [1, 0, 0]);
    })
    .await;
}

/// A world with a second, equal device at the target's host.
async fn with_a_twin(attach: &str) -> Rig {
    let rig = Rig::of(at_rest("usb-move"), |site| {
        if attach != "id" {
            set_attach(site, attach);
        }
    })
    .await;
    rig.lab.shared().change(|world| {
        let twin = Stick { at: None, ..world.sticks["coral"].clone() };
        world.sticks.insert("twin".into(), twin);
        world.move_stick("twin", Some(Place { host: "still-fawn".into(), port: "2-2".into() })).unwrap();
    });
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_equal_devices_an_id_names_neither() {
    let mut rig = with_a_twin("id").await;
    let stopped = rig.forward(None, &How::default()).await;
    assert_eq!(stop(&stopped).key.as_str(), "00-preflight");
    let text = blocked(&stopped);
    assert!(text.contains("2 equal devices") && text.contains("`attach: port`"), "{text}");
    assert_eq!((calls(&stopped.records), rig.changes()), (0, 0));
    // Put in after the preflight was passed, it is met where it matters.
    let first = rig.picture().await;
    rig.steps.retain(|step| step.id() != "00-preflight");
    let stopped = rig.forward(None, &How::default()).await;
    assert_eq!(stop(&stopped).key.as_str(), "04-add-usb");
    let text = blocked(&stopped);
    assert!(text.contains("still-fawn has 2 of these devices") && text.contains("use port: set"), "{text}");
    assert!(usb(&rig, 108).is_empty());
    assert_undone(&rig.backward(&stopped.id, &How::default()).await, "back from 04");
    assert_same(&rig.picture().await, &first, "back from 04");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_equal_devices_a_port_names_one() {
    let rig = with_a_twin("port").await;
    there_and_back(&rig, |rig, _| {
        assert_eq!(usb(rig, 108), keys(&[("usb0", "host=2-3,usb3=1"), ("usb1", "host=1-3,usb3=1")]));
        let held = |world: &World| {
            let held = world.vms[&108].running.as_ref().unwrap().usb.values();
            held.map(|device| device.host_port.clone()).collect::<Vec<_>>()
        };
        assert_eq!(rig.lab.shared().read(held), ["2-3"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_a_right_is_stopped_before_anything_is_changed() {
    let mut without = at_rest("usb-move-token");
    without.access.roles.get_mut("MigrateVm").unwrap().remove("VM.Config.HWType");
    without.access.roles.get_mut("MigrateMapping").unwrap().remove("Mapping.Modify");
    let cases = [
        (at_rest("usb-move-token-cannot"), vec!["raw USB entries", "by id to vm 108", "root@pam alone may"]),
        (
            without,
            vec![
                "lacks VM.Config.HWType on /vms/105",
                "lacks VM.Config.HWType on /vms/108",
                "lacks Mapping.Modify on /mapping/usb/coral",
            ],
        ),
    ];
    for (world, parts) in cases {
        let rig = Rig::of(world, |_| {}).await;
        let first = rig.picture().await;
        let run = rig.forward(None, &How::default()).await;
        assert_eq!(stop(&run).key.as_str(), "00-preflight");
        let text = blocked(&run);
        for part in parts {
            assert!(text.contains("pvemig@pve!pvemig") && text.contains(part), "{part}:\n{text}");
        }
        assert_eq!((calls(&run.records), rig.changes()), (0, 0));
        assert_same(&rig.picture().await, &first, "nothing was changed");
    }
}
