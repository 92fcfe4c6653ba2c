//! The votes of etcd: how many there are, how many are heard, and how many it takes.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{Presence, Seat};

/// The votes of an etcd cluster, as its own members count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Votes {
    /// Members with a vote.
    pub voters: usize,
    /// Those that answer, know a leader and have nothing amiss.
    pub healthy: usize,
}

impl Votes {
    /// How many a majority takes.
    pub fn needed(self) -> usize {
        self.voters / 2 + 1
    }

    /// How many of the healthy ones may go before the majority is lost; None: it is lost.
    pub fn left(self) -> Option<usize> {
        self.healthy.checked_sub(self.needed())
    }
}

impl fmt::Display for Votes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self { voters, healthy }, needed) = (self, self.needed());
        let s = if *voters == 1 { "" } else { "s" };
        write!(f, "{voters} voter{s}, {healthy} healthy, {needed} needed")?;
        match self.left() {
            None => write!(f, ": no majority"),
            Some(0) => write!(f, ": none to spare"),
            Some(left) => write!(f, ": {left} to spare"),
        }
    }
}

/// Whether an etcd has its majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Majority {
    /// A member knows a leader.
    Held,
    /// None knows a leader, and Talos' own check has failed of it: that takes longer than an election.
    Lost,
    /// None knows a leader at this moment.
    Electing,
    /// Nobody could be asked.
    Unknown,
    /// There is no etcd: every machine waits for its first configuration.
    NotBegun,
}

/// How it stands with a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Voice {
    /// It answers, knows a leader and has nothing amiss.
    Well,
    /// It answers, and that is wrong with it.
    Amiss(String),
    /// Its machine is known to be away: off, dead, or waiting for a configuration.
    Away(Presence),
    /// It was added, and has never started.
    Unstarted,
    /// It is not known how it does, and why.
    Unknown(String),
}

impl Voice {
    /// One word, for those who read JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Amiss(_) => "amiss",
            Self::Away(Presence::Waits) => "waits",
            Self::Away(Presence::Off) => "off",
            Self::Away(_) => "dead",
            Self::Unstarted => "unstarted",
            Self::Unknown(_) => "unknown",
        }
    }

    /// What is to be said of it; None where it is well.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Well => None,
            Self::Amiss(why) => Some(why.clone()),
            Self::Away(presence) => Some(presence.to_string()),
            Self::Unstarted => Some("it was added and has never started".into()),
            Self::Unknown(why) => Some(why.clone()),
        }
    }
}

/// A member of an etcd, or a node that may be one where nobody tells the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, in 16 hexadecimal digits; None where nobody tells it.
    pub id: Option<String>,
    /// Its node's name in the site file, else its host name, else its id.
    pub name: String,
    /// It is that node of the site.
    pub node: Option<String>,
    /// What it is; None where nobody tells.
    pub seat: Option<Seat>,
    /// How it stands with it.
    pub voice: Voice,
}

impl Member {
    /// It has a vote, as far as is told.
    pub fn votes(&self) -> bool {
        matches!(self.seat, Some(Seat::Voter | Seat::Leader))
    }
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Member", 6)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("node", &self.node)?;
        fields.serialize_field("seat", &self.seat)?;
        fields.serialize_field("state", self.voice.word())?;
        fields.serialize_field("why", &self.voice.why())?;
        fields.end()
    }
}

/// An etcd as the nodes of a Talos cluster tell of it. What a reader of JSON gets: `cluster`, `majority`, `voters`,
/// `healthy`, `not-known`, `needed`, `to-spare` (null where nobody tells the members, which only a leader does, and
/// `to-spare` where the majority is lost), `members`, and all of it in words (`text`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ballot {
    /// The Talos cluster.
    pub cluster: String,
    /// Whether it has its majority.
    pub majority: Majority,
    /// The votes; None where nobody tells the members.
    pub votes: Option<Votes>,
    /// Its members; where nobody tells them, the nodes that may be some.
    pub members: Vec<Member>,
    /// Where the cluster has several: whose view this is.
    pub seen_by: Option<String>,
}

impl Serialize for Ballot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Ballot", 10)?;
        fields.serialize_field("cluster", &self.cluster)?;
        fields.serialize_field("seen-by", &self.seen_by)?;
        fields.serialize_field("majority", &self.majority)?;
        fields.serialize_field("voters", &self.votes.map(|votes| votes.voters))?;
        fields.serialize_field("healthy", &self.votes.map(|votes| votes.healthy))?;
        fields.serialize_field("not-known", &self.votes.map(|_| self.not_known()))?;
        fields.serialize_field("needed", &self.votes.map(Votes::needed))?;
        fields.serialize_field("to-spare", &self.votes.and_then(Votes::left))?;
        fields.serialize_field("members", &self.members)?;
        fields.serialize_field("text", &self.text())?;
        fields.end()
    }
}

