//! Resets: what is sent, what each destroys by name, and that nothing goes out without a consent to all of it.

use pvemig::base::permit::{Again, Handle, Thing};
use pvemig::talos::{Error, EtcdVolume, Reset, Wipe};

use super::changing::Book;
use super::fake::{Says, msg, num, raw, text};
use super::{Wire, decent, machine};

/// A node with two disks, on the first of which it is installed.
async fn with_disks() -> Wire {
    with_disks_and(Says::Ok(vec![msg(1, &[msg(2, &[num(10, 255)])])])).await
}

/// The same, with another answer to a question after its member of etcd.
async fn with_disks_and(etcd: Says) -> Wire {
    let wire = Wire::start().await;
    let resource = |id: &str, yaml: &str| raw(1, &[msg(1, &[text(3, id)]), msg(2, &[text(2, yaml)])].concat());
    let disk = |id: &str, serial: &str| {
        resource(id, &format!("dev_path: /dev/{id}\nserial: \"{serial}\"\ntransport: virtio\n"))
    };
    let disks =
        vec![disk("sda", "SYS1"), disk("sdb", "DATA1"), disk("sdc", ""), disk("sdd", "TWIN"), disk("sde", "TWIN")];
    wire.fake.on("/cosi.resource.State/List", Says::Ok(disks));
    wire.fake
        .on("/cosi.resource.State/Get", Says::Ok(vec![resource("system-disk", "diskID: sda\ndevPath: /dev/sda\n")]));
    wire.fake.on(&machine("EtcdStatus"), etcd);
    wire.says("EtcdMemberList", &[msg(3, &[num(2, 255), text(3, "talos-20")])]);
    wire.says("Reset", &[text(2, "0b5c")]);
    wire
}

#[tokio::test]
async fn a_reset_names_what_it_destroys_before_it_goes_out() {
    let label = |name: &str| msg(3, &[text(1, name), num(2, 1)]);
    let cases = [
        (Wipe::SystemDisk, false, vec!["disk/SYS1"], num(5, 1)),
        (
            Wipe::Volumes(vec!["EPHEMERAL".into(), "STATE".into()]),
            false,
            vec!["disk/SYS1"],
            [label("EPHEMERAL"), label("STATE"), num(5, 1)].concat(),
        ),
        (
            Wipe::UserDisks(vec!["/dev/sdb".into()]),
            false,
            vec!["disk/DATA1"],
            [text(4, "/dev/sdb"), num(5, 2)].concat(),
        ),
        (
            Wipe::All(vec!["/dev/sdb".into()]),
            true,
            vec!["disk/SYS1", "disk/DATA1", "etcd/talos-20"],
            text(4, "/dev/sdb"),
        ),
    ];
    for (wipe, graceful, things, fields) in cases.clone() {
        let reset = Reset { graceful, reboot: true, wipe };
        // Each of them is asked for: one that is not consented to keeps all of it.
        for missing in 0..things.len() {
            let wire = with_disks().await;
            let given: Vec<&'static str> =
                things.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, t)| *t).collect();
            let (permit, book) = Book::permit(&given);
            let error = wire.talos.reset(&permit, &reset).await.unwrap_err();
            assert!(error.to_string().contains(things[missing]), "{error}");
            assert!(book.texts().is_empty() && wire.fake.asked().iter().all(|a| a.path != machine("Reset")));
        }
        let wire = with_disks().await;
        let (permit, book) = Book::permit(&things);
        assert_eq!(wire.talos.reset(&permit, &reset).await.unwrap(), "0b5c");
        assert_eq!(*book.asked.lock().unwrap(), things);
        let asked = wire.fake.asked();
        let last = asked.last().unwrap();
        decent(last);
        let flags = if graceful { [num(1, 1), num(2, 1)].concat() } else { num(2, 1) };
        assert_eq!((last.path.as_str(), &last.messages[0]), (machine("Reset").as_str(), &[flags, fields].concat()));
        assert_eq!(book.notes.lock().unwrap()[0].again, Again::Once);
        assert!(book.texts()[0].contains(things[0]), "{:?}", book.texts());
    }
    assert_eq!(cases.len(), 4);

    // A worker has no member that could leave.
    let wire = with_disks_and(Says::Status(vec![], 12, "etcd status is only available on control plane nodes")).await;
    let (permit, book) = Book::permit(&["disk/SYS1"]);
    wire.talos.reset(&permit, &Reset { graceful: true, reboot: false, wipe: Wipe::SystemDisk }).await.unwrap();
    assert_eq!(*book.asked.lock().unwrap(), ["disk/SYS1"]);
    // One that cannot say so may have one.
    let wire = with_disks_and(Says::Status(vec![], 12, "unknown method")).await;
    let (permit, book) = Book::permit(&["disk/SYS1"]);
    let reset = Reset { graceful: true, reboot: false, wipe: Wipe::SystemDisk };
    assert!(matches!(wire.talos.reset(&permit, &reset).await, Err(Error::NotImplemented { .. })));
    assert!(book.texts().is_empty());

    let refused = [
        (Wipe::Volumes(Vec::new()), "whole disk"),
        (Wipe::UserDisks(vec!["/dev/sdx".into()]), "no disk /dev/sdx"),
        (Wipe::UserDisks(vec!["/dev/sdc".into()]), "no serial"),
        (Wipe::UserDisks(vec!["/dev/sdd".into()]), "2 disks have"),
    ];
    for (wipe, words) in refused.clone() {
        let wire = with_disks().await;
        let (permit, book) = Book::permit(&["disk/SYS1", "disk/", "disk/TWIN"]);
        let error = wire.talos.reset(&permit, &Reset { graceful: false, reboot: false, wipe }).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(book.texts().is_empty());
    }
    assert_eq!(refused.len(), 4);
}

