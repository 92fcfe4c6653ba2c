//! What Terraform, Ansible, the nodes' own configuration and git must say after a `usb-move`, by its journal alone: the
//! before-images and calls of the steps that stand.
//!
//! Sources of the names: Terraform `proxmox_virtual_environment_vm`, blocks `usb` with `host`, `mapping`, `usb3`
//! (bpg/terraform-provider-proxmox docs/resources/virtual_environment_vm.md), of which the provider reads `usb0` to
//! `usb3` only (its issue 3009), and `proxmox_hardware_mapping_usb` with `map` of `id`, `node`, `path`
//! (docs/resources/hardware_mapping_usb.md); Ansible `community.proxmox.proxmox_kvm` with `vmid`, `node`, `usb`,
//! `delete`, `update` (ansible-collections/community.proxmox plugins/modules/proxmox_kvm.py); k3s `node-label`, the
//! flag's name in its config.yaml; Talos `machine.nodeLabels`.

use serde::Deserialize;

use crate::base::permit::Handle;
use crate::engine::event::Planned;
use crate::engine::fold::Fold;
use crate::engine::state::{RunState, Stage};
use crate::engine::step::Step;
use crate::estate::Estate;
use crate::proxmox::{UsbSource, UsbValue, usb_slot};

use super::device::{Attach, Vm};
use super::{AddUsb, InstallDrivers, LabelNode, RecreatePvcs, RemoveLabel, RemoveUsb, RetainVolumes, UpdateManifests};

/// The slots that Terraform's provider reads back.
const TERRAFORM_SLOTS: u8 = 4;

/// A step that this run applied and that stands: its fields, its before-image, and what its calls left.
struct Stands<S: Step<Estate>> {
    step: S,
    before: S::Before,
    left: Vec<Handle>,
}

/// What everybody must say by now; nothing where nothing stands.
pub(super) fn fold_back(state: &RunState) -> Vec<Fold> {
    let (from, to) = (stands::<RemoveUsb>(state), stands::<AddUsb>(state));
    let mut all = Vec::new();
    all.extend(terraform(from.as_ref(), to.as_ref()));
    all.extend(ansible(from.as_ref(), to.as_ref()));
    all.extend(labels(stands(state).as_ref(), stands(state).as_ref()));
    all.extend(volumes(stands(state).as_ref(), stands(state).as_ref()));
    all.extend(drivers(stands(state).as_ref()));
    all.extend(git(stands(state).as_ref()));
    all
}

fn stands<S: Step<Estate>>(state: &RunState) -> Option<Stands<S>> {
    let planned: &Planned = state.opened.plan.iter().find(|p| p.key.id() == S::ID)?;
    let run = state.steps.get(&planned.key)?;
    // What an undo passed stays as well.
    let there = run.stage == Stage::Applied || run.passed;
    let before = run.before.as_ref().filter(|_| there)?;
    let left = run.calls.iter().filter_map(|call| call.handle.clone()).collect();
    // Fields of another version say nothing here; everything else of the report is there all the same.
    Some(Stands {
        step: S::deserialize(&planned.step).ok()?,
        before: <S::Before as Deserialize>::deserialize(before).ok()?,
        left,
    })
}

/// The host that the step's last pve task ran on.
fn host(left: &[Handle]) -> Option<&str> {
    left.iter().rev().filter(|handle| handle.kind == "upid").find_map(|handle| handle.value.split(':').nth(1))
}

fn number(slot: &str) -> Option<u8> {
    usb_slot(slot)
}

/// A value as Terraform writes it.
fn block(sign: char, value: &str) -> Vec<String> {
    let Ok(usb) = value.parse::<UsbValue>() else { return vec![format!("{sign} # {value}")] };
    let (name, source) = match &usb.source {
        UsbSource::Mapping(name) => ("mapping", name.clone()),
        UsbSource::Id(id) => ("host", id.to_string()),
        UsbSource::Port(port) => ("host", port.to_string()),
        UsbSource::Spice => ("host", "spice".to_owned()),
    };
    let mut lines = vec![format!("{sign} usb {{"), format!("{sign}   {name:<7} = \"{source}\"")];
    if usb.usb3 {
        lines.push(format!("{sign}   usb3    = true"));
    }
    lines.push(format!("{sign} }}"));
    lines
}

