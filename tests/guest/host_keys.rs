//! Which host keys and which keys of ours are taken, side by side with OpenSSH.

use std::os::unix::fs::PermissionsExt;

use pvemig::base::fault::Fault;
use pvemig::base::secret::Secret;
use pvemig::guest::{Error, KeySource, Route, SshTarget};

use crate::place::{Place, Sshd, new_key, program, public, user};
use crate::{Expected, LONG, declared, guest};

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
