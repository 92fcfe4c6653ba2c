//! The closed list of questions that are asked by a command, and the reading of their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::names::{UsbId, UsbPort};
use crate::base::wait::limit;

use super::command::{Exit, Output};
use super::error::Error;
use super::nvme;

/// A question that is asked by running a command which changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The USB devices with port, ids and speed; [`usb_devices`] reads the answer.
    UsbList,
    /// The PCI devices, one a line (`lspci -nn`).
    PciList,
    /// The NVMe drives with place, serial number and size; [`super::nvme_drives`] reads the answer.
    NvmeList,
    /// The first blocks of the drive with this kernel name, `nvme0n1`; [`super::drive_parts`] reads the answer.
    PartitionTable(String),
    /// The kernel's boot id, another one after each boot.
    BootId,
    /// A file's content.
    File(String),
    /// Whether a path exists.
    Exists(String),
    /// Kilobytes below a directory, on its own file system (`du`).
    DiskUse(String),
    /// Seconds since boot (`/proc/uptime`).
    Uptime,
    /// A command that the site declares `reads: true`.
    Declared {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

impl Look {
    /// The command that asks. Programs go by their bare names: where they lie differs between systems.
    ///
    /// # Errors
    /// [`Error::BadCommand`] for a path that is not absolute, or an empty command.
    pub fn argv(&self) -> Result<Vec<String>, Error> {
        let words = |words: &[&str]| Ok(words.iter().map(|word| (*word).to_owned()).collect());
        match self {
            // sysfs and not `lsusb`: it is always installed, and says the speed. `-L`, as the entries are links.
            // Without a shell to expand a pattern, `find` does it, and `grep -H` shows each value with its path.
            Self::UsbList => words(&[
                "find",
                "-L",
                "/sys/bus/usb/devices",
                "-maxdepth",
                "2",
                "(",
                "-name",
                "idVendor",
                "-o",
                "-name",
                "idProduct",
                "-o",
                "-name",
                "speed",
                ")",
                "-exec",
                "grep",
                "-H",
                ".",
                "{}",
                "+",
            ]),
            Self::PciList => words(&["lspci", "-nn"]),
            // The path of an entry is the drive's place on the bus. Without `-L`: the entries below `/sys/devices` are the
            // devices themselves, and the links among them lead back up. The classes are those of PCI: a controller that the
            // kernel gave up has nothing else. `^` is any line, an empty one too.
            Self::NvmeList => words(&[
                "find",
                "/sys/devices",
                "-type",
                "f",
                "(",
                "-name",
                "class",
                "-o",
                "-path",
                "*/nvme/nvme*",
                "(",
                "-name",
                "serial",
                "-o",
                "-name",
                "model",
                "-o",
                "-name",
                "firmware_rev",
                "-o",
                "-name",
                "wwid",
                "-o",
                "-name",
                "size",
                ")",
                ")",
                "-exec",
                "grep",
                "-H",
                "^",
                "{}",
                "+",
            ]),
            // Bytes as text, as what a command says is text. Kernels before 6.13 do not tell a partition's uuid.
            Self::PartitionTable(name) => {
                let (count, device) = (nvme::HEAD.to_string(), format!("/dev/{}", drive(name)?));
                words(&["od", "-A", "n", "-v", "-t", "x1", "-N", &count, &device])
            }
            Self::BootId => words(&["cat", "/proc/sys/kernel/random/boot_id"]),
            Self::File(path) => words(&["cat", absolute(path)?]),
            Self::Exists(path) => words(&["test", "-e", absolute(path)?]),
            Self::DiskUse(path) => words(&["du", "-skx", absolute(path)?]),
            Self::Uptime => words(&["cat", "/proc/uptime"]),
            Self::Declared { argv } if argv.iter().all(String::is_empty) => {
                Err(Error::BadCommand { what: "the declared command is empty".into() })
            }
            Self::Declared { argv } => Ok(argv.clone()),
        }
    }

    /// How long the answer may take.
    pub fn limit(&self) -> Duration {
        match self {
            Self::DiskUse(_) => limit::MEASURE,
            _ => limit::LOOK,
        }
    }
}

/// A kernel name, which no path is.
fn drive(name: &str) -> Result<&str, Error> {
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(name);
    }
    Err(Error::BadCommand { what: format!("`{name}` is no kernel name of a drive") })
}

