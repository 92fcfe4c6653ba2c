//! What the machine's firmware boots by: a partition, which it finds in any slot, or the way to a slot.

use crate::base::drives::boot_entry::{BootEntry, Goes, file_name, order, read};
use crate::base::drives::{Drive, Plan, Purpose, Scenario, name};
use crate::base::permit::System;
use crate::blueprint::finding::Findings;
use crate::talos::{Error, Talos};

use super::super::{known, on};
use super::Preflight;
use super::ask::{Facts, Seen};

/// Where Linux has the firmware's variables (`Documentation/filesystems/efivarfs.rst`).
const FOLDER: &str = "/sys/firmware/efi/efivars";
/// What a firmware with UEFI starts of a drive that no entry of it names (UEFI specification 2.10, 3.5.1.1; of x86-64).
const FALL_BACK: &str = "\\EFI\\BOOT\\BOOTX64.EFI";
/// More entries than any firmware tries.
const MOST: usize = 64;

/// An entry of the firmware, or why it is not believed.
pub(super) struct Entry {
    number: u16,
    is: Result<BootEntry, String>,
}

/// The entries in the order in which they are tried; None: the machine has no such variables.
pub(super) async fn entries(talos: &Talos) -> Result<Option<Vec<Entry>>, Error> {
    let order_file = file_name(0).replace("Boot0000", "BootOrder");
    let bytes = match talos.file(&format!("{FOLDER}/{order_file}")).await {
        Ok(bytes) => bytes,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let numbers = match order(&bytes) {
        Ok(numbers) => numbers,
        Err(why) => return Ok(Some(vec![Entry { number: 0, is: Err(format!("BootOrder: {why}")) }])),
    };
    let mut all = Vec::new();
    for number in numbers.into_iter().take(MOST) {
        let is = match talos.file(&format!("{FOLDER}/{}", file_name(number))).await {
            Ok(bytes) => read(&bytes).map_err(|why| format!("Boot{number:04X}: {why}")),
            // The order names one that is gone.
            Err(Error::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        all.push(Entry { number, is });
    }
    Ok(Some(all))
}

/// Whether the firmware finds the system disk in its new slot.
pub(super) fn firmware(p: &Preflight, facts: &Facts, seen: &Seen) -> Findings {
    let mut out = Findings::of(System::Talos);
    let (Ok(talos), Scenario::SystemMoved) = (&facts.talos, p.plan.scenario) else { return out };
    let Some(drive) = system(&p.plan, seen) else { return out };
    let what = format!("{} what its firmware boots", p.machine.name);
    if let Some(entries) = out.need(on::MOVE, &what, &talos.boot) {
        judged(&p.machine.name, drive, entries.as_deref(), &mut out);
    }
    out
}

/// The drive that the plan moves as the system disk.
fn system<'s>(plan: &Plan, seen: &'s Seen) -> Option<&'s Drive> {
    let named = name(plan, &seen.live).ok()?;
    let is = |name: &str| {
        let wanted = plan.drives.get(name);
        wanted.is_some_and(|wanted| wanted.purposes.contains(&Purpose::System))
    };
    let found = named.found.iter().find(|found| is(&found.name))?;
    seen.live.drives.get(found.at)
}

fn judged(node: &str, drive: &Drive, entries: Option<&[Entry]>, out: &mut Findings) {
    let serial = drive.shown();
    let Some(entries) = entries else {
        out.note(
            on::MOVE,
            format!(
                "{node} does not boot by UEFI: see in its firmware's setup that it boots {serial}, wherever that is"
            ),
        );
        return;
    };
    let uuids = drive.marks().unwrap_or_default();
    let own = |uuid: &str| uuids.iter().any(|own| own.eq_ignore_ascii_case(uuid));
    let (mut by_partition, mut by_slot, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let Entry { number, is } = entry;
        match is {
            Err(why) => unread.push(why.as_str()),
            Ok(one) if !one.active => {}
            Ok(BootEntry { by: Goes::Partition(uuid), name, .. }) if own(uuid) => {
                by_partition.push(format!("Boot{number:04X} `{name}`"));
            }
            Ok(BootEntry { by: Goes::Slot { way, partition }, name, .. })
                if partition.as_deref().map_or_else(|| goes_to(way, drive), own) =>
            {
                by_slot.push(format!("Boot{number:04X} `{name}`, {way}"));
            }
            Ok(_) => {}
        }
    }
    if !by_partition.is_empty() {
        let list = by_partition.join("; ");
        out.note(on::MOVE, format!("the firmware finds {serial} by its partition, in any slot ({list})"));
    } else if !by_slot.is_empty() {
        out.problem(
            &known::BOOT_BY_SLOT,
            on::MOVE,
            format!(
                "the firmware of {node} boots {serial} by the way to its slot alone ({}): in another slot it does not find it",
                by_slot.join("; ")
            ),
            format!(
                "take that entry out in the firmware's setup: it then looks for `{FALL_BACK}` on each drive; or add one that names the \
                 drive. An installation or upgrade of Talos 1.11 or newer enters its partition by itself"
            ),
        );
    } else {
        let text = format!(
            "no entry of the firmware leads to {serial}: {node} boots it because it looks for `{FALL_BACK}` on each drive"
        );
        out.note(on::MOVE, text);
    }
    for why in unread {
        out.note(on::MOVE, format!("an entry of the firmware cannot be read, {why}"));
    }
}

/// Whether a way that names no partition ends at this drive's slot.
fn goes_to(way: &str, drive: &Drive) -> bool {
    let Some(port) = drive.port() else { return false };
    let port: Vec<&str> = port.as_str().split('/').map(|part| part.rsplit(':').next().unwrap_or(part)).collect();
    let way: Vec<&str> = way.split('/').collect();
    // A port is written without what is behind it.
    way == port || way.split_last().is_some_and(|(_, bridges)| bridges == port.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::drives::Part;
    use crate::base::survey::Layer;

    fn drive() -> Drive {
        Drive {
            serial: "S1".into(),
            transport: "nvme".into(),
            bus_path: "/pci0000:00/0000:00:1b.0/0000:03:00.0/nvme".into(),
            parts: Layer::Known(vec![Part { uuid: "aa-bb".into(), index: 1, ..Part::default() }]),
            ..Drive::default()
        }
    }

    fn entry(active: bool, by: Goes) -> Entry {
        Entry { number: 1, is: Ok(BootEntry { active, name: "Talos".into(), by, file: None }) }
    }

    fn slot(way: &str, partition: Option<&str>) -> Goes {
        Goes::Slot { way: way.into(), partition: partition.map(str::to_owned) }
    }

    /// `!` before a problem.
    fn said(entries: Option<Vec<Entry>>) -> String {
        let mut out = Findings::of(System::Talos);
        judged("n1", &drive(), entries.as_deref(), &mut out);
        let line = |one: crate::blueprint::finding::Finding| {
            let mark = if one.known.is_some() { "!" } else { "" };
            format!("{mark}{}", one.text)
        };
        out.all.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_entry_by_the_slot_is_a_problem_where_nothing_else_leads_to_the_disk() {
        let partition = || entry(true, Goes::Partition("AA-BB".into()));
        let by_slot = "!the firmware of n1 boots S1 by the way to its slot alone (Boot0001 `Talos`, 1b.0/00.0)";
        let none = "no entry of the firmware leads to S1";
        let cases: Vec<(Option<Vec<Entry>>, &str)> = vec![
            (None, "n1 does not boot by UEFI"),
            (Some(vec![]), none),
            (Some(vec![partition()]), "the firmware finds S1 by its partition, in any slot (Boot0001 `Talos`)"),
            (Some(vec![entry(true, slot("1b.0/00.0", Some("aa-bb")))]), by_slot),
            (Some(vec![entry(true, slot("1b.0/00.0", None))]), by_slot),
            (Some(vec![entry(true, slot("1b.0/00.0", None)), partition()]), "the firmware finds S1 by its partition"),
            // Of another drive, of another slot, or switched off.
            (Some(vec![entry(true, slot("1b.0/00.0", Some("cc-dd")))]), none),
            (Some(vec![entry(true, slot("1d.0/00.0", None))]), none),
            (Some(vec![entry(false, slot("1b.0/00.0", None))]), none),
            (Some(vec![entry(true, Goes::Partition("cc-dd".into()))]), none),
            (Some(vec![entry(true, Goes::Other)]), none),
        ];
        assert_eq!(cases.len(), 11);
        for (n, (entries, begins)) in cases.into_iter().enumerate() {
            let said = said(entries);
            assert!(said.starts_with(begins), "{n}: {said}");
        }
        let unread = said(Some(vec![Entry { number: 3, is: Err("Boot0003: cut".into()) }, partition()]));
        assert!(unread.ends_with("an entry of the firmware cannot be read, Boot0003: cut"), "{unread}");
    }

    #[test]
    fn a_way_is_that_of_the_slot_behind_all_its_bridges() {
        let at = |bus: &str| Drive { bus_path: bus.into(), ..drive() };
        let cases = [
            ("1b.0/00.0", "/pci0000:00/0000:00:1b.0/0000:03:00.0/nvme", true),
            ("1b.0", "/pci0000:00/0000:00:1b.0/0000:03:00.0/nvme", true),
            ("10.0", "/pci0000:00/0000:00:10.0/nvme", true),
            ("01.0/00.0/08.0/00.0", "/pci0000:00/0000:00:01.0/0000:02:00.0/0000:03:08.0/0000:05:00.0/nvme", true),
            ("1d.0/00.0", "/pci0000:00/0000:00:1b.0/0000:03:00.0/nvme", false),
            ("1b.0/00.0", "/virtual/nvme", false),
        ];
        assert_eq!(cases.len(), 6);
        for (way, bus, expected) in cases {
            assert_eq!(goes_to(way, &at(bus)), expected, "{way} {bus}");
        }
    }
}
