//! Where each thing goes.

use serde_json::{Value, json};

use crate::base::yaml::path::Part;

use super::draft::{Draft, keys, under};
use super::{InstallDisk, Patch, PatchError};

/// Kinds of documents that came with 1.12, 1.13 and 1.14: a configuration that has one of them is no older.
const SINCE_12: &[&str] = &[
    "BondConfig",
    "BridgeConfig",
    "DHCPv4Config",
    "DHCPv6Config",
    "DummyLinkConfig",
    "HCloudVIPConfig",
    "HostnameConfig",
    "Layer2VIPConfig",
    "LinkAliasConfig",
    "LinkConfig",
    "OOMConfig",
    "RegistryAuthConfig",
    "RegistryMirrorConfig",
    "RegistryTLSConfig",
    "ResolverConfig",
    "StaticHostConfig",
    "TimeSyncConfig",
    "VLANConfig",
    "WireguardConfig",
];
const SINCE_13: &[&str] = &[
    "BlackholeRouteConfig",
    "EnvironmentConfig",
    "ExternalVolumeConfig",
    "ImageVerificationConfig",
    "KubeSpanConfig",
    "RoutingRuleConfig",
    "TCPProbeConfig",
    "VRFConfig",
];
const SINCE_14: &[&str] = &[
    "CRICustomizationConfig",
    "DiscoveryIdentityConfig",
    "DiscoveryServiceConfig",
    "EtcFileConfig",
    "FilesystemScrubConfig",
    "FilesystemTrimConfig",
    "KernelModuleConfig",
    "KubeAPIServerCAConfig",
    "KubeAPIServerConfig",
    "KubeClusterConfig",
    "KubeCoreDNSConfig",
    "KubeFlannelCNIConfig",
    "KubeNetworkConfig",
    "KubeNodeConfig",
    "KubeProxyConfig",
    "KubeletConfig",
    "SecurityProfileConfig",
    "SysctlConfig",
    "SysfsConfig",
    "UdevRulesConfig",
    "UnattendedInstallConfig",
];

pub(super) fn merge(draft: &mut Draft, patch: &Patch) -> Result<(), PatchError> {
    match patch {
        Patch::KernelModule { name, parameters } => module(draft, name, parameters.as_deref()),
        Patch::Sysctl { name, value } => entry(draft, "machine.sysctls", ("SysctlConfig", "params"), name, value),
        Patch::NodeLabel { name, value } => {
            entry(draft, "machine.nodeLabels", ("KubeNodeConfig", "labels"), name, value)
        }
        Patch::InstallImage(image) => {
            let document = install(draft)?;
            let place = if document == draft.main() { "machine.install.image" } else { "installer.image" };
            draft.set(document, &keys(place), &json!(image))
        }
        Patch::InstallDisk(disk) => install_disk(draft, disk),
        Patch::Hostname(name) => hostname(draft, name),
        Patch::Addresses { link, addresses } => links(draft, link, addresses),
        Patch::UserVolume { name, disk, min_size, max_size, grow } => {
            let values = [
                ("diskSelector.match", Some(json!(disk))),
                ("minSize", min_size.as_ref().map(|size| json!(size))),
                ("maxSize", max_size.as_ref().map(|size| json!(size))),
                ("grow", grow.map(|grow| json!(grow))),
            ];
            let document = match draft.named("UserVolumeConfig", name) {
                Some(document) => document,
                None => draft.add("UserVolumeConfig", Some(name))?,
            };
            for (key, value) in values {
                if let Some(value) = value {
                    draft.set(document, &keys(&format!("provisioning.{key}")), &value)?;
                }
            }
            Ok(())
        }
        Patch::KubeletMount { destination, source, options } => mount(draft, destination, source, options),
    }
}

/// True where something goes into a document of its own: there is such a document already, or the v1alpha1 document has
/// nothing of the kind and another document shows that the node is new enough.
fn own_document(draft: &Draft, kind: &str, section: &str) -> bool {
    let ages = [SINCE_12, SINCE_13, SINCE_14];
    let since = ages.iter().position(|kinds| kinds.contains(&kind)).unwrap_or_default();
    !draft.of_kind(kind).is_empty()
        || (draft.get(draft.main(), &keys(section)).is_none()
            && ages.iter().skip(since).any(|kinds| draft.has_any(kinds)))
}

fn the_one(draft: &mut Draft, kind: &str) -> Result<usize, PatchError> {
    match draft.of_kind(kind).first() {
        Some(document) => Ok(*document),
        None => draft.add(kind, None),
    }
}

