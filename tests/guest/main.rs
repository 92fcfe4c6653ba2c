//! Guest access at the wire: against OpenSSH (`sshd`, `ssh`, `ssh-keygen`) and against scripted servers.

#![expect(clippy::unwrap_used, reason = "what helps a test fails as a test does")]

mod place;
mod scripted;

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use place::{Place, Sshd, new_key, program, public, user, write_key};
use pvemig::base::clock::Clock;
use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::{Again, CallId, Handle, Ledger, Note, Notebook, Permit, Refused, System, Thing};
use pvemig::base::secret::Secret;
use pvemig::guest::{Command, Error, Exit, Guest, KeySource, Look, OUTPUT_CAP, Phase, Route, SshTarget};
use scripted::{Manner, Scripted, hold, raw};
use tokio::io::AsyncWriteExt;

/// Long enough for a busy machine; nothing that is meant to succeed is held to less.
const LONG: Duration = Duration::from_secs(60);
/// For what is meant to end at its deadline.
const SHORT: Duration = Duration::from_millis(300);

type Expected = fn(&Error) -> bool;

fn guest(routes: Vec<Route>) -> Guest {
    Guest::new("vm 108", routes, Clock::real())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn declared(argv: &[&str]) -> Look {
    Look::Declared { argv: words(argv) }
}

fn command(argv: &[&str], repeatable: bool, limit: Duration) -> Command {
    Command { argv: words(argv), repeatable, limit }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_runs_looks_and_commands() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let guest = guest(vec![Route::Ssh(place.target(sshd.port, LONG))]);

    let awkward = ["it's", "a  b", "", "$HOME", "*", "x=1", "a\nb", "\\"];
    let seen = guest.look(&declared(&[&["printf", "[%s]"], awkward.as_slice()].concat())).await.unwrap();
    assert_eq!(seen.value.stdout, awkward.map(|word| format!("[{word}]")).concat());
    assert_eq!(seen.notes, [format!("{}: answered", seen.route)]);

    let both = guest.look(&declared(&["sh", "-c", "echo out; echo err >&2; exit 3"])).await.unwrap().value;
    assert_eq!((both.exit, both.stdout.as_str(), both.stderr.as_str()), (Exit::Status(3), "out\n", "err\n"));
    let killed = guest.look(&declared(&["sh", "-c", "kill -TERM $$"])).await.unwrap().value;
    assert_eq!(killed.exit, Exit::Signal("TERM".into()));
    let flood = guest.look(&declared(&["head", "-c", "3000000", "/dev/zero"])).await.unwrap().value;
    assert_eq!((flood.exit, flood.stdout.len(), flood.truncated), (Exit::Status(0), OUTPUT_CAP, true));
    // A service that keeps the output open does not keep us.
    let service = guest.look(&declared(&["sh", "-c", "tail -f /dev/null & echo $!"])).await.unwrap().value;
    assert_eq!(service.exit, Exit::Status(0));
    assert!(program("kill").arg(service.stdout.trim()).status().unwrap().success());

    assert_eq!(guest.boot_id().await.unwrap().value.len(), 36);
    assert!(guest.exists("/etc").await.unwrap().value);
    assert!(!guest.exists("/etc/no such thing").await.unwrap().value);
    std::fs::write(place.path("data"), vec![1; 20_000]).unwrap();
    let size = guest.disk_use(place.dir.path().to_str().unwrap()).await.unwrap().value;
    assert!((20_000..10_000_000).contains(&size), "{size}");
    assert_eq!(sshd.connections(), 9);

    let (permit, notebook) = Notebook::permit();
    let file = place.path("touched");
    let touch = command(&["touch", file.to_str().unwrap()], true, LONG);
    assert!(guest.run(&touch, &permit).await.unwrap().value.ok());
    assert!(file.exists());
    let notes = notebook.notes();
    assert_eq!(notes.len(), 1);
    assert_eq!((notes[0].system, notes[0].again), (System::Ssh, Again::Safe));
    assert!(notes[0].text.contains("vm 108") && notes[0].text.contains("touch"), "{}", notes[0].text);
}

/// The faults of a login, each with its cause, and the second route that answers all the same.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_login() {
    let (good, place, old) = (Place::new(), Place::new(), Place::new());
    let healthy = Sshd::start(&good, "");
    let sshd = Sshd::start(&place, "");
    let old_kex = Sshd::start(&old, "KexAlgorithms diffie-hellman-group14-sha1");
    let closed = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stopped = StdListener::bind("127.0.0.1:0").unwrap();
    let stopped_port = stopped.local_addr().unwrap().port();
    let silent = raw(hold).await;
    let banner = raw(|mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
        hold(stream).await;
    });
    let banner = banner.await;
    let hangs_up = raw(|stream| async move { drop(stream) }).await;

    write_key(&place.path("stranger"), &new_key());
    let stranger = KeySource::File(place.path("stranger"));
    let other = format!("# before\n[127.0.0.1]:{} {}\n", sshd.port, public(&new_key()));
    std::fs::write(place.path("other_hosts"), other).unwrap();
    let (target, other_hosts) = (|port, limit| place.target(port, limit), place.path("other_hosts"));

    let cases: Vec<(&str, SshTarget, Expected)> = vec![
        ("port closed", target(closed, LONG), |e| matches!(e, Error::ConnectionRefused { .. })),
        ("never accepts", target(stopped_port, SHORT), timed_out),
        ("accepts, silent", target(silent, SHORT), timed_out),
        ("banner, then silent", target(banner, SHORT), timed_out),
        ("closes at once", target(hangs_up, LONG), |e| {
            matches!(e, Error::SessionLost { phase: Phase::KeyExchange, .. })
        }),
        ("auth refused", SshTarget { key: stranger, ..target(sshd.port, LONG) }, |e| {
            matches!(e, Error::AuthRefused { .. })
        }),
        ("host key changed", SshTarget { known_hosts: other_hosts, ..target(sshd.port, LONG) }, |e| {
            matches!(e, Error::HostKeyChanged { line: 2, .. })
        }),
        ("no common key exchange", old.target(old_kex.port, LONG), |e| {
            matches!(e, Error::NoCommonAlgorithm { what: "key exchange method", .. })
        }),
        ("name not known", SshTarget { address: "no-such-host.invalid".into(), ..target(22, LONG) }, |e| {
            matches!(e, Error::NameNotFound { .. })
        }),
    ];
    assert_eq!(cases.len(), 9);
    for (fault, target, expected) in cases {
        let error = guest(vec![Route::Ssh(target.clone())]).boot_id().await.unwrap_err();
        assert!(expected(&error), "{fault}: {error:?}");
        assert_eq!(error.effect(), Effect::None, "{fault}");
        assert!(error.to_string().contains(&format!("{target}: ")), "{fault}: {error}");

        let before = healthy.connections();
        let both = guest(vec![Route::Ssh(target), Route::Ssh(good.target(healthy.port, LONG))]);
        let (permit, notebook) = Notebook::permit();
        let seen = both.run(&command(&["true"], false, LONG), &permit).await.unwrap();
        assert_eq!(seen.notes.len(), 2, "{fault}: {:?}", seen.notes);
        assert!(seen.notes[0].starts_with(&error.to_string()), "{fault}: {:?}", seen.notes);
        assert_eq!(healthy.connections(), before + 1, "{fault}");
        assert_eq!(notebook.notes().len(), 1, "{fault}: a route that lets nobody in is not written down");
    }
}

