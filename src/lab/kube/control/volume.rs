//! Claims and volumes: binding, release, protection. As in kube-controller-manager's persistentvolume and
//! `pvc-protection` / `pv-protection` controllers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Round;
use super::schedule::claim_names;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, text};
use crate::lab::kube::quantity;
use crate::lab::kube::store::{drop_finalizer, finalizers};
use crate::lab::kube::{kinds, store};

const NAME: &str = "persistentvolume-controller";
const ME: Writer<'static> = Writer::new("k3s");
const BOUND: &str = "pv.kubernetes.io/bind-completed";
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub(super) const SELECTED: &str = "volume.kubernetes.io/selected-node";
pub(super) const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";

impl Round<'_> {
    pub(super) fn claims(&mut self) {
        for claim in self.kube.store.all(kinds::claims()) {
            if json::deleting(&claim) {
                self.unprotect_claim(&claim);
            } else if json::annotation(&claim, BOUND).is_some() {
                self.bound_claim(&claim);
            } else {
                self.unbound_claim(&claim);
            }
        }
    }

    /// The finalizer goes when no pod that has a node, finished ones included, names the claim.
    fn unprotect_claim(&mut self, claim: &Value) {
        const FINALIZER: &str = "kubernetes.io/pvc-protection";
        let used = self
            .kube
            .store
            .list(kinds::pods(), Some(json::namespace(claim)))
            .any(|p| !text(p, "/spec/nodeName").is_empty() && claim_names(p).contains(&json::name(claim)));
        if !used && finalizers(claim).contains(&FINALIZER) {
            self.kube.store.edit(kinds::claims(), claim, ME, |c| drop_finalizer(c, FINALIZER));
        }
    }

    fn bound_claim(&mut self, claim: &Value) {
        let name = text(claim, "/spec/volumeName");
        let volume = self.kube.store.get(kinds::volumes(), "", name).cloned();
        let Some(volume) = volume.filter(|v| text(v, "/spec/claimRef/uid") == json::uid(claim)) else {
            if text(claim, "/status/phase") != "Lost" {
                self.set_status(kinds::claims(), claim, |c| json::set(c, &["status", "phase"], "Lost"));
                let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                self.note(claim, NAME, "Warning", "ClaimLost", message);
            }
            return;
        };
        if text(claim, "/status/phase") != "Bound" {
            self.claim_status(claim, &volume);
        }
    }

    fn claim_status(&mut self, claim: &Value, volume: &Value) {
        self.set_status(kinds::claims(), claim, |c| {
            json::set(c, &["status", "phase"], "Bound");
            for field in ["accessModes", "capacity"] {
                let value = volume.pointer(&format!("/spec/{field}")).cloned().unwrap_or_default();
                json::set(c, &["status", field], value);
            }
        });
    }

    fn unbound_claim(&mut self, claim: &Value) {
        let wanted = text(claim, "/spec/volumeName").to_owned();
        if !wanted.is_empty() {
            let Some(volume) = self.kube.store.get(kinds::volumes(), "", &wanted).cloned() else { return };
            if volume.pointer("/spec/claimRef").is_none_or(Value::is_null) || reserved_for(&volume, claim) {
                self.bind_volume(claim, &volume, false);
            } else {
                let message = format!("volume \"{wanted}\" already bound to a different claim.");
                self.note(claim, NAME, "Warning", "FailedBinding", &message);
            }
            return;
        }
        let volumes = self.kube.store.all(kinds::volumes());
        if let Some(volume) = volumes.iter().find(|v| reserved_for(v, claim) && suits(v, claim)) {
            return self.bind_volume(claim, volume, true);
        }
        let class = text(claim, "/spec/storageClassName").to_owned();
        let class = self.kube.store.get(kinds::classes(), "", &class).cloned();
        let delayed = class.as_ref().is_some_and(|c| text(c, "/volumeBindingMode") == "WaitForFirstConsumer");
        let selected = json::annotation(claim, SELECTED).is_some();
        if delayed && !selected {
            let message = "waiting for first consumer to be created before binding";
            return self.note(claim, NAME, "Normal", "WaitForFirstConsumer", message);
        }
        let free = |v: &&Arc<Value>| v.pointer("/spec/claimRef").is_none_or(Value::is_null) && suits(v, claim);
        if !delayed && let Some(volume) = volumes.iter().filter(free).min_by_key(|v| size(v, "/spec/capacity/storage"))
        {
            return self.bind_volume(claim, volume, true);
        }
        let Some(class) = class else {
            let message = match text(claim, "/spec/storageClassName") {
                "" => "no persistent volumes available for this claim and no storage class is set".to_owned(),
                name => format!("storageclass.storage.k8s.io \"{name}\" not found"),
            };
            let reason =
                if text(claim, "/spec/storageClassName").is_empty() { "FailedBinding" } else { "ProvisioningFailed" };
            return self.note(claim, NAME, "Warning", reason, &message);
        };
        let provisioner = text(&class, "/provisioner").to_owned();
        if json::annotation(claim, PROVISIONER) != Some(&provisioner) {
            self.kube.store.edit(kinds::claims(), claim, ME, |c| {
                for key in [PROVISIONER_BETA, PROVISIONER] {
                    json::set(c, &["metadata", "annotations", key], provisioner.as_str());
                }
            });
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
                 system administrator. If volume creation is delayed, please verify that the provisioner is running and \
                 correctly registered."
            );
            self.note(claim, NAME, "Normal", "ExternalProvisioning", &message);
        }
    }

    /// Binds: first the volume, then the claim.
    fn bind_volume(&mut self, claim: &Value, volume: &Value, chosen: bool) {
        let reference = json!({
            "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": json::namespace(claim),
            "name": json::name(claim), "uid": json::uid(claim),
            "resourceVersion": text(claim, "/metadata/resourceVersion"),
        });
        let fresh = volume.pointer("/spec/claimRef").is_none_or(Value::is_null);
        self.kube.store.edit(kinds::volumes(), volume, ME, |v| {
            if text(v, "/spec/claimRef/uid") != json::uid(claim) {
                json::set(v, &["spec", "claimRef"], reference);
            }
            if fresh {
                json::set(v, &["metadata", "annotations", BY_CONTROLLER], "yes");
            }
            json::set(v, &["status", "phase"], "Bound");
        });
        self.kube.store.edit(kinds::claims(), claim, ME, |c| {
            json::set(c, &["spec", "volumeName"], json::name(volume));
            json::set(c, &["metadata", "annotations", BOUND], "yes");
            if chosen {
                json::set(c, &["metadata", "annotations", BY_CONTROLLER], "yes");
            }
        });
        self.claim_status(claim, volume);
    }

    pub(super) fn volumes(&mut self) {
        for volume in self.kube.store.all(kinds::volumes()) {
            let (space, name) = (text(&volume, "/spec/claimRef/namespace"), text(&volume, "/spec/claimRef/name"));
            let uid = text(&volume, "/spec/claimRef/uid");
            let phase = if uid.is_empty() {
                "Available"
            } else {
                let claim = self.kube.store.get(kinds::claims(), space, name).filter(|c| json::uid(c) == uid);
                match claim {
                    None => "Released",
                    Some(claim) if text(claim, "/spec/volumeName") == json::name(&volume) => "Bound",
                    Some(_) => text(&volume, "/status/phase"),
                }
            }
            .to_owned();
            if phase != text(&volume, "/status/phase") {
                let now = self.kube.store.now.clone();
                self.set_status(kinds::volumes(), &volume, |v| {
                    json::set(v, &["status", "phase"], phase.as_str());
                    json::set(v, &["status", "lastPhaseTransitionTime"], now);
                });
            }
            const FINALIZER: &str = "kubernetes.io/pv-protection";
            if json::deleting(&volume) && phase != "Bound" && finalizers(&volume).contains(&FINALIZER) {
                self.kube.store.edit(kinds::volumes(), &volume, ME, |v| drop_finalizer(v, FINALIZER));
            }
        }
    }
}

