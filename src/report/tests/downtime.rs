//! How long what a run stopped was down.

use super::*;

#[test]
fn how_long_it_was_down_is_told_by_the_journal() {
    let stopper = StepKey::from("00d-scale-down");
    let of = |lines: &Lines| outages(&lines.0, "Deployment frigate/frigate", &stopper, "10-deploy");
    let seconds = |outage: &Outage| outage.elapsed.map(|elapsed| elapsed.as_secs());
    assert!(of(&Lines::open()).is_empty());
    // It goes on as long as nobody brings it back.
    let down = of(&failed());
    assert_eq!((down.len(), seconds(&down[0]), &down[0].end), (1, None, &End::Down));
    // The journal's last line is no end, and a report of the next morning says so.
    let mut report = failed().report();
    report.outages = down;
    let line = "down: Deployment frigate/frigate since 04:00:04, from the first change of 00d, and not back by what is \
                written (the last line is of 04:00:15)";
    assert!(text(&report).contains(line), "{}", text(&report));
    assert_eq!(json(&report).unwrap()["outages"][0]["elapsed_ms"], Value::Null);
    // From the first change, not from the intent, to the closer's end.
    let ready = of(&done());
    assert_eq!((ready.len(), seconds(&ready[0])), (1, Some(20)));
    assert_eq!(ready[0].end, End::Ready("10-deploy".into()));
    let mut report = done().report();
    report.outages = ready;
    let line = "down: Deployment frigate/frigate for 20 s (04:00:04 to 04:00:24), from the first change of 00d until 10 \
                found it at work";
    assert!(text(&report).contains(line), "{}", text(&report));
    assert!(markdown(&report).contains(&format!("- {line}")), "{}", markdown(&report));
    assert_eq!(json(&report).unwrap()["outages"][0]["elapsed_ms"], 20_000);
    assert_eq!(json(&report).unwrap()["outages"][0]["end"], json!({"is": "ready", "by": "10-deploy"}));

    // An undo puts the hold up again, and gives it back; what it sends for that is no second fall.
    let mut lines = done();
    lines.applying("00d-scale-down", Change::set("replicas", "1", "0"));
    lines.call("00d-scale-down", 5, System::Kubernetes, "PATCH deployments/frigate", None);
    lines.applied("00d-scale-down");
    lines.add(Event::HoldFell { key: stopper.clone(), changes: vec![], notes: vec![] });
    lines.add(Event::Undoing { key: stopper.clone() });
    lines.call("00d-scale-down", 6, System::Kubernetes, "PATCH deployments/frigate", None);
    lines.add(Event::Undone { key: stopper.clone(), passed: false, notes: vec![], stays: Vec::new() });
    let both = of(&lines);
    assert_eq!(both.len(), 2);
    assert_eq!((seconds(&both[1]), both[1].fell), (Some(5), true));
    assert_eq!(both[1].end, End::GivenBack("00d-scale-down".into()));
}

#[test]
fn what_another_run_stopped_was_down_since_then() {
    let stopper = StepKey::from("00d-scale-down");
    let of = |lines: &Lines| outages(&lines.0, "Deployment frigate/frigate", &stopper, "10-deploy").remove(0);
    let shown = |outage: Outage| {
        let mut report = done().report();
        report.outages = vec![outage];
        (text(&report), json(&report).unwrap()["outages"][0].clone())
    };
    let evening = of(&done()).from.checked_sub(jiff::SignedDuration::from_hours(5)).unwrap();
    let (said, data) = shown(of(&done()).begun(Some(("6jq".into(), evening))));
    let line = "down: Deployment frigate/frigate for 5 h 0 min (2026-11-20 23:00:04 to 04:00:24), from the first change of 00d in \
                run 6jq, whose hold this one took over, until 10 found it at work";
    assert!(said.contains(line), "{said}");
    assert_eq!((&data["began"], &data["elapsed_ms"]), (&json!({"is": "in-run", "run": "6jq"}), &json!(18_020_000)));
    let (said, data) = shown(of(&done()).begun(None));
    let line = "down: Deployment frigate/frigate before this run began (since when is not known; 00d took the hold over at \
                04:00:04), until 10 found it at work at 04:00:24";
    assert!(said.contains(line), "{said}");
    assert_eq!((&data["began"]["is"], &data["elapsed_ms"]), (&json!("before"), &Value::Null));
    // The report of the run that was given up ends where the other one's begins.
    let mut left = of(&failed());
    left.end = End::Elsewhere("00d".into());
    let (said, _) = shown(left);
    assert!(said.contains("and run 00d went on with that hold: `pvemig report 00d` says until when"), "{said}");
}

