//! The lab's ssh front, with OpenSSH's client and with ours.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::{Notebook, System};
use pvemig::guest::{Error, Exit, Guest, KeySource, Look, Phase, Route, SshTarget};
use pvemig::lab::world::SshManner;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, Lab, LabOptions, load};
use tokio::time::Instant;

use super::place::program;
use super::{LONG, SHORT, command, declared};

/// The target of the move, and its host.
pub(super) const VM: u32 = 108;
pub(super) const HOST: &str = "still-fawn";

/// For what is meant to hang after the login.
const HANGS: Duration = Duration::from_secs(4);

pub(super) struct Bench {
    pub(super) lab: Lab,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = load("usb-move").unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().join("lab"), speed: 100 }).await.unwrap();
        Self { lab, _dir: dir }
    }

    pub(super) fn port(&self) -> u16 {
        self.lab.reach().ssh.guests[&VM]
    }

    fn target(&self, port: u16, limit: Duration) -> SshTarget {
        let dir: &Path = self.lab.dir();
        let key = KeySource::File(dir.join("id_ed25519"));
        let target = SshTarget::new("127.0.0.1", port, "root", key, dir.join("known_hosts"));
        SshTarget { login_limit: limit, ..target }
    }

    pub(super) fn direct(&self, limit: Duration) -> Guest {
        Guest::new("vm 108", vec![Route::Ssh(self.target(self.port(), limit))], Clock::real())
    }

    pub(super) fn through_host(&self) -> Guest {
        let host = self.target(self.lab.reach().ssh.hosts[HOST], LONG);
        Guest::new("vm 108", vec![Route::HostSsh { host, vmid: VM }], Clock::real())
    }

    /// OpenSSH's client.
    fn client(&self, port: u16, options: &[&str], line: &str) -> std::process::Command {
        let mut ssh = program("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentityAgent=none", "-o"])
            .arg(format!("UserKnownHostsFile={}", self.lab.dir().join("known_hosts").display()))
            .arg("-i")
            .arg(self.lab.dir().join("id_ed25519"))
            .args(options)
            .args(["-p", &port.to_string(), "root@127.0.0.1", line]);
        ssh
    }

    pub(super) async fn ssh(&self, port: u16, line: &str) -> Output {
        let mut ssh = self.client(port, &["-n"], line);
        tokio::task::spawn_blocking(move || ssh.output().unwrap()).await.unwrap()
    }

    fn manner(&self, manner: SshManner) {
        self.lab.shared().change(|world| world.vms.get_mut(&VM).unwrap().guest.ssh = manner);
    }

    pub(super) fn count(&self, class: Class) -> usize {
        self.lab.shared().log.count(Front::Ssh, class)
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_logs_in_to_guests_and_hosts() {
    let bench = Bench::start().await;
    let ports = bench.lab.reach().ssh.clone();
    assert_eq!((ports.hosts.len(), ports.guests.len()), (3, 3));
    let mut asked = 0;
    for (vmid, port) in &ports.guests {
        let output = said(&bench.ssh(*port, "cat /proc/sys/kernel/random/boot_id").await);
        let boot_id = bench.lab.shared().read(|world| world.boot_id(*vmid)).unwrap();
        assert_eq!(output, (Some(0), format!("{boot_id}\n"), String::new()));
        asked += 1;
    }
    for (host, port) in &ports.hosts {
        let output = said(&bench.ssh(*port, "hostname").await);
        assert_eq!(output, (Some(0), format!("{host}\n"), String::new()));
        asked += 1;
    }
    let (status, _, stderr) = said(&bench.ssh(bench.port(), "no-such-program 'a b'").await);
    assert_eq!(status, Some(127));
    assert!(stderr.contains("not found"), "{stderr}");
    let joined = said(&bench.ssh(bench.port(), "echo one && echo two").await);
    assert_eq!((joined.0, joined.1.as_str()), (Some(0), "one\ntwo\n"));
    let host = ports.hosts[HOST];
    let (status, stdout, _) = said(&bench.ssh(host, "qm guest exec 108 -- hostname").await);
    assert_eq!(status, Some(0));
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&answer["exited"], &answer["out-data"]), (&1.into(), &"k3s-vm-still-fawn\n".into()));
    asked += 3;

    // No shell, no file transfer: said at once.
    let shell = said(&bench.ssh(bench.port(), "").await);
    assert_eq!(shell.0, Some(255), "{shell:?}");
    assert_eq!((bench.count(Class::Login), bench.count(Class::Look)), (asked + 1, asked - 1));
    assert_eq!(bench.count(Class::Change), 1, "the unknown program counts as a change");
}

