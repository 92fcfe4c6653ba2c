//! The report as a tree of plain text.

use crate::base::check::not_needed;
use crate::base::fault::Effect;
use crate::base::permit::System;
use crate::base::wait::show;

use super::downtime::{Began, End, Outage};
use super::model::{ByHand, Report, Row, Word};
use super::track::between;

/// The report as plain text: a header, a line for each step with what belongs to it below, what is left to do.
pub fn text(report: &Report) -> String {
    let mut out = format!("{}: {}\n", title(report), report.standing.words());
    if let Some(comment) = &report.comment {
        out += &format!("  because: {comment}\n");
    }
    out += &format!("  {}, {}\n", when(report), show(report.elapsed()));
    out += &format!("  pvemig {} on {}: {}\n", report.tool, report.host, report.argv.join(" "));
    summary(report).iter().for_each(|(label, words)| out += &format!("  {label}: {words}\n"));
    out.push('\n');
    let width = report.steps.iter().map(|row| row.key.chars().count()).max().unwrap_or(0);
    for row in &report.steps {
        out += &format!("{} {:width$}  {}  [{}]\n", symbol(row), row.key, what(row), state(row));
        let lines = details(row);
        for (i, line) in lines.iter().enumerate() {
            let branch = if i + 1 == lines.len() { "└" } else { "├" };
            let trunk = if i + 1 == lines.len() { " " } else { "│" };
            // A text with lines of its own stays below its branch.
            out += &format!("  {branch} {}\n", line.replace('\n', &format!("\n  {trunk} ")));
        }
    }
    let (possible, sections): (Vec<_>, Vec<_>) =
        sections(report).into_iter().partition(|(label, _)| *label == POSSIBLE);
    if !(possible.is_empty() && sections.is_empty() && report.fold_back.is_empty()) {
        out.push('\n');
    }
    let section = |out: &mut String, (label, lines): (&str, &[String])| {
        *out += &format!("{label}:\n");
        lines.iter().for_each(|line| *out += &format!("  {line}\n"));
    };
    sections.into_iter().for_each(|part| section(&mut out, part));
    if !report.fold_back.is_empty() {
        out += &format!("{FOLD_BACK}:\n");
    }
    for fold in &report.fold_back {
        out += &format!("  {}\n", fold.owner);
        fold.why.iter().for_each(|why| out += &format!("    # {why}\n"));
        fold.lines.iter().for_each(|line| out += &format!("    {line}\n"));
    }
    possible.into_iter().for_each(|part| section(&mut out, part));
    out
}

/// The heads of the last parts.
pub(super) const FOLD_BACK: &str = "what others must say now, or their next apply undoes this";
pub(super) const POSSIBLE: &str = "possible now";

/// What one wants to know of a run before its steps: a label and a line each.
pub(super) fn summary(report: &Report) -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&'static str, String)> = Vec::new();
    let count = |words: &[Word]| report.steps.iter().filter(|row| words.contains(&row.word)).count();
    let there = report.steps.iter().filter(|row| by_a_person(row)).count();
    let (done, so) = (count(&[Word::Done]), count(&[Word::AlreadySo, Word::NotNeeded]) - there);
    let undone = count(&[Word::Undone]);
    let rest = report.steps.len() - done - there - so - undone;
    let counts = [(done, "done"), (there, THERE_NOW), (so, "already so"), (undone, "undone"), (rest, "not done")];
    let counts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if !counts.is_empty() {
        lines.push(("steps", counts.join(", ")));
    }
    lines.extend(report.outages.iter().map(|outage| ("down", down(report, outage))));
    lines.push(("changed", calls(report)));
    let routes = report.routes.iter().map(|(route, steps)| {
        let steps: Vec<_> = steps.iter().map(|key| number(key)).collect();
        format!("{route} ({})", steps.join(", "))
    });
    let routes: Vec<_> = routes.collect();
    if !routes.is_empty() {
        lines.push(("ways into guests", routes.join("; ")));
    }
    lines.extend(report.by_hand.iter().map(|by| ("by hand", hand(by))));
    for row in report.steps.iter().filter(|row| !(row.troubles.is_empty() && row.fell.is_empty())) {
        for trouble in &row.troubles {
            let first = trouble.error.first().map(String::as_str).unwrap_or_default().replace('\n', " ");
            lines.push(("trouble", format!("{}, {}: {first}", number(&row.key), clock(trouble.at))));
        }
        // What was asked for is no trouble.
        for fell in row.fell.iter().filter(|fell| !fell.as_asked) {
            lines.push((
                "trouble",
                format!("{}, {}: the hold was taken down by somebody", number(&row.key), clock(fell.at)),
            ));
        }
    }
    lines
}

