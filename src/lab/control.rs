//! The control socket of a running lab, so that another process can move a stick.

use std::path::Path;
use std::sync::Arc;

use super::{Fronts, LabError, Shared};

/// Serves `DIR/control`.
///
/// # Errors
/// [`LabError::Io`]
pub fn serve(shared: &Arc<Shared>, dir: &Path, fronts: &mut Fronts) -> Result<(), LabError> {
    let _ = (shared, dir, fronts);
    Ok(())
}

/// Asks a running lab to move a stick.
///
/// # Errors
/// [`LabError::Control`]
pub async fn move_stick(dir: &Path, stick: &str, host: &str, port: Option<&str>) -> Result<String, LabError> {
    let _ = (dir, stick, host, port);
    Err(LabError::Control("it has no control socket yet".into()))
}
