//! The age key: that it is one, and whose.

use std::path::Path;

use crate::base::age::Recipient;
use crate::base::fault::Fault;
use crate::base::private;
use crate::base::secret::Secret;

use super::Kept;

/// Looks at a key file; its recipient, where that is known.
pub(super) fn look(path: &Path) -> (Kept, Option<String>) {
    let shown = path.display();
    let ask = || format!("put the age key at {shown} (mode 0600), from wherever it is kept besides");
    let bytes = match private::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_wide() => {
            let ask = error.help().unwrap_or_else(ask);
            return (Kept::amiss(format!("age key: {error}"), ask), None);
        }
        Err(error) => return (Kept::amiss(format!("age key: {error}"), ask()), None),
    };
    let (kept, recipient) = match read(&bytes) {
        Ok((text, recipient)) => (Kept::good(format!("age key {shown}: {text}")), recipient),
        Err(why) => return (Kept::amiss(format!("age key {shown}: {why}"), ask()), None),
    };
    (kept.copied("age-key.txt", bytes, shown.to_string()), recipient)
}

/// What a key file has, in words, and the recipient of its first key.
fn read(bytes: &[u8]) -> Result<(String, Option<String>), &'static str> {
    if bytes.starts_with(b"age-encryption.org/") || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----") {
        return Ok(("it is encrypted itself; whose it is cannot be told".into(), None));
    }
    let text = Secret::new(std::str::from_utf8(bytes).map_err(|_| "it is no text")?);
    let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut recipients, mut others) = (Vec::new(), 0);
    for line in lines {
        if line.starts_with("AGE-SECRET-KEY-1") {
            let recipient =
                Recipient::of_key(line).ok_or("a secret key in it is mistyped: its checksum does not fit")?;
            recipients.push(recipient.to_string());
        } else if line.starts_with("AGE-") {
            others += 1;
        } else {
            return Err("there is a line in it that is no age key");
        }
    }
    match (recipients.first().cloned(), others) {
        (None, 0) => Err("there is no secret key in it"),
        (None, _) => Ok(("a key of a kind whose recipient is not known here".into(), None)),
        (first, _) => Ok((format!("the key of {}", recipients.join(", ")), first)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

    #[test]
    fn a_key_file_is_read_and_nothing_of_it_is_told() {
        let good = format!("# created: 2026-01-01\n# public key: age1other\n{KEY}\n");
        let (text, recipient) = read(good.as_bytes()).unwrap();
        assert!(text.contains("age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"), "{text}");
        assert_eq!(recipient.map(|it| it.len()), Some(62));
        let others = [b"age-encryption.org/v1\nxx".to_vec(), b"AGE-PLUGIN-YUBIKEY-1QQQ\n".to_vec()];
        for other in &others {
            assert_eq!(read(other).unwrap().1, None);
        }
        let mistyped = KEY.replace("GQ9", "GQ8");
        for (bad, why) in
            [("", "no secret key"), ("# a\n", "no secret key"), (&mistyped, "mistyped"), ("secret\n", "no age key")]
        {
            let said = read(bad.as_bytes()).unwrap_err();
            assert!(said.contains(why) && !said.contains(KEY), "{said}");
        }
    }
}
