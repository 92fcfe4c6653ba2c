//! A cluster's entries in a kubeconfig: merged in beside what is there (Kubernetes `clientcmd/api/v1`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::base::check::Change;
use crate::base::digest::sha256;
use crate::base::yaml;
use crate::base::yaml::path::Part;
use crate::talos::ClientCertificate;

/// What a kubeconfig has for one cluster.
#[derive(Clone)]
pub(super) struct Entry {
    /// The `cluster` of it: server and authority.
    cluster: Value,
    /// The `user` of it: certificate and key.
    user: Value,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("server", &self.server()).finish_non_exhaustive()
    }
}

impl Entry {
    /// Those of the context that a text is set to, or of its only one.
    ///
    /// # Errors
    /// It is no kubeconfig with such a context; nothing of it is quoted.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let all = parse(text)?;
        let current = all.get("current-context").and_then(Value::as_str).filter(|name| !name.is_empty());
        let only = || match list(&all, "contexts") {
            [one] => one.get("name").and_then(Value::as_str),
            _ => None,
        };
        let name = current.or_else(only).ok_or("it is set to no context")?;
        Self::of(&all, name).ok_or_else(|| format!("it has no context {name} with cluster and user"))
    }

    /// Those of a context.
    ///
    /// # Errors
    /// As [`Entry::read`].
    pub(super) fn named(text: &str, context: &str) -> Result<Self, String> {
        Self::of(&parse(text)?, context).ok_or_else(|| format!("it has no context {context} with cluster and user"))
    }

    /// The client certificate, where it stands there.
    pub(super) fn certificate(&self) -> Option<ClientCertificate> {
        let text = self.user.get("client-certificate-data")?.as_str()?;
        ClientCertificate::of_pem(&STANDARD.decode(text.trim()).ok()?)
    }

    fn of(all: &Value, context: &str) -> Option<Self> {
        let found = named(all, "contexts", context)?.get("context")?;
        let part = |key: &str, from: &str, part: &str| -> Option<Value> {
            named(all, from, found.get(key)?.as_str()?)?.get(part).cloned()
        };
        Some(Self { cluster: part("cluster", "clusters", "cluster")?, user: part("user", "users", "user")? })
    }

    fn server(&self) -> &str {
        self.cluster.get("server").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn authority(&self) -> &str {
        self.cluster.get("certificate-authority-data").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A kubeconfig with the entries of one cluster in it, under this context.
pub(super) struct Merged {
    /// All of it.
    pub(super) text: String,
    /// What differs, a line each; keys and certificates by their digest.
    pub(super) changes: Vec<Change>,
    /// Its text could not be edited and was written anew: comments and layout are gone.
    pub(super) anew: bool,
}

/// Whether a file has a context for the same cluster: the same server, of the same authority. The user's certificate is
/// made anew whenever it is asked for, and does not count.
///
/// # Errors
/// It is no kubeconfig.
pub(super) fn has(text: &str, context: &str, entry: &Entry) -> Result<bool, String> {
    let own = Entry::of(&parse(text)?, context);
    Ok(own.is_some_and(|own| own.server() == entry.server() && own.authority() == entry.authority()))
}

/// The server of a context that leads to another cluster: its authority is another one. None: there is none, or it is the
/// same.
///
/// # Errors
/// It is no kubeconfig.
pub(super) fn other(text: &str, context: &str, entry: &Entry) -> Result<Option<String>, String> {
    let own = Entry::of(&parse(text)?, context);
    Ok(own.filter(|own| own.authority() != entry.authority()).map(|own| own.server().to_owned()))
}

/// Merges a cluster's entries into a file, under a context's name; whatever else is there stays. Entries that other
/// contexts use as well are not written over: it gets its own.
///
/// # Errors
/// The file is no kubeconfig.
pub(super) fn merge(text: Option<&str>, context: &str, entry: &Entry) -> Result<Merged, String> {
    let mut all = match text {
        Some(text) if !text.trim().is_empty() => parse(text)?,
        _ => json!({"apiVersion": "v1", "kind": "Config", "preferences": {}}),
    };
    let was = Entry::of(&all, context);
    let names = |all: &Value, key: &str| {
        let own = named(all, "contexts", context)?.get("context")?.get(key)?.as_str()?.to_owned();
        let shared = |other: &&Value| {
            let it = other.get("context").and_then(|c| c.get(key)).and_then(Value::as_str);
            it == Some(own.as_str()) && other.get("name").and_then(Value::as_str) != Some(context)
        };
        (!list(all, "contexts").iter().any(|other| shared(&other))).then_some(own)
    };
    let free = |all: &Value, from: &str| {
        let taken = |name: &str| named(all, from, name).is_some();
        let mut name = context.to_owned();
        while taken(&name) {
            name.push('-');
        }
        name
    };
    let cluster = names(&all, "cluster").unwrap_or_else(|| free(&all, "clusters"));
    let user = names(&all, "user").unwrap_or_else(|| free(&all, "users"));
    // A namespace that somebody set for it stays.
    let mut own =
        named(&all, "contexts", context).and_then(|it| it.get("context").cloned()).unwrap_or_else(|| json!({}));
    own["cluster"] = json!(cluster);
    own["user"] = json!(user);
    let parts = [
        ("clusters", "cluster", cluster.as_str(), entry.cluster.clone()),
        ("users", "user", user.as_str(), entry.user.clone()),
        ("contexts", "context", context, own),
    ];
    let mut edited = text.filter(|text| !text.trim().is_empty()).map(str::to_owned);
    for (list, key, name, value) in parts {
        if named(&all, list, name).and_then(|it| it.get(key)) == Some(&value) {
            continue;
        }
        edited = edited.and_then(|text| edit(&text, &all, list, key, name, &value));
        put(all.as_object_mut().ok_or("it is no mapping")?, list, json!({"name": name, key: value}))?;
    }
    let mut changes = differences(context, was.as_ref(), entry);
    if all.get("current-context").and_then(Value::as_str).is_none_or(str::is_empty) {
        all["current-context"] = json!(context);
        edited = edited.and_then(|text| yaml::set(&text, 0, &[Part::key("current-context")], &json!(context)).ok());
        changes.push(Change::add("current-context", context));
    }
    // Only what says the same as the values do; whatever else came of it is not written.
    let edited = edited.filter(|text| parse(text).is_ok_and(|read| read == all));
    let anew = edited.is_none() && text.is_some_and(|text| !text.trim().is_empty());
    let text = match edited {
        Some(text) => text,
        None => serde_saphyr::to_string(&all).map_err(|error| format!("it cannot be written: {error}"))?,
    };
    Ok(Merged { text, changes, anew })
}

/// Sets one part of an entry in the text itself, or adds the entry; None where that cannot be done.
fn edit(text: &str, all: &Value, from: &str, key: &str, name: &str, value: &Value) -> Option<String> {
    let there = list(all, from);
    if named(all, from, name).is_some() {
        return yaml::set(text, 0, &[Part::key(from), Part::Named(name.to_owned()), Part::key(key)], value).ok();
    }
    let entry = json!({"name": name, key: value});
    if there.is_empty() {
        return yaml::set(text, 0, &[Part::key(from)], &json!([entry])).ok();
    }
    yaml::set(text, 0, &[Part::key(from), Part::At(there.len())], &entry).ok()
}

fn differences(context: &str, was: Option<&Entry>, is: &Entry) -> Vec<Change> {
    let digest = |value: &str| format!("SHA-256 {}", sha256(value.as_bytes()).get(..12).unwrap_or_default());
    let user = |entry: &Entry| digest(&entry.user.to_string());
    let Some(was) = was else {
        return vec![
            Change::add(format!("context {context}: server"), is.server()),
            Change::add(format!("context {context}: authority"), digest(is.authority())),
            Change::add(format!("context {context}: user"), user(is)),
        ];
    };
    let lines = [
        ("server", was.server().to_owned(), is.server().to_owned()),
        ("authority", digest(was.authority()), digest(is.authority())),
        ("user", user(was), user(is)),
    ];
    let differ = lines.into_iter().filter(|(_, was, is)| was != is);
    differ.map(|(what, was, is)| Change::set(format!("context {context}: {what}"), was, is)).collect()
}

fn parse(text: &str) -> Result<Value, String> {
    let all: Value = serde_saphyr::from_str(text).map_err(|_| "it is no YAML".to_owned())?;
    if all.is_object() { Ok(all) } else { Err("it is no kubeconfig".into()) }
}

fn list<'a>(all: &'a Value, key: &str) -> &'a [Value] {
    all.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn named<'a>(all: &'a Value, from: &str, name: &str) -> Option<&'a Value> {
    list(all, from).iter().find(|it| it.get("name").and_then(Value::as_str) == Some(name))
}

