//! Selectors over labels and over nodes, evaluated as the API's own parts do it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// One requirement on a label or a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub operator: String,
    /// The values; one integer for `Gt` and `Lt`.
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether a value (`None`: no such label) meets it. An unknown operator is met by nothing.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        let bound = || match self.values.as_slice() {
            [only] => only.parse::<i64>().ok(),
            _ => None,
        };
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self.operator.as_str() {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => number().zip(bound()).is_some_and(|(value, bound)| value > bound),
            "Lt" => number().zip(bound()).is_some_and(|(value, bound)| value < bound),
            _ => false,
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.key, self.operator)?;
        if self.values.is_empty() { Ok(()) } else { write!(f, " [{}]", self.values.join(", ")) }
    }
}

/// One term of a node selector. Terms are alternatives; all of a term's requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Term {
    /// On the node's labels.
    pub labels: Vec<Requirement>,
    /// On the node's fields; only `metadata.name` exists.
    pub fields: Vec<Requirement>,
}

impl Term {
    /// Whether a node meets the whole term, its name included.
    pub fn admits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let field = |r: &Requirement| if r.key == "metadata.name" { r.holds(Some(name)) } else { false };
        !self.is_empty() && self.labels_hold(labels) && self.fields.iter().all(field)
    }

    /// Whether a volume's affinity lets a pod run on a node with these labels. Scheduler and kubelet hand only the
    /// labels to the evaluation there, so that `matchFields` hold nothing (component-helpers storage/volume,
    /// observed with Kubernetes 1.36).
    pub fn admits_by_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.is_empty() && self.labels_hold(labels)
    }

    /// A term without any requirement is met by nothing.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    fn labels_hold(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|r| r.holds(labels.get(&r.key).map(String::as_str)))
    }
}

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.labels.iter().chain(&self.fields).map(ToString::to_string).collect();
        f.write_str(&all.join(" and "))
    }
}

/// The terms of a node selector.
pub(super) fn terms(selector: core::NodeSelector) -> Vec<Term> {
    let list = |all: Option<Vec<core::NodeSelectorRequirement>>| {
        let one = |r: core::NodeSelectorRequirement| Requirement {
            key: r.key,
            operator: r.operator,
            values: r.values.unwrap_or_default(),
        };
        all.unwrap_or_default().into_iter().map(one).collect()
    };
    let term = |t: core::NodeSelectorTerm| Term { labels: list(t.match_expressions), fields: list(t.match_fields) };
    selector.node_selector_terms.into_iter().map(term).collect()
}

/// A label selector: all of its requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Whether labels meet it; an empty selector is met by everything.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|r| r.holds(labels.get(&r.key).map(String::as_str)))
    }

    /// True where nothing is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The form that the query `labelSelector` takes.
    pub fn to_query(&self) -> String {
        let one = |r: &Requirement| match (r.operator.as_str(), r.values.as_slice()) {
            ("In", [only]) => format!("{}={only}", r.key),
            ("In", values) => format!("{} in ({})", r.key, values.join(",")),
            ("NotIn", values) => format!("{} notin ({})", r.key, values.join(",")),
            ("DoesNotExist", _) => format!("!{}", r.key),
            _ => r.key.clone(),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

impl From<LabelSelector> for Selector {
    fn from(selector: LabelSelector) -> Self {
        let labels = selector.match_labels.unwrap_or_default().into_iter();
        let labels = labels.map(|(key, value)| Requirement { key, operator: "In".into(), values: vec![value] });
        let others = selector.match_expressions.unwrap_or_default().into_iter();
        let others =
            others.map(|r| Requirement { key: r.key, operator: r.operator, values: r.values.unwrap_or_default() });
        Self(labels.chain(others).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(operator: &str, values: &[&str]) -> Requirement {
        Requirement { key: "k".into(), operator: operator.into(), values: values.iter().map(|v| (*v).into()).collect() }
    }

    #[test]
    fn every_operator_with_and_without_the_label() {
        // operator, values, the label's value, holds?
        let table: &[(&str, &[&str], Option<&str>, bool)] = &[
            ("In", &["a", "b"], Some("b"), true),
            ("In", &["a"], Some("b"), false),
            ("In", &["a"], None, false),
            ("In", &[], Some("a"), false),
            ("NotIn", &["a"], Some("b"), true),
            ("NotIn", &["a"], Some("a"), false),
            ("NotIn", &["a"], None, true),
            ("Exists", &[], Some(""), true),
            ("Exists", &[], None, false),
            ("DoesNotExist", &[], Some("a"), false),
            ("DoesNotExist", &[], None, true),
            ("Gt", &["5"], Some("6"), true),
            ("Gt", &["5"], Some("5"), false),
            ("Gt", &["5"], Some("x"), false),
            ("Gt", &["5"], None, false),
            ("Gt", &["5", "6"], Some("7"), false),
            ("Lt", &["5"], Some("-4"), true),
            ("Lt", &["5"], Some("5"), false),
            ("Lt", &["x"], Some("4"), false),
            ("Like", &["a"], Some("a"), false),
        ];
        for (operator, values, label, expected) in table {
            assert_eq!(requirement(operator, values).holds(*label), *expected, "{operator} {values:?} on {label:?}");
        }
        assert_eq!(table.len(), 20);
    }

    #[test]
    fn a_term_needs_all_and_an_empty_one_admits_nothing() {
        let labels = BTreeMap::from([("k".to_owned(), "a".to_owned())]);
        let name = |value: &str| Requirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: vec![value.to_owned()],
        };
        let both = Term { labels: vec![requirement("In", &["a"])], fields: vec![name("n1")] };
        assert!(both.admits("n1", &labels));
        assert!(!both.admits("n2", &labels));
        assert!(both.admits_by_labels(&labels), "a volume's matchFields hold nothing");
        let fields = Term { labels: vec![], fields: vec![name("n1")] };
        assert!(fields.admits_by_labels(&BTreeMap::new()));
        assert!(!Term::default().admits("n1", &labels) && !Term::default().admits_by_labels(&labels));
        let unknown = Term { labels: vec![], fields: vec![requirement("Exists", &[])] };
        assert!(!unknown.admits("n1", &labels));
    }

    #[test]
    fn a_label_selector_as_a_query() {
        let selector: Selector = serde_json::from_value::<LabelSelector>(serde_json::json!({
            "matchLabels": {"app": "frigate"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "canary", "operator": "DoesNotExist"},
                {"key": "zone", "operator": "NotIn", "values": ["x"]},
                {"key": "owner", "operator": "Exists"},
            ],
        }))
        .unwrap()
        .into();
        assert_eq!(selector.to_query(), "app=frigate,tier in (a,b),!canary,zone notin (x),owner");
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        assert!(selector.matches(&labels(&[("app", "frigate"), ("tier", "a"), ("owner", "me")])));
        assert!(!selector.matches(&labels(&[("app", "frigate"), ("tier", "a"), ("owner", "me"), ("canary", "1")])));
    }
}
