//! What can go wrong with a Talos node, by the cause that somebody can act on.

use crate::base::fault::{Effect, Fault};
use crate::base::permit::Refused;

use super::certificate::Dates;
use super::talosconfig::{FROM_SECRETS, TalosconfigError};

/// An error of the Talos provider. `at` is the target: `talos node talos-20 (10.10.0.20)`.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant says what its fields are")]
pub enum Error {
    /// The talosconfig is of no use.
    #[error(transparent)]
    Config(#[from] TalosconfigError),
    /// Address or keys cannot be used.
    #[error("{at} cannot be used: {why}")]
    Setup { at: String, why: String },
    /// No connection; nothing was sent.
    #[error("{at}: no connection: {why}")]
    Unreachable { at: String, why: String },
    /// The node's certificate is of another authority than the talosconfig's; nothing was sent.
    #[error("{at}: its certificate is not of this cluster's authority: {why}")]
    UnknownIssuer { at: String, why: String },
    /// The node's certificate is not valid at this time; nothing was sent.
    #[error("{at}: its certificate is out of its dates: {why}")]
    OutOfDate { at: String, why: String },
    /// The node's certificate is not the one that was asked for, or not for this address; nothing was sent.
    #[error("{at}: it is not trusted: {why}")]
    Untrusted { at: String, why: String },
    /// The node refused the connection for our certificate. That comes with the first call, not with the connection; it
    /// is not certain where the node ended the connection without a word.
    #[error("{at}: it does not accept the client certificate ({client}): {why}")]
    ClientRefused { at: String, client: String, dates: Option<Dates>, why: String, certain: bool, effect: Effect },
    /// A question without an answer.
    #[error("{at}: no answer: {why}")]
    NoAnswer { at: String, why: String },
    /// A change was sent and its answer never came.
    #[error("{at}: the change was sent and its answer was lost: {why}")]
    LostAnswer { at: String, why: String },
    /// An answer that is not what the API promises.
    #[error("{at}: the answer cannot be read: {why}")]
    BadAnswer { at: String, why: String, effect: Effect },
    /// UNAVAILABLE: a part of the node is not there, as in the middle of a reboot.
    #[error("{at}: not available just now: {why}")]
    Unavailable { at: String, why: String, effect: Effect },
    /// PERMISSION_DENIED for our roles.
    #[error("{at}: not allowed to {}: {why}", roles.join(", "))]
    Denied { at: String, roles: Vec<String>, why: String },
    /// PERMISSION_DENIED for a kind of resource that this version does not have.
    #[error("{at}: this version of Talos does not have it: {why}")]
    NoSuchKind { at: String, why: String },
    /// PERMISSION_DENIED from a worker, which passes nothing on.
    #[error("{at}: it passes no requests on to other nodes: {why}")]
    NotForwarded { at: String, why: String },
    /// UNIMPLEMENTED: this version, or a node in maintenance, does not have the call.
    #[error("{at}: this version of Talos, or its maintenance mode, does not have the call: {why}")]
    NotImplemented { at: String, why: String },
    /// UNIMPLEMENTED on a worker: control planes alone have etcd, and give out kubeconfigs.
    #[error("{at}: it is no control plane: {why}")]
    NotControlPlane { at: String, why: String },
    /// FAILED_PRECONDITION: not in this state of the node.
    #[error("{at}: not in the state that this takes: {why}")]
    NotReady { at: String, why: String },
    /// NOT_FOUND.
    #[error("{at}: there is no such thing: {why}")]
    NotFound { at: String, why: String },
    /// ALREADY_EXISTS.
    #[error("{at}: it exists already: {why}")]
    Exists { at: String, why: String },
    /// INVALID_ARGUMENT: a machine configuration with an unknown field, a disk that may not be wiped.
    #[error("{at}: it refuses what was sent: {why}")]
    Invalid { at: String, why: String },
    /// More than a message may have; nothing was sent.
    #[error("{at}: what would be sent has {size} bytes, and a node takes {most} at most")]
    TooLarge { at: String, size: usize, most: usize },
    /// The node's own deadline or limits.
    #[error("{at}: it gave up: {why}")]
    GaveUp { at: String, why: String, effect: Effect },
    /// Another sequence holds the node's lock. The call itself was answered with OK.
    #[error("{at}: the sequence {sequence} was not begun, another one is running: {why}")]
    Busy { at: String, sequence: String, why: String },
    /// A sequence failed after its call was answered with OK.
    #[error("{at}: the sequence {sequence} failed: {why}")]
    SequenceFailed { at: String, sequence: String, why: String },
    /// The installer failed under a status that says OK.
    #[error("{at}: the installer ended with {code}{}", said.as_deref().map(|s| format!(": {s}")).unwrap_or_default())]
    InstallerFailed { at: String, code: i32, said: Option<String> },
    /// A snapshot of etcd whose digest is not that of its content, or that is cut short.
    #[error("{at}: the snapshot of etcd is of no use: {why}")]
    BadSnapshot { at: String, why: String },
    /// A file of this machine cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    File { path: std::path::PathBuf, source: std::io::Error },
    /// Any other refusal.
    #[error("{at}: {code}: {why}")]
    Unexpected { at: String, code: String, why: String, effect: Effect },
    /// The permit does not let the change go out.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The change went out and what it left could not be written down.
    #[error("{at}: the change was made and its trace could not be written down")]
    NotRecorded {
        at: String,
        #[source]
        source: Refused,
    },
}

impl Error {
    /// True for what a node says, or does not say, while it goes down and comes up again: nothing of it is a result.
    pub fn is_down(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NoAnswer { .. }
                | Self::Unavailable { .. }
                | Self::GaveUp { .. }
                | Self::OutOfDate { .. }
                | Self::ClientRefused { certain: false, .. }
        )
    }
}

