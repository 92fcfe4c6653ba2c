//! What `00-preflight` says of a plan before anything is moved, on the worlds in which something is in the way.

use pvemig::blueprint::nvme_move::BLUEPRINT;
use pvemig::engine::run::{Ended, Why};

use super::*;

const PARAMS: &str = "\
node: talos-nuc
scenario: data
drives:
  sys: { serial: S5GXNF0R601234, purpose: system }
  media: { serial: 22471A806001, purpose: user-volume media }
  pool: { serial: S676NF0W712345, model: SAMSUNG MZVL21T0HCLR-00B00, size: 1024209543168, purpose: spare, new: true }
current: { M2_1: sys, M2_2: media }
target: { M2_1: sys, M2_3: media, M2_2: pool }
";

/// A run of the preflight alone, of a migration in the site file: finding and text of each problem.
async fn looked(world: World, edit: impl FnOnce(&mut Value)) -> (Rig, Run, Vec<(String, String)>) {
    let params: Value = serde_saphyr::from_str(PARAMS).unwrap();
    let mut rig = rig_of(world, |site| {
        site["migrations"]["zz-drives"] = json!({ "blueprint": "nvme-move", "params": params });
        edit(site);
    })
    .await;
    let steps = BLUEPRINT.build(&rig.site, "zz-drives").unwrap();
    assert_eq!(steps[0].id(), "00-preflight");
    rig.steps = steps.into_iter().take(1).collect();
    let before = rig.changes();
    let run = rig.forward(None, &How::default()).await;
    assert_eq!((rig.changes(), calls(&run.records)), (before, 0));
    let problems = if let Ok(Ended::Stopped(stop)) = &run.ended
        && let Why::Blocked(problems) = &stop.why
    {
        problems.iter().map(|one| (one.finding.as_deref().unwrap_or_default().to_owned(), one.text.clone())).collect()
    } else {
        assert_done(&run, "the preflight alone");
        Vec::new()
    };
    (rig, run, problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_in_the_way_of_a_plan_that_fits_and_it_is_drawn() {
    let (_, run, problems) = looked(at_rest("nvme-data"), |_| {}).await;
    assert_eq!(problems, []);
    let notes = notes(&run, "00-preflight");
    assert!(notes.contains("media <- M2_2") && notes.contains("pool <- outside"), "{notes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_is_found_before_anything_is_changed() {
    let worlds = [
        ("nvme-data-by-path", "selector-goes-by-place", "goes by place, and may mean another drive after the move"),
        ("nvme-data-two-match", "selector-matches-several", "once pool is in M2_2"),
        ("nvme-data-only-replica", "replicas-not-elsewhere", "has no sound replica on another node than talos-nuc"),
        ("nvme-data-rebuild", "rebuild-is-running", "is being rebuilt"),
    ];
    let mut met = 0;
    for (world, finding, words) in worlds {
        let (_, _, problems) = looked(at_rest(world), |_| {}).await;
        let found = problems.iter().any(|(name, text)| name == finding && text.contains(words));
        assert!(found, "{world}: {problems:#?}");
        met += 1;
    }
    assert_eq!(met, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_does_not_fit_the_machine_is_found_before_anything_is_changed() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str, &str); 4] = [
        (
            |site| {
                drop(
                    site.pointer_mut("/talos/homelab/nodes/talos-nuc")
                        .unwrap()
                        .as_object_mut()
                        .unwrap()
                        .remove("out_of_band"),
                )
            },
            "no-second-way-to-see-it-off",
            "nothing but Talos tells whether talos-nuc is on",
        ),
        (
            |site| of(site)["drives"]["media"]["serial"] = json!("22471A806009"),
            "drives-unaccounted",
            "media (22471A806009) is not in the machine",
        ),
        (
            |site| of(site)["drives"]["media"]["purpose"] = json!("user-volume films"),
            "purpose-differs",
            "is for user-volume media",
        ),
        (
            |site| of(site)["target"] = json!({ "M2_1": "sys", "M2_2": "pool" }),
            "drive-leaves-with-data",
            "media (22471A806001) leaves the machine with",
        ),
    ];
    let mut met = 0;
    for (edit, finding, words) in cases {
        let (_, _, problems) = looked(at_rest("nvme-data"), edit).await;
        let found = problems.iter().any(|(name, text)| name == finding && text.contains(words));
        assert!(found, "{finding}: {problems:#?}");
        met += 1;
    }
    assert_eq!(met, 4);
}

fn of(site: &mut Value) -> &mut Value {
    site.pointer_mut("/migrations/zz-drives/params").unwrap()
}

/// Between 00 and the moment it goes off lie hours of a drain: 03 asks Mayastor once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mayastor_is_asked_again_before_it_goes_off() {
    let cases = [
        ("nvme-data-only-replica", "has no sound replica on another node than talos-nuc"),
        ("nvme-data-rebuild", "is being rebuilt"),
    ];
    for (world, words) in cases {
        let mut rig = Rig::of(at_rest(world), |_| {}).await;
        rig.steps.retain(|step| ["01-backup", "02-drain", "03-shutdown"].contains(&step.id()));
        let starts = bays(&rig).1;
        let run = rig.forward(None, &How::default()).await;
        let (key, text) = why(&run);
        assert!(key == "03-shutdown" && text.contains(words), "{world}: {key} {text}");
        assert_eq!(bays(&rig).1, starts, "{world}");
    }
    assert_eq!(cases.len(), 2);
}
