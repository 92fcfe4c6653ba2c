//! The text of a site file with the place of every key in it, and problems shown at their place.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser, Span};

/// A place in the file; line and column count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters to underline; at least 1, never beyond the end of the line.
    pub length: usize,
}

/// Something wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a key path: `nodes.k3s-vm.vmid`, `proxmox.home.urls[0]`, `data[config.yml]`. Empty: the whole file.
    pub path: String,
    /// What is wrong. Never a secret.
    pub text: String,
    /// What to do about it.
    pub help: String,
    /// Point to the key instead of its value.
    pub at_key: bool,
    /// The place, where it is known otherwise than by the path (syntax errors).
    pub at: Option<Location>,
}

impl Problem {
    /// A problem with the value at a key path.
    pub fn new(path: impl Into<String>, text: impl Into<String>, help: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), help: help.into(), at_key: false, at: None }
    }

    /// Points to the key instead of its value.
    #[must_use]
    pub fn at_key(mut self) -> Self {
        self.at_key = true;
        self
    }
}

/// The whole of a file's problems.
#[derive(Debug, Clone)]
pub struct Invalid {
    /// All of them, in the order of the file.
    pub problems: Vec<Problem>,
    /// What they are about.
    pub document: Document,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(f, "{n} problem{} in {}", if n == 1 { "" } else { "s" }, self.document.path.display())
    }
}

impl Invalid {
    /// All problems as text, at most `width` columns wide where words allow it.
    pub fn render(&self, width: usize) -> String {
        self.problems.iter().map(|problem| self.document.render(problem, width)).collect::<Vec<_>>().join("\n")
    }
}

/// The places of a key and of its value.
#[derive(Debug, Clone)]
struct Spot {
    key: Option<Location>,
    value: Location,
    /// False for a mapping or a sequence: pointing to its key says more.
    scalar: bool,
}

/// The text of a file and the place of each key path.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
    spots: BTreeMap<String, Spot>,
}

impl Document {
    /// Reads the text into values and places.
    ///
    /// # Errors
    /// The text is not one YAML document with a mapping that JSON can hold: one problem, because nothing behind it can
    /// be trusted.
    pub(super) fn read(path: &Path, text: &str) -> Result<(Self, Value), Invalid> {
        let mut document = Self { path: path.to_owned(), text: text.to_owned(), spots: BTreeMap::new() };
        let stop = |document: Self, problem: Problem| Invalid { problems: vec![problem], document };
        // `no`, `on` and `y` are texts, as YAML 1.2 has it.
        let options = serde_saphyr::options! { strict_booleans: true };
        let value = match serde_saphyr::from_str_with_options::<Value>(text, options) {
            Ok(value @ Value::Object(_)) => value,
            Ok(other) => {
                let text = format!("a site file is a mapping, this is {}", kind(&other));
                return Err(stop(document, Problem::new("", text, "see `pvemig site example`")));
            }
            Err(error) => {
                let at = error.location().map(|l| Location {
                    line: usize::try_from(l.line()).unwrap_or(1),
                    column: usize::try_from(l.column()).unwrap_or(1),
                    length: 1,
                });
                // The message ends with the place, which is shown in its own line.
                let text = error.without_snippet().to_string();
                let text = text.split([';', '\n']).next().unwrap_or(&text);
                let text = text.split(" at line ").next().unwrap_or(text);
                let mut problem =
                    Problem::new("", format!("not valid YAML: {text}"), "nothing after this place was checked");
                problem.at = at;
                return Err(stop(document, problem));
            }
        };
        let mut places = Places { text, spots: BTreeMap::new(), frames: Vec::new() };
        // The text has been parsed once already, so this cannot fail; if it did, places would be missing and no more.
        for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
            places.take(&event, span);
        }
        document.spots = places.spots;
        Ok((document, value))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The place of the value at a key path, or of its key where the value spans lines.
    pub fn locate(&self, path: &str) -> Option<Location> {
        let spot = self.spots.get(path)?;
        Some(if spot.scalar { spot.value } else { spot.key.unwrap_or(spot.value) })
    }

