//! What a node is and runs, and its power.

use serde::{Deserialize, Serialize};

use crate::base::permit::{Note, Permit, System};

use super::api::{Talos, machine};
use super::error::Error;
use super::proto::machine as wire;

/// A version of Talos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `v1.11.5`.
    pub tag: String,
    /// `metal`, `nocloud`, ...
    pub platform: String,
    /// `metal`, `cloud`, `container` or `metal-agent`.
    pub mode: String,
    /// `amd64`.
    pub arch: String,
}

impl Version {
    /// Major and minor number; None for a tag that has none.
    pub fn minor(&self) -> Option<(u32, u32)> {
        minor(&self.tag)
    }
}

/// Major and minor number of a tag like `v1.11.5`.
pub(super) fn minor(tag: &str) -> Option<(u32, u32)> {
    let mut parts = tag.strip_prefix('v').unwrap_or(tag).split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A service of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `kubelet`, `etcd`, `ext-nvidia-persistenced`, ...
    pub id: String,
    /// Initialized, Preparing, Waiting, Starting, Running, Stopping, Finished, Failed, Skipped or Unknown.
    pub state: String,
    /// None where it has no health check.
    pub healthy: Option<bool>,
    /// What it said last: of one that waits, for what.
    pub message: String,
}

impl Service {
    /// True for one that keeps a node from being booted: the stage stays `booting` until all are up or through.
    pub fn is_pending(&self) -> bool {
        !matches!(self.state.as_str(), "Running" | "Finished" | "Skipped")
    }
}

/// A node's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs can still have.
    pub available: u64,
    /// How many huge pages there are.
    pub huge_pages: u64,
    /// How many of them are free.
    pub huge_pages_free: u64,
    /// The size of one.
    pub huge_page_size: u64,
}

/// How a node comes up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RebootMode {
    /// By kexec where that works: neither firmware nor boot order are gone through, and a VM keeps its old hardware.
    Kexec,
    /// Through the firmware.
    PowerCycle,
}

impl Talos {
    /// The version that runs. In maintenance mode before 1.13 it is asked for as a resource
    /// ([`VERSION`](super::kind::VERSION)).
    ///
    /// # Errors
    /// Those of any question.
    pub async fn version(&self) -> Result<Version, Error> {
        let answer =
            self.read("Version", |channel| async { Ok(machine(channel).version(()).await?.into_inner()) }).await?;
        let version = self.only(answer.messages, |m| m.metadata.as_ref(), false)?;
        let platform = version.platform.unwrap_or_default();
        let version = version.version.unwrap_or_default();
        Ok(Version { tag: version.tag, platform: platform.name, mode: platform.mode, arch: version.arch })
    }

