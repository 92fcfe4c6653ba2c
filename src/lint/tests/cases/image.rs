//! Images, their extensions and modules, and the agent.

use crate::base::survey::Layer;

use super::super::estate::{AGENT, NVIDIA, PLAIN, at, config_of, talos_of, there};
use super::{Case, channel_pending, gpu_image, no_agent, no_channel, no_modules};

pub(super) const WRONG: &[Case] = &[
    Case {
        name: "modules that nobody asked for",
        rule: "L01",
        what: "nuc",
        change: |survey| talos_of(survey, "nuc").modules_configured = Layer::Known(vec!["nvidia".into()]),
        text: &["loaded now, but its configuration does not ask for `nvidia_uvm`, `nvidia_drm` and `nvidia_modeset`"],
        help: "patch mc --mode=no-reboot --patch '{\"machine\":{\"kernel\":{\"modules\":[{\"name\":\"nvidia_uvm\"},",
    },
    Case {
        name: "no modules",
        rule: "L01",
        what: "nuc",
        change: no_modules,
        text: &[
            "nonfree-kmod-nvidia-production",
            "`nvidia`, `nvidia_uvm`, `nvidia_drm` and `nvidia_modeset`",
            "`ext-nvidia-persistenced` is Waiting (Waiting for file \"/sys/bus/pci/drivers/nvidia\" to exist)",
            "Talos is `booting` though the kubelet is Ready",
        ],
        help: "`talosctl -e 192.168.4.20 -n 192.168.4.20 patch mc --mode=no-reboot --patch '{\"machine\":{\"kernel\":{\"modules\":\
               [{\"name\":\"nvidia\"},{\"name\":\"nvidia_uvm\"},{\"name\":\"nvidia_drm\"},{\"name\":\"nvidia_modeset\"}]},\
               \"sysctls\":{\"net.core.bpf_jit_harden\":\"1\"}}}'`",
    },
    Case {
        name: "one module is not asked for",
        rule: "L01",
        what: "nuc",
        change: |survey| {
            there(&mut talos_of(survey, "nuc").modules_configured).retain(|name| name != "nvidia_uvm");
            there(&mut talos_of(survey, "nuc").modules_loaded).retain(|module| module.name != "nvidia_uvm");
        },
        text: &["does not ask for the kernel modules `nvidia_uvm`"],
        help: r#""modules":[{"name":"nvidia_uvm"}]"#,
    },
    Case {
        name: "modules that do not load",
        rule: "L01",
        what: "nuc",
        change: |survey| talos_of(survey, "nuc").modules_loaded = Layer::Known(Vec::new()),
        text: &["cannot be loaded"],
        help: "dmesg`",
    },
    Case {
        name: "a GPU's image without a GPU",
        rule: "L02",
        what: "tvm",
        change: gpu_image,
        text: &[
            "it has none",
            "`nvidia-container-toolkit-production`",
            "ext-nvidia-persistenced",
            "reboots after 70 minutes",
        ],
        help: "`talosctl -e 192.168.4.223 -n 192.168.4.223 upgrade --image factory.talos.dev/nocloud-installer/\
               ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515:v1.11.5` (it reboots the node: see that \
               etcd can spare it)",
    },
    Case {
        name: "a GPU's image with kernel arguments",
        rule: "L02",
        what: "tvm",
        change: |survey| {
            gpu_image(survey);
            talos_of(survey, "tvm").schematic = Layer::Known(NVIDIA.into());
        },
        text: &["it has none"],
        help: "make a schematic at https://factory.talos.dev with what this one has",
    },
    Case {
        name: "what runs is not what is configured",
        rule: "L03",
        what: "mac",
        change: |survey| {
            config_of(survey, "mac").image = Some(format!("factory.talos.dev/metal-installer/{AGENT}:v1.11.5"));
        },
        text: &[PLAIN, AGENT],
        help: r#"patch mc --mode=no-reboot --patch '{"machine":{"install":{"image":"factory.talos.dev/metal-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba:v1.11.5"}}}'"#,
    },
    Case {
        name: "upgraded to an image without what it needs",
        rule: "L03",
        what: "nuc",
        change: |survey| {
            config_of(survey, "nuc").modules = vec!["nvidia".into()];
            let nuc = talos_of(survey, "nuc");
            (nuc.schematic, nuc.extensions) = (Layer::Known(PLAIN.into()), Layer::Known(Vec::new()));
        },
        text: &["the kernel modules of NVIDIA's that its configuration asks for cannot be loaded"],
        help: "upgrade --image factory.talos.dev/metal-installer/26124abcbd408be693df9fe852c80ef1e6cc178e34d7d7d8430a28d1130b4227:v1.11.5` (it reboots the node: see that etcd can spare it)",
    },
    Case {
        name: "modules in vain",
        rule: "L03",
        what: "mac",
        change: |survey| config_of(survey, "mac").modules = vec!["nvidia_uvm".into()],
        text: &["its image has no driver of NVIDIA's"],
        help: "edit mc",
    },
    Case {
        name: "no channel",
        rule: "L04",
        what: "tvm",
        change: no_channel,
        text: &["`ext-qemu-guest-agent` is Waiting", "Talos is `booting`, and reboots after 70 minutes"],
        help: "on pve: `qm set 223 --agent 1 && qm reboot 223` (it reboots the node: see that etcd can spare it)",
    },
    Case {
        name: "a channel after the next power cycle",
        rule: "L04",
        what: "tvm",
        change: channel_pending,
        text: &["switched on from its next power cycle on"],
        help: "on pve: `qm reboot 223` (it reboots the node: see that etcd can spare it)",
    },
    Case {
        name: "no channel in a worker",
        rule: "L04",
        what: "tvm",
        change: |survey| {
            no_channel(survey);
            at(survey, "tvm").etcd = Layer::Absent;
        },
        text: &["`ext-qemu-guest-agent` is Waiting"],
        help: "&& qm reboot 223` (it reboots the node)",
    },
    Case {
        name: "no agent",
        rule: "L05",
        what: "tvm",
        change: no_agent,
        text: &["not in its image"],
        help: "on pve: `qm set 223 --delete agent`",
    },
];
