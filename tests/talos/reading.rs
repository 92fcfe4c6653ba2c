//! Questions: what is sent, and what is read out of the answers.

use pvemig::talos::kind::Stage;
use pvemig::talos::{ApplyMode, Error, Happening, Step};

use super::fake::{Asked, Says, msg, num, raw, text};
use super::{Wire, decent, machine};

/// Path and message of the one request.
pub(crate) fn sent(asked: &Asked) -> (&str, &[u8]) {
    assert_eq!(asked.messages.len(), 1);
    (&asked.path, &asked.messages[0])
}

#[tokio::test]
async fn the_version_is_read() {
    let wire = Wire::start().await;
    let version = msg(2, &[text(1, "v1.11.5"), text(2, "abc"), text(6, "amd64")]);
    wire.says("Version", &[version, msg(3, &[text(1, "nocloud"), text(2, "cloud")]), msg(4, &[num(1, 1)])]);
    let version = wire.talos.version().await.unwrap();
    assert_eq!(
        (version.tag.as_str(), version.platform.as_str(), version.mode.as_str()),
        ("v1.11.5", "nocloud", "cloud")
    );
    assert_eq!((version.arch.as_str(), version.minor()), ("amd64", Some((1, 11))));
    assert_eq!(sent(&wire.one()), ("/machine.MachineService/Version", [].as_slice()));
}

#[tokio::test]
async fn a_service_that_waits_says_for_what() {
    let wire = Wire::start().await;
    let event = |said: &str, state: &str| msg(1, &[text(1, said), text(2, state), msg(3, &[num(1, 5)])]);
    let waiting = [
        text(1, "ext-nvidia-persistenced"),
        text(2, "Waiting"),
        msg(
            3,
            &[
                event("Starting service", "Starting"),
                event("Waiting for file \"/sys/bus/pci/drivers/nvidia\"", "Waiting"),
            ],
        ),
        msg(4, &[num(1, 1)]),
    ];
    let running = [text(1, "kubelet"), text(2, "Running"), msg(4, &[num(2, 1), text(3, "fine")])];
    wire.says("ServiceList", &[msg(2, &waiting), msg(2, &running)]);
    let services = wire.talos.services().await.unwrap();
    let seen: Vec<_> =
        services.iter().map(|s| (s.id.as_str(), s.is_pending(), s.healthy, s.message.as_str())).collect();
    let waits = "Waiting for file \"/sys/bus/pci/drivers/nvidia\"";
    assert_eq!(seen, [("ext-nvidia-persistenced", true, None, waits), ("kubelet", false, Some(true), "fine")]);
    assert_eq!(sent(&wire.one()), ("/machine.MachineService/ServiceList", [].as_slice()));
}

#[tokio::test]
async fn memory_and_the_time_of_the_boot_are_read() {
    let wire = Wire::start().await;
    wire.says("Memory", &[msg(2, &[num(1, 4096), num(3, 1024), num(41, 1024), num(42, 3), num(45, 2048)])]);
    wire.says("SystemStat", &[num(2, 1_700_000_000)]);
    let memory = wire.talos.memory().await.unwrap();
    assert_eq!((memory.total, memory.available), (4096 * 1024, 1024 * 1024));
    assert_eq!((memory.huge_pages, memory.huge_pages_free, memory.huge_page_size), (1024, 3, 2048 * 1024));
    assert_eq!(wire.talos.boot_time().await.unwrap(), 1_700_000_000);
    let asked = wire.fake.asked();
    assert_eq!(asked.iter().map(|a| a.path.as_str()).collect::<Vec<_>>(), [machine("Memory"), machine("SystemStat")]);
    asked.iter().for_each(decent);
}

