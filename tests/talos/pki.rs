//! A cluster's authority, certificates of it, and talosconfigs.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, PKCS_ED25519, date_time_ymd,
};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// From when to when a certificate holds: years.
pub(crate) type Years = (i32, i32);
/// Now, whenever that is.
pub(crate) const NOW: Years = (2020, 2090);

pub(crate) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn params(names: &[&str], organization: &str, years: Years) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}

impl Pki {
    /// All authorities of Talos have the same name.
    pub(crate) fn new() -> Self {
        let mut params = params(&[], "talos", NOW);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ED25519).unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.ca.pem()
    }

    fn pair(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    /// A node's certificate.
    pub(crate) fn server(&self, names: &[&str], years: Years) -> Pair {
        self.pair(&params(names, "", years))
    }

    /// A client's; its key under the label that Talos gives it.
    pub(crate) fn client(&self, role: &str, years: Years) -> Pair {
        self.client_of(params(&[], role, years))
    }

    /// A client's that holds from one day to another, counted from today.
    pub(crate) fn client_between(&self, role: &str, days: (i64, i64)) -> Pair {
        let mut params = params(&[], role, NOW);
        let today = pvemig::base::clock::Clock::real().now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let day = |days: i64| {
            let day = today + jiff::Span::new().days(days);
            let [month, of_month] = [day.month(), day.day()].map(|n| u8::try_from(n).unwrap());
            date_time_ymd(day.year().into(), month, of_month)
        };
        (params.not_before, params.not_after) = (day(days.0), day(days.1));
        self.client_of(params)
    }

    fn client_of(&self, mut params: CertificateParams) -> Pair {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let pair = self.pair(&params);
        Pair { key: pair.key.replace("PRIVATE KEY", "ED25519 PRIVATE KEY"), ..pair }
    }

    /// As a node with this certificate serves: only to clients of this authority.
    pub(crate) fn serving(&self, pair: &Pair) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&pair.certificate, &pair.key))
            .client_ca_root(Certificate::from_pem(self.pem()))
    }
}

/// A talosconfig with one context, `home`, which is the current one.
pub(crate) fn talosconfig(ca: &str, client: &Pair) -> String {
    let encoded = |pem: &str| STANDARD.encode(pem);
    format!(
        "context: home\ncontexts:\n    home:\n        endpoints:\n            - 10.10.0.20\n        nodes:\n            \
         - 10.10.0.20\n            - 10.10.0.223\n        ca: {}\n        crt: {}\n        key: {}\n",
        encoded(ca),
        encoded(&client.certificate),
        encoded(&client.key)
    )
}

/// Writes a file that its owner alone may read.
pub(crate) fn write(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("talosconfig");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}
