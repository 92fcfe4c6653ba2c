//! What a verb works with: the site, its journals, the estate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::anyhow;

use crate::base::clock::Clock;
use crate::base::fault::Failure;
use crate::base::permit::Thing;
use crate::base::wait::limit;
use crate::blueprint::{self, Blueprint, BoxedStep};
use crate::engine::event::{Event, Opened};
use crate::engine::plan::planned;
use crate::engine::recorder::{Recorder, Wiring};
use crate::engine::run::{Hand, Policy};
use crate::engine::state::{Phase, RunState, Stage};
use crate::engine::step::AnyStep;
use crate::engine::store::{Holder, Ids, RunRead, SiteLock, Store};
use crate::estate::Estate;
use crate::site::Site;

use super::args::{Global, Going, Wait};
use super::damaged;
use super::exit::Exit;
use super::fail::{self, Words};
use super::given::{blueprint_of, crash_point, hostname, load, refuse_wide, state_dir};
use super::live::Live;
use super::out::Out;
use super::scratch::Scratch;
use super::stands::takes_back;
use super::work::Work;

/// The site, its journals, and the way to its systems.
pub(super) struct Session {
    pub(super) site: Arc<Site>,
    pub(super) store: Store,
    pub(super) estate: Estate,
    pub(super) clock: Clock,
    pub(super) host: String,
    pub(super) out: Out,
    /// Its estate ends with the process: no command of later can go on with its runs.
    pub(super) passing: bool,
}

impl Session {
    /// Loads the site file and its journals to look at them; talks to no system, and makes nothing.
    pub(super) fn looking(global: &Global, out: &Out) -> anyhow::Result<Self> {
        let site = load(global, out)?;
        let store = Store::at(&state_dir(global, &site)?, &site.name, Ids::Random);
        let clones = store.dir().to_owned();
        Ok(Self::of(Arc::new(site), (store, clones), Clock::real(), out, false))
    }

    /// As [`Session::looking`], for a verb that asks the site's systems, and does not wait for an answer as long as a run
    /// would. What it has to fetch goes to `scratch`.
    pub(super) fn asking(global: &Global, out: &Out, scratch: &Scratch) -> anyhow::Result<Self> {
        let session = Self::looking(global, out)?;
        refuse_wide(&session.site, out)?;
        let estate = Estate::new(session.site.clone(), session.clock, scratch.dir().to_owned());
        let estate = estate.borrowing(session.store.dir().to_owned()).deadlines(limit::SURVEY, limit::CHANGE);
        Ok(Self { estate, ..session })
    }

    /// As [`Session::looking`], for a verb that asks the site's systems what they are like. It fetches nothing, and waits
    /// for no answer as long as a run would.
    pub(super) fn surveying(global: &Global, out: &Out) -> anyhow::Result<Self> {
        let session = Self::looking(global, out)?;
        refuse_wide(&session.site, out)?;
        let estate = session.estate.deadlines(limit::SURVEY, limit::CHANGE);
        Ok(Self { estate, ..session })
    }

    /// As [`Session::looking`], for a verb that changes things: makes the directories of its journals.
    pub(super) fn open(global: &Global, out: &Out) -> anyhow::Result<Self> {
        let site = load(global, out)?;
        let state = state_dir(global, &site)?;
        Self::with(Arc::new(site), state, Clock::real(), out, false)
    }

    /// As [`Session::open`], for a verb that talks to the site's systems.
    pub(super) fn open_private(global: &Global, out: &Out) -> anyhow::Result<Self> {
        let site = load(global, out)?;
        refuse_wide(&site, out)?;
        let state = state_dir(global, &site)?;
        Self::with(Arc::new(site), state, Clock::real(), out, false)
    }

    /// With a given site, state directory and clock (a rehearsal's).
    pub(super) fn with(
        site: Arc<Site>,
        state: PathBuf,
        clock: Clock,
        out: &Out,
        passing: bool,
    ) -> anyhow::Result<Self> {
        let store = Store::open(&state, &site.name, Ids::Random)?;
        let clones = store.dir().to_owned();
        Ok(Self::of(site, (store, clones), clock, out, passing))
    }

