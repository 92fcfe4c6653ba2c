//! A workload of a kind that is scaled by its subresource `scale` alone: two calls, and a crash between them.

use super::*;
use crate::harness::is_cut;
use crate::harness::same::assert_same;
use pvemig::engine::point::{Point, Side};

const ROLL: &str = "/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts/roll";

/// A lab with a rollout of two, and the step that takes it down.
async fn rollout() -> Bench {
    let mut bench = Bench::new("usb-move", &["00d-scale-down"]).await;
    bench.rig.lab.shared().change(|world| assert!(world.kube.absent.remove("argoproj.io")));
    let labels = json!({"app": "roll"});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": "registry.invalid/main:1"}]}}});
    let all = ROLL.strip_suffix("/roll").unwrap();
    bench.post(all, json!({"metadata": {"name": "roll"}, "spec": spec})).await;
    // What its controller would write.
    bench.patch(&format!("{ROLL}/status"), json!({"status": {"replicas": 2, "selector": "app=roll"}})).await;
    let mut fields = bench.rig.steps[0].fields().unwrap();
    fields["work"]["kind"] = json!("Rollout.argoproj.io");
    fields["work"]["name"] = json!("roll");
    bench.rig.steps[0] = blueprint::named("usb-move").unwrap().rebuild("00d-scale-down", &fields).unwrap();
    bench
}

/// The count, and the mark's run where there is a mark.
async fn state(bench: &Bench) -> (i64, Option<String>) {
    let now = bench.get(ROLL).await;
    let mark = now["metadata"]["annotations"][MARK].as_str().map(|text| Mark::parse(text).unwrap());
    assert!(mark.iter().all(|mark| mark.was == json!({"replicas": 2})), "{mark:?}");
    (now["spec"]["replicas"].as_i64().unwrap(), mark.map(|mark| mark.run))
}

/// Which of its two addresses each change went to, from the `from`th on.
fn sent(bench: &Bench, from: usize) -> Vec<&'static str> {
    let seen = bench.rig.lab.shared().log.seen();
    let changes = seen.iter().filter(|s| s.class == Class::Change).skip(from);
    changes.map(|s| if s.line.contains("/rollouts/roll/scale") { "scale" } else { "mark" }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_is_up_before_the_count_goes_and_until_it_is_back() {
    let bench = rollout().await;
    let first = bench.rig.picture().await;
    let pod = json!({"metadata": {"name": "roll-1", "labels": {"app": "roll"}}, "spec": {"nodeName": SOURCE,
        "containers": [{"name": "main", "image": "registry.invalid/main:1"}]}});
    bench.post("/api/v1/namespaces/shop/pods", pod).await;
    let before = bench.rig.changes();
    // Nobody takes the pod away, until somebody does.
    let short = How { limit: Some(std::time::Duration::from_secs(5)), ..How::default() };
    let run = bench.rig.forward(None, &short).await;
    let Why::Failed { error, .. } = &stop(&run).why else { panic!("{:#?}", run.ended) };
    assert!(error[0].contains("still there: pod roll-1"), "{error:?}");
    assert_eq!((calls(&run.records), sent(&bench, before)), (2, vec!["mark", "scale"]));
    bench.send("DELETE", "/api/v1/namespaces/shop/pods/roll-1", "application/json", &json!({})).await;
    let run = bench.forward(Some(&run.id)).await;
    done(&run);
    assert_eq!((calls(&run.records), state(&bench).await), (0, (0, Some(run.id.clone()))));

    let before = bench.rig.changes();
    let back = bench.rig.backward(&run.id, &How::default()).await;
    undone(&back);
    assert_eq!((calls(&back.records), sent(&bench, before)), (2, vec!["scale", "mark"]));
    assert_eq!(state(&bench).await, (2, None));
    assert_same(&bench.rig.picture().await, &first, "back");
}

/// A run that is cut at one point.
async fn cut(bench: &Bench, point: &Point, back: bool) -> Run {
    let how = How { cut_at: Some(point.n), ..How::default() };
    let run = if back {
        let run = bench.forward(None).await;
        done(&run);
        bench.rig.backward(&run.id, &how).await
    } else {
        bench.rig.forward(None, &how).await
    };
    assert!(is_cut(&run), "{point:?}");
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_mark_and_count_is_resumed_and_undone() {
    let bench = rollout().await;
    let there = bench.forward(None).await;
    done(&there);
    let back = bench.rig.backward(&there.id, &How::default()).await;
    undone(&back);
    // Before the second call is written down, before it goes out, and before its answer is taken in.
    let around = |run: &Run| {
        let calls: Vec<Point> = run.points.passed().into_iter().filter(|p| p.key == "00d-scale-down").collect();
        let sent = calls.iter().enumerate().filter(|(_, p)| p.side == Side::Sent).nth(1).unwrap().0;
        calls[sent - 1..=sent + 1].to_vec()
    };
    let mut cuts = 0;
    for (points, backwards) in [(around(&there), false), (around(&back), true)] {
        for (n, point) in points.iter().enumerate() {
            let bench = rollout().await;
            let first = bench.rig.picture().await;
            let run = cut(&bench, point, backwards).await;
            let gone = !backwards && n == 2;
            assert_eq!(state(&bench).await.0, if gone { 0 } else { 2 }, "{point:?}");
            if !backwards {
                assert_eq!(state(&bench).await.1, Some(run.id.clone()), "{point:?}");
                done(&bench.forward(Some(&run.id)).await);
                assert_eq!(state(&bench).await, (0, Some(run.id.clone())), "{point:?}");
            }
            undone(&bench.rig.backward(&run.id, &How::default()).await);
            assert_same(&bench.rig.picture().await, &first, &format!("{point:?}"));
            if !backwards {
                let bench = rollout().await;
                let run = cut(&bench, point, false).await;
                undone(&bench.rig.backward(&run.id, &How::default()).await);
                assert_same(&bench.rig.picture().await, &first, &format!("{point:?}, undone at once"));
                cuts += 1;
            }
            cuts += 1;
        }
    }
    assert_eq!(cuts, 9);
}
