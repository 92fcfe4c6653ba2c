//! One request to the API: deadlines, the retries of reads, and the note before a change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::classify::{self, Status};
use super::discovery::Served;
use super::error::{Call, KubeError, Silent};
use super::resource::{Resource, escape};
use crate::base::clock::Clock;
use crate::base::permit::{CallId, Handle, Note, Permit};
use crate::base::private;
use crate::base::request::Request;
use crate::base::secret::Secret;
use crate::base::wait::{Backoff, Elapsed, limit, no_answer, pause, within};

/// The name under which our writes appear in `managedFields`. Flux strips fields of managers that are named like
/// `kubectl`; this name it leaves alone (kustomize-controller).
pub const FIELD_MANAGER: &str = "pvemig";

/// Objects per page of a list, as kubectl asks for.
const PAGE: &str = "500";

/// A cluster's API.
#[derive(Clone)]
pub struct Kubernetes {
    pub(super) cluster: String,
    server: String,
    pub(super) client: kube::Client,
    pub(super) clock: Clock,
    pub(super) kinds: Arc<Mutex<BTreeMap<(String, String), Resource>>>,
    pub(super) groups: Arc<tokio::sync::Mutex<Served>>,
    /// Held, so that they are known for what they are.
    _secrets: Arc<[Secret]>,
    read_limit: Duration,
    change_limit: Duration,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// How a changing request's body is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Create,
    MergePatch,
    Delete,
}

impl Kubernetes {
    /// Opens a cluster by its name in the site file, a kubeconfig and a context in it. Sends nothing, and takes
    /// nothing from the environment.
    ///
    /// # Errors
    /// [`KubeError::Setup`] where the kubeconfig cannot be read or used.
    pub async fn open(cluster: &str, kubeconfig: &Path, context: &str, clock: Clock) -> Result<Self, KubeError> {
        crate::base::tls::init();
        let bad = |text: String| KubeError::Setup {
            cluster: cluster.to_owned(),
            path: kubeconfig.display().to_string(),
            text,
        };
        let file = Kubeconfig::read_from(kubeconfig).map_err(|e| bad(classify::kubeconfig(&e)))?;
        let mut secrets = secrets_of(&file);
        for path in private_files(&file, kubeconfig) {
            let wide = |source| KubeError::Private { cluster: cluster.to_owned(), source };
            if path == kubeconfig {
                private::look(&path).map_err(wide)?;
                continue;
            }
            let bytes = private::read(&path).map_err(wide)?;
            secrets.push(Secret::new(String::from_utf8_lossy(&bytes).trim()));
        }
        if !file.contexts.iter().any(|known| known.name == context) {
            let known: Vec<&str> = file.contexts.iter().map(|known| known.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(bad(format!("it has no context `{context}`: it has {known}")));
        }
        let options = KubeConfigOptions { context: Some(context.to_owned()), ..Default::default() };
        let has_proxy = file.clusters.iter().any(|c| c.cluster.as_ref().is_some_and(|c| c.proxy_url.is_some()));
        let mut config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|e| bad(e.to_string()))?;
        if has_proxy && config.proxy_url.is_some() {
            return Err(bad("`proxy-url` is not supported".into()));
        }
        // kube takes a proxy from the environment too.
        config.proxy_url = None;
        // kube would send again on 429, 503 and 504 by itself, changes included, for minutes.
        config.default_retry = false;
        config.connect_timeout = Some(limit::CONNECT);
        config.read_timeout = None;
        let server = config.cluster_url.to_string();
        let agent = HeaderValue::from_static(concat!("pvemig/", env!("CARGO_PKG_VERSION")));
        config.headers.push((header::USER_AGENT, agent));
        // A credential plugin of the kubeconfig is run here, and kube waits for it without any limit.
        let made = tokio::task::spawn_blocking(move || kube::Client::try_from(config));
        let made = within(limit::READ, made).await.map_err(|e| bad(format!("the client's set-up: {e}")))?;
        let client = made.map_err(|e| bad(e.to_string()))?.map_err(|e| bad(classify::setup(&e)))?;
        Ok(Self {
            cluster: cluster.to_owned(),
            server,
            client,
            clock,
            kinds: Arc::default(),
            groups: Arc::default(),
            _secrets: secrets.into(),
            read_limit: limit::READ,
            change_limit: limit::CHANGE,
        })
    }

