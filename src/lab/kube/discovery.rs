//! `/version`, `/api`, `/apis` and the lists of what each group has.

use serde_json::{Value, json};

use super::Kube;
use super::call::Call;
use super::kinds::{KINDS, Kind};
use super::status::{Outcome, Refusal};

const VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

/// Resources that can only be asked or made; beside those of the table.
fn reviews() -> Value {
    json!({ "name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": false,
        "kind": "SelfSubjectAccessReview", "verbs": ["create"] })
}

const REVIEWS: &str = "authorization.k8s.io";

/// The groups that a world has, as (group, version), the core group first.
fn groups(kube: &Kube) -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for kind in KINDS.iter().filter(|k| !kube.absent.contains(k.group)) {
        if !all.contains(&(kind.group, kind.version)) {
            all.push((kind.group, kind.version));
        }
    }
    all.push((REVIEWS, "v1"));
    all
}

fn kinds(group: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(move |k| k.group == group)
}

/// Answers a discovery request; `None` where the path is none.
pub(crate) fn answer(kube: &Kube, call: &Call) -> Option<Outcome<Value>> {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let accept = call.header(http::header::ACCEPT);
    let aggregated = accept.contains("as=APIGroupDiscoveryList");
    Some(Ok(match path.as_slice() {
        ["version"] => version(kube),
        ["api"] if aggregated => aggregate(kube, true, accept),
        ["apis"] if aggregated => aggregate(kube, false, accept),
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ["apis"] => json!({
            "kind": "APIGroupList", "apiVersion": "v1",
            "groups": groups(kube).into_iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| group(g, v)).collect::<Vec<_>>(),
        }),
        ["api", "v1"] => resources("", "v1"),
        ["apis", name] => match groups(kube).into_iter().find(|(g, _)| g == name) {
            Some((g, v)) => {
                let mut one = group(g, v);
                one["kind"] = "APIGroup".into();
                one["apiVersion"] = "v1".into();
                one
            }
            None => return Some(Err(Refusal::no_path())),
        },
        ["apis", name, version] => match groups(kube).into_iter().find(|(g, v)| g == name && v == version) {
            Some((g, v)) => resources(g, v),
            None => return Some(Err(Refusal::no_path())),
        },
        _ => return None,
    }))
}

fn version(kube: &Kube) -> Value {
    let mut parts = kube.version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
    json!({
        "major": major, "minor": minor, "gitVersion": kube.version, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2025-04-24T00:00:00Z", "goVersion": "go1.23.6", "compiler": "gc", "platform": "linux/amd64",
    })
}

fn group(group: &str, version: &str) -> Value {
    let one = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    json!({ "name": group, "versions": [one], "preferredVersion": one })
}

fn categories(kind: &Kind) -> &'static [&'static str] {
    match kind.resource {
        "pods"
        | "services"
        | "deployments"
        | "replicasets"
        | "statefulsets"
        | "daemonsets"
        | "jobs"
        | "cronjobs"
        | "horizontalpodautoscalers" => &["all"],
        _ => &[],
    }
}

/// A subresource: kind with group and version, verbs.
fn part(kind: &Kind, name: &str) -> (&'static str, &'static str, String, &'static [&'static str]) {
    match name {
        "scale" => ("autoscaling", "v1", "Scale".into(), &["get", "patch", "update"]),
        "eviction" => ("policy", "v1", "Eviction".into(), &["create"]),
        "exec" => ("", "v1", "PodExecOptions".into(), &["create", "get"]),
        "proxy" => ("", "v1", format!("{}ProxyOptions", kind.kind), &["get"]),
        "log" => ("", "v1", kind.kind.into(), &["get"]),
        _ => (kind.group, kind.version, kind.kind.into(), &["get", "patch", "update"]),
    }
}

fn resources(group: &str, version: &str) -> Value {
    let mut all = Vec::new();
    for kind in kinds(group) {
        let mut one = json!({
            "name": kind.resource, "singularName": kind.singular(), "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": VERBS,
        });
        if !kind.short.is_empty() {
            one["shortNames"] = json!(kind.short);
        }
        if !categories(kind).is_empty() {
            one["categories"] = json!(categories(kind));
        }
        all.push(one);
        for name in kind.sub {
            let (of, at, what, verbs) = part(kind, name);
            let mut one = json!({
                "name": format!("{}/{name}", kind.resource), "singularName": "", "namespaced": kind.namespaced,
                "kind": what, "verbs": verbs,
            });
            if of != kind.group {
                one["group"] = of.into();
                one["version"] = at.into();
            }
            all.push(one);
        }
    }
    if group == REVIEWS {
        all.push(reviews());
    }
    let at = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": at, "resources": all })
}

fn aggregate(kube: &Kube, core: bool, accept: &str) -> Value {
    let beta = !accept.contains("v=v2;") && accept.contains("v=v2beta1");
    let items: Vec<Value> = groups(kube)
        .into_iter()
        .filter(|(g, _)| g.is_empty() == core)
        .map(|(g, v)| {
            let mut found: Vec<Value> = kinds(g)
                .map(|kind| {
                    let parts: Vec<Value> = kind
                        .sub
                        .iter()
                        .map(|name| {
                            let (group, version, what, verbs) = part(kind, name);
                            json!({ "subresource": name, "verbs": verbs,
                                "responseKind": { "group": group, "version": version, "kind": what } })
                        })
                        .collect();
                    json!({
                        "resource": kind.resource, "singularResource": kind.singular(), "verbs": VERBS,
                        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
                        "shortNames": kind.short, "categories": categories(kind), "subresources": parts,
                        "responseKind": { "group": kind.group, "version": kind.version, "kind": kind.kind },
                    })
                })
                .collect();
            if g == REVIEWS {
                found.push(json!({
                    "resource": "selfsubjectaccessreviews", "singularResource": "selfsubjectaccessreview",
                    "verbs": ["create"], "scope": "Cluster",
                    "responseKind": { "group": g, "version": "v1", "kind": "SelfSubjectAccessReview" },
                }));
            }
            let versions = json!([{ "version": v, "resources": found, "freshness": "Current" }]);
            if core {
                json!({ "metadata": {}, "versions": versions })
            } else {
                json!({ "metadata": { "name": g }, "versions": versions })
            }
        })
        .collect();
    let version = if beta { "apidiscovery.k8s.io/v2beta1" } else { "apidiscovery.k8s.io/v2" };
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": version, "metadata": {}, "items": items })
}