    fn place(&self, problem: &Problem) -> Option<Location> {
        if problem.at.is_some() {
            return problem.at;
        }
        if problem.at_key
            && let Some(key) = self.spots.get(&problem.path).and_then(|spot| spot.key)
        {
            return Some(key);
        }
        let mut path = problem.path.as_str();
        while !path.is_empty() {
            if let Some(place) = self.locate(path) {
                return Some(place);
            }
            path = parent(path);
        }
        None
    }

    /// Sorts problems by their place and drops repetitions.
    pub(super) fn sort(&self, problems: &mut Vec<Problem>) {
        problems.sort_by_key(|problem| self.place(problem).map(|place| (place.line, place.column)));
        problems.dedup();
    }

    /// A problem as plain text: what, where, the line with a caret, help. At most `width` columns where words allow it.
    pub fn render(&self, problem: &Problem, width: usize) -> String {
        let width = width.max(40);
        let mut out = wrapped("error: ", &problem.text, width);
        let name = self.path.display();
        let within = if problem.path.is_empty() { String::new() } else { format!(" ({})", problem.path) };
        match self.place(problem) {
            None => out += &format!("  --> {name}{within}\n"),
            Some(at) => {
                out += &format!("  --> {name}:{}:{}{within}\n", at.line, at.column);
                let line = self.text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
                let line = masked(line);
                let gutter = at.line.to_string();
                let blank = " ".repeat(gutter.len());
                let (shown, column) =
                    cropped(&line, at.column.saturating_sub(1), width.saturating_sub(gutter.len() + 3));
                let room = shown.chars().count().saturating_sub(column).max(1);
                out += &format!("{blank} |\n{gutter} | {shown}\n");
                out += &format!("{blank} | {}{}\n", " ".repeat(column), "^".repeat(at.length.clamp(1, room)));
            }
        }
        out + &wrapped("  help: ", &problem.help, width)
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// A key path with one more key: `a.b`, or `a[b.c]` where the key has dots or brackets.
pub(super) fn join(path: &str, key: &str) -> String {
    if key.is_empty() || key.contains(['.', '[', ']']) {
        format!("{path}[{key}]")
    } else if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A key path with a list position: `a[0]`.
pub(super) fn join_index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

fn parent(path: &str) -> &str {
    let cut = if path.ends_with(']') {
        path.rfind('[')
    } else {
        path.rfind(['.', ']']).map(|i| i + usize::from(path[i..].starts_with(']')))
    };
    cut.and_then(|i| path.get(..i)).unwrap_or_default()
}

/// Follows the parser's events and writes down where each key path is.
struct Places<'t> {
    text: &'t str,
    spots: BTreeMap<String, Spot>,
    frames: Vec<Frame>,
}

struct Frame {
    path: String,
    inside: Inside,
}

enum Inside {
    /// A mapping; the key whose value comes next.
    Mapping(Option<(String, Location)>),
    /// A sequence; the next position.
    Sequence(usize),
    /// A mapping or sequence that is used as a key: not addressable.
    Key,
}

impl Places<'_> {
    fn take(&mut self, event: &Event<'_>, span: Span) {
        match event {
            Event::Scalar(text, ..) => {
                if let Some(Frame { inside: Inside::Mapping(next @ None), .. }) = self.frames.last_mut() {
                    *next = Some((text.to_string(), location(self.text, span)));
                } else {
                    self.value(span, true);
                }
            }
            Event::Alias(_) => {
                self.value(span, true);
            }
            Event::MappingStart(..) => self.open(span, Inside::Mapping(None)),
            Event::SequenceStart(..) => self.open(span, Inside::Sequence(0)),
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(Frame { inside: Inside::Key, .. }) = self.frames.pop()
                    && let Some(Frame { inside: Inside::Mapping(next), .. }) = self.frames.last_mut()
                {
                    *next = Some((String::from("?"), location(self.text, span)));
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, span: Span, inside: Inside) {
        match self.frames.last() {
            Some(Frame { inside: Inside::Mapping(None) | Inside::Key, .. }) => {
                self.frames.push(Frame { path: String::new(), inside: Inside::Key });
            }
            _ => {
                let path = self.value(span, false);
                self.frames.push(Frame { path, inside });
            }
        }
    }

    /// Writes the place of a value down and answers its path.
    fn value(&mut self, span: Span, scalar: bool) -> String {
        let value = location(self.text, span);
        let Some(frame) = self.frames.last_mut() else { return String::new() };
        let (path, key) = match &mut frame.inside {
            Inside::Mapping(next) => {
                let (key, at) = next.take().map_or((String::from("?"), None), |(key, at)| (key, Some(at)));
                (join(&frame.path, &key), at)
            }
            Inside::Sequence(index) => {
                *index += 1;
                (join_index(&frame.path, *index - 1), None)
            }
            Inside::Key => return String::new(),
        };
        self.spots.insert(path.clone(), Spot { key, value, scalar });
        path
    }
}

fn location(text: &str, span: Span) -> Location {
    let (start, end) = (span.start, span.end);
    let line = text.lines().nth(start.line().saturating_sub(1)).unwrap_or_default();
    let rest = line.chars().count().saturating_sub(start.col());
    let length = if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { rest };
    Location { line: start.line(), column: start.col() + 1, length: length.clamp(1, rest.max(1)) }
}

/// The line without what stands where only a reference may stand: somebody may have typed the secret itself.
fn masked(line: &str) -> String {
    let cut = |from: usize, to: usize| {
        format!("{}…{}", line.get(..from).unwrap_or_default(), line.get(to..).unwrap_or_default())
    };
    let word = |from: usize| {
        line.get(from..).and_then(|rest| rest.split([' ', '/', ',', '"', '\'']).next()).unwrap_or_default()
    };
    let lower = line.to_ascii_lowercase();
    for key in ["password", "passwd", "secret", "passphrase", "token"] {
        let mut from = 0;
        while let Some(at) = lower.get(from..).and_then(|rest| rest.find(key)).map(|at| at + from + key.len()) {
            from = at;
            let after = lower.get(at..).unwrap_or_default();
            let value = after.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix(':').map(str::trim_start);
            if value.is_some_and(|value| !value.is_empty() && !value.starts_with(['{', '#'])) {
                return cut(at + after.find(':').unwrap_or(0) + 1, line.len());
            }
        }
    }
    // A password inside a URL; a token's secret behind its id, as other tools write it.
    for (at, mark) in line.match_indices("://").chain(line.match_indices('!')) {
        let start = at + mark.len();
        let word = word(start);
        match (mark, word.find('@'), word.find('=')) {
            ("://", Some(end), _) => return cut(start, start + end),
            ("!", _, Some(equals)) => return cut(start + equals + 1, start + word.len()),
            _ => {}
        }
    }
    line.to_owned()
}

/// The part of a line around a column that fits into `room`, and the column within it.
fn cropped(line: &str, column: usize, room: usize) -> (String, usize) {
    let chars: Vec<char> = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    let column = column.min(chars.len());
    if chars.len() <= room {
        return (chars.iter().collect(), column);
    }
    let start = column.saturating_sub(room / 2).min(chars.len() - room);
    let window: Range<usize> = start..(start + room);
    (chars.get(window).unwrap_or_default().iter().collect(), column - start)
}

fn wrapped(label: &str, text: &str, width: usize) -> String {
    let mut out = String::from(label);
    let indent = label.chars().count();
    let mut used = indent;
    for (i, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && used + 1 + length > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            used = indent;
        } else if i > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
    out.push('\n');
    out
}
