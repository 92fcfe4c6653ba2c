//! The binary as an operator uses it: exit codes, texts, and a whole migration against a lab in another process.

#![expect(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may panic and spawn")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

mod build_secrets;
mod building;
mod down;
mod drives;
mod ends;
mod etcd;
mod face;
mod ground;
mod held_off;
mod killed;
mod left_over;
mod looking;
mod night;
mod onward;
mod planted;
mod privileges;
mod rehearsed;
mod secrets;
mod seen;
mod shell;
mod sown;
mod talos_secrets;
mod talosconfigs;
mod undoing;
mod width;

use shell::{Said, Shell, Up, expect, said};

#[test]
fn wrong_command_lines_are_told_what_is_right() {
    let shell = Shell::new();
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["Usage"]),
        (&["frob"], &["frob"]),
        (&["run", "x"], &["there is no site file", "pvemig site example"]),
        (&["--site", "nowhere.yaml", "plan", "x"], &["nowhere.yaml"]),
        (&["explain", "99"], &["there is no step `99`", "`pvemig explain` alone lists"]),
        (&["explain", "claim-on-odl-node"], &["did you mean `claim-on-old-node`?"]),
        (&["rehearse", "nvme"], &["no blueprint `nvme`", "usb-move"]),
        (&["rehearse", "usb-move", "--world", "x"], &["no world `x`", "pvemig lab worlds"]),
        (&["run", "x", "--wait=5x"], &["5x"]),
        (&["abandon"], &["--comment"]),
        (&["site", "check", "--json"], &["`site check` prints no JSON"]),
        (&["--json", "man"], &["`man` prints no JSON"]),
        (&["report", "--json", "--format", "markdown"], &["`--json` is a format of its own"]),
        (&["privileges", "x", "--pve", "7"], &["7 is not in 8..=9"]),
    ];
    for (args, words) in cases {
        expect(&shell.run(args), 2, words);
    }
    assert_eq!(cases.len(), 14);
}

#[test]
fn the_example_site_passes_the_check_and_a_broken_one_shows_every_problem() {
    let shell = Shell::new();
    let example = shell.run(&["site", "example"]);
    expect(&example, 0, &["migrations:"]);
    let mut broken = example.stdout.clone();
    for (good, bad) in [
        ("vmid: 108", "vmid: many"),
        ("device: coral", "device: corral"),
        ("patience: 10m", "patience: long"),
        ("attach: id ", "attach: ids "),
        ("version: 1", "version: 2"),
    ] {
        assert!(broken.contains(good), "{good}");
        broken = broken.replacen(good, bad, 1);
    }
    std::fs::write(shell.path().join("site.yaml"), &broken).unwrap();
    let said = shell.run(&["site", "check"]);
    let words =
        ["`version`", "`long` is not", "not `many`", "`corral` is not a device", "did you mean `coral`?", "`ids`"];
    expect(&said, 2, &words);
    // The files that the example names are not there, each a problem of its own.
    let of_text =
        |l: &&str| l.starts_with("error: ") && !l.contains("cannot be found") && !l.contains("cannot be read");
    // A long path makes a line more.
    let whole = said.stderr.replace("\n       ", " ");
    assert_eq!(whole.lines().filter(of_text).count(), 5, "{}", said.stderr);
    let other = example.stdout.replacen("usb-move", "usb-mvoe", 1);
    std::fs::write(shell.path().join("site.yaml"), &other).unwrap();
    expect(&shell.run(&["site", "check"]), 2, &["there is no blueprint `usb-mvoe`", "there is usb-move"]);
}

#[test]
fn help_version_and_completions_go_to_stdout() {
    let shell = Shell::new();
    for (args, word) in [
        (vec!["--version"], "pvemig 0."),
        (vec!["--help"], "rehearse"),
        (vec!["step", "--help"], "--vmid"),
        (vec!["completions", "bash"], "complete"),
        (vec!["--help"], "130  interrupted"),
        (vec!["resume", "--help"], "Without effect"),
        (vec!["man"], ".TH"),
        (vec!["man"], ".SS \"pvemig lab up\""),
        (vec!["man"], ".SH \"EXIT STATUS\""),
        (vec!["explain", "03"], "only looks; may ask a person to act"),
        (vec!["explain", "05"], "--force-off"),
        // As it stands behind a finding.
        (vec!["explain", "[01·raw-usb-needs-root]"], "raw-usb-needs-root"),
        (vec!["explain", "00"], "example: done when nothing is in the way of"),
        (vec!["lab", "worlds"], "usb-move-old"),
        (vec!["explain", "04"], "usb3=1"),
    ] {
        let said = shell.run(&args);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{args:?}");
        assert!(said.stdout.contains(word), "{args:?}: {}", said.stdout);
    }
}

