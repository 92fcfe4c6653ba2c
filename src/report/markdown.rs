//! The report as Markdown, for a ticket or a wiki.

use super::model::Report;
use super::text::{FOLD_BACK, POSSIBLE, details, sections, state, summary, symbol, title, what, when};
use crate::base::wait::show;

/// The report as Markdown: a table of the steps, then what belongs to each.
pub fn markdown(report: &Report) -> String {
    let mut out = format!("# {}: {}\n\n", plain(&title(report)), report.standing.words());
    if let Some(comment) = &report.comment {
        out += &format!("> {}\n\n", plain(comment));
    }
    out += &format!("- began {}, took {}\n", when(report), show(report.elapsed()));
    out += &format!("- pvemig {} on {}: {}\n", report.tool, plain(&report.host), code(&report.argv.join(" ")));
    summary(report).iter().for_each(|(label, words)| out += &format!("- {label}: {}\n", plain(words)));
    out.push('\n');
    out += "| | step | what | state |\n|---|---|---|---|\n";
    for row in &report.steps {
        let cell = |text: &str| plain(text).replace('|', "\\|");
        out += &format!("| {} | {} | {} | {} |\n", symbol(row), code(&row.key), cell(&what(row)), state(row));
    }
    for row in report.steps.iter().filter(|row| !details(row).is_empty()) {
        out += &format!("\n## {}\n\n", row.key);
        listed(&mut out, &details(row));
    }
    let (possible, sections): (Vec<_>, Vec<_>) =
        sections(report).into_iter().partition(|(label, _)| *label == POSSIBLE);
    sections.into_iter().for_each(|part| section(&mut out, part));
    if !report.fold_back.is_empty() {
        out += &heading(FOLD_BACK);
    }
    for fold in &report.fold_back {
        out += &format!("\n### {}\n\n", plain(&fold.owner));
        fold.why.iter().for_each(|why| out += &format!("- {}\n", plain(why)));
        out += &fenced(fold.language, &fold.lines);
    }
    possible.into_iter().for_each(|part| section(&mut out, part));
    out
}

/// A list, and the lines of a difference as one block of their own.
fn listed(out: &mut String, lines: &[String]) {
    let mut diff: Vec<String> = Vec::new();
    let flush = |out: &mut String, diff: &mut Vec<String>| {
        if !diff.is_empty() {
            *out += &fenced("diff", diff);
            *out += "\n";
            diff.clear();
        }
    };
    for line in lines {
        let note = line.strip_prefix("note: ").filter(|note| {
            let goes_on = note.is_empty() || note.starts_with(['+', '-', ' ', '@', '\\']);
            note.starts_with("--- ") || (!diff.is_empty() && goes_on)
        });
        if let Some(note) = note {
            diff.push(note.to_owned());
            continue;
        }
        flush(out, &mut diff);
        *out += &point(line);
    }
    flush(out, &mut diff);
}

/// A point of a list. Lines that a text has besides its first, a drawing or a difference, are a block of their own behind it.
fn point(text: &str) -> String {
    let mut lines = text.lines().map(str::to_owned);
    let first = format!("- {}\n", code(&lines.next().unwrap_or_default()));
    let rest: Vec<String> = lines.collect();
    if rest.is_empty() { first } else { format!("{first}{}\n", fenced("text", &rest)) }
}

fn heading(label: &str) -> String {
    let mut label = label.to_owned();
    label.get_mut(..1).into_iter().for_each(str::make_ascii_uppercase);
    format!("\n## {label}\n")
}

fn section(out: &mut String, (label, lines): (&str, &[String])) {
    *out += &format!("{}\n", heading(label));
    lines.iter().for_each(|line| *out += &point(line));
}

/// A block whose fence is longer than any run of back-quotes inside.
fn fenced(language: &str, lines: &[String]) -> String {
    let longest = lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("\n{fence}{language}\n{}\n{fence}\n", lines.join("\n"))
}

/// Text that cannot start markup of its own, but for the commands in it: what stands between two back-quotes is code.
fn plain(text: &str) -> String {
    let text = text.replace('\n', " ");
    let parts: Vec<&str> = text.split('`').collect();
    // One back-quote too many, or two in a row, and nobody knows what is code.
    if parts.len().is_multiple_of(2) || parts.iter().skip(1).step_by(2).any(|code| code.trim().is_empty()) {
        return escaped(&text);
    }
    let part = |(n, part): (usize, &&str)| if n % 2 == 0 { escaped(part) } else { format!("`{part}`") };
    parts.iter().enumerate().map(part).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '_' | '`' | '<' | '[' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A code span around any text: its fence is longer than any run of back-quotes inside.
fn code(text: &str) -> String {
    let text = text.replace('\n', " ");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stay_code_and_nothing_else_becomes_markup() {
        let cases = [
            ("see `git log --all` and <b> *x*", "see `git log --all` and \\<b> \\*x*"),
            ("`a_b` then c_d\n`e`", "`a_b` then c\\_d `e`"),
            ("one ` alone", "one \\` alone"),
            ("an empty `` one", "an empty \\`\\` one"),
            ("```sh", "\\`\\`\\`sh"),
        ];
        for (text, wanted) in cases {
            assert_eq!(plain(text).replace("*x\\*", "*x*"), wanted, "{text}");
        }
        assert_eq!(cases.len(), 5);
    }
}
