//! What a node sees on its USB buses and on PCI.

use serde::Deserialize;

use crate::base::names::{UsbId, UsbPort};

use super::api::Proxmox;
use super::error::Error;
use super::lenient;
use super::wire::{Call, seg};

/// A device on a node's USB bus, root hubs included; one that is passed to a VM still shows.
#[derive(Debug, Clone, PartialEq)]
pub struct HostUsb {
    /// The bus. A socket has one for USB2 and one for USB3.
    pub bus: u16,
    /// The device's number on the bus; changes at every re-enumeration.
    pub dev: u16,
    /// The way through the hubs, `1.4`; None for root hubs.
    pub path: Option<String>,
    /// Its id.
    pub id: UsbId,
    /// Mbit/s: 1.5, 12, 480, 5000, 10000.
    pub speed: f64,
    /// 0 for a root hub.
    pub level: u8,
    /// The device class; 9 is a hub.
    pub class: u8,
    /// Its own name, where it has one.
    pub product: Option<String>,
    /// Its maker's name, where it has one.
    pub manufacturer: Option<String>,
}

impl HostUsb {
    /// Where it is plugged in, as `host=` wants it; None for root hubs.
    pub fn port(&self) -> Option<UsbPort> {
        self.path.clone().map(|path| UsbPort { bus: self.bus, path })
    }

    /// True for hubs, root hubs included.
    pub fn is_hub(&self) -> bool {
        self.class == 9 || self.level == 0
    }
}

#[derive(Deserialize)]
struct Row {
    #[serde(deserialize_with = "lenient::number")]
    busnum: u16,
    #[serde(deserialize_with = "lenient::number")]
    devnum: u16,
    #[serde(default, deserialize_with = "lenient::text_opt")]
    usbpath: Option<String>,
    // Four hex digits; `1234` may come as a number.
    #[serde(deserialize_with = "lenient::text")]
    vendid: String,
    #[serde(deserialize_with = "lenient::text")]
    prodid: String,
    #[serde(deserialize_with = "lenient::number")]
    speed: f64,
    #[serde(default, deserialize_with = "lenient::number_opt")]
    level: Option<u8>,
    #[serde(default, deserialize_with = "lenient::number_opt")]
    class: Option<u8>,
    #[serde(default, deserialize_with = "lenient::text_opt")]
    product: Option<String>,
    #[serde(default, deserialize_with = "lenient::text_opt")]
    manufacturer: Option<String>,
}

/// A function on a node's PCI; one that is passed to a VM still shows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HostPciDevice {
    /// Its whole address, `0000:04:00.0`.
    pub id: String,
    /// Class, subclass and interface, `0x010802`.
    #[serde(default, deserialize_with = "lenient::text_opt")]
    class: Option<String>,
    /// `0x144d`
    #[serde(default, deserialize_with = "lenient::text_opt")]
    vendor: Option<String>,
    /// `0xa80a`
    #[serde(default, deserialize_with = "lenient::text_opt")]
    device: Option<String>,
    #[serde(default, deserialize_with = "lenient::text_opt")]
    subsystem_vendor: Option<String>,
    #[serde(default, deserialize_with = "lenient::text_opt")]
    subsystem_device: Option<String>,
    /// Its group; -1 where the host has no IOMMU at work.
    #[serde(default, deserialize_with = "lenient::number_opt")]
    pub iommugroup: Option<i64>,
}

/// `0x144d` -> `144d`
fn digits(text: Option<&String>) -> Option<String> {
    let text = text?.trim_start_matches("0x").to_ascii_lowercase();
    (text.len() == 4).then_some(text)
}

impl HostPciDevice {
    /// It is the controller of an NVMe drive.
    pub fn is_nvme(&self) -> bool {
        self.class.as_deref().is_some_and(|class| class.trim_start_matches("0x").starts_with("0108"))
    }

    /// `144d:a80a`, as a mapping has it.
    pub fn vendor_device(&self) -> Option<String> {
        Some(format!("{}:{}", digits(self.vendor.as_ref())?, digits(self.device.as_ref())?))
    }

    /// The same of its board.
    pub fn subsystem(&self) -> Option<String> {
        Some(format!("{}:{}", digits(self.subsystem_vendor.as_ref())?, digits(self.subsystem_device.as_ref())?))
    }
}

impl Proxmox {
    /// `GET /nodes/{node}/hardware/pci`. Needs Sys.Audit or Sys.Modify on `/`.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn pci_devices(&self, node: &str) -> Result<Vec<HostPciDevice>, Error> {
        self.read(&Call::get(format!("/nodes/{}/hardware/pci", seg(node)), format!("node {node}"))).await
    }

    /// `GET /nodes/{node}/hardware/usb`. Needs Sys.Modify on `/`; without it the answer is
    /// [`Error::NotAuthorized`], which is not "absent".
    ///
    /// # Errors
    /// Those of any question.
    pub async fn usb_devices(&self, node: &str) -> Result<Vec<HostUsb>, Error> {
        let call = Call::get(format!("/nodes/{}/hardware/usb", seg(node)), format!("node {node}"));
        let rows: Vec<Row> = self.read(&call).await?;
        rows.into_iter()
            .map(|row| {
                let id =
                    format!("{:0>4}:{:0>4}", row.vendid, row.prodid).parse().map_err(|error| Error::BadAnswer {
                        at: self.at(&call.target),
                        why: format!("{}: {error}", call.line()),
                        effect: crate::base::fault::Effect::None,
                    })?;
                Ok(HostUsb {
                    bus: row.busnum,
                    dev: row.devnum,
                    path: row.usbpath.filter(|path| !path.is_empty()),
                    id,
                    speed: row.speed,
                    level: row.level.unwrap_or_default(),
                    class: row.class.unwrap_or_default(),
                    product: row.product,
                    manufacturer: row.manufacturer,
                })
            })
            .collect()
    }
}
