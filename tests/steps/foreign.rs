//! What others have done meanwhile: entries, locks, sockets, routes, tasks.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_passes_to_the_vm_is_left_alone() {
    for (attach, slots) in [("port", 2), ("id", 2)] {
        let bench = Bench::attached(attach).await;
        let run = bench.forward(None).await;
        done(&run);
        assert_eq!(bench.usb().len(), slots, "{attach}: {:?}", bench.usb());
        bench.rig.lab.shared().change(|world| {
            world.vms.get_mut(&108).unwrap().config.insert("usb5".into(), "host=1-5".into());
        });
        undone(&bench.rig.backward(&run.id, &How::default()).await);
        assert_eq!(bench.usb(), [("usb5".to_owned(), "host=1-5".to_owned())], "{attach}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_somebody_else_took_blocks_the_undo_until_it_is_free() {
    let bench = Bench::attached("id").await;
    let run = bench.forward(None).await;
    done(&run);
    let slot = bench.usb()[0].0.clone();
    bench.rig.lab.shared().change(|world| {
        world.vms.get_mut(&108).unwrap().config.insert(slot.clone(), "host=1-5".into());
    });
    let text = blocked(&bench.rig.backward(&run.id, &How::default()).await);
    assert!(["was `free`", "this run set `host=", "now it is `host=1-5`"].iter().all(|p| text.contains(p)), "{text}");
    bench.rig.lab.shared().change(|world| {
        world.vms.get_mut(&108).unwrap().config.remove(&slot);
    });
    undone(&bench.rig.backward(&run.id, &How::default()).await);
    assert!(bench.usb().is_empty(), "{:?}", bench.usb());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_were_added_to_a_mapping_stay() {
    for others in [Vec::new(), vec!["node=pve,id=0001:0002,path=1-2".to_owned()]] {
        let bench = Bench::attached("mapping").await;
        let run = bench.forward(None).await;
        done(&run);
        let entries = || bench.rig.lab.shared().read(|w| w.mappings.get("coral").map(|m| m.map.clone()));
        assert_eq!(entries().map(|map| map.len()), Some(1));
        bench.rig.lab.shared().change(|world| {
            world.mappings.get_mut("coral").unwrap().map.extend(others.clone());
        });
        undone(&bench.rig.backward(&run.id, &How::default()).await);
        assert_eq!(entries(), (!others.is_empty()).then_some(others));
        assert!(bench.usb().is_empty(), "{:?}", bench.usb());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_does_not_matter_where_there_is_nothing_to_reboot_for() {
    let bench = Bench::new("usb-move", &["05-reboot-vm"]).await;
    bench.rig.lab.shared().change(|world| world.vms.get_mut(&108).unwrap().lock = Some("backup".into()));
    let run = bench.forward(None).await;
    done(&run);
    assert_eq!(answers(&run, "05-reboot-vm").last().map(String::as_str), Some("already"));
    assert_eq!(bench.changes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_cannot_be_seen_is_not_back() {
    let bench = Bench::new("usb-move", USB).await;
    let run = bench.forward(None).await;
    done(&run);
    bench.rig.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Refuse).path("*/hardware/usb"));
    bench.rig.lab.fault(FaultRule::on(Front::Ssh, FaultEffect::Refuse));
    let back = bench.rig.backward(&run.id, &How::default()).await;
    assert_eq!(stop(&back).key.as_str(), "03-check-host-hardware");
    assert!(blocked(&back).contains("cannot be seen"), "{}", blocked(&back));
    bench.rig.lab.shared().clear_faults();
    undone(&bench.rig.backward(&run.id, &How::default()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_cannot_be_opened_keeps_no_other_one_from_being_tried() {
    let bench = Bench::new("usb-move", USB).await;
    std::fs::remove_file(bench.rig.dir().join("pve-password")).unwrap();
    let guest = bench.rig.estate.guest(TARGET).await.unwrap();
    assert!(guest.boot_id().await.unwrap().route.starts_with("ssh "));
    bench.rig.lab.fault(FaultRule::on(Front::Ssh, FaultEffect::Refuse));
    let error = guest.boot_id().await.unwrap_err().to_string();
    let reason = "its secret cannot be read";
    assert_eq!((error.matches(reason).count(), error.lines().count()), (2, 4), "{error}");
    assert!(error.contains("\n  agent: ") && error.contains("\n  host-ssh: "), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_of_a_vm_is_looked_up_when_that_way_is_gone() {
    use crate::harness::estate::at_rest;
    use pvemig::base::permit::Notebook;
    use pvemig::guest::Command;
    let edit = |site: &mut Value| site["nodes"][TARGET]["access"] = json!(["ssh", "host-ssh"]);
    let rig = Rig::of(at_rest("usb-move"), edit).await;
    let shared = rig.lab.shared().clone();
    let lists = || shared.log.seen().iter().filter(|seen| seen.line.contains("/cluster/resources")).count();
    let port = |host: &str| format!(":{}, qm guest exec 108", rig.lab.reach().ssh.hosts[host]);
    let guest = rig.estate.guest(TARGET).await.unwrap();
    let id = guest.boot_id().await.unwrap();
    assert!(id.route.starts_with("ssh ") && !id.route.contains("qm"), "{}", id.route);
    assert_eq!(lists(), 0, "nobody has to know where the VM is");
    shared.change(|world| world.vms.get_mut(&108).unwrap().guest.ssh = pvemig::lab::world::SshManner::Refuses);
    for _ in 0..2 {
        let seen = guest.boot_id().await.unwrap();
        assert!(seen.route.ends_with(&port("still-fawn")) && seen.value == id.value, "{}", seen.route);
    }
    assert_eq!(lists(), 1);
    // It moves, and the same guest is found.
    shared.change(|world| world.vms.get_mut(&108).unwrap().node = "pumped-piglet".into());
    let seen = guest.boot_id().await.unwrap();
    assert!(seen.route.ends_with(&port("pumped-piglet")), "{}", seen.route);
    assert_eq!(lists(), 2);
    // A command too: where it could not be run is no place where it was lost.
    shared.change(|world| world.vms.get_mut(&108).unwrap().node = "still-fawn".into());
    let (permit, notebook) = Notebook::permit();
    let command = Command { argv: vec!["true".into()], repeatable: false, limit: std::time::Duration::from_secs(60) };
    let ran = guest.run(&command, &permit).await.unwrap();
    assert!(ran.route.ends_with(&port("still-fawn")), "{}", ran.route);
    assert_eq!((lists(), notebook.notes().len()), (3, 1));
    // An API that is down does not close the way to where the VM was seen last, for those who come later either.
    rig.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Refuse));
    let seen = rig.estate.guest(TARGET).await.unwrap().boot_id().await.unwrap();
    assert!(seen.route.ends_with(&port("still-fawn")), "{}", seen.route);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_pve_task_is_over_only_where_its_node_says_so() {
    use pvemig::base::settle::{Lost, Settle, Settled};
    let bench = Bench::new("usb-move", &["01-remove-usb"]).await;
    let run = bench.forward(None).await;
    done(&run);
    let got = run.records.iter().find_map(|r| match &r.event {
        Event::Got { handle, .. } if handle.kind == "upid" => Some(handle.clone()),
        _ => None,
    });
    let call = run.records.iter().find_map(|r| match &r.event {
        Event::Call { note, .. } if note.task.is_some() => Some((note.clone(), r.at)),
        _ => None,
    });
    let (note, at) = call.unwrap();
    let ask = async |handle| bench.rig.estate.settle(&Lost { note: note.clone(), handle, at }).await;
    assert!(matches!(ask(got.clone()).await.unwrap(), Settled::Over(how) if how.contains("ended well")));
    let mut unknown = got.clone().unwrap();
    unknown.value = unknown.value.replacen(":qm", ":vz", 1);
    assert!(matches!(ask(Some(unknown)).await.unwrap(), Settled::Over(_)));
    for rule in ["*/status", "*/tasks"] {
        bench.rig.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Refuse).path(rule));
        let handle = got.clone().filter(|_| rule == "*/status");
        let refused = ask(handle).await;
        assert!(refused.is_err(), "{rule}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_of_the_hold_is_over_only_where_the_workload_is_as_the_branch_says() {
    let mut rig = Rig::new("usb-move").await;
    rig.steps.retain(|step| step.id() == "00b-suspend-gitops");
    let run = rig.forward(None, &How::default()).await;
    done(&run);
    undone(&rig.backward(&run.id, &How::default()).await);

    let change = json!({"spec": {"template": {"spec": {"nodeSelector": {"coral": "elsewhere"}}}}});
    by_hand(&rig, "PATCH", "/apis/apps/v1/namespaces/frigate/deployments/frigate", change).await;
    let reason = waits(&rig, &run.id).await;
    assert!(reason.contains("Deployment/frigate/frigate: `spec.template.spec.nodeSelector` is"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_of_the_hold_is_over_only_where_the_pods_run_again() {
    let mut rig = Rig::new("usb-move").await;
    rig.steps.retain(|step| step.id() == "00b-suspend-gitops");
    let run = rig.forward(None, &How::default()).await;
    done(&run);
    undone(&rig.backward(&run.id, &How::default()).await);
    by_hand(&rig, "PATCH", &format!("/api/v1/nodes/{SOURCE}"), json!({"spec": {"unschedulable": true}})).await;
    let pods = by_hand(&rig, "GET", "/api/v1/namespaces/frigate/pods", json!({})).await;
    let name = pods["items"][0]["metadata"]["name"].as_str().unwrap();
    by_hand(&rig, "DELETE", &format!("/api/v1/namespaces/frigate/pods/{name}"), json!({})).await;
    let pending = |world: &pvemig::lab::World| {
        let picture = world.compared();
        let pods = picture["kubernetes"]["pods"].as_object()?;
        pods.keys().any(|pod| pod.contains("frigate") && !pod.ends_with(" ready")).then_some(())
    };
    assert!(rig.lab.shared().until(std::time::Duration::from_secs(900), pending).await.is_some());
    let reason = waits(&rig, &run.id).await;
    assert!(reason.contains("Deployment frigate/frigate has 0 of 1 pods Ready; pod frigate-"), "{reason}");
}

/// What the undo of the first step, asked now, waits for.
async fn waits(rig: &Rig, id: &str) -> String {
    let step = &rig.steps[0];
    let state = rig.bench.read(id).state;
    let before = state.steps[&step.key()].before.clone().unwrap();
    let info = rig.bench.store.info(id, "here").unwrap();
    let held = std::collections::BTreeMap::new();
    let seen = Seen { since: None, got: &[], held: &held, run: &info };
    let check = step.back(&rig.estate, &before, seen).await.unwrap();
    let Answer::Waiting { reason, .. } = check.answer else { panic!("{check:#?}") };
    reason
}

async fn by_hand(rig: &Rig, method: &str, path: &str, body: Value) -> Value {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    rig.cluster().await.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_somebody_elses_open_run_are_left_alone() {
    let mut rig = Rig::new("usb-move").await;
    rig.steps.retain(|step| step.id() == "11-recreate-pvcs");
    let mark = Mark { run: "xyz".into(), host: "elsewhere".into(), was: json!({"replicas": 1}) }.to_annotation();
    let change = json!({"metadata": {"annotations": {(MARK): mark}}});
    by_hand(&rig, "PATCH", "/apis/apps/v1/namespaces/frigate/deployments/frigate", change).await;
    let run = rig.forward(None, &How::default()).await;
    let text = blocked(&run);
    let held = "Deployment frigate/frigate is held by run xyz on elsewhere, which this state directory does not know";
    assert!(text.contains(held), "{text}");
    assert_eq!(calls(&run.records), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_comes_back_with_the_next_power_cycle_says_so() {
    let bench = Bench::new("usb-move", USB).await;
    let run = bench.forward(None).await;
    done(&run);
    bench.rig.lab.shared().change(|world| {
        world.vms.get_mut(&105).unwrap().running.as_mut().unwrap().machine = "pc-q35-6.2".into();
    });
    let back = bench.rig.backward(&run.id, &How::default()).await;
    undone(&back);
    let pending = bench.rig.lab.shared().read(|world| world.vms[&105].pending.keys().cloned().collect::<Vec<_>>());
    assert_eq!(pending, ["usb0", "usb1"]);
    let notes = notes(&back, "01-remove-usb");
    for slot in pending {
        assert!(
            notes.contains(&format!("{slot} is back in the config and stays pending until vm 105's next")),
            "{notes}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_goes_back_whatever_holds_the_vm() {
    let bench = Bench::attached("mapping").await;
    let run = bench.forward(None).await;
    done(&run);
    let slot = bench.usb()[0].0.clone();
    bench.rig.lab.shared().change(|world| {
        let target = world.vms.get_mut(&108).unwrap();
        target.config.remove(&slot);
        target.lock = Some("backup".into());
    });
    undone(&bench.rig.backward(&run.id, &How::default()).await);
    assert!(bench.rig.lab.shared().read(|world| !world.mappings.contains_key("coral")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_file_that_is_another_one_is_refused_and_one_that_is_missing_is_said() {
    let mut rig = Rig::new("usb-move").await;
    let keep = ["00a-retain-volumes", "00b-suspend-gitops", "00d-scale-down", "11-recreate-pvcs"];
    rig.steps.retain(|step| keep.contains(&step.id()));
    let run = rig.forward(None, &How::default()).await;
    done(&run);
    let files = rig.bench.store.dir().join("runs").join(&run.id).join("files/11-recreate-pvcs");
    let file = files.join("frigate-config.json");
    assert!(file.is_file());
    std::fs::write(&file, "{}").unwrap();
    let back = rig.backward(&run.id, &How::default()).await;
    let why = format!("{:?}", stop(&back).why);
    assert!(why.contains("frigate-config.json") && why.contains("not what the journal has the digest of"), "{why}");
    std::fs::remove_file(&file).unwrap();
    let back = rig.backward(&run.id, &How::default()).await;
    undone(&back);
    let said = notes(&back, "11-recreate-pvcs");
    assert!(said.contains("frigate-config: its run file frigate-config.json is missing, so it comes back"), "{said}");
}
