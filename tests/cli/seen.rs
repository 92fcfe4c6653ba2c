//! What a person sees and is asked: widths, questions, signals, and texts that must not be read as facts.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::{Shell, Up, answer, expect};

#[test]
fn what_the_help_says_is_true() {
    let shell = Shell::new();
    expect(&shell.run(&["explain", "00"]), 0, &["it only looks\n"]);
    // No page refers to one that is not there.
    let page = shell.run(&["man"]).stdout;
    let verbs = page.lines().filter(|line| line.starts_with(".SS \"pvemig ")).count();
    assert_eq!((verbs, page.contains("(1)\n")), (22, false), "{page}");
    let explained: serde_json::Value =
        serde_json::from_str(&shell.run(&["explain", "05-reboot-vm", "--json"]).stdout).unwrap();
    assert_eq!(explained["step"], "05-reboot-vm");
    // Of a name that two blueprints have as well one value.
    let both: serde_json::Value = serde_json::from_str(&shell.run(&["explain", "04", "--json"]).stdout).unwrap();
    let of: Vec<_> = both["steps"].as_array().unwrap().iter().map(|step| step["blueprint"].as_str().unwrap()).collect();
    assert_eq!(
        of,
        ["usb-move", "node-reboot-test", "cluster-build", "node-replace", "quorum-recover", "nvme-move"],
        "{both}"
    );
    assert_eq!(explained["example"], true);
    assert!(explained["why"].as_array().is_some_and(|why| !why.is_empty()), "{explained}");
    let flags = explained["flags"].as_array().unwrap();
    assert!(flags.iter().any(|flag| flag["flag"] == "--force-off"), "{explained}");
}

/// What `args` show on a terminal of 80 columns whose keyboard is gone: every answer is no.
pub(crate) fn unanswered(up: &Up, args: &str) -> (Option<i32>, String) {
    on_terminal(&up.command(&[]), &format!("stty cols 80 rows 24; exec {} {args}", env!("CARGO_BIN_EXE_pvemig")))
}

/// What a line of a shell shows on a terminal whose keyboard is gone, where `as_of` would run.
pub(crate) fn on_terminal(as_of: &Command, line: &str) -> (Option<i32>, String) {
    let mut terminal = Command::new("script");
    terminal.args(["-qec", line, "/dev/null"]).envs(as_of.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let shown = terminal.stdin(Stdio::null()).output().unwrap();
    (shown.status.code(), String::from_utf8(shown.stdout).unwrap())
}

/// A line without what colours it.
pub(crate) fn without_styles(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| line + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[test]
fn a_run_that_is_blocked_is_not_begun_and_a_question_comes_with_what_it_is_about() {
    let up = Up::new("usb-move", "manual");
    let (code, text) = unanswered(&up, "run frigate-coral");
    assert_eq!(code, Some(130), "{text}");
    let question = text.find("Begin?").unwrap();
    // What it comes to stands right above: every line of it.
    let above = text[..question].split_once("\r\n\r\n").unwrap().1;
    let heads: Vec<_> =
        above.lines().filter_map(|line| line.get(2..12)).map(str::trim).filter(|h| !h.is_empty()).collect();
    let wanted = ["to do", "changes", "may be", "may be", "destroyed", "empty", "by hand", "held", "down", "undo"];
    assert_eq!(heads, wanted, "{text}");
    for words in ["17 of 18 steps", "39.0 GiB", "03: plug coral", "00b until 10", "from 00d until 10", "--destroy pvc/"]
    {
        let said = above.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(words), "`{words}` is not in {above}");
    }

    up.refuse("kubernetes", "*selfsubjectaccessreviews*", None);
    let (code, text) = unanswered(&up, "run frigate-coral");
    assert_eq!(code, Some(4), "{text}");
    assert!(!text.contains("Begin?"), "{text}");
    let (_, last) = text.split_once("so nothing is begun").unwrap();
    assert!(last.contains("help:"), "{text}");
    // Nothing is wider than the terminal.
    let lines = text.lines().map(without_styles).filter(|line| !line.is_empty());
    let widths: Vec<_> = lines.map(|line| line.trim_end().chars().count()).collect();
    assert!(widths.len() > 20 && widths.iter().all(|width| *width <= 80), "{widths:?} {text}");
    let (code, text) = unanswered(&up, "step 00a");
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("so nothing is begun"), "{text}");
    expect(&up.run(&["status", "--all"]), 0, &["no run is open\n"]);
}

