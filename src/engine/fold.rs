//! What others who own a part of the estate must be told after a run, or their next apply undoes it.

use serde::Serialize;

/// What one of them must say by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fold {
    /// Whose words: `Terraform, provider bpg/proxmox`.
    pub owner: String,
    /// What happens without them, and what there is to know.
    pub why: Vec<String>,
    /// The language of the lines, as a Markdown fence names it.
    pub language: &'static str,
    /// The lines.
    pub lines: Vec<String>,
}
