//! What is wrong with a plan of drives and slots, told from the plan alone.

use std::collections::BTreeMap;

use super::{Layout, Plan, Purpose, Scenario, Wanted};

/// Something that is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The key path below the migration's parameters: `target.M2_3`.
    pub at: String,
    /// What is wrong.
    pub text: String,
    /// What to write instead.
    pub help: String,
}

impl Plan {
    /// Everything that is wrong with it, in the order of the keys.
    pub fn problems(&self) -> Vec<Wrong> {
        let mut all = self.of_drives();
        all.extend(self.of_layout("current", &self.current));
        all.extend(self.of_layout("target", &self.target));
        // What the scenario says of a system disk that is in no slot would follow from something else.
        if all.is_empty() {
            all.extend(self.of_scenario());
        }
        all
    }

    fn of_drives(&self) -> Vec<Wrong> {
        let mut all = Vec::new();
        let mut wrong = |at: String, text: String, help: &str| all.push(Wrong { at, text, help: help.to_owned() });
        if self.drives.is_empty() {
            wrong(
                "drives".into(),
                "the plan names no drive".into(),
                "add a line for each drive, `sys: { serial: .. }`",
            );
        }
        let mut by_serial: BTreeMap<&str, Vec<(&String, &Wanted)>> = BTreeMap::new();
        for (name, wanted) in &self.drives {
            by_serial.entry(wanted.serial.trim()).or_default().push((name, wanted));
            let at = format!("drives.{name}");
            if wanted.new && (wanted.model.trim().is_empty() || wanted.size.is_none()) {
                let help = "add `model:` and `size:` in bytes, as its label and its data sheet have them";
                wrong(at.clone(), format!("the new drive {name} has no model or no size"), help);
            }
            if !wanted.new && wanted.serial.trim().is_empty() && wanted.partition.is_none() {
                let help = "add its `serial:` (`talosctl get disks -o yaml`), or `partition:` where it has none";
                wrong(at.clone(), format!("the drive {name} has neither a serial number nor a partition"), help);
            }
            if wanted.purposes.len() > 1 && wanted.purposes.contains(&Purpose::Spare) {
                let help = "leave `spare` out, or the others";
                wrong(format!("{at}.purpose"), format!("the drive {name} is spare and something else"), help);
            }
            if !Plan::is_in(&self.current, name) && !Plan::is_in(&self.target, name) {
                let help = "add it to `current` or `target`, or leave it out of `drives`";
                wrong(at.clone(), format!("the drive {name} is in no layout"), help);
            } else if !wanted.new && !Plan::is_in(&self.current, name) {
                let help = "say in which slot of `current` it is, or that it is `new: true`";
                wrong(at, format!("the drive {name} is not new and in no slot of `current`"), help);
            }
        }
        for (serial, same) in by_serial {
            // Of those that come only model and size are known before.
            let fits = |a: &Wanted, b: &Wanted| {
                !serial.is_empty() || (a.new && b.new && a.model.trim() == b.model.trim() && a.size == b.size)
            };
            for (name, wanted) in &same {
                let alike = same.iter().find(|(other, of)| other != name && fits(wanted, of));
                let Some((other, _)) = alike.filter(|_| wanted.partition.is_none()) else { continue };
                let (text, help) = if serial.is_empty() {
                    let text = format!("{name} and {other} are new, of one model and size and without serial numbers");
                    (text, "add `serial:`, it is on the label")
                } else {
                    let text =
                        format!("{name} and {other} have the same serial number {serial}, and {name} no partition");
                    (text, "add `partition:` with the uuid of one on it (`talosctl get discoveredvolumes -o yaml`)")
                };
                // A new one has no partition yet: those that are there are told apart by theirs.
                if serial.is_empty() || !wanted.new {
                    wrong(format!("drives.{name}"), text, help);
                }
            }
        }
        let mut by_partition: BTreeMap<String, &String> = BTreeMap::new();
        for (name, wanted) in &self.drives {
            let Some(uuid) = &wanted.partition else { continue };
            if let Some(other) = by_partition.insert(uuid.to_lowercase(), name) {
                let text = format!("{name} and {other} have the same partition {uuid}");
                wrong(format!("drives.{name}.partition"), text, "each partition is on one drive: correct one of them");
            }
        }
        all
    }

