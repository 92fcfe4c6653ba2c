//! What the firmware's boot entries go by: a partition, which is found wherever its drive is, or a slot.
//!
//! Sources: UEFI Specification 2.10, 3.1.3 (`EFI_LOAD_OPTION`), 3.3 (`BootOrder`, `Boot####`), 10.3 (device paths; 10.3.5.1
//! hard drive, and 3.5.1.2 of its short form); Linux `Documentation/filesystems/efivarfs.rst`: a file below
//! `/sys/firmware/efi/efivars` begins with the variable's attributes, four bytes. Talos from 1.11 on writes the short form
//! (siderolabs/talos, `internal/app/machined/pkg/runtime/v1alpha1/bootloader/sdboot`).

use super::gpt::{guid, u16_at, u32_at, utf16};

/// A boot entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEntry {
    /// The firmware tries it.
    pub active: bool,
    /// Its name in the firmware's menu.
    pub name: String,
    /// What it goes by.
    pub by: Goes,
    /// The file that it starts, where it names one.
    pub file: Option<String>,
}

/// What a boot entry goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goes {
    /// By a partition's uuid, whatever drive it is on and wherever that is.
    Partition(String),
    /// By the way to a device; behind another one nothing is found, unless the firmware looks for the partition by itself.
    Slot {
        /// Device and function of each PCI node on the way, below the root: `1d.0/00.0`.
        way: String,
        /// The partition behind it, where it names one.
        partition: Option<String>,
    },
    /// Neither: the network, a program of the firmware, an old BIOS device.
    Other,
}

/// Why a variable is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// It ends too early.
    #[error("the variable ends too early")]
    Cut,
    /// A part of its path has a length that cannot be.
    #[error("a part of the variable's path has a length that cannot be")]
    Length,
}

/// The numbers of the entries in the order in which they are tried, from the file `BootOrder-8be4df61-..`.
///
/// # Errors
/// It is no such file.
pub fn order(file: &[u8]) -> Result<Vec<u16>, BadEntry> {
    let data = file.get(4..).ok_or(BadEntry::Cut)?;
    if data.len() % 2 != 0 {
        return Err(BadEntry::Cut);
    }
    Ok(data.chunks_exact(2).filter_map(|two| u16_at(two, 0)).collect())
}

/// The name of the file of an entry, below `/sys/firmware/efi/efivars`.
pub fn file_name(number: u16) -> String {
    format!("Boot{number:04X}-8be4df61-93ca-11d2-aa0d-00e098032b8c")
}

/// An entry, from its file.
///
/// # Errors
/// It is no such file.
pub fn read(file: &[u8]) -> Result<BootEntry, BadEntry> {
    let option = file.get(4..).ok_or(BadEntry::Cut)?;
    let attributes = u32_at(option, 0).ok_or(BadEntry::Cut)?;
    let path_length = usize::from(u16_at(option, 4).ok_or(BadEntry::Cut)?);
    let text = option.get(6..).ok_or(BadEntry::Cut)?;
    let units = text.chunks_exact(2).position(|two| two == [0, 0]).ok_or(BadEntry::Cut)?;
    let name = utf16(text);
    let path = text.get(2 * units + 2..).and_then(|rest| rest.get(..path_length)).ok_or(BadEntry::Cut)?;
    let (by, file) = walk(path)?;
    // LOAD_OPTION_ACTIVE.
    Ok(BootEntry { active: attributes & 1 == 1, name, by, file })
}