fn absolute(path: &str) -> Result<&str, Error> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path);
    }
    Err(Error::BadCommand { what: format!("`{path}` is not an absolute path") })
}

/// A USB device as a Linux kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestUsb {
    /// Vendor and product.
    pub id: UsbId,
    /// The negotiated speed in Mbit/s: 1.5 (shown as 1), 12, 480, 5000, 10000, ...
    pub speed_mbit: u32,
    /// Where it hangs; None for a root hub.
    pub port: Option<UsbPort>,
}

/// Reads the answer to [`Look::UsbList`]: lines like `/sys/bus/usb/devices/2-1/idVendor:1a6e`.
///
/// # Errors
/// [`Error::BadAnswer`] where the command failed or a line is none of these: not seen is not the same as not there.
pub fn usb_devices(output: &Output) -> Result<Vec<GuestUsb>, Error> {
    let bad = |why: String| Error::BadAnswer { what: "the list of USB devices".into(), why };
    // A device that leaves while the list is made costs `find` its exit status, but it says so on standard error.
    if !output.ok() {
        return Err(bad(output.summary()));
    }
    let mut devices: BTreeMap<&str, [Option<&str>; 3]> = BTreeMap::new();
    for line in output.stdout.lines() {
        let parts = line.strip_prefix("/sys/bus/usb/devices/").and_then(|rest| {
            let (path, value) = rest.rsplit_once(':')?;
            let (device, name) = path.split_once('/')?;
            let index = ["idVendor", "idProduct", "speed"].iter().position(|known| *known == name)?;
            Some((device, index, value.trim()))
        });
        let (device, index, value) = parts.ok_or_else(|| bad(format!("unexpected line `{line}`")))?;
        if let Some(slot) = devices.entry(device).or_default().get_mut(index) {
            *slot = Some(value);
        }
    }
    let mut list = Vec::new();
    for (device, values) in devices {
        let [Some(vendor), Some(product), Some(speed)] = values else {
            return Err(bad(format!("{device} is shown in part; it may be coming or going")));
        };
        let id = format!("{vendor}:{product}").parse().map_err(|error| bad(format!("{device}: {error}")))?;
        let whole = speed.split('.').next().unwrap_or(speed);
        let speed_mbit = whole.parse().map_err(|_| bad(format!("{device}: speed `{speed}`")))?;
        // Root hubs are called `usb1`, `usb2`; everything else by its port.
        list.push(GuestUsb { id, speed_mbit, port: device.parse().ok() });
    }
    Ok(list)
}

/// Reads the answer to [`Look::Exists`].
///
/// # Errors
/// [`Error::BadAnswer`] where `test` said neither yes nor no.
pub(super) fn existence(path: &str, output: &Output) -> Result<bool, Error> {
    match output.exit {
        Exit::Status(0) => Ok(true),
        Exit::Status(1) => Ok(false),
        _ => Err(Error::BadAnswer { what: format!("whether {path} exists"), why: output.summary() }),
    }
}

/// Reads the answer to [`Look::DiskUse`], in bytes.
///
/// # Errors
/// [`Error::BadAnswer`] where `du` could not read all of it.
pub(super) fn disk_use(path: &str, output: &Output) -> Result<u64, Error> {
    let bad = |why: String| Error::BadAnswer { what: format!("the size of {path}"), why };
    if !output.ok() {
        return Err(bad(output.summary()));
    }
    let first = output.stdout.split_whitespace().next().unwrap_or_default();
    let kib: u64 = first.parse().map_err(|_| bad(format!("`{first}` is no number")))?;
    Ok(kib.saturating_mul(1024))
}

