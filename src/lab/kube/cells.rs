//! The cells of tables.

use serde_json::Value;

use super::json::{self, int, label, list, map, text};
use super::kinds::Kind;

const NONE: &str = "<none>";

/// What stands in a column for an object.
pub(crate) fn cell(kind: &Kind, column: &str, object: &Value, now: jiff::Timestamp) -> Value {
    let number = |pointer: &str| int(object, pointer).unwrap_or_default();
    let or = |text: &str, absent: &str| if text.is_empty() { absent.to_owned() } else { text.to_owned() };
    match column {
        "Name" => json::name(object).into(),
        "Age" => age(text(object, "/metadata/creationTimestamp"), now).into(),
        "Created At" => text(object, "/metadata/creationTimestamp").into(),
        "Containers" => each(object, "name").into(),
        "Images" => each(object, "image").into(),
        "Selector" => {
            let of = if kind.resource == "services" { "/spec/selector" } else { "/spec/selector/matchLabels" };
            pairs(object, of).into()
        }
        "Node Selector" => pairs(object, "/spec/template/spec/nodeSelector").into(),
        "VolumeMode" => or(text(object, "/spec/volumeMode"), "<unset>").into(),
        "VolumeAttributesClass" => "<unset>".into(),
        "StorageClass" => text(object, "/spec/storageClassName").into(),
        "Access Modes" => modes(object).into(),
        "Status" => match kind.resource {
            "pods" => pod_status(object).into(),
            "nodes" => node_status(object).into(),
            _ if kind.custom => json::condition(object, "Ready").map_or("", |c| text(c, "/message")).into(),
            _ if json::deleting(object) => "Terminating".into(),
            _ => text(object, "/status/phase").into(),
        },
        "Ready" => match kind.resource {
            "pods" => {
                let all = list(object, "/status/containerStatuses");
                let ready = all.iter().filter(|c| json::flag(c, "/ready")).count();
                format!("{ready}/{}", list(object, "/spec/containers").len()).into()
            }
            "deployments" | "statefulsets" => {
                format!("{}/{}", number("/status/readyReplicas"), number("/spec/replicas")).into()
            }
            "daemonsets" => number("/status/numberReady").into(),
            _ if kind.custom => json::condition(object, "Ready").map_or("", |c| text(c, "/status")).into(),
            _ => number("/status/readyReplicas").into(),
        },
        "Capacity" => {
            let of = if kind.resource == "persistentvolumes" {
                "/spec/capacity/storage"
            } else {
                "/status/capacity/storage"
            };
            text(object, of).into()
        }
        "Volume" => text(object, "/spec/volumeName").into(),
        "Claim" => {
            let claim = object.pointer("/spec/claimRef");
            claim.map_or(String::new(), |c| format!("{}/{}", text(c, "/namespace"), text(c, "/name"))).into()
        }
        "Reclaim Policy" => text(object, "/spec/persistentVolumeReclaimPolicy").into(),
        "Reason" if kind.resource == "persistentvolumes" => text(object, "/status/reason").into(),
        "Desired" if kind.resource == "daemonsets" => number("/status/desiredNumberScheduled").into(),
        "Current" if kind.resource == "daemonsets" => number("/status/currentNumberScheduled").into(),
        "Up-to-date" if kind.resource == "daemonsets" => number("/status/updatedNumberScheduled").into(),
        "Available" if kind.resource == "daemonsets" => number("/status/numberAvailable").into(),
        "Desired" => number("/spec/replicas").into(),
        "Current" => number("/status/replicas").into(),
        "Up-to-date" => number("/status/updatedReplicas").into(),
        "Available" => number("/status/availableReplicas").into(),
        "Restarts" => {
            let sum: i64 =
                list(object, "/status/containerStatuses").iter().filter_map(|c| int(c, "/restartCount")).sum();
            sum.to_string().into()
        }
        "IP" => or(text(object, "/status/podIP"), NONE).into(),
        "Node" => or(text(object, "/spec/nodeName"), NONE).into(),
        "Nominated Node" | "Readiness Gates" | "External-IP" => NONE.into(),
        "Roles" => roles(object).into(),
        "Version" => text(object, "/status/nodeInfo/kubeletVersion").into(),
        "OS-Image" => text(object, "/status/nodeInfo/osImage").into(),
        "Kernel-Version" => text(object, "/status/nodeInfo/kernelVersion").into(),
        "Container-Runtime" => text(object, "/status/nodeInfo/containerRuntimeVersion").into(),
        "Internal-IP" => {
            let found = list(object, "/status/addresses").iter().find(|a| text(a, "/type") == "InternalIP");
            found.map_or(NONE, |a| text(a, "/address")).into()
        }
        "Data" => map(object, "/data").map_or(0, serde_json::Map::len).into(),
        "Type" if kind.resource == "services" => text(object, "/spec/type").into(),
        "Type" => text(object, "/type").into(),
        "Cluster-IP" => or(text(object, "/spec/clusterIP"), NONE).into(),
        "Port(s)" => {
            let port = |p: &Value| format!("{}/{}", int(p, "/port").unwrap_or_default(), text(p, "/protocol"));
            list(object, "/spec/ports").iter().map(port).collect::<Vec<_>>().join(",").into()
        }
        "Provisioner" => text(object, "/provisioner").into(),
        "ReclaimPolicy" => text(object, "/reclaimPolicy").into(),
        "VolumeBindingMode" => text(object, "/volumeBindingMode").into(),
        "AllowVolumeExpansion" => json::flag(object, "/allowVolumeExpansion").to_string().into(),
        "Min Available" => plain(object, "/spec/minAvailable").into(),
        "Max Unavailable" => plain(object, "/spec/maxUnavailable").into(),
        "Allowed Disruptions" => number("/status/disruptionsAllowed").into(),
        "Handler" => text(object, "/handler").into(),
        "Holder" => text(object, "/spec/holderIdentity").into(),
        "URL" => text(object, "/spec/url").into(),
        "Last Seen" => age(text(object, "/lastTimestamp"), now).into(),
        "Reason" => text(object, "/reason").into(),
        "Object" => {
            let kind = text(object, "/involvedObject/kind").to_lowercase();
            format!("{kind}/{}", text(object, "/involvedObject/name")).into()
        }
        "Message" => text(object, "/message").into(),
        _ => Value::Null,
    }
}