/// Standard input, terminals, several commands at once, and a client that is killed, with OpenSSH's client.
#[tokio::test(flavor = "multi_thread")]
async fn openssh_meets_a_server_that_behaves() {
    let bench = Bench::start().await;
    let ended = async |mut ssh: std::process::Command| {
        tokio::task::spawn_blocking(move || ssh.output().unwrap()).await.unwrap()
    };
    // Standard input open for ever, at its end, and closed: the command has none, and the session ends with it.
    let (open, _held) = std::io::pipe().unwrap();
    let mut kept = bench.client(bench.port(), &[], "hostname");
    kept.stdin(open);
    let mut empty = bench.client(bench.port(), &[], "hostname");
    empty.stdin(std::process::Stdio::null());
    let closed = bench.client(bench.port(), &[], "hostname");
    let mut shell = program("sh");
    shell.args(["-c", "exec \"$@\" <&-", "sh", "ssh"]).args(closed.get_args());
    for ssh in [kept, empty, shell] {
        assert_eq!(said(&ended(ssh).await), (Some(0), "k3s-vm-still-fawn\n".into(), String::new()));
    }

    // Two logins at once, and two commands over one connection.
    let (first, second) = tokio::join!(bench.ssh(bench.port(), "echo one; false"), bench.ssh(bench.port(), "echo two"));
    assert_eq!((said(&first).0, said(&first).1.as_str()), (Some(1), "one\n"));
    assert_eq!((said(&second).0, said(&second).1.as_str()), (Some(0), "two\n"));
    let control = format!("ControlPath={}", bench.lab.dir().join("mux").display());
    let logins = bench.count(Class::Login);
    let mut master = bench.client(bench.port(), &["-M", "-N", "-f", "-n", "-o", &control], "");
    // The background process keeps what it inherits open.
    master.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    assert!(tokio::task::spawn_blocking(move || master.status().unwrap()).await.unwrap().success());
    let shared = |line: &str| ended(bench.client(bench.port(), &["-n", "-o", &control], line));
    let (first, second) = tokio::join!(shared("echo three"), shared("echo four; false"));
    assert_eq!((said(&first).0, said(&first).1.as_str()), (Some(0), "three\n"));
    assert_eq!((said(&second).0, said(&second).1.as_str()), (Some(1), "four\n"));
    assert_eq!(bench.count(Class::Login), logins + 1);
    assert!(ended(bench.client(bench.port(), &["-O", "exit", "-o", &control], "")).await.status.success());

    // A terminal is refused; a client that insists on one gives up and says so, one that has none runs its command.
    let (status, stdout, stderr) = said(&ended(bench.client(bench.port(), &["-n", "-tt"], "hostname")).await);
    assert_eq!((status, stdout.as_str()), (Some(255), ""));
    assert!(stderr.contains("PTY allocation request failed"), "{stderr}");
    let without = said(&ended(bench.client(bench.port(), &["-n", "-t"], "hostname")).await);
    assert_eq!((without.0, without.1.as_str()), (Some(0), "k3s-vm-still-fawn\n"), "{}", without.2);

    // A client that is killed while its command runs: the command has been started, and the server lives on.
    bench.lab.shared().change(|world| world.timing.install = 1_000_000_000);
    // ssh makes what it is given as output non-blocking, for whoever shares it too.
    let mut ssh = bench.client(bench.port(), &["-n"], "apt-get install -y libedgetpu1-std");
    let mut ssh = ssh.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let begun = |world: &pvemig::lab::World| world.vms[&VM].guest.installed.contains("libedgetpu1-std").then_some(());
    assert!(bench.lab.shared().until(LONG * 100, begun).await.is_some());
    ssh.kill().unwrap();
    assert_eq!(ssh.wait().unwrap().code(), None, "killed by a signal");
    assert_eq!(said(&bench.ssh(bench.port(), "dpkg -s libedgetpu1-std").await).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_and_changes_are_counted_as_the_client_counts_them() {
    let bench = Bench::start().await;
    let (direct, through_host) = (bench.direct(LONG), bench.through_host());
    let on_host = bench.target(bench.lab.reach().ssh.hosts["pumped-piglet"], LONG);
    let on_host = Guest::new("pumped-piglet", vec![Route::Ssh(on_host)], Clock::real());
    let source = Route::Ssh(bench.target(bench.lab.reach().ssh.guests[&105], LONG));
    let source = Guest::new("vm 105", vec![source], Clock::real());
    let coral = "18d1:9302".parse().unwrap();
    let shown = |seen: Vec<pvemig::guest::GuestUsb>| {
        let port = |usb: pvemig::guest::GuestUsb| (usb.speed_mbit, usb.port.map(|port| port.to_string()));
        seen.into_iter().filter(|usb| usb.id == coral).map(port).collect::<Vec<_>>()
    };
    assert_eq!(shown(on_host.usb().await.unwrap().value), [(5000, Some("2-1".to_owned()))]);
    assert_eq!(shown(source.usb().await.unwrap().value), [(5000, Some("2-2".to_owned()))]);
    assert_eq!(shown(direct.usb().await.unwrap().value), []);

    let boot_id = bench.lab.shared().read(|world| world.boot_id(VM)).unwrap();
    for guest in [&direct, &through_host] {
        assert_eq!(guest.boot_id().await.unwrap().value, boot_id);
        assert!(guest.exists("/dev/dri").await.unwrap().value);
        assert!(!guest.exists("/dev/apex_0").await.unwrap().value);
        assert_eq!(guest.disk_use("/var/lib/rancher/k3s/storage").await.unwrap().value, 9_666_822_144);
        guest.look(&Look::Uptime).await.unwrap();
        guest.look(&Look::PciList).await.unwrap();
        assert_eq!(
            guest.look(&declared(&["dpkg", "-s", "libedgetpu1-std"])).await.unwrap().value.exit,
            Exit::Status(1)
        );
    }
    assert_eq!((bench.count(Class::Change), bench.count(Class::Look)), (0, 3 + 2 * 7));

    let mut sent = 0;
    for (guest, verb, installed) in [(&direct, "install", true), (&through_host, "remove", false)] {
        let (permit, notebook) = Notebook::permit();
        let apt = command(&["/usr/bin/apt-get", verb, "-y", "libedgetpu1-std"], true, LONG);
        assert!(guest.run(&apt, &permit).await.unwrap().value.ok());
        let world = bench.lab.shared().read(|world| world.vms[&VM].guest.installed.contains("libedgetpu1-std"));
        assert_eq!(world, installed);
        assert!(notebook.notes().iter().all(|note| note.system == System::Ssh));
        sent += notebook.notes().len();
        assert_eq!(bench.count(Class::Change), sent);
    }
    assert_eq!((sent, bench.count(Class::Ping)), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_manner_has_its_cause() {
    let bench = Bench::start().await;
    type Expected = fn(&Error) -> bool;
    let silent: Expected = |e| matches!(e, Error::TimedOut { phase: Phase::KeyExchange, .. });
    let cases: [(SshManner, Duration, Expected); 6] = [
        (SshManner::Refuses, LONG, |e| matches!(e, Error::ConnectionRefused { .. })),
        (SshManner::Silent, SHORT, silent),
        (SshManner::BannerOnly, SHORT, silent),
        (SshManner::RefusesKeys, LONG, |e| matches!(e, Error::AuthRefused { .. })),
        (SshManner::OtherHostKey, LONG, |e| matches!(e, Error::HostKeyChanged { .. })),
        (SshManner::Cuts, LONG, |e| matches!(e, Error::SessionLost { phase: Phase::Command, .. })),
    ];
    for (manner, limit, expected) in cases {
        bench.manner(manner);
        let error = settled(|| async { bench.direct(limit).boot_id().await.err() }, expected).await;
        assert_eq!(error.effect(), Effect::None, "{manner:?}");
    }
    bench.manner(SshManner::Serves);
    settled(|| async { bench.direct(LONG).boot_id().await.ok() }, |_| true).await;
}

/// Asks until the answer is the expected one: a server notices its new manner a moment after the world has it.
async fn settled<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F, expected: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + LONG;
    loop {
        match ask().await {
            Some(answer) if expected(&answer) => return answer,
            _ => assert!(Instant::now() < end, "it never came to that"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lives_as_long_as_its_machine() {
    let bench = Bench::start().await;
    // One guest for the whole time: its connection goes with each boot.
    let guest = bench.direct(LONG);
    let before = guest.boot_id().await.unwrap().value;
    // It reboots from inside; nobody listens meanwhile, and then somebody does on the same port.
    let (permit, _) = Notebook::permit();
    let _cut_or_answered = guest.run(&command(&["reboot"], false, LONG), &permit).await;
    let refused = |e: &Error| matches!(e, Error::ConnectionRefused { .. });
    assert!(!bench.lab.shared().read(|world| world.guest_ssh_up(VM)));
    settled(|| async { guest.boot_id().await.err() }, refused).await;
    let after = settled(|| async { guest.boot_id().await.ok() }, |_| true).await.value;
    assert_ne!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_rules_hit_logins_and_commands() {
    let bench = Bench::start().await;
    let install = command(&["apt-get", "install", "-y", "libedgetpu1-std"], false, LONG);
    let installed = || bench.lab.shared().read(|world| world.vms[&VM].guest.installed.contains("libedgetpu1-std"));
    type Expected = fn(&Error) -> bool;
    let lost: Expected = |e| matches!(e, Error::LostAnswer { .. });
    let cases: [(FaultEffect, Option<Expected>, bool); 7] = [
        (FaultEffect::Refuse, Some(|e| matches!(e, Error::ExecRefused { .. })), false),
        (FaultEffect::Hang, Some(lost), false),
        (FaultEffect::ResetBefore, Some(lost), false),
        (FaultEffect::Status(500, "no".into()), None, false),
        (FaultEffect::HangAfter, Some(lost), true),
        (FaultEffect::ResetAfter, Some(lost), true),
        (FaultEffect::Delay(1_000), None, true),
    ];
    for (count, (effect, expected, happened)) in cases.into_iter().enumerate() {
        bench.lab.shared().change(|world| {
            let guest = &mut world.vms.get_mut(&VM).unwrap().guest;
            guest.installed.clear();
            guest.available.insert("libedgetpu1-std".into());
        });
        bench.lab.fault(FaultRule::on(Front::Ssh, effect.clone()).class(Class::Change).path("vm 108: apt-get*"));
        // Only what is meant to hang is held to a short limit.
        let hangs = matches!(effect, FaultEffect::Hang | FaultEffect::HangAfter);
        let (permit, notebook) = Notebook::permit();
        let result = bench.direct(if hangs { HANGS } else { LONG }).run(&install, &permit).await;
        match (result, expected) {
            (Ok(seen), None) => assert_eq!(seen.value.ok(), happened, "{effect:?}"),
            (Err(error), Some(expected)) => assert!(expected(&error), "{effect:?}: {error:?}"),
            (result, _) => panic!("{effect:?}: {result:?}"),
        }
        assert_eq!(installed(), happened, "{effect:?}");
        assert_eq!((bench.count(Class::Change), notebook.notes().len()), (count + 1, 1), "{effect:?}");
        assert_eq!(bench.lab.shared().clear_faults().len(), 1);
    }

    let logins: [(FaultEffect, Expected); 3] = [
        (FaultEffect::Refuse, |e| matches!(e, Error::AuthRefused { .. })),
        (FaultEffect::ResetBefore, |e| matches!(e, Error::SessionLost { phase: Phase::Login, .. })),
        (FaultEffect::Hang, |e| matches!(e, Error::TimedOut { phase: Phase::Login, .. })),
    ];
    for (effect, expected) in logins {
        bench.lab.fault(FaultRule::on(Front::Ssh, effect.clone()).class(Class::Login).times(1));
        let limit = if effect == FaultEffect::Hang { HANGS } else { LONG };
        let error = bench.direct(limit).boot_id().await.unwrap_err();
        assert!(expected(&error), "{effect:?}: {error:?}");
        bench.direct(LONG).boot_id().await.unwrap();
        bench.lab.shared().clear_faults();
    }
}
