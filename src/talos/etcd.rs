//! Etcd on a control plane: members and health.

use serde::{Deserialize, Serialize};

use crate::base::permit::{Permit, Thing};

use super::api::{Talos, machine};
use super::error::Error;
use super::proto::machine as wire;

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdMember {
    /// Its id.
    pub id: u64,
    /// Its host name; empty where it was added and has never started.
    pub hostname: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none where it has never started.
    pub client_urls: Vec<String>,
    /// It has no vote yet.
    pub is_learner: bool,
}

impl EtcdMember {
    /// Its id as etcd shows it, in 16 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.id)
    }

    /// Its host name, or its id where it has none.
    pub fn name(&self) -> String {
        if self.hostname.is_empty() { self.hex() } else { self.hostname.clone() }
    }

    /// It was added, and has never started.
    pub fn is_unstarted(&self) -> bool {
        self.hostname.is_empty()
    }
}

/// How a node's own member does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdStatus {
    /// The member's id.
    pub member: u64,
    /// The leader's id; 0 where there is none.
    pub leader: u64,
    /// It has no vote yet.
    pub is_learner: bool,
    /// The term that the leader was elected for.
    pub raft_term: u64,
    /// What the leader has sent.
    pub raft_index: u64,
    /// What this member has taken in.
    pub raft_applied: u64,
    /// The size of its data, in bytes.
    pub size: u64,
    /// How much of that is used.
    pub size_in_use: u64,
    /// What it finds wrong.
    pub errors: Vec<String>,
    /// Its protocol's version.
    pub version: String,
}

impl EtcdStatus {
    /// It leads.
    pub fn leads(&self) -> bool {
        self.leader != 0 && self.leader == self.member
    }
}

/// For how long a node leaves etcd. The call is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It does not come back: it is reset or switched off for good. A vote is lost, and with it a copy of the data.
    ForGood,
    /// It joins again when it boots next, with a member of another id and the data of the others.
    UntilItsNextBoot,
}

/// An alarm that a member has raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdAlarm {
    /// The member.
    pub member: u64,
    /// `NOSPACE` or `CORRUPT`; `alarm 7` of one that came later.
    pub alarm: String,
}

/// How a consent names a member: by its host name, where no other member has that; the id is what a call goes by.
fn named(member: &EtcdMember, members: &[EtcdMember]) -> String {
    let shared = members.iter().any(|other| other.id != member.id && other.hostname == member.hostname);
    if shared { member.hex() } else { member.name() }
}

/// The name of an alarm; None where there is none. One that is not known here is raised all the same.
fn raised_as(alarm: i32) -> Option<String> {
    use wire::etcd_member_alarm::AlarmType;
    match AlarmType::try_from(alarm) {
        Ok(AlarmType::None) => None,
        Ok(known) => Some(known.as_str_name().to_owned()),
        Err(_) => Some(format!("alarm {alarm}")),
    }
}

impl Talos {
    /// The members of the cluster; with `local` as the node's own etcd sees them, else as any member does.
    ///
    /// # Errors
    /// [`Error::NotControlPlane`], and those of any question.
    pub async fn etcd_members(&self, local: bool) -> Result<Vec<EtcdMember>, Error> {
        let ask = |channel| async move {
            let request = wire::EtcdMemberListRequest { query_local: local };
            Ok(machine(channel).etcd_member_list(request).await?.into_inner())
        };
        let answer = self.read("EtcdMemberList", ask).await?;
        let list = self.only(answer.messages, |m| m.metadata.as_ref(), false)?;
        let one = |member: wire::EtcdMember| EtcdMember {
            id: member.id,
            hostname: member.hostname,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            is_learner: member.is_learner,
        };
        Ok(list.members.into_iter().map(one).collect())
    }

    /// How the node's own member does.
    ///
    /// # Errors
    /// As [`Talos::etcd_members`].
    pub async fn etcd_status(&self) -> Result<EtcdStatus, Error> {
        let ask = |channel| async { Ok(machine(channel).etcd_status(()).await?.into_inner()) };
        let answer = self.read("EtcdStatus", ask).await?;
        let status = self.only(answer.messages, |m| m.metadata.as_ref(), false)?.member_status;
        let status = status.ok_or_else(|| self.unreadable("EtcdStatus", "there is no member in it"))?;
        Ok(EtcdStatus {
            member: status.member_id,
            leader: status.leader,
            is_learner: status.is_learner,
            raft_term: status.raft_term,
            raft_index: status.raft_index,
            raft_applied: status.raft_applied_index,
            size: u64::try_from(status.db_size).unwrap_or_default(),
            size_in_use: u64::try_from(status.db_size_in_use).unwrap_or_default(),
            errors: status.errors,
            version: status.protocol_version,
        })
    }

    /// The alarms of all members; an empty list is good.
    ///
    /// # Errors
    /// As [`Talos::etcd_members`].
    pub async fn etcd_alarms(&self) -> Result<Vec<EtcdAlarm>, Error> {
        let ask = |channel| async { Ok(machine(channel).etcd_alarm_list(()).await?.into_inner()) };
        let answer = self.read("EtcdAlarmList", ask).await?;
        // An answer of nobody is no word about alarms.
        if answer.messages.is_empty() {
            return Err(self.unreadable("EtcdAlarmList", "there are no messages in it"));
        }
        let mut out = Vec::new();
        // One message for each member, by the node's own asking.
        for message in answer.messages {
            if let Some(metadata) = message.metadata.filter(|metadata| !metadata.error.is_empty()) {
                return Err(Error::NoAnswer {
                    at: self.at(),
                    why: format!("{}: {}", metadata.hostname, metadata.error),
                });
            }
            let raised = message.member_alarms.into_iter();
            out.extend(
                raised.filter_map(|alarm| Some(EtcdAlarm { member: alarm.member_id, alarm: raised_as(alarm.alarm)? })),
            );
        }
        Ok(out)
    }

