//! What can go wrong with Proxmox, by the cause that somebody can act on.

use std::collections::BTreeMap;

use crate::base::fault::{Effect, Fault};
use crate::base::permit::Refused;

use super::upid::Upid;
use super::vm::HIBERNATED;

/// An error of the Proxmox provider. `at` is the target: `vm 108 on still-fawn (cluster home)`.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant says what its fields are")]
pub enum Error {
    /// The endpoint as the site describes it cannot be used.
    #[error("cluster {cluster} cannot be used: {why}")]
    Setup { cluster: String, why: String },
    /// The caller asked for something that the API cannot carry.
    #[error("{at}: {why}")]
    BadRequest { at: String, why: String },
    /// No connection to any address; nothing was sent.
    #[error("{at}: no connection to {urls}: {why}")]
    Unreachable { at: String, urls: String, why: String },
    /// The server's certificate is not the one that the site names; nothing was sent.
    #[error("{at}: {url} is not trusted: {why}")]
    Untrusted { at: String, url: String, why: String },
    /// A question without an answer.
    #[error("{at}: no answer{}", because(why))]
    NoAnswer { at: String, why: String },
    /// A change was sent and its answer never came.
    #[error("{at}: the change was sent and its answer was lost: {why}")]
    LostAnswer { at: String, why: String },
    /// An answer that is not what the API promises.
    #[error("{at}: the answer cannot be read: {why}")]
    BadAnswer { at: String, why: String, effect: Effect },
    /// The credentials were refused.
    #[error("{at}: {user} was refused: {why}")]
    AuthFailed { at: String, user: String, why: String },
    /// The account wants a second factor at login.
    #[error("{at}: {user} needs a second factor to log in")]
    SecondFactor { at: String, user: String },
    /// A privilege is missing. `privilege` holds alternatives joined by `|`.
    #[error("{at}: the privilege {privilege} on {path} is missing")]
    NotAuthorized { at: String, privilege: String, path: String },
    /// Forbidden in words of its own.
    #[error("{at}: forbidden: {why}")]
    Forbidden { at: String, why: String },
    /// The call is not open to any token.
    #[error("{at}: no API token may make this call")]
    NeedsTicket { at: String },
    /// Only root@pam, logged in with a password, may do this; no token, not even one of root@pam.
    #[error("{at}: only root@pam itself may do this: {what}")]
    RootOnly { at: String, what: String },
    /// No such VM, or not on this node any more.
    #[error("{at}: there is no such VM here")]
    NoSuchVm { at: String },
    /// No such node in the cluster.
    #[error("{at}: there is no such node in the cluster: {why}")]
    NoSuchNode { at: String, why: String },
    /// The guest's config carries a lock flag (`backup`, `migrate`, ...).
    #[error("{at}: locked ({lock})")]
    Locked { at: String, lock: String },
    /// A lock file of the server is held by somebody else right now.
    #[error("{at}: the server's lock is busy: {why}")]
    LockBusy { at: String, why: String },
    /// The object was changed between reading and writing: by somebody else, or by an earlier call that was on its way.
    #[error("{at}: it was changed between looking and writing, so nothing was written")]
    DigestMismatch { at: String },
    /// The cluster cannot write.
    #[error("{at}: the cluster has no quorum")]
    NoQuorum { at: String },
    /// Parameters were refused; by name.
    #[error("{at}: refused parameters: {}", show(errors))]
    BadParameter { at: String, errors: BTreeMap<String, String> },
    /// The running guest did not take the change; it is stored and waits for the next start.
    #[error("{at}: the change is stored but the running guest did not take it: {why}")]
    PendingKept { at: String, why: String },
    /// The VM is not in the power state that the call needs.
    #[error("{at}: wrong power state: {why}")]
    WrongPower { at: String, why: String },
    /// The guest did not power off in time. It may still do so later.
    #[error("{at}: the guest did not power off in time")]
    ShutdownTimedOut { at: String },
    /// A mapping does not fit the node's hardware.
    #[error("{at}: the mapping does not fit: {why}")]
    MappingUnfit { at: String, why: String },
    /// No mapping of this name.
    #[error("{at}: there is no such mapping")]
    NoSuchMapping { at: String },
    /// A mapping of this name exists already.
    #[error("{at}: a mapping of this name exists already")]
    MappingExists { at: String },
    /// A pve task ended with an error; `tail` holds the last lines of its log.
    #[error("{at}: pve task {} failed: {exit}{}", upid.kind, quoted(tail))]
    TaskFailed { at: String, upid: Box<Upid>, exit: String, tail: Vec<String> },
    /// A pve task is over and nobody knows how (worker killed, node crashed).
    #[error("{at}: how pve task {} ended is unknown; the state of the guest must be read", upid.kind)]
    TaskUnknown { at: String, upid: Box<Upid> },
    /// A pve task that did not end in time.
    #[error("{at}: pve task {} did not end within {limit}: {why}", upid.kind)]
    TaskTooLong { at: String, upid: Box<Upid>, limit: String, why: String },
    /// Whether a pve task that was sent has ended could not be asked; it goes on by itself.
    #[error("{at}: whether pve task {} has ended cannot be asked", upid.kind)]
    TaskUnasked {
        at: String,
        upid: Box<Upid>,
        #[source]
        source: Box<Error>,
    },
    /// The node does not know the pve task.
    #[error("{at}: the node knows no such pve task")]
    NoSuchTask { at: String },
    /// The guest agent.
    #[error("{at}: guest agent: {cause}")]
    Agent { at: String, cause: AgentCause, effect: Effect },
    /// The server does not know the call.
    #[error("{at}: the server does not implement this call: {why}")]
    NotImplemented { at: String, why: String },
    /// A refusal in words that are not known here.
    #[error("{at}: status {status}: {why}")]
    Unexpected { at: String, status: u16, why: String, effect: Effect },
    /// The permit did not let the change go out.
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

/// Why the guest agent did not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentCause {
    /// The VM's config has no `agent` key.
    #[error("not configured for this VM")]
    NotConfigured,
    /// The VM is off.
    #[error("the VM is not running")]
    VmOff,
    /// No answer to a ping: not installed, not started, or the VM was not cold-started since `agent=1`.
    #[error("it does not answer")]
    Silent,
    /// The agent took too long for one command.
    #[error("it answered a ping but not the command in time")]
    TimedOut,
    /// The guest's own settings forbid the command.
    #[error("the guest's settings forbid the command: {0}")]
    Disabled(String),
    /// The agent could not start the program (there is none, as on Talos).
    #[error("it could not start the program: {0}")]
    NoProgram(String),
    /// The program ended and its result is gone: it can be read once only, or the agent was restarted.
    #[error("the command was started (pid {0}) and its result cannot be read any more")]
    ResultLost(i64),
    /// The program runs longer than we wait; nothing stops it.
    #[error("the command (pid {pid}) did not end within {limit}; it keeps running")]
    StillRunning {
        /// The process in the guest.
        pid: i64,
        /// How long was waited.
        limit: String,
    },
    /// Any other text of the agent.
    #[error("it said: {0}")]
    Said(String),
}

