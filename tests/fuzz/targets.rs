//! What is fed to the readers of everything that comes from outside, and what must hold of their answers. One list: the
//! test beside this file runs it over its corpus, `fuzz/` over what libFuzzer makes of it.

use std::path::Path;

use pvemig::base::fault::{Effect, Failure, Fault};
use pvemig::base::hold::Mark;
use pvemig::base::names::{UsbId, UsbPort};
use pvemig::base::redact;
use pvemig::blueprint;
use pvemig::checkout::{Edit, Found, Path as ValuePath};
use pvemig::guest::known_hosts::{Recorded, Verdict};
use pvemig::guest::{Exit, Output, usb_devices};
use pvemig::k8s::{self, KubeError};
use pvemig::proxmox::{self, MapEntry, Pending, PendingRow, Props, Upid, UsbValue, usb_hotplugs, usb_slot};
use pvemig::site::{Site, SiteError};
use russh::keys::{PublicKey, parse_public_key_base64};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[path = "drives.rs"]
mod drives;
#[path = "laws.rs"]
mod laws;

use drives::{boot_entry, disk_expression, partition_table};
use laws::{events, journal_lines};

/// One reader: its name, what feeds it, and words that its inputs are made of.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub words: &'static [&'static str],
}

pub const TARGETS: &[Target] = &[
    Target {
        name: "site",
        run: site,
        words: &[
            "proxmox:",
            "auth:",
            "ticket:",
            "{ file: x }",
            "- ",
            "  ",
            ": ",
            "~/",
            "&a",
            "*a",
            "|",
            "nodes:",
            "[]",
        ],
    },
    Target { name: "config-line", run: config_line, words: CONFIG },
    Target { name: "pending", run: pending, words: &["\"key\"", "\"pending\"", "\"delete\"", "\"2\"", "null", "usb0"] },
    Target { name: "upid", run: upid, words: &["UPID:", ":", "0010C3F2", "root@pam", "!", "FFFFFFFFFFFFFFFFF"] },
    Target {
        name: "known-hosts",
        run: known_hosts,
        words: &["@revoked ", "@cert-authority ", "*", "!", "|1|", KEY, "\t"],
    },
    Target {
        name: "journal",
        run: journal_lines,
        words: &["\"is\":", "\"call\":", "applying", "\"key\":", "undone", "null"],
    },
    Target {
        name: "events",
        run: events,
        words: &["applied", "undoing", "\"call\":2", "failed", "04-add-usb", "closed"],
    },
    Target {
        name: "proxmox-answer",
        run: proxmox_answer,
        words: &["\"1\"", "null", "17.0", "-1", "1e999", "[]", "{}"],
    },
    Target { name: "proxmox-refusal", run: proxmox_refusal, words: REFUSALS },
    Target {
        name: "kubernetes-answer",
        run: kubernetes_answer,
        words: &["null", "\"\"", "[]", "{}", "-1", "1e99", "matchFields"],
    },
    Target {
        name: "kubernetes-refusal",
        run: kubernetes_refusal,
        words: &["\"Status\"", "\"code\":", "DisruptionBudget", "metadata.uid"],
    },
    Target { name: "mark", run: mark, words: &["\"run\":", "\"host\":", "\"was\":", "null", "{}", "\""] },
    Target {
        name: "manifest",
        run: manifest,
        words: &["---\n", "spec:", "  ", "# ", "|", "\"", "'", "preset-a", "&a", "*a", "{", "}"],
    },
    Target {
        name: "guest-output",
        run: guest_output,
        words: &["/sys/bus/usb/devices/", "idVendor:", "speed:", "2-1", "usb2"],
    },
    Target {
        name: "shown-text",
        run: shown_text,
        words: &["password", "=", ": ", "\"", "://", "@", "Bearer ", "-----BEGIN", "PRIVATE KEY-----"],
    },
    Target {
        name: "disk-expression",
        run: disk_expression,
        words: &[
            "disk.size",
            "disk.serial",
            " == ",
            " || ",
            "!",
            "(",
            ")",
            "1u * GiB",
            "\"",
            "\\",
            "glob(",
            ".exists(a, ",
        ],
    },
    Target {
        name: "partition-table",
        run: partition_table,
        words: &["EFI PART", "\u{5c}\0\0\0", "\u{2}\0", "\0\0\0\0"],
    },
    Target {
        name: "boot-entry",
        run: boot_entry,
        words: &["\u{4}\u{1}\u{2a}\0", "\u{1}\u{1}\u{6}\0", "\u{7f}\u{1}\u{4}\0", "\u{4}\u{4}\u{8}\0", "\0\0"],
    },
];

