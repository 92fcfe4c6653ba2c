//! Runs whose journal does not hold: what is said of them, and how an operator who has looked gives one up.

use std::io;
use std::path::Path;

use crate::engine::event::Opened;
use crate::engine::journal::JournalError;
use crate::engine::store::{RunRead, StoreError};

use super::exit::Exit;
use super::out::Out;
use super::session::Session;

/// Where the marks of holds show, whatever became of the journals. Kinds that the cluster does not have are left out.
pub(super) const MARKS: &str = "kubectl get deployments,statefulsets,nodes,kustomizations,helmreleases,imageupdateautomations -A \
                     -o yaml | grep pvemig.io/hold";

/// What to do about an error of the state directory.
pub(super) fn help(error: &StoreError) -> Vec<String> {
    let trouble = |path: &Path, source: &io::Error| {
        // What was to be made is not there to be looked at: what it is to be made in is.
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("make room: `df -h {}`", there.display())
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                format!("it must be yours to read and write: `ls -ld {}`", there.display())
            }
            _ => format!("see what is there: `ls -ld {}`", there.display()),
        }
    };
    let stay = "another state directory would know nothing of the open runs and their holds".to_owned();
    match error {
        StoreError::NoRun { .. } | StoreError::Ambiguous { .. } => {
            vec!["`pvemig status --all` lists the runs".to_owned()]
        }
        StoreError::Empty { run } => vec![
            format!(
                "what it may have left shows by its marks: `{MARKS}`; `pvemig plan MIGRATION` shows how everything stands"
            ),
            format!("then `pvemig abandon {run} --comment '...'`: the next run takes over what its marks hold"),
        ],
        StoreError::Journal(JournalError::BadLine { path, .. }) | StoreError::Illegal { path, .. } => {
            let run = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            // In front of its first line there is nothing to show.
            let first = match error {
                StoreError::Journal(JournalError::BadLine { line, .. }) => *line <= 1,
                StoreError::Illegal { source, .. } => source.line <= 1,
                _ => false,
            };
            let readable = if first {
                "nothing of it can be read; until it is mended nothing is changed".to_owned()
            } else {
                format!("`pvemig report {run}` shows what can be read of it; until it is mended nothing is changed")
            };
            vec![
                readable,
                format!("put {} back from a backup, or look at what the run holds: `{MARKS}`", path.display()),
                format!(
                    "then `pvemig abandon {run} --comment '...'`: the damaged file is kept beside a new one, and the \
                     next run takes over what its marks hold"
                ),
            ]
        }
        StoreError::Journal(JournalError::Format { .. }) => {
            vec!["use the version of pvemig that wrote it".to_owned()]
        }
        StoreError::Io { path, source, .. } | StoreError::Journal(JournalError::Io { path, source, .. }) => {
            vec![trouble(path, source), stay]
        }
        StoreError::Journal(JournalError::Poisoned { .. }) => vec![stay],
        StoreError::Held { .. } | StoreError::BadFileName(_) => Vec::new(),
    }
}

/// A run, as far as its journal can be read, and whether that is all of it.
pub(super) fn readable(session: &Session, given: &str) -> anyhow::Result<(RunRead, bool)> {
    let dir = session.store.run(given)?;
    let why = match dir.read() {
        Ok(run) => return Ok((run, true)),
        Err(why) => why,
    };
    match dir.good_part().filter(|_| why.is_damage()) {
        Some(good) => {
            session.out.say(&format!("notice: {why}"));
            session.out.say("notice: this is what can be read before it; what came after is not known");
            Ok((good, false))
        }
        None => Err(why.into()),
    }
}

/// Gives up a run whose journal does not hold; None where it holds.
pub(super) fn abandon(session: &Session, given: &str, comment: &str, out: &Out) -> anyhow::Result<Option<Exit>> {
    let dir = session.store.run(given)?;
    let why = match dir.read() {
        Ok(_) => return Ok(None),
        Err(why) if why.is_damage() => why,
        Err(why) => return Err(why.into()),
    };
    let _lock = session.lock(dir.id())?;
    let good = dir.good_part();
    let stand_in = Opened {
        tool: env!("CARGO_PKG_VERSION").into(),
        site: session.site.name.clone(),
        site_digest: session.site.digest.clone(),
        migration: None,
        blueprint: "(lost)".into(),
        blueprint_version: 0,
        single: false,
        argv: std::env::args().collect(),
        host: session.host.clone(),
        plan: Vec::new(),
    };
    let Some(given_up) = dir.give_up(session.clock.now(), stand_in, comment)? else { return Ok(None) };
    out.say(&format!("notice: {why}"));
    if let Some(kept) = &given_up.kept {
        out.say(&format!("notice: the damaged journal is kept as {}", kept.display()));
    }
    out.say(&format!("run {} is abandoned; what it did stays, and is not known in full", dir.id()));
    let up: Vec<_> = good.iter().flat_map(|run| run.state.holds_up()).map(ToString::to_string).collect();
    if !up.is_empty() {
        out.say(&format!("  held when its journal was last good: {}", up.join(", ")));
    }
    out.say(&format!("  what is held shows by its marks: `{MARKS}`"));
    out.say("  a new run of the same migration takes these holds over");
    Ok(Some(Exit::Done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_mends_the_state_directory_and_names_no_other() {
        let path = || Path::new("/state/home/runs/7k2/journal.jsonl").to_owned();
        let refused = |kind: io::ErrorKind| StoreError::Io { path: path(), what: "cannot open", source: kind.into() };
        let bad = JournalError::BadLine { path: path(), line: 3, rule: "the checksum does not match".into() };
        let full =
            JournalError::Io { path: path(), what: "cannot write a line", source: io::ErrorKind::StorageFull.into() };
        let first = JournalError::BadLine { path: path(), line: 1, rule: "it is no JSON".into() };
        assert!(!help(&first.into()).concat().contains("pvemig report"));
        let newer = JournalError::Format { path: path(), line: 1, found: 7 };
        let cases: [(StoreError, &[&str]); 6] = [
            (
                refused(io::ErrorKind::PermissionDenied),
                // The nearest that is there to be looked at.
                &["yours to read and write: `ls -ld /`"],
            ),
            (refused(io::ErrorKind::NotADirectory), &["see what is there"]),
            (full.into(), &["make room"]),
            (bad.into(), &["`pvemig report 7k2`", "backup", "`pvemig abandon 7k2 --comment", "kubectl get"]),
            (newer.into(), &["version of pvemig"]),
            (
                StoreError::Empty { run: "7k2".into() },
                &["kubectl get", "`pvemig plan MIGRATION`", "`pvemig abandon 7k2 --comment"],
            ),
        ];
        for (error, words) in &cases {
            let help = help(error).join("\n");
            for word in *words {
                assert!(help.contains(word), "{error}: {help}");
            }
            assert!(!help.contains("--state") && !help.contains("nothing is owed"), "{error}: {help}");
        }
    }
}
