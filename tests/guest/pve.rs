//! A Proxmox API with one VM and its agent.

use std::sync::Arc;

use pvemig::base::clock::Clock;
use pvemig::base::secret::Secret;
use pvemig::proxmox::{Auth as PveAuth, Endpoint, Proxmox};
use serde_json::json;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// The Proxmox API with an agent that knows one command, and with what it was asked.
pub(crate) async fn pve(agent: ResponseTemplate) -> (MockServer, Arc<Proxmox>) {
    let server = MockServer::start().await;
    let data = |value: serde_json::Value| ResponseTemplate::new(200).set_body_json(json!({ "data": value }));
    let serve = async |verb: &str, at: &str, answer: ResponseTemplate| {
        Mock::given(method(verb)).and(path(format!("/api2/json{at}"))).respond_with(answer).mount(&server).await;
    };
    let vm = "/nodes/still-fawn/qemu/108";
    let row = json!([{ "type": "qemu", "vmid": 108, "node": "still-fawn", "id": "qemu/108", "status": "running" }]);
    serve("GET", "/cluster/resources", data(row)).await;
    serve("GET", &format!("{vm}/config"), data(json!({ "agent": "1", "digest": "d" }))).await;
    serve("POST", &format!("{vm}/agent/ping"), agent).await;
    let commands = ["guest-exec", "guest-exec-status"].map(|name| json!({ "name": name, "enabled": true }));
    let info = json!({ "result": { "version": "7.2.22", "supported_commands": commands } });
    serve("GET", &format!("{vm}/agent/info"), data(info)).await;
    serve("POST", &format!("{vm}/agent/exec"), data(json!({ "pid": 7 }))).await;
    let done = json!({ "exited": 1, "exitcode": 0, "out-data": "by agent\n" });
    serve("GET", &format!("{vm}/agent/exec-status"), data(done)).await;
    let endpoint = Endpoint {
        cluster: "home".into(),
        urls: vec![server.uri()],
        trust: None,
        auth: PveAuth::Token { id: "root@pam!t".into(), secret: Secret::new("s") },
        clock: Clock::fast(100),
    };
    let proxmox = Arc::new(Proxmox::new(endpoint).unwrap());
    (server, proxmox)
}

pub(crate) fn answers_ping() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({ "data": { "result": {} } }))
}

pub(crate) async fn execs(server: &MockServer) -> Vec<String> {
    let seen = server.received_requests().await.unwrap();
    let execs = seen.iter().filter(|request| request.url.path().ends_with("/agent/exec"));
    execs.map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
}
