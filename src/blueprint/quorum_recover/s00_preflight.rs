//! 00: what answers, what each member holds and how old that is, and everything that keeps etcd from beginning again.

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{System, Thing};
use crate::blueprint::finding::{self, Findings, asked};
use crate::blueprint::machine::Machine;
use crate::engine::step::{Risk, RunInfo, Seen, Step};
use crate::estate::Estate;

use super::copies::{self, Copies};
use super::facts::{Facts, gather_shown};
use super::given;
use super::judge::Named;
use super::lost::{Gone, Shell};
use super::{Planes, known, local, on, rights};

/// Looks at all control planes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preflight {
    /// The control planes.
    pub planes: Planes,
    /// Where copies come from and go to.
    pub copies: Copies,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for Preflight {
    const ID: &'static str = "00-preflight";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!(
            "etcd of {} has lost its majority, and may begin again on {}",
            self.planes.cluster, self.planes.from.name
        )
    }

    fn why(&self) -> Vec<String> {
        vec![
            "The cheapest way out of a lost majority is a voter that is switched on again. What is done here is for when none comes \
             back: it takes etcd back to what one member has."
                .into(),
            "Every control plane is in one of `from`, `nodes` and `lost`, and each is asked: one that stays must answer, one that is \
             lost must not, and of those that answer the one that etcd begins from must be the newest (its raft index)."
                .into(),
            "Up to 1.13 etcd's data is on EPHEMERAL with all of /var, images and emptyDirs among it: those are made anew. What else \
             is there (/var/local, /var/openebs, /opt/local-path-provisioner) is listed, and needs a consent of its own."
                .into(),
            "A machine that is only silent may be cut off, and serve on with the others of the old majority. A Kubernetes API that \
             answers is proof of one; a VM is seen to be off, and to be the one that the node ran in where its uuid is that of the \
             Node that etcd has; of any other machine somebody has to say that it never comes back with its disk: \
             `--destroy gone/NODE`."
                .into(),
            format!(
                "By hand: {}, {}, {}.",
                self.planes.from.talosctl("etcd status"),
                self.planes.from.talosctl("list -l /var/lib/etcd/member/snap"),
                self.planes.from.talosctl("usage /var")
            ),
        ]
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let mut out = Findings::of(System::Talos);
        let kept = copies::of_others(cx.journals(), &seen.run.id, &self.planes.from.name);
        for problem in copies::open(&kept, seen.run) {
            out.borrowed(&known::OPEN, on::SAVE, problem);
        }
        // Nobody has to be asked for that: what does not answer just now takes its time.
        if !out.all.is_empty() {
            return Ok(finding::check(out.all));
        }
        let facts = gather_shown(cx, &self.planes, seen.run, self.copies.snapshot.as_deref()).await;
        if let Some(votes) = facts.led() {
            let there = facts.there(&votes);
            let lost = facts.lost_members(&self.planes);
            if lost.is_empty() {
                return Ok(Check::not_needed(format!("{there}; it has its majority, and nothing is to be recovered")));
            }
            let problem = still_member(&there, &lost);
            out.borrowed(&known::MAJORITY, on::VERIFY, problem);
            return Ok(finding::check(out.all));
        }
        out.note(on::SAVE, format!("as far as is told etcd has {}", facts.at_most()));
        for line in facts.words(cx.clock().now()) {
            out.note(on::SAVE, line);
        }
        // Of the step with which the new one begins: whoever has been wiped may be behind already.
        for (known, problem) in facts.in_the_way(&self.planes, &seen.run.consents) {
            out.borrowed(known, on::RECOVER, problem);
        }
        for (known, mut problem) in facts.unfit(&self.planes, self.copies.snapshot.is_some()) {
            if known.name == known::EMPTY.name && !kept.is_empty() {
                let each = kept.iter().map(|(id, path)| format!("`snapshot: {}` (run {id})", path.display()));
                let each = each.collect::<Vec<_>>().join("; older: ");
                problem.help = format!("name a copy in the parameters, the newest as a rule: {each}");
            }
            out.borrowed(known, on::SAVE, problem);
        }
        if let Some(path) = &self.copies.snapshot {
            match given::given(path, &facts, &self.planes, cx.clock().now()) {
                Ok(notes) => notes.into_iter().for_each(|note| out.note(on::SAVE, note)),
                Err(problem) => out.borrowed(&known::GIVEN, on::SAVE, problem),
            }
        }
        lost(&facts, &mut out);
        self.given(cx, &facts, seen.run, &mut out).await;
        let roles = asked(async { Ok::<_, Failure>(self.planes.from.open(cx).await?.roles().to_vec()) }.await);
        match roles {
            Ok(roles) if roles.iter().any(|role| role == rights::ROLE) => {}
            Ok(roles) => out.problem(
                &known::ROLE,
                on::RECOVER,
                format!(
                    "the talosconfig's certificate has the roles {}, and {} is needed",
                    roles.join(", "),
                    rights::ROLE
                ),
                "name a talosconfig with that role in the site file",
            ),
            Err(why) => out.unknown(on::RECOVER, &format!("the talosconfig of {}", self.planes.cluster), &why),
        }
        Ok(finding::check(out.all))
    }
}

