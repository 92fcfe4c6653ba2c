//! Looking makes nothing: no file, no directory, nowhere, and it needs no more than to be let read.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{Said, Up, said};

/// Everything below a directory: kind, size, mode and when it was written last.
fn tree(dir: &Path) -> BTreeMap<String, (bool, u64, u32, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let size = if meta.is_dir() { 0 } else { meta.len() };
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            found.insert(name, (meta.is_dir(), size, meta.mode(), meta.mtime(), meta.mtime_nsec()));
            if meta.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

/// A verb on a machine of its own, with another state directory than the lab's. What it needs for itself goes with it.
fn look(up: &Up, home: &Path, state: Option<&Path>, args: &[&str]) -> Said {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = up.shell.command(args);
    command.env("HOME", home).current_dir(home).env("TMPDIR", scratch.path());
    command.env("PVEMIG_SITE", up.shell.path().join("lab/site.yaml"));
    if let Some(state) = state {
        command.env("PVEMIG_STATE", state);
    }
    let said = said(command.output().unwrap());
    assert!(tree(scratch.path()).is_empty(), "{args:?}: {:?}", tree(scratch.path()));
    said
}

const VERBS: [&[&str]; 14] = [
    &["--help"],
    &["plan", "--help"],
    &["status"],
    &["status", "--all", "--json"],
    &["report"],
    &["explain"],
    &["explain", "04"],
    &["explain", "claim-on-old-node"],
    &["plan", "frigate-coral"],
    &["site", "check"],
    &["site", "example"],
    &["privileges", "frigate-coral"],
    &["completions", "bash"],
    &["survey"],
];

#[test]
fn looking_makes_nothing() {
    let up = Up::new("usb-move", "auto");
    let home = tempfile::tempdir().unwrap();
    let fresh = tree(home.path());
    // Once with the XDG directories of somebody who has none, once with a state directory that is not there.
    let nowhere = home.path().join("state/of/nobody");
    for state in [None, Some(nowhere.as_path())] {
        for args in VERBS {
            let said = look(&up, home.path(), state, args);
            let code = if args == ["report"] { 2 } else { 0 };
            assert_eq!(said.code, code, "{args:?}: {}{}", said.stdout, said.stderr);
            assert_eq!(tree(home.path()), fresh, "{args:?}");
        }
    }
    // The control: what changes something makes its directories.
    let step = look(&up, home.path(), Some(&nowhere), &["step", "02-remove-label", "--yes"]);
    assert_eq!(step.code, 0, "{}{}", step.stdout, step.stderr);
    assert_ne!(tree(home.path()), fresh);
    assert_eq!(std::fs::metadata(nowhere.join("homelab")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn looking_needs_no_more_than_to_read() {
    let up = Up::new("usb-move", "auto");
    let run = up.run(&["run", "frigate-coral", "--yes", "--wait=5m"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let home = tempfile::tempdir().unwrap();
    let state = up.shell.path().join("lab/state");
    let before = tree(&state);
    assert!(before.keys().any(|name| name.contains("checkouts")), "{before:#?}");
    let locked = |lock: bool| {
        for (name, (directory, _, mode, ..)) in &before {
            let mode = if lock { mode & !0o222 } else { *mode };
            std::fs::set_permissions(state.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(*directory || state.join(name).is_file());
        }
    };
    locked(true);
    let closed = tree(&state);
    let texts: Vec<Said> = VERBS.iter().map(|args| look(&up, home.path(), Some(&state), args)).collect();
    let left = tree(&state);
    locked(false);
    assert_eq!(left, closed);
    for (args, said) in VERBS.iter().zip(&texts) {
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.stdout, said.stderr);
    }
    let plan = &texts[8].stdout;
    assert!(plan.contains("nothing: all 18 steps are done already"), "{plan}");
    assert!(texts[4].stdout.contains("10-deploy-and-verify"), "{}", texts[4].stdout);
}
