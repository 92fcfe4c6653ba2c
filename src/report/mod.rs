//! Renderings of a journal.
//!
//! [`Report::of`] turns the records of one run into plain rows; [`text()`], [`markdown()`] and [`json()`] show them.
//! All of it is pure: what a report says depends on the journal alone.

mod downtime;
mod markdown;
mod model;
mod text;
mod track;

pub use downtime::{Began, End, Outage, ended, outages};
pub use markdown::markdown;
pub use model::{ByHand, CallRow, Fell, Report, Row, Standing, Trouble, Word, next_commands, stays};
pub use text::{THERE_NOW, system, text};

/// The report as JSON: the fields of [`Report`], times in RFC 3339, lengths of time in milliseconds.
///
/// # Errors
/// None in practice: every field is plain data.
pub fn json(report: &Report) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(report)
}

#[cfg(test)]
mod tests;