/// An empty list of partitions would be the whole disk.
#[tokio::test]
async fn etcds_volume_alone_is_wiped_and_only_with_every_consent() {
    let things = || ["etcd/talos-20", "ephemeral/talos-20"].map(|thing| Thing(thing.into()));
    let mut sent = 0;
    for (volume, label) in [(EtcdVolume::Ephemeral, "EPHEMERAL"), (EtcdVolume::Own, "ETCD")] {
        // Each of them is asked for: one that is not consented to keeps all of it.
        for given in [&[][..], &["etcd/talos-20"], &["ephemeral/talos-20"]] {
            let wire = Wire::start().await;
            wire.says("Reset", &[text(2, "0b5c")]);
            let (permit, book) = Book::permit(given);
            let error = wire.talos.wipe_etcd(&permit, volume, &things()).await.unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{error:?}");
            assert_eq!((wire.fake.asked().len(), book.texts().len()), (0, 0), "{label} {given:?}");
        }
        // Nor does it go where nobody said what is lost with it.
        let wire = Wire::start().await;
        wire.says("Reset", &[text(2, "0b5c")]);
        let (permit, book) = Book::permit(&["etcd/talos-20", "ephemeral/talos-20"]);
        let error = wire.talos.wipe_etcd(&permit, volume, &[]).await.unwrap_err();
        assert!(matches!(error, Error::Setup { .. }), "{error:?}");
        assert_eq!((wire.fake.asked().len(), book.texts().len()), (0, 0), "{label}");

        assert_eq!(wire.talos.wipe_etcd(&permit, volume, &things()).await.unwrap(), "0b5c");
        let asked = wire.one();
        // Not graceful, with a reboot, that one partition, no other disk, SYSTEM_DISK.
        let message = [num(2, 1), msg(3, &[text(1, label), num(2, 1)]), num(5, 1)].concat();
        assert_eq!((asked.path.as_str(), asked.messages), (machine("Reset").as_str(), vec![message]));
        assert_eq!(*book.asked.lock().unwrap(), ["etcd/talos-20", "ephemeral/talos-20"]);
        assert_eq!(*book.handles.lock().unwrap(), [Handle::new("actor", "0b5c")]);
        let words = format!("talos-20 Reset, {label} of etcd/talos-20, ephemeral/talos-20");
        assert_eq!((book.texts(), book.notes.lock().unwrap()[0].again), (vec![words], Again::Once));
        sent += 1;
    }
    assert_eq!(sent, 2);
}
