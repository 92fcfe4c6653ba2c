//! A VM: its config with what is pending, its state, and power.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::base::fault::Effect;
use crate::base::permit::{Handle, Note, Permit, System, TaskTrace};
use crate::base::redact;

use super::api::Proxmox;
use super::error::Error;
use super::lenient;
use super::slots::usb_slot;
use super::upid::Upid;
use super::wire::{Call, seg};

/// Keys of a config whose values are secret, or could be: into the description people write what they log in with.
const SECRET: [&str; 4] = ["cipassword", "sshkeys", "args", "description"];

/// A VM and the node that it is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VmRef {
    /// The node.
    pub node: String,
    /// The VM's number.
    pub vmid: u32,
}

impl fmt::Display for VmRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm {} on {}", self.vmid, self.node)
    }
}

impl VmRef {
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/nodes/{}/qemu/{}/{rest}", seg(&self.node), self.vmid)
    }

    pub(super) fn get(&self, rest: &str) -> Call {
        Call::get(self.path(rest), self.to_string()).about(self)
    }

    pub(super) fn post(&self, rest: &str) -> Call {
        Call::new(Method::POST, self.path(rest), self.to_string()).about(self)
    }
}

/// A VM's config as it is and as it will be after the next power cycle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pending {
    /// Every key that is set or is going to be.
    pub keys: BTreeMap<String, PendingKey>,
    /// The digest of the config, of the same reading: a write under it fails where anything was changed since.
    pub digest: String,
}

/// One key of a VM's config.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PendingKey {
    /// What holds now; for a running VM what it runs with.
    pub value: Option<String>,
    /// What will hold after the next power cycle.
    pub pending: Option<String>,
    /// It will be gone after the next power cycle.
    pub delete: bool,
}

impl PendingKey {
    /// True where the next power cycle changes it.
    pub fn is_pending(&self) -> bool {
        self.delete || self.pending.is_some()
    }

    /// What it will be in the end.
    pub fn configured(&self) -> Option<&str> {
        if self.delete { None } else { self.pending.as_deref().or(self.value.as_deref()) }
    }
}

impl Pending {
    /// From the rows of `GET pending`; open to tests alone.
    #[doc(hidden)]
    pub fn of(rows: Vec<PendingRow>, digest: String) -> Self {
        let key = |row: PendingRow| {
            let delete = row.delete.is_some_and(|d| d > 0);
            (row.key, PendingKey { value: row.value, pending: row.pending, delete })
        };
        Self { keys: rows.into_iter().map(key).filter(|(name, _)| name != "digest").collect(), digest }
    }

    /// What `key` is now.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.keys.get(key)?.value.as_deref()
    }

    /// What `key` will be after the next power cycle (and is now, where nothing is pending).
    pub fn configured(&self, key: &str) -> Option<&str> {
        self.keys.get(key)?.configured()
    }

    /// The keys that the next power cycle changes.
    pub fn changed(&self) -> impl Iterator<Item = (&str, &PendingKey)> {
        self.keys.iter().filter(|(_, key)| key.is_pending()).map(|(name, key)| (name.as_str(), key))
    }

    /// As it may be shown what the next power cycle changes: key, value now, and value then; None: not set.
    pub fn waiting(&self) -> Vec<(String, Option<String>, Option<String>)> {
        let shown = |key: &str, text: &str| if SECRET.contains(&key) { "…".to_owned() } else { redact::text(text) };
        let line = |(key, change): (&str, &PendingKey)| {
            let text = |value: Option<&str>| value.map(|text| shown(key, text));
            (key.to_owned(), text(change.value.as_deref()), text(change.configured()))
        };
        self.changed().map(line).collect()
    }

    /// The `usbN` keys by number.
    pub fn usb(&self) -> BTreeMap<u8, &PendingKey> {
        self.keys.iter().filter_map(|(name, key)| Some((usb_slot(name)?, key))).collect()
    }
}

/// The lock of a VM that was hibernated (`qm suspend --todisk`): it stays until the VM goes on, and it is what makes the
/// next start go on from the saved memory (qemu-server `vm_suspend` and `vm_start_nolock`).
pub const HIBERNATED: &str = "suspended";

