//! What a plan comes to, what a report tells for a ticket, what is explained, and what the shells complete.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Shell, Up, expect, said};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_plan_says_what_it_comes_to_in_words_and_as_data() {
    let up = Up::new("usb-move", "auto");
    let plan = up.run(&["plan", "frigate-coral"]);
    let wanted = [
        "  to do      17 of 18 steps",
        "vm 105, vm 108",
        "may be     04a: node k3s-vm-still-fawn is drained only if vm 108 does not take the device while it runs, as it",
        "may be     05: vm 108 stays on, as it takes the device while it runs; power-cycled only if that fails",
        "  destroyed  nothing",
        "pvc/frigate/frigate-media (39.0 GiB stay behind)",
        "  by hand    03: plug coral",
        "  held       00b until 10, 00d until 10, 04a until 06a",
        "  down       Deployment frigate/frigate, from 00d until 10 finds it at work",
        "no run has shown yet",
        "`--destroy pvc/frigate/frigate-config`",
        "03 needs you: plug coral back where it was, if it was carried",
    ];
    // Off a terminal no line is broken, so that each is found.
    for words in wanted {
        assert!(plan.stdout.contains(words), "{words}: {}", plan.stdout);
    }
    let data = json(&up.run(&["plan", "frigate-coral", "--json"]).stdout);
    assert_eq!(data["steps"].as_array().unwrap().len(), 18);
    let summary = &data["summary"];
    assert_eq!((&summary["steps"], &summary["done"]), (&18.into(), &1.into()));
    assert_eq!(summary["changes"]["proxmox"], serde_json::json!(["vm 105", "vm 108"]));
    assert_eq!(summary["empties"][1]["bytes"].as_u64().map(|bytes| bytes >> 30), Some(39));
    assert_eq!(summary["down"][0]["hands"], serde_json::json!(["03"]));
    assert_eq!(summary["destroys"], serde_json::json!([]));

    expect(&up.run(&["run", "frigate-coral", "--yes", "--wait=5m"]), 0, &["was down for", "--format markdown"]);
    expect(&up.run(&["plan", "frigate-coral"]), 0, &["nothing: all 18 steps are done already"]);
}

#[test]
fn a_report_is_for_a_ticket_and_says_what_others_must_say_now() {
    let up = Up::new("usb-move", "auto");
    expect(&up.run(&["run", "frigate-coral", "--yes", "--wait=5m"]), 0, &[]);
    let markdown = up.run(&["report", "--format", "markdown"]).stdout;
    let wanted = [
        "# frigate-coral (usb-move v1) on homelab",
        "- down: Deployment frigate/frigate for ",
        "from the first change of 00d until 10 found it at work",
        " calls (proxmox 2, kubernetes 1",
        "- ways into guests: ssh root@",
        "- by hand: 03: plug coral",
        "## What others must say now",
        "# resource \"proxmox_virtual_environment_vm\" with vm_id = 108\n+ usb {\n+   host    = \"1a6e:089a\"",
        "- community.proxmox.proxmox_kvm:\n    vmid: 105",
        "### Git, checkout gitops",
    ];
    for words in wanted {
        assert!(markdown.contains(words), "`{words}` is not in\n{markdown}");
    }
    let data = json(&up.run(&["report", "--json"]).stdout);
    assert_eq!(data["fold_back"].as_array().map(Vec::len), Some(6));
    assert_eq!(data["outages"][0]["end"]["is"], "ready");
    assert_eq!(data["by_hand"][0]["step"], "03-check-host-hardware");
    expect(&up.run(&["report"]), 0, &["Terraform, provider bpg/proxmox", "possible now:"]);
    // The next plan knows how long it was, once there is something to do again.
    let id = up.run_id();
    let consents = ["--destroy", "pvc/frigate/frigate-config", "--destroy", "pvc/frigate/frigate-media"];
    expect(&up.run(&[&["undo", &id, "--yes", "--wait=5m"][..], &consents].concat()), 0, &["everything is back"]);
    let undone = up.run(&["report", &id]);
    assert_eq!(undone.stdout.matches("  down: Deployment frigate/frigate for ").count(), 2, "{}", undone.stdout);
    assert!(undone.stdout.contains("until the undo gave it back"), "{}", undone.stdout);
    assert!(!undone.stdout.contains("what others must say now"), "{}", undone.stdout);
}

