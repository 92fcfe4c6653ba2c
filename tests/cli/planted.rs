//! Values that are planted, and the search for them.

use std::collections::BTreeMap;

use aho_corasick::AhoCorasick;
use base64::Engine;
use sha2::{Digest, Sha256};

/// What was planted where.
#[derive(Default)]
pub(crate) struct Planted(pub(crate) Vec<(String, String)>);

/// A text that was shown or written, and where.
pub(crate) struct Seen {
    pub(crate) channel: &'static str,
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

impl Planted {
    fn keep(&mut self, place: &str, value: String) -> String {
        assert!(self.0.iter().all(|(known, _)| known != place), "{place}");
        self.0.push((place.to_owned(), value.clone()));
        value
    }

    /// Hexadecimal, as nothing would take it for a secret by its looks.
    pub(crate) fn plain(&mut self, place: &str) -> String {
        let value = Sha256::digest(place).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        self.keep(place, value)
    }

    /// With signs that URLs, forms and JSON write in another way.
    pub(crate) fn awkward(&mut self, place: &str) -> String {
        let value = format!("{}&\"ö-_.~/ {place}", &self.digits(place)[..12]);
        self.keep(place, value)
    }

    /// As most programs make their tokens: letters and digits without any order.
    pub(crate) fn token(&mut self, place: &str) -> String {
        let value = self.digits(place);
        self.keep(place, value)
    }

    fn digits(&self, place: &str) -> String {
        // A letter of each kind and a digit in turn, so that every one of them looks the same.
        const KINDS: [&[u8]; 4] = [b"ABCDEFGHJKLMNPQR", b"abcdefghijkmnopq", b"2345678923456789", b"stuvwxyzSTUVWXYZ"];
        let bytes = Sha256::digest(place);
        let of = |(i, byte): (usize, &u8)| char::from(KINDS[i % 4][usize::from(byte % 16)]);
        bytes.iter().take(26).enumerate().map(of).collect()
    }

    /// A value that was made elsewhere.
    pub(crate) fn known(&mut self, place: &str, value: &str) {
        assert!(value.len() >= 12, "{place}");
        self.keep(place, value.to_owned());
    }

    /// What looks for all of them at once.
    pub(crate) fn search(&self) -> Search {
        let of = |(place, value): &(String, String)| {
            forms(value).into_iter().map(|(form, text)| (place.clone(), form, text)).collect::<Vec<_>>()
        };
        let all: Vec<(String, &'static str, String)> = self.0.iter().flat_map(of).collect();
        let machine = AhoCorasick::new(all.iter().map(|(_, _, text)| text)).unwrap();
        Search { machine, forms: all.into_iter().map(|(place, form, _)| (place, form)).collect() }
    }
}

/// Looks for every form of every value.
pub(crate) struct Search {
    machine: AhoCorasick,
    forms: Vec<(String, &'static str)>,
}

impl Search {
    /// The places whose values are in a text, with a form in which they are.
    pub(crate) fn found(&self, text: &[u8]) -> Vec<String> {
        // A value may lie within another's form.
        let hits = self.machine.find_overlapping_iter(text);
        let found: BTreeMap<_, _> = hits.map(|hit| &self.forms[hit.pattern()]).map(|(p, form)| (p, form)).collect();
        found.into_iter().map(|(place, form)| format!("{place} ({form})")).collect()
    }

    /// Every place found in every text, a line each.
    pub(crate) fn leaks(&self, seen: &[Seen]) -> Vec<String> {
        let of = |seen: &Seen| {
            let found = self.found(&seen.text);
            found.into_iter().map(|place| format!("{}: {}: {place}", seen.channel, seen.name)).collect::<Vec<_>>()
        };
        seen.iter().flat_map(of).collect()
    }
}

/// The forms in which a value can stand in a text.
pub(crate) fn forms(value: &str) -> Vec<(&'static str, String)> {
    let engine = base64::engine::general_purpose::STANDARD;
    let mut forms = vec![("as it is", value.to_owned())];
    // Within a longer text that was encoded as one, its letters fall on three places.
    for offset in 0..3 {
        let whole = engine.encode(format!("{}{value}", "x".repeat(offset)));
        let (from, to) = ((offset * 8).div_ceil(6), (offset + value.len()) * 8 / 6);
        forms.push(("base64", whole[from..to].to_owned()));
    }
    let encode = |keep: &[u8]| {
        let one = |byte: u8| {
            if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        };
        value.bytes().map(one).collect::<String>()
    };
    forms.push(("of a URL", encode(b"-._~")));
    forms.push(("of a form", encode(b"-._~").replace("%20", "+")));
    let json = serde_json::Value::from(value).to_string();
    forms.push(("of JSON", json.trim_matches('"').to_owned()));
    let nested = serde_json::Value::from(json).to_string();
    forms.push(("of JSON in JSON", nested.trim_matches('"').trim_matches('\\').trim_matches('"').to_owned()));
    let bytes: Vec<String> = value.bytes().map(|byte| byte.to_string()).collect();
    forms.push(("a list of bytes", bytes.join(", ")));
    forms.push(("hexadecimal", value.bytes().map(|byte| format!("{byte:02x}")).collect()));
    forms
}

#[test]
fn the_search_finds_every_form() {
    let mut planted = Planted::default();
    let values = [planted.plain("a"), planted.awkward("b c"), planted.token("d")];
    let (mut found, search) = (0, planted.search());
    for value in values {
        for (form, text) in forms(&value) {
            let text = format!("error: <{text}> is wrong");
            assert_eq!(search.found(text.as_bytes()).len(), 1, "{form}");
            found += 1;
        }
        // As a server of basic credentials has it.
        for user in ["a", "bc", "def"] {
            let header = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{value}"));
            assert_eq!(search.found(header.as_bytes()).len(), 1, "{user}");
        }
    }
    assert_eq!((found, search.found(b"nothing of it").len()), (30, 0));
}
