//! What can go wrong between us and a Kubernetes API, by the cause that an operator can act on.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::base::fault::{Effect, Fault};
use crate::base::permit::Refused;
use crate::base::private::PrivateError;
use crate::base::wait::show;

/// A source of any kind.
pub type Source = Box<dyn Error + Send + Sync>;

/// The request that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The cluster's name in the site file.
    pub cluster: String,
    /// Method and object, `PATCH nodes/k3s-vm-still-fawn`.
    pub request: String,
    /// True for a request that changes something.
    pub changing: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kubernetes `{}`: {}", self.cluster, self.request)
    }
}

/// The provider's error.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The kubeconfig or the TLS set-up is not usable.
    #[error("kubernetes `{cluster}`: kubeconfig {path}: {text}")]
    Setup {
        /// The cluster's name in the site file.
        cluster: String,
        /// The kubeconfig's path.
        path: String,
        /// What is wrong with it.
        text: String,
    },
    /// A file with credentials is not there, or others may read it. Nothing was sent.
    #[error("kubernetes `{cluster}`: its credentials cannot be used")]
    Private {
        /// The cluster's name in the site file.
        cluster: String,
        /// Why.
        #[source]
        source: PrivateError,
    },
    /// No connection: nothing was sent.
    #[error("{call}: the API cannot be reached")]
    Unreachable {
        /// The request.
        call: Call,
        /// The transport's reason.
        #[source]
        source: Source,
    },
    /// The server's certificate is not the expected one, or it does not want ours. Nothing was sent.
    #[error("{call}: TLS: {text}")]
    Certificate {
        /// The request.
        call: Call,
        /// What is wrong with which certificate.
        text: String,
    },
    /// 401, or no credentials could be got (exec plugin).
    #[error("{call}: the credentials are not accepted: {text}")]
    Unauthorized {
        /// The request.
        call: Call,
        /// The server's or the plugin's text.
        text: String,
    },
    /// 403.
    #[error("{call}: not allowed: {what}")]
    Forbidden {
        /// The request.
        call: Call,
        /// What exactly is not allowed to whom, in the server's words.
        what: String,
    },
    /// 404.
    #[error("{call}: not found: {text}")]
    NotFound {
        /// The request.
        call: Call,
        /// The server's text.
        text: String,
    },
    /// 409 AlreadyExists.
    #[error("{call}: it exists already: {text}")]
    Exists {
        /// The request.
        call: Call,
        /// The server's text.
        text: String,
    },
    /// 409: it changed meanwhile.
    #[error("{call}: conflict: {text}")]
    Conflict {
        /// The request.
        call: Call,
        /// The server's text.
        text: String,
    },
    /// 409 or 422: the object is not the one that was meant, its uid is another.
    #[error("{call}: it is another object by now: {text}")]
    Replaced {
        /// The request.
        call: Call,
        /// The server's text, with both uids.
        text: String,
    },
    /// 422: the object is not valid.
    #[error("{call}: not valid: {text}")]
    Invalid {
        /// The request.
        call: Call,
        /// The server's text with the fields.
        text: String,
    },
    /// 410: a list or a watch has to be started anew.
    #[error("{call}: the resource version is too old")]
    Expired {
        /// The request.
        call: Call,
    },
    /// 429 with a cause `DisruptionBudget`: a PodDisruptionBudget does not allow the eviction now.
    #[error("{call}: a PodDisruptionBudget is in the way: {text}")]
    DisruptionBudget {
        /// The request.
        call: Call,
        /// Budget and numbers, in the server's words.
        text: String,
        /// Seconds after which the server wants to be asked again; 0 where it does not say.
        retry_after: u32,
    },
    /// 429 without that cause: API priority and fairness.
    #[error("{call}: the API server throttles")]
    Throttled {
        /// The request.
        call: Call,
        /// Seconds after which it wants to be asked again; 0 where it does not say.
        retry_after: u32,
    },
    /// 5xx.
    #[error("{call}: the API server failed with {code}: {text}")]
    Server {
        /// The request.
        call: Call,
        /// The HTTP code.
        code: u16,
        /// The server's text.
        text: String,
    },
    /// Any other refusal, and a body with `status: Failure` under a code that says success.
    #[error("{call}: refused with {code}: {text}")]
    Refused {
        /// The request.
        call: Call,
        /// The code in the body, else the HTTP code.
        code: u16,
        /// The server's text.
        text: String,
    },
    /// No whole answer came back. A change was sent; a question may have been.
    #[error("{call}: {}no whole answer came", if call.changing { "sent, but " } else { "" })]
    LostAnswer {
        /// The request.
        call: Call,
        /// The transport's reason.
        #[source]
        source: Source,
    },
    /// A whole answer that is not what it has to be.
    #[error("{call}: the answer is not understood: {text}")]
    BadAnswer {
        /// The request.
        call: Call,
        /// Where it stops to make sense; never the answer itself, which may hold a secret.
        text: String,
    },
    /// A wait came to its end.
    #[error("kubernetes `{cluster}`: {what}: not within {}{}", show(*.waited), last.as_deref().map(|l| format!("; last seen: {l}")).unwrap_or_default())]
    Deadline {
        /// The cluster's name in the site file.
        cluster: String,
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen last.
        last: Option<String>,
    },
    /// What was waited for cannot come any more.
    #[error("kubernetes `{cluster}`: {what}: will not happen: {why}")]
    Hopeless {
        /// The cluster's name in the site file.
        cluster: String,
        /// What was waited for.
        what: String,
        /// Why it cannot come.
        why: String,
    },
    /// The cluster does not serve this kind.
    #[error("kubernetes `{cluster}`: the kind `{kind}` of `{group}` is not served")]
    NoKind {
        /// The cluster's name in the site file.
        cluster: String,
        /// The API group, `core` for the first.
        group: String,
        /// The kind.
        kind: String,
    },
    /// The permit does not let the change go out.
    #[error(transparent)]
    Permit(#[from] Refused),
    /// The change went out and what it left could not be written down.
    #[error("{call}: the change was made and its trace could not be written down")]
    NotRecorded {
        /// The request.
        call: Call,
        /// Why not.
        #[source]
        source: Refused,
    },
}

