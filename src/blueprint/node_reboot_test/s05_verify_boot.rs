//! 05: the machine has booted what it should, from where it should, and is whole.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::blueprint::machine::{Boot, Machine};
use crate::blueprint::quorum::{Peer, amiss, judge, look};
use crate::engine::step::{Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::kind;

use super::s04_reboot::{self, BOOT};
use super::{RebootNode, RepairNode, mend_image};
use crate::blueprint::stand::{kubelet, may_pass, missing, static_pods};

/// Waits until the node is what it was, booted anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyBoot {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for VerifyBoot {
    const ID: &'static str = "05-verify-boot";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn instance(&self) -> Option<String> {
        Some(self.machine.name.clone())
    }

    fn title(&self) -> String {
        format!("{} has booted from its disk, and all of it is up", self.machine.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "`kubectl` says Ready long before Talos is through: one service that waits keeps it `booting` for 70 minutes, \
             and then it reboots, without end."
                .into(),
            "It also says Ready for up to a minute after a machine has gone: only the boot id tells which boot it means."
                .into(),
            "A boot that fails falls back to the image in the other slot; version and schematic tell.".into(),
            "A voter counts once it has caught up. Whether another node may go down then is asked when its turn comes."
                .into(),
            format!(
                "By hand: {}, {}, {}, {}, and `kubectl get node {} -o jsonpath='{{.status.nodeInfo.bootID}}'`.",
                self.machine.talosctl("get machinestatus"),
                self.machine.talosctl("services"),
                self.machine.talosctl("get systemdisk"),
                self.machine.talosctl("etcd status"),
                self.machine.node.name
            ),
        ]
    }

    /// Firmware, disks that are checked, images that are pulled.
    fn limit(&self) -> Duration {
        Duration::from_secs(900)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        match self.look(cx, seen.run).await {
            // It is on its way; a VM that is off is not.
            Err(failure) if may_pass(&failure) => self.away(cx, &failure).await,
            other => other,
        }
    }
}

impl VerifyBoot {
    async fn look(&self, cx: &Estate, run: &RunInfo) -> Result<Check<Before>, Failure> {
        let talos = self.machine.open(cx).await?;
        let (status, services) = futures::try_join!(talos.single(&kind::MACHINE_STATUS), talos.services())?;
        let Some(status) = status.map(|status| status.spec) else {
            return Ok(Check::waiting(format!("{} does not tell its stage yet", self.machine.name)));
        };
        let node = cx.kubernetes(&self.machine.node.cluster).await?.node(&self.machine.node.name).await?;
        // Asked after them: what is not there once all of it is up will not come.
        let boot = self.machine.boot(cx).await?;
        let mut lines = missing(&self.machine, &status, &services);
        lines.extend(kubelet(&self.machine, node.as_ref(), &boot.id));
        let mut others = Vec::new();
        if lines.is_empty() {
            let etcd = look(cx, &self.machine.cluster, &self.peers).await;
            lines.extend(amiss(&self.machine.name, &etcd).map(|problem| problem.text));
            let now = judge(&self.machine.name, &etcd).problems;
            others
                .extend(now.into_iter().map(|problem| format!("as to etcd it must not go down now: {}", problem.text)));
            lines.extend(self.not_served(cx).await?);
        }
        let former = self.former(run)?;
        let wrong = match &former {
            Some(former) => self.wrong(cx, run, (former, &boot), lines.is_empty()).await?,
            None => Vec::new(),
        };
        Ok(if !wrong.is_empty() {
            Check::blocked(wrong)
        } else if lines.is_empty() {
            Check::done().notes(self.notes(&boot, former.as_ref())).notes(others)
        } else {
            Check::waiting(lines.join("; "))
        })
    }

    /// The static pods of the node that are not ready: its part of the control plane.
    async fn not_served(&self, cx: &Estate) -> Result<Vec<String>, Failure> {
        let pods = cx.kubernetes(&self.machine.node.cluster).await?.pods_on(&self.machine.node.name).await?;
        Ok(static_pods(&pods))
    }