/// Reads the answer to [`Look::BootId`] or [`Look::File`]: standard output of a command that succeeded.
///
/// # Errors
/// [`Error::BadAnswer`] where it did not.
pub(super) fn text(what: &str, output: Output) -> Result<String, Error> {
    if output.ok() && !output.truncated {
        return Ok(output.stdout);
    }
    let why = if output.truncated { "it is too long".to_owned() } else { output.summary() };
    Err(Error::BadAnswer { what: what.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(exit: i64, stdout: &str) -> Output {
        Output { exit: Exit::Status(exit), stdout: stdout.into(), stderr: "x: not found".into(), truncated: false }
    }

    #[test]
    fn usb_devices_are_read_from_sysfs() {
        let text = "\
/sys/bus/usb/devices/usb2/speed:5000
/sys/bus/usb/devices/usb2/idVendor:1d6b
/sys/bus/usb/devices/usb2/idProduct:0003
/sys/bus/usb/devices/2-1.4/idVendor:18d1
/sys/bus/usb/devices/2-1.4/idProduct:9302
/sys/bus/usb/devices/2-1.4/speed:5000
/sys/bus/usb/devices/1-2/idVendor:046d
/sys/bus/usb/devices/1-2/idProduct:c31c
/sys/bus/usb/devices/1-2/speed:1.5
";
        let found = usb_devices(&output(0, text)).unwrap();
        let shown: Vec<_> =
            found.iter().map(|d| (d.id.to_string(), d.speed_mbit, d.port.as_ref().map(ToString::to_string))).collect();
        let usb = |id: &str, speed, port: Option<&str>| (id.to_owned(), speed, port.map(str::to_owned));
        assert_eq!(
            shown,
            [usb("046d:c31c", 1, Some("1-2")), usb("18d1:9302", 5000, Some("2-1.4")), usb("1d6b:0003", 5000, None)]
        );
        assert_eq!(usb_devices(&output(0, "")).unwrap(), []);
    }

    #[test]
    fn what_is_not_a_whole_list_is_an_error() {
        let part = "/sys/bus/usb/devices/2-1/idVendor:1a6e\n/sys/bus/usb/devices/2-1/speed:5000\n";
        for bad in [output(1, ""), output(0, "nonsense\n"), output(0, part), output(127, "")] {
            let error = usb_devices(&bad).unwrap_err();
            assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
        }
    }

    #[test]
    fn not_there_is_not_the_same_as_not_known() {
        assert!(existence("/dev/dri", &output(0, "")).unwrap());
        assert!(!existence("/dev/dri", &output(1, "")).unwrap());
        existence("/dev/dri", &output(127, "")).unwrap_err();
        assert_eq!(disk_use("/var", &output(0, "12\t/var\n")).unwrap(), 12 * 1024);
        disk_use("/var", &output(1, "12\t/var\n")).unwrap_err();
        disk_use("/var", &output(0, "")).unwrap_err();
    }

    #[test]
    fn paths_are_absolute_and_commands_not_empty() {
        for look in [Look::File("-x".into()), Look::Exists("a".into()), Look::Declared { argv: vec![] }] {
            assert!(matches!(look.argv().unwrap_err(), Error::BadCommand { .. }), "{look:?}");
        }
        assert_eq!(Look::Exists("/dev/dri".into()).argv().unwrap(), ["test", "-e", "/dev/dri"]);
        for name in ["", "/dev/nvme0n1", "../nvme0n1", "nvme0n1 x", "-x"] {
            let error = Look::PartitionTable(name.into()).argv().unwrap_err();
            assert!(matches!(error, Error::BadCommand { .. }), "{name}");
        }
        let argv = Look::PartitionTable("nvme0n1".into()).argv().unwrap();
        assert_eq!(argv.join(" "), "od -A n -v -t x1 -N 69632 /dev/nvme0n1");
    }
}
