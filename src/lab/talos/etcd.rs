//! etcd: members, learners, a leader, and what needs a majority.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::database::Database;
use super::services::Service;
use crate::lab::World;
use crate::lab::agenda::Event;
use crate::lab::clock::LabTime;

/// The cluster's etcd.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// `3.6.5`
    pub version: String,
    /// Its members.
    pub members: Vec<Member>,
    /// The leader's id; none where there is no majority. What a world file says here is who leads first.
    pub leader: Option<u64>,
    /// The term of the leader.
    pub term: u64,
    /// How many entries the log has.
    pub index: u64,
    /// The size of the database in bytes.
    pub size: u64,
    /// The bytes of it in use.
    pub used: u64,
    /// When it last had a leader; none while it has one. Nothing is written from then on.
    #[serde(skip)]
    pub quiet: Option<LabTime>,
    /// What is in it, where it is not what the Kubernetes API shows.
    #[serde(skip)]
    pub kept: Option<Database>,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            version: "3.6.5".into(),
            members: Vec::new(),
            leader: None,
            term: 7,
            index: 1_204_811,
            size: 48_234_496,
            used: 21_180_416,
            quiet: None,
            kept: None,
        }
    }
}

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Member {
    /// Its id; 0 in a world file: made from its name.
    pub id: u64,
    /// The node's name; empty: added, and never started.
    pub name: String,
    /// It has no vote yet.
    pub learner: bool,
    /// Its vote comes then.
    pub votes_at: Option<LabTime>,
    /// It lags behind and never gets its vote.
    pub lags: bool,
    /// By how many entries it is behind the others.
    pub behind: u64,
    /// `NOSPACE` or `CORRUPT`.
    pub alarm: Option<String>,
}

/// Why etcd does not do as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No {
    /// No majority.
    NoLeader,
    /// There is no such member.
    NoMember,
    /// The rest would have no majority.
    Unhealthy,
    /// It would be the last one.
    NotEnough,
    /// A learner answers nothing but for its status.
    Learner,
}

/// What comes of a leadership that is handed to a member that does not run: etcd waits for it for as long as its caller.
pub(super) const TOO_LONG: &str = "etcdserver: request timed out, leader transfer took too long";

impl No {
    /// In etcd's words (`api/v3rpc/rpctypes/error.go`).
    pub fn text(&self) -> &'static str {
        match self {
            Self::NoLeader => "etcdserver: no leader",
            Self::NoMember => "etcdserver: member not found",
            Self::Unhealthy => "etcdserver: unhealthy cluster",
            Self::NotEnough => "etcdserver: re-configuration failed due to not enough started members",
            Self::Learner => "etcdserver: rpc not supported for learner",
        }
    }
}

pub(super) fn made_id(seed: &str) -> u64 {
    let digest = Sha256::digest(seed);
    let id = digest.iter().take(8).fold(0_u64, |id, byte| (id << 8) | u64::from(*byte));
    id.max(1)
}

impl super::node::Talos {
    /// The etcd that has a member; the first where none has.
    pub fn etcd_with(&self, id: u64) -> &Etcd {
        self.others.iter().find(|etcd| etcd.member(id).is_some()).unwrap_or(&self.etcd)
    }
}

impl Etcd {
    /// A member by its id.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }

    /// Who leads, and who gets a vote.
    fn settle(&mut self, up: &BTreeSet<u64>, now: LabTime) {
        if !self.majority(up) {
            self.quiet = self.quiet.or(Some(now));
            self.leader = None;
            return;
        }
        self.quiet = None;
        let leads = |m: &&Member| !m.learner && up.contains(&m.id);
        if !self.members.iter().filter(leads).any(|m| Some(m.id) == self.leader) {
            self.leader = self.members.iter().find(leads).map(|m| m.id);
            self.term += 1;
        }
        for member in self.members.iter_mut().filter(|m| m.learner && !m.lags && up.contains(&m.id)) {
            if member.votes_at.is_some_and(|at| at <= now) {
                (member.learner, member.votes_at) = (false, None);
            }
        }
    }

    fn majority(&self, up: &BTreeSet<u64>) -> bool {
        let voters: Vec<&Member> = self.members.iter().filter(|m| !m.learner).collect();
        let there = voters.iter().filter(|m| up.contains(&m.id)).count();
        !voters.is_empty() && there > voters.len() / 2
    }
}

