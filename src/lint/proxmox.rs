//! What Proxmox knows of a VM, held against what is in it and what we may do to it.

use crate::base::survey::{Fact, Node, Survey, Vm};

use super::{Explain, Out, Rule, each, qm, quoted, reboots};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L04",
        title: "the guest agent is in the image and the VM has no channel for it",
        explain: Explain {
            wrong: "The extension `qemu-guest-agent` waits for the channel's device. Talos is booted only once every service is \
                    up: after 70 minutes the boot fails and the node reboots, without end. The error names no service.",
            shows: "`kubectl get nodes` says Ready, `talosctl get machinestatus` says `booting`, and `talosctl services` shows \
                    `ext-qemu-guest-agent` in `Waiting`.",
            by_hand: "`qm set VMID --agent 1`, then a power cycle by Proxmox (`qm reboot`): a reboot from inside keeps the old \
                      QEMU process, which has no channel. Where etcd runs on it, see before that it can spare it.",
            source: "siderolabs/talos issue 14373; qemu-server: the channel's device is made when QEMU starts",
        },
        silences: &["L24", "L25", "L29"],
        look: |survey, out| each(survey, out, no_channel),
    },
    Rule {
        number: "L05",
        title: "the VM has the agent switched on and the image has no agent",
        explain: Explain {
            wrong: "Proxmox asks an agent that is not there: each look at the VM's addresses costs it seconds, and a backup of \
                    the running VM cannot freeze its file systems.",
            shows: "`qm agent VMID ping` says `QEMU guest agent is not running`; `talosctl get extensions` has no \
                    qemu-guest-agent.",
            by_hand: "`qm set VMID --delete agent`, or an image whose schematic has siderolabs/qemu-guest-agent.",
            source: "Image Factory; qemu-server `qga_check_running`",
        },
        silences: &["L29"],
        look: |survey, out| each(survey, out, no_agent),
    },
    Rule {
        number: "L21",
        title: "a VM has raw USB or PCI devices, and our credentials cannot touch them",
        explain: Explain {
            wrong: "Lines with a device's own id or port are set, changed and deleted by root@pam with a password alone. An API \
                    token is refused, root's too: a migration of such a device stops at its first write.",
            shows: "HTTP 500 `only root can set 'usb0' config for real devices`.",
            by_hand: "Give the site file a ticket of root@pam, or pass the device by a mapping: `pvesh create \
                      /cluster/mapping/usb`, then `qm set VMID --usb0 mapping=NAME`.",
            source: "qemu-server `check_vm_modify_config_perm`",
        },
        silences: &[],
        look: |survey, out| each(survey, out, |node, out| raw(survey, node, out)),
    },
    Rule {
        number: "L30",
        title: "a running VM is to become another one at its next power cycle",
        explain: Explain {
            wrong: "What was configured does not hold yet, and will at a moment that nobody chose: the next time that the VM is \
                    stopped and started. A reboot from inside the guest changes nothing.",
            shows: "`qm pending VMID` has lines `new` or `del`; the device or the memory is in the configuration, not in the \
                    guest.",
            by_hand: "`qm reboot VMID`, which starts a new QEMU process; or `qm set VMID --revert KEY`.",
            source: "pve-docs qm(1), pending changes; qemu-server `vmconfig_apply_pending`",
        },
        silences: &[],
        look: |survey, out| each(survey, out, pending),
    },
];

const AGENT: &str = "qemu-guest-agent";

/// Its image has the agent, and its QEMU process no channel for it.
fn lacks_channel(node: &Node, vm: &Vm) -> bool {
    vm.is_running() && !vm.agent && node.talos().is_some_and(|talos| talos.has_extension(AGENT))
}

