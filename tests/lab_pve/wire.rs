//! Manners of the wire, the request log, fault rules.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wire_has_proxmox_manners() {
    let b = Bench::new("usb-move").await;
    let said = b.ask(&b.auth, "GET", "/nodes/still-fawn/lxc", &[]).await;
    said.refused(501, "Method 'GET /nodes/still-fawn/lxc' not implemented");
    assert_eq!(said.body, Value::Null);
    b.ask(&b.auth, "DELETE", VM108, &[]).await.refused(501, &format!("Method 'DELETE {VM108}' not implemented"));
    let outside = b.client.get(format!("{}/api3/json/version", b.base));
    b.send(outside).await.refused(501, "no such uri '/api3/json/version'");
    let body = b.request(&b.auth, "DELETE", "/cluster/mapping/usb/x").body("a=b");
    b.send(body).await.refused(501, "Unexpected content for method 'DELETE'");
    let body = b.request(&b.auth, "GET", "/version").body("a=b");
    b.send(body).await.refused(501, "Unexpected content for method 'GET'");
    let config = format!("{VM108}/config");
    let text = b.request(&b.auth, "PUT", &config).header("Content-Type", "text/plain").body("onboot=1");
    assert_eq!(b.send(text).await.status, 506);
    let large = b.request(&b.auth, "PUT", &config).form(&[("description", "x".repeat(600 * 1024))]);
    b.send(large).await.refused(501, "for data too large");

    // Form and JSON, text and number, mean the same.
    for (json, plain) in [(json!({ "onboot": true }), 1), (json!({ "onboot": 0 }), 0), (json!({ "onboot": "1" }), 1)] {
        b.send(b.request(&b.auth, "PUT", &config).json(&json)).await.data();
        assert_eq!(b.get(&config).await["onboot"], plain);
    }
    assert_eq!(
        b.put(&config, &[("onboot", "true")]).await.about("onboot"),
        "type check ('boolean') failed - got 'true'"
    );
    let unknown = "property is not defined in schema and the schema does not allow additional properties";
    let said = b.put(&config, &[("usb14", "spice"), ("cores", "many")]).await;
    assert_eq!(said.about("usb14"), unknown);
    assert_eq!(said.about("cores"), "type check ('integer') failed - got 'many'");
    assert_eq!(said.body["errors"].as_object().unwrap().len(), 2);
    assert_eq!(b.ask(&b.auth, "GET", "/nodes", &[("x", "1")]).await.about("x"), unknown);
    let said = b.post("/cluster/mapping/usb", &[("id", "coral")]).await;
    assert_eq!(said.about("map"), "property is missing and it is not optional");
    assert_eq!(b.ask(&b.auth, "GET", "/version", &[("_dc", "1")]).await.status, 200);

    let gone = "hostname lookup 'nowhere' failed - failed to get address info for: nowhere: Name or service not known";
    b.ask(&b.auth, "GET", "/nodes/nowhere/status", &[]).await.refused(500, gone);
    let missing = "Configuration file 'nodes/still-fawn/qemu-server/105.conf' does not exist";
    b.ask(&b.auth, "GET", "/nodes/still-fawn/qemu/105/config", &[]).await.refused(500, missing);
    b.lab.shared().change(|w| w.hosts.get_mut("still-fawn").unwrap().online = false);
    b.ask(&b.auth, "GET", &config, &[]).await.refused(595, "No route to host");
    let rows = b.get("/cluster/resources?type=vm").await;
    assert_eq!(rows.as_array().unwrap().iter().filter(|r| r["status"] == "unknown").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_request_is_refused() {
    use http_body_util::{BodyExt, StreamBody};
    let b = Bench::new("usb-move").await;
    let stream = tokio::net::TcpStream::connect(b.lab.reach().proxmox.address).await.unwrap();
    let config = client_config(&Trust::Pins(vec![b.lab.reach().proxmox.fingerprint])).unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let frames = futures::stream::iter([Ok::<_, std::io::Error>(hyper::body::Frame::data(bytes::Bytes::from("a=b")))]);
    let request = http::Request::post("/api2/json/nodes").body(StreamBody::new(frames)).unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>().unwrap().as_bytes().to_vec();
    assert_eq!(String::from_utf8(reason).unwrap(), "chunked transfer encoding not supported");
    assert_eq!(response.headers()["connection"], "close");
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_logged_with_its_class() {
    let b = Bench::new("usb-move").await;
    b.get("/version").await;
    b.get("/access/permissions").await;
    b.post(&format!("{VM108}/agent/ping"), &[]).await.data();
    b.post(&format!("{VM108}/agent/exec"), &[("command", "lsusb")]).await.data();
    b.post(&format!("{VM108}/agent/exec"), &[("command", "touch"), ("command", "/x")]).await;
    b.put(&format!("{VM108}/config"), &[("onboot", "0")]).await.data();
    b.ask(&b.auth, "DELETE", "/cluster/mapping/usb/x", &[]).await.data();
    let count = |class| b.lab.shared().log.count(Front::Proxmox, class);
    let counts = [Class::Read, Class::Login, Class::Ping, Class::Look, Class::Change].map(count);
    assert_eq!(counts, [1, 2, 1, 1, 3]);
    let text = std::fs::read_to_string(b.lab.dir().join("requests.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(lines.iter().filter(|l| l["class"] == "change" && l["front"] == "proxmox").count(), 3);
    let last = &lines[7];
    assert_eq!(
        (&last["seq"], &last["method"], &last["path"], &last["status"]),
        (&json!(8), &json!("DELETE"), &json!("/api2/json/cluster/mapping/usb/x"), &json!(200))
    );
    assert!(last["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let password = std::fs::read_to_string(b.lab.dir().join("pve-password")).unwrap();
    assert!(!text.contains(password.trim()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_rules_hit_the_wire_before_or_after_the_effect() {
    let b = Bench::new("usb-move").await;
    let config = format!("{VM108}/config");
    let onboot = || b.lab.shared().read(|w| w.vms[&108].config["onboot"].clone());
    let rule = |effect| FaultRule::on(Front::Proxmox, effect).method("PUT").path("*/qemu/108/config").times(1);
    let broken = |value: &'static str, ms: u64| {
        let request = b.request(&b.auth, "PUT", &config).form(&[("onboot", value)]).timeout(Duration::from_millis(ms));
        async move { request.send().await.unwrap_err() }
    };
    b.lab.fault(rule(FaultEffect::Refuse));
    assert_eq!(b.put(&config, &[("onboot", "0")]).await.status, 403);
    assert_eq!(onboot(), "1");
    b.lab.fault(rule(FaultEffect::Status(500, "cfs-lock 'x' error: got lock request timeout".into())));
    b.put(&config, &[("onboot", "0")]).await.refused(500, "cfs-lock 'x' error: got lock request timeout");
    assert_eq!(onboot(), "1");
    b.lab.fault(rule(FaultEffect::ResetBefore));
    assert!(!broken("0", 60_000).await.is_timeout());
    assert_eq!(onboot(), "1");
    b.lab.fault(rule(FaultEffect::Hang));
    assert!(broken("0", 500).await.is_timeout());
    assert_eq!(onboot(), "1");
    b.lab.fault(rule(FaultEffect::ResetAfter));
    assert!(!broken("0", 60_000).await.is_timeout());
    assert_eq!(onboot(), "0");
    b.lab.fault(rule(FaultEffect::StatusAfter(596, "Connection timed out".into())));
    let said = b.put(&config, &[("onboot", "1")]).await;
    said.refused(596, "Connection timed out");
    assert_eq!((said.body, onboot()), (Value::Null, "1".to_owned()));
    b.lab.fault(rule(FaultEffect::HangAfter));
    assert!(broken("0", 500).await.is_timeout());
    b.wait("it happens", |w| w.vms[&108].config["onboot"] == "0").await;
    b.lab.fault(rule(FaultEffect::Delay(1_000)));
    b.put(&config, &[("onboot", "1")]).await.data();
    let spent = b.lab.shared().clear_faults();
    assert_eq!(spent.len(), 8);

    // The first that hits decides; skip and times count.
    b.lab.fault(
        FaultRule::on(Front::Proxmox, FaultEffect::Status(500, "second".into())).path("*/version").skip(1).times(1),
    );
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(b.ask(&b.auth, "GET", "/version", &[]).await.status);
    }
    assert_eq!(seen, [200, 500, 200]);
    // A stale read: as it was the last time.
    b.lab.fault(
        FaultRule::on(Front::Proxmox, FaultEffect::Stale).path("*/qemu/108/config").method("GET").skip(1).times(1),
    );
    assert_eq!(b.get(&config).await["onboot"], 1);
    b.put(&config, &[("onboot", "0")]).await.data();
    assert_eq!(b.get(&config).await["onboot"], 1);
    assert_eq!(b.get(&config).await["onboot"], 0);
    // On changes of any kind.
    b.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Status(503, "down".into())).class(Class::Change).times(1));
    b.get("/version").await;
    b.post(&format!("{VM108}/agent/ping"), &[]).await.data();
    b.put(&config, &[("onboot", "1")]).await.refused(503, "down");
}
