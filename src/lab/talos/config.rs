//! Machine configurations: what a node makes of the text.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::install::bytes;
use super::volumes::Wanted;

/// What follows from a machine configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// The node is one of the control plane.
    pub control_plane: bool,
    /// Kernel modules with their parameters.
    pub modules: BTreeMap<String, Vec<String>>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// The name that it gives the node; empty: none.
    pub hostname: String,
    /// Labels of its Node object.
    pub labels: BTreeMap<String, String>,
    /// Pods of anybody may run on a control plane.
    pub schedulable: bool,
    /// The certificate of the authority that it names for Talos's API, as it is written there.
    pub authority: String,
    /// The volumes that are to be on partitions of their own.
    pub volumes: Vec<Wanted>,
}

/// A machine configuration as its documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    main: Value,
    others: Vec<Value>,
}

/// Fields of the main document that take effect without a reboot, up to 1.13 (`CanApplyImmediate` in the v1alpha1
/// runtime of siderolabs/talos).
const IMMEDIATE: &[&str] = &[
    "ca",
    "acceptedCAs",
    "time",
    "certSANs",
    "install",
    "network",
    "sysfs",
    "sysctls",
    "logging",
    "controlPlane",
    "kubelet",
    "kernel",
    "registries",
    "pods",
    "seccompProfiles",
    "nodeAnnotations",
    "nodeLabels",
    "nodeTaints",
];

/// All fields of `machine`.
const MACHINE: &[&str] =
    &["type", "token", "features", "files", "env", "disks", "udev", "systemDiskEncryption", "baseRuntimeSpecOverrides"];

