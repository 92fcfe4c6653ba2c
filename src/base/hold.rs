//! The mark that a hold leaves on what it holds, so that two operators on two machines meet.

use serde::{Deserialize, Serialize};

/// The annotation key of the mark.
pub const MARK: &str = "pvemig.io/hold";

/// The mark's value: JSON in one annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The run that put it up.
    pub run: String,
    /// The machine on which that run's journal is.
    pub host: String,
    /// The former state, in the holder's own shape.
    pub was: serde_json::Value,
}

impl Mark {
    /// The annotation's value.
    pub fn to_annotation(&self) -> String {
        serde_json::json!({ "run": self.run, "host": self.host, "was": self.was }).to_string()
    }

    /// Reads an annotation's value.
    ///
    /// # Errors
    /// The value is not a mark; the text says how.
    pub fn parse(value: &str) -> Result<Self, String> {
        // The place alone: the error's own text quotes what is there.
        serde_json::from_str(value)
            .map_err(|error| format!("annotation {MARK} is not a mark of pvemig, see its column {}", error.column()))
    }
}
