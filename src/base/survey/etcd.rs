//! A node's seat in etcd.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Layer;

/// What a node is in etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seat {
    /// It has a vote.
    Voter,
    /// It has a vote and leads.
    Leader,
    /// It has no vote yet.
    Learner,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voter => "voter",
            Self::Leader => "leader",
            Self::Learner => "learner",
        })
    }
}

/// A node's own member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EtcdSeat {
    /// Its id, in 16 hexadecimal digits.
    pub id: String,
    /// What it is.
    pub seat: Seat,
    /// The leader's id; None where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The term that the leader was elected for.
    pub raft_term: u64,
    /// What the leader has sent.
    pub raft_index: u64,
    /// What this member has taken in.
    pub raft_applied: u64,
    /// The size of its data, in bytes.
    pub db_size: u64,
    /// How much of that is used, in bytes.
    pub db_in_use: u64,
    /// The version of its protocol.
    pub version: String,
    /// What it finds wrong.
    pub errors: Vec<String>,
    /// How long it took until we had its answer, in milliseconds: the way there and back too, and whatever was tried again.
    pub answered_ms: u64,
    /// The members as this node's own etcd sees them.
    pub members: Layer<Vec<EtcdMember>>,
    /// The alarms of all members as this node tells them.
    pub alarms: Layer<Vec<EtcdAlarm>>,
}

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdMember {
    /// Its id, in 16 hexadecimal digits.
    pub id: String,
    /// Its host name; empty where it was added and has never started.
    pub name: String,
    /// It has no vote yet.
    pub learner: bool,
}

/// An alarm of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdAlarm {
    /// The member's id, in 16 hexadecimal digits.
    pub member: String,
    /// `NOSPACE` or `CORRUPT`.
    pub alarm: String,
}

impl EtcdSeat {
    /// The parts that are not known, by name, with the reason and what to do.
    pub fn unknown(&self) -> Vec<(&'static str, &str, Option<&str>)> {
        fn of<'a, T>(name: &'static str, layer: &'a Layer<T>) -> Option<(&'static str, &'a str, Option<&'a str>)> {
            match layer {
                Layer::Unknown { reason, help } => Some((name, reason, help.as_deref())),
                Layer::Known(_) | Layer::Absent => None,
            }
        }
        [of("etcd members", &self.members), of("etcd alarms", &self.alarms)].into_iter().flatten().collect()
    }

    /// What is not as it should be.
    pub fn wrong(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.leader.is_none() {
            lines.push("no leader".into());
        }
        if self.seat == Seat::Learner {
            lines.push("a learner: it has no vote".into());
        }
        lines.extend(self.errors.iter().cloned());
        let own = self.alarms.known().into_iter().flatten().filter(|alarm| alarm.member == self.id);
        lines.extend(own.map(|alarm| format!("alarm {}", alarm.alarm)));
        lines
    }
}