/// The first path of a list; further ones are the firmware's own business.
fn walk(mut path: &[u8]) -> Result<(Goes, Option<String>), BadEntry> {
    let (mut nodes, mut way, mut partition, mut file) = (0_usize, Vec::new(), None, None);
    let mut first_is_partition = false;
    loop {
        let [kind, sub, ..] = path else { return Err(BadEntry::Cut) };
        let length = usize::from(u16_at(path, 2).ok_or(BadEntry::Cut)?);
        if length < 4 {
            return Err(BadEntry::Length);
        }
        let node = path.get(4..length).ok_or(BadEntry::Length)?;
        match (kind, sub) {
            // The end, of all or of the first of several.
            (0x7F, _) => break,
            // PCI: function, device.
            (0x01, 0x01) => {
                let [function, device, ..] = node else { return Err(BadEntry::Length) };
                way.push(format!("{device:02x}.{function:x}"));
            }
            // A partition: its number, first block, size, then its signature, the table's format and the signature's
            // type, of which 2 is a GUID.
            (0x04, 0x01) if node.get(37) == Some(&2) => {
                partition = Some(node.get(20..36).and_then(guid).ok_or(BadEntry::Length)?);
                first_is_partition = nodes == 0;
            }
            (0x04, 0x01) if node.len() < 38 => return Err(BadEntry::Length),
            // A file; a long one comes in several parts.
            (0x04, 0x04) => file.get_or_insert_with(String::new).push_str(&utf16(node)),
            _ => {}
        }
        nodes += 1;
        path = path.get(length..).ok_or(BadEntry::Length)?;
    }
    let by = match partition {
        Some(uuid) if first_is_partition => Goes::Partition(uuid),
        partition if !way.is_empty() => Goes::Slot { way: way.join("/"), partition },
        _ => Goes::Other,
    };
    Ok((by, file))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(kind: u8, sub: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len() + 4).unwrap().to_le_bytes();
        [&[kind, sub][..], &length, data].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }

    fn partition(kind: u8) -> Vec<u8> {
        let mut data = vec![1, 0, 0, 0];
        data.extend(2048_u64.to_le_bytes());
        data.extend(4096_u64.to_le_bytes());
        data.extend([0x6F, 0x0E, 0x1C, 0x5B, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 2, kind]);
        assert_eq!(data.len(), 38);
        node(4, 1, &data)
    }

    fn variable(attributes: u32, name: &str, path: &[Vec<u8>]) -> Vec<u8> {
        let path = path.concat();
        let mut bytes = vec![7, 0, 0, 0];
        bytes.extend(attributes.to_le_bytes());
        bytes.extend(u16::try_from(path.len()).unwrap().to_le_bytes());
        bytes.extend(text(name));
        bytes.extend(path);
        bytes.extend(b"optional data");
        bytes
    }

    fn end() -> Vec<u8> {
        node(0x7F, 0xFF, &[])
    }

    const UUID: &str = "5b1c0e6f-0201-0403-0506-0708090a0b0c";

    #[test]
    fn an_entry_goes_by_a_partition_or_by_a_slot() {
        let root = node(2, 1, &[0xD0, 0x41, 0x03, 0x0A, 0, 0, 0, 0]);
        let pci = |device, function| node(1, 1, &[function, device]);
        let nvme = node(3, 0x17, &[1, 0, 0, 0, 0xE8, 0xCE, 0xB2, 0x11, 0xB4, 0x38, 0x25, 0x00]);
        let file = node(4, 4, &text("\\EFI\\systemd\\systemd-bootx64.efi"));
        let slot = |way: &str, partition: Option<&str>| Goes::Slot {
            way: way.into(),
            partition: partition.map(str::to_owned),
        };
        let cases = [
            (vec![partition(2), file.clone(), end()], Goes::Partition(UUID.into())),
            (
                vec![root.clone(), pci(0x1D, 0), pci(0, 0), nvme.clone(), partition(2), file.clone(), end()],
                slot("1d.0/00.0", Some(UUID)),
            ),
            (vec![root.clone(), pci(0x1D, 4), pci(0, 0), nvme, end()], slot("1d.4/00.0", None)),
            // An MBR's signature is no uuid.
            (vec![partition(1), file, end()], Goes::Other),
            // Several paths: the first.
            (vec![partition(2), node(0x7F, 1, &[]), root.clone(), pci(1, 0), end()], Goes::Partition(UUID.into())),
            (vec![root, end()], Goes::Other),
            (vec![node(5, 1, &[0, 2, 0, 0]), end()], Goes::Other),
            (vec![end()], Goes::Other),
        ];
        assert_eq!(cases.len(), 8);
        for (path, by) in cases {
            let entry = read(&variable(1, "Talos Linux UKI", &path)).unwrap();
            assert_eq!((entry.active, entry.name.as_str(), &entry.by), (true, "Talos Linux UKI", &by));
            let named = path.iter().any(|node| node.starts_with(&[4, 4]));
            assert_eq!(entry.file.as_deref(), named.then_some("\\EFI\\systemd\\systemd-bootx64.efi"));
        }
        assert!(!read(&variable(0, "off", &[end()])).unwrap().active);
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let good = variable(1, "x", &[partition(2), end()]);
        let last = good.len() - "optional data".len();
        for length in 0..last {
            assert!(read(&good[..length]).is_err(), "{length}");
        }
        assert!(read(&good[..last]).is_ok());
        let cases: [(&[Vec<u8>], BadEntry); 6] = [
            (&[partition(2)], BadEntry::Cut),
            (&[], BadEntry::Cut),
            (&[vec![4, 1, 3, 0], end()], BadEntry::Length),
            (&[vec![4, 1, 0xFF, 0xFF], end()], BadEntry::Length),
            (&[node(4, 1, &[0; 37]), end()], BadEntry::Length),
            (&[node(1, 1, &[0]), end()], BadEntry::Length),
        ];
        for (path, expected) in cases {
            assert_eq!(read(&variable(1, "x", path)), Err(expected), "{path:?}");
        }
    }

    #[test]
    fn the_order_is_a_list_of_numbers() {
        assert_eq!(order(&[7, 0, 0, 0, 1, 0, 0x0A, 0x20]), Ok(vec![1, 0x200A]));
        assert_eq!(order(&[7, 0, 0, 0]), Ok(Vec::new()));
        assert_eq!((order(&[7, 0, 0]), order(&[7, 0, 0, 0, 1])), (Err(BadEntry::Cut), Err(BadEntry::Cut)));
        assert_eq!(file_name(0x200A), "Boot200A-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = walk(&bytes);
            let _ = order(&bytes);
        }
    }
}
