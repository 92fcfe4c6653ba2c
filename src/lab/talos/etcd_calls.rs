//! The calls about etcd. Which of them ask for a leader, and with what words they fail, is that of siderolabs/talos
//! `internal/app/machined/internal/server/v1alpha1/v1alpha1_server.go`; errors that are none of gRPC's come as UNKNOWN.

use std::time::Duration;

use tonic::Status;

use super::etcd::{Member, No, TOO_LONG};
use super::etcd_real::{Failed, Real};
use super::server::Server;
use crate::talos::proto::machine::{EtcdMember, EtcdMemberAlarm, EtcdMemberStatus, etcd_member_alarm};

/// How long Talos tries to reach an etcd.
const DIAL: Duration = Duration::from_secs(5);
/// How long etcd waits for a majority where the caller does not ask for a leader.
const MAJORITY: Duration = Duration::from_secs(7);
/// Longer than any caller waits.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

fn no_client(prefix: &str) -> Status {
    Status::deadline_exceeded(format!("{prefix}error building etcd client: context deadline exceeded"))
}

impl Server {
    /// The real etcd of the node, where the world names one.
    fn real(&self) -> Result<Option<Real>, Status> {
        self.look(|w, node, _| {
            let all = w.talos.nodes.values().filter_map(|node| node.etcd_at).collect();
            node.etcd_at.map(|own| Real { own, all })
        })
    }

    /// What a real etcd's answer comes to. Talos tries for a while where nobody is there.
    async fn handed<T>(&self, prefix: &str, away: &str, answer: Result<T, Failed>) -> Result<T, Status> {
        if matches!(answer, Err(Failed::Away)) {
            self.shared.clock.pause(DIAL).await;
        }
        answer.map_err(|failed| failed.status(prefix, || no_client(away)))
    }

    /// The node's own etcd runs; else Talos waits for it in vain.
    async fn local(&self, prefix: &str) -> Result<Member, Status> {
        if let Some(member) = self.look(|w, _, _| w.etcd_of(&self.node).cloned())? {
            return Ok(member);
        }
        self.shared.clock.pause(DIAL).await;
        Err(no_client(prefix))
    }

    /// As [`Server::local`], of what a learner does not answer (`server/etcdserver/api/v3rpc/interceptor.go`).
    async fn local_voter(&self, prefix: &str, words: &str) -> Result<(), Status> {
        let learner = self.local(prefix).await?.learner;
        if learner { Err(Status::unknown(format!("{words}{}", No::Learner.text()))) } else { Ok(()) }
    }

    /// There is a leader among those members that can be reached.
    fn leader(&self, prefix: &str) -> Result<(), Status> {
        if self.look(|w, _, _| w.etcd_at(&self.node).leader.is_some())? {
            return Ok(());
        }
        Err(Status::unknown(format!("{prefix}{}", No::NoLeader.text())))
    }

    pub(super) async fn members(&self, local: bool) -> Result<Vec<EtcdMember>, Status> {
        self.control_plane("member list")?;
        if let Some(real) = self.real()? {
            return self.handed("", "", real.members(local).await).await;
        }
        if local {
            self.local_voter("", "").await?;
        }
        self.leader("")?;
        self.look(|w, _, _| {
            let one = |member: &Member| {
                let ip = w.etcd_address(member);
                let started = !member.name.is_empty();
                EtcdMember {
                    id: member.id,
                    hostname: member.name.clone(),
                    peer_urls: vec![format!("https://{ip}:2380")],
                    client_urls: started.then(|| format!("https://{ip}:2379")).into_iter().collect(),
                    is_learner: member.learner,
                }
            };
            w.etcd_at(&self.node).members.iter().map(one).collect()
        })
    }

