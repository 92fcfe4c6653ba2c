//! Where the objects of a kind are found: group, version, plural.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but what RFC 3986 calls unreserved.
const ESCAPE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One kind as the API serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The API group; empty for the core.
    pub group: Cow<'static, str>,
    /// The version, `v1`.
    pub version: Cow<'static, str>,
    /// The name in URLs, `pods`.
    pub plural: Cow<'static, str>,
    /// The kind, `Pod`.
    pub kind: Cow<'static, str>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// True for the kinds of apps/v1 whose `spec.replicas` may be patched on the object itself.
    pub replicas_in_spec: bool,
}

impl Resource {
    const fn fixed(group: &'static str, plural: &'static str, kind: &'static str, namespaced: bool) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed("v1"),
            plural: Cow::Borrowed(plural),
            kind: Cow::Borrowed(kind),
            namespaced,
            replicas_in_spec: false,
        }
    }

    const fn scaled(mut self) -> Self {
        self.replicas_in_spec = true;
        self
    }

    /// `GROUP/VERSION`, or `v1` for the core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of the list of one namespace (`None`: of all), without query.
    pub fn list_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let api_version = self.api_version();
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{root}/{api_version}/namespaces/{}/{}", escape(namespace), self.plural)
            }
            _ => format!("{root}/{api_version}/{}", self.plural),
        }
    }

    /// The path of one object.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.list_path(Some(namespace)), escape(name))
    }

    /// How people name it: `nodes/x`, `pods/frigate/frigate-0`.
    pub fn name_of(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{}/{namespace}/{name}", self.plural) } else { format!("{}/{name}", self.plural) }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { write!(f, "{}", self.kind) } else { write!(f, "{}.{}", self.kind, self.group) }
    }
}

/// Escapes a part of a path or a query value.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPE).to_string()
}

pub(super) const NODE: Resource = Resource::fixed("", "nodes", "Node", false);
pub(super) const POD: Resource = Resource::fixed("", "pods", "Pod", true);
pub(super) const EVENT: Resource = Resource::fixed("", "events", "Event", true);
pub(super) const SECRET: Resource = Resource::fixed("", "secrets", "Secret", true);
pub(super) const SERVICE: Resource = Resource::fixed("", "services", "Service", true);
pub(super) const CONFIG_MAP: Resource = Resource::fixed("", "configmaps", "ConfigMap", true);
pub(super) const VOLUME: Resource = Resource::fixed("", "persistentvolumes", "PersistentVolume", false);
pub(super) const CLAIM: Resource = Resource::fixed("", "persistentvolumeclaims", "PersistentVolumeClaim", true);
pub(super) const CLASS: Resource = Resource::fixed("storage.k8s.io", "storageclasses", "StorageClass", false);
pub(super) const BUDGET: Resource = Resource::fixed("policy", "poddisruptionbudgets", "PodDisruptionBudget", true);
pub(super) const LEASE: Resource = Resource::fixed("coordination.k8s.io", "leases", "Lease", true);
pub(super) const ATTACHMENT: Resource =
    Resource::fixed("storage.k8s.io", "volumeattachments", "VolumeAttachment", false);
pub(super) const RUNTIME_CLASS: Resource = Resource::fixed("node.k8s.io", "runtimeclasses", "RuntimeClass", false);
pub(crate) const DEPLOYMENT: Resource = Resource::fixed("apps", "deployments", "Deployment", true).scaled();
pub(crate) const STATEFUL_SET: Resource = Resource::fixed("apps", "statefulsets", "StatefulSet", true).scaled();
pub(super) const REPLICA_SET: Resource = Resource::fixed("apps", "replicasets", "ReplicaSet", true).scaled();
pub(super) const DAEMON_SET: Resource = Resource::fixed("apps", "daemonsets", "DaemonSet", true);
pub(super) const AUTOSCALER: Resource = Resource {
    group: Cow::Borrowed("autoscaling"),
    version: Cow::Borrowed("v2"),
    plural: Cow::Borrowed("horizontalpodautoscalers"),
    kind: Cow::Borrowed("HorizontalPodAutoscaler"),
    namespaced: true,
    replicas_in_spec: false,
};

/// The kinds whose place never changes; the others are looked up in the cluster.
const FIXED: [Resource; 14] = [
    NODE,
    POD,
    EVENT,
    SECRET,
    CONFIG_MAP,
    VOLUME,
    CLAIM,
    CLASS,
    BUDGET,
    RUNTIME_CLASS,
    DEPLOYMENT,
    STATEFUL_SET,
    REPLICA_SET,
    DAEMON_SET,
];

pub(super) fn fixed(group: &str, kind: &str) -> Option<Resource> {
    FIXED.into_iter().find(|resource| resource.group == group && resource.kind == kind)
}

/// Where the objects of a kind of Kubernetes' own are, by its name alone; None for any other.
pub fn kind_by_name(kind: &str) -> Option<Resource> {
    let others = [
        Resource::fixed("", "namespaces", "Namespace", false),
        SERVICE,
        Resource::fixed("", "serviceaccounts", "ServiceAccount", true),
        Resource::fixed("batch", "jobs", "Job", true),
        Resource::fixed("batch", "cronjobs", "CronJob", true),
        Resource::fixed("networking.k8s.io", "ingresses", "Ingress", true),
        Resource::fixed("networking.k8s.io", "networkpolicies", "NetworkPolicy", true),
        AUTOSCALER,
    ];
    FIXED.into_iter().chain(others).find(|resource| resource.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(NODE.path("", "k3s-vm-108"), "/api/v1/nodes/k3s-vm-108");
        assert_eq!(POD.list_path(Some("frigate")), "/api/v1/namespaces/frigate/pods");
        assert_eq!(POD.list_path(None), "/api/v1/pods");
        assert_eq!(DEPLOYMENT.path("frigate", "frigate"), "/apis/apps/v1/namespaces/frigate/deployments/frigate");
        assert_eq!(AUTOSCALER.list_path(Some("a")), "/apis/autoscaling/v2/namespaces/a/horizontalpodautoscalers");
        assert_eq!(POD.path("a/../b", "x?y"), "/api/v1/namespaces/a%2F..%2Fb/pods/x%3Fy");
    }
}
