//! `pvemig explain [STEP|FINDING|RULE]`.

#[cfg(test)]
mod commands;
mod params;

use std::collections::BTreeSet;

use serde_json::json;

use crate::blueprint::{self, Blueprint, BoxedStep, Known, Row};
use crate::engine::step::Risk;
use crate::lint::{self, Rule};
use crate::site::fields::near;

use super::args::{ExplainArgs, Global};
use super::exit::Exit;
use super::fail::Words;
use super::given::{load, site_path};
use super::out::Out;
use super::plan::number;
use super::words::lay;

/// What a step does, what can go wrong, what one would type by hand; with a site file: with its real names. What a
/// finding means and what to do about it, and the same of a rule of the survey. Without a name: what there is to explain.
pub(super) fn explain(global: &Global, args: &ExplainArgs, out: &Out) -> anyhow::Result<Exit> {
    let Some(name) = &args.what else { return everything(out) };
    if name.trim().is_empty() {
        let help = "`pvemig explain` alone lists the steps, the findings and the rules";
        return Err(Words::usage("what is to be explained is empty", help).into());
    }
    // A finding stands behind the number of the step that it protects, in brackets.
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let name = bare.rsplit('·').next().unwrap_or(bare);
    if name.eq_ignore_ascii_case(LINTS) {
        return every_rule(out);
    }
    if let Some(rule) = lint::rule(name) {
        let text = if out.json { format!("{}\n", rule_json(rule)) } else { rule_text(rule, *out) };
        out.data(&text)?;
        return Ok(Exit::Done);
    }
    if let Some(blueprint) = whole(global, out, name) {
        return one_blueprint(global, out, blueprint);
    }
    let steps = blueprint::called(name);
    let found: Vec<_> = findings().filter(|(_, known)| known.name == name).collect();
    match (steps.is_empty(), found.first()) {
        (false, _) => explain_steps(global, out, &steps),
        (true, Some(_)) => explain_findings(global, out, found),
        (true, None) => {
            let help = match like(name, names().chain(findings().map(|(_, known)| known.name))) {
                Some(like) => format!("did you mean `{like}`? `pvemig explain` alone lists all"),
                None => "`pvemig explain` alone lists the steps, the findings and the rules".to_owned(),
            };
            Err(Words::usage(format!("there is no step `{name}`, and no finding or rule of this name"), help).into())
        }
    }
}

/// The blueprint of this name, or that of the site's migration of this name.
fn whole(global: &Global, out: &Out, name: &str) -> Option<&'static Blueprint> {
    blueprint::named(name).or_else(|| {
        // Where no site file can be read there are no migrations to be named.
        let site = load(global, out).ok()?;
        blueprint::named(&site.migrations.get(name)?.blueprint)
    })
}

/// The steps of a blueprint, a line each, and how a migration of it is written.
fn one_blueprint(global: &Global, out: &Out, blueprint: &'static Blueprint) -> anyhow::Result<Exit> {
    if out.json {
        let asks = params::Asks::of(global, out, blueprint);
        let steps: Vec<_> =
            blueprint.rows.iter().map(|row| json!({ "step": row.id, "blueprint": blueprint.name })).collect();
        out.data(&format!(
            "{}\n",
            json!({
                "blueprint": blueprint.name, "summary": blueprint.summary, "steps": steps,
                "params": params::json(blueprint.params), "example": params::example(blueprint), "asks": asks.things(),
            })
        ))?;
        return Ok(Exit::Done);
    }
    out.data(&one_blueprint_text(global, out, blueprint))?;
    Ok(Exit::Done)
}

fn one_blueprint_text(global: &Global, out: &Out, blueprint: &'static Blueprint) -> String {
    let asks = params::Asks::of(global, out, blueprint);
    format!("{}{}", step_lines(blueprint, *out), params::text(blueprint, &asks, *out))
}

