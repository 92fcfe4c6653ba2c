//! The private key for an ssh login, read before any connection is made.

use std::path::PathBuf;

use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Error as KeyError, PrivateKey, decode_secret_key};

use crate::base::private;
use crate::base::secret::Secret;

use super::error::Error;

/// Where the private key comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A key file.
    File(PathBuf),
    /// The key itself, in the form of a key file.
    Text(Secret),
}

/// The algorithm identifier of RSA in PKCS#8 (RFC 8017).
const RSA_OID: &str = "1.2.840.113549.1.1.1";

/// Loads a key that can be used here: Ed25519 or ECDSA, without passphrase.
pub(super) async fn load(source: &KeySource) -> Result<PrivateKey, Error> {
    let (name, text) = match source {
        KeySource::File(path) => {
            let name = path.display().to_string();
            let bytes = private::read(path).map_err(Error::KeyFile)?;
            let not_text = |_| Error::Key { key: name.clone(), why: "it is no text".into() };
            let text = String::from_utf8(bytes).map_err(not_text)?;
            (name, Secret::new(text))
        }
        KeySource::Text(text) => ("given in the site file".to_owned(), text.clone()),
    };
    let bad = |why: &str| Error::Key { key: name.clone(), why: why.to_owned() };
    let key = match decode_secret_key(text.expose(), None) {
        Ok(key) => key,
        Err(KeyError::UnsupportedKeyType { key_type_string, .. }) if key_type_string == "RSA" => {
            return Err(Error::RsaKey { key: name });
        }
        Err(KeyError::UnknownAlgorithm(oid)) if oid.to_string() == RSA_OID => return Err(Error::RsaKey { key: name }),
        Err(KeyError::KeyIsEncrypted) => return Err(Error::EncryptedKey { key: name }),
        Err(error) => return Err(bad(&error.to_string())),
    };
    if key.algorithm().is_rsa() {
        return Err(Error::RsaKey { key: name });
    }
    match key.key_data() {
        KeypairData::Ed25519(_) | KeypairData::Ecdsa(_) => Ok(key),
        KeypairData::Encrypted(_) => Err(Error::EncryptedKey { key: name }),
        _ => Err(bad(&format!("keys of the kind {} cannot be used here", key.algorithm()))),
    }
}