fn down(report: &Report, outage: &Outage) -> String {
    let Outage { what, by, from, began, until, elapsed, end, .. } = outage;
    let fell = match (outage.fell, outage.as_asked) {
        (false, _) => "",
        (true, true) => "; it was switched on meanwhile, as the run had asked, so it may have been up for a part of it",
        (true, false) => "; somebody took the hold down meanwhile, so it may have been up for a part of it",
    };
    // Of another day than the report's head, a time alone would mislead.
    let clock = |at: jiff::Timestamp| dated(report.began, at);
    let by = number(by);
    if *end == End::Unsure {
        let failed = until.map(|at| format!(" at {}", clock(at))).unwrap_or_default();
        return format!("{what} maybe, from {}: {by} failed{failed} and had not seen it stop", clock(*from));
    }
    let unwritten = "(when it was ready again is not written)";
    let end = match end {
        End::Ready(closer) => format!("until {} found it at work", number(closer)),
        End::LetBack(closer) => format!("until {} let it back {unwritten}", number(closer)),
        End::GivenBack(_) => format!("until the undo gave it back {unwritten}"),
        End::Elsewhere(run) => format!("and run {run} went on with that hold: `pvemig report {run}` says until when"),
        End::SeenBy(run) => format!("until run {run} found it at work, which it may have been long before"),
        End::LetBackBy(run) => format!("until run {run} let it back {unwritten}"),
        // That nobody writes any more is no news of the workload.
        End::Down | End::Unsure => {
            format!("and not back by what is written (the last line is of {})", clock(report.last))
        }
    };
    let ended = until.map(|until| format!(" at {}", clock(until))).unwrap_or_default();
    let change = match began {
        Began::Here => format!("from the first change of {by}"),
        Began::InRun(run) => format!("from the first change of {by} in run {run}, whose hold this one took over"),
        Began::Before => {
            let took = clock(*from);
            return format!(
                "{what} before this run began (since when is not known; {by} took the hold over at {took}), {end}{ended}{fell}"
            );
        }
    };
    let comma = if end.starts_with("and") || matches!(began, Began::InRun(_)) { "," } else { "" };
    let how = format!("{change}{comma} {end}{fell}");
    match (until, elapsed) {
        (Some(until), Some(elapsed)) => {
            format!("{what} for {} ({} to {}), {how}", show(*elapsed), clock(*from), clock(*until))
        }
        (Some(until), None) if *began != Began::Before => {
            format!("{what} from {}, to {} at the latest, {how}", clock(*from), clock(*until))
        }
        _ => format!("{what} since {}, {how}", clock(*from)),
    }
}

fn hand(by: &ByHand) -> String {
    let there = match by.there {
        Some(there) => format!("there after {}", show(between(by.asked, there))),
        None if by.undone => "never seen there, and the run was undone".to_owned(),
        None => "not there by what is written".to_owned(),
    };
    format!("{}: {}: asked {}, {there}", number(&by.step), by.ask, clock(by.asked))
}

