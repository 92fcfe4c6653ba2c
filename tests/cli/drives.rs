//! Hands on the drives and on the power button of a machine in the lab, from another shell.

use std::process::Child;

use super::*;

const DATA: &str = "22471A806001";

#[test]
fn drives_are_moved_by_their_serial_numbers_with_the_power_off() {
    let up = Up::new("nvme-data", "manual");
    let lab = up.shell.path().join("lab");
    let dir = lab.to_str().unwrap();
    let go = |which: &str, to: &str| up.run(&["lab", "move", which, "--to", to, "--dir", dir]);
    let power = |node: &str| up.run(&["lab", "power", node, "--dir", dir]);
    let cases = [
        (DATA, "M2_3", "`talos-nuc` is on: drives are moved with the power off"),
        ("corral", "M2_3", "there is no drive `corral`; there are: "),
        ("talos-nuc:M2_9", "M2_3", "`talos-nuc` has no slot `M2_9`; it has: M2_1, M2_2, M2_3"),
    ];
    assert_eq!(cases.len(), 3);
    for (which, to, words) in cases {
        expect(&go(which, to), 2, &[words, "pvemig lab power NODE"]);
    }
    expect(&power("talos-nux"), 2, &["there is no Talos node `talos-nux`"]);
    expect(&power("talos-nuc"), 0, &["talos-nuc is going off"]);
    // It takes a moment.
    let moved = (0..600).map(|_| go(DATA, "M2_3")).find(|said| said.code == 0);
    assert_eq!(moved.unwrap().stdout, "22471A806001 is in talos-nuc, M2_3\n");
    expect(&go("talos-nuc:M2_3", "bench"), 0, &["22471A806001 is on the bench"]);
    expect(&go(DATA, "talos-nuc:M2_2"), 0, &["22471A806001 is in talos-nuc, M2_2"]);
    expect(&power("talos-nuc"), 0, &["talos-nuc is switched on"]);
}

