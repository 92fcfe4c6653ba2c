//! What keeps a kubelet from starting a pod.

use serde_json::Value;

use super::Round;
use super::kubelet::waiting;
use crate::lab::kube::fields::Writer;
use crate::lab::kube::json::{self, flag, list, text};
use crate::lab::kube::kinds;
use crate::lab::kube::select::volume_fits;

/// Why a pod does not start.
pub(super) enum Obstacle {
    /// No sandbox or no volume: it stays in ContainerCreating, and an event says why.
    Creating { reason: &'static str, message: String },
    /// A container's environment cannot be made.
    Config(String),
    /// Its image does not come.
    Image(String),
}

impl Round<'_> {
    pub(super) fn obstacle(&self, pod: &Value) -> Option<Obstacle> {
        let node = self.kube.store.get(kinds::nodes(), "", text(pod, "/spec/nodeName"))?;
        let class = text(pod, "/spec/runtimeClassName");
        if !class.is_empty() {
            let runtime = self.kube.store.get(kinds::runtimes(), "", class);
            let handler = runtime.map_or(class, |r| text(r, "/handler"));
            let there = list(node, "/status/runtimeHandlers").iter().any(|h| text(h, "/name") == handler);
            if !there {
                let message = format!(
                    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no \
                     runtime for \"{handler}\" is configured"
                );
                return Some(Obstacle::Creating { reason: "FailedCreatePodSandBox", message });
            }
        }
        list(pod, "/spec/volumes")
            .iter()
            .find_map(|v| self.unmountable(pod, node, v))
            .or_else(|| self.unset(pod))
            .or_else(|| unpulled(pod))
    }

    fn unmountable(&self, pod: &Value, node: &Value, volume: &Value) -> Option<Obstacle> {
        let name = text(volume, "/name");
        let failed = |message: String| Some(Obstacle::Creating { reason: "FailedMount", message });
        let space = json::namespace(pod);
        for (pointer, kind, what) in
            [("/configMap", kinds::configmaps(), "configmap"), ("/secret", kinds::secrets(), "secret")]
        {
            let Some(source) = volume.pointer(pointer) else { continue };
            let wanted = if what == "secret" { text(source, "/secretName") } else { text(source, "/name") };
            if !flag(source, "/optional") && self.kube.store.get(kind, space, wanted).is_none() {
                return failed(format!(
                    "MountVolume.SetUp failed for volume \"{name}\" : {what} \"{wanted}\" not found"
                ));
            }
        }
        let claim = text(volume, "/persistentVolumeClaim/claimName");
        if !claim.is_empty() {
            let Some(found) = self.kube.store.get(kinds::claims(), space, claim) else {
                return failed(format!("persistentvolumeclaim \"{claim}\" not found"));
            };
            // Claims without a bound volume are waited for in silence, as in the kubelet's volume manager.
            if json::annotation(found, "pv.kubernetes.io/bind-completed").is_none() {
                let message = format!(
                    "Unable to attach or mount volumes: unmounted volumes=[{name}], unattached volumes=[], failed to \
                     process volumes=[{name}]: error processing PVC {space}/{claim}: PVC is not bound"
                );
                return failed(message);
            }
            let bound = self.kube.store.get(kinds::volumes(), "", text(found, "/spec/volumeName"))?;
            if !volume_fits(bound, node) {
                let message = format!(
                    "MountVolume.NodeAffinity check failed for volume \"{}\" : no matching NodeSelectorTerms",
                    json::name(bound)
                );
                return failed(message);
            }
        }
        let (path, kind) = (text(volume, "/hostPath/path"), text(volume, "/hostPath/type"));
        let machine = self.facts.machines.get(json::name(node))?;
        if let Some((bound, path)) = self.local_of(space, claim).filter(|(_, path)| !machine.has_folder(path)) {
            return failed(format!(
                "MountVolume.NewMounter initialization failed for volume \"{bound}\" : path \"{path}\" does not exist"
            ));
        }
        if matches!(kind, "Directory" | "File" | "CharDevice" | "BlockDevice" | "Socket")
            && !machine.paths.contains(path)
        {
            let what = if kind == "Directory" { "a directory" } else { "a file" };
            return failed(format!(
                "MountVolume.SetUp failed for volume \"{name}\" : hostPath type check failed: {path} is not {what}"
            ));
        }
        None
    }

