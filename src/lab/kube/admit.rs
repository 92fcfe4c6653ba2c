//! What the server fills in, and what it demands of a new object.

use serde_json::{Value, json};

use super::Kube;
use super::json::{self, flag, list, text};
use super::kinds::{self, Kind};
use super::status::{Outcome, Refusal};
use super::store::add_finalizer;

/// Sets `value` where nothing stands.
fn default(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    if object.pointer(&format!("/{}", path.join("/"))).is_none_or(Value::is_null) {
        json::set(object, path, value);
    }
}

/// Fills in what the server fills in when an object is made or replaced.
pub(crate) fn defaults(kind: &'static Kind, object: &mut Value) {
    if kind.custom {
        return;
    }
    match kind.resource {
        "pods" => {
            if let Some(spec) = object.get_mut("spec") {
                pod_spec(spec);
                tolerations(spec);
            }
            let class = qos(object);
            default(object, &["status", "phase"], "Pending");
            default(object, &["status", "qosClass"], class);
        }
        "deployments" => {
            default(object, &["spec", "replicas"], 1);
            default(object, &["spec", "strategy", "type"], "RollingUpdate");
            if text(object, "/spec/strategy/type") == "RollingUpdate" {
                default(object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], "25%");
                default(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], "25%");
            } else {
                json::unset(object, &["spec", "strategy", "rollingUpdate"]);
            }
            default(object, &["spec", "revisionHistoryLimit"], 10);
            default(object, &["spec", "progressDeadlineSeconds"], 600);
            template(object);
        }
        "replicasets" => {
            default(object, &["spec", "replicas"], 1);
            template(object);
        }
        "statefulsets" => {
            default(object, &["spec", "replicas"], 1);
            default(object, &["spec", "podManagementPolicy"], "OrderedReady");
            default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
            for when in ["whenDeleted", "whenScaled"] {
                default(object, &["spec", "persistentVolumeClaimRetentionPolicy", when], "Retain");
            }
            template(object);
        }
        "daemonsets" => {
            default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
            template(object);
        }
        "persistentvolumeclaims" => {
            default(object, &["spec", "volumeMode"], "Filesystem");
            default(object, &["status", "phase"], "Pending");
        }
        "persistentvolumes" => {
            default(object, &["spec", "volumeMode"], "Filesystem");
            default(object, &["spec", "persistentVolumeReclaimPolicy"], "Retain");
            default(object, &["status", "phase"], "Pending");
        }
        "namespaces" => {
            let name = json::name(object).to_owned();
            json::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
            default(object, &["spec", "finalizers"], json!(["kubernetes"]));
            default(object, &["status", "phase"], "Active");
        }
        "secrets" => secret(object),
        "services" => {
            default(object, &["spec", "type"], "ClusterIP");
            default(object, &["spec", "sessionAffinity"], "None");
            for port in object.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
                default(port, &["protocol"], "TCP");
                let number = port.get("port").cloned().unwrap_or_default();
                default(port, &["targetPort"], number);
            }
        }
        "storageclasses" => {
            default(object, &["reclaimPolicy"], "Delete");
            default(object, &["volumeBindingMode"], "Immediate");
        }
        _ => {}
    }
}

fn template(object: &mut Value) {
    if let Some(spec) = object.pointer_mut("/spec/template/spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    for (key, value) in
        [("restartPolicy", "Always"), ("dnsPolicy", "ClusterFirst"), ("schedulerName", "default-scheduler")]
    {
        default(spec, &[key], value);
    }
    default(spec, &["terminationGracePeriodSeconds"], 30);
    default(spec, &["securityContext"], json!({}));
    for field in ["containers", "initContainers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let image = text(container, "/image").to_owned();
            let latest =
                image.ends_with(":latest") || !image.rsplit('/').next().is_some_and(|n| n.contains([':', '@']));
            default(container, &["imagePullPolicy"], if latest { "Always" } else { "IfNotPresent" });
            default(container, &["terminationMessagePath"], "/dev/termination-log");
            default(container, &["terminationMessagePolicy"], "File");
            default(container, &["resources"], json!({}));
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                default(port, &["protocol"], "TCP");
            }
        }
    }
}

fn tolerations(spec: &mut Value) {
    default(spec, &["serviceAccountName"], "default");
    default(spec, &["enableServiceLinks"], true);
    default(spec, &["priority"], 0);
    let mut all = list(spec, "/tolerations").to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered =
            |t: &Value| (text(t, "/key") == key || text(t, "/key").is_empty()) && text(t, "/effect") != "NoSchedule";
        if !all.iter().any(covered) {
            all.push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }));
        }
    }
    json::set(spec, &["tolerations"], all);
}

