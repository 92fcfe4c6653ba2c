//! The provisioner `rancher.io/local-path` (v0.0.31 as k3s ships it).

use std::time::Duration;

use serde_json::{Value, json};

use super::volume::{PROVISIONER, SELECTED, volume_key};
use super::{Effect, Round};
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, text};
use crate::lab::kube::kinds;
use crate::lab::kube::store::add_finalizer;

const NAME: &str = "rancher.io/local-path";
const BASE: &str = "/var/lib/rancher/k3s/storage";
/// What its pod on the node takes to make or to wipe a folder.
const WORK: Duration = Duration::from_secs(3);
/// `cmdTimeoutSeconds`
const PATIENCE: Duration = Duration::from_secs(120);
const ME: Writer<'static> = Writer::new("local-path-provisioner");

/// The folder behind a volume, on its node; empty where it has none.
pub(crate) fn path(volume: &Value) -> &str {
    match text(volume, "/spec/hostPath/path") {
        "" => text(volume, "/spec/local/path"),
        path => path,
    }
}

impl Round<'_> {
    pub(super) fn provision(&mut self) {
        for claim in self.kube.store.all(kinds::claims()) {
            let mine = json::annotation(&claim, PROVISIONER) == Some(NAME);
            let open = text(&claim, "/spec/volumeName").is_empty() && !json::deleting(&claim);
            if mine
                && open
                && let Some(node) = json::annotation(&claim, SELECTED)
            {
                self.make_volume(&claim, node);
            }
        }
        for volume in self.kube.store.all(kinds::volumes()) {
            let mine = json::annotation(&volume, "pv.kubernetes.io/provisioned-by") == Some(NAME);
            let delete = text(&volume, "/spec/persistentVolumeReclaimPolicy") == "Delete";
            if mine && delete && text(&volume, "/status/phase") == "Released" && !json::deleting(&volume) {
                self.delete_volume(&volume);
            }
        }
    }

    fn make_volume(&mut self, claim: &Value, node: &str) {
        let name = format!("pvc-{}", json::uid(claim));
        if self.kube.store.get(kinds::volumes(), "", &name).is_some() {
            return;
        }
        let Some(on) = self.kube.store.get(kinds::nodes(), "", node).cloned() else {
            let message = format!("failed to get target node: nodes \"{node}\" not found");
            self.note(claim, NAME, "Warning", "ProvisioningFailed", &message);
            self.kube.store.edit(kinds::claims(), claim, ME, |c| {
                json::unset(c, &["metadata", "annotations", SELECTED]);
            });
            return;
        };
        let (space, claim_name) = (json::namespace(claim).to_owned(), json::name(claim).to_owned());
        let message = format!("External provisioner is provisioning volume for claim \"{space}/{claim_name}\"");
        self.note(claim, NAME, "Normal", "Provisioning", &message);
        if !self.alive(node) {
            if self.held(&format!("provision-timeout/{}", json::uid(claim)), PATIENCE) {
                let message = format!(
                    "failed to provision volume with StorageClass \"{}\": failed to create volume {name}: create process \
                     timeout after 120 seconds",
                    text(claim, "/spec/storageClassName")
                );
                self.note(claim, NAME, "Warning", "ProvisioningFailed", &message);
            }
            return;
        }
        if !self.held(&format!("provision/{}", json::uid(claim)), WORK) {
            return;
        }
        let class = self.kube.store.get(kinds::classes(), "", text(claim, "/spec/storageClassName")).cloned();
        let policy = class.as_ref().map_or("Delete", |c| text(c, "/reclaimPolicy"));
        let key = class.as_ref().map_or("", |c| text(c, "/parameters/nodeAffinityKey"));
        let key = if key.is_empty() { "kubernetes.io/hostname" } else { key };
        let value = json::label(&on, key).unwrap_or(node);
        let path = format!("{BASE}/{name}_{space}_{claim_name}");
        let mark = |key: &str| {
            json::annotation(claim, key) == Some("local")
                || class.as_ref().is_some_and(|c| json::annotation(c, key) == Some("local"))
        };
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": { "name": name, "annotations": {
                "local.path.provisioner/selected-node": node, "pv.kubernetes.io/provisioned-by": NAME } },
            "spec": {
                "accessModes": claim.pointer("/spec/accessModes"), "persistentVolumeReclaimPolicy": policy,
                "capacity": { "storage": text(claim, "/spec/resources/requests/storage") },
                "claimRef": { "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": space,
                    "name": claim_name, "uid": json::uid(claim),
                    "resourceVersion": text(claim, "/metadata/resourceVersion") },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions":
                    [{ "key": key, "operator": "In", "values": [value] }] }] } },
                "storageClassName": text(claim, "/spec/storageClassName"), "volumeMode": "Filesystem",
            },
            "status": { "phase": "Pending" },
        });
        if mark("volumeType") || mark("defaultVolumeType") {
            json::set(&mut volume, &["spec", "local"], json!({ "path": path }));
        } else {
            json::set(&mut volume, &["spec", "hostPath"], json!({ "path": path, "type": "DirectoryOrCreate" }));
        }
        add_finalizer(&mut volume, "kubernetes.io/pv-protection");
        self.kube.store.insert(kinds::volumes(), volume, ME);
        if let Some(machine) = self.facts.machines.get(node) {
            self.effects.push(Effect::Fill { vmid: machine.vmid, path, bytes: 0 });
        }
        let message = format!("Successfully provisioned volume {name}");
        self.note(claim, NAME, "Normal", "ProvisioningSucceeded", &message);
    }

    /// Wipes the folder and deletes the volume. Where the Node object is gone nothing is wiped.
    fn delete_volume(&mut self, volume: &Value) {
        let node = json::annotation(volume, "local.path.provisioner/selected-node").unwrap_or_default();
        if self.kube.store.get(kinds::nodes(), "", node).is_some() {
            if !self.alive(node) {
                let message = "failed to delete volume: delete process timeout after 120 seconds";
                if self.held(&format!("wipe-timeout/{}", json::uid(volume)), PATIENCE) {
                    self.note(volume, NAME, "Warning", "VolumeFailedDelete", message);
                }
                return;
            }
            if !self.held(&format!("wipe/{}", json::uid(volume)), WORK) {
                return;
            }
            if let Some(machine) = self.facts.machines.get(node) {
                self.effects.push(Effect::Wipe { vmid: machine.vmid, path: path(volume).to_owned() });
            }
        }
        self.kube.store.delete(&volume_key(json::name(volume)), 0);
    }
}
