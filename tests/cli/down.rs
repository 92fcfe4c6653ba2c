//! Who goes down meanwhile: what the migration itself stops, and what lives on the same node.

use super::{Up, expect, seen::unanswered};

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
