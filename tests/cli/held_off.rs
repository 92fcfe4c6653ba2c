//! A machine that an open run holds off while its drives are moved, as everything else tells of it.

use super::*;

/// A run of drives that has asked, and waits for nobody; what a survey is to say of its machine.
fn asked(world: &str, migration: &str) -> (Up, String, String) {
    let up = Up::new(world, "manual");
    expect(&up.run(&["run", migration, "--yes"]), 3, &["step 04-move-drives needs you"]);
    let id = up.run_id();
    let held = format!(
        "held off by run {id} ({migration}) at 04-move-drives: do not start it but as that run asks; `pvemig resume {id}` goes on \
         with it"
    );
    (up, id, held)
}

fn words(said: &Said) -> String {
    said.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_survey_starts_no_vm_that_an_open_run_holds_off() {
    let (up, id, held) = asked("nvme-data-vm", "vm-drives");
    let survey = up.run(&["survey"]);
    let said = words(&survey);
    assert!(said.contains("L27 talos-vm its VM is stopped"), "{}", survey.stdout);
    // With the finding, and with what is not known of it.
    assert_eq!(said.matches(&format!("help: {held}")).count(), 2, "{}", survey.stdout);
    assert!(!said.contains("qm start"), "{}", survey.stdout);
    let json: serde_json::Value = serde_json::from_str(&up.run(&["survey", "--json"]).stdout).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    let of: Vec<_> = nodes.iter().map(|node| (node["name"].as_str().unwrap(), node["held-off"].as_str())).collect();
    assert_eq!(of, [("talos-mac", None), ("talos-nuc", None), ("talos-vm", Some(held.as_str()))]);
    // Somebody is at its host, as the run has asked.
    let lab = up.shell.path().join("lab");
    let power = || expect(&up.run(&["lab", "power", "pve", "--dir", lab.to_str().unwrap()]), 0, &["pve is switched o"]);
    power();
    let said = words(&up.run(&["survey"]));
    assert!(said.contains(&format!("help: {held}; where its host is not off for that: is pve on")), "{said}");
    power();
    // One that has been given up has left it off, with its drives wherever they are; one that cannot be read names nothing.
    expect(&up.run(&["abandon", &id, "--comment", "enough"]), 0, &[]);
    let held = format!(
        "help: held off by run {id} (vm-drives), which is over: see that its drives are where its hostpci lines have them (`qm config \
         223`) before you start it; started by hand then, `pvemig run vm-drives` takes over what is still held"
    );
    let said = (0..60).map(|_| words(&up.run(&["survey"]))).find(|said| said.contains("its VM is stopped")).unwrap();
    assert!(said.contains(&held) && !said.contains("qm start"), "{said}");
    let journal = up.shell.path().join(format!("lab/state/homelab/runs/{id}/journal.jsonl"));
    std::fs::write(journal, "{}\n").unwrap();
    let said = words(&up.run(&["survey"]));
    assert!(said.contains(&format!("the journal of run {id} is damaged")) && !said.contains("held off"), "{said}");
}

#[test]
fn a_survey_switches_on_no_machine_that_an_open_run_holds_off() {
    let (up, id, held) = asked("nvme-data", "nuc-drives");
    let said = words(&up.run(&["survey"]));
    assert_eq!(said.matches(&format!("help: {held}")).count(), 1, "{said}");
    // Another one is switched off by mistake.
    let lab = up.shell.path().join("lab");
    expect(&up.run(&["lab", "power", "talos-mac", "--dir", lab.to_str().unwrap()]), 0, &["talos-mac is going off"]);
    let said = (0..60).map(|_| words(&up.run(&["survey"]))).find(|said| said.contains("switch on talos-mac")).unwrap();
    let help =
        "a voter that comes back with its disk loses nothing: switch on talos-mac; where that machine is gone for good";
    assert!(said.contains(help) && !said.contains("or talos-nuc"), "{said}");
    assert!(said.contains(&format!("; talos-nuc is {held}")), "{said}");
    // With a migration for what is gone for good: that waits for the run, and the switch does not.
    let mut site = std::fs::OpenOptions::new().append(true).open(lab.join("site.yaml")).unwrap();
    writeln!(site, "  recover: {{ blueprint: quorum-recover, params: {{ talos: homelab }} }}").unwrap();
    let said = words(&up.run(&["survey"]));
    let help = format!(
        "help: a voter that comes back with its disk loses nothing: switch on talos-mac; where that machine is gone for good, first \
         the end of run {id} (nuc-drives), which is open: `pvemig resume {id}`; then `pvemig plan recover`; talos-nuc is {held}"
    );
    assert!(said.contains(&help), "{said}");

    // The only control plane: nothing is found, and what is not known has its reason.
    let (up, _, held) = asked("nvme-single", "nuc-drives");
    let said = words(&up.run(&["survey"]));
    assert!(said.contains(&format!("help: {held}")) && !said.contains("is the node up"), "{said}");
    assert!(said.contains(&format!("help: talos-nuc is {held}")) && !said.contains("is the API server"), "{said}");
}

#[test]
fn a_drawing_is_whole_in_markdown() {
    let (up, _, _) = asked("nvme-data-vm", "vm-drives");
    let said = up.run(&["report", "--format", "markdown"]);
    expect(&said, 0, &["- `note: its slots, and what is to be in them:`"]);
    let (mut inside, mut drawn, mut blocks) = (false, 0, 0);
    for line in said.stdout.lines() {
        if line.starts_with("```") {
            (inside, blocks) = (!inside, blocks + usize::from(!inside));
            continue;
        }
        assert!(!line.contains("+----") || inside && line.starts_with('+'), "{line}: {}", said.stdout);
        drawn += usize::from(line.starts_with("+--"));
    }
    assert!(!inside && blocks >= 2 && drawn >= 10, "{blocks} {drawn}: {}", said.stdout);
}

/// What a node is to be installed with is looked for before anything begins.
#[test]
fn a_check_of_the_site_misses_a_machine_configuration() {
    let cases = [("nvme-system-replaced", 1), ("talos-fresh", 3)];
    for (world, count) in cases {
        let up = Up::new(world, "manual");
        expect(&up.run(&["site", "check"]), 0, &["good ("]);
        let file = up.shell.path().join("lab/controlplane.yaml");
        std::fs::rename(&file, file.with_extension("away")).unwrap();
        let said = up.run(&["site", "check"]);
        let missing = format!("the secret file {} cannot be read: there is no such file", file.display());
        expect(&said, 2, &[&missing, "site.yaml:", "config: "]);
        let all = said.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(all.matches(&missing).count(), count, "{world}: {}", said.stderr);
    }
    assert_eq!(cases.len(), 2);
}

/// What a run would refuse to begin with is blocked in its plan too, whatever else could not be asked for the same cause.
#[test]
fn a_plan_that_cannot_be_begun_is_blocked_whichever_file_is_of_no_use() {
    let cases = [("talosconfig", true), ("talosconfig", false), ("kubeconfig", true), ("kubeconfig", false)];
    let up = Up::new("nvme-data", "manual");
    for (name, is_directory) in cases {
        let file = up.shell.path().join("lab").join(name);
        let away = file.with_extension("away");
        std::fs::rename(&file, &away).unwrap();
        if is_directory {
            std::fs::create_dir(&file).unwrap();
        }
        expect(&up.run(&["plan", "nuc-drives"]), 4, &[name, "cannot be read", "blocked: "]);
        if is_directory {
            std::fs::remove_dir(&file).unwrap();
        }
        std::fs::rename(&away, &file).unwrap();
    }
    expect(&up.run(&["plan", "nuc-drives"]), 0, &["04-move-drives"]);
    assert_eq!(cases.len(), 4);
}
