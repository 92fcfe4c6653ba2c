//! Every finding of the preflight that is a problem: its name, what it means, and what one would do by hand. A name is
//! never given another meaning.

use crate::blueprint::Known;

use super::super::on;

pub(super) use crate::blueprint::known::{CANNOT_ASK, PRIVILEGE, RIGHT_KUBERNETES};

pub(super) static ROLE: Known = Known {
    name: "talos-role-lacking",
    steps: &[on::GATE],
    means: "The client certificate of the talosconfig has not the role that the steps need.",
    matters: "Talos refuses the call half-way, with the node drained.",
    by_hand: "`talosctl config new --roles os:admin FILE` with a certificate that may, and name that file in the site file.",
};
pub(super) static ORDER: Known = Known {
    name: "control-plane-before-worker",
    steps: &[on::REBOOT],
    means: "`nodes` names a control plane before a worker.",
    matters: "What goes wrong goes wrong with the first nodes: a worker that stays away costs less than a voter of etcd.",
    by_hand: "Put the workers first in `nodes`.",
};
pub(super) static QUORUM: Known = Known {
    name: "etcd-cannot-spare-it",
    steps: &[on::GATE],
    means: "etcd has no majority without the node, or something is wrong with it already.",
    matters: "Without a majority Kubernetes takes no change, and nothing can be put back through it.",
    by_hand: "`talosctl etcd members`, `etcd status`, `etcd alarm list`; mend that first.",
};
pub(super) static NODE_MISSING: Known = Known {
    name: "node-not-in-kubernetes",
    steps: &[on::DRAIN],
    means: "Kubernetes has no node of this name.",
    matters: "It can be neither drained nor looked at.",
    by_hand: "`kubectl get nodes`, then correct `node_name` of the Talos node in the site file.",
};
pub(super) static NODE_HELD: Known = Known {
    name: "node-held-elsewhere",
    steps: &[on::DRAIN],
    means: "The node carries the mark `pvemig.io/hold` of a run that may still go on, or one that cannot be read.",
    matters: "Two people at work on the same node undo each other, and the state before is the other run's.",
    by_hand: "`kubectl get node NAME -o yaml | grep pvemig.io/hold` names run and machine; end the run there.",
};
pub(super) static POD_STAYS: Known = Known {
    name: "pod-will-not-leave",
    steps: &[on::DRAIN],
    means: "A pod would not be evicted: nothing makes it anew, two budgets count it, or its budget can never allow it.",
    matters: "The drain would stop there, with the node cordoned.",
    by_hand: "Scale its workload down, change the budget, or delete the pod; or leave the node out.",
};
pub(super) static NOT_WHOLE: Known = Known {
    name: "node-not-whole",
    steps: &[on::REBOOT],
    means: "Talos is not through with its boot on the node, or not ready, and nothing in this plan mends that.",
    matters: "Whether it comes back whole cannot be told from a node that is not whole before.",
    by_hand: "`pvemig survey NODE` names the cause and what mends it; `talosctl services` and `talosctl get machinestatus` what it \
              waits for.",
};
pub(super) static NO_IMAGE: Known = Known {
    name: "repair-needs-image",
    steps: &[on::REPAIR],
    means: "The node needs another image or configuration, and which one cannot be told.",
    matters: "The repair would stop there, with the node drained.",
    by_hand: "Make a schematic at factory.talos.dev, and name its installer in `images`.",
};
pub(super) static CONFIG_WAITS: Known = Known {
    name: "machine-config-waits",
    steps: &[on::REPAIR, on::REBOOT],
    means: "The machine configuration in effect is not the one on the disk: one is staged, or one is on trial.",
    matters: "What a repair applies takes the place of the staged one, and the one on trial would stay for good; a reboot \
              puts the staged one into effect, whoever waits with it for what.",
    by_hand: "`talosctl get machineconfig v1alpha1` and `persistent` show both; `talosctl apply-config` with the right one. \
              `staged: true` in the parameters where it is to come with the reboot.",
};
pub(super) static VM_AMISS: Known = Known {
    name: "vm-is-another",
    steps: &[on::REBOOT],
    means: "The VM that the site file names for a node is not the one that the node runs in, or does not run.",
    matters: "Another machine would be switched.",
    by_hand: "`qm config VMID | grep smbios1` against `talosctl get systeminformation`; correct `vm` in the site file.",
};

/// All of them.
pub(in super::super) static ALL: &[&Known] = &[
    &CANNOT_ASK,
    &RIGHT_KUBERNETES,
    &PRIVILEGE,
    &ROLE,
    &ORDER,
    &QUORUM,
    &NODE_MISSING,
    &NODE_HELD,
    &POD_STAYS,
    &NOT_WHOLE,
    &NO_IMAGE,
    &CONFIG_WAITS,
    &VM_AMISS,
];
