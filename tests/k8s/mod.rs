//! Wire contracts of the Kubernetes provider: method, path, query, content type and body of every call, how often
//! it is sent, and what each answer (or none) is taken for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its stubs too")]

mod errands;
mod faults;
mod flux;
mod gone;
mod mayastor;
mod nodes;
mod permits;
mod reads;
mod streams;
mod volumes;
mod workloads;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::hold::Mark;
use pvemig::base::permit::{Again, Note, Notebook, Permit, System};
use pvemig::k8s::Kubernetes;
use serde_json::{Value, json};
use wiremock::matchers::{any, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// Limits of the clients in these tests.
const READ: Duration = Duration::from_secs(3);
const CHANGE: Duration = Duration::from_secs(2);

/// The content type of a merge patch.
const MERGE: &str = "application/merge-patch+json";

fn fixture(name: &str) -> Value {
    let path = format!("{}/fixtures/kubernetes/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn answer(code: u16, name: &str) -> ResponseTemplate {
    ResponseTemplate::new(code).set_body_json(fixture(name))
}

fn ok(body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

fn list(items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "100"}, "items": items})
}

fn mark() -> Mark {
    Mark { run: "r1".into(), host: "desk".into(), was: json!({"replicas": 2}) }
}

fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A cluster at an address, opened through a kubeconfig as the site file would.
async fn open(server: &str, ca: Option<String>) -> Kubernetes {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let ca = ca.map(|ca| format!("certificate-authority-data: {ca}")).unwrap_or_default();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: other\n\
         clusters:\n- name: c\n  cluster:\n    server: {server}\n    {ca}\n\
         users:\n- name: u\n  user:\n    token: abc\n\
         contexts:\n- name: lab\n  context:\n    cluster: c\n    user: u\n"
    );
    write_private(&path, &text);
    Kubernetes::open("k3s", &path, "lab", Clock::fast(50)).await.unwrap().limits(READ, CHANGE)
}

/// Method, path with query, content type and body of a request.
type Sent = (String, String, String, Value);

/// A stubbed API server with a client and a permit.
struct Wire {
    server: MockServer,
    kube: Kubernetes,
    permit: Permit,
    notebook: Arc<Notebook>,
}

impl Wire {
    async fn start() -> Self {
        let server = MockServer::start().await;
        let kube = open(&server.uri(), None).await;
        let (permit, notebook) = Notebook::permit();
        Self { server, kube, permit, notebook }
    }

    /// Everything is answered with this.
    async fn answering(template: ResponseTemplate) -> Self {
        let wire = Self::start().await;
        Mock::given(any()).respond_with(template).mount(&wire.server).await;
        wire
    }

    async fn on(&self, verb: &str, at: &str, template: ResponseTemplate) {
        Mock::given(method(verb)).and(path(at)).respond_with(template).mount(&self.server).await;
    }

    /// What was sent so far; each request names us and carries the kubeconfig's token.
    async fn requests(&self) -> Vec<Sent> {
        let all = self.server.received_requests().await.unwrap();
        let one = |r: &wiremock::Request| {
            let header = |name: &str| r.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
            assert_eq!(header("user-agent"), concat!("pvemig/", env!("CARGO_PKG_VERSION")));
            assert_eq!(header("authorization"), "Bearer abc");
            let query = r.url.query().map(|q| format!("?{q}")).unwrap_or_default();
            let body = if r.body.is_empty() { Value::Null } else { serde_json::from_slice(&r.body).unwrap() };
            (r.method.to_string(), format!("{}{query}", r.url.path()), header("content-type"), body)
        };
        all.iter().map(one).collect()
    }

    /// The paths with query of what was sent.
    async fn paths(&self) -> Vec<String> {
        self.requests().await.into_iter().map(|r| r.1).collect()
    }

    /// The one changing request that was sent, with its one note.
    async fn change(&self) -> (Sent, Note) {
        let mut requests = self.requests().await;
        let mut notes = self.notebook.notes();
        assert_eq!((requests.len(), notes.len()), (1, 1), "{requests:?} {notes:?}");
        assert_eq!((notes[0].system, notes[0].again), (System::Kubernetes, Again::Safe));
        (requests.remove(0), notes.remove(0))
    }
}

fn sent(verb: &str, at: &str, kind: &str, body: Value) -> Sent {
    (verb.into(), at.into(), kind.into(), body)
}