fn module(draft: &mut Draft, name: &str, parameters: Option<&[String]>) -> Result<(), PatchError> {
    let bare = |name: &str| name.replace('-', "_");
    let (main, list) = (draft.main(), keys("machine.kernel.modules"));
    let mut members: Vec<(usize, Vec<Part>)> = Vec::new();
    for document in draft.of_kind("KernelModuleConfig") {
        if draft.text_at(document, &keys("name")).is_some_and(|found| bare(found) == bare(name)) {
            members.push((document, Vec::new()));
        }
    }
    // A list may have it twice: `talosctl patch` appends.
    for (position, member) in draft.list(main, &list)?.iter().enumerate() {
        if member.get("name").and_then(Value::as_str).is_some_and(|found| bare(found) == bare(name)) {
            members.push((main, under(&list, Part::At(position))));
        }
    }
    if members.is_empty() {
        let wanted = parameters.filter(|parameters| !parameters.is_empty());
        if own_document(draft, "KernelModuleConfig", "machine.kernel.modules") {
            let document = draft.add("KernelModuleConfig", None)?;
            draft.set(document, &keys("name"), &json!(name))?;
            return wanted.map_or(Ok(()), |wanted| draft.set(document, &keys("parameters"), &json!(wanted)));
        }
        let member = match wanted {
            Some(wanted) => json!({ "name": name, "parameters": wanted }),
            None => json!({ "name": name }),
        };
        return draft.push(main, &list, &member);
    }
    for (document, member) in members {
        let place = under(&member, Part::key("parameters"));
        match parameters {
            Some([]) if draft.list(document, &place)?.is_empty() => {}
            Some([]) => draft.remove(document, &place)?,
            Some(wanted) => draft.set(document, &place, &json!(wanted))?,
            None => {}
        }
    }
    Ok(())
}

/// An entry of a mapping of texts.
fn entry(
    draft: &mut Draft,
    section: &str,
    (kind, inside): (&str, &str),
    name: &str,
    value: &str,
) -> Result<(), PatchError> {
    let old = under(&keys(section), Part::key(name));
    let new = under(&keys(inside), Part::key(name));
    let owns = draft.of_kind(kind).into_iter().find(|document| draft.get(*document, &new).is_some());
    let (document, place) = match (owns, draft.get(draft.main(), &old)) {
        // Of the two the document holds.
        (Some(document), _) => (document, new),
        (None, Some(_)) => (draft.main(), old),
        (None, None) if own_document(draft, kind, section) => (the_one(draft, kind)?, new),
        (None, None) => (draft.main(), old),
    };
    draft.set(document, &place, &json!(value))
}

/// The document that says how to install.
fn install(draft: &mut Draft) -> Result<usize, PatchError> {
    let own = own_document(draft, "UnattendedInstallConfig", "machine.install");
    if own { the_one(draft, "UnattendedInstallConfig") } else { Ok(draft.main()) }
}

fn install_disk(draft: &mut Draft, disk: &InstallDisk) -> Result<(), PatchError> {
    let document = install(draft)?;
    if document != draft.main() {
        let expression = match disk {
            InstallDisk::Path(path) if path.starts_with("/dev/disk/") => format!("{} in disk.symlinks", json!(path)),
            InstallDisk::Path(path) => format!("disk.dev_path == {}", json!(path)),
            InstallDisk::Serial(serial) => format!("disk.serial == {}", json!(serial)),
            InstallDisk::Wwid(wwid) => format!("disk.wwid == {}", json!(wwid)),
            InstallDisk::Match(expression) => expression.clone(),
        };
        return draft.set(document, &keys("provisioning.diskSelector.match"), &json!(expression));
    }
    let (path, selector) = (keys("machine.install.disk"), keys("machine.install.diskSelector"));
    // Each key of a selector narrows it down, and a selector goes before a path.
    match disk {
        InstallDisk::Path(device) => {
            draft.set(document, &path, &json!(device))?;
            draft.remove(document, &selector)
        }
        InstallDisk::Serial(serial) => {
            draft.set(document, &selector, &json!({ "serial": serial }))?;
            draft.remove(document, &path)
        }
        InstallDisk::Wwid(wwid) => {
            draft.set(document, &selector, &json!({ "wwid": wwid }))?;
            draft.remove(document, &path)
        }
        InstallDisk::Match(_) => {
            let why = "the v1alpha1 document has no place for an expression".to_owned();
            Err(PatchError::NotInThisForm { place: draft.place(document, &selector), why })
        }
    }
}

fn hostname(draft: &mut Draft, name: &str) -> Result<(), PatchError> {
    let old = keys("machine.network.hostname");
    let stable = draft.get(draft.main(), &keys("machine.features.stableHostname")).is_some();
    let own = !draft.of_kind("HostnameConfig").is_empty()
        || (!stable && own_document(draft, "HostnameConfig", "machine.network.hostname"));
    if !own {
        let main = draft.main();
        return draft.set(main, &old, &json!(name));
    }
    let document = the_one(draft, "HostnameConfig")?;
    draft.set(document, &keys("hostname"), &json!(name))?;
    // One of the two alone is valid.
    draft.remove(document, &keys("auto"))
}

