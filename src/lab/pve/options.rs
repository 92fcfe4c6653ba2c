//! The options of a machine's config: which exist, what they take, which right they need.

use super::params::{UNKNOWN, flag};
use crate::lab::usb::usb_index;

/// Any of these opens a config for writing; each key then needs its own.
pub(super) const ANY_CONFIG: &[&str] = &[
    "VM.Config.Disk",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.HWType",
    "VM.Config.Options",
    "VM.Config.Cloudinit",
];

/// Applied at once on a running machine (qemu-server `$fast_plug_option`), and what hot-plugs without a feature.
pub(super) const FAST: &[&str] = &[
    "name",
    "description",
    "onboot",
    "startup",
    "tags",
    "protection",
    "shares",
    "hookscript",
    "lock",
    "vmstatestorage",
    "cpuunits",
    "cpulimit",
    "ciuser",
    "cipassword",
    "citype",
    "nameserver",
    "searchdomain",
    "sshkeys",
];

const INTEGERS: &[&str] = &[
    "cores",
    "sockets",
    "vcpus",
    "memory",
    "balloon",
    "shares",
    "cpuunits",
    "cpulimit",
    "migrate_downtime",
    "migrate_speed",
    "keephugepages",
];
const FLAGS: &[&str] = &[
    "onboot",
    "tablet",
    "kvm",
    "acpi",
    "autostart",
    "freeze",
    "localtime",
    "numa",
    "protection",
    "reboot",
    "tdf",
    "template",
    "ciupgrade",
    "allow-ksm",
];
const TEXTS: &[&str] = &[
    "affinity",
    "agent",
    "amd-sev",
    "arch",
    "args",
    "audio0",
    "bios",
    "boot",
    "bootdisk",
    "cdrom",
    "cicustom",
    "cipassword",
    "citype",
    "ciuser",
    "cpu",
    "description",
    "efidisk0",
    "hookscript",
    "hotplug",
    "hugepages",
    "ivshmem",
    "keyboard",
    "lock",
    "machine",
    "meta",
    "name",
    "nameserver",
    "ostype",
    "rng0",
    "scsihw",
    "searchdomain",
    "smbios1",
    "spice_enhancements",
    "sshkeys",
    "startdate",
    "startup",
    "tags",
    "tpmstate0",
    "vga",
    "vmgenid",
    "vmstatestorage",
    "watchdog",
];
/// Numbered options with the count of each.
const NUMBERED: &[(&str, u32)] = &[
    ("usb", 14),
    ("scsi", 31),
    ("virtio", 16),
    ("sata", 6),
    ("ide", 4),
    ("net", 32),
    ("hostpci", 16),
    ("serial", 4),
    ("parallel", 3),
    ("ipconfig", 32),
    ("numa", 8),
    ("unused", 256),
    ("virtiofs", 10),
];

fn numbered(key: &str) -> Option<&'static str> {
    NUMBERED.iter().find_map(|(stem, count)| {
        let number: u32 = key.strip_prefix(stem)?.parse().ok()?;
        (number < *count && key == format!("{stem}{number}")).then_some(*stem)
    })
}

/// Whether there is such an option.
pub(super) fn exists(key: &str) -> bool {
    numbered(key).is_some() || [INTEGERS, FLAGS, TEXTS].iter().any(|list| list.contains(&key))
}

/// Whether the option is read back as a number.
pub(super) fn is_number(key: &str) -> bool {
    INTEGERS.contains(&key) || FLAGS.contains(&key)
}

