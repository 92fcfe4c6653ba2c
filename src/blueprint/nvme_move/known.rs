//! Every finding of the preflight that is a problem: its name, what it means, and what one would do by hand. A name is
//! never given another meaning.

use crate::blueprint::Known;

use super::on;

pub(super) use crate::blueprint::known::{CANNOT_ASK, PRIVILEGE, RIGHT_KUBERNETES};

pub(super) static ROLE: Known = Known {
    name: "talos-role-lacking",
    steps: &[on::BACKUP],
    means: "The client certificate of the talosconfig has not the role that the steps need.",
    matters: "Talos refuses the call half-way, with the node drained.",
    by_hand: "`talosctl config new --roles os:admin FILE` with a certificate that may, and name that file in the site file.",
};
pub(super) static UNACCOUNTED: Known = Known {
    name: "drives-unaccounted",
    steps: &[on::MOVE],
    means: "The machine has an NVMe drive that the plan does not name, or the plan one that the machine has not.",
    matters: "With the machine open, nobody knows then which drive is which, and whether all that belong into it are in.",
    by_hand: "`talosctl get disks -o yaml` has the serial numbers; name each in `drives`, `current` and `target`.",
};
pub(super) static ELSEWHERE: Known = Known {
    name: "drive-elsewhere",
    steps: &[on::MOVE],
    means: "A drive is neither in its slot of `current` nor in that of `target`.",
    matters: "The plan was made for another machine than the one that is there: what goes where would be told wrongly.",
    by_hand: "`pvemig survey --hardware` shows the slots; correct `current`.",
};
pub(super) static PURPOSE: Known = Known {
    name: "purpose-differs",
    steps: &[on::MOVE],
    means: "A drive is for something else than the plan says.",
    matters: "It may be the wrong drive, or the plan does not know what goes down with it.",
    by_hand: "`pvemig survey --hardware` shows what each is for; correct `purpose`, or the serial number.",
};
pub(super) static ALIKE: Known = Known {
    name: "drives-look-alike",
    steps: &[on::MOVE],
    means: "Drives have one serial number, or what is on one is on two.",
    matters: "After they were moved nobody can tell which is which.",
    by_hand: "Name a partition of each (`partition:`); take a copy out.",
};
pub(super) static BY_PLACE: Known = Known {
    name: "selector-goes-by-place",
    steps: &[on::SHUTDOWN],
    means: "The machine configuration names a disk by the kernel's name or by its bus path.",
    matters: "After the move that is another drive: Talos would put a volume on it, or find none.",
    by_hand: "`talosctl edit machineconfig`: `match: disk.serial == \"..\"` in place of `/dev/..` or `busPath`.",
};
pub(super) static SEVERAL: Known = Known {
    name: "selector-matches-several",
    steps: &[on::SHUTDOWN],
    means: "A selector of the machine configuration means several of the drives that will be there.",
    matters: "Talos takes any of them: a volume may be made on the wrong one.",
    by_hand: "`talosctl edit machineconfig`: `match: disk.serial == \"..\"`, or another condition that one drive alone has.",
};
pub(super) static HELD_OFF: Known = Known {
    name: "held-off-by-a-run",
    steps: &[on::SHUTDOWN],
    means: "The node does not answer, and another run of this site has switched it off: it is open, or it was left at that.",
    matters: "Somebody may have a hand in it; and what is handed to a VM by an address may be another drive by now.",
    by_hand: "`pvemig status --all` and `pvemig report RUN` say how far that run came, and where its drives were last.",
};
pub(super) static MADE_THERE: Known = Known {
    name: "volume-made-on-the-new-drive",
    steps: &[on::SHUTDOWN],
    means: "The machine configuration has a volume that is on no drive yet, and its selector would mean the drive that comes, which is \
            for something else.",
    matters: "Talos makes the volume as soon as it sees that drive, before anybody could look.",
    by_hand: "`talosctl edit machineconfig`: `match: disk.serial == \"..\"`, or take the document out.",
};
pub(super) static NO_PORT: Known = Known {
    name: "slots-not-told-apart",
    steps: &[on::MOVE],
    means: "`current` and `target` have the same drives, and no port is known of a slot that changes, or the drive that is to come is \
            in the machine already: whether the drives were moved cannot be told.",
    matters: "Drives that somebody has moved by hand before would be asked to go back, or a drive in any free slot be taken for moved.",
    by_hand: "Look into the machine; `pvemig survey --hardware` shows the port of each drive: write that of one slot as its `port:`. \
              An earlier run knows it, too.",
};
pub(super) static OLD_SYSTEM: Known = Known {
    name: "old-system-disk-stays",
    steps: &[on::MOVE],
    means: "A drive with an installation of Talos stays in the machine beside the one that it is to run from.",
    matters: "Talos takes the first META partition in the order of the kernel's names, which are others after the move: an old \
              installation may come up, with an old member of etcd.",
    by_hand: "`talosctl get discoveredvolumes` shows the META partitions; take that drive out, wipe it elsewhere.",
};
pub(super) static WIPED: Known = Known {
    name: "wiped-disk-holds-a-volume",
    steps: &[on::INSTALL],
    means: "The disk that the node is to be installed on holds a volume, or a pool, that somebody knows by its name.",
    matters: "An installation wipes the whole disk. A consent is for a disk that is nobody's.",
    by_hand: "`pvemig survey --hardware` shows what it is for; move that to another drive, or install on an empty one.",
};
pub(super) static NEEDLESS_WIPE: Known = Known {
    name: "needless-wipe",
    steps: &[on::INSTALL],
    means: "The disk that the node is to be installed on is the one that it runs from already.",
    matters: "A node would be installed anew, and leave etcd, for a drive that only has to be moved.",
    by_hand: "`talosctl get systemdisk`; correct `purpose`, and write `scenario: system-moved` or `data`.",
};
pub(super) static BOOT_BY_SLOT: Known = Known {
    name: "boot-entry-goes-by-slot",
    steps: &[on::MOVE],
    means: "The only entry of the firmware that leads to the system disk names the way to its slot, not its partition.",
    matters: "In another slot the firmware does not find it: the machine stays at its firmware's screen.",
    by_hand: "The firmware's setup, boot options: take that entry out, or add one by the drive. \
              `talosctl ls /sys/firmware/efi/efivars` shows that there are entries.",
};
pub(super) static WAY_BACK: Known = Known {
    name: "way-back-cannot-be-saved",
    steps: &[on::BACKUP],
    means: "No voter of etcd is well enough to give a snapshot, or the state directory has no room for one.",
    matters: "Without it nothing leads back from a system disk that does not come up again.",
    by_hand: "`talosctl etcd status`; `df` of the directory of the runs; `--state DIR` names another one.",
};
pub(super) static ONLY_VOTER: Known = Known {
    name: "only-voter-cannot-be-replaced",
    steps: &[on::LEAVE],
    means: "The node is the only voter of etcd, and is to be installed anew.",
    matters: "It would find nobody to join: what etcd has, the whole of Kubernetes, is on the disk that leaves.",
    by_hand: "A second control plane first, and a third; or keep the disk.",
};
pub(super) static LEAVES: Known = Known {
    name: "drive-leaves-with-data",
    steps: &[on::MOVE],
    means: "A drive that leaves the machine has a volume or a pool that is in use.",
    matters: "What is on it is not there any more, and its pods stay pending.",
    by_hand: "Move the data first, or keep the drive in `target`.",
};
pub(super) static SECOND_WAY: Known = Known {
    name: "no-second-way-to-see-it-off",
    steps: &[on::SHUTDOWN],
    means: "Nothing but its own API tells whether the machine is on.",
    matters: "A machine that is cut off is silent too: a drive would be pulled out of one that runs.",
    by_hand: "`out_of_band:` of the node in the site file: the command of a management controller, or `at_the_machine`.",
};
pub(super) static MEDIUM: Known = Known {
    name: "medium-of-another-version",
    steps: &[on::MOVE],
    means: "The medium to boot from has another version of Talos than the node.",
    matters: "An installation of another version than the cluster's is begun in a hurry, with the node down.",
    by_hand: "Make a medium of the version that runs (https://factory.talos.dev), and correct `medium`.",
};
pub(super) static LESS_CRITICAL: Known = Known {
    name: "less-critical-node-first",
    steps: &[on::SHUTDOWN],
    means: "A worker of the cluster has drives to move too, and has not had its turn.",
    matters: "What goes wrong goes wrong with the first node: a worker that stays away costs less than a voter of etcd.",
    by_hand: "Run that migration first; or `first: true`.",
};
pub(super) static REPLICAS: Known = Known {
    name: "replicas-not-elsewhere",
    steps: &[on::SHUTDOWN],
    means: "A volume of Mayastor has no sound replica on another node.",
    matters: "It is away for as long as the node is off, and gone with the drive.",
    by_hand: "`kubectl get diskpools -A`, `kubectl mayastor get volume-replica-topologies`; add a replica, and let it be rebuilt.",
};
pub(super) static REBUILD: Known = Known {
    name: "rebuild-is-running",
    steps: &[on::SHUTDOWN],
    means: "Mayastor rebuilds a replica.",
    matters: "With the node off the only whole copy may be off, too.",
    by_hand: "`kubectl mayastor get rebuild-history`; wait for its end.",
};
pub(super) static POOL: Known = Known {
    name: "pool-goes-by-place",
    steps: &[on::SHUTDOWN],
    means: "A pool of Mayastor names its disk by the kernel's name or its bus path.",
    matters: "After the move that is another drive.",
    by_hand: "`kubectl get diskpool -o yaml`; a pool by `/dev/disk/by-id/..` in its place.",
};
pub(super) static API_AWAY: Known = Known {
    name: "api-would-be-away",
    steps: &[on::SHUTDOWN],
    means: "Without the node etcd has no majority: the Kubernetes API is away for as long as it is off.",
    matters: "Nothing is scheduled and nothing can be changed meanwhile.",
    by_hand: "A third control plane; or `without_api: true`, where that may be.",
};
pub(super) static QUORUM: Known = Known {
    name: "etcd-cannot-spare-it",
    steps: &[on::LEAVE, on::SHUTDOWN],
    means: "Something is wrong with etcd already.",
    matters: "With one more member down it may lose its majority.",
    by_hand: "`talosctl etcd members`, `etcd status`, `etcd alarm list`; mend that first.",
};
pub(super) static CONFIG: Known = Known {
    name: "config-does-not-fit",
    steps: &[on::APPLY],
    means: "The configuration that the node is installed with means another disk or several, forgets a volume, or is of another \
            cluster or kind of node.",
    matters: "It would be found with the machine open and its old system disk out.",
    by_hand: "`talosctl validate -m metal -c FILE`; `talosctl get machineconfig v1alpha1 -o yaml` of the node as it runs shows its volumes.",
};
pub(super) static PASSTHROUGH: Known = Known {
    name: "passthrough-unclear",
    steps: &[on::SHUTDOWN, on::FOLLOW],
    means: "The node is a VM, and which of its host's drives it is given by which hostpci line is not clear, or could not be changed; or \
            another guest that runs or starts with the host is given one of them, or a slot has somebody else's drive.",
    matters: "In another slot a drive has another address: the VM would get another one, its host's own perhaps, or none.",
    by_hand: "`qm config VMID | grep hostpci`, `lspci -nn` and `ls -l /sys/block/nvme*` on its host; a virtual disk is moved by `qm disk move`.",
};
pub(super) static WITH_ITS_HOST: Known = Known {
    name: "node-on-the-same-host",
    steps: &[on::MOVE],
    means: "Another node of the cluster is a VM of the same host, which has to be switched off for the drives.",
    matters: "Both go off at once: etcd may lose its majority, and what was drained to the other has nowhere to go.",
    by_hand: "`qm migrate VMID OTHERHOST` for the other one first.",
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
    by_hand: "Scale its workload down, change the budget, or delete the pod.",
};
pub(super) static NOT_WHOLE: Known = Known {
    name: "node-not-whole",
    steps: &[on::SHUTDOWN],
    means: "Talos is not through with its boot on the node, or not ready.",
    matters: "Whether it comes back whole cannot be told from a node that is not whole before.",
    by_hand: "`pvemig survey NODE` names the cause and what mends it; `talosctl services` what it waits for.",
};
pub(super) static CONFIG_WAITS: Known = Known {
    name: "machine-config-waits",
    steps: &[on::SHUTDOWN],
    means: "The machine configuration in effect is not the one on the disk: one is staged, or one is on trial.",
    matters: "The boot puts the staged one into effect, whoever waits with it for what.",
    by_hand: "`talosctl get machineconfig v1alpha1` and `persistent` show both; `talosctl apply-config` with the right one.",
};
pub(super) static VM_AMISS: Known = Known {
    name: "vm-is-another",
    steps: &[on::SHUTDOWN],
    means: "The VM that the site file names for a node is not the one that the node runs in, or does not run.",
    matters: "Another machine would be switched.",
    by_hand: "`qm config VMID | grep smbios1` against `talosctl get systeminformation`; correct `vm` in the site file.",
};
pub(super) static CONSENT: Known = Known {
    name: "wipe-not-consented",
    steps: &[on::INSTALL],
    means: "The node is to be installed on a disk, which wipes it, and nobody has said that it may be.",
    matters: "The run would stop at the installation, with the node drained, opened, and out of etcd.",
    by_hand: "Look at the label of the drive and at what is on it, and add `--destroy disk/SERIAL` to the command.",
};

/// All of them.
pub(super) static ALL: &[&Known] = &[
    &CANNOT_ASK,
    &RIGHT_KUBERNETES,
    &PRIVILEGE,
    &ROLE,
    &UNACCOUNTED,
    &ELSEWHERE,
    &PURPOSE,
    &ALIKE,
    &BY_PLACE,
    &SEVERAL,
    &HELD_OFF,
    &MADE_THERE,
    &NO_PORT,
    &OLD_SYSTEM,
    &WIPED,
    &NEEDLESS_WIPE,
    &BOOT_BY_SLOT,
    &WAY_BACK,
    &ONLY_VOTER,
    &LEAVES,
    &SECOND_WAY,
    &MEDIUM,
    &LESS_CRITICAL,
    &REPLICAS,
    &REBUILD,
    &POOL,
    &API_AWAY,
    &QUORUM,
    &CONFIG,
    &PASSTHROUGH,
    &WITH_ITS_HOST,
    &NODE_MISSING,
    &NODE_HELD,
    &POD_STAYS,
    &NOT_WHOLE,
    &CONFIG_WAITS,
    &VM_AMISS,
    &CONSENT,
];
