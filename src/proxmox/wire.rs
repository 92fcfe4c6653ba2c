//! The parts of a request and of an answer, and what can be read out of a failed one.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Url};
use serde_json::Value;

use super::error::Error;
use super::refusal::Refusal;
use super::vm::VmRef;

/// What stays as it is in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What goes with a request.
#[derive(Debug, Default)]
pub(super) enum Body {
    #[default]
    Empty,
    /// Parameters as JSON: arrays, newlines and UTF-8 need no thought, and flags go as 0 and 1.
    Json(Value),
    /// Parameters as a form.
    Form(Vec<(&'static str, String)>),
}

/// A request. `path` is below `/api2/json`, segments already encoded; `target` is the thing for error texts.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Body,
    pub(super) target: String,
    /// The VM that it is about, where it is about one: what the answer says of its place is remembered.
    pub(super) vm: Option<VmRef>,
}

impl Call {
    pub(super) fn get(path: impl Into<String>, target: impl Into<String>) -> Self {
        Self::new(Method::GET, path, target)
    }

    pub(super) fn new(method: Method, path: impl Into<String>, target: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: Body::Empty, target: target.into(), vm: None }
    }

    pub(super) fn about(mut self, vm: &VmRef) -> Self {
        self.vm = Some(vm.clone());
        self
    }

    pub(super) fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    pub(super) fn json(mut self, body: Value) -> Self {
        self.body = Body::Json(body);
        self
    }

    /// `POST /nodes/still-fawn/qemu/108/config`, for notes.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Encodes one path segment.
pub(super) fn seg(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The whole answer: `data`, and beside it `total` and the like.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) data: Value,
    pub(super) total: Option<u64>,
}

/// Why one attempt brought no answer.
pub(super) enum Miss {
    /// Not sent.
    Unsent(Error),
    /// Sent, and lost; the text says how.
    Lost(String),
    /// The server refused.
    Refused(Refusal),
    /// 200 with something else than the API's shape.
    Garbled(String),
}

/// Checks one base URL. A path like `/api2/json` is dropped.
pub(super) fn base_url(text: &str, trusted: bool) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("url `{text}`: {error}"))?;
    let host = url.host_str().ok_or_else(|| format!("url `{text}` has no host"))?;
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" if trusted => {}
        "https" => return Err(format!("url `{text}` needs `fingerprint`, `fingerprints` or `ca`")),
        "http" if loopback => {}
        "http" => return Err(format!("url `{text}` would send the credentials unencrypted")),
        other => return Err(format!("url `{text}`: `{other}` is neither https nor http")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials belong under `auth`, not into the url".into());
    }
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// What is wrong with an answer's shape. The error's own text quotes the value that does not fit, which may be secret.
pub(super) fn shape_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(", expected ") {
        Some((found, expected)) => {
            let kind = found.split(['`', '"']).next().unwrap_or_default().trim_end();
            format!("{kind}, expected {expected}")
        }
        None => text,
    }
}

/// The innermost text of an error's chain: the cause, without the client's layers.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// What is wrong with the certificate, where that is the reason.
pub(super) fn untrusted(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match error.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::General(why)) => return Some(why.clone()),
        Some(tls @ rustls::Error::InvalidCertificate(_)) => return Some(tls.to_string()),
        _ => {}
    }
    // The source of an io::Error is that of the error inside it, so the inner one is asked for by name.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match inner {
        Some(inner) => untrusted(inner),
        None => untrusted(error.source()?),
    }
}
