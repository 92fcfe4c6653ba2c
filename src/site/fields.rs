//! A reader over parsed values that reports every problem instead of the first.
//!
//! A derived `Deserialize` stops at its first error. Here each value is asked for by itself; what is wrong goes into
//! one [`Sink`] with its key path, and the reading goes on.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::document::{Problem, join, join_index, kind};

/// Where problems are collected.
#[derive(Debug, Default)]
pub struct Sink {
    problems: RefCell<Vec<Problem>>,
    files: RefCell<Vec<NamedFile>>,
}

/// A file that parameters name. Nobody has looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The key path.
    pub at: String,
    /// The file, absolute.
    pub path: PathBuf,
    /// Its secrets are in plain text, so that only its owner may read it.
    pub secret: bool,
}

impl Sink {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a problem.
    pub fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// What was collected.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// The files that were named.
    pub fn into_files(self) -> Vec<NamedFile> {
        self.files.into_inner()
    }

    /// How many there are so far.
    pub fn count(&self) -> usize {
        self.problems.borrow().len()
    }
}

/// A value with its key path.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    value: &'a Value,
    path: String,
    sink: &'a Sink,
}

/// A mapping whose keys are known.
#[derive(Debug)]
pub struct Fields<'a> {
    /// None where the value was no mapping: that has been said, and its missing keys are no news.
    map: Option<&'a Map<String, Value>>,
    path: String,
    sink: &'a Sink,
}

impl<'a> Item<'a> {
    /// A value at a key path.
    pub fn new(value: &'a Value, path: impl Into<String>, sink: &'a Sink) -> Self {
        Self { value, path: path.into(), sink }
    }

    /// The key path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value itself.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Reports a problem with this value.
    pub fn problem(&self, text: impl Into<String>, help: impl Into<String>) {
        self.sink.push(Problem::new(self.path.clone(), text, help));
    }

    /// Says that this value names a file that has to be there; `secret`: for its owner alone.
    pub fn names(&self, path: &Path, secret: bool) {
        let file = NamedFile { at: self.path.clone(), path: path.to_owned(), secret };
        self.sink.files.borrow_mut().push(file);
    }

    /// Reports that the value is of another kind.
    fn wrong<T>(&self, expected: &str) -> Option<T> {
        let shown = match self.value {
            // Where a mapping belongs somebody may have typed a secret.
            Value::String(text) if !expected.ends_with("mapping") && text.chars().count() <= 40 => format!("`{text}`"),
            Value::Number(number) => format!("`{number}`"),
            Value::Bool(flag) => format!("`{flag}`"),
            other => kind(other).to_owned(),
        };
        self.problem(format!("`{}` is to be {expected}, not {shown}", self.name()), format!("write {expected}"));
        None
    }

    /// The last part of the path, for texts.
    fn name(&self) -> &str {
        let path = self.path.as_str();
        let start =
            path.rfind(['.', '[']).map_or(0, |i| i + usize::from(path.get(i..).is_some_and(|p| p.starts_with('.'))));
        path.get(start..).unwrap_or(path)
    }

