//! The single values of a site file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::check::Home;
use super::fields::{Fields, Item};
use super::secret::SecretRef;

pub(super) const SECRET: &str = "write `{ file: PATH }`, `{ env: NAME }` or `{ command: [PROGRAM, ARGUMENT] }`";

/// Where relative paths start.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) dir: PathBuf,
    pub(super) home: Home,
}

impl Places {
    /// A path, absolute: relative ones start at the site file.
    pub(super) fn path(&self, item: &Item<'_>) -> Option<PathBuf> {
        let text = item.text()?;
        if let Some(rest) = text.strip_prefix("~/") {
            let Some(home) = &self.home else {
                item.problem("`~/` stands for a home directory and $HOME is not set", "write the path in full");
                return None;
            };
            return Some(home.join(rest));
        }
        // `./x` and `x` are the same file and shall be shown the same way.
        Some(self.dir.join(text).components().collect())
    }

    /// A reference to a secret.
    pub(super) fn secret(&self, item: &Item<'_>) -> Option<SecretRef> {
        if !item.value().is_object() {
            // The value may be the secret itself: it is not repeated.
            item.problem("a secret stands in the site file only as a reference", SECRET);
            return None;
        }
        let fields = item.fields(&["env", "file", "command"]);
        let given: Vec<Item<'_>> = ["env", "file", "command"].iter().filter_map(|key| fields.get(key)).collect();
        match given.as_slice() {
            [one] if one.path().ends_with(".env") => one.text().map(|name| SecretRef::Env(name.to_owned())),
            [one] if one.path().ends_with(".file") => self.path(one).map(SecretRef::File),
            [one] => one.texts().map(SecretRef::Command),
            [] => {
                fields.problem("the reference to the secret is empty", SECRET);
                None
            }
            [..] => {
                fields.problem("a secret has one place", SECRET);
                None
            }
        }
    }
}

pub(super) fn keys(fields: &Fields<'_>, key: &str) -> Vec<String> {
    let object = fields.get(key).and_then(|item| item.value().as_object());
    object.into_iter().flat_map(|map| map.keys().cloned()).collect()
}

/// A mapping of names to things; things with problems are left out, their problems are in the sink.
pub(super) fn section<'a, T>(
    fields: &Fields<'a>,
    key: &str,
    mut read: impl FnMut(&str, &Item<'a>) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut out = BTreeMap::new();
    for (name, item) in fields.get(key).map(|item| item.entries()).unwrap_or_default() {
        let good = plain_name(&item, name);
        if let (Some(value), Some(name)) = (read(name, &item), good) {
            out.insert(name, value);
        }
    }
    out
}

/// `url: X` or `urls: [X, Y]`.
pub(super) fn one_or_more<'a, T>(
    fields: &Fields<'a>,
    one: &str,
    more: &str,
    help: &str,
    read: impl Fn(&Item<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    match (fields.get(one), fields.get(more)) {
        (Some(item), None) => read(&item).map(|value| vec![value]),
        (Some(_), Some(item)) => {
            item.problem(format!("`{one}` and `{more}` exclude each other"), format!("put all of them into `{more}`"));
            None
        }
        (None, Some(item)) => {
            let list = item.list()?;
            if list.is_empty() {
                item.problem(format!("`{more}` is an empty list"), help);
                return None;
            }
            let read: Vec<T> = list.iter().filter_map(read).collect();
            (read.len() == list.len()).then_some(read)
        }
        (None, None) => {
            fields.need(one, help);
            None
        }
    }
}

/// None: not given; Some(None): given and wrong.
pub(super) fn transpose<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
    }
}

/// A name that can stand in a URL, a file name and on a command line.
pub(super) fn plain_name(item: &Item<'_>, name: &str) -> Option<String> {
    let good = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if good {
        return Some(name.to_owned());
    }
    item.problem(format!("`{name}` is not a name"), "letters, digits, `-`, `_` and `.`, and no other sign");
    None
}

/// A remote or a branch, as it is given to git: never something that git takes for an option.
pub(super) fn ref_name(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let bad = text.starts_with(['-', '/', '.'])
        || text.ends_with(['/', '.'])
        || text.contains("..")
        || text.contains("@{")
        || text.contains(|c: char| {
            c.is_control() || c.is_whitespace() || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\')
        });
    if bad {
        item.problem(
            format!("`{text}` is not a name that git takes"),
            "write it as `git branch` or `git remote` shows it",
        );
        return None;
    }
    Some(text.to_owned())
}

/// A base URL of the Proxmox API.
pub(super) fn url(item: &Item<'_>) -> Option<String> {
    let help = "write it as `https://pve1.lan:8006`";
    let text = item.text()?;
    let Some(rest) = text.strip_prefix("https://") else {
        item.problem("this does not start with `https://`", help);
        return None;
    };
    let authority = rest.trim_end_matches('/');
    let port = authority.rsplit_once(':').filter(|(host, _)| !host.ends_with(':') && !host.is_empty());
    let good = reqwest::Url::parse(text)
        .is_ok_and(|url| url.path() == "/" && url.query().is_none() && url.username().is_empty());
    if !good || authority.contains(['/', '@', '?', '#']) {
        item.problem("this is not the base URL of a Proxmox API", help);
        return None;
    }
    if !port.is_some_and(|(_, port)| u16::from_str(port).is_ok_and(|port| port > 0)) {
        item.problem(format!("`{text}` has no port"), "Proxmox listens on 8006: add `:8006`, or `:443` behind a proxy");
        return None;
    }
    Some(format!("https://{authority}"))
}

pub(super) fn duration(item: &Item<'_>) -> Option<Duration> {
    let help = "write it as `30s`, `10m` or `1h 30m`";
    let text = item.text()?;
    let read = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    if read.is_none_or(|d| d.is_zero()) {
        item.problem(format!("`{text}` is not a length of time"), help);
        return None;
    }
    read
}
