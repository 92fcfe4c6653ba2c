//! apid: one listener for each node, TLS with client certificates, the request log, fault rules, roles.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

use super::access::{self, Roles};
use super::certificates;
use crate::base::wait;
use crate::lab::fault::FaultEffect;
use crate::lab::log::Entry;
use crate::lab::wire::{Class, Front};
use crate::lab::{Fronts, LabError, Shared};

/// The largest request: that of gRPC's largest message in Talos, and what frames it.
const LIMIT: usize = (32 << 20) + 1_024;

/// How long a node that has gone down still sends what it had to say, in real time.
const LAST: Duration = Duration::from_secs(1);

/// What the listeners of all nodes share.
pub(super) struct Post {
    pub(super) shared: Arc<Shared>,
    /// The services of each node.
    pub(super) routes: BTreeMap<String, Routes>,
}

/// What a node accepts connections with.
#[derive(Clone)]
pub(super) struct Doors {
    /// Those with a certificate of its authority.
    pub(super) members: TlsAcceptor,
    /// Everybody, in maintenance.
    pub(super) everybody: TlsAcceptor,
    /// Those with a certificate of another authority, which its configuration names: nobody that the lab knows.
    pub(super) strangers: TlsAcceptor,
}

/// What a connection lasts for: a boot, and whether that is in maintenance.
#[derive(Debug, Clone, PartialEq, Eq)]
struct While {
    boot_id: String,
    maintenance: bool,
}

/// One connection to a node.
#[derive(Clone)]
struct Line {
    post: Arc<Post>,
    node: String,
    /// None in maintenance, where nobody is asked who he is.
    roles: Option<Roles>,
    /// The boot that it was made in: whatever comes over it later finds nobody.
    during: While,
    /// Ends the connection.
    cut: Arc<Notify>,
}

/// Listens for a node.
///
/// # Errors
/// [`LabError::Io`] where no port can be had.
pub(super) async fn listen(
    post: &Arc<Post>,
    node: &str,
    doors: Doors,
    fronts: &mut Fronts,
) -> Result<SocketAddr, LabError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (post, node) = (post.clone(), node.to_owned());
    fronts.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            while connections.try_join_next().is_some() {}
            connections.spawn(connection(post.clone(), node.clone(), doors.clone(), stream));
        }
    });
    Ok(address)
}

/// The boot of a node whose apid answers.
fn boot_of(shared: &Shared, node: &str) -> Option<While> {
    let of = |run: &super::node::Run| While { boot_id: run.boot_id.clone(), maintenance: run.maintenance };
    shared.read(|w| w.talos.nodes.get(node)?.answering(w.now).map(of))
}

async fn connection(post: Arc<Post>, node: String, doors: Doors, stream: TcpStream) {
    // A node that is down: its port is the lab's for good, so the connection is closed instead of refused.
    let Some(boot) = boot_of(&post.shared, &node) else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let acceptor = match (boot.maintenance, post.shared.read(|w| w.talos_foreign(&node))) {
        (true, _) => doors.everybody,
        (false, true) => doors.strangers,
        (false, false) => doors.members,
    };
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let roles = Roles(leaf.map(|leaf| certificates::roles(leaf)).unwrap_or_default());
    let roles = Some(roles).filter(|_| !boot.maintenance);
    let line = Line { post, node, roles, during: boot.clone(), cut: Arc::new(Notify::new()) };
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder.http2().timer(TokioTimer::new());
    let own = line.clone();
    let serve = service_fn(move |request| exchange(own.clone(), request));
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), serve));
    let gone = pin!(async {
        let mut changes = line.post.shared.changes();
        while boot_of(&line.post.shared, &line.node).as_ref() == Some(&boot) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
    let cut = pin!(line.cut.notified());
    if let Either::Right((Either::Left(_), _)) = select(served.as_mut(), select(gone, cut)).await {
        // What was answered before it went down still goes out.
        served.as_mut().graceful_shutdown();
        if let Ok(Err(error)) = wait::within(LAST, served).await {
            tracing::trace!(error, "connection ended");
        }
    }
}

impl Line {
    /// The node that a request is for: metadata `node` names another one, to which control planes pass it on.
    fn target(&self, request: &Request<Bytes>) -> Result<String, Status> {
        let named = |key: &str| -> Vec<String> {
            let values = request.headers().get_all(key).iter();
            values.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
        };
        let nodes = [named("node"), named("nodes")].concat();
        let [target] = nodes.as_slice() else {
            return match nodes.len() {
                0 => Ok(self.node.clone()),
                _ => Err(Status::unimplemented("the lab passes a request on to one node only")),
            };
        };
        self.post.shared.read(|w| {
            let all = &w.talos.nodes;
            let me = all.get(&self.node);
            if *target == self.node || target == "127.0.0.1" || me.is_some_and(|node| node.ip == *target) {
                return Ok(self.node.clone());
            }
            let control_plane = me.and_then(|node| node.run.as_ref()).is_some_and(|run| run.wants.control_plane);
            if !control_plane {
                return Err(Status::permission_denied("no request forwarding"));
            }
            let other = all.iter().find(|(name, node)| *name == target || node.ip == *target);
            match other.filter(|(_, node)| node.answering(w.now).is_some()) {
                Some((name, _)) => Ok(name.clone()),
                None => Err(Status::unavailable(format!(
                    "connection error: desc = \"transport: Error while dialing: dial tcp {target}:50000: connect: no route \
                     to host\""
                ))),
            }
        })
    }

    /// What the node's services answer. They run on their own: one that panics is an answer too.
    async fn answer(&self, mut request: Request<Bytes>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if boot_of(&self.post.shared, &self.node).as_ref() != Some(&self.during) {
            return super::server::gone().into_http();
        }
        let allowed = match &self.roles {
            Some(roles) => access::authorize(&path, roles).map(|()| roles.clone()),
            None => {
                let minor = |w: &crate::lab::World| w.talos.nodes.get(&self.node).map_or(0, |n| n.image().minor().1);
                access::in_maintenance(&path, self.post.shared.read(minor))
            }
        };
        let roles = match allowed {
            Ok(roles) => roles,
            Err(status) => return status.into_http(),
        };
        // In maintenance nothing is passed on.
        let target = if self.roles.is_none() { Ok(self.node.clone()) } else { self.target(&request) };
        let target = match target {
            Ok(target) => target,
            Err(status) => return status.into_http(),
        };
        let Some(routes) = self.post.routes.get(&target).cloned() else {
            return Status::unavailable("there is no such node").into_http();
        };
        request.extensions_mut().insert(roles);
        let running = tokio::spawn(routes.oneshot(request.map(Full::new)));
        match running.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(never)) => match never {},
            Err(error) => Status::internal(error.to_string()).into_http(),
        }
    }

    /// The answer, once all of it has been made: what a stream does on its way is done.
    async fn whole(&self, request: Request<Bytes>, class: Class) -> Response<Body> {
        let (parts, body) = self.answer(request).await.into_parts();
        if class == Class::Change {
            let _made = body.collect().await;
            return Response::from_parts(parts, Body::empty());
        }
        Response::from_parts(parts, body)
    }
}

