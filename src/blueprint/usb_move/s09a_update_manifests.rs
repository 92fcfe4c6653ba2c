//! 09a: the branch that is deployed has the declared values.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Hands, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::checkout::{Checkout, Edit, Made, Reverted};
use crate::engine::step::{Got, Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;

use super::manifests::{is_declared_wrong, missing, short, wrong};
use super::params::{Gitops, KubeNode, Work};

/// So many lines of the difference are shown; the commit has all of it.
const SHOWN: usize = 200;

/// Changes the manifests of the workload in the checkout that its cluster follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateManifests {
    /// The workload.
    pub work: Work,
    /// The node that it moves to.
    pub node: KubeNode,
    /// What the cluster follows.
    pub gitops: Option<Gitops>,
    /// The declared values.
    pub edits: Vec<Edit>,
}

/// The tip of the branch as it was; what is restored is what our own commit changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// Its commit id.
    pub tip: String,
}

impl Step<Estate> for UpdateManifests {
    const ID: &'static str = "09a-update-manifests";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        match &self.gitops {
            Some(gitops) => {
                format!("manifests of {} in checkout {} are for {}", self.work, gitops.checkout, self.node.name)
            }
            None => format!("manifests of {} are for {}", self.work, self.node.name),
        }
    }

    fn why(&self) -> Vec<String> {
        vec![
            "What is changed in the cluster alone is put back at the next reconciliation; what is in git stays.".into(),
            "A left-over runtimeClassName leaves the pod scheduled and never started; a left-over nodeSelector sends \
             its new claims back to the old node."
                .into(),
            "By hand: edit the files, `git commit`, `git push`.".into(),
            "The commit is made in a clone of pvemig's own; your checkout is not touched.".into(),
        ]
    }

    fn outlook(&self, cx: &Estate) -> Outlook {
        let Ok(Some((gitops, checkout))) = self.checkout(cx) else { return Outlook::default() };
        let files: BTreeSet<&str> = self.edits.iter().map(|edit| edit.file.as_str()).collect();
        let outlook = Outlook::changes(System::Checkout, files.into_iter().map(str::to_owned));
        if checkout.push {
            return outlook;
        }
        let push = format!("push a commit to {} {}", checkout.remote, checkout.branch);
        outlook.asks(format!("{push} (checkout {})", gitops.checkout)).asks_back("push the commit that takes it back")
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let Some((gitops, checkout)) = self.checkout(cx)? else {
            return Ok(Check::not_needed("the migration declares no manifests"));
        };
        let tip = checkout.fetch().await?;
        let lacking = missing(&checkout, &tip, &self.edits).await?;
        if !lacking.problems.is_empty() {
            return Ok(Check::blocked(lacking.problems));
        }
        if lacking.is_empty() {
            let text = format!("branch {} at {} has the declared values", checkout.branch, short(&tip));
            return Ok(Check::done().note(text));
        }
        let diff = match checkout.diff(&tip, &self.edits).await {
            Ok(diff) => diff,
            Err(error) if is_declared_wrong(&error) => return Ok(Check::blocked(vec![wrong(&error)])),
            Err(error) => return Err(error.into()),
        };
        if !checkout.push
            && seen.since.is_some()
            && let Some(made) = checkout.made(&label(seen.run)).await?.filter(|made| made.parent == tip)
        {
            return Ok(by_hand(&checkout, gitops, &made).notes(lines(&diff)));
        }
        let changes = lacking.differences.iter().map(|(edit, difference)| Change {
            from: None,
            to: Some(difference.to_string()),
            ..Change::set(format!("{} {}", edit.file, edit.object), "", "")
        });
        Ok(Check::todo(changes.collect(), Before { tip }).notes(lines(&diff)))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some((_, checkout)) = self.checkout(cx)? else { return Ok(()) };
        checkout.fetch().await?;
        let message = format!("Move {} to {}\n\nBy run {} of pvemig.\n", self.work, self.node.name, seen.run.id);
        let Some(made) = checkout.commit(&self.edits, &message, &label(seen.run), permit).await? else {
            return Ok(());
        };
        if checkout.push {
            checkout.push(&made, permit).await?;
        }
        Ok(())
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let Some((gitops, checkout)) = self.checkout(cx)? else { return Ok(Check::done()) };
        let Some(made) = checkout.made(&label(seen.run)).await? else {
            let Some(commit) = committed(seen.got) else {
                return Ok(Check::done().note("this run committed nothing"));
            };
            // The clone that held the commit is gone: what it changed is not known any more, only what was declared.
            let tip = checkout.fetch().await?;
            let there = missing(&checkout, &tip, &self.edits).await?.is_empty();
            return Ok(if there { Check::blocked(vec![forgotten(&checkout, commit)]) } else { Check::done() });
        };
        let tip = checkout.fetch().await?;
        let files = match checkout.reverted(&made).await? {
            Reverted::Already => return Ok(Check::done()),
            Reverted::Todo(files) => files,
            Reverted::Changed(files) => {
                return Ok(Check::blocked(
                    files.iter().map(|file| changed(&checkout, file, &made, before, &tip)).collect(),
                ));
            }
        };
        if !checkout.push
            && let Some(reverse) = checkout.made(&undo_label(seen.run)).await?.filter(|made| made.parent == tip)
        {
            return Ok(by_hand(&checkout, gitops, &reverse));
        }
        let restore = |file: &String| Change::act(format!("{file} becomes as it was before {}", short(&made.id)));
        Ok(Check::todo(files.iter().map(restore).collect(), ()))
    }

    async fn undo(&self, cx: &Estate, _: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some((_, checkout)) = self.checkout(cx)? else { return Ok(()) };
        let Some(made) = checkout.made(&label(seen.run)).await? else { return Ok(()) };
        checkout.fetch().await?;
        let message = format!(
            "Move {} back from {}\n\nTakes back commit {}, by run {} of pvemig.\n",
            self.work, self.node.name, made.id, seen.run.id
        );
        let Some(reverse) = checkout.revert(&made, &message, &undo_label(seen.run), permit).await? else {
            return Ok(());
        };
        if checkout.push {
            checkout.push(&reverse, permit).await?;
        }
        Ok(())
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }
}

