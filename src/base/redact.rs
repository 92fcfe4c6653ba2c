//! What a text from outside must not carry on to a screen, a journal or a log.
//!
//! Servers repeat what they were sent, programs print what they were given, and git names URLs with passwords in them.
//! Every text that is shown or written down passes [`text`]: what this process has read as a [`Secret`](super::secret)
//! is taken out wherever it stands, and so is what looks like a secret that nobody told us of.

use std::ops::Range;

/// What stands in the place of what was taken out.
const GONE: &str = "…";

/// Names behind which a secret stands, as the end of a longer name too (`mqtt-password`, `PVEAPIToken`).
const NAMES: [&str; 17] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "access_key",
    "privatekey",
    "private_key",
    "private-key",
    "key-data",
    "cookie",
    "credential",
    "ticket",
];

/// A text without secrets. Twice is the same as once.
pub fn text(text: &str) -> String {
    let mut out = text.to_owned();
    super::secret::each_known(|known| out = without(&out, known));
    // What was taken out may bring two parts together that say more than each of them: mostly the first turn is all.
    for _ in 0..8 {
        let next = once(&out);
        if next == out {
            break;
        }
        out = next;
    }
    out
}

fn once(text: &str) -> String {
    let mut out = text.to_owned();
    for find in [keys, age_keys, urls, schemes, named, tokens] {
        let mut parts = find(&out);
        parts.retain(|range| out.get(range.clone()).is_some_and(|part| part != GONE));
        // Two of them may lie over each other, as a key that begins inside another one.
        parts.sort_by_key(|range| (range.start, range.end));
        let mut apart: Vec<Range<usize>> = Vec::new();
        for range in parts {
            match apart.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        for range in apart.into_iter().rev() {
            out.replace_range(range, GONE);
        }
    }
    out
}

/// A known secret, as it is and as it is written in a URL, a form, base64 and a JSON text.
fn without(text: &str, known: &str) -> String {
    use base64::Engine;
    let json = serde_json::Value::from(known).to_string();
    let forms = [
        known.to_owned(),
        base64::engine::general_purpose::STANDARD.encode(known),
        base64::engine::general_purpose::STANDARD.encode(format!("{known}\n")),
        json.trim_matches('"').to_owned(),
    ];
    let out = forms.iter().fold(text.to_owned(), |text, form| {
        if text.contains(form.as_str()) { text.replace(form.as_str(), GONE) } else { text }
    });
    without_encoded(out, known)
}

/// Without a known secret as a URL or a form has it. Encoders differ in what they leave alone and in the case of the
/// digits, so that any of its bytes may be written either way.
fn without_encoded(text: String, known: &str) -> String {
    if !text.contains(['%', '+']) {
        return text;
    }
    let (mut out, mut kept, mut at) = (String::new(), 0, 0);
    while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        match encoded(rest, known.as_bytes()) {
            Some(length) => {
                out.push_str(text.get(kept..at).unwrap_or_default());
                out.push_str(GONE);
                at += length;
                kept = at;
            }
            None => at += 1,
        }
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    out
}

/// How long the encoded form of `known` is that a text begins with.
fn encoded(text: &[u8], known: &[u8]) -> Option<usize> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let mut at = 0;
    for byte in known {
        let next = *text.get(at)?;
        let hex = || Some(digit(at + 1)? * 16 + digit(at + 2)?);
        at += match next {
            b'%' if hex() == Some(u32::from(*byte)) => 3,
            b'+' if *byte == b' ' => 1,
            _ if next == *byte => 1,
            _ => return None,
        };
    }
    Some(at)
}

/// Private keys in PEM form, to their end or the text's.
fn keys(text: &str) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices("PRIVATE KEY-----") {
        let from = at + "PRIVATE KEY-----".len();
        let begins = text.get(..at).is_some_and(|head| {
            head.rfind("-----").is_some_and(|dashes| head.get(dashes..).is_some_and(|h| h.starts_with("-----BEGIN")))
        });
        if begins {
            let to = text.get(from..).and_then(|rest| rest.find("-----END")).map_or(text.len(), |end| from + end);
            out.push(from..to);
        }
    }
    out.retain(|range| !range.is_empty());
    out
}

