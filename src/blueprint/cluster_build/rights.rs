//! What a `cluster-build` has to be allowed.
//!
//! Which role of Talos a call takes is in its access rules (siderolabs/talos `internal/app/machined`); a machine that waits
//! asks nobody for a role.

use crate::blueprint::rights::{KubeNeed, Privilege, PveNeed, Rights, TalosNeed, TalosRights, Weight};
use crate::k8s::access::Right;

use super::on;
use super::params::Params;

/// The one role that may bootstrap, and read machine configurations.
pub(super) const ROLE: &str = "os:admin";

/// All that the migration needs, by its site file.
pub(super) fn of(p: &Params) -> Rights {
    let vms: Vec<_> = p.machines.iter().filter_map(|bare| bare.machine.vm.as_ref()).collect();
    let audit = |vmid: u32| PveNeed {
        steps: vec![on::APPLY, on::PREFLIGHT],
        path: format!("/vms/{vmid}"),
        privilege: Privilege::same("VM.Audit"),
        purpose: format!("that the machine that waits is vm {vmid}"),
        weight: Weight::Needed,
    };
    let talos = |steps: &[&'static str], role: &'static str, purpose: &str| TalosNeed {
        steps: steps.to_vec(),
        role,
        purpose: purpose.to_owned(),
    };
    Rights {
        proxmox: vms.first().map(|vm| vm.cluster.clone()),
        pve: vms.iter().map(|vm| audit(vm.vmid)).collect(),
        pve_notes: Vec::new(),
        kubernetes: p.first().map(|bare| bare.machine.node.cluster.clone()).unwrap_or_default(),
        namespace: "kube-system".into(),
        kube: vec![
            KubeNeed {
                steps: vec![on::VERIFY],
                right: Right::new("get", "", "nodes", ""),
                purpose: "the state of the nodes".into(),
                weight: Weight::Needed,
            },
            KubeNeed {
                steps: vec![on::PREFLIGHT, on::APPLY, on::BOOTSTRAP],
                right: Right::new("list", "", "nodes", ""),
                purpose: "that no cluster lives of which the site file names nobody".into(),
                weight: Weight::Needed,
            },
        ],
        kube_notes: vec!["There is nothing to ask of Kubernetes before there is a cluster.".into()],
        talos: Some(TalosRights {
            cluster: p.cluster.clone(),
            role: ROLE,
            needs: vec![
                talos(&[on::DISKS, on::INSTALLED, on::VERIFY], "os:reader", "disks, stage and services"),
                talos(&[on::APPLY, on::KEEP], ROLE, "reading the machine configuration of a node that has one"),
                talos(&[on::BOOTSTRAP], ROLE, "beginning etcd"),
                talos(&[on::KUBECONFIG], ROLE, "a kubeconfig with an administrator's certificate"),
                talos(&[on::JOIN, on::VERIFY], "os:reader", "members, state and alarms of etcd"),
            ],
        }),
    }
}
