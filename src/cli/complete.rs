//! What may stand at the cursor: the shells' scripts ask for it. Nothing is said on stderr, nothing is written, no
//! system is asked; where the site file or the journals cannot be read, the candidates that need them are left out.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::blueprint;
use crate::engine::state::{Phase, RunState, StepState};
use crate::engine::store::RunRead;
use crate::lab;
use crate::lint;

use super::args::{Cli, CompleteArgs, Global};
use super::exit::Exit;
use super::given::glance;
use super::out::Out;
use super::plan::number;
use super::session::Session;
use super::shell::variable;

/// What stands in place of candidates where the shell's own of files are wanted.
const FILES: &str = ":files";

/// A word, and a few words about it.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    value: String,
    about: String,
}

fn candidate(value: impl Into<String>, about: impl Into<String>) -> Candidate {
    Candidate { value: value.into(), about: about.into() }
}

/// Prints the candidates for the last of the words, a line each: the word, a tab, what it is.
pub(super) fn complete(args: &CompleteArgs, out: &Out) -> anyhow::Result<Exit> {
    let mut lines = String::new();
    match candidates(&args.words) {
        None => lines.push_str(&format!("{FILES}\n")),
        Some(candidates) => {
            for Candidate { value, about } in candidates {
                let about = about.lines().next().unwrap_or_default();
                lines.push_str(&format!("{value}\t{about}\n"));
            }
        }
    }
    out.data(&lines)?;
    Ok(Exit::Done)
}

/// Where the cursor is.
struct Cursor {
    verb: Command,
    /// The path of verbs, `lab move`.
    path: Vec<String>,
    /// The option whose value the cursor is at.
    option: Option<Arg>,
    /// The positional words before it.
    positional: Vec<String>,
    site: Option<PathBuf>,
    state: Option<PathBuf>,
}

/// None: files.
fn candidates(words: &[String]) -> Option<Vec<Candidate>> {
    let mut root = Cli::command();
    root.build();
    let (current, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let cursor = walk(root, before);
    // bash takes `--format=x` apart at the `=`, the others do not.
    let (option, prefix, typed) = match (&cursor.option, current.split_once('=')) {
        (Some(option), _) => (Some(option.clone()), String::new(), current.trim_start_matches('=')),
        (None, Some((name, typed))) if name.starts_with("--") => {
            (named(&cursor.verb, name).cloned(), format!("{name}="), typed)
        }
        _ => (None, String::new(), current),
    };
    let all = if let Some(option) = option {
        values(&cursor, &option)?
    } else if current.starts_with('-') {
        options(&cursor.verb)
    } else {
        let verbs: Vec<_> = cursor.verb.get_subcommands().filter(|verb| !verb.is_hide_set()).map(about_verb).collect();
        // The last one may stand several times.
        let repeated =
            || cursor.verb.get_positionals().last().filter(|last| matches!(last.get_action(), ArgAction::Append));
        match cursor.verb.get_positionals().nth(cursor.positional.len()).or_else(repeated) {
            Some(argument) if verbs.is_empty() => values(&cursor, &argument.clone())?,
            _ => verbs,
        }
    };
    let fits = all.into_iter().filter(|candidate| candidate.value.starts_with(typed));
    Some(fits.map(|c| candidate(format!("{prefix}{}", c.value), c.about)).collect())
}

/// Reads the words before the cursor as the command line's parser would, as far as that takes.
fn walk(root: Command, words: &[String]) -> Cursor {
    let mut cursor =
        Cursor { verb: root, path: Vec::new(), option: None, positional: Vec::new(), site: None, state: None };
    for word in words {
        if word == "=" {
            continue;
        }
        if let Some(option) = cursor.option.take() {
            cursor.note(&option, word);
            continue;
        }
        if word.starts_with('-') && word != "-" {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
            let Some(option) = named(&cursor.verb, name).filter(|option| takes_value(option)).cloned() else {
                continue;
            };
            match value {
                Some(value) => cursor.note(&option, value),
                // Its value is behind `=` or not there at all.
                None if option.is_require_equals_set() => {}
                None => cursor.option = Some(option),
            }
            continue;
        }
        match cursor.verb.find_subcommand(word).cloned() {
            Some(verb) => {
                cursor.path.push(verb.get_name().to_owned());
                cursor.verb = verb;
            }
            None => cursor.positional.push(word.clone()),
        }
    }
    cursor
}

impl Cursor {
    fn note(&mut self, option: &Arg, value: &str) {
        match option.get_id().as_str() {
            "site" => self.site = Some(value.into()),
            "state" => self.state = Some(value.into()),
            _ => {}
        }
    }
}

fn takes_value(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The option of a name as it is typed.
fn named<'c>(verb: &'c Command, name: &str) -> Option<&'c Arg> {
    let long = name.strip_prefix("--");
    let short = name.strip_prefix('-').filter(|_| long.is_none()).and_then(|name| name.chars().next());
    verb.get_arguments()
        .find(|arg| (long.is_some() && arg.get_long() == long) || (short.is_some() && arg.get_short() == short))
}

