//! Layers that contradict each other.

use crate::base::survey::{Fact, NOT_HEALTHY, Node, Stage, Survey};

use super::{Explain, Out, Rule, each, qm, talosctl, votes};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L24",
        title: "the kubelet is Ready and Talos is still booting",
        explain: Explain {
            wrong: "Talos is booted once every service is up. One that waits holds the boot for 70 minutes; then it fails, and the \
                    node reboots, without end. Pods run meanwhile and are killed each time.",
            shows: "`kubectl get nodes` says Ready, `talosctl get machinestatus` says `booting`.",
            by_hand: "`talosctl services`: the one in `Waiting` says what for.",
            source: "siderolabs/talos `startAllServices`, BootTimeout 70m",
        },
        silences: &[],
        look: |survey, out| each(survey, out, booting),
    },
    Rule {
        number: "L25",
        title: "Talos is booted and not ready",
        explain: Explain {
            wrong: "Something that every node must have is missing: a service, the clock, the network, its static pods.",
            shows: "`talosctl get machinestatus` says `ready: false` and what is unmet.",
            by_hand: "`talosctl get machinestatus -o yaml`, then `talosctl logs` of the service that it names.",
            source: "siderolabs/talos `runtime.MachineStatusController`",
        },
        silences: &[],
        look: |survey, out| each(survey, out, |node, out| unmet(survey, node, out)),
    },
    Rule {
        number: "L26",
        title: "Talos does not answer and the kubelet is Ready",
        explain: Explain {
            wrong: "The node works and nobody can tend it: apid is down, its certificate could not be renewed, or the site file has \
                    another address. A gate that asks Talos says no.",
            shows: "`kubectl get nodes` says Ready; `talosctl version` runs into its limit.",
            by_hand: "`talosctl -e ADDRESS -n ADDRESS version`; `kubectl get node NAME -o wide` for the address that it has.",
            source: "siderolabs/talos apid, TCP 50000",
        },
        silences: &[],
        look: |survey, out| each(survey, out, deaf),
    },
    Rule {
        number: "L27",
        title: "the VM of a node does not run",
        explain: Explain {
            wrong: "Nothing can run on the node. Kubernetes believes a kubelet for up to 50 seconds after its last word: so long \
                    pods still get sent there, and a Ready of this moment proves nothing.",
            shows: "`qm status VMID` says stopped (or paused), whatever `kubectl get nodes` says.",
            by_hand: "`qm start VMID`, or `qm resume VMID` of one that is paused.",
            source: "kube-controller-manager, `--node-monitor-grace-period`",
        },
        silences: &["L26", "L32", "L35"],
        look: |survey, out| each(survey, out, |node, out| late(survey, node, out)),
    },
    Rule {
        number: "L28",
        title: "the VM runs and nothing in it answers",
        explain: Explain {
            wrong: "QEMU is well and the guest is not: it hangs, has no network, or never found its disk. Proxmox shows a green \
                    light.",
            shows: "`qm status VMID` says running; the agent, the guest's own way in and the kubelet are silent.",
            by_hand: "Its console (`qm terminal VMID`, or noVNC), then `qm reset VMID`; not a snapshot of it from before: a member of \
                      etcd that goes back in time damages the others.",
            source: "Proxmox' status is that of the QEMU process",
        },
        silences: &["L29", "L32"],
        look: |survey, out| each(survey, out, |node, out| hung(survey, node, out)),
    },
    Rule {
        number: "L29",
        title: "the VM has the agent's channel and no agent answers",
        explain: Explain {
            wrong: "Proxmox asks the agent first when it shuts down or backs up: each time it waits for nothing, and one way into \
                    the guest is missing.",
            shows: "`qm agent VMID ping`: `QEMU guest agent is not running`.",
            by_hand: "In the guest `systemctl enable --now qemu-guest-agent`; under Talos `talosctl service ext-qemu-guest-agent`.",
            source: "qemu-server `qga_check_running` (one ping, 3 s)",
        },
        silences: &[],
        look: |survey, out| each(survey, out, no_answer),
    },
    Rule {
        number: "L35",
        title: "Ready is from the boot before",
        explain: Explain {
            wrong: "The machine has booted since and the kubelet has not reported: what Kubernetes shows is of the boot before. A \
                    check of a reboot that believes it sees a node that is not there yet.",
            shows: "`kubectl get node NAME -o jsonpath={.status.nodeInfo.bootID}` differs from /proc/sys/kernel/random/boot_id.",
            by_hand: "Wait for the kubelet; where it does not come, its log.",
            source: "kubernetes, NodeSystemInfo.bootID",
        },
        silences: &["L24"],
        look: |survey, out| each(survey, out, stale),
    },
];

