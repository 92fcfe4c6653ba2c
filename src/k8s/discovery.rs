//! Which kinds the cluster serves, and in which version.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

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
    resources: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    name: String,
    kind: String,
    namespaced: bool,
}

/// The API groups, as they were listed last.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// The versions of each, the preferred one first.
    versions: BTreeMap<String, Vec<String>>,
    /// Those of which the kinds were read since: who asks again has not found what was looked for.
    read: BTreeSet<String>,
    /// When they could not be listed the last time, and why.
    failed: Option<(Instant, KubeError)>,
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
        loop {
            let (versions, fresh) = self.versions(group).await?;
            match self.find(group, kind, versions).await {
                // A version that was served when the groups were listed.
                Err(KubeError::NotFound { .. }) if !fresh => {}
                Ok(None) if !fresh => {}
                found => return found,
            }
        }
    }

    /// The kind in the first of these versions that has it; everything else that they have is kept as well.
    async fn find(&self, group: &str, kind: &str, versions: Vec<String>) -> Result<Option<Resource>, KubeError> {
        for version in versions {
            let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            let call = self.call("GET", path.clone(), false);
            let kinds: Kinds = self.read(call, Method::GET, path, None).await?;
            let resource = |served: Kind| Resource {
                group: Cow::Owned(group.to_owned()),
                version: Cow::Owned(version.clone()),
                plural: Cow::Owned(served.name),
                kind: Cow::Owned(served.kind),
                namespaced: served.namespaced,
                replicas_in_spec: false,
            };
            let all: Vec<Resource> =
                kinds.resources.into_iter().filter(|r| !r.name.contains('/')).map(resource).collect();
            if let Ok(mut known) = self.kinds.lock() {
                for one in &all {
                    known.entry((group.to_owned(), one.kind.to_string())).or_insert_with(|| one.clone());
                }
            }
            if let Some(found) = all.into_iter().find(|r| r.kind == kind) {
                return Ok(Some(found));
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

    /// The versions of a group, the preferred one first, and whether they were asked for just now; none where the group
    /// is not served. What is known of the groups is taken once for each of them.
    async fn versions(&self, group: &str) -> Result<(Vec<String>, bool), KubeError> {
        if group.is_empty() {
            return Ok((vec!["v1".into()], true));
        }
        // Who comes meanwhile waits for the same answer, and not for the same silence once more.
        let begun = self.clock.instant();
        let mut served = self.groups.lock().await;
        let first = served.read.insert(group.to_owned());
        if let Some(versions) = served.versions.get(group).filter(|_| first) {
            return Ok((versions.clone(), false));
        }
        let meanwhile = served.failed.as_ref().filter(|(at, _)| *at >= begun);
        if let Some(error) = meanwhile.and_then(|(_, error)| error.again()) {
            return Err(error);
        }
        let call = self.call("GET", "/apis".into(), false);
        let groups: Result<Groups, KubeError> = self.read(call, Method::GET, "/apis".into(), None).await;
        served.failed = groups.as_ref().err().and_then(KubeError::again).map(|error| (self.clock.instant(), error));
        let groups = groups?;
        let versions = |group: Group| {
            let preferred = group.preferred_version.map(|v| v.version);
            let others = group.versions.into_iter().map(|v| v.version).filter(|v| Some(v) != preferred.as_ref());
            let others: Vec<String> = others.collect();
            (group.name, preferred.into_iter().chain(others).collect())
        };
        served.versions = groups.groups.into_iter().map(versions).collect();
        Ok((served.versions.get(group).cloned().unwrap_or_default(), true))
    }
}
