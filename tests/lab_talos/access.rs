//! Certificates, roles, kinds.

use pvemig::lab::talos::certificates::Authority;
use pvemig::talos::proto::machine::{EtcdMemberListRequest, EtcdSnapshotRequest, RebootRequest};

use super::*;

const CONFIG: (&str, &str, &str) = ("config", "MachineConfigs.config.talos.dev", "v1alpha1");
const STATUS: (&str, &str, &str) = ("runtime", "MachineStatuses.runtime.talos.dev", "machine");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_what_it_may() {
    let b = Bench::new("talos-three").await;
    let table = [
        ("lab", true, true, true, true),
        ("operator", true, true, false, true),
        ("reader", true, false, false, true),
        ("etcd-backup", false, true, false, false),
    ];
    assert_eq!(table.len(), 4);
    for (context, version, snapshot, config, status) in table {
        let mut client = b.machine_as(context, MAC);
        let answers = [
            (version, client.version(()).await.map(drop)),
            (snapshot, client.etcd_snapshot(EtcdSnapshotRequest {}).await.map(drop)),
            (config, b.get_as(context, MAC, CONFIG).await.map(drop)),
            (status, b.get_as(context, MAC, STATUS).await.map(drop)),
            (true, client.etcd_member_list(EtcdMemberListRequest { query_local: true }).await.map(drop)),
        ];
        assert_eq!(answers.len(), 5);
        for (may, answer) in answers {
            match may {
                true => answer.unwrap(),
                false => refused(answer, Code::PermissionDenied, "not authorized"),
            }
        }
    }
    refused(
        b.machine_as("reader", MAC).reboot(RebootRequest { mode: 0 }).await,
        Code::PermissionDenied,
        "not authorized",
    );
    assert!(b.lab.shared().read(|w| w.talos.nodes[MAC].run.as_ref().unwrap().going.is_none()));
    // What is refused is a changing request all the same.
    assert_eq!(b.count(Class::Change), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_heard_without_a_certificate_of_the_authority() {
    let b = Bench::new("talos-three").await;
    let nobody = MachineServiceClient::new(b.line(MAC, b.tls("lab", false))).version(()).await;
    assert!(nobody.is_err());
    let stranger = Authority::make().unwrap().client("os:admin").unwrap();
    let key = stranger.key.replace("ED25519 ", "");
    let tls = b.tls("lab", false).identity(Identity::from_pem(stranger.certificate, key));
    assert!(MachineServiceClient::new(b.line(MAC, tls)).version(()).await.is_err());
    // Nothing came as far as a request.
    assert_eq!((b.count(Class::Read), b.count(Class::Change)), (0, 0));
    assert!(b.machine(MAC).version(()).await.is_ok());
    assert_eq!(b.count(Class::Read), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_and_namespaces_are_exact() {
    let b = Bench::new("talos-three").await;
    let cases = [
        (
            ("runtime", "Disks.block.talos", "sda"),
            Code::PermissionDenied,
            "resource type \"Disks.block.talos\" is not supported",
        ),
        (("runtime", "disks", "sda"), Code::PermissionDenied, "is not supported"),
        (("block", "Disks.block.talos.dev", "sda"), Code::PermissionDenied, "namespace \"block\" is not supported"),
        (("config", "Disks.block.talos.dev", "sda"), Code::NotFound, "doesn't exist"),
        (("runtime", "Disks.block.talos.dev", "sdz"), Code::NotFound, "doesn't exist"),
        (("runtime", "BlockDevices.block.talos.dev", "sda"), Code::Unimplemented, "the lab has no"),
        (("runtime", "BootedEntries.talos.dev", "nothing"), Code::NotFound, "doesn't exist"),
    ];
    assert_eq!(cases.len(), 7);
    for (what, code, text) in cases {
        refused(b.get_as("lab", MAC, what).await, code, text);
    }
    assert_eq!(b.get(MAC, "runtime", "Disks.block.talos.dev", "sda").await["transport"], "sata");
    refused(b.machine_as("operator", MAC).kubeconfig(()).await, Code::PermissionDenied, "not authorized");
    refused(b.read(MAC, "/etc/shadow").await, Code::NotFound, "no such file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_planes_pass_requests_on_and_workers_do_not() {
    let b = Bench::with("talos-three", |w| {
        let config = &mut w.talos.nodes.get_mut(VM).unwrap().config;
        *config = config.replace("type: controlplane", "type: worker");
        w.talos.etcd.members.retain(|m| m.name != VM);
    })
    .await;
    let hostname = async |from: &str, to: &str| {
        let get = GetRequest {
            namespace: "network".into(),
            r#type: "HostnameStatuses.net.talos.dev".into(),
            id: "hostname".into(),
            options: None,
        };
        let mut request = tonic::Request::new(get);
        request.metadata_mut().append("node", to.parse().unwrap());
        let answer = b.state_as("lab", from).get(request).await?.into_inner();
        Ok::<_, Status>(yaml(&answer.resource.unwrap())["hostname"].as_str().unwrap().to_owned())
    };
    assert_eq!(hostname(MAC, "192.168.4.20").await.unwrap(), NUC);
    assert_eq!(hostname(VM, "192.168.4.223").await.unwrap(), VM);
    refused(hostname(VM, "192.168.4.20").await, Code::PermissionDenied, "no request forwarding");
    refused(hostname(MAC, "192.168.4.99").await, Code::Unavailable, "no route to host");
    let list = b.machine(VM).etcd_member_list(EtcdMemberListRequest { query_local: false }).await;
    refused(list, Code::Unimplemented, "member list is only available on control plane nodes");
    assert_eq!(b.status(VM).await, ("running".into(), true));
    assert!(b.services(VM).await.iter().all(|s| s.id != "etcd" && s.id != "trustd"));
}
