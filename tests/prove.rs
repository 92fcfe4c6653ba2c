//! The proof of a blueprint on a world: idempotent, resumable, undoable, wherever it stops.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may panic and spawn, and says its counts"
)]

use crate::harness::estate::Rig;
use crate::harness::faults::{each, rules};
use crate::harness::odd::{Way, make_odd};
use crate::harness::same::{assert_done, assert_same, assert_undone};
use crate::harness::story::{Story, assert_rebooted, fresh, rebooted, switched_off};
use crate::harness::{How, calls, is_cut};
use pvemig::base::check::Answer;
use pvemig::base::clock::Clock;
use pvemig::base::permit::System;
use pvemig::engine::event::{Event, Record};
use pvemig::engine::point::Point;
use pvemig::engine::run::{Ended, Why};
use pvemig::engine::state::Stage;
use pvemig::engine::step::Seen;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front};

/// Step `n` fails, there and only there; then it goes on as if nothing had been. False where it is a hold that guards
/// nothing: what that would have said does not matter.
async fn fails_there(story: &mut Story, n: usize) -> bool {
    let key = story.rig.steps[n].key();
    let of = |r: &&Record| matches!(&r.event, Event::Applied { key: of, .. } if *of == key);
    let applies = story.run.records.iter().any(|r| of(&r));
    let way = if applies { Way::NoApply } else { Way::NoCheck };
    let id = story.run.id.clone();
    let rig = story.after(n);
    make_odd(rig, way, |k| k == n);
    let stopped = rig.forward(Some(&id), &How::default()).await;
    let needless = |r: &Record| matches!(&r.event, Event::AlreadySo { key: of, needless: true, .. } if *of == key);
    if !applies && stopped.records.iter().any(needless) {
        assert_done(&stopped, &format!("{key}, which guards nothing"));
        return false;
    }
    let Ok(Ended::Stopped(stop)) = &stopped.ended else { panic!("{key}: {:#?}", stopped.ended) };
    // A hold asks what lies between it and its closer before it is put up.
    let by_a_hold = rig.steps[..n].iter().any(|s| s.holds_until().is_some() && s.key() == stop.key);
    assert!(stop.key == key || (!applies && by_a_hold), "{key}: {stop:#?}");
    rig.mend();
    assert_done(&rig.forward(Some(&id), &How::default()).await, &format!("after a failure of {key}"));
    let what = format!("after a failure of {key}");
    assert_rebooted(&story.rig, story.reboots(), &what);
    assert_same(&story.rig.picture().await, &story.last, &what);
    true
}

