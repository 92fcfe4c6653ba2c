//! A machine configuration while it is changed: its text, and its documents as they are to be.

use serde_json::Value;

use crate::base::check::{Change, Symbol};
use crate::base::yaml::path::{self, Part};
use crate::base::yaml::{self, leaf};

use super::mask::is_shown;
use super::{PatchError, Patched, Place};

/// Text and documents; every change is made in both, and in the end they are held against each other.
pub(super) struct Draft {
    text: String,
    documents: Vec<Value>,
    changes: Vec<Change>,
}

fn word<'v>(document: &'v Value, key: &str) -> &'v str {
    document.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl Draft {
    pub(super) fn read(text: &str) -> Result<Self, PatchError> {
        let documents = yaml::documents(text)?;
        let bad = |why: String| Err(PatchError::NotAMachineConfig { why });
        let mut main = 0;
        for (number, document) in documents.iter().enumerate().filter(|(_, document)| !document.is_null()) {
            if !document.is_object() {
                return bad(format!("document {} is no mapping", number + 1));
            }
            let (kind, name) = (word(document, "kind"), word(document, "name"));
            main += usize::from(document.get("kind").is_none());
            let same = |other: &&Value| !kind.is_empty() && word(other, "kind") == kind && word(other, "name") == name;
            if documents.iter().filter(same).count() > 1 {
                return bad(format!("the document {} is there twice", title(kind, name)));
            }
        }
        match main {
            1 => Ok(Self { text: text.to_owned(), documents, changes: Vec::new() }),
            0 => bad("the v1alpha1 document is not in it".into()),
            more => bad(format!("{more} documents in it have no kind")),
        }
    }

    /// The v1alpha1 document.
    pub(super) fn main(&self) -> usize {
        let main = |document: &Value| document.is_object() && document.get("kind").is_none();
        self.documents.iter().position(main).unwrap_or_default()
    }

    /// The documents of a kind.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<usize> {
        let found = self.documents.iter().enumerate().filter(|(_, document)| word(document, "kind") == kind);
        found.map(|(number, _)| number).collect()
    }

    /// The document of a kind and a name.
    pub(super) fn named(&self, kind: &str, name: &str) -> Option<usize> {
        self.of_kind(kind).into_iter().find(|number| self.text_at(*number, &keys("name")) == Some(name))
    }

    /// True where a document of one of these kinds is there.
    pub(super) fn has_any(&self, kinds: &[&str]) -> bool {
        self.documents.iter().any(|document| kinds.contains(&word(document, "kind")))
    }

    /// A value; null counts as none.
    pub(super) fn get(&self, document: usize, parts: &[Part]) -> Option<&Value> {
        path::get(self.documents.get(document)?, parts).filter(|value| !value.is_null())
    }

    pub(super) fn text_at(&self, document: usize, parts: &[Part]) -> Option<&str> {
        self.get(document, parts).and_then(Value::as_str)
    }

    /// The members of a list; none where there is no list.
    ///
    /// # Errors
    /// [`PatchError::NotEditable`] where something else stands there.
    pub(super) fn list(&self, document: usize, parts: &[Part]) -> Result<&[Value], PatchError> {
        match self.get(document, parts) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(PatchError::NotEditable { place: self.place(document, parts), why: "it is no list".into() }),
        }
    }

    /// Adds a document at the end. It is named in the changes by what is set in it.
    pub(super) fn add(&mut self, kind: &str, name: Option<&str>) -> Result<usize, PatchError> {
        let number = self.documents.len();
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str("---\napiVersion: v1alpha1\nkind: ");
        self.text.push_str(kind);
        self.text.push('\n');
        self.documents.push(serde_json::json!({ "apiVersion": "v1alpha1", "kind": kind }));
        if let Some(name) = name {
            self.put(number, &keys("name"), &name.into())?;
        }
        Ok(number)
    }

    /// Sets a value that is another one, and says so.
    pub(super) fn set(&mut self, document: usize, parts: &[Part], value: &Value) -> Result<(), PatchError> {
        let found = self.get(document, parts).cloned();
        if found.as_ref() == Some(value) {
            return Ok(());
        }
        let symbol = if found.is_some() { Symbol::Change } else { Symbol::Add };
        self.say(symbol, document, parts, found.as_ref(), Some(value));
        self.put(document, parts, value)
    }

    fn put(&mut self, document: usize, parts: &[Part], value: &Value) -> Result<(), PatchError> {
        let place = self.place(document, parts);
        let stuck = |why: &str| PatchError::NotEditable { place: place.clone(), why: why.to_owned() };
        let object = self.documents.get_mut(document).ok_or_else(|| stuck("there is no such document"))?;
        path::set(object, parts, value).map_err(&stuck)?;
        self.text = yaml::set(&self.text, document, parts, value).map_err(|error| stuck(&why(error)))?;
        Ok(())
    }

    /// Adds a member to a list, which is made where there is none.
    pub(super) fn push(&mut self, document: usize, parts: &[Part], value: &Value) -> Result<(), PatchError> {
        let length = self.list(document, parts)?.len();
        if length == 0 {
            self.say(Symbol::Add, document, &under(parts, Part::At(0)), None, Some(value));
            // An empty list may be there as `[]` or as nothing.
            return self.put(document, parts, &Value::Array(vec![value.clone()]));
        }
        let mut parts = parts.to_vec();
        parts.push(Part::At(length));
        self.say(Symbol::Add, document, &parts, None, Some(value));
        self.put(document, &parts, value)
    }

    /// Takes a value away where there is one, and says so.
    pub(super) fn remove(&mut self, document: usize, parts: &[Part]) -> Result<(), PatchError> {
        let found = self.documents.get(document).and_then(|object| path::get(object, parts)).cloned();
        let Some(found) = found else { return Ok(()) };
        self.say(Symbol::Remove, document, parts, Some(&found), None);
        let place = self.place(document, parts);
        if let Some(object) = self.documents.get_mut(document) {
            path::remove(object, parts);
        }
        self.text = yaml::remove(&self.text, document, parts)
            .map_err(|error| PatchError::NotEditable { place, why: why(error) })?;
        Ok(())
    }

    fn say(&mut self, symbol: Symbol, document: usize, parts: &[Part], from: Option<&Value>, to: Option<&Value>) {
        let kind = self.documents.get(document).and_then(|d| d.get("kind")).and_then(Value::as_str);
        let shown = |value: &Value| shown(kind, parts, value);
        let (from, to) = (from.map(shown), to.map(shown));
        let what = self.place(document, parts);
        let what = if what.document.is_empty() { what.path } else { format!("{} {}", what.document, what.path) };
        self.changes.push(Change { symbol, what, from, to });
    }

    /// Where something stands, as errors name it.
    pub(super) fn place(&self, document: usize, parts: &[Part]) -> Place {
        let found = self.documents.get(document);
        let title = found.map(|d| title(word(d, "kind"), word(d, "name"))).unwrap_or_default();
        Place { document: title, path: path::show(parts), line: leaf::line(&self.text, document, parts) }
    }

    /// The result, read back: exactly the values that were set differ.
    pub(super) fn finish(self) -> Result<Patched, PatchError> {
        if yaml::documents(&self.text)? == self.documents {
            let same = self.changes.is_empty();
            return Ok(Patched { text: self.text, changes: self.changes, same });
        }
        let place = Place { document: String::new(), path: String::new(), line: 1 };
        Err(PatchError::NotEditable { place, why: "the text would not hold exactly what was asked for".into() })
    }
}

