//! The reading programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::fault::glob;
use super::nvme;
use super::programs::{ExecOutcome, bare, usb_files};
use super::usb::HostUsb;
use super::words::commands;

/// Everything that a reading program can see of a machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Looker {
    pub(super) hostname: String,
    pub(super) kernel: String,
    pub(super) files: BTreeMap<String, String>,
    pub(super) paths: BTreeSet<String>,
    pub(super) installed: BTreeSet<String>,
    pub(super) used: BTreeMap<String, u64>,
    pub(super) usb: Vec<HostUsb>,
    /// Device nodes that can be read, with the files that hold their bytes.
    pub(super) nodes: BTreeMap<String, PathBuf>,
    pub(super) uptime: f64,
    pub(super) time: i64,
}

const PROGRAMS: &[&str] = &[
    "lsusb",
    "lspci",
    "cat",
    "ls",
    "stat",
    "df",
    "du",
    "uptime",
    "test",
    "[",
    "find",
    "grep",
    "head",
    "od",
    "hostname",
    "uname",
    "id",
    "whoami",
    "true",
    "false",
    "echo",
    "nproc",
    "date",
    "dpkg",
    "dpkg-query",
];

/// Whether a command is in the closed list of reading ones.
pub(super) fn reads_only(argv: &[String]) -> bool {
    let rest = bare(argv);
    if rest.len() != argv.len() {
        return reads_only(rest);
    }
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let Some((program, args)) = words.split_first() else { return true };
    let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    match (program.rsplit('/').next().unwrap_or_default(), args) {
        ("sh" | "bash" | "dash", ["-c", script, ..]) => {
            commands(script).iter().all(|(_, c)| super::words::words(c, None).is_ok_and(|(w, _)| reads_only(&w)))
        }
        ("dpkg" | "dpkg-query", [flag, ..]) => matches!(*flag, "-s" | "-l" | "-L" | "-W" | "--status" | "--list"),
        ("find", args) => {
            let runs = args.iter().position(|a| *a == "-exec").map(|i| args.get(i + 1).copied().unwrap_or_default());
            !args.contains(&"-delete") && runs.is_none_or(|p| matches!(p, "grep" | "cat"))
        }
        ("systemctl", [verb, ..]) => matches!(*verb, "is-active" | "is-enabled" | "status" | "show" | "list-units"),
        ("qm", ["status" | "config" | "pending" | "list", ..] | ["agent", _, "ping"] | ["guest", "cmd", _, "ping"]) => {
            true
        }
        ("qm", ["guest", "exec", _, rest @ ..]) => {
            let at = rest.iter().position(|a| *a == "--").map_or(0, |i| i + 1);
            reads_only(&owned(rest.get(at..).unwrap_or_default()))
        }
        (name, _) => PROGRAMS.contains(&name),
    }
}

impl Looker {
    /// Adds what the kernel shows.
    pub(super) fn with(mut self, files: BTreeMap<String, String>, usb: Vec<HostUsb>, uptime: f64, time: i64) -> Self {
        self.files = files;
        self.files.extend(usb_files(&usb));
        self.files.insert("/proc/uptime".into(), format!("{uptime:.2} {:.2}\n", uptime * 3.1));
        self.files.insert("/etc/hostname".into(), format!("{}\n", self.hostname));
        self.files.insert("/proc/sys/kernel/hostname".into(), format!("{}\n", self.hostname));
        self.paths.extend(["/sys/bus/usb/devices".into(), "/sys/devices".into()]);
        (self.usb, self.uptime, self.time) = (usb, uptime, time);
        self
    }

    /// A file, a device node, or a folder with something in it.
    pub(super) fn exists(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let known = self.files.contains_key(path) || self.paths.contains(path) || self.used.contains_key(path);
        path.is_empty() || known || self.is_folder(path)
    }

    fn is_folder(&self, path: &str) -> bool {
        let below = format!("{}/", path.trim_end_matches('/'));
        self.all().any(|p| p.starts_with(&below))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.files.keys().chain(&self.paths).chain(self.used.keys())
    }

