//! A directory for what is only looked at: it goes with the command.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where a command that changes nothing puts what it has to fetch (a clone of a checkout's branch): gone when this is
/// dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// One of its own below the system's directory for such.
    ///
    /// # Errors
    /// The file system refused.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = std::env::temp_dir().join(format!("pvemig-{name}"));
        // Nobody else may put anything there first, or look at what is fetched.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _stays_where_it_cannot_go = std::fs::remove_dir_all(&self.0);
    }
}