impl World {
    /// The member that a node's etcd is, while it runs.
    pub fn etcd_of(&self, name: &str) -> Option<&Member> {
        let node = self.talos.nodes.get(name)?;
        let run = node.run.as_ref().filter(|run| self.now >= run.services_at && run.wants.control_plane)?;
        if run.stops() || run.left_etcd || self.talos_halting(name) {
            return None;
        }
        let member = node.member?;
        self.talos.etcd_with(member).member(member)
    }

    /// The etcd of a node, as it sees it: that of its member, or the one that it would join.
    pub fn etcd_at(&self, name: &str) -> &Etcd {
        match self.talos.nodes.get(name).and_then(|node| node.member) {
            Some(member) => self.talos.etcd_with(member),
            None => &self.talos.etcd,
        }
    }

    /// The address of a member's node: of the one that has its data, else of the one that has its name.
    pub(super) fn etcd_address(&self, member: &Member) -> String {
        let nodes = &self.talos.nodes;
        let own = nodes.values().find(|node| node.member == Some(member.id));
        own.or_else(|| nodes.get(&member.name)).map(|node| node.ip.clone()).unwrap_or_default()
    }

    /// How many clusters of etcd there are: more than one is what a second bootstrap makes.
    pub fn etcd_clusters(&self) -> usize {
        let held = |etcd: &&Etcd| {
            let mut members = self.talos.nodes.values().filter_map(|node| node.member);
            members.any(|id| etcd.member(id).is_some())
        };
        std::iter::once(&self.talos.etcd).chain(&self.talos.others).filter(held).count()
    }

    /// The ids of the members whose etcd runs.
    pub fn etcd_up(&self) -> BTreeSet<u64> {
        self.talos.nodes.keys().filter_map(|name| self.etcd_of(name)).map(|m| m.id).collect()
    }

    /// The service `etcd` of a node.
    pub(super) fn etcd_service(&self, name: &str) -> Service {
        let said =
            |state, message: &str, healthy| Service { id: "etcd".into(), state, message: message.to_owned(), healthy };
        let Some(node) = self.talos.nodes.get(name) else { return said("Unknown", "", None) };
        let Some(run) = node.run.as_ref() else { return said("Unknown", "", None) };
        if run.stops() || self.talos_halting(name) {
            return said("Stopping", "Sending SIGTERM to task etcd (PID 2331)", None);
        }
        if self.now < run.services_at {
            return said("Waiting", "Waiting for service \"cri\" to be \"up\", time sync, network, etcd spec", None);
        }
        if run.left_etcd {
            return said("Finished", "Service finished successfully", None);
        }
        if let Some(error) = &run.etcd_error {
            return said("Failed", error, None);
        }
        match (self.etcd_of(name), node.member) {
            (Some(_), _) if self.etcd_at(name).leader.is_some() => {
                said("Running", "Health check successful", Some(true))
            }
            (Some(_), _) => said("Running", "Health check failed: context deadline exceeded", Some(false)),
            (None, Some(_)) => said("Failed", "Failed to run: the member has been permanently removed", None),
            (None, None) => said("Preparing", "Running pre state: waiting for the cluster to be joined", None),
        }
    }

    /// Gives the members of a fresh world their ids.
    pub(super) fn etcd_begin(&mut self) {
        for member in &mut self.talos.etcd.members {
            if member.id == 0 {
                member.id = made_id(&format!("{} {}", self.talos.cluster, member.name));
            }
            if let Some(node) = self.talos.nodes.get_mut(&member.name) {
                node.member = Some(member.id);
            }
        }
        if self.talos.etcd.leader.is_none() {
            self.talos.etcd.leader = self.talos.etcd.members.iter().find(|m| !m.learner).map(|m| m.id);
        }
    }

    /// Who leads, who joins, who gets a vote.
    pub(super) fn etcd_settle(&mut self) {
        let (up, now) = (self.etcd_up(), self.now);
        for etcd in std::iter::once(&mut self.talos.etcd).chain(&mut self.talos.others) {
            etcd.settle(&up, now);
        }
        if self.talos.etcd.leader.is_some() {
            self.etcd_join();
        }
    }

