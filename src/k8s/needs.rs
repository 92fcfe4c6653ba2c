//! What a pod template names and a node or namespace has to have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::pod::claims_of;

/// What a pod template names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Claims by name (those of ephemeral volumes are named after the pod and are not here).
    pub claims: Vec<String>,
    /// Secrets and the keys that are asked of each.
    pub secrets: BTreeMap<String, Named>,
    /// Config maps and the keys that are asked of each.
    pub config_maps: BTreeMap<String, Named>,
    /// The runtime class.
    pub runtime_class: Option<String>,
    /// The paths of its `hostPath` volumes.
    pub host_paths: Vec<String>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// What its containers ask for, by resource name, largest limit or request of a container.
    pub resources: BTreeMap<String, String>,
    /// The names of its containers, without the init containers.
    pub containers: Vec<String>,
}

/// How an object is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The keys that it must have, sorted; empty where any will do.
    pub keys: Vec<String>,
    /// True where the pod starts without it.
    pub optional: bool,
}

/// Collects what a pod spec names.
pub fn needs_of(spec: &core::PodSpec) -> Needs {
    let mut needs = Needs {
        runtime_class: spec.runtime_class_name.clone(),
        node_selector: spec.node_selector.clone().unwrap_or_default(),
        containers: spec.containers.iter().map(|c| c.name.clone()).collect(),
        ..Needs::default()
    };
    for volume in spec.volumes.iter().flatten() {
        needs.host_paths.extend(volume.host_path.as_ref().map(|h| h.path.clone()));
        if let Some(secret) = &volume.secret
            && let Some(name) = &secret.secret_name
        {
            add(&mut needs.secrets, name, items(secret.items.as_deref()), secret.optional);
        }
        if let Some(map) = &volume.config_map {
            add(&mut needs.config_maps, &map.name, items(map.items.as_deref()), map.optional);
        }
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            if let Some(secret) = &source.secret {
                add(&mut needs.secrets, &secret.name, items(secret.items.as_deref()), secret.optional);
            }
            if let Some(map) = &source.config_map {
                add(&mut needs.config_maps, &map.name, items(map.items.as_deref()), map.optional);
            }
        }
    }
    needs.claims = claims_of("", spec.volumes.as_deref().unwrap_or_default())
        .into_iter()
        .filter(|c| !c.ephemeral)
        .map(|c| c.claim)
        .collect();
    for secret in spec.image_pull_secrets.iter().flatten() {
        // The kubelet pulls without it where it is missing, and then fails on a private image.
        add(&mut needs.secrets, &secret.name, Vec::new(), Some(false));
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for from in container.env_from.iter().flatten() {
            if let Some(secret) = &from.secret_ref {
                add(&mut needs.secrets, &secret.name, Vec::new(), secret.optional);
            }
            if let Some(map) = &from.config_map_ref {
                add(&mut needs.config_maps, &map.name, Vec::new(), map.optional);
            }
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            if let Some(secret) = &source.secret_key_ref {
                add(&mut needs.secrets, &secret.name, vec![secret.key.clone()], secret.optional);
            }
            if let Some(map) = &source.config_map_key_ref {
                add(&mut needs.config_maps, &map.name, vec![map.key.clone()], map.optional);
            }
        }
        let resources = container.resources.as_ref();
        for (key, quantity) in resources.iter().flat_map(|r| r.requests.iter().chain(&r.limits)).flatten() {
            needs.resources.insert(key.clone(), quantity.0.clone());
        }
    }
    needs
}

fn items(items: Option<&[core::KeyToPath]>) -> Vec<String> {
    items.unwrap_or_default().iter().map(|item| item.key.clone()).collect()
}

fn add(map: &mut BTreeMap<String, Named>, name: &str, keys: Vec<String>, optional: Option<bool>) {
    let optional = optional.unwrap_or(false);
    let named = map.entry(name.to_owned()).or_insert_with(|| Named { keys: Vec::new(), optional: true });
    // One place that cannot do without it is enough; keys of an optional reference are not demanded.
    named.optional &= optional;
    if !optional {
        named.keys.extend(keys);
        named.keys.sort();
        named.keys.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_template_names() {
        let spec: core::PodSpec = serde_json::from_value(serde_json::json!({
            "runtimeClassName": "nvidia",
            "nodeSelector": {"coral": "true"},
            "imagePullSecrets": [{"name": "registry"}],
            "initContainers": [{"name": "init", "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "boot", "key": "a", "optional": true}}}]}],
            "containers": [{
                "name": "frigate",
                "env": [
                    {"name": "P", "valueFrom": {"secretKeyRef": {"name": "rtsp", "key": "password"}}},
                    {"name": "U", "valueFrom": {"secretKeyRef": {"name": "rtsp", "key": "user"}}},
                    {"name": "O", "valueFrom": {"secretKeyRef": {"name": "rtsp", "key": "extra", "optional": true}}},
                ],
                "envFrom": [{"configMapRef": {"name": "env"}}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "500m"}},
            }],
            "volumes": [
                {"name": "config", "persistentVolumeClaim": {"claimName": "frigate-config"}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                {"name": "conf", "configMap": {"name": "frigate-config", "items": [{"key": "config.yml", "path": "c"}]}},
                {"name": "tls", "projected": {"sources": [{"secret": {"name": "tls"}}]}},
                {"name": "usb", "hostPath": {"path": "/dev/bus/usb"}},
            ],
        }))
        .unwrap();
        let needs = needs_of(&spec);
        assert_eq!(needs.claims, ["frigate-config"]);
        assert_eq!(needs.runtime_class.as_deref(), Some("nvidia"));
        assert_eq!(needs.secrets.keys().collect::<Vec<_>>(), ["registry", "rtsp", "tls"]);
        assert_eq!(needs.secrets["rtsp"], Named { keys: vec!["password".into(), "user".into()], optional: false });
        assert_eq!(needs.config_maps["boot"], Named { keys: vec![], optional: true });
        assert_eq!(needs.config_maps["frigate-config"].keys, ["config.yml"]);
        assert_eq!(needs.config_maps["env"], Named::default());
        assert_eq!(needs.host_paths, ["/dev/bus/usb"]);
        assert_eq!(needs.resources["nvidia.com/gpu"], "1");
        assert_eq!(needs.containers, ["frigate"]);
    }
}
