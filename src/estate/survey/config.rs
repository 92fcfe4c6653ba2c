//! The few fields of a machine configuration that are looked at. Nothing else of it is kept: it holds a cluster's secrets.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::survey::{MachineConfig, NamedSelector};

/// Reads a configuration of either form: one v1alpha1 document, documents by kind, or both together, of which the latter
/// win (siderolabs/talos pkg/machinery/config, v1.11 to v1.14).
///
/// # Errors
/// Where it is no YAML, by the place alone: the text around it may be secret.
pub fn read(text: &str) -> Result<MachineConfig, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
        format!("it is no YAML{}", place.unwrap_or_default())
    })?;
    let mut config = MachineConfig::default();
    for document in documents.iter().filter(|document| document.is_object()) {
        match document.get("kind").and_then(Value::as_str) {
            None => whole(document, &mut config),
            Some(kind) => one(kind, document, &mut config),
        }
    }
    config.modules.sort();
    config.modules.dedup();
    Ok(config)
}

/// A scalar as text: values stand with quotes and without.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn at(document: &Value, pointer: &str) -> Option<String> {
    document.pointer(pointer).and_then(scalar).filter(|text| !text.is_empty())
}

fn list<'a>(document: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    document.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn map(document: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = document.pointer(pointer).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), scalar(value)?))).collect()
}

fn huge_pages(params: &BTreeMap<String, String>) -> Option<u64> {
    params.get("vm.nr_hugepages")?.trim().parse().ok()
}

/// The v1alpha1 document.
fn whole(document: &Value, config: &mut MachineConfig) {
    config.machine_type = at(document, "/machine/type").unwrap_or_default();
    config.install.disk = at(document, "/machine/install/disk");
    config.install.selector = map(document, "/machine/install/diskSelector");
    config.image = config.image.take().or_else(|| at(document, "/machine/install/image"));
    config.modules.extend(list(document, "/machine/kernel/modules").filter_map(|module| at(module, "/name")));
    config.huge_pages = config.huge_pages.or_else(|| huge_pages(&map(document, "/machine/sysctls")));
    config.disks.extend(list(document, "/machine/disks").filter_map(|disk| at(disk, "/device")));
    config.kubelet_image = config.kubelet_image.take().or_else(|| at(document, "/machine/kubelet/image"));
}

/// A document by its kind.
fn one(kind: &str, document: &Value, config: &mut MachineConfig) {
    match kind {
        "KernelModuleConfig" => config.modules.extend(at(document, "/name")),
        "SysctlConfig" => config.huge_pages = huge_pages(&map(document, "/params")).or(config.huge_pages),
        "UnattendedInstallConfig" => {
            config.install.expression = at(document, "/provisioning/diskSelector/match");
            config.image = at(document, "/installer/image").or(config.image.take());
        }
        "KubeletConfig" => config.kubelet_image = at(document, "/image").or(config.kubelet_image.take()),
        _ if kind.ends_with("VolumeConfig") => {
            let selectors = ["/provisioning/diskSelector/match", "/discovery/volumeSelector/match"];
            let name = at(document, "/name").unwrap_or_default();
            let found = selectors.iter().filter_map(|pointer| at(document, pointer));
            config.volumes.extend(found.map(|expression| NamedSelector {
                kind: kind.to_owned(),
                name: name.clone(),
                expression,
            }));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_form_is_read() {
        let text = "\
version: v1alpha1
machine:
  type: controlplane
  token: k1v9qe.1x0d8s7m2c4b6n3z
  install:
    disk: /dev/nvme0n1
    image: factory.talos.dev/metal-installer/abc:v1.11.5
    diskSelector: { size: '>= 100GB', busPath: /pci0000:00/* }
  sysctls: { vm.nr_hugepages: \"1024\" }
  kernel: { modules: [{ name: nvidia }, { name: nvidia_uvm, parameters: [a=1] }] }
  disks: [{ device: /dev/sdb, partitions: [{ mountpoint: /var/mnt/x }] }]
  files: [{ content: x, permissions: 0o644, path: /var/x, op: create }]
  kubelet: { image: ghcr.io/siderolabs/kubelet:v1.34.1 }
cluster: { secret: c2VjcmV0 }
";
        let read = read(text).unwrap();
        assert_eq!(read.machine_type, "controlplane");
        assert_eq!(read.install.disk.as_deref(), Some("/dev/nvme0n1"));
        assert_eq!(read.install.selector.get("busPath").map(String::as_str), Some("/pci0000:00/*"));
        assert_eq!(read.install.selector.len(), 2);
        assert_eq!(
            (read.huge_pages, read.modules.as_slice()),
            (Some(1024), &["nvidia".into(), "nvidia_uvm".into()][..])
        );
        assert_eq!(read.disks, ["/dev/sdb"]);
        assert_eq!(read.kubelet_image.as_deref(), Some("ghcr.io/siderolabs/kubelet:v1.34.1"));
        // Nothing else of it is kept.
        let kept = serde_json::to_string(&read).unwrap();
        assert!(!kept.contains("k1v9qe") && !kept.contains("c2VjcmV0"), "{kept}");
    }

    #[test]
    fn documents_by_kind_are_read_beside_it_and_win() {
        let text = "\
version: v1alpha1
machine: { type: worker, kernel: { modules: [{ name: nvme_tcp }] }, sysctls: { vm.nr_hugepages: 512 } }
---
apiVersion: v1alpha1
kind: KernelModuleConfig
name: nvidia
---
apiVersion: v1alpha1
kind: SysctlConfig
params: { vm.nr_hugepages: '1024' }
---
apiVersion: v1alpha1
kind: UnattendedInstallConfig
installer: { image: factory.talos.dev/metal-installer/abc:v1.14.0 }
provisioning: { diskSelector: { match: disk.serial == \"S5\" } }
---
apiVersion: v1alpha1
kind: UserVolumeConfig
name: data
provisioning: { diskSelector: { match: '!system_disk' }, minSize: 10GiB }
";
        let read = read(text).unwrap();
        assert_eq!(read.modules, ["nvidia", "nvme_tcp"]);
        assert_eq!((read.machine_type.as_str(), read.huge_pages), ("worker", Some(1024)));
        assert_eq!(read.install.expression.as_deref(), Some("disk.serial == \"S5\""));
        assert_eq!(read.image.as_deref(), Some("factory.talos.dev/metal-installer/abc:v1.14.0"));
        let volume = &read.volumes[0];
        assert_eq!(
            (volume.kind.as_str(), volume.name.as_str(), volume.expression.as_str()),
            ("UserVolumeConfig", "data", "!system_disk")
        );
    }

    #[test]
    fn what_is_no_yaml_is_told_by_its_place_alone() {
        let error = read("machine:\n  token: [secret\n").unwrap_err();
        assert!(error.starts_with("it is no YAML") && !error.contains("secret"), "{error}");
    }
}