    /// Runs a reading program; none where it is not one.
    pub(super) fn run(&self, name: &str, args: &[&str]) -> Option<ExecOutcome> {
        let paths: Vec<&str> = args.iter().filter(|a| !a.starts_with('-')).copied().collect();
        let gone =
            |program: &str, path: &str| ExecOutcome::fail(1, format!("{program}: {path}: No such file or directory\n"));
        Some(match name {
            "lsusb" => ExecOutcome::out(if args.contains(&"-t") { self.usb_tree() } else { self.usb_list(args) }),
            "lspci" => ExecOutcome::out(self.pci()),
            "cat" | "head" => {
                let mut outcome = ExecOutcome::default();
                for path in paths {
                    match self.files.get(path) {
                        Some(text) => outcome.stdout.extend(text.as_bytes()),
                        None => {
                            let no = gone(name, path);
                            outcome.exit = no.exit;
                            outcome.stderr.extend(no.stderr);
                        }
                    }
                }
                outcome
            }
            "od" => nvme::od(args, &self.files, &self.nodes),
            "ls" => self.ls(args, &paths),
            "stat" => match paths.iter().find(|p| !self.exists(p)) {
                Some(path) => ExecOutcome::fail(1, format!("stat: cannot statx '{path}': No such file or directory\n")),
                None => ExecOutcome::out(paths.iter().map(|p| format!("  File: {p}\n")).collect::<String>()),
            },
            "test" | "[" => self.test(args),
            "find" => self.find(args),
            "grep" => self.grep(args),
            "du" => match paths.first() {
                Some(path) if self.exists(path) => {
                    let below = format!("{path}/");
                    let used = |p: &String| p == path || p.starts_with(&below);
                    let bytes: u64 = self.used.iter().filter(|(p, _)| used(p)).map(|(_, b)| *b).sum();
                    ExecOutcome::out(format!("{}\t{path}\n", bytes.div_ceil(1024).max(4)))
                }
                path => ExecOutcome::fail(
                    1,
                    format!("du: cannot access '{}': No such file or directory\n", path.unwrap_or(&"")),
                ),
            },
            "df" => ExecOutcome::out(format!(
                "Filesystem     1K-blocks     Used Available Use% Mounted on\n/dev/sda1      205375464 {:8} 155375464  25% /\n",
                self.used.values().sum::<u64>() / 1024
            )),
            "uptime" => {
                ExecOutcome::out(format!(" up {} min,  load average: 0.31, 0.28, 0.30\n", (self.uptime / 60.0).floor()))
            }
            "hostname" => ExecOutcome::out(format!("{}\n", self.hostname)),
            "uname" => {
                ExecOutcome::out(format!("{}\n", if args.contains(&"-r") { self.kernel.as_str() } else { "Linux" }))
            }
            "id" => {
                ExecOutcome::out(if args.contains(&"-u") { "0\n" } else { "uid=0(root) gid=0(root) groups=0(root)\n" })
            }
            "whoami" => ExecOutcome::out("root\n"),
            "true" => ExecOutcome::default(),
            "false" => ExecOutcome::fail(1, ""),
            "echo" => ExecOutcome::out(format!("{}\n", args.join(" "))),
            "nproc" => ExecOutcome::out("4\n"),
            "date" => ExecOutcome::out(format!("{}\n", self.time)),
            "dpkg" | "dpkg-query" => self.dpkg(&paths),
            "systemctl" => match args {
                ["is-active", ..] => ExecOutcome::out("active\n"),
                _ => ExecOutcome::fail(1, "only is-active, reboot and poweroff are known here\n"),
            },
            _ => return None,
        })
    }

    fn dpkg(&self, packages: &[&str]) -> ExecOutcome {
        let mut text = String::new();
        for package in packages {
            if !self.installed.contains(*package) {
                let no = format!(
                    "dpkg-query: package '{package}' is not installed and no information is available\n\
                     Use dpkg --info (= dpkg-deb --info) to examine archive files.\n"
                );
                return ExecOutcome::fail(1, no);
            }
            text += &format!("Package: {package}\nStatus: install ok installed\nVersion: 16.0\n");
        }
        ExecOutcome::out(text)
    }