fn plain(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "N/A".into(),
    }
}

fn each(object: &Value, field: &str) -> String {
    let containers = list(object, "/spec/template/spec/containers");
    containers.iter().map(|c| text(c, &format!("/{field}"))).collect::<Vec<_>>().join(",")
}

fn pairs(object: &Value, pointer: &str) -> String {
    let all: Vec<String> = map(object, pointer)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    if all.is_empty() { NONE.into() } else { all.join(",") }
}

fn modes(object: &Value) -> String {
    let own = list(object, "/status/accessModes");
    let all = if text(object, "/kind") == "PersistentVolumeClaim" { own } else { list(object, "/spec/accessModes") };
    let short = |m: &Value| match m.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "?",
    };
    all.iter().map(short).collect::<Vec<_>>().join(",")
}

/// What stands in a pod's STATUS column.
pub(crate) fn pod_status(pod: &Value) -> String {
    let mut shown = text(pod, "/status/reason");
    if shown.is_empty() {
        shown = text(pod, "/status/phase");
    }
    let mut running = false;
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        let waiting = text(status, "/state/waiting/reason");
        let ended = text(status, "/state/terminated/reason");
        if !waiting.is_empty() {
            shown = waiting;
        } else if !ended.is_empty() {
            shown = ended;
        } else if json::flag(status, "/ready") {
            running = true;
        }
    }
    if shown == "Completed" && running {
        shown = if json::holds(pod, "Ready") { "Running" } else { "NotReady" };
    }
    if json::deleting(pod) {
        let lost = text(pod, "/status/reason") == "NodeLost";
        return if lost { "Unknown".into() } else { "Terminating".into() };
    }
    shown.to_owned()
}

fn node_status(node: &Value) -> String {
    let ready = match json::condition(node, "Ready").map(|c| text(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if json::flag(node, "/spec/unschedulable") { format!("{ready},SchedulingDisabled") } else { ready.into() }
}

fn roles(node: &Value) -> String {
    let mut all: Vec<&str> = map(node, "/metadata/labels")
        .into_iter()
        .flatten()
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    if let Some(role) = label(node, "kubernetes.io/role") {
        all.push(role);
    }
    all.sort_unstable();
    if all.is_empty() { NONE.into() } else { all.join(",") }
}

/// A duration as kubectl shows ages: `45s`, `5m10s`, `3h12m`, `25h`, `2d4h`, `30d`.
pub(crate) fn age(since: &str, now: jiff::Timestamp) -> String {
    let Ok(since) = since.parse::<jiff::Timestamp>() else { return "<unknown>".into() };
    let seconds = now.duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let pair = |a: i64, unit: &str, b: i64, small: &str| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{small}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        let zero: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (seconds, shown) in [
            (5, "5s"),
            (119, "119s"),
            (130, "2m10s"),
            (900, "15m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (900_000, "10d"),
        ] {
            let now = zero.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
            assert_eq!(age("2026-01-01T00:00:00Z", now), shown);
        }
    }
}
