//! What a host's kernel shows of its NVMe drives, by ssh.

use crate::base::drives::{Drive, Inventory, Layout, Plan, Port, pci_address};
use crate::base::fault::Failure;
use crate::estate::Estate;
use crate::guest::Error;

/// A host that answers.
pub(in super::super) struct View {
    /// Its name.
    pub(in super::super) host: String,
    /// The boot that it is in.
    pub(in super::super) boot: String,
    /// Its drives, and the controllers of those that it does not see.
    pub(in super::super) inventory: Inventory,
}

/// How a host stands.
pub(in super::super) enum Host {
    /// It answers.
    Shown(View),
    /// It does not, and why.
    Silent(String),
}

/// What is at an address on a host's PCI.
pub(in super::super) enum At<'a> {
    /// A drive.
    Drive(&'a Drive),
    /// The controller of a drive that the host does not see: a VM has had it since the host's boot, or it does not come up.
    Hidden,
    /// No NVMe drive.
    None,
}

/// Asks a host of a VM.
///
/// # Errors
/// It cannot be asked though it is there, or the site file has no ssh for it.
pub(in super::super) async fn view(cx: &Estate, cluster: &str, host: &str) -> Result<Host, Failure> {
    let Some(guest) = cx.host(cluster, host).await? else {
        let help = format!("add `ssh:` to host {host} of `proxmox: {cluster}:` in the site file");
        return Err(Failure::plain(format!("the site file has no ssh for {host}, which has the drives"), Some(help)));
    };
    let asked = async {
        let boot = guest.boot_id().await?.value;
        // A host that has just booted finds its drives one by one: a list that changes meanwhile is asked for again.
        let mut asked = guest.drives().await;
        for _ in 0..2 {
            if matches!(asked, Err(Error::BadAnswer { .. })) {
                asked = guest.drives().await;
            }
        }
        let seen = asked?.value;
        // Another boot has other drives.
        let again = guest.boot_id().await?.value;
        Ok::<_, Error>((boot == again).then_some((boot, seen)))
    };
    match asked.await {
        Ok(Some((boot, inventory))) => Ok(Host::Shown(View { host: host.to_owned(), boot, inventory })),
        Ok(None) => Ok(Host::Silent(format!("{host} was booting"))),
        Err(
            error @ (Error::ConnectionRefused { .. }
            | Error::Unreachable { .. }
            | Error::TimedOut { .. }
            | Error::SessionLost { .. }),
        ) => Ok(Host::Silent(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

impl View {
    /// What is at an address.
    pub(in super::super) fn at(&self, address: &str) -> At<'_> {
        let has = |drive: &&Drive| pci_address(&drive.bus_path).as_deref() == Some(address);
        if let Some(drive) = self.inventory.drives.iter().find(has) {
            return At::Drive(drive);
        }
        let hidden = self.inventory.controllers_without_a_disk.iter().any(|one| one.address == address);
        if hidden { At::Hidden } else { At::None }
    }

    /// The slot's port of what is at an address.
    pub(in super::super) fn port(&self, address: &str) -> Option<Port> {
        match self.at(address) {
            At::Drive(drive) => drive.port(),
            At::Hidden => {
                self.inventory.controllers_without_a_disk.iter().find(|one| one.address == address)?.port.clone()
            }
            At::None => None,
        }
    }

    /// The drives of a plan as they are in the host: by their serial numbers alone, as what is on them is the VM's business.
    pub(in super::super) fn find(&self, plan: &Plan, name: &str) -> Vec<&Drive> {
        let Some(wanted) = plan.drives.get(name) else { return Vec::new() };
        let serial = wanted.serial.trim();
        let is = |drive: &&Drive| !serial.is_empty() && drive.serial.trim() == serial;
        self.inventory.drives.iter().filter(is).collect()
    }

    /// Which drive of a plan is in which slot. One that the host does not see, though it has controllers of which it sees no
    /// drive, is taken to be where it was.
    pub(in super::super) fn seats(&self, plan: &Plan, was: &Layout) -> Layout {
        let hidden = !self.inventory.controllers_without_a_disk.is_empty();
        let slot = |name: &String| match self.find(plan, name).as_slice() {
            [drive] => {
                let port = drive.port();
                plan.slots.iter().find(|slot| port.is_some() && slot.port == port).map(|slot| slot.name.clone())
            }
            [] if hidden => Plan::slot_of(was, name).map(str::to_owned),
            _ => None,
        };
        plan.drives.keys().filter_map(|name| Some((slot(name)?, name.clone()))).collect()
    }

    /// What is not as a layout has it: a line each.
    pub(in super::super) fn amiss(&self, plan: &Plan, layout: &Layout) -> Vec<String> {
        let host = &self.host;
        let mut out = Vec::new();
        for (slot, name) in layout {
            let serial = plan.drives.get(name).map(|wanted| wanted.serial.trim()).unwrap_or_default();
            let port = plan.slots.iter().find(|one| one.name == *slot).and_then(|one| one.port.clone());
            let of = |port: &Port| plan.slots.iter().find(|one| one.port.as_ref() == Some(port));
            match self.find(plan, name).as_slice() {
                [drive] if port.is_some() && drive.port() == port => {}
                [drive] => {
                    let at = drive.port();
                    let is = at.as_ref().and_then(of).map(|slot| slot.name.clone());
                    let is = is.or(at.map(|port| format!("the slot at {port}"))).unwrap_or_else(|| "no slot".into());
                    out.push(format!("{name} ({serial}) is in {is} of {host}, and belongs into {slot}"));
                }
                [] => {
                    let hidden = self.inventory.controllers_without_a_disk.iter().find(|one| one.port == port);
                    out.push(match hidden {
                        Some(one) => format!(
                            "{name} ({serial}): {host} has a controller in {slot} ({}) and shows no drive of it: a VM has had it \
                             since the host's boot, vfio-pci is set to take it, or it is dead",
                            one.address
                        ),
                        None => format!("{name} ({serial}) is not seen in {host}"),
                    });
                }
                many => out.push(format!("{} drives of {host} have the serial number {serial} of {name}", many.len())),
            }
        }
        out
    }
}
