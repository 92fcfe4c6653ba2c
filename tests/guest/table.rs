//! Partition tables for drives that machines are given; written here, and read by nobody's code of ours.
//!
//! UEFI Specification 2.10, 5.2.3 (protective MBR), 5.3.2 (header), 5.3.3 (entries).

const BLOCK: usize = 512;
const ENTRIES: usize = 128;

/// The first blocks of a drive of so many bytes with these partitions: uuid, label, first and last block.
pub(crate) fn gpt(bytes: u64, disk: &str, parts: &[(&str, &str, u64, u64)]) -> Vec<u8> {
    let last = bytes / BLOCK as u64 - 1;
    let mut array = vec![0; ENTRIES * 128];
    for ((uuid, label, from, to), entry) in parts.iter().zip(array.chunks_mut(128)) {
        // Linux filesystem data.
        put(entry, 0, &guid("0fc63daf-8483-4772-8e79-3d69d8477de4"));
        put(entry, 16, &guid(uuid));
        put(entry, 32, &from.to_le_bytes());
        put(entry, 40, &to.to_le_bytes());
        put(entry, 56, &label.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    }
    let mut header = vec![0; BLOCK];
    put(&mut header, 0, b"EFI PART\0\0\x01\0\x5c\0\0\0");
    put(&mut header, 24, &1_u64.to_le_bytes());
    put(&mut header, 32, &last.to_le_bytes());
    put(&mut header, 40, &34_u64.to_le_bytes());
    put(&mut header, 48, &(last - 33).to_le_bytes());
    put(&mut header, 56, &guid(disk));
    put(&mut header, 72, &2_u64.to_le_bytes());
    put(&mut header, 80, &128_u32.to_le_bytes());
    put(&mut header, 84, &128_u32.to_le_bytes());
    put(&mut header, 88, &crc32(&array).to_le_bytes());
    let sum = crc32(&header[..92]);
    put(&mut header, 16, &sum.to_le_bytes());
    let mut first = vec![0; BLOCK];
    put(&mut first, 446, &[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]);
    put(&mut first, 458, &u32::try_from(last).unwrap().to_le_bytes());
    put(&mut first, 510, &[0x55, 0xAA]);
    [first, header, array].concat()
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The first three fields lowest byte first.
fn guid(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| *c != '-').collect();
    let two = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    let mut bytes: Vec<u8> = digits.chunks(2).map(two).collect();
    assert_eq!(bytes.len(), 16);
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// CRC-32 of ISO 3309, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
