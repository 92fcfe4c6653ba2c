//! What a Proxmox host's kernel shows of its NVMe drives, by ssh.

use super::super::Estate;
use super::{Why, told, unknown};
use futures::future::join_all;

use crate::base::drives::sheet::{Bays, Row, Told, seats};
use crate::base::drives::{Drive, Link, pci_address};
use crate::guest::{self, Guest, Look};
use crate::site::Host;

impl Estate {
    /// The slots and NVMe drives of a Proxmox host. What has been handed to a VM its kernel does not see.
    pub(super) async fn bays_of(&self, cluster: &str, name: &str, host: &Host) -> Told<Bays> {
        let guest = match self.host(cluster, name).await {
            Ok(Some(guest)) => guest,
            Ok(None) => return Told::not(format!("the site file has no ssh for {name}")),
            Err(failure) => return unknown(Why::of(&failure)),
        };
        let looked = async {
            let seen = guest.drives().await?;
            let rows = join_all(seen.value.drives.into_iter().map(|drive| row(&guest, drive))).await;
            Ok::<_, guest::Error>((rows, seen.value.controllers_without_a_disk))
        };
        let (rows, controllers) = match self.bounded(&format!("host {name}"), Box::pin(looked)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return told(Err(error)),
            Err(why) => return unknown(why),
        };
        let (drives, controllers) = (Told::Is(rows), Told::Is(controllers));
        Told::Is(Bays {
            slots: seats(&host.slots, &drives, &controllers, None),
            drives,
            controllers_without_a_disk: controllers,
            no_ports: None,
            not_asked: vec!["what Proxmox and its VMs have them for: no question of pvemig's tells".into()],
            on_no_drive: Vec::new(),
        })
    }
}

async fn row(guest: &Guest, drive: Drive) -> Row {
    let firmware = Told::Is(drive.firmware.clone());
    let link = link(guest, &drive).await;
    Row::of(drive, Some(firmware), Some(link))
}

async fn link(guest: &Guest, drive: &Drive) -> Told<Link> {
    let Some(address) = pci_address(&drive.bus_path) else {
        return Told::not(format!("{} does not tell where it is plugged in", drive.id));
    };
    let file = async |name: &str| {
        let look = Look::File(format!("/sys/bus/pci/devices/{address}/current_link_{name}"));
        match guest.look(&look).await {
            Ok(seen) if seen.value.ok() => Ok(seen.value.stdout.trim().to_owned()),
            Ok(seen) => Err(Told::not(seen.value.summary())),
            Err(error) => Err(told(Err(error))),
        }
    };
    let (speed, width) = match (file("speed").await, file("width").await) {
        (Ok(speed), Ok(width)) => (speed, width),
        (Err(why), _) | (_, Err(why)) => return why,
    };
    match width.parse() {
        Ok(width) => Told::Is(Link { speed, width }),
        Err(_) => Told::not(format!("the width of the link of {address} is no number")),
    }
}
