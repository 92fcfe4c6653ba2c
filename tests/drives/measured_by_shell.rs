//! The script of the pod that measures, run by the shells that there are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::*;

const SCRIPT: &str = include_str!("../../src/blueprint/nvme_move/measure/script.sh");
/// What the script needs besides its shell.
const TOOLS: [&str; 10] = ["sh", "dd", "df", "rm", "rmdir", "mkdir", "sed", "tr", "cut", "tail"];

/// A directory of programs, and what it is called.
struct Shell {
    name: &'static str,
    path: PathBuf,
    /// What stands before the script: busybox runs its own `dd`, whatever is in the path.
    before: String,
}

/// The tools of this machine, and those of busybox where it is installed.
fn shells(dir: &Path) -> Vec<Shell> {
    let here = ["/usr/local/bin", "/usr/bin", "/bin"].map(Path::new);
    let find = |tool: &str| here.iter().map(|at| at.join(tool)).find(|at| at.exists());
    let mut all = Vec::new();
    for name in ["own", "busybox"] {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        let program = |tool: &str| if name == "busybox" { find("busybox") } else { find(tool) };
        if program("sh").is_none() {
            // What is tried is told by the first test.
            continue;
        }
        for tool in TOOLS {
            symlink(program(tool).unwrap(), path.join(tool)).unwrap();
        }
        all.push(Shell { name, path, before: String::new() });
    }
    assert!(!all.is_empty());
    all
}

impl Shell {
    /// Begins a measurement of directories below `root`.
    #[expect(clippy::disallowed_methods, reason = "the script itself is tried")]
    fn command(&self, root: &Path, bytes: u64, places: &[&str]) -> Command {
        let mut command = Command::new(self.path.join("sh"));
        command
            .args(["-c", &format!("{}{SCRIPT}", self.before), "measure"])
            .arg(root)
            .arg(root.join("told"))
            .arg(bytes.to_string())
            .args(places);
        command.env_clear().env("PATH", &self.path).stderr(Stdio::piped());
        command
    }

    fn measures(&self, root: &Path, bytes: u64, places: &[&str]) -> Value {
        let Output { status, stderr, .. } = self.command(root, bytes, places).output().unwrap();
        assert!(status.success() && stderr.is_empty(), "{}: {}", self.name, String::from_utf8_lossy(&stderr));
        serde_json::from_slice(&fs::read(root.join("told")).unwrap()).unwrap()
    }
}

impl Shell {
    /// With a `dd` of these lines.
    fn with_dd(&mut self, lines: &str) {
        self.before = format!(
            "dd() {{
{lines}
}}
"
        );
    }
}

