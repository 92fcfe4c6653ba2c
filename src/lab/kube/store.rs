//! Objects, their versions, and what happened to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fields::{self, Writer};
use super::json::{self, text};
use super::kinds::{self, Kind};

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// API group.
    pub group: &'static str,
    /// Plural.
    pub resource: &'static str,
    /// Namespace; empty where the kind has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object of `kind`.
    pub fn new(kind: &Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.namespaced { namespace.to_owned() } else { String::new() };
        Self { group: kind.group, resource: kind.resource, namespace, name: name.to_owned() }
    }

    /// The key of an object that says itself what it is.
    pub fn of(object: &Value) -> Option<Self> {
        let kind = kinds::of(text(object, "/apiVersion"), text(object, "/kind"))?;
        Some(Self::new(kind, json::namespace(object), json::name(object)))
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Change {
    /// The resource version that it made.
    pub revision: u64,
    /// Which object.
    pub key: Key,
    /// What was before; none: it is new.
    pub before: Option<Arc<Value>>,
    /// What is now, or the last that was; see `gone`.
    pub after: Arc<Value>,
    /// It was removed.
    pub gone: bool,
}

/// How many changes a watch can look back.
const MEMORY: usize = 5_000;

/// All objects of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Change>,
    revision: u64,
    /// The revision of the last change of a kind, by group and plural.
    touched: BTreeMap<(&'static str, &'static str), u64>,
    forgotten: u64,
    made: u64,
    /// The present, as objects write it: `2026-01-31T12:00:00Z`.
    pub now: String,
}

impl Store {
    /// The newest resource version.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether an object of one of these kinds has changed after a resource version.
    pub fn changed_since(&self, revision: u64, kinds: &[&'static Kind]) -> bool {
        kinds.iter().any(|k| self.touched.get(&(k.group, k.resource)).is_some_and(|at| *at > revision))
    }

    /// An object.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&Key::new(kind, namespace, name))
    }

    /// An object by key.
    pub fn at(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a kind, by namespace and name; of one namespace where one is given.
    pub fn list<'a>(&'a self, kind: &'static Kind, namespace: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Value>> {
        let from = Key::new(kind, namespace.unwrap_or_default(), "");
        self.objects
            .range(from..)
            .take_while(move |(k, _)| {
                k.group == kind.group
                    && k.resource == kind.resource
                    && namespace.is_none_or(|n| !kind.namespaced || k.namespace == n)
            })
            .map(|(_, object)| object)
    }

    /// Copies of the objects of a kind, for controllers that change the store while they look.
    pub fn all(&self, kind: &'static Kind) -> Vec<Arc<Value>> {
        self.list(kind, None).cloned().collect()
    }

    /// Every object.
    pub fn everything(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Changes after a resource version; `None` where they are no longer all known.
    pub fn since(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        // From before what is remembered, or of a later time that never was.
        if revision < self.forgotten || revision > self.revision {
            return None;
        }
        let first = self.log.partition_point(|c| c.revision <= revision);
        Some(self.log.range(first..))
    }

    /// Forgets all changes so far: watches from before are answered 410, as after a compaction.
    pub fn compact(&mut self) {
        self.log.clear();
        self.forgotten = self.revision;
    }

    /// The newest resource version, and every object.
    pub fn contents(&self) -> (u64, Vec<Value>) {
        (self.revision, self.objects.values().map(|object| Value::clone(object)).collect())
    }

    /// Makes the objects what they were at a resource version. Nobody who watches can go on from there.
    pub fn restore(&mut self, revision: u64, objects: Vec<Value>) {
        let keyed = |object: Value| Some((Key::of(&object)?, Arc::new(object)));
        self.objects = objects.into_iter().filter_map(keyed).collect();
        self.log.clear();
        self.touched.clear();
        (self.revision, self.forgotten) = (revision, revision);
    }

    /// Letters and digits as in generated names. The same world makes the same ones.
    pub fn suffix(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        self.digest()
            .iter()
            .take(length)
            .map(|b| char::from(LETTERS.get(usize::from(*b) % LETTERS.len()).copied().unwrap_or(b'x')))
            .collect()
    }

    fn digest(&mut self) -> [u8; 32] {
        self.made += 1;
        Sha256::digest(format!("lab object {}", self.made)).into()
    }

    /// A new uid.
    pub fn uid(&mut self) -> String {
        let hex: String = self.digest().iter().take(16).map(|b| format!("{b:02x}")).collect();
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
    }

    /// Adds an object that is not there yet; sets what the server sets.
    pub fn insert(&mut self, kind: &'static Kind, mut object: Value, writer: Writer<'_>) -> Arc<Value> {
        let key = Key::new(kind, json::namespace(&object), json::name(&object));
        let had_entries = object.pointer("/metadata/managedFields").is_some();
        let uid = self.uid();
        json::set(&mut object, &["metadata", "uid"], uid);
        json::set(&mut object, &["metadata", "creationTimestamp"], self.now.as_str());
        if has_generation(kind) {
            json::set(&mut object, &["metadata", "generation"], 1);
        }
        if !had_entries {
            fields::book(kind.custom, &Value::Null, &mut object, writer, &self.now);
        }
        self.put(key, None, object)
    }

    /// Replaces an object that is there. What the server sets stays; nothing happens where nothing differs. An object
    /// that is being deleted and has lost its last finalizer goes.
    pub fn replace(
        &mut self,
        kind: &'static Kind,
        mut object: Value,
        writer: Option<Writer<'_>>,
    ) -> Option<Arc<Value>> {
        let key = Key::new(kind, json::namespace(&object), json::name(&object));
        let old = self.objects.get(&key)?.clone();
        for field in ["uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp"] {
            keep(&old, &mut object, field);
        }
        if writer.is_some() {
            keep(&old, &mut object, "managedFields");
        }
        if *old == object {
            return Some(old);
        }
        if has_generation(kind) && wanted_differs(&old, &object) {
            let generation = json::int(&old, "/metadata/generation").unwrap_or_default() + 1;
            json::set(&mut object, &["metadata", "generation"], generation);
        }
        if let Some(writer) = writer {
            fields::book(kind.custom, &old, &mut object, writer, &self.now);
        }
        let finished = json::deleting(&object) && finalizers(&object).is_empty() && kind != kinds::pods();
        let new = self.put(key.clone(), Some(old), object);
        if finished && kind != kinds::namespaces() {
            self.remove(&key);
        }
        Some(new)
    }

    /// Changes an object in place; nothing where it is gone.
    pub fn edit(&mut self, kind: &'static Kind, object: &Value, writer: Writer<'_>, change: impl FnOnce(&mut Value)) {
        let key = Key::new(kind, json::namespace(object), json::name(object));
        let Some(present) = self.objects.get(&key) else { return };
        if json::uid(present) != json::uid(object) {
            return;
        }
        let mut new = Value::clone(present);
        change(&mut new);
        // Controllers say again and again what is so already.
        if **present != new {
            self.replace(kind, new, Some(writer));
        }
    }

    /// Marks an object as being deleted, or removes it at once where nothing holds it back. `grace`: seconds that its
    /// containers are given; pods only.
    pub fn delete(&mut self, key: &Key, grace: i64) -> Option<Arc<Value>> {
        let old = self.objects.get(key)?.clone();
        let waits = grace > 0 || !finalizers(&old).is_empty() || key.resource == "namespaces";
        if !waits {
            return self.remove(key);
        }
        let mut new = Value::clone(&old);
        let shorter = json::int(&old, "/metadata/deletionGracePeriodSeconds").is_none_or(|g| grace < g);
        if json::deleting(&old) && !shorter {
            return Some(old);
        }
        let at = self.later(grace);
        json::set(&mut new, &["metadata", "deletionTimestamp"], at);
        json::set(&mut new, &["metadata", "deletionGracePeriodSeconds"], grace);
        if key.resource == "namespaces" {
            json::set(&mut new, &["status", "phase"], "Terminating");
        }
        if let Some(generation) = json::int(&new, "/metadata/generation") {
            json::set(&mut new, &["metadata", "generation"], generation + 1);
        }
        Some(self.put(key.clone(), Some(old), new))
    }

    /// Removes an object for good.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        self.revision += 1;
        let mut last = Value::clone(&old);
        json::set(&mut last, &["metadata", "resourceVersion"], self.revision.to_string());
        let after = Arc::new(last);
        self.note(Change {
            revision: self.revision,
            key: key.clone(),
            before: Some(old),
            after: after.clone(),
            gone: true,
        });
        Some(after)
    }

