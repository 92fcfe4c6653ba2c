//! 04: the target VM's config passes the device, with `usb3=1`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::proxmox::{
    ConfigChange, MapEntry, Pending, Proxmox, UsbMapping, UsbSource, UsbValue, VmRef, free_usb_slots,
};

use super::device::{Attach, Device, Sight, View, Vm, same_usb};
use super::fault::refusal;
use super::power::{locked, unless_locked, write_config};

/// Passes the device to the target VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddUsb {
    /// The VM that gets the device.
    pub vm: Vm,
    /// The VM that must have given it up.
    pub source: Vm,
    /// The device.
    pub device: Device,
    /// By id, port or mapping.
    pub attach: Attach,
}

/// The VM's USB slots and the mapping's entry for its host, as they were.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// Slot and value.
    pub slots: BTreeMap<String, String>,
    /// What this step writes, slot and value: only this is its own to take back.
    pub set: BTreeMap<String, String>,
    /// The host that the mapping's entry is about.
    pub host: String,
    /// The entry; None where the mapping had none for the host.
    pub entry: Option<MapEntry>,
    /// Whether the mapping existed at all.
    pub mapping_existed: bool,
}

/// What has to be written.
struct Work {
    set: Vec<(String, String)>,
    entry: Option<MapEntry>,
    mapping_exists: bool,
    changes: Vec<Change>,
    problems: Vec<Problem>,
}

