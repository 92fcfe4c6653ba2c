//! 08: what must not be lost is there, is what it claims to be, and is copied where that was asked for.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Handle, Note, Permit, System};
use crate::blueprint::quorum::{Peer, look};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;

use super::keep::{self, Copied, Found, Keep, Kept};
use super::own_file::OwnFile;
use crate::blueprint::install::Bare;

/// Looks at what must not be lost, and copies it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Safekeeping {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The site file, absolute.
    pub site: PathBuf,
    /// The site's talosconfig.
    pub talosconfig: PathBuf,
    /// The site's kubeconfig, and the context in it.
    pub kubeconfig: (PathBuf, String),
    /// The machines.
    pub machines: Vec<Bare>,
    /// All nodes of the cluster.
    pub peers: Vec<Peer>,
    /// What the parameters say of it; None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
}

/// What was there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// Whether the directory of copies was there.
    pub there: bool,
    /// SHA-256 of the copies by their names; None: there was none.
    pub copies: BTreeMap<String, Option<String>>,
}

impl Step<Estate> for Safekeeping {
    const ID: &'static str = "08-safekeeping";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("what must not be lost of {} is there", self.cluster)
    }

    fn why(&self) -> Vec<String> {
        let named = self.keep.as_ref().is_some_and(|keep| keep.snapshots.is_some());
        let mut lines = vec![
            "A cluster whose nodes are all there and whose keys are lost cannot be spoken to any more: site file, talosconfig, \
             kubeconfig, machine configurations and the secrets behind them are looked at, each at its place, whether only its \
             owner may read it, and whether it is this cluster's."
                .into(),
            "What a node runs is compared with what its file and the site file come to; where that is not the same, it is exported \
             into `to`."
                .into(),
            if named {
                "The newest snapshot of etcd is read to its end: its digest must be right, and it must name a member that this etcd \
                 has. One older than seven days does not count, and one of another etcd is passed over."
                    .into()
            } else {
                "No snapshot of etcd is looked for: nobody wrote down where `pvemig etcd snapshot` put one. `keep: { snapshots: DIR }` \
                 of the parameters names the place."
                    .into()
            },
            "What is missing a person brings; the step goes on by itself once it is there.".into(),
        ];
        lines.push(match self.to() {
            Some(to) => format!(
                "Copies of all of it but the snapshots are put into {}, for their owner alone. That is this machine still: a copy on \
                 another one is yours to make.",
                to.display()
            ),
            None => "`keep: { to: DIR }` of the parameters has it copied; a copy on another machine is yours to make.".into(),
        });
        lines.push(format!("By hand: {}, and copies of these files on another machine.", self.by_hand(None)));
        lines
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let to = self.to().map(|to| (System::Local, format!("copies in {}", to.display())));
        let outlook = Outlook { changes: to.into_iter().collect(), ..Outlook::default() };
        match self.keep.as_ref().and_then(|keep| keep.snapshots.as_ref()) {
            Some(_) => outlook.asks(format!("take a snapshot of etcd: {}", self.by_hand(None))),
            None => outlook,
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(300)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (mut all, recipient) = self.all(cx).await;
        let (mut notes, mut why, mut asks) = (Vec::new(), Vec::new(), Vec::new());
        for kept in &all {
            match &kept.found {
                Found::Good(text) => notes.push(text.clone()),
                Found::Yet(reason) => return Ok(Check::waiting(reason.clone())),
                Found::Amiss { why: text, ask } => {
                    why.push(text.clone());
                    asks.push(ask.clone());
                }
            }
        }
        notes.extend(self.unasked(recipient.as_deref()));
        if !asks.is_empty() {
            let mut each: Vec<String> = Vec::new();
            asks.into_iter().for_each(|ask| {
                if !each.contains(&ask) {
                    each.push(ask)
                }
            });
            return Ok(Check::manual(each.join("; "), Some(why.join("; ")), None).notes(notes));
        }
        notes.push(self.elsewhere());
        let Some(to) = self.to() else { return Ok(Check::done().notes(notes)) };
        let there = match self.dir(to) {
            Ok(there) => there,
            Err(problem) => {
                return Ok(Check::manual(problem.help, Some(problem.text), None).notes(notes));
            }
        };
        let copies: Vec<Copied> = all.iter_mut().filter_map(|kept| kept.copy.take()).collect();
        let (mut changes, mut before) = (Vec::new(), Before { there, copies: BTreeMap::new() });
        for copy in &copies {
            let path = to.join(&copy.name);
            let now = self.file(&path, &copy.name).now()?.as_deref().map(sha256);
            let is = sha256(&copy.bytes);
            match &now {
                Some(now) if *now == is => {}
                Some(_) => changes.push(Change::set(path.display().to_string(), "an older copy", &copy.from)),
                None => changes.push(Change::add(path.display().to_string(), &copy.from)),
            }
            before.copies.insert(copy.name.clone(), now);
        }
        if changes.is_empty() {
            return Ok(Check::done().notes(notes));
        }
        Ok(Check::todo(changes, seen.since.cloned().unwrap_or(before)).notes(notes))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let (Some(since), Some(to)) = (seen.since, self.to()) else { return Ok(()) };
        let copies: Vec<Copied> = self.all(cx).await.0.into_iter().filter_map(|kept| kept.copy).collect();
        let refused = |problem: Problem| Failure::plain(problem.text, Some(problem.help));
        if !self.dir(to).map_err(refused)? {
            let call = permit.note(&Note::safe(System::Local, format!("make {}", to.display())))?;
            let made = std::fs::DirBuilder::new().mode(0o700).create(to);
            made.map_err(|error| unmade(to, &error))?;
            permit.got(call, &Handle::new("made", to.display().to_string()))?;
        }
        for copy in copies {
            let path = to.join(&copy.name);
            let (file, now) = (self.file(&path, &copy.name), sha256(&copy.bytes));
            if file.now()?.as_deref().map(sha256) != Some(now) {
                let former = since.copies.get(&copy.name).cloned().flatten();
                file.put(seen.run, former.as_deref(), &copy.bytes, permit)?;
            }
        }
        Ok(())
    }

    async fn back(&self, _: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let Some(to) = self.to() else { return Ok(Check::done()) };
        if !to.exists() && !before.there {
            return Ok(Check::done());
        }
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        for (name, former) in &before.copies {
            let path = to.join(name);
            match self.file(&path, name).back(seen.run, former.as_deref(), "leave it where it is")? {
                Ok(change) => changes.extend(change),
                Err(problem) => problems.push(problem),
            }
        }
        if !before.there && is_empty(to, before)? {
            changes.push(Change::remove(to.display().to_string(), "which this run made"));
        }
        Ok(match (problems.is_empty(), changes.is_empty()) {
            (false, _) => Check::blocked(problems),
            (true, true) => Check::done(),
            (true, false) => Check::todo(changes, ()),
        })
    }

    async fn undo(&self, _: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(to) = self.to() else { return Ok(()) };
        for (name, former) in &before.copies {
            let path = to.join(name);
            self.file(&path, name).undo(seen.run, former.as_deref(), permit)?;
        }
        if !before.there && to.exists() && is_empty(to, before)? {
            let call = permit.note(&Note::safe(System::Local, format!("remove {}", to.display())))?;
            std::fs::remove_dir(to).map_err(|error| unmade(to, &error))?;
            permit.got(call, &Handle::new("removed", to.display().to_string()))?;
        }
        Ok(())
    }
}

