//! The worlds of one incident each: which rules speak in them beside those of the world that they extend, and in which
//! words.

use super::*;

/// A world, the rule that speaks there and of what, parts of its text, and a part of its way out.
struct Incident {
    world: &'static str,
    rule: (&'static str, &'static str),
    text: &'static [&'static str],
    help: &'static str,
}

const INCIDENTS: &[Incident] = &[
    Incident {
        world: "talos-three-agent",
        rule: ("L04", "talos-vm"),
        text: &["`ext-qemu-guest-agent` is Waiting"],
        help: "on pve: `qm set 223 --agent 1 && qm reboot 223` (it reboots the node: see that etcd can spare it)",
    },
    Incident { world: "talos-three-boot-order", rule: ("L30", "talos-vm"), text: &["boot"], help: "qm" },
    Incident {
        world: "talos-three-two-voters",
        rule: ("L12", "homelab"),
        text: &["`talos-nuc` and `talos-vm` are its only voters: the Kubernetes API stops with the reboot of either"],
        help: "a third control plane gives it one to spare",
    },
    Incident {
        world: "talos-three-learner",
        rule: ("L13", "talos-mac"),
        text: &["is a learner and has no vote; there are 2 voters beside it"],
        help: "logs etcd`",
    },
    Incident {
        world: "talos-three-alarm",
        rule: ("L14", "talos-vm"),
        text: &["has the alarm NOSPACE: it takes no more writes"],
        help: "etcd defrag`, on the other members too, then `",
    },
    Incident {
        world: "talos-three-equal-serials",
        rule: ("L10", "talos-vm"),
        text: &["`sda` and `sdb` have the same serial number talos-vm-root"],
        help: "then give each line a `serial=` of its own",
    },
    Incident {
        world: "talos-three-hugepages",
        rule: ("L20", "talos-nuc"),
        text: &["asks for 1024 huge pages of 2 MiB, and pods can have 512 MiB", "the kernel could make 256 of them"],
        help: "reboot`",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn each_incident_is_told_by_its_rule() {
    for Incident { world, rule, text, help } in INCIDENTS {
        let looked = looked(changed(world, |_| {}), &[]).await;
        let mut wanted = [&NAMES[..], &[*rule]].concat();
        wanted.sort_unstable();
        let mut found = told(&looked);
        // What is wrong with the cluster stands above what is wrong with some of its nodes.
        assert!(rule.1 != "homelab" || found.first() == Some(rule), "{world}: {found:?}");
        found.sort_unstable();
        assert_eq!(found, wanted, "{world}: {looked:#?}");
        assert_eq!(looked.unlooked, [], "{world}");
        let finding = only(&looked, rule.0);
        for part in *text {
            assert!(finding.text.contains(part), "{world}: {part}: {finding:?}");
        }
        assert!(finding.help.contains(help), "{world}: {finding:?}");
    }
    assert_eq!(INCIDENTS.len(), 7);
}

/// No rule of its own: the disk that is named by what moves has moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_stick_at_boot_makes_the_configured_disk_another_one() {
    let looked = looked(changed("talos-three-stick", |_| {}), &[]).await;
    assert_eq!(told(&looked), NAMES, "{looked:#?}");
    let text = &only_of(&looked, "talos-mac").text;
    assert!(text.contains("now it is sda (Ultra Fit") && text.contains("it runs from sdb (APPLE SSD"), "{text}");
}

/// What a firmware will boot is told by no API: a power cycle shows it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_firmware_will_boot_nobody_tells() {
    for (world, stick) in [("talos-three-stick-boots", "Ultra Fit"), ("talos-three-old-disk", "PSSD T7")] {
        let looked = looked(changed(world, |_| {}), &[]).await;
        assert_eq!(told(&looked), NAMES, "{world}: {looked:#?}");
        let text = &only_of(&looked, "talos-mac").text;
        assert!(text.contains("now it is sda (APPLE SSD") && !text.contains(stick), "{text}");
    }
}

