//! NVMe drives of virtual machines: how a guest's kernel shows them, and their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::programs::ExecOutcome;

/// An NVMe drive of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NvmeDrive {
    /// The file with its bytes; a real guest writes into it.
    pub file: PathBuf,
    /// The serial number that it reports.
    pub serial: String,
    /// Its device number on the machine's PCI bus.
    pub addr: u8,
    /// What its NVMe qualified name is made of, where that is not its serial number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// What QEMU's drives say of themselves (`hw/nvme/ctrl.c`).
const MODEL: &str = "QEMU NVMe Ctrl";

/// The files below `/sys/devices` that a kernel shows, and the device nodes with where their bytes are. Drives are named in
/// the order of their places.
pub(super) fn shown(drives: &[NvmeDrive]) -> (BTreeMap<String, String>, BTreeMap<String, PathBuf>) {
    let mut sorted: Vec<&NvmeDrive> = drives.iter().collect();
    sorted.sort_by_key(|drive| drive.addr);
    let (mut files, mut nodes, mut names) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for (number, drive) in sorted.into_iter().enumerate() {
        let address = format!("0000:00:{:02x}.0", drive.addr);
        files.insert(format!("/sys/devices/pci0000:00/{address}/class"), "0x010802\n".to_owned());
        // Of two with one qualified name a kernel takes one for another way to the other, and refuses it: which, is a race
        // there, and here the second.
        if !names.insert(if drive.name.is_empty() { &drive.serial } else { &drive.name }) {
            continue;
        }
        let (at, name) = (format!("/sys/devices/pci0000:00/{address}/nvme/nvme{number}"), format!("nvme{number}n1"));
        let bytes = std::fs::metadata(&drive.file).map_or(0, |file| file.len());
        // Without a name of its own a drive is called by vendor, serial number and model (Linux `drivers/nvme/host`).
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let wwid = format!("nvme.1b36-{}-{}-00000001", hex(&drive.serial), hex(MODEL));
        let texts = [
            ("serial".to_owned(), format!("{:20}", drive.serial)),
            ("model".to_owned(), format!("{MODEL:40}")),
            ("firmware_rev".to_owned(), format!("{:8}", "1.0")),
            ("address".to_owned(), address),
            (format!("{name}/size"), (bytes / 512).to_string()),
            (format!("{name}/wwid"), wwid),
        ];
        files.extend(texts.into_iter().map(|(leaf, text)| (format!("{at}/{leaf}"), format!("{text}\n"))));
        nodes.insert(format!("/dev/{name}"), drive.file.clone());
    }
    (files, nodes)
}

/// `od -A n -v -t x1 -N COUNT PATH` of a device node or of a file.
pub(super) fn od(args: &[&str], files: &BTreeMap<String, String>, nodes: &BTreeMap<String, PathBuf>) -> ExecOutcome {
    let ["-A", "n", "-v", "-t", "x1", "-N", count, path] = args else {
        return ExecOutcome::fail(1, "od: only `-A n -v -t x1 -N COUNT PATH` is known here\n");
    };
    let Ok(count) = count.parse::<u64>() else {
        return ExecOutcome::fail(1, format!("od: invalid -N argument '{count}'\n"));
    };
    let read = match (nodes.get(*path), files.get(*path)) {
        (Some(file), _) => head(file, count),
        (None, Some(text)) => Ok(text.bytes().take(usize::try_from(count).unwrap_or(usize::MAX)).collect()),
        (None, None) => Err(io::ErrorKind::NotFound.into()),
    };
    match read {
        Ok(bytes) => ExecOutcome::out(hex(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            ExecOutcome::fail(1, format!("od: {path}: No such file or directory\n"))
        }
        Err(_) => ExecOutcome::fail(1, format!("od: {path}: Input/output error\n")),
    }
}

fn head(file: &Path, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Sixteen bytes a line, each behind a blank.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3 + bytes.len() / 16 + 1);
    for line in bytes.chunks(16) {
        for byte in line {
            // Writing to a string does not fail.
            let _ = write!(text, " {byte:02x}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_are_named_in_the_order_of_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let drive = |name: &str, addr| {
            let file = dir.path().join(name);
            std::fs::write(&file, [&[0xAB, 0], name.as_bytes(), &[0; 1021]].concat()).unwrap();
            NvmeDrive { file, serial: name.to_uppercase(), addr, name: String::new() }
        };
        let (files, nodes) = shown(&[drive("a", 0x11), drive("b", 0x10)]);
        assert_eq!((files.len(), nodes.len()), (14, 2));
        let at = "/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0";
        assert_eq!(files[&format!("{at}/serial")], "B                   \n");
        assert_eq!(files[&format!("{at}/nvme0n1/size")], "2\n");
        assert_eq!(files[&format!("{at}/nvme0n1/wwid")], "nvme.1b36-42-51454d55204e564d65204374726c-00000001\n");

        let od = |count: &str, path: &str| od(&["-A", "n", "-v", "-t", "x1", "-N", count, path], &files, &nodes);
        assert_eq!(od("3", "/dev/nvme0n1").stdout, b" ab 00 62\n");
        let all = String::from_utf8(od("4096", "/dev/nvme1n1").stdout).unwrap();
        assert_eq!((all.lines().count(), all.split_whitespace().count()), (64, 1024));
        assert_eq!(od("2", &format!("{at}/nvme0n1/size")).stdout, b" 32 0a\n");
        for outcome in [od("3", "/dev/nvme2n1"), od("x", "/dev/nvme0n1"), super::od(&["/x"], &files, &nodes)] {
            assert_eq!((outcome.exit, outcome.stdout.len()), (1, 0));
        }
        let cheap = |name: &str| NvmeDrive { serial: "C".into(), addr: 0x12, name: name.into(), ..drive("c", 0) };
        for (second, count) in [("", 1), ("other", 2)] {
            assert_eq!(shown(&[cheap(""), cheap(second)]).1.len(), count, "{second}");
        }
        std::fs::remove_file(&nodes["/dev/nvme1n1"]).unwrap();
        assert_eq!(od("3", "/dev/nvme1n1").exit, 1);
    }
}
