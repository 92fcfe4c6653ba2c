//! The TLS HTTP server of the fronts: certificates, request log, fault rules, reason phrases.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::fault::FaultEffect;
use super::log::Entry;
use super::{Fronts, LabError, Shared};
use crate::base::tls::{self, Fingerprint};

/// An outside system that the lab plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Front {
    /// Proxmox VE.
    Proxmox,
    /// Kubernetes.
    Kubernetes,
    /// ssh to hosts and guests.
    Ssh,
    /// Talos.
    Talos,
    /// The bare git repository.
    Checkout,
}

/// What a request is to the estate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Reads.
    Read,
    /// Changes something, or would if it were not refused.
    Change,
    /// A reading command in a guest or on a host.
    Look,
    /// Gets a ticket, or asks for its own rights.
    Login,
    /// Asks an agent whether it is there.
    Ping,
}

/// A response body; may stream.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// A response.
pub type Answer = Response<Body>;
/// What answers a front's requests. The request's extensions hold hyper's upgrade handle (`hyper::upgrade::on`).
pub type Handle = fn(Arc<Shared>, Request<Bytes>) -> BoxFuture<'static, Answer>;

/// One front's manner.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// For the log and the rules.
    pub front: Front,
    /// Sorts a request for the log.
    pub classify: fn(&Shared, &Request<Bytes>) -> Class,
    /// Answers it.
    pub handle: Handle,
    /// An error in the front's own form, for fault rules.
    pub error: fn(StatusCode, &str) -> Answer,
    /// HTTP/2 beside HTTP/1.1.
    pub http2: bool,
    /// Requests on one connection before it is closed, and how long an idle one is kept.
    pub keep_alive: (u32, Duration),
    /// The largest request body.
    pub body_limit: usize,
    /// Whether nothing listens there now: connections are closed, and requests are not even heard.
    pub away: fn(&Shared) -> bool,
}

/// A body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An answer with a body; no content type where `kind` is empty.
pub fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    if !kind.is_empty() {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    answer
}

/// Sets the HTTP/1 reason phrase to the first line of `text`. Bytes that no status line can hold become spaces.
pub fn with_reason(mut answer: Answer, text: &str) -> Answer {
    let line: Vec<u8> = text.lines().next().unwrap_or_default().bytes().collect();
    let clean: Vec<u8> = line.into_iter().map(|b| if b < 0x20 || b == 0x7f { b' ' } else { b }).collect();
    if let Ok(reason) = ReasonPhrase::try_from(clean) {
        answer.extensions_mut().insert(reason);
    }
    answer
}

/// The lab's own certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A server certificate of the lab.
#[derive(Clone)]
pub struct Identity {
    acceptor: TlsAcceptor,
    /// Of the leaf.
    pub fingerprint: Fingerprint,
}

impl Authority {
    /// Makes an authority.
    ///
    /// # Errors
    /// [`LabError::Tls`]
    pub fn make() -> Result<Self, LabError> {
        tls::init();
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "pvemig lab authority");
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its key, PEM.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A server certificate for 127.0.0.1 and localhost.
    ///
    /// # Errors
    /// [`LabError::Tls`]
    pub fn identity(&self, http2: bool) -> Result<Identity, LabError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone(), self.issuer.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        let versions: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = versions.iter().map(|v| v.to_vec()).collect();
        Ok(Identity { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint: Fingerprint::of(leaf.der()) })
    }
}

/// Starts a front on a free port of 127.0.0.1.
///
/// # Errors
/// [`LabError::Io`] where no port can be had.
pub async fn serve(
    shared: &Arc<Shared>,
    service: Service,
    identity: Identity,
    fronts: &mut Fronts,
) -> Result<SocketAddr, LabError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let shared = shared.clone();
    fronts.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            while connections.try_join_next().is_some() {}
            connections.spawn(connection(shared.clone(), service, identity.acceptor.clone(), stream));
        }
    });
    Ok(address)
}