    fn test(&self, args: &[&str]) -> ExecOutcome {
        let args: Vec<&str> = args.iter().filter(|a| **a != "]").copied().collect();
        let yes = match args.as_slice() {
            ["-e" | "-r" | "-w", path] => self.exists(path),
            ["-f", path] => self.files.contains_key(*path),
            ["-d", path] => self.is_folder(path),
            ["-c", path] => self.paths.contains(*path) && !self.is_folder(path),
            ["-n", text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            _ => return ExecOutcome::fail(2, "test: unknown condition\n"),
        };
        ExecOutcome { exit: i32::from(!yes), ..ExecOutcome::default() }
    }

    fn ls(&self, args: &[&str], paths: &[&str]) -> ExecOutcome {
        let mut outcome = ExecOutcome::default();
        for path in paths {
            if !self.exists(path) {
                outcome.exit = 2;
                outcome.stderr.extend(format!("ls: cannot access '{path}': No such file or directory\n").into_bytes());
                continue;
            }
            let names = if self.is_folder(path) && !args.contains(&"-d") {
                self.children(path)
            } else {
                [(*path).to_owned()].into()
            };
            outcome.stdout.extend(names.iter().flat_map(|n| format!("{n}\n").into_bytes()));
        }
        outcome
    }

    fn children(&self, path: &str) -> BTreeSet<String> {
        let below = format!("{}/", path.trim_end_matches('/'));
        self.all().filter_map(|p| p.strip_prefix(&below)?.split('/').next().map(str::to_owned)).collect()
    }

    /// `find [-L] PATH.. [-maxdepth N] [-name X [-o -name Y]..] [-o -path X ( -name Z.. )] [-exec grep -H . {} +]`
    fn find(&self, args: &[&str]) -> ExecOutcome {
        let mut args = args.iter().copied().filter(|a| !matches!(*a, "-L" | "-H" | "(" | ")" | "-o" | "-print"));
        let (mut roots, mut names, mut depth, mut exec) = (Vec::new(), Vec::new(), usize::MAX, Vec::new());
        let mut path = "*";
        while let Some(arg) = args.next() {
            match arg {
                "-maxdepth" => depth = args.next().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX),
                "-name" => names.extend(args.next().map(|name| (name, path))),
                // For the names behind it.
                "-path" => path = args.next().unwrap_or_default(),
                "-type" => drop(args.next()),
                "-exec" => {
                    exec = args.by_ref().take_while(|a| !matches!(*a, "+" | ";")).filter(|a| *a != "{}").collect()
                }
                root if root.starts_with('/') => roots.push(root.trim_end_matches('/')),
                other => return ExecOutcome::fail(1, format!("find: unknown predicate `{other}'\n")),
            }
        }
        let mut found: Vec<&str> = Vec::new();
        for root in &roots {
            if !self.exists(root) {
                return ExecOutcome::fail(1, format!("find: ‘{root}’: No such file or directory\n"));
            }
            let below = format!("{root}/");
            found.extend(self.files.keys().filter_map(|p| {
                let rest = p.strip_prefix(&below)?;
                let name = rest.rsplit('/').next().unwrap_or_default();
                let wanted = |(n, path): &(&str, &str)| glob(n, name) && glob(path, p);
                let fits = rest.split('/').count() <= depth && (names.is_empty() || names.iter().any(wanted));
                fits.then_some(p.as_str())
            }));
        }
        match exec.split_first() {
            None => ExecOutcome::out(found.iter().map(|p| format!("{p}\n")).collect::<String>()),
            // An empty list runs nothing.
            Some(_) if found.is_empty() => ExecOutcome::default(),
            Some((program, rest)) => {
                let argv: Vec<&str> = rest.iter().copied().chain(found).collect();
                self.run(program, &argv).unwrap_or_else(|| ExecOutcome::not_found(program))
            }
        }
    }

