//! Which host keys and which keys of ours are taken, side by side with OpenSSH.

use std::os::unix::fs::PermissionsExt;

use pvemig::base::fault::Fault;
use pvemig::base::secret::Secret;
use pvemig::guest::{Error, KeySource, Route, SshTarget};

use super::place::{Place, Sshd, new_key, program, public, user};
use super::{Expected, LONG, declared, guest};

/// What becomes of a login, by what the file says about the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Known,
    Unknown,
    /// Another key is recorded, in this line.
    Changed(usize),
    Revoked,
}

impl Says {
    /// In the words of OpenSSH's client.
    fn by_ssh(output: &std::process::Output) -> Self {
        let text = String::from_utf8_lossy(&output.stderr);
        let offending =
            text.lines().find(|line| line.starts_with("Offending")).and_then(|line| line.rsplit(':').next());
        match offending.map(|line| line.trim().parse().unwrap()) {
            _ if output.status.success() => Self::Known,
            _ if text.contains("REVOKED HOST KEY DETECTED") => Self::Revoked,
            Some(line) if text.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") => Self::Changed(line),
            _ if text.contains("host key is known for") => Self::Unknown,
            _ => panic!("{text}"),
        }
    }

    fn by_us(answer: Result<(), Error>, line: usize) -> Self {
        match answer {
            Ok(()) => Self::Known,
            Err(Error::HostKeyUnknown { .. }) => Self::Unknown,
            Err(Error::HostKeyChanged { line, .. }) => Self::Changed(line),
            Err(Error::HostKeyRevoked { .. }) => Self::Revoked,
            // Only recorded kinds are offered: the recorded key is of a kind that the host does not have (any more).
            Err(Error::NoCommonAlgorithm { what: "host key type", .. }) => Self::Changed(line),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The same files for OpenSSH and for us: each row says what OpenSSH says, and we say the same.
#[tokio::test(flavor = "multi_thread")]
async fn known_hosts_are_read_as_openssh_reads_them() {
    use Says::{Changed, Known, Revoked, Unknown};
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let port = sshd.port;
    let (key, other, third) = (public(&place.host), public(&new_key()), public(&new_key()));
    let made = program("ssh-keygen").args(["-q", "-t", "ecdsa", "-N", "", "-f"]).arg(place.path("ecdsa")).status();
    assert!(made.unwrap().success());
    let ecdsa = std::fs::read_to_string(place.path("ecdsa.pub")).unwrap();
    let ecdsa = ecdsa.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let name = format!("[127.0.0.1]:{port}");
    let file = place.path("known_hosts");
    let hashed = |line: &str| {
        place.known(&format!("{line}\n"));
        assert!(program("ssh-keygen").arg("-H").arg("-f").arg(&file).output().unwrap().status.success());
        std::fs::read_to_string(&file).unwrap()
    };
    let tabs = |line: String| line.replace(' ', "\t");
    // What the file says, what becomes of the login, whether `ssh-keygen -F` finds the name.
    let cases: Vec<(String, Says, bool)> = vec![
        (format!("{name} {key}\n"), Known, true),
        (tabs(format!("{name} {key}\n")), Known, true),
        (format!("  {name}  {key} a comment\n"), Known, true),
        (format!("[127.0.0.*]:{port} {key}\n"), Known, true),
        (format!("[127.0.0.?]:* {key}\n"), Known, true),
        (format!("127.0.0.1 {key}\n"), Known, false),
        (hashed(&format!("{name} {key}")), Known, true),
        (hashed(&format!("{name} {other}")), Changed(1), true),
        (format!("{name} {other}\n{name} {key}\n"), Known, true),
        (format!("{name} {other}\n{name} {third}\n"), Changed(2), true),
        (format!("# comment\n\n{name} {other}\n"), Changed(3), true),
        (format!("@revoked * {key}\n{name} {key}\n"), Revoked, true),
        (format!("{name} {key}\n@revoked {name} {key}\n"), Revoked, true),
        (format!("@revoked {name} {other}\n{name} {key}\n"), Known, true),
        // The bare name stands in where the name with its port is not found, excluded or not.
        (format!("*,!{name} {key}\n"), Known, false),
        (format!("*,!{name},!127.0.0.1 {key}\n"), Unknown, false),
        (format!("!other,{name} {key}\n"), Known, true),
        (format!("127.0.0.1 {key}\n@revoked {name} {key}\n"), Revoked, true),
        (format!("{name} {key}\n@revoked 127.0.0.1 {key}\n"), Known, true),
        // Its keys can only match: another one there is that of another server.
        (format!("127.0.0.1 {other}\n"), Unknown, false),
        (hashed(&format!("127.0.0.1 {other}")), Unknown, false),
        (format!("127.0.0.1 {ecdsa}\n"), Unknown, false),
        (format!("127.0.0.1 {other}\n127.0.0.1 {key}\n"), Known, false),
        (format!("127.0.0.1 {ecdsa}\n127.0.0.1 {key}\n"), Known, false),
        (format!("@revoked 127.0.0.1 {key}\n"), Revoked, false),
        (format!("{name} {other}\n127.0.0.1 {key}\n"), Changed(1), true),
        (format!("@cert-authority {name} {key}\n"), Unknown, true),
        (format!("other {key}\n"), Unknown, false),
        (format!("{name} ssh-ed25519 AAAA\n"), Unknown, true),
        (String::new(), Unknown, false),
        // Lines as other systems end them, and a last one without an end.
        (format!("{name} {key}\r\n"), Known, true),
        (format!("# comment\r\n\r\n{name} {other}\r\n"), Changed(3), true),
        (format!("{name} {key} comment\r\n@revoked * {key}\r\n"), Revoked, true),
        (format!("{name}\r {key}\n"), Unknown, false),
        (format!("{name} {key}"), Known, true),
        // Several keys of one host: of another kind, in one line with another host, before and after.
        (format!("{name} {ecdsa}\n{name} {key}\n"), Known, true),
        (format!("{name} {ecdsa}\n{name} {other}\n"), Changed(2), true),
        (format!("{name} {ecdsa}\n"), Changed(1), true),
        (format!("other,{name},third {key}\n"), Known, true),
        (format!("{name} {other}\n{name} {third}\n{name} {ecdsa}\n{name} {key}\n"), Known, true),
        // Hashed: several names, a mark in front, a bare name, a broken one.
        (hashed(&format!("{name} {other}\n{name} {key}")), Known, true),
        (format!("@revoked {}", hashed(&format!("{name} {key}"))), Revoked, true),
        (hashed(&format!("127.0.0.1 {key}")), Known, false),
        (format!("|1|AAAA|AAAA {key}\n"), Unknown, false),
        (format!("|1|nonsense {key}\n{name} {key}\n"), Known, true),
        // Patterns: the negated one wins wherever it stands; a star stands for nothing as well.
        (format!("!{name},[127.0.0.1]:* {key}\n"), Unknown, false),
        (format!("{name},!{name} {key}\n"), Unknown, false),
        (format!("[127.0.0.1*]:{port}* {key}\n"), Known, true),
        (format!("[127.?.?.?]:{port} {key}\n"), Known, true),
        (format!("127.0.0.1:{port} {key}\n"), Unknown, false),
        (format!("[127.0.0.1] {key}\n"), Unknown, false),
        (format!("{name}, {key}\n"), Known, true),
        (format!(",{name} {key}\n"), Known, true),
        // Marks: one that nobody knows, an authority beside the key, a revoked key of another kind.
        (format!("@strange {name} {key}\n"), Unknown, false),
        (format!("@strange {name} {key}\n{name} {key}\n"), Known, true),
        (format!("@cert-authority {name} {other}\n{name} {key}\n"), Known, true),
        (format!("@cert-authority {name} {key}\n{name} {other}\n"), Changed(2), true),
        (format!("@revoked {name} {ecdsa}\n{name} {key}\n"), Known, true),
        (format!("@REVOKED {name} {key}\n{name} {key}\n"), Known, true),
        (tabs(format!("@revoked {name} {key}\n")), Revoked, true),
        // Keys that are none: another kind in words than in the key, too short, too long, of protocol 1.
        (format!("{name} {}\n", key.replace("ssh-ed25519", "ecdsa-sha2-nistp256")), Unknown, true),
        (format!("{name} {}\n", &key[..key.len() - 4]), Unknown, true),
        (format!("{name} {key}garbage\n"), Unknown, true),
        (format!("{name} 256 12345 1234567\n{name} {key}\n"), Known, true),
    ];
    assert_eq!(cases.len(), 64);
    let shown = program("ssh-keygen").arg("-lf").arg(place.path("host")).output().unwrap();
    let print = String::from_utf8(shown.stdout).unwrap().split(' ').nth(1).unwrap().to_owned();
    let (mut known, mut wrong) = (0, Vec::new());
    for (text, says, found) in &cases {
        place.known(text);
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
        let ssh = Says::by_ssh(&ssh);
        let keygen =
            |more: &[&str]| program("ssh-keygen").args(["-F", &name]).args(more).arg("-f").arg(&file).output().unwrap();
        let answer = guest(vec![Route::Ssh(place.plain_target(port, LONG))]).look(&declared(&["true"])).await;
        let line = if let Changed(line) = says { *line } else { 0 };
        let ours = Says::by_us(answer.map(|_| ()), line);
        if (ssh, ours, keygen(&[]).status.success()) != (*says, *says, *found) {
            wrong.push(format!("{text:?}: expected {says:?} {found}, ssh {ssh:?}, ours {ours:?}"));
        }
        if *says == Known {
            known += 1;
            let listed = keygen(&["-l"]);
            let shown = String::from_utf8_lossy(&listed.stdout).contains(&print);
            assert_eq!(shown, *found, "ssh-keygen -l on {text:?}: {listed:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("known_hosts: {} files, {known} of them let the host in", cases.len());
    assert_eq!(known, 31);
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
    let wide = make("wide", &["-t", "ed25519", "-N", ""]);
    std::fs::set_permissions(place.path("wide"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let cases: [(KeySource, Expected); 7] = [
        (make("rsa", &["-t", "rsa", "-b", "2048", "-N", ""]), rsa),
        (make("rsa_pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]), rsa),
        (make("rsa_pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", ""]), rsa),
        (make("locked", &["-t", "ed25519", "-N", "secret"]), |e| matches!(e, Error::EncryptedKey { .. })),
        (KeySource::Text(Secret::new("nonsense")), |e| matches!(e, Error::Key { .. })),
        (KeySource::File(place.path("missing")), |e| matches!(e, Error::KeyFile(error) if !error.is_wide())),
        (wide, |e| matches!(e, Error::KeyFile(error) if error.is_wide())),
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
