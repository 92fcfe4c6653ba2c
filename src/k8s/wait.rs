//! Waits that survive what happens to an API server meanwhile.
//!
//! A wait asks for the whole state, decides on it, and uses the watch only to be woken: a lost event, a 410 or a
//! reset connection costs a second look and nothing else. Decide on facts of identity: uid, generation, token.

use std::time::Duration;

use serde_json::Value;

use super::api::Kubernetes;
use super::claim::Claim;
use super::error::KubeError;
use super::meta::Meta;
use super::pod::Pod;
use super::resource::{CLAIM, POD, Resource, VOLUME};
use super::workload::Workload;
use crate::base::wait::{Backoff, pause, within};

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<T> {
    /// It is so.
    Now(T),
    /// Not yet, and this is how it is.
    NotYet(String),
    /// It cannot come any more, and this is why.
    Never(String),
}

/// The longest time without a look, whatever the watch says.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Several changes that come together are looked at once.
const GATHER: Duration = Duration::from_millis(50);

impl Kubernetes {
    /// Waits until no object of this uid is there any more.
    ///
    /// # Errors
    /// [`KubeError::Deadline`] with what still holds it, and what ends a wait at once (credentials, certificate).
    pub async fn wait_pod_gone(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        limit: Duration,
    ) -> Result<(), KubeError> {
        self.wait_gone(&POD, (namespace, name), uid, limit).await
    }

    /// Waits until no claim of this uid is there any more.
    ///
    /// # Errors
    /// As for [`Kubernetes::wait_pod_gone`].
    pub async fn wait_claim_gone(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        limit: Duration,
    ) -> Result<(), KubeError> {
        self.wait_gone(&CLAIM, (namespace, name), uid, limit).await
    }

    /// Waits until no volume object of this uid is there any more.
    ///
    /// # Errors
    /// As for [`Kubernetes::wait_pod_gone`].
    pub async fn wait_volume_gone(&self, name: &str, uid: &str, limit: Duration) -> Result<(), KubeError> {
        self.wait_gone(&VOLUME, ("", name), uid, limit).await
    }

    /// Waits until a workload has no pod any more, the terminating ones included.
    ///
    /// # Errors
    /// As for [`Kubernetes::until`]; [`KubeError::BadAnswer`] where it has no selector.
    pub async fn wait_no_pods(&self, workload: &Workload, limit: Duration) -> Result<(), KubeError> {
        // Also the guard against a selector that chooses everything.
        if self.workload_pods(workload).await?.is_empty() {
            return Ok(());
        }
        let what = format!("{}: all pods gone", workload.title());
        self.until_pods(&workload.meta.namespace, &workload.selector, &what, limit, |pods| {
            let names: Vec<String> = pods.iter().map(|p| p.meta.name.clone()).collect();
            if names.is_empty() { Seen::Now(()) } else { Seen::NotYet(format!("there: {}", names.join(", "))) }
        })
        .await
    }

    /// Waits until a claim of another uid than `not` is bound.
    ///
    /// # Errors
    /// As for [`Kubernetes::until`].
    pub async fn wait_claim_bound(
        &self,
        (namespace, name): (&str, &str),
        not: Option<&str>,
        limit: Duration,
    ) -> Result<Claim, KubeError> {
        let what = format!("{} bound", CLAIM.name_of(namespace, name));
        self.until(&CLAIM, (namespace, name), &what, limit, |object| {
            let Some(object) = object else { return Seen::NotYet("not there".into()) };
            match Claim::from_api(object.clone()) {
                Err(error) => Seen::NotYet(format!("not understood ({:?} error)", error.classify())),
                Ok(claim) if not == Some(claim.meta.uid.as_str()) => Seen::NotYet("still the old one".into()),
                Ok(claim) if claim.is_bound() => Seen::Now(claim),
                Ok(claim) => Seen::NotYet(format!("phase {}", claim.phase)),
            }
        })
        .await
    }

