//! What all objects have: names, labels, owners, conditions, taints and tolerations.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::hold::{MARK, Mark};

/// The metadata of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meta {
    /// The namespace; empty for kinds without.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The identity: another object of the same name has another.
    pub uid: String,
    /// Counts changes of the spec; 0 where the kind does not count.
    pub generation: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// The finalizers that keep it from going.
    pub finalizers: Vec<String>,
    /// Set where it is being deleted: the time of the request plus its grace, RFC 3339.
    pub deleting: Option<String>,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The raw `managedFields`.
    pub managed_fields: Vec<Value>,
}

/// An owner reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// True for the one that manages the object.
    pub controller: bool,
}

impl Meta {
    /// The metadata of an object of any kind; what is missing is empty.
    pub fn of(object: &Value) -> Self {
        let meta = object.get("metadata").unwrap_or(&Value::Null);
        let text = |key: &str| meta.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |key: &str| meta.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        Self {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            generation: meta.get("generation").and_then(Value::as_i64).unwrap_or(0),
            labels: strings(meta.get("labels")),
            annotations: strings(meta.get("annotations")),
            owners: list("ownerReferences").into_iter().filter_map(|o| serde_json::from_value(o).ok()).collect(),
            finalizers: list("finalizers").iter().filter_map(|f| f.as_str().map(str::to_owned)).collect(),
            deleting: Some(text("deletionTimestamp")).filter(|t| !t.is_empty()),
            created: text("creationTimestamp"),
            managed_fields: list("managedFields"),
        }
    }

    /// The hold's mark, where the object has one.
    ///
    /// # Errors
    /// The annotation is there and is not a mark.
    pub fn mark(&self) -> Result<Option<Mark>, String> {
        self.annotations.get(MARK).map(|value| Mark::parse(value)).transpose()
    }

    /// The owner that manages it.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.controller)
    }

    /// `NAMESPACE/NAME`, or the name alone.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// A map of strings out of an object.
pub(super) fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let Some(map) = value.and_then(Value::as_object) else { return BTreeMap::new() };
    map.iter().filter_map(|(k, v)| v.as_str().map(|v| (k.clone(), v.to_owned()))).collect()
}

/// Quantities as text.
pub(super) fn quantities(map: Option<BTreeMap<String, Quantity>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect()
}

/// A quantity in whole units, rounded down: `16Gi`, `3920m`, `1.5k`, `2e3`. None where it is none
/// (apimachinery, pkg/api/resource/quantity.go).
pub fn whole(quantity: &str) -> Option<u128> {
    const UNITS: &[(&str, u128)] = &[
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
    ];
    // Parts of a unit are divided away in the end.
    const PARTS: &[(&str, u128)] = &[("n", 1_000_000_000), ("u", 1_000_000), ("m", 1_000)];
    let find = |list: &[(&str, u128)]| {
        list.iter().find_map(|(unit, size)| quantity.strip_suffix(unit).map(|number| (number.to_owned(), *size)))
    };
    let (number, times, over) = match (find(UNITS), find(PARTS)) {
        (Some((number, times)), _) => (number, times, 1),
        (None, Some((number, over))) => (number, 1, over),
        (None, None) => match quantity.split_once(['e', 'E']) {
            Some((number, exponent)) => (number.to_owned(), 10_u128.checked_pow(exponent.parse().ok()?)?, 1),
            None => (quantity.to_owned(), 1, 1),
        },
    };
    let (digits, part) = number.split_once('.').unwrap_or((&number, ""));
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let value: u128 = format!("{digits}{part}").parse().ok()?;
    Some(value.checked_mul(times)? / over / scale)
}

/// A condition of a status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Since when the status is so, where it says.
    pub last_transition_time: Option<String>,
    /// The generation that it speaks about, where it says.
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// Reads `status.conditions` of an object of any kind.
    pub fn all_of(object: &Value) -> Vec<Self> {
        let list = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        list.into_iter().filter_map(|c| serde_json::from_value(c).ok()).collect()
    }

    /// True where it says `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}", self.kind, self.status)?;
        match (self.reason.is_empty(), self.message.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => write!(f, " ({})", self.reason),
            (true, false) => write!(f, ": {}", self.message),
            (false, false) => write!(f, " ({}): {}", self.reason, self.message),
        }
    }
}

/// A taint of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl From<core::Taint> for Taint {
    fn from(taint: core::Taint) -> Self {
        Self { key: taint.key, value: taint.value.unwrap_or_default(), effect: taint.effect }
    }
}

impl std::fmt::Display for Taint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value, effect } = self;
        if value.is_empty() { write!(f, "{key}:{effect}") } else { write!(f, "{key}={value}:{effect}") }
    }
}

/// A toleration of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toleration {
    /// The taint's key; empty with `Exists` means any.
    pub key: String,
    /// `Equal` (the default) or `Exists`.
    pub operator: String,
    /// The taint's value.
    pub value: String,
    /// The taint's effect; empty means any.
    pub effect: String,
}

impl Toleration {
    /// Whether it tolerates a taint, by the rules of core/v1 `Toleration.ToleratesTaint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect {
            return false;
        }
        if !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
            _ => false,
        }
    }
}

impl From<core::Toleration> for Toleration {
    fn from(t: core::Toleration) -> Self {
        Self {
            key: t.key.unwrap_or_default(),
            operator: t.operator.unwrap_or_default(),
            value: t.value.unwrap_or_default(),
            effect: t.effect.unwrap_or_default(),
        }
    }
}

/// The taints that keep a pod with these tolerations from being scheduled to a node (not `PreferNoSchedule`).
pub fn not_tolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Vec<&'a Taint> {
    taints
        .iter()
        .filter(|taint| taint.effect != "PreferNoSchedule")
        .filter(|taint| !tolerations.iter().any(|toleration| toleration.tolerates(taint)))
        .collect()
}