fn terraform(from: Option<&Stands<RemoveUsb>>, to: Option<&Stands<AddUsb>>) -> Option<Fold> {
    let of = |vm: &Vm| format!("# resource \"proxmox_virtual_environment_vm\" with vm_id = {}", vm.vmid);
    let mut lines = Vec::new();
    let mut why = vec![
        "the next `terraform apply` gives the device back to the VM that had it, and takes it from the one that has it \
         now"
            .to_owned(),
        "the blocks are counted from usb0: where the VM has others, keep their order".to_owned(),
    ];
    if let Some(from) = from {
        lines.push(of(&from.step.vm));
        from.before.entries.iter().for_each(|(_, value)| lines.extend(block('-', value)));
    }
    if let Some(to) = to {
        lines.push(of(&to.step.vm));
        for (slot, value) in &to.before.set {
            // Where the slot was there before and only got usb3, the former block goes.
            to.before.slots.get(slot).into_iter().for_each(|was| lines.extend(block('-', was)));
            lines.extend(block('+', value));
        }
        let beyond: Vec<_> =
            to.before.set.keys().filter(|slot| number(slot).is_none_or(|n| n >= TERRAFORM_SLOTS)).cloned().collect();
        if !beyond.is_empty() {
            let slots = beyond.join(", ");
            why.push(format!("{slots}: the provider reads usb0 to usb3 only, and would plan it again and again"));
        }
        lines.extend(mapping(to));
    }
    (!lines.is_empty()).then(|| Fold { owner: "Terraform, provider bpg/proxmox".into(), why, language: "diff", lines })
}

/// The entry of a mapping for the target's host. What the entry is now is not in the before-image: the port and id that
/// 04 found are in the mapping itself.
fn mapping(to: &Stands<AddUsb>) -> Vec<String> {
    let Some(name) = to.step.device.mapping.as_ref().filter(|_| to.step.attach == Attach::Mapping) else {
        return Vec::new();
    };
    let host = &to.before.host;
    let was = to.before.entry.as_ref().map_or_else(|| "had none".to_owned(), |entry| format!("was {entry}"));
    vec![
        format!("# resource \"proxmox_hardware_mapping_usb\" with name = \"{name}\""),
        format!("# `map` has an entry with node = \"{host}\" ({was}); `id` and `path` as"),
        format!("# `pvesh get /cluster/mapping/usb/{name}` shows them"),
    ]
}

fn ansible(from: Option<&Stands<RemoveUsb>>, to: Option<&Stands<AddUsb>>) -> Option<Fold> {
    let mut lines = Vec::new();
    let begin = |lines: &mut Vec<String>, vm: &Vm, host: Option<&str>| {
        lines.push("- community.proxmox.proxmox_kvm:".to_owned());
        lines.push(format!("    vmid: {}", vm.vmid));
        lines.extend(host.map(|host| format!("    node: {host}")));
    };
    if let Some(from) = from {
        begin(&mut lines, &from.step.vm, host(&from.left));
        let slots: Vec<&str> = from.before.entries.iter().map(|(slot, _)| slot.as_str()).collect();
        lines.push(format!("    delete: {}  # and not under `usb:` any more", slots.join(",")));
    }
    if let Some(to) = to {
        begin(&mut lines, &to.step.vm, Some(&to.before.host));
        lines.push("    usb:".to_owned());
        to.before.set.iter().for_each(|(slot, value)| lines.push(format!("      {slot}: \"{value}\"")));
        lines.push("    update: true".to_owned());
    }
    let why = vec!["a play that still has the old `usb:` writes the device back into the VM that had it".to_owned()];
    let owner = "Ansible, community.proxmox.proxmox_kvm".to_owned();
    (!lines.is_empty()).then_some(Fold { owner, why, language: "yaml", lines })
}