impl Step<Estate> for AddUsb {
    const ID: &'static str = "04-add-usb";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("vm {} ({}) gets {} with usb3=1", self.vm.vmid, self.vm.node, self.device.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Without usb3=1 a VM of an old machine type puts the device on a USB2 controller: slow, or refused.".into(),
            "The Coral changes its id at its first inference: passed by one id alone it leaves the guest then.".into(),
            "By id it gets one slot for each id, by port one for the socket; a mapping is the way of an API token."
                .into(),
            "By hand: `qm set VMID --usb0 host=1a6e:089a,usb3=1 --usb1 host=18d1:9302,usb3=1` as root on the host."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let mapping = self.device.mapping.iter().filter(|_| self.attach == Attach::Mapping);
        let things = mapping.map(|name| format!("mapping {name}")).chain([format!("vm {}", self.vm.vmid)]);
        Outlook::changes(System::Proxmox, things)
    }

    async fn check(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let View { pve, at, config, sight, mappings } = self.device.view(cx, &self.vm).await?;
        let mut work = self.work(&config, &mappings, &at.node, &sight);
        if work.changes.is_empty() && work.problems.is_empty() {
            let pending = config.usb().into_iter().filter(|(_, key)| key.is_pending());
            let note = |(slot, _)| format!("usb{slot} takes effect at vm {}'s next power cycle", self.vm.vmid);
            return Ok(Check::done().notes(pending.map(note)));
        }
        work.problems.extend(self.still_elsewhere(cx).await?);
        work.problems.extend(self.not_here(&at, &sight));
        if !work.problems.is_empty() {
            return Ok(Check::blocked(work.problems));
        }
        if let Some(lock) = pve.status(&at).await?.lock {
            return locked(&pve, &at, &lock).await;
        }
        let value =
            |(slot, key): (u8, &crate::proxmox::PendingKey)| Some((format!("usb{slot}"), key.configured()?.to_owned()));
        let entry = self.mapping(&mappings).and_then(|m| m.entry(&at.node)).cloned();
        let before = Before {
            slots: config.usb().into_iter().filter_map(value).collect(),
            set: work.set.into_iter().collect(),
            host: at.node.clone(),
            entry,
            mapping_existed: work.mapping_exists,
        };
        let check = Check::todo(work.changes, before);
        Ok(if let Sight::CannotSee(why) = sight {
            check.note(format!("whether the device is at {} cannot be seen: {}", at.node, why.join("; ")))
        } else {
            check
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let View { pve, at, config, sight, mappings } = self.device.view(cx, &self.vm).await?;
        let work = self.work(&config, &mappings, &at.node, &sight);
        // All or none, and nothing that undo would not know.
        if let Some(problem) = work.problems.into_iter().next() {
            return Err(refusal(problem));
        }
        let recorded = |(slot, value): &(String, String)| seen.since.is_some_and(|b| b.set.get(slot) == Some(value));
        if let Some((slot, value)) = work.set.iter().find(|set| !recorded(set)) {
            return Err(refusal(Problem::new(
                format!("vm {} {slot} would get `{value}`, which is not what this step began with", self.vm.vmid),
                "the VM's USB slots were changed meanwhile: `pvemig undo`, then run again",
            )));
        }
        if let (Some(entry), Some(name)) = (work.entry, &self.device.mapping) {
            set_entry(&pve, name, &at.node, &entry, work.mapping_exists, permit).await?;
        }
        if work.set.is_empty() {
            return Ok(());
        }
        let change = ConfigChange { set: work.set, digest: Some(config.digest), ..ConfigChange::default() };
        write_config(&pve, &at, &change, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, _seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let (pve, at, (config, mappings)) = self.entries(cx).await?;
        let (mut changes, mut problems, mut stays) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, set) in &before.set {
            let what = format!("vm {} {slot}", self.vm.vmid);
            match (way_back(&config, before, slot, set), config.configured(slot), before.slots.get(slot)) {
                (Way::Is, ..) if config.keys.get(slot).is_some_and(|key| key.delete) => {
                    stays.push(format!("{slot} stays in vm {} until its next power cycle", self.vm.vmid));
                }
                (Way::Is, ..) => {}
                (Way::Free, now, _) => changes.push(Change::remove(what, now.unwrap_or(set))),
                (Way::Set(was), now, _) => changes.push(Change::set(what, now.unwrap_or(set), was)),
                (Way::Foreign, now, was) => {
                    let (now, was) = (now.unwrap_or("free"), was.map_or("free", String::as_str));
                    problems.push(Problem::new(
                        format!("{what} was `{was}`, this run set `{set}`, and now it is `{now}`"),
                        format!("somebody else changed it: make it `{was}` again by hand, then run undo again"),
                    ));
                }
            }
        }
        // A lock is on the VM's config alone; a mapping is the cluster's.
        let of_vm = !changes.is_empty();
        if let Some(name) = self.device.mapping.as_ref().filter(|_| self.attach == Attach::Mapping) {
            let mapping = self.mapping(&mappings);
            let now = mapping.and_then(|m| m.entry(&before.host));
            if now != before.entry.as_ref() && !self.same_but_id(now, before.entry.as_ref()) {
                let show = |e: Option<&MapEntry>| e.map_or_else(|| "no entry".to_owned(), ToString::to_string);
                changes.push(Change::set(format!("mapping {name}"), show(now), show(before.entry.as_ref())));
            }
        }
        if !problems.is_empty() {
            return Ok(Check::blocked(problems));
        }
        if changes.is_empty() {
            return Ok(Check::done().stays(stays));
        }
        let todo = Check::todo(changes, ()).stays(stays);
        if of_vm { unless_locked(&pve, &at, todo).await } else { Ok(todo) }
    }

    async fn undo(&self, cx: &Estate, before: &Before, _: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (pve, at, (config, mappings)) = self.entries(cx).await?;
        let mut change = ConfigChange { digest: Some(config.digest.clone()), ..ConfigChange::default() };
        for (slot, set) in &before.set {
            match way_back(&config, before, slot, set) {
                Way::Free if config.value(slot).is_none() => change.revert.push(slot.clone()),
                Way::Free => change.delete.push(slot.clone()),
                Way::Set(was) => change.set.push((slot.clone(), was.to_owned())),
                Way::Is | Way::Foreign => {}
            }
        }
        if !(change.set.is_empty() && change.delete.is_empty() && change.revert.is_empty()) {
            write_config(&pve, &at, &change, permit).await?;
        }
        let Some(name) = self.device.mapping.as_ref().filter(|_| self.attach == Attach::Mapping) else { return Ok(()) };
        let Some(mapping) = self.mapping(&mappings) else { return Ok(()) };
        let now = mapping.entry(&before.host);
        if now == before.entry.as_ref() {
            return Ok(());
        }
        // Entries that were added for other hosts are not ours: VMs that use them would not start any more.
        let ours_alone = mapping.map.iter().all(|entry| entry.node() == Some(before.host.as_str()));
        if !before.mapping_existed && ours_alone {
            pve.delete_usb_mapping(name, permit).await?;
        } else if !self.same_but_id(now, before.entry.as_ref()) {
            pve.set_usb_mapping(name, &before.host, before.entry.as_ref(), permit).await?;
        }
        Ok(())
    }
}

impl AddUsb {
    /// The VM's entries, and the mappings that they may name.
    async fn entries(&self, cx: &Estate) -> Result<(Arc<Proxmox>, VmRef, (Pending, Vec<UsbMapping>)), Failure> {
        let ask = async |pve: &Proxmox, at: &VmRef| {
            let (config, mappings) = futures::join!(pve.pending(at), pve.usb_mappings(None));
            Ok((config?, mappings?))
        };
        self.vm.there(cx, ask).await
    }

    fn mapping<'m>(&self, mappings: &'m [UsbMapping]) -> Option<&'m UsbMapping> {
        mappings.iter().find(|m| Some(&m.id) == self.device.mapping.as_ref())
    }

    /// Which id the device shows is not ours to restore: any of its ids at the same port is the same entry.
    fn same_but_id(&self, a: Option<&MapEntry>, b: Option<&MapEntry>) -> bool {
        let known = |e: &MapEntry| e.path().is_some() && e.id().is_some_and(|id| self.device.ids.contains(&id));
        matches!((a, b), (Some(a), Some(b)) if known(a) && known(b) && a.path() == b.path())
    }

    /// What the VM should pass, what of it is missing, and what is in the way.
    fn work(&self, config: &Pending, mappings: &[UsbMapping], host: &str, sight: &Sight) -> Work {
        let mut work = Work {
            set: Vec::new(),
            entry: None,
            mapping_exists: self.mapping(mappings).is_some(),
            changes: Vec::new(),
            problems: Vec::new(),
        };
        let wanted = self.wanted(host, sight, &mut work);
        if self.attach == Attach::Mapping {
            self.map_entry(mappings, host, sight, &mut work);
        }
        let mut missing = wanted.clone();
        for (slot, text) in self.device.slots_in(config, host, sight.places(), mappings) {
            let Ok(value) = text.parse::<UsbValue>() else { continue };
            if let Some(at) = missing.iter().position(|w| *w == value.source) {
                missing.remove(at);
                if !value.usb3 {
                    let better = UsbValue { usb3: true, ..value }.to_string();
                    work.changes.push(Change::set(format!("vm {} {slot}", self.vm.vmid), text, &better));
                    work.set.push((slot, better));
                }
            } else if !wanted.contains(&value.source) {
                work.problems.push(Problem::new(
                    format!("vm {} passes the device already in another form: {slot} is `{text}`", self.vm.vmid),
                    format!("take {slot} out of vm {}, or set `attach` in the site file to that form", self.vm.vmid),
                ));
            }
        }
        let keys = config.keys.keys().map(String::as_str);
        let free = free_usb_slots(keys, config.configured("machine"), config.configured("ostype"));
        if free.len() < missing.len() {
            work.problems.push(Problem::new(
                format!("vm {} has {} free USB slots and {} are needed", self.vm.vmid, free.len(), missing.len()),
                "free a slot, or raise the VM's machine version to 7.1 or later for 14 slots",
            ));
        }
        for (source, slot) in missing.into_iter().zip(free) {
            let value = UsbValue::usb3(source).to_string();
            work.changes.push(Change::add(format!("vm {} usb{slot}", self.vm.vmid), &value));
            work.set.push((format!("usb{slot}"), value));
        }
        work
    }

    fn wanted(&self, host: &str, sight: &Sight, work: &mut Work) -> Vec<UsbSource> {
        match self.attach {
            Attach::Id => {
                if sight.places().len() > 1 {
                    let places = sight.places().iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
                    work.problems.push(Problem::new(
                        format!(
                            "{host} has {} of these devices: {places}; by id a VM takes either",
                            sight.places().len()
                        ),
                        "use port: set `attach: port` and the device's port for this host in the site file",
                    ));
                }
                self.device.ids.iter().copied().map(UsbSource::Id).collect()
            }
            Attach::Port => match (self.device.sockets.get(host), sight.places()) {
                (Some(socket), _) => {
                    let ports = std::iter::once(&socket.port).chain(socket.sibling.as_ref());
                    ports.cloned().map(UsbSource::Port).collect()
                }
                (None, [place]) => vec![UsbSource::Port(place.port.clone())],
                (None, _) => {
                    work.problems.push(Problem::new(
                        format!("the site file names no port of device {} for host {host}", self.device.name),
                        format!("add `ports: {{ {host}: {{ port: BUS-PORT }} }}` to the device"),
                    ));
                    Vec::new()
                }
            },
            Attach::Mapping => self.device.mapping.iter().cloned().map(UsbSource::Mapping).collect(),
        }
    }

    /// The mapping's entry for this host: the port where the device is, with the id that it shows.
    fn map_entry(&self, mappings: &[UsbMapping], host: &str, sight: &Sight, work: &mut Work) {
        let Some(name) = &self.device.mapping else {
            work.problems.push(Problem::new(
                format!("device {} has no mapping in the site file", self.device.name),
                "add `mapping: NAME` to the device, or set `attach` to id or port",
            ));
            return;
        };
        let entry = self.mapping(mappings).and_then(|m| m.entry(host));
        let good = |e: &MapEntry| {
            let at = e.path().is_some_and(|port| match sight {
                Sight::Here(places, _) => places.iter().any(|p| p.port == port),
                Sight::Absent(..) | Sight::CannotSee(_) => true,
            });
            at && e.id().is_some_and(|id| self.device.ids.contains(&id))
        };
        if entry.is_some_and(good) {
            return;
        }
        let place = match self.device.place_for(entry, host, sight.places()) {
            Ok(Some(place)) => place,
            Ok(None) => {
                // What is absent is 03's to say; what cannot be seen cannot be written down.
                let names_it = entry.and_then(MapEntry::id).is_some_and(|id| self.device.ids.contains(&id));
                if let Sight::CannotSee(why) = sight
                    && !names_it
                {
                    work.problems.push(Problem::new(
                        format!(
                            "mapping {name} names no {} at {host}, and where it is there cannot be seen: {}",
                            self.device.name,
                            why.join("; ")
                        ),
                        format!("add the entry by hand, or give these credentials Sys.Modify on / or ssh to {host}"),
                    ));
                }
                return;
            }
            Err(problem) => return work.problems.push(problem),
        };
        let new = MapEntry::new(host, place.id, Some(&place.port));
        let was = entry.map_or_else(|| "no entry".to_owned(), ToString::to_string);
        work.changes.push(Change::set(format!("mapping {name} for {host}"), was, new.to_string()));
        work.entry = Some(new);
    }

    /// The source VM must have let go first.
    async fn still_elsewhere(&self, cx: &Estate) -> Result<Vec<Problem>, Failure> {
        if self.source.vmid == self.vm.vmid {
            return Ok(Vec::new());
        }
        let View { at, config, sight, mappings, .. } = self.device.view(cx, &self.source).await?;
        let held = self.device.slots_in(&config, &at.node, sight.places(), &mappings);
        let problem = |(slot, value): (String, String)| {
            Problem::new(
                format!(
                    "usb device `{}` is still passed to vm {} ({slot}: {value})",
                    self.device.name, self.source.vmid
                ),
                format!("run `pvemig step 01-remove-usb --vmid {}`", self.source.vmid),
            )
            .mended_by("01-remove-usb")
        };
        let unjudged = self.device.unjudged(&config, &at.node, &sight, &mappings);
        Ok(held.into_iter().map(problem).chain(unjudged).collect())
    }

    fn not_here(&self, at: &VmRef, sight: &Sight) -> Option<Problem> {
        let Sight::Absent(_, by) = sight else { return None };
        let text = format!("{} is not at {} ({by})", self.device.title(), at.node);
        let help = format!("plug it in; `pvemig step 03-check-host-hardware --vmid {}` waits for it", at.vmid);
        Some(Problem::new(text, help).mended_by("03-check-host-hardware"))
    }
}

