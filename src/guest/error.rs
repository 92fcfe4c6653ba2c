//! What can go wrong on the way into a guest, by the cause that somebody can act on.

use std::path::PathBuf;

use crate::base::fault::{Effect, Fault};
use crate::base::permit::Refused;
use crate::base::private::PrivateError;
use crate::base::wait;
use crate::proxmox;

use super::agent;

/// How far an ssh route got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Looking up the name.
    Name,
    /// The TCP connection.
    Connect,
    /// From the banner to the end of the key exchange.
    KeyExchange,
    /// Authentication and opening of the channel.
    Login,
    /// The command was sent; whether it was started is not known.
    Start,
    /// The command runs.
    Command,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Name => "looking up the name",
            Self::Connect => "connecting",
            Self::KeyExchange => "in the key exchange",
            Self::Login => "logging in",
            Self::Start => "starting the command",
            Self::Command => "running the command",
        })
    }
}

/// An error of guest access. `at` is the route with its address: `ssh root@10.0.0.8`.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant says what its fields are")]
pub enum Error {
    /// Nobody listens there.
    #[error("{at}: connection refused")]
    ConnectionRefused { at: String },
    /// The name is not known.
    #[error("{at}: the name {name} is not known: {why}")]
    NameNotFound { at: String, name: String, why: String },
    /// No way there.
    #[error("{at}: not reachable: {why}")]
    Unreachable { at: String, why: String },
    /// Silence.
    #[error("{at}: no answer within {} ({phase})", wait::show(*limit))]
    TimedOut { at: String, phase: Phase, limit: std::time::Duration },
    /// The file of known hosts cannot be read.
    #[error("{at}: {} cannot be read", path.display())]
    KnownHosts {
        at: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The host is not recorded. `line` is what would have to be added.
    #[error("{at}: {} does not know this host, which shows the key {fingerprint}{}", path.display(), more(remarks))]
    HostKeyUnknown { at: String, path: PathBuf, line: String, fingerprint: String, remarks: Vec<String> },
    /// The host shows another key than the recorded one.
    #[error("{at}: the host key is not the one in {}:{line}; it shows {fingerprint}", path.display())]
    HostKeyChanged { at: String, path: PathBuf, line: usize, name: String, fingerprint: String },
    /// The key that the host shows is marked as revoked.
    #[error("{at}: the host shows a key that {}:{line} marks as revoked", path.display())]
    HostKeyRevoked { at: String, path: PathBuf, line: usize },
    /// Only RSA keys are recorded.
    #[error("{at}: {} holds only an RSA key for this host, and RSA host keys cannot be verified here", path.display())]
    HostKeyRsa { at: String, path: PathBuf, scan: String },
    /// The host shows a certificate.
    #[error("{at}: the host shows a certificate instead of a key, which is not supported")]
    HostCertificate { at: String },
    /// The key cannot be read.
    #[error("the ssh key {key} cannot be used: {why}")]
    Key { key: String, why: String },
    /// The key file is not there, or others may read it.
    #[error("the ssh key cannot be used")]
    KeyFile(#[source] PrivateError),
    /// An RSA key.
    #[error("the ssh key {key} is an RSA key, which cannot be used here")]
    RsaKey { key: String },
    /// A key with a passphrase.
    #[error("the ssh key {key} is protected by a passphrase")]
    EncryptedKey { key: String },
    /// The key is not accepted.
    #[error("{at}: the key {fingerprint} is not accepted")]
    AuthRefused { at: String, fingerprint: String },
    /// Nothing in common.
    #[error("{at}: no {what} in common; here {ours}, there {theirs}")]
    NoCommonAlgorithm { at: String, what: &'static str, ours: String, theirs: String },
    /// The connection ended.
    #[error("{at}: the connection was lost ({phase})")]
    SessionLost { at: String, phase: Phase },
    /// The server does not run commands for this login.
    #[error("{at}: the server refuses to run commands")]
    ExecRefused { at: String },
    /// Something in the protocol.
    #[error("{at}: ssh failed ({phase})")]
    Protocol {
        at: String,
        phase: Phase,
        #[source]
        source: Box<russh::Error>,
    },
    /// `qm guest exec` on the host did not serve and nothing was started in the guest.
    #[error("{at}: {why}")]
    HostExec { at: String, why: String },
    /// `qm guest exec` started the command and its end is not known.
    #[error("{at}: the command was started and its end is not known: {why}")]
    HostExecLost { at: String, why: String },
    /// The way through the Proxmox API.
    #[error(transparent)]
    Agent(Box<proxmox::Error>),
    /// A question was answered by something that is no answer to it.
    #[error("{what}: {why}")]
    BadAnswer { what: String, why: String },
    /// The command cannot be sent.
    #[error("{what}")]
    BadCommand { what: String },
    /// The permit did not let the command go out.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It may have run.
    #[error("{guest}: `{command}` was sent by {route} and may have run; its answer was lost")]
    LostAnswer {
        guest: String,
        command: String,
        route: String,
        #[source]
        source: Box<Error>,
    },
    /// No route served.
    #[error("{guest}: no way in{}", each.iter().map(|(_, text)| format!("\n  {text}")).collect::<String>())]
    AllRoutes {
        guest: String,
        each: Vec<(String, String)>,
        effect: Effect,
        help: Option<String>,
        /// No route failed for a reason that passes by itself.
        lasting: bool,
    },
    /// The route cannot be tried.
    #[error("{at}: {why}")]
    Closed { at: String, why: String, help: Option<String>, lasting: bool },
    /// There is none.
    #[error("{guest}: the site names no route to it")]
    NoRoute { guest: String },
}

fn more(remarks: &[String]) -> String {
    remarks.iter().map(|remark| format!("; {remark}")).collect()
}

impl Error {
    /// True where the command was handed over and may have run.
    pub(super) fn may_have_run(&self) -> bool {
        match self {
            Self::TimedOut { phase, .. } | Self::SessionLost { phase, .. } | Self::Protocol { phase, .. } => {
                *phase >= Phase::Start
            }
            Self::Agent(source) => agent::may_have_run(source),
            Self::HostExecLost { .. } | Self::LostAnswer { .. } => true,
            _ => false,
        }
    }

    /// True where waiting does not mend it: a person has to (a host key, a login, a setting, a right).
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::KnownHosts { .. }
            | Self::HostKeyUnknown { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::HostKeyRsa { .. }
            | Self::HostCertificate { .. }
            | Self::Key { .. }
            | Self::KeyFile(_)
            | Self::RsaKey { .. }
            | Self::EncryptedKey { .. }
            | Self::AuthRefused { .. }
            | Self::NoCommonAlgorithm { .. }
            | Self::ExecRefused { .. }
            | Self::BadCommand { .. }
            | Self::NoRoute { .. } => true,
            Self::AllRoutes { lasting, .. } | Self::Closed { lasting, .. } => *lasting,
            Self::Agent(source) => agent::is_lasting(source),
            _ => false,
        }
    }

    /// The text with those of its sources, in one line.
    pub(super) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            line.push_str(&format!(": {error}"));
            source = error.source();
        }
        line
    }
}

