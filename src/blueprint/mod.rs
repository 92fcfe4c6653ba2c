//! The migrations: one folder per blueprint, one file per step.
//!
//! A blueprint is a list of rows. The list is the order, the number in a step's id is its name.

pub mod backup;
pub mod cluster_build;
pub mod configs;
pub mod cordon;
pub mod drained;
pub mod fault;
pub mod finding;
pub mod hold;
pub mod install;
pub mod known;
pub mod machine;
pub mod node;
pub mod node_reboot_test;
pub mod node_replace;
pub mod nvme_move;
pub mod off;
pub mod own_vm;
pub mod param;
pub mod power;
pub mod quorum;
pub mod quorum_recover;
pub mod retired;
pub mod rights;
pub mod stand;
pub mod uncordon;
pub mod usb_move;
pub mod vm;

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use crate::base::fault::Failure;
use crate::engine::fold::Fold;
use crate::engine::state::RunState;
use crate::engine::step::{AnyStep, Risk, Step};
use crate::estate::Estate;
use crate::site::fields::{Item, NamedFile, Sink};
use crate::site::{Problem, Site, SiteError};

use param::Param;
use rights::Rights;

/// A step as the engine takes it.
pub type BoxedStep = Box<dyn AnyStep<Estate>>;

/// A flag of a step: its name, the JSON pointer of the field that it names, and its help line.
pub type Flag = (&'static str, &'static str, &'static str);

/// A row of a blueprint's list.
pub struct Row {
    /// The step's id.
    pub id: &'static str,
    /// The script names that people know it by.
    pub aliases: &'static [&'static str],
    /// The flags of `pvemig step`: they choose the migration, or stand for it.
    pub flags: &'static [Flag],
    /// The flags of `pvemig step` that change how it works: each sets its field to true.
    pub switches: &'static [Flag],
    /// Whether its check may answer that a person must act.
    pub asks: bool,
    /// Whether an undo leaves what it made, though nothing of what was there is lost.
    pub stays: bool,
    /// Whether, as a hold, it keeps its machine off (`/machine/name` of its fields).
    pub off: bool,
    /// The id of its closer, for a hold.
    pub holds_until: Option<&'static str>,
    /// What it may do.
    pub risk: Risk,
    rebuild: fn(&Value) -> Result<BoxedStep, serde_json::Error>,
}

impl Row {
    const fn of<S: Step<Estate>>(aliases: &'static [&'static str], flags: &'static [Flag]) -> Self {
        let (holds_until, risk, rebuild) = (S::HOLDS_UNTIL, S::RISK, rebuild::<S>);
        Self {
            id: S::ID,
            aliases,
            flags,
            switches: &[],
            asks: false,
            stays: false,
            off: false,
            holds_until,
            risk,
            rebuild,
        }
    }

    const fn switches(mut self, switches: &'static [Flag]) -> Self {
        self.switches = switches;
        self
    }

    const fn asks(mut self) -> Self {
        self.asks = true;
        self
    }

    const fn stays(mut self) -> Self {
        self.stays = true;
        self
    }

    const fn off(mut self) -> Self {
        self.off = true;
        self
    }

    /// Whether a name that somebody typed means this step: its id, an alias, or exactly its number.
    pub fn is_called(&self, name: &str) -> bool {
        let number = self.id.split('-').next();
        self.id == name || self.aliases.contains(&name) || number == Some(name)
    }
}

fn rebuild<S: Step<Estate>>(fields: &Value) -> Result<BoxedStep, serde_json::Error> {
    Ok(Box::new(S::deserialize(fields)?))
}

/// What the flags of `pvemig step` say where no migration does.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The VM.
    pub vmid: Option<u32>,
    /// The VM that had the device.
    pub from: Option<u32>,
    /// The device's name in the site file.
    pub device: Option<String>,
    /// The node's name in Kubernetes.
    pub node: Option<String>,
    /// `id`, `port` or `mapping`.
    pub attach: Option<String>,
    /// A label's key, or `KEY=VALUE`.
    pub label: Option<String>,
}

/// A finding of a preflight that `explain` knows by its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The ids of the steps that it may protect; none: any.
    pub steps: &'static [&'static str],
    /// What it means.
    pub means: &'static str,
    /// What would happen without it.
    pub matters: &'static str,
    /// What one would do by hand.
    pub by_hand: &'static str,
}