    fn of_layout(&self, key: &str, layout: &Layout) -> Vec<Wrong> {
        let mut all = Vec::new();
        let mut wrong =
            |slot: &str, text: String, help: String| all.push(Wrong { at: format!("{key}.{slot}"), text, help });
        let list = |names: Vec<&String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (slot, name) in layout {
            if !self.slots.iter().any(|info| info.name == *slot) {
                let known: Vec<&String> = self.slots.iter().map(|info| &info.name).collect();
                let help = if known.is_empty() {
                    "the node has no `slots:`; add them below it, a line for each, `M2_1: { position: .. }`".into()
                } else {
                    format!("the node's slots are {}", list(known))
                };
                wrong(slot, format!("`{slot}` is no slot of the node"), help);
            }
            match self.drives.get(name) {
                None => {
                    let help = format!("`drives` has {}", list(self.drives.keys().collect()));
                    wrong(slot, format!("`{name}` is no drive of the plan"), help);
                }
                Some(wanted) if wanted.new && key == "current" => {
                    let help = "a new drive is in `target` alone; leave `new: true` out if it is in the machine".into();
                    wrong(slot, format!("{name} is new and in a slot already"), help);
                }
                Some(_) => {}
            }
            if let Some(other) = seen.insert(name, slot) {
                let help = "a drive is in one slot of a layout; correct one of them".into();
                wrong(slot, format!("{name} is in {other} and in {slot}"), help);
            }
        }
        all
    }

    fn of_scenario(&self) -> Option<Wrong> {
        let wrong = |text: String, help: String| Some(Wrong { at: "scenario".into(), text, help });
        let system = |layout: &Layout| -> Vec<String> {
            let is = |name: &&String| self.drives.get(*name).is_some_and(|d| d.purposes.contains(&Purpose::System));
            layout.values().filter(is).cloned().collect()
        };
        let (mut old, new) = (system(&self.current), system(&self.target));
        // A drive that is in the machine already may become the system disk.
        if old.len() > 1 {
            old.retain(|name| !new.contains(name));
        }
        // It may be in no slot: on SATA, or the virtual disk of a VM.
        let elsewhere = old.is_empty() && new.is_empty() && self.current != self.target;
        if self.scenario == Scenario::Data && elsewhere {
            return None;
        }
        let ([old], [new]) = (old.as_slice(), new.as_slice()) else {
            let count = |of: &[String]| if of.is_empty() { "no drive".to_owned() } else { of.join(" and ") };
            return wrong(
                format!("`current` has {} with `purpose: system`, `target` has {}", count(&old), count(&new)),
                "each of them has one: give the system disk `purpose: system`; where another drive becomes it, the old one \
                 leaves the machine"
                    .into(),
            );
        };
        let (was, is) = (Self::slot_of(&self.current, old)?, Self::slot_of(&self.target, new)?);
        let fits = match (old == new, was == is) {
            (true, true) => Scenario::Data,
            (true, false) => Scenario::SystemMoved,
            (false, _) => Scenario::SystemReplaced,
        };
        if self.current == self.target {
            return wrong("`current` and `target` are the same".into(), "there is nothing to move".into());
        }
        if fits == Scenario::SystemReplaced
            && let (Some(a), Some(b)) = (self.drives.get(old), self.drives.get(new))
            && let (old_serial, serial) = (a.serial.trim(), b.serial.trim())
        {
            if serial.is_empty() {
                return Some(Wrong {
                    at: format!("drives.{new}"),
                    text: format!(
                        "{new} becomes the system disk, and has no serial number: an installation is told its disk by it"
                    ),
                    help: "add `serial:`, it is on the label".into(),
                });
            }
            if old_serial == serial {
                return wrong(
                    format!("{old} and {new} have one serial number, {serial}: where they are one drive nothing has to be wiped"),
                    "write `scenario: system-moved` and one name for it; of two drives that share a number none can be told to an \
                     installation"
                        .into(),
                );
            }
        }
        if fits == self.scenario {
            return None;
        }
        let help = format!("write `scenario: {}`", fits.word());
        match (self.scenario, fits) {
            (Scenario::SystemReplaced, Scenario::SystemMoved) => {
                wrong(format!("{old} only changes its slot: nothing has to be wiped"), help)
            }
            (Scenario::SystemReplaced, Scenario::Data) => {
                wrong(format!("the system disk {old} stays where it is: nothing has to be wiped"), help)
            }
            (_, Scenario::SystemReplaced) => {
                wrong(format!("{new} becomes the system disk in the place of {old}: the node is installed anew"), help)
            }
            (_, Scenario::SystemMoved) => wrong(format!("the system disk {old} goes from {was} to {is}"), help),
            (_, Scenario::Data) => wrong(format!("the system disk {old} stays in {was}"), help),
        }
    }

