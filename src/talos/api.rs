//! A node and the calls to it: deadlines, the retries of reads, and the note before a change.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::base::clock::Clock;
use crate::base::fault::Effect;
use crate::base::names::{BadName, TalosAddress};
use crate::base::permit::{CallId, Handle, Note, Permit};
use crate::base::redact;
use crate::base::request::Request;
use crate::base::secret::Secret;
use crate::base::tls::{self, KeyFingerprint, Pins};
use crate::base::wait::{self, Backoff, limit};

use super::certificate::Dates;
use super::error::Error;
use super::line::{Dial, Hearing, lock};
use super::node::Node;
use super::proto::common::Metadata;
use super::proto::cosi::resource::state_client::StateClient;
use super::proto::machine::image_service_client::ImageServiceClient;
use super::proto::machine::lifecycle_service_client::LifecycleServiceClient;
use super::proto::machine::machine_service_client::MachineServiceClient;
use super::refusal::{Asked, find, innermost};
use super::talosconfig::Context;

/// What Talos sends and takes at most (siderolabs/talos pkg/machinery/constants, GRPCMaxMessageSize).
pub(super) const MAX_MESSAGE: usize = 32 << 20;
/// How often a question is asked before its error is believed.
const ATTEMPTS: usize = 4;

/// The deadlines of calls; [`limit`] has the reasons.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// TCP connect and TLS handshake.
    pub connect: Duration,
    /// A question, its retries included.
    pub read: Duration,
    /// A change.
    pub change: Duration,
    /// Pulling an image and writing it.
    pub image: Duration,
    /// Etcd's data over the net.
    pub snapshot: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: limit::CONNECT,
            read: limit::READ,
            change: limit::CHANGE,
            image: limit::IMAGE,
            snapshot: limit::SNAPSHOT,
        }
    }
}

/// A node. It is asked directly: no request is passed on to another one.
pub struct Talos {
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    node: Node,
    at: String,
    dial: Arc<Dial>,
    endpoint: Endpoint,
    roles: Vec<String>,
    client: String,
    dates: Option<Dates>,
    /// For questions; opened with the first one, and again after the node was away.
    reads: OnceLock<Channel>,
    hearing: Hearing,
    /// Held, so that it is known for what it is.
    _key: Option<Secret>,
}

