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
fn tracked_by(meta: &Meta) -> Option<(Option<&str>, &str)> {
    if let Some(label) = meta.labels.get("argocd.argoproj.io/instance") {
        return Some((None, label));
    }
    let (app, _) = meta.annotations.get("argocd.argoproj.io/tracking-id")?.split_once(':')?;
    Some(app.rsplit_once('_').map_or((None, app), |(namespace, name)| (Some(namespace), name)))
}

fn is_automated(app: &Value) -> bool {
    // `enabled: false` switches it off since Argo CD 3.1.
    let automated = app.pointer("/spec/syncPolicy/automated").and_then(Value::as_object);
    automated.is_some_and(|policy| policy.get("enabled") != Some(&Value::Bool(false)))
}

impl Kubernetes {
    /// Who besides Flux applies an object, by what they write on it.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn appliers(&self, meta: &Meta) -> Result<Vec<Applier>, KubeError> {
        let mut found = Vec::new();
        found.extend(self.argo(meta).await?);
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

    async fn argo(&self, meta: &Meta) -> Result<Option<Applier>, KubeError> {
        // What other tools set as well: it means Argo CD only where there is an Application of this name for this
        // namespace (the default way of tracking up to Argo CD 2).
        let instance = meta.labels.get("app.kubernetes.io/instance").filter(|_| tracked_by(meta).is_none());
        if tracked_by(meta).is_none() && instance.is_none() {
            return Ok(None);
        }
        let apps: Vec<Value> = match self.resource("argoproj.io", "Application").await? {
            Some(resource) => self.list(&resource, None, &[]).await?,
            None => Vec::new(),
        };
        let named = |app: &&Value| {
            let of = Meta::of(app);
            match (tracked_by(meta), instance) {
                (Some((namespace, name)), _) => of.name == name && namespace.is_none_or(|ns| of.namespace == ns),
                (None, Some(name)) => {
                    let into = app.pointer("/spec/destination/namespace").and_then(Value::as_str);
                    of.name == *name && into == Some(&meta.namespace)
                }
                (None, None) => false,
            }
        };
        let found: Vec<&Value> = apps.iter().filter(named).collect();
        let automated = (!found.is_empty()).then(|| found.iter().any(|app| is_automated(app)));
        Ok(match (tracked_by(meta), instance, automated) {
            (Some((_, name)), ..) => Some(Applier::Argo { name: name.to_owned(), automated }),
            (None, Some(name), Some(_)) => Some(Applier::Argo { name: name.clone(), automated }),
            _ => None,
        })
    }
}
