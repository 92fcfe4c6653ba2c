//! What a copy of etcd's database must be like: bbolt's pages, and a digest behind them where etcd itself made it.

use sha2::{Digest, Sha256};

/// The digest that etcd appends (`clientv3/snapshot`): it has a length that no page has (etcd `etcdutl/snapshot`,
/// `hasChecksum`).
const DIGEST: usize = 32;
const SECTOR: usize = 512;
/// A page's own header, behind which the first two pages say where everything is (go.etcd.io/bbolt `internal/common`).
const HEADER: usize = 16;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// How much of that the sum at its end is of.
const SUMMED: usize = 56;
/// The sizes that a page may have: that of the machine's memory.
const SIZES: [usize; 5] = [4_096, 8_192, 16_384, 32_768, 65_536];

/// A copy that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// etcd itself made it, with its digest behind: a raw copy of the file has none.
    pub digest: bool,
    /// The number of the last transaction in it: of two copies of one member the greater is the newer one.
    pub transaction: u64,
}

/// Holds a copy of etcd's database against itself.
///
/// # Errors
/// Why it is none, or not whole.
pub fn copied(bytes: &[u8]) -> Result<Copied, String> {
    let digest = bytes.len() % SECTOR == DIGEST;
    let (pages, sum) = bytes.split_at(if digest { bytes.len() - DIGEST } else { bytes.len() });
    if digest && Sha256::digest(pages).as_slice() != sum {
        return Err("the digest at its end is not that of its content".into());
    }
    let metas = SIZES.iter().flat_map(|size| [meta(pages, 0, *size), meta(pages, *size, *size)]).flatten();
    let Some((size, used, transaction)) = metas.max_by_key(|(_, _, transaction)| *transaction) else {
        return Err("it is no database of etcd".into());
    };
    let needed = used.checked_mul(size as u64);
    if needed.is_none_or(|needed| needed > pages.len() as u64) {
        return Err(format!("it is cut short: {} bytes of {used} pages of {size}", pages.len()));
    }
    Ok(Copied { digest, transaction })
}

/// Size of a page, how many there are, and the last transaction, as the page at a place tells them.
fn meta(pages: &[u8], at: usize, size: usize) -> Option<(usize, u64, u64)> {
    let meta = pages.get(at..at.checked_add(HEADER + SUMMED + 8)?)?.get(HEADER..)?;
    let word = |from: usize| Some(u32::from_le_bytes(meta.get(from..from + 4)?.try_into().ok()?));
    let long = |from: usize| Some(u64::from_le_bytes(meta.get(from..from + 8)?.try_into().ok()?));
    let sum = meta
        .get(..SUMMED)?
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let fits = word(0)? == MAGIC && word(4)? == VERSION && word(8)? as usize == size && long(SUMMED)? == sum;
    if fits { Some((size, long(40)?, long(48)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u64, used: u64, transaction: u64) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        out.extend([MAGIC, VERSION, 4_096, 0].iter().flat_map(|word| word.to_le_bytes()));
        out.extend([3, 0, 2, used, transaction].iter().flat_map(|word: &u64| word.to_le_bytes()));
        let sum = out[HEADER..]
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        out.extend_from_slice(&sum.to_le_bytes());
        out[0] = u8::try_from(number).unwrap();
        out.resize(4_096, 0);
        out
    }

    #[test]
    fn a_copy_is_whole_or_it_is_none() {
        let whole: Vec<u8> = [page(0, 4, 7), page(1, 4, 8), vec![1; 2 * 4_096]].concat();
        assert_eq!(copied(&whole), Ok(Copied { digest: false, transaction: 8 }));
        let sealed = [&whole[..], Sha256::digest(&whole).as_slice()].concat();
        assert_eq!(copied(&sealed), Ok(Copied { digest: true, transaction: 8 }));
        // One of the two was being written.
        let mut torn = whole.clone();
        torn[4_096 + HEADER + 50] ^= 1;
        assert_eq!(copied(&torn), Ok(Copied { digest: false, transaction: 7 }));
        let mut broken = sealed.clone();
        broken[9_000] ^= 1;
        let cases = [
            (&whole[..3 * 4_096], "cut short"),
            (&broken, "not that of its content"),
            (&whole[8_192..], "no database of etcd"),
            (b"", "no database of etcd"),
            (&[0; 32], "not that of its content"),
        ];
        assert_eq!(cases.len(), 5);
        for (bytes, part) in cases {
            assert!(copied(bytes).unwrap_err().contains(part), "{part}");
        }
    }
}
