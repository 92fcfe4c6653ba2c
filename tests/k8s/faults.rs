//! What an answer, half an answer or none is taken for, and how often a request is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use pvemig::base::clock::Clock;
use pvemig::base::fault::{Effect, Failure, Fault};
use pvemig::base::permit::Notebook;
use pvemig::k8s::{KubeError, Kubernetes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wiremock::matchers::any;
use wiremock::{Mock, ResponseTemplate};

use super::{Wire, answer, open};

/// What a connection does once it has read a request.
#[derive(Clone, Copy)]
pub(super) enum Does {
    /// Sends this and closes.
    Says(&'static str),
    /// Says nothing and keeps the connection.
    Hangs,
    /// Closes without a word.
    Drops,
}

/// Reads one request; its first line.
pub(crate) async fn request(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let head = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = head.split_once("\r\n\r\n") {
            let length =
                head.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return head.lines().next().unwrap().to_owned();
            }
        }
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the client went away");
        got.extend_from_slice(&buffer[..count]);
    }
}

/// A server whose connections do one thing after the other, the last one for ever; and the requests it read.
pub(super) async fn server(script: &'static [Does]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for turn in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let line = request(&mut stream).await;
            log.lock().unwrap().push(line);
            match script[turn.min(script.len() - 1)] {
                Does::Says(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                Does::Hangs => kept.push(stream),
                Does::Drops => drop(stream),
            }
        }
    });
    (address, seen)
}

const NODE: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 47\r\n\r\n{\"kind\":\"Node\",\"metadata\":{\"name\":\"n\"}}        ";
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"kind\":\"No";
const NO_JSON: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 9\r\n\r\n<html>hi<";

async fn label(kube: &Kubernetes) -> (Result<(), KubeError>, usize) {
    let (permit, notebook) = Notebook::permit();
    let outcome = kube.set_node_label(&permit, "n", "coral", "true").await;
    (outcome, notebook.notes().len())
}

#[tokio::test]
async fn a_change_without_a_whole_answer_may_have_happened_and_is_sent_once() {
    let table: &[(&str, &[Does])] =
        &[("half a body", &[Does::Says(HALF)]), ("dropped", &[Does::Drops]), ("silence", &[Does::Hangs])];
    for (what, script) in table {
        let (address, seen) = server(script).await;
        let (outcome, notes) = label(&open(&address, None).await).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, KubeError::LostAnswer { .. }), "{what}: {error:?}");
        assert_eq!((error.effect(), notes), (Effect::Maybe, 1), "{what}");
        assert!(error.help().unwrap().contains("resume"), "{what}");
        assert_eq!(*seen.lock().unwrap(), ["PATCH /api/v1/nodes/n?fieldManager=pvemig HTTP/1.1"], "{what}");
    }
    let (address, seen) = server(&[Does::Says(NO_JSON)]).await;
    let error = label(&open(&address, None).await).await.0.unwrap_err();
    assert!(matches!(error, KubeError::BadAnswer { .. }), "{error:?}");
    assert_eq!((error.effect(), seen.lock().unwrap().len()), (Effect::Maybe, 1));
    assert!(!error.to_string().contains("html"), "{error}");
}

#[tokio::test]
async fn a_change_that_could_not_be_sent_changed_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (outcome, notes) = label(&open(&address, None).await).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, KubeError::Unreachable { .. }), "{error:?}");
    assert_eq!((error.effect(), error.retryable(), notes), (Effect::None, true, 1));
    assert!(error.to_string().starts_with("kubernetes `k3s`: PATCH nodes/n: "), "{error}");
}

#[tokio::test]
async fn a_change_that_is_answered_with_a_fault_is_sent_once() {
    let table = [
        ("status-500", 500, Effect::Maybe),
        ("status-503", 503, Effect::Maybe),
        ("status-429-throttled", 429, Effect::None),
        ("status-403", 403, Effect::None),
        ("status-401", 401, Effect::None),
        ("status-422", 422, Effect::None),
    ];
    for (file, code, effect) in table {
        let wire = Wire::answering(answer(code, file)).await;
        let error = wire.kube.set_node_label(&wire.permit, "n", "coral", "true").await.unwrap_err();
        assert_eq!(error.effect(), effect, "{file}: {error:?}");
        wire.change().await;
    }
    assert_eq!(table.len(), 6);
}