fn show(errors: &BTreeMap<String, String>) -> String {
    errors.iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>().join("; ")
}

fn quoted(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  | {line}")).collect()
}

/// Why there was no answer: a deadline says itself that there was none.
fn because(why: &str) -> String {
    why.strip_prefix("no answer").map_or_else(|| format!(": {why}"), str::to_owned)
}

impl Fault for Error {
    fn effect(&self) -> Effect {
        match self {
            Self::LostAnswer { .. }
            | Self::ShutdownTimedOut { .. }
            | Self::TaskFailed { .. }
            | Self::TaskUnknown { .. }
            | Self::TaskUnasked { .. }
            | Self::TaskTooLong { .. } => Effect::Maybe,
            Self::PendingKept { .. } | Self::NotRecorded { .. } => Effect::Partial,
            Self::BadAnswer { effect, .. } | Self::Unexpected { effect, .. } | Self::Agent { effect, .. } => *effect,
            Self::Refused(refused) => refused.effect(),
            _ => Effect::None,
        }
    }

    fn retryable(&self) -> bool {
        // What may have changed something is looked at, not sent again.
        if self.effect() != Effect::None {
            return false;
        }
        match self {
            Self::Unreachable { .. }
            | Self::NoAnswer { .. }
            | Self::Locked { .. }
            | Self::LockBusy { .. }
            | Self::NoQuorum { .. }
            | Self::DigestMismatch { .. } => true,
            Self::Agent { cause, .. } => {
                matches!(cause, AgentCause::Silent | AgentCause::TimedOut | AgentCause::VmOff)
            }
            _ => false,
        }
    }

