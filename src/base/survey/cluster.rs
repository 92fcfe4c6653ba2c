//! What is said of whole clusters.

use serde::{Deserialize, Serialize};

use super::kubernetes::NotReady;
use super::{Certificate, Layer};
use crate::base::names::talosctl_flags;

/// A Proxmox cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProxmoxCluster {
    /// Its name in the site file.
    pub name: String,
    /// As whom we speak: `root@pam`, `root@pam!pvemig`.
    pub user: String,
    /// By password; else by an API token.
    pub by_password: bool,
}

impl ProxmoxCluster {
    /// Raw USB and PCI lines (`host=1a6e:089a`, `hostpci0: 0000:01:00.0`) are set, changed and deleted by root@pam with a
    /// password alone (qemu-server `check_vm_modify_config_perm`); with mappings others may.
    pub fn may_pass_raw_devices(&self) -> bool {
        self.by_password && self.user == "root@pam"
    }
}

/// A Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KubernetesCluster {
    /// Its name in the site file.
    pub name: String,
    /// The kubeconfig, for people.
    #[serde(default)]
    pub kubeconfig: String,
    /// The context in it.
    #[serde(default)]
    pub context: String,
    /// The API server's version, `v1.34.1`.
    pub version: Layer<String>,
    /// Its nodes that the site does not know.
    pub strangers: Layer<Vec<Stranger>>,
    /// Budgets for disruptions that allow none by their own figures.
    pub never_met: Layer<Vec<Budget>>,
    /// Pods that are on no node.
    pub unscheduled: Layer<Vec<NotReady>>,
}

impl KubernetesCluster {
    /// What tells `kubectl` which cluster is meant.
    pub fn flags(&self) -> String {
        format!("--kubeconfig {} --context {}", self.kubeconfig, self.context)
    }
}

/// A Node that the site does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stranger {
    /// Its name.
    pub name: String,
    /// Ready.
    pub ready: bool,
    /// The uuid of the firmware of its machine, in lower case.
    pub system_uuid: String,
}

/// A PodDisruptionBudget that no number of healthy pods can meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its figures in words: `minAvailable 3; 3 of 3 healthy, 3 wanted, 0 may go`.
    pub figures: String,
}

/// A Talos cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TalosCluster {
    /// Its name in the site file.
    pub name: String,
    /// Its Kubernetes cluster in the site file.
    pub kubernetes: String,
    /// The talosconfig, for people.
    pub talosconfig: String,
    /// The context in it that we speak as; None where it is the file's current one and that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The client certificate that we show its nodes.
    pub certificate: Layer<Certificate>,
}

impl TalosCluster {
    /// What tells `talosctl` which cluster is meant.
    pub fn flags(&self) -> String {
        talosctl_flags(&self.talosconfig, self.context.as_deref())
    }
}

/// What `talosctl` is told to make another client certificate with one that still holds. Without the context it would be
/// one of whatever cluster is the file's current one. It wants a control plane's `-n` besides.
pub fn renewal(talosconfig: &str, context: Option<&str>, roles: &[String]) -> String {
    let roles = if roles.is_empty() { "os:admin".to_owned() } else { roles.join(",") };
    format!("{} config new FILE --roles {roles}", talosctl_flags(talosconfig, context))
}
