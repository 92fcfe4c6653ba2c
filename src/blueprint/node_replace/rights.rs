//! What a `node-replace` has to be allowed: the one list for the preflight and for the operator.

use crate::blueprint::rights::{
    KubeNeed, Privilege, PveNeed, Rights, TalosNeed, TalosRights, Weight, merged, merged_pve,
};
use crate::blueprint::vm::Vm;
use crate::k8s::access::Right;
use crate::k8s::gone::LEASES;

use super::on;
use super::swap::Swap;

/// The one role that may change the members of etcd, and read machine configurations.
pub(super) const ROLE: &str = "os:admin";

/// All that the migration needs, by its site file.
pub(super) fn of(swap: &Swap) -> Rights {
    let vms: Vec<&Vm> = [&swap.old.vm, &swap.new.machine.vm].into_iter().flatten().collect();
    let audit = |vm: &&Vm| PveNeed {
        steps: vec![on::SHUTDOWN, on::PREFLIGHT, on::LEAVE, on::SWAP, on::APPLY],
        path: format!("/vms/{}", vm.vmid),
        privilege: Privilege::same("VM.Audit"),
        purpose: format!("whether vm {} runs, and who it is", vm.vmid),
        weight: Weight::Needed,
    };
    let talos = |steps: &[&'static str], role: &'static str, purpose: &str| TalosNeed {
        steps: steps.to_vec(),
        role,
        purpose: purpose.to_owned(),
    };
    Rights {
        proxmox: vms.first().map(|vm| vm.cluster.clone()),
        pve: merged_pve(vms.iter().map(audit).collect()),
        pve_notes: Vec::new(),
        kubernetes: swap.old.node.cluster.clone(),
        namespace: LEASES.into(),
        kube: kubernetes(swap),
        kube_notes: Vec::new(),
        talos: Some(TalosRights {
            cluster: swap.old.cluster.clone(),
            role: ROLE,
            needs: vec![
                talos(&[on::PREFLIGHT, on::SHUTDOWN, on::SWAP, on::VERIFY], "os:reader", "disks, stage and services"),
                talos(&[on::LEAVE, on::JOIN, on::VERIFY], "os:reader", "members, state and alarms of etcd"),
                talos(&[on::SNAPSHOT], "os:etcd:backup", "a snapshot of etcd"),
                talos(&[on::LEAVE], ROLE, "taking a member out of etcd"),
                talos(&[on::SHUTDOWN], "os:operator", "shutting down"),
                talos(&[on::PREFLIGHT, on::APPLY], ROLE, "reading the machine configuration of a node that has one"),
            ],
        }),
    }
}

/// Of Kubernetes.
pub(super) fn kubernetes(swap: &Swap) -> Vec<KubeNeed> {
    let need = |steps: &[&'static str], right: Right, purpose: &str| KubeNeed {
        steps: steps.to_vec(),
        right,
        purpose: purpose.to_owned(),
        weight: Weight::Needed,
    };
    let node = |verb: &str, name: &str| Right::new(verb, "", "nodes", "").named(name);
    let host = swap.host();
    let mut all = vec![
        // Of the new one too, and at the end of all of them.
        need(
            &[on::DRAIN, on::LEAVE, on::SHUTDOWN, on::NODE, on::UNCORDON, on::VERIFY],
            Right::new("get", "", "nodes", ""),
            "the state of the nodes",
        ),
        need(&[on::DRAIN, on::UNCORDON], node("patch", host), "the cordon"),
        need(&[on::DRAIN], Right::new("create", "", "pods/eviction", ""), "the drain"),
        need(
            &[on::LEAVE, on::SHUTDOWN, on::NODE, on::VERIFY],
            Right::new("get", "coordination.k8s.io", "leases", LEASES).named(host),
            "when its kubelet was heard last",
        ),
        need(
            &[on::NODE, on::VERIFY],
            Right::new("list", "storage.k8s.io", "volumeattachments", ""),
            "the volumes that are attached to it",
        ),
    ];
    if swap.same_name() {
        all.push(need(&[on::NODE], node("patch", host), "a taint of the old machine"));
    } else {
        all.push(need(&[on::NODE], node("delete", host), "the end of the old Node object"));
        let lease = Right::new("delete", "coordination.k8s.io", "leases", LEASES).named(host);
        all.push(need(&[on::NODE], lease, "its lease, where it does not go with it"));
    }
    for (group, resource) in [
        ("", "nodes"),
        ("", "persistentvolumeclaims"),
        ("", "persistentvolumes"),
        ("", "pods"),
        ("apps", "daemonsets"),
        ("policy", "poddisruptionbudgets"),
    ] {
        let what = "what runs on a node, and what becomes of it";
        all.push(need(
            &[on::DRAIN, on::PREFLIGHT, on::SHUTDOWN, on::VERIFY],
            Right::new("list", group, resource, ""),
            what,
        ));
    }
    all.push(KubeNeed {
        weight: Weight::Optional("the drain asks again and again instead of being told".into()),
        ..need(&[on::DRAIN], Right::new("watch", "", "pods", ""), "being told that a pod is gone")
    });
    merged(all)
}