impl Fault for Error {
    // A look changes nothing even where its answer is lost; a lost change comes as LostAnswer or AllRoutes.
    fn effect(&self) -> Effect {
        match self {
            Self::LostAnswer { .. } => Effect::Maybe,
            Self::AllRoutes { effect, .. } => *effect,
            _ => Effect::None,
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::ConnectionRefused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::SessionLost { .. }
            | Self::AllRoutes { effect: Effect::None, .. }
            | Self::Closed { lasting: false, .. } => true,
            Self::Agent(source) => source.retryable(),
            _ => false,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::ConnectionRefused { .. } => "is sshd running there, and is the port right?".into(),
            Self::NameNotFound { .. } | Self::Unreachable { .. } => "check `address` in the site file".into(),
            Self::TimedOut { phase, .. } if *phase < Phase::Start => "is it up, and is no firewall in between?".into(),
            Self::HostKeyUnknown { path, line, .. } => format!(
                "compare the key's fingerprint on the machine itself (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), \
                 then add this line to {}: {line}",
                path.display()
            ),
            Self::HostKeyChanged { path, name, .. } => format!(
                "if the machine was installed anew: `ssh-keygen -f {} -R '{name}'`, then record its new key; \
                 if not, somebody may stand in between",
                path.display()
            ),
            Self::HostKeyRevoked { .. } => "give the machine a new host key; this one must not be trusted".into(),
            Self::HostKeyRsa { path, scan, .. } => {
                format!("record an Ed25519 key of it: `{scan} >> {}`, after comparing the fingerprint", path.display())
            }
            Self::NoCommonAlgorithm { what: "host key type", .. } => {
                "the machine has no host key of the recorded kind: compare its present one, then record that".into()
            }
            Self::HostCertificate { .. } => "record the machine's own key in known_hosts".into(),
            Self::KeyFile(error) => return error.help(),
            Self::RsaKey { .. } => "use an Ed25519 key: `ssh-keygen -t ed25519`".into(),
            Self::EncryptedKey { .. } => "use a key without passphrase that may do only this".into(),
            Self::AuthRefused { .. } => "add the public key to the login's authorized_keys there".into(),
            Self::LostAnswer { .. } => "nothing is sent again blindly: `pvemig resume` looks first".into(),
            Self::NoRoute { .. } => "give the node `ssh` or `access` in the site file".into(),
            Self::Agent(source) => return source.help(),
            Self::AllRoutes { help, .. } | Self::Closed { help, .. } => return help.clone(),
            Self::Refused(refused) => return refused.help(),
            _ => return None,
        })
    }
}
