//! Parameters: query, form and JSON bodies are one flat map; each call says which it takes.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::front::No;

/// The text for a parameter that a call does not take.
pub(super) const UNKNOWN: &str =
    "property is not defined in schema and the schema does not allow additional properties";
/// The text for a parameter that a call needs.
pub(super) const MISSING: &str = "property is missing and it is not optional";

/// The parameters of a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Params(BTreeMap<String, Value>);

impl Params {
    /// Those of a request. `_dc` is dropped.
    pub(super) fn read(request: &Request<Bytes>) -> Result<Self, No> {
        let mut out = Self::default();
        out.form(request.uri().query().unwrap_or_default());
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        match kind.split(';').next().unwrap_or_default().trim() {
            "" | "application/x-www-form-urlencoded" => out.form(&String::from_utf8_lossy(request.body())),
            "application/json" => {
                if !request.body().is_empty() {
                    let body: Value = serde_json::from_slice(request.body())
                        .map_err(|e| No::Says(500, format!("malformed JSON string: {e}")))?;
                    let map = body.as_object().cloned().ok_or_else(|| No::die("JSON body is no object"))?;
                    out.0.extend(map.into_iter().filter(|(_, v)| !v.is_null()));
                }
            }
            other => return Err(No::Bare(506, format!("unsupported content type '{other}'"))),
        }
        out.0.remove("_dc");
        Ok(out)
    }

    fn form(&mut self, text: &str) {
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
            let value = Value::String(plain(value));
            match self.0.entry(plain(key)).or_insert(Value::Null) {
                old @ Value::Null => *old = value,
                Value::Array(list) => list.push(value),
                old => *old = Value::Array(vec![old.take(), value]),
            }
        }
    }

    /// Names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Refuses what is in neither list, and demands what is in the first.
    pub(super) fn accept(&self, required: &[&str], optional: &[&str]) -> Result<(), No> {
        let mut errors = BTreeMap::new();
        for name in self.names().filter(|n| !required.contains(n) && !optional.contains(n)) {
            errors.insert(name.to_owned(), UNKNOWN.to_owned());
        }
        for name in required.iter().filter(|n| !self.0.contains_key(**n)) {
            errors.insert((*name).to_owned(), MISSING.to_owned());
        }
        if errors.is_empty() { Ok(()) } else { Err(No::Verify(errors)) }
    }

    /// A parameter as text; several values of one name are joined by commas.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(plain)
    }

    /// A parameter as a list; a single value is a list of one.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            None => Vec::new(),
            Some(Value::Array(list)) => list.iter().map(plain).collect(),
            Some(one) => vec![plain(one)],
        }
    }

    /// A boolean: exactly 0 or 1 as text, or a JSON boolean.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, No> {
        self.text(name).map(|text| flag(&text).map_err(|e| No::param(name, e))).transpose()
    }

    /// An integer.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, No> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| No::param(name, format!("type check ('integer') failed - got '{text}'")))
            })
            .transpose()
    }
}

/// `0` or `1`, else Proxmox's text.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(format!("type check ('boolean') failed - got '{other}'")),
    }
}

/// Splits a `*-list` parameter.
pub(super) fn split_list(text: &str) -> Vec<String> {
    text.split([',', ';', ' ', '\0']).filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => u8::from(*flag).to_string(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