fn step_lines(blueprint: &Blueprint, out: Out) -> String {
    let mut lines = lay("", &format!("steps of {}: {}", blueprint.name, blueprint.summary), 2, out.width());
    for row in blueprint.rows {
        let asks = if row.asks { "; may ask you" } else { "" };
        let hold = row.holds_until.map(|id| format!("; until {}", number(id))).unwrap_or_default();
        let words = format!("{}{asks}{hold}", risk(row));
        lines.extend(lay(&format!("  {:<24} ", row.id), &words, 27, out.width()));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What all rules of the survey are called together.
pub(super) const LINTS: &str = "lints";

/// Every rule of the survey, a line each.
fn every_rule(out: &Out) -> anyhow::Result<Exit> {
    let text = if out.json {
        let rules: Vec<_> = lint::rules().map(rule_json).collect();
        format!("{}\n", json!({ "rules": rules }))
    } else {
        rule_lines(*out)
    };
    out.data(&text)?;
    Ok(Exit::Done)
}

fn rule_lines(out: Out) -> String {
    let lines = lint::rules().flat_map(|rule| lay(&format!("  {} ", rule.number), rule.title, 6, out.width()));
    lines.map(|line| format!("{line}\n")).collect()
}

fn rule_text(rule: &Rule, out: Out) -> String {
    let mut text = String::new();
    let mut line = |head: &str, words: &str, hang: usize| {
        lay(head, words, hang, out.width()).iter().for_each(|line| text.push_str(&format!("{line}\n")));
    };
    line("", &format!("{} (a rule of the survey): {}", rule.number, rule.title), 2);
    rule.explain.lines().iter().for_each(|(head, words)| line(&format!("  {head:<8} "), words, 11));
    text
}

fn rule_json(rule: &Rule) -> serde_json::Value {
    let explain = rule.explain;
    json!({
        "rule": rule.number, "title": rule.title, "wrong": explain.wrong, "shows": explain.shows,
        "by-hand": explain.by_hand, "source": explain.source,
    })
}

/// Every step, every finding and every rule, a line each.
fn everything(out: &Out) -> anyhow::Result<Exit> {
    if out.json {
        let steps: Vec<_> = rows().map(|(b, row)| json!({ "step": row.id, "blueprint": b.name })).collect();
        let findings: Vec<_> = findings().map(|(b, known)| finding_json(b, known)).collect();
        let rules: Vec<_> = lint::rules().map(rule_json).collect();
        out.data(&format!("{}\n", json!({ "steps": steps, "findings": findings, "rules": rules })))?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    let line = |text: &mut String, head: &str, words: &str, hang: usize| {
        lay(head, words, hang, out.width()).iter().for_each(|line| text.push_str(&format!("{line}\n")));
    };
    for blueprint in blueprint::ALL {
        text.push_str(&step_lines(blueprint, *out));
        line(&mut text, "", "", 0);
        line(&mut text, "", "what its preflight may find, each before anything is changed:", 2);
        for known in blueprint.findings {
            line(&mut text, &format!("  {:<29} ", known.name), known.means, 32);
        }
        line(&mut text, "", "", 0);
    }
    line(&mut text, "", "what `pvemig survey` may find:", 2);
    text.push_str(&rule_lines(*out));
    out.data(&text)?;
    Ok(Exit::Done)
}

fn rows() -> impl Iterator<Item = (&'static Blueprint, &'static Row)> {
    blueprint::ALL.iter().flat_map(|b| b.rows.iter().map(move |row| (b, row)))
}

fn findings() -> impl Iterator<Item = (&'static Blueprint, &'static Known)> {
    blueprint::ALL.iter().flat_map(|b| b.findings.iter().map(move |known| (b, *known)))
}

fn finding(blueprint: &Blueprint, known: &Known, out: Out) -> String {
    let mut text = format!("{} (a finding of {}'s preflight)\n", known.name, blueprint.name);
    let protects = if known.steps.is_empty() { "any".to_owned() } else { known.steps.join(", ") };
    let parts = [("means", known.means), ("else", known.matters), ("by hand", known.by_hand), ("protects", &protects)];
    for (head, words) in parts {
        let laid = lay(&format!("  {head:<9} "), words, 12, out.width());
        laid.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    }
    text
}

fn finding_json(blueprint: &Blueprint, known: &Known) -> serde_json::Value {
    json!({
        "finding": known.name, "blueprint": blueprint.name, "means": known.means, "else": known.matters,
        "by-hand": known.by_hand, "protects": known.steps,
    })
}

/// One after the other, where several blueprints have something of their own to say of it; those that the site has
/// migrations of, where it has.
fn explain_findings(
    global: &Global,
    out: &Out,
    mut found: Vec<(&'static Blueprint, &'static Known)>,
) -> anyhow::Result<Exit> {
    let used = if found.len() > 1 { used(global, out) } else { Vec::new() };
    let there = |blueprint: &Blueprint| used.iter().any(|name| name == blueprint.name);
    if found.iter().any(|(blueprint, _)| there(blueprint)) {
        found.retain(|(blueprint, _)| there(blueprint));
    }
    // Those that share their words say them once.
    let mut each: Vec<(&Blueprint, &Known)> = Vec::new();
    for (blueprint, known) in found {
        if !each.iter().any(|(_, other)| *other == known) {
            each.push((blueprint, known));
        }
    }
    if out.json {
        let all: Vec<_> = each.iter().map(|(blueprint, known)| finding_json(blueprint, known)).collect();
        let one = match all.as_slice() {
            [one] => one.clone(),
            several => json!({ "findings": several }),
        };
        out.data(&format!("{one}\n"))?;
    } else {
        let all: Vec<_> = each.iter().map(|(blueprint, known)| finding(blueprint, known, *out)).collect();
        out.data(&all.join("\n"))?;
    }
    Ok(Exit::Done)
}

/// The blueprints that the site has migrations of; none where it cannot be read.
fn used(global: &Global, out: &Out) -> Vec<String> {
    load(global, out)
        .map(|site| site.migrations.values().map(|migration| migration.blueprint.clone()).collect())
        .unwrap_or_default()
}

/// One after the other, where several blueprints call a step so; those that the site has migrations of, where it has.
fn explain_steps(global: &Global, out: &Out, steps: &[(&Blueprint, &Row)]) -> anyhow::Result<Exit> {
    let used = if steps.len() > 1 { used(global, out) } else { Vec::new() };
    let there = |blueprint: &Blueprint| used.iter().any(|name| name == blueprint.name);
    let any = steps.iter().any(|(blueprint, _)| there(blueprint));
    let mut said = Vec::new();
    for (blueprint, row) in steps.iter().filter(|(blueprint, _)| !any || there(blueprint)) {
        said.push(explain_step(global, out, blueprint, row)?);
    }
    // One value, even of several.
    let text = match said.as_slice() {
        several @ [_, _, ..] if out.json => {
            let each: Vec<_> = several.iter().map(|step| step.trim_end()).collect();
            format!("{{\"steps\":[{}]}}\n", each.join(","))
        }
        _ => said.join("\n"),
    };
    out.data(&text)?;
    Ok(Exit::Done)
}

/// What there is to say of a step, ended by a line's end.
fn explain_step(global: &Global, out: &Out, blueprint: &Blueprint, row: &Row) -> anyhow::Result<String> {
    // Without a readable site file the reasons are still worth reading: those of the example estate.
    let home = Some(std::path::PathBuf::from("/root"));
    let example = crate::site::Site::parse(crate::site::example(), std::path::Path::new("site.yaml"), home)
        .map_err(|error| super::fail::site_error(&error, out.width()))?;
    let site = match load(global, out) {
        Ok(site) => Some(site),
        // A file that was named is meant.
        Err(error) if global.site.is_some() => return Err(error),
        Err(error) => {
            // No site file at all is as usual as one; a broken one is worth a word.
            if site_path(global).is_ok() {
                out.notice(&format!("this is the example's, because yours cannot be opened: {error}"));
            }
            None
        }
    };
    // Of a migration that has the step: another scenario may leave it out.
    let of = |site: &crate::site::Site| {
        steps_of(site, blueprint).map(|steps| steps.into_iter().find(|step| step.id() == row.id))
    };
    let own = site.as_ref().and_then(|site| of(site).ok().flatten());
    let real = own.is_some();
    let step = match own {
        Some(step) => Some(step),
        None => of(&example)?,
    };
    let step = step.as_ref();
    Ok(if out.json {
        format!("{}\n", json(blueprint, row, step, real))
    } else {
        text(blueprint, row, step, real, *out)
    })
}

fn text(blueprint: &Blueprint, row: &Row, step: Option<&BoxedStep>, real: bool, out: Out) -> String {
    let mut text = format!("{} (blueprint {}, version {})\n", row.id, blueprint.name, blueprint.version);
    let mut line = |head: &str, words: &str, hang: usize| {
        let laid = lay(head, &out.commands(words), hang, out.width());
        laid.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    };
    let asks = if row.asks { "; may ask a person to act" } else { "" };
    line("  ", &format!("it {}{asks}", risk(row)), 4);
    if let Some(closer) = row.holds_until {
        line("  ", &format!("a hold: {closer} takes it back"), 4);
    }
    if !row.aliases.is_empty() {
        line("  also called ", &row.aliases.join(", "), 4);
    }
    for (flag, help) in flags(row) {
        line(&format!("  --{flag:<10} "), help, 15);
    }
    if let Some(step) = step {
        line("", "", 0);
        line("", &format!("{}done when {}", if real { "" } else { "example: " }, step.title()), 2);
        line("", "", 0);
        step.why().iter().for_each(|why| line("  - ", why, 4));
    }
    text
}

fn json(blueprint: &Blueprint, row: &Row, step: Option<&BoxedStep>, real: bool) -> serde_json::Value {
    let flags: Vec<_> = flags(row).map(|(flag, help)| json!({ "flag": format!("--{flag}"), "help": help })).collect();
    json!({
        "step": row.id, "blueprint": blueprint.name, "version": blueprint.version, "risk": row.risk,
        "may-ask-a-person": row.asks, "holds-until": row.holds_until, "aliases": row.aliases, "flags": flags,
        "example": !real, "title": step.map(|s| s.title()), "why": step.map(|s| s.why()),
    })
}

fn risk(row: &Row) -> &'static str {
    match row.risk {
        Risk::Reverts if row.stays => "changes things, and an undo leaves them",
        Risk::Reads => "only looks",
        Risk::Reverts => "changes things, and can take them back",
        Risk::Destroys => "changes things that cannot be brought back",
    }
}

/// The flags that choose the step, and those that change how it works.
fn flags(row: &Row) -> impl Iterator<Item = (&'static str, &'static str)> {
    row.flags.iter().chain(row.switches).map(|(flag, _, help)| (*flag, *help))
}

/// The steps of all migrations of a blueprint, each once: those of the first that has it.
fn steps_of(site: &crate::site::Site, blueprint: &Blueprint) -> anyhow::Result<Vec<BoxedStep>> {
    let mut steps: Vec<BoxedStep> = Vec::new();
    for (name, _) in site.migrations.iter().filter(|(_, migration)| migration.blueprint == blueprint.name) {
        let of = blueprint.build(site, name).map_err(|error| super::fail::site_error(&error, 80))?;
        let known: BTreeSet<&'static str> = steps.iter().map(|step| step.id()).collect();
        steps.extend(of.into_iter().filter(|step| !known.contains(step.id())));
    }
    Ok(steps)
}

/// Every name of a step.
fn names() -> impl Iterator<Item = &'static str> {
    rows().flat_map(|(_, row)| names_of(row))
}

fn names_of(row: &'static Row) -> impl Iterator<Item = &'static str> {
    std::iter::once(row.id).chain(row.aliases.iter().copied())
}

/// What to do about a name that no step has: the one that was meant, of the blueprints that are in use (`used`) before
/// any other, else where they are listed.
pub(super) fn known_steps(given: &str, used: &[&str]) -> String {
    let in_use = rows().filter(|(blueprint, _)| used.contains(&blueprint.name)).flat_map(|(_, row)| names_of(row));
    match like(given, in_use.chain(names())) {
        Some(like) => format!("did you mean `{like}`? `pvemig explain` lists the steps"),
        None => "`pvemig explain` lists the steps".to_owned(),
    }
}

/// The name that was probably meant; its number may lack the zero, and what stands behind it may be typed alone.
fn like<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let names: Vec<&'a str> = names.collect();
    let parts = |name: &'a str| name.split_once('-').filter(|(n, _)| n.starts_with(|c: char| c.is_ascii_digit()));
    let numbered = |name: &'a str| parts(name).is_some_and(|(n, _)| n.trim_start_matches('0') == given);
    if let Some(name) = names.iter().copied().find(|name| numbered(name)) {
        return Some(name);
    }
    let slugs = names.iter().copied().filter_map(|name| Some((parts(name)?.1, name)));
    let forms: Vec<(&'a str, &'a str)> = names.iter().copied().map(|name| (name, name)).chain(slugs).collect();
    let form = near(given, forms.iter().map(|(form, _)| *form))?;
    forms.iter().find(|(known, _)| *known == form).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::{known_steps, like, names};

    #[test]
    fn a_misspelt_name_is_told_the_one_that_was_meant() {
        let cases = [
            ("4", Some("04-add-usb")),
            ("04-ad-usb", Some("04-add-usb")),
            ("add-usb", Some("04-add-usb")),
            ("preflihgt", Some("00-preflight")),
            ("06-wait-for-vm-redy", Some("06-wait-for-vm-ready")),
            ("99", None),
            ("what", None),
        ];
        for (given, wanted) in cases {
            assert_eq!(like(given, names()), wanted, "{given}");
        }
        assert_eq!(cases.len(), 7);
        let suggested = |given: &str, used: &[&str]| known_steps(given, used);
        assert!(suggested("99", &[]).len() < 80 && suggested("4", &[]).starts_with("did you mean `04-add-usb`?"));
        // What the site has no migration of is not what was meant.
        for (used, wanted) in [("node-reboot-test", "06-uncordon"), ("usb-move", "06-wait-for-vm")] {
            assert!(suggested("6", &[used]).starts_with(&format!("did you mean `{wanted}`?")), "{used}");
        }
    }
}
