//! Declared edits: what values an object in a file is to have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::names::BadName;
use crate::base::redact;
use crate::base::yaml::path::{self, Path};
use crate::base::yaml::{self, YamlError};

use super::error::CheckoutError;

/// What one object in one file of a checkout is to look like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The file, relative to the root of the checkout.
    pub file: String,
    /// The object in it; a file may hold several documents.
    pub object: Object,
    /// Values that are to be exactly so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(Path, Value)>,
    /// Values that are not to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Path>,
    /// Text inside a text value that is to be another one: path, from, to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<(Path, String, String)>,
}

/// Which object of a file: `Deployment/frigate/frigate`, or `Namespace/frigate` without a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Object {
    /// The kind.
    pub kind: String,
    /// The namespace. A file that leaves the namespace to its kustomization matches too.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// Whether a file has the declared values.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// All of them.
    Already,
    /// These are different.
    Differs(Vec<Difference>),
    /// The object is not in the file.
    MissingObject,
}

/// A value that is not as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where.
    pub path: Path,
    /// The value now; None: there is none.
    pub found: Option<Value>,
    /// What it is to be, in words.
    pub wanted: Wanted,
}

/// What a value is to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Exactly this.
    Value(Value),
    /// Not there.
    Absent,
    /// A text that holds the second instead of the first.
    Replaced(String, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.path)?;
        match (&self.wanted, &self.found) {
            (Wanted::Value(wanted), None) => write!(f, "is not there, to be {}", short(wanted)),
            (Wanted::Value(wanted), Some(found)) => write!(f, "is {}, to be {}", short(found), short(wanted)),
            (Wanted::Absent, Some(found)) => write!(f, "is {}, not to be there", short(found)),
            (Wanted::Absent, None) => write!(f, "is not there"),
            (Wanted::Replaced(from, to), None) => write!(f, "is not there, to hold `{to}` instead of `{from}`"),
            (Wanted::Replaced(from, to), Some(Value::String(text))) if text.contains(from.as_str()) => {
                write!(f, "holds `{from}`, to be `{to}`")
            }
            (Wanted::Replaced(from, to), Some(_)) => write!(f, "holds neither `{from}` nor `{to}`"),
        }
    }
}

fn short(value: &Value) -> String {
    let text = redact::text(&value.to_string());
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("`{}…`", text.get(..cut).unwrap_or_default()),
        None => format!("`{text}`"),
    }
}

impl Edit {
    /// Whether a file's text has the declared values.
    ///
    /// # Errors
    /// The text is no YAML, or the object is there twice.
    pub fn contained_in(&self, text: &str) -> Result<Found, CheckoutError> {
        let Some(object) = self.object_in(text)? else { return Ok(Found::MissingObject) };
        let differences = self.differences(&object, |a, b, _| a == b);
        Ok(if differences.is_empty() { Found::Already } else { Found::Differs(differences) })
    }

    /// The object's `apiVersion` in a file's text; None where the object is not in it.
    ///
    /// # Errors
    /// As [`Edit::contained_in`].
    pub fn api_version(&self, text: &str) -> Result<Option<String>, CheckoutError> {
        let object = self.object_in(text)?;
        Ok(object.as_ref().and_then(|o| o.get("apiVersion")).and_then(Value::as_str).map(str::to_owned))
    }

    /// The object in a file's text.
    pub(super) fn object_in(&self, text: &str) -> Result<Option<Value>, CheckoutError> {
        let mut documents = self.documents(text)?;
        Ok(self.find(&documents)?.map(|index| documents.swap_remove(index)))
    }

    /// The text with the declared values, every other line as it was (a blank line beside one that was taken away may go
    /// with it).
    ///
    /// The result is read back before it is given out: it differs from the former text in exactly these values.
    ///
    /// # Errors
    /// The object or a list item is not there, a text to be replaced is not there, or the place is written in a way
    /// that cannot be edited (through an alias, in a template).
    pub fn apply(&self, text: &str) -> Result<String, CheckoutError> {
        let mut expected = self.documents(text)?;
        let index = self
            .find(&expected)?
            .ok_or_else(|| CheckoutError::MissingObject { file: self.file.clone(), object: self.object.to_string() })?;
        let mut out = text.to_owned();
        let Some(object) = expected.get_mut(index) else { return Ok(out) };
        for path in &self.remove {
            if path.get(object).is_some() {
                out = yaml::remove(&out, index, path.parts()).map_err(|error| self.error(error))?;
                path::remove(object, path.parts());
            }
        }
        for (path, value) in &self.set {
            if path.get(object) != Some(value) {
                path::set(object, path.parts(), value).map_err(|why| self.not_editable(path, why))?;
                out = yaml::set(&out, index, path.parts(), value).map_err(|error| self.error(error))?;
            }
        }
        for (path, from, to) in &self.replace {
            match path.get(object).and_then(Value::as_str).map(|text| replaced(text, from, to)) {
                Some(Replaced::Already) => {}
                Some(Replaced::Now(text)) => {
                    out = yaml::replace(&out, index, path.parts(), &|raw| match replaced(raw, from, to) {
                        Replaced::Now(raw) => Some(raw),
                        Replaced::Already | Replaced::Neither => None,
                    })
                    .map_err(|error| self.error(error))?;
                    path::set(object, path.parts(), &Value::String(text))
                        .map_err(|why| self.not_editable(path, why))?;
                }
                Some(Replaced::Neither) | None => {
                    return Err(CheckoutError::NothingToReplace {
                        file: self.file.clone(),
                        path: path.to_string(),
                        from: from.clone(),
                        to: to.clone(),
                    });
                }
            }
        }
        // A value that cannot be removed because another edit sets it, or a tool that misread the file: both end here.
        let actual = self.documents(&out)?;
        if actual == expected && self.contained_in(&out)? == Found::Already {
            return Ok(out);
        }
        let path = self.set.first().map(|(path, _)| path).or(self.remove.first());
        let path = path.or(self.replace.first().map(|(path, ..)| path)).map(ToString::to_string).unwrap_or_default();
        Err(CheckoutError::NotEditable {
            file: self.file.clone(),
            path,
            why: "the edited file would not hold exactly the declared values".into(),
        })
    }