/// Puts an entry in the place of the one with its name, or behind all others.
fn put(map: &mut Map<String, Value>, key: &str, entry: Value) -> Result<(), String> {
    let all = map.entry(key).or_insert_with(|| json!([]));
    if all.is_null() {
        *all = json!([]);
    }
    let all = all.as_array_mut().ok_or_else(|| format!("`{key}` is no list"))?;
    match all.iter_mut().find(|it| it.get("name") == entry.get("name")) {
        Some(place) => *place = entry,
        None => all.push(entry),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, server: &str, ca: &str, key: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c-{name}\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: u-{name}\n  user:\n    client-key-data: {key}\ncontexts:\n- name: \
             {name}\n  context:\n    cluster: c-{name}\n    user: u-{name}\ncurrent-context: {name}\n"
        )
    }

    #[test]
    fn a_cluster_is_merged_beside_others_and_twice_is_once() {
        let fetched = Entry::read(&config("admin@homelab", "https://a:6443", "Y2E=", "a2V5")).unwrap();
        let old = config("work", "https://w:6443", "d29yaw==", "d29ya2tleQ==");
        let first = merge(Some(&old), "homelab", &fetched).unwrap();
        assert_eq!((first.changes.len(), first.changes[0].to_string().contains("https://a:6443")), (3, true));
        let all = parse(&first.text).unwrap();
        assert_eq!(["clusters", "users", "contexts"].map(|key| list(&all, key).len()), [2, 2, 2]);
        assert_eq!(all["current-context"], "work");
        assert!(has(&first.text, "homelab", &fetched).unwrap() && !has(&old, "homelab", &fetched).unwrap());
        assert!(Entry::of(&all, "work").is_some_and(|work| work.server() == "https://w:6443"));
        let second = merge(Some(&first.text), "homelab", &fetched).unwrap();
        assert_eq!((second.text, second.changes, first.anew), (first.text.clone(), Vec::new(), false));
        // Another certificate of the same user says nothing about the cluster; another authority does.
        let anew = Entry::read(&config("x", "https://a:6443", "Y2E=", "bmV3")).unwrap();
        assert!(has(&first.text, "homelab", &anew).unwrap());
        let other = Entry::read(&config("x", "https://a:6443", "b3RoZXI=", "a2V5")).unwrap();
        assert!(!has(&first.text, "homelab", &other).unwrap());
        assert_eq!(super::other(&first.text, "homelab", &other), Ok(Some("https://a:6443".into())));
        assert_eq!(super::other(&first.text, "homelab", &anew), Ok(None));
        assert_eq!(super::other(&first.text, "none", &anew), Ok(None));
        let third = merge(Some(&first.text), "homelab", &other).unwrap();
        assert_eq!(third.changes.len(), 1);
        assert!(!third.changes[0].to_string().contains("b3RoZXI="), "{}", third.changes[0]);
    }

    #[test]
    fn a_new_file_is_set_to_it_and_shared_entries_are_not_written_over() {
        let fetched = Entry::read(&config("x", "https://a:6443", "Y2E=", "a2V5")).unwrap();
        for empty in [None, Some(""), Some("clusters: null\nusers: null\n")] {
            let merged = merge(empty, "homelab", &fetched).unwrap();
            assert_eq!(
                (parse(&merged.text).unwrap()["current-context"].as_str(), merged.changes.len()),
                (Some("homelab"), 4)
            );
        }
        let mut all = parse(&config("homelab", "https://old:6443", "b2xk", "b2xk")).unwrap();
        all["contexts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "second", "context": {"cluster": "c-homelab", "user": "u-homelab"}}));
        let merged = merge(Some(&serde_saphyr::to_string(&all).unwrap()), "homelab", &fetched).unwrap();
        let now = parse(&merged.text).unwrap();
        assert_eq!(Entry::of(&now, "second").unwrap().server(), "https://old:6443");
        assert_eq!(Entry::of(&now, "homelab").unwrap().server(), "https://a:6443");
    }

    #[test]
    fn comments_and_layout_survive_a_merge() {
        let fetched = Entry::read(&config("x", "https://a:6443", "Y2E=", "a2V5")).unwrap();
        let work = config("work", "https://w:6443", "d29yaw==", "d29ya2tleQ==");
        let noted = format!("# mine\n{}", work.replace("server: https://w:6443", "server: https://w:6443 # by VPN"));
        let indented = "# mine\nkind: Config\nclusters:\n  - cluster:\n      server: https://w:6443 # by VPN\n    name: w\n\
                        contexts: []\nusers:\n  # nobody\n  - name: w\n    user: {}\ncurrent-context: \"\"\n";
        for text in [noted.as_str(), indented] {
            let merged = merge(Some(text), "homelab", &fetched).unwrap();
            assert!(!merged.anew, "{}", merged.text);
            for kept in text.lines().filter(|line| line.contains('#')) {
                assert!(merged.text.lines().any(|line| line == kept), "{kept}\n{}", merged.text);
            }
            assert!(has(&merged.text, "homelab", &fetched).unwrap());
            // Another server of the same cluster, over it.
            let moved = Entry::read(&config("x", "https://b:6443", "Y2E=", "a2V5")).unwrap();
            let again = merge(Some(&merged.text), "homelab", &moved).unwrap();
            assert!(
                !again.anew && again.text.contains("# by VPN") && !again.text.contains("https://a:6443"),
                "{}",
                again.text
            );
        }
        // Whatever the form: what is written says the same.
        for odd in ["clusters: &a []\nusers: *a\ncontexts: []\n", "{\"clusters\": [], \"users\": [], \"contexts\": []}"]
        {
            let merged = merge(Some(odd), "homelab", &fetched).unwrap();
            assert!(has(&merged.text, "homelab", &fetched).unwrap(), "{}", merged.text);
        }
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused_without_a_word_of_it() {
        for text in ["- a\n", "secret: [", "kind: Config\n"] {
            let error = Entry::read(text).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        let fetched = Entry::read(&config("x", "https://a:6443", "Y2E=", "a2V5")).unwrap();
        assert!(merge(Some("clusters: 7\n"), "x", &fetched).is_err() && merge(Some("[]"), "x", &fetched).is_err());
        assert!(!format!("{fetched:?}").contains("a2V5"));
    }
}
