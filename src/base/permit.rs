//! The token without which no provider changes anything.
//!
//! A `check` and a `back` get none, so that a question cannot change the world, by type. Only the engine mints one
//! (a test searches for any other place), and every use of one is a durable line in the journal before the request
//! goes out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fault::{Effect, Fault};
use super::redact;

/// The system that a change goes to; the lab counts its changing requests by the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// The Proxmox API, guest agent included.
    Proxmox,
    /// The Kubernetes API.
    Kubernetes,
    /// A command over ssh, in a guest or on a host.
    Ssh,
    /// A commit or a push of a git checkout.
    Checkout,
    /// The Talos API.
    Talos,
    /// A file of the machine that pvemig runs on, outside its own state (a kubeconfig).
    Local,
    /// The engine's own toy estate in tests.
    Toy,
}

/// Whether a call may be sent a second time after a crash that lost its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Again {
    /// Twice is the same as once.
    Safe,
    /// Twice is not the same as once (a reboot): the last one is settled before another is sent.
    Once,
}

/// What is written down right before a changing request goes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Where it goes.
    pub system: System,
    /// The request in one line, secrets left out.
    pub text: String,
    /// Whether it may be sent again after a crash.
    pub again: Again,
    /// Where a Proxmox task of this call can be found if its UPID was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskTrace>,
    /// The Talos node that it goes to, by its name in the site file: what became of it is asked there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Nothing of it need show on the node while it is under way: an image is pulled and written behind what the node
    /// says of itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unseen: bool,
    /// The boot that the node was in: where it is in another one, the call is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// Enough to find a pve task in the task list: node, guest and task type (`qmshutdown`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTrace {
    /// The name of the Proxmox cluster in the site file.
    pub cluster: String,
    /// The node on which the task runs.
    pub node: String,
    /// The guest.
    pub vmid: u32,
    /// The type word inside the UPID.
    pub kind: String,
}

impl Note {
    /// A call that may be sent again.
    pub fn safe(system: System, text: impl Into<String>) -> Self {
        Self { system, text: text.into(), again: Again::Safe, task: None, node: None, unseen: false, boot: None }
    }

    /// A call that must not be sent twice.
    pub fn once(system: System, text: impl Into<String>) -> Self {
        Self { system, text: text.into(), again: Again::Once, task: None, node: None, unseen: false, boot: None }
    }

    /// Says where its pve task can be found.
    #[must_use]
    pub fn task(mut self, trace: TaskTrace) -> Self {
        self.task = Some(trace);
        self
    }

    /// Says to which Talos node it goes.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.node = Some(name.to_owned());
        self
    }

    /// Says that nothing of it need show while it is under way.
    #[must_use]
    pub fn unseen(mut self) -> Self {
        self.unseen = true;
        self
    }
}

/// The number of a call within its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// What a call left to be recognised by: a UPID, a UID, a commit id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// What it is: `upid`, `uid`, `commit`, `token`.
    pub kind: String,
    /// The value.
    pub value: String,
}

impl Handle {
    /// A handle of a kind.
    pub fn new(kind: impl Into<String>, value: impl Into<String>) -> Self {
        Self { kind: kind.into(), value: value.into() }
    }
}

/// A thing that is destroyed for good; the operator names it with `--destroy`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Thing(pub String);

impl Thing {
    /// A claim with what it holds: `pvc/NS/NAME`.
    pub fn claim(namespace: &str, name: &str) -> Self {
        Self(format!("pvc/{namespace}/{name}"))
    }

    /// A volume with what it holds: `pv/NAME`.
    pub fn volume(name: &str) -> Self {
        Self(format!("pv/{name}"))
    }

    /// A disk with what is on it, by its serial number: `disk/SERIAL`.
    pub fn disk(serial: &str) -> Self {
        Self(format!("disk/{serial}"))
    }

    /// A member of etcd: `etcd/MEMBER`, by its id where another one has its name.
    pub fn member(name: &str) -> Self {
        Self(format!("etcd/{name}"))
    }

    /// What is on a node's EPHEMERAL besides etcd and what Talos and the kubelet make anew: `ephemeral/NODE`.
    pub fn ephemeral(node: &str) -> Self {
        Self(format!("ephemeral/{node}"))
    }

    /// A machine of which only silence is known is off, by the word of somebody who has looked at it: `off/NODE`.
    pub fn off(node: &str) -> Self {
        Self(format!("off/{node}"))
    }

    /// That a machine never comes back with its disk, which nobody can see from here: `gone/NODE`.
    pub fn gone(node: &str) -> Self {
        Self(format!("gone/{node}"))
    }

    /// A Node object, and with it what Kubernetes knows of the pods on it: `node/NAME`.
    pub fn node(name: &str) -> Self {
        Self(format!("node/{name}"))
    }
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a permit does not let a change go out. In each case nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The journal could not be written; without it nothing is changed.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
    /// The thing would be destroyed and the operator has not named it.
    #[error("{thing} would be destroyed and that was not asked for")]
    NotConsented {
        /// What would be destroyed.
        thing: Thing,
        /// False where the step does not destroy anything by its own declaration.
        declared: bool,
    },
    /// The run was interrupted; the step stops before its next change.
    #[error("interrupted before the next change")]
    Interrupted,
}

