//! How long what is left of a plan usually takes, by the runs of this state directory.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use crate::base::wait::show;
use crate::blueprint::{Blueprint, BoxedStep};
use crate::engine::history::usual;
use crate::engine::step::Risk;
use crate::engine::store::RunRead;

use super::plan::number;
use super::session::{Session, plural};
use super::status::whole_text;

/// A step that takes less is nothing to plan an evening by.
const WORTH_NAMING: Duration = Duration::from_secs(30);

/// How long it usually takes.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Usually {
    /// All that is known of, together.
    usual_ms: u64,
    /// Each of them.
    steps: Vec<One>,
    /// The steps that change something or ask a person, of which no run has shown it.
    not_seen: Vec<String>,
    /// How long all of it takes from its beginning to its end by what was written of such migrations, where a step that
    /// asks a person has not been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_ms: Option<(u64, u64)>,
    /// Why nothing can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    untold: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct One {
    step: String,
    usual_ms: u64,
    times: usize,
}

impl Usually {
    /// Of the steps that are left; None where no run has shown anything of them, and nobody has written it.
    pub(super) fn of(
        session: &Session,
        blueprint: &Blueprint,
        migration: Option<&str>,
        left: &[&BoxedStep],
    ) -> Option<Self> {
        let written = migration.and_then(|migration| blueprint.usually(&session.site, migration));
        match session.store.every_run() {
            Ok((runs, _)) => Self::by(&runs, blueprint, written, left),
            Err(error) => Some(Self { untold: Some(whole_text(&error)), ..Self::default() }),
        }
    }

    fn by(
        runs: &[RunRead],
        blueprint: &Blueprint,
        written: Option<RangeInclusive<Duration>>,
        left: &[&BoxedStep],
    ) -> Option<Self> {
        let mut usually = Self::default();
        let ms = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for step in left {
            let asks = blueprint.row(step.id()).is_some_and(|row| row.asks);
            match usual(runs, blueprint.name, step.id()) {
                Some(usual) => {
                    let usual_ms = ms(&usual.time);
                    usually.usual_ms = usually.usual_ms.saturating_add(usual_ms);
                    usually.steps.push(One { step: step.key().to_string(), usual_ms, times: usual.times });
                }
                None if step.risk() != Risk::Reads || asks => {
                    usually.not_seen.push(step.key().to_string());
                    if asks {
                        usually.written_ms = written.as_ref().map(|range| (ms(range.start()), ms(range.end())));
                    }
                }
                // What only looks, and was always so at once.
                None => {}
            }
        }
        (!usually.steps.is_empty() || usually.written_ms.is_some()).then_some(usually)
    }

    /// In a sentence.
    pub(super) fn sentence(&self) -> String {
        if let Some(why) = &self.untold {
            return format!("how long it usually takes cannot be told: {why}");
        }
        let time = |ms: u64| show(Duration::from_secs(Duration::from_millis(ms).as_secs()));
        let written = self.written_ms.map(|(least, most)| {
            format!("{} to {} from beginning to end, by what was written of such a one", time(least), time(most))
        });
        if let Some(written) = written.as_ref().filter(|_| self.steps.is_empty()) {
            return format!("{written}: no earlier run has shown it");
        }
        let worth = |one: &&One| Duration::from_millis(one.usual_ms) >= WORTH_NAMING;
        let each = self
            .steps
            .iter()
            .filter(worth)
            .map(|one| format!("{} {} (seen {})", short(&one.step), time(one.usual_ms), plural(one.times, "time")));
        let each = each.collect::<Vec<_>>().join(", ");
        let whole = match self.usual_ms {
            ..1_000 => "seconds, by earlier runs".to_owned(),
            ms => format!("about {}, by earlier runs", time(ms)),
        };
        let head = if each.is_empty() { whole } else { format!("{whole}: {each}") };
        let mut unseen: Vec<&str> = self.not_seen.iter().map(|key| short(key)).collect();
        unseen.dedup();
        match written {
            _ if unseen.is_empty() => head,
            // What takes the time is what nobody has seen.
            Some(written) => {
                format!("{written}: no earlier run has shown how long {} takes; the others {head}", unseen.join(", "))
            }
            None => format!("{head}; none has shown yet how long {} takes", unseen.join(", ")),
        }
    }
}

/// The number of a key, with its instance: `03@talos-20` of `03-reboot@talos-20` would be longer than it tells.
fn short(key: &str) -> &str {
    number(key.split('@').next().unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_named_and_what_nobody_has_seen_is_not_called_short() {
        let one = |step: &str, seconds: u64, times: usize| One { step: step.into(), usual_ms: seconds * 1_000, times };
        let mut usually = Usually { usual_ms: 2_191_500, ..Usually::default() };
        usually.steps = vec![one("02-drain", 20, 3), one("04-move-drives", 2_100, 3), one("05-verify-disks", 71, 1)];
        assert_eq!(
            usually.sentence(),
            "about 36 min 31 s, by earlier runs: 04 35 min (seen 3 times), 05 71 s (seen 1 time)"
        );
        usually.not_seen = ["06-apply-config", "10-measure@a", "10-measure@b"].map(str::to_owned).into();
        assert!(usually.sentence().ends_with("(seen 1 time); none has shown yet how long 06, 10 takes"));
        usually.written_ms = Some((1_800_000, 2_700_000));
        let written = "30 min to 45 min from beginning to end, by what was written of such a one";
        let whole =
            format!("{written}: no earlier run has shown how long 06, 10 takes; the others about 36 min 31 s, by");
        assert!(usually.sentence().starts_with(&whole), "{}", usually.sentence());
        usually.steps.clear();
        assert_eq!(usually.sentence(), format!("{written}: no earlier run has shown it"));
        let quick = Usually { usual_ms: 900, steps: vec![one("02-drain", 0, 1)], ..Usually::default() };
        assert_eq!(quick.sentence(), "seconds, by earlier runs");
        let untold = Usually { untold: Some("/state: denied".into()), ..Usually::default() };
        assert_eq!(untold.sentence(), "how long it usually takes cannot be told: /state: denied");
    }
}