    fn of(site: Arc<Site>, (store, clones): (Store, PathBuf), clock: Clock, out: &Out, passing: bool) -> Self {
        let estate = Estate::new(site.clone(), clock, clones);
        Self { site, store, estate, clock, host: hostname(), out: *out, passing }
    }

    /// A migration's blueprint and steps.
    pub(super) fn migration(&self, name: &str) -> anyhow::Result<(&'static Blueprint, Vec<BoxedStep>)> {
        let blueprint = blueprint_of(&self.site, name)?;
        let steps = blueprint.build(&self.site, name).map_err(|error| fail::site_error(&error, self.out.width()))?;
        Ok((blueprint, steps))
    }

    /// The steps of a run, from its journal.
    pub(super) fn steps_of(&self, state: &RunState) -> anyhow::Result<(&'static Blueprint, Vec<BoxedStep>)> {
        let name = &state.opened.blueprint;
        let blueprint = blueprint::named(name)
            .ok_or_else(|| anyhow!("the run's blueprint `{name}` is not known to this version of pvemig"))?;
        let rebuild = |p: &crate::engine::event::Planned| blueprint.rebuild(p.key.id(), &p.step);
        let steps: Result<Vec<_>, Failure> = state.opened.plan.iter().map(rebuild).collect();
        Ok((blueprint, steps.map_err(fail::failure)?))
    }

    /// The first line of a new run.
    pub(super) fn opened(
        &self,
        blueprint: &Blueprint,
        migration: Option<&str>,
        steps: &[BoxedStep],
        single: bool,
    ) -> anyhow::Result<Opened> {
        Ok(Opened {
            tool: env!("CARGO_PKG_VERSION").into(),
            site: self.site.name.clone(),
            site_digest: self.site.digest.clone(),
            migration: migration.map(str::to_owned),
            blueprint: blueprint.name.into(),
            blueprint_version: blueprint.version,
            single,
            argv: std::env::args().collect(),
            host: self.host.clone(),
            plan: planned(steps).map_err(fail::failure)?,
        })
    }

    /// The runs that can still go on.
    pub(super) fn open_runs(&self) -> anyhow::Result<Vec<RunRead>> {
        let runs = self.store.runs()?;
        let outrun: Vec<bool> = runs.iter().map(|run| outrun(&runs, run)).collect();
        let open = |run: &RunRead| matches!(run.state.phase, Phase::Forward | Phase::Undoing | Phase::Stuck);
        Ok(runs.into_iter().zip(outrun).filter(|(run, outrun)| open(run) && !outrun).map(|(run, _)| run).collect())
    }

    /// What somebody who has not heard of a run's id knows it by.
    pub(super) fn called(run: &RunRead) -> String {
        let opened = &run.state.opened;
        let what = opened.migration.clone().unwrap_or_else(|| opened.blueprint.clone());
        match opened.plan.first().filter(|_| opened.single) {
            Some(step) => format!("{what}, step {} alone", step.key),
            None => what,
        }
    }

    /// Refuses beside an open run that has begun something; names the three ways out.
    pub(super) fn refuse_beside_another(&self, own: Option<&str>) -> anyhow::Result<()> {
        let mut others = self.open_runs()?.into_iter().filter(|run| Some(run.id.as_str()) != own && begun(&run.state));
        let Some(run) = others.next_back() else { return Ok(()) };
        let text = format!("run {} ({}) of this site is not finished", run.id, Self::called(&run));
        if let Some(holder) = self.at_work(&run.id)? {
            let help = vec![
                "wait for it; `pvemig status` shows how far it is".to_owned(),
                format!(
                    "or stop it before its next change: Ctrl-C where it runs, `kill {}` on {}",
                    holder.pid, holder.host
                ),
            ];
            let text = format!("{text}: process {} on {} is at work on it", holder.pid, holder.host);
            return Err(Words::new(Exit::Held, text, help).into());
        }
        let mut help = vec![format!("`pvemig abandon {} --comment '...'` leaves it as it stands", run.id)];
        if let Some(what) = takes_back(&run.state) {
            help.insert(0, format!("`pvemig undo {}` {what}", run.id));
        }
        if run.state.phase == Phase::Forward {
            help.insert(0, format!("`pvemig resume {}` goes on with it", run.id));
        }
        Err(Words::new(Exit::Held, text, help).into())
    }

