//! What stops a replacement before anything is lost.

use pvemig::engine::event::Event;
use pvemig::engine::recorder::{Recorder, Wiring};
use pvemig::lab::{Class, FaultEffect, FaultRule, Front};
use serde_json::json;

use super::*;

const DEAD: Case = Case { dead: true, ..MAC };
const DEAD_WORKER: Case = Case { dead: true, ..WORKER };

/// Stops at this step with these words, and has changed nothing.
async fn stops(rig: &Rig, how: &How, at: &str, words: &[&str]) -> String {
    let (before, wiped) = (rig.changes(), rig.lab.shared().read(|w| w.talos.wiped.len()));
    let run = rig.forward(None, how).await;
    let (key, text) = why(&run);
    assert_eq!(key, at, "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!((rig.changes(), wiped), (before, 0), "{text}");
    text
}

/// The migration of a case in a world that something befell.
pub(super) async fn befallen(
    case: Case,
    what: &str,
    befell: impl FnOnce(&mut World),
    edit: impl FnOnce(&mut Value),
) -> Rig {
    let world = at_rest_after(WORLD, what, befell);
    Rig::of(world, |site| {
        site["migrations"].as_object_mut().unwrap().retain(|name, _| name == case.migration);
        edit(site);
    })
    .await
}

pub(super) fn params<'s>(site: &'s mut Value, case: &Case) -> &'s mut Value {
    &mut site["migrations"][case.migration]["params"]
}

