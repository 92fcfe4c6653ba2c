//! A request, taken apart.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Kube;
use super::kinds::{self, Kind};
use super::status::{Outcome, Refusal};

/// What a path names.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    /// None: all namespaces, or a kind without.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    /// Subresource, and for `proxy` the path behind it.
    pub(crate) part: Option<String>,
}

impl Target {
    /// The namespace, or nothing.
    pub(crate) fn space(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// The name, or nothing.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Decoded path segments.
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When it is answered.
    pub(crate) now: jiff::Timestamp,
}

impl Call {
    pub(crate) fn of(request: &Request<Bytes>, now: jiff::Timestamp) -> Self {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
        };
        let uri = request.uri();
        Self {
            method: request.method().clone(),
            path: uri.path().split('/').filter(|s| !s.is_empty()).map(decode).collect(),
            query: uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()).map(pair).collect(),
            headers: request.headers().clone(),
            body: request.body().clone(),
            now,
        }
    }

    /// A query parameter.
    pub(crate) fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Whether a query parameter is on.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        matches!(self.query(key), Some("true" | "1"))
    }

    /// Nothing is to be kept.
    pub(crate) fn dry(&self) -> bool {
        self.query.iter().any(|(k, v)| k == "dryRun" && v == "All")
            || self.json().is_ok_and(|b| {
                let here = |pointer: &str| super::json::list(&b, pointer).iter().any(|v| v.as_str() == Some("All"));
                match (self.method.as_str(), self.part()) {
                    ("DELETE", _) => here("/dryRun"),
                    ("POST", Some("eviction")) => here("/deleteOptions/dryRun"),
                    _ => false,
                }
            })
    }

    fn part(&self) -> Option<&str> {
        self.path.last().map(String::as_str)
    }

    /// The field manager: the parameter, or the program's name.
    pub(crate) fn manager(&self) -> &str {
        self.query("fieldManager").unwrap_or_else(|| {
            let agent = self.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
            agent.split('/').next().filter(|a| !a.is_empty()).unwrap_or("unknown")
        })
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The body, JSON or YAML. An empty one is null.
    pub(crate) fn json(&self) -> Outcome<Value> {
        let kind = self.header(header::CONTENT_TYPE);
        if kind.contains("protobuf") || kind.contains("cbor") {
            return Err(Refusal::media(format!("the body of the request was in an unknown format: {kind}")));
        }
        let text = std::str::from_utf8(&self.body).map_err(|_| Refusal::bad("the body is not UTF-8"))?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        if kind.contains("yaml") && !text.trim_start().starts_with('{') {
            return serde_saphyr::from_str(text).map_err(|e| Refusal::bad(format!("error decoding YAML: {e}")));
        }
        serde_json::from_str(text)
            .map_err(|e| Refusal::bad(format!("couldn't get version/kind; json parse error: {e}")))
    }

    /// What the path names, where it names an object or a list.
    pub(crate) fn target(&self, kube: &Kube) -> Outcome<Target> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let (group, version, rest) = match path.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Refusal::no_path()),
        };
        if kube.absent.contains(group) {
            return Err(Refusal::no_path());
        }
        let (namespace, rest) = match rest {
            // `namespaces/x` and `namespaces/x/status` are about the namespace itself.
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", name, rest @ ..] => (Some((*name).to_owned()), rest),
            rest => (None, rest),
        };
        let [resource, rest @ ..] = rest else { return Err(Refusal::no_path()) };
        let kind = kinds::find(group, resource).filter(|k| k.version == version).ok_or_else(Refusal::no_path)?;
        let name = rest.first().map(|n| (*n).to_owned());
        let part = rest.get(1).map(|p| (*p).to_owned());
        let known = part.as_deref().is_none_or(|p| kind.has(p));
        let placed = kind.namespaced == namespace.is_some() || (kind.namespaced && name.is_none());
        if !known || !placed || (rest.len() > 2 && part.as_deref() != Some("proxy")) {
            return Err(Refusal::no_path());
        }
        Ok(Target { kind, namespace, name, part })
    }

    /// The form in which objects are to be answered.
    pub(crate) fn form(&self) -> Form {
        let accept = self.header(header::ACCEPT);
        for offer in accept.split(',') {
            if offer.contains("as=Table") {
                return Form::Table;
            }
            if offer.contains("as=PartialObjectMetadata") {
                return Form::Metadata;
            }
            if !offer.contains("protobuf") && !offer.contains("cbor") {
                break;
            }
        }
        Form::Whole
    }
}

/// How objects are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Whole,
    /// As a table for people.
    Table,
    /// Their metadata alone.
    Metadata,
}
