//! How a migration of a blueprint is written, and what it may ask for: from the table that its parameters are read by, the
//! example site file, and the steps themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::base::clock::Clock;
use crate::base::permit::Thing;
use crate::blueprint::param::Param;
use crate::blueprint::{Blueprint, BoxedStep};
use crate::estate::Estate;
use crate::site::{Site, example as site_example};

use super::super::args::Global;
use super::super::given::load;
use super::super::out::Out;
use super::super::words::lay;

/// The consents and words that the steps of a migration may ask for.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Whose: a migration of the site, else that of the example.
    of: Option<String>,
    things: BTreeSet<Thing>,
    /// Kinds that show at work only.
    later: BTreeSet<&'static str>,
}

/// What is said by `--destroy` with a thing of a kind.
const KINDS: [(&str, &str); 9] = [
    ("disk", "what is on that disk is gone"),
    ("ephemeral", "what is on that node's EPHEMERAL besides etcd is gone"),
    ("etcd", "that member of etcd, with what it has, is gone for good"),
    ("gone", "your word that this machine never comes back with its old disk"),
    ("node", "that Node object is deleted, and its pods are forgotten"),
    ("off", "your word that this machine is off and stays off: you have looked at it"),
    ("pv", "that volume, with what it has, is gone"),
    ("pvc", "that claim, with what it has, is gone"),
    ("vm", "that VM is gone"),
];

impl Asks {
    /// Of the site's first migration of the blueprint, else of the example's. No system is asked.
    pub(super) fn of(global: &Global, out: &Out, blueprint: &Blueprint) -> Self {
        let home = Some(PathBuf::from("/root"));
        let own = load(global, out).ok();
        let example = || Site::parse(site_example(), Path::new("site.yaml"), home).ok();
        own.and_then(|site| Self::by(site, blueprint)).or_else(|| Self::by(example()?, blueprint)).unwrap_or_default()
    }

    /// Of the migration that asks for most.
    fn by(site: Site, blueprint: &Blueprint) -> Option<Self> {
        let of = |(name, of): (&String, &crate::site::Migration)| {
            let steps: Vec<BoxedStep> =
                (of.blueprint == blueprint.name).then(|| blueprint.build(&site, name).ok()).flatten()?;
            Some((name.clone(), steps))
        };
        let all: Vec<(String, Vec<BoxedStep>)> = site.migrations.iter().filter_map(of).collect();
        // Nothing is opened by it.
        let estate = Estate::new(Arc::new(site), Clock::real(), PathBuf::new());
        let asks = all.into_iter().map(|(name, steps)| {
            let mut asks = Self { of: Some(name), ..Self::default() };
            for outlook in steps.iter().map(|step| step.outlook(&estate)) {
                asks.things.extend(outlook.destroys.iter().chain(&outlook.words).cloned());
                asks.later.extend(outlook.may_destroy);
            }
            asks
        });
        asks.rev().max_by_key(|asks| asks.things.len() + asks.later.len())
    }

    pub(super) fn things(&self) -> Vec<String> {
        let kinds = self.later.iter().map(|kind| format!("{kind}/.."));
        self.things.iter().map(ToString::to_string).chain(kinds).collect()
    }
}

fn meaning(thing: &str) -> &'static str {
    let kind = thing.split('/').next().unwrap_or(thing);
    KINDS.iter().find(|(known, _)| *known == kind).map_or("it is gone", |(_, means)| means)
}

pub(super) fn json(params: &[Param]) -> Value {
    let one = |param: &Param| {
        json!({
            "name": param.name, "what": param.what, "example": param.example, "default": param.default,
            "params": json(param.of),
        })
    };
    params.iter().map(one).collect()
}

/// A migration of the blueprint, as the example site file has it.
pub(super) fn example(blueprint: &Blueprint) -> String {
    let of = format!("    blueprint: {}", blueprint.name);
    let text = site_example();
    let lines: Vec<&str> = text.lines().collect();
    let Some(at) = lines.iter().position(|line| *line == of) else { return String::new() };
    let own = |line: &&&str| line.starts_with("   ") || line.trim().is_empty();
    let body = lines.iter().skip(at).take_while(own);
    let name = at.checked_sub(1).and_then(|at| lines.get(at)).copied().unwrap_or_default();
    let all: Vec<&str> = ["migrations:", name].into_iter().chain(body.copied()).collect();
    all.join("\n").trim_end().to_owned() + "\n"
}

