//! What hangs on a node's drives: Mayastor's pools and volumes, local volumes, and pods that measure.

use std::time::Duration;

use pvemig::lab::World;
use pvemig::lab::kube::store::Key;
use serde_json::Value;

use super::*;

const NUC: &str = "talos-nuc";
const SPEED: u32 = 300;
const VOLUMES: &str = "/api/v1/namespaces/openebs/services/http:mayastor-api-rest:8081/proxy/v0/volumes?max_entries=0";
/// How long anything may take, in lab time.
const LIMIT: Duration = Duration::from_secs(120 * SPEED as u64);

async fn of(world: World) -> (Lab, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(LabOptions { world, dir: dir.path().to_owned(), speed: SPEED }).await.unwrap();
    (lab, dir)
}

/// The status of a pool.
fn pool(w: &World, name: &str) -> String {
    let pool = w.kube.store.get(kinds::disk_pools(), "openebs", name).unwrap();
    pool.pointer("/status/pool_status").and_then(Value::as_str).unwrap_or_default().to_owned()
}

async fn until(lab: &Lab, what: &str, look: impl Fn(&World) -> bool) {
    let seen = lab.shared().until(LIMIT, |w| look(w).then_some(())).await;
    assert!(seen.is_some(), "{what}");
}

/// Status, its replicas by pool, and the percentage of a rebuild, of each volume.
async fn volumes(kubectl: &Kubectl) -> Vec<(String, Vec<(String, String)>, Option<u64>)> {
    let told: Value = serde_json::from_str(&kubectl.ok(&format!("get --raw {VOLUMES}")).await).unwrap();
    let one = |volume: &Value| {
        let state = &volume["state"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let all = state["replica_topology"].as_object().unwrap();
        let mut replicas: Vec<_> = all.values().map(|r| (text(&r["pool"]), text(&r["state"]))).collect();
        replicas.sort();
        let progress = all.values().find_map(|r| r["rebuild-progress"].as_u64());
        let children = state["target"]["children"].as_array().unwrap();
        assert_eq!(children.len(), all.len());
        assert_eq!(children.iter().find_map(|child| child["rebuildProgress"].as_u64()), progress);
        (text(&state["status"]), replicas, progress)
    };
    told["entries"].as_array().unwrap().iter().map(one).collect()
}

fn at(pools: &[(&str, &str)]) -> Vec<(String, String)> {
    pools.iter().map(|(pool, state)| ((*pool).to_owned(), (*state).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_is_rebuilt() {
    let (lab, _dir) = of(load("nvme-data").unwrap()).await;
    let kubectl = Kubectl::new(&lab);
    let pools = "get dsp -n openebs -o jsonpath={range.items[*]}{.metadata.name}={.status.pool_status};{end}";
    assert_eq!(kubectl.ok(pools).await, "pool-mac=Online;pool-nuc=Online;pool-vm=Online;");
    let second = ("Online".to_owned(), at(&[("pool-mac", "Online"), ("pool-vm", "Online")]), None);
    let well = [("Online".to_owned(), at(&[("pool-mac", "Online"), ("pool-nuc", "Online")]), None), second.clone()];
    assert_eq!(volumes(&kubectl).await, well);
    let whole = |lab: &Lab| lab.compared()["kubernetes"]["replicas"].clone();
    let before = whole(&lab);
    assert_eq!(before.as_object().unwrap().len(), 4);

    // Drained: what serves the API is elsewhere.
    lab.shared().change(|w| drop(w.talos_shutdown(NUC, false)));
    until(&lab, "its pool is away", |w| pool(w, "pool-nuc") == "Unknown").await;
    let served = |w: &World| {
        let of = |pod: &Value| pod["metadata"]["labels"]["app"] == "api-rest";
        let ready = |pod: &Value| {
            let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).unwrap();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        w.kube.store.list(kinds::pods(), Some("openebs")).any(|pod| of(pod) && ready(pod))
    };
    until(&lab, "the API is served", served).await;
    let first = ("Degraded".to_owned(), at(&[("pool-mac", "Online"), ("pool-nuc", "Unknown")]), None);
    assert_eq!(volumes(&kubectl).await, [first, second.clone()]);
    assert_ne!(whole(&lab), before);

    lab.press_button(NUC).unwrap();
    until(&lab, "its pool is back", |w| pool(w, "pool-nuc") == "Online").await;
    let now = volumes(&kubectl).await;
    // However slow this machine is, it is being rebuilt or has been.
    let rebuilt = now[0].0 == "Online";
    assert_eq!((now[0].2.is_none(), &now[0].1), (rebuilt, &well[0].1), "{now:?}");
    until(&lab, "it is whole", |w| w.compared()["kubernetes"]["replicas"] == before).await;
    assert_eq!(volumes(&kubectl).await, well);

    let refused = kubectl.refused(&format!("get --raw {}", VOLUMES.replace("mayastor-api-rest", "nobody"))).await;
    assert!(refused.contains("not found") || refused.contains("NotFound"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_disk_is_not_there_takes_the_last_copy_with_it() {
    let mut world = load("nvme-data").unwrap();
    // The copy on the NUC lags behind, and that on the Mac is lost: nobody has the data.
    let first = world.mayastor.volumes.values_mut().next().unwrap();
    first.stale = first.replicas.iter().filter(|(_, pool)| *pool == "pool-nuc").map(|(id, _)| id.clone()).collect();
    let disks = &mut world.talos.nodes.get_mut("talos-mac").unwrap().disks;
    disks.iter_mut().filter(|disk| disk.pool == "pool-mac").for_each(|disk| disk.unplugged = true);
    let (lab, _dir) = of(world).await;
    let kubectl = Kubectl::new(&lab);
    until(&lab, "its pool is not there", |w| pool(w, "pool-mac") != "Online").await;
    let states: Vec<String> = volumes(&kubectl).await.into_iter().map(|(status, _, _)| status).collect();
    assert_eq!(states, ["Faulted", "Degraded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_measure_end_with_figures_and_a_volume_that_is_not_mounted_keeps_its_pod() {
    let (lab, _dir) = of(load("nvme-data").unwrap()).await;
    let kubectl = Kubectl::new(&lab);
    kubectl.ok("cordon talos-nuc").await;
    let pod = |name: &str, path: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, namespace: kube-system, labels: {{ pvemig.io/run: abc }} }}\n\
             spec:\n  nodeName: talos-nuc\n  restartPolicy: Never\n  activeDeadlineSeconds: 600\n  containers:\n  - name: measure\n\
             \x20   image: busybox:1.37\n    volumeMounts:\n    - {{ name: data, mountPath: /measure/media }}\n    - {{ name: var, mountPath: /measure/var }}\n\
             \x20 volumes:\n  - {{ name: data, hostPath: {{ path: {path}, type: Directory }} }}\n  - {{ name: var, hostPath: {{ path: /var, type: Directory }} }}\n"
        )
    };
    for (name, path) in [("there", "/var/mnt/media"), ("nowhere", "/var/mnt/other")] {
        let file = kubectl.file(name, &pod(name, path));
        kubectl.ok(&format!("create --validate=false -f {file}")).await;
    }
    let key = |name: &str| Key::new(kinds::pods(), "kube-system", name);
    let phase = |w: &World, name: &str| w.kube.store.at(&key(name)).unwrap()["status"]["phase"].clone();
    until(&lab, "it has measured", |w| phase(w, "there") == "Succeeded").await;
    let path = "jsonpath={.status.containerStatuses[0].state.terminated.message}";
    let told = kubectl.ok(&format!("get pod there -n kube-system -o {path}")).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    let speed = serde_json::json!({ "write": 1_900_000_000_u64, "read": 3_100_000_000_u64 });
    assert_eq!(told, serde_json::json!({ "media": speed, "var": speed }));
    assert_eq!(lab.shared().read(|w| phase(w, "nowhere")), "Pending");
    kubectl.ok("delete pod there nowhere -n kube-system").await;

    // With its drive on the bench the program that needs it waits.
    let jellyfin = |w: &World| {
        let pods = w.kube.store.list(kinds::pods(), Some("home"));
        let own: Vec<Value> =
            pods.filter(|p| p["metadata"]["labels"]["app"] == "jellyfin").map(|p| Value::clone(p)).collect();
        own
    };
    let runs = |w: &World| {
        let pods = jellyfin(w);
        pods.iter().any(|p| p["status"]["phase"] == "Running" && p["status"]["containerStatuses"][0]["ready"] == true)
    };
    until(&lab, "it runs", runs).await;
    lab.shared().change(|w| drop(w.talos_shutdown(NUC, true)));
    until(&lab, "it is off", |w| w.talos.nodes[NUC].off).await;
    lab.move_drive("22471A806001", "bench").unwrap();
    lab.press_button(NUC).unwrap();
    until(&lab, "the node is back", |w| w.talos.nodes[NUC].run.as_ref().is_some_and(|run| run.booted)).await;
    let message = |w: &World| {
        let said =
            w.kube.store.list(kinds::events(), Some("home")).filter_map(|e| e["message"].as_str().map(str::to_owned));
        let mut said = said.filter(|text| text.contains("path \"/var/mnt/media/library\" does not exist"));
        said.next()
    };
    until(&lab, "it says why", |w| message(w).is_some()).await;
    assert!(!lab.shared().read(runs));
}
