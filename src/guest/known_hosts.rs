//! Whether a host key is the recorded one, by the rules of OpenSSH (`sshd(8)`, SSH_KNOWN_HOSTS FILE FORMAT).
//!
//! russh brings a check of its own, but it lets a revoked key pass, knows neither patterns nor tabs, and calls the
//! second of two keys of one type "changed"; observed side by side with OpenSSH 9.2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use russh::keys::{Algorithm, EcdsaCurve, PublicKey, PublicKeyBase64};

/// The port that is left out of a recorded name.
const DEFAULT_PORT: u16 = 22;

/// What the file says about the key that a host shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is recorded.
    Known,
    /// No key of its type is recorded for this host.
    Unknown,
    /// Another key of its type is recorded.
    Changed {
        /// The line of the (last) recorded one, from 1, as OpenSSH names it.
        line: usize,
    },
    /// It is marked as revoked, which wins over every other line.
    Revoked {
        /// The line of the mark, from 1.
        line: usize,
    },
}

/// What a `known_hosts` file says about one host and port.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    keys: Vec<Entry>,
    /// Those of the bare name, where the port is not 22 and nothing is recorded for the name with it.
    bare: Vec<Entry>,
    revoked: Vec<Entry>,
    authorities: Vec<usize>,
    unreadable: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Entry {
    line: usize,
    kind: String,
    blob: Vec<u8>,
}

/// The fields of a line that is neither blank nor a comment.
struct Fields<'a> {
    marker: Option<&'a str>,
    hosts: &'a str,
    kind: &'a str,
    blob: Option<Vec<u8>>,
}

impl Recorded {
    /// Reads what `text` says about `host` and `port`.
    ///
    /// Where nothing is recorded for `[host]:port`, a key recorded for the bare name lets it in, as it does for `ssh`;
    /// another one says nothing, as it may be that of another server behind the same address.
    pub fn read(text: &str, host: &str, port: u16) -> Self {
        let named = Self::lines_for(text, &name(host, port));
        if port == DEFAULT_PORT || !named.keys.is_empty() {
            return named;
        }
        let bare = Self::lines_for(text, &name(host, DEFAULT_PORT));
        let joined = |a: Vec<usize>, b: Vec<usize>| a.into_iter().chain(b).collect();
        Self {
            keys: Vec::new(),
            bare: bare.keys,
            revoked: named.revoked.into_iter().chain(bare.revoked).collect(),
            authorities: joined(named.authorities, bare.authorities),
            unreadable: joined(named.unreadable, bare.unreadable),
        }
    }

    fn lines_for(text: &str, name: &str) -> Self {
        let mut found = Self::default();
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.trim_matches([' ', '\t', '\r']));
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some(fields) = fields(line) else { continue };
            if !matches(fields.hosts, name) {
                continue;
            }
            let Some(blob) = fields.blob else {
                found.unreadable.push(number);
                continue;
            };
            let entry = Entry { line: number, kind: fields.kind.to_owned(), blob };
            match fields.marker {
                None => found.keys.push(entry),
                Some("@revoked") => found.revoked.push(entry),
                Some("@cert-authority") => found.authorities.push(number),
                Some(_) => found.unreadable.push(number),
            }
        }
        found
    }

    /// Judges the key that the host shows.
    pub fn judge(&self, key: &PublicKey) -> Verdict {
        let blob = key.public_key_bytes();
        if let Some(entry) = self.revoked.iter().find(|entry| entry.blob == blob) {
            return Verdict::Revoked { line: entry.line };
        }
        if self.keys.iter().chain(&self.bare).any(|entry| entry.blob == blob) {
            return Verdict::Known;
        }
        let kind = key.algorithm().to_string();
        match self.keys.iter().rfind(|entry| entry.kind == kind) {
            Some(entry) => Verdict::Changed { line: entry.line },
            None => Verdict::Unknown,
        }
    }

    /// The host key algorithms to offer, most wanted first. Where keys are recorded only theirs are, else a host with
    /// several keys may show one that was never recorded; otherwise all that can be verified here, those of the bare
    /// name first.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let of = |keys: &[Entry], algorithm: &Algorithm| {
            let kind = algorithm.to_string();
            keys.iter().any(|entry| entry.kind == kind)
        };
        if !self.keys.is_empty() {
            return verifiable().into_iter().filter(|algorithm| of(&self.keys, algorithm)).collect();
        }
        let (first, rest): (Vec<_>, Vec<_>) = verifiable().into_iter().partition(|algorithm| of(&self.bare, algorithm));
        [first, rest].concat()
    }

    /// True where keys are recorded, but only of kinds that cannot be verified here (RSA).
    pub fn only_unverifiable(&self) -> bool {
        !self.keys.is_empty() && self.algorithms().is_empty()
    }

    /// What an operator should know about the file when a host is unknown to it.
    pub fn remarks(&self) -> Vec<String> {
        let lines = |numbers: &[usize]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut remarks = Vec::new();
        if !self.authorities.is_empty() {
            let lines = lines(&self.authorities);
            remarks.push(format!("line {lines} trusts a certificate authority, which is not supported"));
        }
        if !self.unreadable.is_empty() {
            remarks.push(format!("line {} names this host but cannot be read", lines(&self.unreadable)));
        }
        remarks
    }
}