    fn stale(&self) -> bool {
        matches!(self, Self::DigestMismatch { .. })
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::TaskUnasked { source, .. } => return source.help(),
            Self::Setup { .. } => "correct the cluster's entry in the site file; `pvemig site check` reads it".into(),
            Self::Unreachable { .. } => {
                "check address and port; any node of the cluster may be listed under `urls`".into()
            }
            Self::Untrusted { .. } => {
                "compare with `openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem` on the node \
                 before changing the site file"
                    .into()
            }
            Self::LostAnswer { .. } | Self::TaskTooLong { .. } => {
                "nothing is sent again blindly: `pvemig resume` looks first".into()
            }
            Self::AuthFailed { .. } => "check user, secret and expiry under Datacenter > Permissions".into(),
            Self::SecondFactor { .. } => "use an API token, or an account without a second factor".into(),
            Self::NotAuthorized { privilege, path, .. } => format!("grant {privilege} on {path} to these credentials"),
            Self::NeedsTicket { .. } | Self::RootOnly { .. } => {
                "use `auth: ticket` with root@pam, or for USB a cluster-wide mapping (`attach: mapping`)".into()
            }
            Self::NoSuchVm { .. } => {
                "the VM may have moved: `pvesh get /cluster/resources --type vm` says where".into()
            }
            Self::Locked { lock, .. } if lock == HIBERNATED => {
                "the VM is hibernated: `qm resume VMID` on the node (or start it) first; its saved memory hangs on that lock"
                    .into()
            }
            Self::Locked { lock, .. } => {
                format!("wait for the {lock}; if none is running, `qm unlock VMID` on the node clears a stale flag")
            }
            Self::LockBusy { .. } => "another change of the same object is running; try again in a moment".into(),
            Self::DigestMismatch { .. } => "look again: `pvemig resume` reads the new state first".into(),
            Self::NoQuorum { .. } => "bring the other nodes back, `pvecm status` shows them".into(),
            Self::PendingKept { why, .. } if why.contains("apping") => {
                "the next start would fail: mend the mapping first, `pvemig step 03-check-host-hardware` shows what the \
                 host sees"
                    .into()
            }
            Self::PendingKept { .. } => {
                "it takes effect at the next power-off and start (not at a reboot from inside)".into()
            }
            Self::ShutdownTimedOut { .. } => "look at the console; the guest may still power off by itself".into(),
            Self::MappingUnfit { .. } => "`pvemig step 03-check-host-hardware` shows what the host sees".into(),
            Self::TaskUnknown { .. } => "`pvemig resume` reads the state of the guest first".into(),
            Self::Agent { cause, .. } => match cause {
                AgentCause::NotConfigured => "set `agent: 1` for the VM; it counts after a power-off and start".into(),
                AgentCause::Silent => {
                    "install and start qemu-guest-agent in the guest; `agent: 1` counts after a cold start".into()
                }
                AgentCause::Disabled(_) => {
                    "allow guest-exec in the agent's settings inside the guest, or use ssh".into()
                }
                AgentCause::NoProgram(_) => "use ssh, or the guest's own API".into(),
                _ => return None,
            },
            Self::Refused(refused) => return refused.help(),
            Self::NotRecorded { .. } => "make room or rights in the state directory, then `pvemig resume`".into(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_was_no_answer_is_said_once() {
        let error = |why: &str| Error::NoAnswer { at: "pve".into(), why: why.into() }.to_string();
        let elapsed = crate::base::wait::Elapsed(std::time::Duration::from_secs(35)).to_string();
        assert_eq!(error(&elapsed), "pve: no answer within 35 s");
        assert_eq!(error("it hung up"), "pve: no answer: it hung up");
    }
}
