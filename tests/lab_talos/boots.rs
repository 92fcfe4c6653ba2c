//! Reboots, shutdowns, and what a boot changes.

use prost::Message;
use pvemig::talos::proto::common;
use pvemig::talos::proto::machine::reboot_request::Mode;
use pvemig::talos::proto::machine::{
    Event, EventsRequest, MachineStatusEvent, RebootRequest, SequenceEvent, ShutdownRequest, sequence_event,
};

use super::*;

async fn reboot(b: &Bench, node: &str, mode: Mode) -> String {
    let answer = b.machine(node).reboot(RebootRequest { mode: mode.into() }).await.unwrap().into_inner();
    assert_eq!((answer.messages.len(), &answer.messages[0].metadata), (1, &None));
    answer.messages[0].actor_id.clone()
}

/// The events of a node; the first one is empty.
async fn events(b: &Bench, node: &str, tail: i32) -> tonic::Streaming<Event> {
    let request = EventsRequest { tail_events: tail, ..EventsRequest::default() };
    let mut stream = b.machine(node).events(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().data, None);
    stream
}

fn sequence(event: &Event) -> Option<SequenceEvent> {
    let data = event.data.as_ref()?;
    (data.type_url == "talos/runtime/machine.SequenceEvent").then(|| SequenceEvent::decode(&*data.value).unwrap())
}

