//! Text that must not be printed.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use secrecy::{ExposeSecret, SecretString};

/// Shorter ones are parts of other words: taking them out would hide more than it keeps.
const SHORTEST: usize = 6;
/// A shorter line of a secret of several lines (a key file) says nothing.
const SHORTEST_LINE: usize = 20;

/// The secrets that this process holds at the moment, so that [`redact`](super::redact) knows them.
static KNOWN: Mutex<Vec<Weak<SecretString>>> = Mutex::new(Vec::new());

/// A secret: `Debug` shows nothing of it, it has no `Display` and no `Serialize`, and as long as it is held it is
/// taken out of every text that is shown or written down.
#[derive(Clone)]
pub struct Secret(Arc<SecretString>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        let secret = Arc::new(SecretString::from(text.into()));
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.strong_count() > 0);
        known.push(Arc::downgrade(&secret));
        Self(secret)
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Hands each secret that is held to `see`, line by line where it has several; the longest first, as a shorter one may
/// be a part of it, whose rest would stay.
pub(super) fn each_known(see: impl FnMut(&str)) {
    let known: Vec<_> = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    let mut all: Vec<&str> = Vec::new();
    for secret in &known {
        let text = secret.expose_secret();
        match text.contains('\n') {
            false if text.len() >= SHORTEST => all.push(text),
            false => {}
            true => all.extend(text.lines().filter(|line| line.len() >= SHORTEST_LINE && !line.starts_with("---"))),
        }
    }
    all.sort_by_key(|text| std::cmp::Reverse(text.len()));
    all.into_iter().for_each(see);
}
