//! Who goes down meanwhile: what the migration itself stops, and what lives on the same node.

use super::seen::{unanswered, without_styles};
use super::{Up, expect};

/// The words of a text, one blank between them.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_a_power_cycle_ends_is_told_before_and_after() {
    let up = Up::new("usb-move-old", "manual");
    let plan = up.run(&["plan", "frigate-coral"]);
    // What is certain is not said to be possible, and read by a program no line is broken.
    expect(
        &plan,
        0,
        &[
            "will be    04a: node k3s-vm-still-fawn is drained\n",
            "will be    05: vm 108 is power-cycled: it does not take the device while it runs\n",
            " as well, which can be nowhere else: from 04a until 06a\n",
        ],
    );
    assert!(!plan.stdout.contains("  may be "), "{}", plan.stdout);
    let ends = plan.stdout.lines().find(|line| line.contains("as well, which")).unwrap();
    assert!(ends.contains("mosquitto"), "{ends}");

    // One step alone: nobody has stopped the workload, and nobody drains.
    let (code, text) = unanswered(&up, "step 01");
    assert_eq!(code, Some(130), "{text}");
    let down = "down Deployment frigate/frigate, where it is at work: 01 alone neither stops it first (`pvemig step \
                00d-scale-down` does) nor brings it back";
    assert!(words(&text).contains(down), "{text}");
    let first = up.run(&["step", "01", "--yes"]);
    // Who is not asked is told as well.
    expect(
        &first,
        0,
        &[&down.replacen("down ", "notice: down: ", 1), &format!("`pvemig undo {}` takes it back", up.run_id())],
    );
    let lab = up.shell.path().join("lab");
    expect(&up.run(&["lab", "move", "coral", "--to", "still-fawn:2-3", "--dir", lab.to_str().unwrap()]), 0, &[]);
    expect(&up.run(&["step", "04", "--yes"]), 0, &["done"]);
    let (code, text) = unanswered(&up, "step 05");
    assert_eq!(code, Some(130), "{text}");
    let said = words(&text);
    assert!(said.contains("will be 05: vm 108 is power-cycled: what is configured waits for that"), "{text}");
    assert!(said.contains("mosquitto") && said.contains("05 does not drain the node first"), "{text}");

    expect(&up.run(&["run", "frigate-coral", "--yes"]), 0, &["mosquitto", "until 06a-uncordon-node let it back"]);
    let report = up.run(&["report"]).stdout;
    let down: Vec<_> = report.lines().filter(|line| line.starts_with("  down: ")).collect();
    assert!(down.len() > 1 && down[0].contains("Deployment frigate/frigate"), "{report}");
    assert!(down.iter().any(|line| line.contains("mosquitto") && line.contains("until 06a let it back")), "{report}");
}

/// The lines of a plan that say what goes down, and its summary.
fn downs(up: &Up) -> (Vec<String>, serde_json::Value) {
    let plan = up.run(&["plan", "reboots"]);
    expect(&plan, 0, &["  to do "]);
    let lines = plan.stdout.lines().filter(|line| line.starts_with("  down ")).map(words).collect();
    let data: serde_json::Value = serde_json::from_str(&up.run(&["plan", "reboots", "--json"]).stdout).unwrap();
    (lines, data["summary"].clone())
}

