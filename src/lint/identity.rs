//! Whether what bears a name is the machine that is meant.

use crate::base::survey::Node;

use super::{Explain, Out, Rule, each, qm, start, talosctl};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L19",
        title: "Kubernetes knows another machine by this node's name",
        explain: Explain {
            wrong: "A node that was made anew under an old name, or two machines with one name: volumes that are bound to the name \
                    seem to fit and their data is on the other machine; labels and a Ready are those of whichever reported last.",
            shows: "`kubectl get node NAME -o jsonpath={.status.nodeInfo.systemUUID}` differs from the machine's own uuid.",
            by_hand: "`kubectl get node NAME -o wide` for the address that it has; then give one of them another name. The Node object is \
                      deleted only once the other machine is off: its pods are forgotten with it, and would go on writing to their \
                      volumes beside their successors.",
            source: "kubernetes issue 51431; NodeSystemInfo.systemUUID",
        },
        silences: &["L24", "L35", "L36"],
        look: |survey, out| each(survey, out, another),
    },
    Rule {
        number: "L34",
        title: "the VM that the site names for a node is another machine",
        explain: Explain {
            wrong: "What is done to the VM is not done to the node: a power cycle for the one hits the other.",
            shows: "The VM's `smbios1: uuid=` differs from what Talos says of its machine.",
            by_hand: "`qm list`, and the right number in the site file.",
            source: "qemu-server `smbios1`; siderolabs/talos SystemInformation",
        },
        silences: &["L04", "L05", "L27", "L28", "L29", "L30"],
        look: |survey, out| each(survey, out, wrong_vm),
    },
    Rule {
        number: "L36",
        title: "the Node object was made anew while its machine went on",
        explain: Explain {
            wrong: "Somebody deleted it, and the kubelet registered again under the same name with another uid. Labels, taints and \
                    annotations that were set by hand are gone, and a cordon with them: pods come to a node that was meant to \
                    have none, or find no node with their label. What belonged to the former object (CSINode, leases) was \
                    collected, and a CSINode comes back with the next start of the kubelet alone.",
            shows: "`kubectl get node NAME -o jsonpath={.metadata.creationTimestamp}` is later than the start of pods on it, or a \
                    pod's `ownerReferences` name a Node with another uid.",
            by_hand: "Labels and taints as they were, from git or the machine configuration; then a restart of the kubelet, and \
                      `kubectl get csinode NAME` for the drivers.",
            source: "kubernetes pkg/kubelet/kubelet_node_status.go (registerWithAPIServer), pkg/kubelet/pod/mirror_client.go; \
                     Kubernetes, owners and dependents",
        },
        silences: &[],
        look: |survey, out| each(survey, out, made_anew),
    },
];

/// The first three groups may be written from their other end: firmware before SMBIOS 2.6 has them so, and who reads it
/// may turn them or not.
pub(super) fn same(a: &str, b: &str) -> bool {
    let plain = |uuid: &str| uuid.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase();
    let (a, b) = (plain(a), plain(b));
    a == b || turned(&a).is_some_and(|turned| turned == b)
}

fn turned(uuid: &str) -> Option<String> {
    let group = |from: usize, to: usize| {
        let bytes: Option<Vec<&str>> = (from..to).step_by(2).rev().map(|at| uuid.get(at..at + 2)).collect();
        bytes.map(|bytes| bytes.concat())
    };
    Some([group(0, 8)?, group(8, 12)?, group(12, 16)?, uuid.get(16..)?.to_owned()].concat())
}

/// A uuid that says something: some boards have none, or all digits the same.
pub(super) fn told(uuid: &str) -> bool {
    let mut digits = uuid.chars().filter(char::is_ascii_hexdigit);
    let first = digits.next();
    digits.any(|digit| Some(digit) != first)
}

