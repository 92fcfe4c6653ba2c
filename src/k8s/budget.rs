//! PodDisruptionBudgets, judged as the eviction handler judges them.

use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::api::Kubernetes;
use super::error::KubeError;
use super::meta::Meta;
use super::pod::Pod;
use super::resource::BUDGET;
use super::select::Selector;

/// A PodDisruptionBudget.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Name, namespace, generation.
    pub meta: Meta,
    /// The pods that it counts; an empty one counts none.
    pub selector: Selector,
    /// `minAvailable` as written, `1` or `50%`.
    pub min_available: Option<String>,
    /// `maxUnavailable` as written.
    pub max_unavailable: Option<String>,
    /// Pods that are healthy now.
    pub current: i32,
    /// Pods that have to be.
    pub desired: i32,
    /// Pods that it counts.
    pub expected: i32,
    /// Evictions that it allows now.
    pub allowed: i32,
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// True where pods that are not ready may always go.
    pub lets_unhealthy_go: bool,
}

/// What a budget says to the eviction of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It may go.
    Allows,
    /// Not now; the numbers may change.
    NotNow(String),
    /// Never with these figures: no number of healthy pods is enough.
    Never(String),
}

impl Budget {
    #[doc(hidden)]
    pub fn from_api(value: Value) -> Result<Self, serde_json::Error> {
        let meta = Meta::of(&value);
        let budget: policy::PodDisruptionBudget = serde_json::from_value(value)?;
        let spec = budget.spec.unwrap_or_default();
        let status = budget.status.unwrap_or_default();
        let text = |value: Option<IntOrString>| match value {
            Some(IntOrString::Int(n)) => Some(n.to_string()),
            Some(IntOrString::String(s)) => Some(s),
            None => None,
        };
        Ok(Self {
            meta,
            selector: spec.selector.map(Selector::from).unwrap_or_default(),
            min_available: text(spec.min_available),
            max_unavailable: text(spec.max_unavailable),
            current: status.current_healthy.unwrap_or(0),
            desired: status.desired_healthy.unwrap_or(0),
            expected: status.expected_pods.unwrap_or(0),
            allowed: status.disruptions_allowed.unwrap_or(0),
            observed_generation: status.observed_generation.unwrap_or(0),
            lets_unhealthy_go: spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow"),
        })
    }

    /// Whether it counts a pod. The eviction handler lets an empty selector count none.
    pub fn counts(&self, pod: &Pod) -> bool {
        self.meta.namespace == pod.meta.namespace
            && !self.selector.is_empty()
            && self.selector.matches(&pod.meta.labels)
    }

    /// What it says to the eviction of a pod that it counts (registry/core/pod/storage/eviction.go).
    pub fn rules(&self, pod: &Pod) -> Ruling {
        if pod.is_finished() || pod.phase == "Pending" || pod.meta.deleting.is_some() {
            return Ruling::Allows;
        }
        if !pod.is_ready() {
            if self.lets_unhealthy_go || (self.current >= self.desired && self.desired > 0) {
                return Ruling::Allows;
            }
            let text = format!("{self}: the pod is not ready and the budget keeps it until the others are healthy");
            return Ruling::NotNow(text);
        }
        if self.can_never_allow() {
            return Ruling::Never(self.to_string());
        }
        if self.observed_generation < self.meta.generation {
            return Ruling::NotNow(format!("{self}: its controller has not yet counted"));
        }
        if self.allowed > 0 { Ruling::Allows } else { Ruling::NotNow(self.to_string()) }
    }

    /// True where its own figures leave no room: `maxUnavailable: 0`, or as many wanted as there are.
    pub fn can_never_allow(&self) -> bool {
        if matches!(self.max_unavailable.as_deref(), Some("0" | "0%")) {
            return true;
        }
        match self.min_available.as_deref() {
            Some("100%") => true,
            Some(min) if self.expected > 0 => match (min.parse::<i32>(), min.strip_suffix('%')) {
                (Ok(min), _) => min >= self.expected,
                // The handler rounds up.
                (_, Some(percent)) => percent
                    .parse::<i64>()
                    .is_ok_and(|p| (p * i64::from(self.expected) + 99) / 100 >= i64::from(self.expected)),
                _ => false,
            },
            _ => false,
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "budget {}", self.meta.full_name())?;
        match (&self.min_available, &self.max_unavailable) {
            (Some(min), _) => write!(f, " (minAvailable {min}")?,
            (None, Some(max)) => write!(f, " (maxUnavailable {max}")?,
            (None, None) => f.write_str(" (no figure")?,
        }
        let Self { current, desired, expected, allowed, .. } = self;
        write!(f, "; {current} of {expected} healthy, {desired} wanted, {allowed} may go)")
    }
}

impl Kubernetes {
    /// All budgets.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn budgets(&self) -> Result<Vec<Budget>, KubeError> {
        let all: Vec<Value> = self.list(&BUDGET, None, &[]).await?;
        all.into_iter().map(|v| self.shape("poddisruptionbudgets", Budget::from_api(v))).collect()
    }
}
