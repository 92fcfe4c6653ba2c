//! Upgrades by both ways, and back.

use pvemig::talos::proto::machine::image_service_client::ImageServiceClient;
use pvemig::talos::proto::machine::lifecycle_service_client::LifecycleServiceClient;
use pvemig::talos::proto::machine::{
    ImageServicePullRequest, InstallArtifactsSource, LifecycleServiceUpgradeRequest, RebootRequest, RollbackRequest,
    UpgradeRequest, image_service_pull_response, lifecycle_service_install_progress,
};

use super::*;

const PLAIN: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

fn installer(version: &str) -> String {
    format!("factory.talos.dev/metal-installer/{PLAIN}:v{version}")
}

async fn upgrade(b: &Bench, node: &str, image: &str) -> Result<String, Status> {
    let request = UpgradeRequest { image: image.into(), ..UpgradeRequest::default() };
    let mut answer = b.machine(node).upgrade(request).await?.into_inner();
    assert_eq!(answer.messages.len(), 1);
    Ok(answer.messages.remove(0).ack)
}

async fn tag(b: &Bench, node: &str) -> String {
    b.machine(node).version(()).await.unwrap().into_inner().messages.remove(0).version.unwrap().tag
}

async fn pull(b: &Bench, image: &str) -> Result<(String, usize), Status> {
    let request = ImageServicePullRequest { containerd: None, image_ref: image.into() };
    let mut client = ImageServiceClient::new(b.line(MAC, b.tls("lab", true)));
    let mut stream = client.pull(request).await?.into_inner();
    let mut told = 0;
    while let Some(part) = stream.message().await? {
        if let Some(image_service_pull_response::Response::Name(name)) = part.response {
            return Ok((name, told));
        }
        told += 1;
    }
    panic!("a pull ended without a name")
}