/// The host key algorithms that this build can verify; RSA is not among them.
pub fn verifiable() -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    vec![Algorithm::Ed25519, ecdsa(EcdsaCurve::NistP256), ecdsa(EcdsaCurve::NistP384), ecdsa(EcdsaCurve::NistP521)]
}

/// The name under which a host is recorded: `host`, or `[host]:port` where the port is not 22.
pub fn name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == DEFAULT_PORT { host } else { format!("[{host}]:{port}") }
}

fn fields(line: &str) -> Option<Fields<'_>> {
    let mut rest = line;
    let mut next = || {
        let (field, tail) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        rest = tail.trim_start_matches([' ', '\t']);
        (!field.is_empty()).then_some(field)
    };
    let first = next()?;
    let (marker, hosts) = if first.starts_with('@') { (Some(first), next()?) } else { (None, first) };
    let (kind, key) = (next().unwrap_or_default(), next().unwrap_or_default());
    // The kind is written twice, in words and inside the key; where they differ OpenSSH takes neither.
    let blob = STANDARD.decode(key).ok().filter(|blob| kind_of(blob) == Some(kind.as_bytes()) && whole(kind, blob));
    Some(Fields { marker, hosts, kind, blob })
}

/// False for a key that was cut off or has something behind it, which is no key to OpenSSH either; kinds that cannot be
/// verified here are not looked into.
fn whole(kind: &str, blob: &[u8]) -> bool {
    let known = verifiable().iter().any(|algorithm| algorithm.to_string() == kind);
    !known || PublicKey::from_bytes(blob).is_ok()
}

