//! The lab's Talos front, asked over TLS with client certificates by the code that is made from the protos.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod access;
mod bays;
mod boots;
mod configs;
mod drains;
mod etcd;
mod firmware;
mod resets;
mod upgrades;
mod waiting;
mod wire;

use std::time::Duration;

use base64::Engine;
use futures::StreamExt;
use pvemig::lab::talos::services::{Stage, Status as Machine};
use pvemig::lab::{Class, Front, Lab, LabOptions, World, load};
use pvemig::talos::proto::cosi::resource::state_client::StateClient;
use pvemig::talos::proto::cosi::resource::{GetRequest, ListRequest, Resource};
use pvemig::talos::proto::machine::machine_service_client::MachineServiceClient;
use pvemig::talos::proto::machine::{ReadRequest, ServiceInfo};
use serde_json::Value;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

/// Lab seconds in a real one.
const SPEED: u32 = 500;
/// How long anything may take on a busy machine, in lab time.
const LIMIT: Duration = Duration::from_secs(120 * SPEED as u64);

/// Lab milliseconds that outlast any test: what takes so long is under way to its end.
const HELD: u64 = 1_000_000_000;

const NUC: &str = "talos-nuc";
const VM: &str = "talos-vm";
const MAC: &str = "talos-mac";

struct Bench {
    lab: Lab,
    config: Value,
    _dir: tempfile::TempDir,
}

fn code(text: &Value) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

impl Bench {
    async fn new(world: &str) -> Self {
        Self::with(world, |_| ()).await
    }