/// Secret keys of age and of its plugins, which stand in one word; what is shorter is a word of a sentence.
fn age_keys(text: &str) -> Vec<Range<usize>> {
    const SHORTEST: usize = 16;
    let upper = text.to_ascii_uppercase();
    let found = ["AGE-SECRET-KEY-", "AGE-PLUGIN-"].into_iter().flat_map(|head| {
        let key = |(at, _): (usize, &str)| {
            let from = at + head.len();
            let rest = upper.get(from..)?;
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            (length >= SHORTEST).then_some(from..from + length)
        };
        upper.match_indices(head).filter_map(key).collect::<Vec<_>>()
    });
    found.collect()
}

/// User and password in URLs. A user alone stays where it is one of ssh, which says whose key is used; before a web
/// server it may be a token.
fn urls(text: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    for (at, mark) in text.match_indices("://") {
        let from = at + mark.len();
        let rest = text.get(from..).unwrap_or_default();
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '\'' | '"' | '`' | '<' | '>'));
        let authority = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let Some(user) = authority.rfind('@') else { continue };
        let head = text.get(..at).unwrap_or_default();
        let ssh = head.ends_with("ssh") || head.ends_with("git");
        if !ssh || authority.get(..user).is_some_and(|user| user.contains(':')) {
            out.push(from..from + user);
        }
    }
    out
}

/// What follows the scheme of an `Authorization` header.
fn schemes(text: &str) -> Vec<Range<usize>> {
    let found = ["Bearer ", "bearer ", "Basic "].into_iter().flat_map(|scheme| text.match_indices(scheme));
    let mut out: Vec<_> = found
        .filter_map(|(at, scheme)| {
            let from = at + scheme.len();
            let length = word(text.get(from..)?);
            // "Bearer token", "Basic settings": words of a sentence.
            (length >= 16 || text.get(from..from + length)?.contains(|c: char| c.is_ascii_digit()))
                .then_some(from..from + length)
        })
        .collect();
    out.sort_by_key(|range| range.start);
    out
}

/// The length of a value without quotes.
fn word(text: &str) -> usize {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '&' | '}' | ')' | ']');
    text.find(ends).unwrap_or(text.len())
}

/// Values behind a name that says what they are: `password=x`, `"token": "x"`, `CSRFPreventionToken: 6A..`.
fn named(text: &str) -> Vec<Range<usize>> {
    let lower = text.to_ascii_lowercase();
    let mut out: Vec<Range<usize>> = Vec::new();
    for name in NAMES {
        for (at, _) in lower.match_indices(name) {
            if let Some(range) = value(text, at + name.len()) {
                out.push(range);
            }
        }
    }
    out.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    let mut end = 0;
    out.retain(|range| {
        let free = range.start >= end;
        end = end.max(range.end);
        free
    });
    out
}

/// The value behind a name that ends at `at`, where there is one and it is no word of a sentence.
fn value(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = text.get(at..)?;
    let bare = rest.trim_start_matches(['"', '\'', '\\']);
    let bare = if bare.starts_with([' ', '\t']) { bare.trim_start_matches([' ', '\t']) } else { bare };
    let sign = bare.chars().next().filter(|c| matches!(c, '=' | ':'))?;
    let behind = bare.get(1..)?;
    let value = behind.trim_start_matches([' ', '\t']);
    let quoted = value.trim_start_matches('\\');
    let (value, quote) = match quoted.chars().next() {
        Some(quote @ ('"' | '\'')) => (quoted.get(1..)?, Some(quote)),
        _ => (value, None),
    };
    let from = text.len() - value.len();
    let length = match quote {
        Some(quote) => value.find([quote, '\n', '\\']).unwrap_or(value.len()),
        None => word(value),
    };
    let found = value.get(..length)?;
    let secret = match (sign, quote) {
        (_, Some(_)) => true,
        ('=', None) => value.len() == behind.len(),
        // A colon stands in sentences, too: `the token: not found`.
        _ => {
            let last = value.get(length..).is_some_and(|rest| rest.is_empty() || rest.starts_with('\n'));
            (found.len() >= 6 && found.contains(|c: char| c.is_ascii_digit())) || (last && found.len() >= 8)
        }
    };
    (secret && !found.is_empty() && !found.starts_with(['{', '[', '$', '|', '>'])).then_some(from..from + length)
}

