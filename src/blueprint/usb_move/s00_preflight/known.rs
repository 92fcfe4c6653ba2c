//! Every finding of the preflight that is a problem: its name, what it means, and what one would do by hand. A name is
//! never given another meaning.

use crate::blueprint::Known;

use super::finding::on;

pub(super) use crate::blueprint::known::{CANNOT_ASK, PRIVILEGE, RIGHT_KUBERNETES};

pub(super) static WORKLOAD_MISSING: Known = Known {
    name: "workload-missing",
    steps: &[on::RETAIN],
    means: "The cluster has no workload of this kind, namespace and name.",
    matters: "Every later step is about its volumes and pods.",
    by_hand: "`kubectl get deployments,statefulsets -A`, then correct `workload` in the site file.",
};
pub(super) static HELD_ELSEWHERE: Known = Known {
    name: "held-elsewhere",
    steps: &[on::SUSPEND, on::SCALE, on::DEPLOY],
    means: "The object carries the mark `pvemig.io/hold` of another run: one of this state directory that is not finished, one that it does not know, or one that cannot be read.",
    matters: "Two people at work on the same thing undo each other, and the state before is the other run's.",
    by_hand: "`kubectl get OBJECT -o yaml | grep pvemig.io/hold` names run and machine; end the run there (`pvemig status`, `undo`, `abandon`).",
};
pub(super) static SCALING_DELETES: Known = Known {
    name: "scaling-deletes-claims",
    steps: &[on::SCALE],
    means: "The StatefulSet deletes its claims when it is scaled down (`whenScaled: Delete`).",
    matters: "Scaling to 0 would take the data away with the pods.",
    by_hand: "Set `persistentVolumeClaimRetentionPolicy.whenScaled: Retain` first, in git where it comes from there.",
};
pub(super) static OPERATED: Known = Known {
    name: "workload-operated",
    steps: &[on::SCALE],
    means: "An operator's object owns the workload and puts its replicas back.",
    matters: "The pod comes back while its device and volumes are being moved.",
    by_hand: "Name the operator's object as the workload if it has a `scale` subresource, or stop the operator meanwhile.",
};
pub(super) static SCALER: Known = Known {
    name: "scaler-at-work",
    steps: &[on::SCALE],
    means: "Something scales the workload and does not rest at 0 replicas.",
    matters: "It scales the workload up again in the middle of the move.",
    by_hand: "For KEDA: `kubectl annotate scaledobject NAME autoscaling.keda.sh/paused=true`; take it off afterwards.",
};
pub(super) static NAME_MISSING: Known = Known {
    name: "secret-or-config-missing",
    steps: &[on::DEPLOY],
    means: "The pod's template names a Secret or ConfigMap that the namespace does not have.",
    matters: "The running pod has its copy; the new one would not start.",
    by_hand: "`kubectl get secrets,configmaps -n NAMESPACE`; make it, or correct the name in the manifest.",
};
pub(super) static GITOPS_UNDECLARED: Known = Known {
    name: "gitops-undeclared",
    steps: &[on::SUSPEND],
    means: "Flux owns the workload, and the site file names no `gitops` for the cluster.",
    matters: "Flux would put back what is changed, at any moment.",
    by_hand: "Add `gitops: { kind: flux, checkout: .., source: .. }` to the cluster in the site file.",
};
pub(super) static OTHER_APPLIER: Known = Known {
    name: "other-applier",
    steps: &[on::SUSPEND],
    means: "Something besides Flux applies the workload and syncs by itself (Argo CD).",
    matters: "It would put back what is changed, and is not ours to suspend.",
    by_hand: "`argocd app set NAME --sync-policy none` until the move is done, in git where it comes from there.",
};
pub(super) static NOTHING_APPLIES: Known = Known {
    name: "nothing-applies-workload",
    steps: &[on::DEPLOY],
    means: "`manifests` are declared, and nothing of Flux applies the workload.",
    matters: "What is committed and pushed would never reach it.",
    by_hand: "`kubectl get OBJECT -o yaml` shows the labels `kustomize.toolkit.fluxcd.io/name`; correct `workload`, or take `manifests` out.",
};
pub(super) static OWNER_SUSPENDED: Known = Known {
    name: "owner-suspended",
    steps: &[on::DEPLOY],
    means: "Somebody suspended the Flux object that brings the manifests to the workload.",
    matters: "What pvemig did not suspend it does not resume: the new values would never arrive.",
    by_hand: "`kubectl get kustomizations,helmreleases -A -o custom-columns=IN:.metadata.namespace,\
              NAME:.metadata.name,SUSPENDED:.spec.suspend`; `flux resume kustomization NAME`, where that may be.",
};
pub(super) static OWNER_UNWELL: Known = Known {
    name: "owner-unwell",
    steps: &[on::DEPLOY],
    means: "The Flux object that applies the workload is not Ready, or stalled.",
    matters: "As it is, what is pushed would not reach the workload.",
    by_hand: "`flux get all -n NAMESPACE` and `flux logs` say why; mend that first.",
};
pub(super) static SOURCE_MISSING: Known = Known {
    name: "source-missing",
    steps: &[on::DEPLOY],
    means: "The cluster has no GitRepository of the name that the site file gives.",
    matters: "Nobody can be asked whether the pushed commit has arrived.",
    by_hand: "`flux get sources git -A`, then correct `gitops.source` in the site file.",
};
pub(super) static SOURCE_SUSPENDED: Known = Known {
    name: "source-suspended",
    steps: &[on::DEPLOY],
    means: "The GitRepository is suspended.",
    matters: "What is pushed would not arrive in the cluster.",
    by_hand: "`flux resume source git NAME`.",
};
pub(super) static SOURCE_UNWELL: Known = Known {
    name: "source-unwell",
    steps: &[on::DEPLOY],
    means: "The GitRepository cannot fetch.",
    matters: "What is pushed would not arrive in the cluster.",
    by_hand: "`flux get sources git -A` says why: mostly a credential or the host key.",
};
pub(super) static EDIT_MISFIT: Known = Known {
    name: "edit-does-not-fit",
    steps: &[on::MANIFESTS],
    means: "A declared value does not fit the file in the checkout: no such file, object, path or text.",
    matters: "The commit could not be made, with the workload down and the claims still to come.",
    by_hand: "Look at the file on the branch (`git show BRANCH:FILE`), and correct `manifests` in the site file.",
};
pub(super) static OTHER_BRANCH: Known = Known {
    name: "source-follows-other-branch",
    steps: &[on::MANIFESTS],
    means: "The GitRepository follows another branch than the checkout.",
    matters: "The commit would go to a branch that the cluster does not read.",
    by_hand: "`flux get sources git -A`; correct `branch` of the checkout, or `gitops.source`.",
};
pub(super) static OTHER_REPOSITORY: Known = Known {
    name: "source-not-in-branch",
    steps: &[on::MANIFESTS],
    means: "The commit that the cluster is at is not on the checkout's branch.",
    matters: "The checkout is of another repository, or the branch was pushed over: nothing that is committed there arrives.",
    by_hand: "`git branch -r --contains COMMIT` in the checkout; correct `path` of the checkout, or `gitops.source`.",
};
pub(super) static NODE_MISSING: Known = Known {
    name: "node-missing",
    steps: &[on::WAIT],
    means: "Kubernetes has no node of the target's name.",
    matters: "The workload has nowhere to go.",
    by_hand: "`kubectl get nodes`; set `node_name` of the node in the site file.",
};
pub(super) static NODE_NOT_READY: Known = Known {
    name: "node-not-ready",
    steps: &[on::WAIT],
    means: "The target node is not Ready though its VM runs.",
    matters: "No pod would start there.",
    by_hand: "`kubectl describe node NODE`, and the kubelet's log on it (`journalctl -u k3s-agent`).",
};
pub(super) static NODE_CORDONED: Known = Known {
    name: "node-cordoned",
    steps: &[on::DEPLOY],
    means: "Somebody cordoned the target node.",
    matters: "What pvemig did not close it does not open: the new pod would stay Pending.",
    by_hand: "`kubectl uncordon NODE`, where that may be.",
};
pub(super) static NODE_MISFIT: Known = Known {
    name: "node-does-not-fit",
    steps: &[on::DEPLOY],
    means: "The target node does not take the pod as it will be: selector, affinity or taints.",
    matters: "The new pod would stay Pending.",
    by_hand: "`kubectl describe node NODE`; declare under `manifests` what has to change, or change the node.",
};
pub(super) static ETCD_QUORUM: Known = Known {
    name: "etcd-quorum",
    steps: &[on::REBOOT],
    means: "Without the target node etcd has no majority, because other control-plane nodes are not Ready.",
    matters: "The power cycle of the VM would stop the whole cluster.",
    by_hand: "Bring the other control-plane nodes back first (`kubectl get nodes`).",
};
pub(super) static RUNTIME_MISSING: Known = Known {
    name: "runtime-class-missing",
    steps: &[on::DEPLOY],
    means: "A RuntimeClass that the pod or `needs` names does not exist.",
    matters: "The pod would be refused.",
    by_hand: "`kubectl get runtimeclasses`; install it, or take `runtimeClassName` out under `manifests`.",
};
pub(super) static HANDLER_MISSING: Known = Known {
    name: "runtime-handler-missing",
    steps: &[on::DEPLOY],
    means: "The target node has no handler for the pod's RuntimeClass.",
    matters: "The pod is scheduled all the same and never starts.",
    by_hand: "Install the runtime on the node, or take `runtimeClassName` out under `manifests`.",
};
pub(super) static RESOURCE_LACKING: Known = Known {
    name: "resource-lacking",
    steps: &[on::DEPLOY],
    means: "The target node does not have so many of a resource to give.",
    matters: "The pod would stay Pending for want of it.",
    by_hand: "`kubectl describe node NODE`, section Allocatable; see its device plugin, or correct `needs.allocatable`.",
};
pub(super) static CONTAINER_MISSING: Known = Known {
    name: "verify-container-missing",
    steps: &[on::DEPLOY],
    means: "The pod has no container of the name in `verify`.",
    matters: "The proof at the very end could not be run.",
    by_hand: "Correct `verify.container` in the site file.",
};
pub(super) static POD_STAYS: Known = Known {
    name: "pod-refuses-drain",
    steps: &[on::DRAIN, on::REBOOT, on::ADD, on::WAIT],
    means: "A pod on the target node cannot be evicted: nothing makes it anew, or its budget never allows it.",
    matters: "The node is drained before its VM is power-cycled, and this pod would end with it.",
    by_hand: "End or move that pod by hand, or say `drain: false`.",
};
pub(super) static CLAIM_HELD: Known = Known {
    name: "claim-held",
    steps: &[on::CLAIMS],
    means: "A pod besides the workload's own mounts a claim that is made anew; one that has ended holds it as well.",
    matters: "The claim would wait in Terminating until that pod is gone, with the workload down.",
    by_hand: "`kubectl delete pod NAME` where it has ended; else scale what it belongs to to 0.",
};
pub(super) static CLAIM_LEAVING: Known = Known {
    name: "claim-being-deleted",
    steps: &[on::CLAIMS],
    means: "The claim is being deleted already, by somebody else.",
    matters: "What becomes of its volume is not ours to say any more.",
    by_hand: "`kubectl describe pvc NAME` names the pods that hold it.",
};
pub(super) static VOLUME_LEAVING: Known = Known {
    name: "volume-being-deleted",
    steps: &[on::CLAIMS],
    means: "The volume of a claim that is made anew is being deleted; that it is bound is all that still keeps it.",
    matters: "With the claim its object would go, and nothing would tell any more where the data is.",
    by_hand: "`kubectl get pv NAME -o yaml` into a file; Retain; delete the claim, and make both anew from the copies.",
};
pub(super) static VOLUME_MISSING: Known = Known {
    name: "volume-missing",
    steps: &[on::CLAIMS],
    means: "The claim names a volume that is not there.",
    matters: "Its data is where that volume was; a new claim would hide that.",
    by_hand: "Find out what became of the volume; delete the claim by hand if a new one may take its place.",
};
pub(super) static CLAIM_MISSING: Known = Known {
    name: "claim-missing",
    steps: &[on::CLAIMS, on::DEPLOY],
    means: "The namespace has no claim of this name.",
    matters: "The pod would stay Pending, or another run has taken it away and can bring it back.",
    by_hand: "`pvemig status --all`; `pvemig undo` of the run that took it, else correct the name.",
};
pub(super) static STARTS_EMPTY: Known = Known {
    name: "volume-starts-empty",
    steps: &[on::DEPLOY],
    means: "The volume is a directory of the old node that nothing ties to that node.",
    matters: "The pod would start on the target with an empty directory, without any error.",
    by_hand: "Bring the data to the target first, or say `recreate` for an empty volume; the old one is kept.",
};
pub(super) static DATA_UNKNOWN: Known = Known {
    name: "volume-data-unknown",
    steps: &[on::DEPLOY],
    means: "The volume is a directory that any node has by its path, and nothing names the node of its data.",
    matters: "Where the data is not on the target, the pod would start with an empty directory, without any error.",
    by_hand: "Look into the directory on the target; then say `leave` or `recreate`, or bring the data there first.",
};
pub(super) static CLAIM_ON_OLD_NODE: Known = Known {
    name: "claim-on-old-node",
    steps: &[on::DEPLOY],
    means: "The claim is bound to a volume on the old node's disk, and the site file leaves it there.",
    matters: "The pod would stay Pending: `volume node affinity conflict`.",
    by_hand: "`kubectl get pv NAME -o yaml`, nodeAffinity; bring the data over, or say `claims: { NAME: recreate }`.",
};
pub(super) static NO_MAKER: Known = Known {
    name: "no-volume-maker",
    steps: &[on::CLAIMS],
    means: "Nobody would make the new volume: the storage class is missing, or has no provisioner and no free volume.",
    matters: "The old claim would be gone and the new one Pending.",
    by_hand: "`kubectl get storageclass`; make a volume for the target, or the class with a provisioner.",
};
pub(super) static NO_QUORUM: Known = Known {
    name: "no-quorum",
    steps: &[on::REMOVE, on::ADD],
    means: "The Proxmox cluster has no quorum.",
    matters: "Its configuration is read-only: no VM's config can be written.",
    by_hand: "`pvecm status` on a host; bring a host back.",
};
pub(super) static VM_MISSING: Known = Known {
    name: "vm-missing",
    steps: &[on::REMOVE, on::ADD],
    means: "The cluster shows no VM of this number to these credentials.",
    matters: "There is nothing to move the device from, or to.",
    by_hand: "`qm list` on the hosts; correct `vmid`, or give VM.Audit on /vms/VMID.",
};
pub(super) static NOT_A_VM: Known = Known {
    name: "not-a-vm",
    steps: &[on::REMOVE, on::ADD],
    means: "The number is that of a container or a template.",
    matters: "USB passthrough by `usbN` is a VM's.",
    by_hand: "Correct `vmid` of the node in the site file.",
};
pub(super) static LOCK_LEFT: Known = Known {
    name: "lock-left-behind",
    steps: &[on::REMOVE, on::ADD],
    means: "The VM is locked, and no pve task works on it.",
    matters: "Nobody is going to take the lock off, and no config can be written under it.",
    by_hand: "See what became of the backup or snapshot (`qm config VMID`), then `qm unlock VMID`.",
};
pub(super) static HIBERNATED: Known = Known {
    name: "vm-hibernated",
    steps: &[on::REMOVE, on::ADD],
    means: "The VM was suspended to disk (`qm suspend --todisk`): it is off, and its lock `suspended` is there to stay.",
    matters: "No config can be written under the lock; taken off by force, the VM would start without its saved memory.",
    by_hand: "`qm resume VMID`, or start it: it goes on from its saved memory, and the lock goes by itself.",
};
pub(super) static OTHER_FORM: Known = Known {
    name: "device-in-other-form",
    steps: &[on::ADD],
    means: "The target VM passes the device already, by another form than `attach` says.",
    matters: "Two entries for one device fight at the VM's start.",
    by_hand: "Take the entry out (`qm set VMID --delete usbN`), or set `attach` to its form.",
};
pub(super) static NO_SLOT: Known = Known {
    name: "no-free-usb-slot",
    steps: &[on::ADD],
    means: "The target VM has not enough free USB slots.",
    matters: "The device could not be passed.",
    by_hand: "Free a slot, or raise the VM's machine version to 7.1 or later for 14 slots.",
};
pub(super) static EQUAL_DEVICES: Known = Known {
    name: "equal-devices",
    steps: &[on::ADD],
    means: "The target's host would have several devices of the same id.",
    matters: "By id a VM takes any of them, and which one is chance.",
    by_hand: "Set `attach: port` and the port under `ports` of the device.",
};
pub(super) static SOCKET_UNNAMED: Known = Known {
    name: "socket-not-named",
    steps: &[on::ADD],
    means: "The target's host would have several equal devices, and the site file names no socket for the one that is meant.",
    matters: "Nobody can tell which of them to pass.",
    by_hand: "`lsusb -t` on the host; `ports: { HOST: { port: BUS-PORT } }` of the device.",
};
pub(super) static PASSED_AT_TARGET: Known = Known {
    name: "passed-to-another-at-target",
    steps: &[on::ADD],
    means: "Another VM on the target's host passes the device too.",
    matters: "Whichever VM starts first takes it, and nothing warns.",
    by_hand: "`qm set VMID --delete usbN` on the host, where it may go.",
};
pub(super) static PASSED_AT_SOURCE: Known = Known {
    name: "passed-to-another-at-source",
    steps: &[on::REMOVE],
    means: "Another VM on the source's host passes the device too.",
    matters: "It takes the device as soon as the source VM lets go of it.",
    by_hand: "`qm set VMID --delete usbN` on the host, where it may go.",
};
pub(super) static RAW_USB: Known = Known {
    name: "raw-usb-needs-root",
    steps: &[on::REMOVE, on::ADD],
    means: "A USB entry by raw id or port is to be written or taken out, and the caller is not root@pam with a password.",
    matters: "Proxmox lets no other user and no token do that, whatever its privileges.",
    by_hand: "Use a ticket of root@pam, do that one step with `qm set` on the host (the value noted, the workload at 0), or use a mapping.",
};
pub(super) static HOST_UNSEEN: Known = Known {
    name: "host-usb-unseen",
    steps: &[on::HOST],
    means: "The USB devices of the target's host cannot be seen by any way.",
    matters: "Whether the device has arrived could not be told, and a VM starts without complaint when it is absent.",
    by_hand: "Give Sys.Modify on /, or ssh to the host, or a mapping with its port.",
};
pub(super) static AGENT_REFUSED: Known = Known {
    name: "agent-not-allowed",
    steps: &[on::WAIT],
    means: "The guest agent is the only way into the guest, and these credentials may not run programs through it.",
    matters: "The guest could not be asked whether it has the device.",
    by_hand: "Give the privilege on /vms/VMID, or add ssh to `access` of the node.",
};
pub(super) static NO_WAY_IN: Known = Known {
    name: "no-way-into-guest",
    steps: &[on::WAIT],
    means: "No way into the target's guest answered.",
    matters: "Drivers could not be installed, nor the device be seen there.",
    by_hand: "Try the ways by hand (`ssh`, `qm agent VMID ping`), mend one, or add another under `access`.",
};
pub(super) static PATH_MISSING: Known = Known {
    name: "path-missing",
    steps: &[on::GUEST],
    means: "The target's guest lacks a path that `needs` names.",
    matters: "The workload would miss hardware that it had on the old node.",
    by_hand: "Pass that hardware to the VM and load its driver, or correct `needs.paths`.",
};