/// For how long Kubernetes believes a kubelet's last word: `--node-monitor-grace-period`, 40 or 50 s by its version.
const BELIEVED: &str = "up to 50 seconds";

fn waiting(node: &Node) -> (String, Option<String>) {
    let pending: Vec<_> = node.talos().into_iter().flat_map(|talos| talos.pending_services()).collect();
    let told: Vec<String> = pending
        .iter()
        .map(|s| {
            if s.message.is_empty() {
                format!("`{}` is {}", s.id, s.state)
            } else {
                format!("`{}` is {} ({})", s.id, s.state, s.message)
            }
        })
        .collect();
    (told.join(", "), pending.first().map(|service| service.id.clone()))
}

fn booting(node: &Node, out: &mut Out) -> Option<()> {
    let talos = out.need(&node.name, &node.talos)?;
    if *out.need(&node.name, &talos.stage)? != Stage::Booting || !out.need(&node.name, &node.kubelet)?.ready {
        return None;
    }
    out.need(&node.name, &talos.services);
    let (told, first) = waiting(node);
    let told = if told.is_empty() { String::new() } else { format!(": {told}") };
    let text = format!("the kubelet is Ready and Talos is `booting`{told}; after 70 minutes of that it reboots");
    let help = first.map_or_else(|| talosctl(node, "services"), |id| talosctl(node, &format!("service {id}")));
    out.find(&node.name, text, help);
    Some(())
}

fn unmet(survey: &Survey, node: &Node, out: &mut Out) -> Option<()> {
    let talos = out.need(&node.name, &node.talos)?;
    if *out.need(&node.name, &talos.stage)? != Stage::Running || talos.ready {
        return None;
    }
    // What is told of the whole cluster.
    if !talos.unmet.is_empty()
        && talos.unmet.iter().all(|unmet| unmet.reason == NOT_HEALTHY)
        && votes::is_leaderless(survey, node)
    {
        return None;
    }
    let unmet: Vec<String> = talos.unmet.iter().map(|unmet| format!("{} ({})", unmet.name, unmet.reason)).collect();
    let what = if unmet.is_empty() { String::new() } else { format!(": {}", unmet.join(", ")) };
    let text = format!("Talos is booted and not ready{what}");
    let (_, service) = waiting(node);
    let help = service
        .map_or_else(|| talosctl(node, "get machinestatus -o yaml"), |id| talosctl(node, &format!("service {id}")));
    out.find(&node.name, text, help);
    Some(())
}

fn deaf(node: &Node, out: &mut Out) -> Option<()> {
    // That it is silent is what is known of it here.
    if !node.is_talos() || !node.talos_silent || node.talos().is_some() {
        return None;
    }
    if !out.need(&node.name, &node.kubelet)?.ready {
        return None;
    }
    let reason = node.talos.reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let text = format!(
        "the kubelet is Ready and Talos does not answer{reason}; of a node that has just gone down Kubernetes believes the \
         last word for {BELIEVED}"
    );
    out.find(&node.name, text, talosctl(node, "version"));
    Some(())
}

fn late(survey: &Survey, node: &Node, out: &mut Out) -> Option<()> {
    let vm = out.need(&node.name, &node.vm)?;
    if vm.is_at_work() {
        return None;
    }
    let is = if vm.is_running() { vm.qemu.as_deref().unwrap_or("not at work") } else { &vm.power };
    let node_is = match out.need(&node.name, &node.kubelet) {
        Some(kubelet) if kubelet.ready => {
            format!(" and its node is Ready: Kubernetes believes the kubelet's last word for {BELIEVED}")
        }
        Some(kubelet) if kubelet.registered => " and its node is not Ready".to_owned(),
        Some(_) => " and it is no node".to_owned(),
        None => String::new(),
    };
    let text = format!("its VM is {is}{node_is}{}", votes::sum(survey, node));
    let help = if vm.is_running() { qm(node, "qm resume {}") } else { qm(node, "qm start {}") };
    out.find(&node.name, text, help);
    Some(())
}