    async fn away(&self, cx: &Estate, failure: &Failure) -> Result<Check<Before>, Failure> {
        if let Some(vm) = &self.machine.vm {
            let (_, _, status) = vm.status(cx).await?;
            if !status.is_running() {
                // 04 is behind us, and this step only reads.
                let help = format!("`qm start {}`", vm.vmid);
                let problem = Problem::new(format!("vm {} is {}", vm.vmid, status.status), help);
                return Ok(Check::blocked(vec![problem]));
            }
        }
        Ok(Check::waiting(failure.to_string()))
    }

    /// What 04 of this run found before its call. None: this run has none.
    fn former(&self, run: &RunInfo) -> Result<Option<s04_reboot::Before>, Failure> {
        let key = StepKey::new(<RebootNode as Step<Estate>>::ID, Some(&self.machine.name));
        let unread = |why: String| {
            let help = "give the run up with `pvemig abandon`, and begin a new one".to_owned();
            Failure::plain(format!("what {key} wrote down in {BOOT} cannot be read: {why}"), Some(help))
        };
        let Some(bytes) = run.file(&key, BOOT).map_err(|error| unread(error.to_string()))? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| unread(error.to_string()))
    }

    /// The image that 03 of this run wrote, if it did.
    fn written(&self, run: &RunInfo) -> Result<Option<String>, Failure> {
        let key = StepKey::new(<RepairNode as Step<Estate>>::ID, Some(&self.machine.name));
        mend_image::written(run, &key)
    }

    /// What waiting does not mend. `up`: nothing else is waited for.
    async fn wrong(
        &self,
        cx: &Estate,
        run: &RunInfo,
        (former, boot): (&s04_reboot::Before, &Boot),
        up: bool,
    ) -> Result<Vec<Problem>, Failure> {
        let written = self.written(run)?;
        let mut problems = differences(&self.machine, (&former.boot, boot), written.as_deref(), up);
        if let Some(vm) = &self.machine.vm {
            let (_, _, status) = vm.status(cx).await?;
            if status.pid.is_some() && status.pid == former.pid {
                problems.push(Problem::new(
                    format!(
                        "vm {} still has the process that it had before: what waits in its config is not applied",
                        vm.vmid
                    ),
                    format!("`qm shutdown {0} && qm start {0}`, then `pvemig resume`", vm.vmid),
                ));
            }
        }
        Ok(problems)
    }

    fn notes(&self, boot: &Boot, former: Option<&s04_reboot::Before>) -> Vec<String> {
        let from = boot.disk.as_deref().unwrap_or("an image");
        let entry = boot.entry.as_ref().map(|entry| format!(", entry {entry}")).unwrap_or_default();
        let mut notes = vec![format!("boot {} of Talos {} from {from}{entry}", boot.id, boot.version)];
        if former.is_none() {
            notes.push("no reboot of this run to hold that against".to_owned());
        }
        notes
    }
}

