//! From a failed call to its cause.
//!
//! A status comes from the node, or it is made by the library where no answer came; the latter has a source, which is
//! looked through. What a change left behind hangs on which of the two it is.

use rustls::{AlertDescription as Alert, CertificateError};
use tonic::{Code, Status};

use crate::base::fault::Effect;

use super::certificate::Dates;
use super::error::Error;
use super::line::NoLine;

/// Who asked, whom, and how.
pub(super) struct Asked<'a> {
    pub(super) at: &'a str,
    pub(super) changing: bool,
    pub(super) roles: &'a [String],
    /// The client certificate in words; empty in maintenance mode.
    pub(super) client: String,
    /// How its dates stood when the way was prepared.
    pub(super) dates: Option<Dates>,
    /// What the node said about the connection when it ended it.
    pub(super) alert: Option<Alert>,
    /// The node ended the connection without a word on it.
    pub(super) unheard: bool,
}

impl Asked<'_> {
    /// What may have been changed where nobody knows whether the request arrived.
    fn maybe(&self) -> Effect {
        if self.changing { Effect::Maybe } else { Effect::None }
    }

    /// The error behind a status.
    pub(super) fn error(&self, status: &Status) -> Error {
        match std::error::Error::source(status) {
            Some(source) => match find::<NoLine>(source) {
                Some(no_line) => self.no_line(no_line),
                None => self.lost(innermost(source)),
            },
            None => self.refused(status),
        }
    }

    /// No connection came about: nothing was sent.
    pub(super) fn no_line(&self, no_line: &NoLine) -> Error {
        let at = self.at.to_owned();
        let error = match no_line {
            NoLine::Unreachable(why) => return Error::Unreachable { at, why: why.clone() },
            NoLine::Tls(error) => error,
        };
        let why = error.to_string();
        match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                // All authorities of Talos have the same name, so that another one is found out by its signature.
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::Other(_)
                | CertificateError::InvalidPurpose => Error::UnknownIssuer { at, why },
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Error::OutOfDate { at, why },
                _ => Error::Untrusted { at, why },
            },
            rustls::Error::General(why) => Error::Untrusted { at, why: why.clone() },
            rustls::Error::AlertReceived(alert) if about_certificates(*alert) => self.client_refused(*alert),
            _ => Error::Unreachable { at, why: format!("TLS: {why}") },
        }
    }

    /// A connection that was there, and no answer.
    pub(super) fn lost(&self, why: String) -> Error {
        let at = self.at.to_owned();
        match self.alert {
            Some(alert) if about_certificates(alert) => return self.client_refused(alert),
            // In TLS 1.3 the node looks at our certificate when the connection is there already for us.
            None if self.unheard && !self.client.is_empty() => {
                let why = "it ended the connection before it said anything".to_owned();
                let (client, dates, effect) = (self.client.clone(), self.dates, self.maybe());
                return Error::ClientRefused { at, client, dates, why, certain: false, effect };
            }
            _ => {}
        }
        if self.changing { Error::LostAnswer { at, why } } else { Error::NoAnswer { at, why } }
    }

    /// No request is looked at before the certificate is.
    fn client_refused(&self, alert: Alert) -> Error {
        let at = self.at.to_owned();
        let client = if self.client.is_empty() { "none was shown".into() } else { self.client.clone() };
        let dates = self.dates;
        Error::ClientRefused { at, client, dates, why: format!("{alert:?}"), certain: true, effect: Effect::None }
    }

    /// The node's own word.
    fn refused(&self, status: &Status) -> Error {
        let (at, why) = (self.at.to_owned(), status.message().trim().to_owned());
        if is_cut(status.code(), &why) {
            return self.lost("the answer ended in the middle, without a status".into());
        }
        match status.code() {
            // We offer no compression, so that it says nothing of the call.
            Code::Unimplemented if why.contains("Content is compressed with") => {
                Error::BadAnswer { at, why, effect: self.maybe() }
            }
            // apid and the state of resources say so of a type or a namespace that they do not know.
            Code::PermissionDenied if why.contains("is not supported") => Error::NoSuchKind { at, why },
            Code::PermissionDenied if why.contains("no request forwarding") => Error::NotForwarded { at, why },
            Code::PermissionDenied | Code::Unauthenticated => Error::Denied { at, roles: self.roles.to_vec(), why },
            Code::FailedPrecondition => Error::NotReady { at, why },
            Code::Unimplemented if why.contains("only available on control plane nodes") => {
                Error::NotControlPlane { at, why }
            }
            Code::Unimplemented => Error::NotImplemented { at, why },
            Code::NotFound => Error::NotFound { at, why },
            Code::AlreadyExists => Error::Exists { at, why },
            Code::InvalidArgument => Error::Invalid { at, why },
            Code::Unavailable => Error::Unavailable { at, why, effect: self.maybe() },
            Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled | Code::Aborted => {
                Error::GaveUp { at, why: format!("{:?}: {why}", status.code()), effect: self.maybe() }
            }
            // The library's own words for what it could not read come as these two, and without a source.
            Code::Internal | Code::OutOfRange if is_local(&why) => Error::BadAnswer { at, why, effect: self.maybe() },
            code => Error::Unexpected { at, code: format!("{code:?}"), why, effect: self.maybe() },
        }
    }
}

/// Texts of tonic 0.14 about an answer that is not there as a whole: the node has not said what became of the call.
fn is_cut(code: Code, why: &str) -> bool {
    let texts = ["missing grpc-status trailer", "Unexpected EOF decoding stream"];
    matches!(code, Code::Unknown | Code::Internal) && texts.iter().any(|text| why.contains(text))
}

/// Texts of tonic 0.14 about an answer.
fn is_local(why: &str) -> bool {
    [
        "failed to decode Protobuf message",
        "decoded message length too large",
        "protocol error",
        "Missing response message",
    ]
    .iter()
    .any(|part| why.contains(part))
}

fn about_certificates(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
    )
}

/// The first error of this type in a chain.
pub(super) fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    match error.downcast_ref::<T>() {
        Some(found) => Some(found),
        None => find(error.source()?),
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
