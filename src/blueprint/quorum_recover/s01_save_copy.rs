//! 01: what every survivor has is held in files of this run, verified, before anything is wiped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::permit::{Handle, Note, Permit, System};
use crate::base::private;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;

use super::copies::{self, Copies, Held, Stood};
use super::facts::{Here, gather, gather_shown};
use super::given::{NAMED, given};
use super::{Planes, names};

/// Takes the copies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaveCopy {
    /// The control planes.
    pub planes: Planes,
    /// Where copies come from and go to.
    pub copies: Copies,
}

/// There was none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl Step<Estate> for SaveCopy {
    const ID: &'static str = "01-save-copy";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        let has = if self.planes.nodes.is_empty() { "has" } else { "have" };
        format!("what {} {has} of etcd is held in a copy", names(self.planes.stay()))
    }

    fn why(&self) -> Vec<String> {
        let mut lines = vec![
            "Nothing is wiped of which no copy is held. A voter gives a snapshot without a majority too, with a digest behind it; of \
             a learner, or an etcd that does not start, the file itself is read."
                .into(),
            "Each is held against itself and kept among the files of this run, with its digest in the journal; 02 reads it back right \
             before each wipe, and stops where the member has more by then. Of both the whole tree is walked, from the page that says \
             where everything is to the last key; a snapshot has a sha256 of itself at its end, and a raw file is read until two \
             readings are the same. What a member has in its WAL alone (/var/lib/etcd/member/wal) a snapshot has too, and a raw file \
             has not: that is what was agreed on in the last moments before its etcd ended."
                .into(),
            "It has every Secret of Kubernetes in it: the files are their owner's alone.".into(),
            format!(
                "By hand: {}, or {}.",
                self.planes.from.talosctl("etcd snapshot etcd.db"),
                self.planes.from.talosctl("cp /var/lib/etcd/member/snap/db .")
            ),
        ];
        if let Some(given) = &self.copies.snapshot {
            lines.push(format!(
                "etcd begins from {}. Where that is older than what clients have seen, restart what keeps watching (kubelets of \
                 workers, operators) afterwards: they know of later versions than there are then.",
                given.display()
            ));
        }
        lines
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook {
            stays: Some("the copies, among the files of the run".into()),
            words: self.planes.vouched(),
            ..Outlook::changes(System::Local, [format!("copies of the etcd of {}", names(self.planes.stay()))])
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        if let Some(held) = copies::held(seen.run)?
            && self.saved(seen.run, &held)?
        {
            return Ok(Check::done().notes(held.iter().map(Held::words)));
        }
        let kept = copies::of_others(cx.journals(), &seen.run.id, &self.planes.from.name);
        let open = copies::open(&kept, seen.run);
        if !open.is_empty() {
            return Ok(Check::blocked(open));
        }
        let facts = gather_shown(cx, &self.planes, seen.run, self.copies.snapshot.as_deref()).await;
        if let Some(votes) = facts.led() {
            return Ok(Check::not_needed(format!("etcd has {votes}: nothing is wiped, and nothing has to be copied")));
        }
        let mut problems: Vec<Problem> =
            facts.unfit(&self.planes, self.copies.snapshot.is_some()).into_iter().map(|(_, problem)| problem).collect();
        problems.extend(facts.in_the_way(&self.planes, &seen.run.consents).into_iter().map(|(_, problem)| problem));
        if let Some(path) = &self.copies.snapshot {
            problems.extend(given(path, &facts, &self.planes, cx.clock().now()).err());
        }
        if !problems.is_empty() {
            return Ok(Check::blocked(problems));
        }
        let mut changes = Vec::new();
        for (machine, here) in &facts.here {
            if let Here::Holds(holds) = here {
                let size = holds.size.map(crate::base::check::bytes).unwrap_or_default();
                changes.push(Change::add(format!("copy of the etcd of {}", machine.name), size));
            }
        }
        if let Some(given) = &self.copies.snapshot {
            changes.push(Change::add("copy of what etcd begins from", given.display().to_string()));
        }
        changes
            .extend(self.copies.saves.iter().map(|to| Change::add("the copies once more", to.display().to_string())));
        Ok(Check::todo(changes, Before {}))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let facts = gather(cx, &self.planes).await;
        let mut held = Vec::new();
        for (machine, here) in &facts.here {
            let Here::Holds(holds) = here else { continue };
            permit.go_on()?;
            permit.progress(&format!("{}: copying its etcd", machine.name));
            let (content, raw) = copies::taken(cx, machine, holds).await?;
            if let Some(why) = raw {
                permit.progress(&format!("{}: no snapshot, so its file is read: {why}", machine.name));
            }
            held.push(Held { stood: Stood::of(holds), ..self.keep(permit, Some(&machine.name), &content)? });
        }
        if let Some(given) = &self.copies.snapshot {
            held.push(self.keep(permit, None, &private::read(given)?)?);
        }
        if held.is_empty() {
            let text = format!("none of {} gave a copy of its etcd", names(self.planes.stay()));
            return Err(Failure::plain(text, Some("`pvemig survey` shows how they do".into())));
        }
        let strangers = copies::strangers(&held, &facts, &self.planes);
        if !strangers.is_empty() {
            let (text, help): (Vec<_>, Vec<_>) = strangers.into_iter().map(|p| (p.text, p.help)).unzip();
            return Err(Failure::plain(text.join("; "), help.into_iter().next()));
        }
        let (name, text) = copies::list(&held)?;
        if let Some(to) = &self.copies.saves {
            std::fs::create_dir_all(to).map_err(|error| unwritten(to, &error))?;
            for copy in &held {
                let content = copies::read(seen.run, copy).map_err(|why| Failure::plain(why, None))?;
                let place = saved_as(to, seen.run, copy);
                let call = permit.note(&Note::safe(System::Local, format!("write {}", place.display())))?;
                private::write(&place, &content).map_err(|error| unwritten(&place, &error))?;
                permit.got(call, &Handle::new("sha256", sha256(&content)))?;
            }
        }
        // Last: only where it is there all of them are.
        permit.file(name, &text)?;
        let given = held.iter().find(|copy| copy.node.is_none());
        let own = held.iter().find(|copy| copy.node.as_deref() == Some(&self.planes.from.name));
        if let (Some(given), Some(own)) = (given, own)
            && given.transaction < own.transaction
        {
            permit.progress(&format!(
                "the given copy is older than what {} has: transaction {} of {}",
                self.planes.from.name, given.transaction, own.transaction
            ));
        }
        Ok(())
    }

    async fn back(&self, _: &Estate, _: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(Check::done().stays(["the copies stay among the files of the run".to_owned()]))
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    let help = "make it a place that you may write, or leave `saves` out";
    Failure::plain(format!("{} cannot be written: {error}", path.display()), Some(help.into()))
}

fn saved_as(to: &Path, run: &RunInfo, copy: &Held) -> PathBuf {
    to.join(format!("{}-{}", run.id, copy.file))
}

impl SaveCopy {
    /// Keeps a copy that is whole.
    fn keep(&self, permit: &Permit, node: Option<&str>, content: &[u8]) -> Result<Held, Failure> {
        let copy = Held::of(node, content).map_err(|why| match node {
            Some(node) => {
                let text = format!("the copy of the etcd of {node} cannot be used: {why}");
                Failure::plain(text, Some("`pvemig resume` takes it once more; nothing was wiped".into()))
            }
            None => {
                let given = self.copies.snapshot.as_deref().unwrap_or(Path::new("?")).display();
                let text = format!("{given}, which etcd is to begin from, cannot be used: {why}");
                Failure::plain(text, Some(NAMED.into()))
            }
        })?;
        permit.file(&copy.file, content)?;
        Ok(copy)
    }

    /// Whether the other place has all of them.
    fn saved(&self, run: &RunInfo, held: &[Held]) -> Result<bool, Failure> {
        let Some(to) = &self.copies.saves else { return Ok(true) };
        for copy in held {
            match private::read(&saved_as(to, run, copy)) {
                Ok(content) if sha256(&content) == copy.sha256 => {}
                Ok(_) | Err(private::PrivateError::Missing { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