/// How a boot differs from the one before, where it must not. `written`: the image that was written in between. What a
/// node does not tell counts once it is `up`: before that it is only not there yet.
fn differences(machine: &Machine, (then, now): (&Boot, &Boot), written: Option<&str>, up: bool) -> Vec<Problem> {
    let (name, dmesg) = (&machine.name, machine.talosctl("dmesg"));
    let mut problems = Vec::new();
    let mut add = |text: String, help: String| problems.push(Problem::new(text, help));
    if now.id == then.id {
        add(
            format!("{name} is still in boot {}: it has not been rebooted", now.id),
            format!("`pvemig step 04-reboot --node {name}` does it"),
        );
        return problems;
    }
    let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let differs = |then: &Option<String>, now: &Option<String>| now != then && (up || now.is_some());
    if differs(&then.disk, &now.disk) && !now.is_on_the_disk_of(then) {
        add(
            format!("{name} was installed on {}, and has booted from {}", show(&then.disk), show(&now.disk)),
            "see the boot order of its firmware, and what else is plugged in".to_owned(),
        );
    }
    match written {
        None => {
            let other = differs(&then.schematic, &now.schematic) || differs(&then.entry, &now.entry);
            if other || now.version != then.version {
                let of =
                    |b: &Boot| format!("{} (schematic {}, entry {})", b.version, show(&b.schematic), show(&b.entry));
                add(
                    format!("{name} ran {}, and has booted {}", of(then), of(now)),
                    format!(
                        "the boot loader took the other slot, or the firmware another disk: {dmesg}, and its console, say why"
                    ),
                );
            }
        }
        Some(_) if !up && now.schematic.is_none() => {}
        Some(image) => {
            if !now.runs(image) {
                add(
                    format!("{name} was to boot {image}, and has booted {}", now.image()),
                    format!("the boot failed and fell back: {dmesg}, and its console, say why"),
                );
            }
        }
    }
    if differs(&then.uid, &now.uid) {
        add(
            format!("node {name} has another uid than before: somebody made it anew"),
            "see what was lost with it: labels, annotations, volumes that name it".to_owned(),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;

    fn machine() -> Machine {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() }
    }

    fn boot(id: &str) -> Boot {
        Boot {
            id: id.into(),
            version: "v1.11.5".into(),
            schematic: Some("a".repeat(64)),
            disk: Some("Samsung (serial 1)".into()),
            marks: std::collections::BTreeMap::new(),
            entry: Some("Talos-v1.11.5.efi".into()),
            uid: Some("u".into()),
        }
    }

    fn installer(digit: char, version: &str) -> String {
        format!("f/metal-installer/{}:{version}", digit.to_string().repeat(64))
    }

    #[test]
    fn a_boot_must_be_another_one_of_the_same() {
        let text = |now: Boot, written: Option<&str>| -> Vec<String> {
            differences(&machine(), (&boot("a"), &now), written, true).into_iter().map(|p| p.text).collect()
        };
        assert_eq!(text(boot("b"), None), Vec::<String>::new());
        let (other, later) = (&installer('b', "v1.11.5"), &installer('a', "v1.12.0"));
        let cases = [
            (boot("a"), None, "still in boot a"),
            (Boot { disk: Some("stick".into()), ..boot("b") }, None, "has booted from stick"),
            (Boot { disk: None, ..boot("b") }, None, "has booted from none"),
            (Boot { version: "v1.11.4".into(), ..boot("b") }, None, "has booted v1.11.4"),
            (Boot { schematic: Some("bb".into()), ..boot("b") }, None, "schematic bb"),
            (Boot { entry: Some("old.efi".into()), ..boot("b") }, None, "entry old.efi"),
            (Boot { uid: Some("v".into()), ..boot("b") }, None, "another uid"),
            (boot("b"), Some(other), &format!("was to boot {other}, and has booted v1.11.5 (schematic aaaa")),
            (boot("b"), Some(later), &format!("was to boot {later}")),
            // The image that it fell back to may be one without a schematic.
            (Boot { schematic: None, ..boot("b") }, Some(other), "has booted v1.11.5 (no schematic)"),
        ];
        assert_eq!(cases.len(), 10);
        for (now, written, part) in cases {
            let said = text(now, written.map(String::as_str));
            assert!(said.len() == 1 && said[0].contains(part), "{part}: {said:?}");
        }
        let upgraded = Boot { schematic: Some("b".repeat(64)), entry: Some("new.efi".into()), ..boot("b") };
        assert_eq!(text(upgraded, Some(other)), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_there_yet_is_no_other_machine() {
        let count = |now: &Boot, written, up| differences(&machine(), (&boot("a"), now), written, up).len();
        let fresh = boot("b");
        let cases = [
            Boot { disk: None, ..fresh.clone() },
            Boot { schematic: None, ..fresh.clone() },
            Boot { entry: None, ..fresh.clone() },
            Boot { uid: None, ..fresh.clone() },
        ];
        assert_eq!(cases.len(), 4);
        for now in &cases {
            assert_eq!((count(now, None, false), count(now, None, true)), (0, 1), "{now:?}");
        }
        assert_eq!(count(&cases[1], Some("f/metal-installer/bb:v1.11.5"), false), 0);
        // What is there and another one is so from the first moment on.
        assert_eq!(count(&Boot { disk: Some("stick".into()), ..fresh.clone() }, None, false), 1);
        assert_eq!(count(&Boot { version: "v1.11.4".into(), ..fresh }, None, false), 1);
    }
}
