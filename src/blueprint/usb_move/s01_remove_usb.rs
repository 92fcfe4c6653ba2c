//! 01: the source VM names the device no longer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::proxmox::{ConfigChange, MapEntry, Pending, PendingKey, Proxmox, UsbSource, UsbValue, VmRef};

use super::device::{Device, Place, Sight, View, Vm, same_usb};
use super::power::{locked, unless_locked, write_config};
use super::s04_add_usb::set_entry;

/// Takes every entry that names the device out of a VM's config.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveUsb {
    /// The VM that has the device.
    pub vm: Vm,
    /// The device.
    pub device: Device,
}

/// The entries as they were, and where the device was plugged in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// Slot and value.
    pub entries: Vec<(String, String)>,
    /// The device's place on the VM's host; None where it could not be seen.
    pub place: Option<Place>,
}

impl Step<Estate> for RemoveUsb {
    const ID: &'static str = "01-remove-usb";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("vm {} ({}) gives up {}", self.vm.vmid, self.vm.node, self.device.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Two VMs may name the same device; the one that starts first gets it, and nothing warns.".into(),
            "By hand: `qm set VMID --delete usbN` on the host, for every entry that names the device.".into(),
            "An entry by raw id or port can be removed with a root@pam ticket only; no API token may.".into(),
            "On an old machine type the deletion stays pending and happens at the VM's next power cycle.".into(),
        ]
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let back = format!("plug {} back where it was, if it was carried", self.device.name);
        Outlook::changes(System::Proxmox, [format!("vm {}", self.vm.vmid)]).asks_back(back).hits()
    }

    async fn check(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let View { pve, at, config, sight, mappings } = self.device.view(cx, &self.vm).await?;
        let entries = self.device.slots_in(&config, &at.node, sight.places(), &mappings);
        let unjudged = self.device.unjudged(&config, &at.node, &sight, &mappings);
        if !unjudged.is_empty() {
            return Ok(Check::blocked(unjudged));
        }
        if entries.is_empty() {
            let leaving = config
                .usb()
                .into_iter()
                .filter(|(_, key)| key.delete)
                .map(|(slot, _)| format!("usb{slot} leaves vm {} at its next power cycle", self.vm.vmid));
            return Ok(Check::done().notes(leaving).notes(self.by_port(&config, &at.node, &sight)));
        }
        let status = pve.status(&at).await?;
        if let Some(lock) = status.lock {
            return locked(&pve, &at, &lock).await;
        }
        let change = |(slot, value): &(String, String)| Change::remove(format!("vm {} {slot}", self.vm.vmid), value);
        let changes = entries.iter().map(change).collect();
        let place = self.device.origin(&at.node, sight.places(), &entries);
        let note = (place.is_none() && !sight.places().is_empty()).then(|| {
            let all = sight.places().iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            format!("which of the equal devices {all} it is nobody can tell: note where you take it from")
        });
        Ok(Check::todo(changes, Before { entries, place }).notes(note))
    }

    async fn apply(&self, cx: &Estate, _seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let View { pve, at, config, sight, mappings } = self.device.view(cx, &self.vm).await?;
        let entries = self.device.slots_in(&config, &at.node, sight.places(), &mappings);
        if entries.is_empty() {
            return Ok(());
        }
        let delete = entries.into_iter().map(|(slot, _)| slot).collect();
        let change = ConfigChange { delete, digest: Some(config.digest), ..ConfigChange::default() };
        write_config(&pve, &at, &change, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, _seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let (pve, at, config) = self.vm.config(cx).await?;
        let (mut changes, mut stays) = (Vec::new(), Vec::new());
        for (slot, value) in &before.entries {
            match config.configured(slot) {
                now if same_usb(now, Some(value)) => {
                    if config.keys.get(slot).is_some_and(PendingKey::is_pending) {
                        let vmid = self.vm.vmid;
                        stays.push(format!(
                            "{slot} is back in the config and stays pending until vm {vmid}'s next power cycle"
                        ));
                    }
                }
                None => changes.push(Change::add(format!("vm {} {slot}", self.vm.vmid), value)),
                Some(now) => {
                    return Ok(Check::blocked(vec![Problem::new(
                        format!("vm {} {slot} was `{value}`, this run removed it, and now it is `{now}`", self.vm.vmid),
                        format!("free {slot} of vm {} or keep what it has, then run undo again", self.vm.vmid),
                    )]));
                }
            }
        }
        if changes.is_empty() {
            return Ok(Check::done().stays(stays));
        }
        let Some(place) = &before.place else {
            let check = Check::todo(changes, ()).note("where the device was before is not known: see to it yourself");
            return unless_locked(&pve, &at, check).await;
        };
        let sight = self.device.look(cx, &self.vm.cluster, &place.host).await?;
        let note = match &sight {
            Sight::CannotSee(reasons) => Some(format!("cannot see the device: {}", reasons.join("; "))),
            Sight::Here(..) | Sight::Absent(..) => {
                if let Some(asked) = self.device.ask_back(sight.places(), place) {
                    return Ok(asked);
                }
                None
            }
        };
        unless_locked(&pve, &at, Check::todo(changes, ()).notes(note)).await
    }

    async fn undo(&self, cx: &Estate, before: &Before, _: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (pve, at, config) = self.vm.config(cx).await?;
        let mut change = ConfigChange { digest: Some(config.digest.clone()), ..ConfigChange::default() };
        for (slot, value) in before.entries.iter().filter(|(slot, _)| config.configured(slot).is_none()) {
            // While the deletion is only pending, the entry is still there: taking the deletion back is all.
            if config.keys.get(slot).is_some_and(|key| key.delete && same_usb(key.value.as_deref(), Some(value))) {
                change.revert.push(slot.clone());
            } else {
                change.set.push((slot.clone(), value.clone()));
            }
        }
        if change.set.is_empty() && change.revert.is_empty() {
            return Ok(());
        }
        for (_, value) in &before.entries {
            if let Ok(UsbSource::Mapping(name)) = value.parse::<UsbValue>().map(|value| value.source) {
                self.refresh_entry(cx, &pve, &at, &name, permit).await?;
            }
        }
        write_config(&pve, &at, &change, permit).await
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(30)
    }
}

