//! One login for many commands, and what becomes of them when its connection is gone.

use std::path::Path;

use futures::future::join_all;
use pvemig::base::permit::Notebook;
use pvemig::base::secret::Secret;
use pvemig::guest::{Error, Exit, Fact, Guest, KeySource, Phase, Route, Sessions, Silent, SshTarget};

use super::place::{Place, Sshd, program, user};
use super::relay::{Relay, Way};
use super::scripted::{Manner, Scripted, hold, raw};
use super::{LONG, SHORT, command, declared, guest};

const PING: [&str; 4] = ["qm", "agent", "108", "ping"];

/// A guest of the estate whose connections these are.
fn of(sessions: &Sessions, target: SshTarget) -> Guest {
    guest(vec![Route::Ssh(target)]).knowing(Silent::default(), sessions.clone())
}

/// Nothing but what is meant to pass by takes time: a busy machine is slow in opening a channel, too.
fn target(place: &Place, port: u16) -> SshTarget {
    SshTarget { channel_limit: LONG, ..place.target(port, LONG) }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_commands_for_one_target_share_a_login() {
    let place = Place::new();
    let (port, asked) = Scripted::start(&place, Manner::Host).await;
    let (relay, sessions) = (Relay::start(port).await, Sessions::default());
    let same = target(&place, relay.port);
    let (permit, notebook) = Notebook::permit();
    for _ in 0..5 {
        let guest = of(&sessions, same.clone());
        assert!(guest.look(&declared(&PING)).await.unwrap().value.ok());
        assert!(guest.run(&command(&PING, false, LONG), &permit).await.unwrap().value.ok());
        assert_eq!(guest.facts().await.ssh, Some(Fact::Yes));
    }
    let through = guest(vec![Route::HostSsh { host: same.clone(), vmid: 108 }]);
    let through = through.knowing(Silent::default(), sessions.clone());
    assert_eq!(through.run(&command(&["install"], false, LONG), &permit).await.unwrap().value.stdout, "install");
    assert_eq!((relay.connections(), asked.lock().unwrap().len(), notebook.notes().len()), (1, 12, 6));

    // Whatever makes another login of it makes another connection.
    let copy = |from: &str, to: &str| {
        std::fs::copy(place.path(from), place.path(to)).unwrap();
        place.path(to)
    };
    let text = std::fs::read_to_string(place.path("id")).unwrap();
    let others = [
        SshTarget { user: "other".into(), ..same.clone() },
        SshTarget { key: KeySource::File(copy("id", "id2")), ..same.clone() },
        SshTarget { key: KeySource::Text(Secret::new(text)), ..same.clone() },
        SshTarget { known_hosts: copy("known_hosts", "known_hosts2"), ..same.clone() },
        SshTarget { address: "localhost".into(), known_hosts: known(&place, "localhost"), ..same.clone() },
    ];
    for (count, other) in others.into_iter().enumerate() {
        for _ in 0..2 {
            assert!(of(&sessions, other.clone()).look(&declared(&PING)).await.unwrap().value.ok());
            assert_eq!(relay.connections(), count + 2, "{other:?}");
        }
    }
    let elsewhere = Relay::start(port).await;
    assert!(of(&sessions, target(&place, elsewhere.port)).look(&declared(&PING)).await.unwrap().value.ok());
    assert_eq!((elsewhere.connections(), relay.connections()), (1, 6));
}

/// A file that knows the same key by another name.
fn known(place: &Place, name: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string(place.path("known_hosts")).unwrap();
    std::fs::write(place.path("known_hosts3"), text.replace("127.0.0.1", name)).unwrap();
    place.path("known_hosts3")
}

/// More channels than a server allows at a time, one after the other: with a service that keeps the output open, with
/// a command, and with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_given_back() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "MaxSessions 2");
    let guest = guest(vec![Route::Ssh(target(&place, sshd.port))]);
    let service = declared(&["sh", "-c", "sleep 600 & echo $!"]);
    let left = join_all([guest.look(&service), guest.look(&service)]).await;
    let left: Vec<String> = left.into_iter().map(|seen| seen.unwrap().value.stdout.trim().to_owned()).collect();
    for _ in 0..5 {
        assert_eq!(guest.look(&declared(&["false"])).await.unwrap().value.exit, Exit::Status(1));
        assert_eq!(guest.facts().await.ssh, Some(Fact::Yes));
    }
    assert!(program("kill").args(&left).status().unwrap().success());
    assert_eq!((left.len(), sshd.connections()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_between_two_commands_costs_a_login_and_no_more() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let relay = Relay::start(sshd.port).await;
    let guest = guest(vec![Route::Ssh(target(&place, relay.port))]);
    let file = place.path("lines");
    let append = format!("echo line >> {}", file.display());
    let (permit, notebook) = Notebook::permit();
    let mut logins = 1;
    assert!(guest.look(&declared(&["true"])).await.unwrap().value.ok());
    for way in [Way::Reset, Way::Close] {
        relay.turn(way);
        let seen = guest.run(&command(&["sh", "-c", &append], false, LONG), &permit).await.unwrap();
        assert_eq!((seen.value.exit, seen.notes.len()), (Exit::Status(0), 1), "{:?}", seen.notes);
        relay.turn(way);
        assert!(guest.look(&declared(&["true"])).await.unwrap().value.ok());
        relay.turn(way);
        assert_eq!(guest.facts().await.ssh, Some(Fact::Yes));
        logins += 3;
        assert_eq!(relay.connections(), logins);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "line\n".repeat(2));
    assert_eq!(notebook.notes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_on_a_kept_connection_is_not_sent_again() {
    let place = Place::new();
    for manner in [Manner::CutSecond, Manner::HangSecond] {
        let (port, asked) = Scripted::start(&place, manner).await;
        let relay = Relay::start(port).await;
        let guest = guest(vec![Route::Ssh(target(&place, relay.port))]);
        assert!(guest.look(&declared(&PING)).await.unwrap().value.ok());
        let (permit, notebook) = Notebook::permit();
        let limit = if matches!(manner, Manner::HangSecond) { SHORT } else { LONG };
        let error = guest.run(&command(&["install"], false, limit), &permit).await.unwrap_err();
        assert!(matches!(error, Error::LostAnswer { .. }), "{manner:?}: {error:?}");
        assert_eq!(
            (asked.lock().unwrap().join(", ").as_str(), notebook.notes().len()),
            ("qm agent 108 ping, install", 1)
        );
        // The connection is cut at once, and nothing else goes over it.
        relay.ended(1).await;
        assert!(guest.look(&declared(&PING)).await.unwrap().value.ok());
        assert_eq!((relay.connections(), asked.lock().unwrap().len()), (2, 3), "{manner:?}");
    }
}

/// Half-open: the machine went off without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_says_nothing_is_not_waited_for() {
    let place = Place::new();
    let (port, asked) = Scripted::start(&place, Manner::Host).await;
    let relay = Relay::start(port).await;
    let (silent, sessions) = (Silent::default(), Sessions::default());
    let with = |login_limit| {
        let target = SshTarget { login_limit, channel_limit: SHORT, ..place.target(relay.port, LONG) };
        guest(vec![Route::Ssh(target)]).knowing(silent.clone(), sessions.clone())
    };
    let up = with(LONG);
    let (permit, notebook) = Notebook::permit();
    assert!(up.look(&declared(&PING)).await.unwrap().value.ok());
    let before = relay.connections();
    relay.turn(Way::Mute);
    let seen = up.run(&command(&PING, false, LONG), &permit).await.unwrap();
    // Its silence is nobody's news: the way in is not left out for it.
    assert_eq!(seen.notes, [format!("{}: answered", seen.route)]);
    assert_eq!((relay.connections(), asked.lock().unwrap().len(), notebook.notes().len()), (before + 1, 2, 1));
    relay.turn(Way::Mute);
    assert_eq!(up.facts().await.ssh, Some(Fact::Yes));

    // Where the machine is really off, that is said as ever, by the fresh login, and kept in mind.
    relay.turn_all(Way::Mute);
    let limit = SHORT + SHORT;
    let error = with(limit).look(&declared(&PING)).await.unwrap_err();
    let expected = |e: &Error| matches!(e, Error::TimedOut { phase: Phase::KeyExchange, limit: l, .. } if *l == limit);
    assert!(expected(&error), "{error:?}");
    assert!(matches!(up.facts().await.ssh, Some(Fact::Unknown(why)) if why.contains("left out")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_during_a_login_waits_for_it() {
    let place = Place::new();
    let (port, asked) = Scripted::start(&place, Manner::Host).await;
    let (relay, off) = (Relay::start(port).await, Relay::start(raw(hold).await).await);
    let sessions = Sessions::default();
    let same = of(&sessions, target(&place, relay.port));
    let dead = of(&sessions, SshTarget { login_limit: LONG, ..place.target(off.port, LONG) });
    let ping = declared(&PING);

    let hangs = async { dead.look(&ping).await.map(|_| ()) };
    let others = async {
        off.begun(1).await;
        join_all((0..8).map(|_| same.look(&ping))).await
    };
    tokio::select! {
        biased;
        ended = hangs => panic!("{ended:?}"),
        answers = others => assert_eq!(answers.iter().flatten().filter(|seen| seen.value.ok()).count(), 8),
    }
    assert_eq!((relay.connections(), asked.lock().unwrap().len()), (1, 8));

    // A login that is given up lets the next one try; all who wait for one in vain share its silence.
    let dead = of(&sessions, place.target(off.port, SHORT));
    let answers = join_all((0..8).map(|_| dead.look(&ping))).await;
    let silent = |e: &Error| matches!(e, Error::TimedOut { phase: Phase::KeyExchange, limit: SHORT, .. });
    assert_eq!(answers.iter().filter(|answer| answer.as_ref().is_err_and(silent)).count(), 8, "{answers:?}");
    assert_eq!(off.connections(), 2);
}

/// A server that opens no more channels beside those that are in use is no failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_connection_gets_another_one_beside_it() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "MaxSessions 1");
    let guest = guest(vec![Route::Ssh(target(&place, sshd.port))]);
    let fifo = place.path("fifo");
    assert!(program("mkfifo").arg(&fifo).status().unwrap().success());
    let script = format!("echo started > {0}; exec cat {0}", fifo.display());
    let busy = declared(&["sh", "-c", &script]);
    let beside = async {
        let (first, last) = (fifo.clone(), fifo.clone());
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(first).unwrap());
        assert_eq!(read.await.unwrap(), "started\n");
        assert!(guest.look(&declared(&["true"])).await.unwrap().value.ok());
        tokio::task::spawn_blocking(move || std::fs::write(last, "end\n").unwrap()).await.unwrap();
    };
    let (busy, ()) = tokio::join!(guest.look(&busy), beside);
    assert_eq!((busy.unwrap().value.stdout.as_str(), sshd.connections()), ("end\n", 2));
}

/// That a connection is kept says nothing of a way in: the channel does that is opened now, else a login.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_without_a_channel_is_no_way_in() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "MaxSessions 1");
    let guest = guest(vec![Route::Ssh(target(&place, sshd.port))]);
    let (fifo, keys) = (place.path("fifo"), place.path("authorized_keys"));
    assert!(program("mkfifo").arg(&fifo).status().unwrap().success());
    let script = format!("echo started > {0}; exec cat {0}", fifo.display());
    let busy = declared(&["sh", "-c", &script]);
    let beside = async {
        let (first, last) = (fifo.clone(), fifo.clone());
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(first).unwrap());
        assert_eq!(read.await.unwrap(), "started\n");
        let allowed = std::fs::read_to_string(&keys).unwrap();
        std::fs::write(&keys, "").unwrap();
        assert!(matches!(guest.facts().await.ssh, Some(Fact::No(why)) if why.contains("is not accepted")));
        std::fs::write(&keys, allowed).unwrap();
        assert_eq!(guest.facts().await.ssh, Some(Fact::Yes));
        tokio::task::spawn_blocking(move || std::fs::write(last, "end\n").unwrap()).await.unwrap();
    };
    let (busy, ()) = tokio::join!(guest.look(&busy), beside);
    assert_eq!((busy.unwrap().value.stdout.as_str(), sshd.connections()), ("end\n", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_told_at_the_end() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let sessions = Sessions::default();
    let guest = of(&sessions, target(&place, sshd.port));
    assert_eq!(guest.look(&declared(&["id", "-un"])).await.unwrap().value.stdout.trim(), user());
    sessions.farewell().await;
    sshd.ended();
    let log = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert!(
        log(&place.path("sshd.log")).contains("Received disconnect from 127.0.0.1"),
        "{}",
        log(&place.path("sshd.log"))
    );
    // Who has something to say after that logs in anew.
    assert!(guest.look(&declared(&["true"])).await.unwrap().value.ok());
    assert_eq!(sshd.connections(), 2);
}
