//! The place of a value inside an object: `spec.template.spec.containers[frigate].image`, `data[config.yml]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
    /// The item of a list at this position, from 0 on; the first one behind the last is where one is added. No text of
    /// a path names it.
    At(usize),
}

impl Part {
    /// A key.
    pub fn key(text: impl Into<String>) -> Self {
        Self::Key(text.into())
    }

    /// The key or name; empty for a position.
    pub fn text(&self) -> &str {
        match self {
            Self::Key(text) | Self::Named(text) => text,
            Self::At(_) => "",
        }
    }

    /// The value behind this part.
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        match value {
            Value::Object(map) => map.get(self.as_key()?),
            Value::Array(list) => list.get(self.position(list)?),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn get_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        match value {
            Value::Object(map) => map.get_mut(self.as_key()?),
            Value::Array(list) => {
                let position = self.position(list)?;
                list.get_mut(position)
            }
            _ => None,
        }
    }

    /// The position of the item in a list.
    pub fn position(&self, list: &[Value]) -> Option<usize> {
        match self {
            Self::Key(_) => None,
            Self::Named(name) => list.iter().position(|item| item.get("name").and_then(Value::as_str) == Some(name)),
            Self::At(position) => Some(*position).filter(|position| *position < list.len()),
        }
    }

    /// What it is in a mapping.
    pub(super) fn as_key(&self) -> Option<&str> {
        match self {
            Self::Key(text) | Self::Named(text) => Some(text),
            Self::At(_) => None,
        }
    }
}

/// Parts as a path is written: `machine.network.interfaces[0]`.
pub fn show(parts: &[Part]) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Key(key) if key.contains(['.', '[']) => out.push_str(&format!("[{key}]")),
            Part::Key(key) if out.is_empty() => out.push_str(key),
            Part::Key(key) => out.push_str(&format!(".{key}")),
            Part::Named(name) => out.push_str(&format!("[{name}]")),
            Part::At(position) => out.push_str(&format!("[{position}]")),
        }
    }
    out
}

/// The value behind these parts.
pub fn get<'v>(value: &'v Value, parts: &[Part]) -> Option<&'v Value> {
    parts.iter().try_fold(value, |value, part| part.get(value))
}

/// Takes a value away; one that is not there stays away.
pub fn remove(object: &mut Value, parts: &[Part]) {
    let Some((last, before)) = parts.split_last() else { return };
    match before.iter().try_fold(object, |value, part| part.get_mut(value)) {
        Some(Value::Object(map)) => {
            last.as_key().and_then(|key| map.shift_remove(key));
        }
        Some(Value::Array(list)) => {
            if let Some(position) = last.position(list) {
                list.remove(position);
            }
        }
        _ => {}
    }
}

/// Sets a value; mappings on the way are made where they are missing or null.
///
/// # Errors
/// Why there is no place for it.
pub fn set(object: &mut Value, parts: &[Part], value: &Value) -> Result<(), &'static str> {
    let Some((last, before)) = parts.split_last() else { return Ok(()) };
    let mut at = object;
    for part in before {
        if let (Value::Object(map), Some(key)) = (&mut *at, part.as_key())
            && map.get(key).is_none_or(Value::is_null)
        {
            map.insert(key.to_owned(), Value::Object(Map::new()));
        }
        at = part.get_mut(at).ok_or("there is no such list item, or no mapping, on the way to it")?;
    }
    match (at, last.as_key()) {
        (Value::Object(map), Some(key)) => {
            map.insert(key.to_owned(), value.clone());
            Ok(())
        }
        (Value::Array(list), _) => {
            match (last.position(list), last) {
                (Some(position), _) => list.splice(position..=position, [value.clone()]).for_each(drop),
                (None, Part::At(position)) if *position == list.len() => list.push(value.clone()),
                (None, Part::Named(name)) if value.get("name").and_then(Value::as_str) == Some(name) => {
                    list.push(value.clone());
                }
                _ => return Err("there is no list item of this name, and the value to be set has not this name"),
            }
            Ok(())
        }
        _ => Err("it would be inside a value that is neither a mapping nor a list"),
    }
}

impl Path {
    /// The parts, at least one.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The value at this path.
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        get(value, &self.0)
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
        f.write_str(&show(&self.0))
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
