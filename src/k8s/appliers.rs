//! Who besides Flux applies an object, and may put back what is changed of it.

use std::fmt;

use serde_json::Value;

use super::meta::Meta;
use super::{KubeError, Kubernetes};

/// Somebody who applies an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Applier {
    /// An Application of Argo CD.
    Argo {
        /// Its name.
        name: String,
        /// Whether it syncs by itself; None where this cluster has no such Application (Argo CD may be on another).
        automated: Option<bool>,
    },
    /// A file of k3s' own manifests directory, by the name of its Addon: k3s applies it when the file changes and when
    /// a server starts.
    Addon(String),
    /// A release of Helm that nobody applies by itself.
    Helm(String),
}

impl fmt::Display for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argo { name, .. } => write!(f, "Application {name} of Argo CD"),
            Self::Addon(name) => write!(f, "k3s addon {name}"),
            Self::Helm(name) => write!(f, "Helm release {name}"),
        }
    }
}

/// The Application that tracks an object: `APP:GROUP/KIND:NAMESPACE/NAME`, where APP is `NAMESPACE_NAME` outside of
/// Argo CD's own namespace (Argo CD, "Resource Tracking", annotation tracking).
fn tracked_by(meta: &Meta) -> Option<&str> {
    let (app, _) = meta.annotations.get("argocd.argoproj.io/tracking-id")?.split_once(':')?;
    Some(app.rsplit('_').next().unwrap_or(app))
}

impl Kubernetes {
    /// Who besides Flux applies an object, by what they write on it.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn appliers(&self, meta: &Meta) -> Result<Vec<Applier>, KubeError> {
        let mut found = Vec::new();
        let instance = meta.labels.get("argocd.argoproj.io/instance").map(String::as_str);
        if let Some(name) = tracked_by(meta).or(instance) {
            found.push(Applier::Argo { name: name.to_owned(), automated: self.syncs_by_itself(name).await? });
        }
        // k3s, deploy controller: every object that it applies is of an Addon's set (rancher/wrangler, objectset).
        let set = |key: &str| meta.annotations.get(&format!("objectset.rio.cattle.io/{key}"));
        if set("owner-gvk").is_some_and(|gvk| gvk.contains("k3s.cattle.io") && gvk.contains("Addon"))
            && let Some(name) = set("owner-name")
        {
            found.push(Applier::Addon(name.clone()));
        }
        let by_flux = meta.labels.contains_key("helm.toolkit.fluxcd.io/name");
        if let Some(release) = meta.annotations.get("meta.helm.sh/release-name").filter(|_| !by_flux) {
            found.push(Applier::Helm(release.clone()));
        }
        Ok(found)
    }

    /// Whether an Application has an automated sync policy that is not switched off (`enabled: false`, Argo CD 3.1).
    async fn syncs_by_itself(&self, name: &str) -> Result<Option<bool>, KubeError> {
        let Some(resource) = self.resource("argoproj.io", "Application").await? else { return Ok(None) };
        let all: Vec<Value> = self.list(&resource, None, &[]).await?;
        let named = all.iter().find(|app| Meta::of(app).name == name);
        Ok(named.map(|app| match app.pointer("/spec/syncPolicy/automated") {
            Some(Value::Object(policy)) => policy.get("enabled") != Some(&Value::Bool(false)),
            _ => false,
        }))
    }
}
