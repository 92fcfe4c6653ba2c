//! What Terraform, Ansible, the nodes' own configuration and git must say after a `usb-move`, by the journals
//! alone: the before-images and calls of the steps that stand, in this run and in the others of the site.
//!
//! Sources of the names: Terraform `proxmox_virtual_environment_vm`, blocks `usb` with `host`, `mapping`, `usb3`
//! (bpg/terraform-provider-proxmox docs/resources/virtual_environment_vm.md), of which the provider reads `usb0` to
//! `usb3` only (its issue 3009), and `proxmox_hardware_mapping_usb` with `map` of `id`, `node`, `path`
//! (docs/resources/hardware_mapping_usb.md); Ansible `community.proxmox.proxmox_kvm` with `vmid`, `node`, `usb`,
//! `delete`, `update` (ansible-collections/community.proxmox plugins/modules/proxmox_kvm.py); k3s `node-label`, the
//! flag's name in its config.yaml; Talos `machine.nodeLabels`.

use serde::Deserialize;

use crate::engine::event::Planned;
use crate::engine::fold::Fold;
use crate::engine::state::{RunState, Stage};
use crate::engine::step::{Got, Step};
use crate::estate::Estate;
use crate::proxmox::{UsbSource, UsbValue, usb_slot};

use super::device::{Attach, Vm};
use super::{AddUsb, InstallDrivers, LabelNode, RecreatePvcs, RemoveLabel, RemoveUsb, RetainVolumes, UpdateManifests};

/// The slots that Terraform's provider reads back.
const TERRAFORM_SLOTS: u8 = 4;

/// A step that a run applied and that stands: its fields, its before-image, and what its calls left.
struct Stands<S: Step<Estate>> {
    step: S,
    before: S::Before,
    left: Vec<Got>,
    /// An undo passed it.
    passed: bool,
}

/// What everybody must say by now; nothing where nothing stands. `others` are the other runs of the site, oldest first:
/// what this run found so already, or did for the second time, one of them may have done.
pub(super) fn fold_back(state: &RunState, others: &[&RunState]) -> Vec<Fold> {
    let (from, to) = (stands::<RemoveUsb>(state, others), added(stands::<AddUsb>(state, others)));
    let mut all = Vec::new();
    all.extend(terraform(&from, &to));
    all.extend(ansible(&from, &to));
    all.extend(labels(&stands(state, others), &stands(state, others)));
    all.extend(volumes(&stands(state, others), &stands(state, others)));
    all.extend(drivers(&stands(state, others)));
    all.extend(git(&stands(state, others)));
    all
}

/// By which runs a step stands, oldest first. Where this run has not come to it, or took it back, no other run counts:
/// how things are now it does not know, or they are as before it.
fn stands<S: Step<Estate>>(state: &RunState, others: &[&RunState]) -> Vec<Stands<S>> {
    let Some(ours) = planned::<S>(state) else { return Vec::new() };
    let Some(run) = state.steps.get(&ours.key) else { return Vec::new() };
    if !(run.passed || matches!(run.stage, Stage::Applied | Stage::Already)) {
        return Vec::new();
    }
    // A step from flags alone knows no migration; its title has the real names.
    let kin = |other: &&&RunState| {
        let (theirs, own) = (&other.opened.migration, &state.opened.migration);
        theirs.is_none() || own.is_none() || theirs == own
    };
    let same = |other: &&&RunState| planned::<S>(other).is_some_and(|p| p.key == ours.key && p.title == ours.title);
    let mut all: Vec<&RunState> = others.iter().filter(kin).filter(same).copied().collect();
    all.push(state);
    all.sort_by_key(|state| state.since);
    all.into_iter().filter_map(stands_by).collect()
}

fn planned<S: Step<Estate>>(state: &RunState) -> Option<&Planned> {
    state.opened.plan.iter().find(|p| p.key.id() == S::ID)
}

fn stands_by<S: Step<Estate>>(state: &RunState) -> Option<Stands<S>> {
    let planned = planned::<S>(state)?;
    let run = state.steps.get(&planned.key)?;
    // What an undo passed stays as well.
    let there = run.stage == Stage::Applied || run.passed;
    let before = run.before.as_ref().filter(|_| there)?;
    // Fields of another version say nothing here; everything else of the report is there all the same.
    Some(Stands {
        step: S::deserialize(&planned.step).ok()?,
        before: <S::Before as Deserialize>::deserialize(before).ok()?,
        left: run.got(),
        passed: run.passed,
    })
}

