//! What these credentials may do, asked before anything is done.

use futures::{StreamExt, TryStreamExt};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::Kubernetes;
use super::error::KubeError;

/// Questions in flight at a time.
const AT_ONCE: usize = 8;

/// One permission.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Right {
    /// `get`, `list`, `watch`, `create`, `patch`, `delete`.
    pub verb: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The plural, with its subresource after a slash: `pods/eviction`.
    pub resource: String,
    /// The namespace; empty for all or for kinds without.
    pub namespace: String,
    /// The one object; empty for all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl Right {
    /// A permission.
    pub fn new(verb: &str, group: &str, resource: &str, namespace: &str) -> Self {
        let (verb, group, resource, namespace) = (verb.into(), group.into(), resource.into(), namespace.into());
        Self { verb, group, resource, namespace, name: String::new() }
    }

    /// Everything with every object.
    fn all() -> Self {
        Self::new("*", "*", "*", "")
    }

    /// The same for one object.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        if self.namespace.is_empty() { Ok(()) } else { write!(f, " in {}", self.namespace) }
    }
}

impl Kubernetes {
    /// Whether the credentials may do everything, as those of a cluster's administrator: then they lack no right, and
    /// one question is enough. False also where that cannot be asked: each right is a question of its own then.
    ///
    /// In a review `*` means all (authorization.k8s.io/v1, `ResourceAttributes`). RBAC allows it only by one
    /// cluster-wide rule that has `*` as verb, group and resource, which covers subresources, and RBAC denies nothing
    /// (kubernetes `pkg/apis/rbac/v1/evaluation_helpers.go`). That no other authorizer before RBAC denies single
    /// requests is assumed.
    pub async fn may_do_all(&self) -> bool {
        matches!(self.may(&Right::all()).await, Ok(true))
    }

    /// Which of these rights the credentials lack, in the order asked. A review is a POST that changes nothing.
    ///
    /// # Errors
    /// What keeps the API from answering: "could not ask" is not "may not".
    pub async fn missing_rights(&self, rights: &[Right]) -> Result<Vec<Right>, KubeError> {
        let one = |right: Right| async move { self.may(&right).await };
        let asked = futures::stream::iter(rights.iter().cloned().map(one));
        let answers: Vec<bool> = asked.buffered(AT_ONCE).try_collect().await?;
        Ok(rights.iter().zip(answers).filter(|(_, may)| !may).map(|(right, _)| right.clone()).collect())
    }

    /// Whether the credentials have a right.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn may(&self, right: &Right) -> Result<bool, KubeError> {
        #[derive(Deserialize)]
        struct Review {
            status: Verdict,
        }
        #[derive(Deserialize)]
        struct Verdict {
            allowed: bool,
        }
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
        let mut attributes: Value = json!({
            "verb": right.verb, "group": right.group, "resource": resource, "subresource": subresource,
            "namespace": right.namespace,
        });
        if !right.name.is_empty() {
            attributes["name"] = right.name.as_str().into();
        }
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        });
        let call = self.call("POST", format!("selfsubjectaccessreviews ({right})"), false);
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let review: Review = self.read(call, Method::POST, path, Some(&body)).await?;
        Ok(review.status.allowed)
    }
}
