//! Whom to take a snapshot from.
//!
//! Every voter has the same data. A follower is asked before the leader, which has the whole cluster's work to do; one
//! that lags behind, or knows no leader, comes last. A learner gives none, and one whose data is damaged must not.

use std::cmp::Reverse;
use std::sync::Arc;

use futures::future::join_all;

use crate::base::fault::Failure;
use crate::cli::session::Session;
use crate::talos::{Error, EtcdStatus, Talos};

/// So many entries a member may be behind the furthest: less is only what went on while they were asked.
const LAG: u64 = 1_000;

/// A member that may be asked.
pub(super) struct Member {
    pub(super) node: String,
    pub(super) talos: Arc<Talos>,
    pub(super) status: EtcdStatus,
    /// Of Talos, where the role may ask for it.
    pub(super) version: Option<String>,
}

impl Member {
    /// What it is in etcd.
    pub(super) fn seat(&self) -> &'static str {
        match self.status.leader {
            0 => "a voter without a leader",
            _ if self.status.leads() => "the leader",
            _ => "a follower",
        }
    }
}

/// What the nodes of a cluster said.
#[derive(Default)]
pub(super) struct Heard {
    /// In the order in which to ask them.
    pub(super) members: Vec<Member>,
    /// The others, with what each said.
    pub(super) others: Vec<(String, String)>,
    /// Where some did not let us ask: the first one's words.
    pub(super) denied: Option<Error>,
}

/// Asks all nodes of a cluster at once.
pub(super) async fn ask(session: &Session, cluster: &str) -> Result<Heard, Failure> {
    let nodes = session.site.talos.get(cluster).map(|c| c.nodes.keys().collect::<Vec<_>>()).unwrap_or_default();
    let mut open = Vec::new();
    for node in nodes {
        open.push((node.clone(), session.estate.talos(node).await?));
    }
    let asked = open.into_iter().map(|(node, talos)| async move {
        let (status, version) = futures::join!(talos.etcd_status(), talos.version());
        (node, talos, status, version)
    });
    let mut heard = Heard::default();
    for (node, talos, status, version) in join_all(asked).await {
        match status {
            Ok(status) => match unfit(&status) {
                None => {
                    let version = version.ok().map(|version| version.tag).filter(|tag| !tag.is_empty());
                    heard.members.push(Member { node, talos, status, version });
                }
                Some(why) => heard.others.push((node, why.to_owned())),
            },
            // A worker has none, and nothing is missed by that.
            Err(Error::NotControlPlane { .. }) => {}
            Err(error) => {
                heard.others.push((node, error.to_string()));
                if matches!(error, Error::Denied { .. }) && heard.denied.is_none() {
                    heard.denied = Some(error);
                }
            }
        }
    }
    let furthest = heard.members.iter().map(|m| m.status.raft_applied).max().unwrap_or_default();
    heard.members.sort_by_key(|m| rank(&m.status, furthest));
    Ok(heard)
}

/// Why a member is not asked at all.
fn unfit(status: &EtcdStatus) -> Option<&'static str> {
    // `memberID:ID alarm:CORRUPT `: every member tells the alarms of all.
    let own = format!("memberID:{} ", status.member);
    let corrupt = |error: &String| error.contains("alarm:CORRUPT") && format!("{error} ").contains(&own);
    if status.is_learner {
        Some("its etcd is a learner, which has no vote and gives no snapshot")
    } else if status.errors.iter().any(corrupt) {
        Some("etcd has raised the alarm CORRUPT for it: its data is not to be kept")
    } else {
        None
    }
}

/// The least is asked first; of equal ones the first in the site file.
fn rank(status: &EtcdStatus, furthest: u64) -> (bool, bool, bool, Reverse<u64>) {
    let lost = status.leader == 0;
    // Without a leader the one with the most is the best that there is.
    let most = if lost { status.raft_applied } else { 0 };
    (lost, !lost && furthest.saturating_sub(status.raft_applied) > LAG, status.leads(), Reverse(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(member: u64, leader: u64, applied: u64) -> EtcdStatus {
        EtcdStatus {
            member,
            leader,
            is_learner: false,
            raft_term: 3,
            raft_index: applied,
            raft_applied: applied,
            size: 1,
            size_in_use: 1,
            errors: Vec::new(),
            version: String::new(),
        }
    }

    #[test]
    fn a_follower_that_keeps_up_is_asked_first() {
        let order = |all: &[(u64, u64, u64)]| {
            let mut all: Vec<_> = all.iter().map(|(member, leader, at)| status(*member, *leader, *at)).collect();
            let furthest = all.iter().map(|s| s.raft_applied).max().unwrap();
            all.sort_by_key(|s| rank(s, furthest));
            all.iter().map(|s| s.member).collect::<Vec<_>>()
        };
        // The leader is last of the sound ones, whatever the order of the others.
        assert_eq!(order(&[(1, 1, 5_000), (2, 1, 5_000), (3, 1, 4_990)]), [2, 3, 1]);
        assert_eq!(order(&[(3, 1, 5_000), (2, 1, 4_990), (1, 1, 5_000)]), [3, 2, 1]);
        // One that lags, and one that is cut off, come behind it.
        assert_eq!(order(&[(3, 1, 10), (2, 0, 5_000), (1, 1, 5_000)]), [1, 3, 2]);
        // Nobody leads: who has the most.
        assert_eq!(order(&[(1, 0, 10), (2, 0, 4_000), (3, 0, 4_001)]), [3, 2, 1]);
        assert_eq!(order(&[(1, 1, 7)]), [1]);
    }

    #[test]
    fn learners_and_damaged_data_are_not_asked() {
        assert_eq!(unfit(&status(17, 1, 5)), None);
        assert!(unfit(&EtcdStatus { is_learner: true, ..status(17, 1, 5) }).is_some());
        let alarm = |text: &str| EtcdStatus { errors: vec![text.to_owned()], ..status(17, 1, 5) };
        assert!(unfit(&alarm("memberID:17 alarm:CORRUPT ")).is_some());
        assert!(unfit(&alarm("alarm:CORRUPT memberID:17")).is_some());
        // Another one's, and one that does no harm to a copy.
        assert_eq!(unfit(&alarm("memberID:171 alarm:CORRUPT ")), None);
        assert_eq!(unfit(&alarm("memberID:17 alarm:NOSPACE ")), None);
    }
}
