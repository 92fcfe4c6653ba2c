//! Files that only the holder of a key can read: the age format, version 1 (C2SP `age.md`), to recipients `age1..`.
//!
//! It is written and never read: what decrypts it is the program `age`. The primitives are `ring`'s; the crate `age` would
//! bring 81 others for these two hundred lines, among them a second set of primitives and a system of translations.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};

use super::secret::Secret;

/// How much of the content is sealed at a time.
const CHUNK: usize = 64 << 10;
/// Of a stanza's body.
const COLUMNS: usize = 64;

/// Whom a file is for: a public key, `age1..`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipient")
    }
}

/// Why a text is no recipient. What was given is not repeated: it may be the secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipient {
    /// The other half of the pair.
    #[error("it is a secret key, which belongs to nobody else: `age-keygen -y KEYFILE` prints its recipient, `age1..`")]
    SecretKey,
    /// A kind that only `age` itself or a plugin of it can encrypt to.
    #[error(
        "it is of a kind that is not supported: a recipient is `age1` with 58 letters and digits, as `age-keygen` prints it"
    )]
    OtherKind,
    /// A sign too much or too few, or another one.
    #[error("it is mistyped: its checksum does not fit; `age-keygen -y KEYFILE` prints it")]
    Mistyped,
}

impl FromStr for Recipient {
    type Err = BadRecipient;

    fn from_str(text: &str) -> Result<Self, BadRecipient> {
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(BadRecipient::SecretKey);
        }
        // `age1pq1..`, `age1yubikey1..`: those have another `1`, which is no sign of the data.
        let data = text.strip_prefix("age1").filter(|data| !data.contains('1')).ok_or(BadRecipient::OtherKind)?;
        let bytes = bech32("age", data).ok_or(BadRecipient::Mistyped)?;
        bytes.try_into().map(Self).map_err(|_| BadRecipient::Mistyped)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32_of("age", &self.0))
    }
}

impl Recipient {
    /// Whose secret key this is, `AGE-SECRET-KEY-1..`; None: it is none, is mistyped, or of another kind.
    pub fn of_key(secret: &str) -> Option<Self> {
        let small = Secret::new(secret.to_ascii_lowercase());
        let data = small.expose().strip_prefix("age-secret-key-1")?;
        let scalar: [u8; 32] = bech32("age-secret-key-", data)?.try_into().ok()?;
        Some(Self(curve25519_dalek::MontgomeryPoint::mul_base_clamped(scalar).to_bytes()))
    }
}

const SIGNS: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// The checksum of BIP 173 over values of five bits; 1 where it is right.
fn checksum(hrp: &str, values: &[u32]) -> u32 {
    let high = hrp.bytes().map(|b| u32::from(b >> 5));
    let low = hrp.bytes().map(|b| u32::from(b & 31));
    let checked = high.chain([0]).chain(low).chain(values.iter().copied());
    checked.fold(1_u32, |sum, value| {
        let mixed = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
        let top = sum >> 25;
        let bits = mixed.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1);
        bits.fold((sum & 0x01ff_ffff) << 5 ^ value, |sum, (_, mix)| sum ^ mix)
    })
}

