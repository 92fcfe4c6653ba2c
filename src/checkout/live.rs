//! Declared edits held against a live Kubernetes object.
//!
//! An API server adds defaults and writes quantities in its own way, so a live object is compared with more lenience
//! than a file: mappings may have more keys, except those whose keys are data of their own.

use serde_json::Value;

use crate::base::yaml::path::Part;

use super::edit::{Difference, Edit};
use super::error::CheckoutError;

/// Mappings in which an additional key means something else: nothing defaults them, somebody wrote it.
const WHOLE: [&str; 6] = ["nodeSelector", "matchLabels", "data", "binaryData", "limits", "requests"];
/// Mappings of resource quantities.
const QUANTITIES: [&str; 3] = ["limits", "requests", "capacity"];

impl Edit {
    /// What of the declared values a live object does not carry.
    pub fn differences_in(&self, object: &Value) -> Vec<Difference> {
        self.differences(object, |found, wanted, path| {
            let mut parts = path.parts().iter().rev().map(Part::text);
            let last = parts.next().unwrap_or_default();
            let quantity = parts.next().is_some_and(|parent| QUANTITIES.contains(&parent));
            if quantity { same_quantity(found, wanted) } else { same(found, wanted, last) }
        })
    }

    /// What of a file's text, at the places that this edit names, a live object does not carry; None where the object
    /// is not in the text.
    ///
    /// A value that is filled in when it is applied (`${NAME}`) is not compared. Where the text has no value, the
    /// live object may have a default, but not the declared value.
    ///
    /// # Errors
    /// The text is no YAML, or the object is there twice.
    pub fn drift(&self, text: &str, live: &Value) -> Result<Option<Vec<Difference>>, CheckoutError> {
        let Some(object) = self.object_in(text)? else { return Ok(None) };
        let places =
            |set, remove, replace| Self { file: self.file.clone(), object: self.object.clone(), set, remove, replace };
        let (mut set, mut remove, mut replace) = (Vec::new(), Vec::new(), Vec::new());
        for (path, declared) in self.set.iter().map(|(p, v)| (p, Some(v))).chain(self.remove.iter().map(|p| (p, None)))
        {
            let carried =
                |value: &Value| places(vec![(path.clone(), value.clone())], Vec::new(), Vec::new()).holds_in(live);
            match path.get(&object) {
                Some(value) if value.to_string().contains("${") => {}
                Some(value) => set.push((path.clone(), value.clone())),
                None if declared.is_none_or(carried) => remove.push(path.clone()),
                None => {}
            }
        }
        for (path, from, to) in &self.replace {
            let there = |from: &String, to: &String| vec![(path.clone(), from.clone(), to.clone())];
            let (now, back) = (there(from, to), there(to, from));
            let in_text = |replace| places(Vec::new(), Vec::new(), replace).holds_in(&object);
            if in_text(now.clone()) {
                replace.extend(now);
            } else if in_text(back.clone()) {
                replace.extend(back);
            }
        }
        Ok(Some(places(set, remove, replace).differences_in(live)))
    }

    /// True where a live object carries every declared value.
    pub fn holds_in(&self, object: &Value) -> bool {
        self.differences_in(object).is_empty()
    }
}

fn same(found: &Value, wanted: &Value, key: &str) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            let whole = !WHOLE.contains(&key) || found.len() == wanted.len();
            let quantity = QUANTITIES.contains(&key);
            whole
                && wanted.iter().all(|(key, wanted)| match found.get(key) {
                    Some(found) if quantity => same_quantity(found, wanted),
                    Some(found) => same(found, wanted, key),
                    // An empty value is not stored.
                    None => wanted.is_null(),
                })
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| same(found, wanted, ""))
        }
        _ => found == wanted,
    }
}

fn same_quantity(found: &Value, wanted: &Value) -> bool {
    found == wanted || matches!((quantity(found), quantity(wanted)), (Some(a), Some(b)) if a == b)
}

/// A quantity in thousandths (`100m`, `0.5`, `4Gi`, `1e3`); None where it is none or finer than that.
fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let split = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(split)?;
    let factor: i128 = match suffix {
        "" => 1000,
        "m" => 1,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            1000 * 10_i128.checked_pow(exponent)?
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?;
    let scaled: i128 = format!("{whole}{fraction}").parse().ok()?;
    let product = scaled.checked_mul(factor)?;
    let divisor = 10_i128.checked_pow(digits)?;
    (product % divisor == 0).then_some(product / divisor)
}
