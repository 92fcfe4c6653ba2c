//! 02: a control plane has nothing of the old etcd any more, and waits for the new one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System, Thing};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::Votes;
use crate::blueprint::stand::{is_on_its_way, may_pass};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::{EtcdStatus, EtcdVolume};

use super::copies::{self, Held};
use super::facts::{Facts, Here, Holds, gather_shown, here};
use super::local::{self, Local};
use super::s00_preflight::{things, unconsented};
use super::{Planes, on};

/// Wipes the volume with etcd's data on one control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WipeEtcd {
    /// The control plane.
    pub machine: Machine,
    /// All control planes.
    pub planes: Planes,
}

/// What it had.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// The volume.
    pub volume: EtcdVolume,
    /// What of others was on it.
    pub data: Vec<String>,
    /// The member of the old etcd; None where its etcd did not answer.
    pub member: Option<String>,
}

impl Step<Estate> for WipeEtcd {
    const ID: &'static str = "02-wipe-etcd";
    const RISK: Risk = Risk::Destroys;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.machine.name.clone())
    }

    fn title(&self) -> String {
        format!("{} has nothing of the old etcd, and waits for the new one", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "All members are wiped before etcd begins anew on one. As long as one of them had its old data, a lost machine that comes \
             back would make the majority of the old etcd with it, beside the new one: two clusters. With all of them wiped those \
             that wait join the new one by themselves, one at a time: etcd takes one learner (`--max-learners`), and Talos asks \
             again for up to 30 minutes."
                .into(),
            "The one that etcd begins on comes last. Its copy, and that of every other survivor, is read back right before each wipe, \
             and all machines are asked again: where etcd has found its majority meanwhile, nothing is wiped."
                .into(),
            "The volume is named; a reset that names none wipes the whole disk. It is EPHEMERAL, or ETCD where etcd has one of its \
             own (from 1.14 on). The machine configuration is on STATE and stays."
                .into(),
            format!(
                "By hand: {}, with `ETCD` where that is a volume of its own; then {} until it says Preparing.",
                self.machine.talosctl("reset --graceful=false --reboot --system-labels-to-wipe=EPHEMERAL"),
                self.machine.talosctl("service etcd")
            ),
        ]
    }

    /// It stops its pods, and goes through its firmware.
    fn limit(&self) -> Duration {
        Duration::from_secs(900)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let name = &self.machine.name;
        let what = format!("{name}: where it has data of etcd, the volume that is on is wiped, and it reboots");
        Outlook {
            destroys: vec![Thing::member(name)],
            words: self.planes.vouched(),
            // What else is on the same volume shows at work.
            may_destroy: &["ephemeral"],
            stops: Some(self.machine.as_a_whole()),
            stops_until: Some(on::VERIFY),
            ..Outlook::changes(System::Talos, [what])
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        match self.look(cx, &seen).await {
            // It goes down and comes up while it is asked.
            Err(failure) if seen.since.is_some() && may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => other,
        }
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(since) = seen.since else { return Ok(()) };
        // All of it once more: behind the call there is no way back.
        let talos = self.machine.open(cx).await?;
        if is_on_its_way(&talos).await? || !matches!(here(cx, &self.machine).await, Here::Holds(_)) {
            return Ok(());
        }
        let found = local::look(&talos).await?;
        // Behind that, since it takes minutes: a majority may have come back meanwhile.
        let facts = gather_shown(cx, &self.planes, seen.run, None).await;
        let Some(Here::Holds(_)) = facts.of(&self.machine.name) else { return Ok(()) };
        let mut problems: Vec<Problem> = facts.led().map(|votes| self.led(&votes)).into_iter().collect();
        problems.extend(self.in_the_way(cx, &facts, &seen).await?);
        let fresh = paths(&found).into_iter().filter(|path| !since.data.contains(path)).collect::<Vec<_>>();
        if found.volume != since.volume || !fresh.is_empty() {
            problems.push(Problem::new(
                format!(
                    "{} of {} does not hold what it held when this run looked at it first: {}",
                    found.volume.label(),
                    self.machine.name,
                    fresh.join(", ")
                ),
                "`pvemig abandon` this run and begin another one, which shows what is on it by now",
            ));
        }
        if !problems.is_empty() {
            return Err(Failure::barred(problems));
        }
        // What an etcd has that does not tell was read whole for that: they are asked once more, and nothing is read.
        let facts = gather_shown(cx, &self.planes, seen.run, None).await;
        let Some(Here::Holds(_)) = facts.of(&self.machine.name) else { return Ok(()) };
        let mut problems: Vec<Problem> = facts.led().map(|votes| self.led(&votes)).into_iter().collect();
        problems.extend(facts.in_the_way(&self.planes, &seen.run.consents).into_iter().map(|(_, problem)| problem));
        if !problems.is_empty() {
            return Err(Failure::barred(problems));
        }
        let permit = &permit.in_boot(&talos.this_boot().await?);
        talos.wipe_etcd(permit, found.volume, &things(&self.machine, &found)).await?;
        Ok(())
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let (name, label) = (&self.machine.name, before.volume.label());
        if let Here::Holds(Holds { status: Ok(status), .. }) = here(cx, &self.machine).await
            && before.member.as_deref() == Some(&hex(&status))
            && status.leader == 0
        {
            return Ok(Check::done().note(format!("{name} has its etcd as before")));
        }
        let held = copies::held(seen.run)?.unwrap_or_default();
        let copy = copies::chosen(&held, &self.planes.from.name).and_then(|copy| copies::place(seen.run, copy));
        let copy = copy.map_or_else(|| "among the files of 01".to_owned(), |path| path.display().to_string());
        let change = Change::act(format!(
            "{label} of {name} is wiped, and an undo does not bring it back: until 03 is done the etcd of {} may be nowhere but in \
             {copy}; it begins from there by `pvemig resume {}`, or, once that run is undone, by a new one with `snapshot: {copy}`",
            self.planes.cluster, seen.run.id
        ));
        let lost = before.data.iter().map(|path| Change::remove(format!("{name} had"), path));
        Ok(Check::todo(std::iter::once(change).chain(lost).collect(), ()))
    }
}

