mod generated;
mod masked;
mod written;

use serde_json::{Value, json};

use super::*;
use crate::base::check::Symbol;
use crate::base::yaml;

/// The form of 1.11, and of every cluster that was made with it.
const OLD: &str = r#"version: v1alpha1 # Indicates the schema used to decode the contents.
machine:
    type: controlplane
    # The modules of this node.
    kernel:
        modules:
            - name: nvme_tcp # Mayastor
            - name: zfs
              parameters:
                - zfs_arc_max=1
    install:
        disk: /dev/sda
        image: ghcr.io/siderolabs/installer:v1.11.5
    network:
        hostname: talos-20
        interfaces:
            - interface: eth0
              addresses: [10.10.0.20/24]
              mtu: 9000
            - deviceSelector: {hardwareAddr: "52:54:00:10:11:11"}
              addresses:
                - 10.11.0.20/24
    sysctls: {vm.nr_hugepages: "1024"}
    kubelet:
        extraMounts:
            - destination: /var/local
              type: bind
              source: /var/local
              options: [bind]
cluster:
    controlPlane:
        endpoint: https://10.10.0.10:6443
"#;

/// What `gen config` of 1.14 makes, in short.
const NEW: &str = r#"version: v1alpha1
machine:
  type: worker
cluster:
  token: abc
---
apiVersion: v1alpha1
kind: HostnameConfig
auto: stable # by its serial number
---
apiVersion: v1alpha1
kind: LinkConfig
name: enp0s1
addresses:
  - address: 10.10.0.21/24
    routePriority: 5
---
apiVersion: v1alpha1
kind: UnattendedInstallConfig
installer:
  image: factory.talos.dev/metal-installer/x:v1.14.0
provisioning:
  diskSelector:
    match: system_disk
"#;

fn module(name: &str, parameters: Option<&[&str]>) -> Patch {
    let parameters = parameters.map(|all| all.iter().map(ToString::to_string).collect());
    Patch::KernelModule { name: name.into(), parameters }
}

fn sysctl(name: &str, value: &str) -> Patch {
    Patch::Sysctl { name: name.into(), value: value.into() }
}

fn label(name: &str, value: &str) -> Patch {
    Patch::NodeLabel { name: name.into(), value: value.into() }
}

fn addresses(link: &str, all: &[&str]) -> Patch {
    Patch::Addresses { link: link.into(), addresses: all.iter().map(ToString::to_string).collect() }
}

fn volume(name: &str, disk: &str) -> Patch {
    let (name, disk) = (name.into(), disk.into());
    Patch::UserVolume { name, disk, min_size: None, max_size: None, grow: None }
}

fn mount(destination: &str, source: &str, options: &[&str]) -> Patch {
    let options = options.iter().map(ToString::to_string).collect();
    Patch::KubeletMount { destination: destination.into(), source: source.into(), options }
}

/// Lines gone and come, without their indentation.
fn lines(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let diff = similar::TextDiff::from_lines(old, new);
    let of = |tag| {
        let lines = diff.iter_all_changes().filter(move |change| change.tag() == tag);
        lines.map(|change| change.value().trim().to_owned()).collect()
    };
    (of(similar::ChangeTag::Delete), of(similar::ChangeTag::Insert))
}

/// Patches, and once more: that changes nothing.
fn patched(text: &str, patches: &[Patch]) -> Patched {
    let once = patch(text, patches).unwrap();
    let twice = patch(&once.text, patches).unwrap();
    assert!(twice.same && twice.changes.is_empty() && twice.text == once.text, "{twice:?}\n{}", once.text);
    assert_eq!(once.same, once.text == text);
    once
}

/// Lines gone and come.
fn differs(text: &str, patches: &[Patch]) -> (Vec<String>, Vec<String>) {
    lines(text, &patched(text, patches).text)
}

