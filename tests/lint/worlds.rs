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
        help: "add a third control plane",
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

/// Nothing is installed, so little can be wrong yet: the VM is set up for the agent, which the plain image has not. What
/// cannot be asked is said.
#[tokio::test(flavor = "multi_thread")]
async fn of_machines_that_wait_for_their_first_configuration_little_is_known() {
    let looked = looked(changed("talos-fresh", |_| {}), &[]).await;
    assert_eq!(told(&looked), [("L29", "talos-vm")], "{looked:#?}");
    assert!(!looked.unlooked.is_empty());
}

/// What was lost of etcd is told by those that are left; of a dead node and of one that waits nothing is known.
#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_has_lost_is_told_by_those_that_are_left() {
    let (nuc, mac, vm, spare) = ("talos-nuc", "talos-mac", "talos-vm", "talos-mac2");
    let worlds = [
        ("talos-dead-node", vec![("L06", nuc), ("L32", spare)], [mac, spare]),
        ("talos-no-quorum", vec![("L06", nuc), ("L16", nuc), ("L25", nuc), ("L29", vm)], [mac, vm]),
        (
            "talos-deadlock",
            vec![("L06", mac), ("L06", nuc), ("L16", mac), ("L16", nuc), ("L25", mac), ("L25", nuc), ("L27", vm)],
            [vm, vm],
        ),
    ];
    assert_eq!(worlds.len(), 3);
    for (world, wanted, silent) in worlds {
        let looked = looked(changed(world, |_| {}), &[]).await;
        let mut found = told(&looked);
        found.sort_unstable();
        assert_eq!(found, wanted, "{world}: {looked:#?}");
        for node in silent {
            let named = |unlooked: &&lint::Unlooked| unlooked.what == node && unlooked.reason.contains(node);
            assert!(looked.unlooked.iter().any(|unlooked| named(&unlooked)), "{world}: {node}: {:#?}", looked.unlooked);
        }
        let kube = looked.unlooked.iter().any(|unlooked| unlooked.reason.starts_with("kubernetes `homelab`"));
        assert_eq!(kube, world != "talos-dead-node", "{world}");
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