/// Where a run has no copy.
const TAKEN: &str = "01 takes it, in the same run: `pvemig run` the migration, and `pvemig abandon` before it one that is open with \
                     its 01 behind it";
/// Where those of this run are of no use any more.
const ANEW: &str = "`pvemig abandon` this run, and `pvemig run` the migration anew: its 01 copies what is there by now";

fn hex(status: &EtcdStatus) -> String {
    format!("{:016x}", status.member)
}

fn paths(found: &Local) -> Vec<String> {
    found.data.iter().map(|(path, _)| path.clone()).collect()
}

impl WipeEtcd {
    async fn look(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        let facts = gather_shown(cx, &self.planes, seen.run, None).await;
        if let Some(votes) = facts.led() {
            // A run that has taken its copies means to wipe: a majority of a moment settles nothing for good.
            let has_the_old = |since: &Before| match facts.of(name) {
                Some(Here::Holds(Holds { status: Ok(status), .. })) => since.member == Some(hex(status)),
                _ => false,
            };
            let meant = copies::held(seen.run)?.is_some() && seen.since.is_none_or(has_the_old);
            return Ok(if meant {
                Check::blocked(vec![self.led(&votes)])
            } else {
                Check::not_needed(format!("etcd has {votes}: nothing is wiped"))
            });
        }
        if let Some(Here::Empty { state, .. }) = facts.of(name)
            && state == "Preparing"
        {
            return Ok(Check::done().note(format!("the etcd of {name} has nothing, and waits to be begun or to join")));
        }
        // A wait writes nothing down: whose word counts no longer would be believed again once it is silent.
        let voided = facts.voided(&self.planes, &seen.run.consents);
        if !voided.is_empty() {
            return Ok(Check::blocked(voided));
        }
        let holds = match facts.of(name) {
            Some(Here::Holds(holds)) => holds,
            Some(Here::Empty { state, message }) => {
                return Ok(Check::waiting(format!("the etcd of {name} has nothing and is {state}: {message}")));
            }
            Some(Here::Silent(why)) if seen.since.is_some() => return Ok(Check::waiting(why.clone())),
            Some(Here::Silent(_)) | None => {
                return Ok(Check::blocked(self.in_the_way(cx, &facts, seen).await?));
            }
        };
        let talos = self.machine.open(cx).await?;
        // It was told to go down by this run: that its etcd says nothing is no wonder then. The volume is wiped before it
        // boots: where that boot is over and the data is there, nothing came of it, and it is told anew.
        if let (Some(told), Err(why)) = (seen.got.last(), &holds.status) {
            let then = told.note.boot.as_ref();
            let over = match then {
                Some(then) => *then != talos.this_boot().await?,
                None => false,
            };
            if !over {
                let anew = format!(
                    "boot it ({}, or its power), and `pvemig resume` tells it anew",
                    self.machine.talosctl("reboot")
                );
                let out = if then.is_some() { &anew } else { ANEW };
                return Ok(Check::waiting(format!(
                    "{name} has been told to wipe its etcd, and goes down: {why}; where that lasts, {} says what keeps it: {out}",
                    self.machine.talosctl("dmesg")
                )));
            }
            // It may have booted between the two questions: what was seen is of the boot before then, and wiped.
            let Here::Holds(Holds { status: Err(_), .. }) = here(cx, &self.machine).await else {
                return Ok(Check::waiting(format!("{name} has booted since it was told to wipe its etcd")));
            };
        }
        if seen.since.is_some() && is_on_its_way(&talos).await? {
            return Ok(Check::waiting(format!("{name} is going down")));
        }
        let found = local::look(&talos).await?;
        let mut problems = self.in_the_way(cx, &facts, seen).await?;
        let given = |thing: &Thing| seen.run.consents.contains(thing);
        problems.extend(unconsented(&self.machine, &found, given).into_iter().map(|(_, problem)| problem));
        if !problems.is_empty() {
            return Ok(Check::blocked(problems));
        }
        let what = format!("{name} {}", found.volume.label());
        let mut changes = vec![Change::remove(what, "wiped, with what etcd has on it")];
        changes.extend(found.data.iter().map(|(path, size)| Change::remove(format!("{name} {path}"), size)));
        changes.push(Change::act(format!("{name} reboots")));
        // What it said before it was told the first time.
        let said = || seen.since.and_then(|since| since.member.clone());
        let member = holds.status.as_ref().ok().map(hex).or_else(said);
        Ok(Check::todo(changes, Before { volume: found.volume, data: paths(&found), member }))
    }