/// No try has brought an answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer: {0}")]
pub(super) struct Silent(pub(super) String);

/// A source in its words alone.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Told {
    text: String,
    #[source]
    source: Option<Box<Told>>,
}

impl Told {
    fn of(error: &(dyn Error + 'static)) -> Self {
        Self { text: error.to_string(), source: error.source().map(|source| Box::new(Self::of(source))) }
    }
}

impl KubeError {
    /// The same failure for another one who waited for the same question; None where it is soon asked again.
    pub(super) fn again(&self) -> Option<Self> {
        let told = |source: &Source| -> Source { Box::new(Told::of(source.as_ref())) };
        Some(match self {
            Self::Unreachable { call, source } => Self::Unreachable { call: call.clone(), source: told(source) },
            Self::LostAnswer { call, source } => Self::LostAnswer { call: call.clone(), source: told(source) },
            Self::Throttled { call, retry_after } => Self::Throttled { call: call.clone(), retry_after: *retry_after },
            Self::Server { call, code, text } => Self::Server { call: call.clone(), code: *code, text: text.clone() },
            _ => return None,
        })
    }

    /// The request, where the error is about one.
    pub fn call(&self) -> Option<&Call> {
        match self {
            Self::Unreachable { call, .. }
            | Self::Certificate { call, .. }
            | Self::Unauthorized { call, .. }
            | Self::Forbidden { call, .. }
            | Self::NotFound { call, .. }
            | Self::Exists { call, .. }
            | Self::Conflict { call, .. }
            | Self::Replaced { call, .. }
            | Self::Invalid { call, .. }
            | Self::Expired { call }
            | Self::DisruptionBudget { call, .. }
            | Self::Throttled { call, .. }
            | Self::Server { call, .. }
            | Self::Refused { call, .. }
            | Self::LostAnswer { call, .. }
            | Self::BadAnswer { call, .. }
            | Self::NotRecorded { call, .. } => Some(call),
            Self::Setup { .. }
            | Self::Private { .. }
            | Self::Deadline { .. }
            | Self::Hopeless { .. }
            | Self::NoKind { .. }
            | Self::Permit(_) => None,
        }
    }

    /// True for 404.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

impl Fault for KubeError {
    fn effect(&self) -> Effect {
        match self {
            // A 503 comes from in front of the storage as well as from a proxy behind which it was done; only
            // what is refused by rule is known to have changed nothing.
            Self::Server { call, .. } | Self::LostAnswer { call, .. } | Self::BadAnswer { call, .. }
                if call.changing =>
            {
                Effect::Maybe
            }
            Self::Permit(refused) => refused.effect(),
            Self::NotRecorded { .. } => Effect::Partial,
            _ => Effect::None,
        }
    }

    fn retryable(&self) -> bool {
        if self.effect() != Effect::None {
            return false;
        }
        match self {
            Self::Unreachable { .. }
            | Self::Throttled { .. }
            | Self::Expired { .. }
            | Self::DisruptionBudget { .. }
            | Self::Deadline { .. }
            | Self::LostAnswer { .. } => true,
            Self::Server { code, .. } => matches!(code, 502..=504),
            _ => false,
        }
    }

    /// Another object under the same name is for a person to judge: the engine does not look again by itself.
    fn stale(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    fn help(&self) -> Option<String> {
        let text = match self {
            Self::Private { source, .. } => return source.help(),
            Self::Setup { .. } => "see `kubeconfig` and `context` of this cluster in the site file".into(),
            Self::Unreachable { call, .. } => {
                format!("is the API server of `{}` up, and does the kubeconfig name its address?", call.cluster)
            }
            Self::Certificate { .. } => {
                "a rebuilt cluster has another authority: fetch its kubeconfig again; waiting will not help".into()
            }
            Self::Unauthorized { .. } => "the kubeconfig's credentials are expired or of another cluster".into(),
            Self::Forbidden { .. } => {
                "grant this to the kubeconfig's user; `pvemig plan MIGRATION` lists all that is missing".into()
            }
            Self::Conflict { .. } => "somebody else keeps changing it: find out who, then go on".into(),
            Self::Replaced { .. } => {
                "somebody deleted it and made it anew in between: look at the one that is there now before you go on"
                    .into()
            }
            Self::DisruptionBudget { .. } => {
                "see which pods of the budget are not ready (`kubectl get pdb -A`); scale up or adjust the budget"
                    .into()
            }
            Self::Refused { text, .. } if text.contains("more than one PodDisruptionBudget") => {
                "two budgets match this pod, which can never be evicted: remove one of them".into()
            }
            Self::Throttled { .. } | Self::Server { code: 503 | 504, .. } => "try again in a while".into(),
            Self::LostAnswer { call, .. } if call.changing => "`pvemig resume` looks before it sends anything".into(),
            Self::LostAnswer { call, .. } => {
                format!(
                    "the API server of `{}` may be starting, overloaded or hung: look again in a while",
                    call.cluster
                )
            }
            Self::NoKind { .. } => "is the add-on installed in this cluster?".into(),
            Self::Permit(refused) | Self::NotRecorded { source: refused, .. } => return refused.help(),
            _ => return None,
        };
        Some(text)
    }
}