/// A VM at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VmStatus {
    /// `running` or `stopped`. A paused VM is `running`.
    pub status: String,
    /// QEMU's word: `running`, `paused`, `prelaunch`, `io-error`, ...
    #[serde(default)]
    pub qmpstatus: Option<String>,
    /// The QEMU process; changes with every start.
    #[serde(default, deserialize_with = "lenient::number_opt")]
    pub pid: Option<u32>,
    /// Seconds since the process started; 0 when stopped.
    #[serde(default, deserialize_with = "lenient::number_opt")]
    pub uptime: Option<u64>,
    /// The lock flag.
    #[serde(default)]
    pub lock: Option<String>,
    /// The VM's name.
    #[serde(default, deserialize_with = "lenient::text_opt")]
    pub name: Option<String>,
    /// Whether the config has an agent; says nothing about one in the guest.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub agent: bool,
    /// The machine that the process was started with.
    #[serde(default)]
    pub running_machine: Option<String>,
    /// The QEMU version of the process.
    #[serde(default)]
    pub running_qemu: Option<String>,
    /// High availability.
    #[serde(default, rename = "ha")]
    ha: Ha,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Ha {
    #[serde(default, deserialize_with = "lenient::flag")]
    managed: bool,
}

impl VmStatus {
    /// True where there is a QEMU process, paused or not.
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }

    /// True where high availability starts and stops it: power calls then only queue a request.
    pub fn is_ha_managed(&self) -> bool {
        self.ha.managed
    }
}

/// A change of a VM's config.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigChange {
    /// Keys and their new values.
    pub set: Vec<(String, String)>,
    /// Keys to take away. One that is not set is no error.
    pub delete: Vec<String>,
    /// Keys whose pending change is dropped.
    pub revert: Vec<String>,
    /// The digest that the change was decided under ([`Pending::digest`]).
    pub digest: Option<String>,
}

/// A row of `GET pending`.
#[doc(hidden)]
#[derive(Debug, Deserialize)]
pub struct PendingRow {
    key: String,
    #[serde(default, deserialize_with = "lenient::text_opt")]
    value: Option<String>,
    #[serde(default, deserialize_with = "lenient::text_opt")]
    pending: Option<String>,
    // 1: will be deleted, 2: with force
    #[serde(default, deserialize_with = "lenient::number_opt")]
    delete: Option<u8>,
}

impl Proxmox {
    /// The config as it is and will be: `GET pending`. The digest of the file is one of its rows, as of every config
    /// that the server loads (pve-guest-common GuestHelpers.pm, `config_with_pending_array`).
    ///
    /// # Errors
    /// [`Error::NoSuchVm`] also where the VM moved to another node; and those of any question.
    pub async fn pending(&self, vm: &VmRef) -> Result<Pending, Error> {
        let call = vm.get("pending");
        let rows: Vec<PendingRow> = self.read(&call).await?;
        let digest = rows.iter().find(|row| row.key == "digest").and_then(|row| row.value.clone());
        let digest = digest.ok_or_else(|| Error::BadAnswer {
            at: self.at(&call.target),
            why: format!("{}: there is no digest in it", call.line()),
            effect: Effect::None,
        })?;
        Ok(Pending::of(rows, digest))
    }

    /// `GET config?current=1`: what the running VM was given, without anything pending.
    ///
    /// # Errors
    /// As [`Proxmox::pending`].
    pub async fn running_config(&self, vm: &VmRef) -> Result<BTreeMap<String, String>, Error> {
        let mut config = self.config_of(&vm.get("config").query("current", "1")).await?;
        config.remove("digest");
        Ok(config)
    }