fn some(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn each_thing_goes_where_the_old_form_has_it() {
    let cases: Vec<(Patch, &[&str], &[&str])> = vec![
        (module("nvidia", None), &[], &["- name: nvidia"]),
        (module("nvme-tcp", None), &[], &[]),
        (module("zfs", None), &[], &[]),
        (module("zfs", Some(&["zfs_arc_max=1"])), &[], &[]),
        (module("zfs", Some(&["a=2"])), &["- zfs_arc_max=1"], &["- a=2"]),
        (module("zfs", Some(&[])), &["parameters:", "- zfs_arc_max=1"], &[]),
        (sysctl("vm.nr_hugepages", "1024"), &[], &[]),
        (
            sysctl("vm.nr_hugepages", "2048"),
            &["sysctls: {vm.nr_hugepages: \"1024\"}"],
            &["sysctls: {vm.nr_hugepages: '2048'}"],
        ),
        (label("openebs.io/engine", "mayastor"), &[], &["nodeLabels:", "openebs.io/engine: mayastor"]),
        (
            Patch::InstallImage("factory.talos.dev/x:v1.11.5".into()),
            &["image: ghcr.io/siderolabs/installer:v1.11.5"],
            &["image: factory.talos.dev/x:v1.11.5"],
        ),
        (Patch::InstallDisk(InstallDisk::Path("/dev/sda".into())), &[], &[]),
        (Patch::InstallDisk(InstallDisk::Serial("S1".into())), &["disk: /dev/sda"], &["diskSelector:", "serial: S1"]),
        (Patch::Hostname("talos-21".into()), &["hostname: talos-20"], &["hostname: talos-21"]),
        (addresses("eth0", &["10.10.0.21/24"]), &["addresses: [10.10.0.20/24]"], &["addresses: [10.10.0.21/24]"]),
        (addresses("52:54:00:10:11:11", &["10.11.0.21/24"]), &["- 10.11.0.20/24"], &["- 10.11.0.21/24"]),
        (addresses("eth1", &["10.12.0.1/24"]), &[], &["- interface: eth1", "addresses:", "- 10.12.0.1/24"]),
        (mount("/var/local", "/var/local", &["bind"]), &[], &[]),
        (mount("/var/local", "/var/local", &["bind", "rw"]), &["options: [bind]"], &["options: [bind, rw]"]),
        (
            volume("data", "disk.serial == \"S2\""),
            &[],
            &[
                "---",
                "apiVersion: v1alpha1",
                "kind: UserVolumeConfig",
                "name: data",
                "provisioning:",
                "diskSelector:",
                "match: 'disk.serial == \"S2\"'",
            ],
        ),
    ];
    assert_eq!(cases.len(), 19);
    for (patch, gone, come) in &cases {
        assert_eq!(differs(OLD, std::slice::from_ref(patch)), (some(gone), some(come)), "{patch:?}");
    }
    let all: Vec<Patch> = cases
        .iter()
        .map(|(patch, ..)| patch.clone())
        .filter(|p| !matches!(p, Patch::KernelModule { name, parameters: Some(_) } if name == "zfs"))
        .collect();
    let after = patch(OLD, &all).unwrap();
    assert!(after.text.starts_with("version: v1alpha1 # Indicates the schema used to decode the contents.\n"));
    assert!(
        after.text.contains("# The modules of this node.\n") && after.text.contains("- name: nvme_tcp # Mayastor\n")
    );
}

#[test]
fn each_thing_goes_into_a_document_where_the_new_form_has_them() {
    let cases: Vec<(Patch, &[&str], &[&str])> = vec![
        (
            module("nvidia", Some(&["a=1"])),
            &[],
            &["---", "apiVersion: v1alpha1", "kind: KernelModuleConfig", "name: nvidia", "parameters:", "- a=1"],
        ),
        (
            sysctl("vm.nr_hugepages", "1024"),
            &[],
            &["---", "apiVersion: v1alpha1", "kind: SysctlConfig", "params:", "vm.nr_hugepages: '1024'"],
        ),
        (
            label("a.b/c", "true"),
            &[],
            &["---", "apiVersion: v1alpha1", "kind: KubeNodeConfig", "labels:", "a.b/c: 'true'"],
        ),
        (Patch::Hostname("talos-21".into()), &["auto: stable # by its serial number"], &["hostname: talos-21"]),
        (addresses("enp0s1", &["10.10.0.22/24", "10.10.0.21/24"]), &[], &["- address: 10.10.0.22/24"]),
        (
            addresses("enp0s1", &["10.10.0.22/24"]),
            &["- address: 10.10.0.21/24", "routePriority: 5"],
            &["- address: 10.10.0.22/24"],
        ),
        (
            Patch::InstallImage("factory.talos.dev/metal-installer/y:v1.14.0".into()),
            &["image: factory.talos.dev/metal-installer/x:v1.14.0"],
            &["image: factory.talos.dev/metal-installer/y:v1.14.0"],
        ),
        (
            Patch::InstallDisk(InstallDisk::Serial("S1".into())),
            &["match: system_disk"],
            &["match: 'disk.serial == \"S1\"'"],
        ),
        (
            Patch::InstallDisk(InstallDisk::Match("disk.serial == \"A\" || disk.serial == \"B\"".into())),
            &["match: system_disk"],
            &["match: 'disk.serial == \"A\" || disk.serial == \"B\"'"],
        ),
    ];
    assert_eq!(cases.len(), 9);
    for (patch, gone, come) in &cases {
        assert_eq!(differs(NEW, std::slice::from_ref(patch)), (some(gone), some(come)), "{patch:?}");
    }
    // Two modules are two documents, two parameters are in one.
    let both = patched(NEW, &[module("a", None), module("b", None), sysctl("x.y", "1"), sysctl("x.z", "2")]).text;
    let kinds: Vec<String> = yaml::documents(&both).unwrap().iter().map(|d| d["kind"].to_string()).collect();
    let count = |kind: &str| kinds.iter().filter(|found| found.contains(kind)).count();
    assert_eq!((count("KernelModuleConfig"), count("SysctlConfig")), (2, 1));
}

#[test]
fn the_form_is_that_of_the_configuration() {
    let minimal = "version: v1alpha1\nmachine: {type: worker}\n";
    let with = |kind: &str| format!("{minimal}---\napiVersion: v1alpha1\nkind: {kind}\n");
    let own = |text: &str, patch: Patch| yaml::documents(&patched(text, &[patch]).text).unwrap().len();
    // Documents of 1.12 are no sign that the node knows those of 1.14.
    let cases = [
        (minimal.to_owned(), [1, 1, 1]),
        (with("UserVolumeConfig"), [2, 2, 2]),
        (with("LinkConfig"), [2, 2, 3]),
        (with("EnvironmentConfig"), [2, 2, 3]),
        (with("KubeProxyConfig"), [3, 3, 3]),
    ];
    for (text, wanted) in &cases {
        let found =
            [own(text, module("nvidia", None)), own(text, sysctl("a.b", "1")), own(text, Patch::Hostname("n".into()))];
        assert_eq!(&found, wanted, "{text}");
    }
    assert_eq!(cases.len(), 5);
    // An upgraded cluster: what is old stays old, beside documents.
    let upgraded = format!("{OLD}---\napiVersion: v1alpha1\nkind: KubeProxyConfig\n");
    assert_eq!(own(&upgraded, module("nvidia", None)), 2);
    // Where both forms are there, the thing itself is changed where it is.
    let both = format!("{OLD}---\napiVersion: v1alpha1\nkind: SysctlConfig\nparams:\n  a.b: \"1\"\n");
    assert_eq!(differs(&both, &[sysctl("vm.nr_hugepages", "2")]).0, ["sysctls: {vm.nr_hugepages: \"1024\"}"]);
    assert_eq!(differs(&both, &[sysctl("a.b", "2")]), (some(&["a.b: \"1\""]), some(&["a.b: '2'"])));
    let stable = minimal.replace("{type: worker}", "{type: worker, features: {stableHostname: true}}");
    let stable = format!("{stable}---\napiVersion: v1alpha1\nkind: LinkConfig\nname: eth0\n");
    assert_eq!(own(&stable, Patch::Hostname("n".into())), 2);
}

#[test]
fn changes_are_lines_with_names_and_values() {
    let text = OLD.replace(
        "            - name: zfs\n",
        "            - name: zfs\n            - name: nvidia\n            - name: nvidia\n",
    );
    let after = patched(
        &text,
        &[
            module("nvidia", Some(&["a=1"])),
            Patch::InstallDisk(InstallDisk::Serial("S1".into())),
            sysctl("vm.nr_hugepages", "2048"),
            label("example.com/token", "not-to-be-seen"),
        ],
    );
    let line = |change: &Change| {
        let symbol = match change.symbol {
            Symbol::Add => '+',
            Symbol::Remove => '-',
            Symbol::Change | Symbol::Act => '~',
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        format!("{symbol} {} {} > {}", change.what, text(&change.from), text(&change.to))
    };
    let lines: Vec<String> = after.changes.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            // One that is there twice is the same twice; a parameter may be a key.
            "+ machine.kernel.modules[2].parameters  > [\"…\"]",
            "~ machine.kernel.modules[3].parameters [\"…\"] > [\"…\"]",
            "+ machine.install.diskSelector  > {\"serial\":\"S1\"}",
            "- machine.install.disk /dev/sda > ",
            "~ machine.sysctls[vm.nr_hugepages] 1024 > 2048",
            "+ machine.nodeLabels[example.com/token]  > …",
        ]
    );
    assert!(!format!("{after:?}").contains("controlplane"));
    let document = patched(NEW, &[module("nvidia", None)]);
    assert_eq!(document.changes.len(), 1);
    assert_eq!(line(&document.changes[0]), "+ KernelModuleConfig name  > nvidia");
}