#[test]
fn every_step_is_found_by_id_number_and_script_name() {
    let shell = Shell::new();
    let names = [
        "00-preflight-checks",
        "00-preflight",
        "01-remove-usb-from-source",
        "02-remove-source-label",
        "03-check-hardware-on-host",
        "04-add-usb-passthrough",
        "05-reboot-target-vm",
        "06-wait-for-vm-ready",
        "07-check-hardware-in-vm",
        "08-install-drivers",
        "09-label-target-node",
        "10-deploy-and-verify",
        "11-recreate-pvcs",
        "00a",
        "00b",
        "00d",
        "04a",
        "06a",
        "09a",
        "4",
    ];
    let found: Vec<_> = names.iter().filter(|name| shell.run(&["explain", name]).code == 0).collect();
    // A bare number is the step with exactly that number: 4 is none.
    assert_eq!(found.len(), names.len() - 1, "{found:?}");
}

#[test]
fn one_step_alone_sets_usb3_and_the_second_time_nothing() {
    let up = Up::new("usb-move", "auto");
    let blocked = up.run(&["step", "04-add-usb", "--vmid", "108", "--yes"]);
    expect(&blocked, 4, &["still passed to vm 105", "pvemig step 01-remove-usb --vmid 105", "nothing was changed"]);
    expect(&up.run(&["step", "01", "--vmid", "105"]), 0, &[]);
    expect(&up.run(&["step", "03", "--vmid", "108", "--wait=5m"]), 0, &["there now"]);
    let first = up.run(&["step", "04-add-usb", "--vmid", "108"]);
    expect(&first, 0, &["host=1a6e:089a,usb3=1", "host=18d1:9302,usb3=1"]);
    let changes = up.changes();
    expect(&up.run(&["step", "04", "--vmid", "108"]), 0, &["already so"]);
    assert_eq!(up.changes(), changes);
    expect(
        &up.run(&["step", "04", "--vmid", "999"]),
        2,
        &["--vmid 108", "by flags alone: no node of the site is --vmid"],
    );
    // The refused try of the beginning changed nothing, and another one came to its end since: it is over.
    expect(&up.run(&["status"]), 0, &["no run is open; 5 are over"]);
    expect(&up.run(&["run", "nowhere", "--yes"]), 2, &["no migration `nowhere`"]);
    expect(&up.run(&["abandon", "--comment", "a try"]), 2, &["no run of this site is open"]);
}

#[test]
fn resume_of_a_blocked_step_asks_what_keeps_it_from_its_work_again() {
    let up = Up::new("usb-move", "manual");
    up.refuse("kubernetes", "*selfsubjectaccessreviews*", None);
    let changes = up.changes();
    expect(&up.run(&["step", "00a"]), 4, &["step 00a-retain-volumes is blocked", "pvemig resume"]);
    expect(&up.run(&["resume"]), 4, &["step 00a-retain-volumes is blocked"]);
    assert_eq!(up.changes(), changes);
    up.control(&"clear-faults".into());
    expect(&up.run(&["resume"]), 0, &["Retain"]);
    assert!(up.changes() > changes);
}

#[test]
fn every_flag_that_a_step_declares_is_one_of_the_command_line() {
    let shell = Shell::new();
    let mut flags = 0;
    for row in pvemig::blueprint::ALL.iter().flat_map(|b| b.rows) {
        for (flag, ..) in row.flags {
            let value = match *flag {
                "vmid" | "from" => "108",
                "attach" => "id",
                _ => "x",
            };
            // Understood, and then in want of a site file.
            expect(&shell.run(&["step", row.id, &format!("--{flag}"), value]), 2, &["there is no site file"]);
            flags += 1;
        }
    }
    assert!(flags > 30, "{flags}");
}

