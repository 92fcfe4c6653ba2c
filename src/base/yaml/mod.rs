//! Changes to the text of a YAML file that leave every other line as it is, and where its values stand.

pub mod leaf;
pub mod path;

use std::str::FromStr;

use serde_json::Value;
use yaml_edit::{Mapping, ScalarValue, Sequence, YamlFile, YamlNode};

use self::path::Part;

/// Why a text is not read or not edited. Nothing of what stands in it is quoted but keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// It is no YAML that can be read and written back byte for byte.
    #[error("it cannot be read as YAML: {why}")]
    NotYaml {
        /// Why, with the place.
        why: String,
    },
    /// A place that cannot be edited with everything else kept.
    #[error("`{path}` cannot be edited: {why}")]
    NotEditable {
        /// The place.
        path: String,
        /// Why.
        why: String,
    },
}

/// The documents of a text as values, in order; empty ones are null.
///
/// # Errors
/// [`YamlError::NotYaml`].
pub fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    parse(text)?
        .documents()
        .map(|document| {
            serde_saphyr::from_str(&document.to_string()).map_err(|error| YamlError::NotYaml { why: place(&error) })
        })
        .collect()
}

/// Where a text stops to be YAML. The error's own text may quote what stands there.
fn place(error: &serde_saphyr::Error) -> String {
    let at = error.location().map(|at| format!("line {}, column {} of the document", at.line(), at.column()));
    at.map_or_else(|| "its documents do not end".to_owned(), |at| format!("see {at}"))
}

/// Takes the value at a path away.
///
/// # Errors
/// [`YamlError`].
pub fn remove(text: &str, document: usize, path: &[Part]) -> Result<String, YamlError> {
    edit(text, document, path, |holder, last| match holder {
        Holder::Mapping(mapping) => mapping.remove(last.text()).map(drop).ok_or("it is not there as a key of its own"),
        Holder::Sequence(sequence) => {
            let position = position(&sequence, last).ok_or("there is no list item of this name")?;
            sequence.remove(position).map(drop).ok_or("there is no list item of this name")
        }
    })
}

/// Sets the value at a path; mappings on the way are made where they are missing.
///
/// # Errors
/// [`YamlError`].
pub fn set(text: &str, document: usize, path: &[Part], value: &Value) -> Result<String, YamlError> {
    edit(text, document, path, |holder, last| {
        match holder {
            Holder::Mapping(mapping) => put(&mapping, last.text(), value),
            Holder::Sequence(sequence) => match (position(&sequence, last), node(value)) {
                (Some(at), Node::Mapping(node)) => {
                    sequence.set(at, node);
                }
                (Some(at), Node::Sequence(node)) => {
                    sequence.set(at, node);
                }
                (Some(at), Node::Scalar(node)) => {
                    sequence.set(at, node);
                }
                (None, _) => push(&sequence, value),
            },
        }
        Ok(())
    })
}

/// Changes the raw text of a scalar, block scalars line by line as they stand.
///
/// # Errors
/// [`YamlError`].
pub fn replace(
    text: &str,
    document: usize,
    path: &[Part],
    change: &dyn Fn(&str) -> Option<String>,
) -> Result<String, YamlError> {
    let stuck = |why: &str| not_editable(path, why);
    let parsed = parse(text)?;
    let root = root(&parsed, document).ok_or_else(|| stuck("the document is no mapping"))?;
    let mut at = root;
    for part in path {
        at = step(&at, part).ok_or_else(|| stuck("it is not there, or behind an alias"))?;
    }
    if !at.is_scalar() {
        return Err(stuck("it is no text"));
    }
    let range = at.byte_range();
    let (start, end) = (range.start as usize, range.end as usize);
    let (head, raw, tail) = (text.get(..start), text.get(start..end), text.get(end..));
    let (Some(head), Some(raw), Some(tail)) = (head, raw, tail) else { return Err(stuck("its place is not known")) };
    let raw = change(raw)
        .ok_or_else(|| stuck("the text stands there in another notation (escaped, or over several lines)"))?;
    Ok(format!("{head}{raw}{tail}"))
}

enum Holder {
    Mapping(Mapping),
    Sequence(Sequence),
}

enum Node {
    Mapping(Mapping),
    Sequence(Sequence),
    Scalar(ScalarValue),
}

