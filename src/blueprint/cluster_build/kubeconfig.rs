//! A cluster's entries in a kubeconfig: merged in beside what is there (Kubernetes `clientcmd/api/v1`).

use serde_json::{Map, Value, json};

use crate::base::check::Change;
use crate::base::digest::sha256;

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

    fn authority(&self) -> &str {
        self.cluster.get("certificate-authority-data").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A kubeconfig with the entries of one cluster in it, under this context.
pub(super) struct Merged {
    /// All of it.
    pub(super) text: String,
    /// What differs, a line each; keys and certificates by their digest.
    pub(super) changes: Vec<Change>,
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
    let map = all.as_object_mut().ok_or("it is no mapping")?;
    put(map, "clusters", json!({"name": cluster, "cluster": entry.cluster}))?;
    put(map, "users", json!({"name": user, "user": entry.user}))?;
    // A namespace that somebody set for it stays.
    let mut own = map
        .get("contexts")
        .and_then(|all| all.as_array()?.iter().find(|it| it.get("name").and_then(Value::as_str) == Some(context)))
        .and_then(|it| it.get("context").cloned())
        .unwrap_or_else(|| json!({}));
    own["cluster"] = json!(cluster);
    own["user"] = json!(user);
    put(map, "contexts", json!({"name": context, "context": own}))?;
    let mut changes = differences(context, was.as_ref(), entry);
    let unset = map.get("current-context").and_then(Value::as_str).is_none_or(str::is_empty);
    if unset {
        map.insert("current-context".into(), json!(context));
        changes.push(Change::add("current-context", context));
    }
    let text = serde_saphyr::to_string(&all).map_err(|error| format!("it cannot be written: {error}"))?;
    Ok(Merged { text, changes })
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
        assert_eq!((second.text, second.changes), (first.text.clone(), Vec::new()));
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
