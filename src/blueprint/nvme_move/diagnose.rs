//! Why a drive, a volume or a node is not as it should be: rules over what was asked, without any asking.

use crate::base::drives::{Found, Inventory, Odd, Plan, Port};

/// How many lines of the kernel's log are shown of one thing.
const LINES: usize = 6;

/// What the kernel's log has of drives on PCI; with an address, of that one, by whatever name it has there (`nvme nvme0: pci
/// function 0000:02:00.0`). The newest of many.
pub fn kernel_lines(log: &str, address: Option<&str>) -> Vec<String> {
    let names: Vec<String> = address.map_or_else(Vec::new, |address| {
        let own = log.lines().filter(|line| line.contains(address));
        own.filter_map(|line| named(line).map(|name| format!(" {name}"))).collect()
    });
    let of_drives = |line: &&str| ["nvme", "pcieport", "AER"].iter().any(|word| line.contains(word));
    let own = |line: &&str| {
        address.is_none_or(|address| line.contains(address)) || names.iter().any(|name| line.contains(name.as_str()))
    };
    let mut all: Vec<String> = log.lines().filter(of_drives).filter(own).map(|line| line.trim().to_owned()).collect();
    let old = all.len().saturating_sub(LINES);
    all.drain(..old);
    all
}

/// `nvme0:` in a line of the kernel's.
fn named(line: &str) -> Option<&str> {
    line.split_whitespace().find(|word| word.starts_with("nvme") && word.ends_with(':'))
}

/// A drive that is not seen: what may be the reason, and what the kernel says of it.
pub fn not_detected(plan: &Plan, odd: &Odd, live: &Inventory, log: &str) -> Vec<String> {
    let (name, slot, address) = match odd {
        Odd::Dead { name, slot, controller } => (name, slot.as_str(), Some(controller.as_str())),
        Odd::Missing { name, slot: Some(slot), holds: None, .. } => (name, slot.as_str(), None),
        _ => return Vec::new(),
    };
    let mut lines = Vec::new();
    match address {
        Some(address) => lines.push(format!(
            "{name}: PCI has the controller {address} in {slot}, and it brings up no drive: seat the drive again, try it in the slot \
             where it was"
        )),
        None => {
            lines.push(format!(
                "{name}: nothing is on PCI in {slot}: the drive is not seated, the slot is off in the firmware, or shares its lanes with \
                 another slot or a SATA port"
            ));
            // One that could not be told where it hangs may be it.
            let elsewhere = live.controllers_without_a_disk.iter().map(|one| match &one.port {
                Some(port) => format!("the controller {} at {} has no drive{}", one.address, port.as_str(), of(plan, port)),
                None => format!("the controller {} has no drive, and where it hangs is not known", one.address),
            });
            lines.extend(elsewhere);
        }
    }
    let said = kernel_lines(log, address);
    let said = if said.is_empty() { kernel_lines(log, None) } else { said };
    lines.extend(said.into_iter().map(|line| format!("kernel: {line}")));
    lines
}

fn of(plan: &Plan, port: &Port) -> String {
    let slot = plan.slots.iter().find(|slot| slot.port.as_ref() == Some(port));
    slot.map(|slot| format!(" ({})", slot.name)).unwrap_or_default()
}

/// A volume that Talos has not mounted. `on`: the drive that has its partition.
pub fn not_mounted(volume: &str, phase: &str, error: &str, on: Option<&str>) -> String {
    let why = if error.is_empty() { String::new() } else { format!(": {error}") };
    match on {
        Some(drive) => format!("{volume} is {phase}{why}; its partition is on {drive}"),
        None => format!("{volume} is {phase}{why}; its partition is on no drive of the machine"),
    }
}

/// What a node says of itself that does not come back into its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejoin {
    /// Services that are not through: name and state, with what each said last.
    pub services: Vec<String>,
    /// What etcd said last, where it is not well.
    pub etcd: Option<String>,
    /// Why its certificate is not taken.
    pub certificate: Option<String>,
    /// Its time is set; None: it does not tell.
    pub time: Option<bool>,
    /// Addresses of its configuration that it does not have.
    pub addresses: Vec<String>,
}

/// Each of the five with the command that shows more. `talosctl`: a command to the node, for what is behind its name.
pub fn will_not_rejoin(rejoin: &Rejoin, talosctl: impl Fn(&str) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    if rejoin.time == Some(false) {
        lines.push(format!("its time is not set, and certificates do not hold before it is: {}", talosctl("time")));
    }
    let certificate = rejoin.certificate.iter();
    lines.extend(
        certificate.map(|why| format!("its certificate is not taken ({why}): {}", talosctl("get apidcertificates"))),
    );
    if !rejoin.addresses.is_empty() {
        let missing = rejoin.addresses.join(", ");
        lines.push(format!("it has not the addresses {missing} of its configuration: {}", talosctl("get addresses")));
    }
    lines.extend(rejoin.services.iter().map(|said| format!("{said}: {}", talosctl("services"))));
    lines.extend(rejoin.etcd.iter().map(|why| format!("etcd says {why}: {}", talosctl("logs etcd"))));
    lines
}

