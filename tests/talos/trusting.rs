//! TLS: who is trusted, who is not, and who does not trust us.

use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::Notebook;
use pvemig::base::tls::KeyFingerprint;
use pvemig::talos::{Error, Limits, Node, RebootMode, Talos, Talosconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tonic::transport::{Identity, ServerTlsConfig};

use super::fake::{Fake, Says, msg, text};
use super::pki::{NOW, Pair, Pki, Years, talosconfig, write};
use super::{LIMITS, context, machine, node};

/// A node with a certificate of this authority.
async fn serve(pki: &Pki, names: &[&str], years: Years) -> (Fake, u16) {
    let fake = Fake::default();
    fake.on(&machine("Version"), Says::Ok(vec![msg(1, &[msg(2, &[text(1, "v1.11.5")])])]));
    fake.on(&machine("Reboot"), Says::Ok(vec![msg(1, &[text(2, "0b5c")])]));
    let port = fake.serve(pki.serving(&pki.server(names, years))).await;
    (fake, port)
}

/// As whom a client comes: its authority and its certificate.
fn client(port: u16, ca: &Pki, pair: &Pair) -> Talos {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, &talosconfig(&ca.pem(), pair));
    let context = Talosconfig::read(&path).unwrap().context(None).unwrap();
    Talos::connect(node(port), &context, Clock::fast(50)).unwrap().limits(LIMITS)
}

/// What a question and a change end with; the change left nothing.
async fn both(talos: &Talos) -> (Error, Error) {
    let (permit, notebook) = Notebook::permit();
    let (asked, changed) =
        (talos.version().await.unwrap_err(), talos.reboot(&permit, RebootMode::PowerCycle).await.unwrap_err());
    assert_eq!((asked.effect(), changed.effect()), (Effect::None, Effect::None), "{changed:?}");
    // Where no connection came about nothing was noted; where the node ends it with the first call, that.
    assert_eq!(notebook.notes().len(), usize::from(matches!(changed, Error::ClientRefused { .. })));
    (asked, changed)
}

#[tokio::test]
async fn a_node_of_the_cluster_is_trusted_by_its_address_or_by_another_name_of_it() {
    let pki = Pki::new();
    let (fake, port) = serve(&pki, &["127.0.0.1"], NOW).await;
    assert_eq!(client(port, &pki, &pki.client("os:admin", NOW)).version().await.unwrap().tag, "v1.11.5");
    assert!(fake.asked()[0].client.is_some());
    // Through a forwarded port the address is not in the certificate.
    let (_, port) = serve(&pki, &["10.10.0.20", "talos-20"], NOW).await;
    for name in ["10.10.0.20", "talos-20"] {
        let node = Node { tls_name: Some(name.into()), ..node(port) };
        let talos = Talos::connect(node, &context(&pki, "os:admin"), Clock::fast(50)).unwrap().limits(LIMITS);
        assert_eq!(talos.version().await.unwrap().tag, "v1.11.5");
    }
    let (asked, changed) = both(&client(port, &pki, &pki.client("os:admin", NOW))).await;
    assert!(matches!(asked, Error::Untrusted { .. }) && matches!(changed, Error::Untrusted { .. }), "{asked:?}");
    let shown = asked.to_string();
    assert!(shown.contains("127.0.0.1") && shown.contains("10.10.0.20"), "both are shown: {shown}");
}

#[tokio::test]
async fn another_authority_is_told_from_a_wrong_date() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (fake, port) = serve(&pki, &["127.0.0.1"], NOW).await;
    // Of another cluster, whose authority has the same name.
    let (asked, changed) = both(&client(port, &other, &other.client("os:admin", NOW))).await;
    assert!(
        matches!(asked, Error::UnknownIssuer { .. }) && matches!(changed, Error::UnknownIssuer { .. }),
        "{asked:?}"
    );
    assert!(asked.help().unwrap().contains("maintenance") && !asked.retryable() && !asked.is_down());
    // In maintenance mode: self-signed, by nobody.
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
    let port = Fake::default().serve(ServerTlsConfig::new().identity(identity)).await;
    let (asked, _) = both(&client(port, &pki, &pki.client("os:admin", NOW))).await;
    assert!(matches!(asked, Error::UnknownIssuer { .. }), "{asked:?}");
    let mut dates = 0;
    for years in [(2019, 2020), (2080, 2090)] {
        let (_, port) = serve(&pki, &["127.0.0.1"], years).await;
        let (asked, changed) = both(&client(port, &pki, &pki.client("os:admin", NOW))).await;
        assert!(matches!(asked, Error::OutOfDate { .. }) && matches!(changed, Error::OutOfDate { .. }), "{asked:?}");
        assert!(asked.is_down() && asked.help().unwrap().contains("clocks"));
        dates += 1;
    }
    assert_eq!((dates, fake.asked().len()), (2, 0));
}

