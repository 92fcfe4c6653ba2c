//! A run at work: forwards or backwards, with the operator's signals, to its end in this process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::permit::Thing;
use crate::base::wait::pause;
use crate::blueprint::BoxedStep;
use crate::engine::lately::Lately;
use crate::engine::recorder::Recorder;
use crate::engine::run::{Engine, Hand};
use crate::engine::state::RunState;
use crate::engine::step::{Outlook, Risk, RunInfo};
use crate::engine::store::SiteLock;

use super::exit::Exit;
use super::fail::{self, Words};
use super::live::Live;
use super::session::Session;
use super::undo::Past;

/// A run at work.
pub(super) struct Work<'a> {
    pub(super) session: &'a Session,
    pub(super) steps: Vec<BoxedStep>,
    pub(super) guard: Option<BoxedStep>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) live: Arc<Live>,
    pub(super) interrupted: Arc<AtomicBool>,
    pub(super) hand: Hand,
    /// The consents that were given on this command line.
    pub(super) destroy: Vec<String>,
    pub(super) _lock: SiteLock,
}

impl Work<'_> {
    /// Runs forwards or, with `past`, backwards until it ends, stops, or is interrupted; says how it ended.
    pub(super) async fn go(&self, back: Option<&Past>) -> anyhow::Result<Exit> {
        let id = self.recorder.dir().id().to_owned();
        if back.is_some() {
            self.live.backwards();
        }
        let engine = Engine {
            cx: &self.session.estate,
            steps: &self.steps,
            guard: self.guard.as_deref(),
            recorder: self.recorder.clone(),
            policy: self.session.policy(self.hand),
            info: RunInfo { granted: self.recorder.granted()?, ..self.session.store.info(&id, &self.session.host)? },
            lately: Lately::default(),
        };
        let work = async {
            match back {
                None => engine.forward().await,
                Some(past) => engine.backward(&past.steps.iter().cloned().collect()).await,
            }
        };
        let ticking = async {
            loop {
                pause(Clock::real(), Duration::from_secs(1)).await;
                self.live.tick();
            }
        };
        let ended = tokio::select! {
            ended = work => Some(ended),
            () = ticking => None,
            () = second_signal(&self.interrupted, &self.live) => None,
        };
        self.live.end();
        self.session.estate.farewell().await;
        let none = Past::default();
        let told = fail::Told {
            session: self.session,
            state: &self.recorder.state()?,
            id: &id,
            past: back.unwrap_or(&none),
            back: back.is_some(),
        };
        self.say_useless_consents(told.state)?;
        match ended {
            Some(Ok(ended)) => told.ended(&ended),
            // The journal cannot be written: what is held and what is possible is said all the same.
            Some(Err(error)) => {
                let exit = fail::show(&self.session.out, &error.into());
                told.afterwards(None);
                Ok(exit)
            }
            None => {
                self.session.out.say("stopped at once; what was begun is in the journal");
                told.afterwards(None);
                Ok(Exit::Interrupted)
            }
        }
    }

    /// A consent that no step can ask for is most likely mistyped.
    fn say_useless_consents(&self, state: &RunState) -> anyhow::Result<()> {
        if self.steps.iter().any(|step| step.risk() == Risk::Destroys) {
            // What such a step destroys it asks for at work, and not beforehand.
            return Ok(());
        }
        let known = would_destroy(&self.steps, state)?;
        let whole = whole(self.session, state.opened.migration.as_deref());
        let vouched: Vec<Thing> = whole.iter().flat_map(|step| step.outlook(&self.session.estate).words).collect();
        let kinds: Vec<&str> =
            self.steps.iter().flat_map(|step| step.outlook(&self.session.estate).may_destroy).copied().collect();
        let asked = |thing: &str| {
            vouched.iter().any(|word| word.0 == thing)
                || kinds.iter().any(|kind| thing.split('/').next() == Some(*kind))
        };
        for thing in self.destroy.iter().filter(|t| !known.contains(&Thing((*t).clone()))) {
            if asked(thing) {
                continue;
            }
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            self.session
                .out
                .notice(&format!("nothing in this run asks for `--destroy {thing}`; its undo would destroy {known}"));
        }
        Ok(())
    }
}