/// Whether nothing is in the directory but what this run put there.
fn is_empty(to: &Path, before: &Before) -> Result<bool, Failure> {
    let entries = match std::fs::read_dir(to) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unmade(to, &error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| unmade(to, &error))?.file_name();
        if !name.to_str().is_some_and(|name| before.copies.contains_key(name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unmade(to: &Path, error: &std::io::Error) -> Failure {
    let help = "is its disk mounted, and may you write there?".to_owned();
    Failure::plain(format!("{} cannot be used: {error}", to.display()), Some(help))
}

impl Safekeeping {
    fn to(&self) -> Option<&Path> {
        self.keep.as_ref()?.to.as_deref()
    }

    fn file<'a>(&self, path: &'a Path, name: &'a str) -> OwnFile<'a> {
        OwnFile { path, key: StepKey::new(Self::ID, None), name }
    }

    /// Whether the directory of copies is there; a problem where it cannot be one. The one above it is never made: its disk
    /// may not be mounted.
    fn dir(&self, to: &Path) -> Result<bool, Problem> {
        let shown = to.display();
        match std::fs::metadata(to) {
            Ok(found) if !found.is_dir() => {
                Err(Problem::new(format!("{shown} is no directory"), "name a directory as `to` of `keep`"))
            }
            Ok(found) if found.mode() & 0o077 != 0 => {
                Err(Problem::new(format!("{shown} can be read by others"), format!("`chmod 700 {shown}`")))
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && to.parent().is_some_and(Path::is_dir) => {
                Ok(false)
            }
            Err(error) => Err(Problem::new(
                format!("{shown} cannot be used: {error}"),
                format!("`mkdir -p -m 700 {shown}`; is its disk mounted?"),
            )),
        }
    }

    /// The command that takes a snapshot.
    fn by_hand(&self, recipient: Option<&str>) -> String {
        let snapshots = self.keep.as_ref().and_then(|keep| keep.snapshots.as_ref());
        let to = snapshots.map_or_else(|| "DIR".to_owned(), |dir| dir.display().to_string());
        let sealed = recipient.map(|to| format!(" --recipient {to}")).unwrap_or_default();
        format!("`pvemig --site {} etcd snapshot {} --to {to}{sealed}`", self.site.display(), self.cluster)
    }

    /// Everything that there is to look at, and the recipient of the age key.
    async fn all(&self, cx: &Estate) -> (Vec<Kept>, Option<String>) {
        let none = Keep::default();
        let keep = self.keep.as_ref().unwrap_or(&none);
        let mut machines = Vec::new();
        for bare in &self.machines {
            machines.push((bare.clone(), bare.wanted().await));
        }
        let (key, recipient) = keep::age_key(keep).map_or((None, None), |(kept, recipient)| (Some(kept), recipient));
        let mut all = vec![keep::site(&self.site)];
        let first = self.machines.first();
        if let (Some((_, Ok(wanted))), Some(bare)) = (machines.first(), first) {
            let (file, context) = &self.kubeconfig;
            let get = bare.machine.talosctl(&format!("kubeconfig {}", file.display()));
            all.push(keep::talosconfig(cx, &self.cluster, &self.talosconfig, wanted));
            all.push(keep::kubeconfig(cx, file, context, &get, wanted));
        }
        all.extend(keep::configs(cx, keep, &machines, recipient.as_deref()).await);
        if let (Some(path), Some((bare, Ok(wanted)))) = (&keep.secrets, machines.first()) {
            all.push(keep::secrets(path, &bare.source.decrypt, wanted).await);
        }
        all.extend(key);
        if let Some(dir) = &keep.snapshots {
            let etcd = look(cx, &self.cluster, &self.peers).await;
            let by_hand = self.by_hand(recipient.as_deref());
            all.push(keep::snapshot(dir, &self.cluster, &etcd.ids(), &by_hand, cx.clock().now()).await);
        }
        (all, recipient)
    }

    /// What nobody named, and so nobody looked for: each with how that is mended.
    fn unasked(&self, recipient: Option<&str>) -> Vec<String> {
        let none = Keep::default();
        let keep = self.keep.as_ref().unwrap_or(&none);
        let encrypted = self.machines.iter().any(|bare| !bare.source.decrypt.is_empty());
        let named = [
            (
                keep.snapshots.is_none(),
                format!("a snapshot of etcd: {} takes one, and `snapshots: DIR`", self.by_hand(recipient)),
            ),
            (keep.secrets.is_none(), "the secrets behind the configurations: `secrets: FILE`".into()),
            (keep.age_key.is_none() && encrypted, "the age key: `age-key: FILE`".into()),
        ];
        let lacks = named.into_iter().filter_map(|(lacks, what)| lacks.then_some(what));
        lacks.map(|what| format!("NOT looked for: {what} of `keep` in the parameters says where it is")).collect()
    }

    fn elsewhere(&self) -> String {
        let what = self.to().map_or_else(|| "all of this".to_owned(), |to| to.display().to_string());
        format!("a copy of {what} on another machine is yours to make: what is on this one alone goes with it")
    }
}
