//! Words laid out for the width of a terminal, and commands that can be copied.

use std::collections::BTreeSet;

use console::measure_text_width;

/// Breaks at blanks, never inside back-quotes unless what they hold is longer than a line, and in words only where they
/// are longer than a line.
pub(super) fn wrap(words: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in pieces(words, room) {
        let mut word = piece.as_str();
        let Some(last) = lines.last_mut() else { break };
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > room {
            lines.push(String::new());
        } else if !last.is_empty() {
            last.push(' ');
        }
        while let Some((at, _)) = word.char_indices().nth(room) {
            let (head, tail) = word.split_at(at);
            lines.last_mut().into_iter().for_each(|last| last.push_str(head));
            lines.push(String::new());
            word = tail;
        }
        lines.last_mut().into_iter().for_each(|last| last.push_str(word));
    }
    lines
}

/// Words, those between back-quotes together.
fn pieces(words: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    let mut ticks = 0;
    for word in words.split_whitespace() {
        ticks += word.matches('`').count();
        open.push(word);
        if ticks % 2 == 0 {
            let whole = open.join(" ");
            if whole.chars().count() <= room {
                pieces.push(whole);
            } else {
                pieces.extend(open.iter().map(ToString::to_string));
            }
            open.clear();
        }
    }
    pieces.extend(open.into_iter().map(str::to_owned));
    pieces
}

/// A text behind its head, at most `width` wide. What follows the first line hangs `hang` columns in; a text's own
/// further lines keep their own indent besides.
pub(super) fn lay(head: &str, text: &str, hang: usize, width: usize) -> Vec<String> {
    let mut laid = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let words = line.trim_start();
        if is_drawn(words) && (at > 0 || head.trim().is_empty()) {
            let room = width.saturating_sub(measure_text_width(words));
            laid.push(format!("{}{words}", " ".repeat(hang.min(room))));
            continue;
        }
        let own = if at == 0 { 0 } else { line.chars().count() - words.chars().count() };
        // The first words stand behind the head, further lines of the text below them.
        let begin = if at == 0 { measure_text_width(head) } else { hang + own };
        let rest = if at == 0 { hang } else { begin + 2 };
        let room = width.saturating_sub(begin.max(rest)).max(20);
        for (n, part) in wrap(words, room).into_iter().enumerate() {
            laid.push(match (at, n) {
                (0, 0) => format!("{head}{part}"),
                (_, 0) => format!("{}{part}", " ".repeat(begin)),
                _ => format!("{}{part}", " ".repeat(rest)),
            });
        }
    }
    if laid.is_empty() {
        laid.push(head.trim_end().to_owned());
    }
    laid
}

/// A row of a table, which no blank may be taken out of.
pub(super) fn is_drawn(words: &str) -> bool {
    words.starts_with("+--") || words.starts_with("| ") && words.ends_with('|')
}

/// So many parts of a reason are shown at a time; of more only the number.
const PARTS: usize = 2;

/// What a reason has that was not said yet, of many parts the first; None: nothing. What is counted has had its turn: it
/// would be a wall of what changes every second.
pub(super) fn fresh(said: &mut BTreeSet<String>, why: &str, all: bool) -> Option<String> {
    let parts: Vec<&str> = why.split("; ").filter(|part| said.insert((*part).to_owned())).collect();
    let (first, more) = parts.split_at(if all { parts.len() } else { parts.len().min(PARTS) });
    match (first, more.len()) {
        ([], _) => None,
        (first, 0) => Some(first.join("; ")),
        (first, more) => Some(format!("{}; and {more} more (`-v` has all)", first.join("; "))),
    }
}

/// A text in one line: its own lines behind one another, and nothing that moves a terminal's cursor.
pub(super) fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").replace(char::is_control, " ")
}

/// The verbs that meet a site.
const VERBS: [&str; 13] = [
    "run",
    "plan",
    "step",
    "resume",
    "undo",
    "abandon",
    "status",
    "report",
    "survey",
    "etcd snapshot",
    "explain",
    "privileges",
    "site check",
];

