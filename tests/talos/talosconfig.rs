//! The talosconfig: what of it is read, and what each mistake in it is told as.

use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pvemig::base::fault::{Effect, Fault};
use pvemig::base::redact;
use pvemig::talos::{Talosconfig, TalosconfigError};

use super::pki::{NOW, Pki, talosconfig, write};

fn read(text: &str, context: Option<&str>) -> Result<pvemig::talos::Context, TalosconfigError> {
    let dir = tempfile::tempdir().unwrap();
    Talosconfig::read(&write(&dir, text))?.context(context)
}

#[test]
fn a_context_is_read_with_its_roles_and_dates() {
    let pki = Pki::new();
    let client = pki.client("os:operator", (2026, 2027));
    assert!(client.key.starts_with("-----BEGIN ED25519 PRIVATE KEY-----"), "as Talos writes it");
    let text = talosconfig(&pki.pem(), &client);
    for name in [None, Some("home")] {
        let context = read(&text, name).unwrap();
        assert_eq!((context.name.as_str(), context.endpoints.len(), context.nodes.len()), ("home", 1, 2));
        assert_eq!(context.certificate.roles, ["os:operator"]);
        assert_eq!(context.certificate.until.to_string(), "2027-01-01T00:00:00Z");
        assert!(context.certificate.has("os:operator") && !context.certificate.has("os:admin"));
    }
    // The one endpoint of old files counts as one more; several authorities may stand in one field.
    let old = text.replace("        nodes:", "        target: 10.10.0.49\n        nodes:");
    assert_eq!(read(&old, None).unwrap().endpoints, ["10.10.0.20", "10.10.0.49"]);
    let two = talosconfig(&format!("{}{}", pki.pem(), Pki::new().pem()), &client);
    assert!(read(&two, None).is_ok());
    // A key with the label that everybody else gives it.
    let plain = super::pki::Pair { key: client.key.replace("ED25519 ", ""), certificate: client.certificate.clone() };
    assert!(read(&talosconfig(&pki.pem(), &plain), None).is_ok());
}

#[test]
fn each_mistake_names_file_context_and_field_and_what_to_do() {
    let pki = Pki::new();
    let client = pki.client("os:admin", NOW);
    let good = talosconfig(&pki.pem(), &client);
    // A line with another value, or without.
    let with = |field: &str, value: Option<&str>| -> String {
        let line = |line: &str| match (line.trim_start().starts_with(&format!("{field}: ")), value) {
            (true, Some(value)) => Some(format!("        {field}: {value}")),
            (true, None) => None,
            (false, _) => Some(line.to_owned()),
        };
        good.lines().filter_map(line).collect::<Vec<_>>().join("\n")
    };
    let other = STANDARD.encode(pki.client("os:admin", NOW).key);
    let no_pem = STANDARD.encode("hello");
    let broken = STANDARD.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let cases = [
        (with("ca", None), "`ca` is missing"),
        (with("crt", None), "`crt` is missing"),
        (with("key", None), "`key` is missing"),
        (with("ca", Some("???")), "`ca` is not base64"),
        (with("crt", Some("???")), "`crt` is not base64"),
        (with("key", Some("???")), "`key` is not base64"),
        (with("ca", Some(&no_pem)), "`ca` holds no certificate"),
        (with("crt", Some(&no_pem)), "`crt` holds no certificate"),
        (with("crt", Some(&broken)), "`crt` holds no certificate that can be read"),
        (with("key", Some(&no_pem)), "`key` holds no key"),
        (with("key", Some(&other)), "`key` does not belong to the certificate"),
        (format!("{good}        proxy-url: http://proxy:3128\n"), "`proxy-url` is not supported"),
        (
            with("crt", None) + "\n        auth:\n            siderov1:\n                identity: me@example.org\n",
            "`auth` is not supported",
        ),
    ];
    for (text, words) in &cases {
        let error = read(text, None).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(words), "{shown}");
        assert!(shown.contains("/talosconfig, context `home`") && error.effect() == Effect::None, "{shown}");
        // Who has no certificate that works makes none with it.
        let needs =
            if shown.contains("not supported") { "talosctl --talosconfig" } else { "gen config --with-secrets" };
        assert!(error.help().unwrap().contains(needs), "{shown}");
        assert!(!shown.contains(&other) && !shown.contains(&no_pem));
    }
    assert_eq!(cases.len(), 13);

    let more = [
        (read(&good, Some("work")).unwrap_err(), "has no context `work`: it has home"),
        (read(&good.replace("context: home\n", ""), None).unwrap_err(), "names no current context: it has home"),
        (read("contexts: {}\n", None).unwrap_err(), "it has none"),
        (read("hello", None).unwrap_err(), "is no talosconfig, see line 1"),
        (read("context: a\ncontexts:\n  a:\n    key: [hunter2]\n", None).unwrap_err(), "is no talosconfig, see line 4"),
    ];
    for (error, words) in &more {
        assert!(error.to_string().contains(words) && error.help().is_some(), "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
    assert_eq!(more.len(), 5);
}

#[test]
fn the_file_is_private_and_its_key_is_shown_nowhere() {
    let pki = Pki::new();
    let client = pki.client("os:admin", NOW);
    let text = talosconfig(&pki.pem(), &client);
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, &text);
    let config = Talosconfig::read(&path).unwrap();
    let context = config.context(None).unwrap();
    let encoded = STANDARD.encode(&client.key);
    let body = client.key.lines().nth(1).unwrap();
    for secret in [encoded.as_str(), body] {
        assert!(!format!("{config:?}{context:?}").contains(secret));
        assert!(text.contains(secret) || client.key.contains(secret));
        assert_eq!(redact::text(&format!("<{secret}>")), "<…>");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Talosconfig::read(&path).unwrap_err();
    assert!(error.help().unwrap().starts_with("chmod 600 "), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Talosconfig::read(&path).unwrap_err(), TalosconfigError::Private(_)));
}