/// How long a guest may take to come up, in seconds.
const BOOT_S: u64 = 180;

fn hung(survey: &Survey, node: &Node, out: &mut Out) -> Option<()> {
    let vm = out.need(&node.name, &node.vm)?;
    if !vm.is_at_work() || vm.uptime_s.is_none_or(|up| up < BOOT_S) {
        return None;
    }
    let pinged = node.agent.known().map(|agent| &agent.ping);
    let alive = pinged.is_some_and(|ping| ping.is_yes())
        || node.guest.known().is_some()
        || node.talos().is_some()
        || node.waiting.is_some()
        || node.kubelet().is_some_and(|kubelet| kubelet.ready);
    if alive {
        return None;
    }
    let kubelet = out.need(&node.name, &node.kubelet)?;
    let channel = node.agent.known().is_some_and(|agent| agent.channel.is_yes());
    let dumb = channel && pinged.is_some_and(|ping| ping.is_no());
    // A Talos that answers with a no is alive, and a guest that could not be asked may be.
    let silent = if node.is_talos() { node.talos_silent } else { dumb };
    if !silent {
        let agent = node.agent.known().and_then(|agent| agent.unknown().into_iter().next());
        let reasons = [node.talos.reason(), node.agent.reason(), agent, node.guest.reason()];
        let reason = reasons.into_iter().flatten().next();
        out.cannot(&node.name, reason.unwrap_or("nothing in it but the kubelet could be asked"));
        return None;
    }
    let mut silent = Vec::new();
    if dumb {
        silent.push("its agent does not answer".to_owned());
    }
    if node.talos_silent {
        silent.push("Talos does not answer".to_owned());
    }
    if let Some(reason) = node.guest.reason() {
        silent.push(format!("there is no way into it ({reason})"));
    }
    silent.push(if kubelet.registered { "its node is not Ready".to_owned() } else { "it is no node".to_owned() });
    let text = format!(
        "its VM runs since {} minutes, and {}{}",
        vm.uptime_s.unwrap_or_default() / 60,
        silent.join(", "),
        votes::sum(survey, node)
    );
    out.find(&node.name, text, format!("look at its console, then {}", qm(node, "qm reset {}")));
    Some(())
}

fn no_answer(node: &Node, out: &mut Out) -> Option<()> {
    // The image to install from has no agent.
    if node.waiting.is_some() {
        return None;
    }
    let vm = out.need(&node.name, &node.vm)?;
    if !vm.is_at_work() || vm.uptime_s.is_none_or(|up| up < BOOT_S) {
        return None;
    }
    let agent = out.need(&node.name, &node.agent)?;
    // Without a channel nobody can answer.
    if !agent.channel.is_no() {
        let unknown = [&agent.channel, &agent.ping].into_iter().find_map(Fact::unknown);
        unknown.into_iter().for_each(|why| out.cannot(&node.name, why));
    }
    let why = agent.ping.why().filter(|_| agent.channel.is_yes() && agent.ping.is_no())?;
    let text = format!("its VM has the agent's channel and nobody answers on it ({why})");
    let help = if node.is_talos() {
        talosctl(node, "service ext-qemu-guest-agent")
    } else {
        format!("in the guest {}: `systemctl enable --now qemu-guest-agent`", node.node_name)
    };
    out.find(&node.name, text, help);
    Some(())
}

fn stale(node: &Node, out: &mut Out) -> Option<()> {
    let kubelet = out.need(&node.name, &node.kubelet)?;
    if !kubelet.ready || kubelet.boot_id.is_empty() {
        return None;
    }
    let now = if node.is_talos() {
        let talos = out.need(&node.name, &node.talos)?;
        out.need(&node.name, &talos.boot_id)?
    } else {
        &out.need(&node.name, &node.guest)?.boot_id
    };
    if now.is_empty() || now.eq_ignore_ascii_case(&kubelet.boot_id) {
        return None;
    }
    let text = "it has booted since its kubelet last reported: what Kubernetes shows of it, Ready with it, is of the boot before";
    let help = if node.is_talos() {
        talosctl(node, "logs kubelet")
    } else {
        format!("`kubectl describe node {}`", node.node_name)
    };
    out.find(&node.name, text, help);
    Some(())
}
