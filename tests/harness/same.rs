//! Whether two worlds are the same, and whether a run ended as it should.

use pvemig::engine::run::Ended;
use serde_json::Value;

use super::Run;

/// What two pictures differ in, for a message that can be read.
fn differences(a: &Value, b: &Value) -> Vec<String> {
    fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
        match (a, b) {
            (Value::Object(x), Value::Object(y)) => {
                let mut keys: Vec<_> = x.keys().chain(y.keys()).collect();
                keys.sort();
                keys.dedup();
                for key in keys {
                    let (x, y) = (x.get(key).unwrap_or(&Value::Null), y.get(key).unwrap_or(&Value::Null));
                    walk(&format!("{path}/{key}"), x, y, out);
                }
            }
            (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
                for (n, (x, y)) in x.iter().zip(y).enumerate() {
                    walk(&format!("{path}/{n}"), x, y, out);
                }
            }
            _ if a != b => out.push(format!("{path}: {a} | {b}")),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", a, b, &mut out);
    out
}

pub fn assert_same(a: &Value, b: &Value, what: &str) {
    let differences = differences(a, b);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

pub fn assert_done(run: &Run, what: &str) {
    assert!(matches!(run.ended, Ok(Ended::Done)), "{what}: {:#?}", run.ended);
}

pub fn assert_undone(run: &Run, what: &str) {
    assert!(matches!(run.ended, Ok(Ended::Undone)), "{what}: {:#?}", run.ended);
}
