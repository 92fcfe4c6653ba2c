//! 05: every drive is known again in its slot, before anything is let onto the node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Hands, Problem};
use crate::base::drives::Plan;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::base::wait::Backoff;
use crate::blueprint::machine::Machine;
use crate::blueprint::power::{start, write_config};
use crate::blueprint::vm::Vm;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::proxmox::{ConfigChange, Pending};
use crate::talos::{Talos, kind};

use super::anew::Anew;
use super::behind::{Host, in_the_way_of_a_start, passed, view};
use super::on;
use super::remembered::{started_file, times};
use super::s02_drain::DrainNode;
use super::s03_shutdown::{Before as Off, ShutDown};
use super::sight::{Stand, facts, stand};
use super::way_out::{GRACE, Way, alone, once_more, way_out, with_help};

/// Looks at each drive; starts a VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyDisks {
    /// The node.
    pub machine: Machine,
    /// What is to become of its drives.
    pub plan: Plan,
    /// What it is installed anew with, where its system disk is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Anew>,
}

/// It was off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for VerifyDisks {
    const ID: &'static str = "05-verify-disks";
    const RISK: Risk = Risk::Reverts;
    /// With the only control plane off there is no API to ask.
    const BLIND_TO: &'static [&'static str] = &[<DrainNode as Step<Estate>>::ID];
    type Before = Before;

    fn title(&self) -> String {
        format!("each drive of {} is known again, in its slot", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "By its serial number; where it reports another one in another slot, by the uuids of its partitions, its model and its \
             size, and that is said. Drives that share a serial number are told apart by what is on them."
                .into(),
            "A drive that is the same by its serial number and has none of its partitions any more is no drive to go on with.".into(),
            "There is no `talosctl execute`, and so no `blkid` or `fdisk`: partitions are `discoveredvolumes`, a controller without a disk \
             shows in `pcidevices`."
                .into(),
            "A node whose system disk was moved is bootstrapped by nobody: its etcd is on that disk, and `talosctl bootstrap` would begin \
             a second one."
                .into(),
            format!(
                "By hand: {}, {}.",
                self.machine.talosctl("get disks -o yaml"),
                self.machine.talosctl("get discoveredvolumes -o yaml")
            ),
        ]
    }

    /// Firmware and boot.
    fn limit(&self) -> Duration {
        Duration::from_secs(900)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        match &self.machine.vm {
            Some(vm) => Outlook::changes(System::Proxmox, [format!("vm {}", vm.vmid)]),
            None => Outlook::default(),
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = &self.machine.name;
        if let Some(vm) = &self.machine.vm {
            let (_, _, (status, config)) = vm.state_and_config(cx).await?;
            if !status.is_running() {
                let problems = self.in_the_way(cx, vm, seen.run).await?;
                if !problems.is_empty() {
                    return Ok(Check::blocked(problems));
                }
                let mut changes = vec![Change::act(format!("vm {} starts", vm.vmid))];
                changes.extend(to_start_with_its_host(vm, &config, &seen));
                return Ok(Check::todo(changes, Before {}));
            }
        }
        let anew = self.anew.as_ref();
        Ok(match stand(cx, &self.machine, &self.plan, seen.run, &self.plan.target, anew).await? {
            Stand::There(notes) => match self.left_to_its_host(cx, &seen).await? {
                Some(change) => Check::todo(vec![change], Before {}).notes(notes),
                None => Check::done().notes(notes),
            },
            Stand::Waits(talos, mut problems, notes) => {
                problems.extend(self.another_medium(&talos, seen.run).await?);
                if problems.is_empty() { Check::done() } else { Check::blocked(problems) }.notes(notes)
            }
            Stand::Amiss(problems, notes) => {
                let problems = match alone(&self.machine, seen.run)? {
                    Some(help) => with_help(problems, &help),
                    None => once_more(problems),
                };
                Check::blocked(problems).notes(notes)
            }
            Stand::Between(why) => Check::waiting(why),
            Stand::Deaf(why) => {
                Check::waiting(why).late(GRACE, way_out(&self.machine, &self.plan, &self.plan.target, Way::Forth(anew)))
            }
            Stand::Off(how) => {
                let medium = anew.map(|anew| anew.medium.clone());
                let hands = Hands::Drives { node: name.clone(), moves: Vec::new(), medium, on: true };
                let ask = match anew {
                    Some(anew) => format!("{}, and boot {name} from that", anew.plug_in()),
                    None => format!("switch {name} on"),
                };
                Check::manual(ask, Some(how), Some(hands))
            }
            Stand::Other(why) => Check::blocked(vec![Problem::new(
                format!("what answers as {name} is not its installation: {why}"),
                "see its screen, and the boot order of its firmware",
            )]),
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(()) };
        let (pve, at, status) = vm.status(cx).await?;
        if !status.is_running() {
            let problems = self.in_the_way(cx, vm, seen.run).await?;
            if !problems.is_empty() {
                return Err(Failure::barred(problems));
            }
            if let Some(last) = times(seen.run)?.checked_sub(1) {
                permit.file(&started_file(last), b"{}")?;
            }
            start(&pve, &at, permit).await?;
        }
        // It may be off for a drive once more: its host starts it by itself only once each is known.
        if !was_onboot(&seen) || !self.is_there(cx, seen.run, permit).await? {
            return Ok(());
        }
        let (pve, at, config) = vm.config(cx).await?;
        if to_start_with_its_host(vm, &config, &seen).is_none() {
            return Ok(());
        }
        let set = vec![("onboot".to_owned(), "1".to_owned())];
        let change = ConfigChange { set, digest: Some(config.digest.clone()), ..ConfigChange::default() };
        write_config(&pve, &at, &change, permit).await
    }

    /// What was off is for 03 to bring back.
    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done().note("how the machine was before is for 03 to bring back"))
    }
}