const CONFIG: &[&str] =
    &["host=", "mapping=", "usb3=1", ",", "=", "1a6e:089a", "2-1.4", "0x", "spice", "virtio=", "type=", "pc-q35-9.2"];
const REFUSALS: &[&str] = &[
    "\"message\":",
    "\"errors\":",
    "VM is locked (",
    "Permission check failed (",
    "hotplug problem",
    "Agent error: ",
    "got timeout",
    "cfs-lock '",
];

/// A public key that the known hosts are asked for.
const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Whatever the text of a site file says: it is a site, or a list of problems that each have a place and a help.
fn site(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let path = Path::new("/etc/pvemig/site.yaml");
    let home = Some("/home/me".into());
    let invalid = match Site::parse(text, path, home) {
        Ok(site) => {
            for (name, migration) in &site.migrations {
                let Some(blueprint) = blueprint::named(&migration.blueprint) else { continue };
                match blueprint.build(&site, name) {
                    Ok(steps) => {
                        for step in &steps {
                            let _shown = (step.title(), step.why());
                            // What goes into the journal is the same step again.
                            let fields = step.fields().unwrap();
                            let again = blueprint.rebuild(step.key().id(), &fields).unwrap();
                            assert_eq!(again.fields().unwrap(), fields);
                        }
                    }
                    Err(SiteError::Invalid(invalid)) => drop(problems(&invalid)),
                    Err(error) => panic!("{error}"),
                }
            }
            return;
        }
        Err(SiteError::Invalid(invalid)) => invalid,
        Err(error) => panic!("{error}"),
    };
    assert!(problems(&invalid) > 0);
}

fn problems(invalid: &pvemig::site::Invalid) -> usize {
    for problem in &invalid.problems {
        assert!(!problem.text.is_empty() && !problem.help.is_empty(), "{problem:?}");
    }
    for width in [0, 40, 80, 300] {
        let shown = invalid.render(width);
        assert_eq!(shown.matches("  --> /etc/pvemig/site.yaml").count(), invalid.problems.len(), "{shown}");
    }
    invalid.problems.len()
}

/// What is read is written as what is read again; keys that are not known stay.
fn config_line(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(props) = text.parse::<Props>() {
        let again: Props = props.to_string().parse().unwrap();
        assert_eq!(again, props);
        let with = props.clone().with("usb3", "1");
        assert_eq!(with.get("usb3"), Some("1"));
        let entry = MapEntry(props);
        let _parts = (entry.node().map(str::to_owned), entry.id(), entry.path());
    }
    if let Ok(value) = text.parse::<UsbValue>() {
        assert_eq!(value.to_string().parse::<UsbValue>().unwrap(), value);
    }
    if let Ok(id) = text.parse::<UsbId>() {
        assert_eq!(id.to_string().parse::<UsbId>().unwrap(), id);
    }
    if let Ok(port) = text.parse::<UsbPort>() {
        assert_eq!(port.to_string().parse::<UsbPort>().unwrap(), port);
    }
    let _slot = (usb_slot(text), usb_hotplugs(Some(text), Some("l26"), Some(text)));
}

fn pending(data: &[u8]) {
    let Ok(rows) = serde_json::from_slice::<Vec<PendingRow>>(data) else { return };
    let pending = Pending::of(rows, "d".into());
    assert!(pending.keys.keys().all(|key| key != "digest"));
    for (name, key) in &pending.keys {
        // Something to come is something that differs from nothing to come.
        assert_eq!(key.is_pending(), key.delete || key.pending.is_some());
        assert_eq!(pending.configured(name), key.configured());
        assert!(!key.delete || key.configured().is_none());
    }
}

fn upid(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(upid) = text.parse::<Upid>() {
        let shown = upid.to_string();
        assert_eq!(shown.parse::<Upid>().unwrap(), upid);
        assert!(shown.starts_with("UPID:") && shown.ends_with(':') && !shown.contains(char::is_whitespace));
    }
}

