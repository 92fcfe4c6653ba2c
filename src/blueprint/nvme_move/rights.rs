//! What an `nvme-move` has to be allowed: the one list for the preflight and for the operator.

use crate::blueprint::machine::Machine;
use crate::blueprint::rights::{KubeNeed, Privilege, PveNeed, Rights, TalosNeed, TalosRights, Weight, merged};
use crate::blueprint::vm::Vm;
use crate::k8s::access::Right;

use super::on;
use super::params::{Measure, Params};

/// The one role that may read the machine configuration, and files of every version.
pub(super) const ROLE: &str = "os:admin";

/// All that the migration needs, by its site file.
pub(super) fn of(p: &Params) -> Rights {
    let machine = &p.machine;
    let talos = |steps: &[&'static str], role: &'static str, purpose: &str| TalosNeed {
        steps: steps.to_vec(),
        role,
        purpose: purpose.to_owned(),
    };
    let mut of_talos = vec![
        talos(
            &[on::PREFLIGHT, on::BACKUP, on::MOVE, on::VERIFY, on::VOLUMES, on::VALIDATE],
            "os:reader",
            "drives, volumes, mounts, stage and services",
        ),
        talos(
            &[on::PREFLIGHT, on::BACKUP, on::SHUTDOWN, on::VALIDATE],
            "os:reader",
            "members, state and alarms of etcd",
        ),
        talos(&[on::PREFLIGHT, on::BACKUP], ROLE, "the machine configuration; links and firmware of the drives"),
        talos(&[on::BACKUP], "os:etcd:backup", "a snapshot of etcd"),
        talos(&[on::SHUTDOWN], ROLE, "handing over the leadership of etcd"),
        talos(&[on::SHUTDOWN], "os:operator", "shutting down"),
    ];
    if !p.volumes.is_empty() {
        of_talos.push(talos(&[on::APPLY], ROLE, "the machine configuration that a new volume is added to"));
    }
    if p.anew.is_some() {
        of_talos.push(talos(&[on::LEAVE, on::SHUTDOWN], ROLE, "leaving etcd"));
        of_talos.push(talos(&[on::LEAVE], "os:operator", "its reboot, where that is undone"));
        of_talos.push(talos(
            &[on::INSTALL, on::JOIN],
            ROLE,
            "the machine configuration that it was given, stage and services",
        ));
        of_talos.push(talos(&[on::REMOVE], ROLE, "removing a member of etcd that is left over"));
    }
    Rights {
        proxmox: machine.vm.as_ref().map(|vm| vm.cluster.clone()),
        pve: machine.vm.iter().flat_map(|vm| proxmox(vm.vmid).into_iter().chain(passthrough(vm.vmid))).collect(),
        pve_notes: machine.vm.iter().map(note).collect(),
        kubernetes: machine.node.cluster.clone(),
        namespace: "kube-system".into(),
        kube: kubernetes(machine, p.measure.as_ref()),
        kube_notes: Vec::new(),
        talos: Some(TalosRights { cluster: machine.cluster.clone(), role: ROLE, needs: of_talos }),
    }
}

/// Of Proxmox, for the VM of a node.
pub(super) fn proxmox(vmid: u32) -> Vec<PveNeed> {
    let need = |steps: &[&'static str], privilege: &'static str, purpose: &str| PveNeed {
        steps: steps.to_vec(),
        path: format!("/vms/{vmid}"),
        privilege: Privilege::same(privilege),
        purpose: purpose.to_owned(),
        weight: Weight::Needed,
    };
    vec![
        need(&[on::SHUTDOWN, on::PREFLIGHT, on::MOVE, on::VERIFY], "VM.Audit", "whether it runs"),
        need(&[on::SHUTDOWN, on::VERIFY], "VM.PowerMgmt", "shutting it down and starting it"),
        need(&[on::SHUTDOWN, on::VERIFY], "VM.Config.Options", "whether it starts with its host"),
        need(&[on::FOLLOW], "VM.Config.HWType", "what it is given of its host's PCI"),
    ]
}

/// Of Proxmox, beside the VM itself.
fn passthrough(vmid: u32) -> Vec<PveNeed> {
    let need = |steps: &[&'static str], path: &str, privilege: &'static str, purpose: &str| PveNeed {
        steps: steps.to_vec(),
        path: path.to_owned(),
        privilege: Privilege::same(privilege),
        purpose: format!("{purpose} (vm {vmid})"),
        weight: Weight::Needed,
    };
    let mapping = need(&[on::FOLLOW], "/mapping/pci", "Mapping.Modify", "where on PCI its drives are");
    vec![
        need(&[on::PREFLIGHT, on::SHUTDOWN, on::FOLLOW], "/", "Sys.Audit", "what is on its host's PCI"),
        need(&[on::PREFLIGHT, on::MOVE], "/vms", "VM.Audit", "what the other guests of its host are given"),
        PveNeed { weight: Weight::If("its drives are passed through by a mapping".into()), ..mapping },
    ]
}

fn note(vm: &Vm) -> String {
    format!(
        "A hostpci line of vm {} with an address may be changed by a ticket of root@pam alone, by no token.",
        vm.vmid
    )
}

/// Of Kubernetes.
pub(super) fn kubernetes(machine: &Machine, measure: Option<&Measure>) -> Vec<KubeNeed> {
    let need = |steps: &[&'static str], right: Right, purpose: &str| KubeNeed {
        steps: steps.to_vec(),
        right,
        purpose: purpose.to_owned(),
        weight: Weight::Needed,
    };
    let node = |verb: &str| Right::new(verb, "", "nodes", "").named(&machine.node.name);
    let mut all = vec![
        need(
            &[on::DRAIN, on::PREFLIGHT, on::SHUTDOWN, on::UNCORDON, on::VALIDATE],
            node("get"),
            "the state of the node",
        ),
        need(&[on::DRAIN, on::UNCORDON], node("patch"), "the cordon"),
        need(&[on::DRAIN], Right::new("create", "", "pods/eviction", ""), "the drain"),
        KubeNeed {
            weight: Weight::Optional("the drain asks again and again instead of being told".into()),
            ..need(&[on::DRAIN], Right::new("watch", "", "pods", ""), "being told that a pod is gone")
        },
    ];
    for verb in ["create", "get", "delete"] {
        let pod = |of: &Measure| Right::new(verb, "", "pods", &of.namespace);
        let what = "the pod that measures";
        all.extend(measure.map(|of| need(&[on::MEASURE, on::MEASURE_AGAIN], pod(of), what)));
    }
    for (group, resource) in [
        ("", "nodes"),
        ("", "persistentvolumeclaims"),
        ("", "persistentvolumes"),
        ("", "pods"),
        ("apps", "daemonsets"),
        ("policy", "poddisruptionbudgets"),
    ] {
        let what = "what runs on a node, what its drives are for, and what a drain would do to it";
        all.push(need(
            &[on::DRAIN, on::PREFLIGHT, on::BACKUP, on::VALIDATE],
            Right::new("list", group, resource, ""),
            what,
        ));
    }
    let mayastor = |right: Right, purpose: &str| KubeNeed {
        weight: Weight::If("the cluster has Mayastor".into()),
        ..need(&[on::SHUTDOWN, on::PREFLIGHT, on::BACKUP, on::VOLUMES, on::VALIDATE], right, purpose)
    };
    let (pools, volumes) = ("what its pools are on", "where its volumes have their replicas");
    all.push(mayastor(Right::new("list", "openebs.io", "diskpools", ""), pools));
    all.push(mayastor(Right::new("list", "", "services", ""), volumes));
    all.push(mayastor(Right::new("get", "", "services/proxy", ""), volumes));
    merged(all)
}
