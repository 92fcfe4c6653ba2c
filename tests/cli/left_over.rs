//! What moves of drives leave behind, and the words for it: while one is at work, in the middle of an undo, after one that was
//! given up.

use super::drives::asks;
use super::*;

const DATA: &str = "22471A806001";
const NEW: &str = "S676NF0W712345";
const SYS: &str = "S5GXNF0R601234";

fn words(said: &Said) -> String {
    format!("{} {}", said.stdout, said.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let (_, behind) = rest.split_once(part).unwrap_or_else(|| panic!("no `{part}` in its place in: {text}"));
        rest = behind;
    }
}

/// Hands in the lab.
fn hand(up: &Up, args: &[&str]) {
    let lab = up.shell.path().join("lab");
    expect(&up.run(&[&["lab"], args, &["--dir", lab.to_str().unwrap()]].concat()), 0, &[]);
}

fn moves(up: &Up, all: &[(&str, &str)]) {
    all.iter().for_each(|(which, to)| hand(up, &["move", which, "--to", to]));
    hand(up, &["power", "talos-nuc"]);
}

/// The lines of a report that say what was down.
fn downs(up: &Up, id: &str) -> Vec<String> {
    let report = up.run(&["report", id]).stdout;
    report.lines().filter_map(|line| line.strip_prefix("  down: ")).map(str::to_owned).collect()
}

