//! `pvemig rehearse BLUEPRINT`: the whole migration against the embedded estate.

use std::sync::{Arc, Weak};

use crate::base::clock::Clock;
use crate::blueprint;
use crate::engine::event::{Event, Record};
use crate::engine::recorder::Ear;
use crate::lab::Lab;

use super::args::{Going, RehearseArgs, Wait};
use super::exit::Exit;
use super::fail::Words;
use super::hands;
use super::lab;
use super::live::Live;
use super::out::Out;
use super::report;
use super::session::Session;
use super::undo::Past;
use super::work::would_destroy;

/// Starts a lab, runs the migration of its site to the end (and back, with `--undo`), and prints the report.
pub(super) async fn rehearse(args: &RehearseArgs, out: &Out) -> anyhow::Result<Exit> {
    let Some(blueprint) = blueprint::named(&args.blueprint) else {
        let names: Vec<_> = blueprint::ALL.iter().map(|b| b.name).collect();
        let text = format!("there is no blueprint `{}`", args.blueprint);
        return Err(Words::usage(text, format!("there is {}", names.join(", "))).into());
    };
    let scratch = Scratch::new(args.dir.as_deref())?;
    let world = args.world.as_deref().unwrap_or(blueprint.world);
    let running = Arc::new(lab::start(world, scratch.path(), args.speed).await?);
    let site = lab::site(&running, out)?;
    let Some((migration, _)) = site.migrations.iter().find(|(_, m)| m.blueprint == blueprint.name) else {
        let text = format!("world {world} has no migration of blueprint {}", blueprint.name);
        return Err(Words::usage(text, "`pvemig lab worlds` lists the worlds").into());
    };
    let migration = migration.clone();
    let session = Session::with(site, scratch.path().join("state"), Clock::fast(args.speed), out, true)?;
    let (_, steps) = session.migration(&migration)?;
    let opened = session.opened(blueprint, Some(&migration), &steps, false)?;
    // Nobody's data is at stake here, so every consent is given, and said.
    let given =
        steps.iter().map(|step| step.outlook(&session.estate)).flat_map(|step| [step.destroys, step.words].concat());
    let mut going = Going { destroy: given.map(|thing| thing.0).collect(), wait: Some(Wait::Forever) };
    let live = Arc::new(Live::new(*out, session.clock));
    live.hands(Arc::new(LabHands { lab: running.clone(), live: Arc::downgrade(&live) }));
    let work = session.begin(session.lock_for_new()?, opened, steps, None, &going, live.clone())?;
    let id = work.recorder.dir().id().to_owned();
    let mut exit = work.go(None).await?;
    drop(work);
    if exit == Exit::Done && args.undo {
        // In a rehearsal nobody's data is at stake: what the undo asks consent for is given.
        let run = session.store.run(&id)?.read()?;
        let (_, steps) = session.steps_of(&run.state)?;
        going.destroy = would_destroy(&steps, &run.state)?.into_iter().map(|t| t.0).collect();
        let work = session.reopen(session.lock(&id)?, &run, &going, live)?;
        exit = work.go(Some(&Past::default())).await?;
    }
    if !out.json {
        out.data(&format!("\n{}", report::rehearsed(&session.store.run(&id)?.read()?, &session, *out)?))?;
    }
    if args.dir.is_some() {
        out.say(&format!("journal and files are in {}", scratch.path().display()));
    }
    Ok(exit)
}

/// Does what a run asks for, as soon as it asks.
struct LabHands {
    lab: Arc<Lab>,
    live: Weak<Live>,
}

impl Ear for LabHands {
    fn event(&self, record: &Record) {
        let Event::Asked { hands: Some(asked), .. } = &record.event else { return };
        let said = hands::act(&self.lab, asked).unwrap_or_else(|error| error.to_string());
        if let Some(live) = self.live.upgrade() {
            live.aside(&said);
        }
    }
}

/// The rehearsal's folder: the one that was named, else one that goes with the process.
enum Scratch {
    Named(std::path::PathBuf),
    Passing(std::path::PathBuf),
}

impl Scratch {
    fn new(named: Option<&std::path::Path>) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        if let Some(path) = named {
            return Ok(Self::Named(std::path::absolute(path)?));
        }
        let mut tail = [0; 6];
        getrandom::fill(&mut tail).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let tail: String = tail.iter().map(|b| format!("{b:02x}")).collect();
        let path = std::env::temp_dir().join(format!("pvemig-rehearsal-{tail}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self::Passing(path))
    }

    fn path(&self) -> &std::path::Path {
        match self {
            Self::Named(path) | Self::Passing(path) => path,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Self::Passing(path) = self {
            // A left-over folder in the temporary directory harms nobody.
            let _left_over = std::fs::remove_dir_all(path);
        }
    }
}
