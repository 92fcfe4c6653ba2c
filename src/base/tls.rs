//! One crypto provider for everything, and a verifier that accepts exactly one certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Once};

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
            .with_custom_certificate_verifier(without_authority(Some(pins.clone())))
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

/// For servers that no authority vouches for: exactly these leaf certificates are accepted, or any at all where no pins
/// are given (a machine that has just been started from an installation image). Possession of the key is always asked.
pub fn without_authority(pins: Option<Vec<Fingerprint>>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Pinned { pins, provider: Arc::new(rustls::crypto::ring::default_provider()) })
}

#[derive(Debug)]
struct Pinned {
    pins: Option<Vec<Fingerprint>>,
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
        let actual = Fingerprint::of(end_entity);
        let Some(pins) = self.pins.as_ref().filter(|pins| !pins.contains(&actual)) else {
            return Ok(ServerCertVerified::assertion());
        };
        let expected = pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        Err(rustls::Error::General(format!("the certificate's fingerprint is {actual}, the site file says {expected}")))
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
}