/// Whether a volume is kept for a claim: by name, and by uid where it has one.
fn reserved_for(volume: &Value, claim: &Value) -> bool {
    let uid = text(volume, "/spec/claimRef/uid");
    text(volume, "/spec/claimRef/name") == json::name(claim)
        && text(volume, "/spec/claimRef/namespace") == json::namespace(claim)
        && (uid.is_empty() || uid == json::uid(claim))
        && !json::deleting(volume)
}

fn size(object: &Value, pointer: &str) -> i128 {
    quantity::bytes(text(object, pointer)).unwrap_or_default()
}

/// Whether class, size, mode and access modes let a claim have a volume.
fn suits(volume: &Value, claim: &Value) -> bool {
    let modes = |v: &Value| json::list(v, "/spec/accessModes").to_vec();
    text(volume, "/spec/storageClassName") == text(claim, "/spec/storageClassName")
        && text(volume, "/spec/volumeMode") == text(claim, "/spec/volumeMode")
        && size(volume, "/spec/capacity/storage") >= size(claim, "/spec/resources/requests/storage")
        && modes(claim).iter().all(|m| modes(volume).contains(m))
        && !json::deleting(volume)
}

/// The key of a volume.
pub(super) fn volume_key(name: &str) -> store::Key {
    store::Key::new(kinds::volumes(), "", name)
}