/// Why nothing is recovered where a lost machine is a member of an etcd that has its majority.
pub(super) fn still_member(there: &str, lost: &[String]) -> Problem {
    Problem::new(
        format!("{there}; it has its majority, {} among its members, and nothing is to be recovered", lost.join(", ")),
        format!(
            "a member that is gone is replaced (`node-replace`) or removed (`talosctl etcd remove-member`); one that is back is taken \
             out of `lost` ({})",
            lost.join(", ")
        ),
    )
}

/// What there is to know of those that are lost.
fn lost(facts: &Facts, out: &mut Findings) {
    for (machine, gone, shell) in &facts.gone {
        let name = &machine.name;
        match (gone, shell) {
            (Gone::Waits, _) => out.note(
                on::SAVE,
                format!("{name} waits for a first configuration, and has nothing of etcd any more on any of its disks"),
            ),
            (Gone::Silent, Shell::Off(off)) => {
                let vmid = off.vmid;
                let onboot = match off.onboot {
                    Some(true) => format!("; it starts with its host (`qm set {vmid} --onboot 0`)"),
                    Some(false) => String::new(),
                    None => "; whether it starts with its host is not known".to_owned(),
                };
                out.note(
                    on::SAVE,
                    format!(
                        "vm {vmid} ({name}) is there and off: where its disk is whole, switching it on again is the cheapest way \
                         out (`qm start {vmid}`), and once this has begun it must not come back with that disk{onboot}"
                    ),
                );
            }
            (Gone::Silent, _) => out.note(
                on::SAVE,
                format!("{name} does not answer: that it never comes back with its disk nobody can see from here"),
            ),
            (Gone::There(_), _) => {}
        }
    }
}

impl Preflight {
    /// What goes with etcd, and what of it was given.
    async fn given(&self, cx: &Estate, facts: &Facts, run: &RunInfo, out: &mut Findings) {
        let looked = join_all(facts.holders().map(|(machine, _)| async move {
            (machine, asked(async { local::look(&*machine.open(cx).await?).await }.await))
        }))
        .await;
        for (machine, found) in looked {
            let (name, wipe) = (&machine.name, StepKey::new(on::WIPE, Some(&machine.name)));
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    out.unknown(wipe, &format!("what else is on the volume of {name} that etcd is on"), &why);
                    continue;
                }
            };
            out.note(wipe.clone(), format!("{name}: {} is wiped, and nothing else", found.volume.label()));
            for (path, size) in &found.data {
                out.note(wipe.clone(), format!("- {name} {path}: {size}"));
            }
            for (known, problem) in unconsented(machine, &found, |thing| run.consents.contains(thing)) {
                out.borrowed(known, wipe.clone(), problem);
            }
        }
    }
}

/// What goes with the etcd of a node: by what a person has to call it.
pub(super) fn things(machine: &Machine, found: &local::Local) -> Vec<Thing> {
    let local = (!found.data.is_empty()).then(|| Thing::ephemeral(&machine.name));
    std::iter::once(Thing::member(&machine.name)).chain(local).collect()
}

/// What of that was not given.
pub(super) fn unconsented(machine: &Machine, found: &local::Local, given: impl Fn(&Thing) -> bool) -> Vec<Named> {
    let name = &machine.name;
    let mut out = Vec::new();
    for thing in things(machine, found).into_iter().filter(|thing| !given(thing)) {
        let help = format!("if it may go, add `--destroy {thing}` to the command");
        out.push(if thing == Thing::member(name) {
            let text = format!("the etcd of {name} is wiped with all of its volume {}", found.volume.label());
            (&known::CONSENT, Problem::new(text, help))
        } else {
            let data: Vec<String> = found.data.iter().map(|(path, size)| format!("{path} ({size})")).collect();
            let text = format!(
                "EPHEMERAL of {name} has what neither Talos nor the kubelet made, and is wiped with it: {}",
                data.join(", ")
            );
            let help = format!("take away what is needed ({}); {help}", machine.talosctl("copy /var/local ./local"));
            (&known::LOCAL, Problem::new(text, help))
        });
    }
    out
}
