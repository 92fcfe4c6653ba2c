//! The lab's Proxmox front, asked by a plain HTTP client that knows nothing of it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod access;
mod agent;
mod config;
mod estate;
mod power;
mod wire;

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use pvemig::base::tls::{Trust, client_config};
use pvemig::lab::control::{self, Request as Ask};
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, Lab, LabError, LabOptions, Place, World, load, read};
use serde_json::{Value, json};

/// Lab seconds in a real one.
const SPEED: u32 = 500;
/// How long anything may take on a busy machine, in lab time.
const LIMIT: Duration = Duration::from_secs(120 * SPEED as u64);

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
        let seen = self
            .lab
            .shared()
            .until(LIMIT, |w| w.task(upid).and_then(|t| t.end.as_ref()).map(|(_, status)| status.clone()));
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
        let seen = self.lab.shared().until(LIMIT, |w| look(w).then_some(())).await;
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
