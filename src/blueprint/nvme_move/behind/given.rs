//! Which line hands on which drive: from what the guest, Proxmox and the host said, without asking.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::check::Problem;
use crate::base::drives::{Drive, Inventory, Plan, Port};
use crate::base::fault::Failure;
use crate::blueprint::backup::kept;
use crate::engine::step::RunInfo;
use crate::proxmox::{PciPlace, VmRef, guest_port};

use super::super::on;
use super::view::{At, View};
use super::{Line, Lines, mend};

/// The file of the run with what was handed on when the VM went off first.
pub(in super::super) const PASSED: &str = "passed.json";

/// The place of a drive in the lines of a VM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in super::super) struct Given {
    /// `hostpci0`.
    pub(in super::super) key: String,
    /// Which of the places of that line.
    pub(in super::super) index: usize,
}

/// What was handed on when a VM went off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Passed {
    /// The host.
    pub(in super::super) host: String,
    /// The host's boot: until the next one nothing was moved.
    pub(in super::super) boot: String,
    /// By the names of the plan.
    pub(in super::super) drives: BTreeMap<String, Given>,
    /// All lines.
    pub(in super::super) was: BTreeMap<String, Vec<PciPlace>>,
    /// Vendor and device of what is no drive, by address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in super::super) ids: BTreeMap<String, String>,
}

/// What this run has kept of it; None: it has not switched the VM off.
///
/// # Errors
/// What was kept cannot be read.
pub(in super::super) fn passed(run: &RunInfo) -> Result<Option<Passed>, Failure> {
    let Some(bytes) = kept(run, on::SHUTDOWN, PASSED, PASSED)? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| Failure::plain(format!("{PASSED} of this run: {error}"), None))
}

/// The line that hands on what the guest has at the place of this drive.
pub(in super::super) fn given(lines: &Lines, drive: &Drive) -> Option<Given> {
    let port = drive.port()?;
    let machine = lines.machine();
    lines.all.iter().find_map(|line| {
        let index =
            (0..line.places.len()).find(|n| guest_port(line.slot, *n, &line.value, machine).as_ref() == Some(&port))?;
        Some(Given { key: line.key.clone(), index })
    })
}

/// The guest's drives, each with its place in the host.
pub(super) fn seated(lines: &Lines, view: &View, mut live: Inventory) -> Result<Inventory, String> {
    let vmid = lines.at.vmid;
    let mut seen = Vec::new();
    for drive in live.drives.iter_mut().filter(|drive| drive.transport == "nvme") {
        let of = given(lines, drive);
        let place = of.and_then(|of| lines.all.iter().find(|line| line.key == of.key)?.places.get(of.index));
        let address = place.map(PciPlace::address).ok_or_else(|| {
            format!("{} is at {} in vm {vmid}, and no hostpci line puts anything there", drive.shown(), drive.bus_path)
        })?;
        let port = view.port(&address).ok_or_else(|| {
            format!("vm {vmid} has {} from {address} of {}, which shows no NVMe drive there", drive.shown(), view.host)
        })?;
        drive.bus_path = way(&port, &address);
        seen.push(address);
    }
    let handed = |address: &String| lines.all.iter().flat_map(|line| &line.places).any(|place| place.means(address));
    live.controllers_without_a_disk = view.inventory.controllers_without_a_disk.clone();
    live.controllers_without_a_disk.retain(|one| handed(&one.address) && !seen.contains(&one.address));
    Ok(live)
}

/// A path with this port and this address at its end, as the host's kernel would have it.
fn way(port: &Port, address: &str) -> String {
    let mut parts = port.as_str().split('/');
    let first = parts.next().unwrap_or_default().to_owned();
    let mut all = vec![first];
    all.extend(parts.map(|part| format!("0000:ff:{part}")));
    if address.ends_with(":00.0") && port.as_str() != address {
        all.push(address.to_owned());
    }
    format!("/{}/nvme", all.join("/"))
}