impl Error {
    /// With other words of the node, where it said something.
    pub(super) fn said(mut self, words: impl FnOnce(&str) -> String) -> Self {
        match &mut self {
            Self::BadAnswer { why, .. }
            | Self::Unavailable { why, .. }
            | Self::Denied { why, .. }
            | Self::NotImplemented { why, .. }
            | Self::NotReady { why, .. }
            | Self::NotFound { why, .. }
            | Self::Exists { why, .. }
            | Self::Invalid { why, .. }
            | Self::GaveUp { why, .. }
            | Self::Unexpected { why, .. } => *why = words(why),
            _ => {}
        }
        self
    }
}

impl Fault for Error {
    fn effect(&self) -> Effect {
        match self {
            Self::LostAnswer { .. } => Effect::Maybe,
            Self::BadAnswer { effect, .. }
            | Self::Unavailable { effect, .. }
            | Self::GaveUp { effect, .. }
            | Self::ClientRefused { effect, .. }
            | Self::Unexpected { effect, .. } => *effect,
            Self::SequenceFailed { .. } | Self::InstallerFailed { .. } | Self::NotRecorded { .. } => Effect::Partial,
            Self::Refused(refused) => refused.effect(),
            _ => Effect::None,
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::NotReady { .. } | Self::Busy { .. } => true,
            Self::Unavailable { effect, .. } | Self::GaveUp { effect, .. } => *effect == Effect::None,
            _ => false,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Config(error) => return error.help(),
            Self::Setup { .. } => "correct the node's entry in the site file; `pvemig site check` reads it".into(),
            Self::Unreachable { .. } => {
                "is the node up, and is the port of its address (50000 where none is named) open to this machine?".into()
            }
            Self::UnknownIssuer { at, .. } => format!(
                "the node is in maintenance mode (booted without a configuration) or of another cluster, which \
                 `talosctl get machinestatus --insecure -n {}` tells; where all nodes fail so, the `ca` of the talosconfig \
                 is another cluster's",
                address_in(at)
            ),
            Self::OutOfDate { .. } => {
                "one of the two clocks is wrong: certificates of nodes hold for a day; compare `date -u` here with \
                 `talosctl time`, and wait for the node's time to be set"
                    .into()
            }
            Self::Untrusted { .. } => {
                "name an address or host name that is in the node's certificate, or compare the fingerprint with that on \
                 its console"
                    .into()
            }
            Self::ClientRefused { dates: Some(Dates::Early), .. } => {
                "it does not hold yet: is the clock of this machine right? `date -u` shows it".into()
            }
            // One that is not let in makes no other one.
            Self::ClientRefused { .. } => {
                format!("take the talosconfig that the cluster was made with, or make one from its secrets: {FROM_SECRETS}")
            }
            Self::NoAnswer { at, .. } => format!(
                "it is there, and does not answer: it may be starting, going down or hung; its console says more, and \
                 `talosctl -n {} version` asks by hand",
                address_in(at)
            ),
            Self::LostAnswer { .. } => "nothing is sent again blindly: `pvemig resume` looks first".into(),
            Self::BadAnswer { at, effect, .. } => {
                let first = match effect {
                    Effect::None => "",
                    _ => "`pvemig resume` looks first at what came of it; ",
                };
                let address = address_in(at);
                format!("{first}`talosctl -n {address} version` tells what answers there: it is to be Talos 1.11 to 1.14")
            }
            Self::Unavailable { .. } => "the node may be starting or going down: look again in a while".into(),
            Self::GaveUp { .. } => "the node may be busy, or starting: look again in a while".into(),
            Self::NotFound { at, .. } => format!(
                "see what the node has: `talosctl -n {0} get disks`, `talosctl -n {0} etcd members`, `talosctl -n {0} ls`",
                address_in(at)
            ),
            Self::Exists { at, .. } => {
                format!("see who was there before: `talosctl -n {} etcd members`", address_in(at))
            }
            Self::Invalid { .. } => "correct what it names: none of it was taken".into(),
            Self::TooLarge { .. } => "what makes it so large goes elsewhere: no node takes it".into(),
            Self::Unexpected { at, effect, .. } => {
                let first = match effect {
                    Effect::None => "",
                    _ => "`pvemig resume` looks first at what came of it; ",
                };
                format!("{first}`talosctl -n {} dmesg` says more", address_in(at))
            }
            Self::File { .. } => "look at its rights, and at the room on its disk".into(),
            Self::Denied { .. } => {
                "name a talosconfig with the role os:admin; who has one makes another: `talosctl --talosconfig HIS -n NODE \
                 config new FILE --roles os:admin`"
                    .into()
            }
            Self::NotForwarded { .. } => "name the node's own address, or that of a control plane, as endpoint".into(),
            Self::NoSuchKind { .. } => "this is no matter of roles: `talosctl get rd` lists what the node knows".into(),
            Self::NotImplemented { .. } => "`talosctl version` and the stage of the node say what it can do".into(),
            Self::NotControlPlane { .. } => "ask a control plane".into(),
            Self::NotReady { .. } => "wait, and look again: the node says what is missing".into(),
            Self::Busy { .. } => "wait for the other sequence to end: `talosctl events` shows it".into(),
            Self::SequenceFailed { .. } | Self::InstallerFailed { .. } => {
                "`talosctl dmesg` of the node says more; it goes on with what it had before".into()
            }
            Self::BadSnapshot { .. } => "take another one, of a healthy member".into(),
            Self::Refused(refused) => return refused.help(),
            Self::NotRecorded { .. } => "make room or rights in the state directory, then `pvemig resume`".into(),
        })
    }
}

/// The address in a target's words, `talos node talos-20 (10.10.0.20)`.
fn address_in(at: &str) -> &str {
    at.rsplit_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("ADDRESS", |(address, _)| address)
}