#[test]
fn a_plan_of_reboots_says_of_each_node_that_it_goes_down_and_for_how_long() {
    let up = Up::new("talos-three", "auto");
    let (lines, summary) = downs(&up);
    let metal = "down talos-mac, talos-nuc, one after the other, each from 04 until 05 finds it at work; at the longest each \
                 waits 15 min in 04 and 05; how long it really takes no run has shown yet";
    let vm = "down talos-vm (vm 223), from 04 until 05 finds it at work; at the longest it waits 20 min in 04, 15 min in 05; \
              how long it really takes no run has shown yet";
    assert_eq!(lines[..2], [metal, vm], "{lines:#?}");
    let down = summary["down"].as_array().unwrap();
    let what: Vec<_> = down.iter().map(|down| down["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["talos-mac", "talos-vm (vm 223)", "talos-nuc"]);
    assert!(down.iter().all(|down| down["from"] == "04" && down["until"] == "05"), "{down:#?}");
    // Nothing is mended, and that is known.
    let plan = up.run(&["plan", "reboots"]).stdout;
    assert!(!plan.contains("kernel modules or the image"), "{plan}");
    let time = |plan: &str| plan.lines().find(|line| line.starts_with("  time ")).map(words);
    assert_eq!((time(&plan), summary.get("usually")), (None, None));

    // One step alone says where its end is looked at.
    let (_, text) = unanswered(&up, "step 04 --node talos-nuc");
    let said = "whether it is whole again `pvemig step 05-verify-boot --node talos-nuc` looks";
    assert!(words(&text).contains(said) || text.contains("is not drained"), "{text}");

    // Afterwards how long it was is known: in the report, and in the next plan.
    expect(&up.run(&["run", "reboots", "--yes"]), 0, &["talos-nuc was down for", "talos-vm (vm 223) was down for"]);
    let report = up.run(&["report"]).stdout;
    let told: Vec<_> = report.lines().filter(|line| line.starts_with("  down: talos-")).collect();
    assert!(told.len() == 3 && told.iter().all(|line| line.contains("found it at work")), "{report}");
    let id = up.run_id();
    let (lines, summary) = downs(&up);
    // So is how long each step usually takes, and what nobody has seen is not called short.
    let said = time(&up.run(&["plan", "reboots"]).stdout).unwrap();
    assert!(said.contains(", by earlier runs") && !said.contains("none has shown yet how long 04"), "{said}");
    let steps = summary["usually"]["steps"].as_array().unwrap();
    let reboots: Vec<_> = steps.iter().filter(|one| one["step"].as_str().unwrap().starts_with("04-")).collect();
    assert!(reboots.len() == 3 && reboots.iter().all(|one| one["times"] == 3), "{steps:#?}");
    let sum: u64 = steps.iter().map(|one| one["usual-ms"].as_u64().unwrap()).sum();
    assert_eq!(summary["usually"]["usual-ms"], sum);
    let (_, screen) = unanswered(&up, "plan reboots");
    let rows: Vec<_> = screen.split("\r\n").map(without_styles).collect();
    let at = rows.iter().position(|row| row.starts_with("  time ")).unwrap_or_else(|| panic!("{rows:#?}"));
    let hangs = rows[at + 1..].iter().take_while(|row| row.starts_with("             ")).count();
    assert!(rows[at..=at + hangs].iter().all(|row| row.chars().count() < 80), "{rows:#?}");
    assert!(lines[0].contains("the last time it was talos-mac ") && lines[0].contains(", talos-nuc "), "{lines:#?}");
    assert!(lines[1].contains(&format!("in run {id} it was ")), "{lines:#?}");
}

#[test]
fn a_plan_of_reboots_says_what_is_mended_and_what_that_takes_down() {
    let said = |world: &str| {
        let up = Up::new(world, "auto");
        let plan = up.run(&["plan", "reboots"]);
        expect(&plan, 0, &["  to do "]);
        let of = |head: &str| plan.stdout.lines().filter(|line| line.starts_with(head)).map(words).collect::<Vec<_>>();
        // Who leads now hands over; another one may lead by then.
        let may = of("  may be ");
        assert!(!may.is_empty() && !may.iter().any(|line| line.contains("talos-nuc")), "{may:#?}");
        let mut surely = of("  will be ");
        let leads = "will be 01: talos-nuc hands the leadership of etcd over";
        assert_eq!(surely.iter().filter(|line| *line == leads).count(), 1, "{surely:#?}");
        surely.retain(|line| line != leads);
        (surely, of("  undo ").concat())
    };
    let (modules, undo) = said("talos-three-no-modules");
    assert_eq!(modules, ["will be 03: talos-nuc gets NVIDIA's kernel modules, without a reboot"]);
    assert!(!undo.contains("drains"), "{undo}");
    let (nothing, undo) = said("talos-three");
    assert!(nothing.is_empty() && !undo.contains("drains"), "{nothing:#?} {undo}");
    let (image, undo) = said("talos-three-wrong-image");
    assert_eq!(image.len(), 1, "{image:#?}");
    assert!(image[0].starts_with("will be 03: talos-vm gets factory.talos.dev/nocloud-installer/"), "{image:#?}");
    assert!(image[0].ends_with("and reboots for it by itself, before its own reboot in 04"), "{image:#?}");
    assert_eq!(undo.matches("drains").count(), 1, "{undo}");
    assert!(undo.contains("03: drains talos-vm and reboots it into the image that it runs now"), "{undo}");
}

/// Up to 1.12 the node reboots for its image by itself, and once more for the test.
#[test]
fn both_reboots_of_a_node_that_gets_another_image_are_in_the_report() {
    let up = Up::new("talos-three-wrong-image", "auto");
    expect(&up.run(&["run", "reboots", "--yes"]), 0, &["talos-vm (vm 223) was down for"]);
    let report = up.run(&["report"]).stdout;
    let told: Vec<_> = report.lines().filter(|line| line.starts_with("  down: talos-")).map(words).collect();
    let of = |name: &str| told.iter().filter(|line| line.contains(name)).count();
    assert_eq!((of("talos-vm"), of("talos-mac"), of("talos-nuc")), (2, 1, 1), "{told:#?}");
    assert!(
        told.iter()
            .any(|line| line.contains("from the first change of 03@talos-vm until 03@talos-vm found it at work")),
        "{told:#?}"
    );
}

#[test]
fn what_is_in_the_way_of_every_node_is_said_once() {
    let up = Up::new("talos-three-learner", "auto");
    let plan = up.run(&["plan", "reboots"]);
    let said = words(&plan.stdout);
    let learner = "member talos-mac of etcd is a learner: it has no vote yet";
    assert_eq!((plan.code, said.matches(learner).count()), (4, 1), "{said}");
    assert!(said.contains(&format!("{learner} (at talos-")), "{said}");
}
