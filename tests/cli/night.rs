//! What one reads at night: how long something is down and since when, runs whose journal is damaged, and small words.

use std::fs::File;
use std::process::Stdio;

use super::shell::{Shell, Up, expect, said};

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_a_run_that_was_given_up_left_down_is_counted_from_there() {
    let up = Up::new("usb-move", "manual");
    expect(&up.run(&["run", "frigate-coral", "--yes"]), 3, &["plug coral"]);
    let first = up.run_id();
    // The last line of a journal is no end of an outage.
    let open = up.run(&["report"]).stdout;
    let since = "down: Deployment frigate/frigate since ";
    assert!(open.contains(since) && open.contains("and not back by what is written (the last line is of "), "{open}");
    assert!(!open.contains("to now") && open.contains("holds still up:"), "{open}");
    expect(&up.run(&["abandon", "--comment", "tired"]), 0, &["is abandoned"]);
    let plan = up.run(&["plan", "frigate-coral"]).stdout;
    let already = format!("by what run {first} wrote, until 10 finds it at work");
    assert!(plan.contains("Deployment frigate/frigate, down already since ") && plan.contains(&already), "{plan}");

    expect(&up.run(&["run", "frigate-coral", "--yes"]), 3, &["plug coral"]);
    let second = up.run_id();
    let lab = up.shell.path().join("lab");
    let dir = lab.to_str().unwrap();
    expect(&up.run(&["lab", "move", "coral", "--to", "still-fawn:2-3", "--dir", dir]), 0, &[]);
    expect(&up.run(&["resume"]), 0, &[&format!(", from run {first} on")]);
    let whole = up.run(&["report", &second]).stdout;
    let taken = format!("in run {first}, whose hold this one took over, until 10 found it at work");
    assert!(whole.contains(&taken) && whole.contains("[there now, "), "{whole}");
    let former = up.run(&["report", &first]).stdout;
    let goes_on = format!("and run {second} went on with that hold: `pvemig report {second}` says until when");
    assert!(former.contains(&goes_on) && !former.contains("holds still up"), "{former}");
    // It says nothing of how long a run takes.
    let data: serde_json::Value = serde_json::from_str(&up.run(&["report", &second, "--json"]).stdout).unwrap();
    assert_eq!(data["outages"][0]["began"]["run"], first.as_str());
    assert!(data["outages"][0]["elapsed_ms"].as_u64().is_some(), "{data}");
}

#[test]
fn a_damaged_run_is_not_passed_over() {
    let up = Up::new("usb-move", "auto");
    expect(&up.run(&["step", "02", "--yes"]), 0, &["done"]);
    let first = up.run_id();
    let past = up.run(&["__complete", "--", "undo", &first, "--past", ""]).stdout;
    assert!(past.starts_with("02-remove-label\t") && past.lines().count() == 1, "{past}");
    expect(&up.run(&["step", "00a", "--yes"]), 0, &["done"]);
    let second = up.run_id();
    let past = up.run(&["__complete", "--", "undo", &first, "--past", ""]).stdout;
    let values: Vec<_> = past.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(values, ["02-remove-label", second.as_str()]);

    let journal = up.shell.path().join(format!("lab/state/homelab/runs/{second}/journal.jsonl"));
    let whole = std::fs::read_to_string(&journal).unwrap();
    // The newest is shown as far as it can be read.
    std::fs::write(&journal, format!("{}\nx\ny\n", whole.lines().next().unwrap())).unwrap();
    expect(&up.run(&["report"]), 0, &[&format!("run {second}"), "what can be read before it"]);
    std::fs::write(&journal, "").unwrap();
    expect(&up.run(&["resume"]), 2, &[&format!("and run {second} is damaged"), "pvemig abandon"]);
    std::fs::write(&journal, [&[0, 159, 146, 150], &b"\n{}\n"[..]].concat()).unwrap();
    let report = up.run(&["report"]);
    expect(&report, 1, &[&format!("run {second} may be newer"), &format!("this is run {first}")]);
    assert!(!words(&report.stderr).contains("does not hold"), "{}", report.stderr);
    let named = up.run(&["report", &second]);
    expect(&named, 1, &["nothing of it can be read"]);
    assert!(!named.stderr.contains("pvemig report"), "{}", named.stderr);

    expect(&up.run(&["abandon", &second, "--comment", "lost"]), 0, &["is abandoned"]);
    let unknown = "what it holds: not known, as its journal was damaged: `kubectl --kubeconfig";
    expect(&up.run(&["status"]), 0, &[&second, unknown]);
    let data: serde_json::Value = serde_json::from_str(&up.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(data[0]["holds-known"], false, "{data}");
    // Who takes over what it left is through with it.
    expect(&up.run(&["run", "frigate-coral", "--yes", "--wait=5m"]), 0, &["done"]);
    expect(&up.run(&["status"]), 0, &["no run is open"]);
}

#[test]
fn what_is_empty_or_of_no_use_is_said_and_not_taken() {
    let shell = Shell::new();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--site", "x.yaml", "rehearse", "usb-move"], &["`rehearse` has a site and a state directory of its own"]),
        (&["rehearse", "usb-move", "--state", "st9"], &["leave `--site` and `--state` out"]),
        (&["lab", "up", "--state", "st9", "--dir", "m6"], &["`lab` has a site"]),
        (&["explain", ""], &["is empty"]),
        (
            &["lab", "move", "coral", "--to", "still-fawn", "--dir", "m1"],
            &["no lab runs in m1", "pvemig lab up --dir m1"],
        ),
    ];
    for (args, words) in cases {
        expect(&shell.run(args), 2, words);
    }
    assert_eq!(cases.len(), 5);
    assert!(!shell.path().join("st9").exists() && !shell.path().join("m6").exists());
    // Empty is as good as not set.
    for args in [["completions", "bash"], ["explain", "04"], ["lab", "worlds"]] {
        let mut command = shell.command(&args);
        command.env("PVEMIG_SITE", "").env("PVEMIG_STATE", "");
        expect(&said(command.output().unwrap()), 0, &[]);
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut man = shell.command(&["man"]);
    expect(&said(man.stdout(Stdio::from(full)).output().unwrap()), 1, &["standard output cannot be written", "space"]);
    expect(
        &shell.run(&["man"]),
        0,
        &["\\fBpvemig run\\fR [OPTIONS] <MIGRATION>", "\\fBpvemig\\fR [OPTIONS] <COMMAND>"],
    );
}

#[test]
fn what_the_lab_cannot_do_is_a_mistake_of_the_command_line() {
    let up = Up::new("usb-move", "manual");
    let lab = up.shell.path().join("lab");
    let dir = lab.to_str().unwrap();
    for (stick, to, words) in [
        ("coral", "nowhere", "there is no host `nowhere`"),
        ("coral", "still-fawn:99-9", "has no socket `99-9`"),
        ("corral", "still-fawn", "there is no stick `corral`"),
    ] {
        expect(&up.run(&["lab", "move", stick, "--to", to, "--dir", dir]), 2, &[words]);
    }
    let second = up.run(&["lab", "up", "--dir", dir]);
    assert!(second.stderr.contains("a lab runs in") && !second.stderr.contains("says"), "{}", second.stderr);
    // What the environment sets need not be given.
    expect(&up.run(&["run"]), 2, &["Usage: pvemig run [OPTIONS] <MIGRATION>"]);
    expect(&up.run(&["report", ""]), 2, &["there is no run ``"]);
    let (code, text) = super::answer(&up, "run frigate-coral", "Begin?", b"\x03", || {});
    assert!(code == Some(130) && text.contains("nothing was changed"), "{text}");
}
