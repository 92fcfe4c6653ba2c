//! Numbers and flags as a Perl server writes them: `1`, `"1"`, `true`, or not at all.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

fn scalar(value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(b) => Ok(Some(u8::from(b).to_string())),
        Value::String(s) => Ok(Some(s)),
        Value::Number(n) => Ok(Some(match n.as_f64() {
            // 17.0 for a count of seconds
            Some(f) if n.is_f64() && f.fract() == 0.0 => format!("{f:.0}"),
            _ => n.to_string(),
        })),
        Value::Array(_) => Err("expected a number or a text, found a list".into()),
        Value::Object(_) => Err("expected a number or a text, found a mapping".into()),
    }
}

fn parse<T: FromStr<Err: Display>, E: Error>(text: &str) -> Result<T, E> {
    text.trim().parse().map_err(|error| E::custom(format!("`{text}`: {error}")))
}

/// A number, as such or as text; absent or null is an error.
pub(super) fn number<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    match scalar(Value::deserialize(from)?).map_err(D::Error::custom)? {
        Some(text) => parse(&text),
        None => Err(D::Error::custom("expected a number, found null")),
    }
}

/// A number, as such or as text; null or an empty text is None. Use with `default` for absent ones.
pub(super) fn number_opt<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    match scalar(Value::deserialize(from)?).map_err(D::Error::custom)? {
        Some(text) if !text.is_empty() => parse(&text).map(Some),
        _ => Ok(None),
    }
}

/// A flag; null or an empty text is false. Use with `default` for absent ones.
pub(super) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match scalar(Value::deserialize(from)?).map_err(D::Error::custom)?.as_deref() {
        None | Some("" | "0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(other) => Err(D::Error::custom(format!("expected 0 or 1, found `{other}`"))),
    }
}

/// A text that may come as a number.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    scalar(Value::deserialize(from)?)
        .map_err(D::Error::custom)?
        .ok_or_else(|| D::Error::custom("expected a text, found null"))
}

/// A text that may come as a number; null is None. Use with `default` for absent ones.
pub(super) fn text_opt<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    scalar(Value::deserialize(from)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Row {
        #[serde(deserialize_with = "number")]
        vmid: u32,
        #[serde(default, deserialize_with = "number_opt")]
        uptime: Option<u64>,
        #[serde(default, deserialize_with = "flag")]
        online: bool,
        #[serde(default, deserialize_with = "text_opt")]
        value: Option<String>,
    }

    #[test]
    fn the_same_field_comes_in_several_shapes() {
        let rows = [
            (r#"{"vmid":108,"uptime":17,"online":1,"value":4096}"#, Some(17), true, Some("4096")),
            (r#"{"vmid":"108","uptime":"17","online":"1","value":"a"}"#, Some(17), true, Some("a")),
            (r#"{"vmid":108.0,"uptime":17.0,"online":true,"value":true}"#, Some(17), true, Some("1")),
            (r#"{"vmid":108,"uptime":null,"online":"","value":null}"#, None, false, None),
            (r#"{"vmid":108}"#, None, false, None),
        ];
        for (json, uptime, online, value) in rows {
            let row: Row = serde_json::from_str(json).unwrap();
            assert_eq!(
                (row.vmid, row.uptime, row.online, row.value.as_deref()),
                (108, uptime, online, value),
                "{json}"
            );
        }
        for bad in [r#"{}"#, r#"{"vmid":null}"#, r#"{"vmid":"x"}"#, r#"{"vmid":[1]}"#, r#"{"vmid":1,"online":"maybe"}"#]
        {
            assert!(serde_json::from_str::<Row>(bad).is_err(), "{bad}");
        }
    }
}