    /// Why it is not wiped while etcd has its majority.
    fn led(&self, votes: &Votes) -> Problem {
        let text = format!("etcd has its majority again ({votes}): nothing of {} is wiped", self.machine.name);
        Problem::new(text, format!("there is nothing to recover while that lasts; where it is lost again, {ANEW}"))
    }

    /// Why it is not wiped now.
    async fn in_the_way(&self, cx: &Estate, facts: &Facts, seen: &Seen<'_, Before>) -> Result<Vec<Problem>, Failure> {
        let mut problems: Vec<Problem> =
            facts.in_the_way(&self.planes, &seen.run.consents).into_iter().map(|(_, problem)| problem).collect();
        // Who was asked to go down answers later.
        let Some(held) = copies::held(seen.run)? else {
            let text = format!("no copy is held of what {} has", self.machine.name);
            problems.push(Problem::new(text, TAKEN).mended_by(on::SAVE));
            return Ok(problems);
        };
        for (name, more) in copies::newer(cx, &held, facts).await {
            let text = format!("{name} has more by now than its copy: {more}");
            let help = format!(
                "{ANEW}; where the etcd of {name} starts over and over, and is of no use, switch {name} off and put it under `lost`"
            );
            problems.push(Problem::new(text, help));
        }
        problems.extend(copies::strangers(&held, facts, &self.planes));
        if matches!(facts.of(&self.planes.from.name), Some(Here::Holds(_))) {
            let given = held.iter().any(|copy| copy.node.is_none());
            problems.extend(facts.unfit(&self.planes, given).into_iter().map(|(_, problem)| problem));
        }
        if self.machine.name == self.planes.from.name {
            for (machine, _) in facts.holders().filter(|(machine, _)| machine.name != self.machine.name) {
                let text = format!(
                    "{} has its data still, and {} is wiped last: etcd had its majority for a moment when it was asked",
                    machine.name, self.machine.name
                );
                problems.push(Problem::new(text, ANEW));
            }
        }
        let of = |name: &str| held.iter().any(|copy: &Held| copy.node.as_deref() == Some(name));
        for (machine, _) in facts.holders().filter(|(machine, _)| !of(&machine.name)) {
            let text = format!("no copy is held of what {} has", machine.name);
            problems.push(Problem::new(text, ANEW));
        }
        if copies::chosen(&held, &self.planes.from.name).is_none() {
            let text = format!("no copy is held that etcd could begin from on {}", self.planes.from.name);
            problems.push(Problem::new(text, "name one by `snapshot` in the parameters"));
        }
        Ok(problems)
    }
}
