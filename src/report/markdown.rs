//! The report as Markdown, for a ticket or a wiki.

use super::model::Report;
use super::text::{calls, details, sections, state, symbol, title, what, when};
use crate::base::wait::show;

/// The report as Markdown: a table of the steps, then what belongs to each.
pub fn markdown(report: &Report) -> String {
    let mut out = format!("# {}: {}\n\n", plain(&title(report)), report.standing.words());
    if let Some(comment) = &report.comment {
        out += &format!("> {}\n\n", plain(comment));
    }
    out += &format!("- began {}, took {}\n", when(report), show(report.elapsed()));
    out += &format!("- pvemig {} on {}: {}\n", report.tool, plain(&report.host), code(&report.argv.join(" ")));
    out += &format!("- {}\n\n", calls(report));
    out += "| | step | what | state |\n|---|---|---|---|\n";
    for row in &report.steps {
        let cell = |text: &str| plain(text).replace('|', "\\|");
        out += &format!("| {} | {} | {} | {} |\n", symbol(row.word), code(&row.key), cell(&what(row)), state(row));
    }
    for row in report.steps.iter().filter(|row| !details(row).is_empty()) {
        out += &format!("\n## {}\n\n", row.key);
        details(row).iter().for_each(|line| out += &format!("- {}\n", code(line)));
    }
    for (label, lines) in sections(report) {
        let mut label = label.to_owned();
        label.get_mut(..1).into_iter().for_each(str::make_ascii_uppercase);
        out += &format!("\n## {label}\n\n");
        lines.iter().for_each(|line| out += &format!("- {}\n", code(line)));
    }
    out
}

/// Text that cannot start markup of its own.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '_' | '`' | '<' | '[' | '\\') {
            out.push('\\');
        }
        out.push(if c == '\n' { ' ' } else { c });
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