fn timed_out(error: &Error) -> bool {
    matches!(error, Error::TimedOut { phase: Phase::KeyExchange, limit: SHORT, .. })
}

/// The ninth fault: the connection is cut while the command runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_cut_midway_is_a_lost_answer() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let guest = guest(vec![Route::Ssh(place.target(sshd.port, LONG))]);
    let fifo = place.path("fifo");
    assert!(program("mkfifo").arg(&fifo).status().unwrap().success());
    let (permit, notebook) = Notebook::permit();
    let script = format!("echo started > {0}; exec cat {0}", fifo.display());
    let command = command(&["sh", "-c", &script], false, LONG);
    let run = guest.run(&command, &permit);
    let cut = tokio::task::spawn_blocking(move || {
        // Reading ends when the command has written: it runs.
        assert_eq!(std::fs::read_to_string(&fifo).unwrap(), "started\n");
        sshd.kill();
        // Lets the command go that is left behind.
        std::fs::write(&fifo, "").unwrap();
        sshd.connections()
    });
    let (result, connections) = tokio::join!(run, cut);
    let error = result.unwrap_err();
    let Error::LostAnswer { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**source, Error::SessionLost { phase: Phase::Command, .. }), "{error:?}");
    assert_eq!((error.effect(), notebook.notes().len(), connections.unwrap()), (Effect::Maybe, 1, 1));
}