async fn connection(shared: Arc<Shared>, service: Service, acceptor: TlsAcceptor, stream: TcpStream) {
    // Its port is the lab's for good, so the connection is closed instead of refused.
    if (service.away)(&shared) {
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    // A client that refuses the certificate ends here; it knows why, and there is nobody to tell on this side.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(service.keep_alive.1).max_headers(64);
    builder.http2().timer(TokioTimer::new());
    if !service.http2 {
        builder = builder.http1_only();
    }
    let count = Arc::new(AtomicU32::new(0));
    let serve = service_fn(move |request| {
        let last = count.fetch_add(1, Ordering::Relaxed) + 1 >= service.keep_alive.0;
        let shared = shared.clone();
        async move {
            let mut answer = exchange(shared, service, request).await?;
            if last && !service.http2 {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Broken>(answer)
        }
    });
    let ended = builder.serve_connection_with_upgrades(TokioIo::new(stream), serve).await;
    if let Err(error) = ended {
        tracing::trace!(error, "connection ended");
    }
}

/// A request in one line, with all that was sent.
fn repeated(request: &Request<Bytes>) -> String {
    let headers: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let body = String::from_utf8_lossy(request.body());
    format!("cannot {} {} [{}] {body}", request.method(), request.uri(), headers.join(" | "))
}

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a fault rule, or the end of the server, ended the connection")]
struct Broken;

/// How a request ends for the one who sent it.
enum End {
    Answer(Answer),
    /// Nothing comes, for good.
    Silence,
    /// The connection is ended.
    Cut,
}

async fn exchange(shared: Arc<Shared>, service: Service, request: Request<Incoming>) -> Result<Answer, Broken> {
    if (service.away)(&shared) {
        return Err(Broken);
    }
    let seq = shared.log.next();
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, service.body_limit).collect().await else {
        return Ok((service.error)(StatusCode::NOT_IMPLEMENTED, "for data too large"));
    };
    let request = Request::from_parts(parts, body.to_bytes());
    // On its own: like a real server it finishes what it began when the client goes away, and what was done is in the log.
    match tokio::spawn(met(shared, service, request, seq)).await {
        Ok(End::Answer(answer)) => Ok(answer),
        Ok(End::Silence) => std::future::pending().await,
        Ok(End::Cut) => Err(Broken),
        Err(error) => Ok((service.error)(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())),
    }
}

/// Answers a request as the fault rules have it, and notes it.
async fn met(shared: Arc<Shared>, service: Service, request: Request<Bytes>, seq: u64) -> End {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let target = request.uri().path_and_query().map_or_else(|| path.clone(), ToString::to_string);
    let class = (service.classify)(&shared, &request);
    let effect = shared.meet_fault(service.front, &method, &path, class);
    let note = |status: u16, fault: Option<&str>| {
        let entry = Entry { front: service.front, class, method: &method, what: &target, status, fault };
        shared.log.write(seq, shared.clock.timestamp(shared.clock.now()), &entry);
    };
    // One that panics is an answer too.
    let handle = |request| {
        let running = tokio::spawn((service.handle)(shared.clone(), request));
        async move { running.await.unwrap_or_else(|e| (service.error)(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string())) }
    };
    let key = format!("{:?} {target}", service.front);
    let (answer, fault) = match effect {
        None => (handle(request).await, None),
        Some(FaultEffect::Refuse) => (
            (service.error)(StatusCode::FORBIDDEN, "Permission check failed (refused by a fault rule)"),
            Some("refuse"),
        ),
        Some(FaultEffect::Delay(ms)) => {
            let answer = handle(request).await;
            shared.clock.pause(Duration::from_millis(ms)).await;
            (answer, Some("delay"))
        }
        Some(FaultEffect::Hang) => {
            note(0, Some("hang"));
            return End::Silence;
        }
        Some(FaultEffect::HangAfter) => {
            note(handle(request).await.status().as_u16(), Some("hang-after"));
            return End::Silence;
        }
        Some(FaultEffect::Status(status, text)) => (coded(service, status, &text), Some("status")),
        Some(FaultEffect::Echo(status)) => (coded(service, status, &repeated(&request)), Some("echo")),
        Some(FaultEffect::StatusAfter(status, text)) => {
            let _lost = handle(request).await;
            (coded(service, status, &text), Some("status-after"))
        }
        Some(FaultEffect::ResetBefore) => {
            note(0, Some("reset-before"));
            return End::Cut;
        }
        Some(FaultEffect::ResetAfter) => {
            note(handle(request).await.status().as_u16(), Some("reset-after"));
            return End::Cut;
        }
        Some(FaultEffect::Stale) => match shared.remembered(&key) {
            Some(old) => (rebuilt(old), Some("stale")),
            None => (handle(request).await, None),
        },
    };
    // A body of unknown length is a stream (a watch): it is never remembered, it may have no end.
    let whole = hyper::body::Body::size_hint(answer.body()).exact().is_some();
    let answer = if whole && class == Class::Read && fault.is_none() && shared.remembers(service.front) {
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        shared.remember(key, (parts.status, parts.headers.clone(), bytes.clone()));
        Response::from_parts(parts, full(bytes))
    } else {
        answer
    };
    note(answer.status().as_u16(), fault);
    End::Answer(answer)
}

fn coded(service: Service, status: u16, text: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (service.error)(status, text)
}

/// An answer that was given before.
pub(super) type Remembered = (StatusCode, HeaderMap, Bytes);

fn rebuilt((status, headers, body): Remembered) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}