/// `HRP1` with these bytes behind it.
fn bech32_of(hrp: &str, bytes: &[u8]) -> String {
    let (mut values, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for byte in bytes {
        (held, bits) = ((held << 8 | u32::from(*byte)) & 0xfff, bits + 8);
        while bits >= 5 {
            bits -= 5;
            values.push(held >> bits & 31);
        }
    }
    if bits > 0 {
        values.push(held << (5 - bits) & 31);
    }
    let sum = checksum(hrp, &[values.as_slice(), &[0; 6]].concat()) ^ 1;
    values.extend((0..6).map(|at| sum >> (5 * (5 - at)) & 31));
    let sign = |value: u32| SIGNS.chars().nth(usize::try_from(value).unwrap_or_default());
    format!("{hrp}1{}", values.into_iter().filter_map(sign).collect::<String>())
}

/// The bytes behind `HRP1`, where the checksum fits (BIP 173).
fn bech32(hrp: &str, data: &str) -> Option<Vec<u8>> {
    let values: Vec<u32> =
        data.chars().map(|c| SIGNS.find(c).and_then(|at| u32::try_from(at).ok())).collect::<Option<_>>()?;
    if checksum(hrp, &values) != 1 {
        return None;
    }
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for value in values.get(..values.len().checked_sub(6)?)? {
        (held, bits) = (held << 5 | value, bits + 5);
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
        held &= (1 << bits) - 1;
    }
    // What fills the last byte up is nothing.
    (bits < 5 && held == 0).then_some(bytes)
}

/// The system has no random numbers, or a recipient is no point that anything can be agreed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be encrypted to these recipients")]
pub struct Failed;

impl From<ring::error::Unspecified> for Failed {
    fn from(_: ring::error::Unspecified) -> Self {
        Self
    }
}

/// Encrypts what it is given piece by piece.
pub struct Encryptor {
    key: LessSafeKey,
    /// Of the next chunk.
    number: u64,
    /// What is not sealed yet: the last chunk is sealed as the last.
    held: Vec<u8>,
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Encryptor {
    /// For anybody of these, with what stands at the beginning of the file.
    ///
    /// # Errors
    /// [`Failed`]; also where nobody is named.
    pub fn new(recipients: &[Recipient]) -> Result<(Self, Vec<u8>), Failed> {
        let random = SystemRandom::new();
        let mut file_key = [0; 16];
        random.fill(&mut file_key)?;
        let mut header = String::from("age-encryption.org/v1\n");
        for recipient in recipients {
            header.push_str(&stanza(recipient, &file_key, &random)?);
        }
        if recipients.is_empty() {
            return Err(Failed);
        }
        header.push_str("---");
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &derived(&[], &file_key, "header")?);
        let mac = hmac::sign(&mac, header.as_bytes());
        header.push_str(&format!(" {}\n", STANDARD_NO_PAD.encode(mac)));
        let mut nonce = [0; 16];
        random.fill(&mut nonce)?;
        let key = derived(&nonce, &file_key, "payload")?;
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key)?);
        let begin = [header.as_bytes(), &nonce].concat();
        Ok((Self { key, number: 0, held: Vec::new() }, begin))
    }

    /// Takes more of the content; what of the file is ready is added to `to`.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn write(&mut self, content: &[u8], to: &mut Vec<u8>) -> Result<(), Failed> {
        self.held.extend_from_slice(content);
        // A chunk that is full may be the last one.
        while self.held.len() > CHUNK {
            let rest = self.held.split_off(CHUNK);
            let chunk = std::mem::replace(&mut self.held, rest);
            self.seal(chunk, false, to)?;
        }
        Ok(())
    }

    /// The end of the file. Without it nobody takes the file for whole.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn finish(mut self, to: &mut Vec<u8>) -> Result<(), Failed> {
        let chunk = std::mem::take(&mut self.held);
        self.seal(chunk, true, to)
    }

    fn seal(&mut self, mut chunk: Vec<u8>, last: bool, to: &mut Vec<u8>) -> Result<(), Failed> {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.number.to_be_bytes());
        nonce[11] = u8::from(last);
        self.number += 1;
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut chunk)?;
        to.append(&mut chunk);
        Ok(())
    }
}

/// The file's key, as one recipient finds it in the header.
fn stanza(recipient: &Recipient, file_key: &[u8], random: &SystemRandom) -> Result<String, Failed> {
    let own = EphemeralPrivateKey::generate(&X25519, random)?;
    let share = own.compute_public_key()?;
    let salt = [share.as_ref(), &recipient.0].concat();
    // A point that makes every secret the same is refused here.
    let wrap = agree_ephemeral(own, &UnparsedPublicKey::new(&X25519, recipient.0), |secret| {
        derived(&salt, secret, "age-encryption.org/v1/X25519")
    })??;
    let mut body = file_key.to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &wrap)?);
    // A key of its own for each, so that the nonce is never used twice.
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut body)?;
    let body = STANDARD_NO_PAD.encode(body);
    debug_assert!(body.len() < COLUMNS, "it ends with a line that is not full");
    Ok(format!("-> X25519 {}\n{body}\n", STANDARD_NO_PAD.encode(share)))
}

