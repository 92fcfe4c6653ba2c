//! What is said, and what is not, where several rules meet and where something is not known.

use serde_json::Value;

use crate::base::survey::{Agent, Fact, Kubelet, Layer};

use super::super::*;
use super::estate::{self, at, members, seat_of, sound, there, vm_of};
use super::{cases, rules};

fn told(looked: &Looked) -> Vec<(&str, &str)> {
    looked.findings.iter().map(|finding| (finding.rule, finding.what.as_str())).collect()
}

#[test]
fn who_is_silenced_silences_nobody() {
    let mut survey = sound();
    cases::no_channel(&mut survey);
    assert_eq!(told(&look(&survey)), [("L04", "tvm")]);
    // The channel that is missing is another machine's: that this one is stuck is all the more to be told.
    vm_of(&mut survey, "tvm").smbios_uuid = Some("11111111-2222-3333-4444-555555555555".into());
    let said = look(&survey);
    assert_eq!(told(&said), [("L24", "tvm"), ("L34", "tvm")], "{said:#?}");
    let alone = each_rule(&survey);
    assert!(told(&alone).contains(&("L04", "tvm")), "{alone:#?}");
}

#[test]
fn a_member_is_to_be_removed_only_where_its_machine_is_known_to_be_away() {
    let stages: [(bool, Option<bool>, bool); 6] = [
        // Nothing answers, the kubelet is Ready; a member is removed.
        (true, Some(false), true),
        (true, Some(true), false),
        (true, None, false),
        (false, Some(false), false),
        (false, Some(true), false),
        (false, None, false),
    ];
    for (silent, ready, removed) in stages {
        let mut survey = sound();
        members(&mut survey, |all| all.iter_mut().filter(|m| m.id == "0c").for_each(|m| m.learner = true));
        let mac = at(&mut survey, "mac");
        (mac.talos, mac.etcd) = (Layer::unknown("no answer"), Layer::unknown("no answer"));
        mac.talos_silent = silent;
        match ready {
            Some(ready) => there(&mut mac.kubelet).ready = ready,
            None => mac.kubelet = Layer::unknown("no answer"),
        }
        let said = look(&survey);
        let learner = said.findings.iter().find(|finding| finding.rule == "L13").unwrap();
        assert_eq!(learner.help.contains("remove-member"), removed, "{silent} {ready:?}: {learner:?}");
    }
}

#[test]
fn a_member_may_be_a_node_whose_seat_is_not_known() {
    let mut survey = sound();
    members(&mut survey, |all| all.iter_mut().filter(|m| m.id == "0c").for_each(|m| m.name = "talos-9xq-2ab".into()));
    assert_eq!(look(&survey), Looked::default(), "its own id says who it is");
    let mut dark = survey.clone();
    at(&mut dark, "mac").etcd = Layer::unknown("no answer within 8 s");
    let said = look(&dark);
    assert_eq!(said.findings, []);
    let nobody: Vec<&Unlooked> = said.unlooked.iter().filter(|unlooked| unlooked.rule == "L15").collect();
    let [one] = nobody.as_slice() else { panic!("{said:#?}") };
    assert_eq!((one.what.as_str(), one.reason.as_str()), ("homelab", "no answer within 8 s"));
    // Where all seats are known it is nobody.
    seat_of(&mut survey, "mac").id = "0f".into();
    assert_eq!(told(&look(&survey)), [("L15", "homelab")]);
}

