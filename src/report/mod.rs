//! Renderings of a journal.

use std::fmt::Write as _;

use serde_json::json;

use crate::engine::event::Record;
use crate::engine::state::{Illegal, RunState};

/// For a terminal.
///
/// # Errors
/// A line breaks a rule.
pub fn tree(id: &str, records: &[Record], _width: usize) -> Result<String, Illegal> {
    let mut text = format!("run {id}\n");
    let Some(state) = RunState::fold(records)? else { return Ok(text) };
    for planned in &state.opened.plan {
        let stage = format!("{:?}", state.stage(&planned.key)).to_lowercase();
        let _infallible = writeln!(text, "  {stage:<10} {:<24} {}", planned.key.to_string(), planned.title);
    }
    Ok(text)
}

/// For a wiki or a ticket.
///
/// # Errors
/// A line breaks a rule.
pub fn markdown(id: &str, records: &[Record]) -> Result<String, Illegal> {
    tree(id, records, 120)
}

/// For a program.
///
/// # Errors
/// A line breaks a rule.
pub fn json(id: &str, records: &[Record]) -> Result<serde_json::Value, Illegal> {
    Ok(json!({ "run": id, "records": records }))
}
