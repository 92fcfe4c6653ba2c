//! What is in etcd's database: the Kubernetes objects of a moment. A snapshot is a copy of it with a digest behind, and a
//! new etcd that is started from one knows nothing later.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::lab::World;

/// How a database of the lab begins.
const MAGIC: &str = "lab etcd ";
/// The size of a page, and of the smallest database.
const PAGE: usize = 4_096;
const SMALLEST: usize = 96 * 1_024;
/// Where the list of free pages is.
const FREE: u64 = 2;
/// SHA-256 at the end of a snapshot.
const DIGEST: usize = 32;

/// The content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// The newest resource version.
    pub revision: u64,
    /// The names of the members.
    pub members: Vec<String>,
    /// Their ids.
    #[serde(default)]
    pub ids: Vec<u64>,
    /// Every object, as the API server wrote it.
    pub objects: Vec<Value>,
}

/// How a page begins that says where everything else is (go.etcd.io/bbolt `internal/common/meta.go`): 16 bytes of every
/// page, then magic, version, size of a page, flags, root, free list, how many pages there are, the number of the last
/// transaction, and FNV-1a of all that.
fn meta(page: u64, root: u64, used: u64, transaction: u64) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&page.to_le_bytes());
    out.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0]);
    out.extend([0xED0C_DAED_u32, 2, PAGE as u32, 0].iter().flat_map(|word| word.to_le_bytes()));
    out.extend([root, 0, FREE, used, transaction].iter().flat_map(|word: &u64| word.to_le_bytes()));
    let sum = out
        .iter()
        .skip(16)
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    out.extend_from_slice(&sum.to_le_bytes());
    out.resize(PAGE, 0);
    out
}

/// A page without keys that lists the free ones: none.
fn free() -> Vec<u8> {
    let mut out = FREE.to_le_bytes().to_vec();
    out.extend_from_slice(&[0x10, 0, 0, 0, 0, 0, 0, 0]);
    out.resize(PAGE, 0);
    out
}

/// A page of keys and values, in their order, with as many behind it as they take (`internal/common/page.go`): of each key
/// whether its value is a bucket, where it begins, and how long both are.
fn leaf(page: u64, bucket: bool, pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let whole = 16 + pairs.iter().map(|(key, value)| 16 + key.len() + value.len()).sum::<usize>();
    let count = u16::try_from(pairs.len()).unwrap_or(u16::MAX);
    let mut out = page.to_le_bytes().to_vec();
    out.extend_from_slice(&[2, 0]);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&number(whole.div_ceil(PAGE) - 1));
    let mut data = Vec::new();
    for (n, (key, value)) in pairs.iter().enumerate() {
        let from = 16 * (pairs.len() - n) + data.len();
        out.extend([usize::from(bucket), from, key.len(), value.len()].into_iter().flat_map(number));
        data.extend_from_slice(key);
        data.extend_from_slice(value);
    }
    out.extend(data);
    out.resize(whole.next_multiple_of(PAGE), 0);
    out
}