fn title(kind: &str, name: &str) -> String {
    match (kind, name) {
        ("", _) => String::new(),
        (kind, "") => kind.to_owned(),
        (kind, name) => format!("{kind} `{name}`"),
    }
}

fn why(error: yaml::YamlError) -> String {
    match error {
        yaml::YamlError::NotYaml { why } | yaml::YamlError::NotEditable { why, .. } => why,
    }
}

/// A value in one line, as far as it may be shown.
fn shown(kind: Option<&str>, parts: &[Part], value: &Value) -> String {
    let mut path = parts.to_vec();
    let mut value = value.clone();
    cover(kind, &mut path, &mut value);
    let text = match &value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    crate::base::redact::text(&text)
}

fn cover(kind: Option<&str>, path: &mut Vec<Part>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                path.push(Part::Key(key.clone()));
                cover(kind, path, value);
                path.pop();
            }
        }
        Value::Array(list) => {
            for (position, value) in list.iter_mut().enumerate() {
                path.push(Part::At(position));
                cover(kind, path, value);
                path.pop();
            }
        }
        _ if is_shown(kind, path) => {}
        _ => *value = Value::from("…"),
    }
}

/// Keys without dots in them, as a path has them.
pub(super) fn keys(text: &str) -> Vec<Part> {
    text.split('.').map(Part::key).collect()
}

/// A path and one part more.
pub(super) fn under(parts: &[Part], last: Part) -> Vec<Part> {
    parts.iter().cloned().chain([last]).collect()
}
