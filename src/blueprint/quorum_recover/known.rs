//! Every finding of the preflight that is a problem: its name, what it means, and what one would do by hand. A name is
//! never given another meaning.

use crate::blueprint::Known;

use super::on;

pub(super) use crate::blueprint::known::CANNOT_ASK;

pub(super) static MAJORITY: Known = Known {
    name: "etcd-has-its-majority",
    steps: &[on::RECOVER, on::VERIFY],
    means: "More than half of the voters of etcd are there.",
    matters: "There is nothing to recover, and beginning anew would take back what was written since.",
    by_hand: "`talosctl etcd members`, `talosctl etcd status`; a member that is gone: `talosctl etcd remove-member`, `node-replace`.",
};
pub(super) static LIVING: Known = Known {
    name: "kubernetes-still-answers",
    steps: &[on::RECOVER],
    means: "The Kubernetes API reads from its etcd, and none of the control planes that stay knows a leader.",
    matters: "A majority of etcd lives where it cannot be reached from here, and a second one would be begun beside it.",
    by_hand: "`kubectl get --raw /readyz?verbose`; find the machine that answers: `kubectl -n kube-system get pods -o wide`.",
};
pub(super) static UNSEEN: Known = Known {
    name: "lost-machine-only-silent",
    steps: &[on::RECOVER],
    means: "A machine that is said to be lost does not answer, or something waits at its address, and no VM that is shown to be \
            its own is off.",
    matters: "Cut off it looks the same as dead, and with another lost one it may be the majority of the old etcd. The word for it \
              is void once the machine was seen alive.",
    by_hand: "Look at the machine itself; then name it: `--destroy gone/NODE`.",
};
pub(super) static SILENT: Known = Known {
    name: "survivor-does-not-answer",
    steps: &[on::RECOVER],
    means: "A control plane that is to stay does not answer.",
    matters: "What it has is not known, and it may come back with it at any moment.",
    by_hand: "Switch it on: a voter more may be all that is missing.",
};
pub(super) static ALIVE: Known = Known {
    name: "lost-machine-answers",
    steps: &[on::RECOVER],
    means: "A machine that is said to be lost answers, and does not wait for a first configuration.",
    matters: "It may have what etcd had agreed on, and make a majority of the old etcd beside the new one.",
    by_hand: "`talosctl service etcd` and `talosctl etcd status` on it.",
};
pub(super) static UNLISTED: Known = Known {
    name: "control-plane-named-nowhere",
    steps: &[on::RECOVER],
    means: "A control plane of the cluster is in none of `from`, `nodes` and `lost`.",
    matters: "It may have an etcd that lives on beside the new one: unknown is not gone.",
    by_hand: "`talosctl get members`, `talosctl -n NODE get machinetype`.",
};
pub(super) static EMPTY: Known = Known {
    name: "nothing-to-recover-from",
    steps: &[on::SAVE],
    means: "The control plane that etcd is to begin on has no data of it, and no copy was named.",
    matters: "An etcd that begins from nothing is an empty Kubernetes.",
    by_hand: "Look for a snapshot: `pvemig etcd snapshot --to DIR --schedule` makes them, and the files of an abandoned run have copies.",
};
pub(super) static OPEN: Known = Known {
    name: "recovery-is-open",
    steps: &[on::SAVE],
    means: "Another run of this site has taken its copies, and is not over.",
    matters: "It may have wiped a member already: then etcd is nowhere but in its copy, and it alone goes on from there.",
    by_hand: "`pvemig status`, `pvemig resume RUN`.",
};
pub(super) static GIVEN: Known = Known {
    name: "given-snapshot-unusable",
    steps: &[on::SAVE],
    means: "The file that is named by `snapshot` cannot be read, is not whole, or is of another cluster.",
    matters: "All members are wiped before etcd begins from it.",
    by_hand: "`etcdutl snapshot status FILE`.",
};
pub(super) static LEARNER: Known = Known {
    name: "survivor-is-a-learner",
    steps: &[on::SAVE],
    means: "The member that etcd is to begin from had no vote.",
    matters: "A learner is still being sent what the others have.",
    by_hand: "`talosctl etcd status`; begin from a voter, or from a snapshot.",
};
pub(super) static BEHIND: Known = Known {
    name: "survivor-is-behind",
    steps: &[on::SAVE],
    means: "Another survivor has more of etcd's log than the one that it is to begin from.",
    matters: "What only that one has would be lost.",
    by_hand: "`talosctl etcd status`: the greatest RAFT APPLIED INDEX is the newest.",
};
pub(super) static LOCAL: Known = Known {
    name: "local-data-on-ephemeral",
    steps: &[on::WIPE],
    means: "The volume that is wiped has directories that neither Talos nor the kubelet made.",
    matters: "Local volumes of pods, of a provisioner or of OpenEBS are lost with it.",
    by_hand: "`talosctl list /var`, `talosctl usage /var/local`; `talosctl copy` takes it away.",
};
pub(super) static CONSENT: Known = Known {
    name: "etcd-not-given",
    steps: &[on::WIPE],
    means: "The etcd of a control plane is wiped, and that was not consented to.",
    matters: "It is asked before anything is, so that no member is wiped while another one stays.",
    by_hand: "Name each: `--destroy etcd/NODE`.",
};
pub(super) static RETURNS: Known = Known {
    name: "lost-vm-runs",
    steps: &[on::RECOVER],
    means: "The VM of a machine that is said to be lost runs, or may be started by high availability.",
    matters: "It may come up with its old etcd at any moment.",
    by_hand: "`qm status VMID`; let it come up, or `qm stop VMID`.",
};
pub(super) static ROLE: Known = Known {
    name: "talos-role-cannot-recover",
    steps: &[on::SAVE, on::WIPE, on::RECOVER],
    means: "The talosconfig's certificate has not the role that a later call takes.",
    matters: "The call would be refused half-way.",
    by_hand: "`talosctl config info` shows the roles; whoever made the cluster has a talosconfig with os:admin.",
};

/// All of them, in the order of the documents.
pub(super) static ALL: &[&Known] = &[
    &MAJORITY,
    &LIVING,
    &SILENT,
    &ALIVE,
    &UNSEEN,
    &UNLISTED,
    &OPEN,
    &GIVEN,
    &EMPTY,
    &LEARNER,
    &BEHIND,
    &LOCAL,
    &CONSENT,
    &RETURNS,
    &ROLE,
    &CANNOT_ASK,
];
