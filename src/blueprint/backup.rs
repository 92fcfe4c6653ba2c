//! What is kept of a cluster before its machines change: a snapshot of etcd, and files that may be for one person alone.

use std::path::Path;

use crate::base::age::{Encryptor, Failed, Recipient};
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::Permit;
use crate::blueprint::quorum::{Etcd, Peer, amiss};
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::talos::Snapshot;

/// What is put behind the name of a file that is encrypted.
pub const AGE: &str = ".age";

/// A voter that is well; the one that is named only where there is no other.
pub fn voter(etcd: &Etcd, peers: &[Peer], not: &str) -> Option<String> {
    let well = |name: &&str| etcd.knows(name) && amiss(name, etcd).is_none();
    let names = || peers.iter().map(|peer| peer.name.as_str());
    let other = names().filter(|name| *name != not).find(well);
    other.or_else(|| names().find(well)).map(str::to_owned)
}

/// A snapshot of the etcd of this node, whose digest is that of its content. `name` names it in errors.
///
/// # Errors
/// What keeps the node from giving one that counts.
pub async fn snapshot(cx: &Estate, node: &str, name: &str) -> Result<(Snapshot, Vec<u8>), Failure> {
    let (talos, mut bytes) = (cx.talos(node).await?, Vec::new());
    let taken = talos.etcd_snapshot_into(&mut bytes, Path::new(name)).await?;
    Ok((taken, bytes))
}

/// Stores a run file: as it is, or where there are recipients under another name for them alone. The name.
///
/// # Errors
/// The journal cannot be written, or nothing can be encrypted to these.
pub fn sealed(permit: &Permit, name: &str, bytes: &[u8], recipients: &[Recipient]) -> Result<String, Failure> {
    if recipients.is_empty() {
        permit.file(name, bytes)?;
        return Ok(name.to_owned());
    }
    let name = format!("{name}{AGE}");
    let file = for_them(bytes, recipients).map_err(|error| {
        let help = "correct `recipients` of the migration; `age-keygen -y KEYFILE` prints one".to_owned();
        Failure::plain(format!("{name}: {error}"), Some(help))
    })?;
    permit.file(&name, &file)?;
    Ok(name)
}

/// A file that these alone can read.
fn for_them(bytes: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, Failed> {
    let (mut age, mut file) = Encryptor::new(recipients)?;
    age.write(bytes, &mut file)?;
    age.finish(&mut file)?;
    Ok(file)
}

/// A run file of a step of this run. `what`: what it is, in an error.
///
/// # Errors
/// It is there and cannot be read, or is not what was written.
pub fn kept(run: &RunInfo, step: &str, name: &str, what: &str) -> Result<Option<Vec<u8>>, Failure> {
    run.file(&StepKey::new(step, None), name).map_err(|error| {
        let help = "`pvemig abandon` this run, and begin another one, which takes a snapshot of its own";
        Failure::plain(format!("{what} of this run cannot be read: {error}"), Some(help.into()))
    })
}

/// Where a run file is, for a person.
pub fn place(run: &RunInfo, step: &str, name: &str) -> String {
    let key = StepKey::new(step, None);
    let path = run.files.as_ref().map(|files| files.join(key.as_str()).join(name).display().to_string());
    path.unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_for_its_recipients_alone() {
        let to = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa".parse().unwrap();
        let file = for_them(b"the secrets of a cluster", &[to]).unwrap();
        assert!(file.starts_with(b"age-encryption.org/v1\n"));
        assert!(!file.windows(7).any(|part| part == b"secrets"));
        // To nobody: nothing is written.
        assert_eq!(for_them(b"x", &[]), Err(Failed));
    }
}