/// The one of the two control planes beside the Mac that is no VM stays as it is.
pub(super) fn vm_is_a_worker(world: &mut World) {
    world.talos.etcd.members.retain(|member| member.name != "talos-vm");
    let config = &mut world.talos.nodes.get_mut("talos-vm").unwrap().config;
    *config = config.replace("type: controlplane", "type: worker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_cannot_be_spared_does_not_go() {
    // Of two, the living one: first another one is added.
    let rig = befallen(MAC, "two voters", vm_is_a_worker, |_| {}).await;
    let words = [
        "talos-mac must not leave etcd now",
        "2 voters, 2 healthy, 2 needed: none to spare; without talos-mac 1 voter, 1 healthy, 1 needed: none to spare",
        "add a control plane first, as a node of a `cluster-build`: with it etcd has 3 voters, 3 healthy, 2 needed",
    ];
    stops(&rig, &MAC.consenting(), "00-preflight", &words).await;
    // Of two, the dead one: there is no majority.
    let befell = |world: &mut World| {
        vm_is_a_worker(world);
        world.talos.lost.insert("talos-mac".into(), Loss::Dead);
    };
    let rig = befallen(DEAD, "two voters, one dead", befell, |_| {}).await;
    let text = stops(&rig, &DEAD.consenting(), "00-preflight", &["no leader"]).await;
    assert!(text.contains("quorum-recover"), "{text}");
    // Another one is dead too.
    let befell = |world: &mut World| {
        world.talos.lost.insert("talos-vm".into(), Loss::Dead);
    };
    let rig = befallen(MAC, "the vm is dead", befell, |_| {}).await;
    let words = [
        "3 voters, 2 healthy, 2 needed: none to spare; without talos-mac 2 voters, 1 healthy, 2 needed: no majority",
        "talos-vm has a vote in etcd and cannot be asked",
    ];
    stops(&rig, &MAC.consenting(), "00-preflight", &words).await;
    // Somebody is just joining.
    let befell = |world: &mut World| {
        let vm = world.talos.etcd.members.iter_mut().find(|member| member.name == "talos-vm").unwrap();
        (vm.learner, vm.lags) = (true, true);
    };
    let rig = befallen(MAC, "a learner", befell, |_| {}).await;
    stops(&rig, &MAC.consenting(), "00-preflight", &["member talos-vm of etcd is a learner"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_consent_is_asked_for_before_anything_is_changed() {
    for (case, kinds) in [(DEAD, 4), (DEAD_WORKER, 3), (MAC, 3), (MAC_IN_PLACE, 2), (WORKER, 2), (WORKER_IN_PLACE, 1)] {
        let (rig, all) = (rig(case).await, case.consents());
        assert_eq!(all.len(), kinds, "{case:?}");
        for missing in &all {
            let mut how = case.consenting();
            how.consents.retain(|thing| thing != missing);
            stops(&rig, &how, "00-preflight", &[&format!("add `--destroy {missing}`")]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_go_with_the_machine_is_said() {
    // Every kubelet points to it.
    let edit = |site: &mut Value| params(site, &MAC)["old"] = json!("talos-nuc");
    let rig = rig_with(MAC, |_| {}, edit).await;
    let mut how = MAC.consenting();
    how.consents.extend(["etcd/talos-nuc".to_owned(), "node/talos-nuc".to_owned()]);
    let words = ["endpoint is https://192.168.4.20:6443, which is talos-nuc itself", "give `new` that address too"];
    stops(&rig, &how, "00-preflight", &words).await;
    // Data on its disks, alive or dead.
    for case in [WORKER, DEAD_WORKER] {
        let rig = super::rig(case).await;
        local_volume(&rig).await;
        let words = ["volume local-1 (5Gi) is on the disks of talos-worker", "add `--destroy pv/local-1`"];
        stops(&rig, &case.consenting(), "00-preflight", &words).await;
        let mut how = case.consenting();
        how.consents.push("pv/local-1".into());
        let run = rig.forward(None, &how).await;
        assert_done(&run, "by consent");
        let told = notes(&run, "00-preflight");
        for part in ["by your consent", "rack=left", if case.dead { "is silent" } else { "is alive" }] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}

/// A volume on the worker's own disks.
pub(super) async fn local_volume(rig: &Rig) {
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "local-1" },
        "spec": {
            "capacity": { "storage": "5Gi" }, "accessModes": ["ReadWriteOnce"], "local": { "path": "/var/mnt/data" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "kubernetes.io/hostname", "operator": "In", "values": ["talos-worker"] }] }] } },
        },
    });
    let volumes: kube::Api<k8s_openapi::api::core::v1::PersistentVolume> = kube::Api::all(rig.cluster().await);
    volumes.create(&Default::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
}

/// A machine that is cut off is silent like one that is off: by silence alone nothing of it is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_alone_takes_neither_a_member_nor_a_node() {
    for case in [DEAD, DEAD_WORKER] {
        let rig = rig(case).await;
        let mut how = case.consenting();
        how.consents.retain(|thing| !thing.starts_with("off/"));
        let off = format!("add `--destroy off/{}`", case.old);
        let words = ["is silent", "A machine that is only cut off looks the same, and runs on", &off];
        stops(&rig, &how, "00-preflight", &words).await;
        // Each of the steps that take something asks for itself.
        let consents = how.consents.iter().cloned().map(pvemig::base::permit::Thing).collect();
        let info = pvemig::engine::step::RunInfo { consents, ..Default::default() };
        let mut refused = 0;
        for step in &rig.steps {
            if !["03-leave-or-remove", "04-shutdown", "08-node-object"].contains(&step.id()) {
                continue;
            }
            let held = Default::default();
            let seen = pvemig::engine::step::Seen { since: None, got: &[], held: &held, run: &info };
            let said = format!("{:?}", step.check(&rig.estate, seen).await.unwrap().answer);
            let shut = said.contains("Blocked") && said.contains(&off);
            assert!(shut || case.worker && step.id() == "03-leave-or-remove", "{}: {said}", step.id());
            refused += usize::from(shut);
        }
        assert_eq!(refused, if case.worker { 2 } else { 3 });
    }
}

/// What comes must not be what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_or_its_disk_is_not_what_comes() {
    let nuc_disk = at_rest_after(WORLD, "", |_| {}).talos.nodes["talos-nuc"]
        .disks
        .iter()
        .find(|disk| disk.system)
        .map(|disk| disk.serial.clone())
        .unwrap();
    let edit = |site: &mut Value| {
        params(site, &MAC)["new"]["node"] = json!("talos-nuc");
        params(site, &MAC)["new"]["disk"] = json!(nuc_disk);
        params(site, &MAC)["new"].as_object_mut().unwrap().remove("patches");
    };
    let rig = rig_with(MAC, |_| {}, edit).await;
    let mut how = MAC.consenting();
    how.consents.push(format!("disk/{nuc_disk}"));
    let words = [
        "talos-nuc is a voter of homelab already: with talos-mac gone 2 are left",
        "the machine configuration of talos-nuc is not what",
    ];
    stops(&rig, &how, "00-preflight", &words).await;
    // The disk of the one that goes, which goes with it.
    let mac_disk = rig.lab.shared().read(|w| {
        w.talos.nodes["talos-mac"].disks.iter().find(|disk| disk.system).map(|disk| disk.serial.clone()).unwrap()
    });
    let rig = rig_with(MAC, |_| {}, |site| params(site, &MAC)["new"]["disk"] = json!(mac_disk)).await;
    how.consents.push(format!("disk/{mac_disk}"));
    stops(&rig, &how, "00-preflight", &[&format!("{mac_disk} is a disk of talos-mac")]).await;
}

