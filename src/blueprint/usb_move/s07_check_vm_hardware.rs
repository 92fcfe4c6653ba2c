//! 07: the target's guest sees the device at its full speed, and what else the workload needs.

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::engine::step::{Risk, Seen, Step};
use crate::estate::Estate;
use crate::guest::GuestUsb;
use crate::proxmox::UsbValue;

use super::device::{Device, View, Vm};
use super::s05_reboot_vm::{Cycle, needs_power_cycle};

/// Looks for the device and the needed paths inside the guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckVmHardware {
    /// The VM.
    pub vm: Vm,
    /// The device.
    pub device: Device,
    /// Paths that must exist, as `/dev/dri`.
    pub paths: Vec<String>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

/// How the guest sees the device.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    /// Fast enough.
    Good(String),
    /// There, and too slow.
    Slow(String),
    /// Not there; this is.
    Absent(String),
}

impl Step<Estate> for CheckVmHardware {
    const ID: &'static str = "07-check-vm-hardware";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        let paths = self.paths.iter().map(|p| format!(" and {p}")).collect::<String>();
        format!("the guest of vm {} sees {}{paths}", self.vm.vmid, self.device.title())
    }

    fn why(&self) -> Vec<String> {
        vec![
            "QEMU starts without complaint when the device is absent, and passes it at USB2 speed without usb3=1."
                .into(),
            "By hand, in the guest: `lsusb`, and `lsusb -t` for the speed (5000M or more for the Coral).".into(),
            "Either id will do: the Coral changes it at its first inference.".into(),
        ]
    }

    async fn check(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let guest = cx.guest(&self.vm.node).await?;
        let usb = match guest.usb().await {
            Ok(usb) => usb,
            // A device that comes up right now makes a list that is not whole.
            Err(error @ crate::guest::Error::BadAnswer { .. }) => {
                return Ok(Check::waiting(Failure::from(error).to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let note = match sight(&self.device, &usb.value) {
            Sight::Good(note) => note,
            Sight::Slow(how) => return Ok(Check::blocked(vec![self.slow(cx, how).await?]).notes(usb.notes)),
            Sight::Absent(others) => {
                let reason = format!("the guest does not see {}; it sees {others}", self.device.title());
                return Ok(Check::waiting(self.absent(cx, reason).await?).notes(usb.notes));
            }
        };
        let mut missing = Vec::new();
        for path in &self.paths {
            if !guest.exists(path).await?.value {
                missing.push(path.clone());
            }
        }
        if !missing.is_empty() {
            let reason = format!(
                "the guest has no {}: is that hardware passed to vm {} and its driver loaded?",
                missing.join(", no "),
                self.vm.vmid
            );
            return Ok(Check::waiting(reason).notes(usb.notes));
        }
        let paths = self.paths.iter().map(|path| format!("{path} is there"));
        Ok(Check::done().note(note).notes(paths).notes(usb.notes))
    }
}

impl CheckVmHardware {
    /// Why the device is slow, as far as the VM's config tells: the entry, the running process, or the socket.
    async fn slow(&self, cx: &Estate, how: String) -> Result<Problem, Failure> {
        let View { pve, at, config, sight, mappings } = self.device.view(cx, &self.vm).await?;
        let slots = self.device.slots_in(&config, &at.node, sight.places(), &mappings);
        let vmid = self.vm.vmid;
        if let Some((slot, value)) = slots.iter().find(|(_, v)| v.parse::<UsbValue>().is_ok_and(|v| !v.usb3)) {
            let text = format!("{how}; vm {vmid} {slot} is `{value}`, without usb3=1");
            let help = format!("`pvemig step 04-add-usb --vmid {vmid}` adds it, then `pvemig step 05-reboot-vm`");
            return Ok(Problem::new(text, help).mended_by("04-add-usb"));
        }
        if needs_power_cycle(&pve, &at).await? != Cycle::NotNeeded {
            let text = format!("{how}; vm {vmid} does not run what is configured yet");
            let help = format!("`pvemig step 05-reboot-vm --vmid {vmid}`: only a power cycle applies usb3=1");
            return Ok(Problem::new(text, help).mended_by("05-reboot-vm"));
        }
        let help = format!(
            "replug it in {}, in a USB3 socket and with a USB3 cable; `pvemig step 03-check-host-hardware` shows the speed there",
            at.node
        );
        Ok(Problem::new(format!("{how}, with usb3=1 in the config of vm {vmid}"), help))
    }

    /// The reason for an absence, with what the VM's process lacks.
    async fn absent(&self, cx: &Estate, reason: String) -> Result<String, Failure> {
        let (pve, at, cycle) = self.vm.there(cx, needs_power_cycle).await?;
        Ok(match cycle {
            // A mapping is resolved when the VM starts or the entry is plugged in: no key shows that it changed since.
            Cycle::NotNeeded => match self.device.mapping.as_ref().map(|name| format!("mapping={name}")) {
                Some(entry) if pve.running_config(&at).await?.values().any(|v| v.split(',').any(|p| p == entry)) => {
                    let vmid = self.vm.vmid;
                    format!(
                        "{reason}; vm {vmid} has it by {entry}: where the mapping was changed since vm {vmid} started, \
                         `qm shutdown {vmid} --timeout 300 && qm start {vmid}` on {} applies it",
                        at.node
                    )
                }
                _ => reason,
            },
            Cycle::Start(state) => format!("{reason}; vm {} is {state}", self.vm.vmid),
            Cycle::Restart(changes) => {
                let changes = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                format!("{reason}; vm {} waits for a power cycle ({changes})", self.vm.vmid)
            }
        })
    }
}

/// Several of them: one that is fast enough will do.
fn sight(device: &Device, seen: &[GuestUsb]) -> Sight {
    let show = |d: &GuestUsb| {
        let port = d.port.as_ref().map(|p| format!(" at port {p}")).unwrap_or_default();
        format!("{}{port} ({} Mbit/s)", d.id, d.speed_mbit)
    };
    let (ours, others): (Vec<_>, Vec<_>) = seen.iter().partition(|d| device.ids.contains(&d.id));
    let min = device.min_speed.unwrap_or(0);
    if let Some(good) = ours.iter().find(|d| d.speed_mbit >= min) {
        return Sight::Good(format!("the guest sees {}", show(good)));
    }
    let all = |list: &[&GuestUsb]| list.iter().map(|d| show(d)).collect::<Vec<_>>().join(", ");
    if !ours.is_empty() {
        return Sight::Slow(format!("the guest sees {}, at least {min} Mbit/s are wanted", all(&ours)));
    }
    let others: Vec<_> = others.into_iter().filter(|d| d.port.is_some()).collect();
    Sight::Absent(if others.is_empty() { "no USB device".to_owned() } else { all(&others) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_id_will_do_and_a_slow_one_will_not() {
        let device = Device {
            name: "coral".into(),
            ids: vec!["1a6e:089a".parse().unwrap(), "18d1:9302".parse().unwrap()],
            serial: None,
            min_speed: Some(5000),
            sockets: Default::default(),
            mapping: None,
        };
        let usb = |id: &str, speed_mbit, port: Option<&str>| GuestUsb {
            id: id.parse().unwrap(),
            speed_mbit,
            port: port.map(|p| p.parse().unwrap()),
        };
        let hub = usb("1d6b:0003", 5000, None);
        for id in ["1a6e:089a", "18d1:9302"] {
            assert!(matches!(sight(&device, &[hub.clone(), usb(id, 5000, Some("2-1"))]), Sight::Good(_)), "{id}");
            let Sight::Slow(how) = sight(&device, &[usb(id, 480, Some("1-1"))]) else { panic!("{id}") };
            assert!(how.contains("480") && how.contains("5000"), "{how}");
        }
        let mixed = [usb("1a6e:089a", 480, Some("1-1")), usb("18d1:9302", 10000, Some("2-1"))];
        assert!(matches!(sight(&device, &mixed), Sight::Good(_)));
        assert_eq!(sight(&device, &[hub]), Sight::Absent("no USB device".into()));
        let Sight::Absent(others) = sight(&device, &[usb("046d:c31c", 1, Some("1-2"))]) else { panic!() };
        assert!(others.contains("046d:c31c"), "{others}");
        let any = Device { min_speed: None, ..device };
        assert!(matches!(sight(&any, &[usb("1a6e:089a", 12, Some("1-1"))]), Sight::Good(_)));
    }
}
