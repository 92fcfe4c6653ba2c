//! Wire contracts of the Talos provider: path, message, metadata and TLS of every call, how often it is sent, and what
//! each answer (or none) is taken for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its stubs too")]

mod calls;
mod changes_fail;
mod changing;
mod estate;
mod failing;
pub(crate) mod fake;
mod held;
mod kept;
pub(crate) mod pki;
mod protos;
mod questions_fail;
mod reading;
mod resetting;
mod resources;
mod streams_cut;
mod table;
mod talosconfig;
mod trusting;

use std::sync::Arc;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::permit::{Note, Notebook, Permit, System};
use pvemig::talos::{Context, Limits, Node, Talos, Talosconfig};

use fake::{Asked, Fake, Says, msg};
use pki::{NOW, Pki};

/// A node that plays dead need not be waited for as long as a real one.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    read: Duration::from_secs(9),
    change: Duration::from_secs(3),
    image: Duration::from_secs(3),
    snapshot: Duration::from_secs(3),
};

fn node(port: u16) -> Node {
    Node { name: "talos-20".into(), address: format!("127.0.0.1:{port}"), tls_name: None }
}

/// A context of the talosconfig of a client with a role.
fn context(pki: &Pki, role: &str) -> Context {
    context_of(pki, &pki.client(role, NOW))
}

/// A context with a client certificate.
fn context_of(pki: &Pki, client: &pki::Pair) -> Context {
    let dir = tempfile::tempdir().unwrap();
    let path = pki::write(&dir, &pki::talosconfig(&pki.pem(), client));
    Talosconfig::read(&path).unwrap().context(None).unwrap()
}

/// A node that says what it is told to, with a client and a permit.
struct Wire {
    fake: Fake,
    talos: Talos,
    permit: Permit,
    notebook: Arc<Notebook>,
}

impl Wire {
    async fn start() -> Self {
        Self::started("os:admin").await
    }

    async fn started(role: &str) -> Self {
        let (pki, fake) = (Pki::new(), Fake::default());
        let port = fake.serve(pki.serving(&pki.server(&["127.0.0.1"], NOW))).await;
        let talos = Talos::connect(node(port), &context(&pki, role), Clock::fast(50)).unwrap().limits(LIMITS);
        let (permit, notebook) = Notebook::permit();
        Self { fake, talos, permit, notebook }
    }

    /// A call of the machine service is answered with one message in the usual envelope.
    fn says(&self, rpc: &str, fields: &[Vec<u8>]) {
        self.fake.on(&machine(rpc), Says::Ok(vec![msg(1, fields)]));
    }

    /// The one request that was sent; each is made directly, under our name, with our certificate.
    fn one(&self) -> Asked {
        let mut asked = self.fake.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        decent(&asked[0]);
        asked.remove(0)
    }

    /// The one change that was sent, with its one note.
    fn change(&self) -> (Asked, Note) {
        let mut notes = self.notebook.notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!(notes[0].system, System::Talos);
        assert!(notes[0].text.starts_with("talos-20 "), "{}", notes[0].text);
        (self.one(), notes.remove(0))
    }
}

/// Every request: under our name, with a client certificate, passed on to nobody.
fn decent(asked: &Asked) {
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
    assert!(header("user-agent").starts_with(concat!("pvemig/", env!("CARGO_PKG_VERSION"))), "{:?}", asked.headers);
    assert_eq!((header("content-type"), header("te")), ("application/grpc", "trailers"));
    for name in ["node", "nodes", "proxyfrom", "talos-role", "authorization"] {
        assert!(!asked.headers.contains_key(name), "{name}");
    }
    assert!(asked.client.is_some());
}

fn machine(rpc: &str) -> String {
    format!("/machine.MachineService/{rpc}")
}