/// A key is known only where it stands in the file, on a line that is not its revocation.
fn known_hosts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let key: PublicKey = parse_public_key_base64(KEY).unwrap();
    let lines = text.lines().count();
    for (host, port) in [("pve", 22), ("127.0.0.1", 2222), ("FE80::1", 22)] {
        let recorded = Recorded::read(&text, host, port);
        let _remarks = (recorded.remarks(), recorded.algorithms(), recorded.only_unverifiable());
        match recorded.judge(&key) {
            Verdict::Known => {
                let named = |line: &&str| {
                    line.split_whitespace().any(|word| word == KEY) && !line.trim_start().starts_with(['#', '@'])
                };
                assert!(text.lines().any(|line| named(&line)), "{text}");
            }
            Verdict::Changed { line } | Verdict::Revoked { line } => {
                assert!((1..=lines).contains(&line), "{line} {text}")
            }
            Verdict::Unknown => {}
        }
    }
}

fn read<T: DeserializeOwned>(data: &[u8]) -> bool {
    serde_json::from_slice::<T>(data).is_ok()
}

fn proxmox_answer(data: &[u8]) {
    use pvemig::proxmox::*;
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let data = value.get("data").cloned().unwrap_or(value);
    let rows = data.as_array().cloned().unwrap_or_default();
    for value in rows.iter().chain([&data]) {
        let bytes = value.to_string().into_bytes();
        let _read = [
            read::<VmStatus>(&bytes),
            read::<Node>(&bytes),
            read::<Resource>(&bytes),
            read::<UsbMapping>(&bytes),
            read::<TaskRow>(&bytes),
            read::<TaskStatus>(&bytes),
            read::<LogLine>(&bytes),
            read::<Version>(&bytes),
            read::<HaResource>(&bytes),
        ];
        if let Ok(version) = serde_json::from_value::<Version>(value.clone()) {
            let _major = version.major();
        }
        if let Ok(mapping) = serde_json::from_value::<UsbMapping>(value.clone()) {
            for entry in &mapping.map {
                assert_eq!(entry.to_string().parse::<Props>().unwrap(), entry.0);
            }
        }
    }
}

/// The first two bytes are the status; a refusal names what it is about, and tells a lost change from a refused one.
fn proxmox_refusal(data: &[u8]) {
    let Some((head, body)) = data.split_at_checked(2) else { return };
    let status = 400 + u16::from_le_bytes([head[0], head[1]]) % 200;
    for changing in [false, true] {
        let error = proxmox::refused(status, body, changing);
        let shown = error.to_string();
        assert!(shown.contains("vm 108 on pve"), "{shown}");
        let effect = error.effect();
        assert!(changing || effect == Effect::None, "{shown}");
        // A proxy's silence says nothing about what became of a change.
        if changing && (595..=599).contains(&status) {
            assert_eq!(effect, Effect::Maybe, "{status} {shown}");
        }
        assert!(effect == Effect::None || !error.retryable(), "{shown}");
        let _said = (error.help(), Failure::from(error).to_string());
    }
}

fn kubernetes_answer(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    for value in items.iter().chain([&value]) {
        let meta = k8s::meta::Meta::of(value);
        let _named = meta.full_name();
        let node = k8s::Node::from_api(value.clone()).ok();
        if let Ok(pod) = k8s::Pod::from_api(value.clone()) {
            let _told = (pod.is_ready(), pod.trouble());
        }
        let claim = k8s::Claim::from_api(value.clone()).ok();
        if let (Ok(volume), Some(node)) = (k8s::Volume::from_api(value.clone()), node) {
            let placement = volume.placement_for(claim.as_ref(), &[node]);
            let _placed = (placement.serves("a"), placement.admits("a"));
        }
        let _budget = k8s::budget::Budget::from_api(value.clone());
        let resource = k8s::Resource {
            group: "apps".into(),
            version: "v1".into(),
            plural: "deployments".into(),
            kind: "Deployment".into(),
            namespaced: true,
            replicas_in_spec: true,
        };
        if let Ok(workload) = k8s::Workload::from_api(resource, value.clone()) {
            let _named = (workload.title(), workload.claims(3), workload.pod().is_ok());
        }
    }
}

fn kubernetes_refusal(data: &[u8]) {
    let Some((head, body)) = data.split_at_checked(2) else { return };
    let code = 400 + u16::from_le_bytes([head[0], head[1]]) % 200;
    let code = http::StatusCode::from_u16(code).unwrap();
    for changing in [false, true] {
        let call = k8s::Call { cluster: "k3s".into(), request: "PATCH nodes/a".into(), changing };
        let error = k8s::refused(call, code, &bytes::Bytes::copy_from_slice(body));
        let shown = error.to_string();
        assert!(shown.contains("kubernetes `k3s`: PATCH nodes/a"), "{shown}");
        assert!(changing || error.effect() == Effect::None, "{shown}");
        assert!(error.effect() == Effect::None || !error.retryable(), "{shown}");
        // "Not there" is believed from the API itself alone.
        let is_status =
            serde_json::from_slice::<Value>(body).is_ok_and(|v| v.get("kind").is_some_and(|k| k == "Status"));
        assert!(is_status || !matches!(error, KubeError::NotFound { .. }), "{shown}");
        let _said = (error.help(), Failure::from(error).to_string());
    }
}

