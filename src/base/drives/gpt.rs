//! The partition table at the beginning of a drive, read from its bytes.
//!
//! For drives that are seen through a guest whose kernel does not tell partition uuids. Reading only. Source: UEFI
//! Specification 2.10, 5.2.1 (protective and legacy MBR), 5.3.2 (header, Table 5-5) and 5.3.3 (entries, Table 5-6).

use flate2::Crc;

use super::Part;

/// What the first blocks of a drive say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// A GUID partition table.
    Gpt {
        /// The uuid of the drive's table.
        disk: String,
        /// The partitions. What is on them is not known from here.
        parts: Vec<Part>,
    },
    /// A table of the old kind; its partitions have no uuids.
    Mbr,
    /// No table. The drive need not be empty.
    None,
}

/// Why a table is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTable {
    /// Not all of it was read.
    #[error("the partition table goes on behind the {0} bytes that were read")]
    Cut(usize),
    /// A checksum is wrong.
    #[error("the checksum of the partition table's {0} is wrong")]
    Checksum(&'static str),
    /// The old table says that there is a GUID partition table, and there is none.
    #[error("the drive is marked as one with a GUID partition table, and there is none at its place")]
    Gone,
    /// A number in it is none that can be.
    #[error("the partition table has a {0} that cannot be")]
    Number(&'static str),
}

const HEADER: usize = 92;
const ENTRY: usize = 128;
/// More than this no table has room for in the blocks that are kept free for it.
const MANY: usize = 1 << 16;

/// Reads the table from the first bytes of a drive: 17,408 are enough with blocks of 512 bytes, 24,576 with 4,096.
///
/// # Errors
/// There is a table and it cannot be believed.
pub fn read(bytes: &[u8]) -> Result<Table, BadTable> {
    for block in [512, 4096] {
        if bytes.get(block..block + 8) == Some(b"EFI PART".as_slice()) {
            return gpt(bytes, block);
        }
    }
    // A signature at the end of the first block, and a partition type of its four entries that is not 0. A boot record of
    // FAT has the signature as well; what is where the entries were is of no matter then: it is no drive with a table.
    let signed = bytes.get(510..512) == Some(&[0x55, 0xAA]);
    let is = |of: fn(u8) -> bool| (0..4).any(|entry| bytes.get(446 + 16 * entry + 4).copied().is_some_and(of));
    match bytes.len() {
        ..8192 => Err(BadTable::Cut(bytes.len())),
        // The one entry of a protective table.
        _ if signed && is(|kind| kind == 0xEE) => Err(BadTable::Gone),
        _ if signed && is(|kind| kind != 0) => Ok(Table::Mbr),
        _ => Ok(Table::None),
    }
}

/// What is on a drive, as far as its first bytes tell: its partitions, or one entry with the number 0 for what takes all of
/// it. Nothing is on it where all of them are 0.
///
/// # Errors
/// As for [`read`].
pub fn parts(bytes: &[u8]) -> Result<Vec<Part>, BadTable> {
    let whole = |content: &str| vec![Part { content: content.into(), ..Part::default() }];
    Ok(match read(bytes)? {
        Table::Gpt { parts, .. } => parts,
        Table::Mbr => whole("mbr"),
        Table::None if bytes.iter().all(|byte| *byte == 0) => Vec::new(),
        // A file system, a pool, or what a drive was never cleared of.
        Table::None => whole("unknown"),
    })
}

fn gpt(bytes: &[u8], block: usize) -> Result<Table, BadTable> {
    let cut = BadTable::Cut(bytes.len());
    let header = bytes.get(block..).ok_or(cut)?;
    let length = usize::try_from(u32_at(header, 12).ok_or(cut)?).map_err(|_| BadTable::Number("header size"))?;
    if !(HEADER..=block).contains(&length) {
        return Err(BadTable::Number("header size"));
    }
    let mut copy = header.get(..length).ok_or(cut)?.to_vec();
    let sum = u32_at(&copy, 16).ok_or(cut)?;
    if let Some(field) = copy.get_mut(16..20) {
        field.fill(0);
    }
    if crc(&copy) != sum {
        return Err(BadTable::Checksum("header"));
    }
    let number = |at, name| u32_at(&copy, at).and_then(|n| usize::try_from(n).ok()).ok_or(BadTable::Number(name));
    let (count, size) = (number(80, "number of entries")?, number(84, "size of an entry")?);
    if count > MANY {
        return Err(BadTable::Number("number of entries"));
    }
    // 128 times a power of two.
    if size < ENTRY || size % ENTRY != 0 || !(size / ENTRY).is_power_of_two() || size > MANY {
        return Err(BadTable::Number("size of an entry"));
    }
    let first = u64_at(&copy, 72).and_then(|block| usize::try_from(block).ok()).filter(|first| *first >= 2);
    let start = first.and_then(|first| first.checked_mul(block)).ok_or(BadTable::Number("first entry"))?;
    let end = start.checked_add(count * size).ok_or(BadTable::Number("first entry"))?;
    let array = bytes.get(start..end).ok_or(cut)?;
    if u32_at(&copy, 88) != Some(crc(array)) {
        return Err(BadTable::Checksum("entries"));
    }
    let disk = copy.get(56..72).and_then(guid).ok_or(cut)?;
    let mut parts = Vec::new();
    for (index, entry) in (1..).zip(array.chunks_exact(size)) {
        // An entry of no type is not in use.
        if entry.iter().take(16).all(|byte| *byte == 0) {
            continue;
        }
        let (from, to) = u64_at(entry, 32).zip(u64_at(entry, 40)).ok_or(cut)?;
        let blocks = to.checked_sub(from).and_then(|less| less.checked_add(1));
        let size = blocks.and_then(|blocks| blocks.checked_mul(block as u64)).ok_or(BadTable::Number("partition"))?;
        let uuid = entry.get(16..32).and_then(guid).ok_or(cut)?;
        let label = entry.get(56..ENTRY).map(utf16).unwrap_or_default();
        parts.push(Part { uuid, label, index, size, content: String::new() });
    }
    Ok(Table::Gpt { disk, parts })
}

fn crc(bytes: &[u8]) -> u32 {
    // CRC-32 of ISO 3309, as gzip takes it: UEFI 2.10, 4.2.
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// A GUID as it is written: its first three fields have their lowest byte first (UEFI 2.10, Appendix A).
pub(super) fn guid(bytes: &[u8]) -> Option<String> {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (at, from) in order.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes.get(from)?));
    }
    Some(text)
}

