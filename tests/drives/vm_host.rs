//! The host of a node that is a VM: its other guests, and what is in its slots.

use super::vm::rig_with;
use super::*;
use pvemig::engine::run::{Ended, Why};

/// The drive of the host itself, in M2_4.
const OWN: &str = "0000:05:00.0";

/// Another guest of the host, off, with these keys.
fn beside(world: &mut World, keys: &[(&str, &str)]) {
    let mut vm = world.vms[&223].clone();
    vm.running = None;
    vm.config = [("name", "films")].iter().chain(keys).map(|(key, of)| ((*key).into(), (*of).into())).collect();
    world.vms.insert(224, vm);
}

fn params(site: &mut Value) -> &mut Value {
    &mut site["migrations"]["vm-drives"]["params"]
}

/// What the preflight says; nothing was changed.
async fn refused(what: &str, change: impl FnOnce(&mut World), edit: impl FnOnce(&mut Value)) -> String {
    let rig = rig_with("nvme-data-vm", change, edit).await;
    let run = rig.forward(None, &How::default()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("00-preflight", 0), "{what}: {text}");
    assert!(rig.lab.shared().read(|w| w.vms[&223].running.is_some()), "{what}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_guests_are_given_is_looked_at_beforehand() {
    let starts = ("onboot", "1");
    let cases: [(&[(&str, &str)], &str); 4] = [
        (
            &[starts, ("hostpci0", "03:00")],
            "hostpci0 of vm 224 films names 0000:03:00.0 of pve, which is a drive of vm 223",
        ),
        (
            &[starts, ("hostpci3", "0000:09:00.0")],
            "hostpci3 of vm 224 films names 0000:09:00.0 of pve, at which nothing is",
        ),
        (&[starts, ("hostpci0", "what")], "hostpci0 of vm 224 films cannot be read: what"),
        (
            &[starts, ("hostpci0", "mapping=own")],
            "hostpci0 of vm 224 films goes by the mapping own, which is not there",
        ),
    ];
    for (keys, words) in cases {
        let text = refused(words, |w| beside(w, keys), |_| {}).await;
        assert!(text.contains(words), "{words}: {text}");
    }
    // The slot that a drive goes into has one that another guest is given.
    let into = |site: &mut Value| params(site)["target"] = json!({ "M2_4": "media", "M2_2": "scratch" });
    let text = refused("of a slot", |w| beside(w, &[starts, ("hostpci0", OWN)]), into).await;
    let words = "hostpci0 of vm 224 films names 0000:05:00.0 of pve, which is in M2_4";
    assert!(text.contains(words), "{text}");
}

/// Its addresses may be others' once the drives were moved: who starts with the host is named to who switches that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_starts_with_the_host_is_named_to_the_hands() {
    let cases: [(&[(&str, &str)], bool); 3] = [
        (&[("onboot", "1"), ("hostpci0", OWN)], true),
        (&[("onboot", "1")], false),
        // It does not start by itself, and its lines are nobody's business, whatever they name.
        (&[("hostpci0", "0000:03:00.0")], false),
    ];
    for (keys, named) in cases {
        let rig = rig_with("nvme-data-vm", |w| beside(w, keys), |_| {}).await;
        let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
        let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:#?}", run.ended) };
        let Why::Manual { hint, .. } = &stop.why else { panic!("{keys:?}: {:#?}", stop.why) };
        let hint = hint.as_deref().unwrap();
        let words = "vm 224 films starts with pve, and is given what is at 0000:05:00.0 then (hostpci0)";
        assert_eq!(
            (hint.contains(words), hint.contains("`qm set 224 --onboot 0`")),
            (named, named),
            "{keys:?}: {hint}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_has_a_foreign_drive_is_no_target() {
    type Change = fn(&mut World);
    let hidden = |w: &mut World| assert!(w.hosts.get_mut("pve").unwrap().vfio.insert(OWN.into()));
    let cases: [(&str, Change, &str); 3] = [
        ("its own", |_| {}, "M2_4 of pve, which media is to go into, has CT500P3SSD8 (2310E6A1B2C3) in it"),
        (
            "another guest's",
            |w| {
                assert!(w.hosts.get_mut("pve").unwrap().vfio.insert(OWN.into()));
                beside(w, &[("onboot", "1"), ("hostpci2", OWN)]);
            },
            "M2_4 of pve, which media is to go into, has what vm 224 films is given (hostpci2) in it",
        ),
        (
            "whose it is nobody says",
            hidden,
            "M2_4 of pve, which media is to go into, has a drive in it that pve does not show",
        ),
    ];
    assert_eq!(cases.len(), 3);
    for (what, change, words) in cases {
        let into = |site: &mut Value| params(site)["target"] = json!({ "M2_4": "media", "M2_2": "scratch" });
        let text = refused(what, change, into).await;
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// A token that may do all the same cannot write a line with an address: each that might have to be written is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_told_of_each_line_that_it_could_not_write() {
    let roles = [
        ("VM.Audit,VM.PowerMgmt,VM.Config.Options,VM.Config.HWType,Sys.Audit,Mapping.Modify", "/"),
        ("VM.PowerMgmt,VM.Config.Options,VM.Config.HWType,VM.Audit", "/vms/223"),
    ];
    for (all, (held, path)) in [true, false].into_iter().zip(roles) {
        let token = |w: &mut World| {
            let held: Vec<&str> = held.split(',').collect();
            let access = json!({
                "users": { "pvemig@pve": {} },
                "tokens": { "pvemig@pve!pvemig": { "privsep": false } },
                "roles": { "Move": held, "Look": ["Sys.Audit"] },
                "acl": [
                    { "path": path, "who": "pvemig@pve", "role": "Move" },
                    { "path": "/nodes", "who": "pvemig@pve", "role": "Look" },
                ],
            });
            w.access = serde_json::from_value(access).unwrap();
            w.vms.get_mut(&223).unwrap().config.insert("hostpci2".into(), "0000:05:00.0,pcie=1".into());
        };
        let text = refused("a token", token, |site| {
            site["proxmox"]["home"]["auth"] =
                json!({ "token": { "id": "pvemig@pve!pvemig", "secret": { "file": "./pve-token-secret" } } });
        })
        .await;
        for words in [
            "hostpci0 of vm 223 has media by its address, which root@pam alone may change",
            "hostpci1 of vm 223 has scratch by its address, which root@pam alone may change",
            "hostpci2 of vm 223 has what is at 0000:05:00.0 by its address, which root@pam alone may change",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let unseen = "pvemig@pve!pvemig lacks VM.Audit on /vms: which other guests pve has is not known";
        assert_eq!(text.contains(unseen), !all, "{text}");
    }
}