    /// The process that is at work on a run at this moment.
    pub(super) fn at_work(&self, run: &str) -> anyhow::Result<Option<Holder>> {
        Ok(self.store.at_work()?.filter(|holder| holder.run == run))
    }

    /// The run that was named, else the only open one.
    pub(super) fn the_run(&self, given: Option<&str>) -> anyhow::Result<RunRead> {
        if let Some(given) = given {
            return Ok(self.store.run(given)?.read()?);
        }
        let mut open = self.open_runs()?;
        match (open.pop(), open.len()) {
            (Some(run), 0) => Ok(run),
            (None, _) => Err(match self.store.every_run()?.1.into_iter().next() {
                Some(damaged) => {
                    let text =
                        format!("no run of this site is open, and run {} is damaged: {}", damaged.id, damaged.why);
                    Words::new(Exit::Usage, text, damaged::help(&damaged.why)).into()
                }
                None => Words::usage("no run of this site is open", "`pvemig status --all` lists those that are over")
                    .into(),
            }),
            (Some(last), _) => {
                open.push(last);
                let runs: Vec<_> = open.iter().map(|r| format!("{} ({})", r.id, Self::called(r))).collect();
                let text = format!("several runs of this site are open: {}", runs.join("; "));
                Err(Words::usage(text, "name the one that is meant").into())
            }
        }
    }

    /// Takes the site's lock for a run.
    pub(super) fn lock(&self, run: &str) -> anyhow::Result<SiteLock> {
        Ok(self.store.lock(&self.holder(run))?)
    }

    fn holder(&self, run: &str) -> Holder {
        let since = self.clock.now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        Holder { run: run.to_owned(), pid: std::process::id(), host: self.host.clone(), since }
    }

    fn wiring(&self, live: &Arc<Live>, interrupted: &Arc<AtomicBool>) -> anyhow::Result<Wiring> {
        Ok(Wiring {
            clock: self.clock,
            points: Arc::new(crash_point()?),
            ear: live.clone(),
            interrupted: interrupted.clone(),
        })
    }

    /// Takes the site's lock for a run that has no id yet.
    pub(super) fn lock_for_new(&self) -> anyhow::Result<SiteLock> {
        self.lock("(beginning)")
    }