#[test]
fn a_stop_that_failed_is_no_time_of_being_down() {
    let stopper = StepKey::from("00d-scale-down");
    let of = |lines: &Lines| outages(&lines.0, "Deployment frigate/frigate", &stopper, "10-deploy");
    let failure = || Event::Failed {
        key: stopper.clone(),
        error: vec!["403".into()],
        effect: Effect::Partial,
        help: Vec::new(),
        voids: Vec::new(),
    };
    let mut refused = Lines::open();
    refused.applying("00d-scale-down", Change::set("replicas", "1", "0"));
    refused.call("00d-scale-down", 1, System::Kubernetes, "PATCH deployments/frigate", None);
    refused.add(failure());
    let ends = |lines: &Lines| of(lines).into_iter().map(|outage| outage.end).collect::<Vec<_>>();
    assert_eq!(ends(&refused), [End::Unsure]);
    let mut report = refused.report();
    report.outages = of(&refused);
    let shown = text(&report);
    assert!(shown.contains("down: Deployment frigate/frigate maybe, from "), "{shown}");
    assert!(shown.contains(" and had not seen it stop"), "{shown}");
    // The next morning it is done: down from that call on, not from the evening's.
    let mut again = Lines(refused.0.clone());
    again.applying("00d-scale-down", Change::set("replicas", "1", "0"));
    again.call("00d-scale-down", 2, System::Kubernetes, "PATCH deployments/frigate", None);
    let second = again.0.last().unwrap().at;
    again.applied("00d-scale-down");
    let both = of(&again);
    assert_eq!(both.iter().map(|o| o.end.clone()).collect::<Vec<_>>(), [End::Unsure, End::Down]);
    assert_eq!(both[1].from, second);
    // Its answer was lost and it was carried out: the check says so, and nothing is sent again.
    let mut lost = Lines(refused.0.clone());
    lost.applied("00d-scale-down");
    assert_eq!(ends(&lost), [End::Down]);
    // An undo that has nothing to send found it at work.
    refused.add(Event::Undoing { key: stopper.clone() });
    refused.add(Event::Undone { key: stopper.clone(), passed: false, notes: vec![], stays: Vec::new() });
    assert_eq!(ends(&refused), [End::Unsure]);
}

#[test]
fn what_goes_down_with_its_node_is_told_from_the_notes_of_the_drain() {
    let stopper = StepKey::from("00d-scale-down");
    let note = crate::base::check::with_node("home/mosquitto-0", "volume pv/x is on this node alone");
    let of = |lines: &Lines| ended(&lines.0, &stopper, "10-deploy");
    let mut lines = Lines::open();
    lines.checked("00d-scale-down", "todo", &[&note, "pod home/web: emptyDir tmp"]);
    // Of another step it says nothing, and what was not begun ended nothing.
    lines.checked("04-add-usb", "todo", &[&crate::base::check::with_node("home/other", "x")]);
    assert!(of(&lines).is_empty());
    lines.applying("00d-scale-down", Change::act("pod home/mosquitto-0 is evicted"));
    lines.call("00d-scale-down", 1, System::Kubernetes, "POST eviction", None);
    lines.checked("00d-scale-down", "waiting", &[&note]);
    lines.applied("00d-scale-down");
    let down = of(&lines);
    assert_eq!(
        down.iter().map(|o| (o.what.as_str(), &o.end)).collect::<Vec<_>>(),
        [("pod home/mosquitto-0", &End::Down)]
    );
    lines.applying("10-deploy", Change::act("reconcile"));
    lines.applied("10-deploy");
    let mut report = lines.report();
    report.outages = of(&lines);
    let line = "down: pod home/mosquitto-0 for 4 s (04:00:04 to 04:00:08), from the first change of 00d until 10 let it \
                back (when it was ready again is not written)";
    assert!(text(&report).contains(line), "{}", text(&report));
    assert_eq!(json(&report).unwrap()["outages"][0]["end"], json!({"is": "let-back", "by": "10-deploy"}));
}