/// The same files for OpenSSH and for us: what one accepts the other accepts.
#[tokio::test(flavor = "multi_thread")]
async fn known_hosts_are_read_as_openssh_reads_them() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let port = sshd.port;
    let (key, other, third) = (public(&place.host), public(&new_key()), public(&new_key()));
    let name = format!("[127.0.0.1]:{port}");
    let file = place.path("known_hosts");
    let hashed = |line: &str| {
        place.known(&format!("{line}\n"));
        assert!(program("ssh-keygen").arg("-H").arg("-f").arg(&file).output().unwrap().status.success());
        std::fs::read_to_string(&file).unwrap()
    };
    let known: Expected = |_| false;
    let unknown: Expected = |e| matches!(e, Error::HostKeyUnknown { .. });
    let changed: Expected = |e| matches!(e, Error::HostKeyChanged { line: 1, .. });
    let changed_3: Expected = |e| matches!(e, Error::HostKeyChanged { line: 3, .. });
    let revoked: Expected = |e| matches!(e, Error::HostKeyRevoked { .. });
    // What the file says, whether `ssh` accepts, what our refusal is, whether `ssh-keygen -F` finds the name.
    let cases: Vec<(String, bool, Expected, bool)> = vec![
        (format!("{name} {key}\n"), true, known, true),
        (format!("{name}\t{}\n", key.replace(' ', "\t")), true, known, true),
        (format!("  {name}  {key} a comment\n"), true, known, true),
        (format!("[127.0.0.*]:{port} {key}\n"), true, known, true),
        (format!("[127.0.0.?]:* {key}\n"), true, known, true),
        (format!("127.0.0.1 {key}\n"), true, known, false),
        (hashed(&format!("{name} {key}")), true, known, true),
        (hashed(&format!("{name} {other}")), false, changed, true),
        (format!("{name} {other}\n{name} {key}\n"), true, known, true),
        (format!("{name} {other}\n{name} {third}\n"), false, changed, true),
        (format!("# comment\n\n{name} {other}\n"), false, changed_3, true),
        (format!("@revoked * {key}\n{name} {key}\n"), false, revoked, true),
        (format!("{name} {key}\n@revoked {name} {key}\n"), false, revoked, true),
        (format!("@revoked {name} {other}\n{name} {key}\n"), true, known, true),
        // The bare name stands in where the name with its port is not found, excluded or not.
        (format!("*,!{name} {key}\n"), true, known, false),
        (format!("*,!{name},!127.0.0.1 {key}\n"), false, unknown, false),
        (format!("!other,{name} {key}\n"), true, known, true),
        (format!("@cert-authority {name} {key}\n"), false, unknown, true),
        (format!("other {key}\n"), false, unknown, false),
        (format!("{name} ssh-ed25519 AAAA\n"), false, unknown, true),
        (String::new(), false, unknown, false),
    ];
    assert_eq!(cases.len(), 21);
    let mut accepted = 0;
    for (text, accepts, expected, found) in cases {
        place.known(&text);
        let ssh = program("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "UpdateHostKeys=no", "-o", "IdentityAgent=none"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", file.display()))
            .arg("-i")
            .arg(place.path("id"))
            .args(["-p", &port.to_string(), &format!("{}@127.0.0.1", user()), "true"])
            .output()
            .unwrap();
        assert_eq!(ssh.status.success(), accepts, "ssh on {text:?}: {}", String::from_utf8_lossy(&ssh.stderr));
        let keygen = program("ssh-keygen").args(["-F", &name, "-f"]).arg(&file).output().unwrap();
        assert_eq!(keygen.status.success(), found, "ssh-keygen on {text:?}");

        match guest(vec![Route::Ssh(place.plain_target(port, LONG))]).look(&declared(&["true"])).await {
            Ok(_) => assert!(accepts, "accepted with {text:?}"),
            Err(error) => assert!(!accepts && expected(&error), "{text:?}: {error}"),
        }
        accepted += usize::from(accepts);
    }
    assert_eq!(accepted, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_refused_with_the_line_that_would_make_it_known() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let target = place.plain_target(sshd.port, LONG);
    let error = guest(vec![Route::Ssh(target.clone())]).boot_id().await.unwrap_err();
    let Error::HostKeyUnknown { line, fingerprint, .. } = &error else { panic!("{error:?}") };
    assert!(error.help().unwrap().contains(line.as_str()));
    let shown = program("ssh-keygen").arg("-lf").arg(place.path("host")).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains(fingerprint.as_str()), "{fingerprint}");

    place.known(&format!("{line}\n"));
    guest(vec![Route::Ssh(target)]).boot_id().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_several_keys_is_asked_for_the_recorded_one() {
    let place = Place::new();
    let ecdsa = place.path("ecdsa");
    let made = program("ssh-keygen").args(["-q", "-t", "ecdsa", "-N", "", "-f"]).arg(&ecdsa).status().unwrap();
    assert!(made.success());
    let sshd = Sshd::start(&place, &format!("HostKey {}", ecdsa.display()));
    let recorded = std::fs::read_to_string(place.path("ecdsa.pub")).unwrap();
    place.known(&format!("[127.0.0.1]:{} {recorded}", sshd.port));
    guest(vec![Route::Ssh(place.plain_target(sshd.port, LONG))]).boot_id().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_work_are_refused_before_any_connection() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let make = |name: &str, options: &[&str]| {
        let path = place.path(name);
        assert!(program("ssh-keygen").arg("-q").args(options).arg("-f").arg(&path).status().unwrap().success());
        KeySource::File(path)
    };
    let rsa: Expected = |e| matches!(e, Error::RsaKey { .. });
    let cases: [(KeySource, Expected); 6] = [
        (make("rsa", &["-t", "rsa", "-b", "2048", "-N", ""]), rsa),
        (make("rsa_pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]), rsa),
        (make("rsa_pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", ""]), rsa),
        (make("locked", &["-t", "ed25519", "-N", "secret"]), |e| matches!(e, Error::EncryptedKey { .. })),
        (KeySource::Text(Secret::new("nonsense")), |e| matches!(e, Error::Key { .. })),
        (KeySource::File(place.path("missing")), |e| matches!(e, Error::Key { .. })),
    ];
    for (key, expected) in cases {
        let target = SshTarget { key: key.clone(), ..place.target(sshd.port, LONG) };
        let error = guest(vec![Route::Ssh(target)]).boot_id().await.unwrap_err();
        assert!(expected(&error), "{key:?}: {error:?}");
    }
    let rsa_host = std::fs::read_to_string(place.path("rsa.pub")).unwrap();
    place.known(&format!("[127.0.0.1]:{} {rsa_host}", sshd.port));
    let error = guest(vec![Route::Ssh(place.plain_target(sshd.port, LONG))]).boot_id().await.unwrap_err();
    assert!(matches!(error, Error::HostKeyRsa { .. }), "{error:?}");
    assert!(error.help().unwrap().contains(&format!("ssh-keyscan -t ed25519 -p {}", sshd.port)));
    assert_eq!(sshd.connections(), 0);

    let text = std::fs::read_to_string(place.path("id")).unwrap();
    let given = KeySource::Text(Secret::new(text));
    assert!(!format!("{given:?}").contains("PRIVATE"));
    let target = SshTarget { key: given, ..place.target(sshd.port, LONG) };
    guest(vec![Route::Ssh(target)]).boot_id().await.unwrap();
    assert_eq!(sshd.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_may_have_run_is_not_run_elsewhere() {
    let place = Place::new();
    let (host, asked_host) = Scripted::start(&place, Manner::Host).await;
    let second = Route::HostSsh { host: place.target(host, LONG), vmid: 108 };
    let mut lost = 0;
    for manner in [Manner::Refuse, Manner::CutBefore, Manner::CutAfter, Manner::Hang] {
        for repeatable in [false, true] {
            asked_host.lock().unwrap().clear();
            let (port, asked) = Scripted::start(&place, manner).await;
            let guest = guest(vec![Route::Ssh(place.target(port, LONG)), second.clone()]);
            let (permit, notebook) = Notebook::permit();
            let argv = ["install", "it"];
            let first = command(&argv, repeatable, if matches!(manner, Manner::Hang) { SHORT } else { LONG });
            let result = guest.run(&first, &permit).await;
            assert_eq!(*asked.lock().unwrap(), ["install it"], "{manner:?}");
            let went_on = matches!(manner, Manner::Refuse) || repeatable;
            if went_on {
                let seen = result.unwrap();
                assert_eq!(seen.value.stdout, "install it", "{manner:?}");
                assert_eq!(asked_host.lock().unwrap().len(), 2, "{manner:?}");
                assert_eq!(seen.notes.len(), 2);
            } else {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::LostAnswer { .. }), "{manner:?}: {error:?}");
                assert_eq!(error.effect(), Effect::Maybe);
                assert!(asked_host.lock().unwrap().is_empty(), "{manner:?}");
                lost += 1;
            }
            // One line for each time that it was sent.
            assert_eq!(notebook.notes().len(), if went_on { 2 } else { 1 }, "{manner:?}");
            let again = if repeatable { Again::Safe } else { Again::Once };
            assert!(notebook.notes().iter().all(|note| note.again == again && note.system == System::Ssh));
        }
    }
    assert_eq!(lost, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_goes_on_whatever_happened_to_it() {
    let place = Place::new();
    let (host, asked) = Scripted::start(&place, Manner::Host).await;
    let mut routes = Vec::new();
    for manner in [Manner::Refuse, Manner::CutBefore, Manner::CutAfter] {
        let (port, _) = Scripted::start(&place, manner).await;
        routes.push(Route::Ssh(place.target(port, LONG)));
    }
    let error = guest(routes.clone()).boot_id().await.unwrap_err();
    let Error::AllRoutes { each, effect, .. } = &error else { panic!("{error:?}") };
    assert_eq!((each.len(), *effect), (3, Effect::None), "{error}");

    routes.push(Route::HostSsh { host: place.target(host, LONG), vmid: 108 });
    let guest = guest(routes);
    let seen = guest.look(&declared(&["lsusb", "-v it"])).await.unwrap();
    assert_eq!(seen.value.stdout, "lsusb '-v it'");
    assert_eq!(*asked.lock().unwrap(), ["qm guest exec 108 --timeout 20 -- lsusb '-v it'"]);
    assert_eq!(seen.notes.len(), 4);
    assert!(seen.notes[3].ends_with("answered") && seen.notes[0].contains("refuses"), "{:?}", seen.notes);
    assert_eq!(guest.look(&declared(&["false"])).await.unwrap().value.exit, Exit::Status(1));
}

/// A permit that cannot write is the end of it, before anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_that_could_not_be_written_down() {
    let place = Place::new();
    let (port, asked) = Scripted::start(&place, Manner::Host).await;
    let route = Route::Ssh(place.target(port, LONG));
    let guest = guest(vec![route.clone(), route]);
    let permit = Permit::mint(Arc::new(Full));
    let error = guest.run(&command(&["install"], true, LONG), &permit).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(asked.lock().unwrap().len(), 0);
    for bad in [vec![], vec!["a\0b"]] {
        let error = guest.run(&command(&bad, true, LONG), &permit).await.unwrap_err();
        assert!(matches!(error, Error::BadCommand { .. }), "{error:?}");
    }
}

/// A journal on a full disk.
struct Full;

impl Ledger for Full {
    fn note(&self, _: &Note) -> Result<CallId, Refused> {
        Err(Refused::Journal("no space left".into()))
    }
    fn got(&self, _: CallId, _: &Handle) -> Result<(), Refused> {
        Ok(())
    }
    fn progress(&self, _: &str) {}
    fn file(&self, _: &str, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
    fn may_destroy(&self, _: &Thing) -> Result<(), Refused> {
        Ok(())
    }
}
