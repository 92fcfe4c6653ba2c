//! The state directory: a directory per site with a lock file and a directory per run.
//!
//! ```text
//! STATE/SITE/lock                    held by the one changing run of the site
//! STATE/SITE/runs/7k2/journal.jsonl
//! STATE/SITE/runs/7k2/files/11-recreate-pvcs/...   what is too large or too secret for the journal
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::base::names::StepKey;

use super::event::{Event, Record};
use super::journal::{self, JournalError, private, sync_dir};
use super::lock;
use super::state::{Illegal, RunState};
use super::step::{RunInfo, Standing, filed};

pub use super::damaged::{Damaged, GivenUp};
pub use super::lock::{Holder, SiteLock};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}: {what}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A journal is unreadable.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A journal breaks a rule.
    #[error("{path}, {source}")]
    Illegal {
        /// The file.
        path: PathBuf,
        /// Which line and rule.
        source: Illegal,
    },
    /// A run whose journal has no whole line. Its first one is written before any change; but lines can be lost.
    #[error("the journal of run {run} has no whole line: it ended before its first one, or its lines were lost")]
    Empty {
        /// The run.
        run: String,
    },
    /// Another process holds the site.
    #[error("site {site} is held by a process at work: {holder}")]
    Held {
        /// The site.
        site: String,
        /// Who.
        holder: Box<Holder>,
    },
    /// No run begins with these letters.
    #[error("there is no run `{given}` of site {site}")]
    NoRun {
        /// What was given.
        given: String,
        /// The site.
        site: String,
    },
    /// Several runs do.
    #[error("`{given}` is the beginning of several runs: {}", .runs.join(", "))]
    Ambiguous {
        /// What was given.
        given: String,
        /// The runs.
        runs: Vec<String>,
    },
    /// A file name that would leave its directory.
    #[error("`{0}` cannot be the name of a run file")]
    BadFileName(String),
}

pub(super) fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.to_owned(), what, source }
}

/// How run ids are made.
#[derive(Debug, Clone, Copy)]
pub enum Ids {
    /// At random, as short as stays unique.
    Random,
    /// `001`, `002`, ...: for tests.
    Counted,
}

/// The state of one site.
#[derive(Debug, Clone)]
pub struct Store {
    site: String,
    dir: PathBuf,
    ids: Ids,
}

/// The directory of one run.
#[derive(Debug, Clone)]
pub struct RunDir {
    id: String,
    pub(super) path: PathBuf,
}

/// A run as a reader sees it.
#[derive(Debug)]
pub struct RunRead {
    /// Its id.
    pub id: String,
    /// Its lines.
    pub records: Vec<Record>,
    /// Its state.
    pub state: RunState,
    /// A notice about a torn last line.
    pub torn: Option<String>,
}

impl Store {
    /// The state of `site` under `root`; makes the directories (mode 0700).
    ///
    /// # Errors
    /// The file system refused.
    pub fn open(root: &Path, site: &str, ids: Ids) -> Result<Self, StoreError> {
        let store = Self::at(root, site, ids);
        make_dir(&store.dir.join("runs"))?;
        Ok(store)
    }

    /// As [`Store::open`], to be looked at: nothing is made, and where nothing is there are no runs.
    pub fn at(root: &Path, site: &str, ids: Ids) -> Self {
        Self { site: site.to_owned(), dir: root.join(site), ids }
    }

    /// Takes the site's lock.
    ///
    /// # Errors
    /// [`StoreError::Held`] names the holder.
    pub fn lock(&self, holder: &Holder) -> Result<SiteLock, StoreError> {
        match lock::take(&self.dir.join("lock"), holder)? {
            Ok(lock) => Ok(lock),
            Err(holder) => Err(StoreError::Held { site: self.site.clone(), holder: Box::new(holder) }),
        }
    }

    /// The process that works on a run of the site at this moment, if one does; it does not keep one from beginning.
    ///
    /// # Errors
    /// The lock file cannot be read.
    pub fn at_work(&self) -> Result<Option<Holder>, StoreError> {
        lock::holder(&self.dir.join("lock"))
    }

