//! Every finding of the preflight that is a problem: its name, what it means, and what one would do by hand. A name is
//! never given another meaning.

use crate::blueprint::Known;

use super::on;

pub(super) use crate::blueprint::known::{CANNOT_ASK, RIGHT_KUBERNETES};

pub(super) static SOURCE: Known = Known {
    name: "new-config-unreadable",
    steps: &[on::APPLY],
    means: "The file with the new node's machine configuration cannot be read, decrypted or understood.",
    matters: "The run would stop there, with the old node out of the cluster.",
    by_hand: "`talosctl validate -m metal -c FILE`; of an encrypted one `sops --decrypt FILE`, and `decrypt` in the parameters.",
};
pub(super) static REFUSED: Known = Known {
    name: "new-config-refused",
    steps: &[on::APPLY],
    means: "The new machine itself says that it would not take the configuration (a dry run).",
    matters: "It would refuse it in its turn, with the old node out of the cluster.",
    by_hand: "`talosctl apply-config --insecure -n ADDRESS -f FILE --dry-run`.",
};
pub(super) static AUTHORITY: Known = Known {
    name: "new-config-of-another-cluster",
    steps: &[on::APPLY],
    means: "The configuration of the new node is of another authority than the talosconfig.",
    matters: "Once the machine is installed nobody could speak to it any more, and it would never find the cluster.",
    by_hand: "Make it from the secrets of this cluster: `talosctl gen config --with-secrets`.",
};
pub(super) static KIND: Known = Known {
    name: "new-node-of-another-kind",
    steps: &[on::APPLY],
    means: "The old node is a control plane and the new configuration a worker's, or the other way round.",
    matters: "etcd would be left with fewer voters than before, or with one that nobody counted on.",
    by_hand: "Name the configuration of the same kind (`machine.type`).",
};
pub(super) static ENDPOINT: Known = Known {
    name: "endpoint-is-the-old-machine",
    steps: &[on::SHUTDOWN],
    means: "The control plane's endpoint is the address of the machine that goes.",
    matters: "With it every kubelet and every kubeconfig loses the Kubernetes API.",
    by_hand: "`talosctl get kubernetescontrolplaneconfigs -o yaml`; a virtual address (`vip`), or a name, in `cluster.controlPlane.endpoint`.",
};
pub(super) static IMAGE: Known = Known {
    name: "new-image-for-other-hardware",
    steps: &[on::APPLY],
    means: "The configuration names an image with NVIDIA's driver for a machine without such a device, or lacks its modules.",
    matters: "A service waits for a file that never comes: Talos stays `booting`, and reboots after 70 minutes, without end.",
    by_hand: "Name the image of its hardware in the file, or by `install-image` in `patches`.",
};
pub(super) static ANOTHER: Known = Known {
    name: "new-machine-is-another",
    steps: &[on::SWAP],
    means: "What waits at the address is not the machine that is meant: another VM, or one with an older installation.",
    matters: "Another machine would be wiped, and given the secrets of the cluster.",
    by_hand: "`talosctl get disks --insecure -n ADDRESS`, `talosctl get systeminformation --insecure`; correct `at` or `vm`.",
};
pub(super) static DISK: Known = Known {
    name: "new-disk-is-not-there",
    steps: &[on::SWAP],
    means: "The machine that waits has not the disk that is named, or several of that serial number.",
    matters: "Another disk would be wiped.",
    by_hand: "`talosctl get disks --insecure -n ADDRESS`.",
};
pub(super) static ELSEWHERE: Known = Known {
    name: "new-machine-is-installed",
    steps: &[on::SWAP],
    means: "The new machine has a configuration already, and runs from another disk, or belongs to another cluster.",
    matters: "It does not wait, so nothing could be installed on it.",
    by_hand: "`talosctl get systemdisk`; `talosctl reset` makes a machine wait again, and wipes it.",
};
pub(super) static PART: Known = Known {
    name: "new-machine-is-counted-already",
    steps: &[on::LEAVE, on::SHUTDOWN],
    means: "What is to come is a node or a voter already, or its disk is one of another node.",
    matters: "With the old node gone nothing would come in its place: etcd is left a voter short.",
    by_hand: "`talosctl etcd members`, `talosctl get disks`; name a machine that is no node yet.",
};
pub(super) static NOTHING: Known = Known {
    name: "old-node-is-gone-already",
    steps: &[on::APPLY],
    means: "Neither etcd nor Kubernetes knows the old node, and the new one is not in its place.",
    matters: "What is put in its place would come beside those that are there: one voter more than anybody counted on.",
    by_hand: "`kubectl get node`, `talosctl etcd members`.",
};
pub(super) static NOT_KNOWN: Known = Known {
    name: "old-node-is-not-known-to-be-dead",
    steps: &[on::LEAVE, on::SHUTDOWN],
    means: "The old machine does not answer, and nothing shows that it is off.",
    matters: "A machine that is only cut off goes on writing, and comes back as a member and a node.",
    by_hand: "Look at it. Switched off, its kubelet is known to be silent a minute later: `kubectl get node`.",
};
pub(super) static KEPT_UP: Known = Known {
    name: "old-vm-is-kept-up",
    steps: &[on::SHUTDOWN],
    means: "High availability of Proxmox starts the VM of the old node again when it goes off, or its host does when it starts.",
    matters: "It would come back as a member and a node beside its successor.",
    by_hand: "`ha-manager status`, `ha-manager remove vm:VMID`; `qm set VMID --onboot 0`.",
};
pub(super) static QUORUM: Known = Known {
    name: "etcd-cannot-lose-the-node",
    steps: &[on::LEAVE],
    means: "Without the old member etcd would have no majority or nothing left, or its other members are not well.",
    matters: "Without a majority etcd changes nothing, and Kubernetes with it: that is how clusters are lost.",
    by_hand: "`talosctl etcd members`, `talosctl etcd status`; add a control plane first, so that three are left.",
};
pub(super) static LOCAL: Known = Known {
    name: "volume-on-the-old-disks",
    steps: &[on::SHUTDOWN],
    means: "A volume has its data on the disks of the machine that goes.",
    matters: "It is gone with them: its pods wait for that node for ever, or begin empty.",
    by_hand: "`kubectl get pv -o yaml` (`nodeAffinity`); copy the data, or restore it from a backup.",
};
pub(super) static NODE_HELD: Known = Known {
    name: "old-node-held-by-another-run",
    steps: &[on::DRAIN],
    means: "The Node object carries the mark of another run of pvemig.",
    matters: "Somebody else is at work on it.",
    by_hand: "`kubectl get node NAME -o yaml` (annotation pvemig.io/hold); end that run.",
};
pub(super) static POD_STAYS: Known = Known {
    name: "pod-of-the-old-node-stays",
    steps: &[on::DRAIN],
    means: "A pod on the old node will not go by an eviction: nothing makes it anew, or its budget never allows it.",
    matters: "It would be killed with its machine, and not come back.",
    by_hand: "`kubectl get pods -A --field-selector spec.nodeName=NODE -o wide`; scale its workload down, or delete it.",
};
pub(super) static ROLE: Known = Known {
    name: "talos-role-cannot-replace",
    steps: &[on::LEAVE, on::APPLY],
    means: "The client certificate of the talosconfig has not the role that the steps need.",
    matters: "Talos would refuse it half-way.",
    by_hand: "Name the talosconfig that `talosctl gen config` made, which has os:admin.",
};
pub(super) static CONSENT: Known = Known {
    name: "consent-is-missing",
    steps: &[on::LEAVE, on::SHUTDOWN, on::APPLY, on::NODE],
    means: "Something would be lost for good, and nobody has said that it may: a member of etcd, a disk, a Node object; or nobody has \
            said that a machine of which only silence is known is off.",
    matters: "The run would stop right before it, half-way.",
    by_hand: "Each is named with its `--destroy`.",
};

/// All of them.
pub(super) static ALL: &[&Known] = &[
    &CANNOT_ASK,
    &RIGHT_KUBERNETES,
    &SOURCE,
    &REFUSED,
    &AUTHORITY,
    &KIND,
    &ENDPOINT,
    &IMAGE,
    &ANOTHER,
    &DISK,
    &ELSEWHERE,
    &PART,
    &NOTHING,
    &KEPT_UP,
    &NOT_KNOWN,
    &QUORUM,
    &LOCAL,
    &NODE_HELD,
    &POD_STAYS,
    &ROLE,
    &CONSENT,
];
