//! The calls about etcd. Which of them ask for a leader, and with what words they fail, is that of siderolabs/talos
//! `internal/app/machined/internal/server/v1alpha1/v1alpha1_server.go`; errors that are none of gRPC's come as UNKNOWN.

use std::time::Duration;

use tonic::Status;

use super::etcd::{Member, No};
use super::server::Server;
use crate::talos::proto::machine::{EtcdMember, EtcdMemberAlarm, EtcdMemberStatus, etcd_member_alarm};

/// How long Talos tries to reach an etcd.
const DIAL: Duration = Duration::from_secs(5);
/// How long etcd waits for a majority where the caller does not ask for a leader.
const MAJORITY: Duration = Duration::from_secs(7);

fn no_client(prefix: &str) -> Status {
    Status::deadline_exceeded(format!("{prefix}error building etcd client: context deadline exceeded"))
}

impl Server {
    /// The node's own etcd runs; else Talos waits for it in vain.
    async fn local(&self, prefix: &str) -> Result<Member, Status> {
        if let Some(member) = self.look(|w, _, _| w.etcd_of(&self.node).cloned())? {
            return Ok(member);
        }
        self.shared.clock.pause(DIAL).await;
        Err(no_client(prefix))
    }

    /// There is a leader among those members that can be reached.
    fn leader(&self, prefix: &str) -> Result<(), Status> {
        if self.look(|w, _, _| w.talos.etcd.leader.is_some())? {
            return Ok(());
        }
        Err(Status::unknown(format!("{prefix}{}", No::NoLeader.text())))
    }

    pub(super) async fn members(&self, local: bool) -> Result<Vec<EtcdMember>, Status> {
        self.control_plane("member list")?;
        if local {
            self.local("").await?;
        }
        self.leader("")?;
        self.look(|w, _, _| {
            let one = |member: &Member| {
                let ip = w.talos.nodes.get(&member.name).map(|node| node.ip.clone()).unwrap_or_default();
                let started = !member.name.is_empty();
                EtcdMember {
                    id: member.id,
                    hostname: member.name.clone(),
                    peer_urls: vec![format!("https://{ip}:2380")],
                    client_urls: started.then(|| format!("https://{ip}:2379")).into_iter().collect(),
                    is_learner: member.learner,
                }
            };
            w.talos.etcd.members.iter().map(one).collect()
        })
    }

    /// Answered by the node's own etcd alone: also without a majority.
    pub(super) async fn member_status(&self) -> Result<EtcdMemberStatus, Status> {
        self.control_plane("etcd status")?;
        let member = self.local("failed to create etcd client: ").await?;
        self.look(|w, _, _| {
            let etcd = &w.talos.etcd;
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let mut errors: Vec<String> = Vec::new();
            if etcd.leader.is_none() {
                errors.push(No::NoLeader.text().into());
            }
            for raised in &etcd.members {
                errors.extend(raised.alarm.iter().map(|alarm| format!("memberID:{} alarm:{alarm} ", raised.id)));
            }
            EtcdMemberStatus {
                protocol_version: etcd.version.clone(),
                db_size: number(etcd.size),
                db_size_in_use: number(etcd.used),
                leader: etcd.leader.unwrap_or(0),
                raft_index: etcd.index,
                raft_term: etcd.term,
                raft_applied_index: etcd.index,
                errors,
                is_learner: member.learner,
                member_id: member.id,
                storage_version: etcd.version.rsplit_once('.').map(|(v, _)| format!("{v}.0")).unwrap_or_default(),
            }
        })
    }

    pub(super) async fn alarms(&self) -> Result<Vec<EtcdMemberAlarm>, Status> {
        self.control_plane("etcd alarm list")?;
        self.local("failed to create etcd client: ").await?;
        if self.look(|w, _, _| w.talos.etcd.leader.is_none())? {
            self.shared.clock.pause(MAJORITY).await;
            return Err(Status::unknown("failed to list etcd alarms: etcdserver: request timed out"));
        }
        self.look(|w, _, _| {
            let raised = |member: &Member| {
                let alarm = match member.alarm.as_deref()? {
                    "NOSPACE" => etcd_member_alarm::AlarmType::Nospace,
                    "CORRUPT" => etcd_member_alarm::AlarmType::Corrupt,
                    _ => etcd_member_alarm::AlarmType::None,
                };
                Some(EtcdMemberAlarm { member_id: member.id, alarm: alarm.into() })
            };
            w.talos.etcd.members.iter().filter_map(raised).collect()
        })
    }

    pub(super) fn remove_member(&self, id: u64) -> Result<(), Status> {
        self.control_plane("etcd remove member")?;
        let removed = self.shared.change(|w| w.etcd_remove(id));
        removed.map_err(|no| {
            let text = format!("failed to remove member {id}: {}", no.text());
            match no {
                No::NoMember => Status::not_found(text),
                _ => Status::unknown(format!("failed to remove member: {text}")),
            }
        })
    }

    pub(super) fn leave(&self) -> Result<(), Status> {
        self.control_plane("etcd leave")?;
        self.leader("failed to leave cluster: ")?;
        let left = self.shared.change(|w| w.etcd_leave(&self.node));
        left.map_err(|no| Status::unknown(format!("failed to leave cluster: failed to remove member: {}", no.text())))
    }

    pub(super) fn forfeit(&self) -> Result<String, Status> {
        self.control_plane("etcd forfeit leadership")?;
        let moved = self.shared.change(|w| w.etcd_forfeit(&self.node));
        moved.map_err(|text| Status::unknown(format!("failed to forfeit leadership: {text}")))
    }

    /// Taken from the node's own etcd: also without a majority.
    pub(super) async fn snapshot(&self) -> Result<Vec<u8>, Status> {
        self.control_plane("etcd snapshot")?;
        self.local("failed to create etcd client: ").await?;
        self.look(|w, _, _| w.etcd_snapshot())
    }
}