/// What would be found with the member gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_cannot_be_right_are_found_in_the_file() {
    let rig = rig(MAC).await;
    let file = rig.dir().join("site.yaml");
    let mut site: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let mut built = |patch: Value| {
        params(&mut site, &MAC)["new"]["patches"] = json!([patch]);
        std::fs::write(&file, serde_saphyr::to_string(&site).unwrap()).unwrap();
        let site = pvemig::site::Site::load(&file).unwrap();
        let built = pvemig::blueprint::named("node-replace").unwrap().build(&site, MAC.migration);
        built.map(|steps| steps.len()).map_err(|error| format!("{error:?}"))
    };
    let addresses = |text: &str| json!({ "addresses": { "link": "eth0", "addresses": [text] } });
    let nuc = rig.lab.shared().read(|w| w.talos.nodes["talos-nuc"].ip.to_string());
    let mac = rig.lab.shared().read(|w| w.talos.nodes["talos-mac"].ip.to_string());
    let sysctl = |name: &str| json!({ "sysctl": { "name": name, "value": "1" } });
    let bad = [
        (addresses(&format!("{nuc}/24")), "is the address of node talos-nuc"),
        (addresses("192.168.4.250"), "is no address with the length of its prefix"),
        (addresses("192.168.4.250/33"), "is no address with the length of its prefix"),
        (sysctl("vm.nr_hugepage s"), "is no name of a kernel parameter"),
    ];
    for (patch, words) in bad {
        let error = built(patch).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
    // The old one's may be taken over.
    for good in [addresses("192.168.4.250/24"), addresses(&format!("{mac}/24")), sysctl("vm.nr_hugepages")] {
        assert_eq!(built(good), Ok(11));
    }
}