impl Ballot {
    /// How many voters there are of which it is not known how they do.
    pub fn not_known(&self) -> usize {
        self.voters().filter(|member| matches!(member.voice, Voice::Unknown(_))).count()
    }

    /// The members with a vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.votes())
    }

    /// The member that a node of the site is.
    pub fn member_of(&self, node: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.node.as_deref() == Some(node))
    }

    /// The arithmetic; empty where there is none.
    pub fn sum(&self) -> String {
        let Some(votes) = self.votes else { return String::new() };
        let (unknown, needed) = (self.not_known(), votes.needed());
        if unknown == 0 || self.majority != Majority::Held {
            return votes.to_string();
        }
        let s = if votes.voters == 1 { "" } else { "s" };
        let head =
            format!("{} voter{s}, {} healthy, {unknown} not known, {needed} needed", votes.voters, votes.healthy);
        match votes.left() {
            // It has a leader, so there is one.
            None => format!("{head}: it has its majority"),
            Some(0) => format!("{head}: none to spare for certain"),
            Some(left) => format!("{head}: {left} to spare"),
        }
    }

    /// The arithmetic of one that has lost its majority.
    pub fn lost_sum(&self) -> String {
        if self.votes.is_some() { self.sum() } else { self.estimate() }
    }

    /// The same where nobody tells the members: how many voters answer of how many that there can be.
    fn estimate(&self) -> String {
        let answer = self.voters().count();
        let may = self.members.iter().filter(|member| member.seat.is_none()).count();
        let least = if may == 0 { answer } else { (2 * answer).max(answer + 1) };
        let most = (answer + may).max(least);
        let needed = |voters: usize| Votes { voters, healthy: 0 }.needed();
        let of = match most - least {
            0 => least.to_string(),
            1 => format!("{least} or {most}"),
            _ => format!("{least} to {most}"),
        };
        let takes = match (needed(least), needed(most)) {
            (one, other) if one == other => one.to_string(),
            (one, other) => format!("{one} or {other}"),
        };
        format!("{answer} of {of} voters {}, {takes} needed", if answer == 1 { "answers" } else { "answer" })
    }

    /// All of it in words.
    pub fn text(&self) -> String {
        let whose = self.seen_by.as_ref().map(|node| format!(" as {node} sees it")).unwrap_or_default();
        let head = format!("etcd {}{whose}", self.cluster);
        let said = match self.majority {
            Majority::NotBegun => return format!("{head}: not begun, every machine waits for its first configuration"),
            Majority::Unknown => return format!("{head}: nobody could be asked"),
            Majority::Held => self.sum(),
            Majority::Lost => format!(
                "no majority: {}; writes are refused, and `pvemig explain quorum-recover` says what leads out",
                self.lost_sum()
            ),
            Majority::Electing => format!("no leader at this moment: {}; an election takes seconds", self.lost_sum()),
        };
        let others = self.others();
        if others.is_empty() { format!("{head}: {said}") } else { format!("{head}: {said}; {}", others.join("; ")) }
    }

    /// The members that are no voters at work, each with what is to be said of it.
    fn others(&self) -> Vec<String> {
        let said = |member: &Member| {
            let learner = (member.seat == Some(Seat::Learner)).then(|| "a learner without a vote".to_owned());
            // That there is no leader is said of all of them.
            let why = member.voice.why().filter(|why| self.majority == Majority::Held || why != SEES_NO_LEADER);
            // How many those are stands in the sum.
            let why = why.filter(|why| why != NOT_ASKED);
            let parts: Vec<String> = learner.into_iter().chain(why).collect();
            (!parts.is_empty()).then(|| format!("{}: {}", member.name, parts.join(", ")))
        };
        self.members.iter().filter_map(said).collect()
    }
}

/// Why nothing is known of a member whose node was not asked for.
pub(super) const NOT_ASKED: &str = "not asked";
/// What is amiss with a member that knows no leader.
pub(super) const SEES_NO_LEADER: &str = "it sees no leader";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_is_that_of_etcd() {
        let cases = [
            (1, 1, "1 voter, 1 healthy, 1 needed: none to spare"),
            (2, 2, "2 voters, 2 healthy, 2 needed: none to spare"),
            (3, 3, "3 voters, 3 healthy, 2 needed: 1 to spare"),
            (3, 1, "3 voters, 1 healthy, 2 needed: no majority"),
            (5, 5, "5 voters, 5 healthy, 3 needed: 2 to spare"),
        ];
        assert_eq!(cases.len(), 5);
        for (voters, healthy, text) in cases {
            assert_eq!(Votes { voters, healthy }.to_string(), text);
        }
    }
}