    async fn with(world: &str, change: impl FnOnce(&mut World)) -> Self {
        let mut world = load(world).unwrap();
        // A node that waits for a service stays as it is for as long as a test takes.
        world.talos.timing.stuck = HELD;
        change(&mut world);
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().to_owned(), speed: SPEED }).await.unwrap();
        let text = std::fs::read_to_string(lab.dir().join("talosconfig")).unwrap();
        Self { lab, config: serde_saphyr::from_str(&text).unwrap(), _dir: dir }
    }

    /// TLS as a context of the talosconfig says, as far as to a client certificate where `known`.
    fn tls(&self, context: &str, known: bool) -> ClientTlsConfig {
        let context = &self.config["contexts"][context];
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(code(&context["ca"])));
        let key = code(&context["key"]);
        assert!(key.starts_with("-----BEGIN ED25519 PRIVATE KEY-----\n"));
        let key = key.replace("ED25519 PRIVATE KEY", "PRIVATE KEY");
        if known { tls.identity(Identity::from_pem(code(&context["crt"]), key)) } else { tls }
    }

    fn line(&self, node: &str, tls: ClientTlsConfig) -> Channel {
        pvemig::base::tls::init();
        let address = self.lab.reach().talos.nodes[node];
        Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap().connect_lazy()
    }

    fn machine_as(&self, context: &str, node: &str) -> MachineServiceClient<Channel> {
        MachineServiceClient::new(self.line(node, self.tls(context, true)))
    }

    fn machine(&self, node: &str) -> MachineServiceClient<Channel> {
        self.machine_as("lab", node)
    }

    fn state_as(&self, context: &str, node: &str) -> StateClient<Channel> {
        StateClient::new(self.line(node, self.tls(context, true)))
    }

    async fn get_as(&self, context: &str, node: &str, what: (&str, &str, &str)) -> Result<Resource, Status> {
        let (namespace, kind, id) = what;
        let request = GetRequest { namespace: namespace.into(), r#type: kind.into(), id: id.into(), options: None };
        Ok(self.state_as(context, node).get(request).await?.into_inner().resource.unwrap())
    }

    /// The spec of one resource.
    async fn get(&self, node: &str, namespace: &str, kind: &str, id: &str) -> Value {
        yaml(&self.get_as("lab", node, (namespace, kind, id)).await.unwrap())
    }

    /// The specs of a kind, by id.
    async fn list(&self, node: &str, namespace: &str, kind: &str) -> Vec<(String, Value)> {
        let request = ListRequest { namespace: namespace.into(), r#type: kind.into(), options: None };
        let mut stream = self.state_as("lab", node).list(request).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(answer) = stream.next().await {
            let resource = answer.unwrap().resource.unwrap();
            all.push((resource.metadata.as_ref().unwrap().id.clone(), yaml(&resource)));
        }
        all
    }

    /// Stage, and whether it is ready.
    async fn status(&self, node: &str) -> (String, bool) {
        let spec = self.get(node, "runtime", "MachineStatuses.runtime.talos.dev", "machine").await;
        (spec["stage"].as_str().unwrap().to_owned(), spec["status"]["ready"].as_bool().unwrap())
    }

    async fn services(&self, node: &str) -> Vec<ServiceInfo> {
        let mut lists = self.machine(node).service_list(()).await.unwrap().into_inner().messages;
        assert_eq!((lists.len(), &lists[0].metadata), (1, &None));
        lists.remove(0).services
    }

    async fn read(&self, node: &str, path: &str) -> Result<String, Status> {
        let mut stream = self.machine(node).read(ReadRequest { path: path.into() }).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(data) = stream.next().await {
            bytes.extend(data?.bytes);
        }
        Ok(String::from_utf8(bytes).unwrap())
    }

    async fn boot_id(&self, node: &str) -> String {
        self.read(node, "/proc/sys/kernel/random/boot_id").await.unwrap().trim().to_owned()
    }

    async fn wait(&self, what: &str, mut look: impl FnMut(&World) -> bool) {
        let seen = self.lab.shared().until(LIMIT, |w| look(w).then_some(())).await;
        assert!(seen.is_some(), "{what}");
    }

    /// Waits until a node runs in another boot than this and is ready.
    async fn back(&self, node: &str, before: &str) {
        self.wait("the node is back", |w| {
            let run = w.talos.nodes[node].run.as_ref();
            let ready = |s: Machine| s.stage == Stage::Running && s.unmet.is_empty();
            run.is_some_and(|run| run.boot_id != before) && w.talos_status(node).is_some_and(ready)
        })
        .await;
    }

    fn count(&self, class: Class) -> usize {
        self.lab.shared().log.count(Front::Talos, class)
    }
}

fn yaml(resource: &Resource) -> Value {
    serde_saphyr::from_str(&resource.spec.as_ref().unwrap().yaml_spec).unwrap()
}

fn refused<T: std::fmt::Debug>(said: Result<T, Status>, code: Code, text: &str) {
    let status = said.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_run_and_tell_what_they_are() {
    let b = Bench::new("talos-three").await;
    assert_eq!(b.lab.reach().talos.nodes.len(), 3);
    for node in [NUC, VM, MAC] {
        assert_eq!(b.status(node).await, ("running".into(), true), "{node}");
        let version = b.machine(node).version(()).await.unwrap().into_inner();
        assert_eq!((version.messages.len(), &version.messages[0].metadata), (1, &None));
        assert_eq!(version.messages[0].version.as_ref().unwrap().tag, "v1.11.5");
        let status = b.get(node, "k8s", "NodeStatuses.kubernetes.talos.dev", node).await;
        assert_eq!((&status["nodeReady"], &status["unschedulable"]), (&true.into(), &false.into()));
    }
    let file = b.lab.dir().join("talosconfig");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    let env = std::fs::read_to_string(b.lab.dir().join("env")).unwrap();
    assert!(mode & 0o777 == 0o600 && env.contains(&format!("TALOSCONFIG='{}'\n", file.display())), "{mode:o} {env}");
    let ids: Vec<String> = b.services(NUC).await.into_iter().map(|s| s.id).collect();
    let all = "apid auditd containerd cri dashboard etcd ext-nvidia-persistenced kubelet machined syslogd trustd udevd";
    assert_eq!(ids.join(" "), all);
    assert!(b.services(NUC).await.iter().all(|s| s.state == "Running"));
    let gpu = b.get(NUC, "hardware", "PCIDevices.hardware.talos.dev", "0000:01:00.0").await;
    assert_eq!((&gpu["vendor_id"], &gpu["driver"]), (&"0x10de".into(), &"nvidia".into()));
    let modules = b.list(NUC, "runtime", "LoadedKernelModules.runtime.talos.dev").await;
    assert_eq!(modules.iter().filter(|(id, _)| id.starts_with("nvidia")).count(), 4);
    let layers = b.list(VM, "runtime", "ExtensionStatuses.runtime.talos.dev").await;
    let names: Vec<&str> = layers.iter().map(|(_, l)| l["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["qemu-guest-agent", "schematic"]);
    let uuid =
        b.get(VM, "hardware", "SystemInformations.hardware.talos.dev", "systeminformation").await["uuid"].clone();
    let smbios = b.lab.shared().read(|w| w.vms[&223].config["smbios1"].clone());
    assert_eq!(smbios, format!("uuid={}", uuid.as_str().unwrap()));
    let disks = b.list(NUC, "runtime", "Disks.block.talos.dev").await;
    assert_eq!(disks.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["loop0", "nvme0n1", "nvme1n1"]);
    assert_eq!((&disks[1].1["serial"], &disks[1].1["size"]), (&"S5GXNF0R601234".into(), &1_000_204_886_016_u64.into()));
    assert_eq!(b.list(MAC, "cluster", "Members.cluster.talos.dev").await.len(), 3);
    assert_eq!(b.count(Class::Change), 0);
    let config = b.get_as("lab", MAC, ("config", "MachineConfigs.config.talos.dev", "v1alpha1")).await.unwrap();
    let text = b.lab.shared().read(|w| w.talos.nodes[MAC].config.clone());
    // Field 1 of the spec: tag, length, bytes.
    let bytes = config.spec.unwrap().proto_spec;
    assert!(bytes[0] == 0x0a && bytes.ends_with(text.as_bytes()) && text.contains("/dev/sda"));
}
