//! TLS: a pinned certificate, an authority, and neither.

use std::sync::Arc;
use std::time::Duration;

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::secret::Secret;
use pvemig::base::tls::{self, Fingerprint, Trust};
use pvemig::proxmox::{Auth, Error, Limits, Proxmox};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::script::{Journal, endpoint, fixture, vm};

/// A server with a self-signed certificate that answers every request with a version.
async fn serve() -> (String, Fingerprint, String) {
    tls::init();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let Ok(1..) = stream.read(&mut request).await else { continue };
            let body = fixture("version");
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            stream.write_all(text.as_bytes()).await.unwrap();
            let _closed = stream.shutdown().await;
        }
    });
    (url, Fingerprint::of(cert.der()), cert.pem())
}

fn client(url: &str, trust: Trust) -> Proxmox {
    let auth = Auth::Token { id: "root@pam!pvemig".into(), secret: Secret::new("x") };
    let mut endpoint = endpoint(&[url], auth);
    endpoint.trust = Some(trust);
    let limits = Limits { connect: Duration::from_millis(300), ..Limits::default() };
    Proxmox::with_limits(endpoint, limits).unwrap()
}

#[tokio::test]
async fn the_right_pin_among_several_and_the_right_authority_are_trusted() {
    let (url, pin, pem) = serve().await;
    let other: Fingerprint = "00".repeat(32).parse().unwrap();
    assert_eq!(client(&url, Trust::Pins(vec![other, pin])).version().await.unwrap().version, "9.1.4");
    assert_eq!(client(&url, Trust::Ca(pem.into_bytes())).version().await.unwrap().version, "9.1.4");
}

#[tokio::test]
async fn a_wrong_certificate_gets_neither_a_question_nor_a_change() {
    let (url, pin, _) = serve().await;
    let (_, _, foreign) = serve().await;
    let wrong = "11".repeat(32).parse().unwrap();
    let pve = client(&url, Trust::Pins(vec![wrong]));
    let error = pve.version().await.unwrap_err();
    assert!(matches!(&error, Error::Untrusted { url: u, .. } if *u == url), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&pin.to_string()) && text.contains("11:11:11"), "both are shown: {text}");
    assert!(!error.retryable());
    let (permit, _) = Journal::with(Arc::default(), None);
    let error = pve.start(&vm(), &permit).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::None);

    let error = client(&url, Trust::Ca(foreign.into_bytes())).version().await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_never_shakes_hands_was_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (permit, _) = Journal::with(Arc::default(), None);
    let pve = client(&url, Trust::Pins(Vec::new()));
    let error = pve.start(&vm(), &permit).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { why, .. } if why == "no connection within 300 ms"), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    drop(listener);
}
