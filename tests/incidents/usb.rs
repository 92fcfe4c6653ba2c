//! The stick: its two identities, its socket, and whoever else has it.

use pvemig::base::check::Hands;
use pvemig::engine::event::Event;
use pvemig::lab::world::{Firmware, Socket, Stick, StickState, Vm};
use pvemig::lab::{Place, World};
use serde_json::{Value, json};

use super::{DEVICE, How, Rig, assert_noted, assert_stopped, go, rig, rig_of};
use crate::harness::same::assert_done;

fn at(host: &str, port: &str) -> Place {
    Place { host: host.into(), port: port.into() }
}

fn usb(rig: &Rig, vmid: u32) -> Vec<String> {
    rig.lab.shared().read(|world| {
        let config = &world.vms[&vmid].config;
        config.iter().filter(|(key, _)| key.starts_with("usb")).map(|(_, value)| value.clone()).collect()
    })
}

/// What a person was asked to do, with the places that the hands were given.
fn asked(run: &super::Run) -> Vec<(String, String)> {
    let of = |event: &Event| match event {
        Event::Asked { ask, hands: Some(Hands::Plug { host, port, .. }), .. } => {
            Some((ask.clone(), format!("{host} {}", port.clone().unwrap_or_default())))
        }
        _ => None,
    };
    run.records.iter().filter_map(|r| of(&r.event)).collect()
}

/// It comes back from its journey with the other id, and changes it again at the first inference: both are passed.
async fn flips() {
    let rig = rig("usb-move", &[], |_| {}).await;
    let id = || rig.lab.shared().read(|world| world.sticks["coral"].id().to_owned());
    assert_eq!(id(), "18d1:9302");
    let run = go(&rig).await;
    assert_done(&run, "flips");
    // 03 saw it as it is after power-up, the pod's first inference made it the other one, and the guest still has it.
    assert!(super::notes(&run, "03-").contains("1a6e:089a"), "{}", super::notes(&run, "03-"));
    assert_eq!(id(), "18d1:9302");
    assert_eq!(usb(&rig, 108), ["host=1a6e:089a,usb3=1", "host=18d1:9302,usb3=1"]);
    let held = rig.lab.shared().read(|world| world.vms[&108].running.as_ref().unwrap().usb.len());
    assert_eq!(held, 1);
}

/// By a mapping the start would fail with the id of before: 05 refreshes it between stop and start.
async fn flips_in_between() {
    let mapped = |site: &mut Value| {
        site["migrations"]["frigate-coral"]["params"]["attach"] = json!("mapping");
        site["devices"]["coral"]["mapping"] = json!("coral");
    };
    let rig = rig_of("usb-move-old", DEVICE, |_| {}, mapped).await;
    let stick = rig.lab.shared().clone();
    stick.change(|world| world.vms.get_mut(&108).unwrap().guest.shutdown_ms = Some(20_000));
    let flip = async {
        let asked_to_halt = |world: &World| world.vms[&108].shutdown.is_some().then_some(());
        stick.until(std::time::Duration::from_secs(900), asked_to_halt).await.unwrap();
        stick.change(|world| world.sticks.get_mut("coral").unwrap().state = StickState::Run);
    };
    let (run, ()) = tokio::join!(go(&rig), flip);
    assert_done(&run, "flips in between");
    let entry = stick.read(|world| world.mappings["coral"].map.join(" "));
    assert!(entry.contains("id=18d1:9302") && entry.contains("node=still-fawn"), "{entry}");
}

/// An entry without usb3=1 puts the device of an old machine on a slow controller: 04 sets it.
async fn without_usb3() {
    let wrong = |world: &mut World| {
        let config = &mut world.vms.get_mut(&108).unwrap().config;
        config.insert("usb0".into(), "host=1a6e:089a".into());
        config.insert("usb1".into(), "host=18d1:9302".into());
    };
    let rig = rig("usb-move-old", DEVICE, wrong).await;
    let run = go(&rig).await;
    assert_noted(&run, &["07-"], &["5000 Mbit/s"]);
    assert_eq!(usb(&rig, 108), ["host=1a6e:089a,usb3=1", "host=18d1:9302,usb3=1"]);
}