#[test]
fn how_long_a_move_takes_is_told_before_a_run_has_shown_it() {
    let worlds = [("nvme-data", "30 min to 45 min from"), ("nvme-system", "1 h 0 min to 1 h 30 min from")];
    for (world, words) in worlds {
        let up = Up::new(world, "manual");
        let said = up.run(&["plan", "nuc-drives"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let whole = format!("{words} beginning to end, by what was written of such a one: no earlier run has shown it");
        assert!(said.contains(&whole), "{said}");
    }
}

/// A run that waits for a person, until it has said what it wants.
pub(super) fn asks(up: &Up, args: &[&str], words: &str) -> (Child, Vec<String>) {
    let mut run = up.command(args);
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut seen: Vec<String> = Vec::new();
    let said = |line: &String| line.contains(words);
    for line in BufReader::new(run.stderr.as_mut().unwrap()).lines() {
        seen.push(line.unwrap());
        if seen.last().is_some_and(said) {
            break;
        }
    }
    assert!(seen.last().is_some_and(said), "`{words}` was never said: {seen:#?}");
    (run, seen)
}

/// On a narrow terminal a drawing stays whole.
fn drawn_whole(up: &Up, args: &str) {
    let program = env!("CARGO_BIN_EXE_pvemig");
    let line = format!("export TERM=xterm-256color; stty cols 80 rows 50; exec {program} {args}");
    let (_, text) = super::seen::on_terminal(&up.command(&[]), &line);
    let rows: Vec<String> = text.lines().map(|row| super::seen::without_styles(row.trim_end())).collect();
    let drawn: Vec<&String> = rows.iter().filter(|row| row.trim_start().starts_with(['|', '+'])).collect();
    let wide = |row: &&&String| row.chars().count() > 80;
    assert!(drawn.len() > 10 && drawn.iter().filter(wide).count() == 0, "{args}: {text}");
    let ends: std::collections::BTreeSet<usize> = drawn.iter().map(|row| row.chars().count()).collect();
    assert_eq!(ends.len(), 1, "{args}: {drawn:#?}");
}

/// By hand: the run asks, a person moves the drives and presses the button, and it goes on by itself; the undo the same.
#[test]
fn a_person_moves_the_drives_and_the_run_goes_on_by_itself() {
    let up = Up::new("nvme-data", "manual");
    let lab = up.shell.path().join("lab");
    let dir = lab.to_str().unwrap();
    let hand = |args: &[&str]| expect(&up.run(&[args, &["--dir", dir]].concat()), 0, &[]);
    let plan = up.run(&["plan", "nuc-drives"]);
    for words in
        ["04: talos-nuc is off: move media (22471A806001) from M2_2", "| M2_1", "media <- M2_2", "fresh <- outside"]
    {
        assert!(plan.stdout.contains(words), "{words}: {}", plan.stdout);
    }
    drawn_whole(&up, "plan nuc-drives");

    let (run, said) = asks(&up, &["run", "nuc-drives", "--yes", "--wait"], "please: ");
    assert!(said.iter().any(|line| line.contains("talos-nuc is off: move media (22471A806001)")), "{said:#?}");
    hand(&["lab", "move", DATA, "--to", "M2_3"]);
    hand(&["lab", "move", "S676NF0W712345", "--to", "M2_2"]);
    hand(&["lab", "power", "talos-nuc"]);
    let done = super::said(run.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{}", done.stderr);
    for words in ["what the site file (talos-nuc) must say now:", "        M2_3: media", "have no `port:`"] {
        assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
    }
    let report = up.run(&["report"]);
    for words in ["media is 22471A806001 in M2_3, by its serial number", "04-move-drives"] {
        assert!(report.stdout.contains(words), "{words}: {}", report.stdout);
    }
    drawn_whole(&up, "report");
    // What is so already is said to be so, though a run would keep and measure it anew.
    let after = up.run(&["plan", "nuc-drives"]);
    let rows = [
        ("02-drain", "not needed"),
        ("03-shutdown", "not needed"),
        ("04-move-drives", "done"),
        ("05-verify-disks", "done"),
        ("07-verify-volumes", "done"),
        ("08-uncordon", "done"),
    ];
    for (step, word) in rows {
        let row = after.stdout.lines().find(|line| line.contains(step)).unwrap_or_default();
        assert!(row.contains(word), "{step}: {word}: {}", after.stdout);
    }
    let hands = after.stdout.lines().find(|line| line.trim_start().starts_with("by hand")).unwrap_or_default();
    assert!(hands.contains("nothing") && !after.stdout.contains("goes off"), "{}", after.stdout);

    // What is asked for, in the order in which it is: the machine runs, and is switched on with its drives moved.
    let (_, asked) = super::undoing::on_terminal(&up, &format!("undo {}", up.run_id()));
    let asked = asked.split_whitespace().collect::<Vec<_>>().join(" ");
    let back = asked.split_once("by hand ").map_or("", |(_, rest)| rest);
    assert!(back.starts_with("04: talos-nuc is off: take fresh (S676NF0W712345) out of M2_2"), "{asked}");
    assert!(!asked.contains("power button"), "{asked}");

    let (undo, said) = asks(&up, &["undo", &up.run_id(), "--yes", "--wait"], "please: ");
    assert!(said.iter().any(|line| line.contains("take fresh (S676NF0W712345) out of M2_2")), "{said:#?}");
    hand(&["lab", "move", "S676NF0W712345", "--to", "bench"]);
    hand(&["lab", "move", DATA, "--to", "M2_2"]);
    hand(&["lab", "power", "talos-nuc"]);
    let back = super::said(undo.wait_with_output().unwrap());
    assert_eq!(back.code, 0, "{}", back.stderr);
    expect(&up.run(&["survey", "--hardware", "talos-nuc"]), 0, &["M2_2", DATA]);
}

/// The system disk too, of one of three control planes and of the only one; and another one in its place.
#[test]
fn a_person_moves_the_system_disk_and_the_run_goes_on_by_itself() {
    const SYS: &str = "S5GXNF0R601234";
    const NEW: &str = "S676NF0W712345";
    const STICK: &str = "4C530001281205115020";
    type Moves = &'static [(&'static str, &'static str)];
    let swap: Moves = &[(SYS, "bench"), (DATA, "M2_1"), (SYS, "M2_2")];
    let anew: Moves = &[(SYS, "bench"), (NEW, "M2_1"), (STICK, "talos-nuc")];
    let (wipe, worlds) = (format!("disk/{NEW}"), ["nvme-system", "nvme-single", "nvme-system-replaced"]);
    let cases: [(&str, Moves, &[&str], &str); 3] = [
        (worlds[0], swap, &[], "sys is S5GXNF0R601234 in M2_2, by its serial number"),
        (worlds[1], swap, &[], "sys is S5GXNF0R601234 in M2_2, by its serial number"),
        (worlds[2], anew, &["--destroy", &wipe], "fresh is S676NF0W712345 in M2_1, by its serial number"),
    ];
    for (world, moves, more, words) in cases {
        let up = Up::new(world, "manual");
        let lab = up.shell.path().join("lab");
        let dir = lab.to_str().unwrap();
        let (run, said) = asks(&up, &[&["run", "nuc-drives", "--yes", "--wait"], more].concat(), "please: ");
        assert!(said.iter().any(|line| line.contains("please: talos-nuc is off: ")), "{world}: {said:#?}");
        for (which, to) in moves {
            expect(&up.run(&["lab", "move", which, "--to", to, "--dir", dir]), 0, &[which]);
        }
        expect(&up.run(&["lab", "power", "talos-nuc", "--dir", dir]), 0, &["talos-nuc is switched on"]);
        let done = super::said(run.wait_with_output().unwrap());
        assert_eq!(done.code, 0, "{world}: {}", done.stderr);
        let report = up.run(&["report"]);
        assert!(report.stdout.contains(words), "{world}: {words}: {}", report.stdout);
        let again = up.run(&[&["run", "nuc-drives", "--yes"], more].concat());
        assert_eq!(again.code, 0, "{world}: {}", again.stderr);
    }
    assert_eq!(cases.len(), 3);
}

#[test]
fn what_is_explained_of_drives_is_their_own() {
    let up = Up::new("nvme-system-replaced", "manual");
    let install = up.run(&["explain", "06a-install"]);
    expect(&install, 0, &["apply-config"]);
    assert!(!install.stdout.contains("talosctl reset") && !install.stdout.contains(" reset -n"), "{}", install.stdout);
    // Of a name that two blueprints have, the one that the site has a migration of.
    let held = up.run(&["explain", "node-not-whole"]);
    expect(&held, 0, &["a finding of nvme-move's preflight"]);
    assert!(!held.stdout.contains("node-reboot-test"), "{}", held.stdout);
    // The consent is asked for before anything, with the whole command.
    let plan = up.run(&["plan", "nuc-drives"]);
    let flag = "`pvemig run nuc-drives --destroy disk/S676NF0W712345`";
    let words = plan.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plan.code == 4 && words.contains(flag), "{} {words}", plan.code);
    expect(&up.run(&["plan", "nuc-drives", "--destroy", "disk/S676NF0W712345"]), 0, &["06a-install"]);
    let dir = up.shell.path().to_str().unwrap().to_owned();
    for force in [&[][..], &["--force"]] {
        let said = up.run(&[&["survey", "--hardware", "--to", &dir], force].concat());
        expect(&said, 2, &["is a directory", "inventory.yaml"]);
        assert!(!said.stderr.contains("writes over it"), "{}", said.stderr);
    }
}

/// What the kernel says of a drive that does not come up stands where the run stops, and not in its report alone; what it
/// asked a person for is not said twice.
#[test]
fn the_kernels_words_stand_where_a_run_stops_and_a_question_stands_once() {
    let up = Up::new("nvme-data-dead", "auto");
    let said = up.run(&["run", "nuc-drives", "--yes", "--wait=5m"]);
    expect(&said, 4, &["media (22471A806001) does not come up in M2_3", "Device not ready; aborting initialisation"]);
    let words = said.stderr.split_once("stopped").map_or("", |(_, after)| after);
    assert!(words.contains("kernel: ") && words.contains("brings up no drive"), "{}", said.stderr);
    // The only voter leads, and has nobody to hand that to.
    let up = Up::new("nvme-single", "manual");
    let plan = up.run(&["plan", "nuc-drives"]);
    expect(&plan, 0, &["the Kubernetes API is away for as long as talos-nuc is off"]);
    assert!(!plan.stdout.contains("hands that over"), "{}", plan.stdout);
    let asks = up.run(&["run", "nuc-drives", "--yes"]);
    expect(&asks, 3, &["step 04-move-drives needs you"]);
    assert_eq!(asks.stderr.matches("then switch it on").count(), 1, "{}", asks.stderr);
}
