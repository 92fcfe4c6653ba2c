//! The resources that the server has.

/// A resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty: the core group.
    pub group: &'static str,
    /// The served version.
    pub version: &'static str,
    /// Plural, as in paths.
    pub resource: &'static str,
    /// `Pod`
    pub kind: &'static str,
    /// Names that kubectl takes instead.
    pub short: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Subresources: `status`, `scale`, ...
    pub sub: &'static [&'static str],
    /// Whether it comes from a custom resource definition: other patch types, all lists atomic.
    pub custom: bool,
}

const fn core(resource: &'static str, kind: &'static str, short: &'static [&'static str], namespaced: bool) -> Kind {
    Kind { group: "", version: "v1", resource, kind, short, namespaced, sub: &[], custom: false }
}

const fn named(group: &'static str, version: &'static str, resource: &'static str, kind: &'static str) -> Kind {
    Kind { group, version, resource, kind, short: &[], namespaced: true, sub: &[], custom: false }
}

const fn flux(group: &'static str, version: &'static str, resource: &'static str, kind: &'static str) -> Kind {
    Kind { group, version, resource, kind, short: &[], namespaced: true, sub: &["status"], custom: true }
}

const fn rbac(resource: &'static str, kind: &'static str, namespaced: bool) -> Kind {
    Kind { namespaced, ..named("rbac.authorization.k8s.io", "v1", resource, kind) }
}

const SCALED: &[&str] = &["scale", "status"];
const STATUS: &[&str] = &["status"];

/// Every resource; which groups a world lacks is in [`super::Kube::absent`].
pub static KINDS: &[Kind] = &[
    Kind { sub: STATUS, ..core("namespaces", "Namespace", &["ns"], false) },
    Kind { sub: &["proxy", "status"], ..core("nodes", "Node", &["no"], false) },
    Kind { sub: &["eviction", "exec", "log", "status"], ..core("pods", "Pod", &["po"], true) },
    Kind { sub: STATUS, ..core("persistentvolumes", "PersistentVolume", &["pv"], false) },
    Kind { sub: STATUS, ..core("persistentvolumeclaims", "PersistentVolumeClaim", &["pvc"], true) },
    core("configmaps", "ConfigMap", &["cm"], true),
    core("secrets", "Secret", &[], true),
    Kind { sub: &["proxy", "status"], ..core("services", "Service", &["svc"], true) },
    core("events", "Event", &["ev"], true),
    core("serviceaccounts", "ServiceAccount", &["sa"], true),
    Kind { sub: SCALED, short: &["deploy"], ..named("apps", "v1", "deployments", "Deployment") },
    Kind { sub: SCALED, short: &["rs"], ..named("apps", "v1", "replicasets", "ReplicaSet") },
    Kind { sub: SCALED, short: &["sts"], ..named("apps", "v1", "statefulsets", "StatefulSet") },
    Kind { sub: STATUS, short: &["ds"], ..named("apps", "v1", "daemonsets", "DaemonSet") },
    Kind { sub: STATUS, short: &["pdb"], ..named("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget") },
    Kind { short: &["sc"], namespaced: false, ..named("storage.k8s.io", "v1", "storageclasses", "StorageClass") },
    Kind { namespaced: false, ..named("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment") },
    Kind { namespaced: false, ..named("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass") },
    Kind { sub: STATUS, ..named("batch", "v1", "jobs", "Job") },
    Kind { sub: STATUS, short: &["cj"], ..named("batch", "v1", "cronjobs", "CronJob") },
    Kind {
        sub: STATUS,
        short: &["hpa"],
        ..named("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
    },
    named("coordination.k8s.io", "v1", "leases", "Lease"),
    rbac("roles", "Role", true),
    rbac("rolebindings", "RoleBinding", true),
    rbac("clusterroles", "ClusterRole", false),
    rbac("clusterrolebindings", "ClusterRoleBinding", false),
    Kind {
        sub: STATUS,
        short: &["crd", "crds"],
        namespaced: false,
        ..named("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
    },
    Kind { short: &["ks"], ..flux("kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization") },
    Kind { short: &["gitrepo"], ..flux("source.toolkit.fluxcd.io", "v1", "gitrepositories", "GitRepository") },
    Kind { short: &["helmrepo"], ..flux("source.toolkit.fluxcd.io", "v1", "helmrepositories", "HelmRepository") },
    Kind { short: &["hc"], ..flux("source.toolkit.fluxcd.io", "v1", "helmcharts", "HelmChart") },
    Kind { short: &["ocirepo"], ..flux("source.toolkit.fluxcd.io", "v1", "ocirepositories", "OCIRepository") },
    flux("source.toolkit.fluxcd.io", "v1", "buckets", "Bucket"),
    Kind { short: &["hr"], ..flux("helm.toolkit.fluxcd.io", "v2", "helmreleases", "HelmRelease") },
    Kind {
        short: &["iua", "imgupd", "imgauto"],
        ..flux("image.toolkit.fluxcd.io", "v1", "imageupdateautomations", "ImageUpdateAutomation")
    },
    Kind { short: &["imgpol"], ..flux("image.toolkit.fluxcd.io", "v1", "imagepolicies", "ImagePolicy") },
    Kind { short: &["imgrepo"], ..flux("image.toolkit.fluxcd.io", "v1", "imagerepositories", "ImageRepository") },
    // It has no controller here: who uses it makes its pods and its status.
    Kind { sub: SCALED, short: &["ro"], ..flux("argoproj.io", "v1alpha1", "rollouts", "Rollout") },
    Kind { short: &["so"], ..flux("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject") },
    Kind { short: &["app", "apps"], ..flux("argoproj.io", "v1alpha1", "applications", "Application") },
    Kind { short: &["dsp"], ..flux("openebs.io", "v1beta2", "diskpools", "DiskPool") },
];

/// A resource by group and plural.
pub fn find(group: &str, resource: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.group == group && k.resource == resource)
}

/// A resource by `apiVersion` and `kind`.
pub fn of(api_version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.kind == kind && k.api_version() == api_version)
}