/// All of them, in the order in which the steps come that they protect, those of any step first.
pub(in super::super) static ALL: &[&Known] = &[
    &CANNOT_ASK,
    &RIGHT_KUBERNETES,
    &WORKLOAD_MISSING,
    &HELD_ELSEWHERE,
    &SCALING_DELETES,
    &OPERATED,
    &SCALER,
    &NAME_MISSING,
    &GITOPS_UNDECLARED,
    &OTHER_APPLIER,
    &NOTHING_APPLIES,
    &OWNER_SUSPENDED,
    &OWNER_UNWELL,
    &SOURCE_MISSING,
    &SOURCE_SUSPENDED,
    &SOURCE_UNWELL,
    &EDIT_MISFIT,
    &OTHER_BRANCH,
    &OTHER_REPOSITORY,
    &NODE_MISSING,
    &NODE_NOT_READY,
    &NODE_CORDONED,
    &NODE_MISFIT,
    &ETCD_QUORUM,
    &RUNTIME_MISSING,
    &HANDLER_MISSING,
    &RESOURCE_LACKING,
    &CONTAINER_MISSING,
    &POD_STAYS,
    &CLAIM_HELD,
    &CLAIM_LEAVING,
    &VOLUME_LEAVING,
    &VOLUME_MISSING,
    &CLAIM_MISSING,
    &STARTS_EMPTY,
    &DATA_UNKNOWN,
    &CLAIM_ON_OLD_NODE,
    &NO_MAKER,
    &NO_QUORUM,
    &VM_MISSING,
    &NOT_A_VM,
    &LOCK_LEFT,
    &HIBERNATED,
    &OTHER_FORM,
    &NO_SLOT,
    &EQUAL_DEVICES,
    &SOCKET_UNNAMED,
    &PASSED_AT_TARGET,
    &PASSED_AT_SOURCE,
    &PRIVILEGE,
    &RAW_USB,
    &HOST_UNSEEN,
    &AGENT_REFUSED,
    &NO_WAY_IN,
    &PATH_MISSING,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_finding_is_in_the_list_and_is_found_somewhere() {
        let (own, shared) = (include_str!("known.rs"), include_str!("../../known.rs"));
        let declared = [own, shared].map(|text| text.matches(concat!(": Known = ", "Known {")).count());
        let declared: usize = declared.into_iter().sum();
        assert_eq!(declared, ALL.len());
        let names: BTreeSet<_> = ALL.iter().map(|known| known.name).collect();
        assert_eq!(names.len(), ALL.len());
        let plain = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(names.iter().all(|name| name.chars().all(plain)), "{names:?}");
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/blueprint/usb_move/s00_preflight");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let sources = files.iter().filter(|path| !path.ends_with("known.rs"));
        let sources: String = sources.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let sources = sources + include_str!("../../finding.rs");
        let constant = |line: &str| {
            let line = line.strip_prefix("pub").map(|line| line.trim_start_matches("(super)"))?;
            Some(line.strip_prefix(" static ")?.split(':').next()?.to_owned())
        };
        let constants: Vec<_> = own.lines().chain(shared.lines()).filter_map(constant).collect();
        assert_eq!(constants.len(), ALL.len());
        let unused: Vec<_> = constants.iter().filter(|c| !sources.contains(&format!("known::{c}"))).collect();
        assert!(unused.is_empty(), "{unused:?}");
        // A finding says three different things, each a sentence.
        for known in ALL {
            for text in [known.means, known.matters, known.by_hand] {
                assert!(text.ends_with('.') && text.len() > 20, "{}: {text}", known.name);
            }
        }
    }
}
