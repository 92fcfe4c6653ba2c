//! Each right by itself: what a later step would be refused for is told beforehand, and nothing else is.

use std::sync::{Arc, Mutex};

use pvemig::base::clock::Clock;
use pvemig::estate::Estate;
use pvemig::lab::{FaultEffect, FaultRule, Front};
use pvemig::site::Site;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::{Bench, Expected, assert_found, assert_noted, problems_of};
use crate::harness::estate::SPEED;

/// Stands before the lab's cluster, in which everybody may do everything, and denies what a test wants: `get configmaps`.
struct Gate {
    client: kube::Client,
    handle: Handle,
    denied: Arc<Mutex<Vec<&'static str>>>,
}

impl Respond for Gate {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        if request.url.path().ends_with("/selfsubjectaccessreviews") {
            let mut review: Value = request.body_json().unwrap();
            let asked = |key: &str| review["spec"]["resourceAttributes"][key].as_str().unwrap_or_default().to_owned();
            let (resource, part) = (asked("resource"), asked("subresource"));
            let whole = if part.is_empty() { resource } else { format!("{resource}/{part}") };
            let right = format!("{} {whole}", asked("verb"));
            let denied = self.denied.lock().unwrap();
            // Who is denied anything may not do everything.
            let all = right == "* *" && !denied.is_empty();
            review["status"] = json!({"allowed": !all && !denied.contains(&right.as_str())});
            return ResponseTemplate::new(201).set_body_json(review);
        }
        assert_eq!(request.method.as_str(), "GET", "{} is no question", request.url);
        let query = request.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri = format!("{}{query}", request.url.path());
        let passed = async {
            let asked = http::Request::get(uri).body(kube::client::Body::empty()).unwrap();
            let answer = self.client.send(asked).await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.into_body().collect_bytes().await.unwrap())
        };
        let (status, body) = std::thread::scope(|scope| scope.spawn(|| self.handle.block_on(passed)).join().unwrap());
        ResponseTemplate::new(status).set_body_raw(body.to_vec(), "application/json")
    }
}

