//! What does not work meanwhile: what the migration stops, what its power cycle ends, and what a single step does not
//! stop first.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::base::check::{Answer, Symbol};
use crate::base::names::StepKey;
use crate::base::wait::show;
use crate::blueprint::BoxedStep;
use crate::engine::plan::{Line, Said};
use crate::engine::step::Risk;
use crate::engine::store::{RunRead, StoreError};
use crate::report;

use super::plan::number;
use super::session::Session;
use super::status::whole_text;

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
    /// The command that ends it, or looks whether it has ended, where this plan does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<String>,
    /// Nothing is held: it comes back by itself.
    #[serde(skip)]
    by_itself: bool,
    /// The step that stops it.
    #[serde(skip)]
    stopper: StepKey,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Since {
    run: String,
    at: jiff::Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Last {
    run: String,
    elapsed_ms: u64,
}

/// What is not the migration's own and goes down with a node all the same.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Ends {
    /// The step that ends it.
    pub(super) from: String,
    /// The step that lets it back; None: it is back when its node is.
    pub(super) until: Option<String>,
    /// Where, in a plan for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<String>,
    /// Pods, by `NAMESPACE/NAME`.
    pub(super) what: Vec<String>,
}

impl Ends {
    pub(super) fn sentence(&self) -> String {
        let Self { from, until, what, instance } = self;
        let what = what.join(", ");
        let at = instance.as_ref().map(|instance| format!(" at {instance}")).unwrap_or_default();
        match until {
            Some(until) => format!("{what} as well, which can be nowhere else: from {from} until {until}{at}"),
            None => {
                format!(
                    "{what} as well: {from}{at} does not drain the node first, so they end with it until it is back"
                )
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
    /// Whether it is said in the same words but for what it is.
    fn is_like(&self, other: &Self) -> bool {
        let of = |down: &Self| (down.from.clone(), down.until.clone(), down.limits.clone(), down.hands.clone());
        self.by_itself
            && other.by_itself
            && self.ended_by.is_none()
            && other.ended_by.is_none()
            && of(self) == of(other)
    }

    /// Nothing is promised: what is known is who is waited for, how long a step waits at most, and how it was before. All
    /// of `like` go down in the same way, one after the other.
    fn sentence(&self, like: &[&Self]) -> String {
        let Self { from, until, .. } = self;
        let what = like.iter().map(|down| down.what.as_str()).collect::<Vec<_>>().join(", ");
        let (each, it) = if like.len() > 1 { ("one after the other, each ", "each") } else { ("", "it") };
        let mut said = vec![match &self.since {
            None => format!("{what}, {each}from {from} until {until} finds it at work"),
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
            said.push(format!("at the longest {it} waits {}", waits.join(", ")));
        }
        said.push(match (&self.last, &self.ended_by) {
            (_, None) if self.untold.is_some() => {
                let why = self.untold.as_deref().unwrap_or_default();
                format!("how long it really takes cannot be told: {why}")
            }
            (_, Some(command)) if self.by_itself => format!("whether it is whole again `{command}` looks"),
            (_, Some(command)) => format!("this does not bring it back: `{command}` does"),
            (Some(_), _) if like.len() > 1 => {
                let took = |down: &&Self| {
                    let last = down.last.as_ref()?;
                    Some(format!("{} {} in run {}", down.what, show(Duration::from_millis(last.elapsed_ms)), last.run))
                };
                let known: Vec<String> = like.iter().filter_map(took).collect();
                format!("the last time it was {}", known.join(", "))
            }
            (Some(last), _) => format!("in run {} it was {}", last.run, show(Duration::from_millis(last.elapsed_ms))),
            (None, _) => "how long it really takes no run has shown yet".to_owned(),
        });
        said.join("; ")
    }
}

/// What goes down, a sentence for those that do so in the same way.
pub(super) fn downs(all: &[Down]) -> Vec<String> {
    let mut alike: Vec<Vec<&Down>> = Vec::new();
    for down in all {
        match alike.iter_mut().find(|like| like[0].is_like(down)) {
            Some(like) => like.push(down),
            None => alike.push(vec![down]),
        }
    }
    alike.iter().map(|like| like.iter().find(|down| down.last.is_some()).unwrap_or(&like[0]).sentence(like)).collect()
}

/// What stops from each step on until its closer, and what is waited for in between.
pub(super) fn down(session: &Session, steps: &[BoxedStep], left: &[&BoxedStep]) -> Vec<Down> {
    left.iter().filter_map(|stopper| down_by(session, steps, left, stopper)).collect()
}

fn down_by(session: &Session, steps: &[BoxedStep], left: &[&BoxedStep], stopper: &BoxedStep) -> Option<Down> {
    let outlook = stopper.outlook(&session.estate);
    let (what, closer) = (outlook.stops?, outlook.stops_until.or(stopper.holds_until())?);
    let (key, by_itself) = (stopper.key(), outlook.stops_until.is_some());
    let closes = StepKey::new(closer, key.instance());
    let at = steps.iter().position(|step| step.key() == key)?;
    // A closer without an instance is that of all.
    let of_all = StepKey::new(closer, None);
    let end = steps.iter().position(|step| step.key() == closes).or(steps.iter().position(|step| step.key() == of_all));
    let node = key.instance().map(|node| format!(" --node {node}")).unwrap_or_default();
    let ended_by = end.is_none().then(|| format!("pvemig step {closer}{node}"));
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
    let (since, last, untold, stopper) = (None, None, None, key);
    Some(Down { what, from, until, since, limits, hands, last, untold, ended_by, by_itself, stopper })
}

/// Marks what is down already by what earlier runs wrote. Who was asked knows better: what is to be given another value is
/// at work.
pub(super) fn already(session: &Session, steps: &[BoxedStep], lines: &[Line], downs: &mut [Down]) {
    for down in downs.iter_mut().filter(|down| !down.by_itself) {
        let said = lines.iter().find(|line| line.key == down.stopper).map(|line| &line.said);
        if let Some(Said::Answer(check)) = said
            && let Answer::Todo { changes, .. } = &check.answer
            && changes.iter().any(|change| change.symbol != Symbol::Act)
        {
            continue;
        }
        match session.store.every_run() {
            Ok((runs, _)) => {
                let already = session.down_already(&runs, steps, &down.stopper);
                down.since = already.map(|(run, at)| Since { run, at });
            }
            Err(error) => down.untold = Some(whole_text(&error)),
        }
    }
}

/// How long each of them was down the last time.
pub(super) fn last_times(session: &Session, migration: &str, downs: &mut [Down]) {
    for down in downs {
        match last_time(session, migration, &down.what) {
            Ok(last) => down.last = last,
            Err(error) => down.untold = Some(whole_text(&error)),
        }
    }
}

/// The newest run of the migration that brought this back, and how long it was down; what became of the run afterwards
/// does not count.
fn last_time(session: &Session, migration: &str, what: &str) -> Result<Option<Last>, StoreError> {
    let (runs, _) = session.store.every_run()?;
    let whole = |run: &&RunRead| {
        let opened = &run.state.opened;
        !opened.single && opened.migration.as_deref() == Some(migration)
    };
    Ok(runs.iter().rev().filter(whole).find_map(|run| {
        let outages = session.outages(&runs, run);
        // What another run had left down for a night says nothing of how long this takes.
        let of = |outage: &&report::Outage| {
            let ready = matches!(outage.end, report::End::Ready(_));
            outage.what == what && ready && outage.began == report::Began::Here
        };
        let ready = outages.iter().rev().find(of)?;
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
            let (since, ended_by, by_itself, stopper) = (None, None, false, "00d-scale-down".into());
            let down = Down { what, from, until, since, limits, hands, last, untold, ended_by, by_itself, stopper };
            downs(&[down]).remove(0)
        };
        assert!(down(None, None).ends_with("no run has shown yet"));
        let last = Last { run: "7k2".into(), elapsed_ms: 61_000 };
        assert!(down(Some(last), None).contains("in run 7k2 it was"));
        let why = "/state: cannot list the runs: denied";
        assert!(down(None, Some(why)).ends_with(&format!("cannot be told: {why}")));
    }

    #[test]
    fn those_that_go_down_in_the_same_way_are_told_together() {
        let down = |what: &str, minutes: u64, last: Option<u64>| Down {
            what: what.into(),
            since: None,
            stopper: "04-reboot".into(),
            from: "04".into(),
            until: "05".into(),
            limits: vec![("04".into(), minutes * 60), ("05".into(), 900)],
            hands: Vec::new(),
            last: last.map(|elapsed_ms| Last { run: "7k2".into(), elapsed_ms }),
            untold: None,
            ended_by: None,
            by_itself: true,
        };
        let said = downs(&[down("mac", 15, None), down("vm (vm 223)", 20, None), down("nuc", 15, None)]);
        assert_eq!(
            said,
            [
                "mac, nuc, one after the other, each from 04 until 05 finds it at work; at the longest each waits 15 min \
                 in 04 and 05; how long it really takes no run has shown yet",
                "vm (vm 223), from 04 until 05 finds it at work; at the longest it waits 20 min in 04, 15 min in 05; how \
                 long it really takes no run has shown yet",
            ]
        );
        let said = downs(&[down("mac", 15, None), down("nuc", 15, Some(61_000))]).remove(0);
        assert!(said.ends_with("; the last time it was nuc 61 s in run 7k2"), "{said}");
        // One step alone.
        let alone = Down { ended_by: Some("pvemig step 05-verify-boot --node mac".into()), ..down("mac", 15, None) };
        let said = downs(&[alone]).remove(0);
        assert!(said.ends_with("whether it is whole again `pvemig step 05-verify-boot --node mac` looks"), "{said}");
    }

    #[test]
    fn who_goes_down_with_a_node_is_named() {
        let of = |until: Option<&str>| {
            let what = vec!["home/mosquitto-0".to_owned(), "home/zigbee".to_owned()];
            Ends { from: "04a".into(), until: until.map(str::to_owned), instance: None, what }.sentence()
        };
        let drained = "home/mosquitto-0, home/zigbee as well, which can be nowhere else: from 04a until 06a";
        assert_eq!(of(Some("06a")), drained);
        assert!(of(None).ends_with("so they end with it until it is back"));
    }
}
