//! Watches and commands in pods: what comes in pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use pvemig::base::fault::{Effect, Fault};
use pvemig::k8s::KubeError;
use pvemig::k8s::exec::ExecOutcome;
use pvemig::k8s::wait::Seen;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::faults::request;
use super::{fixture, list, open};

fn pod(uid: &str) -> Value {
    let mut value = fixture("pod");
    value["metadata"]["uid"] = uid.into();
    value
}

async fn send_json(stream: &mut TcpStream, value: &Value) {
    let body = value.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
}

/// A server whose lists are given one after the other (the last one for ever) and whose watches deliver one event
/// whenever the test says so, and never end by themselves.
async fn watched(lists: Vec<Value>) -> (String, mpsc::UnboundedSender<()>, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (stir, mut stirred) = mpsc::unbounded_channel();
    let (log, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut turn = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let line = request(&mut stream).await;
            let watch = line.contains("watch=true");
            let _closed = log.send(line);
            if !watch {
                send_json(&mut stream, &lists[turn.min(lists.len() - 1)]).await;
                turn += 1;
                continue;
            }
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            if stirred.recv().await.is_none() {
                return;
            }
            let event = json!({"type": "MODIFIED", "object": pod("u1")}).to_string() + "\n";
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
        }
    });
    (address, stir, seen)
}

#[tokio::test]
async fn a_wait_is_woken_by_the_watch_and_decides_on_the_uid() {
    let lists = vec![list(&[pod("u1")]), list(&[pod("u1")]), list(&[pod("u2")])];
    let (address, stir, mut seen) = watched(lists).await;
    let kube = open(&address, None).await;
    let wait = kube.wait_pod_gone("frigate", "frigate-6c9f7b7d9-x2x4k", "u1", Duration::from_secs(20));
    let drive = async {
        let mut lines = Vec::new();
        for _ in 0..5 {
            let line = seen.recv().await.unwrap();
            if line.contains("watch=true") {
                stir.send(()).unwrap();
            }
            lines.push(line.contains("watch=true"));
        }
        lines
    };
    let (outcome, lines) = tokio::join!(wait, drive);
    outcome.unwrap();
    assert_eq!(lines, [false, true, false, true, false]);
}

#[tokio::test]
async fn a_wait_ends_with_what_was_seen_last() {
    let mut held = pod("u1");
    held["metadata"]["deletionTimestamp"] = "2025-05-01T00:00:00Z".into();
    held["metadata"]["finalizers"] = json!(["x/y"]);
    let (address, _stir, _seen) = watched(vec![list(&[held])]).await;
    let kube = open(&address, None).await;
    let limit = Duration::from_millis(200);
    let error = kube.wait_pod_gone("frigate", "frigate-6c9f7b7d9-x2x4k", "u1", limit).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "kubernetes `k3s`: pods/frigate/frigate-6c9f7b7d9-x2x4k gone: not within 200 ms; last seen: being deleted, held by x/y"
    );
    assert!(error.retryable());
}

