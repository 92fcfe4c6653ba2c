//! The machine itself: its board, processors, memory and PCI devices.

use serde::Deserialize;

/// A PCI device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PciDevice {
    /// Its class in words.
    pub class: String,
    /// Who made it, in words.
    pub vendor: String,
    /// What it is, in words.
    pub product: String,
    /// Its class: `0x01` is storage.
    pub class_id: String,
    /// Its kind within the class: `0x08` of storage is NVMe.
    pub subclass_id: String,
    /// `0x10de`.
    pub vendor_id: String,
    /// `0x1f82`.
    pub product_id: String,
    /// The driver that is bound to it; empty where none is.
    pub driver: String,
}

/// A machine as its firmware tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SystemInformation {
    /// `QEMU`.
    pub manufacturer: String,
    /// Its model.
    #[serde(rename = "productName")]
    pub product_name: String,
    /// Its maker's version of it.
    pub version: String,
    /// Its serial number.
    pub serialnumber: String,
    /// Its uuid.
    pub uuid: String,
}

/// A processor. Newer versions tell more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Processor {
    /// Where it sits: `U3E1`.
    pub socket: String,
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub product_name: String,
    /// Its cores.
    pub core_count: u32,
    /// Those that are in use.
    pub core_enabled: u32,
    /// Its threads.
    pub thread_count: u32,
}

/// A memory module, or a place for one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MemoryModule {
    /// In MiB; 0 where there is none.
    #[serde(rename = "sizeMiB")]
    pub size_mib: u32,
    /// Where it sits: `SODIMM1`.
    pub device_locator: String,
    /// In which bank: `CHANNEL A`.
    pub bank_locator: String,
    /// In million transfers a second.
    pub speed: u32,
    /// Who made it.
    pub manufacturer: String,
    /// Its serial number.
    pub serial_number: String,
    /// What it is.
    pub product_name: String,
}