/// Idempotent, undoable after every step, and a check never changes anything.
async fn prove(world: &str) {
    let begun = Clock::real().instant();
    let mut story = Story::forward(world).await;
    let (id, steps) = (story.run.id.clone(), story.rig.steps.len());
    let all = calls(&story.run.records);
    assert!(all > 1, "{all}");

    let (mut asked, mut turns, mut failed, mut undone) = (0, 0, 0, 0);
    for n in 0..=steps {
        // The question in every state between steps: it changes nothing, and where it is a step's turn that step is
        // not blocked.
        let rig = story.after(n);
        let before = rig.changes();
        for (k, step) in rig.steps.iter().enumerate() {
            let info = rig.bench.store.info(&id, "here").unwrap();
            let held = std::collections::BTreeMap::new();
            let seen = Seen { since: None, got: &[], held: &held, run: &info };
            let answer = step.check(&rig.estate, seen).await;
            if k == n {
                let blocked = matches!(&answer, Ok(check) if matches!(check.answer, Answer::Blocked { .. }));
                assert!(answer.is_ok() && !blocked, "{} at its turn: {answer:#?}", step.id());
                turns += 1;
            }
            asked += 1;
        }
        assert_eq!(rig.changes(), before, "a check changed something after {n} steps");

        if n < steps {
            failed += usize::from(fails_there(&mut story, n).await);
        }
        if n > 0 {
            let rig = story.after(n);
            assert_undone(&rig.backward(&id, &How::default()).await, &format!("undo after {n}"));
            assert_rebooted(&story.rig, story.reboots_with_undo(), &format!("undo after {n}"));
            story.assert_undone(&format!("undo after {n}")).await;
            undone += 1;
        }
    }
    assert_eq!((asked, turns), ((steps + 1) * steps, steps));
    // 04a alone may guard nothing.
    assert!(failed + 1 >= steps, "{failed}");
    assert_eq!(undone, steps);

    // A second run changes nothing; that of a reboot test reboots each node once more.
    let rig = story.after(steps);
    assert_done(&rig.forward(Some(&id), &How::default()).await, "its last line");
    let before = rig.changes();
    let second = rig.forward(None, &How::default()).await;
    assert_done(&second, "second");
    if rebooted(rig).is_empty() {
        assert_eq!((calls(&second.records), rig.changes()), (0, before), "a second run changes nothing");
    }
    assert_eq!(calls(&second.records), rig.changes() - before);
    let twice = story.reboots().start() + 1;
    assert_rebooted(&story.rig, twice..=twice, "second");
    assert_same(&story.rig.picture().await, &story.last, "after a second run");

    // A shorter plan, without the closers of its holds, that is done and undone.
    let mut rig = fresh(world).await;
    rig.steps.truncate(steps / 2);
    let part = rig.forward(None, &How::default()).await;
    assert_done(&part, "half of it");
    assert_undone(&rig.backward(&part.id, &How::default()).await, "half of it");
    story.assert_first(&rig, "half of it, undone").await;

    // Applied twice, undone twice.
    let mut rig = fresh(world).await;
    make_odd(&mut rig, Way::Twice, |_| true);
    let twice = rig.forward(None, &How::default()).await;
    assert_done(&twice, "applied twice");
    assert_same(&rig.picture().await, &story.last, "applied twice");
    assert_rebooted(&rig, story.reboots(), "applied twice");
    assert_eq!(calls(&twice.records), rig.changes());
    assert_undone(&rig.backward(&twice.id, &How::default()).await, "undone twice");
    story.assert_first(&rig, "undone twice").await;
    println!(
        "prove {world}: {steps} steps, {all} calls, {asked} checks asked, {failed} failed and resumed, {undone} undone, \
         in {} s",
        begun.elapsed().as_secs()
    );
}

/// Which way a run goes, and which way it goes on after a cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Forwards, cut, resumed.
    Resume,
    /// Forwards, cut, undone.
    Undo,
    /// Forwards to the end, undone, cut, undone again.
    UndoAgain,
}

/// At how many points the process is really cut: each must leave what its scene shows, and go on as from there.
const CONTROLS: usize = 4;

/// Stopped at every point.
async fn crash(world: &str, then: Then) {
    let mut story = if then == Then::UndoAgain { Story::backward(world).await } else { Story::forward(world).await };
    let scenes = std::mem::take(&mut story.scenes.points);
    // Nothing is undone of a run whose first line was not written.
    let from = usize::from(then == Then::Undo);
    for (point, scene) in &scenes[from..] {
        story.rig.go_back(scene);
        goes_on(&story, &story.rig, then, &format!("{point:?}")).await;
    }

    // How often a drain asks depends on where pods came to be after the first one.
    let first = rebooted(&story.rig).first().map(|name| format!("@{name}")).unwrap_or_default();
    let again = |point: &Point| point.key.contains('@') && !point.key.ends_with(&first);
    let end = scenes.iter().position(|(point, _)| then != Then::UndoAgain && again(point)).unwrap_or(scenes.len());
    let (mut cut, apart) = (0, end / CONTROLS);
    for (point, scene) in scenes[..end].iter().skip(apart / 2).step_by(apart) {
        let what = format!("{point:?}, cut");
        let rig = fresh(world).await;
        let how = How { cut_at: Some(point.n), ..How::default() };
        let run = if then == Then::UndoAgain {
            let run = rig.forward(None, &How::default()).await;
            assert_done(&run, &what);
            rig.backward(&run.id, &how).await
        } else {
            rig.forward(None, &how).await
        };
        assert!(is_cut(&run) && run.id == story.run.id, "{what}: {:#?}", run.ended);
        // Where nodes go down in turn their pods land now here, now there, and so does the count of evictions: there the
        // end alone is the same.
        if rebooted(&rig).is_empty() {
            story.rig.go_back(scene);
            assert_eq!(rig.bench.told(&run.id), story.rig.bench.told(&run.id), "{what}");
            // What is on its way arrives in both before they are compared.
            let (left, scene) = tokio::join!(rig.later(), story.rig.later());
            assert_same(&left, &scene, &what);
        }
        goes_on(&story, &rig, then, &what).await;
        cut += 1;
    }
    let verb = match then {
        Then::Resume => "cut and resumed",
        Then::Undo => "cut and undone",
        Then::UndoAgain => "of the undo cut and undone again",
    };
    let taken = scenes.len() - from;
    println!("crash {world}: {taken} of {} points {verb}", scenes.len());
    // A reboot test has little to take back: what it held it has let go by itself.
    let least = if rebooted(&story.rig).is_empty() { 20 } else { 5 };
    assert!(taken > least && cut >= CONTROLS, "{taken} {cut}");
}

