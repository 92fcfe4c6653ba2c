//! From what the transport or the server said to the cause.

use std::error::Error;

use bytes::Bytes;
use http::StatusCode;
use kube::client::AuthError;
use kube::config::KubeconfigError;
use rustls::AlertDescription as Alert;
use serde::Deserialize;

use super::error::{Call, KubeError, Source};

/// The parts of a meta/v1 Status that matter.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) message: String,
    pub(super) reason: String,
    pub(super) code: u16,
    pub(super) details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Details {
    pub(super) causes: Vec<Cause>,
    pub(super) retry_after_seconds: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cause {
    pub(super) field: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// The cause of a code that is not 2xx.
pub(super) fn refused(call: Call, code: StatusCode, retry_after: Option<u32>, body: &Bytes) -> KubeError {
    match serde_json::from_slice::<Status>(body) {
        Ok(mut status) if status.kind == "Status" => {
            if status.details.retry_after_seconds == 0 {
                status.details.retry_after_seconds = retry_after.unwrap_or(0);
            }
            by_status(call, code.as_u16(), status)
        }
        // Proxies answer in HTML or plain text.
        _ => {
            let text = String::from_utf8_lossy(body);
            let message = text.trim().chars().take(200).collect();
            let details = Details { causes: Vec::new(), retry_after_seconds: retry_after.unwrap_or(0) };
            let status = Status { message, details, ..Status::default() };
            // "Not there" is only believed from the API itself: a proxy's 404 says nothing about the object.
            match code {
                StatusCode::NOT_FOUND => KubeError::Refused { call, code: 404, text: status.message },
                _ => by_status(call, code.as_u16(), status),
            }
        }
    }
}

/// The cause that a Status states. The code in the body counts where there is one.
pub(super) fn by_status(call: Call, code: u16, status: Status) -> KubeError {
    let code = if status.code == 0 { code } else { status.code };
    let retry_after = status.details.retry_after_seconds;
    let causes = status.details.causes;
    let text = if status.message.is_empty() { status.reason.clone() } else { status.message };
    match code {
        401 => KubeError::Unauthorized { call, text },
        403 => KubeError::Forbidden { call, what: text },
        404 => KubeError::NotFound { call, text },
        409 if status.reason == "AlreadyExists" => KubeError::Exists { call, text },
        409 if another_uid(&text) => KubeError::Replaced { call, text },
        409 => KubeError::Conflict { call, text },
        410 => KubeError::Expired { call },
        // A patch that carries the uid it means is refused as a change of an immutable field where the object is
        // another one by now (pkg/controller/controller_ref_manager.go reads it the same way).
        422 if causes.iter().any(|cause| cause.field == "metadata.uid") => KubeError::Replaced { call, text },
        422 => KubeError::Invalid { call, text },
        429 => match causes.into_iter().find(|cause| cause.reason == "DisruptionBudget") {
            Some(cause) => {
                let text = if cause.message.is_empty() { text } else { cause.message };
                KubeError::DisruptionBudget { call, text, retry_after }
            }
            None => KubeError::Throttled { call, retry_after },
        },
        // A failure told under another code (two budgets): it was refused, nothing happened.
        500 if text.contains("more than one PodDisruptionBudget") => KubeError::Refused { call, code, text },
        500.. => KubeError::Server { call, code, text },
        _ => KubeError::Refused { call, code, text },
    }
}

/// True where a precondition on the uid failed. Before a delete or an eviction the server looks itself (apiserver
/// `registry/rest/delete.go`, `BeforeDelete`: "the UID in the precondition (..) does not match the UID in record (..)");
/// its storage says it in other words ("Precondition failed: UID in precondition: .., UID in object meta: ..").
fn another_uid(text: &str) -> bool {
    ["the UID in the precondition (", "UID in precondition: "].iter().any(|words| text.contains(words))
}

/// Why a kubeconfig cannot be read: of a text that does not parse the place alone, as the error quotes what is there.
pub(super) fn kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => match error.location() {
            Some(at) => format!("it is no kubeconfig, see line {}, column {}", at.line(), at.column()),
            None => "it is no kubeconfig".into(),
        },
        // The error's own text has the path once more, in quotes of two kinds.
        KubeconfigError::ReadConfig(error, _) => format!("it cannot be read: {error}"),
        other => other.to_string(),
    }
}

/// Why no client can be made.
pub(super) fn setup(error: &kube::Error) -> String {
    match find::<AuthError>(error) {
        Some(auth) => credentials(auth),
        None => error.to_string(),
    }
}

/// Why there are no credentials; without a plugin's command line and output.
fn credentials(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { out, .. } => format!("the credential plugin of its user ended with {}", out.status),
        AuthError::AuthExecParse(_) => "the credential plugin of its user gave no ExecCredential".into(),
        other => other.to_string(),
    }
}

/// The cause of a transport error.
pub(super) fn transport(call: Call, error: kube::Error) -> KubeError {
    if let Some(tls) = find::<rustls::Error>(&error) {
        let about_certificates = match tls {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => true,
            rustls::Error::AlertReceived(alert) => matches!(
                alert,
                Alert::CertificateRequired
                    | Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::AccessDenied
            ),
            _ => false,
        };
        if about_certificates {
            let text = tls.to_string();
            return KubeError::Certificate { call, text };
        }
    }
    if let Some(auth) = find::<AuthError>(&error) {
        let text = credentials(auth);
        return KubeError::Unauthorized { call, text };
    }
    if find::<hyper_util::client::legacy::Error>(&error).is_some_and(|e| e.is_connect()) {
        return KubeError::Unreachable { call, source: innermost(error) };
    }
    KubeError::LostAnswer { call, source: innermost(error) }
}

/// The first error of a type in a chain, looking also into the errors that an `io::Error` carries.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref()) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// kube wraps a transport error in layers that each repeat the next one's text: keep the one that says it.
fn innermost(error: kube::Error) -> Source {
    let text = {
        let mut last: &(dyn Error + 'static) = &error;
        loop {
            let inner = match last.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref()) {
                Some(inner) => Some(inner as &(dyn Error + 'static)),
                None => last.source(),
            };
            match inner {
                Some(inner) => last = inner,
                None => break last.to_string(),
            }
        }
    };
    text.into()
}
