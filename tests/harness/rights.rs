//! What `pvemig privileges` prints of a migration, and what was refused of its requests.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use pvemig::lab::kube::kinds;
use serde_json::{Value, json};

use super::estate::Rig;

const APPLY: &str = "application/apply-patch+yaml";

/// What the verb prints about a migration of a lab's site, as JSON.
pub fn privileges(rig: &Rig, migration: &str) -> Value {
    privileges_with(rig, migration, &[])
}

/// The same with these options.
#[expect(clippy::disallowed_methods, reason = "the verb itself is asked")]
pub fn privileges_with(rig: &Rig, migration: &str, more: &[&str]) -> Value {
    let site = rig.dir().join("site.yaml");
    let args = ["--json", "--site", site.to_str().unwrap(), "privileges", migration];
    let said = Command::new(env!("CARGO_BIN_EXE_pvemig")).args(args).args(more).env_clear().output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

/// The requests that a lab has written down.
pub fn requests(rig: &Rig) -> Vec<Value> {
    let log = std::fs::read_to_string(rig.dir().join("requests.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Those that were answered with 403.
pub fn refused(rig: &Rig) -> Vec<Value> {
    requests(rig).into_iter().filter(|request| request["status"] == 403).collect()
}

/// A client of the lab's cluster that may do everything there.
pub async fn administrator(rig: &Rig) -> kube::Client {
    let file = kube::config::Kubeconfig::from_yaml(&rig.lab.reach().kubernetes.kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions { context: Some("admin".into()), ..Default::default() };
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// Gives the account of the lab's kubeconfig what the verb has printed.
pub async fn grant(client: &kube::Client, printed: &Value) {
    for manifest in printed["kubernetes"]["manifests"].as_array().unwrap() {
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap();
        let kind = kinds::of(text("/apiVersion"), text("/kind")).unwrap();
        let root = if kind.group.is_empty() { "/api" } else { "/apis" };
        let space = if kind.namespaced { format!("/namespaces/{}", text("/metadata/namespace")) } else { "".into() };
        let name = text("/metadata/name");
        let path = format!("{root}/{}{space}/{}/{name}?fieldManager=t", kind.api_version(), kind.resource);
        let request = http::Request::builder().method("PATCH").uri(path).header("content-type", APPLY);
        let _made: Value = client.request(request.body(manifest.to_string().into_bytes()).unwrap()).await.unwrap();
    }
}

/// The rules of a role without one verb on one object, or on all; it was in exactly one of them.
pub fn without(rules: &Value, right: &Value) -> Value {
    let (mut left, mut taken) = (Vec::new(), 0);
    for rule in rules.as_array().unwrap() {
        let has = |key: &str| rule[key].as_array().unwrap_or(&Vec::new()).contains(&right[&key[..key.len() - 1]]);
        let group = rule["apiGroups"].as_array().unwrap().contains(&right["group"]);
        let named = match &right["name"] {
            Value::Null => rule.get("resourceNames").is_none(),
            name => rule["resourceNames"] == json!([name]),
        };
        let mut less = rule.clone();
        if group && named && has("resources") && has("verbs") {
            less["verbs"].as_array_mut().unwrap().retain(|verb| *verb != right["verb"]);
            taken += 1;
            // What is left of it: this verb on its other resources.
            let mut others = rule.clone();
            others["verbs"] = json!([right["verb"]]);
            others["resources"].as_array_mut().unwrap().retain(|resource| *resource != right["resource"]);
            left.push(others);
        }
        left.push(less);
    }
    assert_eq!(taken, 1, "{right:#} of {rules:#}");
    left.into()
}