async fn goes_on(story: &Story, rig: &Rig, then: Then, what: &str) {
    let id = Some(story.run.id.as_str());
    if then == Then::Resume {
        assert_done(&rig.forward(id, &How::default()).await, what);
        assert_rebooted(rig, story.reboots(), what);
        assert_same(&rig.picture().await, &story.last, what);
    } else {
        assert_undone(&rig.backward(&story.run.id, &How::default()).await, what);
        assert_rebooted(rig, story.reboots_with_undo(), what);
        story.assert_first(rig, what).await;
    }
}

const RULES: usize = 4;

fn rule(n: usize) -> FaultEffect {
    rules()[n].clone()
}

/// What became of a run that met a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    /// It failed there, and was resumed.
    There,
    /// Another way into the guest carried the command at once.
    Carried,
    /// The call never came.
    Never,
}

/// Every changing call fails once by each rule: the run fails there, and can be resumed.
async fn faults(world: &str) {
    let begun = Clock::real().instant();
    let story = Story::forward(world).await;
    let (story, run) = (&story, &story.run);
    let of = |system: System| {
        run.records.iter().filter(|r| matches!(&r.event, Event::Call { note, .. } if note.system == system)).count()
    };
    let fronts = [
        (Front::Proxmox, of(System::Proxmox)),
        (Front::Kubernetes, of(System::Kubernetes)),
        (Front::Talos, of(System::Talos)),
        (Front::Ssh, of(System::Ssh)),
    ];
    let calls: usize = fronts.iter().map(|(_, calls)| calls).sum();
    let cases = fronts.iter().flat_map(|&(front, calls)| (0..calls).map(move |n| (front, n)));
    let cases = cases.flat_map(|(front, n)| (0..RULES).map(move |turn| (front, n, turn)));
    let one = |(front, n, turn)| async move { (front, n, fault(story, (world, front), n, turn).await) };
    let met: Vec<(Front, usize, Met)> = each(cases, one).await;
    assert_eq!(met.len(), calls * RULES);
    let count = |what: Met| met.iter().filter(|(.., met)| *met == what).count();
    // How often step 10 has to ask Flux again varies with the clock: the last call may not come.
    let last_one = |front: Front, n: usize| fronts.iter().any(|&(of, calls)| of == front && n + 1 == calls);
    assert!(met.iter().all(|&(front, n, met)| met != Met::Never || last_one(front, n)));
    assert_eq!(count(Met::Carried) > 0, of(System::Ssh) > 0);
    println!(
        "faults {world}: {RULES} rules at {calls} changing calls: {} failed there and resumed, {} carried another way, \
         {} behind the end, in {} s",
        count(Met::There),
        count(Met::Carried),
        count(Met::Never),
        begun.elapsed().as_secs()
    );
    assert!(count(Met::There) > calls * (RULES - 1));
}

