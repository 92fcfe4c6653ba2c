//! Where the values of a text stand.

use std::ops::Range;

use yaml_edit::{YamlFile, YamlNode};

use super::path::Part;
use super::{YamlError, parse};

/// A value that is neither a mapping nor a list, in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The number of its document, from 0 on.
    pub document: usize,
    /// The way to it: keys and positions.
    pub path: Vec<Part>,
    /// Its bytes, with quotes or the sign of a block.
    pub bytes: Range<usize>,
}

/// All values of a text, in order.
///
/// # Errors
/// [`YamlError::NotYaml`]; [`YamlError::NotEditable`] where a key is no plain one, or a value has a tag.
pub fn leaves(text: &str) -> Result<Vec<Leaf>, YamlError> {
    let file = parse(text)?;
    let mut out = Vec::new();
    for (document, root) in file.documents().enumerate() {
        let root = root
            .as_mapping()
            .map(YamlNode::Mapping)
            .or_else(|| root.as_sequence().map(YamlNode::Sequence))
            .or_else(|| root.as_scalar().map(YamlNode::Scalar));
        match root {
            Some(root) => walk(document, &root, &mut Vec::new(), &mut out)?,
            None if documents_empty(&file, document) => {}
            None => return Err(super::not_editable(&[], "the document is neither a mapping nor a list nor a value")),
        }
    }
    Ok(out)
}

fn documents_empty(file: &YamlFile, document: usize) -> bool {
    let text = file.documents().nth(document).map(|document| document.to_string()).unwrap_or_default();
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
    })
}

/// The comments of a text, in order.
///
/// # Errors
/// [`YamlError::NotYaml`].
pub fn comments(text: &str) -> Result<Vec<Range<usize>>, YamlError> {
    Ok(parse(text)?.comments().map(|comment| bytes(comment.byte_range())).collect())
}

/// The line, from 1 on, on which a value stands, or the last part of the way to it that is there.
pub fn line(text: &str, document: usize, path: &[Part]) -> usize {
    let start = || {
        let file = parse(text).ok()?;
        let document = file.documents().nth(document)?;
        let mut at = YamlNode::Mapping(document.as_mapping()?);
        for part in path {
            match super::step(&at, part) {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(bytes(at.byte_range()).start)
    };
    let start = start().unwrap_or_default();
    1 + text.get(..start).map(|head| head.matches('\n').count()).unwrap_or_default()
}

fn bytes(range: yaml_edit::TextPosition) -> Range<usize> {
    range.start as usize..range.end as usize
}

fn walk(document: usize, node: &YamlNode, path: &mut Vec<Part>, out: &mut Vec<Leaf>) -> Result<(), YamlError> {
    if let Some(mapping) = node.as_mapping() {
        for entry in mapping.entries() {
            let key = entry.key_node().and_then(|key| key.as_scalar().map(yaml_edit::Scalar::as_string));
            let Some(key) = key else { return Err(super::not_editable(path, "one of its keys is no plain one")) };
            path.push(Part::Key(key));
            if let Some(value) = entry.value_node() {
                walk(document, &value, path, out)?;
            }
            path.pop();
        }
    } else if let Some(sequence) = node.as_sequence() {
        for (position, value) in sequence.values().enumerate() {
            path.push(Part::At(position));
            walk(document, &value, path, out)?;
            path.pop();
        }
    } else if node.is_scalar() || node.is_alias() {
        out.push(Leaf { document, path: path.clone(), bytes: bytes(node.byte_range()) });
    } else {
        return Err(super::not_editable(path, "it has a tag"));
    }
    Ok(())
}