/// What an earlier run set and a later one did not find any more is not there.
fn added(mut all: Vec<Stands<AddUsb>>) -> Vec<Stands<AddUsb>> {
    for at in 1..all.len() {
        let (earlier, later) = all.split_at_mut(at);
        let Some(later) = later.first() else { continue };
        earlier.iter_mut().for_each(|e| e.before.set.retain(|slot, value| later.before.slots.get(slot) == Some(value)));
    }
    all.retain(|stands| !stands.before.set.is_empty() || stands.step.attach == Attach::Mapping);
    all
}

/// The lines of all blocks, each block once.
fn distinct(blocks: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut all: Vec<Vec<String>> = Vec::new();
    for block in blocks {
        if !all.contains(&block) {
            all.push(block);
        }
    }
    all.concat()
}

/// The host that the step's last pve task ran on.
fn host(left: &[Got]) -> Option<&str> {
    let upids = left.iter().rev().map(|got| &got.handle).filter(|handle| handle.kind == "upid");
    upids.filter_map(|handle| handle.value.split(':').nth(1)).next()
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

fn terraform(from: &[Stands<RemoveUsb>], to: &[Stands<AddUsb>]) -> Option<Fold> {
    let of = |vm: &Vm| format!("# resource \"proxmox_virtual_environment_vm\" with vm_id = {}", vm.vmid);
    let mut blocks = Vec::new();
    let mut why = vec![
        "the next `terraform apply` gives the device back to the VM that had it, and takes it from the one that has it \
         now"
            .to_owned(),
        "the blocks are counted from usb0: where the VM has others, keep their order".to_owned(),
    ];
    for from in from {
        let mut lines = vec![of(&from.step.vm)];
        from.before.entries.iter().for_each(|(_, value)| lines.extend(block('-', value)));
        blocks.push(lines);
    }
    for to in to {
        let mut lines = vec![of(&to.step.vm)];
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
        blocks.push(lines);
        blocks.push(mapping(to));
    }
    let lines = distinct(blocks);
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

fn ansible(from: &[Stands<RemoveUsb>], to: &[Stands<AddUsb>]) -> Option<Fold> {
    let begin = |vm: &Vm, host: Option<&str>| {
        let mut lines = vec!["- community.proxmox.proxmox_kvm:".to_owned(), format!("    vmid: {}", vm.vmid)];
        lines.extend(host.map(|host| format!("    node: {host}")));
        lines
    };
    let gone = from.iter().map(|from| {
        let mut lines = begin(&from.step.vm, host(&from.left));
        let slots: Vec<&str> = from.before.entries.iter().map(|(slot, _)| slot.as_str()).collect();
        lines.push(format!("    delete: {}  # and not under `usb:` any more", slots.join(",")));
        lines
    });
    let here = to.iter().map(|to| {
        let mut lines = begin(&to.step.vm, Some(&to.before.host));
        lines.push("    usb:".to_owned());
        to.before.set.iter().for_each(|(slot, value)| lines.push(format!("      {slot}: \"{value}\"")));
        lines.push("    update: true".to_owned());
        lines
    });
    let lines = distinct(gone.chain(here));
    let why = vec!["a play that still has the old `usb:` writes the device back into the VM that had it".to_owned()];
    let owner = "Ansible, community.proxmox.proxmox_kvm".to_owned();
    (!lines.is_empty()).then_some(Fold { owner, why, language: "yaml", lines })
}

fn labels(off: &[Stands<RemoveLabel>], on: &[Stands<LabelNode>]) -> Option<Fold> {
    let off = off.iter().filter_map(|off| {
        let value = off.before.value.as_deref().unwrap_or_default();
        Some(vec![format!("# node {}", off.step.node.name), format!("- {}={value}", off.step.key.as_ref()?)])
    });
    let on = on.iter().filter_map(|on| {
        let label = on.step.label.as_ref()?;
        let mut lines = vec![format!("# node {}", on.step.node.name)];
        lines.extend(on.before.value.as_ref().map(|was| format!("- {}={was}", label.key)));
        lines.push(format!("+ {}={}", label.key, label.value));
        Some(lines)
    });
    let lines = distinct(off.chain(on));
    let why = vec![
        "where the labels of the nodes are declared they come back: k3s sets those of `node-label` (config.yaml, or the \
         variable of your inventory that fills it) at each start, Talos those of `machine.nodeLabels` at once"
            .to_owned(),
    ];
    let owner = "Node labels (k3s, Talos, inventory)".to_owned();
    (!lines.is_empty()).then_some(Fold { owner, why, language: "diff", lines })
}

fn volumes(kept: &[Stands<RetainVolumes>], anew: &[Stands<RecreatePvcs>]) -> Option<Fold> {
    let (mut blocks, mut why) = (Vec::new(), Vec::new());
    for was in kept.iter().flat_map(|kept| &kept.before.volumes) {
        blocks.push(vec![
            format!("# PersistentVolume {}", was.name),
            format!("- persistentVolumeReclaimPolicy: {}", was.policy),
            "+ persistentVolumeReclaimPolicy: Retain".to_owned(),
        ]);
    }
    if !blocks.is_empty() {
        why.push("a manifest that sets a volume back to its former policy has it wiped once it is released".to_owned());
    }
    for anew in anew {
        let namespace = &anew.step.work.namespace;
        for was in &anew.before.claims {
            let Some((volume, _)) = &was.volume else { continue };
            let claim = format!("{namespace}/{}", was.name);
            blocks.push(vec![format!("# PersistentVolumeClaim {claim}"), format!("- volumeName: {volume}")]);
            why.push(held(&claim, volume, anew.passed));
        }
    }
    let lines = distinct(blocks);
    let owner = "Manifests of volumes and claims, where there are any".to_owned();
    (!lines.is_empty()).then_some(Fold { owner, why, language: "diff", lines })
}

/// Where that is what a claim held before.
fn held(claim: &str, volume: &str, passed: bool) -> String {
    if passed {
        return format!(
            "what claim {claim} held was on volume {volume}; the undo was passed: look whether it is still there"
        );
    }
    format!(
        "what claim {claim} held is on volume {volume}, Released and kept: once nobody needs it, take what is on its \
         disk away and `kubectl delete pv {volume}`"
    )
}

fn drivers(installed: &[Stands<InstallDrivers>]) -> Option<Fold> {
    let installed = installed.last()?;
    let drivers = installed.step.drivers.as_ref()?;
    let vmid = installed.step.vm.vmid;
    Some(Fold {
        owner: format!("The guest of vm {vmid} (its image, or its role in Ansible)"),
        why: vec![format!("a guest that is built anew has no drivers: {} installed them by hand", InstallDrivers::ID)],
        language: "sh",
        lines: vec![crate::guest::quote(&drivers.install.command)],
    })
}

fn git(pushed: &[Stands<UpdateManifests>]) -> Option<Fold> {
    let checkout = pushed.iter().find_map(|pushed| pushed.step.gitops.as_ref()).map(|gitops| &gitops.checkout)?;
    let mut why: Vec<String> = pushed.iter().filter_map(|pushed| branch(&pushed.left)).collect();
    if why.is_empty() {
        return None;
    }
    why.push(
        "bring it into your own checkout (`git pull`) before you change these files, and into what else sets the same \
         values (another branch, a Helm chart's values)"
            .to_owned(),
    );
    let edits = pushed.iter().flat_map(|pushed| &pushed.step.edits).map(|edit| {
        let mut lines = vec![format!("# {} {}", edit.file, edit.object)];
        lines.extend(edit.set.iter().map(|(path, value)| format!("+ {path}: {value}")));
        lines.extend(edit.remove.iter().map(|path| format!("- {path}")));
        for (path, from, to) in &edit.replace {
            lines.push(format!("- {path}: {from}"));
            lines.push(format!("+ {path}: {to}"));
        }
        lines
    });
    let lines = distinct(edits);
    Some(Fold { owner: format!("Git, checkout {checkout}"), why, language: "diff", lines })
}

/// Which commit the branch has by us: of several the last that was pushed, an earlier one came too late.
fn branch(left: &[Got]) -> Option<String> {
    let last = |pushed: bool| {
        let commits = left.iter().rev().filter(|got| got.handle.kind == "commit");
        let mut commits = commits.filter(|got| !pushed || got.note.text.starts_with("git push "));
        commits.next().map(|got| got.handle.value.as_str())
    };
    match (last(true), last(false)) {
        (Some(commit), _) => {
            Some(format!("commit {commit} is on the branch that the cluster follows; nothing is left to do there"))
        }
        (None, Some(commit)) => Some(format!(
            "the branch that the cluster follows has the values; pvemig's own commit was {commit}, which it did not \
             see itself push"
        )),
        (None, None) => None,
    }
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
        fold_back(&state(records), &[])
    }

    fn state(records: &[Record]) -> RunState {
        RunState::fold(records).unwrap().unwrap()
    }

    /// A run for which the step `key` had nothing to do.
    fn already(records: &[Record], id: &str) -> Vec<Record> {
        let own = |record: &Record| record.event.key().is_some_and(|key| key.id() == id);
        let mut all: Vec<Record> = records.iter().filter(|r| !own(r)).cloned().collect();
        all.truncate(1);
        let so = Event::AlreadySo { key: id.into(), needless: false, notes: Vec::new() };
        all.push(Record { v: 1, seq: 1, at: all[0].at + jiff::SignedDuration::from_hours(9), event: so });
        all
    }

    #[test]
    fn what_an_earlier_run_did_is_told_by_the_run_that_found_it_so() {
        let (first, second) = (state(&records()), state(&already(&records(), AddUsb::ID)));
        assert!(fold_back(&second, &[]).is_empty());
        let told = fold_back(&second, &[&first]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].lines.join("\n").contains("vm_id = 108\n+ usb {"), "{told:?}");
        assert!(told[1].lines.join("\n").starts_with("- community.proxmox.proxmox_kvm:\n    vmid: 108"), "{told:?}");
        // Twice by two runs is told once; what names other things, or is another migration's, is not told.
        assert_eq!(fold_back(&second, &[&first, &first]), told);
        assert_eq!(fold_back(&first, &[&first]).len(), 6);
        assert_eq!(fold_back(&first, &[&first])[0].lines, fold_back(&first, &[])[0].lines);
        let differs = |change: fn(&mut crate::engine::event::Opened)| {
            let mut other = records();
            let Event::Opened(opened) = &mut other[0].event else { panic!("no first line") };
            change(opened);
            fold_back(&second, &[&state(&other)]).len()
        };
        assert_eq!(differs(|opened| opened.migration = Some("other".into())), 0);
        assert_eq!(differs(|opened| opened.plan.iter_mut().for_each(|p| p.title = "vm 1".into())), 0);
        assert_eq!(differs(|opened| opened.migration = None), 2);
    }

    #[test]
    fn what_a_later_run_did_not_find_any_more_is_not_told() {
        let first = state(&records());
        let mut later = records();
        for record in &mut later {
            if let Event::Applying { key, before, .. } = &mut record.event
                && key.id() == AddUsb::ID
            {
                *before = serde_json::from_value(serde_json::json!({
                    "slots": {"usb0": "host=1a6e:089a,usb3=1"}, "set": {"usb1": "host=18d1:9302,usb3=1"},
                    "host": "still-fawn", "entry": null, "mapping_existed": false
                }))
                .unwrap();
            }
        }
        let told = fold_back(&state(&later), &[&first]);
        let text = told[1].lines.join("\n");
        assert_eq!((text.matches("usb0: \"").count(), text.matches("usb1: \"").count()), (1, 1), "{text}");
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
            all.push(undone(
                seq + 1,
                Event::Undone { key: key.into(), passed: false, notes: Vec::new(), stays: Vec::new() },
            ));
        }
        let owners: Vec<_> = of(&all).into_iter().map(|fold| fold.owner).collect();
        assert_eq!(owners, ["Manifests of volumes and claims, where there are any"]);
        assert!(of(&records()[..1]).is_empty());
    }

    fn got(call: &str, kind: &str, value: &str) -> Got {
        use crate::base::permit::{Handle, Note, System};
        let at = "2025-01-01T00:00:00Z".parse().unwrap();
        Got { note: Note::safe(System::Checkout, call), handle: Handle::new(kind, value), at }
    }

    #[test]
    fn a_mapping_and_a_slot_that_terraform_does_not_read_are_said() {
        assert_eq!(block('+', "mapping=coral"), ["+ usb {", "+   mapping = \"coral\"", "+ }"]);
        assert_eq!((number("usb3"), number("usb4")), (Some(3), Some(4)));
        assert_eq!(host(&[got("x", "uid", "x:y"), got("x", "upid", "UPID:pve1:0:")]), Some("pve1"));
    }

    #[test]
    fn the_commit_that_was_pushed_is_told() {
        let commit = |call: &str, id: &str| got(call, "commit", id);
        let raced = [
            commit("git commit a on 1", "aaa"),
            commit("git commit a on 2", "bbb"),
            commit("git push url bbb:main", "bbb"),
        ];
        assert!(branch(&raced).unwrap().starts_with("commit bbb is on the branch"));
        let by_hand = branch(&raced[..1]).unwrap();
        assert!(by_hand.contains("own commit was aaa") && !by_hand.contains("aaa is on"), "{by_hand}");
        assert_eq!(branch(&[]), None);
    }

    #[test]
    fn a_volume_behind_an_undo_that_was_passed_may_be_gone() {
        let mut all = records();
        all.retain(|record| !matches!(record.event, Event::Closed { .. }));
        let (seq, at) = (all.len() as u64, all[0].at);
        let events = [
            Event::Undoing { key: RecreatePvcs::ID.into() },
            Event::Undone { key: RecreatePvcs::ID.into(), passed: true, notes: Vec::new(), stays: Vec::new() },
        ];
        all.extend(events.into_iter().zip(seq..).map(|(event, seq)| Record { v: 1, seq, at, event }));
        let why = of(&all).into_iter().find(|fold| fold.owner.starts_with("Manifests of volumes")).unwrap().why;
        let told = why.join("\n");
        assert_eq!(
            (told.matches("the undo was passed").count(), told.contains("Released and kept")),
            (2, false),
            "{told}"
        );
    }
}