    /// The cluster's name in the site file.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Where the kubeconfig finds it.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Other limits than [`limit::READ`] and [`limit::CHANGE`]; for tests and rehearsals.
    #[must_use]
    pub fn limits(mut self, read: Duration, change: Duration) -> Self {
        (self.read_limit, self.change_limit) = (read, change);
        self
    }

    /// Reads one object; `None` where the API says that there is none.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>, KubeError> {
        let call = self.call("GET", resource.name_of(namespace, name), false);
        match self.read(call, Method::GET, resource.path(namespace, name), None).await {
            Ok(value) => Ok(Some(value)),
            Err(KubeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a whole list, page by page, with the resource version of the last page.
    pub(super) async fn list_at<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<(Vec<T>, String), KubeError> {
        #[derive(serde::Deserialize)]
        #[serde(bound = "T: DeserializeOwned")]
        struct Page<T> {
            #[serde(default)]
            metadata: Meta,
            items: Option<Vec<T>>,
        }
        #[derive(Default, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Meta {
            resource_version: String,
            r#continue: String,
        }
        let what = match namespace {
            Some(namespace) => format!("{}/{namespace}", resource.plural),
            None => resource.plural.to_string(),
        };
        let mut restarted = false;
        let mut token = String::new();
        let mut all = Vec::new();
        loop {
            let mut pairs = query.to_vec();
            pairs.push(("limit", PAGE));
            if !token.is_empty() {
                pairs.push(("continue", &token));
            }
            let uri = with_query(resource.list_path(namespace), &pairs);
            let call = self.call("GET", what.clone(), false);
            let page: Page<T> = match self.read(call, Method::GET, uri, None).await {
                // The rest of a list is kept for some minutes only; half a list is none.
                Err(KubeError::Expired { .. }) if !restarted && !token.is_empty() => {
                    (restarted, token) = (true, String::new());
                    all.clear();
                    continue;
                }
                other => other?,
            };
            all.extend(page.items.unwrap_or_default());
            if page.metadata.r#continue.is_empty() {
                return Ok((all, page.metadata.resource_version));
            }
            token = page.metadata.r#continue;
        }
    }