fn labels(off: Option<&Stands<RemoveLabel>>, on: Option<&Stands<LabelNode>>) -> Option<Fold> {
    let mut lines = Vec::new();
    if let Some((off, key)) = off.and_then(|off| Some((off, off.step.key.as_ref()?))) {
        let value = off.before.value.as_deref().unwrap_or_default();
        lines.push(format!("# node {}", off.step.node.name));
        lines.push(format!("- {key}={value}"));
    }
    if let Some((on, label)) = on.and_then(|on| Some((on, on.step.label.as_ref()?))) {
        lines.push(format!("# node {}", on.step.node.name));
        lines.extend(on.before.value.as_ref().map(|was| format!("- {}={was}", label.key)));
        lines.push(format!("+ {}={}", label.key, label.value));
    }
    let why = vec![
        "where the labels of the nodes are declared they come back: k3s sets those of `node-label` (config.yaml, or the \
         variable of your inventory that fills it) at each start, Talos those of `machine.nodeLabels` at once"
            .to_owned(),
    ];
    let owner = "Node labels (k3s, Talos, inventory)".to_owned();
    (!lines.is_empty()).then_some(Fold { owner, why, language: "diff", lines })
}

fn volumes(kept: Option<&Stands<RetainVolumes>>, anew: Option<&Stands<RecreatePvcs>>) -> Option<Fold> {
    let (mut lines, mut why) = (Vec::new(), Vec::new());
    for was in kept.iter().flat_map(|kept| &kept.before.volumes) {
        lines.push(format!("# PersistentVolume {}", was.name));
        lines.push(format!("- persistentVolumeReclaimPolicy: {}", was.policy));
        lines.push("+ persistentVolumeReclaimPolicy: Retain".to_owned());
    }
    if !lines.is_empty() {
        why.push("a manifest that sets a volume back to its former policy has it wiped once it is released".to_owned());
    }
    if let Some(anew) = anew {
        let namespace = &anew.step.work.namespace;
        for was in &anew.before.claims {
            let Some((volume, _)) = &was.volume else { continue };
            lines.push(format!("# PersistentVolumeClaim {namespace}/{}", was.name));
            lines.push(format!("- volumeName: {volume}"));
            why.push(format!(
                "what claim {namespace}/{} held is on volume {volume}, Released and kept: once nobody needs it, take \
                 what is on its disk away and `kubectl delete pv {volume}`",
                was.name
            ));
        }
    }
    let owner = "Manifests of volumes and claims, where there are any".to_owned();
    (!lines.is_empty()).then_some(Fold { owner, why, language: "diff", lines })
}

fn drivers(installed: Option<&Stands<InstallDrivers>>) -> Option<Fold> {
    let installed = installed?;
    let drivers = installed.step.drivers.as_ref()?;
    let vmid = installed.step.vm.vmid;
    Some(Fold {
        owner: format!("The guest of vm {vmid} (its image, or its role in Ansible)"),
        why: vec![format!("a guest that is built anew has no drivers: {} installed them by hand", InstallDrivers::ID)],
        language: "sh",
        lines: vec![crate::guest::quote(&drivers.install.command)],
    })
}