/// A problem of the kubeconfig's rights.
fn role(step: &'static str, lacking: &'static str) -> Expected<'static> {
    (step, lacking, "give its user a role with these verbs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_in_kubernetes_is_asked_for() {
    let mut bench = Bench::new("usb-move").await;
    let denied = Arc::new(Mutex::new(Vec::new()));
    let gate = Gate { client: bench.client.clone(), handle: Handle::current(), denied: denied.clone() };
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(gate).mount(&server).await;
    let kubeconfig = bench.rig.dir().join("kubeconfig");
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let lab = text.lines().find_map(|line| line.trim().strip_prefix("server: ")).unwrap();
    std::fs::write(&kubeconfig, text.replace(lab, &server.uri())).unwrap();

    // Which API an edited object is of its file says, and the cluster where that is.
    bench.declare(|fields| {
        let service = json!({"file": "apps/frigate/service.yaml", "object": "Service/frigate/frigate",
            "set": [["spec.type", "ClusterIP"]]});
        fields["edits"].as_array_mut().unwrap().push(service);
    });
    bench.rig.lab.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Refuse).path("/api/v1"));
    let service = "cannot ask Kubernetes cluster k3s whether Service/frigate/frigate may be read: ";
    assert_found(&bench.problems().await, &[("10", service, "")]);
    bench.rig.lab.shared().clear_faults();
    assert_found(&bench.problems().await, &[]);
    let claims = "may not get persistentvolumeclaims in frigate";
    let table: &[(&[&'static str], &[Expected<'_>])] = &[
        (&["get configmaps"], &[role("10", "k3s may not get configmaps in frigate")]),
        (&["get persistentvolumeclaims"], &[role("00a", claims)]),
        (&["get services"], &[role("10", "k3s may not get services frigate in frigate")]),
        (
            &["patch persistentvolumes"],
            &[role("00a", "k3s may not patch persistentvolumes"), role("11", "k3s may not patch persistentvolumes")],
        ),
        (
            &["get deployments"],
            &[role("00d", "get deployments.apps frigate in frigate"), role("10", "get deployments.apps frigate")],
        ),
        (
            &["patch nodes"],
            &[
                role("02", "k3s may not patch nodes k3s-vm-pumped-piglet"),
                role("04-", "k3s may not patch nodes k3s-vm-still-fawn"),
                role("09", "k3s may not patch nodes k3s-vm-still-fawn"),
            ],
        ),
        (&["create pods/eviction"], &[role("04-", "k3s may not create pods/eviction")]),
        (
            &["create persistentvolumeclaims", "delete persistentvolumeclaims"],
            &[role(
                "11",
                "k3s may not create persistentvolumeclaims in frigate; delete persistentvolumeclaims frigate-config in",
            )],
        ),
        (&["create pods/exec"], &[role("10", "k3s may not create pods/exec in frigate")]),
        (&["fly kites"], &[]),
    ];
    for (rights, expected) in table {
        *denied.lock().unwrap() = rights.to_vec();
        assert_found(&bench.problems().await, expected);
    }
    assert_eq!(table.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_privilege_in_proxmox_is_asked_for() {
    let mut bench = Bench::new("usb-move-token").await;
    let shared = bench.rig.lab.shared().clone();
    let roles = shared.read(|world| world.access.roles.clone());
    let lacks = "pvemig@pve!pvemig lacks ";
    let without = |privilege: &str| {
        shared.change(|world| {
            world.access.roles.clone_from(&roles);
            let had = world.access.roles.values_mut().filter_map(|role| role.remove(privilege).then_some(())).count();
            assert!(had > 0, "nobody has {privilege}");
        });
    };
    let table: &[(&str, &[Expected<'_>])] = &[
        ("VM.PowerMgmt", &[("04-", "lacks VM.PowerMgmt on /vms/108, for the power cycle of vm 108", "give it a role")]),
        (
            "VM.Config.HWType",
            &[
                ("01", "lacks VM.Config.HWType on /vms/105, for taking the device from vm 105", "VM.Config.HWType on"),
                ("04", "lacks VM.Config.HWType on /vms/108, for passing the device to vm 108", "VM.Config.HWType on"),
            ],
        ),
        (
            "Mapping.Use",
            &[
                ("01", "lacks Mapping.Use on /mapping/usb/coral, for taking mapping coral from vm 105", "Mapping.Use"),
                ("04", "lacks Mapping.Use on /mapping/usb/coral, for passing mapping coral to vm 108", "Mapping.Use"),
            ],
        ),
        (
            "Mapping.Modify",
            &[(
                "04",
                "lacks Mapping.Modify on /mapping/usb/coral, for writing mapping coral for the host of vm 108",
                "Modify",
            )],
        ),
    ];
    for (privilege, expected) in table {
        without(privilege);
        let problems = bench.problems().await;
        assert!(problems.iter().all(|p| p.text.starts_with(lacks)), "{problems:#?}");
        assert_found(&problems, expected);
    }
    assert_eq!(table.len(), 4);

    // A mapping that the source VM alone uses is brought up to date by an undo.
    shared.change(|world| {
        let same = world.mappings["coral"].clone();
        world.mappings.insert("old".into(), same);
        let config = &mut world.vms.get_mut(&105).unwrap().config;
        let slot = config.iter().find(|(_, v)| v.contains("mapping=coral")).map(|(k, _)| k.clone()).unwrap();
        config.insert(slot, "mapping=old".into());
    });
    without("Mapping.Modify");
    let back =
        "lacks Mapping.Modify on /mapping/usb/old, for giving the device back to vm 105 by mapping old at an undo";
    let there = "lacks Mapping.Modify on /mapping/usb/coral, for writing mapping coral for the host of vm 108";
    assert_found(&bench.problems().await, &[("01", back, "Mapping.Modify"), ("04", there, "Mapping.Modify")]);

    // Where ssh leads into the guest too, the agent is only another way.
    without("VM.GuestAgent.Unrestricted");
    let agent =
        "pvemig@pve!pvemig lacks VM.GuestAgent.Unrestricted on /vms/108, for the guest agent of vm 108 as a way in";
    let check = bench.look().await.unwrap();
    assert_noted(&check, &[agent, "without it, only the other routes of the site file lead into that guest"]);
    assert_found(&problems_of(check), &[]);
    let file = bench.rig.dir().join("site.yaml");
    let mut site: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    site["nodes"]["k3s-vm-still-fawn"]["access"] = json!(["agent"]);
    std::fs::write(&file, site.to_string()).unwrap();
    let site = Arc::new(Site::load(&file).unwrap());
    bench.rig.estate = Estate::new(site, Clock::fast(SPEED), bench.rig.bench.store.dir().to_owned());
    let problems = bench.problems().await;
    let mended = "give it a role with VM.GuestAgent.Unrestricted on /vms/108, or add ssh of node k3s-vm-still-fawn";
    assert_found(
        &problems,
        &[("06", agent, mended), ("06", "no way into the guest of vm 108 (k3s-vm-still-fawn)", "")],
    );
}
