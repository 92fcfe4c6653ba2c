//! Guest access at the wire: against OpenSSH (`sshd`, `ssh`, `ssh-keygen`) and against scripted servers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what helps a test fails as a test does")]

mod drives;
mod host_keys;
mod lab;
pub(crate) mod place;
mod pve;
mod relay;
mod scripted;
mod sessions;
pub(crate) mod table;

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use place::{Place, Sshd, new_key, program, public, write_key};
use pve::{answers_ping, execs, pve};
use pvemig::base::clock::Clock;
use pvemig::base::fault::{Effect, Failure, Fault};
use pvemig::base::permit::{Again, CallId, Handle, Ledger, Note, Notebook, Permit, Refused, System, Thing};
use pvemig::guest::{Command, Error, Exit, Fact, Guest, KeySource, Look, OUTPUT_CAP, Phase, Route, SshTarget};
use scripted::{Manner, Scripted, hold, raw};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use wiremock::ResponseTemplate;

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
    let service = guest.look(&declared(&["sh", "-c", "sleep 600 & echo $!"])).await.unwrap().value;
    assert_eq!(service.exit, Exit::Status(0));
    assert!(program("kill").arg(service.stdout.trim()).status().unwrap().success());

    assert_eq!(guest.boot_id().await.unwrap().value.len(), 36);
    assert!(guest.exists("/etc").await.unwrap().value);
    assert!(!guest.exists("/etc/no such thing").await.unwrap().value);
    std::fs::write(place.path("data"), vec![1; 20_000]).unwrap();
    let size = guest.disk_use(place.dir.path().to_str().unwrap()).await.unwrap().value;
    assert!((20_000..10_000_000).contains(&size), "{size}");
    assert_eq!(sshd.connections(), 1, "one login for all of them");

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
    let stopped = Sshd::stopped(&place);
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
        ("hangs after connect", target(stopped.port, SHORT), timed_out),
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
async fn a_command_that_the_agent_keeps_is_not_run_elsewhere() {
    let place = Place::new();
    let (host, asked) = Scripted::start(&place, Manner::Host).await;
    let (server, proxmox) = pve(answers_ping()).await;
    let kept = json!({ "data": null, "message": "VM 108 qga command 'guest-exec' failed - got timeout\n" });
    let exec = wiremock::Mock::given(wiremock::matchers::path("/api2/json/nodes/still-fawn/qemu/108/agent/exec"));
    exec.respond_with(ResponseTemplate::new(500).set_body_json(kept)).with_priority(1).mount(&server).await;
    let host = Route::HostSsh { host: place.target(host, LONG), vmid: 108 };
    let guest = guest(vec![Route::Agent { proxmox, vmid: 108 }, host]);
    let (permit, notebook) = Notebook::permit();
    let error = guest.run(&command(&["install"], false, LONG), &permit).await.unwrap_err();
    assert!(matches!(error, Error::LostAnswer { .. }), "{error:?}");
    assert_eq!((error.effect(), notebook.notes().len()), (Effect::Maybe, 1));
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_cannot_be_opened_answers_with_the_reason() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let failure = Failure::plain("no key in $KEY", Some("set it".into()));
    let closed = Route::closed("host-ssh", &failure);
    let both = guest(vec![closed.clone(), Route::Ssh(place.target(sshd.port, LONG))]);
    let seen = both.boot_id().await.unwrap();
    assert_eq!((seen.notes.len(), seen.notes[0].as_str()), (2, "host-ssh: no key in $KEY"));
    let (permit, notebook) = Notebook::permit();
    assert!(both.run(&command(&["true"], false, LONG), &permit).await.unwrap().value.ok());
    assert_eq!(notebook.notes().len(), 1);

    let alone = guest(vec![closed]).boot_id().await.unwrap_err();
    assert_eq!((alone.effect(), alone.is_lasting(), alone.help()), (Effect::None, true, Some("set it".into())));
    let facts = guest(vec![Route::closed("ssh", &failure)]).facts().await;
    assert_eq!(facts.ssh, Some(Fact::Unknown("no key in $KEY".into())));
}

