//! Whether the firmware of a VM starts the medium again once Talos is installed: then Talos halts, as it is installed
//! already (siderolabs/talos `haltIfInstalled`), and nothing that could be asked comes up.

use crate::base::fault::Failure;
use crate::estate::Estate;
use crate::proxmox::Pending;

use super::Bare;

/// In words: that the VM has its medium before the disk that is installed on, and how that is turned round.
///
/// # Errors
/// What keeps Proxmox from answering.
pub async fn comes_first(cx: &Estate, bare: &Bare) -> Result<Option<String>, Failure> {
    let Some(vm) = &bare.machine.vm else { return Ok(None) };
    let (_, _, config) = vm.config(cx).await?;
    Ok(before_disk(&config, &bare.disk).map(|Before { medium, disk, order, better }| {
        format!(
            "vm {vmid} ({name}) starts {medium} before {disk} (`boot: order={order}`): once {name} is installed its firmware \
             starts the medium again, and Talos halts; before that: `qm set {vmid} --boot 'order={better}'`, then stop and start it",
            vmid = vm.vmid,
            name = bare.name(),
        )
    }))
}

/// A medium that is started before the disk.
#[derive(Debug, PartialEq, Eq)]
struct Before {
    medium: String,
    disk: String,
    order: String,
    better: String,
}

/// Of the order that the running VM has. Proxmox gives a disk without a serial number one that ends with its key.
fn before_disk(config: &Pending, serial: &str) -> Option<Before> {
    let order = config.value("boot")?.split(',').find_map(|part| part.trim().strip_prefix("order="))?;
    let keys: Vec<&str> = order.split(';').map(str::trim).filter(|key| !key.is_empty()).collect();
    let is_drive = |key: &str| {
        let number = ["scsi", "virtio", "sata", "ide"].iter().find_map(|bus| key.strip_prefix(bus));
        number.is_some_and(|number| number.parse::<u8>().is_ok())
    };
    let cd = |line: &str| line.split(',').any(|part| part.trim() == "media=cdrom");
    let is_medium = |key: &str| {
        let line = config.value(key).unwrap_or_default();
        key.starts_with("net") && !line.is_empty() || is_drive(key) && cd(line) && !line.starts_with("none,")
    };
    let is_disk = |key: &str| is_drive(key) && config.value(key).is_some_and(|line| !cd(line));
    let has_serial = |key: &str| {
        let line = config.value(key).unwrap_or_default();
        line.split(',').any(|part| part.strip_prefix("serial=") == Some(serial)) || serial.ends_with(key)
    };
    let disks: Vec<&str> = config.keys.keys().map(String::as_str).filter(|key| is_disk(key)).collect();
    let disk =
        disks.iter().find(|key| has_serial(key)).or_else(|| if disks.len() == 1 { disks.first() } else { None })?;
    let at = keys.iter().position(|key| key == disk).unwrap_or(keys.len());
    let medium = keys.iter().take(at).find(|key| is_medium(key))?;
    let better: Vec<&str> = std::iter::once(*disk).chain(keys.iter().copied().filter(|key| key != disk)).collect();
    Some(Before { medium: (*medium).into(), disk: (*disk).into(), order: order.into(), better: better.join(";") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_medium_before_the_disk_is_named() {
        let of = |boot: Option<&str>, serial: &str| {
            let lines = [
                ("boot", boot),
                ("ide2", Some("local:iso/talos.iso,media=cdrom,size=112M")),
                ("ide3", Some("none,media=cdrom")),
                ("net0", Some("virtio=BC:24:11:4E:02:23,bridge=vmbr0")),
                ("scsi0", Some("local-lvm:vm-223-disk-0,serial=root,size=64G")),
                ("scsi1", Some("local-lvm:vm-223-disk-1,size=64G")),
            ];
            let rows = lines.iter().filter_map(|(key, value)| Some(json!({ "key": key, "value": (*value)? })));
            let rows = rows.map(|row| serde_json::from_value(row).unwrap()).collect();
            before_disk(&Pending::of(rows, String::new()), serial).map(|found| (found.medium, found.disk, found.better))
        };
        let some = |medium: &str, disk: &str, better: &str| Some((medium.into(), disk.into(), better.into()));
        let cases = [
            (Some("order=ide2;scsi0"), "root", some("ide2", "scsi0", "scsi0;ide2")),
            (Some("order=scsi1;ide2"), "root", some("ide2", "scsi0", "scsi0;scsi1;ide2")),
            (Some("order=net0;scsi0;ide2"), "root", some("net0", "scsi0", "scsi0;net0;ide2")),
            (Some("order=ide2;scsi1"), "drive-scsi1", some("ide2", "scsi1", "scsi1;ide2")),
            (Some("order=scsi0;ide2;net0"), "root", None),
            (Some("order=ide3;scsi0"), "root", None),
            (Some("order=scsi0"), "root", None),
            // Which of two disks it is is not known.
            (Some("order=ide2;scsi0"), "other", None),
            (Some("c"), "root", None),
            (None, "root", None),
        ];
        assert_eq!(cases.len(), 10);
        for (boot, serial, wanted) in cases {
            assert_eq!(of(boot, serial), wanted, "{boot:?} {serial}");
        }
    }
}
