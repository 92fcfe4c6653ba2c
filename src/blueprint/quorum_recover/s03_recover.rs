//! 03: etcd begins again, on one control plane and once, from the copy that is held.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Change, Check, Problem};
use crate::base::fault::{Failure, Fault};
use crate::base::permit::{Permit, System};
use crate::base::wait::{Backoff, show};
use crate::blueprint::machine::Machine;
use crate::blueprint::quorum::{amiss, apart};
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::Error;

use super::copies::{self, Held};
use super::facts::{ETCD, Facts, Here, Holds, gather, gather_shown};
use super::local;
use super::{Planes, names, on};

/// How long a node may still call itself not ready after its etcd has said that it waits.
const READY: Duration = Duration::from_secs(120);

/// How long the data of an etcd that exists already may take until it is seen.
const APPEARS: Duration = Duration::from_secs(60);

/// Begins etcd from a copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recover {
    /// The control planes.
    pub planes: Planes,
}

/// There was no etcd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for Recover {
    const ID: &'static str = "03-recover";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!(
            "etcd of {} has begun again on {}, with the objects of the copy",
            self.planes.cluster, self.planes.from.name
        )
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A second beginning on another machine makes a second etcd beside the first, and with it a second cluster of the same \
             name. So every machine is asked before: none that stays may have data, none that is lost may answer."
                .into(),
            "The same machine asked twice refuses the second time (ALREADY_EXISTS): that it has its etcd is then looked at. What is \
             sent before that is the copy alone, which may be sent any number of times."
                .into(),
            "A raw file has no digest for etcd to look at (`--recover-skip-hash-check`): 01 has read it twice and walked the whole \
             tree of it, and 02 has read it back."
                .into(),
            format!(
                "By hand: {}, once and never again.",
                self.planes.from.talosctl("bootstrap --recover-from=etcd.snapshot")
            ),
        ]
    }

    /// The copy is sent, etcd starts from it, and then the API server.
    fn limit(&self) -> Duration {
        Duration::from_secs(900)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook {
            changes: vec![(System::Talos, format!("etcd begins again on {}", self.planes.from.name))],
            stays: Some("etcd as it has begun: what the old one had is in the copies alone".into()),
            words: self.planes.vouched(),
            ..Outlook::default()
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (facts, name) = (gather_shown(cx, &self.planes, seen.run, None).await, &self.planes.from.name);
        if let Some(votes) = facts.led() {
            let there = facts.there(&votes);
            if let Some(problem) = apart(&facts.etcd).into_iter().next() {
                return Ok(Check::waiting(problem.text));
            }
            if let Some(problem) = amiss(name, &facts.etcd) {
                return Ok(Check::waiting(format!("{there}; {}", problem.text)));
            }
            return Ok(match self.objects(cx).await {
                Ok(Ok(said)) => Check::done().note(there).notes(said),
                Ok(Err(missing)) => Check::waiting(format!("{there}; {missing}")),
                Err(failure) if may_pass(&failure) => Check::waiting(format!("{there}; {failure}")),
                Err(failure) => return Err(failure),
            });
        }
        let begun = seen.since.is_some();
        let problems = self.in_the_way(&facts, seen.run, begun);
        // A wait writes nothing down: whose word counts no longer would be believed again once it is silent.
        if problems.iter().any(|problem| problem.voids.is_some()) {
            let mut problems = problems;
            // What would be the way back without it is a second etcd beside one that has begun.
            for problem in problems.iter_mut().filter(|problem| begun && problem.voids.is_some()) {
                problem.help = format!(
                    "switch it off at once, and take its disk out: beside the etcd that begins on {name} its own would be a second \
                     one; then `pvemig resume`"
                );
            }
            return Ok(Check::blocked(problems));
        }
        // It may be the very one that has begun: its leader is known in a moment.
        let holds = matches!(facts.of(name), Some(Here::Holds(_)));
        if let Some(living) = facts.living.as_ref().filter(|_| begun && holds) {
            return Ok(Check::waiting(format!("{living}, and etcd begins on {name}: its leader is not known yet")));
        }
        let (state, message) = match facts.of(name) {
            Some(Here::Empty { state, message }) => (state, message),
            Some(Here::Holds(holds)) if begun => {
                return Ok(Check::waiting(with(self.begins(cx, &seen, holds).await, &problems)));
            }
            Some(Here::Silent(why)) if begun => {
                // That it is silent is one of them.
                let others: Vec<Problem> = problems.into_iter().filter(|one| !one.text.contains(why)).collect();
                return Ok(Check::waiting(with(why.clone(), &others)));
            }
            _ => return Ok(Check::blocked(problems)),
        };
        if !problems.is_empty() {
            return Ok(Check::blocked(problems));
        }
        let Some(copy) = self.copy(&seen)? else {
            let text = "no copy is held that etcd could begin from";
            let help = "of a copy that is held by another run the path goes into `snapshot` of the parameters: \
                        `pvemig report RUN` names its files; then `pvemig run` the migration";
            return Ok(Check::blocked(vec![Problem::new(text, help).mended_by(on::SAVE)]));
        };
        Ok(match state.as_str() {
            "Preparing" => {
                let what = format!("etcd of {} begins again on {name}", self.planes.cluster);
                Check::todo(vec![Change::add(what, copy.words())], Before {})
            }
            "Failed" => Check::blocked(vec![Problem::new(
                format!("the etcd of {name} did not begin: {message}"),
                format!(
                    "it has nothing yet, so nothing is lost: {}, {}, and `pvemig resume`",
                    self.planes.from.talosctl("logs etcd"),
                    self.planes.from.talosctl("reboot")
                ),
            )]),
            _ => Check::waiting(format!("the etcd of {name} is {state}: {message}")),
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        // Once more, before anything is sent.
        match self.check(cx, Seen { since: None, ..seen }).await?.answer {
            Answer::Todo { .. } => {}
            Answer::Blocked { problems } => {
                // It has begun already.
                if problems.iter().all(|problem| problem.mended_by.as_deref() == Some(on::WIPE)) && self.begun(cx).await
                {
                    return Ok(());
                }
                return Err(Failure::barred(problems));
            }
            _ => return Ok(()),
        }
        let lost = || Failure::plain("the copy that etcd is to begin from is gone", None);
        let copy = self.copy(&seen)?.ok_or_else(lost)?;
        let file = copies::place(seen.run, &copy).ok_or_else(lost)?;
        let talos = self.planes.from.open(cx).await?;
        let (mut pauses, begun) = (Backoff::poll(cx.clock()), cx.clock().instant());
        let mut again = false;
        loop {
            // What comes back while it calls itself not ready is seen before it is sent once more.
            if std::mem::replace(&mut again, true) && !self.may_begin(cx, seen.run).await? {
                return Ok(());
            }
            let sent = match talos.etcd_recover(permit, &file).await {
                // The copy may have taken minutes, and has begun nothing: behind the next call there is no way back.
                Ok(()) if !self.may_begin(cx, seen.run).await? => return Ok(()),
                Ok(()) => talos.bootstrap(permit, true, !copy.digest).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(error @ Error::Exists { .. }) => return self.exists(cx, &error, &seen, permit).await,
                // Not so far yet, and nothing was begun.
                Err(Error::NotReady { .. }) if begun.elapsed() < READY => {}
                Err(error @ Error::NotReady { .. }) => return Err(Failure::plain(error.to_string(), error.help())),
                Err(error) => return Err(error.into()),
            }
            permit.go_on()?;
            pauses.pause().await;
        }
    }

    async fn back(&self, cx: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let (facts, cluster) = (gather(cx, &self.planes).await, &self.planes.cluster);
        let stays = match facts.of(&self.planes.from.name) {
            _ if facts.led().is_some() => "etcd stays as it has begun again".to_owned(),
            Some(Here::Holds(_)) => format!("etcd of {cluster} stays as it has begun again, and has no leader yet"),
            Some(Here::Empty { .. }) => {
                format!("etcd of {cluster} has not begun again: what it had is in the copies alone")
            }
            Some(Here::Silent(why)) => format!("whether etcd of {cluster} has begun again is not known: {why}"),
            None => format!("whether etcd of {cluster} has begun again is not known"),
        };
        Ok(Check::done().stays([stays]))
    }
}

/// The command that wipes the volume of etcd, with what goes with it.
fn wipes(machine: &Machine, found: &local::Local) -> String {
    let label = found.volume.label();
    let data: Vec<String> = found.data.iter().map(|(path, size)| format!("{path} ({size})")).collect();
    let with = if data.is_empty() { String::new() } else { format!(", and with it {}", data.join(", ")) };
    let reset = format!("reset --graceful=false --reboot --system-labels-to-wipe={label}");
    format!("{} wipes all of {label}{with}", machine.talosctl(&reset))
}

/// What is waited for, and what else is amiss meanwhile.
fn with(wait: String, problems: &[Problem]) -> String {
    std::iter::once(wait).chain(problems.iter().map(|problem| problem.text.clone())).collect::<Vec<_>>().join("; ")
}

impl Recover {
    /// Whether it is still to begin; not where it has begun already.
    ///
    /// # Errors
    /// What is in the way by now: nothing is begun then.
    async fn may_begin(&self, cx: &Estate, run: &RunInfo) -> Result<bool, Failure> {
        let facts = gather_shown(cx, &self.planes, run, None).await;
        if facts.led().is_some() || matches!(facts.of(&self.planes.from.name), Some(Here::Holds(_))) {
            return Ok(false);
        }
        let problems = self.in_the_way(&facts, run, true);
        if problems.is_empty() { Ok(true) } else { Err(Failure::barred(problems)) }
    }

    /// How far an etcd is that has data by now, and no leader; and the way out where it stays so.
    async fn begins(&self, cx: &Estate, seen: &Seen<'_, Before>, holds: &Holds) -> String {
        let (machine, name) = (&self.planes.from, &self.planes.from.name);
        let logs = format!("where that lasts, {} says what keeps it", machine.talosctl("logs etcd"));
        let Err(why) = &holds.status else {
            return format!("etcd begins on {name}, and has no leader yet; {logs}");
        };
        let copy = match self.copy(seen) {
            Ok(copy) => copy.and_then(|copy| copies::place(seen.run, &copy)).map(|path| path.display().to_string()),
            Err(failure) => Some(failure.to_string()),
        };
        let begins = format!("etcd begins on {name}, and does not tell how it is ({why}); {logs}");
        let found = async { local::look(&*machine.open(cx).await?).await };
        match found.await {
            Ok(found) => format!(
                "{begins}. Where it never comes up, {}, and `pvemig resume` begins once more from the copy ({}): what was written \
                 since it began is lost; where that copy is of no use, then `pvemig abandon` this run, and `pvemig run` the migration \
                 with another one by `snapshot`",
                wipes(machine, &found),
                copy.as_deref().unwrap_or("none is held")
            ),
            Err(failure) => format!("{begins}; what is beside it on that volume is not known: {failure}"),
        }
    }

    /// Why it does not begin now; `begun`: what the machine has that it begins on may be the new one's.
    fn in_the_way(&self, facts: &Facts, run: &RunInfo, begun: bool) -> Vec<Problem> {
        let ways = facts.in_the_way(&self.planes, &run.consents);
        let mut problems: Vec<Problem> = ways.into_iter().map(|(_, problem)| problem).collect();
        let old = |machine: &Machine| !begun || machine.name != self.planes.from.name;
        for (machine, _) in facts.holders().filter(|(machine, _)| old(machine)) {
            let text = format!("{} has data of etcd: a second one would be a second cluster", machine.name);
            let help = "01 copies it and 02 wipes it, in the same run: `pvemig run` the migration";
            problems.push(Problem::new(text, help).mended_by(on::WIPE));
        }
        problems
    }

    /// The machine says that its etcd exists already: a former call has begun it. Then its data is there, or comes in a
    /// moment; nothing is sent once more meanwhile.
    async fn exists(
        &self,
        cx: &Estate,
        error: &Error,
        seen: &Seen<'_, Before>,
        permit: &Permit,
    ) -> Result<(), Failure> {
        let machine = &self.planes.from;
        let name = &machine.name;
        permit.progress(&format!("{name} says that its etcd is there already ({error}): it is looked for"));
        let (mut pauses, begun) = (Backoff::poll(cx.clock()), cx.clock().instant());
        loop {
            let facts = gather_shown(cx, &self.planes, seen.run, None).await;
            let own = match facts.of(name) {
                _ if facts.led().is_some() => return Ok(()),
                Some(Here::Holds(_)) => return Ok(()),
                Some(Here::Empty { state, message }) => format!("has no data, and is {state}: {message}"),
                Some(Here::Silent(why)) => format!("does not tell: {why}"),
                None => "is not known".to_owned(),
            };
            if begun.elapsed() > cx.clock().scaled(APPEARS) {
                let text = format!("{error}; {} later the etcd of {name} {own}", show(APPEARS));
                return Err(match self.instead(cx).await {
                    Ok(Some((there, help))) => Failure::plain(format!("{text}; {there}"), Some(help)),
                    Ok(None) => Failure::plain(text, Some(self.look_by_hand())),
                    Err(failure) => {
                        let unknown = format!("{text}; what is in {ETCD} is not known: {failure}");
                        Failure::plain(unknown, Some(self.look_by_hand()))
                    }
                });
            }
            permit.go_on()?;
            pauses.pause().await;
        }
    }

    fn look_by_hand(&self) -> String {
        format!(
            "{} and {} say what is there; `pvemig resume` looks again, and begins nothing where it is there already",
            self.planes.from.talosctl("logs etcd"),
            self.planes.from.talosctl(&format!("list {ETCD}"))
        )
    }

    /// What is where etcd would have its data and is none of it, and what takes it away; None: nothing is.
    async fn instead(&self, cx: &Estate) -> Result<Option<(String, String)>, Failure> {
        let machine = &self.planes.from;
        let talos = machine.open(cx).await?;
        let inside = match talos.dir(ETCD).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            inside => inside?,
        };
        let inside: Vec<String> = inside.into_iter().map(|entry| entry.name).collect();
        if inside.is_empty() || inside.iter().any(|name| name == "member") {
            return Ok(None);
        }
        let found = local::look(&talos).await?;
        Ok(Some((
            format!("{ETCD} of {} has {}, and no data of etcd", machine.name, inside.join(", ")),
            format!(
                "etcd begins only where {ETCD} is empty. Look at what is there ({}); where nobody needs it, {}; then `pvemig resume`",
                machine.talosctl(&format!("list {ETCD}")),
                wipes(machine, &found)
            ),
        )))
    }

    fn copy(&self, seen: &Seen<'_, Before>) -> Result<Option<Held>, Failure> {
        let held = copies::held(seen.run)?.unwrap_or_default();
        Ok(copies::chosen(&held, &self.planes.from.name).cloned())
    }

    /// Whether the one that etcd begins on has data of it by now, and nobody else has.
    async fn begun(&self, cx: &Estate) -> bool {
        let facts = gather(cx, &self.planes).await;
        facts.holders().all(|(machine, _)| machine.name == self.planes.from.name)
    }

    /// What Kubernetes has; Err: that the Node of the one that etcd began on is not there yet. What a copy of before has not
    /// of the others they write themselves when they come up, and 04 waits for those.
    async fn objects(&self, cx: &Estate) -> Result<Result<Vec<String>, String>, Failure> {
        let cluster = &self.planes.from.node.cluster;
        let kube = cx.kubernetes(cluster).await?;
        let nodes = kube.nodes().await?;
        if nodes.is_empty() {
            let text = format!("kubernetes `{cluster}` answers and has no node");
            return Err(Failure::plain(
                text,
                Some("it may have begun from nothing: look before anything is applied".into()),
            ));
        }
        let has = |machine: &&Machine| nodes.iter().any(|node| node.meta.name == machine.node.name);
        if !has(&&self.planes.from) {
            return Ok(Err(format!(
                "kubernetes `{cluster}` has no node {}: where that lasts, the copy is of another cluster: `pvemig abandon` this run, \
                 and name another one by `snapshot`",
                self.planes.from.node.name
            )));
        }
        let (claims, volumes) = futures::try_join!(kube.claims(None), kube.volumes())?;
        let mut said = vec![format!(
            "Kubernetes has {} nodes, {} claims and {} volumes",
            nodes.len(),
            claims.len(),
            volumes.len()
        )];
        let missing: Vec<&Machine> = self.planes.stay().filter(|machine| !has(machine)).collect();
        if !missing.is_empty() {
            said.push(format!(
                "kubernetes `{cluster}` has no node of {}: it was not in the copy; a kubelet that comes up writes its own (04), and \
                 one that never does is put under `lost`",
                names(missing)
            ));
        }
        Ok(Ok(said))
    }
}