/// A run that destroys nothing forwards takes no consents: those of its undo are given to the undo. One to something that
/// no step knows is most likely mistyped. A single step takes those of its whole migration: it may need to know what the
/// others were given.
pub(super) fn refuse_consents(
    session: &Session,
    steps: &[BoxedStep],
    migration: Option<&str>,
    given: &[String],
) -> Result<(), Words> {
    let Some(first) = given.first() else { return Ok(()) };
    let whole = whole(session, migration);
    let all = steps.iter().chain(&whole).map(|step| (step.risk(), step.outlook(&session.estate)));
    let all: Vec<_> = all.collect();
    // Some step says what it destroys at work only, and not of which kind that is.
    let untold = |one: &Outlook| one.destroys.is_empty() && one.may_destroy.is_empty();
    if all.iter().any(|(risk, one)| *risk == Risk::Destroys && !one.spares && untold(one)) {
        return Ok(());
    }
    let things = |(_, one): &(Risk, Outlook)| one.destroys.iter().chain(&one.words).cloned().collect::<Vec<_>>();
    let mut known = Vec::new();
    for thing in all.iter().flat_map(things) {
        if !known.contains(&thing) {
            known.push(thing);
        }
    }
    let later: BTreeSet<_> = all.iter().flat_map(|(_, one)| one.may_destroy).copied().collect();
    if known.is_empty() && later.is_empty() {
        let text = format!("`--destroy {first}` has no use here: no step of this run destroys anything");
        return Err(Words::usage(text, "leave it out; what an undo would destroy is named to `pvemig undo`"));
    }
    if steps.len() > 1 || !whole.is_empty() { refuse_unknown(&known, &later, given) } else { Ok(()) }
}

/// The steps of a migration of the site; one that cannot be read any more says so where it is asked for.
fn whole(session: &Session, migration: Option<&str>) -> Vec<BoxedStep> {
    migration.and_then(|name| session.migration(name).ok()).map(|(_, steps)| steps).unwrap_or_default()
}

/// Refuses what is none of these, nor of a kind that is asked for at work only.
fn refuse_unknown(known: &[Thing], later: &BTreeSet<&str>, given: &[String]) -> Result<(), Words> {
    let at_work =
        |thing: &str| thing.split_once('/').is_some_and(|(kind, name)| !name.is_empty() && later.contains(kind));
    let odd = given.iter().find(|thing| !known.contains(&Thing((*thing).clone())) && !at_work(thing));
    let Some(odd) = odd else { return Ok(()) };
    let mut each: Vec<_> = known.iter().map(|thing| format!("`--destroy {thing}`")).collect();
    each.extend(later.iter().map(|kind| format!("a `{kind}/..` where the plan names one")));
    let near = crate::site::fields::near(odd, known.iter().map(|thing| thing.0.as_str()));
    let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    let text = format!("`--destroy {odd}` names nothing that this run can destroy");
    Err(Words::usage(text, format!("{near}it can destroy {}", each.join(", "))))
}

/// Everything that the undo of a run would destroy.
pub(super) fn would_destroy(steps: &[BoxedStep], state: &RunState) -> anyhow::Result<Vec<Thing>> {
    let mut things = Vec::new();
    for step in steps {
        if let Some(before) = state.steps.get(&step.key()).and_then(|s| s.before.as_ref()) {
            things.extend(step.undo_destroys(before).map_err(fail::failure)?);
        }
    }
    Ok(things)
}

/// The first signal asks the run to stop before its next change; the second ends the process. A terminal that goes away
/// is never the second one: it may say so twice.
async fn second_signal(interrupted: &AtomicBool, live: &Live) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    // Under `nohup` the end of the terminal is to be no signal at all.
    let mut hup = if ignored_from_the_start(HANGUP) { None } else { signal(SignalKind::hangup()).ok() };
    let mut signals = 0;
    while signals < 2 {
        tokio::select! {
            _ = int.recv() => signals += 1,
            _ = term.recv() => signals += 1,
            () = hung_up(&mut hup) => signals = 1.max(signals),
        }
        if !interrupted.swap(true, Ordering::SeqCst) {
            live.note("stopping before the next change; once more to stop at once (the journal knows what was begun)");
        }
    }
    live.end();
}

async fn hung_up(hup: &mut Option<tokio::signal::unix::Signal>) {
    match hup {
        Some(hup) => {
            let _one_more = hup.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// SIGHUP's number on every Linux.
const HANGUP: u32 = 1;

/// Whether whoever started this process had it ignore a signal, as `nohup` does.
fn ignored_from_the_start(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}
