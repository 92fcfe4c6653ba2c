//! Objects as tables for people: what kubectl prints.
//!
//! Columns as in kubernetes `pkg/printers/internalversion` and the custom resource definitions of Flux 2.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::Call;
use super::cells;
use super::json;
use super::kinds::Kind;

/// A column: name, priority (1: only with `-o wide`).
type Column = (&'static str, u8);

const fn wide(name: &'static str) -> Column {
    (name, 1)
}

const fn always(name: &'static str) -> Column {
    (name, 0)
}

fn columns(kind: &Kind) -> Vec<Column> {
    let names: &[Column] = match kind.resource {
        "pods" => &[
            always("Ready"),
            always("Status"),
            always("Restarts"),
            always("Age"),
            wide("IP"),
            wide("Node"),
            wide("Nominated Node"),
            wide("Readiness Gates"),
        ],
        "nodes" => &[
            always("Status"),
            always("Roles"),
            always("Age"),
            always("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ],
        "persistentvolumes" => &[
            always("Capacity"),
            always("Access Modes"),
            always("Reclaim Policy"),
            always("Status"),
            always("Claim"),
            always("StorageClass"),
            always("VolumeAttributesClass"),
            always("Reason"),
            always("Age"),
            wide("VolumeMode"),
        ],
        "persistentvolumeclaims" => &[
            always("Status"),
            always("Volume"),
            always("Capacity"),
            always("Access Modes"),
            always("StorageClass"),
            always("VolumeAttributesClass"),
            always("Age"),
            wide("VolumeMode"),
        ],
        "deployments" => &[
            always("Ready"),
            always("Up-to-date"),
            always("Available"),
            always("Age"),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        "replicasets" => &[
            always("Desired"),
            always("Current"),
            always("Ready"),
            always("Age"),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        "statefulsets" => &[always("Ready"), always("Age"), wide("Containers"), wide("Images")],
        "daemonsets" => &[
            always("Desired"),
            always("Current"),
            always("Ready"),
            always("Up-to-date"),
            always("Available"),
            always("Node Selector"),
            always("Age"),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        "namespaces" => &[always("Status"), always("Age")],
        "configmaps" => &[always("Data"), always("Age")],
        "secrets" => &[always("Type"), always("Data"), always("Age")],
        "services" => &[
            always("Type"),
            always("Cluster-IP"),
            always("External-IP"),
            always("Port(s)"),
            always("Age"),
            wide("Selector"),
        ],
        "storageclasses" => &[
            always("Provisioner"),
            always("ReclaimPolicy"),
            always("VolumeBindingMode"),
            always("AllowVolumeExpansion"),
            always("Age"),
        ],
        "poddisruptionbudgets" => {
            &[always("Min Available"), always("Max Unavailable"), always("Allowed Disruptions"), always("Age")]
        }
        "customresourcedefinitions" => &[always("Created At")],
        "runtimeclasses" => &[always("Handler"), always("Age")],
        "leases" => &[always("Holder"), always("Age")],
        "gitrepositories" => &[always("URL"), always("Age"), always("Ready"), always("Status")],
        "kustomizations" | "helmreleases" => &[always("Age"), always("Ready"), always("Status")],
        "events" => {
            return vec![always("Last Seen"), always("Type"), always("Reason"), always("Object"), always("Message")];
        }
        _ => &[always("Age")],
    };
    std::iter::once(always("Name")).chain(names.iter().copied()).collect()
}

/// A `Table` of objects; `head`: with column definitions (a watch sends them once).
pub(crate) fn render(kind: &'static Kind, objects: &[Arc<Value>], call: &Call, head: bool) -> Value {
    let columns = columns(kind);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|(name, priority)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({ "name": name, "type": "string", "format": format, "description": "", "priority": priority })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|(name, _)| cells::cell(kind, name, object, call.now)).collect();
            let inner = match call.query("includeObject") {
                Some("Object") => Value::clone(object),
                Some("None") => Value::Null,
                _ => super::read::partial(object),
            };
            json!({ "cells": cells, "object": inner })
        })
        .collect();
    let version = objects.last().map_or("", |o| json::text(o, "/metadata/resourceVersion"));
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": version },
        "columnDefinitions": if head { definitions } else { Vec::new() }, "rows": rows,
    })
}