fn code(answer: &Response<Body>) -> u16 {
    access::http_of(Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |status| status.code()))
}

fn coded(status: u16, text: &str) -> Response<Body> {
    Status::new(access::code_of(status), text).into_http()
}

/// How a request ends for the one who sent it.
enum End {
    Answer(Response<Body>),
    /// Nothing comes, for good.
    Silence,
    /// The connection is ended.
    Cut,
}

async fn exchange(line: Line, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let seq = line.post.shared.log.next();
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LIMIT).collect().await else {
        return Ok(Status::resource_exhausted("grpc: received message larger than max").into_http());
    };
    let request = Request::from_parts(parts, body.to_bytes());
    // On its own: what was done is in the log even where the client goes away before its answer.
    match tokio::spawn(met(line.clone(), request, seq)).await {
        Ok(End::Answer(answer)) => Ok(answer),
        Ok(End::Silence) => std::future::pending().await,
        Ok(End::Cut) => {
            line.cut.notify_one();
            std::future::pending().await
        }
        Err(error) => Ok(Status::internal(error.to_string()).into_http()),
    }
}

/// Answers a request as the fault rules have it, and notes it.
async fn met(line: Line, request: Request<Bytes>, seq: u64) -> End {
    let shared = line.post.shared.clone();
    let path = request.uri().path().to_owned();
    let class = access::classify(&path, request.body());
    let what = format!("/{}{path}{}", line.node, access::about(&path, request.body()));
    let effect = shared.meet_fault(Front::Talos, "POST", &what, class);
    let note = |status: u16, fault: Option<&str>| {
        let entry = Entry { front: Front::Talos, class, method: "POST", what: &what, status, fault };
        shared.log.write(seq, shared.clock.timestamp(shared.clock.now()), &entry);
    };
    let (answer, fault) = match effect {
        None => (line.answer(request).await, None),
        Some(FaultEffect::Refuse) => (access::denied().into_http(), Some("refuse")),
        Some(FaultEffect::Delay(ms)) => {
            let answer = line.answer(request).await;
            shared.clock.pause(Duration::from_millis(ms)).await;
            (answer, Some("delay"))
        }
        Some(FaultEffect::Hang) => {
            note(0, Some("hang"));
            return End::Silence;
        }
        Some(FaultEffect::HangAfter) => {
            note(code(&line.whole(request, class).await), Some("hang-after"));
            return End::Silence;
        }
        Some(FaultEffect::Status(status, text)) => (coded(status, &text), Some("status")),
        Some(FaultEffect::Echo(status)) => {
            let text = format!("cannot {path} {:?} {}", request.headers(), String::from_utf8_lossy(request.body()));
            (coded(status, &text), Some("echo"))
        }
        Some(FaultEffect::StatusAfter(status, text)) => {
            let _lost = line.whole(request, class).await;
            (coded(status, &text), Some("status-after"))
        }
        Some(FaultEffect::ResetBefore) => {
            note(0, Some("reset-before"));
            return End::Cut;
        }
        Some(FaultEffect::ResetAfter) => {
            note(code(&line.whole(request, class).await), Some("reset-after"));
            return End::Cut;
        }
        // No rule may pass for another: old answers of this front are not kept.
        Some(FaultEffect::Stale) => {
            (Status::unimplemented("the lab keeps no old answers of Talos").into_http(), Some("stale"))
        }
    };
    note(code(&answer), fault);
    End::Answer(answer)
}