    /// A live object as it would be with the declared values; what cannot be set is left as it is.
    #[must_use]
    pub fn made_in(&self, object: &Value) -> Value {
        let mut made = object.clone();
        self.remove.iter().for_each(|path| path::remove(&mut made, path.parts()));
        for (path, value) in &self.set {
            // What has no place there the checkout's own file has none for either, and editing that says so.
            let _no_place = path::set(&mut made, path.parts(), value);
        }
        made
    }

    /// Whether the edit is of this object; one whose file leaves the namespace out is of that of the workload.
    pub fn is_of(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let object = &self.object;
        object.kind == kind && object.name == name && object.namespace.as_deref().is_none_or(|ns| ns == namespace)
    }

    fn documents(&self, text: &str) -> Result<Vec<Value>, CheckoutError> {
        yaml::documents(text).map_err(|error| self.error(error))
    }

    fn error(&self, error: YamlError) -> CheckoutError {
        let file = self.file.clone();
        match error {
            YamlError::NotYaml { why } => CheckoutError::NotYaml { file, why },
            YamlError::NotEditable { path, why } => CheckoutError::NotEditable { file, path, why },
        }
    }

    fn not_editable(&self, path: &Path, why: &str) -> CheckoutError {
        CheckoutError::NotEditable { file: self.file.clone(), path: path.to_string(), why: why.to_owned() }
    }

    /// What is not as declared, with values compared by `same(found, wanted, path)`.
    pub(super) fn differences(&self, object: &Value, same: impl Fn(&Value, &Value, &Path) -> bool) -> Vec<Difference> {
        let mut out = Vec::new();
        let mut push = |path: &Path, wanted| {
            out.push(Difference { path: path.clone(), found: path.get(object).cloned(), wanted });
        };
        for (path, value) in &self.set {
            if !path.get(object).is_some_and(|found| same(found, value, path)) {
                push(path, Wanted::Value(value.clone()));
            }
        }
        for path in self.remove.iter().filter(|path| path.get(object).is_some()) {
            push(path, Wanted::Absent);
        }
        for (path, from, to) in &self.replace {
            let found = path.get(object).and_then(Value::as_str).map(|text| replaced(text, from, to));
            if found != Some(Replaced::Already) {
                push(path, Wanted::Replaced(from.clone(), to.clone()));
            }
        }
        out
    }

    fn find(&self, documents: &[Value]) -> Result<Option<usize>, CheckoutError> {
        let named: Vec<(usize, Option<&str>)> = documents
            .iter()
            .enumerate()
            .filter(|(_, d)| d.get("kind").and_then(Value::as_str) == Some(&self.object.kind))
            .filter(|(_, d)| d.pointer("/metadata/name").and_then(Value::as_str) == Some(&self.object.name))
            .map(|(i, d)| (i, d.pointer("/metadata/namespace").and_then(Value::as_str)))
            .collect();
        let wanted = self.object.namespace.as_deref();
        let exact: Vec<usize> = named.iter().filter(|(_, ns)| *ns == wanted).map(|(i, _)| *i).collect();
        // A kustomization may give the namespace.
        let open: Vec<usize> = named.iter().filter(|(_, ns)| ns.is_none()).map(|(i, _)| *i).collect();
        match if exact.is_empty() { open } else { exact }.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            [..] => Err(CheckoutError::Ambiguous { file: self.file.clone(), object: self.object.to_string() }),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Replaced {
    Already,
    Now(String),
    Neither,
}

/// Every `from` becomes `to`; one that is part of a `to` is left alone.
fn replaced(text: &str, from: &str, to: &str) -> Replaced {
    if from.is_empty() {
        return Replaced::Neither;
    }
    let out = if !to.is_empty() && to.contains(from) {
        text.split(to).map(|part| part.replace(from, to)).collect::<Vec<_>>().join(to)
    } else {
        text.replace(from, to)
    };
    match out == text {
        true if text.contains(to) => Replaced::Already,
        true => Replaced::Neither,
        false => Replaced::Now(out),
    }
}

/// The difference of two texts as people know it from `diff -U0`. It is shown, kept and sent on: no line beside a
/// change is in it, which may be anybody's password, and none of an address that changes.
pub fn diff(file: &str, old: &str, new: &str) -> String {
    let diff = similar::TextDiff::from_lines(old, new);
    let text = diff.unified_diff().context_radius(0).header(&format!("a/{file}"), &format!("b/{file}")).to_string();
    redact::text(&text)
}

impl FromStr for Object {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let parts: Vec<&str> = s.split('/').collect();
        let own = |text: &str| text.to_owned();
        match parts.as_slice() {
            [kind, name] if !kind.is_empty() && !name.is_empty() => {
                Ok(Self { kind: own(kind), namespace: None, name: own(name) })
            }
            [kind, ns, name] if !kind.is_empty() && !ns.is_empty() && !name.is_empty() => {
                Ok(Self { kind: own(kind), namespace: Some(own(ns)), name: own(name) })
            }
            _ => Err(BadName { value: own(s), expected: "an object like `Deployment/frigate/frigate`" }),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(ns) => write!(f, "{}/{ns}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl TryFrom<String> for Object {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<Object> for String {
    fn from(object: Object) -> Self {
        object.to_string()
    }
}
