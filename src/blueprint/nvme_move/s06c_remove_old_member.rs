//! 06c: etcd has no member left over of the node's former installation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, Thing};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{Etcd, Peer, Said, amiss, apart, look, votes};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::EtcdMember;

/// Removes a member with the node's name that is not the one that runs on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveOldMember {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// It is a worker, by its configuration.
    #[serde(default)]
    pub worker: bool,
}

/// The member that there was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its id, in 16 hexadecimal digits.
    pub member: String,
    /// Its name.
    pub name: String,
}

impl Step<Estate> for RemoveOldMember {
    const ID: &'static str = "06c-remove-old-member";
    const RISK: Risk = Risk::Destroys;
    type Before = Before;

    fn title(&self) -> String {
        format!("etcd has no member of {} but the one that runs on it", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A member that is left over counts as a voter that never answers.".into(),
            "Mostly there is none: 02a had the old one leave, and Talos removes one of its own name by itself when it joins.".into(),
            "It is removed by another control plane, and only one that answers nowhere, with all others well; it takes the consent \
             `etcd/ID`."
                .into(),
            "By hand, asked of another control plane: `talosctl etcd members`, `talosctl etcd remove-member ID`.".into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        if self.worker {
            return Outlook { spares: true, ..Outlook::default() };
        }
        let maybe = format!("a member of etcd that is left over of {} is removed", self.machine.name);
        Outlook { may_destroy: &["etcd"], ..Outlook::default().maybe(maybe) }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        let sum = votes(&etcd).map(|votes| format!("etcd has {votes}"));
        Ok(match self.stands(&etcd) {
            Stood::Worker => Check::not_needed(format!("{} is no control plane", self.machine.name)),
            Stood::None if seen.since.is_some() => Check::done().notes(sum),
            Stood::None => Check::not_needed("etcd has no such member").notes(sum),
            Stood::Waits(why) => Check::waiting(why),
            Stood::Shut(problems) => Check::blocked(problems).notes(sum),
            Stood::Goes(member) => {
                let thing = Thing::member(&member.hex());
                if !seen.run.consents.contains(&thing) {
                    let text = format!("the member {} of etcd is left over, and would go for good", named(&member));
                    let help = format!("add `--destroy {thing}` where it may");
                    return Ok(Check::blocked(vec![Problem::new(text, help)]).notes(sum));
                }
                let change = Change::remove("etcd", format!("member {} is removed", named(&member)));
                Check::todo(vec![change], Before { member: member.hex(), name: member.name() }).notes(sum)
            }
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(since) = seen.since else { return Ok(()) };
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        let member = match self.stands(&etcd) {
            Stood::Worker | Stood::None => return Ok(()),
            Stood::Waits(why) => return Err(Failure::plain(why, None)),
            Stood::Shut(problems) => return Err(Failure::barred(problems)),
            Stood::Goes(member) => member,
        };
        if member.hex() != since.member {
            let text = format!("the member that is left over is {} by now, and was {}", member.hex(), since.member);
            let help = "`pvemig abandon` this run and begin another one, which shows what it is by now";
            return Err(Failure::plain(text, Some(help.into())));
        }
        permit.may_destroy(&Thing::member(&member.hex()))?;
        let Some(by) = etcd.voter_beside(&self.machine.name) else {
            return Err(Failure::plain("no other control plane tells the members of etcd any more", None));
        };
        Ok(cx.talos(by).await?.etcd_remove(permit, &member).await?)
    }

    async fn back(&self, cx: &Estate, before: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        let Some(votes) = votes(&etcd) else {
            let why: Vec<String> = etcd.silent().map(|(name, why)| format!("{name}: {why}")).collect();
            let text = format!("no control plane tells the members of etcd ({})", why.join("; "));
            return Err(Failure::plain(text, Some("let one of them answer".into())));
        };
        if etcd.member_ids().contains(&before.member) {
            return Ok(Check::done().note(format!("the member {} is there, as before", before.member)));
        }
        let change = Change::act(format!(
            "the member {} ({}) is out of etcd and does not come back: it was left over. etcd has {votes}",
            before.name, before.member
        ));
        Ok(Check::todo(vec![change], ()))
    }
}

/// How etcd stands.
#[derive(Debug)]
enum Stood {
    Worker,
    /// There is no such member.
    None,
    Waits(String),
    Shut(Vec<Problem>),
    Goes(EtcdMember),
}

fn named(member: &EtcdMember) -> String {
    format!("{} ({})", member.name(), member.hex())
}

impl RemoveOldMember {
    fn stands(&self, etcd: &Etcd) -> Stood {
        let (name, host) = (&self.machine.name, &self.machine.node.name);
        let view = match etcd.said_by(name) {
            Some(Said::Worker) => return Stood::Worker,
            Some(Said::View(view)) => view,
            Some(Said::Silent(why)) => {
                return Stood::Waits(format!("which member of etcd {name} is is not known: {why}"));
            }
            None => return Stood::Waits(format!("{name} is no node of its Talos cluster")),
        };
        let old: Vec<&EtcdMember> =
            view.members.iter().filter(|one| one.hostname == *host && one.id != view.status.member).collect();
        let Some(first) = old.first() else { return Stood::None };
        let runs = |member: &EtcdMember| {
            etcd.said.iter().any(|(_, said)| matches!(said, Said::View(view) if view.status.member == member.id))
        };
        let mut problems: Vec<Problem> = Vec::new();
        for member in &old {
            if runs(member) {
                let text = format!("member {} of etcd answers, and is not the one of {name}", named(member));
                problems.push(Problem::new(text, "`pvemig survey` shows who is who: two machines have one name"));
            }
        }
        if old.len() > 1 {
            let all: Vec<String> = old.iter().map(|member| member.hex()).collect();
            let help = "see which of them is whose: `talosctl etcd status`, and remove them one by one";
            problems.push(Problem::new(
                format!("etcd has {} members of {name} too many: {}", all.len(), all.join(", ")),
                help,
            ));
        }
        problems.extend(apart(etcd));
        for (peer, said) in &etcd.said {
            match said {
                Said::View(_) => problems.extend(amiss(&peer.name, etcd)),
                Said::Worker => {}
                Said::Silent(why) => {
                    let text = format!("{} cannot be asked for its member of etcd: {why}", peer.name);
                    problems.push(Problem::new(text, format!("let {} answer first", peer.name)));
                }
            }
        }
        if votes(etcd).is_none_or(|votes| votes.left().is_none()) {
            let help = "`pvemig explain quorum-recover`";
            problems.push(Problem::new("etcd has no majority: it changes nothing, its members neither", help));
        }
        if problems.is_empty() { Stood::Goes((*first).clone()) } else { Stood::Shut(problems) }
    }
}
