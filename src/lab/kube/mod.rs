//! The Kubernetes front.

use std::path::Path;
use std::sync::Arc;

use super::clock::LabTime;
use super::wire::Authority;
use super::world::World;
use super::{Fronts, LabError, Shared};

/// Kubernetes objects and what watches them.
#[derive(Debug, Clone, Default)]
pub struct Kube {}

/// What others need to reach the front.
#[derive(Clone)]
pub struct Reach {
    /// The text of a kubeconfig file with the context `lab`.
    pub kubeconfig: String,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reach(…)")
    }
}

/// Makes what a world needs before it starts: objects from `worlds/*.kube.yaml`, the bare repository `DIR/gitops.git`
/// and the checkout `DIR/checkout`.
///
/// # Errors
/// [`LabError`] where files cannot be made.
pub fn prepare(_world: &mut World, _dir: &Path) -> Result<(), LabError> {
    Ok(())
}

/// Lets the controllers work as of `now`; called after every change of the world and whenever something is due. True
/// where they changed something (they are then asked again).
pub fn tick(_world: &mut World, _now: LabTime) -> bool {
    false
}

/// When the controllers want to be asked next, if nothing else happens. Must lie after the last [`tick`].
pub fn due(_world: &World) -> Option<LabTime> {
    None
}

/// Starts the front on a port of its own.
///
/// # Errors
/// [`LabError`] where no port can be had.
pub async fn serve(_shared: &Arc<Shared>, _authority: &Authority, _fronts: &mut Fronts) -> Result<Reach, LabError> {
    Ok(Reach { kubeconfig: String::new() })
}

/// The Kubernetes side and the tip of the followed branch, as they are compared; see `lab::compare`.
pub fn compared(_world: &World) -> serde_json::Value {
    serde_json::Value::Null
}

/// Pushes what `DIR/checkout` has committed to `DIR/gitops.git`, as a person would; returns the tip.
///
/// # Errors
/// [`LabError::Hands`] where there is nothing to push from.
pub async fn push(_shared: &Arc<Shared>, dir: &Path) -> Result<String, LabError> {
    Err(LabError::Hands(format!("there is no checkout in {}", dir.display())))
}