fn clock(at: jiff::Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// A time with its day, where that is not the day that the report's head names.
fn dated(began: jiff::Timestamp, at: jiff::Timestamp) -> String {
    let day = |at: jiff::Timestamp| at.strftime("%Y-%m-%d").to_string();
    if day(began) == day(at) { clock(at) } else { format!("{} {}", day(at), clock(at)) }
}

/// The number that a step is known by.
fn number(key: &str) -> String {
    let (id, instance) = key.split_once('@').map_or((key, None), |(id, instance)| (id, Some(instance)));
    let number = id.split('-').next().unwrap_or(id);
    instance.map_or_else(|| number.to_owned(), |instance| format!("{number}@{instance}"))
}

/// The parts behind the steps that have something in them.
pub(super) fn sections(report: &Report) -> Vec<(&'static str, &[String])> {
    let all: [(&'static str, &[String]); 5] = [
        ("consented to lose", &report.consents),
        ("gone for good", &report.destroyed),
        ("left as it is by the undo", &report.stays),
        ("holds still up", &report.holds_up),
        (POSSIBLE, &report.next),
    ];
    all.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

pub(super) fn title(report: &Report) -> String {
    let name = match (&report.migration, report.single) {
        (Some(migration), true) => format!("one step of {migration}"),
        (Some(migration), false) => migration.clone(),
        // Only what stands in for a journal that was lost has no step at all.
        (None, _) if report.steps.is_empty() => "a run whose journal was lost".into(),
        (None, _) => "one step".into(),
    };
    format!("{name} ({} v{}) on {}, run {}", report.blueprint, report.blueprint_version, report.site, report.run)
}

pub(super) fn when(report: &Report) -> String {
    report.began.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The changing calls by system.
fn calls(report: &Report) -> String {
    let total: u32 = report.calls.values().sum();
    if total == 0 && report.comment.is_some() {
        return "no changing call is in the journal".into();
    }
    if total == 0 {
        return "nothing".into();
    }
    let each: Vec<String> = report.calls.iter().map(|(at, n)| format!("{} {n}", system(*at))).collect();
    format!("{total} call{} ({})", if total == 1 { "" } else { "s" }, each.join(", "))
}

/// A step's title as what it is by now: a fact, or what was wanted.
pub(super) fn what(row: &Row) -> String {
    let title = &row.title;
    match row.word {
        Word::AlreadySo if row.holds_until.is_some() && !row.notes.is_empty() => row.notes.join("; "),
        Word::Done | Word::AlreadySo => title.clone(),
        Word::Undone if row.passed => title.clone(),
        // An undo that has nothing to do, as of a reboot, leaves it as it was.
        Word::Undone if !row.calls.iter().any(|call| call.undo) && row.asks.is_empty() => title.clone(),
        Word::Undone => format!("taken back: {title}"),
        Word::NotNeeded => not_needed(&row.notes).unwrap_or_else(|| row.notes.join("; ")),
        Word::Begun | Word::Failed | Word::Asked | Word::Pending | Word::Undoing | Word::UndoFailed => {
            format!("wanted: {title}")
        }
    }
}

/// The word of a step and how long it took.
pub(super) fn state(row: &Row) -> String {
    let word = match row.word {
        _ if row.passed => "passed, stays",
        _ if by_a_person(row) => THERE_NOW,
        word => word.words(),
    };
    match row.elapsed {
        Some(elapsed) => format!("{word}, {}", show(elapsed)),
        None => word.to_owned(),
    }
}

/// The word for what a person was asked for and did; the display says the same.
pub const THERE_NOW: &str = "there now";

/// Whether a step is so because a person was asked for it: that is not "already so".
fn by_a_person(row: &Row) -> bool {
    row.word == Word::AlreadySo && !row.asks.is_empty()
}

pub(super) fn symbol(row: &Row) -> char {
    match row.word {
        Word::Done => '✓',
        Word::AlreadySo if by_a_person(row) => '✓',
        Word::AlreadySo => '=',
        Word::NotNeeded => '·',
        Word::Begun | Word::Undoing => '…',
        Word::Failed | Word::UndoFailed => '✗',
        Word::Asked => '?',
        Word::Pending => '○',
        Word::Undone => '↶',
    }
}

/// Everything that belongs to a step, a line each.
pub(super) fn details(row: &Row) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    out.extend(row.asks.iter().map(|ask| format!("asked: {ask}")));
    out.extend(row.changes.iter().map(ToString::to_string));
    for call in &row.calls {
        let undo = if call.undo { "undo, " } else { "" };
        let left = call.left.as_ref().map(|(kind, value)| format!(" -> {kind} {value}")).unwrap_or_default();
        out.push(format!("call {} ({undo}{}): {}{left}", call.number, system(call.system), call.text));
    }
    out.extend(row.files.iter().map(|file| format!("run file: {file}")));
    for fell in &row.fell {
        let changes = fell.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let who = if fell.notes.is_empty() { String::new() } else { format!(" ({})", fell.notes.join("; ")) };
        let asked = if fell.as_asked { "as the run had asked, " } else { "" };
        out.push(format!("{asked}this hold did not stand any more: {changes}{who}"));
    }
    // What is not needed, and a hold that is not put up, says why in its own line.
    let hold = row.word == Word::NotNeeded || row.holds_until.is_some() && row.word == Word::AlreadySo;
    out.extend(row.notes.iter().filter(|_| !hold).map(|note| format!("note: {note}")));
    for (i, trouble) in row.troubles.iter().enumerate() {
        // A failure that the run has got over is history.
        let stands = i + 1 == row.troubles.len() && matches!(row.word, Word::Failed | Word::UndoFailed);
        let label = if stands { "error" } else { "failed before" };
        out.push(format!("{label}: {}", trouble.error.join(": ")));
        if stands {
            out.extend(trouble.effect.map(|effect| effect_words(effect).to_owned()));
            out.extend(trouble.help.iter().map(|help| format!("help: {help}")));
        }
    }
    out
}

fn effect_words(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "nothing was changed by it",
        Effect::Maybe => "it may have changed something; resume and undo look first",
        Effect::Partial => "some of it may have been changed; resume and undo look first",
    }
}

/// A system by the name that people know it by.
pub fn system(system: System) -> &'static str {
    match system {
        System::Proxmox => "proxmox",
        System::Kubernetes => "kubernetes",
        System::Ssh => "ssh",
        System::Checkout => "checkout",
        System::Talos => "talos",
        System::Local => "this machine",
        System::Toy => "toy",
    }
}