/// A text with the options of this command line in every command that it names, so that a copied one meets the same
/// site.
pub(super) fn with_options(text: &str, options: &str) -> String {
    let mut text = text.to_owned();
    if !options.is_empty() {
        for verb in VERBS {
            text = text.replace(&format!("pvemig {verb}"), &format!("pvemig{options} {verb}"));
        }
    }
    text
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_stays_as_it_is_drawn_and_in_the_width() {
        let table = "as it is\n+----+----+\n| a  |  b |\n+----+----+";
        assert_eq!(lay("  ", table, 4, 40), ["  as it is", "    +----+----+", "    | a  |  b |", "    +----+----+"]);
        // Where it would not fit it goes to the left, all rows alike.
        assert_eq!(lay("  ", table, 4, 13)[1..], ["  +----+----+", "  | a  |  b |", "  +----+----+"]);
        assert_eq!(lay("      ", "a | b  c |", 6, 40), ["      a | b c |"]);
    }

    #[test]
    fn of_a_reason_only_what_is_new_is_said_and_of_much_the_first() {
        let mut said = BTreeSet::new();
        let mut say = |why: &str, all: bool| fresh(&mut said, why, all);
        assert_eq!(say("a; b; c; d", false).as_deref(), Some("a; b; and 2 more (`-v` has all)"));
        // What was counted is not said later, and neither is what is left.
        for why in ["a; b; c; d", "c; d", "d"] {
            assert_eq!(say(why, false), None, "{why}");
        }
        assert_eq!(say("d; e", false).as_deref(), Some("e"));
        assert_eq!(say("f; g; h; a", true).as_deref(), Some("f; g; h"));
        assert_eq!(say("", false).as_deref(), Some(""));
    }

    #[test]
    fn words_are_kept_whole_where_they_fit_and_broken_where_they_do_not() {
        assert_eq!(wrap("vm 108 gets it", 7), ["vm 108", "gets it"]);
        assert_eq!(wrap("~ a/very/long/path x", 6), ["~", "a/very", "/long/", "path x"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("any length", usize::MAX), ["any length"]);
    }

    #[test]
    fn commands_are_not_broken_where_a_line_can_hold_them() {
        let text = "then `pvemig undo 7k2` (or `pvemig status`) again";
        assert_eq!(wrap(text, 20), ["then", "`pvemig undo 7k2`", "(or `pvemig status`)", "again"]);
        assert_eq!(wrap("run `a b c d e f` now", 9), ["run `a b", "c d e f`", "now"]);
        assert_eq!(wrap("a ` that is not closed", 8), ["a ` that", "is not", "closed"]);
    }

    #[test]
    fn further_lines_keep_their_indent() {
        let text = "vm 108: no way in\n  ssh: refused by everybody\n  agent: no";
        let wide = ["  … 06 vm 108: no way in", "         ssh: refused by everybody", "         agent: no"];
        assert_eq!(lay("  … 06 ", text, 7, usize::MAX), wide);
        let narrow =
            ["  … 06 vm 108: no way in", "         ssh: refused by", "           everybody", "         agent: no"];
        assert_eq!(lay("  … 06 ", text, 7, 31), narrow);
        assert_eq!(lay("  x ", "", 4, 80), ["  x"]);
        assert_eq!(one_line(text), "vm 108: no way in; ssh: refused by everybody; agent: no");
        assert_eq!(one_line("a\tb\x1b[2K\r\n"), "a b [2K");
    }

    #[test]
    fn commands_meet_the_site_that_was_named() {
        let text = "`pvemig resume 7k2` goes on; pvemig itself does not; `pvemig site check` looks";
        assert_eq!(with_options(text, ""), text);
        let named = with_options(text, " --site a.yaml");
        assert_eq!(
            named,
            "`pvemig --site a.yaml resume 7k2` goes on; pvemig itself does not; `pvemig --site a.yaml site check` looks"
        );
        assert_eq!(with_options(&named, " --site a.yaml"), named);
        assert_eq!(
            (quoted("/a/b-1.yaml").as_str(), quoted("it's").as_str(), quoted("").as_str()),
            ("/a/b-1.yaml", r"'it'\''s'", "''")
        );
    }
}
