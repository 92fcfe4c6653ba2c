//! The open handles to a site: the only thing that steps talk to.
//!
//! Each system is opened when it is first needed, so that a step which asks Proxmox alone works while Kubernetes is
//! down, and no secret is read that is not used.

mod hardware;
mod settle;
mod survey;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::base::clock::Clock;
use crate::base::fault::{Effect, Failure, Fault};
use crate::base::wait::limit;
use crate::checkout::Checkout;
use crate::guest::{ByHost, Entrance, Guest, KeySource, Route, Sessions, Silent, SshTarget, Targets};
use crate::k8s::Kubernetes;
use crate::proxmox::{Auth, Endpoint, Limits, Proxmox};
pub use survey::config::read as read_config;
pub use survey::talos::disk as surveyed;

use crate::base::tls::KeyFingerprint;
use crate::site::{self, Access, ProxmoxAuth, SecretError, SecretRef, Site};
use crate::talos::{self, Talos, Talosconfig, TalosconfigError};

/// What keeps a part of the site from being opened. Nothing was sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The site file has no such part.
    #[error("the site file {path} has no {what} `{name}`")]
    Unknown {
        /// The site file.
        path: PathBuf,
        /// The kind of part: `Proxmox cluster`.
        what: &'static str,
        /// The name.
        name: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// A secret cannot be had.
    #[error("{what} `{name}`: its secret cannot be read")]
    Secret {
        /// The kind of part.
        what: &'static str,
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// A way in that the site file names and does not describe.
    #[error("the site file has no ssh for `{name}`")]
    NoSsh {
        /// The node or host.
        name: String,
    },
    /// The authority file cannot be read.
    #[error("Proxmox cluster `{name}`: its authority file cannot be read")]
    Ca {
        /// The cluster.
        name: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The talosconfig is of no use.
    #[error("the nodes of Talos cluster `{name}` cannot be asked")]
    Talosconfig {
        /// The cluster.
        name: String,
        /// Why.
        #[source]
        source: TalosconfigError,
    },
}

impl Fault for OpenError {
    fn effect(&self) -> Effect {
        Effect::None
    }
    fn help(&self) -> Option<String> {
        match self {
            Self::Unknown { what, known, .. } if known.is_empty() => Some(format!("it has no {what} at all: add it")),
            Self::Unknown { known, .. } => {
                let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                Some(format!("it has {}", known.join(", ")))
            }
            Self::Secret { source, .. } => source.help(),
            Self::NoSsh { .. } => Some("add `ssh: { address: .., key: .., known_hosts: .. }` to it".into()),
            Self::Ca { .. } => Some("`ca:` must name a readable file, as /etc/pve/pve-root-ca.pem of a node".into()),
            Self::Talosconfig { source, .. } => source.help(),
        }
    }
}

/// The open handles.
pub struct Estate {
    site: Arc<Site>,
    clock: Clock,
    state: PathBuf,
    /// Where clones are that may be read, and are not to be touched.
    lender: Option<PathBuf>,
    proxmox: Mutex<BTreeMap<String, Arc<Proxmox>>>,
    kubernetes: Mutex<BTreeMap<String, Arc<Kubernetes>>>,
    talos: Mutex<BTreeMap<String, Arc<Talos>>>,
    /// Of a question and of a change, where they are not the usual ones.
    deadlines: Option<(Duration, Duration)>,
    /// Ways into machines that were silent lately.
    silent: Silent,
    /// The ssh connections to them.
    sessions: Sessions,
}

impl Estate {
    /// Opens nothing yet. `state` is the site's own directory below the state directory, for clones of checkouts.
    pub fn new(site: Arc<Site>, clock: Clock, state: PathBuf) -> Self {
        Self {
            site,
            clock,
            state,
            lender: None,
            deadlines: None,
            silent: Silent::default(),
            sessions: Sessions::default(),
            proxmox: Mutex::default(),
            kubernetes: Mutex::default(),
            talos: Mutex::default(),
        }
    }

    /// Takes what it can from the clones below another such directory, without changing them.
    #[must_use]
    pub fn borrowing(mut self, state: PathBuf) -> Self {
        self.lender = Some(state);
        self
    }

    /// Other deadlines for a question and for a change to Proxmox, Kubernetes and Talos than [`limit::READ`] and
    /// [`limit::CHANGE`].
    #[must_use]
    pub fn deadlines(mut self, read: Duration, change: Duration) -> Self {
        self.deadlines = Some((read, change));
        self
    }

    /// The site.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The clock for pauses.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The site's own directory below the state directory, where its journals are: of a plan too, which writes elsewhere.
    pub fn journals(&self) -> &std::path::Path {
        self.lender.as_deref().unwrap_or(&self.state)
    }

    /// The site's own directory below the state directory.
    pub fn state(&self) -> &std::path::Path {
        &self.state
    }

    fn unknown(&self, what: &'static str, name: &str) -> OpenError {
        let site = &self.site;
        let known: Vec<String> = match what {
            "Proxmox cluster" => site.proxmox.keys().cloned().collect(),
            "Kubernetes cluster" => site.kubernetes.keys().cloned().collect(),
            "Talos cluster" => site.talos.keys().cloned().collect(),
            "checkout" => site.checkouts.keys().cloned().collect(),
            _ => site.node_names.iter().chain(&site.talos_node_names).cloned().collect(),
        };
        OpenError::Unknown { path: site.path.clone(), what, name: name.to_owned(), known }
    }

    /// A Proxmox cluster by its name in the site file.
    ///
    /// # Errors
    /// [`OpenError`], or the cluster's settings cannot be used.
    pub async fn proxmox(&self, name: &str) -> Result<Arc<Proxmox>, Failure> {
        let mut open = self.proxmox.lock().await;
        if let Some(cluster) = open.get(name) {
            return Ok(cluster.clone());
        }
        let what = "Proxmox cluster";
        let settings = self.site.proxmox.get(name).ok_or_else(|| self.unknown(what, name))?;
        let secret = |source| OpenError::Secret { what, name: name.to_owned(), source };
        let auth = match &settings.auth {
            ProxmoxAuth::Ticket { user, password } => {
                Auth::Ticket { user: user.clone(), password: password.resolve().await.map_err(secret)? }
            }
            ProxmoxAuth::Token { id, secret: key } => {
                Auth::Token { id: id.clone(), secret: key.resolve().await.map_err(secret)? }
            }
        };
        let trust = settings.trust.load().map_err(|source| OpenError::Ca { name: name.to_owned(), source })?;
        let endpoint = Endpoint {
            cluster: name.to_owned(),
            urls: settings.urls.clone(),
            trust: Some(trust),
            auth,
            clock: self.clock,
        };
        let (read, change) = self.deadlines.unwrap_or((limit::READ, limit::CHANGE));
        let limits = Limits { read, change, ..Limits::default() };
        let cluster = Arc::new(Proxmox::with_limits(endpoint, limits)?);
        open.insert(name.to_owned(), cluster.clone());
        Ok(cluster)
    }

    /// A Kubernetes cluster by its name in the site file.
    ///
    /// # Errors
    /// [`OpenError`], or the kubeconfig cannot be used.
    pub async fn kubernetes(&self, name: &str) -> Result<Arc<Kubernetes>, Failure> {
        let mut open = self.kubernetes.lock().await;
        if let Some(cluster) = open.get(name) {
            return Ok(cluster.clone());
        }
        let settings = self.site.kubernetes.get(name).ok_or_else(|| self.unknown("Kubernetes cluster", name))?;
        let (read, change) = self.deadlines.unwrap_or((limit::READ, limit::CHANGE));
        let cluster = Kubernetes::open(name, &settings.kubeconfig, &settings.context, self.clock).await?;
        let cluster = Arc::new(cluster.limits(read, change));
        open.insert(name.to_owned(), cluster.clone());
        Ok(cluster)
    }

    /// Opens a Kubernetes cluster anew when it is asked for next: its kubeconfig is another one by now.
    pub async fn forget_kubernetes(&self, name: &str) {
        self.kubernetes.lock().await.remove(name);
    }

    /// A Talos node by its name in the site file, asked directly as the context of its cluster's talosconfig.
    ///
    /// # Errors
    /// [`OpenError`], or the node's address cannot be used.
    pub async fn talos(&self, node: &str) -> Result<Arc<Talos>, Failure> {
        let mut open = self.talos.lock().await;
        if let Some(talos) = open.get(node) {
            return Ok(talos.clone());
        }
        let (name, settings) = self.site.talos_node(node).ok_or_else(|| self.unknown("Talos node", node))?;
        let context = self.talosconfig(name)?;
        let place = talos::Node {
            name: node.to_owned(),
            address: settings.address.clone(),
            tls_name: settings.tls_name.clone(),
        };
        let talos = Arc::new(Talos::connect(place, &context, self.clock)?.limits(self.talos_limits()));
        open.insert(node.to_owned(), talos.clone());
        Ok(talos)
    }

    /// The context of a Talos cluster's talosconfig.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn talosconfig(&self, name: &str) -> Result<talos::Context, OpenError> {
        let cluster = self.site.talos.get(name).ok_or_else(|| self.unknown("Talos cluster", name))?;
        let config = Talosconfig::read(&cluster.talosconfig);
        let context = config.and_then(|config| config.context(cluster.context.as_deref()));
        context.map_err(|source| OpenError::Talosconfig { name: name.to_owned(), source })
    }

    /// A Talos node that waits for its first configuration, where nobody vouches for anybody: with fingerprints only one of
    /// them is accepted. `at`: where it answers by now, where that is not its own address.
    ///
    /// # Errors
    /// [`OpenError`], or the address cannot be used.
    pub fn talos_in_maintenance(
        &self,
        node: &str,
        at: Option<&str>,
        pin: Option<KeyFingerprint>,
    ) -> Result<Talos, Failure> {
        let (_, settings) = self.site.talos_node(node).ok_or_else(|| self.unknown("Talos node", node))?;
        let address = at.unwrap_or(&settings.address).to_owned();
        let place = talos::Node { name: node.to_owned(), address, tls_name: None };
        Ok(Talos::maintenance(place, pin.map(|pin| vec![pin]), self.clock)?.limits(self.talos_limits()))
    }

    fn talos_limits(&self) -> talos::Limits {
        let (read, change) = self.deadlines.unwrap_or((limit::READ, limit::CHANGE));
        talos::Limits { read, change, ..talos::Limits::default() }
    }

    /// A git checkout by its name in the site file; its own clone is below the state directory.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn checkout(&self, name: &str) -> Result<Checkout, Failure> {
        let settings = self.site.checkouts.get(name).ok_or_else(|| self.unknown("checkout", name))?;
        let clone = |state: &PathBuf| state.join("checkouts").join(format!("{name}.git"));
        Ok(Checkout {
            path: settings.path.clone(),
            remote: settings.remote.clone(),
            branch: settings.branch.clone(),
            push: settings.push,
            author: (settings.author.name.clone(), settings.author.email.clone()),
            state_clone: clone(&self.state),
            lender: self.lender.as_ref().map(clone),
        })
    }

    /// The guest of a node by its name in the site file, with its routes in the site's order. A route that cannot be
    /// opened answers with the reason when its turn comes; the others are not kept from being tried.
    ///
    /// # Errors
    /// [`OpenError`], where there is no such node.
    pub async fn guest(&self, node: &str) -> Result<Guest, Failure> {
        let settings = self.site.nodes.get(node).ok_or_else(|| self.unknown("node", node))?;
        let mut routes = Vec::new();
        for access in &settings.access {
            let route = self.route(node, settings, *access).await;
            routes.push(route.unwrap_or_else(|failure| Route::closed(access.word(), &failure).into()));
        }
        Ok(self.machine(node, routes))
    }

    async fn route(&self, node: &str, settings: &site::Node, access: Access) -> Result<Entrance, Failure> {
        let no_ssh = |name: &str| OpenError::NoSsh { name: name.to_owned() };
        let vmid = settings.vmid;
        Ok(match access {
            Access::Ssh => Route::Ssh(target(node, settings.ssh.as_ref().ok_or_else(|| no_ssh(node))?).await?).into(),
            Access::Agent => Route::Agent { proxmox: self.proxmox(&settings.proxmox).await?, vmid }.into(),
            Access::HostSsh => {
                let (site, cluster) = (self.site.clone(), settings.proxmox.clone());
                let hosts = Targets::new(move |host| {
                    let (site, cluster) = (site.clone(), cluster.clone());
                    Box::pin(async move {
                        let ssh = site.proxmox.get(&cluster).and_then(|c| c.hosts.get(&host)?.ssh.as_ref());
                        target(&host, ssh.ok_or_else(|| OpenError::NoSsh { name: host.clone() })?).await
                    })
                });
                Entrance::ByHost(ByHost { proxmox: self.proxmox(&settings.proxmox).await?, vmid, hosts })
            }
        })
    }

    /// A shell on a Proxmox host; None where the site file has no ssh for it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn host(&self, cluster: &str, host: &str) -> Result<Option<Guest>, Failure> {
        let target = self.host_ssh(cluster, host).await?;
        Ok(target.map(|target| self.machine(host, vec![Route::Ssh(target)])))
    }

    fn machine(&self, name: &str, routes: Vec<impl Into<Entrance>>) -> Guest {
        Guest::new(name, routes, self.clock).knowing(self.silent.clone(), self.sessions.clone())
    }

    /// Takes leave of the machines, in 100 ms at most; for the end of the process.
    pub async fn farewell(&self) {
        self.sessions.farewell().await;
    }

    async fn host_ssh(&self, cluster: &str, host: &str) -> Result<Option<SshTarget>, Failure> {
        let settings = self.site.proxmox.get(cluster).ok_or_else(|| self.unknown("Proxmox cluster", cluster))?;
        match settings.hosts.get(host).and_then(|h| h.ssh.as_ref()) {
            Some(ssh) => target(host, ssh).await.map(Some),
            None => Ok(None),
        }
    }
}

async fn target(name: &str, ssh: &site::Ssh) -> Result<SshTarget, Failure> {
    let key = match &ssh.key {
        SecretRef::File(path) => KeySource::File(path.clone()),
        other => KeySource::Text(other.resolve().await.map_err(|source| OpenError::Secret {
            what: "ssh of",
            name: name.to_owned(),
            source,
        })?),
    };
    Ok(SshTarget::new(&ssh.address, ssh.port, &ssh.user, key, ssh.known_hosts.clone()))
}
