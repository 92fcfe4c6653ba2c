//! Mayastor's pools and volumes: what is asked, and what each answer is taken for.

use pvemig::base::fault::{Effect, Fault};
use pvemig::k8s::KubeError;
use pvemig::k8s::mayastor::{DiskPool, Health};

use super::faults::{Does, server};
use super::*;

const SERVICES: &str = "/api/v1/namespaces/openebs/services";
const VOLUMES: &str = "/api/v1/namespaces/openebs/services/http:mayastor-api-rest:8081/proxy/v0/volumes";

fn service(name: &str) -> Value {
    let ports = json!([{"name": "https", "port": 8080, "targetPort": 8080, "protocol": "TCP"},
        {"name": "http", "port": 8081, "targetPort": 8081, "protocol": "TCP"}]);
    json!({"metadata": {"name": name, "namespace": "openebs", "labels": {"app": "api-rest"}}, "spec": {"ports": ports}})
}

/// A cluster with one Service, behind which Mayastor's API gives this answer.
async fn behind(template: ResponseTemplate) -> Wire {
    let wire = Wire::start().await;
    wire.on("GET", SERVICES, ok(&list(&[service("mayastor-api-rest")]))).await;
    wire.on("GET", VOLUMES, template).await;
    wire
}

/// A cluster with these pools.
async fn pools(items: &[Value]) -> Wire {
    let wire = Wire::start().await;
    let version = |version: &str| json!({"groupVersion": format!("openebs.io/{version}"), "version": version});
    let group = json!({"name": "openebs.io", "versions": [version("v1beta3"), version("v1beta2")],
        "preferredVersion": version("v1beta3")});
    wire.on("GET", "/apis", ok(&json!({"kind": "APIGroupList", "groups": [group]}))).await;
    let kinds = json!({"resources": [{"name": "diskpools", "kind": "DiskPool", "namespaced": true},
        {"name": "diskpools/status", "kind": "DiskPool", "namespaced": true}]});
    wire.on("GET", "/apis/openebs.io/v1beta3", ok(&kinds)).await;
    wire.on("GET", "/apis/openebs.io/v1beta3/diskpools", ok(&list(items))).await;
    wire
}

#[tokio::test]
async fn volumes_are_asked_through_the_api_server() {
    let wire = behind(answer(200, "mayastor-volumes")).await;
    let volumes = wire.kube.mayastor_volumes("openebs").await.unwrap();
    assert_eq!(
        wire.paths().await,
        [format!("{SERVICES}?labelSelector=app%3Dapi-rest&limit=500"), format!("{VOLUMES}?max_entries=0")]
    );
    assert_eq!((volumes.len(), wire.notebook.notes().len()), (2, 0));

    let used = &volumes[0];
    assert_eq!(
        (used.uuid.as_str(), &used.health, used.wanted),
        ("4be37dbd-4b60-44f3-b807-08f6693522ac", &Health::Degraded, 2)
    );
    let target = used.target.as_ref().unwrap();
    assert_eq!((target.node.as_str(), &target.health, target.rebuilds), ("talos-mac", &Health::Degraded, 1));
    let shown: Vec<_> = used
        .replicas
        .iter()
        .map(|one| (one.node.as_deref().unwrap(), one.pool.as_deref().unwrap(), one.rebuild, one.is_sound()))
        .collect();
    assert_eq!(shown, [("talos-mac", "pool-mac", None, true), ("talos-nuc", "pool-nuc", Some(37), false)]);
    // What is rebuilt is there, and no way out for the other one.
    assert!(used.rebuilds() && !used.is_whole());
    assert_eq!((used.sound_elsewhere("talos-nuc").count(), used.sound_elsewhere("talos-mac").count()), (1, 0));
    assert!(used.may_be_on("talos-nuc") && !used.may_be_on("talos-vm"));

    // Mayastor calls it Online.
    let idle = &volumes[1];
    assert_eq!((&idle.health, idle.target.is_none(), idle.rebuilds()), (&Health::Online, true, false));
    assert_eq!((idle.is_whole(), idle.sound_elsewhere("talos-nuc").count()), (false, 0));
    assert_eq!(idle.replicas[1].health, Health::Other("Unknown".into()));
}