    /// The time that lies `seconds` after the present.
    fn later(&self, seconds: i64) -> String {
        let now: Option<jiff::Timestamp> = self.now.parse().ok();
        now.and_then(|t| t.checked_add(jiff::SignedDuration::from_secs(seconds)).ok())
            .map_or_else(|| self.now.clone(), |t| t.to_string())
    }

    fn put(&mut self, key: Key, before: Option<Arc<Value>>, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        json::set(&mut object, &["metadata", "resourceVersion"], self.revision.to_string());
        let after = Arc::new(object);
        self.objects.insert(key.clone(), after.clone());
        self.note(Change { revision: self.revision, key, before, after: after.clone(), gone: false });
        after
    }

    fn note(&mut self, change: Change) {
        self.touched.insert((change.key.group, change.key.resource), change.revision);
        self.log.push_back(change);
        if self.log.len() > MEMORY
            && let Some(oldest) = self.log.pop_front()
        {
            self.forgotten = oldest.revision;
        }
    }
}

fn keep(old: &Value, new: &mut Value, field: &str) {
    let kept = old.get("metadata").and_then(|m| m.get(field));
    if kept == new.get("metadata").and_then(|m| m.get(field)) {
        return;
    }
    match kept {
        Some(value) => json::set(new, &["metadata", field], value.clone()),
        None => {
            json::unset(new, &["metadata", field]);
        }
    }
}

/// Whether the server counts generations of this kind.
pub(crate) fn has_generation(kind: &Kind) -> bool {
    !matches!(kind.group, "" | "coordination.k8s.io" | "storage.k8s.io" | "node.k8s.io" | "rbac.authorization.k8s.io")
}

fn wanted_differs(old: &Value, new: &Value) -> bool {
    let wanted = |v: &Value| -> BTreeMap<String, Value> {
        let all = v.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"));
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    wanted(old) != wanted(new)
}

/// The finalizers of an object.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    json::list(object, "/metadata/finalizers").iter().filter_map(Value::as_str).collect()
}

/// Removes a finalizer in place.
pub(crate) fn drop_finalizer(object: &mut Value, name: &str) {
    let left: Vec<Value> =
        json::list(object, "/metadata/finalizers").iter().filter(|f| f.as_str() != Some(name)).cloned().collect();
    if left.is_empty() {
        json::unset(object, &["metadata", "finalizers"]);
    } else {
        json::set(object, &["metadata", "finalizers"], left);
    }
}

/// Adds a finalizer in place.
pub(crate) fn add_finalizer(object: &mut Value, name: &str) {
    if !finalizers(object).contains(&name) {
        let mut all = json::list(object, "/metadata/finalizers").to_vec();
        all.push(name.into());
        json::set(object, &["metadata", "finalizers"], all);
    }
}