async fn write(b: &Bench, image: &str) -> Result<i32, Status> {
    let source = Some(InstallArtifactsSource { image_name: image.into() });
    let mut client = LifecycleServiceClient::new(b.line(MAC, b.tls("lab", true)));
    let mut stream = client.upgrade(LifecycleServiceUpgradeRequest { containerd: None, source }).await?.into_inner();
    while let Some(part) = stream.message().await? {
        if let Some(lifecycle_service_install_progress::Response::ExitCode(code)) = part.progress.unwrap().response {
            return Ok(code);
        }
    }
    panic!("an upgrade ended without an exit code")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_upgrades_up_to_1_12_and_a_rollback_goes_back() {
    let b = Bench::new("talos-three").await;
    refused(pull(&b, &installer("1.12.11")).await, Code::Unimplemented, "unknown service machine.ImageService");
    refused(write(&b, &installer("1.12.11")).await, Code::Unimplemented, "unknown service machine.LifecycleService");
    for unknown in ["ghcr.io/siderolabs/installer:v1.14.0", "factory.talos.dev/metal-installer/abc:v1.12.11", "x"] {
        refused(upgrade(&b, NUC, unknown).await, Code::Unknown, "not found");
    }
    let before = b.boot_id(NUC).await;
    assert_eq!(upgrade(&b, NUC, &installer("1.12.11")).await.unwrap(), "Upgrade request received");
    b.back(NUC, &before).await;
    // The extensions went with the old image.
    assert_eq!((tag(&b, NUC).await, b.services(NUC).await.len()), ("v1.12.11".into(), 11));
    let entry = b.get(NUC, "runtime", "BootedEntries.talos.dev", "bootedentry").await;
    assert_eq!(entry["bootedEntry"], "Talos-v1.12.11.efi");
    let before = b.boot_id(NUC).await;
    b.machine(NUC).rollback(RollbackRequest {}).await.unwrap();
    b.back(NUC, &before).await;
    assert_eq!((tag(&b, NUC).await, b.services(NUC).await.len()), ("v1.11.5".into(), 12));
    // A firmware with SecureBoot starts what is signed for it, and falls back from everything else.
    let state = b.get(NUC, "runtime", "SecurityStates.talos.dev", "securitystate").await;
    assert_eq!((&state["secureBoot"], &state["bootedWithUKI"]), (&false.into(), &true.into()));
    b.lab.shared().change(|w| {
        let node = w.talos.nodes.get_mut(NUC).unwrap();
        node.secure_boot = true;
        node.slots.get_mut(&node.boots).unwrap().signed = true;
    });
    assert_eq!(b.get(NUC, "runtime", "SecurityStates.talos.dev", "securitystate").await["secureBoot"], true);
    let signed = installer("1.12.11").replace("metal-installer", "metal-installer-secureboot");
    for (image, comes_up) in [(installer("1.12.11"), "v1.11.5"), (signed, "v1.12.11")] {
        let before = b.boot_id(NUC).await;
        upgrade(&b, NUC, &image).await.unwrap();
        b.back(NUC, &before).await;
        assert_eq!(tag(&b, NUC).await, comes_up, "{image}");
    }
    // Nothing to go back to where nothing was ever upgraded.
    refused(b.machine(MAC).rollback(RollbackRequest {}).await, Code::Unknown, "cannot rollback");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn since_1_13_the_image_is_pulled_and_written_and_the_caller_reboots() {
    let b = Bench::with("talos-three", |w| {
        w.talos.nodes.get_mut(MAC).unwrap().slots.values_mut().for_each(|i| i.version = "1.13.9".into());
    })
    .await;
    let image = installer("1.14.0");
    refused(write(&b, &image).await, Code::NotFound, "not found");
    refused(pull(&b, "factory.talos.dev/metal-installer/abc:v1.14.0").await, Code::NotFound, "not found");
    assert_eq!(pull(&b, &image).await.unwrap(), (image.clone(), 2));
    assert_eq!(write(&b, &image).await.unwrap(), 0);
    assert_eq!((tag(&b, MAC).await, b.status(MAC).await), ("v1.13.9".into(), ("running".into(), true)));
    let before = b.boot_id(MAC).await;
    b.machine(MAC).reboot(RebootRequest { mode: 1 }).await.unwrap();
    b.back(MAC, &before).await;
    assert_eq!(tag(&b, MAC).await, "v1.14.0");
    let id = b.get(MAC, "runtime", "BootIDs.runtime.talos.dev", "boot-id").await["bootID"].clone();
    assert_eq!(id, b.boot_id(MAC).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_a_stage_and_a_locked_one_writes_nothing() {
    let b = Bench::with("talos-three", |w| w.talos.timing.write = HELD).await;
    upgrade(&b, NUC, &installer("1.12.11")).await.unwrap();
    assert_eq!(b.status(NUC).await, ("upgrading".into(), true));
    b.wait("its services stop", |w| w.talos.nodes[NUC].run.as_ref().unwrap().stops()).await;
    // Its etcd has stopped: only by force.
    refused(upgrade(&b, NUC, &installer("1.13.9")).await, Code::Unknown, "is not healthy");
    let forced = UpgradeRequest { image: installer("1.13.9"), force: true, ..UpgradeRequest::default() };
    b.machine(NUC).upgrade(forced).await.unwrap();
    let writes = b.lab.shared().read(|w| w.talos.nodes[NUC].run.as_ref().unwrap().writing.clone());
    assert_eq!(writes.unwrap().0.version, "1.12.11");
    assert_eq!(b.count(Class::Change), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_does_not_boot_falls_back_and_etcd_is_looked_at_first() {
    let b = Bench::with("talos-three", |w| assert!(w.talos.broken.insert("1.12.11".into()))).await;
    let before = b.boot_id(MAC).await;
    upgrade(&b, MAC, &installer("1.12.11")).await.unwrap();
    b.back(MAC, &before).await;
    assert_eq!((tag(&b, MAC).await, b.lab.shared().read(|w| w.talos.nodes[MAC].slots.len())), ("v1.11.5".into(), 2));
    b.lab.shared().change(|w| w.talos.etcd.members.retain(|m| m.name != VM));
    let said = upgrade(&b, MAC, &installer("1.12.11")).await;
    refused(said, Code::Unknown, "etcd member count(2) is insufficient to maintain quorum if upgrade commences");
    assert_eq!(b.status(MAC).await.0, "running");
}
