//! The newest snapshot of etcd: that it is whole, of this etcd, and how old.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;

use crate::base::private;
use crate::base::shelf::{DIGEST, SEALED, begins_sealed, look, taken};

use super::Kept;

/// How old the newest one may be, in hours: whoever keeps none newer has none to go back to.
const OLD: i64 = 7 * 24;

/// A file with its size, and when it was written.
type Version = (PathBuf, u64, i128);

/// What was found in files that have not changed since: a large one is not read again at each look.
static LOOKED: Mutex<BTreeMap<Version, Result<bool, String>>> = Mutex::new(BTreeMap::new());

/// Looks for the newest of this etcd. `ids`: of the members that etcd has now; `by_hand`: the command that takes one. A name
/// tells the cluster's name alone: another one of that name may keep its own in the same directory.
pub(in super::super) async fn snapshot(dir: &Path, cluster: &str, ids: &[u64], by_hand: &str, now: Timestamp) -> Kept {
    let shown = dir.display();
    let ask = format!("take a snapshot of etcd: {by_hand}");
    let found = match named(dir, cluster) {
        Ok(found) => found,
        Err(error) => {
            return Kept::amiss(
                format!("snapshots: {shown} cannot be listed: {error}"),
                format!("`mkdir -p -m 700 {shown}`, and {ask}"),
            );
        }
    };
    let mut others = Vec::new();
    for (name, at) in found {
        let what = format!("snapshot {}", dir.join(&name).display());
        let age = match age(&what, at, now) {
            Ok(age) => age,
            // Whatever is older is too old as well.
            Err(Age::Old(why)) if !others.is_empty() => return foreign(dir, cluster, &others, Some(&why), &ask),
            Err(Age::Old(why)) => return Kept::amiss(why, ask),
            Err(Age::ToCome(why)) => {
                return Kept::amiss(why, format!("look at the clock of this machine (`date -u`), and {ask}"));
            }
        };
        match one(&dir.join(&name), &age, ids, &ask).await {
            Some(kept) => return kept.besides(beside(cluster, &others)),
            None => others.push(name),
        }
    }
    if others.is_empty() {
        return Kept::amiss(format!("snapshots: there is none of {cluster} in {shown}"), ask);
    }
    foreign(dir, cluster, &others, None, &ask)
}

/// How it is with one by itself; None: it is another etcd's.
async fn one(path: &Path, age: &str, ids: &[u64], ask: &str) -> Option<Kept> {
    let shown = path.display();
    let what = format!("snapshot {shown}");
    if path.to_string_lossy().ends_with(SEALED) {
        return Some(match sealed(path) {
            Ok(true) => Kept::good(format!(
                "{what}: {age}, encrypted, so that neither its digest nor whose etcd it is of can be looked at here; that the key \
                 opens it: `age -d -i KEYFILE {shown} | wc -c`"
            )),
            Ok(false) => Kept::amiss(format!("{what} is no age file"), ask),
            Err(error) => Kept::amiss(format!("{what} cannot be read: {error}"), ask),
        });
    }
    if let Err(error) = private::look(path) {
        return Some(Kept::amiss(format!("snapshot: {error}"), format!("`chmod 600 {shown}`")));
    }
    Some(match looked(path, ids).await {
        Ok(true) => {
            Kept::good(format!("{what}: {age}, its digest is right, and it names a member of this etcd; not encrypted"))
        }
        Ok(false) if ids.is_empty() => Kept::good(format!(
            "{what}: {age}, its digest is right; whether it is of this etcd is not known: no member answers"
        )),
        Ok(false) => return None,
        Err(why) => Kept::amiss(format!("{what} cannot be used: {why}"), ask),
    })
}

/// Why the age of one will not do.
enum Age {
    Old(String),
    ToCome(String),
}

/// How old one is, in words.
fn age(what: &str, at: Timestamp, now: Timestamp) -> Result<String, Age> {
    let age = now.duration_since(at);
    match age.as_hours() {
        _ if age.as_secs() < -60 => Err(Age::ToCome(format!("{what} is of a time to come: {at}"))),
        hours if hours >= OLD => Err(Age::Old(format!("{what} is {} days old", hours / 24))),
        0 => Ok(format!("{} minutes old", age.as_secs().max(0) / 60)),
        1 => Ok("1 hour old".into()),
        hours if hours < 48 => Ok(format!("{hours} hours old")),
        hours => Ok(format!("{} days old", hours / 24)),
    }
}

/// What is said of snapshots of the cluster's name that are another etcd's.
fn beside(cluster: &str, others: &[String]) -> Option<String> {
    let newest = others.first()?;
    let more = match others.len() {
        1 => String::new(),
        n => format!(", and {} more", n - 1),
    };
    Some(format!(
        "{newest}{more}: of another etcd, since it names none of the members that {cluster} has now. It is of another cluster of this \
         name, whose snapshots belong into a directory of their own, or of this one before it began anew"
    ))
}

/// There are some, and none of this etcd that counts.
fn foreign(dir: &Path, cluster: &str, others: &[String], old: Option<&str>, ask: &str) -> Kept {
    let old = old.map(|why| format!("; {why}")).unwrap_or_default();
    Kept::amiss(format!("snapshots in {}: {}{old}", dir.display(), beside(cluster, others).unwrap_or_default()), ask)
}

/// Those of the cluster's name, newest first; what is too small to be one does not count.
fn named(dir: &Path, cluster: &str) -> std::io::Result<Vec<(String, Timestamp)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(at) = taken(cluster, &name) else { continue };
        if entry.metadata()?.len() > DIGEST {
            found.push((name, at));
        }
    }
    found.sort_by(|(a, at_a), (b, at_b)| (at_b, b).cmp(&(at_a, a)));
    Ok(found)
}

fn sealed(path: &Path) -> std::io::Result<bool> {
    begins_sealed(std::fs::File::open(path)?)
}

/// Whether it is whole, and names one of the members.
async fn looked(path: &Path, ids: &[u64]) -> Result<bool, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let changed = meta.modified().ok().and_then(|at| Timestamp::try_from(at).ok()).map(Timestamp::as_nanosecond);
    let key = (path.to_owned(), meta.len(), changed.unwrap_or_default());
    let known = LOOKED.lock().ok().and_then(|known| known.get(&key).cloned());
    // Members may have come since.
    if let Some(found) = known.filter(|found| *found != Ok(false)) {
        return found;
    }
    let (path, ids) = (path.to_owned(), ids.to_vec());
    let read = tokio::task::spawn_blocking(move || look(std::fs::File::open(path)?, &ids)).await;
    let found = match read {
        Ok(Ok(look)) => look.broken.map_or(Ok(look.names_one), Err),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    if let Ok(mut known) = LOOKED.lock() {
        known.insert(key, found.clone());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_told_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "home-2026-01-02T000000Z.snapshot",
            "home-2026-01-03T000000Z.snapshot.age",
            "home-2026-01-04T000000Z.snapshot",
            "work-2026-02-01T000000Z.snapshot",
        ];
        for name in names {
            std::fs::write(dir.path().join(name), vec![0; if name.contains("01-04") { 32 } else { 64 }]).unwrap();
        }
        let found: Vec<String> = named(dir.path(), "home").unwrap().into_iter().map(|it| it.0).collect();
        assert_eq!(found, [names[1], names[0]]);
        assert!(!sealed(&dir.path().join(names[1])).unwrap());
        assert!(named(&dir.path().join("none"), "home").is_err());
    }
}
