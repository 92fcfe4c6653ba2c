//! NVMe drives as a Linux kernel shows them, and what the first blocks of one say.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Output, Seen};
use super::error::Error;
use super::{Guest, Look};
use crate::base::drives::gpt::{self, BadTable};
use crate::base::drives::{Controller, Drive, Inventory, Part, Port};
use crate::base::fault::Fault;
use crate::base::survey::Layer;

/// The bytes from a drive's beginning that are looked at: partition tables with blocks of either size, and the superblocks
/// that file systems have near the beginning, of which that of btrfs is the farthest (at 65,536, 4,096 bytes).
pub(super) const HEAD: u32 = 69_632;

/// The class of a PCI function that is an NVMe controller: mass storage, non-volatile memory, NVM Express (PCI Code and ID
/// Assignment Specification 1.11, 1.2).
const CLASS: &str = "0x010802";

/// What a controller and its namespaces say of themselves.
#[derive(Default)]
struct Shown<'o> {
    serial: Option<&'o str>,
    model: Option<&'o str>,
    firmware: Option<&'o str>,
    namespaces: BTreeMap<Namespace, Told<'o>>,
}

#[derive(Default)]
struct Told<'o> {
    size: Option<&'o str>,
    wwid: &'o str,
}

/// A namespace by its numbers: `nvme0n1`, or `nvme0c1n1` where the kernel keeps several paths to one together; the device is
/// `nvme0n1` then, too.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Namespace {
    subsystem: u32,
    number: u32,
}

/// Reads the answer to [`Look::NvmeList`]: lines like
/// `/sys/devices/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme/nvme0/nvme0n1/size:1953525168`, and the classes of all that is on
/// PCI: a controller that the kernel gave up is there alone. It gives up one of two with one qualified name, which
/// drives that tell none are given from model and serial number (`nvme_validate_cntlid`).
///
/// What is on a drive is not asked by that.
///
/// # Errors
/// [`Error::BadAnswer`] where the command failed, or the list is not whole: not seen is not the same as not there.
pub fn nvme_drives(output: &Output) -> Result<Inventory, Error> {
    let bad = |why: String| Error::BadAnswer { what: "the list of NVMe drives".into(), why };
    if !output.ok() || output.truncated {
        return Err(bad(if output.truncated { "it is too long".into() } else { output.summary() }));
    }
    let mut controllers: BTreeMap<(u32, &str), Shown<'_>> = BTreeMap::new();
    let mut functions: BTreeSet<&str> = BTreeSet::new();
    for line in output.stdout.lines() {
        if let Some((function, class)) = line.strip_prefix("/sys/devices").and_then(|rest| rest.split_once("/class:")) {
            if class.starts_with(CLASS) {
                functions.insert(function);
            }
            continue;
        }
        let (bus, controller, below, value) = parts(line).ok_or_else(|| bad(format!("unexpected line `{line}`")))?;
        let seen = controllers.entry((controller, bus)).or_default();
        match below[..] {
            ["serial"] => seen.serial = Some(value),
            ["model"] => seen.model = Some(value),
            ["firmware_rev"] => seen.firmware = Some(value),
            [name, leaf @ ("size" | "wwid")] => {
                // A partition has a size as well, a level deeper.
                let Some(namespace) = namespace(name) else { continue };
                let told = seen.namespaces.entry(namespace).or_default();
                if leaf == "size" {
                    told.size = Some(value);
                } else {
                    told.wwid = value;
                }
            }
            _ => {}
        }
    }
    let mut inventory = Inventory::default();
    for ((number, bus), seen) in controllers {
        let part = |what: &str| bad(format!("{what} is shown in part; it may be coming or going"));
        let (Some(serial), Some(model), Some(firmware)) = (seen.serial, seen.model, seen.firmware) else {
            return Err(part(&format!("nvme{number}")));
        };
        let function = bus.trim_end_matches("/nvme");
        if seen.namespaces.is_empty() {
            functions.insert(function);
        } else {
            functions.remove(function);
        }
        for (namespace, told) in seen.namespaces {
            let id = format!("nvme{}n{}", namespace.subsystem, namespace.number);
            let blocks = told.size.ok_or_else(|| part(&id))?;
            let blocks: u64 = blocks.parse().map_err(|_| bad(format!("{id}: size `{blocks}`")))?;
            inventory.drives.push(Drive {
                id,
                model: model.trim().to_owned(),
                serial: serial.trim().to_owned(),
                wwid: told.wwid.trim().to_owned(),
                firmware: firmware.trim().to_owned(),
                // Of 512 bytes, whatever the drive's own are.
                size: blocks.saturating_mul(512),
                transport: "nvme".into(),
                bus_path: bus.to_owned(),
                parts: Layer::Absent,
                ..Drive::default()
            });
        }
    }
    let idle = |function: &str| {
        let address = function.rsplit('/').next().unwrap_or_default().to_owned();
        Controller { address, port: Port::of(function) }
    };
    inventory.controllers_without_a_disk = functions.into_iter().map(idle).collect();
    Ok(inventory)
}