    /// Reads a whole list.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, KubeError> {
        Ok(self.list_at(resource, namespace, query).await?.0)
    }

    /// A request that changes nothing (a GET, or a review by POST), tried again on faults that pass.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        call: Call,
        method: Method,
        uri: String,
        body: Option<&Value>,
    ) -> Result<T, KubeError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let (mut last, mut attempts) = (None, 0);
        let part = part(self.read_limit);
        let tries = async {
            let mut backoff = Backoff::new(self.clock, Duration::from_millis(250), Duration::from_secs(2));
            loop {
                attempts += 1;
                let once = within(part, self.send(&call, &method, &uri, "application/json", &body));
                let error = match once.await.unwrap_or_else(|elapsed| Err(lost(&call, elapsed))) {
                    Ok(bytes) => return parse(&call, &bytes),
                    Err(error) => error,
                };
                let wait = match &error {
                    KubeError::Throttled { retry_after, .. } => u64::from(*retry_after),
                    KubeError::Unreachable { .. } | KubeError::LostAnswer { .. } => 0,
                    KubeError::Server { code: 503 | 504, .. } => 0,
                    _ => return Err(error),
                };
                last = Some(error);
                match wait {
                    0 => backoff.pause().await,
                    seconds => pause(self.clock, Duration::from_secs(seconds)).await,
                }
            }
        };
        let outcome = within(self.read_limit, tries).await;
        outcome.unwrap_or_else(|_| {
            // The time of one try is none that anybody has set.
            let silent = |error: &KubeError| {
                matches!(error, KubeError::LostAnswer { source, .. } if source.downcast_ref::<Elapsed>().is_some())
            };
            Err(last.filter(|error| !silent(error)).unwrap_or_else(|| {
                let source = Box::new(Silent(no_answer(self.read_limit, attempts)));
                KubeError::LostAnswer { call: call.clone(), source }
            }))
        })
    }

    /// A changing request: noted, then sent once.
    pub(super) async fn change(
        &self,
        permit: &Permit,
        verb: Verb,
        target: (&str, String),
        body: &Value,
        note: &str,
    ) -> Result<(CallId, Value), KubeError> {
        let (name, path) = target;
        let manager = [("fieldManager", FIELD_MANAGER)];
        let (method, uri, content_type) = match verb {
            Verb::Create => (Method::POST, with_query(path, &manager), "application/json"),
            Verb::MergePatch => (Method::PATCH, with_query(path, &manager), "application/merge-patch+json"),
            Verb::Delete => (Method::DELETE, path, "application/json"),
        };
        let call = self.call(method.as_str(), name.to_owned(), true);
        let text = if note.is_empty() { call.request.clone() } else { format!("{} {note}", call.request) };
        let id = permit.note(&Note::safe(crate::base::permit::System::Kubernetes, text))?;
        let body = body.to_string();
        let sent = within(self.change_limit, self.send(&call, &method, &uri, content_type, &body));
        let bytes = sent.await.unwrap_or_else(|elapsed| Err(lost(&call, elapsed)))?;
        let answer: Value = parse(&call, &bytes)?;
        // A refusal can travel under a code that says success.
        if answer.get("kind").is_some_and(|k| k == "Status") && answer.get("status").is_some_and(|s| s == "Failure") {
            let status: Status = parse(&call, &bytes)?;
            return Err(classify::by_status(call, 200, status));
        }
        Ok((id, answer))
    }

    /// A merge patch of an object.
    pub(super) async fn patch(
        &self,
        permit: &Permit,
        resource: &Resource,
        (namespace, name): (&str, &str),
        body: &Value,
        note: &str,
    ) -> Result<Value, KubeError> {
        let target = (resource.name_of(namespace, name), resource.path(namespace, name));
        Ok(self.change(permit, Verb::MergePatch, (&target.0, target.1), body, note).await?.1)
    }

    /// Creates an object and keeps its uid.
    pub(super) async fn create(
        &self,
        permit: &Permit,
        resource: &Resource,
        (namespace, name): (&str, &str),
        body: &Value,
        note: &str,
    ) -> Result<Value, KubeError> {
        let target = (resource.name_of(namespace, name), resource.list_path(Some(namespace)));
        let (id, answer) = self.change(permit, Verb::Create, (&target.0, target.1), body, note).await?;
        self.keep_uid(permit, id, ("POST", &target.0), &answer)?;
        Ok(answer)
    }

    /// Keeps the uid of what a call made or changed: from then on the run knows that the call was taken.
    pub(super) fn keep_uid(
        &self,
        permit: &Permit,
        id: CallId,
        call: (&str, &str),
        answer: &Value,
    ) -> Result<(), KubeError> {
        let Some(uid) = answer.pointer("/metadata/uid").and_then(Value::as_str) else { return Ok(()) };
        let kept = permit.got(id, &Handle::new("uid", uid));
        kept.map_err(|source| KubeError::NotRecorded { call: self.call(call.0, call.1.to_owned(), true), source })
    }

    /// How a log names it.
    pub(super) fn name(&self) -> String {
        format!("kubernetes {}", self.cluster)
    }

    pub(super) fn call(&self, method: &str, object: String, changing: bool) -> Call {
        Call { cluster: self.cluster.clone(), request: format!("{method} {object}"), changing }
    }

    /// One request, one answer with a 2xx code.
    async fn send(
        &self,
        call: &Call,
        method: &Method,
        uri: &str,
        content_type: &'static str,
        body: &str,
    ) -> Result<Bytes, KubeError> {
        let mut request = http::Request::builder().method(method).uri(uri).header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(body.as_bytes().to_vec())).map_err(|e| KubeError::BadAnswer {
            call: unsent(call),
            text: format!("the request cannot be made: {e}"),
        })?;
        let path = uri.split('?').next().unwrap_or_default();
        let asked = Request::begin(self.clock, self.name(), format_args!("{method} {path}"));
        let answer = match self.client.send(request).await {
            Ok(answer) => answer,
            Err(error) => {
                asked.ended("no answer");
                return Err(classify::transport(call.clone(), error));
            }
        };
        asked.ended(answer.status().as_u16());
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.map_err(|e| classify::transport(call.clone(), e))?.to_bytes();
        if parts.status.is_success() {
            return Ok(bytes);
        }
        let retry_after =
            parts.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        Err(classify::refused(call.clone(), parts.status, retry_after, &bytes))
    }
}