/// A fresh estate whose changing call `n` of a front meets a rule once.
async fn fault(story: &Story, (world, front): (&str, Front), n: usize, turn: usize) -> Met {
    let last = &story.last;
    let rig = fresh(world).await.hasty();
    let skip = u32::try_from(n).unwrap();
    rig.lab.fault(FaultRule::on(front, rule(turn)).class(Class::Change).skip(skip).times(1));
    let failed = rig.forward(None, &How::default()).await;
    let what = format!("{front:?} call {n} {:?}", rule(turn));
    let hit = rig.lab.shared().clear_faults().iter().any(|rule| rule.met > skip);
    if matches!(failed.ended, Ok(Ended::Done)) {
        assert!(!hit || front == Front::Ssh, "{what}: nobody saw it");
        assert_same(&rig.picture().await, last, &what);
        return if hit { Met::Carried } else { Met::Never };
    }
    let Ok(Ended::Stopped(stop)) = &failed.ended else { panic!("{what}: {:#?}", failed.ended) };
    assert!(matches!(stop.why, Why::Failed { .. }), "{what}: {stop:#?}");
    assert_eq!(rig.bench.read(&failed.id).state.stage(&stop.key), Stage::Begun, "{what}");
    assert_done(&rig.forward(Some(&failed.id), &How::default()).await, &what);
    assert_same(&rig.picture().await, last, &what);
    assert_rebooted(&rig, story.reboots(), &what);
    Met::There
}

/// A question that is answered badly once changes nothing of the outcome: it is asked again, at once or by `resume`.
async fn faults_on_reads(world: &str) {
    let Story { last, rig, .. } = Story::forward(world).await;
    // A plan of reboots goes into no guest, and asks Proxmox little; one of drives not at all, unless they are a VM's.
    let of_drives = switched_off(&rig);
    let (third, few) = if rebooted(&rig).is_empty() && of_drives.is_none() {
        (Front::Ssh, Front::Ssh)
    } else {
        (Front::Talos, Front::Proxmox)
    };
    let first = of_drives.is_none_or(|(_, is_vm)| is_vm).then_some(Front::Proxmox);
    let fronts: Vec<Front> = first.into_iter().chain([Front::Kubernetes, third]).collect();
    let asked = fronts.len();
    let cases = fronts.into_iter().flat_map(|front| (0..RULES).map(move |n| (front, n)));
    let last = &last;
    let one = |(front, n): (Front, usize)| async move {
        let rig = fresh(world).await.hasty();
        let skip = u32::try_from(if front == few { n } else { 9 * n + 3 }).unwrap();
        let class = if front == Front::Ssh { Class::Look } else { Class::Read };
        rig.lab.fault(FaultRule::on(front, rule(n)).class(class).skip(skip).times(1));
        let what = format!("{front:?} read {skip} {:?}", rule(n));
        let mut run = rig.forward(None, &How::default()).await;
        if let Ok(Ended::Stopped(_)) = &run.ended {
            run = rig.forward(Some(&run.id), &How::default()).await;
        }
        assert_done(&run, &what);
        assert_same(&rig.picture().await, last, &what);
        assert_rebooted(&rig, 1..=1, &what);
        let hit: u32 = rig.lab.shared().clear_faults().iter().map(|rule| rule.met).sum();
        assert!(hit > skip, "{what}: no such read");
    };
    let met = each(cases, one).await.len();
    assert_eq!(met, asked * RULES);
    println!("faults {world}: {met} at reads");
}

/// A push that is refused stops 09a; once it is taken, the run goes on.
async fn a_refused_push(world: &str) {
    let last = Story::forward(world).await.last;
    let rig = fresh(world).await;
    let refuse = rig.dir().join("gitops.git/refuse");
    std::fs::write(&refuse, "the branch is frozen tonight").unwrap();
    let stopped = rig.forward(None, &How::default()).await;
    let Ok(Ended::Stopped(stop)) = &stopped.ended else { panic!("{:#?}", stopped.ended) };
    assert_eq!(stop.key.as_str(), "09a-update-manifests", "{stop:#?}");
    std::fs::remove_file(&refuse).unwrap();
    assert_done(&rig.forward(Some(&stopped.id), &How::default()).await, "the push is taken");
    assert_same(&rig.picture().await, &last, "the push is taken");
}

