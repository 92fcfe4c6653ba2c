//! Which `usbN` keys a VM has, and when a change of one reaches the running guest. Pure.
//!
//! The rules are those of qemu-server's PVE/QemuServer/USB.pm: with a machine of 7.1 or later and a modern guest type
//! all devices sit on one xhci controller with 14 slots; before that there are five, and `usb3=1` picks the controller.

use super::config::Props;

/// How a VM carries USB devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsbStyle {
    /// 14 slots on one xhci controller, hot-pluggable.
    Modern,
    /// Five slots, never hot-plugged, `usb3=1` decides the controller.
    Old,
}

impl UsbStyle {
    /// From the config keys `machine` and `ostype`; without a machine, or with one that names no version (`q35`), the
    /// version is the newest of the node's QEMU at each start.
    pub fn of(machine: Option<&str>, ostype: Option<&str>) -> Self {
        let guest = matches!(ostype, Some("l26" | "win8" | "win10" | "win11"));
        if guest && version(machine).is_none_or(|v| v >= (7, 1)) { Self::Modern } else { Self::Old }
    }

    /// How many `usbN` keys take effect, counted from `usb0`.
    pub fn slots(self) -> u8 {
        match self {
            Self::Modern => 14,
            Self::Old => 5,
        }
    }
}

/// The slots that no key uses. A key whose deletion is pending still uses its slot.
pub fn free_usb_slots<'a>(
    keys: impl IntoIterator<Item = &'a str>,
    machine: Option<&str>,
    ostype: Option<&str>,
) -> Vec<u8> {
    let used: Vec<u8> = keys.into_iter().filter_map(usb_slot).collect();
    (0..UsbStyle::of(machine, ostype).slots()).filter(|slot| !used.contains(slot)).collect()
}

/// The number in a `usbN` key; None for any other key.
pub fn usb_slot(key: &str) -> Option<u8> {
    key.strip_prefix("usb").filter(|n| n.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.parse().ok())
}

/// Whether a change of a `usbN` key reaches the running guest at once. `running_machine` is what the process was
/// started with (status), `hotplug` the config key.
pub fn usb_hotplugs(running_machine: Option<&str>, ostype: Option<&str>, hotplug: Option<&str>) -> bool {
    let allowed = match hotplug {
        None | Some("1") => true,
        Some(list) => list.split([',', ';', ' ']).any(|word| word == "usb"),
    };
    allowed && UsbStyle::of(running_machine, ostype) == UsbStyle::Modern
}

/// The version in `pc-q35-9.2+pve1` or `type=pc-i440fx-6.2,viommu=intel`.
fn version(machine: Option<&str>) -> Option<(u32, u32)> {
    let props: Props = machine?.parse().ok()?;
    let name = props.get_default("type")?;
    let tail = name.rsplit('-').next()?;
    let (major, rest) = tail.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_and_guest_type_decide_the_style() {
        let modern = [
            (None, "l26"),
            (Some("q35"), "l26"),
            (Some("pc"), "win10"),
            (Some("pc-q35-9.2+pve1"), "l26"),
            (Some("pc-q35-10.0"), "l26"),
            (Some("q35,viommu=intel"), "l26"),
            (Some("type=pc-i440fx-7.1"), "win11"),
        ];
        let old = [
            (Some("pc-i440fx-6.2"), Some("l26")),
            (Some("pc-q35-7.0+pve2"), Some("l26")),
            (None, None),
            (None, Some("other")),
            (Some("q35"), Some("win7")),
        ];
        for (machine, ostype) in modern {
            assert_eq!(UsbStyle::of(machine, Some(ostype)), UsbStyle::Modern, "{machine:?} {ostype}");
        }
        for (machine, ostype) in old {
            assert_eq!(UsbStyle::of(machine, ostype), UsbStyle::Old, "{machine:?} {ostype:?}");
        }
        assert_eq!((modern.len(), old.len()), (7, 5));
    }

    #[test]
    fn free_slots_end_at_the_fifth_on_old_machines() {
        let keys = ["usb0", "usb2", "usb", "net0", "usb13", "usbx"];
        assert_eq!(free_usb_slots(keys, Some("pc-i440fx-6.2"), Some("l26")), [1, 3, 4]);
        assert_eq!(free_usb_slots(keys, None, Some("l26")), [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let full: Vec<String> = (0..14).map(|n| format!("usb{n}")).collect();
        assert!(free_usb_slots(full.iter().map(String::as_str), None, Some("l26")).is_empty());
    }

    #[test]
    fn the_running_machine_and_the_hotplug_key_decide_hot_plug() {
        assert!(usb_hotplugs(Some("pc-q35-9.2+pve1"), Some("l26"), None));
        assert!(usb_hotplugs(None, Some("l26"), Some("network,disk,usb")));
        assert!(usb_hotplugs(None, Some("l26"), Some("1")));
        for (machine, hotplug) in
            [(Some("pc-i440fx-6.2"), None), (Some("pc-q35-9.2"), Some("0")), (None, Some("network,disk"))]
        {
            assert!(!usb_hotplugs(machine, Some("l26"), hotplug), "{machine:?} {hotplug:?}");
        }
    }
}
