//! The front's manner at the wire: transport rules, parameters, errors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Method, Request, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::auth::{self, Caller};
use super::params::Params;
use crate::lab::Shared;
use crate::lab::wire::{Answer, Class, Front, Service, answer, with_reason};

/// Proxmox's manner: HTTP/1.1, 5 s idle, 100 requests on a connection, 512 KiB (pve-http-server `AnyEvent.pm`).
pub(super) const SERVICE: Service = Service {
    front: Front::Proxmox,
    classify,
    handle: |shared, request| handle(shared, request).boxed(),
    error,
    http2: false,
    keep_alive: (100, Duration::from_secs(5)),
    body_limit: 512 * 1024,
    away: |_| false,
};

/// How long the server makes a client wait whose credentials do not fit.
const BAD_CREDENTIALS: Duration = Duration::from_secs(3);

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum No {
    /// 400 with a text for each parameter.
    Verify(BTreeMap<String, String>),
    /// The API layer says no: text in the reason phrase and in the body.
    Says(u16, String),
    /// Refused before the API layer: text in the reason phrase alone.
    Bare(u16, String),
    /// Wrong credentials: as `Bare` with 401, late.
    Stranger(String),
    /// A login that failed: as `Says` with 401, late.
    BadLogin,
}

impl No {
    /// 500, the status of nearly all refusals.
    pub(super) fn die(text: impl Into<String>) -> Self {
        Self::Says(500, text.into())
    }

    /// 400 about one parameter.
    pub(super) fn param(name: &str, text: impl Into<String>) -> Self {
        Self::Verify(BTreeMap::from([(name.to_owned(), text.into())]))
    }

    /// The text as a pve task ends with it.
    pub(super) fn in_task(self) -> String {
        match self {
            Self::Verify(errors) => {
                let list: Vec<String> = errors.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                format!("400 Parameter verification failed. {}", list.join(" "))
            }
            Self::Says(403, text) => format!("403 {text}"),
            Self::Says(_, text) | Self::Bare(_, text) | Self::Stranger(text) => text,
            Self::BadLogin => "authentication failure".into(),
        }
    }
}

/// What a call gives: `data`, and what stands beside it (`total`).
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    pub(super) data: Value,
    pub(super) total: Option<usize>,
}

impl From<Value> for Data {
    fn from(data: Value) -> Self {
        Self { data, total: None }
    }
}

/// A call of an API method.
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) caller: Caller,
    pub(super) method: Method,
    /// Decoded path segments behind `/api2/json`.
    pub(super) path: Vec<String>,
    pub(super) params: Params,
}

impl Call {
    /// 403 unless the caller has any of `privileges` at `path`.
    pub(super) fn need(&self, path: &str, privileges: &[&str]) -> Result<(), No> {
        let may = self.shared.read(|w| w.access.may(&self.caller.who, path, privileges));
        if may {
            Ok(())
        } else {
            Err(No::Says(403, format!("Permission check failed ({path}, {})", privileges.join("|"))))
        }
    }

    /// The call goes to `node`: 500 where there is none of that name, 595 where it does not answer.
    pub(super) fn proxy(&self, node: &str) -> Result<(), No> {
        match self.shared.read(|w| w.hosts.get(node).map(|h| h.online)) {
            Some(true) => Ok(()),
            Some(false) => Err(No::Bare(595, "No route to host".into())),
            None => Err(No::die(format!(
                "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
            ))),
        }
    }
}

fn api_path(request: &Request<Bytes>) -> Option<&str> {
    request.uri().path().strip_prefix("/api2/json").filter(|p| p.is_empty() || p.starts_with('/'))
}

fn classify(shared: &Shared, request: &Request<Bytes>) -> Class {
    let path = api_path(request).unwrap_or_default();
    if path == "/access/ticket" || path == "/access/permissions" {
        return Class::Login;
    }
    if request.method() == Method::GET {
        return Class::Read;
    }
    if path.ends_with("/agent/ping") {
        return Class::Ping;
    }
    if path.ends_with("/agent/exec") {
        let argv = Params::read(request).map(|p| p.list("command")).unwrap_or_default();
        return if shared.read(|w| w.reads_only(&argv)) { Class::Look } else { Class::Change };
    }
    Class::Change
}

async fn handle(shared: Arc<Shared>, request: Request<Bytes>) -> Answer {
    let outcome = call(&shared, &request).await;
    if matches!(&outcome, Err(No::Stranger(_) | No::BadLogin)) {
        shared.clock.pause(BAD_CREDENTIALS).await;
    }
    match outcome {
        Ok(Data { data, total }) => {
            let mut body = json!({ "data": data });
            if let (Some(total), Some(map)) = (total, body.as_object_mut()) {
                map.insert("total".into(), total.into());
            }
            answer(StatusCode::OK, JSON, body.to_string())
        }
        Err(No::Verify(errors)) => {
            let text = "Parameter verification failed.";
            let body = json!({ "data": null, "errors": errors, "message": format!("{text}\n") });
            closing(with_reason(answer(StatusCode::BAD_REQUEST, JSON, body.to_string()), text))
        }
        Err(No::Says(status, text)) => error(code(status), &text),
        Err(No::BadLogin) => error(StatusCode::UNAUTHORIZED, "authentication failure"),
        Err(No::Bare(status, text)) => bare(code(status), &text),
        Err(No::Stranger(text)) => bare(StatusCode::UNAUTHORIZED, &text),
    }
}

async fn call(shared: &Arc<Shared>, request: &Request<Bytes>) -> Result<Data, No> {
    let method = request.method().clone();
    let no_such = |path: &str| No::Bare(501, format!("Method '{method} {path}' not implemented"));
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        return Err(No::Bare(501, "chunked transfer encoding not supported".into()));
    }
    if (method == Method::GET || method == Method::DELETE) && !request.body().is_empty() {
        return Err(No::Bare(501, format!("Unexpected content for method '{method}'")));
    }
    let Some(path) = api_path(request) else {
        return Err(No::Bare(501, format!("no such uri '{}'", request.uri().path())));
    };
    let params = Params::read(request)?;
    let segments: Vec<String> = path
        .split('/')
        .filter(|s| !s.is_empty())
        .map(|s| percent_decode_str(s).decode_utf8_lossy().into_owned())
        .collect();
    if segments == ["access", "ticket"] {
        return if method == Method::POST { auth::login(shared, request, &params) } else { Err(no_such(path)) };
    }
    let caller = auth::caller(shared, request)?;
    let call = Call { shared: shared.clone(), caller, method: method.clone(), path: segments, params };
    super::route::route(call).await.unwrap_or_else(|| Err(no_such(path)))
}

const JSON: &str = "application/json;charset=UTF-8";

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Every answer from 400 up ends the connection.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An error with the text in the reason phrase alone and an empty body.
fn bare(status: StatusCode, text: &str) -> Answer {
    closing(with_reason(answer(status, "", Bytes::new()), text))
}

/// An error as the API layer gives it: the text in the reason phrase and in the body. 59x come from the proxy in front
/// of it, without a body.
pub(super) fn error(status: StatusCode, text: &str) -> Answer {
    if status.as_u16() >= 590 {
        return bare(status, text);
    }
    let body = json!({ "data": null, "message": format!("{text}\n") });
    closing(with_reason(answer(status, JSON, body.to_string()), text))
}