fn qos(pod: &Value) -> &'static str {
    let any = list(pod, "/spec/containers").iter().any(|c| {
        ["requests", "limits"].iter().any(|k| json::map(c, &format!("/resources/{k}")).is_some_and(|m| !m.is_empty()))
    });
    if any { "Burstable" } else { "BestEffort" }
}

fn secret(object: &mut Value) {
    use base64::Engine;
    default(object, &["type"], "Opaque");
    let plain = json::map(object, "/stringData").cloned().unwrap_or_default();
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        json::set(object, &["data", &key], encoded);
    }
    json::unset(object, &["stringData"]);
}

/// Prepares a new object, or refuses it.
pub(crate) fn create(kube: &mut Kube, kind: &'static Kind, namespace: Option<&str>, object: &mut Value) -> Outcome<()> {
    for (field, wanted) in [("apiVersion", kind.api_version()), ("kind", kind.kind.to_owned())] {
        let present = text(object, &format!("/{field}"));
        if !present.is_empty() && present != wanted {
            let got = format!("{} in version \"{}\"", text(object, "/kind"), text(object, "/apiVersion"));
            return Err(Refusal::bad(format!("{got} cannot be handled as a {}", kind.kind)));
        }
        json::set(object, &[field], wanted);
    }
    if let Some(namespace) = namespace {
        let own = json::namespace(object);
        if !own.is_empty() && own != namespace {
            return Err(Refusal::bad(format!(
                "the namespace of the provided object does not match the namespace sent on the request: {own} is not {namespace}"
            )));
        }
        json::set(object, &["metadata", "namespace"], namespace);
    }
    if json::name(object).is_empty() && !text(object, "/metadata/generateName").is_empty() {
        let name = format!("{}{}", text(object, "/metadata/generateName"), kube.store.suffix(5));
        json::set(object, &["metadata", "name"], name);
    }
    let name = json::name(object).to_owned();
    named_well(kind, &name)?;
    if let Some(namespace) = namespace {
        let space = kube.store.get(kinds::namespaces(), "", namespace);
        let space = space.ok_or_else(|| Refusal::not_found(kinds::namespaces(), namespace))?;
        if json::deleting(space) {
            return Err(Refusal::terminating(kind, &name, namespace));
        }
    }
    if kube.store.get(kind, json::namespace(object), &name).is_some() {
        return Err(Refusal::exists(kind, &name));
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "uid", "selfLink"] {
        json::unset(object, &["metadata", field]);
    }
    defaults(kind, object);
    match kind.resource {
        "persistentvolumeclaims" => {
            if object.pointer("/spec/storageClassName").is_none_or(Value::is_null)
                && let Some(class) = default_class(kube)
            {
                json::set(object, &["spec", "storageClassName"], class);
            }
            add_finalizer(object, "kubernetes.io/pvc-protection");
        }
        "persistentvolumes" => add_finalizer(object, "kubernetes.io/pv-protection"),
        "pods" => {
            let class = text(object, "/spec/runtimeClassName").to_owned();
            if !class.is_empty() && kube.store.get(kinds::runtimes(), "", &class).is_none() {
                let why = format!("pod rejected: RuntimeClass \"{class}\" not found");
                return Err(Refusal::forbidden(kind, &name, &why));
            }
        }
        "services" if text(object, "/spec/type") != "ExternalName" => {
            let at = kube.store.list(kind, None).count() + 10;
            default(object, &["spec", "clusterIP"], format!("10.43.{}.{}", at / 250, at % 250));
        }
        _ => {}
    }
    super::valid::object(kind, object)
}

fn default_class(kube: &Kube) -> Option<String> {
    let mark = "storageclass.kubernetes.io/is-default-class";
    kube.store
        .list(kinds::classes(), None)
        .find(|c| json::annotation(c, mark) == Some("true"))
        .map(|c| json::name(c).to_owned())
}

fn named_well(kind: &Kind, name: &str) -> Outcome<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.is_empty() {
        let text = "Required value: name or generateName is required".to_owned();
        return Err(Refusal::invalid(kind, "", &[("metadata.name".into(), "FieldValueRequired", text)]));
    }
    if name.len() > 253 || !name.chars().all(good) || !edge(name.chars().next()) || !edge(name.chars().next_back()) {
        let text = format!(
            "Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case \
             alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        );
        return Err(Refusal::invalid(kind, name, &[("metadata.name".into(), "FieldValueInvalid", text)]));
    }
    Ok(())
}

/// Whether a config map or a secret may no longer change.
pub(crate) fn frozen(object: &Value) -> bool {
    flag(object, "/immutable")
}