fn mark(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match Mark::parse(text) {
        Ok(mark) => assert_eq!(Mark::parse(&mark.to_annotation()).unwrap(), mark),
        Err(why) => assert!(why.contains("pvemig.io/hold"), "{why}"),
    }
}

fn edit(set: &[(&str, Value)], remove: &[&str], replace: &[(&str, &str, &str)]) -> Edit {
    let path = |text: &&str| text.parse::<ValuePath>().unwrap();
    Edit {
        file: "a.yaml".into(),
        object: "Deployment/frigate".parse().unwrap(),
        set: set.iter().map(|(p, v)| (path(p), v.clone())).collect(),
        remove: remove.iter().map(path).collect(),
        replace: replace.iter().map(|(p, from, to)| (path(p), (*from).to_owned(), (*to).to_owned())).collect(),
    }
}

/// True where each line of `few` is in `many`, in the same order.
fn within<'a>(mut few: impl Iterator<Item = &'a str>, mut many: impl Iterator<Item = &'a str>) -> bool {
    few.all(|line| many.any(|other| other == line))
}

/// An edit leaves every other byte as it is, and once made is not made again.
fn manifest(data: &[u8]) {
    let Some(old) = text(data) else { return };
    let image = "spec.template.spec.containers[frigate].image";
    let edits = [
        edit(&[], &["spec.template.spec.runtimeClassName"], &[]),
        edit(&[], &[], &[("spec.template.spec.nodeName", "preset-a", "preset-b")]),
        edit(&[("spec.replicas", json!(7))], &[], &[]),
        edit(&[("spec.template.spec.nodeSelector", json!({"coral": "true"}))], &[], &[]),
        edit(&[(image, json!("new/image:1"))], &[], &[]),
    ];
    for edit in edits {
        let _found = edit.contained_in(old);
        let new = match edit.apply(old) {
            Ok(new) => new,
            Err(error) => {
                let shown = error.to_string();
                assert!(shown.contains("a.yaml"), "{shown}");
                assert_eq!(error.effect(), Effect::None);
                continue;
            }
        };
        assert_eq!(edit.contained_in(&new).unwrap(), Found::Already);
        assert_eq!(edit.apply(&new).unwrap(), new);
        if new == old {
            continue;
        }
        let is_comment = |line: &&str| line.trim_start().starts_with('#');
        let (before, after) = (old.lines(), new.lines());
        if !edit.replace.is_empty() {
            assert_eq!(before.clone().count(), after.clone().count(), "{old}\n=>\n{new}");
            for (a, b) in before.zip(after).filter(|(a, b)| a != b) {
                assert_eq!(a.replace("preset-a", "preset-b"), *b, "{old}\n=>\n{new}");
            }
        } else if edit.set.is_empty() {
            assert!(within(after, before), "{old}\n=>\n{new}");
        } else {
            // Comments are nobody's values: nothing that was not one is one now.
            assert!(within(after.filter(is_comment), before.filter(is_comment)), "{old}\n=>\n{new}");
        }
        // A last line without an end gets one where something is added behind it.
        assert!(!old.ends_with('\n') || new.ends_with('\n'), "{old:?} => {new:?}");
    }
}

fn guest_output(data: &[u8]) {
    let output = Output {
        exit: Exit::Status(0),
        stdout: String::from_utf8_lossy(data).into_owned(),
        stderr: String::new(),
        truncated: false,
    };
    let _end = output.summary();
    if let Ok(devices) = usb_devices(&output) {
        let ids = output.stdout.matches("idVendor").count();
        assert!(devices.len() <= ids, "{devices:?}");
    }
}

/// Twice is the same as once, and nothing is added but the sign for what was taken out.
fn shown_text(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let once = redact::text(text);
    assert_eq!(redact::text(&once), once, "{text:?}");
    let mut rest = text;
    for part in once.split('…') {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} of {once:?} is not in {text:?}"));
        rest = &rest[at + part.len()..];
    }
}