impl Fault for Refused {
    fn effect(&self) -> Effect {
        Effect::None
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Journal(_) => Some("make room or rights in the state directory, then `pvemig resume`".into()),
            Self::NotConsented { thing, declared: true } => {
                Some(format!("if it may go, add `--destroy {thing}` to the command"))
            }
            Self::NotConsented { declared: false, .. } => {
                Some("this is a defect of the step: it destroys without declaring it; please report it".into())
            }
            Self::Interrupted => None,
        }
    }
}

/// The other side of a permit: the engine's journal, or a test's.
pub trait Ledger: Send + Sync {
    /// Writes the call down, durably.
    fn note(&self, note: &Note) -> Result<CallId, Refused>;
    /// Writes down what the call left.
    fn got(&self, call: CallId, handle: &Handle) -> Result<(), Refused>;
    /// Shows progress; not recorded.
    fn progress(&self, line: &str);
    /// Stores a run file (mode 0600) and writes its digest down, durably.
    fn file(&self, name: &str, bytes: &[u8]) -> Result<(), Refused>;
    /// Whether the operator consented to the loss of the thing.
    fn may_destroy(&self, thing: &Thing) -> Result<(), Refused>;
    /// True where the operator interrupted the run.
    fn interrupted(&self) -> bool {
        false
    }
}

/// The token itself. Calls may overlap: it is `Sync`.
pub struct Permit {
    ledger: Arc<dyn Ledger>,
    boot: Option<String>,
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permit")
    }
}

impl Permit {
    /// Made by the engine alone; `tests/layers.rs` searches for any other caller in `src/`.
    pub fn mint(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, boot: None }
    }

    /// This permit, for calls to a node that is in this boot: their notes say so.
    #[must_use]
    pub fn in_boot(&self, boot: &str) -> Self {
        Self { ledger: self.ledger.clone(), boot: Some(boot.to_owned()) }
    }

    /// Called inside a provider right before a changing request goes out. Nothing may be sent if it fails.
    ///
    /// # Errors
    /// [`Refused`] where the journal cannot be written or the run was interrupted.
    pub fn note(&self, note: &Note) -> Result<CallId, Refused> {
        let boot = self.boot.clone().filter(|_| note.node.is_some());
        self.ledger.note(&Note { text: redact::text(&note.text), boot, ..note.clone() })
    }

    /// Called inside a provider as soon as the answer names something to recognise the call by.
    ///
    /// # Errors
    /// [`Refused::Journal`]; the change has then happened already.
    pub fn got(&self, call: CallId, handle: &Handle) -> Result<(), Refused> {
        self.ledger.got(call, handle)
    }

    /// A line for the display (a pve task's log).
    pub fn progress(&self, line: &str) {
        self.ledger.progress(&redact::text(line));
    }

    /// Stores what is too large or too secret for the journal.
    ///
    /// # Errors
    /// [`Refused::Journal`].
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<(), Refused> {
        self.ledger.file(name, bytes)
    }

    /// Asked by every method that destroys.
    ///
    /// # Errors
    /// [`Refused::NotConsented`].
    pub fn may_destroy(&self, thing: &Thing) -> Result<(), Refused> {
        self.ledger.may_destroy(thing)
    }

    /// Asked by a step that waits between two changes, so that an interrupt does not have to wait as well.
    ///
    /// # Errors
    /// [`Refused::Interrupted`].
    pub fn go_on(&self) -> Result<(), Refused> {
        if self.ledger.interrupted() { Err(Refused::Interrupted) } else { Ok(()) }
    }
}

/// A ledger that only remembers; for the wire tests of providers, which run outside of any engine.
#[derive(Debug, Default)]
pub struct Notebook {
    entries: std::sync::Mutex<Vec<Note>>,
}

impl Notebook {
    /// A permit that writes here, and the notebook to read from.
    pub fn permit() -> (Permit, Arc<Self>) {
        let notebook = Arc::new(Self::default());
        (Permit { ledger: notebook.clone(), boot: None }, notebook)
    }

    /// What was noted so far.
    pub fn notes(&self) -> Vec<Note> {
        self.entries.lock().map(|entries| entries.clone()).unwrap_or_default()
    }
}

impl Ledger for Notebook {
    fn note(&self, note: &Note) -> Result<CallId, Refused> {
        let mut entries = self.entries.lock().map_err(|_| Refused::Journal("a writer panicked".into()))?;
        entries.push(note.clone());
        Ok(CallId(entries.len() as u64))
    }
    fn got(&self, _: CallId, _: &Handle) -> Result<(), Refused> {
        Ok(())
    }
    fn progress(&self, _: &str) {}
    fn file(&self, _: &str, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
    fn may_destroy(&self, _: &Thing) -> Result<(), Refused> {
        Ok(())
    }
}
