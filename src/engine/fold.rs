//! What others who own a part of the estate must be told after a run, or their next apply undoes it.

use serde::Serialize;

/// The owner of what the site file itself must say: a run's end shows that at once, and not only in its report.
pub const SITE_FILE: &str = "the site file";

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