    fn is_in(layout: &Layout, name: &str) -> bool {
        Self::slot_of(layout, name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Slot;
    use super::*;

    /// `1=sys 2=media`.
    fn layout(text: &str) -> Layout {
        text.split_whitespace().filter_map(|p| p.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    fn wanted(serial: &str, purpose: Purpose) -> Wanted {
        Wanted { serial: serial.into(), purposes: vec![purpose], ..Wanted::default() }
    }

    fn plan(current: &str, target: &str, scenario: Scenario) -> Plan {
        let slot = |name: &str| Slot { name: name.into(), position: String::new(), port: None };
        let new = |purpose| Wanted { new: true, model: "M".into(), size: Some(1 << 40), ..wanted("N", purpose) };
        let all = [
            ("sys", wanted("S", Purpose::System)),
            ("media", wanted("D", Purpose::UserVolume("media".into()))),
            ("pool", new(Purpose::Spare)),
            ("fresh", Wanted { serial: "F".into(), ..new(Purpose::System) }),
        ];
        let (current, target) = (layout(current), layout(target));
        let used = |name: &str| Plan::is_in(&current, name) || Plan::is_in(&target, name);
        let drives = all.into_iter().filter(|(name, _)| used(name)).map(|(name, of)| (name.to_owned(), of)).collect();
        Plan { slots: ["1", "2", "3"].map(slot).into(), drives, current, target, scenario }
    }

    fn said(plan: &Plan) -> Vec<String> {
        let problems = plan.problems();
        assert!(problems.iter().all(|wrong| !wrong.help.is_empty()));
        problems.into_iter().map(|wrong| format!("{}: {}", wrong.at, wrong.text)).collect()
    }

    #[test]
    fn a_scenario_is_what_the_layouts_say() {
        use Scenario::{Data, SystemMoved, SystemReplaced};
        let moved = ("1=sys 2=media", "2=sys 1=media");
        let cases = [
            (("1=sys 2=media", "1=sys 3=media 2=pool"), Data, None),
            (moved, SystemMoved, None),
            (("1=sys 2=media", "1=fresh 2=media"), SystemReplaced, None),
            (("1=sys", "2=fresh"), SystemReplaced, None),
            (moved, SystemReplaced, Some("sys only changes its slot: nothing has to be wiped")),
            (
                ("1=sys 2=media", "1=sys 3=media"),
                SystemReplaced,
                Some("the system disk sys stays where it is: nothing has to be wiped"),
            ),
            (moved, Data, Some("the system disk sys goes from 1 to 2")),
            (("1=sys 2=media", "1=sys 3=media"), SystemMoved, Some("the system disk sys stays in 1")),
            (
                ("1=sys", "1=fresh"),
                SystemMoved,
                Some("fresh becomes the system disk in the place of sys: the node is installed anew"),
            ),
            (("1=sys", "1=sys"), Data, Some("`current` and `target` are the same")),
            (
                ("1=sys", "1=sys 2=fresh"),
                SystemReplaced,
                Some("`current` has sys with `purpose: system`, `target` has sys and fresh"),
            ),
            (("1=media", "2=media"), Data, None),
            (
                ("1=media", "2=media"),
                SystemMoved,
                Some("`current` has no drive with `purpose: system`, `target` has no drive"),
            ),
        ];
        assert_eq!(cases.len(), 13);
        for ((current, target), scenario, expected) in cases {
            let expected: Vec<String> = expected.iter().map(|text| format!("scenario: {text}")).collect();
            assert_eq!(said(&plan(current, target, scenario)), expected, "{current} > {target}");
        }
    }

    #[test]
    fn a_drive_is_installed_on_by_a_serial_number_of_its_own() {
        let replaced = |change: &dyn Fn(&mut Plan)| {
            let mut plan = plan("1=sys 2=media", "1=fresh 2=media", Scenario::SystemReplaced);
            change(&mut plan);
            said(&plan)
        };
        assert_eq!(replaced(&|_| {}), Vec::<String>::new());
        let serial = |plan: &mut Plan, serial: &str| plan.drives.get_mut("fresh").unwrap().serial = serial.into();
        let none = "drives.fresh: fresh becomes the system disk, and has no serial number: an installation is told its disk by it";
        assert_eq!(replaced(&|plan| serial(plan, "")), [none]);
        // One drive by two names: it would be wiped for nothing.
        let one = replaced(&|plan| {
            serial(plan, "S");
            plan.drives.get_mut("sys").unwrap().partition = Some("5b1c6f0e-7d0a-4a53-9c7e-2f0d8a3c1101".into());
        });
        assert_eq!(
            one,
            ["scenario: sys and fresh have one serial number, S: where they are one drive nothing has to be wiped"]
        );
        // One that is in the machine already, and is to become it.
        let mut spare = plan("1=sys 2=media", "1=media", Scenario::SystemReplaced);
        spare.drives.get_mut("media").unwrap().purposes = vec![Purpose::System];
        assert_eq!(said(&spare), Vec::<String>::new());
        let system = |layout: &Layout| spare.system_in(layout).map(|(name, _)| name.to_owned());
        assert_eq!((system(&spare.current).as_deref(), system(&spare.target).as_deref()), (Some("sys"), Some("media")));
    }

    #[test]
    fn every_problem_of_a_plan_is_said_at_once() {
        let mut bad = plan("1=sys 2=media 9=gone", "1=sys 2=sys 3=pool", Scenario::Data);
        bad.current.insert("3".into(), "pool".into());
        bad.drives.insert("idle".into(), Wanted::default());
        bad.drives.insert("lost".into(), wanted("L", Purpose::Spare));
        bad.target.insert("4".into(), "lost".into());
        bad.drives.get_mut("media").unwrap().serial = " S ".into();
        bad.drives.get_mut("media").unwrap().purposes.push(Purpose::Spare);
        bad.drives.get_mut("pool").unwrap().size = None;
        let expected = [
            "drives.idle: the drive idle has neither a serial number nor a partition",
            "drives.idle: the drive idle is in no layout",
            "drives.lost: the drive lost is not new and in no slot of `current`",
            "drives.media.purpose: the drive media is spare and something else",
            "drives.pool: the new drive pool has no model or no size",
            "drives.media: media and sys have the same serial number S, and media no partition",
            "drives.sys: sys and media have the same serial number S, and sys no partition",
            "current.3: pool is new and in a slot already",
            "current.9: `9` is no slot of the node",
            "current.9: `gone` is no drive of the plan",
            "target.2: sys is in 1 and in 2",
            "target.4: `4` is no slot of the node",
        ];
        assert_eq!(said(&bad), expected);
    }

    #[test]
    fn two_of_a_kind_need_what_tells_them_apart() {
        let mut twins = plan("1=sys", "1=sys 2=pool 3=fresh", Scenario::Data);
        twins.drives.get_mut("fresh").unwrap().purposes = vec![Purpose::Spare];
        assert_eq!(said(&twins), Vec::<String>::new());
        for name in ["pool", "fresh"] {
            twins.drives.get_mut(name).unwrap().serial.clear();
        }
        let text = "are new, of one model and size and without serial numbers";
        assert_eq!(
            said(&twins),
            [format!("drives.fresh: fresh and pool {text}"), format!("drives.pool: pool and fresh {text}"),]
        );
        let mut cheap = plan("1=sys 2=media", "1=sys 3=media", Scenario::Data);
        cheap.drives.get_mut("media").unwrap().serial = "S".into();
        for name in ["sys", "media"] {
            cheap.drives.get_mut(name).unwrap().partition = Some(format!("{name}-1"));
        }
        assert_eq!(said(&cheap), Vec::<String>::new());
        cheap.drives.get_mut("media").unwrap().partition = Some("SYS-1".into());
        assert_eq!(said(&cheap), ["drives.sys.partition: sys and media have the same partition sys-1"]);
        let empty = Plan { slots: Vec::new(), drives: BTreeMap::new(), ..plan("", "", Scenario::Data) };
        assert_eq!(said(&empty).first().unwrap(), "drives: the plan names no drive");
    }
}
