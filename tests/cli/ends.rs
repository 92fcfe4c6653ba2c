//! How runs end: their exit codes, an interrupt, and kills at named points and wherever they are.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::{Up, expect, said};

#[test]
fn a_killed_run_is_resumed() {
    let up = Up::new("usb-move", "auto");
    let mut killed = 0;
    for point in ["12", "25", "20"] {
        let verb: &[&str] = if killed == 0 { &["run", "frigate-coral"] } else { &["resume"] };
        let mut command = up.command(verb);
        command.args(["--yes", "--wait=5m"]).env("PVEMIG_CRASH_AT", point);
        let dead = said(command.output().unwrap());
        assert_eq!(dead.code, -1, "{}{}", dead.stdout, dead.stderr);
        killed += 1;
        expect(&up.run(&["run", "frigate-coral", "--yes"]), 7, &["is not finished", "resume", "undo", "abandon"]);
    }
    expect(&up.run(&["resume", "--wait=5m"]), 0, &["done"]);
    assert_eq!(killed, 3);
    done_once(&up, killed);
}

/// SIGKILL at no named point, but wherever it is when a step's line comes.
#[test]
fn a_run_that_is_killed_by_the_system_is_resumed() {
    let up = Up::new("usb-move", "auto");
    let mut killed = 0;
    for step in ["00b-suspend-gitops", "04-add-usb", "11-recreate-pvcs"] {
        let verb: &[&str] = if killed == 0 { &["run", "frigate-coral"] } else { &["resume"] };
        let mut run = up.command(verb);
        let mut run = run.args(["--yes", "--wait=5m"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
        assert!(lines.any(|l| l.unwrap().contains(&format!("▸ {step}"))), "{step}");
        run.kill().unwrap();
        assert_eq!(run.wait().unwrap().code(), None);
        killed += 1;
    }
    expect(&up.run(&["resume", "--wait=5m"]), 0, &["done"]);
    assert_eq!(killed, 3);
    done_once(&up, killed);
}

/// The world is as it is to be, and nothing was done twice: a call that was written down may not have been sent.
fn done_once(up: &Up, killed: usize) {
    let (calls, changes) = (up.calls(), up.changes());
    assert!(changes <= calls && calls <= changes + killed, "{calls} {changes}");
    expect(&up.run(&["plan", "frigate-coral", "--exit-code"]), 0, &[]);
    expect(&up.run(&["run", "frigate-coral", "--yes"]), 0, &["done"]);
    assert_eq!((up.calls(), up.changes()), (calls, changes));
}

#[test]
fn the_ends_of_a_run_have_their_own_exit_codes() {
    let up = Up::new("usb-move", "manual");
    expect(&up.run(&["plan", "frigate-coral", "--exit-code"]), 5, &["00a-retain-volumes"]);

    // 1 and 6: what was asked for is refused, forwards and backwards.
    up.refuse("kubernetes", "*/persistentvolumes/*", Some("change"));
    expect(&up.run(&["step", "00a"]), 1, &["step 00a-retain-volumes failed", "pvemig resume", "pvemig undo"]);
    up.control(&"clear-faults".into());
    expect(&up.run(&["resume"]), 0, &["done"]);
    let retain = up.run_id();
    expect(&up.run(&["abandon", &retain, "--comment", "x"]), 2, &["is done", "pvemig undo"]);
    up.refuse("kubernetes", "*/persistentvolumes/*", Some("change"));
    expect(&up.run(&["undo", &retain, "--yes"]), 6, &["the undo of step 00a-retain-volumes failed", "pvemig undo"]);
    expect(&up.run(&["resume", &retain]), 6, &["goes on with the undo"]);
    up.control(&"clear-faults".into());
    expect(&up.run(&["undo", &retain, "--yes"]), 0, &["undone: everything is back as it was"]);
    expect(&up.run(&["abandon", &retain, "--comment", "x"]), 2, &["is undone"]);

    // 130: it waits for a person, and is interrupted.
    let mut run = up.command(&["run", "frigate-coral", "--yes", "--wait"]);
    let mut run = run.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().contains("please: plug coral")));
    // The shell's own: the program is of a package that a slim machine lacks.
    let kill = format!("kill -INT {}", run.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let rest: Vec<_> = lines.map(|l| l.unwrap()).collect();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|l| l.contains("still held: 00b-suspend-gitops")), "{rest:?}");
    assert!(rest.iter().any(|l| l.contains("pvemig resume")), "{rest:?}");
}
