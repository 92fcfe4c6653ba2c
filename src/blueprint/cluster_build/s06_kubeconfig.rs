//! 06: the kubeconfig of the site leads to the cluster, and its talosconfig to the nodes.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Permit, System};
use crate::blueprint::machine::Machine;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::talos::Error;

use super::kubeconfig::{Entry, Merged, has, merge, other};
use super::own_file::OwnFile;
use super::talosconfig::{self, Addresses, Now};

/// Merges the cluster's kubeconfig into the site's, and its addresses into the talosconfig.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MergeKubeconfig {
    /// The control plane that is asked for it.
    pub machine: Machine,
    /// The file, absolute.
    pub file: PathBuf,
    /// The context in it.
    pub context: String,
    /// The talosconfig; None: a journal of before, which left it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talosconfig: Option<Addresses>,
}

/// What was there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// SHA-256 of the file; None: there was none.
    pub digest: Option<String>,
    /// Of the talosconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talosconfig: Option<String>,
}

/// What is to be written; None: it is so.
struct Due {
    kubeconfig: Option<Merged>,
    talosconfig: Option<talosconfig::Merged>,
    notes: Vec<String>,
}

/// Why there is nothing to be written yet.
enum Not {
    Yet(String),
    Ever(Problem),
}

impl Step<Estate> for MergeKubeconfig {
    const ID: &'static str = "06-kubeconfig";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("context {} of {} leads to {}", self.context, self.file.display(), self.machine.cluster)
    }

    fn why(&self) -> Vec<String> {
        let mut lines = vec![
            "Talos makes an administrator's certificate for whoever may ask (os:admin). It is merged into the file that the site names; \
             other clusters in it stay as they are."
                .into(),
            "A context that leads to the same server, of the same authority, is left alone, and one that leads to another cluster is in \
             the way. The former file is a run file, and an undo puts it back. The text itself is edited, so that comments stay; one \
             that cannot be edited so (aliases, another layout) is written anew, and that is said."
                .into(),
        ];
        lines.extend(self.talosconfig.as_ref().map(|addresses| {
            format!(
                "The context in {} gets the addresses of the control planes as endpoints, and those of all nodes where it names none: \
                 `talosctl` then finds them without `-e` and `-n`. Endpoints that are there stay; one that is shared by all (VIP) is \
                 gone when etcd is, and is none to name there.",
                addresses.file.display()
            )
        }));
        lines.push("A certificate from there holds for a year: `pvemig survey` warns before.".into());
        lines.push(format!(
            "By hand: {}, `talosctl config endpoint ADDRESS..`, `talosctl config node ADDRESS..`.",
            self.machine.talosctl(&format!("kubeconfig {}", self.file.display()))
        ));
        lines
    }

    /// The API server starts some time after etcd.
    fn limit(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let files = std::iter::once(&self.file).chain(self.talosconfig.iter().map(|it| &it.file));
        Outlook::changes(System::Local, files.map(|file| file.display().to_string()))
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let due = match self.due(cx).await? {
            Ok(due) => due,
            Err(Not::Yet(why)) => return Ok(Check::waiting(why)),
            Err(Not::Ever(problem)) => return Ok(Check::blocked(vec![problem])),
        };
        let changes: Vec<Change> = due.changes();
        if changes.is_empty() {
            return Ok(Check::done().notes(due.notes));
        }
        let before = match seen.since {
            Some(before) => before.clone(),
            None => Before {
                digest: self.kubeconfig().now()?.as_deref().map(sha256),
                talosconfig: self.talosconfig().map(|file| file.now()).transpose()?.flatten().as_deref().map(sha256),
            },
        };
        Ok(Check::todo(changes, before).notes(due.notes))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(since) = seen.since else { return Ok(()) };
        let due = self.due(cx).await?.map_err(|not| match not {
            Not::Yet(why) => Failure::plain(why, None),
            Not::Ever(problem) => Failure::plain(problem.text, Some(problem.help)),
        })?;
        if let Some(merged) = due.kubeconfig {
            self.kubeconfig().put(seen.run, since.digest.as_deref(), merged.text.as_bytes(), permit)?;
            // Who was asked with the former file asks anew.
            cx.forget_kubernetes(&self.machine.node.cluster).await;
        }
        if let (Some(merged), Some(file)) = (due.talosconfig, self.talosconfig()) {
            file.put(seen.run, since.talosconfig.as_deref(), merged.text.as_bytes(), permit)?;
        }
        Ok(())
    }

    async fn back(&self, _: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        let file = self.file.display();
        let by_hand = format!(
            "take context {0} out by hand: `kubectl config delete-context {0} --kubeconfig {file}`",
            self.context
        );
        match self.kubeconfig().back(seen.run, before.digest.as_deref(), &by_hand)? {
            Ok(change) => changes.extend(change),
            Err(problem) => problems.push(problem),
        }
        if let (Some(file), Some(digest)) = (self.talosconfig(), &before.talosconfig) {
            let by_hand = "leave the addresses there, or take them out by hand: `talosctl config endpoint`, `talosctl config node`";
            match file.back(seen.run, Some(digest), by_hand)? {
                Ok(change) => changes.extend(change),
                Err(problem) => problems.push(problem),
            }
        }
        Ok(match (problems.is_empty(), changes.is_empty()) {
            (false, _) => Check::blocked(problems),
            (true, true) => Check::done(),
            (true, false) => Check::todo(changes, ()),
        })
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        self.kubeconfig().undo(seen.run, before.digest.as_deref(), permit)?;
        if let (Some(file), Some(digest)) = (self.talosconfig(), &before.talosconfig) {
            file.undo(seen.run, Some(digest), permit)?;
        }
        cx.forget_kubernetes(&self.machine.node.cluster).await;
        Ok(())
    }
}