    /// A mapping with these keys and no others.
    pub fn fields(&self, known: &[&str]) -> Fields<'a> {
        let map = match self.value {
            Value::Object(map) => Some(map),
            // `still-fawn:` with nothing behind it.
            Value::Null => None,
            _ => self.wrong("a mapping"),
        };
        for key in map.into_iter().flat_map(Map::keys).filter(|key| !known.contains(&key.as_str())) {
            let path = join(&self.path, key);
            let list = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            let help = near(key, known.iter().copied())
                .map_or_else(|| format!("the keys here are {list}"), |near| format!("did you mean `{near}`?"));
            self.sink.push(Problem::new(path, format!("unknown key `{key}`"), help).at_key());
        }
        let map = if self.value.is_null() { Some(empty()) } else { map };
        Fields { map, path: self.path.clone(), sink: self.sink }
    }

    /// The mapping below a key, where there is one; nothing is said of the other keys.
    pub fn below(&self, key: &str) -> Option<Item<'a>> {
        let value = self.value.as_object()?.get(key).filter(|value| value.is_object())?;
        Some(Item::new(value, join(&self.path, key), self.sink))
    }

    /// A mapping with free keys, in the order of the file.
    pub fn entries(&self) -> Vec<(&'a str, Item<'a>)> {
        match self.value {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| (key.as_str(), Item::new(value, join(&self.path, key), self.sink)))
                .collect(),
            Value::Null => Vec::new(),
            _ => self.wrong("a mapping").unwrap_or_default(),
        }
    }

    /// A list.
    pub fn list(&self) -> Option<Vec<Item<'a>>> {
        match self.value {
            Value::Array(list) => Some(
                list.iter()
                    .enumerate()
                    .map(|(i, value)| Item::new(value, join_index(&self.path, i), self.sink))
                    .collect(),
            ),
            _ => self.wrong("a list"),
        }
    }

    /// A text that is not empty.
    pub fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::String(text) if !text.trim().is_empty() => Some(text),
            Value::String(_) => {
                self.problem(format!("`{}` is empty", self.name()), "write its value, or leave the key out");
                None
            }
            _ => self.wrong("a text"),
        }
    }

    /// A list of texts, at least one.
    pub fn texts(&self) -> Option<Vec<String>> {
        let list = self.list()?;
        if list.is_empty() {
            self.problem(format!("`{}` is an empty list", self.name()), "write at least one item");
            return None;
        }
        let total = list.len();
        let texts: Vec<String> = list.iter().filter_map(Item::text).map(str::to_owned).collect();
        (texts.len() == total).then_some(texts)
    }

    /// True or false.
    pub fn flag(&self) -> Option<bool> {
        match self.value {
            Value::Bool(flag) => Some(*flag),
            _ => self.wrong("true or false"),
        }
    }

    /// A whole number in a range.
    pub fn number(&self, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let number = self.value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        if number.is_none() {
            return self.wrong(&format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A text that parses.
    pub fn parse<T: FromStr<Err: Display>>(&self, help: &str) -> Option<T> {
        match self.text()?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(error.to_string(), help);
                None
            }
        }
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let list = words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let help = match near(text, words.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean `{near}`? possible are {list}"),
            None => format!("possible are {list}"),
        };
        self.problem(format!("`{text}` is not possible here"), help);
        None
    }

    /// The name of something that is described elsewhere in the file. `what` as in "a Proxmox cluster".
    pub fn name_of<'n>(&self, what: &str, names: impl Iterator<Item = &'n str> + Clone) -> Option<String> {
        let text = self.text()?;
        if names.clone().any(|name| name == text) {
            return Some(text.to_owned());
        }
        let help = match near(text, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => match names.map(|n| format!("`{n}`")).collect::<Vec<_>>() {
                list if list.is_empty() => "the file describes none".to_owned(),
                list => format!("the file describes {}", list.join(", ")),
            },
        };
        self.problem(format!("`{text}` is not {what} of this file"), help);
        None
    }
}

impl<'a> Fields<'a> {
    /// The value of a key that may be left out. An empty value counts as left out.
    pub fn get(&self, key: &str) -> Option<Item<'a>> {
        let value = self.map?.get(key).filter(|value| !value.is_null())?;
        Some(Item::new(value, join(&self.path, key), self.sink))
    }

    /// The value of a key that must be there.
    pub fn need(&self, key: &str, help: &str) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() && self.map.is_some() {
            let place = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            let present = self.map.is_some_and(|map| map.contains_key(key));
            let path = if present { join(&self.path, key) } else { self.path.clone() };
            let text =
                if present { format!("`{key}`{place} has no value") } else { format!("`{key}` is missing{place}") };
            self.sink.push(Problem::new(path, text, help).at_key());
        }
        item
    }

    /// The key path of the mapping.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reports a problem with the mapping as a whole.
    pub fn problem(&self, text: impl Into<String>, help: impl Into<String>) {
        self.sink.push(Problem::new(self.path.clone(), text, help).at_key());
    }

    /// True where the value was a mapping (or empty).
    pub fn is_mapping(&self) -> bool {
        self.map.is_some()
    }
}

fn empty() -> &'static Map<String, Value> {
    static EMPTY: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
    EMPTY.get_or_init(Map::new)
}

/// The name that was probably meant: at most a third of its letters differ.
pub fn near<'n>(given: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|name| (distance(given, name), name))
        .filter(|(distance, name)| *distance <= (name.chars().count().max(3) / 3))
        .min()
        .map(|(_, name)| name)
}

/// How many letters must be added, removed or replaced to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut corner = i;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let best = (corner + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            corner = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
