//! The report as a tree of plain text.

use crate::base::fault::Effect;
use crate::base::permit::System;
use crate::base::wait::show;

use super::model::{Report, Row, Word};

/// The report as plain text: a header, a line for each step with what belongs to it below, what is left to do.
pub fn text(report: &Report) -> String {
    let mut out = format!("{}: {}\n", title(report), report.standing.words());
    if let Some(comment) = &report.comment {
        out += &format!("  because: {comment}\n");
    }
    out += &format!("  {}, {}\n", when(report), show(report.elapsed()));
    out += &format!("  pvemig {} on {}: {}\n\n", report.tool, report.host, report.argv.join(" "));
    let width = report.steps.iter().map(|row| row.key.chars().count()).max().unwrap_or(0);
    for row in &report.steps {
        out += &format!("{} {:width$}  {}  [{}]\n", symbol(row.word), row.key, what(row), state(row));
        let lines = details(row);
        for (i, line) in lines.iter().enumerate() {
            let branch = if i + 1 == lines.len() { "└" } else { "├" };
            let trunk = if i + 1 == lines.len() { " " } else { "│" };
            // A text with lines of its own stays below its branch.
            out += &format!("  {branch} {}\n", line.replace('\n', &format!("\n  {trunk} ")));
        }
    }
    out.push('\n');
    out += &format!("{}\n", calls(report));
    for (label, lines) in sections(report) {
        out += &format!("{label}:\n");
        lines.iter().for_each(|line| out += &format!("  {line}\n"));
    }
    out
}

/// The parts behind the steps that have something in them.
pub(super) fn sections(report: &Report) -> Vec<(&'static str, &[String])> {
    let all: [(&'static str, &[String]); 5] = [
        ("consented to lose", &report.consents),
        ("gone for good", &report.destroyed),
        ("left as it is by the undo", &report.stays),
        ("holds still up", &report.holds_up),
        ("possible now", &report.next),
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

pub(super) fn calls(report: &Report) -> String {
    let total: u32 = report.calls.values().sum();
    if total == 0 && report.comment.is_some() {
        return "no changing call is in the journal".into();
    }
    if total == 0 {
        return "nothing was changed".into();
    }
    let each: Vec<String> = report.calls.iter().map(|(system, n)| format!("{} {n}", name(*system))).collect();
    format!("{total} changing call{}: {}", if total == 1 { "" } else { "s" }, each.join(", "))
}

/// A step's title as what it is by now: a fact, or what was wanted.
pub(super) fn what(row: &Row) -> String {
    let title = &row.title;
    match row.word {
        Word::AlreadySo if row.holds_until.is_some() && !row.notes.is_empty() => row.notes.join("; "),
        Word::Done | Word::AlreadySo => title.clone(),
        Word::Undone if row.passed => title.clone(),
        Word::Undone => format!("no more: {title}"),
        Word::NotNeeded => {
            let why = row.notes.join("; ");
            why.strip_prefix("not needed: ").unwrap_or(&why).to_owned()
        }
        Word::Begun | Word::Failed | Word::Asked | Word::Pending | Word::Undoing | Word::UndoFailed => {
            format!("wanted: {title}")
        }
    }
}

/// The word of a step and how long it took.
pub(super) fn state(row: &Row) -> String {
    let word = if row.passed { "passed, stays" } else { row.word.words() };
    match row.elapsed {
        Some(elapsed) => format!("{word}, {}", show(elapsed)),
        None => word.to_owned(),
    }
}

pub(super) fn symbol(word: Word) -> char {
    match word {
        Word::Done => '✓',
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
        out.push(format!("call {} ({undo}{}): {}{left}", call.number, name(call.system), call.text));
    }
    out.extend(row.files.iter().map(|file| format!("run file: {file}")));
    for fell in &row.fell {
        let changes = fell.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let who = if fell.notes.is_empty() { String::new() } else { format!(" ({})", fell.notes.join("; ")) };
        out.push(format!("this hold did not stand any more: {changes}{who}"));
    }
    // A hold that is not put up says why in its own line.
    let hold = row.holds_until.is_some() && matches!(row.word, Word::AlreadySo | Word::NotNeeded);
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

fn name(system: System) -> &'static str {
    match system {
        System::Proxmox => "proxmox",
        System::Kubernetes => "kubernetes",
        System::Ssh => "ssh",
        System::Checkout => "checkout",
        System::Talos => "talos",
        System::Toy => "toy",
    }
}