fn derived(salt: &[u8], secret: &[u8], info: &str) -> Result<[u8; 32], Failed> {
    let mut key = [0; 32];
    let salted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    salted.expand(&[info.as_bytes()], hkdf::HKDF_SHA256)?.fill(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the format's own test vectors (C2SP `CCTV/age`).
    const GOOD: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

    #[test]
    fn a_recipient_is_read_and_what_is_none_is_said_and_not_repeated() {
        assert_eq!(GOOD.parse::<Recipient>().unwrap().0[..4], [0x5f, 0x86, 0x62, 0x65]);
        let swapped = GOOD.replacen("7rx", "r7x", 1);
        let secret = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
        let cases = [
            (swapped.as_str(), BadRecipient::Mistyped),
            (&GOOD[..61], BadRecipient::Mistyped),
            ("age1", BadRecipient::Mistyped),
            ("age1qqqqqq", BadRecipient::Mistyped),
            (&GOOD.to_uppercase(), BadRecipient::OtherKind),
            (secret, BadRecipient::SecretKey),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE", BadRecipient::OtherKind),
            ("age1pq1xyz", BadRecipient::OtherKind),
            ("age1yubikey1qwerty", BadRecipient::OtherKind),
            ("", BadRecipient::OtherKind),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<Recipient>(), Err(why), "{text}");
            assert!(text.len() < 6 || !why.to_string().contains(text), "{why}");
        }
        assert_eq!(cases.len(), 10);
    }

    /// The pair that rage's own tests have (str4d/rage `age/src/x25519.rs`).
    #[test]
    fn a_secret_key_tells_its_recipient() {
        let key = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
        assert_eq!(Recipient::of_key(key).unwrap().to_string(), GOOD);
        assert_eq!(GOOD.parse::<Recipient>().unwrap().to_string(), GOOD);
        for bad in [&key[..40], &key.replace("GQ9", "GQ8"), GOOD, "AGE-SECRET-KEY-PQ-1QQ", ""] {
            assert_eq!(Recipient::of_key(bad), None);
        }
    }

    /// One sign changed is always found: no file goes to nobody.
    #[test]
    fn every_mistyped_sign_is_found() {
        let mut found = 0;
        for at in 4..GOOD.len() {
            for sign in "qpzry9x8gf2tvdw0s3jn54khce6mua7l".chars() {
                let mut text = GOOD.to_owned();
                text.replace_range(at..=at, &sign.to_string());
                assert_eq!(text.parse::<Recipient>().is_ok(), text == GOOD, "{text}");
                found += 1;
            }
        }
        assert_eq!(found, 58 * 32);
    }

    /// The sizes of a file: whether `age` reads them, `tests/cli/etcd` asks it.
    #[test]
    fn chunks_are_sealed_once_more_is_known_and_no_file_is_like_another() {
        let to = [GOOD.parse::<Recipient>().unwrap()];
        for (size, chunks) in [(0, 1), (1, 1), (CHUNK, 1), (CHUNK + 1, 2), (2 * CHUNK, 2), (3 * CHUNK + 5, 4)] {
            let (mut age, begin) = Encryptor::new(&to).unwrap();
            let head = begin.len();
            let mut file = begin;
            for piece in vec![7; size].chunks(10_000) {
                age.write(piece, &mut file).unwrap();
            }
            age.finish(&mut file).unwrap();
            assert_eq!(file.len(), head + size + 16 * chunks, "{size}");
        }
        let [(_, one), (_, two)] = [Encryptor::new(&to).unwrap(), Encryptor::new(&to).unwrap()];
        assert_ne!(one, two);
        assert_eq!(Encryptor::new(&[]).unwrap_err(), Failed);
        // Low order: whoever can read the header could read the file.
        assert_eq!(Encryptor::new(&[Recipient([0; 32])]).unwrap_err(), Failed);
    }
}
