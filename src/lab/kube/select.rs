//! Label and field selectors.

use serde_json::Value;

use super::json::{self, list, text};
use super::kinds::Kind;
use super::status::{Outcome, Refusal};

/// One demand on a label or a node's field: as in `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Demand {
    key: String,
    verb: Verb,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    In,
    NotIn,
    Exists,
    Absent,
    Gt,
    Lt,
}

impl Demand {
    fn met(&self, value: Option<&str>) -> bool {
        let number = |v: &str| v.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match self.verb {
            Verb::In => value.is_some_and(|v| self.values.iter().any(|x| x == v)),
            Verb::NotIn => value.is_none_or(|v| self.values.iter().all(|x| x != v)),
            Verb::Exists => value.is_some(),
            Verb::Absent => value.is_none(),
            Verb::Gt => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v > b),
            Verb::Lt => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v < b),
        }
    }
}

/// A label selector as a query writes it: `a=b,c in (d,e),!f`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels(Vec<Demand>);

impl Labels {
    pub(crate) fn parse(query: &str) -> Outcome<Self> {
        let mut demands = Vec::new();
        for part in pieces(query) {
            demands.push(
                Self::demand(part)
                    .ok_or_else(|| Refusal::bad(format!("unable to parse requirement: found '{part}'")))?,
            );
        }
        Ok(Self(demands))
    }

    fn demand(part: &str) -> Option<Demand> {
        let make = |key: &str, verb, values: Vec<String>| {
            let key = key.trim();
            let good = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
            good.then(|| Demand { key: key.to_owned(), verb, values })
        };
        let set = |text: &str| {
            let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
            Some(inner.split(',').map(|v| v.trim().to_owned()).collect::<Vec<_>>())
        };
        if let Some((key, values)) = part.split_once(" notin ") {
            return make(key, Verb::NotIn, set(values)?);
        }
        if let Some((key, values)) = part.split_once(" in ") {
            return make(key, Verb::In, set(values)?);
        }
        for (sign, verb) in [("!=", Verb::NotIn), ("==", Verb::In), ("=", Verb::In), (">", Verb::Gt), ("<", Verb::Lt)] {
            if let Some((key, value)) = part.split_once(sign) {
                return make(key, verb, vec![value.trim().to_owned()]);
            }
        }
        match part.strip_prefix('!') {
            Some(key) => make(key, Verb::Absent, Vec::new()),
            None => make(part, Verb::Exists, Vec::new()),
        }
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|d| d.met(json::label(object, &d.key)))
    }
}

/// Splits at commas outside parentheses.
fn pieces(query: &str) -> Vec<&str> {
    let (mut out, mut depth, mut from) = (Vec::new(), 0_i32, 0);
    for (at, c) in query.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(query.get(from..at).unwrap_or_default().trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    out.push(query.get(from..).unwrap_or_default().trim());
    out.retain(|p| !p.is_empty());
    out
}

/// A field selector: `spec.nodeName=x,status.phase!=Failed`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<(String, bool, String)>);

impl Fields {
    /// # Errors
    /// 400 for a field that the kind does not offer.
    pub(crate) fn parse(kind: &Kind, query: &str) -> Outcome<Self> {
        let mut demands = Vec::new();
        for part in pieces(query) {
            let (field, equal, value) = part
                .split_once("!=")
                .map(|(f, v)| (f, false, v))
                .or_else(|| part.split_once("==").map(|(f, v)| (f, true, v)))
                .or_else(|| part.split_once('=').map(|(f, v)| (f, true, v)))
                .ok_or_else(|| Refusal::bad(format!("invalid selector: '{part}'; can't understand '{part}'")))?;
            if !offered(kind, field) {
                return Err(Refusal::bad(format!("field label not supported: {field}")));
            }
            demands.push((format!("/{}", field.replace('.', "/")), equal, value.to_owned()));
        }
        Ok(Self(demands))
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(pointer, equal, wanted)| {
            let present = match object.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(flag)) => flag.to_string(),
                Some(other) if other.is_number() => other.to_string(),
                _ if pointer == "/spec/unschedulable" => "false".to_owned(),
                _ => String::new(),
            };
            (present == *wanted) == *equal
        })
    }
}

