//! What an undo says of other runs, of what it needs, and of where it stopped.

use std::process::{Command, Stdio};

use super::shell::{Up, expect};

/// A command on a terminal where nobody answers; gives the exit code and what was shown.
pub(crate) fn on_terminal(up: &Up, args: &str) -> (Option<i32>, String) {
    let line = format!("{} {args}", env!("CARGO_BIN_EXE_pvemig"));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).envs(up.command(&[]).get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = terminal.stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The words of an answer, however they were laid out.
fn words(said: &super::shell::Said) -> String {
    format!("{} {}", said.stdout, said.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_other_runs_did_is_not_called_back_and_commands_keep_their_options() {
    let up = Up::new("usb-move", "auto");
    let step = |id: &str| {
        expect(&up.run(&["step", id, "--yes"]), 0, &["done"]);
        up.run_id()
    };
    let (first, second, third) = (step("00a"), step("01"), step("02"));
    let refused = up.run(&["undo", &first, "--yes", "--destroy", "pvc/frigate"]);
    assert_eq!(refused.code, 4);
    let all = words(&refused);
    assert!(all.contains(&format!("`pvemig undo {third}`, then `pvemig undo {second}` first")), "{all}");
    let again = format!("`pvemig undo {first} --past {second} --past {third} --destroy pvc/frigate --yes`");
    assert!(all.contains(&again), "{all}");
    // Nobody meant it by not naming it.
    expect(&up.run(&["undo", "--yes"]), 2, &["takes back no run that is done", &format!("pvemig undo {third} --yes")]);
    let undone = up.run(&["undo", &third, "--yes"]);
    assert_eq!(undone.code, 0, "{}", undone.stderr);
    let all = words(&undone);
    assert!(all.contains("undone: what this run did is back as it was not back is what other runs did:"), "{all}");
    for (step, id) in [("01", &second), ("00a", &first)] {
        let line = format!("{step} of run {id} (frigate-coral, step");
        assert!(
            all.contains(&line) && all.contains(&format!("`pvemig undo {id}` takes back what of that can be")),
            "{all}"
        );
    }
    // A run that only holds something is not in the way of what needs it held.
    // Flux would put back what 00d does.
    step("00b");
    let hold = step("00d");
    expect(&up.run(&["undo", &second, "--yes", "--wait=5m"]), 0, &["is back as it was", &format!("00d of run {hold}")]);
}

#[test]
fn an_undo_that_waits_for_a_person_stays_in_the_status() {
    let up = Up::new("usb-move", "manual");
    expect(&up.run(&["step", "01", "--yes"]), 0, &["done"]);
    let id = up.run_id();
    up.control(&serde_json::json!({"move": {"stick": "coral", "place": {"host": "pve", "port": "2-1"}}}));
    expect(&up.run(&["undo", &id, "--yes"]), 3, &["plug coral"]);
    let status = up.run(&["status"]);
    expect(&status, 0, &[&id, "its undo waits at 01 for you: plug coral", &format!("`pvemig undo {id}` goes on")]);
    // Where somebody went on with something else, it is over.
    expect(&up.run(&["step", "02", "--yes"]), 0, &["done"]);
    expect(&up.run(&["status"]), 0, &["no run is open"]);
}