/// The remote takes the push and dies before it says so: 09a stops, and its commit is found there and not made again.
async fn a_push_whose_answer_is_lost(world: &str) {
    let last = Story::forward(world).await.last;
    let rig = fresh(world).await;
    let repository = rig.dir().join("gitops.git");
    let hook = repository.join("hooks/post-receive");
    std::fs::write(&hook, "#!/bin/sh\nkill -9 $PPID\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let commits = || {
        let mut count = std::process::Command::new("git");
        count.args(["rev-list", "--count", "main"]).current_dir(&repository);
        String::from_utf8(count.output().unwrap().stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    let before = commits();
    let stopped = rig.forward(None, &How::default()).await;
    let Ok(Ended::Stopped(stop)) = &stopped.ended else { panic!("{:#?}", stopped.ended) };
    let Why::Failed { error, .. } = &stop.why else { panic!("{stop:#?}") };
    assert_eq!(stop.key.as_str(), "09a-update-manifests", "{stop:#?}");
    assert!(error.join(" ").contains("not known whether"), "{error:?}");
    std::fs::remove_file(&hook).unwrap();
    assert_done(&rig.forward(Some(&stopped.id), &How::default()).await, "it was taken");
    assert_eq!(commits(), before + 1);
    assert_same(&rig.picture().await, &last, "it was taken");
}

macro_rules! proofs {
    ($($(#[$why:meta])* $name:ident: $proof:expr;)*) => {
        $(
            $(#[$why])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $proof.await;
            }
        )*
    };
}

proofs! {
    a_move_of_drives_is_proven: prove("nvme-data");
    a_move_of_drives_with_a_new_volume_survives_a_cut_and_a_resume: crash("nvme-data+scratch", Then::Resume);
    a_move_of_drives_with_a_new_volume_survives_a_cut_and_an_undo: crash("nvme-data+scratch", Then::Undo);
    a_move_of_drives_with_a_new_volume_survives_a_cut_of_its_undo: crash("nvme-data+scratch", Then::UndoAgain);
    a_move_of_drives_with_a_new_volume_survives_failing_changes: faults("nvme-data+scratch");
    #[ignore = "takes long: ./scripts/test --long"]
    a_move_of_drives_with_a_new_volume_is_proven: prove("nvme-data+scratch");
    #[ignore = "takes long: ./scripts/test --long"]
    a_move_of_drives_survives_a_cut_and_a_resume: crash("nvme-data", Then::Resume);
    #[ignore = "takes long: ./scripts/test --long"]
    a_move_of_drives_survives_a_cut_and_an_undo: crash("nvme-data", Then::Undo);
    #[ignore = "takes long: ./scripts/test --long"]
    a_move_of_drives_survives_a_cut_of_its_undo: crash("nvme-data", Then::UndoAgain);
    a_move_of_drives_survives_failing_reads: faults_on_reads("nvme-data");
    a_move_of_a_system_disk_is_proven: prove("nvme-system");
    a_move_of_drives_of_a_vm_is_proven: prove("nvme-data-vm");
    a_move_of_drives_of_a_vm_by_a_mapping_is_proven: prove("nvme-data-vm-mapped");
    a_move_of_drives_of_a_vm_survives_failing_changes: faults("nvme-data-vm");
    a_move_of_drives_of_a_vm_by_a_mapping_survives_failing_changes: faults("nvme-data-vm-mapped");
    a_move_of_drives_of_a_vm_survives_failing_reads: faults_on_reads("nvme-data-vm");
    usb_move_is_proven: prove("usb-move");
    usb_move_on_an_old_machine_is_proven: prove("usb-move-old");
    usb_move_by_a_token_and_a_mapping_is_proven: prove("usb-move-token");
    usb_move_by_a_token_and_a_mapping_survives_a_cut_and_a_resume: crash("usb-move-token", Then::Resume);
    usb_move_by_a_token_and_a_mapping_survives_a_cut_and_an_undo: crash("usb-move-token", Then::Undo);
    usb_move_survives_a_cut_and_a_resume: crash("usb-move", Then::Resume);
    usb_move_survives_a_cut_and_an_undo: crash("usb-move", Then::Undo);
    usb_move_survives_a_cut_of_its_undo: crash("usb-move", Then::UndoAgain);
    usb_move_survives_failing_changes: faults("usb-move");
    usb_move_survives_failing_reads: faults_on_reads("usb-move");
    usb_move_survives_a_refused_push: a_refused_push("usb-move");
    usb_move_survives_a_push_whose_answer_is_lost: a_push_whose_answer_is_lost("usb-move");
    a_reboot_test_is_proven: prove("talos-three");
    a_reboot_test_that_adds_modules_is_proven: prove("talos-three-no-modules:talos-nuc");
    a_reboot_test_of_another_image_is_proven: prove("talos-three-wrong-image:talos-vm");
    a_reboot_test_that_boots_an_image_itself_is_proven: prove("talos-three-wrong-image@1.13.9:talos-vm");
    a_reboot_test_survives_a_cut_and_a_resume: crash("talos-three:talos-vm,talos-nuc", Then::Resume);
    a_reboot_test_survives_a_cut_and_an_undo: crash("talos-three:talos-vm,talos-nuc", Then::Undo);
    a_reboot_test_survives_a_cut_of_its_undo: crash("talos-three:talos-vm,talos-nuc", Then::UndoAgain);
    a_reboot_test_that_adds_modules_survives_a_cut_and_a_resume: crash("talos-three-no-modules:talos-nuc", Then::Resume);
    a_reboot_test_that_adds_modules_survives_a_cut_and_an_undo: crash("talos-three-no-modules:talos-nuc", Then::Undo);
    a_reboot_test_that_adds_modules_survives_a_cut_of_its_undo: crash("talos-three-no-modules:talos-nuc", Then::UndoAgain);
    a_reboot_test_of_another_image_survives_a_cut_and_a_resume: crash("talos-three-wrong-image:talos-vm", Then::Resume);
    a_reboot_test_of_another_image_survives_a_cut_and_an_undo: crash("talos-three-wrong-image:talos-vm", Then::Undo);
    a_reboot_test_of_another_image_survives_a_cut_of_its_undo: crash("talos-three-wrong-image:talos-vm", Then::UndoAgain);
    a_reboot_test_that_boots_an_image_itself_survives_a_cut_and_a_resume: crash("talos-three-wrong-image@1.13.9:talos-vm", Then::Resume);
    #[ignore = "takes long: ./scripts/test --long"]
    a_reboot_test_that_boots_an_image_itself_survives_a_cut_and_an_undo: crash("talos-three-wrong-image@1.13.9:talos-vm", Then::Undo);
    #[ignore = "takes long: ./scripts/test --long"]
    a_reboot_test_that_boots_an_image_itself_survives_a_cut_of_its_undo: crash("talos-three-wrong-image@1.13.9:talos-vm", Then::UndoAgain);
    a_reboot_test_survives_failing_changes: faults("talos-three");
    a_reboot_test_survives_failing_reads: faults_on_reads("talos-three");
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_on_an_old_machine_survives_a_cut_and_a_resume: crash("usb-move-old", Then::Resume);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_on_an_old_machine_survives_a_cut_and_an_undo: crash("usb-move-old", Then::Undo);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_on_an_old_machine_survives_a_cut_of_its_undo: crash("usb-move-old", Then::UndoAgain);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_by_a_token_and_a_mapping_survives_a_cut_of_its_undo: crash("usb-move-token", Then::UndoAgain);
    #[ignore = "takes long: ./scripts/test --long"]
    usb_move_on_an_old_machine_survives_failing_changes: faults("usb-move-old");
    #[ignore = "takes long: ./scripts/test --long"]
    a_reboot_test_that_adds_modules_survives_failing_changes: faults("talos-three-no-modules:talos-nuc");
    #[ignore = "takes long: ./scripts/test --long"]
    a_reboot_test_of_another_image_survives_failing_changes: faults("talos-three-wrong-image:talos-vm");
    #[ignore = "takes long: ./scripts/test --long"]
    a_reboot_test_that_boots_an_image_itself_survives_failing_changes: faults("talos-three-wrong-image@1.13.9:talos-vm");
}
