//! Snapshots of etcd in a directory: how they are called (`CLUSTER-2026-11-22T155536Z.snapshot`, with `.age` behind where they
//! are encrypted), and what can be told of one without its key. A name tells the cluster's name alone: another cluster of
//! that name may keep its own there, or this one before it began anew.

use std::io::{self, Read};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

/// The moment in a name; as text it sorts as time does.
pub const STAMP: &str = "%Y-%m-%dT%H%M%SZ";
/// The end of the name of one that is not encrypted.
pub const PLAIN: &str = ".snapshot";
/// Of one that is.
pub const SEALED: &str = ".snapshot.age";
/// SHA-256 at the end of a snapshot: what is not larger is none.
pub const DIGEST: u64 = 32;

/// The name of a snapshot of a cluster.
pub fn name(cluster: &str, at: DateTime, sealed: bool) -> String {
    format!("{cluster}-{}{}", at.strftime(STAMP), if sealed { SEALED } else { PLAIN })
}

/// When a snapshot of the cluster was taken, by its name, as text; None: it is not named as ours are.
pub fn stamp<'n>(cluster: &str, name: &'n str) -> Option<&'n str> {
    let rest = name.strip_prefix(cluster)?.strip_prefix('-')?;
    let stamp = rest.strip_suffix(SEALED).or_else(|| rest.strip_suffix(PLAIN))?;
    // As it would be written: `strptime` takes less strict texts too, and years before Christ.
    let taken = DateTime::strptime(STAMP, stamp).ok().filter(|taken| taken.year() >= 0)?;
    (taken.strftime(STAMP).to_string() == stamp).then_some(stamp)
}

/// The same as a moment.
pub fn taken(cluster: &str, name: &str) -> Option<Timestamp> {
    let taken = DateTime::strptime(STAMP, stamp(cluster, name)?).ok()?;
    Some(taken.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// What can be told of a snapshot that is not encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Why it is not whole; None: it is.
    pub broken: Option<String>,
    /// It names one of the members that were asked for.
    pub names_one: bool,
}

/// Reads a snapshot to its end: its last bytes are the SHA-256 of all others (etcd `snapshot save`), and its bucket
/// `members` has the members by their ids in hexadecimal (etcd `server/etcdserver/api/membership/storev2.go`,
/// `backendMemberKey`).
///
/// One that names none of an etcd's members is not of it. The other way round that is not so: the id of the member that an etcd
/// begins with is made of its address and the token alone (`computeMemberID` in `membership/member.go`, without a time), and
/// Talos sets no token. A cluster that is built anew, and begins on the same address, has that one in common with the old.
///
/// # Errors
/// It cannot be read.
pub fn look(mut file: impl Read, members: &[u64]) -> io::Result<Look> {
    const PIECE: usize = 1 << 20;
    const END: usize = 32;
    let ids: Vec<String> = members.iter().map(|id| format!("{id:x}")).collect();
    let (mut hash, mut held, mut names_one) = (Sha256::new(), Vec::new(), false);
    // What was looked through already, but for the beginning of an id at its end.
    let mut before: Vec<u8> = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let count = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        held.extend_from_slice(piece.get(..count).unwrap_or_default());
        let known = held.len().saturating_sub(END);
        let data: Vec<u8> = held.drain(..known).collect();
        hash.update(&data);
        if !names_one {
            before.extend_from_slice(&data);
            names_one = ids.iter().any(|id| has(&before, id.as_bytes()));
            let keep = before.len().saturating_sub(END);
            before.drain(..keep);
        }
    }
    let broken = if held.len() < END {
        Some("it is cut short")
    } else {
        (hash.finalize().as_slice() != held.as_slice()).then_some("the digest at its end is not that of its content")
    };
    Ok(Look { broken: broken.map(str::to_owned), names_one })
}

fn has(bytes: &[u8], id: &[u8]) -> bool {
    let Some(first) = id.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let from = rest.get(at..).unwrap_or_default();
        if from.starts_with(id) {
            return true;
        }
        rest = from.get(1..).unwrap_or_default();
    }
    false
}

/// Whether an encrypted one begins as age files do: no more of it can be looked at without its key.
///
/// # Errors
/// It cannot be read.
pub fn begins_sealed(file: impl Read) -> io::Result<bool> {
    const HEAD: &[u8] = b"age-encryption.org/v1\n";
    let mut head = Vec::new();
    file.take(HEAD.len() as u64).read_to_end(&mut head)?;
    Ok(head == HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(data: &[u8]) -> Vec<u8> {
        [data, Sha256::digest(data).as_slice()].concat()
    }

    #[test]
    fn a_snapshot_is_whole_and_names_its_members() {
        const ID: u64 = 0x9f1b_2c3d_4e5f_6071;
        let mut data = vec![b'9'; (1 << 20) - 7];
        data.extend_from_slice(b"9f1b2c3d4e5f6071 over the edge of a piece");
        data.resize(3 << 20, 0);
        let whole = made(&data);
        let of = |broken: Option<&str>, names_one| Look { broken: broken.map(str::to_owned), names_one };
        let looked = |bytes: &[u8], ids: &[u64]| look(bytes, ids).unwrap();
        assert_eq!(looked(&whole, &[7, ID]), of(None, true));
        assert_eq!(looked(&whole, &[ID ^ (1 << 62)]), of(None, false));
        assert_eq!(looked(&whole, &[]), of(None, false));
        let digest = Some("the digest at its end is not that of its content");
        let mut broken = whole.clone();
        broken[100] ^= 1;
        assert_eq!(looked(&broken, &[ID]), of(digest, true));
        assert_eq!(looked(&whole[..whole.len() - 1], &[ID ^ (1 << 62)]), of(digest, false));
        assert_eq!(looked(b"short", &[ID]), of(Some("it is cut short"), false));
    }

    #[test]
    fn an_encrypted_one_is_known_by_its_head() {
        assert!(begins_sealed(&b"age-encryption.org/v1\n-> X25519"[..]).unwrap());
        assert!(!begins_sealed(&b"age-encryption.org/v1"[..]).unwrap() && !begins_sealed(&[0; 64][..]).unwrap());
    }

    #[test]
    fn a_name_tells_its_moment() {
        let at = DateTime::constant(2026, 11, 22, 15, 55, 36, 0);
        let (plain, sealed) = (name("home", at, false), name("home", at, true));
        assert_eq!(
            (plain.as_str(), sealed.as_str()),
            ("home-2026-11-22T155536Z.snapshot", "home-2026-11-22T155536Z.snapshot.age")
        );
        for name in [&plain, &sealed] {
            assert_eq!(taken("home", name).unwrap().to_string(), "2026-11-22T15:55:36Z");
        }
        for other in
            ["hom-2026-11-22T155536Z.snapshot", "home-2026-11-22.snapshot", "home-2026-11-22T155536Z.snapshot.partial"]
        {
            assert_eq!(taken("home", other), None, "{other}");
        }
    }
}