    async fn config_of(&self, call: &Call) -> Result<BTreeMap<String, String>, Error> {
        let map: Map<String, Value> = self.read(call).await?;
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(u8::from(flag).to_string()),
            // Not a setting: lists and maps are the server's own additions.
            _ => None,
        };
        Ok(map.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect())
    }

    /// `GET status/current`.
    ///
    /// # Errors
    /// As [`Proxmox::pending`].
    pub async fn status(&self, vm: &VmRef) -> Result<VmStatus, Error> {
        self.read(&vm.get("status/current")).await
    }

    /// Changes a config through `POST config`, which answers with a pve task that the caller waits for.
    ///
    /// The synchronous `PUT` is not used: a hot-unplug waits for the guest, and behind the proxy's 30 s its answer
    /// would be lost. So a missing right on a value ([`Error::RootOnly`]) and a guest that does not take it
    /// ([`Error::PendingKept`]) come out of [`Proxmox::wait_task`].
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], [`Error::Locked`], [`Error::BadParameter`], and those of any change.
    pub async fn set_config(&self, vm: &VmRef, change: &ConfigChange, permit: &Permit) -> Result<Option<Upid>, Error> {
        let call = vm.post("config");
        let mut body = Map::new();
        for (key, value) in &change.set {
            body.insert(key.clone(), value.clone().into());
        }
        let mut text: Vec<String> = change.set.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        for (word, keys) in [("delete", &change.delete), ("revert", &change.revert)] {
            if !keys.is_empty() {
                body.insert(word.into(), keys.join(",").into());
                text.push(format!("{word} {}", keys.join(",")));
            }
        }
        if body.is_empty() {
            return Err(Error::BadRequest {
                at: self.at(&call.target),
                why: "a change of nothing was asked for".into(),
            });
        }
        if let Some(digest) = &change.digest {
            body.insert("digest".into(), digest.clone().into());
        }
        let note = Note::safe(System::Proxmox, format!("{} {}", call.line(), text.join(", ")));
        self.start_task(vm, call.json(Value::Object(body)), note, "qmconfig", permit).await
    }

    /// `POST status/start`. Applies what is pending first. Of a running VM the pve task fails ([`Error::WrongPower`]).
    ///
    /// # Errors
    /// Those of any change.
    pub async fn start(&self, vm: &VmRef, permit: &Permit) -> Result<Upid, Error> {
        self.power(vm, "start", "qmstart", None, permit).await
    }

    /// `POST status/shutdown`, never with force. Where the guest does not power off within `timeout`, the pve task
    /// fails with [`Error::ShutdownTimedOut`] and the guest may still power off later.
    ///
    /// # Errors
    /// [`Error::WrongPower`] for a paused VM, and those of any change.
    pub async fn shutdown(&self, vm: &VmRef, timeout: Duration, permit: &Permit) -> Result<Upid, Error> {
        let body = json!({ "timeout": timeout.as_secs(), "forceStop": 0 });
        self.power(vm, "shutdown", "qmshutdown", Some(body), permit).await
    }

    /// `POST status/stop`: pulls the plug.
    ///
    /// # Errors
    /// Those of any change.
    pub async fn stop(&self, vm: &VmRef, permit: &Permit) -> Result<Upid, Error> {
        self.power(vm, "stop", "qmstop", None, permit).await
    }

    /// `POST status/reboot`: shutdown and start, so pending changes are applied. The pve task is the shutdown only; the
    /// start follows by itself as another one, and the VM's new pid shows that it happened.
    ///
    /// # Errors
    /// [`Error::WrongPower`] for a stopped VM, and those of any change.
    pub async fn reboot(&self, vm: &VmRef, timeout: Duration, permit: &Permit) -> Result<Upid, Error> {
        let body = json!({ "timeout": timeout.as_secs() });
        self.power(vm, "reboot", "qmreboot", Some(body), permit).await
    }

    async fn power(
        &self,
        vm: &VmRef,
        word: &str,
        kind: &str,
        body: Option<Value>,
        permit: &Permit,
    ) -> Result<Upid, Error> {
        let mut call = vm.post(&format!("status/{word}"));
        let mut text = call.line();
        if let Some(body) = body {
            text = format!("{text} {body}");
            call = call.json(body);
        }
        let at = self.at(&call.target);
        let why = format!("{}: no pve task is named in it", call.line());
        let upid = self.start_task(vm, call, Note::once(System::Proxmox, text), kind, permit).await?;
        upid.ok_or(Error::BadAnswer { at, why, effect: Effect::Maybe })
    }

    /// Sends a change that answers with a UPID, which is written down before anybody waits for it.
    async fn start_task(
        &self,
        vm: &VmRef,
        call: Call,
        note: Note,
        kind: &str,
        permit: &Permit,
    ) -> Result<Option<Upid>, Error> {
        let trace =
            TaskTrace { cluster: self.cluster.clone(), node: vm.node.clone(), vmid: vm.vmid, kind: kind.to_owned() };
        let (id, data) = self.change(&call, note.task(trace), permit).await?;
        let upid: Option<Upid> = self.shape(&call, data, Effect::Maybe)?;
        if let Some(upid) = &upid {
            self.got(&call, permit, id, &Handle::new("upid", upid.to_string()))?;
        }
        Ok(upid)
    }
}
