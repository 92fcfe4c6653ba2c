//! Which kinds the cluster serves, and in which version.

use std::borrow::Cow;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::api::Kubernetes;
use super::error::KubeError;
use super::resource::{Resource, fixed};

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    #[serde(default)]
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Kinds {
    resources: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    name: String,
    kind: String,
    namespaced: bool,
}

impl Kubernetes {
    /// Where the objects of a kind are, in the group's preferred version that has the kind; `None` where the
    /// cluster does not serve it. What was found is kept, what was not is asked again.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn resource(&self, group: &str, kind: &str) -> Result<Option<Resource>, KubeError> {
        if let Some(resource) = fixed(group, kind) {
            return Ok(Some(resource));
        }
        let key = (group.to_owned(), kind.to_owned());
        if let Ok(kinds) = self.kinds.lock()
            && let Some(known) = kinds.get(&key)
        {
            return Ok(Some(known.clone()));
        }
        for version in self.versions(group).await? {
            let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            let call = self.call("GET", path.clone(), false);
            let kinds: Kinds = self.read(call, Method::GET, path, None).await?;
            let found = kinds.resources.into_iter().find(|r| r.kind == kind && !r.name.contains('/'));
            if let Some(found) = found {
                let resource = Resource {
                    group: Cow::Owned(group.to_owned()),
                    version: Cow::Owned(version),
                    plural: Cow::Owned(found.name),
                    kind: Cow::Owned(found.kind),
                    namespaced: found.namespaced,
                    replicas_in_spec: false,
                };
                if let Ok(mut kinds) = self.kinds.lock() {
                    kinds.insert(key, resource.clone());
                }
                return Ok(Some(resource));
            }
        }
        Ok(None)
    }

    /// Like [`Kubernetes::resource`], where the kind has to be there.
    ///
    /// # Errors
    /// [`KubeError::NoKind`], and what keeps the API from answering.
    pub async fn served(&self, group: &str, kind: &str) -> Result<Resource, KubeError> {
        self.resource(group, kind).await?.ok_or_else(|| KubeError::NoKind {
            cluster: self.cluster.clone(),
            group: if group.is_empty() { "core".into() } else { group.to_owned() },
            kind: kind.to_owned(),
        })
    }

    /// A live object of any kind as it is, `None` where there is none. `api_version` as in a manifest; its version
    /// does not matter, only its group does.
    ///
    /// Not for Secrets: their values would come along.
    ///
    /// # Errors
    /// [`KubeError::NoKind`], and what keeps the API from answering.
    pub async fn object(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let resource = self.served(group, kind).await?;
        self.get(&resource, namespace, name).await
    }

    /// The server's version, `v1.34.1+k3s1`.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn version(&self) -> Result<String, KubeError> {
        let call = self.call("GET", "/version".into(), false);
        let answer: Value = self.read(call, Method::GET, "/version".into(), None).await?;
        Ok(answer.get("gitVersion").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// The versions of a group, the preferred one first; none where the group is not served.
    async fn versions(&self, group: &str) -> Result<Vec<String>, KubeError> {
        if group.is_empty() {
            return Ok(vec!["v1".into()]);
        }
        let call = self.call("GET", "/apis".into(), false);
        let groups: Groups = self.read(call, Method::GET, "/apis".into(), None).await?;
        let Some(group) = groups.groups.into_iter().find(|g| g.name == group) else { return Ok(Vec::new()) };
        let preferred = group.preferred_version.map(|v| v.version);
        let others = group.versions.into_iter().map(|v| v.version).filter(|v| Some(v) != preferred.as_ref());
        let others: Vec<String> = others.collect();
        Ok(preferred.into_iter().chain(others).collect())
    }
}