#[test]
fn a_plan_says_that_it_is_still_asking_and_gives_up_sooner_than_a_run() {
    let mut up = Up::new("usb-move", "manual");
    up.lab.kill().unwrap();
    up.lab.wait().unwrap();
    let (code, text) = unanswered(&up, "plan frigate-coral");
    assert_eq!(code, Some(1), "{text}");
    let waited = text.matches("… asking, ").count();
    assert!((6..60).contains(&waited), "{waited} lines: {text}");
    // That line goes away before the plan is there.
    let (_, plan) = text.rsplit_once("\x1b[2K").unwrap();
    assert!(plan.contains("00-preflight") && plan.contains("cannot be reached"), "{text}");
}

#[test]
fn on_a_terminal_a_single_step_asks_before_it_changes_anything() {
    let up = Up::new("usb-move", "auto");
    let changes = up.changes();
    let (code, text) = unanswered(&up, "step 01 --vmid 105");
    assert_eq!(code, Some(130), "{text}");
    assert!(text.contains("- vm 105 usb0: host=1a6e:089a") && text.contains("nothing was changed"), "{text}");
    assert_eq!(up.changes(), changes);
    // Where the question could not be seen it is not taken for answered.
    let (code, text) = unanswered(&up, "step 01 --vmid 105 2>/dev/null");
    assert_eq!((code, up.changes()), (Some(2), changes), "{text}");
    expect(&up.run(&["run", "frigate-coral", "--yes", "--destroy", "pvc/frigate"]), 2, &["has no use here", "undo"]);
    expect(&up.run(&["status", "--all"]), 0, &["no run is open\n"]);
    let (code, text) = answer(&up, "step 01 --vmid 105", "Begin?", b"y\n", || ());
    assert_eq!(code, Some(0), "{text}");
    assert!(up.changes() > changes);
    // What moves is one row that is taken back before anything else is said.
    let rows: Vec<_> = text.split("\r\x1b[2K").map(without_styles).filter(|part| part.starts_with("  … ")).collect();
    // Nor does what a terminal shows of Ctrl-C make another one.
    let fits = |row: &String| !row.contains('\n') && row.chars().count() + "^C".len() < 80;
    assert!(!rows.is_empty() && rows.iter().all(fits), "{rows:?}");
    // A terminal that can only print is sent nothing else.
    let (code, text) = on_terminal(
        &up.command(&[]),
        &format!("export TERM=dumb; exec {} step 02 --yes", env!("CARGO_BIN_EXE_pvemig")),
    );
    assert!(code == Some(0) && text.contains("02-remove-label") && !text.contains("\x1b["), "{text:?}");
    // Where nothing is to be done nobody is asked, nor with --yes, nor by a step that only looks.
    for args in ["step 01 --vmid 105", "step 00a --yes", "step 00"] {
        let (code, text) = unanswered(&up, args);
        assert_eq!((code, text.contains("Begin?")), (Some(0), false), "{text}");
    }
}

#[test]
fn a_reason_of_several_lines_is_said_once_and_keeps_its_indent() {
    let up = Up::new("usb-move", "auto");
    // By flags alone, so that no preflight finds it first.
    let site = up.shell.path().join("lab/site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, text.split_once("\nmigrations:").unwrap().0).unwrap();
    up.control(&serde_json::json!({ "fault": { "front": "ssh", "effect": "reset-before" } }));
    up.control(&serde_json::json!({ "fault": { "front": "proxmox", "path": "*/agent/*", "effect": "reset-before" } }));
    let mut step = up.command(&["step", "06-wait-for-vm", "--vmid", "108", "--yes"]);
    let mut step = step.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(step.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains("06-wait-for-vm           waiting     ") && line.contains("no way in")));
    let next = lines.next().unwrap();
    assert!(next.starts_with(&" ".repeat(41)), "{next}");
    up.control(&"clear-faults".into());
    let rest: Vec<_> = lines.collect();
    assert_eq!(step.wait().unwrap().code(), Some(0), "{rest:?}");
    assert!(!rest.iter().any(|line| line.contains("no way in")), "{rest:?}");
}