/// Silence says nothing of whether a login works, neither at once nor while the way in is left out for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_way_in_is_not_known_and_a_refused_one_is_no() {
    let place = Place::new();
    let silent = guest(vec![Route::Ssh(place.target(raw(hold).await, SHORT))]);
    for words in ["no answer within", "so it was left out"] {
        let facts = silent.facts().await;
        assert!(matches!(&facts.ssh, Some(Fact::Unknown(why)) if why.contains(words)), "{facts:?}");
    }
    let (port, _) = Scripted::start(&place, Manner::Host).await;
    let stranger = SshTarget { known_hosts: place.path("none"), ..place.target(port, LONG) };
    let facts = guest(vec![Route::Ssh(stranger)]).facts().await;
    assert!(matches!(&facts.ssh, Some(Fact::No(why)) if why.contains("does not know this host")), "{facts:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn where_ssh_is_refused_the_agent_serves_and_both_are_named() {
    let place = Place::new();
    let closed = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ssh = Route::Ssh(place.target(closed, LONG));
    let (server, proxmox) = pve(answers_ping()).await;
    let guest = guest(vec![ssh, Route::Agent { proxmox, vmid: 108 }]);

    let seen = guest.boot_id().await.unwrap();
    assert_eq!((seen.value.as_str(), seen.route.as_str()), ("by agent", "agent of vm 108 (cluster home)"));
    assert_eq!(seen.notes.len(), 2);
    assert!(seen.notes[0].contains("connection refused") && seen.notes[1].ends_with("answered"), "{:?}", seen.notes);

    let (permit, notebook) = Notebook::permit();
    let seen = guest.run(&command(&["apt-get", "install", "-y", "a b"], false, LONG), &permit).await.unwrap();
    assert!(seen.value.ok());
    let notes = notebook.notes();
    assert_eq!(notes.len(), 1);
    assert_eq!((notes[0].system, notes[0].again), (System::Proxmox, Again::Once));
    let execs = execs(&server).await;
    assert_eq!(execs.len(), 2);
    assert!(execs[1].contains(r#"["apt-get","install","-y","a b"]"#), "{}", execs[1]);

    let facts = guest.facts().await;
    assert!(matches!(facts.ssh, Some(Fact::No(_))), "{facts:?}");
    let agent = facts.agent.unwrap();
    assert!(agent.channel.is_yes() && agent.ping.is_yes() && agent.exec.is_yes(), "{agent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_is_found_out_before_anything_is_sent() {
    let place = Place::new();
    let (host, asked) = Scripted::start(&place, Manner::Host).await;
    let silent = json!({ "data": null, "message": "QEMU guest agent is not running\n" });
    let (server, proxmox) = pve(ResponseTemplate::new(500).set_body_json(silent)).await;
    let host = Route::HostSsh { host: place.target(host, LONG), vmid: 108 };
    let guest = guest(vec![Route::Agent { proxmox, vmid: 108 }, host]);
    let (permit, notebook) = Notebook::permit();
    let seen = guest.run(&command(&["install"], false, LONG), &permit).await.unwrap();
    assert_eq!(seen.value.stdout, "install");
    assert_eq!(*asked.lock().unwrap(), ["qm agent 108 ping", "qm guest exec 108 --timeout 60 -- install"]);
    assert_eq!((execs(&server).await.len(), notebook.notes().len()), (0, 1));
    assert_eq!(notebook.notes()[0].system, System::Ssh);

    let facts = guest.facts().await;
    assert_eq!(facts.ssh, None);
    let agent = facts.agent.unwrap();
    assert!(agent.channel.is_yes(), "{agent:?}");
    assert!(matches!((&agent.ping, &agent.exec), (Fact::No(_), Fact::No(_))), "{agent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usb_device_that_is_coming_is_looked_at_again() {
    let place = Place::new();
    let (port, asked) = Scripted::start(&place, Manner::HalfUsb).await;
    let guest = Guest::new("vm 108", vec![Route::Ssh(place.target(port, LONG))], Clock::fast(1_000));
    let devices = guest.usb().await.unwrap().value;
    assert_eq!((devices.len(), devices[0].speed_mbit, asked.lock().unwrap().len()), (1, 5000, 2));
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
