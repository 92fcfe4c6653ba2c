//! A lab with its estate, for the proof of a blueprint.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvemig::base::check::Hands;
use pvemig::base::clock::Clock;
use pvemig::blueprint::{self, BoxedStep};
use pvemig::estate::Estate;
use pvemig::lab::{self, Lab, LabOptions, Place, World};
use pvemig::site::Site;
use serde_json::Value;

use super::{Bench, How, Run};

/// Simulated seconds in a real one.
pub const SPEED: u32 = 100;

/// A world at rest, which is brought there once for all labs of a test program.
pub fn at_rest(name: &str) -> World {
    at_rest_after(name, "", |_| {})
}

/// As [`at_rest`], of a world that something befell before it came to rest; `what` names that.
pub fn at_rest_after(name: &str, what: &str, befell: impl FnOnce(&mut World)) -> World {
    static KNOWN: Mutex<BTreeMap<String, World>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap();
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        let mut world = lab::load(name).unwrap();
        // What a lost call left is watched in real time, and the lab's runs ahead of that: a node that waits for a
        // service stays as it is for as long as a test takes.
        world.talos.timing.stuck = 7 * 24 * 3_600_000;
        befell(&mut world);
        Lab::at_rest(world, dir.path()).unwrap()
    };
    known.entry(format!("{name} {what}")).or_insert_with(fresh).clone()
}

/// The steps of the site's only migration.
fn plan(site: &Site) -> Vec<BoxedStep> {
    let (name, migration) = site.migrations.iter().next().unwrap();
    blueprint::named(&migration.blueprint).unwrap().build(site, name).unwrap()
}

pub struct Rig {
    pub lab: Arc<Lab>,
    pub site: Arc<Site>,
    pub estate: Estate,
    pub bench: Bench,
    pub steps: Vec<BoxedStep>,
}

impl Rig {
    /// A fresh world with its only migration's steps.
    pub async fn new(world: &str) -> Self {
        Self::of(at_rest(world), |_| {}).await
    }

    /// A world with the steps of its only migration, after `edit` of the site that the lab wrote.
    pub async fn of(world: World, edit: impl FnOnce(&mut Value)) -> Self {
        Self::at(SPEED, world, edit).await
    }

    /// At another speed than the usual one, for a world whose machines take real time.
    pub async fn at(speed: u32, world: World, edit: impl FnOnce(&mut Value)) -> Self {
        // Where the engine asked at shorter intervals than the world moves, it would ask the same many times.
        let bench = Bench { clock: Clock::fast(speed), ..Bench::new() };
        let dir = bench.dir().join("lab");
        let options = LabOptions { world, dir: dir.clone(), speed };
        let lab = Arc::new(Lab::start(options).await.unwrap());
        let file = dir.join("site.yaml");
        let mut site: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        edit(&mut site);
        std::fs::write(&file, serde_saphyr::to_string(&site).unwrap()).unwrap();
        let site = Arc::new(Site::load(&file).unwrap());
        let steps = plan(&site);
        let estate = Estate::new(site.clone(), Clock::fast(speed), bench.store.dir().to_owned());
        Self { lab, site, estate, bench, steps }
    }

    pub fn dir(&self) -> &Path {
        self.lab.dir()
    }

    /// Gives a silent server up early.
    pub fn hasty(mut self) -> Self {
        self.estate = self.estate.deadlines(Duration::from_secs(8), Duration::from_secs(8));
        self
    }

    /// Puts the steps back to what the site says.
    pub fn mend(&mut self) {
        self.steps = plan(self.estate.site());
    }

    /// The world as it is compared, once nothing is on its way any more.
    pub async fn picture(&self) -> Value {
        let at_rest = |world: &lab::World| {
            let picture = world.compared();
            let pods = picture["kubernetes"]["pods"].as_object()?;
            let ready = pods.keys().all(|pod| pod.ends_with(" ready"));
            // Flux reconciles every now and then, whoever looks.
            let objects = picture["kubernetes"]["objects"].as_object()?;
            let reconciles = |object: &Value| object.pointer("/status/conditions/Reconciling").is_some();
            let nodes = picture["talos"]["nodes"].as_object();
            let waits = |node: &Value| node["run"]["maintenance"] == true;
            let booting = |node: &Value| node["off"] != true && node["run"]["booted"] != true && !waits(node);
            let boots = nodes.is_some_and(|nodes| nodes.values().any(booting));
            // A copy that missed something is on its way.
            let rebuilds = picture["kubernetes"]["replicas"].as_object()?.values().any(|whole| *whole == false);
            (ready && !boots && !rebuilds && !objects.values().any(reconciles)).then_some(picture)
        };
        let picture = self.lab.shared().until(Duration::from_secs(900), at_rest).await;
        picture.unwrap_or_else(|| self.lab.compared())
    }

    /// The world some minutes later, however long it takes until its pods are ready.
    pub async fn later(&self) -> Value {
        self.lab.shared().until(Duration::from_secs(300), |_| None::<()>).await;
        self.picture().await
    }

    /// A client of the lab's cluster that knows nothing of pvemig's own.
    pub async fn cluster(&self) -> kube::Client {
        let file = kube::config::Kubeconfig::from_yaml(&self.lab.reach().kubernetes.kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// The changing requests that the lab saw.
    pub fn changes(&self) -> usize {
        let log = std::fs::read_to_string(self.dir().join("requests.jsonl")).unwrap();
        log.lines().filter(|line| line.contains("\"class\":\"change\"")).count()
    }

    fn hands(&self) -> impl Fn(&Hands) + Send + Sync + 'static {
        let lab = self.lab.clone();
        move |hands| match hands {
            Hands::Plug { device, host, port, .. } => {
                let port =
                    port.clone().unwrap_or_else(|| if host == "still-fawn" { "2-3".into() } else { "2-1".into() });
                lab.move_stick(device, Some(Place { host: host.clone(), port })).unwrap();
            }
            Hands::Swap { new, .. } => drop(lab.swap(new).unwrap()),
            Hands::Drives { node, moves, medium, on } => {
                drop(lab.hands_on_drives(node, moves, medium.as_deref(), *on).unwrap());
            }
            Hands::Push { branch, commit, from, .. } => drop(lab.push(Path::new(from), commit, branch).unwrap()),
        }
    }

    /// Forwards, from the beginning or with a run.
    pub async fn forward(&self, id: Option<&str>, how: &How) -> Run {
        self.bench.go(&self.estate, &self.steps, id, false, how, self.hands()).await
    }

    /// Backwards, with every consent that the steps ask for.
    pub async fn backward(&self, id: &str, how: &How) -> Run {
        let state = self.bench.read(id).state;
        let planned = &state.opened.plan;
        let steps = &self.steps[..planned.len()];
        let mut consents = how.consents.clone();
        for step in steps {
            if let Some(before) = state.steps.get(&step.key()).and_then(|s| s.before.as_ref()) {
                consents.extend(step.undo_destroys(before).unwrap().into_iter().map(|t| t.0));
            }
        }
        let how = How { consents, past: how.past.clone(), ..how.clone() };
        self.bench.go(&self.estate, steps, Some(id), true, &how, self.hands()).await
    }
}