fn stage(event: &Event) -> Option<i32> {
    let data = event.data.as_ref()?;
    let is = data.type_url == "talos/runtime/machine.MachineStatusEvent";
    is.then(|| MachineStatusEvent::decode(&*data.value).unwrap().stage)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_goes_through_the_stages_and_changes_the_boot_id() {
    let b = Bench::with("talos-three", |w| w.talos.timing.stop = 500_000).await;
    let before = b.boot_id(MAC).await;
    let mut stream = events(&b, MAC, 0).await;
    let actor = reboot(&b, MAC, Mode::Default).await;
    let mut seen = Vec::new();
    while let Ok(Some(event)) = stream.message().await {
        seen.push(event);
    }
    let begun: Vec<&Event> = seen.iter().filter(|e| sequence(e).is_some_and(|s| s.sequence == "reboot")).collect();
    assert_eq!((begun.len(), &begun[0].actor_id), (1, &actor));
    // 5 is REBOOTING. The stream ended with the node.
    assert_eq!(seen.iter().filter_map(stage).collect::<Vec<_>>(), [5]);
    b.back(MAC, &before).await;
    assert_ne!(b.boot_id(MAC).await, before);
    assert!(b.lab.shared().read(|w| w.talos.nodes[MAC].run.as_ref().unwrap().kexec));
    let mut stream = events(&b, MAC, -1).await;
    let (mut sequences, mut stages) = (Vec::new(), Vec::new());
    while stages.last() != Some(&4) {
        let event = stream.message().await.unwrap().unwrap();
        sequences.extend(sequence(&event).map(|s| (s.sequence, s.action)));
        stages.extend(stage(&event));
    }
    let named = |name: &str, action: sequence_event::Action| (name.to_owned(), i32::from(action));
    let (start, stop) = (sequence_event::Action::Start, sequence_event::Action::Stop);
    let all = [named("initialize", start), named("initialize", stop), named("boot", start), named("boot", stop)];
    assert_eq!(sequences, all);
    assert_eq!((stages.first(), stages.last()), (Some(&1), Some(&4)));
    assert_eq!(b.status(MAC).await, ("running".into(), true));
    assert_eq!(b.count(Class::Change), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_reboot_is_answered_well_and_refused_in_the_events() {
    let b = Bench::with("talos-three", |w| w.talos.timing.stop = HELD).await;
    let mut stream = events(&b, NUC, 0).await;
    let first = reboot(&b, NUC, Mode::Powercycle).await;
    let second = reboot(&b, NUC, Mode::Powercycle).await;
    assert_ne!(first, second);
    let mut sequences = Vec::new();
    while sequences.len() < 2 {
        let event = stream.message().await.unwrap().unwrap();
        sequences.extend(sequence(&event).map(|s| (event.actor_id, s.error.map(|e| e.code))));
    }
    assert_eq!(sequences, [(first, None), (second, Some(i32::from(common::Code::Locked)))]);
    assert_eq!(b.status(NUC).await, ("rebooting".into(), true));
    b.machine(VM).shutdown(ShutdownRequest { force: false }).await.unwrap();
    assert_eq!(b.status(VM).await, ("shutting down".into(), true));
    assert_eq!(b.count(Class::Change), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_stop_and_start_applies_pending_config_of_a_vm() {
    let b = Bench::new("talos-three").await;
    b.lab.shared().change(|w| w.vms.get_mut(&223).unwrap().pending.insert("cores".into(), "8".into()));
    let cores = |w: &World| (w.vms[&223].config["cores"].clone(), w.vms[&223].pending.len());
    let mut before = b.boot_id(VM).await;
    for mode in [Mode::Default, Mode::Powercycle] {
        let process = b.lab.shared().read(|w| w.vms[&223].running.as_ref().unwrap().pid);
        reboot(&b, VM, mode).await;
        b.back(VM, &before).await;
        let now = b.boot_id(VM).await;
        assert_ne!(now, before);
        let kexec = b.lab.shared().read(|w| w.talos.nodes[VM].run.as_ref().unwrap().kexec);
        assert_eq!(kexec, mode == Mode::Default);
        before = now;
        let running = b.lab.shared().read(|w| w.vms[&223].running.as_ref().unwrap().pid);
        assert_eq!((running, b.lab.shared().read(cores)), (process, ("4".into(), 1)));
    }
    b.machine(VM).shutdown(ShutdownRequest { force: false }).await.unwrap();
    b.wait("the process is gone", |w| w.vms[&223].running.is_none()).await;
    assert!(b.machine(VM).version(()).await.is_err());
    b.lab.shared().change(|w| w.fork("qmstart", 223, "root@pam", serde_json::json!({})));
    b.back(VM, &before).await;
    assert_eq!(b.lab.shared().read(cores), ("8".into(), 0));
    assert_eq!(b.boot_id(VM).await, b.lab.shared().read(|w| w.boot_id(223)).unwrap());
    assert_eq!(b.count(Class::Change), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_off_comes_back_by_its_button_and_a_stick_moves_its_disk() {
    let b = Bench::new("talos-three").await;
    let disk =
        async |b: &Bench| b.get(MAC, "runtime", "SystemDisks.block.talos.dev", "system-disk").await["devPath"].clone();
    assert_eq!(disk(&b).await, "/dev/sda");
    let before = b.boot_id(MAC).await;
    b.lab.shared().change(|w| w.talos.nodes.get_mut(MAC).unwrap().disks[0].unplugged = false);
    // Plugged in while it runs the stick takes the next name.
    assert_eq!((disk(&b).await, b.list(MAC, "runtime", "Disks.block.talos.dev").await.len()), ("/dev/sda".into(), 3));
    b.machine(MAC).shutdown(ShutdownRequest { force: true }).await.unwrap();
    b.wait("it is off", |w| w.talos.nodes[MAC].run.is_none()).await;
    assert!(b.machine(MAC).version(()).await.is_err());
    let ready = |w: &World| w.talos_kubelet_ready(MAC);
    b.wait("Kubernetes misses it", |w| ready(w) == Some(false)).await;
    assert!(b.lab.shared().change(|w| w.press_power(MAC)));
    b.back(MAC, &before).await;
    assert_eq!(disk(&b).await, "/dev/sdb");
    b.wait("it is Ready again", |w| ready(w) == Some(true)).await;
    assert!(!b.lab.shared().change(|w| w.press_power(MAC)));
}