impl Kind {
    /// `apps/v1`, `v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, `pods`
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// The singular, as kubectl prints it.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// Whether writes of `part` go through a subresource of that name.
    pub fn has(&self, part: &str) -> bool {
        self.sub.contains(&part)
    }
}

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $group:literal, $resource:literal;)*) => {
        $($(#[$doc])* pub fn $name() -> &'static Kind {
            // The table above is a constant; a test walks over every one of these.
            find($group, $resource).unwrap_or(&KINDS[0])
        })*
        #[cfg(test)]
        const KNOWN: &[(fn() -> &'static Kind, &str, &str)] = &[$(($name, $group, $resource)),*];
    };
}

known! {
    /// v1 Namespace
    namespaces = "", "namespaces";
    /// v1 Node
    nodes = "", "nodes";
    /// v1 Pod
    pods = "", "pods";
    /// v1 PersistentVolume
    volumes = "", "persistentvolumes";
    /// v1 PersistentVolumeClaim
    claims = "", "persistentvolumeclaims";
    /// v1 ConfigMap
    configmaps = "", "configmaps";
    /// v1 Secret
    secrets = "", "secrets";
    /// v1 Service
    services = "", "services";
    /// openebs.io/v1beta2 DiskPool
    disk_pools = "openebs.io", "diskpools";
    /// v1 Event
    events = "", "events";
    /// apps/v1 Deployment
    deployments = "apps", "deployments";
    /// apps/v1 ReplicaSet
    replicasets = "apps", "replicasets";
    /// apps/v1 StatefulSet
    statefulsets = "apps", "statefulsets";
    /// apps/v1 DaemonSet
    daemonsets = "apps", "daemonsets";
    /// policy/v1 PodDisruptionBudget
    budgets = "policy", "poddisruptionbudgets";
    /// storage.k8s.io/v1 StorageClass
    classes = "storage.k8s.io", "storageclasses";
    /// node.k8s.io/v1 RuntimeClass
    runtimes = "node.k8s.io", "runtimeclasses";
    /// coordination.k8s.io/v1 Lease
    leases = "coordination.k8s.io", "leases";
    /// storage.k8s.io/v1 VolumeAttachment
    attachments = "storage.k8s.io", "volumeattachments";
    /// apiextensions.k8s.io/v1 CustomResourceDefinition
    definitions = "apiextensions.k8s.io", "customresourcedefinitions";
    /// rbac.authorization.k8s.io/v1 Role
    roles = "rbac.authorization.k8s.io", "roles";
    /// rbac.authorization.k8s.io/v1 RoleBinding
    bindings = "rbac.authorization.k8s.io", "rolebindings";
    /// rbac.authorization.k8s.io/v1 ClusterRole
    cluster_roles = "rbac.authorization.k8s.io", "clusterroles";
    /// rbac.authorization.k8s.io/v1 ClusterRoleBinding
    cluster_bindings = "rbac.authorization.k8s.io", "clusterrolebindings";
    /// kustomize.toolkit.fluxcd.io/v1 Kustomization
    kustomizations = "kustomize.toolkit.fluxcd.io", "kustomizations";
    /// source.toolkit.fluxcd.io/v1 GitRepository
    repositories = "source.toolkit.fluxcd.io", "gitrepositories";
    /// helm.toolkit.fluxcd.io/v2 HelmRelease
    helmreleases = "helm.toolkit.fluxcd.io", "helmreleases";
    /// image.toolkit.fluxcd.io/v1 ImageUpdateAutomation
    automations = "image.toolkit.fluxcd.io", "imageupdateautomations";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_kind_is_in_the_table() {
        assert_eq!(KNOWN.len(), 28);
        for (get, group, resource) in KNOWN {
            assert_eq!((get().group, get().resource), (*group, *resource));
        }
    }
}
