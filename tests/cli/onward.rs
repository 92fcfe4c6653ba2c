//! Where one is sent at night: after a run that is half done, after what cannot be undone, and at its end.

use super::shell::{Said, Shell, Up, expect};

/// All that was said, on one line.
fn words(said: &Said) -> String {
    format!("{} {}", said.stdout, said.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn with<'a>(args: &[&'a str], things: &[&'a str]) -> Vec<&'a str> {
    args.iter().copied().chain(things.iter().flat_map(|thing| ["--destroy", *thing])).collect()
}

/// The commands that stand at the end, in their order.
#[track_caller]
fn in_order(text: &str, parts: &[&str]) {
    let mut from = 0;
    for part in parts {
        let at = text[from..].find(part).unwrap_or_else(|| panic!("`{part}` is not behind the others in:\n{text}"));
        from += at + part.len();
    }
}

const NO_QUORUM: [&str; 3] = ["etcd/talos-nuc", "gone/talos-mac", "gone/talos-vm"];

#[test]
fn a_half_done_recovery_is_led_on_and_what_is_passed_says_where_etcd_is_and_how_it_begins() {
    let up = Up::new("talos-no-quorum", "auto");
    up.refuse("talos", "*EtcdRecover*", None);
    let run = up.run(&with(&["run", "recover", "--yes"], &NO_QUORUM));
    assert!(run.code == 1 && words(&run).contains("03-recover failed"), "{}", words(&run));
    let id = up.run_id();
    let wiped = "02-wipe-etcd@talos-nuc";

    // It is said first, and nobody is sent to a plan that the open run keeps from beginning.
    let survey = up.run(&["survey"]);
    expect(&survey, 0, &[&format!("run {id} (recover) is open: stopped at 03-recover")]);
    let said = words(&survey);
    in_order(&said, &[&format!("run {id}"), &format!("`pvemig resume {id}` goes on with it"), "NODE"]);
    assert!(!said.contains("help: `pvemig plan") && !said.contains("qm start"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&up.run(&["survey", "--json"]).stdout).unwrap();
    assert_eq!(json["runs"][0]["run"], id.as_str());
    assert_eq!(json["runs"][0]["command"], format!("pvemig resume {id}"));
    let gone = format!("takes back what of it can be, and asks first what {wiped} did: that is not taken back");
    expect(&up.run(&["status"]), 0, &[&format!("`pvemig resume {id}` goes on with it"), &gone]);

    let refused = up.run(&["undo", &id, "--yes"]);
    let said = words(&refused);
    assert_eq!(refused.code, 4, "{said}");
    let (resume, past) = (format!("pvemig resume {id} finish it"), format!("pvemig undo {id} --past {wiped} --yes"));
    in_order(&said, &[&format!("{wiped} cannot be undone"), "may be nowhere but in", &resume, &past, "pvemig abandon"]);

    let passed = up.run(&["undo", &id, "--yes", "--past", wiped]);
    let said = words(&passed);
    assert_eq!(passed.code, 0, "{said}");
    assert!(!said.contains("back as it was"), "{said}");
    let file = "files/01-save-copy/";
    let parts = ["not as it was before; what stays:", "etcd of homelab may be nowhere but in", file, "`snapshot: "];
    in_order(&said, &[&parts[..], &["next: `pvemig survey`", "`pvemig plan recover`"]].concat());
    assert!(said.contains("etcd of homelab has not begun again"), "{said}");
    expect(&up.run(&["resume", &id]), 2, &[]);
    let survey = words(&up.run(&["survey"]));
    let note = format!("run {id} (recover) was undone, and what {wiped} did stays");
    let first = "first what run";
    in_order(&survey, &[&note, "nowhere but in", file, "help: `pvemig plan recover`", "NODE", "L06 talos-nuc", first]);

    // The way that was told leads on.
    up.control(&"clear-faults".into());
    let site = up.shell.path().join("lab/site.yaml");
    let copy = up.shell.path().join(format!("lab/state/homelab/runs/{id}/files/01-save-copy/talos-nuc.snapshot"));
    assert!(said.contains(&format!("`snapshot: {}`", copy.display())), "{said}");
    let text = std::fs::read_to_string(&site).unwrap();
    let from = "from: talos-nuc\n";
    let text = text.replacen(from, &format!("{from}      snapshot: {}\n", copy.display()), 1);
    std::fs::write(&site, text).unwrap();
    let again = up.run(&with(&["run", "recover", "--yes"], &NO_QUORUM));
    assert_eq!(again.code, 0, "{}", words(&again));

    // One voter beside control planes without a vote is nothing that is well.
    let said = words(&up.run(&["survey"]));
    assert!(said.contains("~ etcd homelab: 1 voter") && said.contains("L41 homelab"), "{said}");
    assert!(said.contains("talos-nuc is its only voter, and none can be spared"), "{said}");
    assert!(said.contains("pvemig etcd snapshot --to DIR") && !said.contains("was undone"), "{said}");
}

#[test]
fn after_a_recovery_nobody_is_told_to_start_what_must_stay_off() {
    let up = Up::new("talos-deadlock", "auto");
    let things = ["etcd/talos-nuc", "etcd/talos-mac", "gone/talos-vm"];
    let mut run = up.run(&with(&["run", "recover", "--yes"], &things));
    if run.code != 0 {
        run = up.run(&["resume", &up.run_id()]);
    }
    assert_eq!(run.code, 0, "{}", words(&run));
    let id = up.run_id();
    let said = words(&up.run(&["survey"]));
    assert!(said.contains("L27 talos-vm") && said.contains("L12 homelab"), "{said}");
    assert!(!said.contains("qm start") && !said.contains("apply-config"), "{said}");
    let off = format!("by run {id} (recover) it must not come back with its old disk");
    assert!(said.contains(&off) && said.contains("`qm set 223 --onboot 0`"), "{said}");
    assert!(said.contains("blueprint node-replace") || said.contains("in the place of talos-vm"), "{said}");
    // What is over and destroyed is not called back.
    let report = up.run(&["report", &id]);
    expect(&report, 0, &["gone for good"]);
    assert!(!report.stdout.contains("pvemig undo"), "{}", report.stdout);
    expect(&up.run(&["abandon", &id, "--comment", "x"]), 2, &["nothing of it can be taken back"]);
}

const DEAD: [&str; 4] = ["disk/S2ZRNYAH500750", "etcd/talos-mac", "node/talos-mac", "off/talos-mac"];

#[test]
fn a_half_done_replacement_is_led_on_and_after_its_undo_the_plan_is_named() {
    let up = Up::new("talos-dead-node", "auto");
    // A word of a person is taken by each step that goes by it, and a mistyped one by none.
    let step = |id: &str, things: &[&str]| up.run(&with(&["step", id, "-m", "replace-mac", "--yes"], things));
    for id in ["03-leave-or-remove", "08-node-object"] {
        let said = step(id, &["off/talos-mac"]);
        assert!(said.code != 2 && !words(&said).contains("has no use here"), "{id}: {}", words(&said));
    }
    expect(&step("02-drain", &["pvc/a/b"]), 2, &["names nothing that this run can destroy"]);
    expect(&up.run(&["explain", "04-shutdown"]), 0, &["changes things, and an undo leaves them"]);

    up.refuse("talos", "*ApplyConfiguration*", Some("change"));
    let run = up.run(&with(&["run", "replace-mac", "--yes", "--wait=5m"], &DEAD));
    assert!(run.code == 1 && words(&run).contains("06-apply failed"), "{}", words(&run));
    up.control(&"clear-faults".into());
    let id = up.run_id();
    let said = words(&up.run(&["survey"]));
    in_order(&said, &[&format!("run {id} (replace-mac) is open: stopped at 06-apply"), "NODE"]);
    assert!(!said.contains("`pvemig plan replace-mac`"), "{said}");
    let next = format!("`pvemig resume {id}` goes on with run {id} of replace-mac, which is open, and asks nobody");
    assert!(
        said.contains(&format!("talos-mac2 waits for its configuration, and may vote again with it: {next}")),
        "{said}"
    );
    let said = words(&up.run(&["undo", &id, "--yes"]));
    in_order(&said, &["03-leave-or-remove cannot be undone", &format!("pvemig resume {id} finish it"), "--past 03"]);
    let undone = up.run(&["undo", &id, "--yes", "--past", "03"]);
    let said = words(&undone);
    assert!(undone.code == 0 && !said.contains("back as it was"), "{said}");
    in_order(&said, &["what stays:", "is out of etcd", "next: `pvemig survey`", "`pvemig plan replace-mac`"]);
    let said = words(&up.run(&["survey"]));
    assert!(said.contains("L12 homelab") && !said.contains("apply-config"), "{said}");
    assert!(said.contains("may vote again with it: `pvemig plan replace-mac` shows what becomes of it"), "{said}");
}

/// What was given up has not put anything in its place, and the way on is the plan.
#[test]
fn a_replacement_that_was_abandoned_is_not_told_as_one_that_came_to_its_end() {
    let up = Up::new("talos-dead-node", "auto");
    up.refuse("talos", "*ApplyConfiguration*", Some("change"));
    let run = up.run(&with(&["run", "replace-mac", "--yes", "--wait=5m"], &DEAD));
    assert!(run.code == 1 && words(&run).contains("06-apply failed"), "{}", words(&run));
    up.control(&"clear-faults".into());
    let id = up.run_id();
    expect(&up.run(&["abandon", &id, "--comment", "no hardware"]), 0, &["is abandoned"]);
    let said = words(&up.run(&["survey"]));
    let off = format!(
        "leave it off unless etcd names it as a member: run {id} (replace-mac) was to take it out, and ended without talos-mac2 in \
         its place; for that `pvemig plan replace-mac`"
    );
    assert!(said.contains(&off) && !said.contains("has put talos-mac2 in its place"), "{said}");
    let left = format!("run {id} (replace-mac) was abandoned, and what 03-leave-or-remove");
    let files = format!("runs/{id}/files");
    in_order(&said, &[&left, "what it kept is in", &files, "`pvemig plan replace-mac` shows", "NODE"]);
}

#[test]
fn a_replaced_machine_is_taken_out_of_the_site_and_not_started() {
    let up = Up::new("talos-replace", "auto");
    let before = words(&up.run(&["survey"]));
    assert!(before.contains("L32 talos-mac2") && !before.contains("kubelet restart"), "{before}");
    let place = "it is to take the place of talos-mac, and is switched on for that: `pvemig plan replace-mac`";
    assert!(before.contains(place), "{before}");
    // Attempts that were refused before anything was begun are over with the next one.
    let mut refused = Vec::new();
    for _ in 0..2 {
        expect(&up.run(&["run", "replace-mac", "--yes"]), 4, &["--destroy"]);
        refused.push(up.run_id());
    }
    let status = words(&up.run(&["status"]));
    assert!(
        !status.contains(&format!("{} open", refused[0])) && status.contains(&format!("{} open", refused[1])),
        "{status}"
    );
    let run = up.run(&with(&["run", "replace-mac", "--yes", "--wait=10m"], &DEAD[..3]));
    assert_eq!(run.code, 0, "{}", words(&run));
    let id = up.run_id();
    expect(&up.run(&["status"]), 0, &["no run is open; 3 are over"]);
    let all: serde_json::Value = serde_json::from_str(&up.run(&["status", "--all", "--json"]).stdout).unwrap();
    let stands: Vec<_> = all.as_array().unwrap().iter().map(|run| run["stands"].as_str().unwrap()).collect();
    assert_eq!(stands, ["refused", "refused", "done"]);
    let after = words(&up.run(&["survey"]));
    assert!(after.contains("L32 talos-mac") && !after.contains("kubelet restart"), "{after}");
    let off =
        format!("leave it off: run {id} (replace-mac) has put talos-mac2 in its place; take talos-mac out of the site");
    assert!(after.contains(&off), "{after}");
    assert!(!up.run(&["report", &id]).stdout.contains("pvemig undo"));
}

#[test]
fn a_migration_of_each_blueprint_can_be_written_from_what_explain_says() {
    let shell = Shell::new();
    let mut told = 0;
    for blueprint in pvemig::blueprint::ALL {
        let said = shell.run(&["explain", blueprint.name]);
        expect(&said, 0, &["parameters:", "migrations:", &format!("blueprint: {}", blueprint.name)]);
        for param in blueprint.params {
            let line = format!("\n  {:<12} ", param.name);
            assert!(said.stdout.contains(&line), "{}: {}\n{}", blueprint.name, param.name, said.stdout);
            told += 1;
        }
    }
    assert!(told >= 25, "{told}");
    let recover = shell.run(&["explain", "quorum-recover"]);
    let parts = ["never come back with their old disk", "left out: what `from` has", "etcd/talos-nuc", "gone/talos-vm"];
    expect(&recover, 0, &parts);
    let replace =
        ["disk/S2ZRNYAH500751", "off/talos-", "pv/..", "your word that this machine is off", "node: talos-mac"];
    expect(&shell.run(&["explain", "node-replace"]), 0, &replace);
    let json: serde_json::Value =
        serde_json::from_str(&shell.run(&["--json", "explain", "node-replace"]).stdout).unwrap();
    assert_eq!(json["params"][2]["params"][2]["name"], "disk");
}
