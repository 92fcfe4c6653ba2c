//! From a refusal's text to its cause. The status code says little: nearly every refusal is a 500.
//!
//! The text is in the body's `message` (pve-http-server 5.2 and later), in the HTTP reason phrase (before that, and
//! always for 401, 501 and 59x) and in `errors`. It ends with a newline and may carry a prefix: match by `contains`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::fault::{Effect, Fault};

use super::error::{AgentCause, Error};

/// A response whose status is not 200.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    text: String,
    errors: BTreeMap<String, String>,
}

impl Refusal {
    /// From a response's parts; `reason` is the phrase where it is not the standard one of its status.
    pub(super) fn new(status: u16, reason: Option<&str>, body: &[u8]) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let field = |name: &str| json.as_ref().and_then(|j| j.get(name));
        let mut text = field("message").and_then(Value::as_str).map(str::trim).unwrap_or_default().to_owned();
        if text.is_empty() {
            text = reason.map(str::trim).unwrap_or_default().to_owned();
        }
        if text.is_empty() && json.is_none() {
            text = String::from_utf8_lossy(body).trim().chars().take(300).collect();
        }
        let errors = field("errors")
            .and_then(Value::as_object)
            .map(|map| {
                let line = |v: &Value| v.as_str().map_or_else(|| v.to_string(), |s| s.trim().to_owned());
                map.iter().map(|(key, why)| (key.clone(), line(why))).collect()
            })
            .unwrap_or_default();
        Self { status, text, errors }
    }

    /// True where a proxy, not the API, answered: the call may have reached its node or not.
    pub(super) fn is_lost(&self) -> bool {
        (595..=599).contains(&self.status) || matches!(self.status, 502..=504)
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        if self.text.is_empty() { format!("status {}", self.status) } else { format!("{} {}", self.status, self.text) }
    }

    /// The error, for a question or for a change.
    pub(super) fn into_error(self, at: &str, user: &str, changing: bool) -> Error {
        let at = at.to_owned();
        if self.is_lost() {
            let why = self.line();
            return if changing { Error::LostAnswer { at, why } } else { Error::NoAnswer { at, why } };
        }
        let mut whole = self.text.clone();
        for (key, why) in &self.errors {
            whole.push_str(&format!("; {key}: {why}"));
        }
        match by_text(&at, &whole) {
            // The agent keeps a request that it did not answer in time, and carries it out later.
            Some(Error::Agent { at, cause: cause @ AgentCause::TimedOut, .. }) if changing => {
                return Error::Agent { at, cause, effect: Effect::Maybe };
            }
            // A question leaves nothing behind, whatever the answer speaks of.
            Some(error) if !changing && error.effect() != Effect::None => {}
            Some(error) => return error,
            None => {}
        }
        match self.status {
            401 => Error::AuthFailed { at, user: user.to_owned(), why: self.text },
            403 => Error::Forbidden { at, why: self.text },
            400 if !self.errors.is_empty() => Error::BadParameter { at, errors: self.errors },
            501 => Error::NotImplemented { at, why: self.text },
            status => {
                // A server that gave up half way says 500 too; what it said is not known here.
                let effect = if changing && status >= 500 { Effect::Maybe } else { Effect::None };
                Error::Unexpected { at, status, why: whole, effect }
            }
        }
    }
}

/// The part of `text` between two marks.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(part, _)| part)
}

/// The cause behind a text, of a refused call or of a failed pve task; None for a text that is not known here.
pub(super) fn by_text(at: &str, text: &str) -> Option<Error> {
    let at = at.to_owned();
    let why = text.trim().to_owned();
    let has = |part: &str| text.contains(part);
    if has("hotplug problem") {
        return Some(Error::PendingKept { at, why });
    }
    if has("only root can set") || has("only allowed for root@pam") || has("Only root may use this option") {
        return Some(Error::RootOnly { at, what: why });
    }
    if let Some(inner) = between(text, "Permission check failed (", ")") {
        if has("not available with API token") {
            return Some(Error::NeedsTicket { at });
        }
        if let Some((path, privilege)) = inner.split_once(", ").filter(|(path, _)| path.starts_with('/')) {
            return Some(Error::NotAuthorized { at, privilege: privilege.to_owned(), path: path.to_owned() });
        }
        return Some(Error::Forbidden { at, why });
    }
    if has("Configuration file 'nodes/") && has("does not exist") {
        return Some(Error::NoSuchVm { at });
    }
    if has("no such cluster node") || has("hostname lookup '") {
        return Some(Error::NoSuchNode { at, why });
    }
    if let Some(lock) = between(text, "VM is locked (", ")") {
        return Some(Error::Locked { at, lock: lock.to_owned() });
    }
    if has("no quorum") {
        return Some(Error::NoQuorum { at });
    }
    if has("can't lock file") || has("cfs-lock '") {
        return Some(Error::LockBusy { at, why });
    }
    if has("checksum mismatch (file change") || has("detected modified configuration") {
        return Some(Error::DigestMismatch { at });
    }
    if has("quit/powerdown failed") {
        return Some(Error::ShutdownTimedOut { at });
    }
    if has("PCI device mapping invalid") || has("PCI device mapping not found") {
        return Some(Error::MappingUnfit { at, why });
    }
    if has("USB Mapping invalid")
        || has("USB device mapping not found")
        || has("More than one USB mapping")
        || has("' does not match for '")
    {
        return Some(Error::MappingUnfit { at, why });
    }
    if has("create hardware mapping failed") && has("already defined") {
        return Some(Error::MappingExists { at });
    }
    if has("mapping '") && has("' not found") {
        return Some(Error::NoSuchMapping { at });
    }
    if has("no such task") || has("unable to parse worker upid") {
        return Some(Error::NoSuchTask { at });
    }
    if let Some(cause) = agent(text) {
        return Some(Error::Agent { at, cause, effect: Effect::None });
    }
    if has("VM ") && (has("already running") || has("not running") || has("is paused")) {
        return Some(Error::WrongPower { at, why });
    }
    None
}

/// The texts of the agent calls (PVE::API2::Qemu::Agent, PVE::QemuServer::Agent, qemu-ga).
fn agent(text: &str) -> Option<AgentCause> {
    if text.contains("No QEMU guest agent configured") {
        return Some(AgentCause::NotConfigured);
    }
    if text.contains("QEMU guest agent is not running") {
        return Some(AgentCause::Silent);
    }
    if text.contains("command 'guest-") && text.contains("got timeout") {
        return Some(AgentCause::TimedOut);
    }
    if let Some((_, said)) = text.split_once("Agent error: ") {
        return Some(agent_said(said.trim()));
    }
    // Power calls say "VM 108 not running", agent calls "VM 108 is not running".
    (text.contains("VM ") && text.contains(" is not running")).then_some(AgentCause::VmOff)
}

/// The cause behind the agent's own words.
pub(super) fn agent_said(said: &str) -> AgentCause {
    if said.contains("disabled") || said.contains("CommandNotFound") || said.contains("has not been found") {
        AgentCause::Disabled(said.to_owned())
    } else if said.contains("Failed to execute child process") || said.contains("Guest agent command failed") {
        AgentCause::NoProgram(said.to_owned())
    } else {
        AgentCause::Said(said.to_owned())
    }
}