/// How a slot that this step wrote gets back what it had.
#[derive(Debug, PartialEq)]
enum Way<'b> {
    /// It has it.
    Is,
    /// By taking out what was written.
    Free,
    /// By setting it.
    Set(&'b str),
    /// It is neither what it was nor what was written.
    Foreign,
}

fn way_back<'b>(config: &Pending, before: &'b Before, slot: &str, set: &str) -> Way<'b> {
    let (now, was) = (config.configured(slot), before.slots.get(slot).map(String::as_str));
    if same_usb(now, was) {
        return Way::Is;
    }
    match was {
        _ if !same_usb(now, Some(set)) => Way::Foreign,
        Some(was) => Way::Set(was),
        None => Way::Free,
    }
}

/// Writes this host's entry of a mapping; makes the mapping where there is none.
///
/// # Errors
/// The change was refused or its outcome is unknown.
pub(super) async fn set_entry(
    pve: &Proxmox,
    name: &str,
    host: &str,
    entry: &MapEntry,
    exists: bool,
    permit: &Permit,
) -> Result<(), Failure> {
    if exists {
        Ok(pve.set_usb_mapping(name, host, Some(entry), permit).await?)
    } else {
        Ok(pve.create_usb_mapping(name, std::slice::from_ref(entry), permit).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::PendingKey;

    #[test]
    fn only_what_this_step_wrote_goes_back() {
        let set = "host=2-3,usb3=1";
        let before = |was: Option<&str>| Before {
            slots: was.map(|was| ("usb0".to_owned(), was.to_owned())).into_iter().collect(),
            set: [("usb0".to_owned(), set.to_owned())].into(),
            host: "fawn".into(),
            entry: None,
            mapping_existed: false,
        };
        let way = |now: Option<&str>, was: Option<&'static str>| {
            let key = PendingKey { value: now.map(str::to_owned), ..PendingKey::default() };
            let keys = now.map(|_| ("usb0".to_owned(), key)).into_iter().collect();
            let before = before(was);
            let way = way_back(&Pending { keys, digest: String::new() }, &before, "usb0", set);
            format!("{way:?}")
        };
        assert_eq!(way(None, None), "Is");
        assert_eq!(way(Some("usb3=1,host=2-3"), None), "Free");
        assert_eq!(way(Some("2-3"), Some("host=2-3")), "Is");
        assert_eq!(way(Some(set), Some("host=2-3")), "Set(\"host=2-3\")");
        for foreign in ["host=1-4", "host=2-3", "?"] {
            assert_eq!(way(Some(foreign), None), "Foreign", "{foreign}");
        }
        assert_eq!(way(None, Some("host=2-3")), "Foreign");
    }

    #[test]
    fn a_mapping_is_not_written_blindly() {
        let vm = |vmid| Vm { cluster: "home".into(), vmid, node: "n".into() };
        let device = Device {
            name: "coral".into(),
            ids: vec!["1a6e:089a".parse().unwrap()],
            serial: None,
            min_speed: None,
            sockets: BTreeMap::new(),
            mapping: Some("coral".into()),
        };
        let step = AddUsb { vm: vm(108), source: vm(105), device, attach: Attach::Mapping };
        let unseen = Sight::CannotSee(vec!["no right".into()]);
        let entry = |id: &str| MapEntry::new("fawn", id.parse().unwrap(), None);
        let asked = |map: Vec<MapEntry>, sight: &Sight| {
            let mapping = UsbMapping { id: "coral".into(), description: None, map, digest: None, errors: Vec::new() };
            step.work(&Pending { keys: BTreeMap::new(), digest: String::new() }, &[mapping], "fawn", sight)
        };
        for map in [Vec::new(), vec![entry("0000:0001")]] {
            let work = asked(map, &unseen);
            assert_eq!(work.problems.len(), 1);
            assert!(work.problems[0].text.contains("no right"), "{:?}", work.problems);
        }
        // Its id is all that a start needs; what is absent is said by another line.
        assert!(asked(vec![entry("1a6e:089a")], &unseen).problems.is_empty());
        assert!(asked(Vec::new(), &Sight::Absent(Vec::new(), "x".into())).problems.is_empty());
    }
}