pub(super) fn text(blueprint: &Blueprint, asks: &Asks, out: Out) -> String {
    let mut lines = vec![String::new(), "parameters:".to_owned()];
    below(blueprint.params, 1, &mut lines, out);
    lines.extend([String::new(), "in the site file (`pvemig site example` has all of it):".to_owned()]);
    lines.extend(example(blueprint).lines().map(|line| format!("  {line}")));
    lines.push(String::new());
    let things = asks.things();
    match &asks.of {
        Some(name) if !things.is_empty() => {
            let head = format!(
                "what it may ask for, each by `--destroy THING` (of {name}; `pvemig plan` says which it needs):"
            );
            lines.extend(lay("", &head, 2, out.width()));
            let width = things.iter().map(|thing| thing.chars().count()).max().unwrap_or(0);
            for thing in &things {
                let head = format!("  {thing:width$}  ");
                lines.extend(lay(&head, meaning(thing), width + 4, out.width()));
            }
        }
        _ => lines.push("it asks for no consent".to_owned()),
    }
    lines.extend(lay(
        "",
        &out.commands(
            "then: `pvemig site check`, `pvemig plan NAME`, `pvemig run NAME`; a step by `pvemig explain STEP`",
        ),
        2,
        out.width(),
    ));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn below(params: &[Param], deep: usize, lines: &mut Vec<String>, out: Out) {
    for param in params {
        let head = format!("{}{:<12} ", "  ".repeat(deep), param.name);
        let hang = head.chars().count();
        let default = match param.default {
            None => "has to be there".to_owned(),
            Some(default) => format!("left out: {default}"),
        };
        let words = format!("{}; `{}` ({default})", param.what, param.example);
        lines.extend(lay(&head, &words, hang, out.width()));
        below(param.of, deep + 1, lines, out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::blueprint::ALL;

    fn parse(text: &str) -> Result<Site, crate::site::SiteError> {
        Site::parse(text, Path::new("site.yaml"), Some(PathBuf::from("/root")))
    }

    fn params(value: &mut Value, name: &str) -> Value {
        value["migrations"][name]["params"].clone()
    }

    /// Every key that is read is told, since it is read by the table that is told. Whether it has to be there, and that its
    /// example says what the reader takes, is tried here.
    #[test]
    fn the_parameters_that_are_told_are_those_that_are_read() {
        let whole: Value = serde_saphyr::from_str(site_example()).unwrap();
        let (mut needed, mut optional) = (0, 0);
        for blueprint in ALL {
            let text = example(blueprint);
            let own: Value = serde_saphyr::from_str(&text).unwrap();
            let (name, own) = own["migrations"].as_object().unwrap().iter().next().unwrap();
            assert_eq!(own, &whole["migrations"][name], "{}: {text}", blueprint.name);
            let build = |site: &Value| {
                parse(&serde_saphyr::to_string(site).unwrap()).and_then(|site| blueprint.build(&site, name).map(|_| ()))
            };
            // Without all that may be left out it is whole, and without any other not.
            let mut least = whole.clone();
            for param in blueprint.params.iter().filter(|param| param.default.is_some()) {
                least["migrations"][name]["params"].as_object_mut().unwrap().remove(param.name);
                optional += 1;
            }
            assert!(build(&least).is_ok(), "{}: {:?}", blueprint.name, build(&least));
            for param in blueprint.params.iter().filter(|param| param.default.is_none()) {
                let mut other = least.clone();
                let there = other["migrations"][name]["params"].as_object_mut().unwrap().remove(param.name);
                assert!(there.is_some() && build(&other).is_err(), "{} is needed by {}", param.name, blueprint.name);
                needed += 1;
            }
            let mut unknown = whole.clone();
            unknown["migrations"][name]["params"]["qqqqqq"] = true.into();
            assert!(params(&mut unknown, name).get("qqqqqq").is_some());
            let error = build(&unknown);
            let crate::site::SiteError::Invalid(error) = error.unwrap_err() else { panic!("{}", blueprint.name) };
            let error = error.render(400);
            for param in blueprint.params {
                assert!(error.contains(&format!("`{}`", param.name)), "{}: {error}", blueprint.name);
            }
        }
        assert!(needed >= 10 && optional >= 14, "{needed} {optional}");
    }

    #[test]
    fn every_kind_of_consent_has_a_meaning() {
        let things = [
            Thing::claim("a", "b"),
            Thing::volume("a"),
            Thing::disk("a"),
            Thing::member("a"),
            Thing::ephemeral("a"),
            Thing::off("a"),
            Thing::gone("a"),
            Thing::node("a"),
        ];
        assert!(things.iter().all(|thing| meaning(&thing.0) != "it is gone"));
        assert_eq!(things.len(), 8);
    }
}