/// Why a VM must not be started with these lines.
pub(super) fn amiss(
    (at, lines): (&VmRef, &[Line]),
    passed: Option<&Passed>,
    plan: &Plan,
    view: &View,
    ids: &BTreeMap<String, String>,
) -> Vec<Problem> {
    // The host is in the boot in which the VM ran: nothing was moved, and nothing was written.
    let same = |passed: &Passed| {
        passed.was.len() == lines.len() && lines.iter().all(|line| passed.was.get(&line.key) == Some(&line.places))
    };
    if passed.is_some_and(|passed| passed.boot == view.boot && same(passed)) {
        return Vec::new();
    }
    let (vmid, host) = (at.vmid, &view.host);
    let mut problems = Vec::new();
    let places = lines.iter().flat_map(|line| line.places.iter().enumerate().map(move |(n, place)| (line, n, place)));
    for (line, index, place) in places {
        let (key, address) = (&line.key, place.address());
        let is = Given { key: key.clone(), index };
        let whose = passed.and_then(|passed| passed.drives.iter().find(|(_, of)| **of == is)).map(|(name, _)| name);
        let would = format!("{key} would give vm {vmid} what is at {address} of {host}");
        let text = match (view.at(&address), whose) {
            (At::Drive(drive), whose) => {
                let named = plan.drives.iter().find(|(_, wanted)| wanted.serial.trim() == drive.serial.trim());
                match (named.map(|(name, _)| name), whose) {
                    (Some(name), Some(whose)) if name == whose => None,
                    (Some(_), None) if passed.is_none() => None,
                    (Some(name), _) => Some(format!("{would}: that is {name} ({}) now", drive.shown())),
                    (None, _) => Some(format!("{would}: that is {}, which is none of its drives", drive.shown())),
                }
            }
            (At::Hidden, Some(name)) => {
                Some(format!("{would}, which shows no drive there: whether that is {name} is not known"))
            }
            (At::Hidden, None) => Some(format!("{would}, which shows no drive there: whose it is is not known")),
            (At::None, Some(name)) => Some(format!("{would}, where no drive is: {name} is elsewhere")),
            (At::None, None) => {
                let was = passed.and_then(|passed| passed.ids.get(&address));
                let is = ids.get(&address);
                was.filter(|was| is != Some(*was)).map(|was| {
                    let is = is.map_or("nothing", String::as_str);
                    format!("{would}: that is {is} now, and was {was}")
                })
            }
        };
        problems.extend(text.map(|text| Problem::new(text, mend(vmid)).mended_by(on::FOLLOW)));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::drives::{Controller, Scenario, Slot, Wanted};

    #[test]
    fn a_way_has_the_port_and_the_address_that_it_was_made_of() {
        let cases = [
            ("/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme", "0000:04:00.0"),
            ("/pci0000:00/0000:00:10.0/nvme", "0000:00:10.0"),
            ("/pci0000:00/0000:00:01.0/0000:02:00.0/0000:03:08.0/0000:05:00.0/nvme", "0000:05:00.0"),
        ];
        assert_eq!(cases.len(), 3);
        for (path, address) in cases {
            let port = Port::of(path).unwrap();
            let way = way(&port, address);
            assert_eq!(Port::of(&way), Some(port), "{way}");
            assert_eq!(crate::base::drives::pci_address(&way).as_deref(), Some(address));
        }
    }

    fn line(key: &str, value: &str) -> Line {
        let value: crate::proxmox::HostPci = value.parse().unwrap();
        let crate::proxmox::PciSource::Places(places) = value.source() else { panic!("{value}") };
        Line { key: key.into(), slot: 0, value, places, mapping: None }
    }

    /// A drive at `03:00.0`, and a controller at `04:00.0` that brings up none; `06:00.0` is something else.
    fn view(serial: &str) -> View {
        let drive = Drive {
            id: "nvme0n1".into(),
            serial: serial.into(),
            bus_path: "/pci0000:00/0000:00:1b.0/0000:03:00.0/nvme".into(),
            ..Drive::default()
        };
        let hidden = Controller { address: "0000:04:00.0".into(), port: None };
        let inventory =
            Inventory { drives: vec![drive], controllers_without_a_disk: vec![hidden], ..Inventory::default() };
        View { host: "pve".into(), boot: "2".into(), inventory }
    }

    fn plan() -> Plan {
        let wanted = |serial: &str| Wanted { serial: serial.into(), ..Wanted::default() };
        Plan {
            slots: Vec::<Slot>::new(),
            drives: [("a", "A"), ("b", "B")].map(|(name, serial)| (name.to_owned(), wanted(serial))).into(),
            current: [("1".to_owned(), "a".to_owned())].into(),
            target: [("2".to_owned(), "a".to_owned())].into(),
            scenario: Scenario::Data,
        }
    }

    #[test]
    fn a_start_gets_its_own_drives_or_none() {
        let at = VmRef { node: "pve".into(), vmid: 9 };
        let given = |key: &str| Given { key: key.into(), index: 0 };
        let card = ("0000:06:00.0".to_owned(), "10de:2684".to_owned());
        let passed = |boot: &str, lines: &[Line]| Passed {
            host: "pve".into(),
            boot: boot.into(),
            drives: [("a".to_owned(), given("hostpci0")), ("b".to_owned(), given("hostpci1"))].into(),
            was: lines.iter().map(|line| (line.key.clone(), line.places.clone())).collect(),
            ids: [card.clone()].into(),
        };
        let said = |lines: &[Line], passed: Option<&Passed>, serial: &str, ids: &BTreeMap<String, String>| {
            let all = amiss((&at, lines), passed, &plan(), &view(serial), ids);
            assert!(all.iter().all(|problem| !problem.help.is_empty()));
            all.into_iter().map(|problem| problem.text.rsplit_once(" of pve").unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        let (ids, none) = (BTreeMap::from([card.clone()]), BTreeMap::new());
        let drive = [line("hostpci0", "03:00.0,pcie=1")];
        let hidden = [line("hostpci1", "04:00")];
        let gone = [line("hostpci0", "0000:09:00.0")];
        let other = [line("hostpci2", "06:00.0")];
        let run = passed("1", &[]);
        assert_eq!(said(&drive, Some(&run), "A", &ids), Vec::<String>::new());
        let b = said(&drive, Some(&run), "B", &ids);
        assert!(b.len() == 1 && b[0].starts_with(": that is b (") && b[0].ends_with(") now"), "{b:?}");
        let x = said(&drive, Some(&run), "X", &ids);
        assert!(x.len() == 1 && x[0].ends_with(", which is none of its drives"), "{x:?}");
        assert_eq!(
            said(&hidden, Some(&run), "A", &ids),
            [", which shows no drive there: whether that is b is not known"]
        );
        assert_eq!(said(&gone, Some(&run), "A", &ids), [", where no drive is: a is elsewhere"]);
        assert_eq!(said(&other, Some(&run), "A", &ids), Vec::<String>::new());
        assert_eq!(said(&other, Some(&run), "A", &none), [": that is nothing now, and was 10de:2684"]);
        // Nothing is known of before: what is seen to be one of its drives may be given to it.
        assert_eq!(said(&drive, None, "B", &none), Vec::<String>::new());
        assert_eq!(said(&drive, None, "X", &none).len(), 1);
        assert_eq!(said(&hidden, None, "A", &none), [", which shows no drive there: whose it is is not known"]);
        // The same boot of the host, and the same lines: nothing can have been moved.
        assert_eq!(said(&hidden, Some(&passed("2", &hidden)), "A", &none), Vec::<String>::new());
        assert_eq!(said(&hidden, Some(&passed("2", &drive)), "A", &none).len(), 1);
    }
}