    /// Makes the directory of a new run.
    ///
    /// # Errors
    /// The file system refused.
    pub fn new_run(&self) -> Result<RunDir, StoreError> {
        let runs = self.dir.join("runs");
        for attempt in 0..64 {
            let id = match self.ids {
                Ids::Counted => format!("{:03}", self.ids_in_use()?.len() + 1 + attempt),
                Ids::Random => random_id(3 + attempt / 8)?,
            };
            let path = runs.join(&id);
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    set_private_dir(&path)?;
                    sync_dir(&runs)?;
                    return Ok(RunDir { id, path });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io(&path, "cannot make the run's directory")(error)),
            }
        }
        Err(io(&runs, "no free run id was found")(io::ErrorKind::AlreadyExists.into()))
    }

    fn ids_in_use(&self) -> Result<Vec<String>, StoreError> {
        let runs = self.dir.join("runs");
        let mut ids = Vec::new();
        let entries = match std::fs::read_dir(&runs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
            entries => entries.map_err(io(&runs, "cannot list the runs"))?,
        };
        for entry in entries {
            let entry = entry.map_err(io(&runs, "cannot list the runs"))?;
            ids.push(entry.file_name().to_string_lossy().into_owned());
        }
        ids.sort();
        Ok(ids)
    }

    /// The run with this id or unique beginning of an id.
    ///
    /// # Errors
    /// None or several.
    pub fn run(&self, given: &str) -> Result<RunDir, StoreError> {
        let matching: Vec<String> = self.ids_in_use()?.into_iter().filter(|id| id.starts_with(given)).collect();
        // Nothing is the beginning of everything, and names nothing.
        let matching = if given.is_empty() { Vec::new() } else { matching };
        match matching.as_slice() {
            [] => Err(StoreError::NoRun { given: given.to_owned(), site: self.site.clone() }),
            [id] => Ok(self.dir_of(id)),
            several if several.iter().any(|id| id == given) => Ok(self.dir_of(given)),
            several => Err(StoreError::Ambiguous { given: given.to_owned(), runs: several.to_vec() }),
        }
    }

    fn dir_of(&self, id: &str) -> RunDir {
        RunDir { id: id.to_owned(), path: self.dir.join("runs").join(id) }
    }

    /// All runs, oldest first. A run without a whole line is left out: [`Store::every_run`] has it.
    ///
    /// # Errors
    /// A journal cannot be read or breaks a rule: it is never skipped, because it may owe something.
    pub fn runs(&self) -> Result<Vec<RunRead>, StoreError> {
        let (runs, damaged) = self.every_run()?;
        match damaged.into_iter().find(|run| !matches!(run.why, StoreError::Empty { .. })) {
            Some(run) => Err(run.why),
            None => Ok(runs),
        }
    }

    /// All runs, oldest first, and those whose journal does not hold.
    ///
    /// # Errors
    /// The runs cannot be listed.
    pub fn every_run(&self) -> Result<(Vec<RunRead>, Vec<Damaged>), StoreError> {
        let (mut runs, mut damaged) = (Vec::new(), Vec::new());
        for dir in self.ids_in_use()?.iter().map(|id| self.dir_of(id)).filter(|dir| dir.path.is_dir()) {
            match dir.read() {
                Ok(run) => runs.push(run),
                Err(why) => damaged.push(Damaged { id: dir.id.clone(), why, good: dir.good_part() }),
            }
        }
        runs.sort_by(|a, b| (a.state.since, &a.id).cmp(&(b.state.since, &b.id)));
        Ok((runs, damaged))
    }

    /// What the steps of run `id` see of it and of the others; without an id, of all, damaged ones included.
    ///
    /// # Errors
    /// For a run as [`Store::runs`]; without one, the runs cannot be listed.
    pub fn info(&self, id: &str, host: &str) -> Result<RunInfo, StoreError> {
        let (runs, damaged) = self.every_run()?;
        let mut others = BTreeMap::new();
        let own = runs.iter().find(|run| run.id == id);
        let consents = own.map(|run| run.state.consents.clone()).unwrap_or_default();
        let migration = own.and_then(|run| run.state.opened.migration.clone());
        let digests = own.iter().flat_map(|run| &run.records).filter_map(|record| match &record.event {
            Event::Filed { key, name, sha256, .. } => Some((filed(key, name), sha256.clone())),
            _ => None,
        });
        let filed = digests.collect();
        for run in damaged {
            if !id.is_empty() && !matches!(run.why, StoreError::Empty { .. }) {
                return Err(run.why);
            }
            others.insert(run.id, Standing::Unreadable);
        }
        let hosts = runs.iter().map(|run| (run.id.clone(), run.state.opened.host.clone())).collect();
        others.extend(runs.into_iter().map(|run| (run.id.clone(), run.state.standing())));
        others.remove(id);
        let files = (!id.is_empty()).then(|| self.dir_of(id).path.join("files"));
        let holder = self.at_work()?.filter(|it| (it.pid, it.host.as_str()) != (std::process::id(), host));
        let at_work = holder.map(|holder| (holder.run, format!("process {} on {}", holder.pid, holder.host)));
        let elsewhere = self.runs_of_other_sites()?;
        let (id, host, granted) = (id.to_owned(), host.to_owned(), BTreeSet::new());
        Ok(RunInfo { id, migration, host, others, elsewhere, at_work, hosts, files, consents, granted, filed })
    }

    /// The runs of the sites beside this one, by id.
    fn runs_of_other_sites(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let mut found = BTreeMap::new();
        let Some(root) = self.dir.parent() else { return Ok(found) };
        let sites = match std::fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            // It may be for others alone to list; then a mark of such a run is told as one of a run that is not known.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(found),
            sites => sites.map_err(io(root, "cannot list the sites"))?,
        };
        for site in sites {
            let site = site.map_err(io(root, "cannot list the sites"))?.file_name().to_string_lossy().into_owned();
            if site == self.site {
                continue;
            }
            // What lies there besides is no site of ours, and may be nobody's to read.
            let Ok(runs) = std::fs::read_dir(root.join(&site).join("runs")) else { continue };
            for run in runs.flatten() {
                found.insert(run.file_name().to_string_lossy().into_owned(), site.clone());
            }
        }
        Ok(found)
    }

    /// The site's own directory, for clones of checkouts.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The site's name.
    pub fn site(&self) -> &str {
        &self.site
    }
}