fn options(verb: &Command) -> Vec<Candidate> {
    let shown = verb.get_arguments().filter(|arg| !arg.is_hide_set());
    let mut all: Vec<_> = shown
        .filter_map(|arg| {
            let equals = if arg.is_require_equals_set()
                && takes_value(arg)
                && arg.get_num_args().is_some_and(|n| n.min_values() > 0)
            {
                "="
            } else {
                ""
            };
            let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
            Some(candidate(format!("--{}{equals}", arg.get_long()?), about))
        })
        .collect();
    all.sort_by(|a, b| a.value.cmp(&b.value));
    all
}

fn about_verb(verb: &Command) -> Candidate {
    candidate(verb.get_name(), verb.get_about().map(ToString::to_string).unwrap_or_default())
}

/// The values of an option or a positional argument; None: files.
fn values(cursor: &Cursor, argument: &Arg) -> Option<Vec<Candidate>> {
    let possible = argument.get_possible_values();
    if !possible.is_empty() && takes_value(argument) {
        let about =
            |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
        return Some(possible.iter().map(|value| candidate(value.get_name(), about(value))).collect());
    }
    Some(match argument.get_id().as_str() {
        "site" | "state" | "dir" | "recipients_file" => return None,
        "to" if cursor.path.first().is_some_and(|verb| verb == "etcd") => return None,
        "talos" => site(cursor, |site| site.talos.keys().map(|name| candidate(name, "a Talos cluster")).collect()),
        "migration" => site(cursor, |site| {
            site.migrations.iter().map(|(name, m)| candidate(name, format!("a migration of {}", m.blueprint))).collect()
        }),
        "step" => steps(),
        "what" => steps().into_iter().chain(findings()).chain(rules()).collect(),
        "run" => runs(cursor),
        "past" => passed(cursor),
        "blueprint" => blueprint::ALL.iter().map(|b| candidate(b.name, b.summary)).collect(),
        "world" => lab::names().into_iter().map(|(name, about)| candidate(name, about)).collect(),
        "device" => site(cursor, |site| site.device_names.iter().map(|name| candidate(name, "a device")).collect()),
        "node" => site(cursor, |site| {
            site.nodes.iter().map(|(name, n)| candidate(&n.node_name, format!("node {name}"))).collect()
        }),
        "nodes" => site(cursor, |site| {
            let vms = site.node_names.iter().map(|name| candidate(name, "a VM"));
            vms.chain(site.talos_node_names.iter().map(|name| candidate(name, "a Talos node"))).collect()
        }),
        "vmid" | "from" => site(cursor, |site| {
            site.nodes.iter().map(|(name, n)| candidate(n.vmid.to_string(), format!("node {name}"))).collect()
        }),
        "destroy" => destroyed(cursor),
        _ => Vec::new(),
    })
}

fn steps() -> Vec<Candidate> {
    let rows = blueprint::ALL.iter().flat_map(|b| b.rows.iter().map(move |row| (b, row)));
    rows.map(|(b, row)| candidate(row.id, format!("step {} of {}", number(row.id), b.name))).collect()
}

fn findings() -> impl Iterator<Item = Candidate> {
    blueprint::ALL.iter().flat_map(|b| b.findings).map(|known| candidate(known.name, known.means))
}

fn rules() -> impl Iterator<Item = Candidate> {
    let all = candidate(super::explain::LINTS, "every rule of the survey");
    std::iter::once(all).chain(lint::rules().map(|rule| candidate(rule.number, rule.title)))
}

fn global(cursor: &Cursor) -> Global {
    Global {
        site: cursor.site.clone().or_else(|| variable("PVEMIG_SITE").map(PathBuf::from)),
        state: cursor.state.clone().or_else(|| variable("PVEMIG_STATE").map(PathBuf::from)),
    }
}

fn site(cursor: &Cursor, of: impl FnOnce(&crate::site::Site) -> Vec<Candidate>) -> Vec<Candidate> {
    glance(&global(cursor)).map(|(site, _)| of(&site)).unwrap_or_default()
}

/// The runs that the verb can do something with, newest first.
fn runs(cursor: &Cursor) -> Vec<Candidate> {
    let verb = cursor.path.last().map(String::as_str).unwrap_or_default();
    let Some((_, Some(store))) = glance(&global(cursor)) else { return Vec::new() };
    let Ok((runs, bad)) = store.every_run() else { return Vec::new() };
    let fits = |run: &&RunRead| fits(verb, &run.state);
    let about = |run: &RunRead| {
        let since = run.state.since.strftime("%Y-%m-%d %H:%M UTC");
        format!("{}, {}, {since}", Session::called(run), super::status::word(run))
    };
    let mut all: Vec<_> = runs.iter().rev().filter(fits).map(|run| candidate(&run.id, about(run))).collect();
    // What cannot be read can be looked at and given up.
    if matches!(verb, "report" | "abandon") {
        all.extend(bad.iter().map(|run| candidate(&run.id, "damaged")));
    }
    all
}