/// Who turns round while a person is asked for gets everything back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_the_machine_is_undone() {
    let rig = rig(WORKER_IN_PLACE).await;
    let mut how = WORKER_IN_PLACE.consenting();
    how.no_hands = true;
    let run = rig.forward(None, &how).await;
    assert_eq!(why(&run).0, "05-swap");
    let undo = rig.backward(&run.id, &How::default()).await;
    assert!(matches!(undo.ended, Ok(Ended::Undone)), "{:#?}", undo.ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_not_the_one_is_not_taken() {
    // It waits, and has another disk.
    let on = |world: &mut World| assert!(world.press_power("talos-mac2"));
    let rig = rig_with(DEAD, on, |site| params(site, &DEAD)["new"]["disk"] = json!("S0NOT0HERE")).await;
    rig.picture().await;
    let mut how = DEAD.consenting();
    how.consents.push("disk/S0NOT0HERE".into());
    stops(&rig, &how, "00-preflight", &["no disk with the serial number S0NOT0HERE", DEAD.disk]).await;
    // A worker's configuration for a control plane.
    let rig = rig_with(DEAD, |_| {}, |site| params(site, &DEAD)["new"]["config"] = json!("./worker.yaml")).await;
    let words = ["talos-mac is a control plane, and the configuration of talos-mac2 is that of a worker"];
    stops(&rig, &DEAD.consenting(), "00-preflight", &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_answer_is_not_called_dead_for_that() {
    let mut world = at_rest_after(WORLD, "", |_| {});
    let mac = world.talos.nodes.get_mut("talos-mac").unwrap();
    (mac.run, mac.off) = (None, true);
    let rig = Rig::at(1, world, |site| {
        site["migrations"].as_object_mut().unwrap().retain(|name, _| name == MAC.migration);
    })
    .await;
    let words =
        ["whether talos-mac is alive is not known", "its kubelet was heard lately", "switch it off", "your word"];
    stops(&rig, &MAC.consenting(), "00-preflight", &words).await;
}

/// Somebody else answers at its address, and it runs on at another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_at_its_address_is_no_sign_of_its_end() {
    let stranger = |world: &mut World| {
        let run = world.talos.nodes.get_mut("talos-mac").unwrap().run.as_mut().unwrap();
        // The certificate of another authority.
        run.wants.authority = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0teA==".into();
    };
    let rig = rig_with(MAC, stranger, |_| {}).await;
    let words = ["whether talos-mac is alive is not known", "its kubelet was heard lately"];
    stops(&rig, &MAC.consenting(), "00-preflight", &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_back_keeps_its_member() {
    let rig = rig(DEAD).await;
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse).class(Class::Change).times(1));
    let failed = rig.forward(None, &DEAD.consenting()).await;
    assert_eq!(why(&failed).0, "03-leave-or-remove");
    rig.lab.shared().clear_faults();
    assert!(rig.lab.shared().change(|w| w.press_power("talos-mac")));
    let up = |w: &World| w.etcd_of("talos-mac").is_some().then_some(());
    rig.lab.shared().until(std::time::Duration::from_secs(900), up).await.unwrap();
    let again = rig.forward(Some(&failed.id), &How::default()).await;
    let (key, text) = why(&again);
    assert!(
        key == "03-leave-or-remove" && text.contains("was dead when this step began, and answers again"),
        "{key}: {text}"
    );
    assert_eq!(voters(&rig).len(), 3);
    assert_safe(&rig, DEAD, "it came back");
}

/// A member goes only with a snapshot behind it: this run's own is looked at as another one's is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_the_run_that_is_not_whole_does_not_count() {
    let rig = rig(DEAD).await;
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse).class(Class::Change).times(1));
    let failed = rig.forward(None, &DEAD.consenting()).await;
    assert_eq!(why(&failed).0, "03-leave-or-remove");
    rig.lab.shared().clear_faults();
    let files = rig.bench.store.info(&failed.id, "here").unwrap().files.unwrap();
    let (path, before) = (files.join("01-snapshot").join("etcd.db"), rig.changes());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let (key, text) = {
        let again = rig.forward(Some(&failed.id), &How::default()).await;
        let (key, text) = why(&again);
        (key.to_owned(), text)
    };
    assert!(key == "03-leave-or-remove" && text.contains("etcd.db, does not count: "), "{key}: {text}");
    assert!(text.contains("`pvemig abandon` this run"), "{text}");
    assert_eq!((rig.changes(), voters(&rig).len()), (before, 3));
    let (recorder, _) = Recorder::reopen(rig.bench.store.run(&failed.id).unwrap(), &Wiring::default()).unwrap();
    recorder.write(Event::Abandoned { comment: "its snapshot is not whole".into() }).unwrap();
    drop(recorder);
    let another = rig.forward(None, &DEAD.consenting()).await;
    assert_done(&another, "another run");
    let told = notes(&another, "03-leave-or-remove");
    assert!(told.contains("the snapshot of this run, of "), "{told}");
}
