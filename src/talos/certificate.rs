//! What a client certificate says of itself: roles and dates.

use der::asn1::{AnyRef, GeneralizedTime, ObjectIdentifier, UtcTime};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use jiff::{SignedDuration, Timestamp};

/// The attribute of a name in which Talos keeps the roles (RFC 5280, organizationName).
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// How long before its end a certificate is to be renewed, in hours: `talosctl config new` takes one that still holds.
const NEAR: i64 = 30 * 24;

/// How a certificate's dates stand to the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dates {
    /// It does not hold yet.
    Early,
    /// It holds.
    Good,
    /// It holds for less than thirty days.
    NearEnd,
    /// It has ended.
    Ended,
}

/// Roles and dates of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `os:admin`, `os:operator`, `os:reader`, ...
    pub roles: Vec<String>,
    /// From when it holds.
    pub from: Timestamp,
    /// To when it holds: a year after it was made, unless something else was asked for.
    pub until: Timestamp,
}

impl ClientCertificate {
    /// Reads the DER form of a certificate (RFC 5280 section 4.1).
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let whole = parts(certificate)?;
        let inner = parts(whole.first()?.value())?;
        let body = parts(inner.first()?.value())?;
        // Version stands first unless it is the first version; then serial number, algorithm, issuer, dates, subject.
        let skip = usize::from(body.first()?.tag().is_context_specific());
        let dates = parts(body.get(skip + 3)?.value())?;
        let subject = parts(body.get(skip + 4)?.value())?;
        let mut roles = Vec::new();
        for set in subject {
            for pair in parts(set.value())? {
                if let [name, value] = parts(pair.value())?.as_slice()
                    && name.decode_as::<ObjectIdentifier>().ok()? == ORGANIZATION
                {
                    roles.push(String::from_utf8(value.value().to_vec()).ok()?);
                }
            }
        }
        Some(Self { roles, from: time(dates.first()?)?, until: time(dates.get(1)?)? })
    }

    /// The first certificate of a PEM text.
    pub fn of_pem(text: &[u8]) -> Option<Self> {
        use rustls::pki_types::pem::PemObject as _;
        let first = rustls::pki_types::CertificateDer::pem_slice_iter(text).next()?.ok()?;
        Self::of(first.as_ref())
    }

    /// How long it still holds; negative where it has ended.
    pub fn left(&self, now: Timestamp) -> SignedDuration {
        self.until.duration_since(now)
    }

    /// How its dates stand.
    pub fn dates(&self, now: Timestamp) -> Dates {
        let left = self.left(now);
        if now < self.from {
            Dates::Early
        } else if !left.is_positive() {
            Dates::Ended
        } else if left.as_hours() < NEAR {
            Dates::NearEnd
        } else {
            Dates::Good
        }
    }

    /// True where it may do what `role` may; `os:admin` may do everything.
    pub fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|mine| mine == role || mine == "os:admin")
    }
}

/// What stands inside a value.
fn parts(value: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(value).ok()?;
    let mut out = Vec::new();
    while !reader.is_finished() {
        out.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(out)
}

fn time(value: &AnyRef<'_>) -> Option<Timestamp> {
    let since_epoch = match value.tag() {
        Tag::UtcTime => value.decode_as::<UtcTime>().ok()?.to_unix_duration(),
        Tag::GeneralizedTime => value.decode_as::<GeneralizedTime>().ok()?.to_unix_duration(),
        _ => return None,
    };
    Timestamp::from_second(i64::try_from(since_epoch.as_secs()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519, date_time_ymd};

    use super::*;

    fn made(organizations: &[&str], years: (i32, i32)) -> Vec<u8> {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "somebody");
        for name in organizations {
            params.distinguished_name.push(DnType::OrganizationName, *name);
        }
        params.not_before = date_time_ymd(years.0, 3, 1);
        params.not_after = date_time_ymd(years.1, 3, 1);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn roles_and_dates_are_read_of_either_form() {
        // After 2049 a date has the other form.
        for (years, until) in [((2026, 2027), "2027-03-01T00:00:00Z"), ((2026, 2061), "2061-03-01T00:00:00Z")] {
            let read = ClientCertificate::of(&made(&["os:reader"], years)).unwrap();
            assert_eq!(read.roles, ["os:reader"]);
            assert_eq!(
                (read.from.to_string().as_str(), read.until.to_string().as_str()),
                ("2026-03-01T00:00:00Z", until)
            );
            assert!(read.has("os:reader") && !read.has("os:operator"));
        }
        let read = ClientCertificate::of(&made(&["os:admin"], (2026, 2027))).unwrap();
        assert!(read.has("os:operator"));
        assert_eq!(read.left("2027-02-27T00:00:00Z".parse().unwrap()), SignedDuration::from_hours(48));
        assert!(read.left("2027-03-02T00:00:00Z".parse().unwrap()).is_negative());
        let at = |day: &str| read.dates(format!("{day}T00:00:00Z").parse().unwrap());
        let days = ["2026-02-28", "2026-03-01", "2027-01-30", "2027-01-31", "2027-02-28", "2027-03-01"];
        let wanted = [Dates::Early, Dates::Good, Dates::Good, Dates::NearEnd, Dates::NearEnd, Dates::Ended];
        assert_eq!(days.map(at), wanted);
        assert_eq!(ClientCertificate::of(&made(&[], (2026, 2027))).unwrap().roles, Vec::<String>::new());
    }

    #[test]
    fn what_is_cut_off_anywhere_is_no_certificate() {
        let whole = made(&["os:admin"], (2026, 2027));
        let read = (0..whole.len()).filter(|end| ClientCertificate::of(&whole[..*end]).is_some()).count();
        assert_eq!((read, ClientCertificate::of(&whole).is_some()), (0, true));
    }
}
