//! Machines that do not power off when they are asked to, and changes that others made in between.

use super::*;
use pvemig::base::permit::Notebook;
use pvemig::lab::World;

const POWER: &[&str] = &["01-remove-usb", "03-check-host-hardware", "04-add-usb", "05-reboot-vm"];

/// An estate where the device waits for the power cycle of vm 108, which `guest` makes slow or deaf.
async fn waiting(guest: impl FnOnce(&mut pvemig::lab::world::Guest)) -> Bench {
    let mut bench = Bench::new("usb-move-old", POWER).await;
    let reboot = bench.rig.steps.pop().unwrap();
    done(&bench.forward(None).await);
    bench.rig.steps = vec![reboot];
    bench.rig.lab.shared().change(|world| guest(&mut world.vms.get_mut(&108).unwrap().guest));
    bench
}

fn pid(bench: &Bench) -> Option<u32> {
    bench.rig.lab.shared().read(|world: &World| world.vms[&108].running.as_ref().map(|r| r.pid))
}

/// The power verbs that a run sent, in order.
fn verbs(run: &Run) -> Vec<String> {
    let of = |event: &Event| match event {
        Event::Call { note, .. } => Some(note.text.split_once("/status/")?.1.split(' ').next()?.to_owned()),
        _ => None,
    };
    run.records.iter().filter_map(|r| of(&r.event)).collect()
}

fn failed(run: &Run) -> String {
    let Why::Failed { error, help, .. } = &stop(run).why else { panic!("{:#?}", run.ended) };
    format!("{}\n{}", error.join("\n"), help.join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plug_is_pulled_only_where_that_was_asked_for() {
    let mut bench = waiting(|guest| guest.ignores_shutdown = true).await;
    let before = pid(&bench);
    let run = bench.forward(None).await;
    let text = failed(&run);
    assert!(text.contains("did not power off in time") && text.contains("look at the console"), "{text}");
    assert_eq!((verbs(&run), pid(&bench)), (vec!["shutdown".to_owned()], before), "it goes on running");

    let mut fields = bench.rig.steps[0].fields().unwrap();
    assert_eq!(fields["force_off"], false);
    fields["force_off"] = json!(true);
    bench.rig.steps[0] = blueprint::named("usb-move").unwrap().rebuild("05-reboot-vm", &fields).unwrap();
    let run = bench.forward(None).await;
    done(&run);
    assert_eq!(verbs(&run), ["shutdown", "stop", "start"]);
    assert!(pid(&bench).is_some() && pid(&bench) != before);
    assert_eq!(bench.usb().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_goes_off_after_all_is_started_by_resume() {
    let bench = waiting(|guest| guest.shutdown_ms = Some(330_000)).await;
    let run = bench.forward(None).await;
    assert!(failed(&run).contains("the guest may still power off by itself"), "{}", failed(&run));
    let off = |world: &World| world.vms[&108].running.is_none().then_some(());
    assert!(bench.rig.lab.shared().until(std::time::Duration::from_secs(120), off).await.is_some());
    let resumed = bench.forward(Some(&run.id)).await;
    done(&resumed);
    assert_eq!((verbs(&run), verbs(&resumed)), (vec!["shutdown".to_owned()], vec!["start".to_owned()]));
    assert!(pid(&bench).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_somebody_switched_off_since_stays_off() {
    let bench = waiting(|_| {}).await;
    let run = bench.forward(None).await;
    done(&run);
    let pve = bench.rig.estate.proxmox("home").await.unwrap();
    let at = pve.locate(108).await.unwrap();
    let upid = pve.stop(&at, &Notebook::permit().0).await.unwrap();
    pve.wait_task(&upid, std::time::Duration::from_secs(60), &|_| {}).await.unwrap();
    assert_eq!(pid(&bench), None);
    let back = bench.rig.backward(&run.id, &How::default()).await;
    undone(&back);
    assert_eq!((verbs(&back), pid(&bench)), (Vec::new(), None));
    let said = notes(&back, "05-reboot-vm");
    assert!(said.contains("somebody else switched it off since, and that stays"), "{said}");

    // Off by this run's own doing, because its start was refused.
    let bench = waiting(|_| {}).await;
    let refused = FaultRule::on(Front::Proxmox, FaultEffect::Status(500, "no room".into()));
    bench.rig.lab.fault(refused.method("POST").path("*/status/start").times(1));
    let run = bench.forward(None).await;
    failed(&run);
    assert_eq!((verbs(&run), pid(&bench)), (vec!["shutdown".to_owned(), "start".to_owned()], None));
    let back = bench.rig.backward(&run.id, &How::default()).await;
    undone(&back);
    assert!(verbs(&back) == ["start"] && pid(&bench).is_some(), "{:?}", verbs(&back));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_changed_in_between_is_looked_at_again() {
    let text = "Operation cannot be fulfilled on nodes: the object has been modified; please apply your changes to the \
                latest version and try again";
    let rule =
        || FaultRule::on(Front::Kubernetes, FaultEffect::Status(409, text.into())).method("PATCH").path("*/nodes/*");
    let bench = Bench::new("usb-move", &["09-label-node"]).await;
    bench.rig.lab.fault(rule().times(2));
    let run = bench.forward(None).await;
    done(&run);
    assert_eq!(calls(&run.records), 3, "twice refused, once taken");
    assert_eq!(bench.node(TARGET).await["metadata"]["labels"]["coral"], "true");

    let bench = Bench::new("usb-move", &["09-label-node"]).await;
    bench.rig.lab.fault(rule());
    let run = bench.forward(None).await;
    let text = failed(&run);
    assert!(
        text.contains("the object has been modified") && text.contains("somebody else keeps changing it"),
        "{text}"
    );
    assert_eq!(calls(&run.records), 4);

    // Another object of the same name is for a person to judge.
    let text =
        "Operation cannot be fulfilled on nodes: Precondition failed: UID in precondition: 1, UID in object meta: 2";
    let bench = Bench::new("usb-move", &["09-label-node"]).await;
    let rule =
        FaultRule::on(Front::Kubernetes, FaultEffect::Status(409, text.into())).method("PATCH").path("*/nodes/*");
    bench.rig.lab.fault(rule.times(1));
    let run = bench.forward(None).await;
    assert!(failed(&run).contains("it is another object by now"), "{}", failed(&run));
    assert_eq!(calls(&run.records), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_is_listened_to() {
    let keep = [POWER, &["06-wait-for-vm", "06a-uncordon-node"]].concat();
    let keep: Vec<&str> = keep
        .into_iter()
        .flat_map(|id| if id == "05-reboot-vm" { vec!["04a-drain-node", id] } else { vec![id] })
        .collect();
    let bench = Bench::new("usb-move-old", &keep).await;
    let run = bench.forward(None).await;
    done(&run);
    let seen = bench.rig.lab.shared().log.seen();
    let watched = |what: &str| seen.iter().filter(|s| s.line.contains("watch=true") && s.line.contains(what)).count();
    // Pods may have left before anybody could begin to listen.
    assert!(watched("/nodes?fieldSelector=metadata.name") > 0);
    // Whoever has nothing to wait for listens to nothing.
    let before = seen.len();
    done(&bench.forward(None).await);
    let again = bench.rig.lab.shared().log.seen();
    assert!(again.len() > before && !again[before..].iter().any(|s| s.line.contains("watch=true")));
}