#[tokio::test]
async fn later_fields_and_words_are_no_obstacle_and_no_consent() {
    let mut body = fixture("mayastor-volumes");
    body["later"] = json!({"x": 1});
    let volume = &mut body["entries"][0];
    volume["later"] = json!([1]);
    volume["state"]["status"] = "Rejuvenating".into();
    let replicas = &mut volume["state"]["replica_topology"];
    let mac = &mut replicas["03f0c3f1-4d3e-44e5-b768-4c50e53f7a34"];
    (mac["child-status"], mac["later"]) = ("Syncing".into(), true.into());
    let nuc = &mut replicas["37d83441-e8ef-4e17-a29e-25169d91cb96"];
    *nuc = json!({"state": "Online"});
    let volumes = behind(ok(&body)).await.kube.mayastor_volumes("openebs").await.unwrap();
    let volume = &volumes[0];
    assert_eq!(volume.health, Health::Other("Rejuvenating".into()));
    assert_eq!(volume.replicas[0].child, Some(Health::Other("Syncing".into())));
    assert!(!volume.is_whole());
    // Of the second one nobody tells where it is: it may be here, and is not elsewhere.
    assert_eq!((volume.may_be_on("talos-vm"), volume.sound_elsewhere("talos-vm").count()), (true, 0));
}

#[tokio::test]
async fn a_volume_is_whole_where_all_of_it_is_sound() {
    let mut body = fixture("mayastor-volumes");
    let whole = async |body: &Value| {
        let volumes = behind(ok(body)).await.kube.mayastor_volumes("openebs").await.unwrap();
        volumes.iter().map(|one| one.is_whole()).collect::<Vec<_>>()
    };
    let state = &mut body["entries"][0]["state"];
    (state["status"], state["target"]["state"]) = ("Online".into(), "Online".into());
    state["target"]["rebuilds"] = 0.into();
    state["target"]["children"][1]["rebuildProgress"] = Value::Null;
    let second = &mut state["replica_topology"]["37d83441-e8ef-4e17-a29e-25169d91cb96"];
    (second["rebuild-progress"], second["child-status"]) = (Value::Null, "Online".into());
    body["entries"][1]["state"]["replica_topology"]["2b6f4f2c-6a55-4d2b-b0b9-9f5f0f8c1c11"]["state"] = "Online".into();
    assert_eq!(whole(&body).await, [true, true]);
    // The target alone tells of a rebuild.
    let mut rebuilt = body.clone();
    rebuilt["entries"][0]["state"]["target"]["children"][1]["rebuildProgress"] = 99.into();
    assert_eq!(whole(&rebuilt).await, [false, true]);
    let mut fewer = body.clone();
    fewer["entries"][1]["spec"]["num_replicas"] = 3.into();
    assert_eq!(whole(&fewer).await, [true, false]);
}