#[tokio::test]
async fn a_client_certificate_is_refused_with_the_first_call() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (fake, port) = serve(&pki, &["127.0.0.1"], NOW).await;
    let cases =
        [("of another cluster", other.client("os:admin", NOW)), ("ended", pki.client("os:admin", (2019, 2020)))];
    for (what, pair) in &cases {
        let (asked, changed) = both(&client(port, &pki, pair)).await;
        for error in [&asked, &changed] {
            assert!(matches!(error, Error::ClientRefused { certain: true, .. }), "{what}: {error:?}");
            assert!(error.help().unwrap().contains("talosconfig") && !error.retryable(), "{what}");
        }
        assert!(asked.to_string().contains("os:admin until"), "{asked}");
    }
    assert!(both(&client(port, &pki, &cases[1].1)).await.0.to_string().contains("until 2020-01-01"));
    // A client without any.
    let talos = Talos::maintenance(node(port), None, Clock::fast(50)).unwrap().limits(LIMITS);
    let (asked, _) = both(&talos).await;
    assert!(matches!(asked, Error::ClientRefused { certain: true, .. }), "{asked:?}");
    assert_eq!((cases.len(), fake.asked().len()), (2, 0));
}

#[tokio::test]
async fn in_maintenance_any_certificate_will_do_or_one_fingerprint() {
    let made = rcgen::generate_simple_self_signed(vec!["10.10.0.20".to_owned()]).unwrap();
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
    let fake = Fake::default();
    fake.on(&machine("Version"), Says::Ok(vec![msg(1, &[msg(2, &[text(1, "v1.13.9")])])]));
    let port = fake.serve(ServerTlsConfig::new().identity(identity)).await;
    let pin = KeyFingerprint::of(&CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()).unwrap();
    let other =
        |byte: u8| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [byte; 32]).parse().unwrap();
    let open = |pins| Talos::maintenance(node(port), pins, Clock::fast(50)).unwrap().limits(LIMITS);
    for pins in [None, Some(vec![pin]), Some(vec![other(0), pin])] {
        let talos = open(pins);
        assert_eq!((talos.version().await.unwrap().tag.as_str(), talos.roles().len()), ("v1.13.9", 0));
    }
    assert_eq!(fake.asked().iter().filter(|asked| asked.client.is_none()).count(), 3);
    for pins in [vec![], vec![other(1)]] {
        let (asked, changed) = both(&open(Some(pins))).await;
        assert!(matches!(asked, Error::Untrusted { .. }) && matches!(changed, Error::Untrusted { .. }), "{asked:?}");
        assert!(asked.to_string().contains(&pin.to_string()), "{asked}");
    }
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test]
async fn a_node_that_is_not_there_was_sent_nothing() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // It takes connections and never shakes hands.
    let talos = Talos::connect(node(port), &context(&pki, "os:admin"), Clock::fast(50)).unwrap();
    let talos = talos.limits(Limits { connect: Duration::from_millis(200), ..LIMITS });
    let (asked, changed) = both(&talos).await;
    for error in [&asked, &changed] {
        assert!(matches!(error, Error::Unreachable { .. }) && error.to_string().contains("within 200 ms"), "{error:?}");
        assert!(error.retryable() && error.is_down() && error.help().unwrap().contains("50000"));
    }
    drop(listener);
    // A port that nobody listens on.
    let talos = Talos::connect(node(1), &context(&pki, "os:admin"), Clock::fast(50)).unwrap().limits(LIMITS);
    let (asked, changed) = both(&talos).await;
    assert!(matches!(asked, Error::Unreachable { .. }) && matches!(changed, Error::Unreachable { .. }), "{asked:?}");
}

#[tokio::test]
async fn the_channel_finds_a_node_again_that_was_away() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends what is opened to it, as a node does whose services are not up yet.
    let away = tokio::spawn(async move {
        for _ in 0..4 {
            drop(listener.accept().await.unwrap());
        }
        listener
    });
    let talos = client(port, &pki, &pki.client("os:admin", NOW));
    assert!(matches!(talos.version().await.unwrap_err(), Error::Unreachable { .. }));
    let fake = Fake::default();
    fake.on(&machine("Version"), Says::Ok(vec![msg(1, &[msg(2, &[text(1, "v1.11.5")])])]));
    fake.serve_from(away.await.unwrap(), pki.serving(&pki.server(&["127.0.0.1"], NOW)));
    assert_eq!(talos.version().await.unwrap().tag, "v1.11.5");
}