#[test]
fn a_step_goes_by_flags_alone_where_the_site_has_no_migration() {
    let up = Up::new("usb-move", "auto");
    let site = up.shell.path().join("lab/site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, text.split_once("\nmigrations:").unwrap().0).unwrap();
    expect(&up.run(&["step", "04"]), 2, &["several blueprints have a step `04`: 04-add-usb of usb-move"]);
    expect(&up.run(&["step", "04-add-usb"]), 2, &["--vmid is missing; --device is missing; --attach is missing"]);
    expect(&up.run(&["step", "10-deploy-and-verify"]), 2, &["more than flags can say"]);
    expect(&up.run(&["step", "01", "--vmid", "105", "--device", "corral"]), 2, &["there is coral"]);
    expect(&up.run(&["step", "02", "--node", "nowhere", "--label", "x"]), 2, &["105 (k3s-vm-pumped-piglet)"]);
    let four = ["step", "04-add-usb", "--vmid", "108", "--device", "coral", "--attach", "id"];
    let kept = up.run(&[&four[..], &["--from", "105"]].concat());
    expect(&kept, 4, &["still passed to vm 105"]);
    expect(&up.run(&["step", "01", "--vmid", "105", "--device", "coral"]), 0, &["by flags alone", "done"]);
    expect(&up.run(&["step", "03", "--vmid", "108", "--device", "coral", "--wait=5m"]), 0, &["there now"]);
    expect(&up.run(&four), 0, &["host=1a6e:089a,usb3=1"]);
    for rest in [
        vec!["05", "--vmid", "108", "--device", "coral", "--attach", "id"],
        vec!["06", "--vmid", "108"],
        vec!["07", "--vmid", "108", "--device", "coral"],
        vec!["09", "--node", "k3s-vm-still-fawn", "--label", "coral=true"],
        vec!["02", "--node", "k3s-vm-pumped-piglet", "--label", "coral"],
    ] {
        expect(&up.run(&[&["step"], rest.as_slice()].concat()), 0, &["done"]);
    }
    expect(&up.run(&["report"]), 0, &["one step (usb-move"]);
    expect(&up.run(&["undo", &up.run_id(), "--yes"]), 0, &["everything is back as it was"]);
}

#[test]
fn undo_passes_only_what_there_is_to_pass_and_says_what_stays() {
    let up = Up::new("usb-move", "auto");
    expect(&up.run(&["step", "00a"]), 0, &["done"]);
    let first = up.run_id();
    expect(&up.run(&["step", "01"]), 0, &["done"]);
    let second = up.run_id();
    expect(&up.run(&["undo", &first, "--yes"]), 4, &["step 01-remove-usb alone", "changed something after"]);
    for (past, words) in [
        ("00a", "was not tried to be taken back yet, so it is not passed"),
        ("11", "is neither a step of run"),
        (first.as_str(), "nor another run"),
    ] {
        expect(&up.run(&["undo", &first, "--yes", "--past", past]), 2, &[words]);
    }
    let passed = up.run(&["undo", &first, "--yes", "--past", &second, "--destroy", "pvc/frigate"]);
    expect(&passed, 0, &["but for what stays:", &format!("run {second}"), "asks for `--destroy pvc/frigate`"]);
    assert!(!passed.stderr.contains("back as it was\n"), "{}", passed.stderr);
}

#[test]
fn status_lists_a_hold_for_as_long_as_it_is_up() {
    let up = Up::new("usb-move", "auto");
    // Nobody in the lab works against this one, however long it takes.
    expect(&up.run(&["status"]), 0, &["no run is open"]);
    expect(&up.run(&["step", "00b"]), 0, &["done", "still held: 00b-suspend-gitops"]);
    let id = up.run_id();
    expect(&up.run(&["status"]), 0, &[&id, "done", "still held: 00b-suspend-gitops, by what is written down"]);
    assert!(up.run(&["status", "--json"]).stdout.contains("\"holds\":[\"00b-suspend-gitops\"]"));
    expect(&up.run(&["undo", &id, "--yes"]), 0, &[]);
    expect(&up.run(&["status"]), 0, &["no run is open; one is over"]);
}

/// Answers the question of `args` on a terminal by these keys, after `meanwhile`; gives the exit code and what was shown.
fn answer(up: &Up, args: &str, question: &str, keys: &[u8], meanwhile: impl FnOnce()) -> (Option<i32>, String) {
    let line = format!("{} {args}", env!("CARGO_BIN_EXE_pvemig"));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).envs(up.command(&[]).get_envs().filter_map(|(k, v)| Some((k, v?))));
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(terminal.stdout.take().unwrap());
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(question) {
        assert!(shown.read_until(b'?', &mut text).unwrap() > 0, "{}", String::from_utf8_lossy(&text));
    }
    meanwhile();
    let mut stdin = terminal.stdin.take().unwrap();
    stdin.write_all(keys).unwrap();
    shown.read_to_end(&mut text).unwrap();
    (terminal.wait().unwrap().code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn what_began_while_a_question_stood_is_seen_under_the_lock() {
    let up = Up::new("usb-move", "manual");
    let (code, text) = answer(&up, "run frigate-coral", "Begin?", b"y\n", || {
        expect(&up.run(&["run", "frigate-coral", "--yes"]), 3, &["plug coral"]);
    });
    assert_eq!(code, Some(7), "{text}");
    assert!(text.contains("is not finished"), "{text}");
    let (code, text) = answer(&up, "undo", "Undo?", b"y\n", || {
        expect(&up.run(&["resume"]), 3, &["plug coral"]);
    });
    assert_eq!(code, Some(7), "{text}");
    assert!(text.contains("went on in the meantime"), "{text}");
}

#[test]
fn explain_with_a_site_file_that_was_named_and_is_not_there_says_so() {
    let shell = Shell::new();
    expect(&shell.run(&["--site", "nowhere.yaml", "explain", "04"]), 2, &["nowhere.yaml"]);
    std::fs::write(shell.path().join("site.yaml"), "sites: x\n").unwrap();
    let said = shell.run(&["explain", "04"]);
    expect(&said, 0, &["notice: this is the example's, because yours cannot be opened", "example: "]);
}

#[test]
fn a_whole_migration_is_done_repeated_and_undone() {
    let up = Up::new("usb-move", "auto");
    expect(&up.run(&["run", "frigate-coral"]), 2, &["--yes"]);
    expect(&up.run(&["run", "frigate-coral", "--yes", "--wait=5m"]), 0, &["10-deploy-and-verify"]);
    let changes = up.changes();
    assert_eq!(up.calls(), changes);
    let id = up.run_id();
    let second = up.run(&["run", "frigate-coral", "--yes", "--wait=5m"]);
    expect(&second, 0, &["already so", "· 00d-scale-down           not needed  nothing that it would guard"]);
    // What a hold would bring about is not said where it is not up.
    for line in ["has no pods", "is cordoned and drained"] {
        assert!(!second.stderr.contains(line), "{}", second.stderr);
    }
    expect(&up.run(&["report"]), 0, &["· 00d-scale-down", "[not needed,"]);
    expect(&up.run(&["status", "--all"]), 0, &["not needed: 00b-suspend-gitops, 00d-scale-down"]);
    let report: serde_json::Value = serde_json::from_str(&up.run(&["report", "--json"]).stdout).unwrap();
    assert_eq!(report["standing"], "done");
    assert_eq!(up.changes(), changes, "a second run changes nothing");
    expect(&up.run(&["plan", "frigate-coral", "--exit-code"]), 0, &[]);
    // Where it cannot begin, nobody is asked whether it may.
    let (code, text) = undoing::on_terminal(&up, &format!("undo {id}"));
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("--destroy pvc/frigate/frigate-config") && !text.contains("Undo?"), "{text}");
    assert!(text.contains("the new volume") && !text.contains(" bytes in "), "{text}");
    let consent = up.run(&["undo", &id, "--yes", "--wait=5m"]);
    expect(&consent, 4, &["--destroy pvc/frigate/frigate-config", "nothing was changed"]);
    assert!(!consent.stderr.contains("is being undone"), "{}", consent.stderr);
    assert_eq!(up.changes(), changes);
    let undone = up.run(&[
        "undo",
        &id,
        "--yes",
        "--wait=5m",
        "--destroy",
        "pvc/frigate/frigate-config",
        "--destroy",
        "pvc/frigate/frigate-media",
    ]);
    expect(
        &undone,
        0,
        &["everything is back", &format!("run {id} is being undone\n"), "↶ 04-add-usb               undone"],
    );
    assert!(!undone.stderr.contains("gets coral"), "{}", undone.stderr);
    assert_eq!(up.calls(), up.changes());
    for (format, word) in [("text", "undone"), ("markdown", "| "), ("json", "\"run\"")] {
        expect(&up.run(&["report", &id, "--format", format]), 0, &[word]);
    }
}

#[test]
fn a_run_that_needs_a_person_says_so_and_exits_with_3() {
    let up = Up::new("usb-move", "manual");
    let asked = up.run(&["run", "frigate-coral", "--yes"]);
    expect(&asked, 3, &["plug coral", "still-fawn", "pvemig resume", "still held: 00b-suspend-gitops, 00d-scale-down"]);
    let stands = ["open", "still held", "waits at 03 for you: plug coral", "`pvemig resume"];
    expect(&up.run(&["status"]), 0, &stands);
    let lab = up.shell.path().join("lab");
    expect(
        &up.run(&["lab", "move", "coral", "--to", "still-fawn:2-3", "--dir", lab.to_str().unwrap()]),
        0,
        &["still-fawn"],
    );
    // Who was asked did it, whichever process asked.
    expect(&up.run(&["resume"]), 0, &["done", "✓ 03-check-host-hardware   there now"]);
}

#[test]
fn a_reboot_test_is_rehearsed_and_undone() {
    let shell = Shell::new();
    let said = shell.run(&["rehearse", "node-reboot-test", "--speed", "200", "--undo"]);
    expect(&said, 0, &["04-reboot@talos-mac", "04-reboot@talos-vm", "04-reboot@talos-nuc"]);
}
