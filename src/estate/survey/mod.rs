//! Fills a survey: all layers side by side, nothing read twice, lists rather than single objects. It only reads.
//!
//! A system that does not answer costs its own deadline once: what hangs on its first answer is not asked then, and gets
//! the same reason.

pub(super) mod config;
mod kubernetes;
mod machine;
pub(super) mod talos;
mod waiting;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::Estate;
use crate::base::fault::{Failure, Fault};
use crate::base::survey::{self, Kind, Layer, Majority, Place, ProxmoxCluster, Survey, TalosCluster};
use crate::base::wait::{Elapsed, limit, within};
use crate::site::{self, ProxmoxAuth};

/// Why something is not known, for everything that hangs on it.
#[derive(Debug, Clone)]
pub(super) struct Why {
    pub(super) reason: String,
    pub(super) help: Option<String>,
}

impl Why {
    pub(super) fn of(failure: &Failure) -> Self {
        Self { reason: failure.to_string(), help: failure.fault().help() }
    }

    fn layer<T>(&self) -> Layer<T> {
        Layer::Unknown { reason: self.reason.clone(), help: self.help.clone() }
    }
}

impl<F: Fault> From<F> for Why {
    fn from(fault: F) -> Self {
        Self::of(&fault.into())
    }
}

/// The answer to a question, or why there is none.
fn layer<T, E: Into<Why>>(answer: Result<T, E>) -> Layer<T> {
    match answer {
        Ok(value) => Layer::Known(value),
        Err(error) => error.into().layer(),
    }
}

/// A node of the site, of either kind.
enum Asked<'a> {
    Vm(&'a str, &'a site::Node),
    Talos { name: &'a str, cluster: &'a str, of: &'a site::TalosCluster, node: &'a site::TalosNode },
}

impl Asked<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Vm(name, _) | Self::Talos { name, .. } => name,
        }
    }

    fn kubernetes(&self) -> &str {
        match self {
            Self::Vm(_, node) => &node.kubernetes,
            Self::Talos { of, .. } => &of.kubernetes,
        }
    }

    fn node_name(&self) -> &str {
        match self {
            Self::Vm(_, node) => &node.node_name,
            Self::Talos { node, .. } => &node.node_name,
        }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Vm(_, node) => Some(Place { proxmox: node.proxmox.clone(), vmid: node.vmid }),
            Self::Talos { node, .. } => node.vm.as_ref().map(|vm| Place { proxmox: vm.proxmox.clone(), vmid: vm.vmid }),
        }
    }
}

impl Estate {
    /// A layer under its deadline. The questions have their own, which say more; this one bounds their sum, and has room
    /// for two of them, one after the other, where they may take longer than usual.
    pub(super) async fn bounded<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T, Why> {
        self.bounded_since(self.clock.instant(), what, work).await
    }

    /// The same, of which the layer has used up a part by now.
    async fn bounded_since<T>(&self, begun: Instant, what: &str, work: impl Future<Output = T>) -> Result<T, Why> {
        let (read, _) = self.deadlines.unwrap_or((limit::SURVEY, limit::CHANGE));
        let whole = limit::SURVEY_LAYER.max(read * 5 / 2);
        let done = within(whole.saturating_sub(self.clock.instant().duration_since(begun)), work).await;
        done.map_err(|Elapsed(limit)| Why { reason: format!("{what}: {}", Elapsed(limit)), help: None })
    }

    /// Looks at these nodes of the site, or at all of them where none is named. What cannot be asked is in the survey with
    /// the reason.
    ///
    /// # Errors
    /// [`OpenError::Unknown`](super::OpenError) for a node that the site has not.
    pub async fn survey(&self, only: &[String]) -> Result<Survey, Failure> {
        let (at, begun) = (self.clock.now(), self.clock.instant());
        let all = nodes(&self.site);
        for name in only {
            if !all.iter().any(|node| node.name() == name) {
                return Err(self.unknown("node", name).into());
            }
        }
        let asked: Vec<&Asked> =
            all.iter().filter(|node| only.is_empty() || only.iter().any(|name| name == node.name())).collect();
        let places: BTreeMap<String, machine::Cluster> =
            asked.iter().filter_map(|node| Some((node.place()?.proxmox, machine::Cluster::default()))).collect();
        let clusters: BTreeMap<&str, kubernetes::Cluster> =
            asked.iter().map(|node| (node.kubernetes(), kubernetes::Cluster::default())).collect();
        let known = |cluster: &str| -> Vec<&str> {
            all.iter().filter(|node| node.kubernetes() == cluster).map(|node| node.node_name()).collect()
        };
        let nodes = join_all(asked.iter().map(|node| Box::pin(self.row(node, &places, &clusters))));
        let kubernetes =
            join_all(clusters.iter().map(|(name, cluster)| Box::pin(cluster.facts(self, name, known(name)))));
        let (nodes, kubernetes) = futures::join!(nodes, kubernetes);
        let talos: BTreeMap<&str, &site::TalosCluster> = asked
            .iter()
            .filter_map(|node| match node {
                Asked::Talos { cluster, of, .. } => Some((*cluster, *of)),
                Asked::Vm(..) => None,
            })
            .collect();
        let talos = talos.into_iter().map(|(name, of)| talos::cluster(name, of)).collect();
        let took = self.clock.instant().duration_since(begun);
        let mut survey = Survey {
            site: self.site.name.clone(),
            at,
            took_ms: millis(took),
            partial: nodes.len() < all.len(),
            nodes,
            proxmox: places.keys().filter_map(|name| self.caller(name)).collect(),
            kubernetes,
            talos,
        };
        for cluster in survey.talos.clone() {
            without_an_api(&mut survey, &cluster);
        }
        Ok(survey)
    }