impl RunDir {
    /// No directory: for a plan that is only looked at.
    pub(super) fn nowhere() -> Self {
        Self { id: String::new(), path: PathBuf::new() }
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The journal's path.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// Takes the directory of a run away whose first line could not be written: it has begun nothing.
    ///
    /// # Errors
    /// The file system refused; the run is shown as damaged then.
    pub fn discard(&self) -> Result<(), StoreError> {
        std::fs::remove_dir_all(&self.path).map_err(io(&self.path, "cannot take the run's directory away again"))
    }

    /// Reads the run.
    ///
    /// # Errors
    /// The journal cannot be read, breaks a rule, or is empty.
    pub fn read(&self) -> Result<RunRead, StoreError> {
        let path = self.journal();
        if !path.exists() {
            return Err(StoreError::Empty { run: self.id.clone() });
        }
        let read = journal::read(&path)?;
        let state = RunState::fold(&read.records)
            .map_err(|source| StoreError::Illegal { path, source })?
            .ok_or_else(|| StoreError::Empty { run: self.id.clone() })?;
        Ok(RunRead { id: self.id.clone(), records: read.records, state, torn: read.torn })
    }

    /// Stores a run file of a step, mode 0600, durable, whole or not at all.
    ///
    /// # Errors
    /// The file system refused, or the name would leave the directory.
    pub fn store_file(&self, key: &StepKey, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\', '\0']);
        if !plain(name) || !plain(key.as_str()) {
            return Err(StoreError::BadFileName(format!("{key}/{name}")));
        }
        let dir = self.path.join("files").join(key.as_str());
        make_dir(&dir)?;
        let (draft, path) = (dir.join(format!(".{name}")), dir.join(name));
        let mut file = private(OpenOptions::new().write(true).create(true).truncate(true))
            .open(&draft)
            .map_err(io(&draft, "cannot write the run file"))?;
        file.write_all(bytes).map_err(io(&draft, "cannot write the run file"))?;
        file.sync_all().map_err(io(&draft, "cannot make the run file durable"))?;
        std::fs::rename(&draft, &path).map_err(io(&path, "cannot put the run file in its place"))?;
        Ok(sync_dir(&dir)?)
    }
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        // What cannot even be looked at may well be there.
        let there = path.try_exists().is_err();
        let what = if there { "cannot use the state directory" } else { "cannot make the state directory" };
        io(path, what)(error)
    })
}

fn set_private_dir(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(io(path, "cannot set its mode"))
}

/// Letters and digits that cannot be mistaken for one another when read aloud.
fn random_id(length: usize) -> Result<String, StoreError> {
    const ALPHABET: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyz7";
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes)
        .map_err(|e| io(Path::new("/dev/urandom"), "no randomness")(io::Error::other(e.to_string())))?;
    Ok(bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect())
}