/// The files that must be private: the kubeconfig where credentials stand in it, and those that it names for them.
fn private_files(file: &Kubeconfig, kubeconfig: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for user in file.auth_infos.iter().filter_map(|user| user.auth_info.as_ref()) {
        let plugin = user.exec.as_ref().and_then(|exec| exec.env.as_ref()).is_some_and(|env| !env.is_empty());
        let inline = [&user.token, &user.password, &user.client_key_data];
        let inline = inline.iter().any(|secret| secret.as_ref().is_some_and(|s| !s.expose_secret().is_empty()));
        if inline || plugin || user.auth_provider.is_some() {
            out.push(kubeconfig.to_owned());
        }
        out.extend([&user.token_file, &user.client_key].into_iter().flatten().map(PathBuf::from));
    }
    out.dedup();
    out
}

/// Variables of a plugin that hold plain words, which texts about a cluster hold, too: those that `aws eks
/// update-kubeconfig` writes, and the region.
const PLAIN: [&str; 4] = ["AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_STS_REGIONAL_ENDPOINTS"];

/// Settings of an `auth-provider` that are no secrets, and whose words texts about a cluster hold, too (client-go's
/// `oidc`, and the former `gcp` and `azure`).
const OPEN: [&str; 14] = [
    "apiserver-id",
    "auth-request-extra-scopes",
    "client-id",
    "cmd-args",
    "cmd-path",
    "config-mode",
    "environment",
    "expires-on",
    "expiry",
    "expiry-key",
    "idp-certificate-authority",
    "idp-issuer-url",
    "tenant-id",
    "token-key",
];

/// What a kubeconfig holds that must not be shown, of all its users.
fn secrets_of(file: &Kubeconfig) -> Vec<Secret> {
    let mut out = Vec::new();
    for user in file.auth_infos.iter().filter_map(|user| user.auth_info.as_ref()) {
        let inline = [&user.token, &user.password, &user.client_key_data].into_iter().flatten();
        out.extend(inline.map(|secret| Secret::new(secret.expose_secret())));
        let variables = user.exec.iter().filter_map(|exec| exec.env.as_ref()).flatten();
        let secret = variables.filter(|v| !v.get("name").is_some_and(|name| PLAIN.contains(&name.as_str())));
        out.extend(secret.filter_map(|variable| variable.get("value")).map(Secret::new));
        let given = user.auth_provider.iter().flat_map(|provider| &provider.config);
        out.extend(given.filter(|(name, _)| !OPEN.contains(&name.as_str())).map(|(_, value)| Secret::new(value)));
    }
    out
}

/// A path with a query.
pub(super) fn with_query(path: String, pairs: &[(&str, &str)]) -> String {
    let mut out = path;
    for (i, (key, value)) in pairs.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        out.push_str(&escape(value));
    }
    out
}

/// The time of one try of a question: a connection that hangs must not use up the whole time, and where there is enough of
/// it, one that does not come about is told apart from one without an answer.
fn part(read_limit: Duration) -> Duration {
    let with_connect = limit::CONNECT + Duration::from_millis(200);
    let part = read_limit / 3;
    if read_limit > with_connect { part.max(with_connect) } else { part }
}

fn lost(call: &Call, elapsed: Elapsed) -> KubeError {
    KubeError::LostAnswer { call: call.clone(), source: Box::new(elapsed) }
}

fn unsent(call: &Call) -> Call {
    Call { changing: false, ..call.clone() }
}

/// Parses an answer. What is wrong is told by place only: serde's text quotes values, which may be secret.
pub(super) fn parse<T: DeserializeOwned>(call: &Call, bytes: &Bytes) -> Result<T, KubeError> {
    serde_json::from_slice(bytes).map_err(|e| KubeError::BadAnswer {
        call: call.clone(),
        text: format!("{:?} error at line {}, column {} of {} bytes", e.classify(), e.line(), e.column(), bytes.len()),
    })
}
