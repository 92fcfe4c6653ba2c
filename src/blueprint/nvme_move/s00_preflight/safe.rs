//! Whether the way back can be saved: a snapshot of etcd from a voter that is well, and room for it here.

use std::path::Path;

use crate::base::check::bytes;
use crate::base::fault::Failure;
use crate::base::permit::System;
use crate::blueprint::backup::voter;
use crate::blueprint::finding::{Asked, Findings};
use crate::blueprint::quorum::{Etcd, Peer, Said};

use super::super::{known, on};

/// What is kept besides the snapshot, and some air.
const BESIDES: u64 = 16 << 20;

/// The room that is left where the runs of this site are, in bytes.
///
/// # Errors
/// Nobody tells.
pub(super) fn room(runs: &Path) -> Result<u64, Failure> {
    // The directory is made with the first run.
    let there = runs.ancestors().find(|path| path.exists()).unwrap_or(runs);
    let told = rustix::fs::statvfs(there)
        .map_err(|error| Failure::plain(format!("how much room {} has: {error}", there.display()), None))?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}

/// `kept`: this run has its snapshot already.
pub(super) fn way_back(
    node: &str,
    peers: &[Peer],
    etcd: &Etcd,
    room: &Asked<u64>,
    runs: &Path,
    kept: bool,
) -> Findings {
    let mut out = Findings::of(System::Talos);
    // What a silent node is nobody knows, and it has a line of its own.
    if kept || !matches!(etcd.said_by(node), Some(Said::View(_))) {
        return out;
    }
    let Some(from) = voter(etcd, peers, node) else {
        out.problem(
            &known::WAY_BACK,
            on::BACKUP,
            format!("no voter of etcd {} is well: there is nobody to take a snapshot from", etcd.cluster),
            "mend etcd first: `pvemig survey` shows its members, and what is wrong with them",
        );
        return out;
    };
    let Some(Said::View(view)) = etcd.said_by(&from) else { return out };
    let Some(room) = out.need(on::BACKUP, "where the run keeps what it needs for the way back", room) else {
        return out;
    };
    let size = view.status.size;
    if *room < size.saturating_add(BESIDES) {
        out.problem(
            &known::WAY_BACK,
            on::BACKUP,
            format!("a snapshot of etcd has {}, and {} has room for {}", bytes(size), runs.display(), bytes(*room)),
            "make room there, or name another directory: `--state DIR`, or `state:` in the site file",
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::finding::Unknown;
    use crate::blueprint::quorum::View;
    use crate::talos::{EtcdMember, EtcdStatus};

    const SIZE: u64 = 48 << 20;

    fn voter_of(leader: u64) -> Said {
        let member = EtcdMember {
            id: 1,
            hostname: "n1".into(),
            peer_urls: Vec::new(),
            client_urls: vec!["https://10.0.0.1:2379".into()],
            is_learner: false,
        };
        let status = EtcdStatus {
            member: 1,
            leader,
            is_learner: false,
            raft_term: 7,
            raft_index: 5,
            raft_applied: 5,
            size: SIZE,
            size_in_use: 1,
            errors: Vec::new(),
            version: "3.6.5".into(),
        };
        Said::View(View { members: vec![member], status, alarms: Vec::new() })
    }

    fn said(said: Said, room: &Asked<u64>, kept: bool) -> Vec<String> {
        let peer = Peer { name: "n1".into(), node_name: "n1".into(), dial: Dial::default() };
        let etcd = Etcd { cluster: "homelab".into(), said: vec![(peer.clone(), said)] };
        let found = way_back("n1", &[peer], &etcd, room, Path::new("/runs"), kept).all;
        found.into_iter().map(|one| format!("{}: {}", one.known.unwrap().name, one.text)).collect()
    }

    #[test]
    fn a_snapshot_needs_a_voter_that_is_well_and_room_for_it() {
        let none = Vec::<String>::new();
        let (much, little) = (Ok(1 << 40), Ok(SIZE));
        assert_eq!(said(voter_of(1), &much, false), none);
        assert_eq!(said(Said::Worker, &little, false), none);
        assert_eq!(said(Said::Silent("no route".into()), &little, false), none);
        assert_eq!(
            said(voter_of(1), &little, false),
            ["way-back-cannot-be-saved: a snapshot of etcd has 48.0 MiB, and /runs has room for 48.0 MiB"]
        );
        assert_eq!(
            said(voter_of(0), &much, false),
            ["way-back-cannot-be-saved: no voter of etcd homelab is well: there is nobody to take a snapshot from"]
        );
        // It has one already.
        assert_eq!(said(voter_of(0), &little, true), none);
        let unknown = Err(Unknown { text: "refused".into(), help: None });
        let asks = "cannot-ask: cannot ask where the run keeps what it needs for the way back: refused";
        assert_eq!(said(voter_of(1), &unknown, false), [asks]);
    }

    #[test]
    fn the_room_is_that_of_the_directory_that_will_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let there = room(dir.path()).unwrap();
        assert!(there > 0);
        assert!(room(&dir.path().join("homelab/not/there")).unwrap() > 0);
    }
}
