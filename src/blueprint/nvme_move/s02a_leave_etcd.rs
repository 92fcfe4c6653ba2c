//! 02a: the node is out of etcd for as long as its system disk is another one: it leaves by itself, and joins at its next
//! boot.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::configs::configs;
use crate::blueprint::install::asked::runs_from;
use crate::blueprint::machine::Machine;
use crate::blueprint::off::{Off, two_ways};
use crate::blueprint::quorum::{self, Etcd, Peer, Said, Votes, amiss, apart, judge, look, votes};
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::{Leaving, RebootMode, Talos};

use super::anew::Anew;
use super::on;
use super::remembered::{count, left_file, left_in};
use super::s01_backup::has_snapshot;

/// Has the node leave etcd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaveEtcd {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// What it is installed anew with.
    pub anew: Anew,
}

/// The member that there was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its id, in 16 hexadecimal digits.
    pub member: String,
    /// The boot in which it left: the next one joins again.
    pub boot: String,
}

/// The votes that etcd has where this node has no member in it, as all others who answer agree. None: it has one, or
/// nobody tells for certain.
pub(super) fn gone(machine: &Machine, etcd: &Etcd) -> Option<Votes> {
    // One that runs there is no left-over.
    if etcd.knows(&machine.name) || !apart(etcd).is_empty() || !etcd.ids_of(&machine.node.name).is_empty() {
        return None;
    }
    votes(etcd).filter(|votes| votes.left().is_some())
}

/// The votes before and after.
fn sum(name: &str, etcd: &Etcd) -> Option<String> {
    let now = votes(etcd)?;
    let then = Votes { voters: now.voters.saturating_sub(1), healthy: now.healthy.saturating_sub(1) };
    let then = if then.voters == 0 { "none".to_owned() } else { then.to_string() };
    Some(format!("etcd has {now}; without {name} {then}"))
}

impl Step<Estate> for LeaveEtcd {
    const ID: &'static str = "02a-leave-etcd";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} has left etcd until its next boot", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Its data of etcd does not come along to the new system disk: that joins as a new member. The old one would count as a \
             voter that never answers, for as long as somebody works on the machine."
                .into(),
            "Right before the call etcd is asked once more for its majority, and its leadership handed over. The only voter does not \
             leave, nor does one of two: what is left must be two that are well."
                .into(),
            "It joins again by itself at its next boot: an undo reboots it, or has 03 start it with its old disk.".into(),
            format!(
                "By hand: {} and {}.",
                self.machine.talosctl("etcd forfeit-leadership"),
                self.machine.talosctl("etcd leave")
            ),
        ]
    }

    /// Talos tries for up to five minutes while etcd is not healthy.
    fn limit(&self) -> Duration {
        Duration::from_secs(360)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        if self.anew.bare.source.is_of_a_worker() {
            return Outlook::default();
        }
        let name = &self.machine.name;
        Outlook::changes(System::Talos, [format!("the member {} of etcd", self.machine.node.name)])
            .maybe_back(format!("{name} reboots, and joins etcd again"))
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        let stood = two_ways(cx, &self.machine).await?;
        if let Off::On(talos, _) = &stood
            && runs_from(talos).await?.is_some_and(|(_, serial)| serial == self.anew.bare.disk)
        {
            return Ok(Check::not_needed(format!("{name} runs from disk {} already", self.anew.bare.disk)));
        }
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        if let Some(Said::Worker) = etcd.said_by(name) {
            return Ok(Check::not_needed(format!("{name} is no control plane")));
        }
        if let Some(votes) = gone(&self.machine, &etcd) {
            return Ok(Check::done().note(format!("{name} has no member in etcd: it has {votes}")));
        }
        match stood {
            Off::On(talos, _) => self.ahead(&talos, &etcd, &seen).await,
            Off::Between(why) => Ok(Check::waiting(format!("{name}: {why}"))),
            Off::Off(why) | Off::Silent(why) | Off::Deaf(why) | Off::Other(why) => Ok(self.not_up(&etcd, &why)),
        }
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Off::On(talos, _) = two_ways(cx, &self.machine).await? else { return Ok(()) };
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        if gone(&self.machine, &etcd).is_some() {
            return Ok(());
        }
        if let Some(problem) = self.too_few(&etcd) {
            return Err(Failure::barred(vec![problem]));
        }
        quorum::pass(cx, &self.machine.cluster, &self.machine.name, &self.peers, permit).await?;
        // Not that of the check: it may have been booted since, and joins again only at the boot after the one it leaves in.
        let boot = talos.this_boot().await?;
        permit.file(&left_file(count(seen.run, Self::ID, left_file)?), boot.as_bytes())?;
        Ok(talos.etcd_leave(&permit.in_boot(&boot), Leaving::UntilItsNextBoot).await?)
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let name = &self.machine.name;
        let talos = match two_ways(cx, &self.machine).await? {
            Off::On(talos, _) => talos,
            Off::Between(why) | Off::Deaf(why) => return Ok(Check::waiting(format!("{name}: {why}"))),
            // It has been told to reboot.
            Off::Silent(why) if !seen.got.is_empty() => return Ok(Check::waiting(format!("{name}: {why}"))),
            Off::Off(why) | Off::Silent(why) | Off::Other(why) => {
                return Ok(Check::done().stays([format!("{name} joins etcd again at its next boot: {why}")]));
            }
        };
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        let Some(problem) = amiss(name, &etcd) else {
            return Ok(Check::done().notes(votes(&etcd).map(|votes| format!("etcd has {votes}"))));
        };
        if self.left(&talos, &etcd, before, seen.run).await?.is_some() {
            let reboots = Change::act(format!("{name} reboots, and joins etcd again"));
            return Ok(Check::todo(vec![reboots], ()));
        }
        Ok(Check::waiting(format!("{name} joins etcd again: {}", problem.text)))
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Off::On(talos, _) = two_ways(cx, &self.machine).await? else { return Ok(()) };
        let etcd = look(cx, &self.machine.cluster, &self.peers).await;
        let Some(boot) = self.left(&talos, &etcd, before, seen.run).await? else { return Ok(()) };
        // A boot takes what is on its disk into effect.
        if let Err(problem) = configs(&self.machine, &talos).await?.with_a_boot(&self.machine, None) {
            return Err(Failure::barred(vec![problem]));
        }
        talos.reboot(&permit.in_boot(&boot), RebootMode::Kexec).await?;
        Ok(())
    }
}