/// The right that a key needs; none: only root may.
pub(super) fn right(key: &str) -> Option<&'static str> {
    match numbered(key) {
        Some("usb" | "hostpci" | "serial") => return Some("VM.Config.HWType"),
        Some("scsi" | "virtio" | "sata" | "ide" | "unused" | "virtiofs") => return Some("VM.Config.Disk"),
        Some("net") => return Some("VM.Config.Network"),
        Some("ipconfig") => return Some("VM.Config.Cloudinit"),
        Some("numa") => return Some("VM.Config.CPU"),
        _ => {}
    }
    match key {
        "cores" | "cpu" | "cpulimit" | "cpuunits" | "sockets" | "vcpus" | "numa" | "affinity" => Some("VM.Config.CPU"),
        "memory" | "balloon" | "shares" => Some("VM.Config.Memory"),
        "acpi" | "hotplug" | "kvm" | "machine" | "scsihw" | "smbios1" | "tablet" | "vga" | "watchdog" | "rng0"
        | "audio0" => Some("VM.Config.HWType"),
        "agent" | "autostart" | "bios" | "name" | "onboot" | "ostype" | "protection" | "reboot" | "startup"
        | "description" | "tags" | "startdate" | "localtime" | "tdf" | "keyboard" => Some("VM.Config.Options"),
        "boot" | "bootdisk" | "efidisk0" | "tpmstate0" => Some("VM.Config.Disk"),
        "cdrom" => Some("VM.Config.CDROM"),
        "ciuser" | "cipassword" | "citype" | "cicustom" | "ciupgrade" | "nameserver" | "searchdomain" | "sshkeys" => {
            Some("VM.Config.Cloudinit")
        }
        _ => None,
    }
}

/// Proxmox's text for a key or value that it does not take.
pub(super) fn check(key: &str, value: &str) -> Result<(), String> {
    if usb_index(key).is_some() {
        return usb(key, value);
    }
    if INTEGERS.contains(&key) && key != "cpulimit" && value.parse::<u64>().is_err() {
        return Err(format!("type check ('integer') failed - got '{value}'"));
    }
    if FLAGS.contains(&key) {
        return flag(value).map(|_| ());
    }
    if exists(key) { Ok(()) } else { Err(UNKNOWN.to_owned()) }
}

fn usb(key: &str, value: &str) -> Result<(), String> {
    let bad = |name: &str, text: &str| format!("invalid format - format error\n{key}.{name}: {text}\n");
    let (mut host, mut mapping) = (false, false);
    for part in value.split(',') {
        let (name, value) = part.split_once('=').unwrap_or(("host", part));
        match name {
            "host" if is_device(value) => host = true,
            "host" => return Err(bad("host", "value does not match the regex pattern")),
            "mapping" if !value.is_empty() => mapping = true,
            "usb3" if ["0", "1", "on", "off", "yes", "no", "true", "false"].contains(&value) => {}
            "usb3" => return Err(bad("usb3", &format!("type check ('boolean') failed - got '{value}'"))),
            name => return Err(bad(name, UNKNOWN)),
        }
    }
    match (host, mapping) {
        (true, true) => Err(bad("mapping", "either 'host' or 'mapping' may be set")),
        (false, false) => Err(bad("host", super::params::MISSING)),
        _ => Ok(()),
    }
}

/// `VID:PID`, `BUS-PORT[.PORT]` or `spice`.
fn is_device(value: &str) -> bool {
    if value.eq_ignore_ascii_case("spice") {
        return true;
    }
    if let Some((vendor, product)) = value.split_once(':') {
        return is_id(vendor) && is_id(product);
    }
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    value.split_once('-').is_some_and(|(bus, path)| number(bus) && path.split('.').all(number))
}

fn is_id(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Proxmox's text for an entry of a USB mapping that it does not take.
pub(super) fn check_mapping(entry: &str) -> Result<(), String> {
    let bad = |name: &str, text: &str| format!("invalid format - format error\nmap.{name}: {text}\n");
    let mut seen = Vec::new();
    for part in entry.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let good = match name {
            "node" => !value.is_empty(),
            "id" => value.split_once(':').is_some_and(|(v, p)| is_id(v) && is_id(p)),
            "path" => is_device(value) && value.contains('-'),
            "description" => true,
            _ => return Err(bad(name, UNKNOWN)),
        };
        if !good {
            return Err(bad(name, "value does not match the regex pattern"));
        }
        seen.push(name);
    }
    match ["id", "node"].into_iter().find(|n| !seen.contains(n)) {
        Some(missing) => Err(bad(missing, super::params::MISSING)),
        None => Ok(()),
    }
}
