//! The Talos authority, the certificates that it signs, and the talosconfig.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tagged};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::node::Node;
use crate::base::{clock::Clock, tls};
use crate::lab::LabError;

/// Contexts of the talosconfig that are not named after a node, with their role.
pub const CONTEXTS: &[(&str, &str)] =
    &[("lab", "os:admin"), ("operator", "os:operator"), ("reader", "os:reader"), ("etcd-backup", "os:etcd:backup")];

/// The authority of a Talos cluster: an Ed25519 key.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A client certificate and its key, in PEM form.
#[derive(Clone)]
pub struct Client {
    /// The certificate.
    pub certificate: String,
    /// Its key, under the label that Talos writes: `ED25519 PRIVATE KEY`.
    pub key: String,
}

/// From yesterday on, for so many years.
pub(super) fn dated(params: &mut CertificateParams, years: i32) {
    let today = Clock::real().now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let from = today.yesterday().unwrap_or(today);
    let day = |date: jiff::civil::Date, years: i32| {
        let month = u8::try_from(date.month()).unwrap_or(1);
        let day = u8::try_from(date.day()).unwrap_or(1).min(28);
        rcgen::date_time_ymd(i32::from(date.year()) + years, month, day)
    };
    (params.not_before, params.not_after) = (day(from, 0), day(today, years));
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// [`LabError::Tls`]
    pub fn make() -> Result<Self, LabError> {
        tls::init();
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "talos");
        dated(&mut params, 10);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ED25519)?)? })
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its certificate and its key as a machine configuration has them: PEM in base64.
    pub fn written(&self) -> (String, String) {
        let key = self.issuer.key().serialize_pem().replace("PRIVATE KEY", "ED25519 PRIVATE KEY");
        (STANDARD.encode(self.pem()), STANDARD.encode(key))
    }

    /// A client certificate with one role.
    ///
    /// # Errors
    /// [`LabError::Tls`]
    pub fn client(&self, role: &str) -> Result<Client, LabError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, role);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        dated(&mut params, 1);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Client { certificate, key: key.serialize_pem().replace("PRIVATE KEY", "ED25519 PRIVATE KEY") })
    }

    /// What a node's apid accepts connections with: it asks for a client certificate of this authority.
    ///
    /// # Errors
    /// [`LabError::Tls`]
    pub fn acceptor(&self, name: &str, node: &Node) -> Result<TlsAcceptor, LabError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), name.to_owned()];
        names.extend(Some(node.ip.clone()).filter(|ip| !ip.is_empty()));
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        dated(&mut params, 1);
        let leaf = params.signed_by(&key, &self.issuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let verifier =
            WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|e| LabError::Tls(e.to_string()))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![leaf.der().clone()];
        let mut config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// What a node in maintenance accepts connections with: the certificate of an authority that is thrown away with it;
    /// nobody is asked for one.
    ///
    /// # Errors
    /// [`LabError::Tls`]
    pub fn maintenance(name: &str, node: &Node) -> Result<TlsAcceptor, LabError> {
        let (own, key) = (Self::make()?, KeyPair::generate_for(&PKCS_ED25519)?);
        let mut names = vec!["127.0.0.1".to_owned(), "::1".to_owned(), name.to_owned()];
        names.extend(Some(node.ip.clone()).filter(|ip| !ip.is_empty()));
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "maintenance-service.talos.dev");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        dated(&mut params, 1);
        let leaf = params.signed_by(&key, &own.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// The text of a talosconfig: a context for each role with all endpoints, and one for each node as `os:admin`.
    ///
    /// # Errors
    /// [`LabError::Tls`]
    pub fn talosconfig(&self, nodes: &BTreeMap<String, SocketAddr>) -> Result<String, LabError> {
        let all: Vec<String> = nodes.values().map(ToString::to_string).collect();
        let mut text = String::from("context: lab\ncontexts:\n");
        let mut admin = None;
        for (name, role) in CONTEXTS {
            let client = self.client(role)?;
            text += &self.context(name, &all, &client);
            admin.get_or_insert(client);
        }
        if let Some(admin) = admin {
            for (name, address) in nodes {
                text += &self.context(name, &[address.to_string()], &admin);
            }
        }
        Ok(text)
    }

    fn context(&self, name: &str, endpoints: &[String], client: &Client) -> String {
        let list: String = endpoints.iter().map(|e| format!("            - {e}\n")).collect();
        let code = |text: &str| STANDARD.encode(text);
        format!(
            "    {name}:\n        endpoints:\n{list}        ca: {}\n        crt: {}\n        key: {}\n",
            code(&self.pem()),
            code(&client.certificate),
            code(&client.key)
        )
    }
}

/// organizationName
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// The roles of a client certificate: the organizations of its subject (RFC 5280 section 4.1).
pub fn roles(certificate: &[u8]) -> Vec<String> {
    subject(certificate).unwrap_or_default()
}

fn subject(certificate: &[u8]) -> Option<Vec<String>> {
    let whole = inside(certificate)?;
    let signed = inside(whole.first()?.value())?;
    let fields = inside(signed.first()?.value())?;
    // Behind the version, where there is one: serial number, algorithm, issuer, dates, subject.
    let first = usize::from(fields.first()?.tag().is_context_specific());
    let mut found = Vec::new();
    for set in inside(fields.get(first + 4)?.value())? {
        for pair in inside(set.value())? {
            let [kind, value] = <[AnyRef<'_>; 2]>::try_from(inside(pair.value())?).ok()?;
            if kind.decode_as::<ObjectIdentifier>().ok()? == ORGANIZATION {
                found.push(String::from_utf8_lossy(value.value()).into_owned());
            }
        }
    }
    Some(found)
}

fn inside(value: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(value).ok()?;
    let mut parts = Vec::new();
    while !reader.is_finished() {
        parts.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(parts)
}