#[test]
fn every_finding_step_and_rule_is_explained() {
    let shell = Shell::new();
    let all = json(&shell.run(&["explain", "--json"]).stdout);
    let (steps, findings) = (all["steps"].as_array().unwrap(), all["findings"].as_array().unwrap());
    let rows: usize = pvemig::blueprint::ALL.iter().map(|blueprint| blueprint.rows.len()).sum();
    assert!(steps.len() == rows && rows >= 58, "{} of {rows}", steps.len());
    assert!(findings.len() > 50, "{}", findings.len());
    let listed = shell.run(&["explain"]).stdout;
    for finding in findings {
        let name = finding["finding"].as_str().unwrap();
        assert!(listed.contains(&format!("  {name} ")), "{name}: {listed}");
    }
    expect(
        &shell.run(&["explain", "claim-on-old-node"]),
        0,
        &[
            "claim-on-old-node (a finding of usb-move's preflight)",
            "means",
            "by hand",
            "protects  10-deploy-and-verify",
        ],
    );
    assert_eq!(json(&shell.run(&["explain", "no-quorum", "--json"]).stdout)["finding"], "no-quorum");
    expect(&shell.run(&["explain", "claim-on-new-node"]), 2, &["no finding or rule of this name"]);
    let reboots = shell.run(&["explain", "node-reboot-test"]);
    expect(&reboots, 0, &["steps of node-reboot-test: ", "\n  04-reboot "]);
    assert_eq!(json(&shell.run(&["explain", "usb-move", "--json"]).stdout)["blueprint"], "usb-move");
    let rules = all["rules"].as_array().unwrap();
    let lints = shell.run(&["explain", "lints"]).stdout;
    for rule in rules {
        let number = rule["rule"].as_str().unwrap();
        assert!(listed.contains(&format!("  {number} ")) && lints.contains(&format!("  {number} ")), "{number}");
        let parts = ["(a rule of the survey): ", "\n  wrong ", "\n  shows ", "\n  by hand ", "\n  source "];
        expect(&shell.run(&["explain", number]), 0, &parts);
    }
    assert_eq!(json(&shell.run(&["explain", "l07", "--json"]).stdout)["title"], "a disk selector matches no disk");
    assert_eq!(json(&shell.run(&["explain", "lints", "--json"]).stdout)["rules"].as_array().unwrap(), rules);
    println!("{} steps, {} findings, {} rules", steps.len(), findings.len(), rules.len());
}

#[test]
fn a_problem_carries_the_name_of_its_finding() {
    let up = Up::new("usb-move", "manual");
    up.refuse("kubernetes", "*selfsubjectaccessreviews*", None);
    let words = ["[00a·cannot-ask]", "`pvemig explain NAME` says more of what is named in brackets"];
    let plan = up.run(&["plan", "frigate-coral"]);
    expect(&plan, 4, &words);
    assert!(
        plan.stdout.ends_with("\nblocked: 1 problem above, and nothing begins before that is mended\n"),
        "{}",
        plan.stdout
    );
    expect(&up.run(&["run", "frigate-coral", "--yes"]), 4, &words);
    let plan = json(&up.run(&["plan", "frigate-coral", "--json"]).stdout);
    let problem = &plan["steps"][0]["said"]["answer"]["problems"][0];
    assert_eq!(
        (problem["finding"].as_str(), problem["protects"].as_str()),
        (Some("cannot-ask"), Some("00a-retain-volumes"))
    );
}

fn candidates(up: &Up, words: &[&str]) -> Vec<String> {
    let said = up.run(&[&["__complete", "--"], words].concat());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    said.stdout.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn completions_know_migrations_steps_and_runs() {
    let up = Up::new("usb-move", "auto");
    assert_eq!(candidates(&up, &["run", ""]), ["frigate-coral"]);
    assert_eq!(candidates(&up, &["step", "04", "-m", "f"]), ["frigate-coral"]);
    assert_eq!(candidates(&up, &["step", "04", "--vmid", ""]), ["105", "103", "108"]);
    assert_eq!(candidates(&up, &["step", "09", "--node", "k3s-vm-s"]), ["k3s-vm-still-fawn"]);
    assert_eq!(candidates(&up, &["undo", ""]), Vec::<String>::new());
    expect(&up.run(&["run", "frigate-coral", "--yes", "--wait=5m"]), 0, &[]);
    let id = up.run_id();
    expect(&up.run(&["plan", "frigate-coral"]), 0, &[]);
    for (words, fits) in [(["undo", ""], 1), (["report", ""], 1), (["resume", ""], 0), (["abandon", ""], 0)] {
        let found = candidates(&up, &words);
        assert_eq!((found.len(), found.iter().all(|run| *run == id)), (fits, true), "{words:?} {found:?}");
    }
    let things = candidates(&up, &["undo", &id, "--destroy", "pvc/"]);
    assert_eq!(things, ["pvc/frigate/frigate-config", "pvc/frigate/frigate-media"]);
    // The site that the words name is the one that is meant, and a broken one is no reason to complain.
    assert_eq!(candidates(&up, &["--site", "/nowhere.yaml", "run", ""]), Vec::<String>::new());
    assert!(candidates(&up, &["undo", &id, "--past", "11"]).contains(&"11-recreate-pvcs".to_owned()));
    // Looking makes nothing.
    let empty = Shell::new();
    let mut looks = empty.command(&["__complete", "--", "--site"]);
    looks.args([up.shell.path().join("lab/site.yaml").to_str().unwrap(), "--state", "s", "undo", ""]);
    assert!(looks.status().unwrap().success());
    assert!(!empty.path().join("s").exists());
}

/// What a real shell makes of keys that somebody types on a terminal.
fn typed(up: &Up, shell: &str, keys: &str) -> String {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {}", shell.split(' ').next().unwrap())]).output().unwrap();
    assert!(found.status.success(), "{shell} is not here: `./scripts/test` installs it");
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_pvemig")).parent().unwrap();
    let mut terminal = Command::new("script");
    terminal.args(["-qec", shell, "/dev/null"]).envs(up.command(&[]).get_envs().filter_map(|(k, v)| Some((k, v?))));
    terminal.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())).env("TERM", "xterm");
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    terminal.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
    String::from_utf8_lossy(&terminal.wait_with_output().unwrap().stdout).into_owned()
}