/// What the undo of the run that was named may pass: its steps, and the runs that came after it.
fn passed(cursor: &Cursor) -> Vec<Candidate> {
    let Some((_, Some(store))) = glance(&global(cursor)) else { return Vec::new() };
    let Ok((runs, _)) = store.every_run() else { return Vec::new() };
    let mut undoable = runs.iter().rev().filter(|run| fits("undo", &run.state));
    let named = cursor.positional.first();
    let Some(run) = undoable.find(|run| named.is_none_or(|id| run.id.starts_with(id.as_str()))) else {
        return Vec::new();
    };
    let plan = run.state.opened.plan.iter();
    let steps = plan.map(|p| candidate(p.key.to_string(), format!("step {} of run {}", number(p.key.id()), run.id)));
    let later = runs.iter().rev().filter(|other| other.state.since > run.state.since);
    steps.chain(later.map(|other| candidate(&other.id, format!("{}, came after", Session::called(other))))).collect()
}

fn fits(verb: &str, state: &RunState) -> bool {
    let open = matches!(state.phase, Phase::Forward | Phase::Undoing | Phase::Stuck);
    match verb {
        "resume" => state.phase == Phase::Forward,
        "undo" => !matches!(state.phase, Phase::Undone | Phase::Abandoned) && state.steps.values().any(StepState::owes),
        "abandon" => open,
        _ => true,
    }
}

/// What an undo of one of the runs would lose.
fn destroyed(cursor: &Cursor) -> Vec<Candidate> {
    let Some((_, Some(store))) = glance(&global(cursor)) else { return Vec::new() };
    let Ok((runs, _)) = store.every_run() else { return Vec::new() };
    let mut all: Vec<Candidate> = Vec::new();
    for run in runs.iter().rev().filter(|run| fits("undo", &run.state)) {
        let Some(blueprint) = blueprint::named(&run.state.opened.blueprint) else { continue };
        let rebuilt = run.state.opened.plan.iter().filter_map(|p| blueprint.rebuild(p.key.id(), &p.step).ok());
        let steps: Vec<_> = rebuilt.collect();
        for thing in super::work::would_destroy(&steps, &run.state).unwrap_or_default() {
            if !all.iter().any(|known| known.value == thing.0) {
                all.push(candidate(thing.0, format!("lost by an undo of run {}", run.id)));
            }
        }
    }
    all
}

/// The script of a shell, or None where clap's own serves.
pub(super) fn script(shell: clap_complete::Shell) -> Option<&'static str> {
    match shell {
        clap_complete::Shell::Bash => Some(include_str!("complete/pvemig.bash")),
        clap_complete::Shell::Zsh => Some(include_str!("complete/pvemig.zsh")),
        clap_complete::Shell::Fish => Some(include_str!("complete/pvemig.fish")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Vec<String>> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        Some(candidates(&words)?.into_iter().map(|c| c.value).collect())
    }

    #[test]
    fn verbs_options_and_values_by_where_the_cursor_is() {
        let cases: &[(&str, &[&str])] = &[
            ("re", &["resume", "report", "rehearse"]),
            ("lab m", &["move"]),
            ("explain claim-on", &["claim-on-old-node"]),
            ("explain 09", &["09-label-node", "09a-update-manifests", "09-uncordon", "09-validate"]),
            ("explain L3", &["L30", "L31", "L32", "L33", "L34", "L35", "L36", "L37", "L38", "L39"]),
            ("explain li", &["lints"]),
            ("step 04-add-usb --att", &["--attach"]),
            ("step 04-add-usb --attach ", &["id", "port", "mapping"]),
            ("report --format=m", &["--format=markdown"]),
            ("report --format = m", &["markdown"]),
            (
                "rehearse ",
                &["usb-move", "node-reboot-test", "cluster-build", "node-replace", "quorum-recover", "nvme-move"],
            ),
            ("rehearse usb-move --world usb-move-o", &["usb-move-old"]),
            ("completions f", &["fish"]),
            ("--json pl", &["plan"]),
            ("-v sta", &["status"]),
            ("sur", &["survey"]),
            ("survey --wat", &["--watch"]),
            ("etcd sn", &["snapshot"]),
            ("etcd snapshot --rec", &["--recipient", "--recipients-file"]),
            (
                "etcd snapshot --schedule=",
                &["--schedule=all", "--schedule=service", "--schedule=timer", "--schedule=cronjob"],
            ),
            ("lab move coral --to ", &[]),
            ("run x --wait res", &[]),
            ("__", &[]),
        ];
        for (line, wanted) in cases {
            assert_eq!(of(line).unwrap(), *wanted, "{line}");
        }
        assert_eq!(cases.len(), 23);
        assert!(of("").unwrap().contains(&"undo".to_owned()));
        for files in ["--site ", "lab up --dir ", "etcd snapshot --to ", "etcd snapshot --recipients-file "] {
            assert_eq!(of(files), None, "{files}");
        }
    }
}
