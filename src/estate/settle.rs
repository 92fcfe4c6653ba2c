//! What became of a call that a crash left in the air: asked of the system that it went to.

use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::fault::Failure;
use crate::base::permit::System;
use crate::base::settle::{Lost, Settle, Settled};
use crate::base::wait::{Backoff, limit, show};
use crate::proxmox::{self, Upid};
use crate::talos::{
    self,
    kind::{self, Stage},
};

use super::Estate;

/// How long a node that shows nothing of a call is watched: it answers a call before it begins with it.
const QUIET: Duration = Duration::from_secs(30);
/// How long one may take to come back: firmware, an image that is written, disks that are checked.
const AWAY: Duration = Duration::from_secs(1_200);

impl Settle for Estate {
    async fn settle(&self, lost: &Lost) -> Result<Settled, Failure> {
        match &lost.note.node {
            Some(node) => self.settle_node(node, lost).await,
            None => self.settle_task(lost).await,
        }
    }
}

/// How long a node is watched that shows nothing of a call, by the call: an image is pulled and written behind what the
/// node says of itself. By an estate's own clock, as an image in the lab is written at the lab's speed.
fn watched(unseen: bool, clock: Clock) -> Duration {
    if unseen { clock.scaled(limit::IMAGE).max(QUIET) } else { QUIET }
}

/// What is told of a call of which nothing has shown for so long.
fn nothing_shown(node: &str, unseen: bool) -> Settled {
    if unseen {
        // It has a trace, and nobody sees it from here: what it left the step finds out, as far as that can be.
        Settled::Over(format!(
            "{node} has shown nothing of it for as long as it could take; what it left does not show"
        ))
    } else {
        Settled::NoTrace
    }
}

/// How a node shows itself.
enum Sight {
    /// It is down, going down, or being written to.
    Away(String),
    /// Its VM is switched off: nothing happens to it by itself any more.
    Off(u32),
    /// It answers, and nothing is under way.
    There,
}

impl Estate {
    /// By the pve task that the call began.
    async fn settle_task(&self, lost: &Lost) -> Result<Settled, Failure> {
        let upid = match (&lost.handle, &lost.note.task) {
            (Some(handle), Some(trace)) if handle.kind == "upid" => {
                let upid = handle.value.parse::<Upid>();
                Some((
                    trace,
                    upid.map_err(|e| Failure::plain(format!("the journal names a broken pve task: {e}"), None))?,
                ))
            }
            (_, Some(trace)) => {
                let pve = self.proxmox(&trace.cluster).await?;
                match pve.find_task(&trace.node, trace.vmid, &trace.kind, lost.at).await? {
                    Some(upid) => Some((trace, upid)),
                    None => return Ok(Settled::NoTrace),
                }
            }
            (_, None) => None,
        };
        let Some((trace, upid)) = upid else {
            let why = if lost.note.system == System::Ssh {
                "a command over ssh leaves no trace"
            } else {
                "it leaves no trace"
            };
            return Ok(Settled::Unknown(why.into()));
        };
        let pve = self.proxmox(&trace.cluster).await?;
        let limit = limit::COMMAND.max(Duration::from_secs(600));
        let Err(error) = pve.wait_task(&upid, limit, &|_| {}).await else {
            return Ok(Settled::Over(format!("{} ended well", upid.kind)));
        };
        // However it ended, once it is over the check looks at what it left. A question that was refused tells nothing.
        match pve.task_status(&upid).await {
            Ok(status) if status.status == "stopped" => Ok(Settled::Over(error.to_string())),
            Err(proxmox::Error::NoSuchTask { .. }) => Ok(Settled::Over(error.to_string())),
            _ => Err(error.into()),
        }
    }
}

impl Estate {
    /// By the node itself: a sequence that a call began ends with the node down, or up again. Whether it was this call
    /// that did it the check finds out, by the boot id; here it counts that nothing is under way any more.
    async fn settle_node(&self, node: &str, lost: &Lost) -> Result<Settled, Failure> {
        let (start, unseen) = (self.clock.instant(), lost.note.unseen);
        let mut pauses = Backoff::poll(self.clock);
        let mut was_away = false;
        loop {
            let why = match self.sight(node).await? {
                Sight::Off(vmid) => return Ok(Settled::Over(format!("vm {vmid} is off"))),
                Sight::There if was_away => return Ok(Settled::Over(format!("{node} is through and answers"))),
                Sight::There if self.booted_since(node, lost).await? => {
                    return Ok(Settled::Over(format!("{node} has booted since, and answers")));
                }
                Sight::There if start.elapsed() > watched(unseen, self.clock) => {
                    return Ok(nothing_shown(node, unseen));
                }
                Sight::There => None,
                Sight::Away(why) => Some(why),
            };
            was_away |= why.is_some();
            if let Some(why) = why.filter(|_| start.elapsed() > AWAY) {
                return Ok(Settled::Unknown(format!("{why}, for {}", show(AWAY))));
            }
            pauses.pause().await;
        }
    }

    /// Whether the node is in another boot than the one in which it got the call, where that is known.
    async fn booted_since(&self, node: &str, lost: &Lost) -> Result<bool, Failure> {
        let Some(before) = &lost.note.boot else { return Ok(false) };
        match self.talos(node).await?.this_boot().await {
            Ok(now) => Ok(now != *before),
            // It went down between two questions, or does not tell who asks: then it is watched as one of which nothing
            // is known.
            Err(error) if error.is_down() || matches!(error, talos::Error::Denied { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn sight(&self, node: &str) -> Result<Sight, Failure> {
        let status = self.talos(node).await?.single(&kind::MACHINE_STATUS).await;
        let why = match status {
            Ok(status) => match status.map(|status| status.spec.stage).unwrap_or_default() {
                stage @ (Stage::Rebooting | Stage::ShuttingDown | Stage::Resetting | Stage::Upgrading) => {
                    format!("{node} is in stage {stage:?}")
                }
                _ => return Ok(Sight::There),
            },
            Err(error) if error.is_down() => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        if let Some(vm) = self.site.talos_node(node).and_then(|(_, settings)| settings.vm.as_ref()) {
            let pve = self.proxmox(&vm.proxmox).await?;
            let at = pve.locate_now(vm.vmid).await?;
            if !pve.status(&at).await?.is_running() {
                return Ok(Sight::Off(vm.vmid));
            }
        }
        Ok(Sight::Away(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_upgrade_is_watched_for_as_long_as_an_image_takes_and_is_not_called_without_a_trace() {
        assert_eq!(watched(true, Clock::real()), limit::IMAGE);
        assert_eq!([watched(false, Clock::real()), watched(true, Clock::fast(1_000))], [QUIET; 2]);
        assert!(matches!(nothing_shown("n1", true), Settled::Over(how) if how.starts_with("n1 has shown nothing")));
        assert_eq!(nothing_shown("n1", false), Settled::NoTrace);
    }
}