/// Text of two bytes a character, up to its end or a 0.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).filter_map(|two| u16_at(two, 0)).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DISK: [u8; 16] = [0x6F, 0x0E, 0x1C, 0x5B, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    /// A drive with partitions of (byte that fills the uuid, first block, last block, label).
    fn image(block: usize, parts: &[(u8, u64, u64, &str)]) -> Vec<u8> {
        let mut array = vec![0_u8; 128 * 128];
        for (at, (fill, from, to, label)) in parts.iter().enumerate() {
            let entry = &mut array[at * 128..(at + 1) * 128];
            entry[..16].fill(0xAF);
            entry[16..32].fill(*fill);
            entry[32..40].copy_from_slice(&from.to_le_bytes());
            entry[40..48].copy_from_slice(&to.to_le_bytes());
            for (at, unit) in label.encode_utf16().enumerate() {
                entry[56 + 2 * at..58 + 2 * at].copy_from_slice(&unit.to_le_bytes());
            }
        }
        let mut bytes = vec![0_u8; 2 * block];
        bytes.extend(array);
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        bytes[450] = 0xEE;
        let header = &mut bytes[block..2 * block];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[56..72].copy_from_slice(&DISK);
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        sign(&mut bytes, block);
        bytes
    }

    /// Writes both checksums.
    fn sign(bytes: &mut [u8], block: usize) {
        let entries = crc(&bytes[2 * block..2 * block + 128 * 128]);
        bytes[block + 88..block + 92].copy_from_slice(&entries.to_le_bytes());
        bytes[block + 16..block + 20].fill(0);
        let header = crc(&bytes[block..block + 92]);
        bytes[block + 16..block + 20].copy_from_slice(&header.to_le_bytes());
    }

    #[test]
    fn a_table_is_read_with_either_size_of_blocks() {
        for (block, length) in [(512, 17_408), (4096, 24_576)] {
            let bytes = image(block, &[(0x11, 256, 511, "EFI"), (0xAB, 512, 512, "u-média")]);
            assert_eq!(bytes.len(), length);
            let Table::Gpt { disk, parts } = read(&bytes).unwrap() else { panic!() };
            assert_eq!(disk, "5b1c0e6f-0201-0403-0506-0708090a0b0c");
            let part = |uuid: &str, label: &str, index, blocks| Part {
                uuid: uuid.into(),
                label: label.into(),
                index,
                size: blocks * block as u64,
                content: String::new(),
            };
            assert_eq!(
                parts,
                [
                    part("11111111-1111-1111-1111-111111111111", "EFI", 1, 256),
                    part("abababab-abab-abab-abab-abababababab", "u-média", 2, 1),
                ]
            );
            assert_eq!(read(&image(block, &[])).unwrap(), Table::Gpt { disk, parts: Vec::new() });
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_the_specification() {
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn what_is_no_table_is_told_apart_from_one_that_is_broken() {
        let good = image(512, &[(0x11, 256, 511, "EFI")]);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            read(&bytes)
        };
        let signed = |at: usize, value: &[u8]| {
            with(&|bytes| {
                bytes[at..at + value.len()].copy_from_slice(value);
                sign(bytes, 512);
            })
        };
        let number = |name| Err(BadTable::Number(name));
        let cases = [
            (with(&|bytes| bytes[512] = 0), Err(BadTable::Gone)),
            (with(&|bytes| (bytes[512], bytes[450]) = (0, 0x83)), Ok(Table::Mbr)),
            (with(&|bytes| (bytes[512], bytes[450]) = (0, 0)), Ok(Table::None)),
            (with(&|bytes| bytes.fill(0)), Ok(Table::None)),
            (with(&|bytes| bytes.truncate(17_000)), Err(BadTable::Cut(17_000))),
            (with(&|bytes| bytes.truncate(600)), Err(BadTable::Cut(600))),
            (with(&Vec::clear), Err(BadTable::Cut(0))),
            (with(&|bytes| bytes[600] = 1), Err(BadTable::Checksum("header"))),
            (with(&|bytes| bytes[1100] ^= 1), Err(BadTable::Checksum("entries"))),
            (with(&|bytes| bytes[524] = 91), number("header size")),
            (with(&|bytes| bytes[526] = 9), number("header size")),
            (signed(592, &[0xFF; 4]), number("number of entries")),
            (signed(596, &[0x81, 0, 0, 0]), number("size of an entry")),
            (signed(596, &[0x80, 1, 0, 0]), number("size of an entry")),
            (signed(584, &[1]), number("first entry")),
            (signed(584, &[0xFF; 8]), number("first entry")),
            (signed(1064, &[0, 0]), Err(BadTable::Number("partition"))),
        ];
        assert_eq!(cases.len(), 17);
        for (at, (found, expected)) in cases.into_iter().enumerate() {
            assert_eq!(found, expected, "case {at}");
        }
    }

    #[test]
    fn only_a_drive_of_zeros_has_nothing_on_it() {
        let gpt = image(512, &[(0x11, 256, 511, "EFI")]);
        let blank = vec![0; 17_408];
        let with = |at: usize, value: u8| {
            let mut bytes = blank.clone();
            bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
            bytes[at] = value;
            bytes
        };
        let cases = [
            (gpt, vec![(1, "")]),
            (image(512, &[]), vec![]),
            (blank.clone(), vec![]),
            (with(450, 0x83), vec![(0, "mbr")]),
            (with(17_000, 1), vec![(0, "unknown")]),
        ];
        assert_eq!(cases.len(), 5);
        for (bytes, expected) in cases {
            let found = parts(&bytes).unwrap();
            assert_eq!(found.iter().map(|part| (part.index, part.content.as_str())).collect::<Vec<_>>(), expected);
        }
        assert_eq!(parts(&blank[..600]), Err(BadTable::Cut(600)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, at in 0..17_000_usize, any: [u8; 8]) {
            let _ = read(&bytes);
            bytes.resize(17_408, 0);
            let _ = read(&bytes);
            let mut image = image(512, &[(0x11, 256, 511, "EFI")]);
            image[at..at + 8].copy_from_slice(&any);
            let _ = read(&image);
            sign(&mut image, 512);
            let _ = read(&image);
        }
    }
}