/// What is no whole answer is never a list.
#[tokio::test]
async fn what_is_no_whole_answer_is_an_error() {
    let text = |code: u16, text: &str| ResponseTemplate::new(code).set_body_string(text);
    let rest = json!({"details": "The Pool 'x' was not found", "message": "", "kind": "NotFound"});
    let status = |code: u16, reason: &str, message: &str| {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
            "reason": reason, "code": code});
        ResponseTemplate::new(code).set_body_json(body)
    };
    let mut cut = fixture("mayastor-volumes");
    cut["next_token"] = 2.into();
    let without = |pointer: &str, key: &str| {
        let mut body = fixture("mayastor-volumes");
        body.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key).unwrap();
        ok(&body)
    };
    type Is = fn(&KubeError) -> bool;
    let bad: Is = |e| matches!(e, KubeError::BadAnswer { .. });
    let cases: Vec<(ResponseTemplate, Is, bool)> = vec![
        (answer(403, "status-403"), |e| matches!(e, KubeError::Forbidden { .. }), false),
        (answer(401, "status-401"), |e| matches!(e, KubeError::Unauthorized { .. }), false),
        // The Service went after it was listed; its own API does not know the path; something on the way.
        (status(404, "NotFound", "services \"mayastor-api-rest\" not found"), |e| e.is_not_found(), false),
        (ResponseTemplate::new(404).set_body_json(rest), |e| matches!(e, KubeError::Refused { code: 404, .. }), false),
        (text(404, "404 page not found"), |e| matches!(e, KubeError::Refused { code: 404, .. }), false),
        (text(502, "<html>Bad Gateway</html>"), |e| matches!(e, KubeError::Server { code: 502, .. }), true),
        (
            status(503, "ServiceUnavailable", "no endpoints available for service \"http:mayastor-api-rest:8081\""),
            |e| matches!(e, KubeError::Server { code: 503, text, .. } if text.contains("no endpoints")),
            true,
        ),
        (text(200, "<html>hi</html>"), bad, false),
        (text(200, ""), bad, false),
        (ok(&json!({})), bad, false),
        (ok(&cut), bad, false),
        (without("/entries/0", "state"), bad, false),
        (without("/entries/0/state", "replica_topology"), bad, false),
        (without("/entries/1/state/replica_topology/1f1a0a53-0cb0-4a9b-8f0e-54b7c6f6a8a1", "state"), bad, false),
    ];
    assert_eq!(cases.len(), 14);
    let short = Duration::from_millis(900);
    for (at, (template, is, retryable)) in cases.into_iter().enumerate() {
        let wire = behind(template).await;
        // What passes is asked again until the time is up.
        let kube = if at == 6 { wire.kube.clone().limits(short, short) } else { wire.kube.clone() };
        let error = kube.mayastor_volumes("openebs").await.unwrap_err();
        assert!(is(&error), "case {at}: {error:?}");
        assert_eq!((error.effect(), error.retryable()), (Effect::None, retryable), "case {at}: {error:?}");
        assert!(
            error.to_string().starts_with("kubernetes `k3s`: GET services/openebs/http:mayastor-api-rest:8081/"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn half_a_body_is_asked_for_again() {
    const ONE: &str = concat!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 133\r\n\r\n",
        r#"{"items":[{"metadata":{"name":"a"},"spec":{"ports":[{"name":"http","port":8081}]}}]}                                                 "#
    );
    const HALF: &str =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"entries\": [";
    const NONE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 14\r\n\r\n{\"entries\":[]}";
    assert_eq!(ONE.split_once("\r\n\r\n").unwrap().1.len(), 133);
    let (address, seen) = server(&[Does::Says(ONE), Does::Says(HALF), Does::Drops, Does::Says(NONE)]).await;
    assert_eq!(open(&address, None).await.mayastor_volumes("openebs").await.unwrap(), []);
    assert_eq!(seen.lock().unwrap().len(), 4);
    let (address, _) = server(&[Does::Says(ONE), Does::Says(HALF)]).await;
    let short = Duration::from_millis(300);
    let error = open(&address, None).await.limits(short, short).mayastor_volumes("openebs").await.unwrap_err();
    assert!(matches!(error, KubeError::LostAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn the_service_is_found_by_its_label_and_its_port() {
    let mut named = service("other");
    named["spec"]["ports"] = json!([{"name": "https", "port": 8080}]);
    let mut moved = service("homelab-api-rest");
    moved["spec"]["ports"] = json!([{"name": "http", "port": 80}]);
    let wire = Wire::start().await;
    wire.on("GET", SERVICES, ok(&list(&[named.clone(), moved]))).await;
    let at = "/api/v1/namespaces/openebs/services/http:homelab-api-rest:80/proxy/v0/volumes";
    wire.on("GET", at, ok(&json!({"entries": []}))).await;
    assert_eq!(wire.kube.mayastor_volumes("openebs").await.unwrap(), []);

    type Is = fn(&KubeError) -> bool;
    let cases: [(Vec<Value>, Is, &str); 3] = [
        (vec![], KubeError::is_not_found, "0 Services with the label app=api-rest and a port `http` in openebs"),
        (vec![named], KubeError::is_not_found, "0 Services"),
        (vec![service("a"), service("b")], |e| matches!(e, KubeError::BadAnswer { .. }), "2 Services"),
    ];
    for (services, is, words) in cases {
        let wire = Wire::answering(ok(&list(&services))).await;
        let error = wire.kube.mayastor_volumes("openebs").await.unwrap_err();
        assert!(is(&error) && error.to_string().contains(words), "{error}");
        assert_eq!(wire.requests().await.len(), 1);
    }
    for (code, file) in [(403, "status-403"), (500, "status-500")] {
        let wire = Wire::answering(answer(code, file)).await;
        wire.kube.mayastor_volumes("openebs").await.unwrap_err();
        assert_eq!(wire.requests().await.len(), 1);
    }
}

#[tokio::test]
async fn pools_are_read_in_the_version_that_is_served() {
    let mut fresh = fixture("diskpool");
    fresh["metadata"]["name"] = "fresh".into();
    fresh["spec"]["disks"] = json!(["aio:///dev/nvme1n1?blk_size=512", "uring:///dev/sdb"]);
    fresh["spec"]["later"] = json!({"x": 1});
    fresh.as_object_mut().unwrap().remove("status");
    let with = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut pool = fixture("diskpool");
        pool["metadata"]["name"] = name.into();
        change(&mut pool);
        pool
    };
    let items = [
        fixture("diskpool"),
        fresh,
        with("off", &|pool| pool["status"] = json!({"cr_state": "Created", "pool_status": "Unknown", "capacity": 0})),
        with("lost", &|pool| pool["status"]["pool_status"] = Value::Null),
        with("going", &|pool| pool["metadata"]["deletionTimestamp"] = "2025-11-22T10:00:00Z".into()),
        with("later", &|pool| pool["status"]["pool_status"] = "Superb".into()),
    ];
    let wire = pools(&items).await;
    let found = wire.kube.disk_pools().await.unwrap().unwrap();
    let shown: Vec<_> =
        found.iter().map(|pool| (pool.name.as_str(), pool.health.to_string(), pool.is_online())).collect();
    assert_eq!(
        shown,
        [
            ("pool-nuc", "Online".to_owned(), true),
            ("fresh", "not told".to_owned(), false),
            ("off", "Unknown".to_owned(), false),
            ("lost", "not told".to_owned(), false),
            ("going", "Online".to_owned(), false),
            ("later", "Superb".to_owned(), false),
        ]
    );
    let first = &found[0];
    assert_eq!(
        (first.namespace.as_str(), first.node.as_str(), first.capacity),
        ("openebs", "talos-nuc", 1_024_209_543_168)
    );
    let devices = |pool: &DiskPool| pool.devices().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(devices(first), ["/dev/disk/by-id/nvme-SAMSUNG_MZVL21T0_2J4720113456"]);
    assert_eq!(devices(&found[1]), ["/dev/nvme1n1", "/dev/sdb"]);
    assert_eq!(
        wire.paths().await,
        ["/apis", "/apis/openebs.io/v1beta3", "/apis/openebs.io/v1beta3/diskpools?limit=500"]
    );
}

#[tokio::test]
async fn no_such_kind_is_not_the_same_as_no_answer() {
    let wire = Wire::start().await;
    wire.on("GET", "/apis", ok(&json!({"groups": []}))).await;
    assert_eq!(wire.kube.disk_pools().await.unwrap(), None);
    let wire = pools(&[]).await;
    assert_eq!(wire.kube.disk_pools().await.unwrap(), Some(vec![]));
    let mut broken = fixture("diskpool");
    broken["spec"].as_object_mut().unwrap().remove("node");
    let error = pools(&[broken]).await.kube.disk_pools().await.unwrap_err();
    assert!(matches!(error, KubeError::BadAnswer { .. }), "{error:?}");
    for (code, file) in [(403, "status-403"), (500, "status-500")] {
        let error = Wire::answering(answer(code, file)).await.kube.disk_pools().await.unwrap_err();
        assert_eq!(error.effect(), Effect::None, "{error:?}");
    }
}