#[test]
fn a_suggested_command_meets_the_same_site() {
    let up = Up::new("usb-move", "manual");
    let lab = up.shell.path().join("lab");
    let options = format!("--site {} --state {}", lab.join("site.yaml").display(), lab.join("state").display());
    let args: Vec<_> = options.split(' ').chain(["step", "04", "--vmid", "108"]).collect();
    let said = up.shell.run(&args);
    expect(
        &said,
        4,
        &[
            &format!("`pvemig {options} step 01-remove-usb --vmid 105`"),
            &format!("pvemig {options} resume "),
            &format!("pvemig {options} abandon "),
            "error: step 04-add-usb is blocked\n",
        ],
    );
    let args: Vec<_> = options.split(' ').chain(["report"]).collect();
    expect(&up.shell.run(&args), 0, &[&format!("pvemig {options} resume ")]);
    // The environment is still there when the command is.
    expect(&up.run(&["report"]), 0, &["  pvemig resume "]);
}

/// A run that waits for a person, and its words from there on. `shell` starts it: the tests themselves may run under
/// `nohup`, and a shell cannot take back that a signal is ignored.
fn waits_for_a_person(up: &Up, shell: &str) -> (Child, impl Iterator<Item = String>) {
    let line = format!("{shell} {} run frigate-coral --yes --wait", env!("CARGO_BIN_EXE_pvemig"));
    let mut run = Command::new("sh");
    run.args(["-c", &line]).envs(up.command(&[]).get_envs().filter_map(|(k, v)| Some((k, v?))));
    let mut run = run.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains("please: plug coral")));
    (run, lines)
}

fn signal(name: &str, process: &Child) {
    let kill = format!("kill -{name} {}", process.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn a_terminal_that_goes_away_is_an_interrupt() {
    let up = Up::new("usb-move", "manual");
    let (mut run, lines) = waits_for_a_person(&up, "exec env --default-signal=HUP");
    // Nobody reads any more.
    drop(lines);
    signal("HUP", &run);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let report: serde_json::Value = serde_json::from_str(&up.run(&["report", "--json"]).stdout).unwrap();
    assert_eq!(report["standing"], "interrupted");
    expect(&up.run(&["status"]), 0, &["no process is at work on it", "still held: 00b-suspend-gitops"]);
}

#[test]
fn under_nohup_the_end_of_a_terminal_is_nothing_and_a_run_at_work_is_named() {
    let up = Up::new("usb-move", "manual");
    let (mut run, lines) = waits_for_a_person(&up, "trap '' HUP; exec");
    signal("HUP", &run);
    let process = format!("process {} on ", run.id());
    expect(&up.run(&["status"]), 0, &[&process, "is at work on it since"]);
    let report = up.run(&["report"]);
    expect(&report, 0, &[&process, "is at work on run", "this is as far as it is by now", "pvemig status"]);
    assert!(!report.stdout.contains("pvemig resume"), "{}", report.stdout);
    let held = up.run(&["run", "frigate-coral", "--yes"]);
    expect(&held, 7, &["is not finished: process", &process, "pvemig status"]);
    assert!(!held.stderr.contains("pvemig undo"), "{}", held.stderr);
    // A plan sends nobody to verbs that would be refused now.
    let plan = up.run(&["plan", "frigate-coral"]);
    expect(&plan, 4, &["which is still open", &process, "is at work on it: let it end"]);
    // From another desk not even a step that stands alone changes anything.
    let changes = up.changes();
    for step in [["step", "04", "--yes"], ["step", "09", "--yes"]] {
        let other = up.run(&[&["--state", "desk2"], &step[..]].concat());
        expect(&other, 4, &["is held by run", "which this state directory does not know"]);
    }
    assert_eq!(up.changes(), changes);
    let lab = up.shell.path().join("lab");
    expect(&up.run(&["lab", "move", "coral", "--to", "still-fawn:2-3", "--dir", lab.to_str().unwrap()]), 0, &[]);
    let rest: Vec<_> = lines.collect();
    assert_eq!(run.wait().unwrap().code(), Some(0), "{rest:?}");
}
