//! How the parameters are written.

use crate::blueprint::param::Param;

use super::MEASURE;

/// How a drive is written.
pub(super) const DRIVE: &[Param] = &[
    Param::may("serial", "its serial number", "S5GXNF0R601234", "it has none"),
    Param::may("model", "its model; needed of a new one", "Samsung SSD 980 PRO 1TB", "nothing is said of it"),
    Param::may("size", "its size in bytes; needed of a new one", "1000204886016", "nothing is said of it"),
    Param::may(
        "partition",
        "the uuid of a partition on it, where its serial number does not tell it apart",
        "5b1c6f0e-7d0a-4a53-9c7e-2f0d8a3c1101",
        "its serial number does",
    ),
    Param::need(
        "purpose",
        "what it is for, one or a list of: `system`, `user-volume NAME`, `raw-volume NAME`, `mayastor POOL`, `local VOLUME`, `spare`",
        "system",
    ),
    Param::may("new", "whether it is not in the machine yet", "true", "false"),
];
/// How a volume on a drive that comes is written.
pub(super) const VOLUME: &[Param] = &[
    Param::need("on", "the drive, by its name in `drives`", "fresh"),
    Param::may(
        "else_by_model",
        "whether it is meant by model and size too, where it reports no serial number in its slot",
        "true",
        "false",
    ),
    Param::may("min_size", "how large it is at least", "1GiB", "what Talos takes"),
    Param::may("grow", "whether it takes all the room that there is", "true", "what Talos takes"),
];
pub(super) const MEDIUM: &[Param] = &[
    Param::need("version", "its version of Talos, that which runs on the node", "v1.11.5"),
    Param::may("schematic", "its schematic at the image factory, whole", "26124abcbd408be6..", "it is not looked at"),
];
pub(super) const MEASURED: &[Param] = &[
    Param::may("image", "the image of the pod that measures", MEASURE.0, MEASURE.0),
    Param::may("namespace", "its namespace", MEASURE.1, MEASURE.1),
    Param::may("bytes", "how much it writes and reads", "268435456", "268435456"),
];

/// How they are written.
pub const PARAMS: &[Param] = &[
    Param::need("node", "the Talos node, by its name under `talos:`; its slots are there", "talos-nuc"),
    Param::need(
        "scenario",
        "what happens to the system disk: `data` (it stays), `system-moved` (into another slot, as it is), `system-replaced` \
         (another drive becomes it, and the node is installed anew)",
        "data",
    ),
    Param::need(
        "drives",
        "the drives, each by a name of yours",
        "{ sys: { serial: S5GXNF0R601234, purpose: system }, media: { serial: 22471A806001, purpose: user-volume media } }",
    )
    .of(DRIVE),
    Param::need("current", "which drive is in which slot before", "{ M2_1: sys, M2_2: media }"),
    Param::need(
        "target",
        "which drive is to be in which slot; one that is in `current` alone leaves the machine",
        "{ M2_1: sys, M2_3: media }",
    ),
    Param::may(
        "volumes",
        "user volumes to be made on drives that come, by name",
        "{ scratch: { on: fresh, else_by_model: true } }",
        "none",
    )
    .of(VOLUME),
    Param::may(
        "config",
        "the machine configuration that the node is installed with; needed for `system-replaced`",
        "./controlplane.yaml",
        "the node keeps its own",
    ),
    Param::may(
        "decrypt",
        "the command that prints a configuration decrypted; the file's name comes behind it",
        "[sops, --decrypt]",
        "the file is read as it is",
    ),
    Param::may(
        "patches",
        "what is merged into that configuration, as of a `cluster-build`: `user-volume`, `kernel-module`, `addresses`, ..",
        "[{ addresses: { link: eth0, addresses: [192.168.4.20/24] } }]",
        "nothing",
    ),
    Param::may(
        "at",
        "the address at which the node waits for that configuration (its console shows it)",
        "192.168.4.77",
        "its address under `talos:`",
    ),
    Param::may(
        "fingerprint",
        "the fingerprint of its key, which its console shows while it waits",
        "SHA256:..",
        "what waits there is told by its board's uuid alone",
    ),
    Param::may(
        "medium",
        "what the node boots from where its system disk does not; needed for `system-moved` and `system-replaced`",
        "{ version: v1.11.5 }",
        "none is needed",
    )
    .of(MEDIUM),
    Param::may(
        "without_api",
        "whether the Kubernetes API may be away for as long as the node is off, as with one or two control planes",
        "true",
        "false",
    ),
    Param::may(
        "first",
        "whether the node has its turn although a less important one has drives to move too",
        "true",
        "false",
    ),
    Param::may(
        "measure",
        "how fast the drives are before and after, measured by a pod on the node: `off`, or as below",
        "off",
        "a pod of busybox writes and reads 256 MiB a volume",
    )
    .of(MEASURED),
    Param::may(
        "recipients",
        "age recipients for whom alone 01 keeps the files with secrets (machine configuration, snapshot of etcd); where `volumes` add to it, 06 keeps the former configuration as it is, for its undo",
        "[age1..]",
        "they are for their owner alone, as they are",
    ),
];