#[test]
fn what_cannot_be_done_is_refused_with_its_place() {
    let twice = OLD.replace("- deviceSelector: {hardwareAddr: \"52:54:00:10:11:11\"}", "- interface: eth0");
    let alias = "version: v1alpha1\nx: &m\n  - name: a\nmachine:\n  kernel:\n    modules: *m\n";
    let cases = [
        ("a: [", module("x", None), "cannot be read as YAML: see line"),
        ("- a\n", module("x", None), "document 1 is no mapping"),
        ("kind: A\nname: x\n", module("x", None), "the v1alpha1 document is not in it"),
        ("a: 1\n---\nb: 1\n", module("x", None), "2 documents in it have no kind"),
        ("a: 1\n---\nkind: K\nname: it\n---\nkind: K\nname: it\n", module("x", None), "document K `it` is there twice"),
        (
            alias,
            module("b", None),
            "`machine.kernel.modules[1]` (line 6) cannot be edited: it would be inside an alias",
        ),
        (
            "machine:\n  sysctls: 5\n",
            sysctl("a", "b"),
            "`machine.sysctls.a` (line 2) cannot be edited: it would be inside",
        ),
        (
            "machine:\n  kernel:\n    modules: {}\n",
            module("b", None),
            "`machine.kernel.modules` (line 3) cannot be edited: it is no list",
        ),
        (&twice, addresses("eth0", &[]), "`machine.network.interfaces` (line 17) is something else already: 2 entries"),
        (OLD, mount("/var/local", "/var/other", &[]), "`machine.kubelet.extraMounts[0]` (line 26) is something else"),
        (
            OLD,
            Patch::InstallDisk(InstallDisk::Match("true".into())),
            "`machine.install.diskSelector` (line 12) cannot hold",
        ),
        (NEW, addresses("52:54:00:10:11:12", &["10.0.0.1/24"]), "`machine.network.interfaces` (line 3) cannot hold it"),
    ];
    assert_eq!(cases.len(), 12);
    for (text, wanted, words) in cases {
        let error = patch(text, &[wanted]).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.help().is_some() && error.effect() == Effect::None && !error.retryable());
    }
    // The other way: an anchor that is not in the way is no hindrance.
    let fine = "version: v1alpha1\nx: &m {a: b}\ny: *m\nmachine: {type: worker}\n";
    let after = patched(fine, &[sysctl("a.b", "1")]);
    assert!(after.text.starts_with("version: v1alpha1\nx: &m {a: b}\ny: *m\nmachine: {"), "{}", after.text);
}

#[test]
fn a_patch_is_written_down_as_it_is_read() {
    let all = vec![
        module("nvidia", Some(&["a=1"])),
        Patch::InstallImage("x".into()),
        Patch::InstallDisk(InstallDisk::Wwid("w".into())),
        volume("data", "true"),
    ];
    let text = serde_json::to_string(&all).unwrap();
    assert!(text.contains(r#"{"kernel-module":{"name":"nvidia","parameters":["a=1"]}}"#), "{text}");
    assert_eq!(serde_json::from_str::<Vec<Patch>>(&text).unwrap(), all);
    let unknown = serde_json::from_str::<Patch>(r#"{"sysctl":{"name":"a","value":"b","more":1}}"#);
    assert!(unknown.is_err());
}

#[test]
fn a_value_that_looks_like_a_number_stays_a_text() {
    for value in
        ["1024", "0", "true", "no", "0x10", "1e3", "~", "", " a ", "a: b", "# x", "1_000", "0o17", "012", "a\tb"]
    {
        let after = patched(OLD, &[sysctl("a.b", value)]).text;
        assert_eq!(yaml::documents(&after).unwrap()[0]["machine"]["sysctls"]["a.b"], Value::from(value));
    }
}