#[tokio::test]
async fn reads_are_tried_again_on_faults_that_pass() {
    for (file, code) in [("status-503", 503), ("status-429-throttled", 429)] {
        let wire = Wire::start().await;
        Mock::given(any()).respond_with(answer(code, file)).up_to_n_times(2).mount(&wire.server).await;
        Mock::given(any()).respond_with(answer(200, "node")).mount(&wire.server).await;
        assert!(wire.kube.node("n").await.unwrap().is_some(), "{file}");
        assert_eq!(wire.requests().await.len(), 3, "{file}");
    }
    let (address, seen) = server(&[Does::Drops, Does::Says(HALF), Does::Hangs, Does::Says(NODE)]).await;
    assert!(open(&address, None).await.node("n").await.unwrap().is_some());
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn reads_are_not_tried_again_on_refusals() {
    for (file, code) in [("status-401", 401), ("status-403", 403), ("status-422", 422), ("status-500", 500)] {
        let wire = Wire::answering(answer(code, file)).await;
        let error = wire.kube.node("n").await.unwrap_err();
        assert_eq!((error.effect(), wire.requests().await.len()), (Effect::None, 1), "{file}: {error:?}");
    }
    let wire = Wire::answering(ResponseTemplate::new(404).set_body_string("404 page not found")).await;
    let error = wire.kube.node("n").await.unwrap_err();
    assert!(matches!(error, KubeError::Refused { code: 404, .. }), "a proxy's 404 is not an absent node: {error:?}");
}

#[tokio::test]
async fn a_read_ends_with_the_last_reason_when_its_time_is_up() {
    let short = Duration::from_millis(300);
    let wire = Wire::answering(answer(503, "status-503")).await;
    let error = wire.kube.clone().limits(short, short).node("n").await.unwrap_err();
    assert!(matches!(error, KubeError::Server { code: 503, .. }), "{error:?}");
    assert!(wire.requests().await.len() > 1);
    let (address, seen) = server(&[Does::Hangs]).await;
    let error = open(&address, None).await.limits(short, short).node("n").await.unwrap_err();
    assert!(matches!(error, KubeError::LostAnswer { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert!(seen.lock().unwrap().len() > 1, "a connection that hangs does not use up the whole time");
    // The whole time and how often, not that of one try; whether a question was sent nobody needs to know.
    let help = error.help().unwrap();
    let said = Failure::from(error).chain().join(": ");
    let wanted = "kubernetes `k3s`: GET nodes/n: no whole answer came: no answer: none within 300 ms (";
    assert!(said.starts_with(wanted) && said.ends_with(" tries)"), "{said}");
    assert!(help.contains("look again"), "{help}");
}

/// A server that takes connections, and says nothing of TLS.
#[tokio::test]
async fn a_handshake_that_never_ends_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let enough = pvemig::base::wait::limit::CONNECT + Duration::from_secs(1);
    let error = open(&address, None).await.limits(enough, enough).node("n").await.unwrap_err();
    assert!(matches!(error, KubeError::Unreachable { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("is the API server of `k3s` up"), "{error:?}");
}

/// A TLS server with a certificate of its own authority; that authority, base64 of PEM.
async fn tls_server() -> (String, String) {
    pvemig::base::tls::init();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that refuses the certificate ends the handshake.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0);
                stream.write_all(NODE.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    (address, base64::engine::general_purpose::STANDARD.encode(made.cert.pem()))
}

#[tokio::test]
async fn another_authority_is_told_apart_from_an_api_that_is_away() {
    let (address, own) = tls_server().await;
    let (_, foreign) = tls_server().await;
    assert!(open(&address, Some(own)).await.node("n").await.unwrap().is_some());
    let kube = open(&address, Some(foreign)).await;
    let error = kube.node("n").await.unwrap_err();
    assert!(matches!(error, KubeError::Certificate { .. }), "{error:?}");
    assert!(!error.retryable() && error.effect() == Effect::None);
    let (outcome, _) = label(&kube).await;
    assert_eq!(outcome.unwrap_err().effect(), Effect::None);
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_usable_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let write = |text: &str| super::write_private(&path, text);
    let head = "apiVersion: v1\nkind: Config\nusers:\n- name: u\n  user: {token: a}\n";
    let contexts = "contexts:\n- name: lab\n  context: {cluster: c, user: u}\n";
    let cases = [
        (None, "missing file"),
        (Some("][".to_owned()), "not YAML"),
        (Some(format!("{head}clusters:\n- name: c\n  cluster: {{server: 'http://127.0.0.1:1'}}\n")), "no such context"),
        (
            Some(format!(
                "{head}{contexts}clusters:\n- name: c\n  cluster: {{server: 'http://127.0.0.1:1', proxy-url: 'http://p:1'}}\n"
            )),
            "a proxy",
        ),
    ];
    let mut seen = 0;
    for (text, what) in cases {
        if let Some(text) = text {
            write(&text);
        }
        let error = Kubernetes::open("k3s", &path, "lab", Clock::real()).await.unwrap_err();
        assert!(matches!(error, KubeError::Setup { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{what}: {error}");
        assert!(error.help().is_some());
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[tokio::test]
async fn a_context_that_is_not_there_is_told_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let said = async || Kubernetes::open("k3s", &path, "hme", Clock::real()).await.unwrap_err().to_string();
    let none = said().await;
    assert!(none.contains("it cannot be read: ") && !none.contains('"'), "{none}");
    let contexts: String =
        ["home", "work"].map(|name| format!("- name: {name}\n  context: {{cluster: c, user: u}}\n")).concat();
    std::fs::write(&path, format!("apiVersion: v1\nkind: Config\ncontexts:\n{contexts}")).unwrap();
    let other = said().await;
    assert!(other.ends_with("it has no context `hme`: it has home, work"), "{other}");
}

/// What a kubeconfig and the plugin that it names may bring to light stays out of the errors, and a file with
/// credentials that others may read is not used.
#[tokio::test]
async fn a_kubeconfig_gives_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let of = |user: &str| {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{server: 'https://127.0.0.1:1'}}\n\
             contexts:\n- name: lab\n  context: {{cluster: c, user: u}}\nusers:\n- name: u\n  user: {user}\n"
        )
    };
    let exec = |script: &str| {
        let args = serde_json::json!(["-c", script, "k9Zx7Qv2Lm4Rt8Wp1Ys5"]);
        let exec = serde_json::json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": args,
            "interactiveMode": "Never"});
        of(&serde_json::json!({ "exec": exec }).to_string())
    };
    let cases = [
        (of("{token: {a: k9Zx7Qv2Lm4Rt8Wp1Ys5}}"), 0o600, "it is no kubeconfig, see line 11"),
        (of("{token: a}\n  k9Zx7Qv2Lm4Rt8Wp1Ys5: ]"), 0o600, "it is no kubeconfig, see line"),
        (
            exec("echo k9Zx7Qv2Lm4Rt8Wp1Ys5; echo k9Zx7Qv2Lm4Rt8Wp1Ys5 >&2; exit 3"),
            0o600,
            "plugin of its user ended with",
        ),
        (exec("echo 'token: k9Zx7Qv2Lm4Rt8Wp1Ys5: ]'"), 0o600, "gave no ExecCredential"),
        (of("{token: a}"), 0o640, "can be read by others (mode 0640)"),
        (of("{password: a, username: b}"), 0o644, "can be read by others (mode 0644)"),
        (of("{client-key: ./key}"), 0o644, "there is no such file"),
    ];
    for (text, mode, words) in &cases {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(*mode)).unwrap();
        let error = Kubernetes::open("k3s", &path, "lab", Clock::real()).await.unwrap_err();
        let help = error.help();
        let all = Failure::from(error).to_string();
        assert!(all.contains(words), "{all}");
        assert!(!all.contains("k9Zx7") && help.is_some(), "{all}");
    }
    assert_eq!(cases.len(), 7);
}

const NO_STORE: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn who_waits_for_the_groups_shares_their_failure() {
    for does in [&[Does::Says(NO_STORE)], &[Does::Hangs]] {
        let (address, seen) = server(does).await;
        let kube = open(&address, None).await.limits(Duration::from_millis(300), Duration::from_millis(300));
        let ask = |group: &'static str| kube.resource(group, "Kind");
        let all = futures::future::join_all(["a.io", "b.io", "c.io", "d.io"].map(ask)).await;
        let texts: Vec<String> = all.into_iter().map(|one| Failure::from(one.unwrap_err()).to_string()).collect();
        assert!(texts.len() == 4 && texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
        // One asks, as often as any question is asked within its deadline.
        let asked = seen.lock().unwrap().len();
        assert!((1..=4).contains(&asked), "{asked}");
        // Who comes later asks anew.
        kube.resource("a.io", "Kind").await.unwrap_err();
        assert!(seen.lock().unwrap().len() > asked);
    }
}
