//! The state directory and the clock: full, read-only, torn, and a time that jumps.

use std::process::{Command, Output};

use pvemig::engine::event::Event;
use pvemig::engine::point::Side;
use pvemig::lab::Class;

use super::{How, Rig, rig};
use crate::harness::same::{assert_done, assert_same, assert_undone};
use crate::harness::{calls, is_cut};

/// The real binary under a shell line, on the rig's estate with a state directory of its own.
#[expect(clippy::disallowed_methods, reason = "the test plays the operator")]
fn pvemig(rig: &Rig, shell: &str, args: &str) -> (i32, String) {
    let site = rig.dir().join("site.yaml");
    let line = format!("{shell} {} --site {} --state state {args}", env!("CARGO_BIN_EXE_pvemig"), site.display());
    let mut command = Command::new("sh");
    command.args(["-c", &line]).current_dir(rig.dir()).env_clear();
    let path = std::env::var_os("PATH").unwrap();
    let Output { status, stdout, stderr } = command.env("PATH", path).env("HOME", rig.dir()).output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().unwrap_or(-1), text)
}

async fn told(rig: &Rig, shell: &str, args: &str) -> (i32, String) {
    tokio::task::block_in_place(|| pvemig(rig, shell, args))
}

/// The journals in the state directory.
fn journals(rig: &Rig) -> Vec<std::path::PathBuf> {
    let below =
        |dir: std::path::PathBuf| std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let runs = below(rig.dir().join("state")).flat_map(below).flat_map(below);
    runs.flat_map(|path| [path.clone(), path.join("journal.jsonl")]).filter(|p| p.ends_with("journal.jsonl")).collect()
}

/// How many calls they hold.
fn noted(rig: &Rig) -> usize {
    let journals = journals(rig);
    assert!(!journals.is_empty());
    journals
        .iter()
        .filter(|j| j.is_file())
        .map(|j| std::fs::read_to_string(j).unwrap().matches("\"is\":\"call\"").count())
        .sum()
}

/// The stick is carried over beforehand, so that nobody has to be waited for.
fn carried(world: &mut pvemig::lab::World) {
    world.move_stick("coral", None).unwrap();
    let socket = pvemig::lab::Place { host: "still-fawn".into(), port: "2-3".into() };
    world.move_stick("coral", Some(socket)).unwrap();
}

/// No file may grow any more: nothing is changed that could not be written down, and with room it goes on.
async fn full() {
    let rig = rig("usb-move", &[], carried).await;
    let (code, text) = told(&rig, "trap '' XFSZ; ulimit -f 40; exec", "run frigate-coral --yes").await;
    assert_eq!(code, 1, "{text}");
    for part in ["File too large", "make room or rights in the state directory", "pvemig", "resume"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    let made = rig.changes();
    assert!(made > 0, "{text}");
    assert_eq!(noted(&rig), made, "each change is written down before it is made");
    let (code, text) = told(&rig, "exec", "resume").await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(noted(&rig), rig.changes());
}

/// Nothing can be written at all: nothing is begun.
async fn read_only() {
    let rig = rig("usb-move", &[], carried).await;
    std::fs::create_dir(rig.dir().join("state")).unwrap();
    // Rights do not keep root from writing; a read-only mount does.
    let shell = "if [ $(id -u) = 0 ]; then exec unshare -m sh -c \
                 'mount --bind state state && mount -o remount,ro,bind state && exec \"$@\"' sh \"$@\"; \
                 else chmod 500 state; exec \"$@\"; fi";
    let shell = format!("run() {{ {shell}; }}; run");
    let (code, text) = told(&rig, &shell, "run frigate-coral --yes").await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("Read-only file system") || text.contains("Permission denied"), "{text}");
    assert!(text.contains("state"), "{text}");
    assert_eq!(rig.changes(), 0);
}

/// A machine that lost its power in the middle of a line: the torn line is dropped with a word, and the run goes on.
async fn torn() {
    let rig = rig("usb-move", &[], |_| {}).await;
    let (code, said) = told(&rig, "exec", "run frigate-coral --yes").await;
    assert_eq!(code, 3, "it waits for the stick: {said}");
    let journal = journals(&rig).pop().unwrap();
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, &text[..text.len() - 20]).unwrap();
    rig.lab.move_stick("coral", Some(pvemig::lab::Place { host: "still-fawn".into(), port: "2-3".into() })).unwrap();
    let (code, said) = told(&rig, "exec", "resume").await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("torn"), "{said}");
}

/// The desk's clock jumps between the parts of a run: nothing is decided by it.
async fn clock_jumps() {
    const HOURS: i64 = 3_600;
    let rig = rig("usb-move-old", &[], |_| {}).await;
    let first = rig.picture().await;
    // Cut right after the start of the VM was sent, at a desk that is two hours ahead.
    let measure = super::rig("usb-move-old", &[], |_| {}).await;
    let whole = measure.forward(None, &How::default()).await;
    assert_done(&whole, "undisturbed");
    let last = measure.picture().await;
    let points = whole.points.passed();
    let point = points.iter().rfind(|p| p.key.starts_with("05-") && p.side == Side::Sent).unwrap();
    let run = rig.forward(None, &How { cut_at: Some(point.n), ahead: 2 * HOURS, ..How::default() }).await;
    assert!(is_cut(&run));
    let on = rig.forward(Some(&run.id), &How { ahead: -24 * HOURS, ..How::default() }).await;
    assert_done(&on, "a day back");
    assert_same(&rig.picture().await, &last, "a day back");
    let seen = rig.lab.shared().log.seen();
    for verb in ["/status/shutdown", "/status/start"] {
        let sent = seen.iter().filter(|s| s.class == Class::Change && s.line.contains(verb)).count();
        assert_eq!(sent, 1, "{verb}");
    }
    let all = rig.bench.read(&run.id).records;
    let backwards = all.windows(2).filter(|pair| pair[1].at < pair[0].at).count();
    assert!(backwards > 0 && all.iter().any(|r| matches!(r.event, Event::Closed { .. })));
    assert!(calls(&all) > 10);
    let back = rig.backward(&run.id, &How { ahead: 48 * HOURS, ..How::default() }).await;
    assert_undone(&back, "two days on");
    assert_same(&rig.picture().await, &first, "two days on");
}

incidents! {
    the_state_directory_is_full: full();
    the_state_directory_is_read_only: read_only();
    the_journal_is_torn: torn();
    the_clock_jumps: clock_jumps();
}
