//! Secrets and config maps by name and key.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::api::Kubernetes;
use super::error::KubeError;
use super::needs::{Named, Needs};
use super::resource::{CONFIG_MAP, Resource, SECRET};

/// The part of an answer that is read; the values are stepped over while parsing and never stored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keyed {
    data: Option<BTreeMap<String, IgnoredAny>>,
    binary_data: Option<BTreeMap<String, IgnoredAny>>,
}

impl Kubernetes {
    /// The keys of a Secret; `None` where there is none. Its values are dropped unread.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn secret_keys(&self, namespace: &str, name: &str) -> Result<Option<Vec<String>>, KubeError> {
        self.keys(&SECRET, namespace, name).await
    }

    /// The keys of a ConfigMap; `None` where there is none.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn config_map_keys(&self, namespace: &str, name: &str) -> Result<Option<Vec<String>>, KubeError> {
        self.keys(&CONFIG_MAP, namespace, name).await
    }

    async fn keys(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Vec<String>>, KubeError> {
        let keyed: Option<Keyed> = self.get(resource, namespace, name).await?;
        Ok(keyed.map(|keyed| {
            let all = keyed.data.into_iter().chain(keyed.binary_data).flatten();
            all.map(|(key, _)| key).collect()
        }))
    }

    /// The secrets and config maps that pods need and the namespace does not have, a line each with what is
    /// missing. Optional ones are left out.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn missing_names(&self, namespace: &str, needs: &Needs) -> Result<Vec<String>, KubeError> {
        let mut missing = Vec::new();
        for (resource, names) in [(&SECRET, &needs.secrets), (&CONFIG_MAP, &needs.config_maps)] {
            for (name, named) in names.iter().filter(|(_, named)| !named.optional) {
                let keys = self.keys(resource, namespace, name).await?;
                missing.extend(lack(&resource.kind, &format!("{namespace}/{name}"), named, keys.as_deref()));
            }
        }
        Ok(missing)
    }
}

/// What an object lacks of what is asked of it.
fn lack(kind: &str, name: &str, named: &Named, keys: Option<&[String]>) -> Option<String> {
    let Some(keys) = keys else { return Some(format!("{kind} {name} does not exist")) };
    let lacking: Vec<&str> = named.keys.iter().filter(|k| !keys.contains(k)).map(String::as_str).collect();
    if lacking.is_empty() { None } else { Some(format!("{kind} {name} has no key {}", lacking.join(", "))) }
}
