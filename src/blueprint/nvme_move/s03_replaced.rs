//! 03, where the system disk is replaced: the node leaves etcd before it goes off, and one that waits for its configuration
//! goes off by hand.

use std::sync::Arc;

use crate::base::check::{Change, Check};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::blueprint::quorum::{self, Etcd, judge};
use crate::engine::step::{RunInfo, Seen};
use crate::estate::Estate;
use crate::talos::{Leaving, Talos};

use super::anew::switch_off;
use super::on;
use super::remembered::{count, left_file, seen_last};
use super::s02a_leave_etcd::gone;
use super::s03_shutdown::{Before, ShutDown};
use super::sight::layout_now;

impl ShutDown {
    /// It may wait for its configuration, booted from a medium.
    pub(super) async fn waits(&self, cx: &Estate) -> Result<Option<Arc<Talos>>, Failure> {
        match &self.anew {
            Some(anew) => anew.waits(cx).await,
            None => Ok(None),
        }
    }

    /// One that waits takes no call to shut down. Where its drives are is kept before somebody switches it off.
    pub(super) async fn by_hand(
        &self,
        cx: &Estate,
        waits: &Talos,
        seen: &Seen<'_, Before>,
    ) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        let now = layout_now(cx, &self.machine, &self.plan, seen.run, Some(waits)).await?;
        if seen_last(seen.run)?.as_ref() == Some(&now) {
            let (ask, hands) = switch_off(name);
            return Ok(Check::manual(ask, None, Some(hands)));
        }
        let before = seen.since.cloned().unwrap_or(Before { boot: String::new(), pid: None, onboot: false });
        Ok(Check::todo(
            vec![Change::act(format!("{name}, which waits for a configuration, is switched off by hand"))],
            before,
        ))
    }

    /// etcd is asked right before the call; of one whose system disk goes, the member too.
    pub(super) async fn let_go(
        &self,
        cx: &Estate,
        (talos, boot): (&Talos, &str),
        etcd: &Etcd,
        run: &RunInfo,
        permit: &Permit,
    ) -> Result<(), Failure> {
        let pass = || quorum::pass(cx, &self.machine.cluster, &self.machine.name, &self.peers, permit);
        if self.anew.is_some() {
            if gone(&self.machine, etcd).is_some() || judge(&self.machine.name, etcd).worker {
                return Ok(());
            }
            pass().await?;
            // For the way back: it joins again at the boot after this one.
            permit.file(&left_file(count(run, on::SHUTDOWN, left_file)?), boot.as_bytes())?;
            return Ok(talos.etcd_leave(&permit.in_boot(boot), Leaving::UntilItsNextBoot).await?);
        }
        if self.without_api || self.is_idle(etcd, run)? { Ok(()) } else { pass().await }
    }
}
