//! The nine faults of a login to OpenSSH's server, each in the words that an operator reads.

use std::net::TcpListener as StdListener;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::Notebook;
use pvemig::guest::{Command, Error, Guest, KeySource, Route, SshTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::guest::place::{Place, Sshd, new_key, program, public, write_key};

/// Long enough for a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// For what is meant to end at its deadline.
const SHORT: Duration = Duration::from_millis(300);

/// A TCP server that is no ssh server: says `first` and waits, or hangs up.
async fn plain(first: Option<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move |mut stream: TcpStream| async move {
        let Some(first) = first else { return };
        stream.write_all(first.as_bytes()).await.unwrap();
        let mut buffer = [0; 512];
        while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

fn guest(target: SshTarget) -> Guest {
    Guest::new("vm 108", vec![Route::Ssh(target)], Clock::real())
}

fn command(argv: &[&str]) -> Command {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    Command { argv, repeatable: false, limit: LONG }
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_faults_in_the_words_of_an_operator() {
    let (place, other, old) = (Place::new(), Place::new(), Place::new());
    let (sshd, stopped) = (Sshd::start(&place, ""), Sshd::stopped(&place));
    let old_kex = Sshd::start(&old, "KexAlgorithms diffie-hellman-group14-sha1");
    let closed = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    write_key(&place.path("stranger"), &new_key());
    let stranger = KeySource::File(place.path("stranger"));
    let stranger_print = fingerprint(&place, "stranger");
    let host_print = fingerprint(&place, "host");
    let known = other.path("known_hosts");
    std::fs::write(&known, format!("# before\n[127.0.0.1]:{} {}\n", sshd.port, public(&new_key()))).unwrap();
    let silent = plain(Some("")).await;
    let banner = plain(Some("SSH-2.0-OpenSSH_9.2p1\r\n")).await;
    let hangs_up = plain(None).await;

    let quiet = "no answer within 300 ms (in the key exchange)";
    let is_it_up = "is it up, and is no firewall in between?";
    let changed = format!("the host key is not the one in {}:2; it shows {host_print}", known.display());
    let refused = format!("the key {stranger_print} is not accepted");
    let name = format!("[127.0.0.1]:{}", sshd.port);
    let anew = format!("if the machine was installed anew: `ssh-keygen -f {} -R '{name}'`", known.display());
    let target = |port, limit| place.target(port, limit);
    // Fault, target, the error's text behind the route, its help, and whether a second try may help.
    let cases: Vec<(&str, SshTarget, &str, &str, bool)> = vec![
        ("port closed", target(closed, LONG), "connection refused", "is sshd running there", true),
        ("hangs after connect", target(stopped.port, SHORT), quiet, is_it_up, true),
        ("accepts, silent", target(silent, SHORT), quiet, is_it_up, true),
        ("banner, then silent", target(banner, SHORT), quiet, is_it_up, true),
        ("closes at once", target(hangs_up, LONG), "the connection was lost (in the key exchange)", "", true),
        (
            "auth refused",
            SshTarget { key: stranger, ..target(sshd.port, LONG) },
            &refused,
            "add the public key to the login's authorized_keys there",
            false,
        ),
        ("host key changed", SshTarget { known_hosts: known, ..target(sshd.port, LONG) }, &changed, &anew, false),
        (
            "no common key exchange",
            old.target(old_kex.port, LONG),
            "no key exchange method in common; here ",
            "",
            false,
        ),
    ];
    let mut seen = 0;
    for (fault, target, text, help, again) in cases {
        let route = target.to_string();
        let error = guest(target).boot_id().await.unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with(&format!("{route}: {text}")), "{fault}: {said}");
        let helped = error.help().unwrap_or_default();
        assert!(helped.starts_with(help) && helped.is_empty() == help.is_empty(), "{fault}: {helped}");
        assert_eq!((error.retryable(), error.effect()), (again, Effect::None), "{fault}");
        seen += 1;
    }

    // The ninth: cut while the command runs.
    let target = place.target(sshd.port, LONG);
    let (route, fifo) = (target.to_string(), place.path("fifo"));
    assert!(program("mkfifo").arg(&fifo).status().unwrap().success());
    let script = format!("echo started > {0}; exec cat {0}", fifo.display());
    let (permit, _) = Notebook::permit();
    let (argv, guest) = (command(&["sh", "-c", &script]), guest(target));
    let cut = tokio::task::spawn_blocking(move || {
        assert_eq!(std::fs::read_to_string(&fifo).unwrap(), "started\n");
        sshd.kill();
        // Lets the command go that is left behind.
        std::fs::write(&fifo, "").unwrap();
    });
    let (ended, cut) = tokio::join!(guest.run(&argv, &permit), cut);
    cut.unwrap();
    let error = ended.unwrap_err();
    let Error::LostAnswer { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), format!("{route}: the connection was lost (running the command)"));
    assert!(error.to_string().ends_with(&format!("was sent by {route} and may have run; its answer was lost")));
    assert_eq!(error.help().unwrap(), "nothing is sent again blindly: `pvemig resume` looks first");
    assert_eq!(error.effect(), Effect::Maybe);
    seen += 1;
    assert_eq!(seen, 9);
    println!("openssh: {seen} faults of a login");
}

/// As `ssh-keygen` shows it.
fn fingerprint(place: &Place, key: &str) -> String {
    let shown = program("ssh-keygen").arg("-lf").arg(place.path(key)).output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
}
