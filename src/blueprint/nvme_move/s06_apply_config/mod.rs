//! 06: the machine configuration has the volumes of the drives that came, and each of its selectors means one drive.

mod data;
mod replaced;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::drives::{Plan, Purpose};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Permit, System};
use crate::blueprint::configs;
use crate::blueprint::machine::Machine;
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::KeptConfig;
use crate::talos::patch::Patch;

use super::anew::Anew;
use super::params::Params;
use super::s02_drain::DrainNode;

/// Merges the documents of new volumes into the machine configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApplyConfig {
    /// The node.
    pub machine: Machine,
    /// What is to become of its drives.
    pub plan: Plan,
    /// The documents of the volumes that are made on drives that come.
    pub volumes: Vec<Patch>,
    /// What it is installed anew with, where its system disk is another one: then nothing is written, and the configuration is
    /// held against the machine that waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Anew>,
}

/// What it was like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The machine configuration: a run file. None where nothing is written.
    pub kept: Option<KeptConfig>,
}

impl ApplyConfig {
    /// Where it is of any use: the node is installed anew, volumes are to be made, or a drive comes on which one is.
    pub fn of(p: &Params) -> Option<Self> {
        let comes = |name: &str| Plan::slot_of(&p.plan.target, name).is_some();
        let is_volume = |purpose: &Purpose| matches!(purpose, Purpose::UserVolume(_) | Purpose::RawVolume(_));
        let mut new = p.plan.drives.iter().filter(|(name, wanted)| wanted.new && comes(name));
        let needed =
            p.anew.is_some() || !p.volumes.is_empty() || new.any(|(_, wanted)| wanted.purposes.iter().any(is_volume));
        needed.then(|| Self {
            machine: p.machine.clone(),
            plan: p.plan.clone(),
            volumes: p.volumes.clone(),
            anew: p.anew.clone(),
        })
    }
}

impl Step<Estate> for ApplyConfig {
    const ID: &'static str = "06-apply-config";
    const RISK: Risk = Risk::Reverts;
    /// With the only control plane just up again its API may not be.
    const BLIND_TO: &'static [&'static str] = &[<DrainNode as Step<Estate>>::ID];
    type Before = Before;

    fn title(&self) -> String {
        match &self.anew {
            Some(anew) => format!("the configuration of {} means its new system disk", anew.bare.name()),
            None => format!("the machine configuration of {} fits its drives", self.machine.name),
        }
    }

    fn why(&self) -> Vec<String> {
        if let Some(anew) = &self.anew {
            return replaced::why(anew);
        }
        vec![
            "A volume is a document of the machine configuration (`UserVolumeConfig`), and its selector says on which drive it is made: \
             Talos has no `machine.volumes`."
                .into(),
            "Each selector of all documents is evaluated on the drives that are there now. One that goes by place, means several drives \
             or none, or a drive with something on it, is refused before anything is written."
                .into(),
            "What is missing is merged in and applied without a reboot; an undo puts the former text back, byte for byte. A \
             partition that Talos has made by then stays."
                .into(),
            format!("By hand: {}.", self.machine.talosctl("patch machineconfig --mode no-reboot -p @FILE")),
        ]
    }

    /// It may still be booting.
    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let what = format!("machine configuration of {}", self.machine.name);
        if self.volumes.is_empty() { Outlook::default() } else { Outlook::changes(System::Talos, [what]) }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        if let Some(anew) = &self.anew {
            return replaced::check(cx, anew, &self.plan, seen.run).await;
        }
        match data::look(self, cx, &seen).await {
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => other,
        }
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (None, Some(Before { kept: Some(kept) })) = (&self.anew, seen.since) else { return Ok(()) };
        data::once_more(self, cx, &seen).await?;
        configs::apply(cx, &self.machine, kept, &self.volumes, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let Some(kept) = &before.kept else { return Ok(Check::done()) };
        let stored = stored(seen.run, kept)?;
        let written = stored.is_some();
        match configs::back(cx, &self.machine, kept, stored, &self.volumes).await {
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            Ok(back) if back.is_done() && written => Ok(Check::done().stays(self.made())),
            other => other,
        }
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(kept) = &before.kept else { return Ok(()) };
        configs::undo(cx, &self.machine, kept, stored(seen.run, kept)?, permit).await
    }
}

impl ApplyConfig {
    /// What Talos may have made of the documents, and nobody takes back.
    fn made(&self) -> Vec<String> {
        let of = |patch: &Patch| match patch {
            Patch::UserVolume { name, .. } => Some(format!(
                "the partition u-{name} that Talos has made of {} stays, with what is on it",
                self.drive_of(&Purpose::UserVolume(name.clone()))
            )),
            _ => None,
        };
        self.volumes.iter().filter_map(of).collect()
    }

    fn drive_of(&self, purpose: &Purpose) -> &str {
        let drive = self.plan.drives.iter().find(|(_, wanted)| wanted.purposes.contains(purpose));
        drive.map_or("its drive", |(name, _)| name)
    }
}

/// The former configuration, as this run stored it.
fn stored(run: &RunInfo, kept: &KeptConfig) -> Result<Option<Vec<u8>>, Failure> {
    let key = StepKey::new(<ApplyConfig as Step<Estate>>::ID, None);
    let unread = |error| Failure::plain(format!("the run's file {key}/{} cannot be read: {error}", kept.file), None);
    run.file(&key, &kept.file).map_err(unread)
}