/// The kind that a key's wire form begins with (RFC 4253 section 6.6: a length and the name).
fn kind_of(blob: &[u8]) -> Option<&[u8]> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// Whether a host field names the host: a hashed name, or a list of patterns of which no negated one matches.
fn matches(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        return hmac::verify(&key, name.as_bytes(), &hash).is_ok();
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        let (negated, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |rest| (true, rest));
        if wildcard(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

/// `*` stands for any run of characters, `?` for one. Linear but for the last star, so a hostile file costs nothing.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while let Some(c) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(x) if *x == b'?' || x == c => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID/VFgAJquqqE2o7LMLs3Et82tvulp9vZBcMvJ8GA48t";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn judge(text: &str, host: &str, port: u16) -> Verdict {
        Recorded::read(text, host, port).judge(&key(A))
    }

    #[test]
    fn the_table() {
        let a = A;
        let b = B;
        let cases = [
            (String::new(), Verdict::Unknown),
            (format!("h {a}"), Verdict::Known),
            (format!("h\t{}\n", a.replace(' ', "\t")), Verdict::Known),
            (format!("  h   {a} a comment"), Verdict::Known),
            (format!("H {a}"), Verdict::Known),
            (format!("# {a}\n\nh {b}"), Verdict::Changed { line: 3 }),
            (format!("h {b}\nh {a}"), Verdict::Known),
            (format!("h {b}\nother {a}"), Verdict::Changed { line: 1 }),
            (format!("h {a}\n@revoked * {a}"), Verdict::Revoked { line: 2 }),
            (format!("@revoked h {b}\nh {a}"), Verdict::Known),
            (format!("@cert-authority h {a}"), Verdict::Unknown),
            (format!("@strange h {a}"), Verdict::Unknown),
            (format!("*,!h {a}"), Verdict::Unknown),
            (format!("!x,? {a}"), Verdict::Known),
            (format!("?? {a}"), Verdict::Unknown),
            (format!("[h]:2222 {a}"), Verdict::Unknown),
            (format!("h {}", a.replace("ssh-ed25519", "ssh-rsa")), Verdict::Unknown),
            ("h ssh-ed25519 AAAA".to_owned(), Verdict::Unknown),
            ("h".to_owned(), Verdict::Unknown),
        ];
        assert_eq!(cases.len(), 19);
        for (text, expected) in cases {
            assert_eq!(judge(&text, "h", 22), expected, "{text}");
        }
    }

    #[test]
    fn a_port_is_part_of_the_name_and_the_bare_name_stands_in() {
        assert_eq!(judge(&format!("[h]:2222 {A}"), "h", 2222), Verdict::Known);
        assert_eq!(judge(&format!("[127.0.0.*]:2222 {A}"), "127.0.0.1", 2222), Verdict::Known);
        assert_eq!(judge(&format!("h {A}"), "h", 2222), Verdict::Known);
        assert_eq!(judge(&format!("h {B}"), "h", 2222), Verdict::Unknown);
        assert_eq!(judge(&format!("h {B}\nh {A}"), "h", 2222), Verdict::Known);
        assert_eq!(judge(&format!("[h]:2222 {B}\nh {A}"), "h", 2222), Verdict::Changed { line: 1 });
        assert_eq!(judge(&format!("[h]:2222 {A}\n@revoked [h]:* {A}"), "h", 2222), Verdict::Revoked { line: 2 });
        assert_eq!(judge(&format!("h {A}\n@revoked [h]:2222 {A}"), "h", 2222), Verdict::Revoked { line: 2 });
    }

    #[test]
    fn only_recorded_algorithms_are_offered_and_rsa_never() {
        let rsa = "ssh-rsa AAAAB3NzaC1yc2E=";
        let text = format!("h {A}\nother ecdsa-sha2-nistp256 AAAA");
        assert_eq!(Recorded::read(&text, "h", 22).algorithms(), [Algorithm::Ed25519]);
        let only_rsa = Recorded::read(&format!("h {rsa}"), "h", 22);
        assert!(only_rsa.only_unverifiable());
        assert!(only_rsa.algorithms().is_empty());
        let nothing = Recorded::read("", "h", 22);
        assert_eq!((nothing.only_unverifiable(), nothing.algorithms()), (false, verifiable()));
        for (kind, text) in [(Algorithm::Ed25519, rsa), (Algorithm::Ed25519, A)] {
            let bare = Recorded::read(&format!("h {text}"), "h", 2222);
            assert_eq!((bare.only_unverifiable(), bare.algorithms().first()), (false, Some(&kind)), "{text}");
            assert_eq!(bare.algorithms().len(), 4, "{text}");
        }
    }

    #[test]
    fn what_is_not_supported_is_said() {
        let text = format!("@cert-authority h {A}\nh ssh-ed25519 broken");
        let remarks = Recorded::read(&text, "h", 22).remarks();
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks.iter().any(|r| r.contains("line 1") && r.contains("certificate authority")));
        assert!(remarks.iter().any(|r| r.contains("line 2")));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic_and_none_but_the_key_is_known(text in "[ \t\n#@!*?,|a-z0-9=/+\\[\\]:]{0,200}") {
            prop_assert_ne!(judge(&text, "h", 22), Verdict::Known);
        }

        #[test]
        fn a_wildcard_is_what_its_definition_says(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn by_definition(p: &[u8], n: &[u8]) -> bool {
                match (p.split_first(), n.split_first()) {
                    (None, None) => true,
                    (Some((b'*', p)), None) => by_definition(p, n),
                    (Some((b'*', rest)), Some((_, tail))) => by_definition(rest, n) || by_definition(p, tail),
                    (Some((x, p)), Some((c, n))) => (*x == b'?' || x == c) && by_definition(p, n),
                    _ => false,
                }
            }
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(wildcard(pattern, name), by_definition(pattern, name));
        }
    }
}