    /// A control plane without data joins: a member of its name goes, and it becomes a learner.
    fn etcd_join(&mut self) {
        let now = self.now;
        let ready = |name: &&String| {
            self.talos.nodes.get(*name).is_some_and(|node| {
                let run = node.run.as_ref().filter(|run| now >= run.services_at && run.wants.control_plane);
                let joins = |run: &super::node::Run| run.going.is_none() && !run.left_etcd && run.etcd_error.is_none();
                node.member.is_none() && run.is_some_and(joins)
            })
        };
        // One at a time: etcd has room for one learner.
        let Some(name) = self.talos.nodes.keys().find(ready).cloned() else { return };
        if self.talos.etcd.members.iter().any(|m| m.learner) {
            return;
        }
        self.counter += 1;
        let id = made_id(&format!("{} {name} {}", self.talos.cluster, self.counter));
        let votes_at = now + Duration::from_millis(self.talos.timing.learn);
        let host = self.talos_host(&name).to_owned();
        self.talos.etcd.members.retain(|m| m.name != host);
        let member = Member { id, name: host, learner: true, votes_at: Some(votes_at), ..Member::default() };
        self.talos.etcd.members.push(member);
        if let Some(node) = self.talos.nodes.get_mut(&name) {
            node.member = Some(id);
        }
        self.agenda.at(votes_at, Event::Look);
    }

    fn etcd_at_mut(&mut self, name: &str) -> &mut Etcd {
        let member = self.talos.nodes.get(name).and_then(|node| node.member);
        let talos = &mut self.talos;
        let other = talos.others.iter_mut().find(|etcd| member.is_some_and(|id| etcd.member(id).is_some()));
        other.unwrap_or(&mut talos.etcd)
    }

    /// Removes a member of the etcd of the node `at`.
    ///
    /// # Errors
    /// What keeps etcd from it (`server/etcdserver/server.go`, `RemoveMember` with strict reconfiguration checks).
    pub fn etcd_remove(&mut self, at: &str, id: u64) -> Result<(), No> {
        let up = self.etcd_up();
        let etcd = self.etcd_at_mut(at);
        if etcd.leader.is_none() {
            return Err(No::NoLeader);
        }
        let member = etcd.member(id).ok_or(No::NoMember)?.clone();
        let rest: Vec<&Member> = etcd.members.iter().filter(|m| m.id != id && !m.learner).collect();
        if !member.learner {
            if rest.is_empty() {
                return Err(No::NotEnough);
            }
            let there = rest.iter().filter(|m| up.contains(&m.id)).count();
            if there <= rest.len() / 2 {
                return Err(if up.contains(&id) { No::Unhealthy } else { No::NotEnough });
            }
        }
        etcd.members.retain(|m| m.id != id);
        etcd.index += 1;
        Ok(())
    }

    /// A node leaves: its member is removed, its etcd stops, and its data is deleted. It joins again at its next boot.
    ///
    /// # Errors
    /// As [`World::etcd_remove`].
    pub fn etcd_leave(&mut self, name: &str) -> Result<(), No> {
        let id = self.etcd_of(name).map(|m| m.id).ok_or(No::NoMember)?;
        self.etcd_remove(name, id)?;
        if let Some(node) = self.talos.nodes.get_mut(name) {
            node.member = None;
            if let Some(run) = node.run.as_mut() {
                run.left_etcd = true;
            }
        }
        Ok(())
    }

    /// Moves the leadership away from a node to the first other member. The new leader's name; empty where the node
    /// does not lead.
    ///
    /// # Errors
    /// What Talos answers (siderolabs/talos `internal/pkg/etcd/etcd.go`).
    pub fn etcd_forfeit(&mut self, name: &str) -> Result<String, String> {
        if self.etcd_at(name).leader.is_none() {
            return Err(format!("failed to list etcd members: {}", No::NoLeader.text()));
        }
        if self.etcd_at(name).members.len() == 1 {
            return Err("cannot forfeit leadership, only one member".into());
        }
        let id = self.etcd_of(name).map(|m| m.id).ok_or("failed to find it in list of etcd members")?;
        if self.etcd_at(name).leader != Some(id) {
            return Ok(String::new());
        }
        let up = self.etcd_up();
        let etcd = self.etcd_at_mut(name);
        // The first one of the list, whatever it is: a learner, or one that does not run, cannot.
        let Some(next) = etcd.members.iter().find(|m| m.id != id) else { return Ok(String::new()) };
        if next.learner {
            return Err("etcdserver: bad leader transferee".into());
        }
        if !up.contains(&next.id) {
            return Err(TOO_LONG.into());
        }
        let (next, name) = (next.id, next.name.clone());
        (etcd.leader, etcd.term) = (Some(next), etcd.term + 1);
        Ok(name)
    }
}