/// Behind a hub its port has a dot; passed by port it is that port.
async fn behind_a_hub() {
    let hub = |world: &mut World| {
        let sockets = &mut world.hosts.get_mut("still-fawn").unwrap().sockets;
        sockets.push(Socket { high_speed: "1-4.1".into(), super_speed: Some("2-4.1".into()) });
    };
    let site = |site: &mut Value| {
        site["migrations"]["frigate-coral"]["params"]["attach"] = json!("port");
        site["devices"]["coral"]["ports"]["still-fawn"] = json!({"port": "2-4.1", "sibling": "1-4.1"});
    };
    let rig = rig_of("usb-move", DEVICE, hub, site).await;
    let run = go(&rig).await;
    assert_noted(&run, &["03-"], &["still-fawn port 2-4.1 (5000 Mbit/s)"]);
    assert_eq!(usb(&rig, 108), ["host=2-4.1,usb3=1", "host=1-4.1,usb3=1"]);
    assert_eq!(asked(&run).len(), 1, "{:?}", asked(&run));
}

/// Somebody plugs it into another socket than the site file says, then into a slow one.
async fn wrong_socket() {
    let rig = rig("usb-move", DEVICE, |world| {
        world.move_stick("coral", None).unwrap();
        world.move_stick("coral", Some(at("still-fawn", "1-5"))).unwrap();
    })
    .await;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    assert_stopped(&run, "03-", &["move", "port 2-3 of still-fawn", "it is at", "1-5"]);
}

/// A stick of another maker is not taken for it.
async fn wrong_stick() {
    let rig = rig("usb-move", DEVICE, |world| {
        let firmware = Firmware::Plain { id: "0781:5591".into(), product: "Ultra USB 3.0".into() };
        let stick = Stick {
            firmware,
            serial: None,
            max_speed: 5000,
            at: None,
            state: StickState::Boot,
            present: true,
            devnum: 0,
        };
        world.sticks.insert("memory".into(), stick);
        world.move_stick("memory", Some(at("still-fawn", "2-3"))).unwrap();
    })
    .await;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    assert_stopped(&run, "03-", &["plug coral", "into still-fawn", "0781:5591"]);
}

/// Two equal sticks: by id a VM would take either.
async fn two_equal() {
    let rig = rig("usb-move", &[], |world| {
        let mut twin = world.sticks["coral"].clone();
        twin.at = None;
        world.sticks.insert("twin".into(), twin);
        world.move_stick("twin", Some(at("still-fawn", "2-2"))).unwrap();
    })
    .await;
    assert_stopped(&go(&rig).await, "00-preflight", &["2 equal devices", "`attach: port`"]);
    assert_eq!(rig.changes(), 0);
}

/// Another VM has it already, by id, port or mapping.
async fn passed_elsewhere(value: &str) {
    let rig = rig("usb-move", &[], |world| {
        let entry = "node=still-fawn,id=1a6e:089a,path=2-3".to_owned();
        world.mappings.insert("coral".into(), pvemig::lab::world::UsbMapping { map: vec![entry], description: None });
        let config = [("name".to_owned(), "desk".to_owned()), ("usb3".to_owned(), value.to_owned())].into();
        let other = Vm { node: "still-fawn".into(), config, ..Vm::default() };
        world.vms.insert(120, other);
    })
    .await;
    let said = format!("vm 120 on still-fawn passes the device too (usb3: {value})");
    assert_stopped(&go(&rig).await, "00-preflight", &[&said, "qm set 120 --delete usb3"]);
    assert_eq!(rig.changes(), 0);
}

incidents! {
    the_stick_changes_its_id_at_the_first_inference: flips();
    the_stick_changes_its_id_between_stop_and_start: flips_in_between();
    usb3_is_missing: without_usb3();
    the_stick_is_behind_a_hub: behind_a_hub();
    the_stick_is_in_a_slow_socket: wrong_socket();
    it_is_the_wrong_stick: wrong_stick();
    there_are_two_equal_sticks: two_equal();
    another_vm_has_it_by_id: passed_elsewhere("host=18d1:9302");
    another_vm_has_it_by_port: passed_elsewhere("host=2-3,usb3=1");
    another_vm_has_it_by_mapping: passed_elsewhere("mapping=coral");
}
