//! The request log and the fault rules.

use pvemig::base::clock::Clock;
use pvemig::lab::{FaultEffect, FaultRule};
use pvemig::talos::proto::cosi::resource::{EventType, WatchOptions, WatchRequest};
use pvemig::talos::proto::machine::RebootRequest;

use super::*;

async fn reboot(b: &Bench) -> Result<(), Status> {
    b.machine(MAC).reboot(RebootRequest { mode: 0 }).await.map(drop)
}

fn going(w: &World) -> bool {
    w.talos.nodes[MAC].run.as_ref().is_none_or(|run| run.going.is_some())
}

fn rule(effect: FaultEffect) -> FaultRule {
    FaultRule::on(Front::Talos, effect).path("/talos-mac/machine.MachineService/Reboot").class(Class::Change).times(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_refuse_without_effect() {
    let b = Bench::new("talos-three").await;
    let effects = [
        (FaultEffect::Refuse, Code::PermissionDenied, 403),
        (FaultEffect::Status(503, "gone".into()), Code::Unavailable, 503),
        (FaultEffect::Status(9, "busy".into()), Code::FailedPrecondition, 412),
        (FaultEffect::Echo(500), Code::Unknown, 500),
        (FaultEffect::Stale, Code::Unimplemented, 501),
    ];
    assert_eq!(effects.len(), 5);
    for (effect, code, http) in effects {
        b.lab.fault(rule(effect));
        refused(reboot(&b).await, code, "");
        let last = b.lab.shared().log.seen().pop().unwrap();
        assert_eq!((last.line.as_str(), last.status), ("POST /talos-mac/machine.MachineService/Reboot", http));
        assert!(!b.lab.shared().read(going));
        b.lab.shared().clear_faults();
    }
    b.lab.fault(rule(FaultEffect::ResetBefore));
    let lost = reboot(&b).await.unwrap_err();
    assert!(std::error::Error::source(&lost).is_some() && !b.lab.shared().read(going), "{lost:?}");
    assert_eq!(b.count(Class::Change), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_lost_after_the_effect() {
    for effect in [FaultEffect::ResetAfter, FaultEffect::StatusAfter(503, "lost".into()), FaultEffect::Delay(2_000)] {
        let b = Bench::with("talos-three", |w| w.talos.timing.stop = 250_000).await;
        let before = b.boot_id(MAC).await;
        let late = effect == FaultEffect::Delay(2_000);
        b.lab.fault(rule(effect));
        assert_eq!(reboot(&b).await.is_ok(), late);
        b.back(MAC, &before).await;
        assert_eq!(b.count(Class::Change), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_is_in_the_log_though_the_client_went_away() {
    let b = Bench::with("talos-three", |w| w.talos.timing.stop = HELD).await;
    // The answer takes a second, and nobody waits for it.
    b.lab.fault(rule(FaultEffect::Delay(u64::from(SPEED) * 1_000)));
    let mut client = b.machine(MAC);
    let asked = tokio::spawn(async move { client.reboot(RebootRequest { mode: 0 }).await });
    b.wait("the reboot is begun", going).await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    let noted = async {
        while b.count(Class::Change) == 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(pvemig::base::wait::within(Duration::from_secs(60), noted).await.is_ok());
    let last = b.lab.shared().log.seen().pop().unwrap();
    assert_eq!((last.line.as_str(), last.status), ("POST /talos-mac/machine.MachineService/Reboot", 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_clock_is_that_of_this_machine_however_fast_the_lab_is() {
    let b = Bench::new("talos-three").await;
    let boot_time = |answer: pvemig::talos::proto::machine::SystemStatResponse| answer.messages[0].boot_time;
    let before = Clock::real().now().as_second();
    let started = boot_time(b.machine(MAC).system_stat(()).await.unwrap().into_inner());
    let up = b.read(MAC, "/proc/uptime").await.unwrap();
    let up: i64 = up.split('.').next().unwrap().parse().unwrap();
    let theirs = i64::try_from(started).unwrap() + up;
    assert!((before - 2..=Clock::real().now().as_second() + 2).contains(&theirs), "{theirs} {before}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_never_answers() {
    let b = Bench::with("talos-three", |w| w.talos.timing.stop = HELD).await;
    b.lab.fault(rule(FaultEffect::Hang));
    b.lab.fault(FaultRule::on(Front::Talos, FaultEffect::HangAfter).path("*/Reboot").times(1));
    for changes in [false, true] {
        let mut client = b.machine(MAC);
        let hangs = tokio::spawn(async move { client.reboot(RebootRequest { mode: 0 }).await });
        let wanted = if changes { 2 } else { 1 };
        while b.count(Class::Change) < wanted {
            tokio::task::yield_now().await;
        }
        assert!(!hangs.is_finished());
        assert_eq!(b.lab.shared().read(going), changes);
        hangs.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_what_is_there_and_what_changes() {
    let b = Bench::with("talos-three", |w| w.talos.timing.stop = HELD).await;
    let request = WatchRequest {
        namespace: "runtime".into(),
        r#type: "MachineStatuses.runtime.talos.dev".into(),
        id: None,
        options: Some(WatchOptions { bootstrap_contents: true }),
        api_version: 1,
    };
    let mut stream = b.state_as("reader", MAC).watch(request.clone()).await.unwrap().into_inner();
    let mut next = async || stream.message().await.unwrap().unwrap().event.remove(0);
    let (created, end) = (next().await, next().await);
    assert_eq!((created.event_type(), end.event_type()), (EventType::Created, EventType::Bootstrapped));
    reboot(&b).await.unwrap();
    let updated = next().await;
    assert_eq!((updated.event_type(), updated.old.is_some()), (EventType::Updated, true));
    assert_eq!(yaml(updated.resource.as_ref().unwrap())["stage"], "rebooting");
    let lines: Vec<String> = b.lab.shared().log.seen().into_iter().map(|s| s.line).collect();
    let watch = "POST /talos-mac/cosi.resource.State/Watch/MachineStatuses.runtime.talos.dev";
    assert_eq!(lines, [watch, "POST /talos-mac/machine.MachineService/Reboot"]);
    let one = WatchRequest { id: Some("machine".into()), ..request };
    refused(b.state_as("reader", NUC).watch(one).await, Code::Unimplemented, "single resource");
}
