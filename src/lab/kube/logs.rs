//! Container logs, and the kubelet's figures behind `nodes/NAME/proxy`.

use serde_json::{Value, json};

use super::call::{Call, Target};
use super::json::{self, int, list, text};
use super::kinds;
use super::status::{Outcome, Refusal};
use crate::lab::World;

/// The log of a container: what the modelled workload has to say.
pub(crate) fn of(world: &World, target: &Target, call: &Call) -> Outcome<String> {
    let pod = super::read::find(&world.kube, target)?;
    let container = container(&pod, call)?;
    let status = list(&pod, "/status/containerStatuses").iter().find(|c| text(c, "/name") == container);
    let waiting = status.map_or("ContainerCreating", |s| text(s, "/state/waiting/reason"));
    if status.is_none() || !waiting.is_empty() {
        let text = format!("container \"{container}\" in pod \"{}\" is waiting to start: {waiting}", json::name(&pod));
        return Err(Refusal::bad(text));
    }
    let started = status.map_or("", |s| text(s, "/state/running/startedAt"));
    Ok(format!("{started} {container}: started on {}\n", text(&pod, "/spec/nodeName")))
}

/// The container that a call names, or the only one.
pub(crate) fn container(pod: &Value, call: &Call) -> Outcome<String> {
    let all: Vec<&str> = list(pod, "/spec/containers").iter().map(|c| text(c, "/name")).collect();
    match (call.query("container"), all.as_slice()) {
        (Some(name), all) if all.contains(&name) => Ok(name.to_owned()),
        (Some(name), _) => Err(Refusal::bad(format!("container {name} is not valid for pod {}", json::name(pod)))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, all) => Err(Refusal::bad(format!(
            "a container name must be specified for pod {}, choose one of: {all:?}",
            json::name(pod)
        ))),
    }
}

/// `stats/summary` of a node: volumes of kind `local` have figures, `hostPath` ones have none (kubelet's volume
/// plugins).
pub(crate) fn stats(world: &World, target: &Target, call: &Call) -> Outcome<Value> {
    let node = super::read::find(&world.kube, target)?;
    let path = call.path.join("/");
    if !path.ends_with("/proxy/stats/summary") {
        return Err(Refusal::no_path());
    }
    let name = json::name(&node);
    let vmid = world.vm_of_node(name).filter(|v| world.guest_up(*v));
    let Some(vm) = vmid.and_then(|v| world.vms.get(&v)) else {
        let text = "error trying to reach service: dial tcp: connect: no route to host";
        return Err(Refusal::new(503, "ServiceUnavailable", text));
    };
    let store = &world.kube.store;
    let here = store.list(kinds::pods(), None).filter(|p| text(p, "/spec/nodeName") == name);
    let pods: Vec<Value> = here
        .map(|pod| {
            let volumes: Vec<Value> = list(pod, "/spec/volumes")
                .iter()
                .filter_map(|v| {
                    let claim = text(v, "/persistentVolumeClaim/claimName");
                    let bound = store.get(kinds::claims(), json::namespace(pod), claim)?;
                    let volume = store.get(kinds::volumes(), "", text(bound, "/spec/volumeName"))?;
                    let used = vm.guest.used.get(text(volume, "/spec/local/path"))?;
                    Some(json!({ "name": text(v, "/name"), "usedBytes": used, "time": call.now.to_string(),
                        "pvcRef": { "name": claim, "namespace": json::namespace(pod) } }))
                })
                .collect();
            json!({ "podRef": { "name": json::name(pod), "namespace": json::namespace(pod), "uid": json::uid(pod) },
                "startTime": text(pod, "/status/startTime"), "volume": volumes })
        })
        .collect();
    Ok(json!({ "node": { "nodeName": name, "startTime": text(&node, "/metadata/creationTimestamp"),
        "pods": int(&node, "/status/capacity/pods") }, "pods": pods }))
}
