//! What a `node-reboot-test` has to be allowed: the one list for the preflight and for the operator.
//!
//! Which role of Talos a call takes is in its access rules (siderolabs/talos `internal/app/apid/pkg/role` and the rules
//! of `internal/app/machined`); which privilege a call to Proxmox takes, in the `permissions` of its API methods.

use crate::blueprint::machine::Machine;
use crate::blueprint::rights::{KubeNeed, Privilege, PveNeed, Rights, TalosNeed, TalosRights, Weight, merged};
use crate::k8s::access::Right;

use super::on;
use super::params::Params;

/// The one role that may read the boot id and the machine configuration of every version, and move etcd's leadership.
pub(super) const ROLE: &str = "os:admin";

/// All that the migration needs, by its site file.
pub(super) fn of(p: &Params) -> Rights {
    let vms: Vec<_> = p.nodes.iter().filter_map(|machine| machine.vm.as_ref()).collect();
    let proxmox = vms.first().map(|vm| vm.cluster.clone());
    let others = vms.iter().filter(|vm| Some(&vm.cluster) != proxmox.as_ref());
    let pve_notes = others.map(|vm| format!("vm {} is in cluster {}: the same is needed there.", vm.vmid, vm.cluster));
    let own = vms.iter().filter(|vm| Some(&vm.cluster) == proxmox.as_ref()).map(|vm| vm.vmid);
    Rights {
        pve: own.flat_map(proxmox_needs).collect(),
        pve_notes: pve_notes.collect(),
        proxmox,
        kubernetes: p.nodes.first().map(|machine| machine.node.cluster.clone()).unwrap_or_default(),
        namespace: "kube-system".into(),
        kube: kubernetes(&p.nodes),
        kube_notes: Vec::new(),
        talos: Some(talos(p)),
    }
}

/// Of Proxmox, for the power cycle of a VM.
pub(super) fn proxmox_needs(vmid: u32) -> Vec<PveNeed> {
    let need = |steps: &[&'static str], privilege: &'static str, purpose: String| PveNeed {
        steps: steps.to_vec(),
        path: format!("/vms/{vmid}"),
        privilege: Privilege::same(privilege),
        purpose,
        weight: Weight::Needed,
    };
    vec![
        need(
            &[on::REBOOT, on::PREFLIGHT, on::VERIFY],
            "VM.Audit",
            format!("the state of vm {vmid}, and what waits in its config"),
        ),
        need(&[on::REBOOT], "VM.PowerMgmt", format!("starting vm {vmid} again")),
    ]
}

/// Of Kubernetes.
pub(super) fn kubernetes(machines: &[Machine]) -> Vec<KubeNeed> {
    let need = |steps: &[&'static str], right: Right, purpose: &str| KubeNeed {
        steps: steps.to_vec(),
        right,
        purpose: purpose.to_owned(),
        weight: Weight::Needed,
    };
    let mut all = Vec::new();
    for machine in machines {
        let node = |verb: &str| Right::new(verb, "", "nodes", "").named(&machine.node.name);
        let all_steps = [on::DRAIN, on::PREFLIGHT, on::REPAIR, on::REBOOT, on::VERIFY, on::UNCORDON];
        all.push(need(&all_steps, node("get"), "the state of the nodes"));
        all.push(need(&[on::DRAIN, on::UNCORDON], node("patch"), "the cordon"));
    }
    let drain = [on::DRAIN, on::PREFLIGHT];
    all.push(need(&[on::DRAIN], Right::new("create", "", "pods/eviction", ""), "the drain"));
    let own = "what still runs on a node";
    all.push(need(&[on::REBOOT], Right::new("list", "", "pods", ""), own));
    for (group, resource) in [
        ("", "nodes"),
        ("", "persistentvolumeclaims"),
        ("", "persistentvolumes"),
        ("", "pods"),
        ("apps", "daemonsets"),
        ("policy", "poddisruptionbudgets"),
    ] {
        let what = "what runs on a node, and what a drain would do to it";
        all.push(need(&drain, Right::new("list", group, resource, ""), what));
    }
    merged(all)
}

fn talos(p: &Params) -> TalosRights {
    let need = |steps: &[&'static str], role: &'static str, purpose: &str| TalosNeed {
        steps: steps.to_vec(),
        role,
        purpose: purpose.to_owned(),
    };
    let mut needs = vec![
        need(&[on::GATE, on::PREFLIGHT, on::REBOOT, on::VERIFY], "os:reader", "members, state and alarms of etcd"),
        need(&[on::VERIFY, on::PREFLIGHT], "os:reader", "stage, services, extensions and disks"),
        need(&[on::REBOOT, on::VERIFY], ROLE, "the boot id (a file; from 1.14 on os:reader may ask for it)"),
        need(&[on::GATE, on::REBOOT], ROLE, "handing over the leadership of etcd"),
        need(&[on::REBOOT], "os:operator", "rebooting, and shutting down"),
    ];
    if p.repair {
        needs.push(need(&[on::REPAIR, on::PREFLIGHT], ROLE, "reading and applying the machine configuration"));
        needs.push(need(&[on::REPAIR], ROLE, "another image, and the way back"));
    }
    TalosRights { cluster: p.cluster.clone(), role: ROLE, needs }
}
