//! Every finding of the preflight that is a problem: its name, what it means, and what one would do by hand. A name is
//! never given another meaning.

use crate::blueprint::Known;

use super::on;

pub(super) use crate::blueprint::known::CANNOT_ASK;

pub(super) static SOURCE: Known = Known {
    name: "machine-config-unreadable",
    steps: &[on::APPLY],
    means: "The file with a node's machine configuration cannot be read, decrypted or understood.",
    matters: "The run would stop there, with the machines before it installed.",
    by_hand: "`talosctl validate -m metal -c FILE`; of an encrypted one `sops --decrypt FILE`, and `decrypt` in the parameters.",
};
pub(super) static REFUSED: Known = Known {
    name: "machine-config-refused",
    steps: &[on::APPLY],
    means: "The machine itself says that it would not take the configuration (a dry run).",
    matters: "It would refuse it in its turn, with the machines before it installed.",
    by_hand: "`talosctl apply-config --insecure -n ADDRESS -f FILE --dry-run`.",
};
pub(super) static FIRST: Known = Known {
    name: "first-is-no-control-plane",
    steps: &[on::BOOTSTRAP],
    means: "The first of `nodes` has the configuration of a worker: etcd cannot begin on it.",
    matters: "Nothing could join: without an etcd there is no cluster.",
    by_hand: "Put a control plane first in `nodes`.",
};
pub(super) static CLUSTERS: Known = Known {
    name: "configs-of-two-clusters",
    steps: &[on::APPLY],
    means: "The configurations are of different clusters: their `cluster.id` differs.",
    matters: "Nodes of another cluster's secrets never find the others, and wait for ever.",
    by_hand: "Make all of them from one `secrets.yaml`: `talosctl gen config --with-secrets`.",
};
pub(super) static AUTHORITY: Known = Known {
    name: "talosconfig-of-another-cluster",
    steps: &[on::APPLY],
    means: "The `ca` of the talosconfig is not the authority that is in the machine configurations.",
    matters: "Once the machine is installed nobody could speak to it any more.",
    by_hand: "Take the talosconfig that was made with these configurations, or make one from their secrets.",
};
pub(super) static IMAGE: Known = Known {
    name: "image-for-other-hardware",
    steps: &[on::APPLY],
    means: "A configuration names an image with NVIDIA's driver for a machine without such a device, or lacks its modules.",
    matters: "A service waits for a file that never comes: Talos stays `booting`, and reboots after 70 minutes, without end.",
    by_hand: "Name the image of its hardware in the file, or by `install-image` in `patches`.",
};
pub(super) static ANOTHER: Known = Known {
    name: "machine-is-another-vm",
    steps: &[on::APPLY],
    means: "The machine that answers is not the VM that the site file names for the node.",
    matters: "Another machine would be wiped, and given the secrets of the cluster.",
    by_hand: "`qm config VMID | grep smbios1` against `talosctl get systeminformation --insecure`; correct `vm` or `at`.",
};
pub(super) static ROLE: Known = Known {
    name: "talos-role-cannot-bootstrap",
    steps: &[on::BOOTSTRAP],
    means: "The client certificate of the talosconfig has not the role that the steps need.",
    matters: "Talos would refuse the bootstrap, with the machines installed.",
    by_hand: "Name the talosconfig that `talosctl gen config` made, which has os:admin.",
};
pub(super) static UNWRITABLE: Known = Known {
    name: "config-not-writable",
    steps: &[on::KUBECONFIG],
    means: "The directory of the site's kubeconfig or talosconfig is not there, or cannot be written to.",
    matters: "06 would stop there, with the cluster begun and no way to it.",
    by_hand: "`ls -ld DIR`, `findmnt -T DIR`; name another file in the site file.",
};

pub(super) static LIVING: Known = Known {
    name: "etcd-lives-elsewhere",
    steps: &[on::BOOTSTRAP],
    means: "Kubernetes of the site answers, and none of the site's Talos nodes tells the members of an etcd.",
    matters: "A machine would join an etcd that nobody here looks at, past the gate, or begin a second one beside it.",
    by_hand: "`kubectl get nodes -o wide`; put its control planes under `talos.CLUSTER.nodes` of the site file.",
};

pub(super) static DISK: Known = Known {
    name: "install-disk-unfit",
    steps: &[on::DISKS],
    means: "A machine that waits has not the disk that is named, has several of that serial number, or has it on USB.",
    matters: "Another disk would be wiped, or one that is taken out again.",
    by_hand: "`talosctl get disks --insecure -n ADDRESS`; correct `disk` of the node in the parameters.",
};
pub(super) static DATA: Known = Known {
    name: "older-installation-on-another-disk",
    steps: &[on::DISKS],
    means: "A machine that waits has data of an older Talos on a disk that is not the one to be installed on.",
    matters: "Talos finds its volumes by their labels and would take those; and it may be the last copy of an etcd.",
    by_hand: "`talosctl get discoveredvolumes --insecure -n ADDRESS`; take that disk out, or wipe it where nobody needs it.",
};
pub(super) static BY_ITSELF: Known = Known {
    name: "machine-installs-itself",
    steps: &[on::DISKS],
    means: "The medium that a machine was started from has a configuration of its own, and installs by that.",
    matters: "Which disk that one takes nobody has looked at.",
    by_hand: "Start it from a Talos medium without a configuration.",
};
pub(super) static CONSENT: Known = Known {
    name: "disk-not-consented",
    steps: &[on::DISKS],
    means: "A disk would be wiped, and nobody has said that it may.",
    matters: "The run would stop at that machine, with those before it installed.",
    by_hand: "Look at what it holds, and add `--destroy disk/SERIAL`.",
};

/// All of them.
pub(super) static ALL: &[&Known] = &[
    &CANNOT_ASK,
    &SOURCE,
    &REFUSED,
    &FIRST,
    &CLUSTERS,
    &AUTHORITY,
    &IMAGE,
    &ANOTHER,
    &ROLE,
    &UNWRITABLE,
    &LIVING,
    &DISK,
    &DATA,
    &BY_ITSELF,
    &CONSENT,
];