    /// `grep [-H] [-q] PATTERN FILE..`; the pattern is text, `.` is any line that is not empty, `^` any line.
    fn grep(&self, args: &[&str]) -> ExecOutcome {
        let flags: String = args.iter().take_while(|a| a.starts_with('-')).map(|a| a.trim_start_matches('-')).collect();
        let rest: Vec<&str> = args.iter().skip_while(|a| a.starts_with('-')).copied().collect();
        let Some((pattern, paths)) = rest.split_first() else { return ExecOutcome::fail(2, "usage: grep\n") };
        let mut outcome = ExecOutcome { exit: 1, ..ExecOutcome::default() };
        let mut missing = false;
        for path in paths {
            let Some(text) = self.files.get(*path) else {
                missing = true;
                outcome.stderr.extend(format!("grep: {path}: No such file or directory\n").into_bytes());
                continue;
            };
            let fits = |line: &&str| match *pattern {
                "." => !line.is_empty(),
                "^" => true,
                text => line.contains(text),
            };
            for line in text.lines().filter(fits) {
                outcome.exit = 0;
                if !flags.contains('q') {
                    let name = flags.contains('H') || (paths.len() > 1 && !flags.contains('h'));
                    let line = if name { format!("{path}:{line}\n") } else { format!("{line}\n") };
                    outcome.stdout.extend(line.into_bytes());
                }
            }
        }
        if missing {
            outcome.exit = 2;
        }
        outcome
    }

    fn usb_list(&self, args: &[&str]) -> String {
        let wanted = args.iter().position(|a| *a == "-d").and_then(|i| args.get(i + 1));
        let rows = self.usb.iter().filter(|d| wanted.is_none_or(|w| d.id.starts_with(w.trim_end_matches(':'))));
        rows.map(|d| format!("Bus {:03} Device {:03}: ID {} {}\n", d.bus, d.dev, d.id, vendor(&d.id, &d.product)))
            .collect()
    }

    fn usb_tree(&self) -> String {
        let row = |d: &HostUsb| {
            let (indent, port) = if d.is_hub() { ("/:  ", 1) } else { ("    |__ ", last(&d.path)) };
            let bus = if d.is_hub() { format!("Bus {:03}.", d.bus) } else { String::new() };
            let class = if d.is_hub() { "root_hub" } else { "Vendor Specific Class" };
            format!("{indent}{bus}Port {port:03}: Dev {:03}, Class={class}, Driver=, {}M\n", d.dev, d.speed)
        };
        self.usb.iter().map(row).collect()
    }

    fn pci(&self) -> String {
        let mut text = String::from(
            "00:00.0 Host bridge [0600]: Intel Corporation 82G33/G31/P35/P31 Express DRAM Controller [8086:29c0]\n",
        );
        if self.exists("/dev/dri") {
            text += "00:10.0 VGA compatible controller [0300]: Intel Corporation UHD Graphics 630 [8086:3e92]\n";
        }
        text
    }
}

fn last(path: &str) -> u32 {
    path.rsplit('.').next().and_then(|p| p.parse().ok()).unwrap_or(1)
}

/// What the list of USB ids knows.
fn vendor<'a>(id: &str, product: &'a str) -> &'a str {
    match id {
        "1a6e:089a" => "Global Unichip Corp.",
        "18d1:9302" => "Google Inc.",
        "1d6b:0001" => "Linux Foundation 1.1 root hub",
        "1d6b:0002" => "Linux Foundation 2.0 root hub",
        "1d6b:0003" => "Linux Foundation 3.0 root hub",
        _ => product,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<String> {
        super::super::words::words(line, None).unwrap().0
    }

    #[test]
    fn reading_commands_are_told_from_changing_ones() {
        let reads = [
            "lsusb -t",
            "/usr/bin/dpkg -s x",
            "sh -c 'cat /a; test -e /b && ls /c'",
            "timeout -k 1 5 lsusb",
            "qm guest exec 108 --timeout 5 -- lsusb",
            "find /x -exec grep -H . {} +",
            "od -A n -v -t x1 -N 512 /dev/nvme0n1",
            "systemctl is-active k3s",
        ];
        let changes = [
            "dpkg -i x.deb",
            "apt-get install -y x",
            "sh -c 'cat /a; rm /b'",
            "sh -c 'lsusb | tee /x'",
            "sudo reboot",
            "qm guest exec 108 -- rm /x",
            "find / -delete",
            "find / -exec rm {} +",
            "systemctl restart k3s",
        ];
        assert_eq!((reads.len(), changes.len()), (8, 9));
        for line in reads {
            assert!(reads_only(&argv(line)), "{line}");
        }
        for line in changes {
            assert!(!reads_only(&argv(line)), "{line}");
        }
    }
}