#[tokio::test]
async fn files_and_the_log_come_in_pieces() {
    let wire = Wire::start().await;
    wire.fake.on(&machine("Read"), Says::Ok(vec![raw(2, b"6f1c"), raw(2, b"-aa\n")]));
    wire.fake.on(&machine("Dmesg"), Says::Ok(vec![raw(2, b"kern: info: a\n"), raw(2, b"b\n")]));
    assert_eq!(wire.talos.boot_id().await.unwrap(), "6f1c-aa");
    assert_eq!(wire.talos.dmesg().await.unwrap(), "kern: info: a\nb\n");
    let asked = wire.fake.asked();
    assert_eq!(sent(&asked[0]), (machine("Read").as_str(), text(1, "/proc/sys/kernel/random/boot_id").as_slice()));
    assert_eq!(sent(&asked[1]), (machine("Dmesg").as_str(), [].as_slice()));
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_kubeconfig_is_unpacked_and_kept_as_a_secret() {
    let wire = Wire::start().await;
    let mut tar = vec![0_u8; 1024];
    tar[..10].copy_from_slice(b"kubeconfig");
    tar[124..135].copy_from_slice(b"00000000017");
    tar[156] = b'0';
    tar[512..527].copy_from_slice(b"kind: Config\n# ");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &tar).unwrap();
    let archive = gz.finish().unwrap();
    let (one, two) = archive.split_at(20);
    wire.fake.on(&machine("Kubeconfig"), Says::Ok(vec![raw(2, one), raw(2, two)]));
    wire.fake.on(&machine("Kubeconfig"), Says::Ok(vec![raw(2, one)]));
    let kubeconfig = wire.talos.kubeconfig().await.unwrap();
    assert_eq!(kubeconfig.expose(), "kind: Config\n# ");
    assert!(!format!("{kubeconfig:?}").contains("kind"));
    assert_eq!(sent(&wire.one()), (machine("Kubeconfig").as_str(), [].as_slice()));
    let error = wire.talos.kubeconfig().await.unwrap_err();
    assert!(matches!(error, Error::BadAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_dry_run_is_a_question_with_its_mode_set() {
    let modes = [(ApplyMode::Auto, 1), (ApplyMode::NoReboot, 2), (ApplyMode::Staged, 3), (ApplyMode::Reboot, 0)];
    for (mode, number) in modes {
        let wire = Wire::start().await;
        let details = "Dry run summary:\nNode is running in maintenance mode";
        wire.says("ApplyConfiguration", &[text(2, "deprecated"), num(3, 0), text(4, details)]);
        let would = wire.talos.dry_run("version: v1alpha1\n", mode).await.unwrap();
        assert_eq!(
            (would.reboots, would.details.as_str(), would.warnings.as_slice()),
            (true, details, &["deprecated".to_owned()][..])
        );
        let mode = if number == 0 { Vec::new() } else { num(4, number) };
        let message = [text(1, "version: v1alpha1\n"), mode, num(5, 1)].concat();
        assert_eq!(sent(&wire.one()), (machine("ApplyConfiguration").as_str(), message.as_slice()));
        assert!(wire.notebook.notes().is_empty());
    }
    assert_eq!(modes.len(), 4);
}

#[tokio::test]
async fn etcd_is_read() {
    let wire = Wire::start().await;
    let member = |id: u64, name: &str, learner: u64| {
        msg(
            3,
            &[
                num(2, id),
                text(3, name),
                text(4, "https://10.10.0.20:2380"),
                text(5, "https://10.10.0.20:2379"),
                num(6, learner),
            ],
        )
    };
    wire.says("EtcdMemberList", &[text(2, "legacy"), member(255, "talos-20", 0), member(u64::MAX, "", 1)]);
    let members = wire.talos.etcd_members(true).await.unwrap();
    let seen: Vec<_> = members.iter().map(|m| (m.hex(), m.name(), m.is_learner, m.is_unstarted())).collect();
    let (low, high) = ("00000000000000ff".to_owned(), "ffffffffffffffff".to_owned());
    assert_eq!(seen, [(low, "talos-20".to_owned(), false, false), (high.clone(), high, true, true)]);
    assert_eq!(sent(&wire.one()), (machine("EtcdMemberList").as_str(), num(1, 1).as_slice()));

    let status = [
        text(1, "3.6.4"),
        num(2, 1000),
        num(3, 400),
        num(4, 255),
        num(5, 90),
        num(6, 7),
        num(7, 88),
        text(8, "slow"),
        num(9, 0),
        num(10, 255),
        text(11, "3.6.0"),
    ];
    wire.says("EtcdStatus", &[msg(2, &status)]);
    let status = wire.talos.etcd_status().await.unwrap();
    assert!(status.leads() && !status.is_learner);
    assert_eq!(
        (status.size, status.size_in_use, status.raft_index, status.raft_term, status.raft_applied),
        (1000, 400, 90, 7, 88)
    );
    assert_eq!((status.version.as_str(), status.errors.len()), ("3.6.4", 1));

    let alarm = |kind: u64| msg(1, &[msg(2, &[num(1, 255), num(2, kind)])]);
    wire.fake.on(&machine("EtcdAlarmList"), Says::Ok(vec![[alarm(1), alarm(0), alarm(2), alarm(7)].concat()]));
    let alarms = wire.talos.etcd_alarms().await.unwrap();
    assert_eq!(
        alarms.iter().map(|a| (a.member, a.alarm.as_str())).collect::<Vec<_>>(),
        [(255, "NOSPACE"), (255, "CORRUPT"), (255, "alarm 7")]
    );
    let paths: Vec<_> = wire.fake.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["EtcdMemberList", "EtcdStatus", "EtcdAlarmList"].map(machine));
}

#[tokio::test]
async fn a_snapshot_is_kept_only_where_its_digest_is_right() {
    use sha2::{Digest, Sha256};
    let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    let digest = Sha256::digest(&data);
    let whole = [data.as_slice(), digest.as_slice()].concat();
    let dir = tempfile::tempdir().unwrap();
    // Cut anywhere: within the digest as well.
    let pieces = |bytes: &[u8], size: usize| bytes.chunks(size).map(|piece| raw(2, piece)).collect::<Vec<_>>();
    for (turn, size) in [400_032, 65_536, 400_010, 7_777].into_iter().enumerate() {
        let wire = Wire::start().await;
        wire.fake.on(&machine("EtcdSnapshot"), Says::Ok(pieces(&whole, size)));
        let path = dir.path().join(format!("good-{turn}"));
        // What is left of an earlier try lends the snapshot neither its content nor its mode.
        std::fs::write(path.with_extension("partial"), "older").unwrap();
        let snapshot = wire.talos.etcd_snapshot(&path).await.unwrap();
        assert_eq!(snapshot.size, 400_032);
        assert_eq!(snapshot.sha256, digest.iter().map(|b| format!("{b:02x}")).collect::<String>());
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(sent(&wire.one()), (machine("EtcdSnapshot").as_str(), [].as_slice()));
        // Nobody's older snapshot is lost for a newer one.
        let error = wire.talos.etcd_snapshot(&path).await.unwrap_err();
        assert!(matches!(&error, Error::File { .. }), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(!error.to_string().contains(&source), "{error}: {source}");
        assert_eq!((std::fs::read(&path).unwrap(), wire.fake.asked().len()), (whole.clone(), 1));
    }
    let mut flipped = whole.clone();
    flipped[5] ^= 1;
    let bad = [
        ("flipped", Says::Ok(pieces(&flipped, 65_536)), "digest"),
        ("short", Says::Ok(pieces(&whole[..399_000], 65_536)), "digest"),
        ("tiny", Says::Ok(pieces(&whole[..32], 65_536)), "cut short"),
        ("empty", Says::Ok(Vec::new()), "cut short"),
        ("broken", Says::Breaks(pieces(&whole, 65_536)), "no answer"),
        ("hangs", Says::Hangs(pieces(&whole, 65_536)), "within"),
    ];
    for (name, says, words) in bad.clone() {
        let wire = Wire::start().await;
        wire.fake.on(&machine("EtcdSnapshot"), says);
        let path = dir.path().join(name);
        let error = wire.talos.etcd_snapshot(&path).await.unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert!(!path.exists(), "{name}");
    }
    // Nothing half is left.
    assert_eq!((std::fs::read_dir(dir.path()).unwrap().count(), bad.len()), (4, 6));
}

#[tokio::test]
async fn events_are_read_by_their_types() {
    let wire = Wire::start().await;
    let event = |kind: &str, fields: &[Vec<u8>]| {
        [msg(2, &[text(1, &format!("talos/runtime/machine.{kind}")), msg(2, fields)]), text(3, "e1"), text(4, "actor")]
            .concat()
    };
    let events = vec![
        // The first one of a stream is empty.
        text(3, "hello"),
        event("SequenceEvent", &[text(1, "reboot"), num(2, 1)]),
        event("PhaseEvent", &[text(1, "cleanup"), num(2, 1)]),
        event("TaskEvent", &[text(1, "stopAllServices")]),
        event("ServiceStateEvent", &[text(1, "etcd"), num(2, 2), text(3, "waits")]),
        event("MachineStatusEvent", &[num(1, 4), msg(2, &[num(1, 1), msg(2, &[text(1, "time"), text(2, "unset")])])]),
        event("SequenceEvent", &[text(1, "upgrade"), msg(3, &[num(1, 1), text(2, "locked")])]),
        event("SequenceEvent", &[text(1, "boot"), num(2, 2), msg(3, &[text(2, "broken")])]),
        event("AddressEvent", &[text(1, "talos-20")]),
    ];
    wire.fake.on(&machine("Events"), Says::Ok(events));
    let mut stream = wire.talos.events(5, Some("actor")).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        assert_eq!((event.id.as_str(), event.actor.as_str()), ("e1", "actor"));
        seen.push(event.what);
    }
    let sequence = |name: &str, step: Step| Happening::Sequence { name: name.into(), step };
    let unmet = vec![("time".to_owned(), "unset".to_owned())];
    let wanted = [
        sequence("reboot", Step::Began),
        Happening::Phase { name: "cleanup".into(), ended: true },
        Happening::Task { name: "stopAllServices".into(), ended: false },
        Happening::Service { id: "etcd".into(), state: "WAITING".into(), message: "waits".into() },
        Happening::Status { stage: Stage::Running, ready: true, unmet },
        sequence("upgrade", Step::Locked("locked".into())),
        sequence("boot", Step::Failed("broken".into())),
        Happening::Other("machine.AddressEvent".into()),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(sent(&wire.one()), (machine("Events").as_str(), [num(1, 5), text(4, "actor")].concat().as_slice()));
}