/// Kinds of documents, with the minor version that brought them.
const KINDS: &[(&str, u32)] = &[
    ("VolumeConfig", 8),
    ("ExtensionServiceConfig", 7),
    ("WatchdogTimerConfig", 7),
    ("TrustedRootsConfig", 7),
    ("KmsgLogConfig", 5),
    ("UserVolumeConfig", 10),
    ("EthernetConfig", 10),
    ("PCIDriverRebindConfig", 10),
    ("RawVolumeConfig", 11),
    ("ExistingVolumeConfig", 11),
    ("SwapVolumeConfig", 11),
    ("ZswapConfig", 11),
    ("HostnameConfig", 12),
    ("LinkConfig", 12),
    ("LinkAliasConfig", 12),
    ("DHCPv4Config", 12),
    ("DHCPv6Config", 12),
    ("VLANConfig", 12),
    ("BondConfig", 12),
    ("BridgeConfig", 12),
    ("ResolverConfig", 12),
    ("StaticHostConfig", 12),
    ("TimeSyncConfig", 12),
    ("Layer2VIPConfig", 12),
    ("OOMConfig", 12),
    ("EnvironmentConfig", 13),
    ("ExternalVolumeConfig", 13),
    ("KubeSpanConfig", 13),
    ("KernelModuleConfig", 14),
    ("SysctlConfig", 14),
    ("SysfsConfig", 14),
    ("UnattendedInstallConfig", 14),
    ("KubeClusterConfig", 14),
    ("KubeNodeConfig", 14),
    ("KubeletConfig", 14),
    ("KubeNetworkConfig", 14),
    ("KubeProxyConfig", 14),
];

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Config {
    /// Reads a configuration as a node of 1.`minor` does.
    ///
    /// # Errors
    /// What the node answers.
    pub fn read(bytes: &[u8], minor: u32) -> Result<Self, String> {
        let text_of = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(text_of).map_err(|e| format!("yaml: {e}"))?;
        let mut main = None;
        let mut others = Vec::new();
        for document in documents.into_iter().filter(|d| !d.is_null()) {
            let kind = text(&document, "/kind").to_owned();
            if kind.is_empty() {
                if main.replace(document).is_some() {
                    return Err("not a valid config: multiple v1alpha1 documents".into());
                }
                continue;
            }
            if !KINDS.iter().any(|(known, since)| *known == kind && *since <= minor) {
                return Err(format!("\"{kind}\" \"v1alpha1\": not registered"));
            }
            let name = text(&document, "/name").to_owned();
            if others.iter().any(|o| text(o, "/kind") == kind && text(o, "/name") == name) {
                return Err(format!("duplicate document: {kind}/{name}"));
            }
            others.push(document);
        }
        let main = main.ok_or(
            "the applied machine configuration doesn't contain v1alpha1 config, did you mean to patch the machine config \
             instead?",
        )?;
        Ok(Self { main, others })
    }

    /// Looks a configuration over: unknown fields, and what each must have.
    ///
    /// # Errors
    /// What the node answers.
    pub fn validate(&self) -> Result<(), String> {
        let machine = self.main.get("machine").and_then(Value::as_object);
        let unknown: Vec<&String> = machine
            .into_iter()
            .flat_map(serde_json::Map::keys)
            .filter(|key| !MACHINE.contains(&key.as_str()) && !IMMEDIATE.contains(&key.as_str()))
            .collect();
        let known = ["version", "debug", "persist", "machine", "cluster"];
        let top = self.main.as_object().into_iter().flat_map(serde_json::Map::keys);
        if let Some(key) = top.into_iter().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("unknown keys found during decoding:\n{key}: ...\n"));
        }
        if !unknown.is_empty() {
            let lines: String = unknown.iter().map(|key| format!("    {key}: ...\n")).collect();
            return Err(format!("unknown keys found during decoding:\nmachine:\n{lines}"));
        }
        let mut wrong = Vec::new();
        if self.main.get("machine").is_none() {
            wrong.push("machine instructions are required".to_owned());
        }
        if !matches!(text(&self.main, "/machine/type"), "controlplane" | "worker" | "init") {
            wrong.push(format!("unknown machine type: {}", text(&self.main, "/machine/type")));
        }
        if text(&self.main, "/cluster/controlPlane/endpoint").is_empty() {
            wrong.push("cluster controlplane endpoint is required".to_owned());
        }
        for (name, value) in self.main.pointer("/machine/sysctls").and_then(Value::as_object).into_iter().flatten() {
            if !value.is_string() {
                wrong.push(format!("machine.sysctls.{name}: not a string"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let list: String = wrong.iter().map(|w| format!("\t* {w}\n")).collect();
        let many = if wrong.len() == 1 { "error" } else { "errors" };
        Err(format!("{} {many} occurred:\n{list}\n", wrong.len()))
    }

    /// The disk that it is to be installed to, by its path.
    pub fn disk(&self) -> &str {
        text(&self.main, "/machine/install/disk")
    }

    /// The conditions for that disk; they come before its path.
    pub fn selector(&self) -> Option<&serde_json::Map<String, Value>> {
        self.main.pointer("/machine/install/diskSelector")?.as_object().filter(|selector| !selector.is_empty())
    }

    /// Whether it says where to install.
    pub fn names_a_disk(&self) -> bool {
        !self.disk().is_empty() || self.selector().is_some()
    }

    /// The installer's image.
    pub fn installer(&self) -> &str {
        text(&self.main, "/machine/install/image")
    }

    /// What follows from it.
    pub fn wants(&self) -> Wants {
        let main = &self.main;
        let mut wants =
            Wants { control_plane: matches!(text(main, "/machine/type"), "controlplane" | "init"), ..Wants::default() };
        let named = self.of_kind("HostnameConfig").map(|document| text(document, "/hostname"));
        let named = named.chain([text(main, "/machine/network/hostname")]).find(|name| !name.is_empty());
        named.unwrap_or_default().clone_into(&mut wants.hostname);
        let labels = main.pointer("/machine/nodeLabels").and_then(Value::as_object).into_iter().flatten();
        wants.labels =
            labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        wants.schedulable = main.pointer("/cluster/allowSchedulingOnControlPlanes").is_some_and(|yes| yes == true);
        text(main, "/machine/ca/crt").clone_into(&mut wants.authority);
        let listed = main.pointer("/machine/kernel/modules").and_then(Value::as_array).into_iter().flatten();
        for module in listed.chain(self.of_kind("KernelModuleConfig")) {
            let parameters = module.get("parameters").and_then(Value::as_array).into_iter().flatten();
            let parameters = parameters.filter_map(|p| p.as_str().map(str::to_owned)).collect();
            wants.modules.insert(text(module, "/name").to_owned(), parameters);
        }
        let old = main.pointer("/machine/sysctls").and_then(Value::as_object).into_iter().flatten();
        let new = self.of_kind("SysctlConfig").filter_map(|d| d.get("params")?.as_object()).flatten();
        for (name, value) in old.chain(new) {
            wants.sysctls.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
        }
        for (kind, before) in [("UserVolumeConfig", "u-"), ("RawVolumeConfig", "r-")] {
            let on_partition = |d: &&Value| matches!(text(d, "/volumeType"), "" | "partition");
            wants.volumes.extend(self.of_kind(kind).filter(on_partition).map(|document| {
                let filesystem = match (before, text(document, "/filesystem/type")) {
                    ("r-", _) => "",
                    (_, "") => "xfs",
                    (_, other) => other,
                };
                Wanted {
                    label: format!("{before}{}", text(document, "/name")),
                    on: text(document, "/provisioning/diskSelector/match").to_owned(),
                    filesystem: filesystem.to_owned(),
                    at_most: bytes(text(document, "/provisioning/maxSize")),
                }
            }));
        }
        wants
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.others.iter().filter(move |d| text(d, "/kind") == kind)
    }

    /// The fields that differ and take effect at the next boot only. Documents of their own take effect at once.
    pub fn waits_for_reboot(&self, active: &Self) -> Vec<String> {
        let empty = serde_json::Map::new();
        let machine = |c: &Self| c.main.get("machine").and_then(Value::as_object).cloned().unwrap_or_default();
        let (old, new) = (machine(active), machine(self));
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differ = |key: &&&String| old.get(key.as_str()) != new.get(key.as_str());
        let mut fields: Vec<String> = keys
            .iter()
            .filter(differ)
            .filter(|key| !IMMEDIATE.contains(&key.as_str()))
            .map(|key| format!("machine.{key}"))
            .collect();
        let top = |c: &Self| c.main.as_object().unwrap_or(&empty).get("persist").cloned();
        if top(active) != top(self) {
            fields.push("persist".into());
        }
        fields
    }
}

/// The difference of two texts, as a dry run shows it.
pub fn difference(old: &str, new: &str) -> String {
    if old == new {
        return "No changes.".into();
    }
    similar::TextDiff::from_lines(old, new).unified_diff().context_radius(3).header("a", "b").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "version: v1alpha1\nmachine:\n  type: controlplane\n  sysctls: {vm.nr_hugepages: \"1024\"}\n\
                         \x20 kernel: {modules: [{name: nvidia}]}\ncluster:\n  controlPlane: {endpoint: https://x:6443}\n";

    fn read(text: &str, minor: u32) -> Config {
        let config = Config::read(text.as_bytes(), minor).unwrap();
        config.validate().unwrap();
        config
    }

    #[test]
    fn modules_and_parameters_stand_in_either_form() {
        let old = read(PLAIN, 11).wants();
        assert!(old.control_plane && old.modules.contains_key("nvidia"));
        assert_eq!(old.sysctls["vm.nr_hugepages"], "1024");
        let new =
            format!("{PLAIN}---\napiVersion: v1alpha1\nkind: KernelModuleConfig\nname: nvme_tcp\nparameters: [a=1]\n");
        assert_eq!(read(&new, 14).wants().modules["nvme_tcp"], ["a=1"]);
        assert_eq!(Config::read(new.as_bytes(), 13), Err("\"KernelModuleConfig\" \"v1alpha1\": not registered".into()));
    }

    #[test]
    fn what_no_node_takes_is_refused() {
        let refused = |text: &str| Config::read(text.as_bytes(), 14).and_then(|c| c.validate()).unwrap_err();
        let cases = [
            (PLAIN.replace("  type: controlplane\n", "  tpye: controlplane\n"), "unknown keys found"),
            (PLAIN.replace("controlplane\n", "master\n"), "unknown machine type: master"),
            (PLAIN.replace("\"1024\"", "1024"), "not a string"),
            ("a: [".to_owned(), "yaml: "),
            ("apiVersion: v1alpha1\nkind: HostnameConfig\n".to_owned(), "doesn't contain v1alpha1 config"),
        ];
        assert_eq!(cases.len(), 5);
        for (text, part) in cases {
            let said = refused(&text);
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn some_fields_wait_for_a_reboot() {
        let active = read(PLAIN, 11);
        let other = read(&PLAIN.replace("nvidia", "nvme_tcp"), 11);
        assert_eq!(other.waits_for_reboot(&active), Vec::<String>::new());
        let env = read(&PLAIN.replace("machine:\n", "machine:\n  env: {a: b}\n"), 11);
        assert_eq!(env.waits_for_reboot(&active), ["machine.env"]);
        assert_eq!(difference("a\n", "a\n"), "No changes.");
        assert!(difference("a\n", "b\n").contains("-a\n+b"));
    }
}
