//! What a copy of etcd's database must be like: the whole tree of bbolt's pages, and a digest behind them where etcd itself
//! made it.

use sha2::{Digest, Sha256};

mod content;
#[cfg(test)]
mod tests;
mod tree;

pub use content::Content;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// etcd itself made it, with its digest behind: a raw copy of the file has none.
    pub digest: bool,
    /// The number of the last transaction in it: of two copies of one member the greater is the newer one.
    pub transaction: u64,
    /// What is in it.
    pub content: Content,
}

/// Holds a copy of etcd's database against itself: its digest where it has one, and every page that can be reached from the
/// newest of its first two.
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
    let Some(meta) = metas.max_by_key(|meta| meta.transaction) else {
        return Err("it is no database of etcd".into());
    };
    let needed = meta.used.checked_mul(meta.size as u64);
    if needed.is_none_or(|needed| needed > pages.len() as u64) {
        return Err(format!("it is cut short: {} bytes of {} pages of {}", pages.len(), meta.used, meta.size));
    }
    let mut content = content::Reading::default();
    tree::walk(pages, &meta, &mut content)?;
    Ok(Copied { digest, transaction: meta.transaction, content: content.read()? })
}

/// What the first two pages tell.
#[derive(Debug, Clone, Copy)]
struct Meta {
    /// The size of a page.
    size: usize,
    /// The page that the tree begins with.
    root: u64,
    /// How many pages there are.
    used: u64,
    /// The last transaction.
    transaction: u64,
}

/// What the page at a place tells.
fn meta(pages: &[u8], at: usize, size: usize) -> Option<Meta> {
    let meta = pages.get(at..at.checked_add(HEADER + SUMMED + 8)?)?.get(HEADER..)?;
    let sum = meta
        .get(..SUMMED)?
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let fits = word(meta, 0)? == MAGIC
        && word(meta, 4)? == VERSION
        && word(meta, 8)? as usize == size
        && long(meta, SUMMED)? == sum;
    fits.then_some(())?;
    Some(Meta { size, root: long(meta, 16)?, used: long(meta, 40)?, transaction: long(meta, 48)? })
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