/// Nothing is installed, so nothing can be wrong yet: what there is of Kubernetes cannot be asked, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn of_machines_that_wait_for_their_first_configuration_nothing_is_found() {
    let looked = looked(changed("talos-fresh", |_| {}), &[]).await;
    assert_eq!(told(&looked), [], "{looked:#?}");
    let blind: Vec<&str> = looked.unlooked.iter().map(|unlooked| unlooked.rule).collect();
    assert_eq!(blind, ["L17", "L18", "L31"], "{looked:#?}");
}

/// What was lost of etcd is told by those that are left, the gravest first.
#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_has_lost_is_told_by_those_that_are_left() {
    let (nuc, mac, vm, all) = ("talos-nuc", "talos-mac", "talos-vm", "homelab");
    let worlds = [
        (
            "talos-dead-node",
            vec![("L39", mac), ("L06", nuc)],
            vec![mac],
            &["dead, nothing heard of it for ", "still counts: 3 voters, 2 healthy, 2 needed: none to spare"][..],
            "where it is gone for good, write a migration of the blueprint node-replace",
        ),
        (
            "talos-no-quorum",
            vec![("L37", all), ("L06", nuc)],
            vec![],
            &["1 of 2 or 3 voters answers, 2 needed", "talos-mac (its machine waits for a configuration)"],
            "write a migration of the blueprint quorum-recover",
        ),
        (
            "talos-deadlock",
            vec![("L37", all), ("L27", vm), ("L06", mac), ("L06", nuc)],
            vec![vm],
            &[
                "1 of 2 voters answers, 2 needed",
                "there: talos-mac (a learner), talos-nuc; not there: talos-vm (its VM is off)",
            ],
            "loses nothing: on pve: `qm start 223` (talos-vm); where it is gone for good, write a migration of the blueprint \
             quorum-recover",
        ),
    ];
    assert_eq!(worlds.len(), 3);
    for (world, wanted, silent, text, help) in worlds {
        let looked = looked(changed(world, |_| {}), &[]).await;
        assert_eq!(told(&looked), wanted, "{world}: {looked:#?}");
        let first = &looked.findings[0];
        assert!(text.iter().all(|part| first.text.contains(part)) && first.help.contains(help), "{world}: {first:#?}");
        for node in silent {
            let named = |unlooked: &&lint::Unlooked| unlooked.what == node && unlooked.reason.contains(node);
            assert!(looked.unlooked.iter().any(|unlooked| named(&unlooked)), "{world}: {node}: {:#?}", looked.unlooked);
        }
        let kube = looked.unlooked.iter().any(|unlooked| unlooked.reason.starts_with("kubernetes `homelab`"));
        assert_eq!(kube, world != "talos-dead-node", "{world}");
        // A node with the only data is not touched for anything less.
        let later =
            looked.findings.iter().filter(|finding| finding.help.starts_with("not before etcd has its majority"));
        assert_eq!(later.count(), looked.findings.iter().filter(|f| f.rule == "L06" && kube).count(), "{looked:#?}");
    }
}

/// Machines that lie ready and are off are no nodes yet; nothing else is wrong there.
#[tokio::test(flavor = "multi_thread")]
async fn machines_that_are_to_come_are_no_nodes_yet() {
    let looked = looked(changed("talos-replace", |_| {}), &[]).await;
    let found = told(&looked);
    assert!(found.contains(&("L06", "talos-worker")), "{found:?}");
    let others: Vec<_> = found.iter().filter(|(rule, node)| *rule != "L06" && !node.ends_with('2')).collect();
    assert_eq!(others, Vec::<&(&str, &str)>::new());
}

fn only_of<'l>(looked: &'l Looked, what: &str) -> &'l Finding {
    let found: Vec<&Finding> = looked.findings.iter().filter(|finding| finding.what == what).collect();
    let [one] = found.as_slice() else { panic!("{:#?}", looked.findings) };
    one
}

#[test]
fn every_world_of_talos_is_looked_at() {
    let here = include_str!("worlds.rs").to_owned() + include_str!("mod.rs");
    let worlds: Vec<&str> =
        lab::names().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("talos-")).collect();
    let missing: Vec<_> = worlds.iter().filter(|name| !here.contains(&format!("\"{name}\""))).collect();
    assert_eq!((worlds.len(), missing), (18, Vec::new()));
}