/// A drive that reports another serial number than it had: configurations that name the old one mean nothing any more.
pub fn other_serial(found: &Found, was: &str, now: &str) -> Option<String> {
    let (was, now) = (was.trim(), now.trim());
    (was != now && !was.is_empty()).then(|| {
        let now = if now.is_empty() { "none" } else { now };
        format!(
            "{} had the serial number {was} and reports {now}: a selector that names {was} must be changed before the next \
             installation or wipe",
            found.name
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::drives::{By, Controller, Layout, Scenario, Slot};

    const LOG: &str = "user: warning: [2.1]: nvme nvme0: pci function 0000:02:00.0\n\
                       kern: err: [2.9]: nvme nvme0: Device not ready; aborting initialisation\n\
                       kern: info: [3.0]: eth0: link up\n";

    fn plan() -> Plan {
        let slot = Slot { name: "M2_3".into(), position: String::new(), port: Some("0000:00:06.0".parse().unwrap()) };
        let none = Layout::new;
        Plan { slots: vec![slot], drives: BTreeMap::new(), current: none(), target: none(), scenario: Scenario::Data }
    }

    #[test]
    fn a_drive_that_is_not_seen_is_told_with_the_kernels_words() {
        let dead = Odd::Dead { name: "media".into(), slot: "M2_3".into(), controller: "0000:02:00.0".into() };
        let lines = not_detected(&plan(), &dead, &Inventory::default(), LOG);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].contains("the controller 0000:02:00.0 in M2_3") && lines[2].ends_with("aborting initialisation")
        );
        let missing = Odd::Missing { name: "media".into(), slot: Some("M2_3".into()), known: true, holds: None };
        let lines = not_detected(&plan(), &missing, &Inventory::default(), LOG);
        assert!(lines.len() == 3 && lines[0].contains("nothing is on PCI in M2_3"), "{lines:?}");
        assert!(lines[2].ends_with("Device not ready; aborting initialisation"));
        let idle = |port: Option<&str>| Inventory {
            controllers_without_a_disk: vec![Controller {
                address: "0000:02:00.0".into(),
                port: port.map(|port| port.parse().unwrap()),
            }],
            ..Inventory::default()
        };
        let lines = not_detected(&plan(), &missing, &idle(Some("0000:00:06.0")), "");
        assert_eq!(lines[1], "the controller 0000:02:00.0 at 0000:00:06.0 has no drive (M2_3)");
        let lines = not_detected(&plan(), &missing, &idle(None), "");
        assert!(lines.len() == 2 && lines[1].ends_with("where it hangs is not known"), "{lines:?}");
        // Another one has its place: the words for that are enough.
        let holds = Odd::Missing { name: "a".into(), slot: Some("M2_3".into()), known: true, holds: Some("b".into()) };
        assert_eq!(not_detected(&plan(), &holds, &Inventory::default(), LOG), Vec::<String>::new());
    }

    #[test]
    fn of_a_long_log_the_newest_lines_are_shown() {
        let log: String = (0..20).map(|n| format!("pcieport 0000:00:1d.0: AER {n}\n")).collect();
        let lines = kernel_lines(&log, None);
        assert_eq!((lines.len(), lines[0].ends_with("AER 14"), lines[5].ends_with("AER 19")), (6, true, true));
        assert_eq!(kernel_lines(&log, Some("0000:00:1b.0")), Vec::<String>::new());
    }

    #[test]
    fn each_sign_has_its_words() {
        assert_eq!(
            not_mounted("media", "failed", "no disks matched", None),
            "media is failed: no disks matched; its partition is on no drive of the machine"
        );
        assert_eq!(
            not_mounted("media", "waiting", "", Some("nvme1n1")),
            "media is waiting; its partition is on nvme1n1"
        );
        let all = Rejoin {
            services: vec!["kubelet is Waiting".into()],
            etcd: Some("no leader".into()),
            certificate: Some("expired".into()),
            time: Some(false),
            addresses: vec!["192.168.4.20".into()],
        };
        let told = will_not_rejoin(&all, |rest| format!("`talosctl {rest}`"));
        let words = ["`talosctl time`", "apidcertificates`", "get addresses`", "services`", "logs etcd`"];
        assert_eq!(told.len(), words.len());
        assert!(told.iter().zip(words).all(|(line, word)| line.ends_with(word)), "{told:?}");
        // What is not told is no reason.
        assert_eq!(will_not_rejoin(&Rejoin::default(), str::to_owned), Vec::<String>::new());
        let found = Found { name: "media".into(), at: 0, by: By::Serial, slot: None, notes: Vec::new() };
        assert!(
            other_serial(&found, "A1", "BRIDGE0001")
                .unwrap()
                .contains("had the serial number A1 and reports BRIDGE0001")
        );
        assert!(other_serial(&found, "A1", " ").unwrap().contains("reports none"));
        assert_eq!((other_serial(&found, " A1 ", "A1"), other_serial(&found, "", "A1")), (None, None));
    }
}