fn offered(kind: &Kind, field: &str) -> bool {
    let own: &[&str] = match (kind.group, kind.resource) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("batch", "jobs") => &["status.successful"],
        ("apps", "replicasets") => &["status.replicas"],
        _ => &[],
    };
    matches!(field, "metadata.name" | "metadata.namespace") || own.contains(&field)
}

/// Whether a `LabelSelector` object matches. An empty one matches everything; an absent one nothing.
pub(crate) fn label_selector(selector: Option<&Value>, object: &Value) -> bool {
    let Some(selector) = selector else { return false };
    let plain = json::map(selector, "/matchLabels")
        .into_iter()
        .flatten()
        .all(|(key, value)| json::label(object, key) == value.as_str());
    plain && list(selector, "/matchExpressions").iter().all(|e| expression(e, json::label(object, text(e, "/key"))))
}

/// Whether one of `matchExpressions` is met by a value.
pub(crate) fn expression(expression: &Value, value: Option<&str>) -> bool {
    let verb = match text(expression, "/operator") {
        "In" => Verb::In,
        "NotIn" => Verb::NotIn,
        "Exists" => Verb::Exists,
        "DoesNotExist" => Verb::Absent,
        "Gt" => Verb::Gt,
        "Lt" => Verb::Lt,
        _ => return false,
    };
    let values = list(expression, "/values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Demand { key: String::new(), verb, values }.met(value)
}

/// Whether a node meets one term of a node selector; `fields` says whether `matchFields` counts (it does for pods, not
/// for volumes: observed with kube-scheduler 1.36). An empty term matches nothing.
pub(crate) fn node_term(term: &Value, node: &Value, fields: bool) -> bool {
    let (expressions, by_field) = (list(term, "/matchExpressions"), list(term, "/matchFields"));
    if expressions.is_empty() && by_field.is_empty() {
        return false;
    }
    expressions.iter().all(|e| expression(e, json::label(node, text(e, "/key"))))
        && (!fields
            || by_field.iter().all(|e| text(e, "/key") == "metadata.name" && expression(e, Some(json::name(node)))))
}

/// Whether a volume can be used on a node.
pub(crate) fn volume_fits(volume: &Value, node: &Value) -> bool {
    match volume.pointer("/spec/nodeAffinity/required") {
        None | Some(Value::Null) => true,
        Some(required) => list(required, "/nodeSelectorTerms").iter().any(|t| node_term(t, node, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_select() {
        let object = json!({"metadata": {"labels": {"app": "frigate", "n": "5"}}});
        let mut checked = 0;
        for (query, fits) in [
            ("app=frigate", true),
            ("app==frigate,n", true),
            ("app!=frigate", false),
            ("x!=1", true),
            ("app in (a, frigate),!x", true),
            ("app notin (a,b)", true),
            ("!app", false),
            ("n>4", true),
            ("", true),
        ] {
            assert_eq!(Labels::parse(query).unwrap().matches(&object), fits, "{query}");
            checked += 1;
        }
        assert_eq!(checked, 9);
        assert!(Labels::parse("a b").is_err());
    }

    #[test]
    fn field_selectors_know_their_kind() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let kind = super::super::kinds::pods();
        let fits = |q: &str| Fields::parse(kind, q).unwrap().matches(&pod);
        assert!(fits("spec.nodeName=n,status.phase!=Failed,status.phase!=Succeeded"));
        assert!(!fits("spec.nodeName=m"));
        assert_eq!(
            Fields::parse(kind, "spec.replicas=1").unwrap_err().message(),
            "field label not supported: spec.replicas"
        );
    }

    #[test]
    fn a_term_without_demands_matches_nothing() {
        let node = json!({"metadata": {"name": "a", "labels": {"kubernetes.io/hostname": "a"}}});
        let by = |terms: Value| json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
        assert!(volume_fits(&json!({"spec": {}}), &node));
        assert!(!volume_fits(&by(json!([{}])), &node));
        let other = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]);
        assert!(!volume_fits(&by(json!([{ "matchExpressions": other }])), &node));
        // A volume's matchFields is accepted and not enforced.
        let field = json!([{"key": "metadata.name", "operator": "In", "values": ["b"]}]);
        assert!(volume_fits(&by(json!([{ "matchFields": field }])), &node));
    }
}