fn no_channel(node: &Node, out: &mut Out) -> Option<()> {
    if !node.is_talos() {
        return None;
    }
    let vm = out.need(&node.name, &node.vm)?;
    if !vm.is_running() || vm.agent {
        return None;
    }
    let talos = out.need(&node.name, &node.talos)?;
    out.need(&node.name, &talos.extensions)?;
    if !lacks_channel(node, vm) {
        return None;
    }
    let waits = talos.pending_services().find(|service| service.id.contains(AGENT));
    let mut text = format!("{AGENT} is in its image and its VM runs without the agent's channel");
    if let Some(service) = waits {
        text.push_str(&format!("; `{}` is {}", service.id, service.state));
        if !service.message.is_empty() {
            text.push_str(&format!(" ({})", service.message));
        }
    }
    if let Some(stage) = talos.stage.known().filter(|_| !talos.is_settled()) {
        text.push_str(&format!("; Talos is `{stage}`, and reboots after 70 minutes of booting"));
    }
    let help = if vm.agent_configured {
        text.push_str("; the agent is switched on from its next power cycle on");
        qm(node, "qm reboot {}")
    } else {
        qm(node, "qm set {} --agent 1 && qm reboot {}")
    };
    out.find(&node.name, text, help + reboots(node));
    Some(())
}

fn no_agent(node: &Node, out: &mut Out) -> Option<()> {
    if !node.is_talos() {
        return None;
    }
    let vm = out.need(&node.name, &node.vm)?;
    if !vm.agent_configured {
        return None;
    }
    let talos = out.need(&node.name, &node.talos)?;
    out.need(&node.name, &talos.extensions)?;
    if talos.has_extension(AGENT) || node.agent.known().is_some_and(|agent| agent.ping.is_yes()) {
        return None;
    }
    let text = format!("its VM has the guest agent switched on, and {AGENT} is not in its image");
    out.find(&node.name, text, qm(node, "qm set {} --delete agent"));
    Some(())
}

/// `host=` of a real device; `spice` is none, and a bare value is one of `host`.
fn is_raw(line: &str) -> bool {
    let mut parts = line.split(',').map(str::trim);
    let host = parts.clone().find_map(|part| part.strip_prefix("host="));
    let bare = parts.find(|part| !part.is_empty() && !part.contains('='));
    host.or(bare).is_some_and(|device| device != "spice")
}

fn raw(survey: &Survey, node: &Node, out: &mut Out) -> Option<()> {
    let place = node.place.as_ref()?;
    let cluster = survey.proxmox.iter().find(|cluster| cluster.name == place.proxmox)?;
    if cluster.may_pass_raw_devices() {
        return None;
    }
    let vm = out.need(&node.name, &node.vm)?;
    let lines = vm.usb.iter().chain(&vm.hostpci).filter(|(_, line)| is_raw(line));
    let raw: Vec<String> = lines.map(|(slot, line)| format!("{slot}: {line}")).collect();
    if raw.is_empty() {
        return None;
    }
    let how = if cluster.by_password { "" } else { " by an API token" };
    let text = format!(
        "{} may be set, changed and deleted by root@pam with a password alone; we are {}{how}",
        quoted(&raw),
        cluster.user
    );
    let help = format!(
        "in the site file give proxmox.{}.auth a `ticket` of root@pam (`pvemig site example` has one)",
        cluster.name
    );
    out.find(&node.name, text, help);
    Some(())
}

fn pending(node: &Node, out: &mut Out) -> Option<()> {
    let vm = out.need(&node.name, &node.vm)?;
    // Where the missing channel is the trouble that is another rule's.
    let told = |key: &str| key == "agent" && lacks_channel(node, vm);
    let changes: Vec<String> = vm
        .pending
        .iter()
        .filter(|change| !told(&change.key))
        .map(|change| {
            let now = change.now.as_deref().unwrap_or("not set");
            let then = change.then.as_deref().unwrap_or("not set");
            format!("{}: {now} -> {then}", change.key)
        })
        .collect();
    if !vm.is_running() || changes.is_empty() {
        return None;
    }
    let silent = node.agent.known().is_some_and(|agent| matches!(agent.ping, Fact::No { .. }));
    let text = format!("its VM waits for a power cycle to take up {}", quoted(&changes));
    // A dead agent is asked first, and the shutdown that it does not do runs into its limit.
    let help = if vm.agent && silent {
        qm(node, "qm shutdown {} --timeout 300 && qm start {}")
    } else {
        qm(node, "qm reboot {} --timeout 300")
    };
    out.find(&node.name, text, help + reboots(node));
    Some(())
}
