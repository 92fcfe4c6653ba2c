//! Every command of this program that `explain` tells is one that it takes.

use std::path::{Path, PathBuf};

use clap::FromArgMatches;

use super::super::args::{Cli, Global, Verb};
use super::super::command;
use super::super::out::Out;
use super::{finding, findings, names, one_blueprint_text, rows, rule_text, steps_of, text};
use crate::blueprint::{self, ALL};
use crate::lint;
use crate::site::Site;

/// All that `explain` prints of the example estate, each with what it was asked for.
fn told() -> Vec<(String, String)> {
    let (out, home) = (Out::new(false, 0, String::new()), Some(PathBuf::from("/root")));
    let site = Site::parse(crate::site::example(), Path::new("site.yaml"), home).unwrap();
    let global = Global { site: None, state: None };
    let mut told = Vec::new();
    for blueprint in ALL {
        let steps = steps_of(&site, blueprint).unwrap();
        assert!(!steps.is_empty(), "{}", blueprint.name);
        told.push((blueprint.name.to_owned(), one_blueprint_text(&global, &out, blueprint)));
    }
    for (blueprint, row) in rows() {
        let steps = steps_of(&site, blueprint).unwrap();
        let step = steps.iter().find(|step| step.id() == row.id);
        assert!(step.is_some(), "{} {}", blueprint.name, row.id);
        told.push((format!("{} {}", blueprint.name, row.id), text(blueprint, row, step, false, out)));
    }
    told.extend(findings().map(|(blueprint, known)| (known.name.to_owned(), finding(blueprint, known, out))));
    told.extend(lint::rules().map(|rule| (rule.number.to_owned(), rule_text(rule, out))));
    told
}

/// The commands of this program in a text, each on one line.
fn commands(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2).map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    quoted.filter(|part| part.starts_with("pvemig ")).collect()
}

/// The words of a command, as a shell takes them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => words.last_mut().unwrap().push(letter),
        }
    }
    words
}

/// What is wrong with a command; None: it is taken, and what it names is there.
fn wrong(line: &str) -> Option<String> {
    let words = words(line);
    // A verb that is only named.
    let mut verb = Some(command());
    for word in &words[1..] {
        verb = verb.and_then(|verb| verb.find_subcommand(word).cloned());
    }
    if verb.is_some() {
        return None;
    }
    let taken = command().try_get_matches_from(&words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match taken {
        Ok(cli) => cli,
        Err(error) => return Some(error.to_string()),
    };
    // What stands for a name is in capitals.
    let stands_for = |name: &str| name.chars().all(|c| c.is_ascii_uppercase());
    let is_step =
        |name: &str| stands_for(name) || !blueprint::called(name.split('@').next().unwrap_or(name)).is_empty();
    let missing = match &cli.verb {
        Verb::Step(args) => (!is_step(&args.step)).then(|| args.step.clone()),
        Verb::Undo(args) => args.past.iter().find(|name| !is_step(name)).cloned(),
        Verb::Explain(args) => args.what.clone().filter(|name| {
            let known =
                names().any(|known| known == name.as_str()) || findings().any(|(_, known)| known.name == name.as_str());
            !(stands_for(name)
                || known
                || is_step(name)
                || blueprint::named(name).is_some()
                || lint::rule(name).is_some())
        }),
        _ => None,
    };
    missing.map(|name| format!("there is no `{name}`"))
}

#[test]
fn every_command_that_is_told_is_taken() {
    let told = told();
    let (mut tried, mut bad) = (0, Vec::new());
    for (what, text) in &told {
        assert_eq!(text.matches('`').count() % 2, 0, "{what}: {text}");
        for line in commands(text) {
            tried += 1;
            bad.extend(wrong(&line).map(|why| format!("{what}: `{line}`: {why}")));
        }
    }
    println!("{} texts, {tried} commands", told.len());
    assert!(told.len() > 150 && tried > 20, "{} {tried}", told.len());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_command_that_is_not_taken_is_found() {
    let bad = [
        "pvemig etcd snapshot --cluster homelab --to DIR",
        "pvemig abandon 7k2",
        "pvemig step 99-nothing --vmid 108",
        "pvemig undo --past 99-nothing",
        "pvemig explain nothing-of-it",
        "pvemig frob",
    ];
    for line in bad {
        assert!(wrong(line).is_some(), "{line}");
    }
    let good = [
        "pvemig abandon",
        "pvemig etcd snapshot",
        "pvemig abandon 7k2 --comment 'a word or two'",
        "pvemig explain STEP",
    ];
    for line in good {
        assert_eq!(wrong(line), None, "{line}");
    }
    let text = "see `pvemig run\n      NAME`, or `talosctl x`, or `pvemig plan`";
    assert_eq!(commands(text), ["pvemig run NAME", "pvemig plan"]);
}