/// A Node as etcd's bucket `key` has it: by its revision, and with key and value in `mvccpb.KeyValue`.
fn revision(number: u64, node: &Value) -> (Vec<u8>, Vec<u8>) {
    let mut of = number.to_be_bytes().to_vec();
    of.push(b'_');
    of.extend_from_slice(&[0; 8]);
    let key = format!("/registry/minions/{}", node["metadata"]["name"].as_str().unwrap_or_default());
    let mut written = Vec::new();
    for (tag, text) in [(0x0a, key), (0x2a, node.to_string())] {
        written.push(tag);
        let mut length = text.len();
        while length > 0x7f {
            written.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        written.push(u8::try_from(length).unwrap_or_default());
        written.extend_from_slice(text.as_bytes());
    }
    (of, written)
}

impl Database {
    /// The pages of it.
    fn pages(&self) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        // Into memory: neither can fail.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let packed = packed.write_all(&text).and_then(|()| packed.finish()).unwrap_or_default();
        let whole = [format!("{MAGIC}{}\n", packed.len()).as_bytes(), &packed].concat();
        let nodes = self.objects.iter().filter(|object| object["kind"] == "Node");
        let nodes: Vec<_> = nodes.zip(2..).map(|(node, number)| revision(number, node)).collect();
        let ids: BTreeSet<String> = self.ids.iter().map(|id| format!("{id:x}")).collect();
        let ids: Vec<_> = ids.into_iter().map(|id| (id.into_bytes(), b"{}".to_vec())).collect();
        let mut bytes = vec![0; 2 * PAGE];
        bytes.extend(free());
        let mut roots = Vec::new();
        for (name, pairs) in [("key", nodes), ("lab", vec![(b"all".to_vec(), whole)]), ("members", ids)] {
            let page = (bytes.len() / PAGE) as u64;
            bytes.extend(leaf(page, false, &pairs));
            roots.push((name.as_bytes().to_vec(), [page, 0].iter().flat_map(|n| n.to_le_bytes()).collect()));
        }
        let root = (bytes.len() / PAGE) as u64;
        bytes.extend(leaf(root, true, &roots));
        let used = (bytes.len() / PAGE) as u64;
        bytes.resize(bytes.len().max(SMALLEST), 0);
        for page in [0_u64, 1] {
            let at = usize::try_from(page).unwrap_or_default() * PAGE;
            let meta = meta(page, root, used, self.revision + page);
            bytes.iter_mut().skip(at).zip(meta).for_each(|(place, byte)| *place = byte);
        }
        bytes
    }

    /// What pages hold; none where they are no database.
    fn of(bytes: &[u8]) -> Option<Self> {
        let at = bytes.windows(MAGIC.len()).position(|part| part == MAGIC.as_bytes())?;
        let rest = bytes.get(at + MAGIC.len()..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let length: usize = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
        let packed = rest.get(end + 1..)?.get(..length)?;
        let mut text = Vec::new();
        GzDecoder::new(packed).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// What a new etcd finds in a snapshot, or in a copy of the file that another one had (etcd
    /// `etcdutl/snapshot/v3_snapshot.go`).
    ///
    /// # Errors
    /// Why it does not start from it.
    pub(super) fn recovered(bytes: &[u8], skip_hash: bool) -> Result<Self, String> {
        let failed = |why: &str| Err(format!("Failed to create runner for service: error recovering etcd: {why}"));
        let Some(found) = Self::of(bytes) else { return failed("invalid database") };
        if skip_hash {
            return Ok(found);
        }
        // A file of whole pages has no digest behind them.
        if bytes.len().is_multiple_of(512) {
            return failed("snapshot missing hash but --skip-hash-check=false");
        }
        let (data, digest) = bytes.split_at_checked(bytes.len().saturating_sub(DIGEST)).unwrap_or_default();
        if Sha256::digest(data).as_slice() != digest {
            return failed("expected sha256 does not match that of the database");
        }
        Ok(found)
    }
}

impl World {
    /// The database of a node's etcd; none where it has no data. What the Kubernetes API of the first cluster shows is in
    /// its own; one that is none any more has what it had then.
    pub fn etcd_database(&self, name: &str) -> Option<Database> {
        let id = self.talos.nodes.get(name)?.member?;
        let etcd = self.talos.etcd_with(id);
        let members = etcd.members.iter().map(|member| member.name.clone()).collect();
        let ids = etcd.members.iter().map(|member| member.id).collect();
        let (revision, objects) = match &etcd.kept {
            Some(kept) => (kept.revision, kept.objects.clone()),
            None => self.kube.store.contents(),
        };
        Some(Database { revision, members, ids, objects })
    }

    /// The file in which a node's etcd has its database.
    pub(super) fn etcd_file(&self, name: &str) -> Option<Vec<u8>> {
        self.etcd_database(name).map(|database| database.pages())
    }

    /// The database as a snapshot has it: pages, and the digest of them behind.
    pub fn etcd_snapshot(&self, name: &str) -> Vec<u8> {
        let mut bytes = self.etcd_file(name).unwrap_or_default();
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_read_as_it_was_written() {
        let objects = vec![serde_json::json!({ "kind": "Secret", "data": { "a": "Yg==" } })];
        let database = Database { revision: 7, members: vec!["a".into()], ids: vec![0xabc], objects };
        let pages = database.pages();
        assert!(pages.len() == SMALLEST && Database::of(&pages).as_ref() == Some(&database));
        let digest = Sha256::digest(&pages);
        let snapshot = [&pages[..], digest.as_slice()].concat();
        assert_eq!(Database::recovered(&snapshot, false).as_ref(), Ok(&database));
        let mut broken = snapshot.clone();
        broken[pages.len()] ^= 1;
        let cases = [
            (&pages, false, "missing hash"),
            (&broken, false, "expected sha256"),
            (&b"lab etcd 9\n".to_vec(), true, "invalid database"),
            (&Vec::new(), true, "invalid database"),
        ];
        assert_eq!(cases.len(), 4);
        for (bytes, skip, part) in cases {
            let error = Database::recovered(bytes, skip).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(Database::recovered(&pages, true).as_ref(), Ok(&database));
        assert_eq!(Database::recovered(&broken, true), Ok(database));
    }
}