impl LeaveEtcd {
    /// It is up, and etcd has its member.
    async fn ahead(&self, talos: &Talos, etcd: &Etcd, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        let verdict = judge(name, etcd);
        // Its member is out, and the others have not settled.
        if let (Some(since), Some(problem)) = (seen.since, verdict.problems.first())
            && (verdict.electing || !etcd.member_ids().contains(&since.member))
        {
            return Ok(Check::waiting(problem.text.clone()));
        }
        if verdict.electing {
            let why = verdict.problems.first().map(|problem| problem.text.clone()).unwrap_or_default();
            return Ok(Check::waiting(why));
        }
        let mut problems: Vec<Problem> = self.too_few(etcd).into_iter().collect();
        if problems.is_empty() {
            problems = verdict.problems;
        }
        if !has_snapshot(seen.run)? {
            let text = format!("{name} is to leave etcd, and this run has no snapshot of it");
            let help = "`pvemig run` takes one first; `pvemig etcd snapshot` takes one for another place";
            problems.push(Problem::new(text, help).mended_by(on::BACKUP));
        }
        let sum = sum(name, etcd);
        if !problems.is_empty() {
            return Ok(Check::blocked(problems).notes(sum));
        }
        let Some(Said::View(view)) = etcd.said_by(name) else {
            return Ok(Check::waiting(format!("{name} does not tell which member of etcd it is")));
        };
        let member = format!("{:016x}", view.status.member);
        let change = format!("member {} ({member}) leaves until its next boot", self.machine.node.name);
        let before = Before { member, boot: talos.this_boot().await? };
        Ok(Check::todo(vec![Change::remove("etcd", change)], before).notes(sum))
    }

    /// It is the only voter, and there would be nothing to join.
    fn too_few(&self, etcd: &Etcd) -> Option<Problem> {
        let name = &self.machine.name;
        (etcd.by_vote().0.len() == 1 && etcd.knows(name)).then(|| {
            Problem::new(
                format!("{name} is the only voter of etcd: without it there is none, and its new installation has nobody to join"),
                "add a control plane first (`cluster-build`), or move the system disk as it is (`scenario: system-moved`); where \
                 that is broken, `pvemig explain quorum-recover` begins etcd anew from a snapshot",
            )
        })
    }

    /// It does not run, and etcd may have its member.
    fn not_up(&self, etcd: &Etcd, why: &str) -> Check<Before> {
        let name = &self.machine.name;
        let ids = etcd.ids_of(&self.machine.node.name);
        let text = if ids.is_empty() {
            format!("whether {name} has a member of etcd nobody tells for certain: {why}")
        } else {
            format!("{name} does not run ({why}), and etcd has its member {}", ids.join(", "))
        };
        let help = format!(
            "let {name} boot from its old disk: it leaves by itself then. Where that is gone for good, `node-replace` takes its \
             member out"
        );
        Check::blocked(vec![Problem::new(text, help)])
    }

    /// Its boot, where it is out of etcd and in the boot in which it left: that of the first look, or a later one.
    async fn left(
        &self,
        talos: &Talos,
        etcd: &Etcd,
        before: &Before,
        run: &RunInfo,
    ) -> Result<Option<String>, Failure> {
        if gone(&self.machine, etcd).is_none() {
            return Ok(None);
        }
        let boot = talos.this_boot().await?;
        let is_it = boot == before.boot || left_in(run, &boot)?;
        Ok(is_it.then_some(boot))
    }
}