impl Due {
    fn changes(&self) -> Vec<Change> {
        let kubeconfig = self.kubeconfig.iter().flat_map(|merged| merged.changes.clone());
        kubeconfig.chain(self.talosconfig.iter().flat_map(|merged| merged.changes.clone())).collect()
    }
}

impl MergeKubeconfig {
    fn kubeconfig(&self) -> OwnFile<'_> {
        OwnFile { path: &self.file, key: StepKey::new(Self::ID, None), name: "kubeconfig" }
    }

    fn talosconfig(&self) -> Option<OwnFile<'_>> {
        let file = &self.talosconfig.as_ref()?.file;
        Some(OwnFile { path: file, key: StepKey::new(Self::ID, None), name: "talosconfig" })
    }

    /// What is to be written by now.
    async fn due(&self, cx: &Estate) -> Result<Result<Due, Not>, Failure> {
        let entry = match self.fetched(cx).await? {
            Ok(entry) => entry,
            Err(why) => return Ok(Err(Not::Yet(why))),
        };
        let now = self.text(&self.kubeconfig())?;
        let bad = |why: String| self.unusable(&why);
        let mut due = Due { kubeconfig: None, talosconfig: None, notes: Vec::new() };
        let there = now.as_deref().map_or(Ok(false), |text| has(text, &self.context, &entry)).map_err(bad)?;
        if !there {
            if let Some(problem) = self.taken(now.as_deref(), &entry)? {
                return Ok(Err(Not::Ever(problem)));
            }
            let merged = merge(now.as_deref(), &self.context, &entry).map_err(bad)?;
            if merged.anew {
                let text = format!("{} is written anew: its comments and its layout go", self.file.display());
                due.notes.push(text);
            }
            due.kubeconfig = Some(merged);
        }
        if let Some(addresses) = &self.talosconfig {
            match self.addressed(cx, addresses, &mut due.notes).await? {
                Ok(merged) => due.talosconfig = merged,
                Err(problem) => return Ok(Err(Not::Ever(problem))),
            }
        }
        Ok(Ok(due))
    }

    /// The talosconfig with the addresses in it; None: it has them.
    async fn addressed(
        &self,
        cx: &Estate,
        addresses: &Addresses,
        notes: &mut Vec<String>,
    ) -> Result<Result<Option<talosconfig::Merged>, Problem>, Failure> {
        let Some(file) = self.talosconfig() else { return Ok(Ok(None)) };
        let now = Now::from(&cx.talosconfig(&self.machine.cluster)?);
        let wanted = addresses.wanted(cx, &self.machine.cluster, notes).await?;
        if !now.nodes.is_empty() && now.nodes != wanted.nodes {
            notes.push(format!(
                "context {} names nodes already, and is left with them: {}",
                now.name,
                now.nodes.join(", ")
            ));
        }
        let missing = talosconfig::missing(&now, &wanted);
        if missing.is_empty() {
            return Ok(Ok(None));
        }
        let text = self.text(&file)?.unwrap_or_default();
        let merged = talosconfig::merge(&text, &now, &missing);
        Ok(merged.map(Some).ok_or_else(|| {
            let (path, name) = (addresses.file.display(), &now.name);
            let talosctl = format!("talosctl --talosconfig {path} --context {name} config");
            Problem::new(
                format!("{path} cannot be edited with all else in it kept, and context {name} lacks addresses of the cluster"),
                format!(
                    "write them by hand: `{talosctl} endpoint {}`, `{talosctl} node {}`",
                    wanted.endpoints.join(" "),
                    wanted.nodes.join(" ")
                ),
            )
        }))
    }

    fn text(&self, file: &OwnFile<'_>) -> Result<Option<String>, Failure> {
        let text = |bytes| String::from_utf8(bytes).map_err(|_| self.unusable("it is not text"));
        file.now()?.map(text).transpose()
    }

    /// The context is somebody else's: it leads to another cluster, or to an older one of that name.
    fn taken(&self, now: Option<&str>, entry: &Entry) -> Result<Option<Problem>, Failure> {
        let Some(text) = now else { return Ok(None) };
        let found = other(text, &self.context, entry).map_err(|why| self.unusable(&why))?;
        Ok(found.map(|server| {
            let (context, file) = (&self.context, self.file.display());
            Problem::new(
                format!("context {context} of {file} leads to another cluster ({server}): its authority is another one"),
                format!(
                    "where that cluster is gone: `kubectl --kubeconfig {file} config delete-context {context}`; else name another \
                     `context` for {} in the site file",
                    self.machine.node.cluster
                ),
            )
        }))
    }

    /// The cluster's own entries; or why they are not there yet.
    async fn fetched(&self, cx: &Estate) -> Result<Result<Entry, String>, Failure> {
        let talos = self.machine.open(cx).await?;
        match talos.kubeconfig().await {
            Ok(text) => Entry::read(text.expose()).map(Ok).map_err(|why| {
                Failure::plain(format!("the kubeconfig that {} gives cannot be used: {why}", self.machine.name), None)
            }),
            Err(error @ Error::NotReady { .. }) => Ok(Err(error.to_string())),
            Err(error) if error.is_down() => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn unusable(&self, why: &str) -> Failure {
        let help = "correct it, or name another file by `kubeconfig` of the cluster in the site file";
        Failure::plain(format!("{} cannot be used: {why}", self.file.display()), Some(help.into()))
    }
}