#[test]
fn an_agent_that_could_not_be_asked_is_said() {
    let why = || "not allowed: VM.GuestAgent.Audit".to_owned();
    let unknown = || Fact::Unknown { why: why() };
    let mut survey = sound();
    at(&mut survey, "k3s").agent = Layer::Known(Agent { channel: Fact::Yes, ping: unknown(), exec: unknown() });
    assert_eq!(at(&mut survey, "k3s").unknown(), [("agent", why().as_str(), None)]);
    let said = look(&survey);
    assert_eq!(said.findings, []);
    let wanted = Unlooked { rule: "L29", what: "k3s".into(), reason: why() };
    assert_eq!(said.unlooked, [wanted]);
    // Nothing else answers either: whether it hangs is not known.
    let k3s = at(&mut survey, "k3s");
    (k3s.guest, there(&mut k3s.kubelet).ready) = (Layer::Absent, false);
    let rules: Vec<_> = look(&survey).unlooked.into_iter().map(|unlooked| (unlooked.rule, unlooked.reason)).collect();
    assert_eq!(rules, [("L28", why()), ("L29", why())]);
    // Without a channel there is nobody to ask.
    let mut survey = sound();
    let no = Fact::No { why: "the VM's config has no `agent`".into() };
    at(&mut survey, "k3s").agent = Layer::Known(Agent { channel: no, ping: unknown(), exec: unknown() });
    assert_eq!(look(&survey).unlooked, []);
}

#[test]
fn a_kubelet_whose_machine_is_off_is_not_restarted() {
    let mut survey = sound();
    *there(&mut at(&mut survey, "tvm").kubelet) = Kubelet::default();
    let help = |survey: &Survey| {
        // Of a machine that is off that alone is told.
        let found = look(survey).findings.into_iter().find(|f| matches!(f.rule, "L27" | "L32"));
        found.map(|found| (found.what, found.help))
    };
    assert!(help(&survey).unwrap().1.contains("service kubelet restart"), "{:?}", help(&survey));
    let tvm = at(&mut survey, "tvm");
    there(&mut tvm.vm).power = "stopped".into();
    (tvm.talos, tvm.talos_silent) = (unknown_layer(), true);
    let (what, said) = help(&survey).unwrap();
    assert_eq!(what, "tvm");
    assert!(said.contains("`qm start 223`") && !said.contains("kubelet restart"), "{said}");
    // Whether it runs is not known: nothing is said of a start.
    at(&mut survey, "tvm").vm = unknown_layer();
    assert!(!help(&survey).unwrap().1.contains("qm start"), "{:?}", help(&survey));
}

#[test]
fn a_voter_that_is_away_is_told_with_what_is_left() {
    let mut survey = sound();
    let tvm = at(&mut survey, "tvm");
    there(&mut tvm.vm).power = "stopped".into();
    (tvm.talos, tvm.etcd, tvm.talos_silent) = (unknown_layer(), unknown_layer(), true);
    let said = look(&survey);
    assert_eq!(told(&said), [("L27", "tvm")], "{said:#?}");
    assert!(said.findings[0].text.ends_with("; etcd has 3 voters, 2 healthy, 2 needed: none to spare"), "{said:#?}");
    // Whether its VM runs is not known: nor is how it is in etcd.
    at(&mut survey, "tvm").vm = unknown_layer();
    let looked = look(&survey);
    assert!(!told(&looked).iter().any(|(rule, _)| *rule > "L36"), "{looked:#?}");
    assert!(looked.unlooked.iter().any(|unlooked| unlooked.rule == "L38" && unlooked.what == "tvm"), "{looked:#?}");
    // A worker that is off costs no vote.
    let mut survey = sound();
    there(&mut at(&mut survey, "k3s").vm).power = "stopped".into();
    assert!(look(&survey).findings.iter().all(|finding| !finding.text.contains("etcd")));
}

#[test]
fn without_a_majority_nothing_is_changed_for_less() {
    let mut survey = sound();
    estate::config_of(&mut survey, "nuc").install.disk = Some("/dev/sda".into());
    let helps = |survey: &Survey| -> Vec<(&'static str, bool)> {
        let all = look(survey).findings.into_iter();
        all.map(|f| (f.rule, f.help.starts_with("not before etcd has its majority again (L37): "))).collect()
    };
    assert_eq!(helps(&survey), [("L06", false)]);
    cases::leaderless(&mut survey);
    assert_eq!(helps(&survey), [("L37", false), ("L06", true)]);
    // What only looks, and what brings a machine back, is for now.
    there(&mut at(&mut survey, "tvm").agent).ping = Fact::No { why: "x".into() };
    let tvm = at(&mut survey, "tvm");
    (tvm.talos, tvm.etcd, tvm.talos_silent) = (unknown_layer(), unknown_layer(), true);
    there(&mut tvm.kubelet).ready = false;
    assert_eq!(helps(&survey), [("L37", false), ("L28", false), ("L06", true)]);
}

