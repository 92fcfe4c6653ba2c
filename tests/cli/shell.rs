//! The binary in a directory of its own, and a lab in another process for it to work on.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(crate) struct Shell {
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvemig"));
        command.args(args).env_clear().env("HOME", self.dir.path()).env("PATH", std::env::var("PATH").unwrap());
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

pub(crate) fn said(output: Output) -> Said {
    Said {
        // A killed process has no code.
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The words may be broken over lines: where, depends on how long a directory's path is.
#[track_caller]
pub(crate) fn expect(said: &Said, code: i32, words: &[&str]) {
    let all = format!("{}{}", said.stdout, said.stderr);
    assert_eq!(said.code, code, "{all}");
    let on_one_line = all.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(all.contains(word) || on_one_line.contains(word), "`{word}` is not in:\n{all}");
    }
}

/// A lab in a process of its own, and the shell to work with it.
pub(crate) struct Up {
    pub(crate) lab: Child,
    pub(crate) shell: Shell,
}

impl Up {
    pub(crate) fn new(world: &str, hands: &str) -> Self {
        let shell = Shell::new();
        let dir = shell.path().join("lab");
        let mut lab = shell
            .command(&["lab", "up", "--world", world, "--hands", hands, "--speed", "200", "--dir"])
            .arg(&dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(lab.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready: "), "{ready}");
        Self { lab, shell }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.shell.command(args);
        let lab = self.shell.path().join("lab");
        command.env("PVEMIG_SITE", lab.join("site.yaml")).env("PVEMIG_STATE", lab.join("state"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    /// Changing requests that the lab saw.
    pub(crate) fn changes(&self) -> usize {
        let log = std::fs::read_to_string(self.shell.path().join("lab/requests.jsonl")).unwrap();
        log.lines().filter(|l| l.contains("\"class\":\"change\"")).count()
    }

    /// `Call` events in all journals.
    pub(crate) fn calls(&self) -> usize {
        let runs = self.shell.path().join("lab/state/homelab/runs");
        let of = |entry: std::io::Result<std::fs::DirEntry>| {
            let journal = std::fs::read_to_string(entry.unwrap().path().join("journal.jsonl")).unwrap_or_default();
            journal.lines().filter(|l| l.contains("\"is\":\"call\"")).count()
        };
        std::fs::read_dir(runs).unwrap().map(of).sum()
    }

    /// Asks the lab's control socket, as `pvemig lab move` does.
    pub(crate) fn control(&self, request: &serde_json::Value) {
        let mut socket = UnixStream::connect(self.shell.path().join("lab/control")).unwrap();
        writeln!(socket, "{request}").unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"ok\":true"), "{answer}");
    }

    /// From now on the requests of a front that match are refused.
    pub(crate) fn refuse(&self, front: &str, path: &str, class: Option<&str>) {
        self.control(&serde_json::json!({
            "fault": { "front": front, "path": path, "class": class, "effect": "refuse" }
        }));
    }

    pub(crate) fn run_id(&self) -> String {
        let status: serde_json::Value = serde_json::from_str(&self.run(&["status", "--all", "--json"]).stdout).unwrap();
        status.as_array().unwrap().last().unwrap()["run"].as_str().unwrap().to_owned()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _gone = self.lab.kill();
        let _gone = self.lab.wait();
    }
}
