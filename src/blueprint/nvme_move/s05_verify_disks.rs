//! 05: every drive is known again in its slot, before anything is let onto the node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Hands, Problem};
use crate::base::drives::Plan;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::machine::Machine;
use crate::blueprint::power::{start, write_config};
use crate::blueprint::vm::Vm;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::proxmox::ConfigChange;
use crate::talos::{Talos, kind};

use super::anew::Anew;
use super::behind::in_the_way_of_a_start;
use super::s02_drain::DrainNode;
use super::s03_shutdown::{Before as Off, ShutDown};
use super::sight::{Stand, facts, stand};
use super::way_out::{GRACE, Way, alone, way_out, with_help};

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
        if let Some(vm) = &self.machine.vm
            && let Some(change) = self.to_start(cx, vm, &seen).await?
        {
            let problems = self.in_the_way(cx, vm, seen.run).await?;
            if !problems.is_empty() {
                return Ok(Check::blocked(problems));
            }
            return Ok(Check::todo(change, Before {}));
        }
        let anew = self.anew.as_ref();
        Ok(match stand(cx, &self.machine, &self.plan, seen.run, &self.plan.target, anew).await? {
            Stand::There(notes) => Check::done().notes(notes),
            Stand::Waits(talos, mut problems, notes) => {
                problems.extend(self.another_medium(&talos, seen.run).await?);
                if problems.is_empty() { Check::done() } else { Check::blocked(problems) }.notes(notes)
            }
            Stand::Amiss(problems, notes) => match alone(&self.machine, seen.run)? {
                Some(help) => Check::blocked(with_help(problems, &help)).notes(notes),
                None => Check::blocked(problems).notes(notes),
            },
            Stand::Between(why) => Check::waiting(why),
            Stand::Deaf(why) => {
                Check::waiting(why).late(GRACE, way_out(&self.plan, &self.plan.target, Way::Forth(anew)))
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
        let (pve, at, (status, config)) =
            vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await?;
        let problems = self.in_the_way(cx, vm, seen.run).await?;
        if !problems.is_empty() {
            return Err(Failure::barred(problems));
        }
        if was_onboot(&seen) && config.configured("onboot") != Some("1") {
            let set = vec![("onboot".to_owned(), "1".to_owned())];
            let change = ConfigChange { set, digest: Some(config.digest.clone()), ..ConfigChange::default() };
            write_config(&pve, &at, &change, permit).await?;
        }
        if status.is_running() { Ok(()) } else { start(&pve, &at, permit).await }
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

impl VerifyDisks {
    /// Why the VM must not be started, or be left to its host to start.
    async fn in_the_way(&self, cx: &Estate, vm: &Vm, run: &RunInfo) -> Result<Vec<Problem>, Failure> {
        let (_, _, status) = vm.status(cx).await?;
        if status.is_running() {
            return Ok(Vec::new());
        }
        in_the_way_of_a_start(cx, &self.machine, &self.plan, run).await
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

    /// What a VM needs to be on as before; None: nothing.
    async fn to_start(&self, cx: &Estate, vm: &Vm, seen: &Seen<'_, Before>) -> Result<Option<Vec<Change>>, Failure> {
        let (_, _, (status, config)) =
            vm.there(cx, async |pve, at| Ok(futures::try_join!(pve.status(at), pve.pending(at))?)).await?;
        let mut changes = Vec::new();
        if was_onboot(seen) && config.configured("onboot") != Some("1") {
            changes.push(Change::set(format!("vm {} onboot", vm.vmid), "0", "1"));
        }
        if !status.is_running() {
            changes.push(Change::act(format!("vm {} starts", vm.vmid)));
        }
        Ok((!changes.is_empty()).then_some(changes))
    }
}