#[test]
fn bash_and_zsh_complete_what_is_typed() {
    let up = Up::new("usb-move", "auto");
    let mut shells = 0;
    for (shell, setup) in [
        ("bash --norc --noprofile -i", "source <(pvemig completions bash)"),
        ("zsh -f -i", "autoload -Uz compinit; compinit -u -D; source <(pvemig completions zsh)"),
    ] {
        let text = typed(&up, shell, &format!("{setup}\npvemig explain claim-on\t\npvemig plan fri\t\nexit\n"));
        assert!(text.contains("(a finding of usb-move's preflight)"), "{shell}: {text}");
        assert!(text.contains("17 of 18 steps"), "{shell}: {text}");
        shells += 1;
    }
    assert_eq!(shells, 2);
}

#[test]
fn fish_completes_with_a_word_about_each() {
    let up = Up::new("usb-move", "auto");
    let asked = ["pvemig run ", "pvemig explain 09", "pvemig report --format "];
    let line = asked.map(|line| format!("complete -C '{line}'")).join("; ");
    let text = typed(&up, &format!("fish --no-config -c \"pvemig completions fish | source; {line}\""), "");
    for wanted in
        ["frigate-coral\ta migration of usb-move", "09a-update-manifests\tstep 09a of usb-move", "markdown\tFor a"]
    {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

/// What the README promises, it names the tests for: each of them is there.
#[test]
fn the_tests_that_the_readme_names_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let table = readme.split("\n## Promises").nth(1).unwrap().split("\n## ").next().unwrap();
    let names: Vec<_> = table.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit_once("::")).collect();
    assert!(names.len() >= 20, "{names:?}");
    let mut missing = Vec::new();
    for (area, test) in &names {
        let place = area.replace("::", "/");
        let mut files = vec![root.join(format!("tests/{place}.rs"))];
        files
            .extend(std::fs::read_dir(root.join("tests").join(place)).into_iter().flatten().map(|e| e.unwrap().path()));
        let sources: String = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
        // One of a macro's is a name of its own there.
        if !(sources.contains(&format!("fn {test}(")) || sources.contains(&format!("{test}: "))) {
            missing.push(format!("{area}::{test}"));
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    println!("{} tests are named", names.len());
}

/// The README's session: every command succeeds, and each line below it is in what it prints.
#[test]
fn the_readme_shows_what_happens() {
    let up = Up::new("usb-move", "auto");
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let block = readme.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let lab = up.shell.path().join("lab");
    let bin = Path::new(env!("CARGO_BIN_EXE_pvemig")).parent().unwrap();
    let mut commands = 0;
    let mut setup = String::new();
    for part in block.split("$ ").skip(1) {
        let (command, expected) = part.split_once('\n').unwrap();
        let command = command.replace("/tmp/lab", lab.to_str().unwrap());
        if command.starts_with(". ") {
            setup = format!("{command}\n");
            continue;
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{setup}{command}")]).env_clear().env("HOME", up.shell.path()).env("PATH", path);
        let said = said(shell.stdin(Stdio::null()).output().unwrap());
        let words: Vec<&str> = expected.lines().filter(|l| !l.is_empty()).collect();
        expect(&said, 0, &words);
        commands += 1;
    }
    assert_eq!(commands, 11);
}
