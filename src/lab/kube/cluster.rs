//! The cluster of a world: `worlds/NAME.kube.yaml`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::fields::Writer;
use super::json::{self, text};
use super::{Kube, admit, kinds};
use crate::lab::LabError;

/// Clusters by name.
const CLUSTERS: &[(&str, &str)] = &[
    ("usb-move", include_str!("../worlds/usb-move.kube.yaml")),
    ("talos-three", include_str!("../worlds/talos-three.kube.yaml")),
    ("talos-fresh", include_str!("../worlds/talos-fresh.kube.yaml")),
    ("talos-replace", include_str!("../worlds/talos-replace.kube.yaml")),
    ("talos-dead-node", include_str!("../worlds/talos-dead-node.kube.yaml")),
    ("nvme-data", include_str!("../worlds/nvme-data.kube.yaml")),
    ("nvme-data-pdb", include_str!("../worlds/nvme-data-pdb.kube.yaml")),
    ("nvme-single", include_str!("../worlds/nvme-single.kube.yaml")),
];

/// A cluster as its file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    /// `v1.32.4+k3s1`
    #[serde(default)]
    version: String,
    /// API groups that it lacks.
    #[serde(default)]
    absent: BTreeSet<String>,
    /// What programs in pods do.
    #[serde(default)]
    workloads: Vec<Workload>,
    /// Objects that nobody applies from elsewhere, in order of creation.
    #[serde(default)]
    objects: Vec<Value>,
    /// What Talos puts into a cluster that was bootstrapped and has nothing in it.
    #[serde(default)]
    manifests: Vec<Value>,
    /// That is the same as in this other file.
    #[serde(default)]
    manifests_of: Option<String>,
    /// All is as in this other file, but for more objects.
    #[serde(default)]
    extends: Option<String>,
    /// API groups that the other one lacks and this one has.
    #[serde(default)]
    present: BTreeSet<String>,
}

/// What the program in certain pods does to the machine that it runs on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    /// Namespace of the pods.
    namespace: String,
    /// Labels of the pods.
    labels: BTreeMap<String, String>,
    /// It uses every Coral that it sees.
    #[serde(default)]
    pub(crate) coral: bool,
    /// What it writes into its claims.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, Fill>,
}

/// The bytes in a claim.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fill {
    /// When the world begins.
    pub(crate) held: u64,
    /// After the first start on an empty folder.
    pub(crate) first: u64,
}

impl Workload {
    /// Whether a pod is one of these.
    pub(crate) fn is(&self, pod: &Value) -> bool {
        json::namespace(pod) == self.namespace && self.labels.iter().all(|(k, v)| json::label(pod, k) == Some(v))
    }
}

/// Fills a cluster from its file.
pub(super) fn load(kube: &mut Kube, name: &str) -> Result<(), LabError> {
    let bad = |text: String| LabError::BadWorld(format!("cluster `{name}`: {text}"));
    let read = |name: &str| -> Result<Cluster, LabError> {
        let (_, file) = CLUSTERS.iter().find(|(n, _)| *n == name).ok_or_else(|| bad("there is no such".into()))?;
        serde_saphyr::from_str(file).map_err(|e| bad(e.to_string()))
    };
    let mut cluster = read(name)?;
    while let Some(other) = cluster.extends.take() {
        let mut whole = read(&other)?;
        whole.objects.append(&mut cluster.objects);
        whole.present.append(&mut cluster.present);
        whole.absent.retain(|group| !whole.present.contains(group));
        cluster = whole;
    }
    if let Some(other) = &cluster.manifests_of {
        cluster.manifests = read(other)?.manifests;
    }
    kube.version = cluster.version;
    kube.absent = cluster.absent;
    kube.workloads = cluster.workloads;
    kube.manifests = cluster.manifests;
    kube.empty = cluster.objects.is_empty();
    for kind in kinds::KINDS.iter().filter(|k| k.custom && !kube.absent.contains(k.group)) {
        kube.store.insert(kinds::definitions(), definition(kind), Writer::new("k3s"));
    }
    let more = std::mem::take(&mut kube.more);
    for mut object in cluster.objects.into_iter().chain(more) {
        let (version, what) = (text(&object, "/apiVersion").to_owned(), text(&object, "/kind").to_owned());
        let kind = kinds::of(&version, &what).ok_or_else(|| bad(format!("no kind {version} {what}")))?;
        let space = kind.namespaced.then(|| json::namespace(&object).to_owned());
        // What a node reports of itself (capacity, versions) is data of the world; admission would drop it.
        let status = object.get("status").cloned();
        admit::create(kube, kind, space.as_deref(), &mut object).map_err(|r| bad(r.message().to_owned()))?;
        if let Some(status) = status {
            json::set(&mut object, &["status"], status);
        }
        kube.store.insert(kind, object, Writer::new("k3s"));
    }
    Ok(())
}

/// The definition of a custom resource.
fn definition(kind: &kinds::Kind) -> Value {
    let names = serde_json::json!({
        "plural": kind.resource, "singular": kind.singular(), "kind": kind.kind, "listKind": format!("{}List", kind.kind),
        "shortNames": kind.short,
    });
    let mut parts = serde_json::json!({ "status": {} });
    if kind.has("scale") {
        parts["scale"] = serde_json::json!({
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        });
    }
    let condition =
        |what: &str| serde_json::json!({ "type": what, "status": "True", "reason": "InitialNamesAccepted" });
    serde_json::json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": kind.qualified() },
        "spec": {
            "group": kind.group, "names": names, "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "versions": [{ "name": kind.version, "served": true, "storage": true, "subresources": parts }],
        },
        "status": {
            "acceptedNames": names, "storedVersions": [kind.version],
            "conditions": [condition("NamesAccepted"), condition("Established")],
        },
    })
}
