//! The place of a value inside an object: `spec.template.spec.containers[frigate].image`, `data[config.yml]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::names::BadName;

/// A way from the root of an object to a value.
///
/// Keys are separated by dots. `[x]` is the item of a list whose `name` is `x`, or, in a mapping, the key `x` (which
/// may then have dots in it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(Vec<Part>);

/// One part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A key of a mapping.
    Key(String),
    /// The item of a list with this `name`, or this key of a mapping.
    Named(String),
}

impl Part {
    /// The key or name.
    pub fn text(&self) -> &str {
        match self {
            Self::Key(text) | Self::Named(text) => text,
        }
    }

    /// The value behind this part.
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        match value {
            Value::Object(map) => map.get(self.text()),
            Value::Array(list) => list.get(self.position(list)?),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn get_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        match value {
            Value::Object(map) => map.get_mut(self.text()),
            Value::Array(list) => {
                let position = self.position(list)?;
                list.get_mut(position)
            }
            _ => None,
        }
    }

    /// The position of the item in a list.
    pub fn position(&self, list: &[Value]) -> Option<usize> {
        let Self::Named(name) = self else { return None };
        list.iter().position(|item| item.get("name").and_then(Value::as_str) == Some(name))
    }
}

impl Path {
    /// The parts, at least one.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The value at this path.
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, part| part.get(value))
    }

    /// The parts before the last, and the last.
    pub fn split(&self) -> Option<(&[Part], &Part)> {
        self.0.split_last().map(|(last, before)| (before, last))
    }
}

impl FromStr for Path {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName { value: s.to_owned(), expected: "a path like `spec.containers[frigate].image`" };
        let mut parts = Vec::new();
        let mut rest = s;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let (name, after) = inside.split_once(']').ok_or_else(bad)?;
                parts.push(Part::Named(name.to_owned()));
                rest = after;
            } else {
                let key = if parts.is_empty() { rest } else { rest.strip_prefix('.').ok_or_else(bad)? };
                let end = key.find(['.', '[']).unwrap_or(key.len());
                let (key, after) = key.split_at_checked(end).ok_or_else(bad)?;
                parts.push(Part::Key(key.to_owned()));
                rest = after;
            }
        }
        let good =
            !parts.is_empty() && parts.iter().all(|part| !part.text().is_empty() && !part.text().contains(['[', ']']));
        if good { Ok(Self(parts)) } else { Err(bad()) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            match part {
                Part::Key(key) if i == 0 => f.write_str(key)?,
                Part::Key(key) => write!(f, ".{key}")?,
                Part::Named(name) => write!(f, "[{name}]")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Path {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.to_string()
    }
}