    /// Removes a member, by asking this node, which must not be the one. One that is gone already counts as removed.
    /// The consent names it by its host name, or by its id where another one has that name too.
    ///
    /// # Errors
    /// What keeps the node from doing it.
    pub async fn etcd_remove(&self, permit: &Permit, member: &EtcdMember) -> Result<(), Error> {
        let members = self.etcd_members(false).await?;
        permit.may_destroy(&Thing::member(&named(member, &members)))?;
        let note = self.note_safe(&format!("EtcdRemoveMemberByID {} ({})", member.hex(), member.name()));
        let member_id = member.id;
        let send = |channel| async move {
            let request = wire::EtcdRemoveMemberByIdRequest { member_id };
            Ok(machine(channel).etcd_remove_member_by_id(request).await?.into_inner())
        };
        match self.change(permit, self.limits.change, note, send).await {
            Ok((_, answer)) => self.only(answer.messages, |m| m.metadata.as_ref(), true).map(drop),
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes this node out of etcd: its data is deleted and etcd stays down until the next boot, after which the node
    /// would join again. For good only right before it is reset or switched off for good; that alone asks for the consent
    /// to the member. Until its next boot nothing of the cluster is lost, and so it is refused to the only voter.
    ///
    /// # Errors
    /// What keeps the node from doing it.
    pub async fn etcd_leave(&self, permit: &Permit, leaving: Leaving) -> Result<(), Error> {
        match leaving {
            Leaving::ForGood => permit.may_destroy(&Thing::member(&self.own_member().await?))?,
            Leaving::UntilItsNextBoot => self.others_vote().await?,
        }
        let note = self.note_once("EtcdLeaveCluster");
        let send = |channel| async move {
            Ok(machine(channel).etcd_leave_cluster(wire::EtcdLeaveClusterRequest {}).await?.into_inner())
        };
        // The node itself tries for up to five minutes while etcd says that it is not healthy.
        let (_, answer) = self.change(permit, self.limits.snapshot, note, send).await?;
        self.only(answer.messages, |m| m.metadata.as_ref(), true).map(drop)
    }

    /// There is a voter beside this node's member.
    async fn others_vote(&self) -> Result<(), Error> {
        let own = self.etcd_status().await?.member;
        let members = self.etcd_members(true).await?;
        if members.iter().any(|member| member.id != own && !member.is_learner && !member.is_unstarted()) {
            return Ok(());
        }
        let why =
            "its member of etcd is the only one with a vote: the cluster's data would be deleted with it".to_owned();
        Err(Error::NotReady { at: self.at(), why })
    }

    /// The name of the node's own member, as a person has to name it.
    pub(super) async fn own_member(&self) -> Result<String, Error> {
        let own = self.etcd_status().await?.member;
        let members = self.etcd_members(true).await?;
        let member = members.iter().find(|member| member.id == own);
        member.map(|member| named(member, &members)).ok_or_else(|| Error::NotFound {
            at: self.at(),
            why: format!("its own member {own:016x} is not among the members"),
        })
    }

    /// Hands leadership to another member; the new leader's id, None where this node was no leader.
    ///
    /// # Errors
    /// What keeps the node from doing it.
    pub async fn etcd_forfeit(&self, permit: &Permit) -> Result<Option<String>, Error> {
        let note = self.note_safe("EtcdForfeitLeadership");
        let send = |channel| async move {
            let request = wire::EtcdForfeitLeadershipRequest {};
            Ok(machine(channel).etcd_forfeit_leadership(request).await?.into_inner())
        };
        let (_, answer) = self.change(permit, self.limits.change, note, send).await?;
        let member = self.only(answer.messages, |m| m.metadata.as_ref(), true)?.member;
        Ok(Some(member).filter(|member| !member.is_empty()))
    }

    /// Starts etcd anew on one control plane, once in a cluster's life; with `recover` from the snapshot that was sent
    /// before, whose digest is not looked at with `skip_hash` (a raw copy of the data has none).
    ///
    /// # Errors
    /// [`Error::Exists`] where it was started before, [`Error::NotReady`] where the node is not so far, and what else
    /// keeps the node from it.
    pub async fn bootstrap(&self, permit: &Permit, recover: bool, skip_hash: bool) -> Result<(), Error> {
        // A node whose etcd has data refuses it, so that it begins no second one however often it is asked.
        let note = self.note_safe(if recover { "Bootstrap, from a snapshot" } else { "Bootstrap" });
        let send = |channel| async move {
            let request = wire::BootstrapRequest { recover_etcd: recover, recover_skip_hash_check: skip_hash };
            Ok(machine(channel).bootstrap(request).await?.into_inner())
        };
        let (_, answer) = self.change(permit, self.limits.change, note, send).await?;
        self.only(answer.messages, |m| m.metadata.as_ref(), true).map(drop)
    }
}