/// Bus path, number of the controller, what is below it, value.
fn parts(line: &str) -> Option<(&str, u32, Vec<&str>, &str)> {
    let path = line.strip_prefix("/sys/devices")?;
    let at = path.find("/nvme/nvme")? + "/nvme".len();
    let (bus, rest) = path.split_at_checked(at)?;
    let (below, value) = rest.strip_prefix('/')?.split_once(':')?;
    let mut below = below.split('/');
    let controller = number(below.next()?.strip_prefix("nvme")?)?;
    Some((bus, controller, below.collect(), value))
}

fn namespace(name: &str) -> Option<Namespace> {
    let (path, last) = name.strip_prefix("nvme")?.split_once('n')?;
    let subsystem = match path.split_once('c') {
        Some((subsystem, controller)) => {
            number(controller)?;
            subsystem
        }
        None => path,
    };
    Some(Namespace { subsystem: number(subsystem)?, number: number(last)? })
}

fn number(text: &str) -> Option<u32> {
    text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads the answer to [`Look::PartitionTable`]: what is on a drive, as far as its first blocks tell.
///
/// # Errors
/// [`Error::BadAnswer`] where not all of it could be read, or there is a partition table that cannot be believed.
pub fn drive_parts(drive: &str, output: &Output) -> Result<Vec<Part>, Error> {
    let bad = |why: String| Error::BadAnswer { what: format!("what is on {drive}"), why };
    if !output.ok() || output.truncated {
        return Err(bad(if output.truncated { "it is too long".into() } else { output.summary() }));
    }
    let bytes: Option<Vec<u8>> = output.stdout.split_ascii_whitespace().map(byte).collect();
    let bytes = bytes.ok_or_else(|| bad("it was not shown as bytes".into()))?;
    gpt::parts(&bytes).map_err(|error: BadTable| bad(error.to_string()))
}

/// Two digits.
fn byte(word: &str) -> Option<u8> {
    (word.len() == 2).then(|| u8::from_str_radix(word, 16).ok()).flatten()
}

impl Guest {
    /// The NVMe drives that the machine sees, and what is on each; that is unknown of one which could not be read.
    ///
    /// # Errors
    /// As [`Guest::look`]; an answer that is no whole list counts as none, and so does a list of which others were there
    /// once all of them had been read: a kernel name belongs to another drive after a boot.
    pub async fn drives(&self) -> Result<Seen<Inventory>, Error> {
        let list = async || self.ask(&Look::NvmeList, |output| nvme_drives(&output)).await;
        let mut seen = list().await?;
        let mut parts = Vec::new();
        for drive in &seen.value.drives {
            let look = Look::PartitionTable(drive.id.clone());
            parts.push(match self.ask(&look, |output| drive_parts(&drive.id, &output)).await {
                Ok(seen) => Layer::Known(seen.value),
                Err(error) => Layer::Unknown { reason: error.line(), help: error.help() },
            });
        }
        if !parts.is_empty() && list().await?.value != seen.value {
            let why = "other drives were there once they had been read".into();
            return Err(Error::BadAnswer { what: "the list of NVMe drives".into(), why });
        }
        for (drive, parts) in seen.value.drives.iter_mut().zip(parts) {
            drive.parts = parts;
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Exit;
    use super::*;

    fn output(exit: i64, stdout: &str) -> Output {
        Output { exit: Exit::Status(exit), stdout: stdout.into(), stderr: "find: gone".into(), truncated: false }
    }

    /// What busybox said in a guest of Debian's kernel 6.1 with three controllers of QEMU 7.2: an ordinary one, one that
    /// may be reached over several paths, and one without a namespace.
    const OBSERVED: &str = "\
/sys/devices/pci0000:00/0000:00:01.0/class:0x060100
/sys/devices/pci0000:00/0000:00:10.0/class:0x010802
/sys/devices/pci0000:00/0000:00:12.0/class:0x010802
/sys/devices/pci0000:00/0000:00:13.0/class:0x010802
/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0/nvme0n1/nvme0n1p1/size:20480
/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0/nvme0n1/wwid:nvme.1b36-533445564e58305231313131313141-51454d55204e564d65204374726c-00000001
/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0/nvme0n1/size:131072
/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0/model:QEMU NVMe Ctrl                          \n\
/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0/firmware_rev:7.2.22  \n\
/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0/serial:S4EVNX0R111111A     \n\
/sys/devices/pci0000:00/0000:00:13.0/nvme/nvme2/model:QEMU NVMe Ctrl                          \n\
/sys/devices/pci0000:00/0000:00:13.0/nvme/nvme2/firmware_rev:7.2.22  \n\
/sys/devices/pci0000:00/0000:00:13.0/nvme/nvme2/serial:EMPTY1              \n\
/sys/devices/pci0000:00/0000:00:12.0/nvme/nvme1/nvme1c1n1/wwid:nvme.1b36-4d554c544931-51454d55204e564d65204374726c-00000001
/sys/devices/pci0000:00/0000:00:12.0/nvme/nvme1/nvme1c1n1/size:131072
/sys/devices/pci0000:00/0000:00:12.0/nvme/nvme1/model:QEMU NVMe Ctrl                          \n\
/sys/devices/pci0000:00/0000:00:12.0/nvme/nvme1/firmware_rev:7.2.22  \n\
/sys/devices/pci0000:00/0000:00:12.0/nvme/nvme1/serial:MULTI1              \n";

    #[test]
    fn drives_are_read_from_sysfs() {
        let found = nvme_drives(&output(0, OBSERVED)).unwrap();
        let drives: Vec<_> = found.drives.iter().map(|d| (d.id.as_str(), d.serial.as_str(), d.size)).collect();
        assert_eq!(drives, [("nvme0n1", "S4EVNX0R111111A", 64 << 20), ("nvme1n1", "MULTI1", 64 << 20)]);
        let first = &found.drives[0];
        assert_eq!((first.model.as_str(), first.firmware.as_str()), ("QEMU NVMe Ctrl", "7.2.22"));
        assert_eq!(first.bus_path, "/pci0000:00/0000:00:10.0/nvme");
        assert_eq!(first.port().unwrap().as_str(), "0000:00:10.0");
        assert!(first.wwid.starts_with("nvme.1b36-5334") && first.parts.is_absent());
        let idle: Vec<_> = found.controllers_without_a_disk.iter().map(|one| one.address.as_str()).collect();
        assert_eq!(idle, ["0000:00:13.0"]);
        assert_eq!(nvme_drives(&output(0, "")).unwrap(), Inventory::default());
        // One that the kernel gave up, behind a bridge.
        let dead = "/sys/devices/pci0000:00/0000:00:1d.0/0000:04:00.0/class:0x010802\n";
        let found = nvme_drives(&output(0, dead)).unwrap();
        let port = "0000:00:1d.0".parse().ok();
        let controller = Controller { address: "0000:04:00.0".into(), port };
        assert_eq!(found, Inventory { controllers_without_a_disk: vec![controller], ..Inventory::default() });
    }

    #[test]
    fn names_are_ordered_by_their_numbers_and_places_read_behind_bridges() {
        let one = |bus: &str, number: u32, more: &str| {
            let at = format!("/sys/devices{bus}/nvme/nvme{number}");
            let line = |name: &str, value: &str| format!("{at}/{name}:{value}\n");
            [
                line("serial", ""),
                line("model", "WD: a/nvme/nvme9/x:1"),
                line("firmware_rev", ""),
                line(&format!("nvme{number}n1/size"), "8"),
                line(&format!("nvme{number}n1/wwid"), "eui.0"),
                more.replace('@', &at),
            ]
            .concat()
        };
        let text = [
            one("/pci0000:00/0000:00:1d.0/0000:04:00.0", 10, "@/nvme10n2/size:16\n@/hwmon3/model:x\n"),
            one("/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0", 2, ""),
        ];
        let found = nvme_drives(&output(0, &text.concat())).unwrap();
        let shown: Vec<_> = found
            .drives
            .iter()
            .map(|d| (d.id.as_str(), d.size, d.port().map(|port| port.to_string()).unwrap_or_default()))
            .collect();
        assert_eq!(
            shown,
            [
                ("nvme2n1", 4096, "0000:00:0e.0/06.0".to_owned()),
                ("nvme10n1", 4096, "0000:00:1d.0".to_owned()),
                ("nvme10n2", 8192, "0000:00:1d.0".to_owned()),
            ]
        );
        assert!(found.drives.iter().all(|d| d.serial.is_empty() && d.model == "WD: a/nvme/nvme9/x:1"));
    }

    #[test]
    fn what_is_no_whole_list_is_an_error() {
        let without = |what: &str| -> String {
            let kept = OBSERVED.lines().filter(|line| !line.contains(what)).map(|line| format!("{line}\n"));
            kept.collect()
        };
        let cases = [
            output(1, OBSERVED),
            output(127, ""),
            output(0, "nonsense\n"),
            output(0, "/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0/serial\n"),
            output(0, "/sys/devices/pci0000:00/0000:00:10.0/nvme/nvmeX/serial:1\n"),
            output(0, &without("nvme0/serial")),
            output(0, &without("nvme0/model")),
            output(0, &without("nvme0n1/size")),
            output(0, &OBSERVED.replace(":131072", ":many")),
            Output { truncated: true, ..output(0, OBSERVED) },
        ];
        assert_eq!(cases.len(), 10);
        for (at, bad) in cases.iter().enumerate() {
            let error = nvme_drives(bad).unwrap_err();
            assert!(matches!(error, Error::BadAnswer { .. }), "case {at}: {error}");
        }
    }

    #[test]
    fn first_blocks_are_read_as_od_shows_them() {
        let zeros = " 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n".repeat(4352);
        assert_eq!(drive_parts("nvme0n1", &output(0, &zeros)).unwrap(), []);
        let used = zeros.replacen("00", "58", 1);
        let parts = drive_parts("nvme0n1", &output(0, &used)).unwrap();
        assert_eq!((parts.len(), parts[0].index, parts[0].content.as_str()), (1, 0, "unknown"));
        let cases = [
            output(1, &zeros),
            output(0, ""),
            output(0, &zeros.replacen("00", "zz", 1)),
            output(0, &zeros.replacen("00", "000", 1)),
            Output { truncated: true, ..output(0, &zeros) },
        ];
        assert_eq!(cases.len(), 5);
        for (at, bad) in cases.iter().enumerate() {
            let error = drive_parts("nvme0n1", bad).unwrap_err();
            assert!(error.to_string().starts_with("what is on nvme0n1: "), "case {at}: {error}");
        }
    }
}
