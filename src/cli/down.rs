//! What does not work meanwhile: what the migration stops, what its power cycle ends, and what a single step does not
//! stop first.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::base::check::{Answer, Symbol};
use crate::base::wait::show;
use crate::blueprint::BoxedStep;
use crate::engine::plan::{Line, Said};
use crate::engine::step::Risk;
use crate::engine::store::{RunRead, StoreError};
use crate::report;

use super::plan::number;
use super::session::Session;

/// A wait that is shorter than this is nothing to plan an evening by.
const WORTH_SAYING: Duration = Duration::from_secs(120);

/// What does not work meanwhile.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Down {
    what: String,
    from: String,
    until: String,
    /// The run that stopped it already, and when: by its journal, nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Since>,
    /// The steps in between that may wait long by themselves, each with its limit in seconds.
    limits: Vec<(String, u64)>,
    /// The steps in between that wait for a person.
    hands: Vec<String>,
    /// How long it was the last time that a run of this migration got through.
    pub(super) last: Option<Last>,
    /// Why that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) untold: Option<String>,
    /// The command that ends it, where this plan does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Last {
    run: String,
    elapsed_ms: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Since {
    run: String,
    at: jiff::Timestamp,
}

/// What is not the migration's own and goes down with a node all the same.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Ends {
    /// The step that ends it.
    pub(super) from: String,
    /// The step that lets it back; None: it is back when its node is.
    pub(super) until: Option<String>,
    /// Pods, by `NAMESPACE/NAME`.
    pub(super) what: Vec<String>,
}

impl Ends {
    pub(super) fn sentence(&self) -> String {
        let Self { from, until, what } = self;
        let what = what.join(", ");
        match until {
            Some(until) => format!("{what} as well, which can be nowhere else: from {from} until {until}"),
            None => {
                format!("{what} as well: {from} does not drain the node first, so they end with it until it is back")
            }
        }
    }
}

/// What a step alone may take away from under the workload: in a run it is stopped first, and brought back later.
pub(super) fn unstopped(
    session: &Session,
    migration: &str,
    steps: &[BoxedStep],
    left: &[&BoxedStep],
) -> Option<String> {
    let (_, all) = session.migration(migration).ok()?;
    let at = |id: &str| all.iter().position(|step| step.id() == id);
    let here = |id: &str| steps.iter().any(|step| step.id() == id);
    let hits = left.iter().find(|step| step.risk() != Risk::Reads && step.outlook(&session.estate).hits)?;
    all.iter().enumerate().find_map(|(from, stopper)| {
        let (what, closer) = (stopper.outlook(&session.estate).stops?, stopper.holds_until()?);
        let own = at(hits.id())?;
        let guarded = from < own && own < at(closer)?;
        (guarded && !here(stopper.id())).then(|| {
            let (step, id) = (number(hits.id()), stopper.id());
            format!("{what}, where it is at work: {step} alone neither stops it first (`pvemig step {id}` does) nor brings it back")
        })
    })
}

impl Down {
    /// Nothing is promised: what is known is who is waited for, how long a step waits at most, and how it was before.
    pub(super) fn sentence(&self) -> String {
        let Self { what, from, until, .. } = self;
        let mut said = vec![match &self.since {
            None => format!("{what}, from {from} until {until} finds it at work"),
            Some(Since { run, at }) => format!(
                "{what}, down already since {} by what run {run} wrote, until {until} finds it at work",
                at.strftime("%Y-%m-%d %H:%M:%S UTC")
            ),
        }];
        if !self.hands.is_empty() {
            said.push(format!("as long as you take for {}", self.hands.join(" and ")));
        }
        let mut by_limit: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for (step, limit) in &self.limits {
            by_limit.entry(*limit).or_default().push(step);
        }
        let waits = by_limit
            .iter()
            .rev()
            .map(|(limit, steps)| format!("{} in {}", show(Duration::from_secs(*limit)), steps.join(" and ")));
        let waits: Vec<_> = waits.collect();
        if !waits.is_empty() {
            said.push(format!("at the longest it waits {}", waits.join(", ")));
        }
        said.push(match (&self.last, &self.ended_by) {
            (_, None) if self.untold.is_some() => {
                let why = self.untold.as_deref().unwrap_or_default();
                format!("how long it really takes cannot be told: {why}")
            }
            (_, Some(command)) => format!("this does not bring it back: `{command}` does"),
            (Some(last), _) => format!("in run {} it was {}", last.run, show(Duration::from_millis(last.elapsed_ms))),
            (None, _) => "how long it really takes no run has shown yet".to_owned(),
        });
        said.join("; ")
    }
}