#[tokio::test]
async fn a_claim_and_a_volume_are_waited_for_by_name_and_uid() {
    let going = |file: &str| {
        let mut value = fixture(file);
        value["metadata"]["deletionTimestamp"] = "2025-05-01T00:00:00Z".into();
        value
    };
    let (claim, volume) = (going("pvc-bound"), going("pv-local-path"));
    let text = |value: &Value, key: &str| value["metadata"][key].as_str().unwrap().to_owned();
    let limit = Duration::from_secs(20);
    let lines = async |mut seen: mpsc::UnboundedReceiver<String>| {
        let mut lines = Vec::new();
        while let Ok(line) = seen.try_recv() {
            lines.push(line.split(' ').nth(1).unwrap().to_owned());
        }
        lines
    };

    let (address, stir, seen) = watched(vec![list(std::slice::from_ref(&claim)), list(&[])]).await;
    stir.send(()).unwrap();
    let (space, name) = (text(&claim, "namespace"), text(&claim, "name"));
    open(&address, None).await.wait_claim_gone(&space, &name, &text(&claim, "uid"), limit).await.unwrap();
    let at = format!("/api/v1/namespaces/{space}/persistentvolumeclaims?fieldSelector=metadata.name%3D{name}");
    let asked = lines(seen).await;
    assert_eq!(asked.len(), 3);
    assert_eq!((asked[0].as_str(), &asked[2]), (format!("{at}&limit=500").as_str(), &asked[0]));
    assert_eq!(asked[1], format!("{at}&watch=true&resourceVersion=100&timeoutSeconds=60"));

    // A new one of the same name is not the one that was to go.
    let mut other = volume.clone();
    other["metadata"]["uid"] = "another".into();
    let (address, stir, seen) = watched(vec![list(std::slice::from_ref(&volume)), list(&[other])]).await;
    stir.send(()).unwrap();
    let name = text(&volume, "name");
    open(&address, None).await.wait_volume_gone(&name, &text(&volume, "uid"), limit).await.unwrap();
    let at = format!("/api/v1/persistentvolumes?fieldSelector=metadata.name%3D{name}");
    let asked = lines(seen).await;
    assert_eq!(asked.len(), 3);
    assert_eq!((asked[0].as_str(), &asked[2]), (format!("{at}&limit=500").as_str(), &asked[0]));
    assert_eq!(asked[1], format!("{at}&watch=true&resourceVersion=100&timeoutSeconds=60"));
}

#[tokio::test]
async fn pods_are_waited_for_by_selector() {
    let (address, _stir, mut seen) = watched(vec![list(&[pod("u1"), pod("u2")])]).await;
    let kube = open(&address, None).await;
    let look = |pods: &[pvemig::k8s::Pod]| Seen::Now(pods.iter().filter(|p| p.is_ready()).count());
    let limit = Duration::from_secs(20);
    let ready = kube.until_pods("frigate", "app=frigate", "pods ready", limit, look).await.unwrap();
    assert_eq!(ready, 2);
    let line = seen.recv().await.unwrap();
    assert_eq!(line, "GET /api/v1/namespaces/frigate/pods?labelSelector=app%3Dfrigate&limit=500 HTTP/1.1");
}

#[tokio::test]
async fn a_terminating_pod_is_still_a_pod_and_a_bound_claim_must_be_another() {
    let mut going = pod("u1");
    going["metadata"]["deletionTimestamp"] = "2025-05-01T00:00:00Z".into();
    let lists = vec![fixture("deployment"), list(&[going.clone()]), list(&[going]), list(&[])];
    let (address, stir, _seen) = watched(lists).await;
    let kube = open(&address, None).await;
    let workload = kube.workload("Deployment", "frigate", "frigate").await.unwrap().unwrap();
    stir.send(()).unwrap();
    kube.wait_no_pods(&workload, Duration::from_secs(20)).await.unwrap();

    let claim = |uid: &str, phase: &str| {
        let mut value = fixture("pvc-bound");
        value["metadata"]["uid"] = uid.into();
        value["status"]["phase"] = phase.into();
        list(&[value])
    };
    let lists = vec![claim("old", "Bound"), list(&[]), claim("new", "Pending"), claim("new", "Bound")];
    let (address, stir, mut seen) = watched(lists).await;
    let kube = open(&address, None).await;
    for _ in 0..3 {
        stir.send(()).unwrap();
    }
    let at = ("frigate", "frigate-config");
    let bound = kube.wait_claim_bound(at, Some("old"), Duration::from_secs(20)).await.unwrap();
    assert_eq!(bound.meta.uid, "new");
    let mut looks = 0;
    while seen.try_recv().is_ok() {
        looks += 1;
    }
    assert_eq!(looks, 7);
}

/// What a command's stream brings: channel and bytes.
type Frames = Vec<(u8, Vec<u8>)>;

