//! Disks and what names them.

use super::super::estate::{config_of, disk, talos_of, there, volume};
use super::{Case, install, user_volume};

pub(super) const WRONG: &[Case] = &[
    Case {
        name: "the kernel's name",
        rule: "L06",
        what: "mac",
        change: |survey| {
            config_of(survey, "mac").install.disk = Some("/dev/sda".into());
            let talos = talos_of(survey, "mac");
            let disks = there(&mut talos.disks);
            let mut ssd = disks.remove(0);
            (ssd.id, ssd.dev_path) = ("sdb".into(), "/dev/sdb".into());
            disks.extend([disk("sda", "Ultra Fit", "4C53", "usb"), ssd]);
            there(&mut talos.system_disk).id = "sdb".into();
        },
        text: &[
            "machine.install.disk: /dev/sda",
            "now it is sda (Ultra Fit 4C53)",
            "it runs from sdb (APPLE S2ZRNYAH500749, the disk",
        ],
        help: r#"'{"machine":{"install":{"disk":"/dev/disk/by-id/sata-APPLE_S2ZRNYAH500749"}}}'"#,
    },
    Case {
        name: "a socket",
        rule: "L06",
        what: "nuc",
        change: |survey| install(survey, "nuc", &[("busPath", "/pci0000:00/*")]),
        text: &["busPath", "now it is any of nvme0n1"],
        help: "name it by serial S5GXNF0R601234: `talosctl",
    },
    Case {
        name: "a volume by the kernel's name",
        rule: "L06",
        what: "nuc",
        change: |survey| user_volume(survey, "disk.dev_path == '/dev/nvme1n1'"),
        text: &["UserVolumeConfig data", "now it is nvme1n1 (WD_BLACK 22471A806001)"],
        help: "edit mc",
    },
    Case {
        name: "no such disk",
        rule: "L07",
        what: "mac",
        change: |survey| install(survey, "mac", &[("serial", "GONE*")]),
        text: &["machine.install.diskSelector: {serial: GONE*}` matches none of its 1 disks"],
        help: "name it by serial S2ZRNYAH500749",
    },
    Case {
        name: "no disk for a volume",
        rule: "L07",
        what: "nuc",
        change: |survey| user_volume(survey, "disk.size > 4u * TB || disk.model == 'x'"),
        text: &["its volume cannot be made"],
        help: "the disk that is meant",
    },
    Case {
        name: "any SSD",
        rule: "L08",
        what: "nuc",
        change: |survey| install(survey, "nuc", &[("type", "ssd"), ("size", ">= 500GB")]),
        text: &["matches 2 disks", "nvme0n1 (Samsung S5GXNF0R601234, the disk that it runs from), nvme1n1"],
        help: "serial S5GXNF0R601234",
    },
    Case {
        name: "another disk with data",
        rule: "L09",
        what: "nuc",
        change: |survey| {
            install(survey, "nuc", &[("model", "WD*")]);
            there(&mut talos_of(survey, "nuc").volumes)
                .extend([volume("nvme1n1", "", "gpt", ""), volume("nvme1n1p1", "nvme1n1", "xfs", "u-data")]);
        },
        text: &[
            "means nvme1n1 (WD_BLACK 22471A806001), which holds `nvme1n1p1 (xfs u-data)`: an installation would format it",
        ],
        help: "serial S5GXNF0R601234",
    },
    Case {
        name: "a volume on a disk of LVM's",
        rule: "L09",
        what: "nuc",
        change: |survey| {
            user_volume(survey, "disk.transport == 'nvme' && !system_disk");
            there(&mut talos_of(survey, "nuc").volumes).push(volume("nvme1n1", "", "lvm2-pv", ""));
        },
        text: &["holds `nvme1n1 (lvm2-pv)`: no volume is made on it"],
        help: "edit mc",
    },
    Case {
        name: "one serial for two",
        rule: "L10",
        what: "nuc",
        change: |survey| {
            there(&mut talos_of(survey, "nuc").disks)[1].serial = "S5GXNF0R601234".into();
            install(survey, "nuc", &[("serial", "S5*")]);
        },
        text: &["`nvme0n1` and `nvme1n1` have the same serial number S5GXNF0R601234"],
        help: "get disks -o yaml`",
    },
];