/// What stops from a step on until its closer, and what is waited for in between.
pub(super) fn down(session: &Session, steps: &[BoxedStep], left: &[&BoxedStep]) -> Option<Down> {
    let stops = |step: &&&BoxedStep| step.outlook(&session.estate).stops.is_some();
    let stopper = left.iter().find(stops)?;
    let closer = stopper.holds_until()?;
    let at = steps.iter().position(|step| step.key() == stopper.key())?;
    let end = steps.iter().position(|step| step.id() == closer);
    let ended_by = end.is_none().then(|| format!("pvemig step {closer}"));
    let end = end.unwrap_or(at);
    let between = steps.get(at..=end)?.iter().filter(|step| left.iter().any(|l| l.key() == step.key()));
    let (mut limits, mut hands) = (Vec::new(), Vec::new());
    for step in between {
        let outlook = step.outlook(&session.estate);
        let limit = step.limit().saturating_add(outlook.longest);
        if outlook.asks.is_some() {
            hands.push(number(step.id()).to_owned());
        } else if limit >= WORTH_SAYING {
            limits.push((number(step.id()).to_owned(), limit.as_secs()));
        }
    }
    let (from, until) = (number(stopper.id()).to_owned(), number(closer).to_owned());
    Some(Down {
        what: stopper.outlook(&session.estate).stops?,
        from,
        until,
        since: None,
        limits,
        hands,
        last: None,
        untold: None,
        ended_by,
    })
}

impl Down {
    /// Where what is to be stopped is down already by what earlier runs wrote. Who was asked knows better: what is to be
    /// given another value is at work.
    pub(super) fn already(&mut self, session: &Session, steps: &[BoxedStep], lines: &[Line]) -> Result<(), StoreError> {
        let stops = |step: &&BoxedStep| step.outlook(&session.estate).stops.is_some();
        let Some(stopper) = steps.iter().find(stops).map(|step| step.key()) else { return Ok(()) };
        let said = lines.iter().find(|line| line.key == stopper).map(|line| &line.said);
        if let Some(Said::Answer(check)) = said
            && let Answer::Todo { changes, .. } = &check.answer
            && changes.iter().any(|change| change.symbol != Symbol::Act)
        {
            return Ok(());
        }
        let (runs, _) = session.store.every_run()?;
        self.since = session.down_already(&runs, steps, &stopper).map(|(run, at)| Since { run, at });
        Ok(())
    }
}

/// The newest run of the migration that brought its workload back, and how long that was down; what became of the run
/// afterwards does not count.
pub(super) fn last_time(session: &Session, migration: &str) -> Result<Option<Last>, StoreError> {
    let (runs, _) = session.store.every_run()?;
    let whole = |run: &&RunRead| {
        let opened = &run.state.opened;
        !opened.single && opened.migration.as_deref() == Some(migration)
    };
    Ok(runs.iter().rev().filter(whole).find_map(|run| {
        let outages = session.outages(&runs, run);
        // What another run had left down for a night says nothing of how long this takes.
        let own = |outage: &&report::Outage| outage.began == report::Began::Here;
        let ready = outages.iter().rev().filter(own).find(|o| matches!(o.end, report::End::Ready(_)))?;
        Some(Last { run: run.id.clone(), elapsed_ms: u64::try_from(ready.elapsed?.as_millis()).ok()? })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_takes_is_told_by_runs_and_else_why_it_is_not() {
        let down = |last: Option<Last>, untold: Option<&str>| {
            let (what, from, until) = ("w".to_owned(), "00d".to_owned(), "10".to_owned());
            let (limits, hands, untold) = (Vec::new(), Vec::new(), untold.map(str::to_owned));
            Down { what, from, until, since: None, limits, hands, last, untold, ended_by: None }.sentence()
        };
        assert!(down(None, None).ends_with("no run has shown yet"));
        let last = Last { run: "7k2".into(), elapsed_ms: 61_000 };
        assert!(down(Some(last), None).contains("in run 7k2 it was"));
        let why = "/state: cannot list the runs: denied";
        assert!(down(None, Some(why)).ends_with(&format!("cannot be told: {why}")));
    }

    #[test]
    fn who_goes_down_with_a_node_is_named() {
        let of = |until: Option<&str>| {
            let what = vec!["home/mosquitto-0".to_owned(), "home/zigbee".to_owned()];
            Ends { from: "04a".into(), until: until.map(str::to_owned), what }.sentence()
        };
        let drained = "home/mosquitto-0, home/zigbee as well, which can be nowhere else: from 04a until 06a";
        assert_eq!(of(Some("06a")), drained);
        assert!(of(None).ends_with("so they end with it until it is back"));
    }
}