fn git(pushed: Option<&Stands<UpdateManifests>>) -> Option<Fold> {
    let pushed = pushed?;
    let checkout = &pushed.step.gitops.as_ref()?.checkout;
    let commit = pushed.left.iter().find(|handle| handle.kind == "commit").map(|handle| handle.value.as_str())?;
    let why = vec![
        format!("commit {commit} is on the branch that the cluster follows; nothing is left to do there"),
        "bring it into your own checkout (`git pull`) before you change these files, and into what else sets the same \
         values (another branch, a Helm chart's values)"
            .to_owned(),
    ];
    let mut lines = Vec::new();
    for edit in &pushed.step.edits {
        lines.push(format!("# {} {}", edit.file, edit.object));
        lines.extend(edit.set.iter().map(|(path, value)| format!("+ {path}: {value}")));
        lines.extend(edit.remove.iter().map(|path| format!("- {path}")));
        for (path, from, to) in &edit.replace {
            lines.push(format!("- {path}: {from}"));
            lines.push(format!("+ {path}: {to}"));
        }
    }
    Some(Fold { owner: format!("Git, checkout {checkout}"), why, language: "diff", lines })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::{Event, Record};

    /// The journal of a finished rehearsal, as an earlier version wrote it.
    fn records() -> Vec<Record> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/journals/1-usb-move.jsonl");
        crate::engine::journal::read(std::path::Path::new(path)).unwrap().records
    }

    fn of(records: &[Record]) -> Vec<Fold> {
        fold_back(&RunState::fold(records).unwrap().unwrap())
    }

    #[test]
    fn everybody_is_told_by_the_journal_alone() {
        let all = of(&records());
        let owners: Vec<_> = all.iter().map(|fold| fold.owner.split([',', ' ']).next().unwrap()).collect();
        assert_eq!(owners, ["Terraform", "Ansible", "Node", "Manifests", "The", "Git"]);
        let text = |at: usize| all[at].lines.join("\n");
        let gone = "vm_id = 105\n- usb {\n-   host    = \"1a6e:089a\"\n-   usb3    = true\n- }\n- usb {";
        let here = "vm_id = 108\n+ usb {\n+   host    = \"1a6e:089a\"\n+   usb3    = true\n+ }\n+ usb {";
        assert!(text(0).contains(gone) && text(0).contains(here), "{}", text(0));
        let play = "- community.proxmox.proxmox_kvm:\n    vmid: 105\n    node: pumped-piglet\n    delete: usb0,usb1";
        assert!(text(1).starts_with(play), "{}", text(1));
        assert!(text(1).contains("vmid: 108\n    node: still-fawn\n    usb:\n      usb0: \"host=1a6e:089a,usb3=1\""));
        let labels = "# node k3s-vm-pumped-piglet\n- coral=true\n# node k3s-vm-still-fawn\n+ coral=true";
        assert_eq!(text(2), labels);
        assert!(text(3).contains("- persistentVolumeReclaimPolicy: Delete\n+ persistentVolumeReclaimPolicy: Retain"));
        assert_eq!(text(3).matches("- volumeName: pvc-").count(), 2, "{}", text(3));
        assert_eq!(text(4), "/usr/bin/apt-get install -y libedgetpu1-std");
        assert!(all[5].why[0].starts_with("commit 6bb912f20ce191c514d4c845df0163aba08a7ff8 is on the branch"));
        assert!(text(5).contains("- spec.template.spec.runtimeClassName"), "{}", text(5));
    }

    #[test]
    fn what_is_undone_or_was_not_done_is_told_to_nobody() {
        let mut all = records();
        // Up to 02: nothing of the target yet.
        let end =
            all.iter().position(|r| matches!(&r.event, Event::Applied { key, .. } if key.id() == RemoveLabel::ID));
        all.truncate(end.unwrap() + 1);
        let told = of(&all);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told.iter().all(|fold| !fold.lines.join("\n").contains("108")), "{told:?}");
        for key in [RemoveLabel::ID, RemoveUsb::ID] {
            let (seq, at) = (all.len() as u64, all[0].at);
            let undone = |seq, event| Record { v: 1, seq, at, event };
            all.push(undone(seq, Event::Undoing { key: key.into() }));
            all.push(undone(seq + 1, Event::Undone { key: key.into(), passed: false, notes: Vec::new() }));
        }
        let owners: Vec<_> = of(&all).into_iter().map(|fold| fold.owner).collect();
        assert_eq!(owners, ["Manifests of volumes and claims, where there are any"]);
        assert!(of(&records()[..1]).is_empty());
    }

    #[test]
    fn a_mapping_and_a_slot_that_terraform_does_not_read_are_said() {
        assert_eq!(block('+', "mapping=coral"), ["+ usb {", "+   mapping = \"coral\"", "+ }"]);
        assert_eq!((number("usb3"), number("usb4")), (Some(3), Some(4)));
        assert_eq!(host(&[Handle::new("uid", "x:y"), Handle::new("upid", "UPID:pve1:0:")]), Some("pve1"));
    }
}
