//! What a `quorum-recover` has to be allowed.

use crate::blueprint::rights::{KubeNeed, Privilege, PveNeed, Rights, TalosNeed, TalosRights, Weight};
use crate::k8s::access::Right;

use super::{Planes, on};

/// The one role that may read etcd's file, reset and bootstrap.
pub(super) const ROLE: &str = "os:admin";

/// All that the migration needs, by its site file.
pub(super) fn of(planes: &Planes) -> Rights {
    let vms: Vec<_> = planes.lost.iter().filter_map(|machine| machine.vm.as_ref()).collect();
    let audit = |vmid: u32| PveNeed {
        steps: vec![on::PREFLIGHT, on::WIPE, on::RECOVER],
        path: format!("/vms/{vmid}"),
        privilege: Privilege::same("VM.Audit"),
        purpose: format!("whether vm {vmid} could come back"),
        weight: Weight::Needed,
    };
    let talos = |steps: &[&'static str], role: &'static str, purpose: &str| TalosNeed {
        steps: steps.to_vec(),
        role,
        purpose: purpose.to_owned(),
    };
    let list = |steps: &[&'static str], resource: &str, purpose: &str| KubeNeed {
        steps: steps.to_vec(),
        right: Right::new("list", "", resource, ""),
        purpose: purpose.to_owned(),
        weight: Weight::Needed,
    };
    Rights {
        proxmox: vms.first().map(|vm| vm.cluster.clone()),
        pve: vms.iter().map(|vm| audit(vm.vmid)).collect(),
        pve_notes: Vec::new(),
        kubernetes: planes.from.node.cluster.clone(),
        namespace: "kube-system".into(),
        kube: vec![
            list(
                &[on::PREFLIGHT, on::WIPE, on::RECOVER, on::VERIFY],
                "nodes",
                "that no etcd with a majority lives elsewhere, and that the objects are there again",
            ),
            list(&[on::RECOVER], "persistentvolumeclaims", "that the objects are there again"),
            list(&[on::RECOVER], "persistentvolumes", "that the objects are there again"),
        ],
        kube_notes: vec![
            "Without a majority the API takes no account and no token, and one that is made later is not in the copy: have this \
             applied before the loss, or name the kubeconfig of an administrator in the site file."
                .into(),
        ],
        talos: Some(TalosRights {
            cluster: planes.cluster.clone(),
            role: ROLE,
            needs: vec![
                talos(&[on::PREFLIGHT, on::JOIN, on::VERIFY], "os:reader", "members, directories and volumes"),
                talos(&[on::SAVE], ROLE, "reading the file of a member that gives no snapshot"),
                talos(&[on::WIPE], ROLE, "resetting the volume that etcd is on"),
                talos(&[on::RECOVER], ROLE, "beginning etcd from a copy"),
            ],
        }),
    }
}