impl RemoveUsb {
    /// Entries by port that nobody can hold against the device: it is not there, and the site names no socket.
    fn by_port(&self, config: &Pending, host: &str, sight: &Sight) -> Vec<String> {
        if !matches!(sight, Sight::Absent(..)) || self.device.sockets.contains_key(host) {
            return Vec::new();
        }
        let entry = |(slot, key): (u8, &PendingKey)| {
            let text = key.configured()?;
            let by_port = matches!(text.parse::<UsbValue>().ok()?.source, UsbSource::Port(_));
            by_port.then(|| {
                format!("usb{slot} (`{text}`) stays: {} is not at {host}, so this may be another's", self.device.name)
            })
        };
        config.usb().into_iter().filter_map(entry).collect()
    }

    /// Carried about, the device has lost its firmware and shows another id: a mapping that names the former one gives
    /// the VM nothing, neither now nor at its next start. The port is not touched.
    async fn refresh_entry(
        &self,
        cx: &Estate,
        pve: &Proxmox,
        at: &VmRef,
        name: &str,
        permit: &Permit,
    ) -> Result<(), Failure> {
        let sight = self.device.look(cx, &self.vm.cluster, &at.node).await?;
        let mappings = pve.usb_mappings(None).await?;
        let entry = mappings.iter().find(|m| m.id == name).and_then(|m| m.entry(&at.node));
        let Some(entry) = entry else { return Ok(()) };
        let other = |place: &&Place| entry.path().as_ref() == Some(&place.port) && entry.id() != Some(place.id);
        let Some(place) = sight.places().iter().find(other) else { return Ok(()) };
        let fresh = MapEntry::new(&at.node, place.id, Some(&place.port));
        set_entry(pve, name, &at.node, &fresh, true, permit).await
    }
}
