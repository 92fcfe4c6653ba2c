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
#[derive(Debug, Clone)]
pub struct Reach {
    /// The text of a kubeconfig file with the context `lab`.
    pub kubeconfig: String,
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