/// Long words of letters and digits without any order: keys and tokens. Hexadecimal digests and ids, public keys and
/// their fingerprints stay.
fn tokens(text: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut from = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (c.is_ascii_alphanumeric(), from) {
            (true, None) => from = Some(at),
            (false, Some(start)) => {
                let run = text.get(start..at).unwrap_or_default();
                let head = text.get(..start).unwrap_or_default();
                let public = run.starts_with("AAAA") || head.ends_with("SHA256:") || in_public_key(head);
                if !public && is_random(run) {
                    out.push(start..at);
                }
                from = None;
            }
            _ => {}
        }
    }
    out
}

/// True within the base64 of a public ssh key or of a fingerprint, whose parts `+` and `/` divide.
fn in_public_key(head: &str) -> bool {
    let start = head.rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')));
    let (before, word) = head.split_at_checked(start.map_or(0, |at| at + 1)).unwrap_or((head, ""));
    word.starts_with("AAAA") || (before.ends_with("SHA256:") && !word.is_empty())
}

fn is_random(run: &str) -> bool {
    let class = |b: u8| if b.is_ascii_uppercase() { 0 } else { 1 + u8::from(b.is_ascii_digit()) };
    let count = |wanted: u8| run.bytes().filter(|b| class(*b) == wanted).count();
    let turns = run.bytes().zip(run.bytes().skip(1)).filter(|(a, b)| class(*a) != class(*b)).count();
    run.len() >= 20 && count(0) >= 2 && count(1) >= 2 && count(2) >= 1 && turns * 4 >= run.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_once_and_for_all() {
        let cases = [
            ("password=hunter2&user=root%40pam", "password=…&user=root%40pam"),
            (r#"{"user":"a","password":"x y"}"#, r#"{"user":"a","password":"…"}"#),
            (r#"said {\"token\":\"x y\"}"#, r#"said {\"token\":\"…\"}"#),
            ("Authorization: Bearer abc.def.123", "Authorization: Bearer …"),
            ("Authorization: PVEAPIToken=root@pam!x=0000-1111", "Authorization: PVEAPIToken=…"),
            ("Cookie: PVEAuthCookie=PVE:root@pam:66::x", "Cookie: …"),
            ("CSRFPreventionToken: 66A1:kq", "CSRFPreventionToken: …"),
            ("mqtt-password: swordfish", "mqtt-password: …"),
            ("MQTT_PASSWORD='sword fish' x", "MQTT_PASSWORD='…' x"),
            ("fatal: https://me:pw@git.lan/x.git/", "fatal: https://…@git.lan/x.git/"),
            ("https://ghp_abc@git.lan/x", "https://…@git.lan/x"),
            ("http://me:p@ss@proxy:3128", "http://…@proxy:3128"),
            ("ssh://git:pw@git.lan/x", "ssh://…@git.lan/x"),
            ("key Zk3vQ9xT1bLmC7dRw2Hs5Np8 is wrong", "key … is wrong"),
            (
                "no: AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8 (age-secret-key-1x)",
                "no: AGE-SECRET-KEY-… (age-secret-key-1x)",
            ),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----", ""),
        ];
        for (given, wanted) in cases {
            let once = text(given);
            if wanted.is_empty() {
                assert!(!once.contains("b3Bl"), "{once}");
            } else {
                assert_eq!(once, wanted);
            }
            assert_eq!(text(&once), once);
        }
        assert_eq!(cases.len(), 16);
    }

    #[test]
    fn what_a_person_needs_to_read_stays() {
        let texts = [
            "there is no secret frigate/frigate-secrets: it is missing",
            "cluster home: root@pam was refused: authentication failure",
            "no API token may make this call",
            "the secret file /etc/pvemig/pve-password can be read by others (mode 0644)",
            "add `auth:` with a `ticket:` or a `token:`",
            "write `{ file: PATH }`, `{ env: NAME }` or `{ command: [PROGRAM, ARGUMENT] }`",
            "ssh://git@git.lan/ops/gitops has no branch `main`",
            "[127.0.0.1]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf9y+2kQ3v/8wZr5T0hX7aBcD4eF6gH1iJ2kL3mN4oP",
            "the host shows SHA256:q8Rk2PzV1xYw3uT5sN7mL9kJ+hG0fE2dC4bA6aB8cD0",
            "main@sha1:0123456789abcdef0123456789abcdef01234567",
            "frigate-5d4f8c7b9f-xk2lp: BOOT_IMAGE=/vmlinuz-6.8.0-58-generic",
            "UPID:still-fawn:0003D5E1:01A2B3C4:66A1B2C3:qmreboot:108:root@pam:",
            "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-scsi0",
            "secretName: frigate-secrets-2 and tokenFile: /run/token",
            "preset-nvidia-h264 became preset-vaapi",
        ];
        let kept = texts.iter().filter(|given| text(given) == **given).count();
        assert_eq!(kept, 15, "{:?}", texts.map(text));
    }

    #[test]
    fn what_was_read_as_a_secret_is_taken_out_in_every_form() {
        let secret = Secret::new("p&ss wörd\"7");
        for form in
            ["p&ss wörd\"7", "p%26ss%20w%C3%B6rd%227", "p%26ss+w%C3%B6rd%227", "cCZzcyB3w7ZyZCI3", "p&ss wörd\\\"7"]
        {
            assert_eq!(text(&format!("<{form}>")), "<…>");
        }
        drop(secret);
        // Another thread that takes something out just now holds all of them for that moment.
        let plain = "<p&ss wörd\"7>";
        assert!((0..10_000).any(|_| text(plain) == plain));
    }

    #[test]
    fn encoders_differ_in_what_they_leave_alone() {
        let _secret = Secret::new("kW-a_b.c~d/e*f ö");
        let forms = [
            "kW%2Da%5Fb%2Ec%7Ed%2Fe%2Af%20%C3%B6",
            "kW-a_b.c~d%2Fe%2Af%20%C3%B6",
            "kW-a_b.c~d%2fe%2af%20%c3%b6",
            "kW-a_b.c%7Ed%2Fe*f+%C3%B6",
            "kW-a_b.c~d/e*f%20%C3%B6",
            "kW-a_b.c~d/e*f ö",
        ];
        for form in forms {
            assert_eq!(text(&format!("<{form}>%2")), "<…>%2");
            assert_eq!(text(&format!("{form}{form}")), "……");
        }
        assert_eq!(forms.len(), 6);
        for other in ["kW-a_b.c~d%2Fe%2Af%20%C3", "kW-a_b.c~d%2", "%6B%5", "ö%C3%B6"] {
            assert_eq!(text(other), other);
        }
    }

    #[test]
    fn of_two_secrets_that_begin_alike_the_longer_one_leaves_nothing() {
        let _short = Secret::new("jungfrau-joch");
        let _long = Secret::new("jungfrau-joch-3466-m");
        let _lines = Secret::new("jungfrau-joch-3466-m is a line\nanother");
        let given = "<jungfrau-joch-3466-m> <jungfrau-joch> <jungfrau-joch-3466-m is a line>";
        assert_eq!(text(given), "<…> <…> <…>");
    }
}
