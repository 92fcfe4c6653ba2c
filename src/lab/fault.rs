//! Rules for what goes wrong at the wire.

use serde::{Deserialize, Serialize};

use super::wire::{Class, Front};

/// One rule: which requests it meets, which of those it hits, and what it does to them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultRule {
    /// Where.
    pub front: Front,
    /// HTTP method, `exec` on the ssh front; none: any.
    #[serde(default)]
    pub method: Option<String>,
    /// Path without query (HTTP), command (ssh), or node, call and resource (`/NODE/machine.MachineService/Reboot`);
    /// `*` stands for any text, slashes included.
    #[serde(default = "any")]
    pub path: String,
    /// Only requests of this class.
    #[serde(default)]
    pub class: Option<Class>,
    /// Lets this many matching requests pass first.
    #[serde(default)]
    pub skip: u32,
    /// Hits this many; 0: all.
    #[serde(default)]
    pub times: u32,
    /// What happens.
    pub effect: FaultEffect,
    /// Matching requests so far.
    #[serde(default)]
    pub met: u32,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultEffect {
    /// A clear no in the front's own words (403; on ssh the login fails). Nothing happens.
    Refuse,
    /// The answer comes this many lab milliseconds late.
    Delay(u64),
    /// No answer ever. Nothing happens.
    Hang,
    /// It happens, and no answer comes.
    HangAfter,
    /// This status and text instead; on the Talos front the gRPC code that it stands for, or that has this number.
    /// Nothing happens.
    Status(u16, String),
    /// This status instead, and as its text the whole request, headers and body too. Nothing happens.
    Echo(u16),
    /// It happens, and this status and text come instead of the answer (a proxy's 596).
    StatusAfter(u16, String),
    /// The connection ends without an answer. Nothing happens.
    ResetBefore,
    /// It happens, and the connection ends without an answer.
    ResetAfter,
    /// A read is answered as it was the last time that it was answered.
    Stale,
}

fn any() -> String {
    "*".into()
}

impl FaultRule {
    /// A rule that hits every request of a front.
    pub fn on(front: Front, effect: FaultEffect) -> Self {
        Self { front, method: None, path: any(), class: None, skip: 0, times: 0, effect, met: 0 }
    }

    /// Narrows to a method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Narrows to a path pattern.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Narrows to a class.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = Some(class);
        self
    }

    /// Lets `skip` matching requests pass first.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Hits `times` requests, then is spent.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Counts a request; the effect where it is hit.
    pub fn meet(&mut self, front: Front, method: &str, path: &str, class: Class) -> Option<FaultEffect> {
        let matches = self.front == front
            && self.method.as_ref().is_none_or(|m| m == method)
            && self.class.is_none_or(|c| c == class)
            && glob(&self.path, path);
        if !matches {
            return None;
        }
        self.met += 1;
        let hit = self.met > self.skip && (self.times == 0 || self.met <= self.skip + self.times);
        hit.then(|| self.effect.clone())
    }
}

/// Whether `text` fits `pattern`, where `*` stands for any text.
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(head) else { return false };
    loop {
        if glob(rest, left) {
            return true;
        }
        let mut chars = left.chars();
        if chars.next().is_none() {
            return false;
        }
        left = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_star_stands_for_any_text() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("/a/*/c", "/a/b/x/c", true),
            ("/a/*/c", "/a/b/x/d", false),
            ("*config", "/nodes/x/qemu/108/config", true),
            ("/a", "/a/b", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_rule_skips_hits_and_is_spent() {
        let mut rule = FaultRule::on(Front::Proxmox, FaultEffect::Hang).method("PUT").skip(1).times(2);
        let hits: Vec<bool> = (0..5).map(|_| rule.meet(Front::Proxmox, "PUT", "/x", Class::Change).is_some()).collect();
        assert_eq!(hits, [false, true, true, false, false]);
        assert!(rule.meet(Front::Proxmox, "GET", "/x", Class::Read).is_none());
        assert!(rule.meet(Front::Ssh, "PUT", "/x", Class::Change).is_none());
        assert_eq!(rule.met, 5);
    }
}