impl UpdateManifests {
    fn checkout(&self, cx: &Estate) -> Result<Option<(&Gitops, Checkout)>, Failure> {
        match &self.gitops {
            Some(gitops) if !self.edits.is_empty() => Ok(Some((gitops, cx.checkout(&gitops.checkout)?))),
            _ => Ok(None),
        }
    }
}

/// The name of this run's commit in our clone.
fn label(run: &RunInfo) -> String {
    run.id.clone()
}

/// The name of the commit that takes it back.
fn undo_label(run: &RunInfo) -> String {
    format!("{}-undo", run.id)
}

/// Where pvemig may not push, a person does.
fn by_hand<B>(checkout: &Checkout, gitops: &Gitops, made: &Made) -> Check<B> {
    let hands = Hands::Push {
        checkout: gitops.checkout.clone(),
        branch: checkout.branch.clone(),
        commit: made.id.clone(),
        from: checkout.state_clone.display().to_string(),
    };
    let ask = format!("push commit {} to branch {}", short(&made.id), checkout.branch);
    Check::manual(ask, Some(checkout.push_by_hand(made)), Some(hands))
}

fn changed(checkout: &Checkout, file: &str, made: &Made, before: &Before, tip: &str) -> Problem {
    Problem::new(
        format!(
            "{file} was as in commit {}, this run changed it with {}, and at {} it is neither",
            short(&before.tip),
            short(&made.id),
            short(tip)
        ),
        format!("take back by hand what `{}` shows, push it, then undo again", checkout.show(made, file)),
    )
}

/// The commit that the journal says this run made last: an earlier one that came too late was never pushed.
fn committed(got: &[Got]) -> Option<&str> {
    got.iter().rev().find(|g| g.handle.kind == "commit").map(|g| g.handle.value.as_str())
}

fn forgotten(checkout: &Checkout, commit: &str) -> Problem {
    Problem::new(
        format!("this run made commit {}, and pvemig's clone that held it is gone", short(commit)),
        format!("take back by hand what `{}` shows, push it, then undo again", checkout.show_fetched(commit)),
    )
}

fn lines(diff: &str) -> Vec<String> {
    let mut lines: Vec<String> = diff.lines().take(SHOWN).map(str::to_owned).collect();
    let more = diff.lines().count().saturating_sub(SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more lines"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_difference_is_cut_and_says_so() {
        let text = "+ a\n".repeat(SHOWN + 3);
        let shown = lines(&text);
        assert_eq!((shown.len(), shown.last().map(String::as_str)), (SHOWN + 1, Some("and 3 more lines")));
        assert_eq!(lines("+ a\n"), ["+ a"]);
    }

    #[test]
    fn a_commit_that_the_journal_knows_is_not_nothing() {
        use crate::base::permit::{Handle, Note, System};
        let at = "2025-01-01T00:00:00Z".parse().unwrap();
        let got = |kind: &str| Got { note: Note::safe(System::Checkout, "x"), handle: Handle::new(kind, "abc"), at };
        assert_eq!(committed(&[got("uid"), got("commit")]), Some("abc"));
        assert_eq!(committed(&[got("uid")]), None);
        let mut second = got("commit");
        second.handle.value = "def".into();
        assert_eq!(committed(&[got("commit"), second]), Some("def"));
        let checkout = Checkout {
            path: "/my ops".into(),
            remote: "origin".into(),
            branch: "main".into(),
            push: true,
            author: ("pvemig".into(), "pvemig@localhost".into()),
            state_clone: "/state/ops.git".into(),
            lender: None,
        };
        let help = forgotten(&checkout, "abc").help;
        assert!(help.contains("`git -C '/my ops' fetch origin && git -C '/my ops' show abc`"), "{help}");
        let made = Made { id: "abc".into(), parent: "0".into(), branch: "pvemig/7k2".into() };
        let help = changed(&checkout, "a/b.yaml", &made, &Before { tip: "0".into() }, "1").help;
        assert!(help.contains("`git -C /state/ops.git show abc -- a/b.yaml`"), "{help}");
    }

    #[test]
    fn a_run_names_its_commit_and_the_one_that_takes_it_back() {
        let run = RunInfo { id: "7k2".into(), ..RunInfo::default() };
        assert_eq!((label(&run).as_str(), undo_label(&run).as_str()), ("7k2", "7k2-undo"));
    }
}