    async fn wait_gone(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        uid: &str,
        limit: Duration,
    ) -> Result<(), KubeError> {
        let what = format!("{} gone", resource.name_of(namespace, name));
        self.until(resource, (namespace, name), &what, limit, |object| {
            let Some(object) = object else { return Seen::Now(()) };
            let meta = Meta::of(object);
            if meta.uid != uid {
                return Seen::Now(());
            }
            Seen::NotYet(match (&meta.deleting, meta.finalizers.as_slice()) {
                (None, _) => "there, and not being deleted".into(),
                (Some(at), []) => format!("being deleted, grace until {at}"),
                (Some(_), held) => format!("being deleted, held by {}", held.join(", ")),
            })
        })
        .await
    }

    /// Waits until the pods that a label selector chooses are as `look` wants them.
    ///
    /// # Errors
    /// As for [`Kubernetes::until`].
    pub async fn until_pods<T>(
        &self,
        namespace: &str,
        selector: &str,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&[Pod]) -> Seen<T>,
    ) -> Result<T, KubeError> {
        let query = [("labelSelector", selector)];
        let parse = |items: &[Value]| {
            let pods: Result<Vec<Pod>, _> = items.iter().cloned().map(Pod::from_api).collect();
            self.shape("pods", pods).map(|pods| look(&pods))
        };
        self.until_list(&POD, Some(namespace), &query, what, limit, parse).await
    }

    /// Waits until one object (`None`: it is not there) is as `look` wants it.
    ///
    /// # Errors
    /// [`KubeError::Deadline`] with what was seen last, [`KubeError::Hopeless`], and what ends a wait at once
    /// (credentials, certificate, permission).
    pub async fn until<T>(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        what: &str,
        limit: Duration,
        mut look: impl FnMut(Option<&Value>) -> Seen<T>,
    ) -> Result<T, KubeError> {
        let field = format!("metadata.name={name}");
        let namespace = Some(namespace).filter(|n| !n.is_empty());
        let query = [("fieldSelector", field.as_str())];
        self.until_list(resource, namespace, &query, what, limit, |items| {
            Ok(look(items.iter().find(|item| Meta::of(item).name == name)))
        })
        .await
    }

    async fn until_list<T>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&[Value]) -> Result<Seen<T>, KubeError>,
    ) -> Result<T, KubeError> {
        let mut last = None;
        let work = async {
            let mut backoff = Backoff::poll(self.clock);
            loop {
                let since = match self.list_at::<Value>(resource, namespace, query).await {
                    Ok((items, since)) => {
                        match look(&items)? {
                            Seen::Now(found) => return Ok(found),
                            Seen::Never(why) => {
                                return Err(KubeError::Hopeless {
                                    cluster: self.cluster.clone(),
                                    what: what.to_owned(),
                                    why,
                                });
                            }
                            Seen::NotYet(state) => last = Some(state),
                        }
                        Some(since)
                    }
                    Err(error) if passes(&error) => {
                        last = Some(error.to_string());
                        None
                    }
                    Err(error) => return Err(error),
                };
                // A watch that cannot be had, ends or fails is only a reason to look again a little later.
                let woken = match since {
                    Some(since) => {
                        let watch = self.stirred(resource, namespace, query, &since);
                        matches!(within(self.clock.scaled(LOOK_AGAIN), watch).await, Ok(Ok(true)))
                    }
                    None => false,
                };
                if woken {
                    backoff = Backoff::poll(self.clock);
                    pause(self.clock, GATHER).await;
                } else {
                    backoff.pause().await;
                }
            }
        };
        let outcome = within(limit, work).await;
        outcome.unwrap_or_else(|_| {
            Err(KubeError::Deadline { cluster: self.cluster.clone(), what: what.to_owned(), waited: limit, last })
        })
    }
}

/// Faults that a wait sits out: the API server may be away for a while, and come back. Another authority or other
/// credentials do not go by.
fn passes(error: &KubeError) -> bool {
    matches!(
        error,
        KubeError::Unreachable { .. }
            | KubeError::LostAnswer { .. }
            | KubeError::Throttled { .. }
            | KubeError::Server { .. }
            | KubeError::Expired { .. }
    )
}
