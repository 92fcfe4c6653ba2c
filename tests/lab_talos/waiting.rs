//! Nodes that are Ready for the kubelet and booting for Talos.

use pvemig::talos::proto::machine::RebootRequest;

use super::*;

/// The services that are not up, with what they say.
async fn pending(b: &Bench, node: &str) -> Vec<(String, String, String)> {
    let all = b.services(node).await.into_iter().filter(|s| s.state != "Running");
    all.map(|s| (s.id, s.state, s.events.unwrap().events.last().unwrap().msg.clone())).collect()
}

/// Booting for Talos, with nothing unmet; Ready for the kubelet.
async fn is_stuck(b: &Bench, node: &str, service: &str, file: &str) {
    assert_eq!(b.status(node).await.0, "booting");
    let expected = (service.to_owned(), "Waiting".to_owned(), format!("Waiting for file \"{file}\" to exist"));
    assert_eq!(pending(b, node).await, [expected]);
    let status = b.get(node, "k8s", "NodeStatuses.kubernetes.talos.dev", node).await;
    assert_eq!(status["nodeReady"], true);
    // Its resource exists only while it runs.
    let running = b.list(node, "runtime", "Services.v1alpha1.talos.dev").await;
    assert!(!running.is_empty() && running.iter().all(|(id, _)| id != service));
}

const DRIVER: &str = "/sys/bus/pci/drivers/nvidia";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nvidia_image_without_its_modules_keeps_booting_until_they_are_there() {
    let b = Bench::new("talos-three-no-modules").await;
    is_stuck(&b, NUC, "ext-nvidia-persistenced", DRIVER).await;
    let driver = b.get(NUC, "hardware", "PCIDevices.hardware.talos.dev", "0000:01:00.0").await["driver"].clone();
    assert_eq!(driver, "");
    assert_eq!(b.status(MAC).await, ("running".into(), true));
    let text = load("talos-three").unwrap().talos.nodes[NUC].config.clone();
    configs::apply(&b, NUC, &text, configs::Mode::NoReboot).await.unwrap();
    b.wait("it runs", |w| w.talos_stage(NUC) == Some(Stage::Running)).await;
    assert!(pending(&b, NUC).await.is_empty());
    assert_eq!(b.status(NUC).await, ("running".into(), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nvidia_image_without_a_gpu_waits_for_ever() {
    let b = Bench::with("talos-three-wrong-image", |w| {
        let text = w.talos.nodes[NUC].config.clone().replace(NUC, VM);
        w.talos.nodes.get_mut(VM).unwrap().config = text;
    })
    .await;
    is_stuck(&b, VM, "ext-nvidia-persistenced", DRIVER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_its_channel_keeps_booting_and_the_node_reboots_in_the_end() {
    let b = Bench::with("talos-three", |w| {
        w.vms.get_mut(&223).unwrap().config.insert("agent".into(), "0".into());
    })
    .await;
    is_stuck(&b, VM, "ext-qemu-guest-agent", "/dev/virtio-ports/org.qemu.guest_agent.0").await;
    b.lab.shared().change(|w| w.talos.timing.stuck = 600_000);
    let mut boot = b.boot_id(VM).await;
    let now = |w: &World| w.talos.nodes[VM].run.as_ref().map(|run| run.boot_id.clone());
    b.machine(VM).reboot(RebootRequest { mode: 0 }).await.unwrap();
    // Asked for once; from then on it reboots by itself, without end.
    for _ in 0..3 {
        b.wait("it has rebooted", |w| now(w).is_some_and(|id| id != boot)).await;
        boot = b.lab.shared().read(now).unwrap();
        assert_ne!(b.lab.shared().read(|w| w.talos_stage(VM)), Some(Stage::Running));
    }
    assert_eq!(b.count(Class::Change), 1);
}
