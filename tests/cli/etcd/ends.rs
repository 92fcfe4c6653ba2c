//! Attempts that are broken off, and command lines that are refused.

use std::process::Stdio;

use super::{Nodes, pieces, there, whole};
use crate::cli::{Shell, Up, expect, said};
use crate::talos::fake::Says;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_or_interrupted_attempt_leaves_is_no_snapshot() {
    let nodes = Nodes::new().await;
    let bytes = whole(300_000);
    nodes.says(1, Says::Hangs(pieces(&bytes)));
    nodes.says(1, Says::Hangs(pieces(&bytes)));
    nodes.gives(1, &bytes);
    let begin = || {
        let mut command = nodes.shell.command(&["etcd", "snapshot", "--to", "to"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let has_begun = || {
            let of = |name: &String| std::fs::metadata(nodes.dir().join(name)).map_or(0, |found| found.len());
            there(&nodes.dir()).iter().any(|name| name.ends_with(".partial") && of(name) > 100_000)
        };
        while !has_begun() {
            std::thread::yield_now();
        }
        child
    };
    // Ctrl-C: nothing is left.
    let child = begin();
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    expect(&said(child.wait_with_output().unwrap()), 130, &["interrupted: no snapshot was taken"]);
    assert_eq!(there(&nodes.dir()), [""; 0]);
    // A kill leaves what is no snapshot, and the next attempt takes it away.
    let mut child = begin();
    child.kill().unwrap();
    child.wait().unwrap();
    let left = there(&nodes.dir());
    assert!(
        left.len() == 1 && left[0].starts_with(".homelab-20") && left[0].ends_with(".snapshot.partial"),
        "{left:?}"
    );
    let other = ".homelab-of-somebody.partial";
    std::fs::write(nodes.dir().join(other), "x").unwrap();
    expect(&nodes.take(&["--keep", "1"]), 0, &[&format!("notice: removed {}", left[0])]);
    let names = there(&nodes.dir());
    assert_eq!((names.len(), names[0].as_str()), (2, other), "{names:?}");
    assert!(std::fs::read(nodes.dir().join(&names[1])).unwrap() == bytes);
}

#[test]
fn wrong_command_lines_of_it_are_told_what_is_right() {
    let up = Up::new("usb-move", "manual");
    let shell = Shell::new();
    let secret = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    std::fs::write(up.shell.path().join("none"), "# nobody\n\n").unwrap();
    std::fs::write(up.shell.path().join("keys"), format!("# mine\n{secret}\n")).unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["etcd"], &["snapshot"]),
        (&["etcd", "snapshot"], &["--to"]),
        (&["etcd", "snapshot", "--to", ".", "--keep", "0"], &["0 is not in 1.."]),
        (&["etcd", "snapshot", "--to", "."], &["the site file has no Talos cluster", "`talos:`"]),
        (&["etcd", "snapshot", "x", "--to", "."], &["no Talos cluster `x`"]),
        (&["etcd", "snapshot", "--to", ".", "--recipient", "age1x"], &["first `--recipient`", "mistyped"]),
        (&["etcd", "snapshot", "--to", ".", "--recipient", secret], &["it is a secret key", "age-keygen -y"]),
        (
            &["etcd", "snapshot", "--to", ".", "--recipients-file", "keys"],
            &["keys:2: this is no recipient", "secret key"],
        ),
        (&["etcd", "snapshot", "--to", ".", "--recipients-file", "none"], &["there is no recipient in none"]),
        (&["etcd", "snapshot", "--to", ".", "--recipients-file", "no"], &["the recipients file no cannot be read"]),
        (&["etcd", "snapshot", "--to", ".", "--schedule", "--json"], &["`--schedule` prints no JSON"]),
    ];
    for (args, words) in cases {
        let said = up.run(args);
        expect(&said, 2, words);
        assert!(!said.stderr.contains("GFPYY"), "{}", said.stderr);
    }
    assert_eq!(cases.len(), 11);
    expect(&shell.run(&["etcd", "snapshot", "--to", "."]), 2, &["there is no site file"]);
    expect(&shell.run(&["etcd", "snapshot", "--help"]), 0, &["Restoring: ", "age -d -i KEYFILE", "--recover-from"]);
}