    /// The local volume that a claim is bound to, with its folder.
    fn local_of(&self, space: &str, claim: &str) -> Option<(String, String)> {
        let found = self.kube.store.get(kinds::claims(), space, claim)?;
        let bound = self.kube.store.get(kinds::volumes(), "", text(found, "/spec/volumeName"))?;
        let path = text(bound, "/spec/local/path");
        (!path.is_empty()).then(|| (json::name(bound).to_owned(), path.to_owned()))
    }

    /// What a container's environment names and nobody has.
    fn unset(&self, pod: &Value) -> Option<Obstacle> {
        let space = json::namespace(pod);
        for container in list(pod, "/spec/containers") {
            let single = list(container, "/env").iter().filter_map(|e| e.get("valueFrom"));
            for source in single.chain(list(container, "/envFrom")) {
                for (field, kind, what) in [
                    ("configMapKeyRef", kinds::configmaps(), "configmap"),
                    ("configMapRef", kinds::configmaps(), "configmap"),
                    ("secretKeyRef", kinds::secrets(), "secret"),
                    ("secretRef", kinds::secrets(), "secret"),
                ] {
                    let Some(reference) = source.get(field).filter(|r| !flag(r, "/optional")) else { continue };
                    let (name, key) = (text(reference, "/name"), text(reference, "/key"));
                    let Some(object) = self.kube.store.get(kind, space, name) else {
                        return Some(Obstacle::Config(format!("{what} \"{name}\" not found")));
                    };
                    if !key.is_empty() && object.get("data").and_then(|d| d.get(key)).is_none() {
                        let text = format!(
                            "couldn't find key {key} in {} {space}/{name}",
                            object["kind"].as_str().unwrap_or(what)
                        );
                        return Some(Obstacle::Config(text));
                    }
                }
            }
        }
        None
    }

    pub(super) fn stuck(&mut self, pod: &Value, obstacle: &Obstacle) {
        let (reason, message, event) = match obstacle {
            Obstacle::Creating { reason, message } => ("ContainerCreating", "", Some((*reason, message))),
            Obstacle::Config(message) => ("CreateContainerConfigError", message.as_str(), None),
            Obstacle::Image(message) => ("ErrImagePull", message.as_str(), None),
        };
        let present = list(pod, "/status/containerStatuses").first().map(|c| text(c, "/state/waiting/reason"));
        if present != Some(reason) {
            self.kube.store.edit(kinds::pods(), pod, Writer::status("k3s"), |p| waiting(p, reason, message, false));
        }
        match event {
            Some((reason, message)) => self.note(pod, "kubelet", "Warning", reason, message),
            None => self.note(pod, "kubelet", "Warning", "Failed", &format!("Error: {message}")),
        }
    }
}

/// An image of the one registry that nobody finds here (RFC 2606: nothing is ever below `.invalid`). Others of that kind are
/// names that the worlds' own workloads have, and those run.
fn unpulled(pod: &Value) -> Option<Obstacle> {
    let images = list(pod, "/spec/containers").iter().map(|container| text(container, "/image"));
    let nowhere = |image: &&str| image.split('/').next() == Some("nowhere.invalid");
    let image = images.into_iter().find(nowhere)?;
    let host = image.split('/').next().unwrap_or_default();
    Some(Obstacle::Image(format!(
        "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": failed to do request: Head \
         \"https://{host}/v2/\": dial tcp: lookup {host}: no such host"
    )))
}
