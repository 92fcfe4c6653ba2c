//! pods/exec over WebSocket: sub-protocols `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! A message is a channel byte and its bytes: 0 stdin, 1 stdout, 2 stderr, 3 the closing `Status`, 255 (v5) closes the
//! channel that follows it. As in apimachinery `pkg/util/remotecommand` and kubelet's streaming server.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::call::{Call, Target};
use super::json::{self, list, text};
use super::programs::{self, Said};
use super::status::{Outcome, Refusal, success};
use crate::lab::Shared;
use crate::lab::wire::{self, Answer};

const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// The command of an exec call.
pub(crate) fn command(call: &Call) -> Vec<String> {
    call.query.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect()
}

/// Checks the request and upgrades the connection.
pub(crate) fn open(
    shared: &Arc<Shared>,
    request: &mut Request<Bytes>,
    call: &Call,
    target: &Target,
) -> Outcome<Answer> {
    let wanted = call.header(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = wanted.split(',').map(str::trim).collect();
    let protocol = *PROTOCOLS.iter().find(|p| offered.contains(*p)).ok_or_else(|| {
        Refusal::bad("Upgrade request required: WebSocket with v5.channel.k8s.io or v4.channel.k8s.io")
    })?;
    let key = call.header(header::SEC_WEBSOCKET_KEY).to_owned();
    if key.is_empty() || !call.header(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err(Refusal::bad("Upgrade request required"));
    }
    let argv = command(call);
    if argv.is_empty() {
        return Err(Refusal::bad("you must specify at least one command for the container"));
    }
    shared.read(|world| {
        let pod = super::read::find(&world.kube, target)?;
        let container = super::logs::container(&pod, call)?;
        let running = list(&pod, "/status/containerStatuses")
            .iter()
            .any(|c| text(c, "/name") == container && c.pointer("/state/running").is_some());
        let node = text(&pod, "/spec/nodeName");
        if node.is_empty() {
            return Err(Refusal::bad(format!("pod {} does not have a host assigned", json::name(&pod))));
        }
        if !world.vm_of_node(node).is_some_and(|v| world.guest_up(v)) {
            let text = format!("error dialing backend: dial tcp {node}:10250: connect: no route to host");
            return Err(Refusal::new(500, "InternalError", text));
        }
        if !running {
            let text = format!("container not found (\"{container}\")");
            return Err(Refusal::new(404, "NotFound", text));
        }
        Ok(())
    })?;
    let session = Session {
        shared: shared.clone(),
        target: target.clone(),
        argv,
        stdin: call.is_set("stdin"),
        half_close: protocol == "v5.channel.k8s.io",
    };
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => session.run(upgraded).await,
            Err(error) => tracing::debug!(%error, "the exec connection was not upgraded"),
        }
    });
    let mut answer: Answer = Response::new(wire::full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(answer)
}

struct Session {
    shared: Arc<Shared>,
    target: Target,
    argv: Vec<String>,
    stdin: bool,
    half_close: bool,
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Session {
    async fn run(self, upgraded: Upgraded) {
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        if let Err(error) = self.speak(&mut socket).await {
            tracing::debug!(%error, "the exec connection ended early");
        }
    }

    async fn speak(&self, socket: &mut Socket) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        let mut input = Vec::new();
        let copies = self.stdin && programs::copies_stdin(&self.argv);
        if self.stdin && (copies || programs::reads_stdin(&self.argv)) {
            // What reads to the end of its input goes on until the client closes that channel; v4 cannot.
            while let Some(message) = socket.next().await {
                match message?.into_data().as_ref() {
                    [0, bytes @ ..] if copies => send(socket, 1, bytes).await?,
                    [0, bytes @ ..] => input.extend_from_slice(bytes),
                    [255, 0] if self.half_close => break,
                    _ => {}
                }
            }
        }
        let said = self.shared.change(|world| programs::run(world, &self.target, &self.argv, &input));
        self.shared.clock.pause(said.took).await;
        for (channel, bytes) in [(1, &said.stdout), (2, &said.stderr)] {
            for chunk in bytes.chunks(32 << 10) {
                send(socket, channel, chunk).await?;
            }
        }
        send(socket, 3, status(&self.argv, &said).to_string().as_bytes()).await?;
        socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await?;
        // The client closes its side too; what it still says no longer matters.
        while let Some(Ok(_)) = socket.next().await {}
        Ok(())
    }
}

async fn send(socket: &mut Socket, channel: u8, bytes: &[u8]) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut message = vec![channel];
    message.extend_from_slice(bytes);
    socket.send(Message::binary(message)).await
}

/// The closing `Status`.
fn status(argv: &[String], said: &Said) -> Value {
    match said.exit {
        Some(0) => {
            let mut done = success(0);
            json::unset(&mut done, &["code"]);
            json::unset(&mut done, &["kind"]);
            json::unset(&mut done, &["apiVersion"]);
            done
        }
        Some(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        None => {
            let program = argv.first().map_or("", String::as_str);
            json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!(
                    "Internal error occurred: error executing command in container: failed to exec in container: failed \
                     to start exec: OCI runtime exec failed: exec failed: unable to start container process: exec: \
                     \"{program}\": executable file not found in $PATH: unknown"
                ),
            })
        }
    }
}