/// Whether the VM started with its host before 03.
fn was_onboot(seen: &Seen<'_, Before>) -> bool {
    let held = seen.held.get(<ShutDown as Step<Estate>>::ID);
    held.and_then(|value| Off::deserialize(value).ok()).is_some_and(|off| off.onboot)
}

/// It was to start with its host before 03, and is not any more.
fn to_start_with_its_host(vm: &Vm, config: &Pending, seen: &Seen<'_, Before>) -> Option<Change> {
    let wanting = was_onboot(seen) && config.configured("onboot") != Some("1");
    wanting.then(|| Change::set(format!("vm {} onboot", vm.vmid), "0", "1"))
}

impl VerifyDisks {
    /// Why the VM must not be started: something else would be given to it, or a drive is not where it belongs.
    async fn in_the_way(&self, cx: &Estate, vm: &Vm, run: &RunInfo) -> Result<Vec<Problem>, Failure> {
        let mut problems = in_the_way_of_a_start(cx, &self.machine, &self.plan, run).await?;
        let (_, at, _) = vm.status(cx).await?;
        if let Host::Shown(shown) = view(cx, &vm.cluster, &at.node).await?
            && passed(run)?.is_none_or(|passed| passed.boot != shown.boot)
        {
            let help = "`pvemig resume` asks for that once more";
            let amiss = shown.amiss(&self.plan, &self.plan.target).into_iter();
            problems.extend(amiss.map(|text| Problem::new(text, help).mended_by(on::MOVE)));
        }
        Ok(problems)
    }

    /// Waits until each drive is known in its slot; false: it comes to something else, which the check says.
    async fn is_there(&self, cx: &Estate, run: &RunInfo, permit: &Permit) -> Result<bool, Failure> {
        let (begun, mut pauses) = (cx.clock().instant(), Backoff::poll(cx.clock()));
        loop {
            match stand(cx, &self.machine, &self.plan, run, &self.plan.target, None).await? {
                Stand::There(_) => return Ok(true),
                Stand::Between(why) | Stand::Deaf(why) if begun.elapsed() < Step::<Estate>::limit(self) => {
                    permit.progress(&why);
                }
                _ => return Ok(false),
            }
            permit.go_on()?;
            pauses.pause().await;
        }
    }

    /// Of a VM whose drives are known: it starts with its host again.
    async fn left_to_its_host(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Option<Change>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(None) };
        let (_, _, config) = vm.config(cx).await?;
        Ok(to_start_with_its_host(vm, &config, seen))
    }

    /// The medium has another version of Talos than the node had: it would be installed with the tools of another one. Or it
    /// is of another schematic than the site file says.
    async fn another_medium(&self, waits: &Talos, run: &RunInfo) -> Result<Option<Problem>, Failure> {
        let (name, Some(anew)) = (&self.machine.name, &self.anew) else { return Ok(None) };
        let was = facts(&self.machine, run)?.map_or_else(|| anew.medium.clone(), |facts| facts.talos);
        if let Some(wanted) = &anew.schematic {
            // The version call is not there in maintenance mode; what is on the image is.
            let all = waits.list(&kind::EXTENSIONS).await?.into_iter().map(|one| one.spec.metadata);
            let is = all.filter(|one| one.name == "schematic").map(|one| one.version).next();
            if is.as_ref() != Some(wanted) {
                let is = is.map_or_else(|| "no schematic".to_owned(), |is| format!("schematic {is}"));
                return Ok(Some(Problem::new(
                    format!("{name} waits with an image of {is}, and `medium` says {wanted}"),
                    format!(
                        "switch it off by its power button, and boot it from that one, or correct `medium`; `pvemig resume` asks {name} again"
                    ),
                )));
            }
        }
        let Some(version) = waits.single(&kind::VERSION).await?.map(|found| found.spec.version) else {
            let text = format!("which version of Talos {name} was booted from the medium with it does not tell");
            return Ok(Some(Problem::new(text, "see its screen; `pvemig resume` asks again")));
        };
        Ok((version != was).then(|| {
            Problem::new(
                format!("{name} waits with Talos {version}, and ran {was}"),
                format!("switch it off by its power button, and boot it from a medium with {was}; `pvemig resume` asks again"),
            )
        }))
    }
}