    /// Everything about one node.
    async fn row(
        &self,
        node: &Asked<'_>,
        places: &BTreeMap<String, machine::Cluster>,
        clusters: &BTreeMap<&str, kubernetes::Cluster>,
    ) -> survey::Node {
        let place = node.place();
        let cluster = place.as_ref().and_then(|place| places.get(&place.proxmox));
        let machine = async {
            match (node, &place, cluster) {
                (Asked::Vm(name, settings), Some(place), Some(cluster)) => {
                    machine::with_guest(self, cluster, place, name, settings).await
                }
                (Asked::Talos { .. }, Some(place), Some(cluster)) => {
                    let (vm, agent) = machine::without_shell(self, cluster, place).await;
                    (vm, agent, Layer::Absent)
                }
                _ => (Layer::Absent, Layer::Absent, Layer::Absent),
            }
        };
        let talos = async {
            match node {
                Asked::Vm(..) => talos::Told::nothing(),
                Asked::Talos { name, .. } => talos::node(self, name).await,
            }
        };
        let kube = async {
            match clusters.get(node.kubernetes()) {
                Some(cluster) => cluster.node(self, node.kubernetes(), node.node_name()).await,
                None => (Layer::Absent, Layer::Absent),
            }
        };
        let ((vm, agent, guest), mut told, (mut kubelet, mut workloads)) =
            futures::join!(Box::pin(machine), Box::pin(talos), Box::pin(kube));
        // A machine that is off cannot answer: that is mended first.
        if let (Some(vm), Some(place), true) = (vm.known(), &place, told.silent)
            && !vm.is_running()
        {
            told.off(&format!("its VM is {}: on {}: `qm start {}`", vm.power, vm.host, place.vmid));
        }
        // Without a configuration there is no kubelet on it: what Kubernetes has by its name is of another day.
        if told.waiting.is_some() && kubelet.is_unknown() {
            (kubelet, workloads) = (Layer::Absent, Layer::Absent);
        }
        survey::Node {
            name: node.name().to_owned(),
            kind: match (node, &place) {
                (Asked::Vm(..), _) => Kind::Vm,
                (Asked::Talos { .. }, Some(_)) => Kind::TalosVm,
                (Asked::Talos { .. }, None) => Kind::TalosMetal,
            },
            address: match node {
                Asked::Vm(..) => None,
                Asked::Talos { node, .. } => Some(node.address.clone()),
            },
            tls_name: match node {
                Asked::Vm(..) => None,
                Asked::Talos { node, .. } => node.tls_name.clone(),
            },
            place,
            kubernetes: node.kubernetes().to_owned(),
            node_name: node.node_name().to_owned(),
            talos_cluster: match node {
                Asked::Vm(..) => None,
                Asked::Talos { cluster, .. } => Some((*cluster).to_owned()),
            },
            vm,
            agent,
            guest,
            talos: told.talos,
            waiting: told.waiting,
            talos_silent: told.silent,
            held_off: None,
            kubelet,
            etcd: told.seat,
            workloads,
        }
    }

    /// As whom we speak to a Proxmox cluster.
    fn caller(&self, name: &str) -> Option<ProxmoxCluster> {
        let (user, by_password) = match &self.site.proxmox.get(name)?.auth {
            ProxmoxAuth::Ticket { user, .. } => (user.clone(), true),
            ProxmoxAuth::Token { id, .. } => (id.clone(), false),
        };
        Some(ProxmoxCluster { name: name.to_owned(), user, by_password })
    }
}

/// Why a Kubernetes API cannot be asked, where its Talos cluster tells: no etcd yet, or one without a majority.
fn without_an_api(survey: &mut Survey, cluster: &TalosCluster) {
    let any = |majority: Majority| survey.ballots(cluster).iter().any(|ballot| ballot.majority == majority);
    let why = if any(Majority::Lost) {
        "its etcd has no majority: until it has one again the API answers nothing"
    } else if any(Majority::NotBegun) {
        "there is no cluster yet: what builds it writes the kubeconfig"
    } else {
        return;
    };
    survey.without_an_api(&cluster.kubernetes, why);
}

/// All nodes of a site, by name.
fn nodes(site: &site::Site) -> Vec<Asked<'_>> {
    let vms = site.nodes.iter().map(|(name, node)| Asked::Vm(name, node));
    let talos = site
        .talos
        .iter()
        .flat_map(|(cluster, of)| of.nodes.iter().map(move |(name, node)| Asked::Talos { name, cluster, of, node }));
    let mut all: Vec<_> = vms.chain(talos).collect();
    all.sort_by(|a, b| a.name().cmp(b.name()));
    all
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
