//! The Talos provider against the lab's Talos front, by way of the site file that the lab writes: each was made from
//! the reference alone, so where they understand each other both have understood it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anew;
mod changing;
mod fresh;
mod lost;
mod reading;
mod recovered;

use std::sync::Arc;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::permit::{Notebook, Permit};
use pvemig::estate::Estate;
use pvemig::lab::talos::Serving;
use pvemig::lab::talos::services::Stage;
use pvemig::lab::{Class, Front, Lab, LabOptions, World, load};
use pvemig::site::Site;
use pvemig::talos::Talos;

/// Lab seconds in a real one.
const SPEED: u32 = 500;
/// How long anything may take on a busy machine, in real time.
const LIMIT: Duration = Duration::from_secs(120);

const NUC: &str = "talos-nuc";
const VM: &str = "talos-vm";
const MAC: &str = "talos-mac";
const NODES: [&str; 3] = [NUC, VM, MAC];

/// Each version that is spoken, and the next one.
const VERSIONS: [(&str, &str); 4] =
    [("1.11.5", "1.12.11"), ("1.12.11", "1.13.9"), ("1.13.9", "1.14.0"), ("1.14.0", "1.14.1")];

struct Ground {
    lab: Lab,
    estate: Estate,
    permit: Permit,
    notebook: Arc<Notebook>,
    _dir: tempfile::TempDir,
}

impl Ground {
    /// Three nodes of a version.
    async fn new(version: &str) -> Self {
        let mut world = load("talos-three").unwrap();
        let slots = world.talos.nodes.values_mut().flat_map(|node| node.slots.values_mut());
        slots.for_each(|image| image.version = version.to_owned());
        Self::of(world).await
    }

    /// A lab of a world.
    async fn of(world: World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().to_owned(), speed: SPEED }).await.unwrap();
        // Of a cluster that is still to be built the lab has no kubeconfig: this is what a node will give out.
        let kubeconfig = lab.dir().join("kubeconfig");
        assert_eq!(kubeconfig.exists(), lab.shared().read(|w| !w.talos.etcd.members.is_empty()));
        if !kubeconfig.exists() {
            std::fs::write(&kubeconfig, &lab.reach().kubernetes.kubeconfig).unwrap();
            std::fs::set_permissions(&kubeconfig, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        let site = Site::load(&lab.dir().join("site.yaml")).unwrap();
        assert_eq!(site.check_references(), Vec::new());
        let estate = Estate::new(Arc::new(site), Clock::fast(SPEED), dir.path().join("state"));
        let (permit, notebook) = Notebook::permit();
        Self { lab, estate: estate.deadlines(LIMIT, LIMIT), permit, notebook, _dir: dir }
    }

    async fn talos(&self, node: &str) -> Arc<Talos> {
        self.estate.talos(node).await.unwrap()
    }

    fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        self.lab.shared().read(look)
    }

    fn boot(&self, node: &str) -> String {
        self.read(|w| w.talos.nodes[node].run.as_ref().unwrap().boot_id.clone())
    }

    async fn wait(&self, what: &str, mut look: impl FnMut(&World) -> bool) {
        let seen = self.lab.shared().until(LIMIT * SPEED, |w| look(w).then_some(())).await;
        assert!(seen.is_some(), "{what}");
    }

    /// Waits until a node runs in another boot than this and nothing is unmet.
    async fn back(&self, node: &str, before: &str) {
        self.wait(&format!("{node} is back"), |w| {
            let run = w.talos.nodes[node].run.as_ref();
            let settled = w.talos_status(node).is_some_and(|s| s.stage == Stage::Running && s.unmet.is_empty());
            settled && run.is_some_and(|run| run.boot_id != before)
        })
        .await;
    }

    fn count(&self, class: Class) -> usize {
        self.lab.shared().log.count(Front::Talos, class)
    }

    /// Each changing request that came was written down before it was sent, and nothing else was.
    fn all_noted(&self) -> usize {
        let (notes, changes) = (self.notebook.notes(), self.count(Class::Change));
        assert_eq!(notes.len(), changes, "{notes:?}");
        changes
    }
}
