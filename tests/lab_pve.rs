//! The lab's Proxmox front, asked by a plain HTTP client that knows nothing of it.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use pvemig::base::tls::{Trust, client_config};
use pvemig::lab::control::{self, Request as Ask};
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, Lab, LabError, LabOptions, Place, World, load, read};
use serde_json::{Value, json};

/// Lab seconds in a real one.
const SPEED: u32 = 500;

struct Bench {
    lab: Lab,
    client: reqwest::Client,
    base: String,
    auth: Auth,
    _dir: tempfile::TempDir,
}

#[derive(Clone)]
enum Auth {
    Nobody,
    Token(String),
    Ticket { cookie: String, csrf: String },
}

#[derive(Debug, Clone)]
struct Said {
    status: u16,
    reason: String,
    body: Value,
}

impl Said {
    fn data(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        &self.body["data"]
    }

    fn refused(&self, status: u16, text: &str) {
        assert_eq!((self.status, self.reason.as_str()), (status, text), "{self:?}");
        if self.body != Value::Null {
            let message = self.body["message"].as_str().unwrap();
            assert!(message.starts_with(text) && message.ends_with('\n'), "{self:?}");
        }
    }

    fn about(&self, name: &str) -> &str {
        self.refused(400, "Parameter verification failed.");
        self.body["errors"][name].as_str().unwrap_or_else(|| panic!("{self:?}"))
    }
}

fn place(host: &str, port: &str) -> Option<Place> {
    Some(Place { host: host.into(), port: port.into() })
}

impl Bench {
    async fn new(world: &str) -> Self {
        Self::of(load(world).unwrap()).await
    }

    async fn with(world: &str, change: impl FnOnce(&mut World)) -> Self {
        let mut world = load(world).unwrap();
        change(&mut world);
        Self::of(world).await
    }

    async fn of(world: World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().to_owned(), speed: SPEED }).await.unwrap();
        let base = format!("https://{}", lab.reach().proxmox.address);
        let trust = Trust::Pins(vec![lab.reach().proxmox.fingerprint]);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(&trust).unwrap())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        let mut bench = Self { lab, client, base, auth: Auth::Nobody, _dir: dir };
        bench.auth = bench.login().await;
        bench
    }

    async fn login(&self) -> Auth {
        let password = std::fs::read_to_string(self.lab.dir().join("pve-password")).unwrap();
        let said = self
            .ask(&Auth::Nobody, "POST", "/access/ticket", &[("username", "root@pam"), ("password", password.trim())])
            .await;
        Auth::Ticket {
            cookie: said.data()["ticket"].as_str().unwrap().to_owned(),
            csrf: said.data()["CSRFPreventionToken"].as_str().unwrap().to_owned(),
        }
    }

    fn token(&self, id: &str) -> Auth {
        Auth::Token(format!("{id}={}", self.lab.shared().read(|w| w.access.tokens[id].secret.clone())))
    }

    fn request(&self, auth: &Auth, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}/api2/json{path}", self.base));
        match auth {
            Auth::Nobody => request,
            Auth::Token(token) => request.header("Authorization", format!("PVEAPIToken={token}")),
            Auth::Ticket { cookie, csrf } => {
                let cookie = percent_encoding::utf8_percent_encode(cookie, percent_encoding::NON_ALPHANUMERIC);
                request.header("Cookie", format!("PVEAuthCookie={cookie}")).header("CSRFPreventionToken", csrf)
            }
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Said {
        let response = request.send().await.unwrap();
        let status = response.status();
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let reason = reason.map_or_else(
            || status.canonical_reason().unwrap_or_default().to_owned(),
            |r| String::from_utf8_lossy(r.as_bytes()).into_owned(),
        );
        let body = response.bytes().await.unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Said { status: status.as_u16(), reason, body }
    }

    async fn ask(&self, auth: &Auth, method: &str, path: &str, params: &[(&str, &str)]) -> Said {
        let request = self.request(auth, method, path);
        let request = match method {
            "GET" | "DELETE" => request.query(params),
            _ => request.form(params),
        };
        self.send(request).await
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(&self.auth, "GET", path, &[]).await.data().clone()
    }

    async fn put(&self, path: &str, params: &[(&str, &str)]) -> Said {
        self.ask(&self.auth, "PUT", path, params).await
    }

    async fn post(&self, path: &str, params: &[(&str, &str)]) -> Said {
        self.ask(&self.auth, "POST", path, params).await
    }

    /// `{key: row}` of the pending view.
    async fn pending(&self, vm: &str) -> serde_json::Map<String, Value> {
        let rows = self.get(&format!("{vm}/pending")).await;
        rows.as_array().unwrap().iter().map(|r| (r["key"].as_str().unwrap().to_owned(), r.clone())).collect()
    }

    /// Waits for a pve task; its exit status.
    async fn finish(&self, upid: &str) -> String {
        let seen = self.lab.shared().until(Duration::from_secs(600), |w| {
            w.task(upid).and_then(|t| t.end.as_ref()).map(|(_, status)| status.clone())
        });
        let seen = seen.await.expect("the task ends");
        let node = upid.split(':').nth(1).unwrap();
        let path =
            format!("/nodes/{node}/tasks/{}/status", upid.replace(':', "%3A").replace('@', "%40").replace('!', "%21"));
        let row = self.get(&path).await;
        assert_eq!((&row["status"], &row["exitstatus"]), (&json!("stopped"), &json!(seen)));
        seen
    }

    async fn power(&self, vm: &str, verb: &str, params: &[(&str, &str)]) -> String {
        let said = self.post(&format!("{vm}/status/{verb}"), params).await;
        let upid = said.data().as_str().unwrap().to_owned();
        assert!(upid.starts_with("UPID:") && upid.ends_with(':') && upid.split(':').count() == 9, "{upid}");
        self.finish(&upid).await
    }

    async fn wait(&self, what: &str, mut look: impl FnMut(&World) -> bool) {
        let seen = self.lab.shared().until(Duration::from_secs(900), |w| look(w).then_some(())).await;
        assert!(seen.is_some(), "{what}");
    }

    fn ids_in_guest(&self, vmid: u32) -> Vec<(String, u32, String)> {
        self.lab.shared().read(|w| {
            let rows = w.guest_usb(vmid);
            rows.into_iter()
                .filter(|d| !d.is_hub() && d.id != "0627:0001")
                .map(|d| (d.id.clone(), d.speed, d.port()))
                .collect()
        })
    }
}

