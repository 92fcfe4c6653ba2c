//! One crypto provider for everything, and a verifier that accepts exactly one certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Once};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::asn1::AnyRef;
use der::{Decode, Encode, Reader, SliceReader, Tagged};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use super::names::BadName;

/// Installs ring as the process's crypto provider. Every constructor of a client calls it; repeated calls do nothing.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Err means that somebody installed one already; ring is the only one in the tree.
        let _already = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The SHA-256 of a certificate's DER form, shown as `AA:BB:..`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }
}

impl FromStr for Fingerprint {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName { value: s.to_owned(), expected: "a SHA-256 fingerprint of 32 pairs like `AA:BB:..`" };
        let digits: String = s.chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(bad());
        }
        let mut out = [0; 32];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The SHA-256 of a public key (its SubjectPublicKeyInfo), shown in base64: what the console of a Talos machine names while
/// it waits for its configuration, and what `talosctl --cert-fingerprint` takes (siderolabs/crypto `x509`,
/// `SPKIFingerprint`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyFingerprint([u8; 32]);

impl KeyFingerprint {
    /// That of a certificate's key; None where the certificate cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        Some(Self(Sha256::digest(public_key(certificate)?).into()))
    }
}

/// The SubjectPublicKeyInfo of a certificate (RFC 5280, 4.1), in its DER form.
fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let parts = |value: &[u8]| {
        let (mut reader, mut out) = (SliceReader::new(value).ok()?, Vec::new());
        while !reader.is_finished() {
            out.push(AnyRef::decode(&mut reader).ok()?.to_der().ok()?);
        }
        Some(out)
    };
    let inside = |der: &[u8]| parts(AnyRef::from_der(der).ok()?.value());
    let signed = inside(inside(certificate)?.first()?)?;
    // Before it stand serial number, algorithm, issuer, dates and subject, and before these the version, where one is named.
    let version = AnyRef::from_der(signed.first()?).ok()?.tag().is_context_specific();
    signed.into_iter().nth(5 + usize::from(version))
}

impl FromStr for KeyFingerprint {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bytes = STANDARD.decode(s).ok().and_then(|bytes| bytes.try_into().ok());
        let expected = "a fingerprint of 44 letters like `WIp0Fc2dr4C726E6ZB4ZsrRapFbNUlNe9HtIUWdtFRo=`, as the machine's console \
                        shows it";
        bytes.map(Self).ok_or_else(|| BadName { value: s.to_owned(), expected })
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is accepted of a server that no authority vouches for.
#[derive(Debug, Clone)]
pub enum Pins {
    /// Whatever it shows.
    Any,
    /// One of these leaf certificates.
    Certificates(Vec<Fingerprint>),
    /// A leaf certificate with one of these keys.
    Keys(Vec<KeyFingerprint>),
}

impl Pins {
    /// What it shows, and what was expected; None: it is accepted.
    fn differs(&self, leaf: &CertificateDer<'_>) -> Option<(String, String)> {
        fn one<T: fmt::Display + PartialEq>(shown: Option<T>, pins: &[T]) -> Option<(String, String)> {
            if shown.as_ref().is_some_and(|shown| pins.contains(shown)) {
                return None;
            }
            let expected = pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            Some((shown.map_or_else(|| "not to be read".to_owned(), |shown| shown.to_string()), expected))
        }
        match self {
            Self::Any => None,
            Self::Certificates(pins) => one(Some(Fingerprint::of(leaf)), pins),
            Self::Keys(pins) => one(KeyFingerprint::of(leaf), pins),
        }
    }
}

/// What a server's certificate is held against.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Authorities in PEM form (`pve-root-ca.pem`); names are checked too.
    Ca(Vec<u8>),
    /// Exactly these leaf certificates; names and dates are not looked at, possession of the key is.
    Pins(Vec<Fingerprint>),
}

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM file holds no certificate, or a broken one.
    #[error("no usable certificate in the authority file: {0}")]
    BadCa(String),
    /// The library refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A client configuration for HTTP/1.1, the only version that Proxmox speaks.
///
/// # Errors
/// [`TlsError`] where the authority does not parse.
pub fn client_config(trust: &Trust) -> Result<ClientConfig, TlsError> {
    init();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Ca(pem) => builder.with_root_certificates(roots(pem)?).with_no_client_auth(),
        Trust::Pins(pins) => builder
            .dangerous()
            .with_custom_certificate_verifier(without_authority(Pins::Certificates(pins.clone())))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The authorities of a PEM file.
///
/// # Errors
/// [`TlsError::BadCa`] where it holds none, or a broken one.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| TlsError::BadCa(e.to_string()))?;
        roots.add(certificate).map_err(|e| TlsError::BadCa(e.to_string()))?;
    }
    if roots.is_empty() { Err(TlsError::BadCa("it holds none".into())) } else { Ok(roots) }
}

/// For servers that no authority vouches for (a machine that has just been started from an installation image).
/// Possession of the key is always asked.
pub fn without_authority(pins: Pins) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Pinned { pins, provider: Arc::new(rustls::crypto::ring::default_provider()) })
}

#[derive(Debug)]
struct Pinned {
    pins: Pins,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.pins.differs(end_entity) {
            None => Ok(ServerCertVerified::assertion()),
            Some((shown, expected)) => Err(rustls::Error::General(format!(
                "the certificate's fingerprint is {shown}, the site file says {expected}"
            ))),
        }
    }

    // The signatures are verified: without that anybody could present a copy of the certificate.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_round_trips_and_bad_ones_are_refused() {
        let text = (0..32).map(|i| format!("{i:02X}")).collect::<Vec<_>>().join(":");
        assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), text);
        assert_eq!(text.to_lowercase().replace(':', "").parse::<Fingerprint>().unwrap().to_string(), text);
        for bad in ["", "AA:BB", &"zz:".repeat(32), "é".repeat(32).as_str()] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    /// Made by OpenSSL 3.0, and its key's digest by `openssl x509 -pubkey`, `pkey -outform der` and `dgst -sha256`.
    #[test]
    fn a_key_has_the_fingerprint_that_talos_shows() {
        let der = CertificateDer::from_pem_slice(include_bytes!("../../fixtures/talos/maintenance.pem")).unwrap();
        let shown = KeyFingerprint::of(&der).unwrap();
        assert_eq!(shown.to_string(), "WIp0Fc2dr4C726E6ZB4ZsrRapFbNUlNe9HtIUWdtFRo=");
        let cut =
            (0..der.len()).filter(|end| KeyFingerprint::of(&CertificateDer::from(&der[..*end])).is_some()).count();
        assert_eq!(cut, 0);
        assert_eq!(shown.to_string().parse::<KeyFingerprint>().unwrap(), shown);
        for bad in ["", "AA:BB", "WIp0Fc2dr4C726E6ZB4ZsrRapFbNUlNe9HtIUWdtFR", &"ab".repeat(32)] {
            assert!(bad.parse::<KeyFingerprint>().is_err(), "{bad}");
        }
        assert_eq!(Pins::Keys(vec![shown]).differs(&der), None);
        assert!(Pins::Keys(Vec::new()).differs(&der).is_some_and(|(is, _)| is == shown.to_string()));
    }
}
