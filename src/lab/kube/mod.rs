//! The Kubernetes front: an API server, its controllers, kubelets, a provisioner and Flux.
//!
//! Objects are JSON as the real server writes it. [`tick`] lets the controllers work: each looks at the objects and at
//! the machines as they are now and does one thing at a time, like the real ones.

mod admit;
mod apply;
mod call;
mod cells;
mod cluster;
pub mod compared;
mod control;
mod discovery;
mod evict;
mod exec;
mod fields;
mod flux;
mod front;
mod json;
pub mod kinds;
mod logs;
pub mod mayastor;
mod nodes;
mod patch;
mod programs;
mod quantity;
mod rbac;
mod read;
mod scale;
mod schema;
mod select;
pub mod status;
pub mod store;
mod table;
#[cfg(test)]
mod tests;
mod valid;
mod watch;
mod write;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::clock::LabTime;
use super::wire::Authority;
use super::world::World;
use super::{Fronts, LabError, Shared};
use store::Store;

/// Kubernetes objects and what watches them.
#[derive(Debug, Clone, Default)]
pub struct Kube {
    /// The objects.
    pub store: Store,
    /// API groups that this cluster lacks.
    pub absent: BTreeSet<String>,
    /// `v1.32.4+k3s1`
    pub version: String,
    /// Objects that it begins with beside those of its file, in order of creation.
    pub more: Vec<Value>,
    /// What is put into it when its API comes up for the first time.
    manifests: Vec<Value>,
    /// It has nothing in it yet.
    empty: bool,
    /// What programs in pods do.
    workloads: Vec<cluster::Workload>,
    /// The bearer token of the kubeconfig.
    token: String,
    /// Whom it stands for; None: an administrator.
    user: Option<String>,
    /// The bearer token of the kubeconfig's context `admin`, where `user` is somebody else.
    admin: String,
    /// Mayastor's volumes, where it is there.
    mayastor: mayastor::State,
    /// What the controllers remember.
    control: control::State,
    /// What Flux's controllers remember.
    flux: flux::State,
}

/// What others need to reach the front.
#[derive(Clone)]
pub struct Reach {
    /// The text of a kubeconfig file with the context `lab`, and with `admin` where that is somebody else.
    pub kubeconfig: String,
    /// The text of one that an administrator is given by a Talos node.
    pub administrator: String,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reach(…)")
    }
}

impl Kube {
    /// Whether Flux follows the repository.
    pub(super) fn is_followed(&self) -> bool {
        self.store.get(kinds::repositories(), "flux-system", "flux-system").is_some()
    }

    /// It is another cluster from now on, or the same one at an earlier time: these are its objects.
    pub(super) fn begin_from(&mut self, revision: u64, objects: Vec<Value>) {
        self.empty = objects.is_empty();
        self.store.restore(revision, objects);
        self.control.begin_anew();
    }

    /// An object as it is answered: a kubelet that lives renews its lease and its heartbeat all the time; that is said
    /// when somebody looks, so that it need not be written ten times a minute.
    fn presented(&self, object: &Arc<Value>, now: jiff::Timestamp) -> Arc<Value> {
        self.control.presented(object, now)
    }
}

/// The present as objects write it.
fn time(world: &World) -> jiff::Timestamp {
    let since = jiff::SignedDuration::try_from(world.now).unwrap_or_default();
    jiff::Timestamp::from_second(world.zero).ok().and_then(|zero| zero.checked_add(since).ok()).unwrap_or_default()
}

/// Makes what a world needs before it starts: objects from `worlds/*.kube.yaml`, the bare repository `DIR/gitops.git`
/// and the checkout `DIR/checkout`.
///
/// # Errors
/// [`LabError`] where files cannot be made.
pub fn prepare(world: &mut World, dir: &Path) -> Result<(), LabError> {
    let mut bytes = [0_u8; 48];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let token = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
    let (own, admin) = bytes.split_at(24);
    (world.kube.token, world.kube.admin) = (token(own), token(admin));
    world.kube.user.clone_from(&world.cluster_user);
    let Some(cluster) = world.cluster.clone() else { return Ok(()) };
    if !world.begun {
        // Its objects are as old as the lab's history; the clock has not started yet.
        let then = crate::base::clock::Clock::real().now().as_second() - 60 * 86_400;
        world.kube.store.now = jiff::Timestamp::from_second(then).unwrap_or_default().to_string();
        cluster::load(&mut world.kube, &cluster)?;
        world.kube.mayastor = mayastor::State::of(&world.mayastor);
    }
    // Its first commit is the same one in every lab, so a world that was brought to rest elsewhere is at it already.
    let bare = dir.join("gitops.git");
    flux::create(&bare, &dir.join("checkout"))?;
    world.kube.flux.bare = Some(bare);
    Ok(())
}

/// The Kubernetes side and the tip of the followed branch, as they are compared; see `lab::compare`.
pub fn compared(world: &World) -> Value {
    compared::compared(world)
}

/// What stands for the volumes' names, which are made from uids, in a comparison.
pub fn volume_names(world: &World) -> std::collections::BTreeMap<String, String> {
    compared::volume_names(world)
}

/// Pushes what `DIR/checkout` has committed to `DIR/gitops.git`, as a person would; returns the tip.
///
/// # Errors
/// [`LabError::Hands`] where git refuses.
pub async fn push(_shared: &Arc<Shared>, dir: &Path) -> Result<String, LabError> {
    let (checkout, bare) = (dir.join("checkout"), dir.join("gitops.git"));
    let pushed = tokio::task::spawn_blocking(move || flux::push(&checkout, &bare)).await;
    pushed.map_err(|e| LabError::Hands(e.to_string()))?.map_err(LabError::Hands)
}

/// Pushes a commit of another repository by way of `DIR/checkout`; returns the branch's tip.
///
/// # Errors
/// [`LabError::Hands`] where git refuses.
pub fn push_from(dir: &Path, from: &Path, commit: &str, branch: &str) -> Result<String, LabError> {
    flux::push_from(&dir.join("checkout"), &dir.join("gitops.git"), from, commit, branch).map_err(LabError::Hands)
}

/// Lets what is written next bear the present time, whether or not a controller has anything to do.
pub(super) fn tell_time(world: &mut World) {
    world.kube.store.now = control::stamp(world, world.now);
}

/// Lets the controllers work as of `now`; called after every change of the world and whenever something is due. True
/// where they changed something (they are then asked again).
pub fn tick(world: &mut World, now: LabTime) -> bool {
    control::tick(world, now)
}

/// Lets the controllers work from an earlier time on: something befell the machines then.
pub(super) fn relive(world: &mut World, then: LabTime) {
    control::relive(world, then);
}

/// The API has taken nothing since an earlier time.
pub(super) fn stand_still(world: &mut World, then: LabTime) {
    control::stand_still(world, then);
}

/// When the controllers want to be asked next, if nothing else happens. Must lie after the last [`tick`].
pub fn due(world: &World) -> Option<LabTime> {
    world.kube.control.due()
}

/// Starts the front on a port of its own.
///
/// # Errors
/// [`LabError`] where no port can be had.
pub async fn serve(shared: &Arc<Shared>, authority: &Authority, fronts: &mut Fronts) -> Result<Reach, LabError> {
    front::serve(shared, authority, fronts).await
}
