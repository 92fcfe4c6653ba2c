//! What an undo must not call back as it was.

use super::*;
use pvemig::report;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_came_back_at_the_slow_side_of_its_socket_is_not_back() {
    let bench = Bench::new("usb-move", &["03-check-host-hardware"]).await;
    let how = How { no_hands: true, ..How::default() };
    let run = bench.rig.forward(None, &how).await;
    let Ok(Ended::Stopped(stop)) = &run.ended else { panic!("{:?}", run.ended) };
    assert!(matches!(stop.why, Why::Manual { .. }), "{stop:?}");
    let at = |port: &str| {
        let place = Some(Place { host: "pumped-piglet".into(), port: port.into() });
        bench.rig.lab.shared().change(|world| world.move_stick("coral", place).unwrap());
    };
    at("1-1");
    let slow = bench.rig.backward(&run.id, &how).await;
    let Ok(Ended::Stopped(stop)) = &slow.ended else { panic!("{:?}", slow.ended) };
    let Why::Manual { ask, hint, .. } = &stop.why else { panic!("{stop:?}") };
    assert!(ask.contains("replug") && hint.as_ref().unwrap().contains("480 Mbit/s"), "{ask}: {hint:?}");
    at("2-1");
    let undone = bench.rig.backward(&run.id, &how).await;
    assert!(matches!(undone.ended, Ok(Ended::Undone)), "{:?}", undone.ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_leaves_with_the_next_power_cycle_only_is_said_to_stay() {
    let bench = Bench::new("usb-move", &["01-remove-usb", "03-check-host-hardware", "04-add-usb"]).await;
    let run = bench.rig.forward(None, &How::default()).await;
    assert!(matches!(run.ended, Ok(Ended::Done)), "{:?}", run.ended);
    bench.rig.lab.shared().change(|world| world.vms.get_mut(&108).unwrap().guest.holds_usb = true);
    let undone = bench.rig.backward(&run.id, &How::default()).await;
    assert!(matches!(undone.ended, Ok(Ended::Undone)), "{:?}", undone.ended);
    let pending = bench.rig.lab.shared().read(|world| world.vms[&108].pending_delete.len());
    let records = bench.rig.bench.read(&run.id).records;
    let stays: Vec<_> = report::stays(&records).map(|(key, why)| format!("{key}: {why}")).collect();
    let of_108 = stays.iter().filter(|line| line.contains("stays in vm 108 until its next power cycle")).count();
    assert!(pending > 0 && of_108 == pending, "{pending}: {stays:?}");
}