fn links(draft: &mut Draft, link: &str, addresses: &[String]) -> Result<(), PatchError> {
    if let Some(document) = draft.named("LinkConfig", link) {
        return exactly(draft, document, &keys("addresses"), addresses, Some("address"));
    }
    let (main, list) = (draft.main(), keys("machine.network.interfaces"));
    let is = |member: &Value| {
        let hardware = member.pointer("/deviceSelector/hardwareAddr").and_then(Value::as_str);
        member.get("interface").and_then(Value::as_str) == Some(link)
            || hardware.is_some_and(|hardware| hardware.eq_ignore_ascii_case(link))
    };
    let members = draft.list(main, &list)?;
    let found: Vec<usize> = members.iter().enumerate().filter(|(_, member)| is(member)).map(|(at, _)| at).collect();
    match found.as_slice() {
        [position] => {
            let place = under(&under(&list, Part::At(*position)), Part::key("addresses"));
            exactly(draft, main, &place, addresses, None)
        }
        [] if addresses.is_empty() => Ok(()),
        [] if own_document(draft, "LinkConfig", "machine.network.interfaces") => {
            if link.matches(':').count() == 5 {
                let why = "a LinkConfig has no place for a hardware address".to_owned();
                return Err(PatchError::NotInThisForm { place: draft.place(main, &list), why });
            }
            let document = draft.add("LinkConfig", Some(link))?;
            exactly(draft, document, &keys("addresses"), addresses, Some("address"))
        }
        [] if link.matches(':').count() == 5 => {
            let selected = json!({ "deviceSelector": { "hardwareAddr": link }, "addresses": addresses });
            draft.push(main, &list, &selected)
        }
        [] => draft.push(main, &list, &json!({ "interface": link, "addresses": addresses })),
        [..] => {
            let why = format!("{} entries are for this link", found.len());
            Err(PatchError::Conflict { place: draft.place(main, &list), why })
        }
    }
}

/// Makes a list hold exactly these; a member that stays, stays as it is. `key`: where a member is a mapping, which of its
/// values it is known by.
fn exactly(
    draft: &mut Draft,
    document: usize,
    list: &[Part],
    wanted: &[String],
    key: Option<&str>,
) -> Result<(), PatchError> {
    let text = |member: &Value| match key {
        Some(key) => member.get(key).and_then(Value::as_str).map(str::to_owned),
        None => member.as_str().map(str::to_owned),
    };
    let found: Vec<Option<String>> = draft.list(document, list)?.iter().map(text).collect();
    for value in wanted.iter().filter(|value| !found.iter().flatten().any(|found| found == *value)) {
        // Asked for twice is asked for once.
        let there = draft.list(document, list)?.iter().any(|member| text(member).as_ref() == Some(value));
        let member = key.map_or_else(|| json!(value), |key| json!({ key: value }));
        if !there {
            draft.push(document, list, &member)?;
        }
    }
    for (position, member) in found.iter().enumerate().rev() {
        if !member.as_ref().is_some_and(|member| wanted.contains(member)) {
            draft.remove(document, &under(list, Part::At(position)))?;
        }
    }
    Ok(())
}

fn mount(draft: &mut Draft, destination: &str, source: &str, options: &[String]) -> Result<(), PatchError> {
    let (main, list) = (draft.main(), keys("machine.kubelet.extraMounts"));
    if let Some(document) = draft.of_kind("KubeletConfig").first() {
        let why = "mounts are in the v1alpha1 document, and this configuration has another place for the kubelet";
        return Err(PatchError::NotInThisForm { place: draft.place(*document, &[]), why: why.to_owned() });
    }
    let is = |member: &Value| member.get("destination").and_then(Value::as_str) == Some(destination);
    let Some(position) = draft.list(main, &list)?.iter().position(is) else {
        let member = json!({ "destination": destination, "type": "bind", "source": source, "options": options });
        return draft.push(main, &list, &member);
    };
    let member = under(&list, Part::At(position));
    if draft.text_at(main, &under(&member, Part::key("source"))) != Some(source) {
        let why = "another source is mounted there".to_owned();
        return Err(PatchError::Conflict { place: draft.place(main, &member), why });
    }
    let place = under(&member, Part::key("options"));
    for option in options {
        if !draft.list(main, &place)?.iter().any(|found| found.as_str() == Some(option)) {
            draft.push(main, &place, &json!(option))?;
        }
    }
    Ok(())
}