const VM105: &str = "/nodes/pumped-piglet/qemu/105";
const VM108: &str = "/nodes/still-fawn/qemu/108";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_tickets_with_a_csrf_token_or_api_tokens() {
    let b = Bench::new("usb-move").await;
    let Auth::Ticket { cookie, csrf } = b.auth.clone() else { panic!() };
    assert!(cookie.starts_with("PVE:root@pam:"), "{cookie}");
    let config = format!("{VM108}/config");

    let no_ticket = b.ask(&Auth::Nobody, "GET", "/version", &[]).await;
    no_ticket.refused(401, "No ticket");
    assert_eq!(no_ticket.body, Value::Null);
    let bad = Auth::Ticket { cookie: cookie.replace("root", "boot"), csrf: csrf.clone() };
    b.ask(&bad, "GET", "/version", &[]).await.refused(401, "Authentication failed!");
    let no_csrf = Auth::Ticket { cookie: cookie.clone(), csrf: String::new() };
    b.ask(&no_csrf, "PUT", &config, &[("onboot", "0")]).await.refused(401, "Permission denied - invalid csrf token");
    assert_eq!(b.ask(&no_csrf, "GET", "/version", &[]).await.status, 200);

    let token = b.token("root@pam!pvemig");
    assert_eq!(b.ask(&token, "PUT", &config, &[("onboot", "0")]).await.status, 200);
    let wrong = Auth::Token("root@pam!pvemig=00000000-0000-0000-0000-000000000000".into());
    b.ask(&wrong, "GET", "/version", &[]).await.refused(401, "Authentication failed!");
    let none = Auth::Token("root@pam!none=00000000-0000-0000-0000-000000000000".into());
    b.ask(&none, "GET", "/version", &[]).await.refused(401, "Authentication failed!");

    let login = [("username", "root@pam"), ("password", "wrong")];
    let said = b.ask(&Auth::Nobody, "POST", "/access/ticket", &login).await;
    said.refused(401, "authentication failure");
    assert_eq!(said.body["data"], Value::Null);
    let said = b.ask(&token, "POST", "/access/ticket", &login).await;
    said.refused(
        403,
        "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.",
    );

    // A valid ticket is a password: that is how one is renewed.
    let again =
        b.ask(&Auth::Nobody, "POST", "/access/ticket", &[("username", "root@pam"), ("password", &cookie)]).await;
    assert_eq!(again.data()["username"], "root@pam");
    // A cookie wins over a token.
    let both = b.request(&bad, "GET", "/version");
    let Auth::Token(good) = &token else { panic!() };
    b.send(both.header("Authorization", format!("PVEAPIToken={good}"))).await.refused(401, "Authentication failed!");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_looked_up_along_the_path() {
    let b = Bench::new("usb-move-token").await;
    let token = b.token("pvemig@pve!pvemig");
    let rights = b.ask(&token, "GET", "/access/permissions", &[]).await.data().clone();
    assert_eq!(rights["/"], json!({ "Sys.Audit": 1, "Sys.Modify": 1 }));
    assert_eq!(rights["/vms/108"]["VM.PowerMgmt"], 1);
    assert_eq!(rights["/vms"], json!({ "VM.Audit": 1 }));
    let one = b.ask(&token, "GET", "/access/permissions", &[("path", "/mapping/usb/coral")]).await.data().clone();
    assert_eq!(one["/mapping/usb/coral"].as_object().unwrap().len(), 3);
    let root = b.ask(&b.auth, "GET", "/access/permissions", &[("path", "/vms/108")]).await.data().clone();
    assert_eq!(root["/vms/108"].as_object().unwrap().len(), pvemig::lab::pve::access::PRIVILEGES.len());

    let said = b.ask(&token, "POST", "/nodes/pve/qemu/103/status/start", &[]).await;
    said.refused(403, "Permission check failed (/vms/103, VM.PowerMgmt)");
    // A right that is missing hides a machine that is not there.
    let said = b.ask(&token, "POST", "/nodes/pve/qemu/999/status/start", &[]).await;
    said.refused(403, "Permission check failed (/vms/999, VM.PowerMgmt)");
    let said = b.ask(&token, "PUT", "/nodes/pve/qemu/103/config", &[("onboot", "0")]).await;
    assert!(said.reason.starts_with("Permission check failed (/vms/103, VM.Config.Disk|VM.Config.CDROM|"), "{said:?}");
    let said = b.ask(&token, "PUT", &format!("{VM108}/config"), &[("onboot", "0")]).await;
    said.refused(403, "Permission check failed (/vms/108, VM.Config.Options)");
    let said = b.ask(&token, "PUT", &format!("{VM108}/config"), &[("args", "-x")]).await;
    said.refused(500, "only root can set 'args' config");
    let seen = b.ask(&token, "GET", "/cluster/resources", &[("type", "vm")]).await.data().clone();
    assert_eq!(seen.as_array().unwrap().len(), 3);

    let b = Bench::new("usb-move-token-cannot").await;
    let token = b.token("pvemig@pve!pvemig");
    let said = b.ask(&token, "GET", "/nodes/still-fawn/hardware/usb", &[]).await;
    said.refused(403, "Permission check failed (/, Sys.Modify)");
    let said =
        b.ask(&token, "POST", "/cluster/mapping/usb", &[("id", "coral"), ("map", "node=pve,id=1a6e:089a")]).await;
    said.refused(403, "Permission check failed (/mapping/usb, Mapping.Modify)");
    let said = b.ask(&token, "POST", &format!("{VM108}/agent/exec"), &[("command", "lsusb")]).await;
    said.refused(403, "Permission check failed (/vms/108, VM.GuestAgent.Unrestricted)");
    assert_eq!(b.ask(&token, "POST", &format!("{VM108}/agent/ping"), &[]).await.data(), &json!({ "result": {} }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_usb_is_for_root_alone_and_a_mapping_for_those_who_may_use_it() {
    let b = Bench::new("usb-move").await;
    let token = b.token("root@pam!pvemig");
    let text = |key: &str| format!("only root can set '{key}' config for real devices");
    let config105 = format!("{VM105}/config");
    let config108 = format!("{VM108}/config");
    // No token is root, not even one of root with all its rights; deleting needs the same as setting.
    for (config, key, params) in [
        (&config108, "usb0", [("usb0", "host=1a6e:089a,usb3=1")]),
        (&config108, "usb3", [("usb3", "host=2-3")]),
        (&config105, "usb0", [("delete", "usb0")]),
        (&config105, "usb1", [("usb1", "mapping=coral")]),
    ] {
        b.ask(&token, "PUT", config, &params).await.refused(500, &text(key));
        let upid = b.ask(&token, "POST", config, &params).await.data().as_str().unwrap().to_owned();
        assert_eq!(b.finish(&upid).await, text(key));
    }
    assert_eq!(b.ask(&token, "PUT", &config108, &[("usb0", "spice")]).await.status, 200);
    assert_eq!(b.get(&config105).await["usb0"], "host=1a6e:089a,usb3=1");

    let b = Bench::with("usb-move-token", |w| {
        w.access.acl.retain(|e| e.path != "/mapping/usb");
    })
    .await;
    let token = b.token("pvemig@pve!pvemig");
    let said = b.ask(&token, "PUT", &config108, &[("usb0", "mapping=coral,usb3=1")]).await;
    said.refused(403, "Permission check failed (/mapping/usb/coral, Mapping.Use)");
}

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
async fn the_cluster_and_its_hardware_are_listed() {
    let b = Bench::new("usb-move").await;
    assert_eq!(b.get("/version").await["version"], "9.1.4");
    assert_eq!(b.get("/nodes/pve/version").await["release"], "9.1");
    assert_eq!(b.get("/nodes").await.as_array().unwrap().len(), 3);
    let status = b.get("/cluster/status").await;
    assert_eq!(status.as_array().unwrap().len(), 4);
    assert_eq!(
        status[0],
        json!({ "type": "cluster", "id": "cluster", "name": "homelab", "version": 3, "nodes": 3, "quorate": 1 })
    );
    assert_eq!(b.get("/nodes/pve/status").await["pveversion"].as_str().unwrap().split('/').nth(1), Some("9.1.4"));
    let rows = b.get("/cluster/resources?type=vm").await;
    let where_is = |vmid: u32| rows.as_array().unwrap().iter().find(|r| r["vmid"] == vmid).unwrap()["node"].clone();
    assert_eq!([where_is(103), where_is(105), where_is(108)], ["pve", "pumped-piglet", "still-fawn"]);
    assert_eq!(
        b.ask(&b.auth, "GET", "/cluster/nextid", &[("vmid", "108")]).await.about("vmid"),
        "VM 108 already exists"
    );
    assert_eq!(b.get("/cluster/nextid").await, "100");
    assert_eq!(b.get("/cluster/ha/resources").await, json!([]));

    let usb = b.get("/nodes/pumped-piglet/hardware/usb").await;
    let usb = usb.as_array().unwrap();
    assert_eq!(usb.len(), 4);
    let coral = usb.iter().find(|d| d["vendid"] == "18d1").unwrap();
    let devnum = coral["devnum"].clone();
    assert_eq!(
        *coral,
        json!({ "busnum": 2, "devnum": devnum, "port": 0, "level": 1, "class": 0, "vendid": "18d1",
        "prodid": "9302", "speed": "5000", "usbpath": "1", "product": "Google Inc.", "manufacturer": "" })
    );
    assert_eq!(usb.iter().filter(|d| d["class"] == 9 && d["level"] == 0 && d.get("usbpath").is_none()).count(), 2);
    assert!(usb.iter().all(|d| d.get("serial").is_none()));
    assert_eq!(b.get("/nodes/still-fawn/hardware/usb").await.as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_has_three_views_a_digest_and_locks() {
    let b = Bench::new("usb-move").await;
    let config = format!("{VM108}/config");
    let before = b.get(&config).await;
    let digest = before["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest.len(), 40);
    assert_eq!((&before["cores"], &before["memory"]), (&json!(6), &json!("24576")));

    // A key that no running process takes stays pending; the merged view shows it as if it were there.
    b.put(&config, &[("cores", "8"), ("digest", &digest)]).await.data();
    assert_eq!(b.get(&config).await["cores"], 8);
    assert_eq!(b.get(&format!("{config}?current=1")).await["cores"], 6);
    assert_eq!(b.pending(VM108).await["cores"], json!({ "key": "cores", "value": 6, "pending": 8 }));
    b.put(&config, &[("cores", "4"), ("digest", &digest)])
        .await
        .refused(500, "checksum mismatch (file change by other user?)");
    b.put(&config, &[("revert", "cores")]).await.data();
    assert_eq!(b.pending(VM108).await["cores"], json!({ "key": "cores", "value": 6 }));

    // Deleting: pending, forced, reverted; of a key that is not set it is no error.
    b.put(&config, &[("delete", "cpu")]).await.data();
    assert_eq!(b.pending(VM108).await["cpu"], json!({ "key": "cpu", "value": "host", "delete": 1 }));
    assert!(b.get(&config).await.get("cpu").is_none());
    assert_eq!(b.get(&format!("{config}?current=1")).await["cpu"], "host");
    b.put(&config, &[("delete", "cpu"), ("force", "1")]).await.data();
    assert_eq!(b.pending(VM108).await["cpu"]["delete"], 2);
    b.put(&config, &[("cpu", "host")]).await.data();
    assert_eq!(b.pending(VM108).await["cpu"], json!({ "key": "cpu", "value": "host" }));
    b.put(&config, &[("delete", "usb0;usb1")]).await.data();
    assert_eq!(b.put(&config, &[("delete", "usb77")]).await.about("delete"), "unknown option 'usb77'");
    let both = b.put(&config, &[("delete", "cpu"), ("cpu", "host")]).await;
    assert_eq!(both.about("delete"), "you can't use '-cpu' and '-delete cpu' at the same time");
    b.put(&config, &[]).await.refused(500, "no options specified");
    assert_eq!(b.get(&config).await["digest"], digest.as_str());

    // What applies at once is not pending.
    b.put(&config, &[("description", "né"), ("onboot", "0")]).await.data();
    let rows = b.pending(VM108).await;
    assert_eq!(rows["description"], json!({ "key": "description", "value": "né" }));
    assert_eq!(rows["onboot"], json!({ "key": "onboot", "value": 0 }));

    let usb = |value: &str| vec![("usb0".to_owned(), value.to_owned())];
    for (value, text) in [
        ("host=xyz", "usb0.host: value does not match the regex pattern"),
        ("host=1a6e:089a,usb3=maybe", "usb0.usb3: type check ('boolean') failed - got 'maybe'"),
        (
            "host=1a6e:089a,speed=1",
            "usb0.speed: property is not defined in schema and the schema does not allow additional properties",
        ),
        ("usb3=1", "usb0.host: property is missing and it is not optional"),
    ] {
        let said = b.send(b.request(&b.auth, "PUT", &config).form(&usb(value))).await;
        assert_eq!(said.about("usb0"), format!("invalid format - format error\n{text}\n"), "{value}");
    }

    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().lock = Some("backup".into()));
    b.put(&config, &[("onboot", "1")]).await.refused(500, "VM is locked (backup)");
    assert_eq!(b.get(&config).await["lock"], "backup");
    assert_eq!(b.power(VM108, "shutdown", &[]).await, "VM is locked (backup)");
    b.put(&config, &[("onboot", "1"), ("skiplock", "1")]).await.data();
    let token = b.token("root@pam!pvemig");
    let said = b.ask(&token, "PUT", &config, &[("onboot", "1"), ("skiplock", "1")]).await;
    assert_eq!(said.about("skiplock"), "Only root may use this option.");
    b.put(&config, &[("delete", "lock")]).await.data();

    b.lab.shared().change(|w| {
        let until = w.now + Duration::from_secs(100_000);
        w.vms.get_mut(&108).unwrap().flock_until = Some(until);
    });
    let busy = "can't lock file '/var/lock/qemu-server/lock-108.conf' - got timeout";
    b.put(&config, &[("onboot", "1")]).await.refused(500, busy);
    let upid = b.post(&config, &[("onboot", "1")]).await.data().as_str().unwrap().to_owned();
    assert_eq!(b.finish(&upid).await, busy);
    b.lab.shared().change(|w| {
        w.vms.get_mut(&108).unwrap().flock_until = None;
        w.no_quorum = true;
    });
    b.put(&config, &[("onboot", "1")]).await.refused(500, "cluster not ready - no quorum?");
    let upid = b.post(&config, &[("onboot", "1")]).await.data().as_str().unwrap().to_owned();
    assert_eq!(b.finish(&upid).await, "cluster not ready - no quorum?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_current_machine_takes_usb_while_it_runs() {
    let b = Bench::new("usb-move").await;
    let config = format!("{VM108}/config");
    assert_eq!(b.ids_in_guest(105), [("18d1:9302".to_owned(), 5000, "2-2".to_owned())]);
    b.put(&config, &[("usb0", "host=1a6e:089a,usb3=1"), ("usb1", "host=18d1:9302,usb3=1")]).await.data();
    let rows = b.pending(VM108).await;
    assert_eq!(rows["usb0"], json!({ "key": "usb0", "value": "host=1a6e:089a,usb3=1" }));
    // An absent device is no error; it is attached when it shows up.
    assert_eq!(b.ids_in_guest(108), []);
    b.lab.move_stick("coral", place("still-fawn", "2-3")).unwrap();
    assert_eq!(b.ids_in_guest(105), []);
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 5000, "2-1".to_owned())]);
    // First use: off the bus, then back with the other identity, taken by the other key.
    assert_eq!(b.lab.shared().change(|w| w.use_coral(108)), 1);
    assert_eq!(b.ids_in_guest(108), []);
    b.wait("the coral comes back", |w| w.guest_usb(108).iter().any(|d| d.id == "18d1:9302")).await;
    assert_eq!(b.ids_in_guest(108), [("18d1:9302".to_owned(), 5000, "2-2".to_owned())]);
    assert_eq!(b.lab.shared().change(|w| w.use_coral(108)), 1);
    // Replugged through a USB 2 cable: power was lost, other bus, slow.
    b.lab.move_stick("coral", place("still-fawn", "1-3")).unwrap();
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 480, "1-1".to_owned())]);
    let host = b.get("/nodes/still-fawn/hardware/usb").await;
    let coral = host.as_array().unwrap().iter().find(|d| d["vendid"] == "1a6e").unwrap().clone();
    assert_eq!((&coral["busnum"], &coral["usbpath"], &coral["speed"]), (&json!(1), &json!("3"), &json!("480")));
    assert!(coral.get("product").is_none());

    b.put(&config, &[("delete", "usb0,usb1")]).await.data();
    assert!(!b.pending(VM108).await.contains_key("usb0"));
    assert_eq!(b.ids_in_guest(108), []);

    // The guest keeps the device busy: 400, and the delete stays pending.
    b.put(&config, &[("usb0", "host=1-3")]).await.data();
    assert_eq!(b.ids_in_guest(108).len(), 1);
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.holds_usb = true);
    let said = b.put(&config, &[("delete", "usb0")]).await;
    assert_eq!(said.about("usb0"), "hotplug problem - error on hot-unplugging device 'usb0' - still busy in guest?");
    assert_eq!(b.pending(VM108).await["usb0"]["delete"], 1);
    b.put(&config, &[("revert", "usb0")]).await.data();
    let upid = b.post(&config, &[("delete", "usb0")]).await.data().as_str().unwrap().to_owned();
    let text = "400 Parameter verification failed. usb0: hotplug problem - error on hot-unplugging device 'usb0' - still busy in guest?";
    assert_eq!(b.finish(&upid).await, text);
    // Without the feature it stays pending.
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.holds_usb = false);
    b.put(&config, &[("revert", "usb0"), ("hotplug", "disk,network")]).await.data();
    b.power(VM108, "stop", &[]).await;
    b.power(VM108, "start", &[]).await;
    b.put(&config, &[("usb5", "host=18d1:9302")]).await.data();
    assert_eq!(b.pending(VM108).await["usb5"], json!({ "key": "usb5", "pending": "host=18d1:9302" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machine_that_asks_first_has_the_device() {
    let b = Bench::new("usb-move").await;
    b.lab.shared().change(|w| {
        let mut twin = w.vms[&108].clone();
        twin.node = "pumped-piglet".into();
        w.vms.insert(109, twin);
    });
    let vm109 = "/nodes/pumped-piglet/qemu/109";
    b.put(&format!("{vm109}/config"), &[("usb0", "host=2-1,usb3=1")]).await.data();
    assert_eq!((b.ids_in_guest(105).len(), b.ids_in_guest(109).len()), (1, 0));
    b.put(&format!("{VM105}/config"), &[("delete", "usb0,usb1")]).await.data();
    assert_eq!((b.ids_in_guest(105).len(), b.ids_in_guest(109).len()), (0, 1));
    // By port it keeps the device through its change of identity.
    b.lab.move_stick("coral", place("pumped-piglet", "2-1")).unwrap();
    assert_eq!(b.ids_in_guest(109), [("1a6e:089a".to_owned(), 5000, "2-1".to_owned())]);
    b.lab.shared().change(|w| w.use_coral(109));
    b.wait("back", |w| w.guest_usb(109).iter().any(|d| d.id == "18d1:9302")).await;
    assert_eq!(b.ids_in_guest(109), [("18d1:9302".to_owned(), 5000, "2-1".to_owned())]);

    let no = |stick: &str, to| match b.lab.move_stick(stick, to).unwrap_err() {
        LabError::Hands(text) => text,
        other => panic!("{other}"),
    };
    assert_eq!(no("nothing", None), "there is no stick `nothing`");
    assert_eq!(no("coral", place("nowhere", "2-1")), "there is no host `nowhere`");
    assert_eq!(no("coral", place("pve", "7-1")), "host `pve` has no socket `7-1`; it has: 1-1, 2-1, 1-2, 2-2");
    b.lab.shared().change(|w| {
        let twin = w.sticks["coral"].clone();
        w.sticks.insert("twin".into(), twin);
    });
    assert_eq!(no("twin", place("pumped-piglet", "1-1")), "`coral` is in that socket");
    b.lab.move_stick("twin", None).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_machine_takes_usb_at_its_next_start_and_usb3_decides_the_controller() {
    let b = Bench::new("usb-move-old").await;
    let config = format!("{VM108}/config");
    b.put(&config, &[("usb0", "host=1a6e:089a"), ("usb1", "host=18d1:9302")]).await.data();
    assert_eq!(b.pending(VM108).await["usb0"], json!({ "key": "usb0", "pending": "host=1a6e:089a" }));
    b.put(&format!("{VM105}/config"), &[("delete", "usb0,usb1")]).await.data();
    assert_eq!(b.pending(VM105).await["usb0"]["delete"], 1);
    assert_eq!(b.ids_in_guest(105).len(), 1);
    b.lab.move_stick("coral", place("still-fawn", "2-3")).unwrap();
    // A reboot from inside and a reset leave pending what is pending.
    assert_eq!(b.power(VM108, "reset", &[]).await, "OK");
    b.wait("up", |w| w.guest_up(108)).await;
    assert_eq!(b.ids_in_guest(108), []);
    assert_eq!(b.power(VM108, "shutdown", &[("timeout", "300")]).await, "OK");
    assert_eq!(b.power(VM108, "start", &[]).await, "OK");
    b.wait("up", |w| w.guest_up(108)).await;
    assert!(b.pending(VM108).await["usb0"].get("pending").is_none());
    // Without usb3 it is behind EHCI: there, and slow.
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 480, "3-1".to_owned())]);
    b.put(&config, &[("usb0", "host=1a6e:089a,usb3=1")]).await.data();
    b.power(VM108, "stop", &[]).await;
    b.power(VM108, "start", &[]).await;
    b.wait("up", |w| w.guest_up(108)).await;
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 5000, "2-1".to_owned())]);
    // Five keys, and the start says so.
    b.put(&config, &[("usb5", "host=2-2")]).await.data();
    b.power(VM108, "stop", &[]).await;
    let text = "using usb5 is only possible with machine type >= 7.1 and ostype l26 or windows > 7";
    assert_eq!(b.power(VM108, "start", &[]).await, text);
    assert_eq!(b.get(&format!("{VM108}/status/current")).await["status"], "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_goes_through_pve_tasks_with_a_life_of_their_own() {
    let b = Bench::new("usb-move").await;
    let current = format!("{VM108}/status/current");
    let first = b.get(&current).await;
    assert_eq!(
        (&first["status"], &first["qmpstatus"], &first["agent"]),
        (&json!("running"), &json!("running"), &json!(1))
    );
    assert_eq!(first["running-machine"], "pc-q35-10.1+pve0");
    assert_eq!(first["ha"], json!({ "managed": 0 }));
    assert_eq!(b.power(VM108, "start", &[]).await, "VM 108 already running");
    let boot = b.lab.shared().read(|w| w.boot_id(108)).unwrap();

    // A reset: same process, another boot.
    assert_eq!(b.power(VM108, "reset", &[]).await, "OK");
    assert_eq!(b.lab.shared().read(|w| w.boot_id(108)), None);
    b.wait("up again", |w| w.guest_up(108)).await;
    let second = b.lab.shared().read(|w| w.boot_id(108)).unwrap();
    assert_ne!(boot, second);
    assert_eq!(b.get(&current).await["pid"], first["pid"]);

    // A reboot: the task ends with the shutdown, another one starts the machine, and pending is applied.
    b.put(&format!("{VM108}/config"), &[("cores", "2")]).await.data();
    assert_eq!(b.power(VM108, "reboot", &[("timeout", "300")]).await, "OK");
    b.wait("started by the daemon", |w| {
        w.tasks.iter().any(|t| t.kind == "qmstart" && t.end.as_ref().is_some_and(|e| e.1 == "OK"))
    })
    .await;
    b.wait("up again", |w| w.agent_up(108) && w.guest_ssh_up(108)).await;
    let third = b.lab.shared().read(|w| w.boot_id(108)).unwrap();
    assert_ne!(second, third);
    let after = b.get(&current).await;
    assert_ne!(after["pid"], first["pid"]);
    assert!(after["uptime"].as_u64() < first["uptime"].as_u64());
    assert_eq!(b.pending(VM108).await["cores"], json!({ "key": "cores", "value": 2 }));

    assert_eq!(b.power(VM108, "stop", &[]).await, "OK");
    let off = b.get(&current).await;
    assert_eq!((&off["status"], &off["uptime"], off.get("pid")), (&json!("stopped"), &json!(0), None));
    assert_eq!(b.power(VM108, "stop", &[]).await, "OK");
    assert_eq!(b.power(VM108, "shutdown", &[]).await, "OK");
    b.post(&format!("{VM108}/status/reboot"), &[]).await.refused(500, "VM 108 not running");
    b.post(&format!("{VM108}/status/reset"), &[]).await.refused(500, "VM 108 not running");

    // A guest that is still booting hears nothing of a shutdown.
    assert_eq!(b.power(VM108, "start", &[]).await, "OK");
    assert_eq!(b.power(VM108, "shutdown", &[("timeout", "3")]).await, "VM quit/powerdown failed - got timeout");
    assert_eq!(b.power(VM108, "shutdown", &[("timeout", "1"), ("forceStop", "1")]).await, "OK");
    assert_eq!(b.get(&current).await["status"], "stopped");
    assert_eq!(
        b.post(&format!("{VM108}/status/shutdown"), &[("timeout", "soon")]).await.about("timeout"),
        "type check ('integer') failed - got 'soon'"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_guest_stays_off_after_a_failed_reboot_and_holds_the_file_lock_meanwhile() {
    let b = Bench::with("usb-move", |w| {
        let vm = w.vms.get_mut(&108).unwrap();
        vm.guest.shutdown_ms = Some(90_000);
        vm.config.insert("startup".into(), "order=2,down=40".into());
    })
    .await;
    let upid = b.post(&format!("{VM108}/status/reboot"), &[]).await.data().as_str().unwrap().to_owned();
    b.wait("it waits", |w| w.vms[&108].shutdown.is_some()).await;
    let busy = "can't lock file '/var/lock/qemu-server/lock-108.conf' - got timeout";
    b.put(&format!("{VM108}/config"), &[("onboot", "0")]).await.refused(500, busy);
    // `down=` is the limit where the call names none.
    assert_eq!(b.finish(&upid).await, "VM quit/powerdown failed - got timeout");
    assert_eq!(b.get(&format!("{VM108}/status/current")).await["status"], "running");
    b.wait("off after all", |w| w.vms[&108].running.is_none()).await;
    b.lab.shared().clock.pause(Duration::from_secs(60)).await;
    assert_eq!(b.get(&format!("{VM108}/status/current")).await["status"], "stopped");
    assert_eq!(b.lab.shared().read(|w| w.tasks.iter().filter(|t| t.kind == "qmstart").count()), 0);

    // A stop that overrules: the shutdown is interrupted.
    b.power(VM108, "start", &[]).await;
    b.wait("up", |w| w.guest_up(108)).await;
    let upid =
        b.post(&format!("{VM108}/status/shutdown"), &[("timeout", "300")]).await.data().as_str().unwrap().to_owned();
    b.wait("it waits", |w| w.vms[&108].shutdown.is_some()).await;
    assert_eq!(b.power(VM108, "stop", &[("overrule-shutdown", "1")]).await, "OK");
    assert_eq!(b.finish(&upid).await, "received interrupt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ha_only_takes_requests_and_acts_later() {
    let b = Bench::with("usb-move", |w| {
        w.ha.insert(108, "started".into());
    })
    .await;
    assert_eq!(b.get("/cluster/ha/resources").await, json!([{ "sid": "vm:108", "type": "vm", "state": "started" }]));
    let said = b.post(&format!("{VM108}/status/shutdown"), &[]).await;
    let upid = said.data().as_str().unwrap().to_owned();
    assert!(upid.contains(":hastop:108:"), "{upid}");
    assert_eq!(b.finish(&upid).await, "OK");
    b.wait("stopped", |w| w.vms[&108].running.is_none()).await;
    assert_eq!(b.power(VM108, "start", &[]).await, "OK");
    b.wait("started", |w| w.guest_up(108)).await;
    // Off from inside: brought back.
    b.lab.shared().change(|w| w.guest_exec(108, &["poweroff".to_owned()], &[]));
    b.wait("off", |w| w.vms[&108].running.is_none()).await;
    b.wait("on again", |w| w.guest_up(108)).await;
    let said = b.post(&format!("{VM108}/status/stop"), &[("overrule-shutdown", "1")]).await;
    assert_eq!(said.about("overrule-shutdown"), "not applicable for HA resources");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pve_tasks_are_listed_filtered_and_read_by_those_who_may() {
    let b = Bench::new("usb-move-token").await;
    let token = b.token("pvemig@pve!pvemig");
    b.power(VM108, "start", &[]).await;
    let said = b.ask(&token, "POST", &format!("{VM108}/status/stop"), &[]).await;
    let upid = said.data().as_str().unwrap().to_owned();
    assert!(upid.ends_with(":qmstop:108:pvemig@pve!pvemig:"), "{upid}");
    assert_eq!(b.finish(&upid).await, "OK");
    let path = |upid: &str, rest: &str| {
        format!("/nodes/still-fawn/tasks/{}/{rest}", upid.replace(':', "%3A").replace('!', "%21"))
    };
    let status = b.get(&path(&upid, "status")).await;
    assert_eq!(
        (&status["user"], &status["tokenid"], &status["type"]),
        (&json!("pvemig@pve"), &json!("pvemig"), &json!("qmstop"))
    );
    let log = b.ask(&b.auth, "GET", &path(&upid, "log"), &[("limit", "0")]).await;
    assert_eq!((log.data(), &log.body["total"]), (&json!([{ "n": 1, "t": "TASK OK" }]), &json!(1)));

    let list = |query: &str| {
        let path = format!("/nodes/still-fawn/tasks?{query}");
        let (b, token) = (&b, token.clone());
        async move { b.ask(&token, "GET", &path, &[]).await }
    };
    let all = list("source=all&vmid=108").await;
    assert_eq!((all.data().as_array().unwrap().len(), &all.body["total"]), (2, &json!(2)));
    assert_eq!(all.data()[0]["type"], "qmstop");
    assert_eq!(list("source=all&typefilter=qmstart").await.data()[0]["status"], "VM 108 already running");
    assert_eq!(list("errors=1").await.data().as_array().unwrap().len(), 1);
    assert_eq!(list("source=active").await.data(), &json!([]));
    assert_eq!(list("limit=1&start=1").await.data()[0]["type"], "qmstart");
    assert_eq!(list("since=99999999999").await.data(), &json!([]));
    assert_eq!(list("vmid=105").await.data(), &json!([]));
    assert!(list("source=some").await.about("source").contains("enumeration"));
    assert_eq!(b.get("/cluster/tasks").await.as_array().unwrap().len(), 2);

    let bad = b.ask(&b.auth, "GET", "/nodes/still-fawn/tasks/nonsense/status", &[]).await;
    assert_eq!(bad.about("upid"), "unable to parse worker upid");
    let none = "UPID:still-fawn:00000001:00000001:00000001:qmstart:108:root@pam:";
    assert_eq!(b.ask(&b.auth, "GET", &path(none, "status"), &[]).await.about("upid"), "no such task");

    // Without Sys.Audit only one's own.
    b.lab.shared().change(|w| w.access.acl.retain(|e| e.path != "/"));
    assert_eq!(list("source=all").await.data().as_array().unwrap().len(), 1);
    // A running task is interrupted.
    b.power(VM108, "start", &[]).await;
    b.wait("up", |w| w.guest_up(108)).await;
    let said = b.ask(&token, "POST", &format!("{VM108}/status/shutdown"), &[]).await;
    let upid = said.data().as_str().unwrap().to_owned();
    assert_eq!(list("source=active").await.data()[0]["status"], "RUNNING");
    b.ask(&token, "DELETE", &path(&upid, ""), &[]).await.data();
    assert_eq!(b.finish(&upid).await, "received interrupt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mappings_are_checked_at_the_start_and_replaced_as_a_whole() {
    let b = Bench::new("usb-move-token").await;
    let token = b.token("pvemig@pve!pvemig");
    let path = "/cluster/mapping/usb";
    let rows = b.ask(&token, "GET", path, &[("check-node", "pumped-piglet")]).await.data().clone();
    let digest = rows[0]["digest"].clone();
    assert_eq!(
        rows,
        json!([{ "id": "coral", "map": ["node=pumped-piglet,id=18d1:9302,path=2-1"], "type": "usb",
        "digest": digest, "description": "Coral accelerator", "errors": [] }])
    );
    let rows = b.ask(&token, "GET", path, &[("check-node", "still-fawn")]).await.data().clone();
    assert_eq!(rows[0]["errors"], json!([{ "severity": "warning", "message": "No mapping for node still-fawn." }]));
    assert!(b.get(path).await[0].get("errors").is_none());

    let config = format!("{VM108}/config");
    let problem = |said: Said| said.about("usb0").to_owned();
    let attach = [("usb0", "mapping=coral,usb3=1")];
    let said = b.ask(&token, "PUT", &config, &attach).await;
    assert_eq!(problem(said), "hotplug problem - USB device mapping not found for 'coral'");
    assert_eq!(b.pending(VM108).await["usb0"], json!({ "key": "usb0", "pending": "mapping=coral,usb3=1" }));

    let both = [("map", "node=pumped-piglet,id=18d1:9302,path=2-1"), ("map", "node=still-fawn,id=1a6e:089a,path=2-3")];
    let digest = b.get(path).await[0]["digest"].as_str().unwrap().to_owned();
    let with = |digest: &str| {
        both.iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .chain([("digest".to_owned(), digest.to_owned())])
            .collect::<Vec<_>>()
    };
    let put = b.request(&token, "PUT", &format!("{path}/coral")).form(&with("0"));
    b.send(put).await.refused(
        500,
        "update hardware mapping failed: detected modified configuration - file changed by other user? Try again.",
    );
    b.send(b.request(&token, "PUT", &format!("{path}/coral")).form(&with(&digest))).await.data();
    assert_eq!(b.get(&format!("{path}/coral")).await["map"].as_array().unwrap().len(), 2);
    let invalid = "hotplug problem - USB Mapping invalid (hardware probably changed): ";
    assert_eq!(problem(b.ask(&token, "PUT", &config, &attach).await), format!("{invalid}usb device '2-3' not found"));
    b.ask(&token, "PUT", &format!("{VM105}/config"), &[("delete", "usb0")]).await.data();
    b.lab.move_stick("coral", place("still-fawn", "2-3")).unwrap();
    b.ask(&token, "PUT", &config, &attach).await.data();
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 5000, "2-1".to_owned())]);
    // Passed by port: it stays through the change of identity; but the next start finds another id.
    b.lab.shared().change(|w| w.use_coral(108));
    b.wait("back", |w| w.guest_usb(108).iter().any(|d| d.id == "18d1:9302")).await;
    b.power(VM108, "stop", &[]).await;
    let text =
        "USB Mapping invalid (hardware probably changed): 'id' does not match for 'coral' (18d1:9302 != 1a6e:089a)";
    assert_eq!(b.power(VM108, "start", &[]).await, text);
    let rows = b.ask(&token, "GET", path, &[("check-node", "still-fawn")]).await.data().clone();
    assert_eq!(
        rows[0]["errors"][0]["message"],
        "Invalid configuration: 'id' does not match for 'coral' (18d1:9302 != 1a6e:089a)\n"
    );
    let twice = json!({ "map": ["node=still-fawn,id=18d1:9302,path=2-3", "node=still-fawn,id=18d1:9302,path=2-2"] });
    b.send(b.request(&b.auth, "PUT", &format!("{path}/coral")).json(&twice)).await.data();
    assert_eq!(b.power(VM108, "start", &[]).await, "More than one USB mapping per host not supported");

    let said = b.post(path, &[("id", "coral"), ("map", "node=pve,id=1a6e:089a")]).await;
    said.refused(500, "create hardware mapping failed: usb ID 'coral' already defined");
    let said = b.post(path, &[("id", "other"), ("map", "node=pve,id=zz")]).await;
    assert_eq!(said.about("map"), "invalid format - format error\nmap.id: value does not match the regex pattern\n");
    b.post(path, &[("id", "other"), ("map", "node=pve,id=1a6e:089a"), ("description", "x")]).await.data();
    for _ in 0..2 {
        b.ask(&b.auth, "DELETE", &format!("{path}/other"), &[]).await.data();
    }
    b.ask(&b.auth, "GET", &format!("{path}/other"), &[]).await.refused(500, "mapping 'other' not found");
    b.ask(&b.auth, "PUT", &format!("{path}/other"), &[("map", "node=pve,id=1a6e:089a")])
        .await
        .refused(500, "update hardware mapping failed: usb ID 'other' does not exist");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_answers_once_and_only_when_it_is_there() {
    let b = Bench::with("usb-move", |w| {
        w.vms.get_mut(&108).unwrap().guest.files.insert("/etc/motd".into(), "caf\u{e9}\n".into());
    })
    .await;
    let agent = |command: &str| format!("{VM108}/agent/{command}");
    assert_eq!(b.post(&agent("ping"), &[]).await.data(), &json!({ "result": {} }));
    assert_eq!(b.get(&agent("get-host-name")).await, json!({ "result": { "host-name": "k3s-vm-still-fawn" } }));
    let info = b.get(&agent("info")).await;
    let exec = |info: &Value| {
        info["result"]["supported_commands"].as_array().unwrap().iter().find(|c| c["name"] == "guest-exec").unwrap()["enabled"].clone()
    };
    assert_eq!(exec(&info), true);
    assert_eq!(
        b.get(&agent("network-get-interfaces")).await["result"][1]["ip-addresses"][0]["ip-address"],
        "192.168.4.212"
    );
    b.ask(&b.auth, "GET", &agent("fstrim"), &[])
        .await
        .refused(501, &format!("Method 'GET {VM108}/agent/fstrim' not implemented"));

    let run = |argv: Vec<&'static str>| {
        let params: Vec<(&str, &str)> = argv.into_iter().map(|a| ("command", a)).collect();
        let b = &b;
        async move { b.post(&format!("{VM108}/agent/exec"), &params).await }
    };
    let status = |pid: &Value| {
        let path = format!("{VM108}/agent/exec-status?pid={pid}");
        let b = &b;
        async move { b.ask(&b.auth, "GET", &path, &[]).await }
    };
    let pid = run(vec!["cat", "/etc/motd"]).await.data()["pid"].clone();
    // Each byte is one character: UTF-8 arrives in pieces.
    assert_eq!(status(&pid).await.data(), &json!({ "exited": 1, "exitcode": 0, "out-data": "caf\u{c3}\u{a9}\n" }));
    status(&pid).await.refused(500, "Agent error: Invalid parameter 'pid'");
    let pid = run(vec!["/usr/bin/dpkg", "-s", "libedgetpu1-std"]).await.data()["pid"].clone();
    assert_eq!(status(&pid).await.data()["exitcode"], 1);
    let pid = run(vec!["/usr/bin/apt-get", "install", "-y", "libedgetpu1-std"]).await.data()["pid"].clone();
    assert_eq!(status(&pid).await.data(), &json!({ "exited": 0 }));
    b.wait("installed", |w| w.vms[&108].running.as_ref().unwrap().execs.values().all(|e| e.done_at <= w.now)).await;
    assert_eq!(status(&pid).await.data()["exitcode"], 0);
    let pid = run(vec!["sh", "-c", "dpkg -s libedgetpu1-std && cat /none 2>/dev/null || echo no"]).await.data()["pid"]
        .clone();
    assert!(status(&pid).await.data()["out-data"].as_str().unwrap().ends_with("installed\nVersion: 16.0\nno\n"));
    let said = run(vec!["ls -l"]).await;
    assert!(
        said.reason.starts_with("Agent error: Guest agent command failed, error was 'Failed to execute child process "),
        "{said:?}"
    );
    let said = b.post(&agent("exec"), &[("command", "cat"), ("input-data", "\u{2713}")]).await;
    assert!(said.reason.starts_with("Wide character"), "{said:?}");
    assert_eq!(b.post(&agent("exec"), &[]).await.about("command"), "property is missing and it is not optional");

    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.agent.exec_allowed = false);
    run(vec!["lsusb"]).await.refused(500, "Agent error: Command guest-exec has been disabled");
    assert_eq!(exec(&b.get(&agent("info")).await), false);
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.agent.silent = true);
    b.post(&agent("ping"), &[]).await.refused(500, "QEMU guest agent is not running");
    b.power(VM108, "stop", &[]).await;
    b.post(&agent("ping"), &[]).await.refused(500, "VM 108 is not running");
    b.put(&format!("{VM108}/config"), &[("delete", "agent")]).await.data();
    b.post(&agent("ping"), &[]).await.refused(500, "No QEMU guest agent configured");
    // `agent=1` takes effect at a cold start only.
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.agent.silent = false);
    b.power(VM108, "start", &[]).await;
    b.wait("ssh", |w| w.guest_ssh_up(108)).await;
    b.put(&format!("{VM108}/config"), &[("agent", "1")]).await.data();
    b.lab.shared().change(|w| {
        let vm = w.vms.get_mut(&108).unwrap();
        vm.config.insert("agent".into(), "1".into());
        vm.pending.clear();
    });
    b.lab.shared().clock.pause(Duration::from_secs(30)).await;
    b.post(&agent("ping"), &[]).await.refused(500, "QEMU guest agent is not running");
    assert_eq!(b.power(VM108, "reboot", &[]).await, "OK");
    b.wait("agent", |w| w.agent_up(108)).await;
    assert_eq!(b.post(&agent("ping"), &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_say_what_the_guest_and_the_host_show() {
    let b = Bench::new("usb-move").await;
    let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let guest = |vmid: u32, line: &str| {
        let outcome = b.lab.shared().change(|w| w.guest_exec(vmid, &argv(line), &[]));
        (outcome.exit, String::from_utf8(outcome.stdout).unwrap(), outcome.changed)
    };
    let host = |name: &str, line: &str| {
        let outcome = b.lab.shared().change(|w| w.host_exec(name, &argv(line), &[]));
        (outcome.exit, String::from_utf8(outcome.stdout).unwrap(), outcome.changed)
    };
    assert!(guest(105, "lsusb").1.contains("ID 18d1:9302 Google Inc."));
    assert!(!guest(108, "lsusb").1.contains("18d1"));
    assert!(host("pumped-piglet", "lsusb").1.contains("Bus 002 Device"));
    let find = "find -L /sys/bus/usb/devices -maxdepth 2 ( -name idVendor -o -name idProduct -o -name speed ) -exec grep -H . {} +";
    let (exit, text, changed) = guest(105, find);
    assert_eq!((exit, changed), (0, false));
    for line in [
        "/sys/bus/usb/devices/2-2/idVendor:18d1",
        "/sys/bus/usb/devices/2-2/speed:5000",
        "/sys/bus/usb/devices/usb2/idProduct:0003",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert_eq!(text.lines().count(), 5 * 3);
    let boot = b.lab.shared().read(|w| w.boot_id(108)).unwrap();
    assert_eq!(guest(108, "cat /proc/sys/kernel/random/boot_id"), (0, format!("{boot}\n"), false));
    assert_eq!(guest(108, "test -e /dev/dri").0, 0);
    assert_eq!(guest(105, "test -e /dev/dri").0, 1);
    assert_eq!(
        guest(105, "du -skx /var/lib/rancher/k3s/storage").1,
        format!("{}\t/var/lib/rancher/k3s/storage\n", 48_318_382_080_u64 / 1024)
    );
    assert_eq!(guest(108, "frobnicate"), (127, String::new(), true));
    assert_eq!(guest(108, "apt-get install -y nothing").0, 100);
    assert_eq!(guest(108, "apt-get install -y libedgetpu1-std").0, 0);
    assert_eq!(guest(108, "dpkg -s libedgetpu1-std").0, 0);
    assert_eq!(guest(108, "apt-get remove -y libedgetpu1-std").0, 0);
    assert_eq!(guest(108, "dpkg -s libedgetpu1-std").0, 1);

    assert_eq!(host("still-fawn", "qm agent 108 ping"), (0, String::new(), false));
    let (exit, text, changed) = host("still-fawn", "qm guest exec 108 --timeout 5 -- cat /etc/hostname");
    assert_eq!((exit, changed), (0, false));
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        json!({ "exitcode": 0, "exited": 1, "out-data": "k3s-vm-still-fawn\n" })
    );
    assert!(host("still-fawn", "qm guest exec 108 -- rm /x").2);
    assert_eq!(host("pve", "qm status 108").0, 2);
    assert_eq!(b.lab.shared().read(|w| w.edge_tpus(105)), "[{'type': 'usb', 'path': '/sys/bus/usb/devices/2-2'}]\n");
    assert_eq!(b.lab.shared().read(|w| w.edge_tpus(108)), "[]\n");
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
    let broken = |value: &'static str| {
        let request = b.request(&b.auth, "PUT", &config).form(&[("onboot", value)]).timeout(Duration::from_millis(400));
        async move { request.send().await.unwrap_err() }
    };
    b.lab.fault(rule(FaultEffect::Refuse));
    assert_eq!(b.put(&config, &[("onboot", "0")]).await.status, 403);
    assert_eq!(onboot(), "1");
    b.lab.fault(rule(FaultEffect::Status(500, "cfs-lock 'x' error: got lock request timeout".into())));
    b.put(&config, &[("onboot", "0")]).await.refused(500, "cfs-lock 'x' error: got lock request timeout");
    assert_eq!(onboot(), "1");
    b.lab.fault(rule(FaultEffect::ResetBefore));
    assert!(!broken("0").await.is_timeout());
    assert_eq!(onboot(), "1");
    b.lab.fault(rule(FaultEffect::Hang));
    assert!(broken("0").await.is_timeout());
    assert_eq!(onboot(), "1");
    b.lab.fault(rule(FaultEffect::ResetAfter));
    assert!(!broken("0").await.is_timeout());
    assert_eq!(onboot(), "0");
    b.lab.fault(rule(FaultEffect::StatusAfter(596, "Connection timed out".into())));
    let said = b.put(&config, &[("onboot", "1")]).await;
    said.refused(596, "Connection timed out");
    assert_eq!((said.body, onboot()), (Value::Null, "1".to_owned()));
    b.lab.fault(rule(FaultEffect::HangAfter));
    assert!(broken("0").await.is_timeout());
    assert_eq!(onboot(), "0");
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

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_has_all_that_one_needs_to_reach_the_lab() {
    for (world, token) in [("usb-move", "root@pam!pvemig"), ("usb-move-token", "pvemig@pve!pvemig")] {
        let b = Bench::new(world).await;
        let dir = b.lab.dir();
        for name in ["pve-password", "pve-token-secret", "id_ed25519", "kubeconfig", "env"] {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
        let env = std::fs::read_to_string(dir.join("env")).unwrap();
        let var = |name: &str| {
            let line =
                env.lines().find_map(|l| l.strip_prefix(&format!("{name}='"))).unwrap_or_else(|| panic!("{name}"));
            line.strip_suffix('\'').unwrap().to_owned()
        };
        assert_eq!(var("PVE_URL"), b.base);
        assert_eq!(var("PVE_FINGERPRINT"), b.lab.reach().proxmox.fingerprint.to_string());
        assert!(var("PVE_TOKEN").starts_with(&format!("{token}=")), "{}", var("PVE_TOKEN"));
        assert_eq!(b.ask(&Auth::Token(var("PVE_TOKEN")), "GET", "/version", &[]).await.status, 200);
        for name in ["SITE", "KUBECONFIG", "SSH_KEY", "REQUESTS", "PVE_CA"] {
            assert!(Path::new(&var(name)).is_file(), "{name}");
        }
        // The certificate also stands under the authority's.
        let trust = Trust::Ca(std::fs::read(var("PVE_CA")).unwrap());
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(&trust).unwrap())
            .no_proxy()
            .build()
            .unwrap();
        assert_eq!(client.get(format!("{}/api2/json/version", b.base)).send().await.unwrap().status(), 401);

        let site: Value = serde_saphyr::from_str(&std::fs::read_to_string(var("SITE")).unwrap()).unwrap();
        assert_eq!(site["proxmox"]["home"]["urls"], json!([b.base]));
        assert_eq!(site["proxmox"]["home"]["hosts"].as_object().unwrap().len(), 3);
        assert_eq!(site["nodes"]["k3s-vm-still-fawn"]["vmid"], 108);
        assert_eq!(site["nodes"]["k3s-vm-still-fawn"]["access"], json!(["ssh", "agent", "host-ssh"]));
        assert_eq!(site["migrations"]["frigate-coral"]["blueprint"], "usb-move");
        let auth = site["proxmox"]["home"]["auth"].as_object().unwrap();
        assert_eq!(auth.keys().collect::<Vec<_>>(), [if world == "usb-move" { "ticket" } else { "token" }]);
        assert_eq!(site["devices"]["coral"]["ids"], json!(["1a6e:089a", "18d1:9302"]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_the_hands_of_a_running_lab() {
    let b = Bench::new("usb-move").await;
    let dir = b.lab.dir().to_owned();
    let first = control::ask(&dir, &Ask::Compared).await.unwrap();
    assert_eq!(first, b.lab.compared());
    let to = |place| Ask::Move { stick: "coral".into(), place };
    control::ask(&dir, &to(place("still-fawn", "2-3"))).await.unwrap();
    assert_eq!(b.lab.shared().read(|w| w.sticks["coral"].at.clone()), place("still-fawn", "2-3"));
    assert_ne!(control::ask(&dir, &Ask::Compared).await.unwrap(), first);
    let refused = control::ask(&dir, &to(place("still-fawn", "9-9"))).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "the running lab says: that cannot be done by hand: host `still-fawn` has no socket `9-9`; it has: 1-2, 2-2, 1-3, 2-3, 1-5"
    );
    let rule = FaultRule::on(Front::Proxmox, FaultEffect::Status(500, "no".into())).path("*/version");
    control::ask(&dir, &Ask::Fault(rule)).await.unwrap();
    assert_eq!(b.ask(&b.auth, "GET", "/version", &[]).await.status, 500);
    assert_eq!(control::ask(&dir, &Ask::ClearFaults).await.unwrap()[0]["met"], 1);
    let state = control::ask(&dir, &Ask::State).await.unwrap();
    assert_eq!(state["vms"]["108"]["node"], "still-fawn");
    assert_eq!(state["access"]["users"]["root@pam"]["password"], "");
    let again =
        Lab::start(LabOptions { world: load("usb-move").unwrap(), dir: dir.clone(), speed: 1 }).await.unwrap_err();
    assert!(matches!(again, LabError::Control(_)), "{again}");
    control::ask(&dir, &Ask::Stop).await.unwrap();
    b.lab.stopped().await;
    b.lab.stop().await;
    let gone = control::ask(&dir, &Ask::State).await.unwrap_err().to_string();
    assert!(gone.starts_with("the running lab says: nothing, there is no lab in "), "{gone}");
}

#[test]
fn a_world_file_that_does_not_fit_is_refused() {
    for (text, says) in [
        ("name: x\nhosts: { a: { sockts: [] } }", "sockts"),
        ("extends: nowhere", "there is no world `nowhere`"),
        ("name: [", "the world file does not fit"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(read("extends: usb-move\nname: mine").unwrap().vms.len(), 3);
}
