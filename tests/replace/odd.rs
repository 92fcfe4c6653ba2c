//! Old machines that are not as the others: one in a VM, and one that somebody has given up already.

use serde_json::json;

use super::*;

/// `qm set 223 --onboot 0`
fn stays(w: &mut World) {
    w.vms.get_mut(&223).unwrap().config.insert("onboot".into(), "0".into()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_gives_way_to_a_machine_and_is_shown_to_be_off() {
    let vm = Case { old: "talos-vm", ..MAC };
    let edit = |site: &mut Value| site["migrations"][vm.migration]["params"]["old"] = json!("talos-vm");
    let managed = |w: &mut World| {
        stays(w);
        drop(w.ha.insert(223, "started".into()));
    };
    let rig = rig_with(vm, managed, edit).await;
    let run = rig.forward(None, &vm.consenting()).await;
    let (key, text) = why(&run);
    assert!(key == "00-preflight" && text.contains("`ha-manager remove vm:223` first"), "{key}: {text}");

    let rig = rig_with(vm, stays, edit).await;
    let run = rig.forward(None, &vm.consenting()).await;
    assert_done(&run, "vm");
    assert!(notes(&run, "04-shutdown").contains("vm 223 does not run"), "{}", notes(&run, "04-shutdown"));
    assert!(rig.lab.shared().read(|w| w.vms[&223].running.is_none()));
    let names = ["talos-nuc", "talos-mac", "talos-mac2"].map(str::to_owned);
    assert_eq!(voters(&rig), BTreeSet::from(names));
    assert_safe(&rig, vm, "vm");
}

/// A number in the site file is no proof: a VM that is off, and is another one or none that can be seen, says nothing of
/// the machine that the node ran in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_of_the_wrong_number_does_not_show_that_the_old_machine_is_off() {
    let vm = Case { old: "talos-vm", dead: true, ..MAC };
    let mut how = vm.consenting();
    how.consents.retain(|thing| !thing.starts_with("off/"));
    let other = |w: &mut World| {
        let config = &mut w.vms.get_mut(&223).unwrap().config;
        config.insert("smbios1".into(), "uuid=7d0f4d6e-6a2b-4c35-9b77-0c5a3f4e0999".into()).unwrap();
    };
    // The same uuid, another one, and a number that Proxmox does not know.
    let (mut done, mut stopped) = (0, 0);
    for (uuid, number) in [(true, 223), (false, 223), (true, 9_223)] {
        let edit = |site: &mut Value| {
            site["migrations"][vm.migration]["params"]["old"] = json!("talos-vm");
            site["talos"]["homelab"]["nodes"]["talos-vm"]["vm"]["vmid"] = json!(number);
        };
        let rig = rig_with(
            vm,
            |w| {
                stays(w);
                if !uuid {
                    other(w)
                }
            },
            edit,
        )
        .await;
        let run = rig.forward(None, &how).await;
        if uuid && number == 223 {
            assert_done(&run, "its own");
            done += 1;
            continue;
        }
        let (key, text) = why(&run);
        assert!(key == "00-preflight" && text.contains("add `--destroy off/talos-vm`"), "{key}: {text}");
        assert_eq!((rig.changes(), voters(&rig).len()), (0, 3), "{number}");
        stopped += 1;
    }
    assert_eq!((done, stopped), (1, 2));
}

/// The taint that has the pods of a machine that is gone forgotten is none of the new machine's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taint_of_the_old_machine_goes_with_it() {
    let case = Case { dead: true, ..WORKER_IN_PLACE };
    let rig = rig(case).await;
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(rig.cluster().await);
    let key = "node.kubernetes.io/out-of-service";
    let mut node = nodes.get(case.old).await.unwrap();
    let taints = node.spec.as_mut().unwrap().taints.get_or_insert_default();
    taints.push(serde_json::from_value(json!({"key": key, "value": "nodeshutdown", "effect": "NoExecute"})).unwrap());
    nodes.replace(case.old, &Default::default(), &node).await.unwrap();
    let run = rig.forward(None, &case.consenting()).await;
    assert_done(&run, "taint");
    assert_replaced(&rig, case, "taint").await;
    let node = nodes.get(case.old).await.unwrap();
    let left = node.spec.unwrap().taints.unwrap_or_default();
    assert!(left.iter().all(|taint| taint.key != key), "{left:?}");
    assert!(run.records.iter().any(|r| format!("{:?}", r.event).contains("remove taint")));
}

/// Hands put the machine there that a run asks for, by the lab's command too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hands_put_another_machine_in_the_place() {
    let rig = rig(Case { dead: true, ..WORKER_IN_PLACE }).await;
    assert!(rig.lab.swap("talos-worker").unwrap().contains("in the place of talos-worker"));
    assert_eq!(rig.lab.swap("talos-worker2").unwrap(), "talos-worker2 is switched on");
    let waits = |w: &World| {
        let run = w.talos.nodes["talos-worker"].run.as_ref()?;
        run.maintenance.then(|| w.talos.nodes["talos-worker"].uuid.clone())
    };
    let uuid = rig.lab.shared().until(std::time::Duration::from_secs(300), waits).await;
    assert_eq!(uuid.as_deref(), Some("c0a1e7d2-61b4-4c3a-a0a5-94c691aa0032"));
    assert!(rig.lab.swap("nobody").unwrap_err().to_string().contains("there is no Talos node `nobody`"));
    assert!(rig.lab.swap("talos-vm").unwrap_err().to_string().contains("made anew in Proxmox"));
}
