//! The disks of a machine as they will be, so that a configuration's selectors can be asked before anything is moved.

use crate::base::survey::Disk;

use super::{Inventory, Plan, Sight};

/// The disks of now without those that leave, and with those that come. `named` says which of `live` are the plan's.
///
/// Which kernel name and which bus path a drive will have nobody knows before: one that moves keeps its name here and has
/// no bus path, one that comes has neither. A selector that goes by these is one that moves
/// ([`crate::base::selector::Selector::moves`]), and is to be refused for that. What a World Wide Name will be is not known
/// of one that comes, either.
pub fn predicted(plan: &Plan, named: &Sight, live: &Inventory, disks: &[Disk]) -> Vec<Disk> {
    let name_of = |disk: &Disk| {
        let is = |at: usize| live.drives.get(at).is_some_and(|drive| drive.id == disk.id);
        named.found.iter().find(|found| is(found.at)).map(|found| found.name.as_str())
    };
    let place = |name: &str| (Plan::slot_of(&plan.current, name), Plan::slot_of(&plan.target, name));
    let mut out = Vec::new();
    for disk in disks {
        match name_of(disk).map(place) {
            Some((_, None)) => {}
            Some((was, is)) if was != is => out.push(Disk { bus_path: String::new(), ..disk.clone() }),
            _ => out.push(disk.clone()),
        }
    }
    for (name, wanted) in &plan.drives {
        let comes = Plan::slot_of(&plan.target, name).is_some() && named.of(name).is_none();
        if wanted.new && comes {
            out.push(Disk {
                id: name.clone(),
                size: wanted.size.unwrap_or_default(),
                model: wanted.model.trim().to_owned(),
                serial: wanted.serial.trim().to_owned(),
                transport: "nvme".into(),
                ..Disk::default()
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Drive, Layout, Scenario, Wanted, name};
    use super::*;

    #[test]
    fn disks_are_as_they_will_be() {
        let layout = |text: &str| -> Layout {
            text.split(' ').filter_map(|p| p.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
        };
        let wanted = |serial: &str, new| Wanted {
            serial: serial.into(),
            model: " M ".into(),
            size: Some(7),
            new,
            ..Wanted::default()
        };
        let all = [
            ("sys", wanted("S", false)),
            ("media", wanted("D", false)),
            ("old", wanted("O", false)),
            ("pool", wanted("N", true)),
        ];
        let plan = Plan {
            slots: Vec::new(),
            drives: all.map(|(name, wanted)| (name.to_owned(), wanted)).into(),
            current: layout("1=sys 2=media 3=old"),
            target: layout("1=sys 3=media 2=pool"),
            scenario: Scenario::Data,
        };
        let disk = |id: &str, serial: &str| Disk {
            id: id.into(),
            serial: serial.into(),
            bus_path: format!("/{id}"),
            ..Disk::default()
        };
        let disks = [disk("sda", "X"), disk("nvme0n1", "S"), disk("nvme1n1", "D"), disk("nvme2n1", "O")];
        let drive = |disk: &Disk| Drive {
            id: disk.id.clone(),
            serial: disk.serial.clone(),
            transport: if disk.id == "sda" { "sata".into() } else { "nvme".into() },
            ..Drive::default()
        };
        let live = Inventory { drives: disks.iter().map(drive).collect(), ..Inventory::default() };
        let named = name(&plan, &live).unwrap();
        assert_eq!((named.found.len(), named.odd.as_slice()), (3, &[][..]));
        let then = predicted(&plan, &named, &live, &disks);
        let shown: Vec<String> =
            then.iter().map(|disk| format!("{} {} {}", disk.id, disk.serial, disk.bus_path)).collect();
        assert_eq!(shown, ["sda X /sda", "nvme0n1 S /nvme0n1", "nvme1n1 D ", "pool N "]);
        assert_eq!((then[3].size, then[3].model.as_str()), (7, "M"));
        // Where it is there already it does not come again.
        let early = [disks[0].clone(), disk("nvme3n1", "N")];
        let live = Inventory { drives: early.iter().map(drive).collect(), ..Inventory::default() };
        let named = name(&plan, &live).unwrap();
        assert_eq!(predicted(&plan, &named, &live, &early).len(), 2);
    }
}