fn parse(text: &str) -> Result<YamlFile, YamlError> {
    let bad = |why: String| YamlError::NotYaml { why };
    // The message may quote what stands there.
    let place = |error| match error {
        yaml_edit::YamlError::Parse { line: Some(line), column: Some(column), .. } => {
            format!("see line {line}, column {column}")
        }
        _ => "its documents do not end".to_owned(),
    };
    let parsed = YamlFile::from_str(text).map_err(|error| bad(place(error)))?;
    // The editor promises to keep every byte; a file for which it does not is not touched.
    if parsed.to_string() == text { Ok(parsed) } else { Err(bad("it cannot be read without loss".into())) }
}

fn root(file: &YamlFile, document: usize) -> Option<YamlNode> {
    file.documents().nth(document)?.as_mapping().map(YamlNode::Mapping)
}

fn edit(
    text: &str,
    document: usize,
    path: &[Part],
    change: impl FnOnce(Holder, &Part) -> Result<(), &'static str>,
) -> Result<String, YamlError> {
    let stuck = |why: &str| not_editable(path, why);
    let parsed = parse(text)?;
    let mut at = root(&parsed, document).ok_or_else(|| stuck("the document is no mapping"))?;
    let (last, before) = path.split_last().ok_or_else(|| stuck("the path is empty"))?;
    for part in before {
        if let Some(mapping) = at.as_mapping()
            && mapping.get(part.text()).is_none_or(|value| value.as_scalar().is_some_and(yaml_edit::Scalar::is_null))
        {
            mapping.set(part.text(), Mapping::new_pending_block());
        }
        at = step(&at, part).ok_or_else(|| stuck("the way to it ends at an alias or at a missing list item"))?;
    }
    let holder = match (at.as_mapping(), at.as_sequence()) {
        (Some(mapping), _) => Holder::Mapping(mapping.clone()),
        (_, Some(sequence)) => Holder::Sequence(sequence.clone()),
        _ => return Err(stuck("it would be inside an alias or a plain value")),
    };
    change(holder, last).map_err(stuck)?;
    Ok(parsed.to_string())
}

fn step(at: &YamlNode, part: &Part) -> Option<YamlNode> {
    if let Some(mapping) = at.as_mapping() {
        return mapping.get(part.text());
    }
    let sequence = at.as_sequence()?;
    sequence.get(position(sequence, part)?)
}

fn position(sequence: &Sequence, part: &Part) -> Option<usize> {
    let name = match part {
        Part::Key(_) => return None,
        Part::Named(name) => name,
        Part::At(position) => return Some(*position).filter(|position| *position < sequence.len()),
    };
    let named = |item: &YamlNode| Some(item.as_mapping()?.get("name")?.as_scalar()?.as_string());
    sequence.values().position(|item| named(&item).as_ref() == Some(name))
}

fn put(mapping: &Mapping, key: &str, value: &Value) {
    match node(value) {
        Node::Mapping(node) => mapping.set(key, node),
        Node::Sequence(node) => mapping.set(key, node),
        Node::Scalar(node) => mapping.set(key, node),
    }
}

fn push(sequence: &Sequence, value: &Value) {
    match node(value) {
        Node::Mapping(node) => sequence.push(node),
        Node::Sequence(node) => sequence.push(node),
        Node::Scalar(node) => sequence.push(node),
    }
}

fn node(value: &Value) -> Node {
    match value {
        Value::Object(map) => {
            let mapping = if map.is_empty() { Mapping::new_flow() } else { Mapping::new_pending_block() };
            map.iter().for_each(|(key, value)| put(&mapping, key, value));
            Node::Mapping(mapping)
        }
        Value::Array(list) => {
            let sequence = if list.is_empty() { Sequence::new_flow() } else { Sequence::new_pending_block() };
            list.iter().for_each(|value| push(&sequence, value));
            Node::Sequence(sequence)
        }
        Value::Null => Node::Scalar(ScalarValue::null()),
        Value::Bool(flag) => Node::Scalar(ScalarValue::from(*flag)),
        Value::Number(number) => Node::Scalar(match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => ScalarValue::from(whole),
            (None, Some(float)) => ScalarValue::from(float),
            (None, None) => ScalarValue::string(number.to_string()),
        }),
        Value::String(text) => Node::Scalar(scalar(text)),
    }
}

/// A text with quotes where it needs them, also for readers of YAML 1.1, to whom more words are numbers or yes and no.
fn scalar(text: &str) -> ScalarValue {
    let value = ScalarValue::string(text);
    let plain = value.style() == yaml_edit::ScalarStyle::Plain;
    let read = || serde_saphyr::from_str::<Value>(text).is_ok_and(|read| read.as_str() == Some(text));
    if plain && !read() { ScalarValue::single_quoted(text) } else { value }
}

fn not_editable(path: &[Part], why: &str) -> YamlError {
    YamlError::NotEditable { path: path::show(path), why: why.to_owned() }
}