    /// Answered by the node's own etcd alone: also without a majority.
    pub(super) async fn member_status(&self) -> Result<EtcdMemberStatus, Status> {
        self.control_plane("etcd status")?;
        if let Some(real) = self.real()? {
            return self.handed("", "failed to create etcd client: ", real.status().await).await;
        }
        let member = self.local("failed to create etcd client: ").await?;
        self.look(|w, _, _| {
            let etcd = w.etcd_at(&self.node);
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
                raft_index: etcd.index.saturating_sub(member.behind),
                raft_term: etcd.term,
                raft_applied_index: etcd.index.saturating_sub(member.behind),
                errors,
                is_learner: member.learner,
                member_id: member.id,
                storage_version: etcd.version.rsplit_once('.').map(|(v, _)| format!("{v}.0")).unwrap_or_default(),
            }
        })
    }

    pub(super) async fn alarms(&self) -> Result<Vec<EtcdMemberAlarm>, Status> {
        self.control_plane("etcd alarm list")?;
        if let Some(real) = self.real()? {
            let answer = real.alarms().await;
            return self.handed("failed to list etcd alarms: ", "failed to create etcd client: ", answer).await;
        }
        self.local_voter("failed to create etcd client: ", "failed to list etcd alarms: ").await?;
        if self.look(|w, _, _| w.etcd_at(&self.node).leader.is_none())? {
            self.shared.clock.pause(MAJORITY).await;
            // A proposal without a leader ends with its own deadline, and not in etcd's words.
            return Err(Status::unknown("failed to list etcd alarms: context deadline exceeded"));
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
            w.etcd_at(&self.node).members.iter().filter_map(raised).collect()
        })
    }

    pub(super) async fn remove_member(&self, id: u64) -> Result<(), Status> {
        self.control_plane("etcd remove member")?;
        if let Some(real) = self.real()? {
            return match real.remove(id).await {
                Err(Failed::Said(text)) if text == No::NoMember.text() => {
                    Err(Status::not_found(format!("failed to remove member {id}: {text}")))
                }
                answer => {
                    self.handed(&format!("failed to remove member: failed to remove member {id}: "), "", answer).await
                }
            };
        }
        let removed = self.shared.change(|w| w.etcd_remove(&self.node, id));
        removed.map_err(|no| {
            let text = format!("failed to remove member {id}: {}", no.text());
            match no {
                No::NoMember => Status::not_found(text),
                _ => Status::unknown(format!("failed to remove member: {text}")),
            }
        })
    }

    pub(super) async fn leave(&self) -> Result<(), Status> {
        self.control_plane("etcd leave")?;
        if let Some(real) = self.real()? {
            let prefix = "failed to leave cluster: ";
            return self.handed(&format!("{prefix}failed to remove member: "), prefix, real.leave().await).await;
        }
        self.leader("failed to leave cluster: ")?;
        let left = self.shared.change(|w| w.etcd_leave(&self.node));
        left.map_err(|no| Status::unknown(format!("failed to leave cluster: failed to remove member: {}", no.text())))
    }

    pub(super) async fn forfeit(&self) -> Result<String, Status> {
        self.control_plane("etcd forfeit leadership")?;
        if let Some(real) = self.real()? {
            let prefix = "failed to forfeit leadership: ";
            return self.handed(prefix, prefix, real.forfeit().await).await;
        }
        let moved = self.shared.change(|w| w.etcd_forfeit(&self.node));
        if moved.as_ref().is_err_and(|text| text == TOO_LONG) {
            self.shared.clock.pause(FOR_EVER).await;
        }
        moved.map_err(|text| Status::unknown(format!("failed to forfeit leadership: {text}")))
    }

    /// Taken from the node's own etcd: also without a majority.
    pub(super) async fn snapshot(&self) -> Result<Vec<u8>, Status> {
        self.control_plane("etcd snapshot")?;
        if let Some(real) = self.real()? {
            return self.handed("", "failed to create etcd client: ", real.snapshot().await).await;
        }
        self.local_voter("failed to create etcd client: ", "").await?;
        self.look(|w, _, _| w.etcd_snapshot(&self.node))
    }
}