/// A place with two directories and a shell each; `try_it` is told how many it was.
fn with_each(mut try_it: impl FnMut(&mut Shell, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for mut shell in shells(dir.path()) {
        let root = dir.path().join(format!("root-{}", shell.name));
        for name in ["var", "var.mnt.media"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        try_it(&mut shell, &root);
        let left: Vec<_> = ["var", "var.mnt.media"]
            .iter()
            .flat_map(|name| fs::read_dir(root.join(name)).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("kept"))
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "{}", shell.name);
        tried += 1;
    }
    assert!(tried > 0);
}

fn number(told: &Value, pointer: &str) -> u64 {
    let number = told.pointer(pointer).and_then(Value::as_u64);
    assert!(number.is_some(), "{pointer}: {told}");
    number.unwrap()
}

#[test]
fn each_volume_is_written_and_read_and_nothing_is_left() {
    with_each(|shell, root| {
        // Of one that was killed: the file is taken away, and measured anew.
        fs::create_dir(root.join("var/.pvemig-measure")).unwrap();
        fs::write(root.join("var/.pvemig-measure/data"), "old").unwrap();
        // Somebody's own folder is another one.
        fs::create_dir(root.join("var/kept")).unwrap();
        let told = shell.measures(root, 5 << 20, &["var:0", "var.mnt.media:0"]);
        assert_eq!(told.as_object().unwrap().len(), 2);
        for name in ["var", "var.mnt.media"] {
            for way in ["write", "read"] {
                assert!(number(&told, &format!("/{name}/{way}")) > 0);
            }
            // Whether this machine's file system takes O_DIRECT is its own affair, and told.
            println!("{}: {name}: {}", shell.name, told[name]);
        }
        assert!(root.join("var/kept").exists());
    });
}

#[test]
fn what_has_no_room_or_is_not_there_is_left_out_and_said() {
    with_each(|shell, root| {
        symlink("/", root.join("var/.pvemig-measure")).unwrap();
        let told = shell.measures(root, 1 << 20, &["var:0", "var.mnt.media:100", "nowhere:0"]);
        assert_eq!(told["var"]["skipped"], ".pvemig-measure is a symbolic link");
        assert_eq!(told["nowhere"]["skipped"], "how much room there is cannot be told");
        let full = told["var.mnt.media"]["skipped"].as_str().unwrap();
        assert!(full.contains("KiB are free, and 4096 are written"), "{full}");
        // More than there can be anywhere.
        let told = shell.measures(root, 1 << 60, &["var.mnt.media:0"]);
        let full = told["var.mnt.media"]["skipped"].as_str().unwrap();
        assert!(full.contains("KiB are free, and 1125899906842624 are written"), "{full}");
        fs::remove_file(root.join("var/.pvemig-measure")).unwrap();
    });
}

#[test]
fn a_file_system_without_direct_access_and_a_dd_without_a_time_are_said() {
    with_each(|shell, root| {
        shell.with_dd(
            "for one in \"$@\"; do case $one in *flag=direct) echo 'dd: Invalid argument' >&2; return 1;; esac; done
             command dd \"$@\" 2>/dev/null",
        );
        let told = shell.measures(root, 20 << 20, &["var:0"]);
        assert_eq!((&told["var"]["cached"], &told["var"]["coarse"]), (&json!(true), &json!(true)), "{told}");
        assert!(number(&told, "/var/write") > 0 && number(&told, "/var/read") > 0);
    });
}

#[test]
fn what_dd_says_is_reckoned_to_bytes_a_second() {
    with_each(|shell, root| {
        shell.with_dd(
            "case \"$*\" in
               *seek=*) command dd \"$@\" 2>/dev/null; echo '67108864 bytes (67 MB, 64 MiB) copied, 0.5 s, 134 MB/s' >&2;;
               *) echo '67108864 bytes (64.0MB) copied, 0.012500 seconds, 5.0GB/s' >&2;;
             esac",
        );
        // Three calls each way: 64, 64 and 8 MiB.
        let told = shell.measures(root, 136 << 20, &["var:0"]);
        let bytes = |micros: u64| (136_u64 << 20) / 1024 * 1_000_000 / micros * 1024;
        assert_eq!(told, json!({"var": {"write": bytes(1_500_000), "read": bytes(37_500)}}), "{}", shell.name);
    });
}

#[test]
fn a_volume_that_fails_half_way_is_cleared_and_the_others_are_measured() {
    with_each(|shell, root| {
        shell.with_dd(
            "case \"$*\" in */var/*seek=16*) echo 'dd: writing \"x\": Input/output error' >&2; return 1;; esac
             command dd \"$@\"",
        );
        let told = shell.measures(root, 65 << 20, &["var:0", "var.mnt.media:0"]);
        assert_eq!(told["var"], json!({"skipped": "dd: writing x: Input/output error"}));
        assert!(number(&told, "/var.mnt.media/write") > 0);
    });
}

#[test]
fn one_that_is_stopped_takes_its_file_with_it() {
    with_each(|shell, root| {
        let (begun, on) = (root.join("begun"), root.join("on"));
        for pipe in [&begun, &on] {
            rustix::fs::mkfifoat(rustix::fs::CWD, pipe, rustix::fs::Mode::RWXU).unwrap();
        }
        // What is under way ends first: here it waits for the test.
        let (tells, waits) = (begun.display(), on.display());
        shell.with_dd(&format!("command dd \"$@\" 2>/dev/null; echo begun >{tells}; read -r x <{waits}"));
        let mut child = shell.command(root, 256 << 20, &["var:0"]).spawn().unwrap();
        assert_eq!(fs::read_to_string(&begun).unwrap(), "begun\n");
        assert!(root.join("var/.pvemig-measure/data").exists());
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        fs::write(&on, "on\n").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(143), "{}", shell.name);
        assert!(!root.join("told").exists());
    });
}