/// What comes in the place of a pod has another name: it was not down when the first one was.
#[test]
fn a_pod_that_was_evicted_is_told_of_its_own_time_alone() {
    let stopper = StepKey::from("00d-scale-down");
    let of = |lines: &Lines| ended(&lines.0, &stopper, "10-deploy");
    let drained = |lines: &mut Lines, pod: &str, call: u64| {
        let note = crate::base::check::with_node(pod, "volume pv/x is on this node alone");
        lines.checked("00d-scale-down", "todo", &[&note]);
        lines.applying("00d-scale-down", Change::act("it is evicted"));
        lines.call("00d-scale-down", call, System::Kubernetes, "POST eviction", None);
    };
    let said = |lines: &Lines| of(lines).into_iter().map(|outage| (outage.what, outage.end)).collect::<Vec<_>>();
    let mut lines = Lines::open();
    drained(&mut lines, "home/web-a", 1);
    lines.applied("00d-scale-down");
    lines.applying("10-deploy", Change::act("reconcile"));
    lines.applied("10-deploy");
    drained(&mut lines, "home/web-b", 2);
    lines.applied("00d-scale-down");
    let back = || End::LetBack("10-deploy".into());
    assert_eq!(said(&lines), [("pod home/web-a".into(), back()), ("pod home/web-b".into(), End::Down)]);

    // What a drain that failed has evicted is away in the next one too.
    let mut lines = Lines::open();
    drained(&mut lines, "home/web-a", 1);
    let (error, help, voids) = (vec!["403".into()], Vec::new(), Vec::new());
    lines.add(Event::Failed { key: stopper.clone(), error, effect: Effect::Partial, help, voids });
    drained(&mut lines, "home/web-b", 2);
    lines.applied("00d-scale-down");
    let all = ["a", "a", "b"].map(|pod| format!("pod home/web-{pod}"));
    let ends = [End::Unsure, End::Down, End::Down];
    assert_eq!(said(&lines), all.into_iter().zip(ends).collect::<Vec<_>>());
}

#[test]
fn what_a_later_run_knows_of_its_end_is_told_with_it() {
    let stopper = StepKey::from("00d-scale-down");
    let mut outage = outages(&failed().0, "Deployment frigate/frigate", &stopper, "10-deploy").remove(0);
    let shown = |outage: &Outage| {
        let mut report = done().report();
        report.outages = vec![outage.clone()];
        (text(&report), json(&report).unwrap()["outages"][0].clone())
    };
    outage.until = outage.from.checked_add(jiff::SignedDuration::from_secs(90)).ok();
    outage.end = End::SeenBy("6jq".into());
    let (said, data) = shown(&outage);
    let line = "down: Deployment frigate/frigate from 04:00:04, to 04:01:34 at the latest, from the first change of 00d until \
                run 6jq found it at work, which it may have been long before";
    assert!(said.contains(line), "{said}");
    assert_eq!((&data["end"], &data["elapsed_ms"]), (&json!({"is": "seen-by", "by": "6jq"}), &Value::Null));
    outage.end = End::LetBackBy("6jq".into());
    assert!(shown(&outage).0.contains("until run 6jq let it back (when it was ready again is not written)"));
    // Where it was switched on as the run had asked, nobody did anything behind its back.
    outage.fell = true;
    assert!(shown(&outage).0.contains("; somebody took the hold down meanwhile"));
    outage.as_asked = true;
    let (said, data) = shown(&outage);
    assert!(
        said.contains("; it was switched on meanwhile, as the run had asked, so") && !said.contains("somebody"),
        "{said}"
    );
    assert_eq!(data["as_asked"], true);
}

#[test]
fn what_a_step_takes_down_by_itself_is_back_with_its_own_end() {
    let key = StepKey::from("04-add-usb");
    let of = |lines: &Lines| outages(&lines.0, "node", &key, "04-add-usb");
    let mut lines = Lines::open();
    lines.applying("04-add-usb", Change::set("image", "a", "b"));
    assert!(of(&lines).is_empty());
    lines.call("04-add-usb", 1, System::Talos, "Upgrade", None);
    assert_eq!(of(&lines)[0].end, End::Down);
    lines.applied("04-add-usb");
    let whole = of(&lines);
    assert_eq!((whole.len(), &whole[0].end), (1, &End::Ready("04-add-usb".into())));
    assert!(whole[0].elapsed.is_some());
}