    /// Opens a new run under the lock: directory, first line.
    pub(super) fn begin(
        &self,
        lock: SiteLock,
        opened: Opened,
        steps: Vec<BoxedStep>,
        guard: Option<BoxedStep>,
        going: &Going,
        live: Arc<Live>,
    ) -> anyhow::Result<Work<'_>> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let wiring = self.wiring(&live, &interrupted)?;
        let dir = self.store.new_run()?;
        let first = || -> anyhow::Result<_> {
            lock.name(&self.holder(dir.id()))?;
            live.run(dir.id());
            Ok(Recorder::create(dir.clone(), Event::Opened(Box::new(opened)), &wiring)?)
        };
        let recorder = match first() {
            Ok(recorder) => recorder,
            // It has begun nothing: nobody should have to give it up.
            Err(error) => {
                if let Err(left) = dir.discard() {
                    self.out.notice(&left.to_string());
                }
                return Err(error);
            }
        };
        self.work(steps, guard, recorder, live, interrupted, going, lock)
    }

    /// Goes on with a run under the lock: journal, steps as planned then. `run` was read under the lock.
    pub(super) fn reopen(
        &self,
        lock: SiteLock,
        run: &RunRead,
        going: &Going,
        live: Arc<Live>,
    ) -> anyhow::Result<Work<'_>> {
        let (blueprint, steps) = self.steps_of(&run.state)?;
        let guard = self.guard_of(&run.state)?;
        let opened = &run.state.opened;
        if opened.site_digest != self.site.digest {
            self.out.notice("the site file was changed since this run began; its plan stays as it was");
        }
        if opened.blueprint_version != blueprint.version {
            self.out.notice(&format!(
                "pvemig {} planned this run by version {} of {}; this is pvemig {}, version {}",
                opened.tool,
                opened.blueprint_version,
                blueprint.name,
                env!("CARGO_PKG_VERSION"),
                blueprint.version
            ));
        }
        live.run(&run.id);
        let interrupted = Arc::new(AtomicBool::new(false));
        let wiring = self.wiring(&live, &interrupted)?;
        let (recorder, torn) = Recorder::reopen(self.store.run(&run.id)?, &wiring)?;
        if let Some(torn) = torn {
            self.out.notice(&torn);
        }
        self.work(steps, guard, recorder, live, interrupted, going, lock)
    }

    /// The preflight of a single step that has not begun: what keeps it from its work is asked again.
    fn guard_of(&self, state: &RunState) -> anyhow::Result<Option<BoxedStep>> {
        let opened = &state.opened;
        let (true, Some(name), Some(step)) = (opened.single, &opened.migration, opened.plan.first()) else {
            return Ok(None);
        };
        if state.phase != Phase::Forward || state.stage(&step.key) != Stage::Pending {
            return Ok(None);
        }
        let (_, steps) = self.migration(name)?;
        Ok(steps.into_iter().find(|s| is_preflight(&**s) && s.key() != step.key))
    }

    #[expect(clippy::too_many_arguments, reason = "one private place puts a run together")]
    fn work(
        &self,
        steps: Vec<BoxedStep>,
        guard: Option<BoxedStep>,
        recorder: Arc<Recorder>,
        live: Arc<Live>,
        interrupted: Arc<AtomicBool>,
        going: &Going,
        lock: SiteLock,
    ) -> anyhow::Result<Work<'_>> {
        for thing in going.destroy.iter().map(|t| Thing(t.clone())) {
            recorder.write(Event::Consented { thing })?;
        }
        let hand = match going.wait {
            Some(Wait::Forever) => Hand::Wait,
            Some(Wait::For(limit)) => Hand::WaitFor(limit),
            None if self.out.asks => Hand::Wait,
            None => Hand::Stop,
        };
        let destroy = going.destroy.clone();
        Ok(Work { session: self, steps, guard, recorder, live, interrupted, hand, destroy, _lock: lock })
    }

    /// How long to wait for what.
    pub(super) fn policy(&self, hand: Hand) -> Policy {
        Policy { hand, patience: self.site.patience, limit: None }
    }
}

/// `1 step`, `2 steps`.
pub(super) fn plural(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// Whether a run has begun anything, or asked a person to: one that has not keeps nobody from anything.
pub(super) fn begun(state: &RunState) -> bool {
    state.steps.values().any(|step| step.before.is_some() || step.asked.is_some())
}

/// Whether a run has begun nothing, and another one of the same was opened after it: nobody goes on with such a one.
pub(super) fn outrun(runs: &[RunRead], run: &RunRead) -> bool {
    let of = |run: &RunRead| {
        let opened = &run.state.opened;
        let steps: Vec<_> = opened.plan.iter().map(|planned| (planned.key.clone(), planned.step.clone())).collect();
        (opened.migration.clone(), opened.blueprint.clone(), opened.single.then_some(steps))
    };
    let later = |other: &RunRead| other.state.since > run.state.since && of(other) == of(run);
    run.state.phase == Phase::Forward && !begun(&run.state) && runs.iter().any(later)
}

/// Whether a step is its blueprint's preflight.
pub(super) fn is_preflight(step: &dyn AnyStep<Estate>) -> bool {
    step.id().starts_with("00-")
}