fn another(node: &Node, out: &mut Out) -> Option<()> {
    let kubelet = out.need(&node.name, &node.kubelet)?;
    if !kubelet.registered || !told(&kubelet.system_uuid) {
        return None;
    }
    let (own, who) = if node.is_talos() {
        let talos = out.need(&node.name, &node.talos)?;
        let at = node.address.as_deref().unwrap_or("its address");
        (out.need(&node.name, &talos.system_uuid)?.as_str(), format!("the machine at {at}"))
    } else {
        let vm = out.need(&node.name, &node.vm)?;
        let vmid = node.place.as_ref().map(|place| place.vmid).unwrap_or_default();
        (vm.smbios_uuid.as_deref()?, format!("vm {vmid}"))
    };
    if !told(own) || same(own, &kubelet.system_uuid) {
        return None;
    }
    let text = format!(
        "Kubernetes knows a machine with uuid {} as {}, and {who} has uuid {own}",
        kubelet.system_uuid, node.node_name
    );
    out.find(&node.name, text, format!("`kubectl get node {} -o wide` says where the other one is", node.node_name));
    Some(())
}

fn wrong_vm(node: &Node, out: &mut Out) -> Option<()> {
    let vm = out.need(&node.name, &node.vm)?;
    let configured = vm.smbios_uuid.as_deref().filter(|uuid| told(uuid))?;
    let talos = out.need(&node.name, &node.talos)?;
    let own = out.need(&node.name, &talos.system_uuid)?;
    if !told(own) || same(own, configured) {
        return None;
    }
    let vmid = node.place.as_ref().map(|place| place.vmid).unwrap_or_default();
    let text = format!(
        "the site says that it is vm {vmid}, which has uuid {configured}; the machine that answers has uuid {own}"
    );
    out.find(
        &node.name,
        text,
        format!(
            "find the VM with that uuid and put its number into the site file: {}",
            qm(node, &format!("grep -l uuid={own} /etc/pve/nodes/*/qemu-server/*.conf"))
        ),
    );
    Some(())
}

fn made_anew(node: &Node, out: &mut Out) -> Option<()> {
    let kubelet = out.need(&node.name, &node.kubelet).filter(|kubelet| kubelet.registered)?;
    let workloads = out.need(&node.name, &node.workloads)?;
    let first = workloads.earlier.first()?;
    let since = kubelet.created.map(|at| format!(", made {at},")).unwrap_or_default();
    let shows = match (&first.owner, first.began) {
        (Some(owner), _) => format!("{} belongs to a Node of this name with uid {owner}", first.pod),
        (None, Some(began)) => format!("{} is there since {began}", first.pod),
        (None, None) => return None,
    };
    let more = match workloads.earlier.len() - 1 {
        0 => String::new(),
        more => format!(", and so it is with {more} more"),
    };
    let text =
        format!("the Node object{since} with uid {} is not the first one of this machine: {shows}{more}", kubelet.uid);
    let look =
        format!("`kubectl get node {} --show-labels` against what it is to have, its taints too", node.node_name);
    let help = match start(node).or_else(|| node.held_off.clone()) {
        Some(start) => format!("{look}; it is off: {start}"),
        None if node.is_talos() => format!("{look}; then {}", talosctl(node, "service kubelet restart")),
        None => format!("{look}; then restart its kubelet"),
    };
    out.find(&node.name, text, help);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_the_same_in_either_order_of_bytes() {
        let uuid = "7d0f4d6e-6a2b-4c35-9b77-0c5a3f4e0223";
        assert!(same(uuid, "7D0F4D6E6A2B4C359B770C5A3F4E0223"));
        assert!(same(uuid, "6e4d0f7d-2b6a-354c-9b77-0c5a3f4e0223"));
        assert!(!same(uuid, "7d0f4d6e-6a2b-4c35-9b77-0c5a3f4e0224"));
        assert!(same("x", "x") && turned("x").is_none());
        assert!(told(uuid) && !told("00000000-0000-0000-0000-000000000000") && !told(""));
    }
}