/// A run of drives to its end, by hand; `meanwhile` while it waits.
fn through(up: &Up, meanwhile: impl FnOnce(&str)) -> String {
    let (run, _) = asks(up, &["run", "nuc-drives", "--yes", "--wait"], "please: ");
    let id = up.run_id();
    meanwhile(&id);
    moves(up, &[(DATA, "M2_3"), (NEW, "M2_2")]);
    let done = super::said(run.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{}", done.stderr);
    id
}

#[test]
fn a_move_that_was_given_up_is_told_by_whoever_knows_its_end() {
    let up = Up::new("nvme-data", "manual");
    let useless = ["run", "nuc-drives", "--yes", "--destroy", "disk/22471A806001"];
    expect(&up.run(&useless), 2, &["has no use here"]);
    let first = through(&up, |id| {
        // Neither of them could begin beside the process that is at work.
        let said = words(&up.run(&["survey"]));
        let then = format!("first the end of run {id} (nuc-drives), which is open: `pvemig status`; then `talosctl");
        assert!(said.contains(&then), "{said}");
        assert!(!said.contains("pvemig resume") && !said.contains("pvemig undo"), "{said}");
    });
    let single = downs(&up, &first);
    assert_eq!(single.len(), 2, "{single:#?}");

    // Evicted once by the run, and what came in its place once more by the undo.
    expect(&up.run(&["undo", &first, "--yes"]), 3, &["step 04-move-drives needs you"]);
    let gone = words(&up.run(&["abandon", &first, "--comment", "no time"]));
    let off = "once what is off is on again, with its drives where they belong, `pvemig run nuc-drives` takes these holds over";
    in_order(&gone, &["02-drain: node talos-nuc is cordoned and drained", "03-shutdown: talos-nuc is off", off]);
    let pods: Vec<_> = downs(&up, &first).into_iter().filter(|line| line.starts_with("pod ")).collect();
    let name = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    assert!(pods.len() == 2 && name(&pods[0]) != name(&pods[1]), "{pods:#?}");
    assert!(pods[0].contains("until 08 let it back") && pods[1].contains("and not back"), "{pods:#?}");
    let said = words(&up.run(&["survey"]));
    let over = "it is a hold of that run, which was abandoned: `pvemig run nuc-drives` takes it over";
    let on = format!("{over}, once the machine is on again");
    assert!(said.contains(&on) && !said.contains("uncordon"), "{said}");

    // Somebody brings it back by hand; the next run finds it at work, and cordoned.
    moves(&up, &[(NEW, "bench"), (DATA, "M2_2")]);
    let back = (0..200).map(|_| words(&up.run(&["survey"]))).find(|said| !said.contains("NotReady"));
    assert!(back.is_some_and(|said| said.contains(over) && !said.contains(&on)));
    let second = through(&up, |_| ());
    let of_first = downs(&up, &first);
    assert_eq!(of_first.len(), 4, "{of_first:#?}");
    assert!(of_first[1].starts_with("talos-nuc from ") && of_first[1].contains(" at the latest, "), "{of_first:#?}");
    assert!(of_first[1].ends_with(&format!("until run {second} found it at work, which it may have been long before")));
    assert!(of_first[3].contains(&format!("until run {second} let it back")), "{of_first:#?}");
    assert!(
        !of_first.iter().any(|line| line.contains("says until when") || line.contains("not back")),
        "{of_first:#?}"
    );

    // The newest has nothing but its own files: whose work stands is named.
    let again = up.run(&["run", "nuc-drives", "--yes"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let third = up.run_id();
    let said = up.run(&["undo", "--yes"]);
    expect(&said, 2, &[&format!("pvemig undo {third} --yes")]);
    let said = words(&said);
    in_order(&said, &["not taken back by that: ", &format!("of run {second} (nuc-drives): `pvemig undo {second}`")]);
}

/// Booted from the stick, it waits for what the run is to install.
#[test]
fn an_undo_that_has_taken_nothing_back_leads_on_backwards() {
    let up = Up::new("nvme-system-replaced", "manual");
    let wipe = format!("disk/{NEW}");
    let useless = ["plan", "nuc-drives", "--destroy", &wipe, "--destroy", "disk/22471A806001"];
    expect(&up.run(&useless), 2, &["`--destroy disk/22471A806001` names nothing that this run can destroy", &wipe]);
    expect(&up.run(&["run", "nuc-drives", "--yes", "--destroy", &wipe]), 3, &["step 04-move-drives needs you"]);
    let id = up.run_id();
    moves(&up, &[(SYS, "bench"), (NEW, "M2_1"), ("4C530001281205115020", "talos-nuc")]);
    let waits = "1 machine waits for its first configuration";
    let said = (0..200).map(|_| words(&up.run(&["survey"]))).find(|said| said.contains(waits)).unwrap();
    let own = format!("run {id} (nuc-drives), which is open, has it in hand: `pvemig resume {id}` goes on with it");
    assert!(said.contains(&own) && !said.contains("blueprint node-replace"), "{said}");
    assert!(said.contains(&format!("and may vote again with it: {own}")), "{said}");

    let undo = up.run(&["undo", "--yes"]);
    assert_eq!(undo.code, 3, "{}", undo.stderr);
    let [back, on] = [format!("pvemig undo {id} --yes go on with the undo"), format!("pvemig resume {id} go forwards")];
    in_order(&words(&undo), &["03-shutdown needs you", &back, &on, "nothing is taken back yet", "pvemig abandon"]);
    let next = format!("`pvemig undo {id}` goes on with its undo, `pvemig resume {id}` goes forwards again");
    let stands = "its undo was begun, and has taken nothing back yet: waits at 03 for you";
    in_order(&words(&up.run(&["status"])), &[" open ", stands, &next]);
    in_order(&words(&up.run(&["survey"])), &[stands, &next]);
    in_order(&words(&up.run(&["report"])), &["possible now:", &format!("pvemig undo {id}"), "pvemig resume"]);
}

#[test]
fn what_a_run_has_installed_is_not_told_of_a_node_that_runs_from_another_disk() {
    let up = Up::new("nvme-system-replaced", "auto");
    let run = up.run(&["run", "nuc-drives", "--yes", "--wait=5m", "--destroy", &format!("disk/{NEW}")]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let undo = up.run(&["undo", &up.run_id(), "--yes", "--wait=5m", "--past", "06a"]);
    expect(&undo, 0, &["what it did stays", "talos-nuc is installed on nvme0n1"]);
    let survey = up.run(&["survey"]);
    assert!(survey.stdout.contains("3 voters, 3 healthy"), "{}", survey.stdout);
    assert!(!survey.stdout.contains("is installed on") && !survey.stdout.contains("06a"), "{}", survey.stdout);
}

/// A hold of one step alone is its own run's, which is done and has an undo.
#[test]
fn a_cordon_of_a_step_that_was_run_alone_is_taken_back_by_its_undo() {
    let up = Up::new("nvme-data", "manual");
    expect(&up.run(&["step", "02-drain", "-m", "nuc-drives", "--yes"]), 0, &["still held: 02-drain"]);
    let said = words(&up.run(&["survey"]));
    let back = format!("it is a hold of that run, which is done: `pvemig undo {}` takes it back", up.run_id());
    assert!(said.contains("L33 talos-nuc") && said.contains(&back) && !said.contains("uncordon"), "{said}");
}

#[test]
fn a_machine_that_was_switched_on_as_asked_is_no_trouble() {
    let up = Up::new("nvme-data", "manual");
    expect(&up.run(&["run", "nuc-drives", "--yes"]), 3, &["step 04-move-drives needs you"]);
    // A drive is put into the wrong slot.
    moves(&up, &[(DATA, "bench"), (NEW, "M2_2")]);
    let id = up.run_id();
    // Once it is up the run switches it off again, and asks anew.
    let mut report = (0..20).map(|_| {
        expect(&up.run(&["resume", &id]), 3, &["step 04-move-drives needs you"]);
        up.run(&["report", &id]).stdout
    });
    let report = report.find(|report| report.contains("this hold did not stand any more")).unwrap();
    assert!(report.contains("as the run had asked, this hold did not stand any more"), "{report}");
    assert!(!report.contains("taken down by somebody") && !report.contains("somebody took"), "{report}");
}

#[test]
fn a_file_that_cannot_be_written_is_told_with_what_helps() {
    let up = Up::new("nvme-data", "manual");
    let to = |file: &std::path::Path| up.run(&["survey", "--hardware", "--to", file.to_str().unwrap(), "talos-nuc"]);
    let dir = up.shell.path().join("nowhere");
    let said = to(&dir.join("nuc.yaml"));
    expect(&said, 1, &["cannot be written", "help: ", &format!("`mkdir -p {}`", dir.display())]);
}