/// A kind of migration.
pub struct Blueprint {
    /// Its name in site files.
    pub name: &'static str,
    /// Counts changes of its list or of a step's fields.
    pub version: u32,
    /// One line.
    pub summary: &'static str,
    /// The lab's world that it is rehearsed in.
    pub world: &'static str,
    /// The list.
    pub rows: &'static [Row],
    /// What its preflight may find.
    pub findings: &'static [&'static Known],
    /// What a migration of it says in the site file.
    pub params: &'static [Param],
    build: fn(&Site, &Item<'_>) -> Option<Vec<BoxedStep>>,
    alone: fn(&Site, &str, &Given) -> Result<BoxedStep, Vec<String>>,
    fold_back: fn(&RunState, &[&RunState]) -> Vec<Fold>,
    rights: fn(&Site, &Item<'_>) -> Option<Rights>,
    usually: fn(&Site, &Item<'_>) -> Option<RangeInclusive<Duration>>,
}

/// Every blueprint.
pub static ALL: &[Blueprint] = &[
    usb_move::BLUEPRINT,
    node_reboot_test::BLUEPRINT,
    cluster_build::BLUEPRINT,
    node_replace::BLUEPRINT,
    quorum_recover::BLUEPRINT,
    nvme_move::BLUEPRINT,
];

/// Every step that a name means: an id, an alias, or exactly a number. Two blueprints may call different steps by the same.
pub fn called(name: &str) -> Vec<(&'static Blueprint, &'static Row)> {
    ALL.iter().filter_map(|blueprint| Some((blueprint, blueprint.row(name)?))).collect()
}

/// The row of a step's id.
pub fn row(id: &str) -> Option<&'static Row> {
    ALL.iter().flat_map(|b| b.rows).find(|row| row.id == id)
}

/// Whether a step puts something up that a later step takes back.
pub fn is_hold(id: &str) -> bool {
    row(id).is_some_and(|row| row.holds_until.is_some())
}

/// A blueprint by name.
pub fn named(name: &str) -> Option<&'static Blueprint> {
    ALL.iter().find(|b| b.name == name)
}

impl Blueprint {
    /// The steps of a migration of the site, in order.
    ///
    /// # Errors
    /// Every problem of its parameters at once, each with its place in the site file.
    pub fn build(&self, site: &Site, migration: &str) -> Result<Vec<BoxedStep>, SiteError> {
        of_params(site, migration, self.build)
    }

    /// What is wrong with the files that a migration's parameters name, as far as those can be read; a look reads none.
    pub fn files(&self, site: &Site, migration: &str) -> Vec<Problem> {
        let sink = Sink::new();
        // What is wrong with its parameters is said where its steps are made.
        let _made = site.params(migration, &sink).and_then(|params| (self.build)(site, &params));
        sink.into_files().iter().filter_map(NamedFile::problem).collect()
    }

    /// What a migration of the site has to be allowed, as far as the site file tells; asks nobody.
    ///
    /// # Errors
    /// As for [`Blueprint::build`].
    pub fn rights(&self, site: &Site, migration: &str) -> Result<Rights, SiteError> {
        of_params(site, migration, self.rights)
    }

    /// How long a migration of the site takes from its beginning to its end by what was written of such ones, where no run
    /// has shown it; None: nobody has written it.
    pub fn usually(&self, site: &Site, migration: &str) -> Option<RangeInclusive<Duration>> {
        // What is wrong with its parameters is said where its steps are made.
        of_params(site, migration, self.usually).ok()
    }

    /// A step from flags alone.
    ///
    /// # Errors
    /// Everything that is missing or wrong, a line each.
    pub fn alone(&self, site: &Site, id: &str, given: &Given) -> Result<BoxedStep, Vec<String>> {
        (self.alone)(site, id, given)
    }

    /// What others who own a part of the estate must say after a run, by its journal and those of the site's other
    /// runs, oldest first.
    pub fn fold_back(&self, state: &RunState, others: &[&RunState]) -> Vec<Fold> {
        (self.fold_back)(state, others)
    }

    /// A step from its id and fields, as the journal keeps them.
    ///
    /// # Errors
    /// This version of the blueprint has no such step, or its fields do not fit.
    pub fn rebuild(&self, id: &str, fields: &Value) -> Result<BoxedStep, Failure> {
        let help = || Some("use the version of pvemig that the journal's first line names".to_owned());
        let row = self.rows.iter().find(|row| row.id == id);
        let row = row.ok_or_else(|| Failure::plain(format!("blueprint {} has no step {id}", self.name), help()))?;
        (row.rebuild)(fields).map_err(|error| {
            Failure::plain(format!("the journal's step {id} does not fit this version: {error}"), help())
        })
    }

    /// The finding of a name.
    pub fn finding(&self, name: &str) -> Option<&'static Known> {
        self.findings.iter().copied().find(|known| known.name == name)
    }

    /// The row that a name means: id, alias, or exactly the number.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.is_called(name))
    }
}

/// What a blueprint makes of a migration's parameters, or everything that is wrong with them.
fn of_params<T>(site: &Site, migration: &str, make: fn(&Site, &Item<'_>) -> Option<T>) -> Result<T, SiteError> {
    let sink = Sink::new();
    let made = site.params(migration, &sink).and_then(|params| make(site, &params));
    if sink.count() == 0
        && let Some(made) = made
    {
        return Ok(made);
    }
    let mut problems = sink.into_problems();
    if problems.is_empty() && site.is_whole() {
        let path = format!("migrations.{migration}.params");
        problems.push(Problem::new(path, "the parameters are missing", "`pvemig site example` shows them"));
    }
    Err(site.invalid(problems))
}