/// A server that plays one exec; then closes the web socket, or cuts the connection.
async fn exec_server(frames: Frames, cut: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            #[expect(clippy::result_large_err, reason = "the handshake's callback is declared so")]
            let check = |request: &Request, mut response: Response| {
                assert_eq!(
                    request.uri().to_string(),
                    "/api/v1/namespaces/frigate/pods/frigate-0/exec?&stdout=true&stderr=true&container=frigate&command=python3&command=-c&command=print%281%29"
                );
                let offered = request.headers()["sec-websocket-protocol"].to_str().unwrap();
                assert!(offered.starts_with("v5.channel.k8s.io"), "{offered}");
                response.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
                Ok(response)
            };
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap();
            for (channel, bytes) in &frames {
                let mut frame = vec![*channel];
                frame.extend_from_slice(bytes);
                socket.send(Message::Binary(frame.into())).await.unwrap();
            }
            if !cut {
                // The client ends the stream once it has the status.
                while let Some(Ok(_)) = socket.next().await {}
            }
        }
    });
    (address, count)
}

fn status(value: Value) -> (u8, Vec<u8>) {
    (3, value.to_string().into_bytes())
}

async fn exec(frames: Frames, cut: bool) -> Result<ExecOutcome, KubeError> {
    let (address, count) = exec_server(frames, cut).await;
    let kube = open(&address, None).await;
    let command = ["python3", "-c", "print(1)"].map(str::to_owned);
    let outcome = kube.exec(("frigate", "frigate-0"), Some("frigate"), &command, Duration::from_secs(5)).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    outcome
}

#[tokio::test]
async fn a_commands_streams_are_drained_together_and_its_status_counts() {
    let success = || status(json!({"kind": "Status", "metadata": {}, "status": "Success"}));
    // More than the pipes hold, on both streams, in turn.
    let mut frames: Frames = Vec::new();
    for _ in 0..40 {
        frames.push((1, vec![b'o'; 8 << 10]));
        frames.push((2, vec![b'e'; 8 << 10]));
    }
    frames.push(success());
    let outcome = exec(frames, false).await.unwrap();
    assert_eq!((outcome.stdout.len(), outcome.stderr.len(), outcome.code, outcome.cut), (40 << 13, 40 << 13, 0, false));

    let mut frames: Frames = vec![(1, vec![b'o'; 64 << 10]); 20];
    frames.push(success());
    let outcome = exec(frames, false).await.unwrap();
    assert_eq!((outcome.stdout.len(), outcome.cut), (1 << 20, true));

    let failure = json!({"kind": "Status", "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": "command terminated with exit code 3", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
    let outcome = exec(vec![(2, b"no coral".to_vec()), status(failure)], false).await.unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_slice()), (3, b"no coral".as_slice()));
}

#[tokio::test]
async fn output_without_a_status_proves_nothing() {
    for cut in [true, false] {
        let frames: Frames = if cut { vec![(1, b"Coral".to_vec())] } else { vec![(3, b"not json".to_vec())] };
        let error = exec(frames, cut).await.unwrap_err();
        assert!(matches!(error, KubeError::LostAnswer { .. }), "{error:?}");
        assert_eq!(error.effect(), Effect::None);
    }
    let failure = json!({"kind": "Status", "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": "exec: \"python3\": executable file not found in $PATH"});
    let error = exec(vec![status(failure)], false).await.unwrap_err();
    assert!(matches!(&error, KubeError::Refused { code: 500, .. }), "{error:?}");
}

#[tokio::test]
async fn an_exec_that_is_refused_or_silent() {
    let wire = super::Wire::answering(super::answer(404, "status-404")).await;
    let command = ["true".to_owned()];
    let error = wire.kube.exec(("a", "b"), None, &command, Duration::from_secs(5)).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    let wire = super::Wire::answering(super::answer(503, "status-503")).await;
    let error = wire.kube.exec(("a", "b"), None, &command, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, KubeError::Server { code: 503, .. }), "{error:?}");
    let (address, _stir, _seen) = watched(vec![]).await;
    drop(address);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kube = open(&format!("http://{}", listener.local_addr().unwrap()), None).await;
    let error = kube.exec(("a", "b"), None, &command, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, KubeError::LostAnswer { .. }), "{error:?}");
}
