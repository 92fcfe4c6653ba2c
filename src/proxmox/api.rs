//! One cluster's connection: how a question is asked and how a change is sent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::base::clock::Clock;
use crate::base::fault::Effect;
use crate::base::permit::{CallId, Handle, Note, Permit};
use crate::base::redact;
use crate::base::request::Request;
use crate::base::secret::Secret;
use crate::base::tls::{self, Trust};
use crate::base::wait::{self, Backoff, limit};

use super::error::Error;
use super::place::Places;
use super::refusal::Refusal;
use super::session::Sessions;
use super::wire::{self, Answer, Body, Call, Miss, base_url, innermost, untrusted};

/// The server drops idle connections after 5 s (pve-http-server).
const IDLE: Duration = Duration::from_secs(4);
/// Questions in flight at a time, and idle connections that are kept. A node has three workers for the API, and each
/// serves one call at a time: more would only cost handshakes.
const AT_ONCE: usize = 4;
/// How often a question is asked before its error is believed.
const ATTEMPTS: usize = 4;

/// Where a cluster is and as whom to speak to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The cluster's name in the site file.
    pub cluster: String,
    /// Base URLs (`https://10.0.0.2:8006`) of one or more nodes. Any node answers for all; the next one is tried where
    /// no connection comes about.
    pub urls: Vec<String>,
    /// What the certificates are held against; required for https. Plain http is accepted for loopback only.
    pub trust: Option<Trust>,
    /// The credentials.
    pub auth: Auth,
    /// The clock for pauses.
    pub clock: Clock,
}

/// Credentials.
#[derive(Debug, Clone)]
pub enum Auth {
    /// An API token. It is never `root@pam`, not even one that belongs to it: raw USB settings are closed to it.
    Token {
        /// `USER@REALM!NAME`.
        id: String,
        /// The token's secret.
        secret: Secret,
    },
    /// A login with a password; made at the first call and renewed in time.
    Ticket {
        /// `USER@REALM`.
        user: String,
        /// The password.
        password: Secret,
    },
}

/// The deadlines of calls; [`limit`] has the reasons.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// TCP connect and TLS handshake.
    pub connect: Duration,
    /// A question, its retries included.
    pub read: Duration,
    /// A change.
    pub change: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: limit::CONNECT, read: limit::READ, change: limit::CHANGE }
    }
}

/// A cluster.
pub struct Proxmox {
    pub(super) cluster: String,
    pub(super) clock: Clock,
    pub(super) sessions: Sessions,
    pub(super) places: Places,
    limits: Limits,
    urls: Vec<Url>,
    /// The address that answered last.
    preferred: AtomicUsize,
    reads: Client,
    turns: Semaphore,
    /// Keeps no idle connection: a change (or a login before it) never meets a stale one, whose reset would leave its
    /// fate unknown.
    changes: Client,
}

impl std::fmt::Debug for Proxmox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxmox").field("cluster", &self.cluster).field("caller", &self.caller()).finish()
    }
}

impl Proxmox {
    /// Prepares a connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Setup`] where URL, trust or credentials cannot be used.
    pub fn new(endpoint: Endpoint) -> Result<Self, Error> {
        Self::with_limits(endpoint, Limits::default())
    }