#[test]
fn no_rule_advises_to_destroy_what_may_be_the_last_copy() {
    let mut tried = 0;
    for rule in rules() {
        for (head, text) in rule.explain.lines() {
            for word in ["reset the node", "reset it", "bootstrap it", "wipe it"] {
                assert!(!text.to_lowercase().contains(word), "{} {head}: {text}", rule.number);
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 41 * 4 * 4);
    let two = rule("L40").unwrap().explain.by_hand;
    let at = |part: &str| two.find(part).unwrap_or_else(|| panic!("{part}: {two}"));
    assert!(at("Reset nothing yet") < at("snapshot") && at("snapshot") < at("Only then"), "{two}");
    let lost = rule("L37").unwrap().explain.by_hand;
    assert!(lost.contains("Never `talosctl bootstrap` and never `talosctl reset` by themselves"), "{lost}");
}

fn unknown_layer<T>() -> Layer<T> {
    Layer::unknown("no answer")
}

#[test]
fn commands_name_the_port_where_it_belongs() {
    let mut survey = sound();
    let mac = at(&mut survey, "mac");
    let cases = [
        ("192.168.4.49", None, "`talosctl -e 192.168.4.49 -n 192.168.4.49 version`"),
        ("192.168.4.49:50000", None, "`talosctl -e 192.168.4.49 -n 192.168.4.49 version`"),
        ("127.0.0.1:34303", Some("192.168.4.49"), "`talosctl -e 127.0.0.1:34303 -n 192.168.4.49 version`"),
        ("[fd00::49]:5443", None, "`talosctl -e '[fd00::49]:5443' -n fd00::49 version`"),
        ("https://mac.lan", None, "`talosctl -e mac.lan:443 -n mac.lan version`"),
    ];
    assert_eq!(cases.len(), 5);
    for (address, tls_name, wanted) in cases {
        (mac.address, mac.tls_name) = (Some(address.into()), tls_name.map(str::to_owned));
        assert_eq!(talosctl(mac, "version"), wanted);
    }
}

#[test]
fn a_volume_that_is_there_is_no_disk_that_cannot_be_told() {
    for expression in ["volume.partition_label == 'data'", "disk.serial == 'gone'", "!system_disk"] {
        let mut survey = sound();
        cases::existing(&mut survey, expression);
        assert_eq!(look(&survey), Looked::default(), "{expression}");
    }
    // The kernel's name of its disk moves all the same.
    let mut survey = sound();
    cases::existing(&mut survey, "disk.dev_path == '/dev/nvme1n1' && volume.name == 'xfs'");
    assert_eq!(told(&look(&survey)), [("L06", "nuc")]);
}

#[test]
fn for_how_long_a_kubelet_is_believed_is_said_alike() {
    let explained: Vec<&str> =
        rules().filter(|rule| rule.explain.wrong.contains("up to 50 s")).map(|r| r.number).collect();
    assert_eq!(explained, ["L27"]);
    let seconds = |text: &str| text.contains("40 s");
    assert!(!rules().any(|rule| rule.explain.lines().iter().any(|(_, text)| seconds(text))));
}

/// Every key of an object.
fn keys(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| keys(item, all)),
        Value::Object(fields) => fields.iter().for_each(|(key, item)| {
            all.push(key.clone());
            keys(item, all);
        }),
        _ => {}
    }
}

#[test]
fn the_keys_of_a_survey_are_in_one_style() {
    let mut all = Vec::new();
    keys(&serde_json::to_value(estate::sound()).unwrap(), &mut all);
    assert!(all.len() > 300 && all.iter().any(|key| key == "took-ms"), "{}", all.len());
    let other: Vec<&String> = all.iter().filter(|key| key.contains('_')).collect();
    assert!(other.is_empty(), "{other:?}");
}