    /// All services, those that are not running with them.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn services(&self) -> Result<Vec<Service>, Error> {
        let ask = |channel| async { Ok(machine(channel).service_list(()).await?.into_inner()) };
        let answer = self.read("ServiceList", ask).await?;
        let list = self.only(answer.messages, |m| m.metadata.as_ref(), false)?;
        let one = |service: wire::ServiceInfo| {
            let last = service.events.and_then(|events| events.events.into_iter().next_back());
            let health = service.health.filter(|health| !health.unknown);
            let said = health.as_ref().map(|h| h.last_message.clone()).unwrap_or_default();
            Service {
                id: service.id,
                state: service.state,
                healthy: health.map(|health| health.healthy),
                message: last.map(|event| event.msg).filter(|msg| !msg.is_empty()).unwrap_or(said),
            }
        };
        Ok(list.services.into_iter().map(one).collect())
    }

    /// Memory and huge pages.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn memory(&self) -> Result<Memory, Error> {
        let answer =
            self.read("Memory", |channel| async { Ok(machine(channel).memory(()).await?.into_inner()) }).await?;
        let memory = self.only(answer.messages, |m| m.metadata.as_ref(), false)?;
        let info = memory.meminfo.ok_or_else(|| self.unreadable("Memory", "there are no numbers in it"))?;
        Ok(Memory {
            total: info.memtotal * 1024,
            available: info.memavailable * 1024,
            huge_pages: info.hugepagestotal,
            huge_pages_free: info.hugepagesfree,
            huge_page_size: info.hugepagesize * 1024,
        })
    }

    /// When the kernel was started, in seconds since 1970: a proof of a reboot that takes no more than os:reader.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn boot_time(&self) -> Result<u64, Error> {
        let ask = |channel| async { Ok(machine(channel).system_stat(()).await?.into_inner()) };
        let answer = self.read("SystemStat", ask).await?;
        Ok(self.only(answer.messages, |m| m.metadata.as_ref(), false)?.boot_time)
    }

    /// Reboots. Returns as soon as the node has taken it, with the name by which its events are known: whether it begins
    /// is told by [`Talos::sequence_began`], that it is through by boot id, stage and readiness. Nothing is drained.
    ///
    /// # Errors
    /// What keeps the node from taking it.
    pub async fn reboot(&self, permit: &Permit, mode: RebootMode) -> Result<String, Error> {
        let wire_mode = match mode {
            RebootMode::Kexec => wire::reboot_request::Mode::Default,
            RebootMode::PowerCycle => wire::reboot_request::Mode::Powercycle,
        };
        let note =
            self.note_once(&format!("Reboot, {}", if mode == RebootMode::Kexec { "kexec" } else { "power cycle" }));
        let send = |channel| async move {
            let request = wire::RebootRequest { mode: wire_mode as i32 };
            Ok(machine(channel).reboot(request).await?.into_inner())
        };
        let (id, answer) = self.change(permit, self.limits.change, note, send).await?;
        let actor = self.only(answer.messages, |m| m.metadata.as_ref(), true)?.actor_id;
        self.got_actor(permit, id, &actor)?;
        Ok(actor)
    }

    /// Shuts down. With `force` without cordon and drain. Returns as [`Talos::reboot`]; the proof is the machine's power.
    ///
    /// # Errors
    /// What keeps the node from taking it.
    pub async fn shutdown(&self, permit: &Permit, force: bool) -> Result<String, Error> {
        self.go_off(permit, force, self.note_once(if force { "Shutdown, without drain" } else { "Shutdown" })).await
    }

    /// As [`Talos::shutdown`] by force, of a machine that stays off: told twice is the same as told once, as nobody starts
    /// it in between.
    ///
    /// # Errors
    /// What keeps the node from taking it.
    pub async fn shutdown_for_good(&self, permit: &Permit) -> Result<String, Error> {
        self.go_off(permit, true, self.note_safe("Shutdown for good, without drain")).await
    }

    async fn go_off(&self, permit: &Permit, force: bool, note: Note) -> Result<String, Error> {
        let send =
            |channel| async move { Ok(machine(channel).shutdown(wire::ShutdownRequest { force }).await?.into_inner()) };
        let (id, answer) = self.change(permit, self.limits.change, note, send).await?;
        let actor = self.only(answer.messages, |m| m.metadata.as_ref(), true)?.actor_id;
        self.got_actor(permit, id, &actor)?;
        Ok(actor)
    }

    /// A call that may be sent again.
    pub(super) fn note_safe(&self, text: &str) -> Note {
        Note::safe(System::Talos, format!("{} {text}", self.node().name)).node(&self.node().name)
    }

    /// A call that must not be sent twice.
    pub(super) fn note_once(&self, text: &str) -> Note {
        Note::once(System::Talos, format!("{} {text}", self.node().name)).node(&self.node().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_decides_which_way_an_upgrade_goes() {
        for (tag, wanted) in [
            ("v1.11.5", Some((1, 11))),
            ("v1.14.0-rc.1", Some((1, 14))),
            ("1.13", Some((1, 13))),
            ("v1", None),
            ("latest", None),
            ("", None),
        ] {
            assert_eq!(minor(tag), wanted, "{tag}");
        }
    }
}
