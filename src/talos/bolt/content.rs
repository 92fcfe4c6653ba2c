//! What is in etcd's buckets, whatever pages it is on: an etcd that starts writes its file anew, and adds nothing by that.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::tree::Reader;

/// Where Kubernetes has its Nodes (`k8s.io/kubernetes/pkg/registry/core/node`).
const NODES: &[u8] = b"/registry/minions/";
/// A revision, as etcd's bucket `key` has it: two numbers with `_` between, and `t` behind it where the key is deleted by it
/// (etcd `server/storage/mvcc/revision.go`).
const REVISION: usize = 17;

/// What a database has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// SHA-256 of all keys and values by bucket, in hexadecimal.
    pub sha256: String,
    /// The ids of the members.
    pub members: BTreeSet<u64>,
    /// The ids of those that were members.
    pub removed: BTreeSet<u64>,
    /// The Nodes of Kubernetes by their names, as its API server wrote them.
    pub nodes: BTreeMap<String, Vec<u8>>,
}

impl Content {
    /// Whether it knows a member, or has known it.
    pub fn knows(&self, member: u64) -> bool {
        self.members.contains(&member) || self.removed.contains(&member)
    }

    /// Whether a Node was written with this in it, in capitals or not: of a machine's uuid.
    pub fn node_says(&self, node: &str, text: &str) -> bool {
        let is = |part: &[u8]| part.eq_ignore_ascii_case(text.as_bytes());
        !text.is_empty() && self.nodes.get(node).is_some_and(|value| value.windows(text.len()).any(is))
    }
}

/// What comes out of the leaves.
#[derive(Default)]
pub(super) struct Reading {
    bucket: Vec<u8>,
    sum: Sha256,
    found: Content,
    amiss: Option<String>,
}

impl Reading {
    pub(super) fn read(self) -> Result<Content, String> {
        let sum = self.sum.finalize();
        let sha256 = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        self.amiss.map_or(Ok(Content { sha256, ..self.found }), Err)
    }

    fn summed(&mut self, kind: u8, bytes: &[u8]) {
        self.sum.update([kind]);
        self.sum.update((bytes.len() as u64).to_le_bytes());
        self.sum.update(bytes);
    }

    fn node(&mut self, revision: &[u8], pair: &[u8]) -> Option<()> {
        let (key, value) = key_value(pair)?;
        let Some(name) = key.strip_prefix(NODES) else { return Some(()) };
        let name = String::from_utf8_lossy(name).into_owned();
        // In the order of the revisions: the last one counts.
        if revision.len() > REVISION {
            self.found.nodes.remove(&name);
        } else {
            self.found.nodes.insert(name, value.to_vec());
        }
        Some(())
    }
}

impl Reader for Reading {
    fn bucket(&mut self, name: &[u8]) {
        self.summed(0, name);
        name.clone_into(&mut self.bucket);
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) {
        self.summed(1, key);
        self.summed(2, value);
        let id = || u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok();
        let known = match self.bucket.as_slice() {
            b"members" => id().map(|id| self.found.members.extend([id])),
            b"members_removed" => id().map(|id| self.found.removed.extend([id])),
            b"key" => self.node(key, value),
            _ => Some(()),
        };
        if known.is_none() {
            let bucket = String::from_utf8_lossy(&self.bucket);
            self.amiss.get_or_insert_with(|| format!("its bucket `{bucket}` has what is not etcd's"));
        }
    }
}

/// Key and value of what etcd writes for a revision (`api/mvccpb/kv.proto`: `key` is 1, `value` is 5).
fn key_value(mut pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    while !pair.is_empty() {
        let (tag, rest) = number(pair)?;
        let (length, rest) = number(rest)?;
        pair = rest;
        match tag & 7 {
            0 => {}
            2 => {
                let (own, rest) = pair.split_at_checked(usize::try_from(length).ok()?)?;
                pair = rest;
                match tag >> 3 {
                    1 => key = own,
                    5 => value = own,
                    _ => {}
                }
            }
            _ => return None,
        }
    }
    Some((key, value))
}

/// A number in seven bits a byte.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut out = 0_u64;
    for (n, byte) in bytes.iter().enumerate().take(10) {
        out |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * n).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((out, bytes.get(n + 1..)?));
        }
    }
    None
}