impl std::fmt::Debug for Talos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talos").field("node", &self.node).field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Talos {
    /// Prepares the way to a node with a context of a talosconfig; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Setup`] where the address or the keys cannot be used.
    pub fn connect(node: Node, context: &Context, clock: Clock) -> Result<Self, Error> {
        let bad = |why: String| setup(&node, why);
        let roots = tls::roots(&context.ca).map_err(|e| bad(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(context.key.expose().as_bytes()).map_err(|e| bad(e.to_string()))?;
        let config = builder().map_err(|e| bad(e.to_string()))?.with_root_certificates(roots);
        let config = config.with_client_auth_cert(context.chain.clone(), key).map_err(|e| bad(e.to_string()))?;
        let certificate = &context.certificate;
        let client = format!("{} until {}", certificate.roles.join(", "), certificate.until);
        let mut talos = Self::with(node, config, clock)?;
        talos.dates = Some(certificate.dates(clock.now()));
        (talos.roles, talos.client, talos._key) = (certificate.roles.clone(), client, Some(context.key.clone()));
        Ok(talos)
    }

    /// Prepares the way to a node in maintenance mode, whose certificate nobody vouches for: with fingerprints only a key with one
    /// of them is accepted, without any certificate is. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Setup`] where the address cannot be used.
    pub fn maintenance(node: Node, pins: Option<Vec<KeyFingerprint>>, clock: Clock) -> Result<Self, Error> {
        let config = builder().map_err(|e| setup(&node, e.to_string()))?;
        let config = config
            .dangerous()
            .with_custom_certificate_verifier(tls::without_authority(pins.map_or(Pins::Any, Pins::Keys)));
        Self::with(node, config.with_no_client_auth(), clock)
    }

    fn with(node: Node, mut config: ClientConfig, clock: Clock) -> Result<Self, Error> {
        let TalosAddress { host, port } = node.address.parse().map_err(|why: BadName| setup(&node, why.to_string()))?;
        let name = node.tls_name.as_deref().unwrap_or(&host);
        let bad_name = |_| setup(&node, format!("`{name}` is neither an address nor a host name"));
        let name = ServerName::try_from(name.to_owned()).map_err(bad_name)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let endpoint = endpoint(&host, port).map_err(|why| setup(&node, why))?;
        Ok(Self {
            clock,
            limits: Limits::default(),
            at: at(&node),
            node,
            dial: Arc::new(Dial { host, port, name, tls: Arc::new(config) }),
            endpoint,
            roles: Vec::new(),
            client: String::new(),
            dates: None,
            reads: OnceLock::new(),
            hearing: Hearing::default(),
            _key: None,
        })
    }

    /// Other limits than those of the table; for tests and rehearsals. Before the first call.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Which node it is.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The roles of the client certificate; none in maintenance mode.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// How errors name it: `talos node talos-20 (10.10.0.20)`.
    pub(super) fn at(&self) -> String {
        self.at.clone()
    }

    fn channel(&self) -> Channel {
        let open = || {
            let (dial, hearing, limit) = (self.dial.clone(), self.hearing.clone(), self.limits.connect);
            self.endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let (dial, hearing) = (dial.clone(), hearing.clone());
                async move { dial.line(limit, &hearing).await.map(TokioIo::new) }
            }))
        };
        self.reads.get_or_init(open).clone()
    }

    /// A connection of its own, that is there: a change never meets one that has gone stale.
    async fn fresh(&self) -> Result<(Channel, Hearing), Error> {
        let hearing = Hearing::default();
        let (dial, heard, limit) = (self.dial.clone(), hearing.clone(), self.limits.connect);
        let connector = tower::service_fn(move |_: Uri| {
            let (dial, heard) = (dial.clone(), heard.clone());
            async move { dial.line(limit, &heard).await.map(TokioIo::new) }
        });
        match self.endpoint.connect_with_connector(connector).await {
            Ok(channel) => Ok((channel, hearing)),
            Err(error) => Err(match find(&error) {
                Some(no_line) => self.asked(false, &hearing).no_line(no_line),
                None => Error::Unreachable { at: self.at(), why: innermost(&error) },
            }),
        }
    }

    fn asked(&self, changing: bool, hearing: &Hearing) -> Asked<'_> {
        let heard = *lock(hearing);
        Asked {
            at: &self.at,
            changing,
            roles: &self.roles,
            client: self.client.clone(),
            dates: self.dates,
            alert: heard.alert,
            unheard: heard.ended && !heard.anything,
        }
    }

    /// Asks, with retries within [`Limits::read`].
    pub(super) async fn read<T, F>(&self, what: &str, ask: impl Fn(Channel) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let (mut last, mut attempts) = (None, 0);
        // A connection that hangs must not use up the whole time.
        let part = self.limits.read / 3;
        let asked = wait::within(self.limits.read, async {
            let mut backoff = Backoff::new(self.clock, Duration::from_millis(200), Duration::from_secs(2));
            loop {
                attempts += 1;
                let error = match self.once(what, part, ask(self.channel())).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                let again = error.is_down() && !matches!(error, Error::OutOfDate { .. });
                if !again || attempts >= ATTEMPTS {
                    return Err(error);
                }
                tracing::debug!("asking again: {}", redact::text(&error.to_string()));
                last = Some(error);
                backoff.pause().await;
            }
        })
        .await;
        asked.unwrap_or_else(|_| {
            // The time of one try is none that anybody has set.
            let silent = |why: &str| why == wait::Elapsed(part).to_string();
            Err(match last {
                Some(error) if !matches!(&error, Error::NoAnswer { why, .. } if silent(why)) => error,
                _ => Error::NoAnswer { at: self.at(), why: wait::no_answer(self.limits.read, attempts) },
            })
        })
    }

    /// Asks once, for streams that are long or never end.
    pub(super) async fn once<T>(
        &self,
        what: &str,
        limit: Duration,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Error> {
        let request = Request::begin(self.clock, &self.at, what);
        match wait::within(limit, answer).await {
            Ok(Ok(answer)) => {
                request.ended("OK");
                Ok(answer)
            }
            Ok(Err(status)) => {
                request.ended(format_args!("{:?}", status.code()));
                Err(self.asked(false, &self.hearing).error(&status))
            }
            Err(elapsed) => Err(Error::NoAnswer { at: self.at(), why: elapsed.to_string() }),
        }
    }

    /// The error of a stream that had begun well.
    pub(super) fn broken(&self, status: &Status) -> Error {
        self.asked(false, &self.hearing).error(status)
    }

    /// The channel of questions, for streams.
    pub(super) fn questions(&self) -> Channel {
        self.channel()
    }

    /// Sends a change, once, on a connection of its own: connects, notes it, sends it.
    pub(super) async fn change<T, F>(
        &self,
        permit: &Permit,
        limit: Duration,
        note: Note,
        send: impl FnOnce(Channel) -> F,
    ) -> Result<(CallId, T), Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let (channel, hearing) = self.fresh().await?;
        let id = permit.note(&note)?;
        let request = Request::begin(self.clock, &self.at, &note.text);
        match wait::within(limit, send(channel)).await {
            Ok(Ok(answer)) => {
                request.ended("OK");
                Ok((id, answer))
            }
            Ok(Err(status)) => {
                request.ended(format_args!("{:?}", status.code()));
                Err(self.asked(true, &hearing).error(&status))
            }
            Err(elapsed) => Err(Error::LostAnswer { at: self.at(), why: elapsed.to_string() }),
        }
    }

    /// Writes down by what a change's events are known.
    pub(super) fn got_actor(&self, permit: &Permit, id: CallId, actor: &str) -> Result<(), Error> {
        if actor.is_empty() {
            return Ok(());
        }
        let kept = permit.got(id, &Handle::new("actor", actor));
        kept.map_err(|source| Error::NotRecorded { at: self.at(), source })
    }

    /// The one message of an answer. A node that is asked directly answers for itself alone.
    pub(super) fn only<T>(
        &self,
        messages: Vec<T>,
        metadata: impl Fn(&T) -> Option<&Metadata>,
        changing: bool,
    ) -> Result<T, Error> {
        let effect = if changing { Effect::Maybe } else { Effect::None };
        let count = messages.len();
        let mut messages = messages.into_iter();
        let (Some(message), None) = (messages.next(), messages.next()) else {
            let why = format!("{count} messages in it, one was expected");
            return Err(Error::BadAnswer { at: self.at(), why, effect });
        };
        match metadata(&message).filter(|metadata| !metadata.error.is_empty()) {
            Some(metadata) => {
                let why = format!("node {}: {}", metadata.hostname, metadata.error);
                Err(Error::Unexpected { at: self.at(), code: "an error under OK".into(), why, effect })
            }
            None => Ok(message),
        }
    }
}

fn setup(node: &Node, why: String) -> Error {
    Error::Setup { at: at(node), why }
}

fn at(node: &Node) -> String {
    format!("talos node {} ({})", node.name, node.address)
}

/// How requests go out. TLS is the connector's; a request says https all the same.
fn endpoint(host: &str, port: u16) -> Result<Endpoint, String> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let uri = |scheme: &str| {
        let uri = Uri::builder().scheme(scheme).authority(authority.as_str()).path_and_query("/").build();
        uri.map_err(|error| error.to_string())
    };
    Endpoint::from(uri("http")?)
        .origin(uri("https")?)
        .user_agent(concat!("pvemig/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| error.to_string())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    tls::init();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

pub(super) fn machine(channel: Channel) -> MachineServiceClient<Channel> {
    MachineServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

pub(super) fn state(channel: Channel) -> StateClient<Channel> {
    StateClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

pub(super) fn images(channel: Channel) -> ImageServiceClient<Channel> {
    ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

pub(super) fn lifecycle(channel: Channel) -> LifecycleServiceClient<Channel> {
    LifecycleServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}
