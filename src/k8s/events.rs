//! Events: what the parts of a cluster say about an object.

use k8s_openapi::api::core::v1 as core;

use super::api::Kubernetes;
use super::error::KubeError;
use super::pod::Pod;
use super::resource::EVENT;

/// An event about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was seen last, RFC 3339; empty where it does not say.
    pub last: String,
    /// True for type `Warning`.
    pub warning: bool,
    /// One word: `FailedScheduling`, `FailedMount`, `FailedCreatePodSandBox`, `ProvisioningFailed`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// How often.
    pub count: i32,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)?;
        if self.count > 1 { write!(f, " ({} times)", self.count) } else { Ok(()) }
    }
}

impl From<core::Event> for Event {
    fn from(event: core::Event) -> Self {
        // The newer recorder counts in a series and leaves the older fields empty.
        let series = event.series.as_ref();
        let last = series
            .and_then(|s| s.last_observed_time.as_ref().map(|t| t.0.to_string()))
            .or_else(|| event.last_timestamp.as_ref().map(|t| t.0.to_string()))
            .or_else(|| event.event_time.as_ref().map(|t| t.0.to_string()))
            .or_else(|| event.metadata.creation_timestamp.as_ref().map(|t| t.0.to_string()));
        Self {
            last: last.unwrap_or_default(),
            warning: event.type_.as_deref() == Some("Warning"),
            count: series.and_then(|s| s.count).or(event.count).unwrap_or(1),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
        }
    }
}

impl Kubernetes {
    /// The events about the object with this uid, newest first. The API server keeps them for an hour.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn events(&self, namespace: &str, uid: &str) -> Result<Vec<Event>, KubeError> {
        let field = format!("involvedObject.uid={uid}");
        let all: Vec<core::Event> = self.list(&EVENT, Some(namespace), &[("fieldSelector", &field)]).await?;
        let mut all: Vec<Event> = all.into_iter().map(Event::from).collect();
        all.sort_by(|a, b| b.last.cmp(&a.last));
        Ok(all)
    }

    /// Why a pod is Pending, or scheduled and not starting: what it says itself, then the newest warning of each
    /// kind about it. Empty for a pod that is ready.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn why_not_running(&self, pod: &Pod) -> Result<Vec<String>, KubeError> {
        let mut lines = pod.trouble();
        if lines.is_empty() {
            return Ok(lines);
        }
        let mut told: Vec<String> = Vec::new();
        for event in self.events(&pod.meta.namespace, &pod.meta.uid).await? {
            let known = lines.iter().any(|line| !event.message.is_empty() && line.contains(&event.message));
            if event.warning && !known && !told.contains(&event.reason) {
                lines.push(event.to_string());
                told.push(event.reason);
            }
        }
        Ok(lines)
    }
}