    /// As [`Proxmox::new`], with deadlines of one's own: a simulated estate that plays dead need not be waited for as
    /// long as a real one.
    ///
    /// # Errors
    /// As [`Proxmox::new`].
    pub fn with_limits(endpoint: Endpoint, limits: Limits) -> Result<Self, Error> {
        let Endpoint { cluster, urls, trust, auth, clock } = endpoint;
        let setup = |why: String| Error::Setup { cluster: cluster.clone(), why };
        let urls =
            urls.iter().map(|url| base_url(url, trust.is_some())).collect::<Result<Vec<_>, _>>().map_err(setup)?;
        if urls.is_empty() {
            return Err(setup("no url is given".into()));
        }
        // Plain http alone needs no trust; then nothing is trusted.
        let nothing = Trust::Pins(Vec::new());
        let trusted = trust.as_ref().unwrap_or(&nothing);
        let build = |idle_connections: usize| -> Result<Client, String> {
            let builder = Client::builder()
                .http1_only()
                .no_proxy()
                .referer(false)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(limits.connect)
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle_connections)
                .user_agent(concat!("pvemig/", env!("CARGO_PKG_VERSION")))
                .tls_backend_preconfigured(tls::client_config(trusted).map_err(|e| e.to_string())?);
            builder.build().map_err(|e| innermost(&e))
        };
        let (reads, changes) = (build(AT_ONCE).map_err(setup)?, build(0).map_err(setup)?);
        let sessions = Sessions::new(auth).map_err(setup)?;
        let (places, preferred, turns) = (Places::default(), AtomicUsize::new(0), Semaphore::new(AT_ONCE));
        Ok(Self { cluster, clock, sessions, places, limits, urls, preferred, reads, turns, changes })
    }

    /// The cluster's name in the site file.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// As whom the API sees us: `USER@REALM`, or `USER@REALM!TOKEN`.
    pub fn caller(&self) -> &str {
        self.sessions.caller()
    }

    /// True for a login of root@pam itself, which alone may set and delete raw `host=` USB lines.
    pub fn is_root(&self) -> bool {
        self.caller() == "root@pam"
    }

    /// The clock that pauses go by.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// `vm 108 on still-fawn (cluster home)`.
    pub(super) fn at(&self, target: &str) -> String {
        if target.is_empty() {
            format!("cluster {}", self.cluster)
        } else {
            format!("{target} (cluster {})", self.cluster)
        }
    }

    /// Asks, with retries, and reads `data` as `T`.
    pub(super) async fn read<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let answer = self.ask(call).await?;
        self.shape(call, answer.data, Effect::None)
    }

    /// `data` as `T`.
    pub(super) fn shape<T: DeserializeOwned>(&self, call: &Call, data: Value, effect: Effect) -> Result<T, Error> {
        serde_json::from_value(data).map_err(|error| Error::BadAnswer {
            at: self.at(&call.target),
            why: format!("{}: {}", call.line(), wire::shape_error(&error)),
            effect,
        })
    }

    /// Asks as soon as less than [`AT_ONCE`] others are on their way, with retries within [`Limits::read`].
    pub(super) async fn ask(&self, call: &Call) -> Result<Answer, Error> {
        // Taken before the deadline begins, which is the server's alone. Nobody closes it.
        let _turn = self.turns.acquire().await.ok();
        let mut last = None;
        let asked = wait::within(self.limits.read, async {
            let mut backoff = Backoff::new(self.clock, Duration::from_millis(200), Duration::from_secs(2));
            let (mut attempts, mut renewed) = (0, false);
            loop {
                attempts += 1;
                let error = match self.headers(&call.method).await {
                    Ok(headers) => match self.attempt(&self.reads, call, &headers).await {
                        Ok(answer) => return Ok(answer),
                        Err(Miss::Refused(refusal))
                            if refusal.status == 401 && !renewed && self.sessions.forget().await =>
                        {
                            renewed = true;
                            continue;
                        }
                        Err(miss) => self.error(call, miss, false),
                    },
                    Err(error) => error,
                };
                // A busy lock is the server's word, not the line's: only what never came through is asked again.
                let again = matches!(error, Error::Unreachable { .. } | Error::NoAnswer { .. });
                if !again || attempts >= ATTEMPTS {
                    return Err(error);
                }
                tracing::debug!("asking again: {}", redact::text(&error.to_string()));
                last = Some(error);
                backoff.pause().await;
            }
        })
        .await;
        let asked = asked.unwrap_or_else(|elapsed| {
            Err(last.unwrap_or_else(|| Error::NoAnswer { at: self.at(&call.target), why: elapsed.to_string() }))
        });
        asked.inspect_err(|error| self.places.hear(call.vm.as_ref(), error))
    }

    /// Sends a change, once: notes it, sends it, and returns `data`.
    ///
    /// On 401 the login is dropped, so that the next call makes a new one; the change itself is not sent again.
    pub(super) async fn change(&self, call: &Call, note: Note, permit: &Permit) -> Result<(CallId, Value), Error> {
        let headers = self.headers(&call.method).await?;
        let id = permit.note(&note)?;
        let sent = wait::within(self.limits.change, self.attempt(&self.changes, call, &headers)).await;
        match sent.unwrap_or_else(|elapsed| Err(Miss::Lost(elapsed.to_string()))) {
            Ok(answer) => Ok((id, answer.data)),
            Err(miss) => {
                if matches!(&miss, Miss::Refused(refusal) if refusal.status == 401) {
                    self.sessions.forget().await;
                }
                let error = self.error(call, miss, true);
                self.places.hear(call.vm.as_ref(), &error);
                Err(error)
            }
        }
    }

    /// Writes down what a change left.
    pub(super) fn got(&self, call: &Call, permit: &Permit, id: CallId, handle: &Handle) -> Result<(), Error> {
        permit.got(id, handle).map_err(|source| Error::NotRecorded { at: self.at(&call.target), source })
    }

    fn error(&self, call: &Call, miss: Miss, changing: bool) -> Error {
        let at = self.at(&call.target);
        match miss {
            Miss::Unsent(error) => error,
            Miss::Lost(why) if changing => Error::LostAnswer { at, why },
            Miss::Lost(why) => Error::NoAnswer { at, why },
            Miss::Refused(refusal) => refusal.into_error(&at, self.caller(), changing),
            Miss::Garbled(why) => {
                Error::BadAnswer { at, why, effect: if changing { Effect::Maybe } else { Effect::None } }
            }
        }
    }

    async fn headers(&self, method: &Method) -> Result<HeaderMap, Error> {
        let login = |call: Call| async move {
            let sent = wait::within(self.limits.read, self.attempt(&self.changes, &call, &HeaderMap::new())).await;
            sent.unwrap_or_else(|elapsed| Err(Miss::Lost(elapsed.to_string())))
                .map_err(|miss| self.error(&call, miss, false))
        };
        self.sessions.headers(method, self.clock, login).await
    }

    /// One request. Another address is tried only where no connection came about, so that nothing is sent twice.
    async fn attempt(&self, client: &Client, call: &Call, headers: &HeaderMap) -> Result<Answer, Miss> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut unsent = None;
        for turn in 0..self.urls.len() {
            let index = (first + turn) % self.urls.len();
            let Some(base) = self.urls.get(index) else { continue };
            match self.send(client, base, call, headers).await {
                Err(Miss::Unsent(error)) => unsent = Some(error),
                other => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return other;
                }
            }
        }
        Err(Miss::Unsent(match unsent {
            Some(Error::Unreachable { at, why, .. }) => {
                let urls: Vec<String> = self.urls.iter().map(|url| url.origin().ascii_serialization()).collect();
                Error::Unreachable { at, urls: urls.join(", "), why }
            }
            Some(error) => error,
            None => Error::Setup { cluster: self.cluster.clone(), why: "no url is given".into() },
        }))
    }

    async fn send(&self, client: &Client, base: &Url, call: &Call, headers: &HeaderMap) -> Result<Answer, Miss> {
        let mut url = base.clone();
        url.set_path(&format!("/api2/json{}", call.path));
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let request = client.request(call.method.clone(), url).headers(headers.clone());
        let request = match &call.body {
            // Left to itself the client names no length for an empty body; the server wants one with every POST.
            Body::Empty if matches!(call.method, Method::POST | Method::PUT) => {
                request.header(CONTENT_LENGTH, HeaderValue::from_static("0"))
            }
            Body::Empty => request,
            Body::Json(value) => {
                request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(value.to_string())
            }
            Body::Form(pairs) => request.form(pairs),
        };
        let asked = Request::begin(self.clock, format_args!("proxmox {}", self.cluster), call.line());
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                asked.ended("no answer");
                return Err(self.unsent_or_lost(base, call, error));
            }
        };
        let status = response.status().as_u16();
        let reason = response
            .extensions()
            .get::<hyper::ext::ReasonPhrase>()
            .map(|r| String::from_utf8_lossy(r.as_bytes()).into_owned());
        let body = response.bytes().await;
        asked.ended(status);
        if status != 200 {
            // The body of a refusal may be cut short; status and reason phrase say enough.
            return Err(Miss::Refused(Refusal::new(status, reason.as_deref(), &body.unwrap_or_default())));
        }
        let body = body.map_err(|error| Miss::Lost(format!("the answer broke off: {}", innermost(&error))))?;
        let garbled = |why: String| Miss::Garbled(format!("{}: {why}", call.line()));
        let mut json: Value = serde_json::from_slice(&body).map_err(|error| garbled(error.to_string()))?;
        let total = json.get("total").and_then(|t| t.as_u64().or_else(|| t.as_str()?.parse().ok()));
        let data = json.get_mut("data").map(Value::take).ok_or_else(|| garbled("there is no `data` in it".into()))?;
        Ok(Answer { data, total })
    }

    fn unsent_or_lost(&self, base: &Url, call: &Call, error: reqwest::Error) -> Miss {
        let at = self.at(&call.target);
        let url = base.origin().ascii_serialization();
        if let Some(why) = untrusted(&error) {
            return Miss::Unsent(Error::Untrusted { at, url, why });
        }
        if error.is_builder() {
            return Miss::Unsent(Error::BadRequest { at, why: innermost(&error) });
        }
        if error.is_connect() {
            let why = if error.is_timeout() {
                format!("no connection within {}", wait::show(self.limits.connect))
            } else {
                innermost(&error)
            };
            return Miss::Unsent(Error::Unreachable { at, urls: url, why });
        }
        Miss::Lost(innermost(&error))
    }
}
