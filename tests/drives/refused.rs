//! Each stops before harm, with its message.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_as_long_as_something_says_that_it_is_on() {
    // Its controller says "on" whatever is: no hand goes in.
    let lies = |world: &mut World| world.talos.nodes.get_mut(NUC).unwrap().bmc_lies = "on".into();
    let rig = rig_of(at_rest_after("nvme-data", "lies", lies), |_| {}).await;
    let how = How { limit: Some(std::time::Duration::from_secs(5)), ..How::default() };
    let run = rig.forward(None, &how).await;
    let (key, text) = why(&run);
    assert_eq!((key, asked(&run, "04-move-drives")), ("03-shutdown", 0), "{text}");
    assert!(text.contains("is not off: `cat` says that it is on, and Talos does not answer"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_way_that_is_another_machines_or_none_is_refused_while_it_runs() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str); 3] = [
        (
            |site| drop(of(site).remove("out_of_band")),
            "nothing would show that talos-nuc is off but its silence: the site file has no `out_of_band`",
        ),
        (
            |site| of(site)["out_of_band"]["power"]["command"] = json!(["echo", "Chassis Power is off"]),
            "talos-nuc answers, and `echo` says that it is off: that is another machine's power",
        ),
        (
            |site| of(site)["out_of_band"]["power"]["command"] = json!(["false"]),
            "but its silence: the command of its `out_of_band` tells nothing",
        ),
    ];
    let mut refused = 0;
    for (edit, words) in cases {
        let rig = rig_of(at_rest("nvme-data"), edit).await;
        let run = rig.forward(None, &How::default()).await;
        let (key, text) = why(&run);
        assert!(key == "03-shutdown" && text.contains(words), "{key}: {text}");
        assert_eq!((bays(&rig).0, rig.lab.shared().read(|w| w.talos.nodes[NUC].off)), (first(), false));
        refused += 1;
    }
    assert_eq!(refused, 3);
}

fn of(site: &mut Value) -> &mut serde_json::Map<String, Value> {
    site.pointer_mut("/talos/homelab/nodes/talos-nuc").unwrap().as_object_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_is_dead_forgotten_or_renamed_is_told() {
    for (world, forgotten) in [("nvme-data-dead", false), ("nvme-data", true)] {
        let rig = rig(world).await;
        let lab = rig.lab.clone();
        let stopped = with_a_person(&rig, move || {
            lab.move_drive(DATA, if forgotten { "bench" } else { "talos-nuc:M2_3" }).unwrap();
            lab.move_drive(NEW, "talos-nuc:M2_2").unwrap();
            lab.press_button(NUC).unwrap();
        })
        .await;
        let (key, text) = why(&stopped);
        assert_eq!(key, "04-move-drives", "{text}");
        let (words, more) = if forgotten {
            ("media (22471A806001) is nowhere: ", "nothing is on PCI in M2_3")
        } else {
            ("media (22471A806001) does not come up in M2_3: its controller 0000:02:00.0", "aborting initialisation")
        };
        let told = notes(&stopped, "04-move-drives");
        assert!(text.contains(words) && told.contains(more), "{text}\n{told}");
    }
    let rig = rig("nvme-data-renames").await;
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "renames");
    let told = notes(&run, "05-verify-disks");
    assert!(told.contains(&format!("was {DATA} and reports BRIDGE0001: recognised by its 1 partition")), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_that_was_switched_off_is_missed() {
    let rig = rig("nvme-data").await;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    rig.lab.shared().change(|world| world.cut_power("talos-mac"));
    let stopped = rig.forward(Some(&run.id), &How::default()).await;
    let (key, text) = why(&stopped);
    assert_eq!((key, asked(&stopped, "04-move-drives")), ("04-move-drives", 0), "{text}");
    assert!(
        text.contains("talos-mac does not answer any more: talos-nuc is the one to be opened, and stays off")
            && text.contains("switch talos-mac on again, and not talos-nuc"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_goes_off_with_a_snapshot_alone() {
    let mut rig = rig_of(at_rest("nvme-single"), |_| {}).await;
    let swap = Plan {
        target: layout("M2_1=sys M2_3=media"),
        drives: plan(&rig.site).drives.into_iter().filter(|(name, _)| name != "pool").collect(),
        ..plan(&rig.site)
    };
    let all = steps(&rig.site, &swap);
    rig.steps = all.into_iter().filter(|step| step.id() == "03-shutdown").collect();
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("03-shutdown", 0), "{text}");
    assert!(text.contains("talos-nuc is the only voter of etcd, and this run has no snapshot of it"), "{text}");
    rig.steps = steps(&rig.site, &swap);
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert!(key == "03-shutdown" && text.contains("is the only voter of etcd: without it"), "{key}: {text}");
    assert_undone(&rig.backward(&run.id, &How::default()).await, "the drain");
    // The API may be away: then the snapshot is enough.
    let machine = || Machine::of(&rig.site, NUC).unwrap();
    let peers = Machine::peers(&rig.site, &machine().cluster);
    rig.steps[2] = Box::new(ShutDown { machine: machine(), peers, plan: swap, without_api: true, anew: None });
    let run = rig.forward(None, &How::default()).await;
    assert_done(&run, "without the API");
    assert_eq!(bays(&rig).0, in_bays(&[("M2_1", SYS), ("M2_3", DATA)]));
}
