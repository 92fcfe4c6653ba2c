//! 00b: nothing of GitOps puts back what the next steps change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::hold::Mark;
use crate::base::permit::{Permit, System};
use crate::base::wait::{Backoff, within};
use crate::checkout::Edit;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::k8s::Kubernetes;
use crate::k8s::flux::FluxObject;

use super::fault::refusal;
use super::hold::{Held, held, mark, was as former_of};
use super::live::{self, Declared};
use super::owners::{self, OwnerWas, Survey};
use super::params::{Gitops, Work};
use super::release;

/// How long a parent's running reconciliation is waited for before its child is suspended all the same: the second
/// pass of apply, and the check, see what it did to the child.
const PARENT: Duration = Duration::from_secs(60);

/// Suspends every owner of what is changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SuspendGitops {
    /// The workload.
    pub work: Work,
    /// What the cluster follows; None: the site file names nothing.
    pub gitops: Option<Gitops>,
    /// The claims that are made anew.
    pub claims: Vec<String>,
    /// The nodes whose labels and cordons change.
    pub nodes: Vec<String>,
    /// Where the manifests are changed: there the live objects carry the tip's values again after an undo.
    #[serde(default)]
    pub edits: Vec<Edit>,
}

/// The owners as they were, in the order in which they are suspended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The owners.
    pub owners: Vec<OwnerWas>,
    /// What of the live objects was not as the branch's tip says already, one line each: no undo waits for that.
    #[serde(default)]
    pub unlike: Vec<String>,
    /// Whether all pods of the workload were Ready: then an undo is over when they are so again.
    #[serde(default)]
    pub ready: bool,
}

impl Before {
    /// What an object was before this run.
    pub fn of(&self, object: &FluxObject) -> Option<&OwnerWas> {
        self.owners.iter().find(|was| was.is(object))
    }
}

impl Step<Estate> for SuspendGitops {
    const ID: &'static str = "00b-suspend-gitops";
    const RISK: Risk = Risk::Reverts;
    const HOLDS_UNTIL: Option<&'static str> = Some("10-deploy-and-verify");
    type Before = Before;

    fn title(&self) -> String {
        format!("nothing of GitOps puts back what is changed of {}", self.work)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Flux scales a workload up again and makes a deleted claim anew, at any moment.".into(),
            "By hand: `flux suspend image update NAME`, then `flux suspend kustomization NAME` from the root down."
                .into(),
            "A running parent applies its children's manifests, and with them `suspend: false`: so parents first."
                .into(),
            "Suspending does not stop what runs: it is waited for. What somebody else suspended stays theirs.".into(),
        ]
    }

    fn limit(&self) -> Duration {
        // A Kustomization's health checks may take its whole timeout.
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let what = self.gitops.iter().map(|_| format!("what of Flux applies {}", self.work));
        Outlook::changes(System::Kubernetes, what).holds(self.gitops.is_some())
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        let Survey { workload, subjects, owners } =
            owners::survey(&kube, &self.work, &self.claims, &self.nodes).await?;
        let owners = with_recorded(&kube, owners, seen.since).await?;
        if workload.is_none() && owners.is_empty() {
            return Ok(Check::blocked(vec![self.work.missing()]));
        }
        let (mut changes, mut problems, mut notes, mut before) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for other in owners::others(&kube, &subjects).await? {
            match other {
                Ok(note) => notes.push(note),
                Err(problem) => problems.push(problem),
            }
        }
        if self.gitops.is_none() {
            problems.extend(undeclared(&self.work.cluster, &owners));
            notes.push(format!("the site file names no GitOps for {}", self.work.cluster));
            let check = if problems.is_empty() { Check::done() } else { Check::blocked(problems) };
            return Ok(check.notes(notes));
        }
        for owner in &owners {
            let was = seen.since.and_then(|b| b.of(owner));
            let former = match judge(owner, was, seen.run) {
                Stand::Held(note) => {
                    notes.extend(note);
                    was.map_or(Some(true), |was| was.suspend)
                }
                Stand::Todo { change, former } => {
                    changes.push(change);
                    former
                }
                Stand::Blocked(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            before.push(was.cloned().unwrap_or_else(|| OwnerWas::of(owner, former)));
        }
        let running: Vec<String> = owners.iter().filter(|o| owners::runs(o)).map(FluxObject::title).collect();
        let check = if !problems.is_empty() {
            Check::blocked(problems)
        } else if !changes.is_empty() {
            let unlike = match (seen.since, &self.gitops) {
                (Some(since), _) => since.unlike.clone(),
                (None, Some(gitops)) => live::unlike_tip(cx, &kube, self.declared(gitops)).await?,
                (None, None) => Vec::new(),
            };
            let ready = match seen.since {
                Some(since) => since.ready,
                None => workload.as_ref().is_some_and(|w| w.replicas > 0 && w.ready >= w.replicas),
            };
            Check::todo(changes, Before { owners: before, unlike, ready })
        } else if !running.is_empty() {
            Check::waiting(format!("a reconciliation still runs: {}", running.join(", ")))
        } else if owners.is_empty() {
            Check::done().note(format!("nothing of Flux owns {}", self.work))
        } else {
            Check::done()
        };
        Ok(check.notes(notes))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        // The second pass is for what a parent that still ran has resumed.
        for _ in 0..2 {
            let found = owners::survey(&kube, &self.work, &self.claims, &self.nodes).await?.owners;
            for owner in with_recorded(&kube, found, seen.since).await? {
                let was = seen.since.and_then(|b| b.of(&owner));
                match judge(&owner, was, seen.run) {
                    Stand::Held(_) => {}
                    Stand::Blocked(problem) => return Err(refusal(problem)),
                    Stand::Todo { former, .. } => {
                        kube.flux_suspend(permit, &owner, &mark(seen.run, &former)?).await?;
                    }
                }
                idle(cx, &kube, &owner, permit).await?;
            }
        }
        Ok(())
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        let (mut changes, mut problems, mut stays) = (Vec::new(), Vec::new(), Vec::new());
        let owners = match self.to_release(&kube, before, seen.run).await? {
            Ok(owners) => owners,
            Err(problem) => return Ok(Check::blocked(vec![problem])),
        };
        for was in owners.iter().rev() {
            match release::judge(was, was.read(&kube).await?.as_ref(), seen.run) {
                release::Stand::Former(note) => stays.extend(note),
                release::Stand::Held(change) => changes.push(change),
                release::Stand::Changed(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Ok(Check::blocked(problems).stays(stays));
        }
        if !changes.is_empty() {
            return Ok(Check::todo(changes, ()).stays(stays));
        }
        let mut notes = Vec::new();
        if let Some(gitops) = &self.gitops {
            let was = (owners.as_slice(), before.unlike.as_slice());
            let settled = release::settled(cx, &kube, self.declared(gitops), was, seen.got).await?;
            if !settled.is_done() {
                return Ok(settled.stays(stays));
            }
            notes.extend(settled.notes);
        }
        let unready = if before.ready { self.unready(&kube).await? } else { None };
        Ok(unready.map_or_else(Check::done, Check::waiting).stays(stays).notes(notes))
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        let owners = self.to_release(&kube, before, seen.run).await?.map_err(refusal)?;
        release::all(&kube, &owners, seen.run, permit).await?;
        let Some(gitops) = &self.gitops else { return Ok(()) };
        release::request(cx, &kube, gitops, &owners, permit).await
    }
}

impl SuspendGitops {
    /// Why the workload's pods do not run as before.
    async fn unready(&self, kube: &Kubernetes) -> Result<Option<String>, Failure> {
        let workload = kube.workload(&self.work.kind, &self.work.namespace, &self.work.name).await?;
        let Some(workload) = workload.filter(|w| w.ready < w.replicas) else { return Ok(None) };
        let mut reason = format!("{} has {} of {} pods Ready", self.work, workload.ready, workload.replicas);
        for pod in kube.workload_pods(&workload).await?.iter().filter(|pod| !pod.is_ready()) {
            for line in kube.why_not_running(pod).await? {
                reason = format!("{reason}; pod {}: {line}", pod.meta.name);
            }
        }
        Ok(Some(reason))
    }

    fn declared<'e>(&'e self, gitops: &'e Gitops) -> Declared<'e> {
        (gitops, &self.edits, &self.work)
    }

    /// What undo releases. An owner that appeared after the first record is held by its mark alone.
    async fn to_release(
        &self,
        kube: &Kubernetes,
        before: &Before,
        run: &RunInfo,
    ) -> Result<Result<Vec<OwnerWas>, Problem>, Failure> {
        let found = owners::survey(kube, &self.work, &self.claims, &self.nodes).await?.owners;
        Ok(with_later(before, &found, run))
    }
}

/// The owners as they are now, in the order in which they are suspended; those that this run has recorded are
/// among them even where what they own is gone for the moment.
async fn with_recorded(
    kube: &Kubernetes,
    found: Vec<FluxObject>,
    since: Option<&Before>,
) -> Result<Vec<FluxObject>, Failure> {
    let mut owners = Vec::new();
    for was in since.iter().flat_map(|b| &b.owners) {
        owners.extend(was.among(&found, kube).await?);
    }
    let new = |o: &FluxObject| since.is_none_or(|b| b.of(o).is_none());
    owners.extend(found.into_iter().filter(new));
    Ok(owners)
}

/// The record, and behind it the owners that were found later and carry this run's mark.
fn with_later(before: &Before, found: &[FluxObject], run: &RunInfo) -> Result<Vec<OwnerWas>, Problem> {
    let mut owners = before.owners.clone();
    for owner in found.iter().filter(|owner| before.of(owner).is_none()) {
        let title = owner.title();
        if let Held::Ours(mark) = held(&title, &owner.meta, run)? {
            owners.push(OwnerWas::of(owner, former_of(&title, &mark)?));
        }
    }
    Ok(owners)
}

/// How an owner stands to this hold.
#[derive(Debug, PartialEq)]
enum Stand {
    /// It is suspended, by us or by somebody else.
    Held(Option<String>),
    /// It is to be suspended or its mark is to become ours.
    Todo { change: Change, former: Option<bool> },
    /// Somebody else is at it.
    Blocked(Problem),
}

fn judge(owner: &FluxObject, was: Option<&OwnerWas>, run: &RunInfo) -> Stand {
    let title = owner.title();
    // The first record of this run counts, then what the mark says.
    let former = |mark: &Mark| match was {
        Some(was) => Ok(was.suspend),
        None => former_of::<Option<bool>>(&title, mark),
    };
    let todo = |what: String, from: String, former: Result<Option<bool>, Problem>| match former {
        Ok(former) => Stand::Todo { change: Change::set(what, from, "true"), former },
        Err(problem) => Stand::Blocked(problem),
    };
    match held(&title, &owner.meta, run) {
        Err(problem) | Ok(Held::Theirs(_, problem)) => Stand::Blocked(problem),
        Ok(Held::Ours(_)) if owner.is_suspended() => Stand::Held(None),
        Ok(Held::Ours(mark)) => {
            let who = written_by(owner).map(|who| format!(" (resumed by {who})")).unwrap_or_default();
            todo(format!("{title} suspend{who}"), word(owner.suspend).into(), former(&mark))
        }
        Ok(Held::Left(mark)) => {
            let from = format!("{}, held by run {}", word(owner.suspend), mark.run);
            todo(format!("{title} suspend"), from, former(&mark))
        }
        Ok(Held::No) if owner.is_suspended() => {
            let who = written_by(owner).map(|who| format!(" by {who}")).unwrap_or_default();
            Stand::Held(Some(match was {
                Some(was) if !was.was_suspended() => format!("{title} is suspended{who}, and has no mark of this run"),
                _ => format!("{title} was suspended{who} already and stays so"),
            }))
        }
        Ok(Held::No) => {
            let former = was.map_or(owner.suspend, |was| was.suspend);
            todo(format!("{title} suspend"), word(owner.suspend).into(), Ok(former))
        }
    }
}

/// Who wrote `suspend` last, as far as the object tells.
fn written_by(owner: &FluxObject) -> Option<String> {
    owner.suspended_by().first().map(ToString::to_string)
}

fn word(suspend: Option<bool>) -> &'static str {
    match suspend {
        Some(true) => "true",
        Some(false) => "false",
        None => "not set",
    }
}

/// Without `gitops:` in the site file nothing may own the workload.
fn undeclared(cluster: &str, owners: &[FluxObject]) -> Vec<Problem> {
    let problem = |owner: &FluxObject| {
        Problem::new(
            format!("{} owns what is changed, and the site file names no GitOps for {cluster}", owner.title()),
            format!("add `gitops: {{ kind: flux, checkout: NAME, source: .. }}` to kubernetes.{cluster}"),
        )
    };
    owners.iter().map(problem).collect()
}

/// Waits, not for ever, until an owner's reconciliation is over.
async fn idle(cx: &Estate, kube: &Kubernetes, owner: &FluxObject, permit: &Permit) -> Result<(), Failure> {
    let over = async {
        let mut pauses = Backoff::poll(cx.clock());
        loop {
            let now = kube.flux(owner.kind, &owner.meta.namespace, &owner.meta.name).await?;
            if !now.as_ref().is_some_and(owners::runs) {
                return Ok(());
            }
            permit.go_on()?;
            permit.progress(&format!("{} still reconciles", owner.title()));
            pauses.pause().await;
        }
    };
    within(PARENT, over).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::super::owners::tests::kustomization;
    use super::*;
    use crate::base::hold::MARK;
    use crate::engine::step::Standing;
    use serde_json::{Value, json};

    fn run() -> RunInfo {
        let others = [("old".to_owned(), Standing::Abandoned)].into();
        let hosts = ["r", "old"].map(|id| (id.to_owned(), "desk".to_owned())).into();
        RunInfo { id: "r".into(), host: "here".into(), others, hosts, ..RunInfo::default() }
    }

    fn marked(run: &str, was: Value) -> Value {
        json!({MARK: Mark { run: run.into(), host: "desk".into(), was }.to_annotation()})
    }

    fn former(stand: Stand) -> Option<Option<bool>> {
        if let Stand::Todo { former, .. } = stand { Some(former) } else { None }
    }

    #[test]
    fn every_state_of_an_owner_has_its_answer() {
        let none = json!({});
        let owner = |suspend, annotations: &Value| kustomization("apps", suspend, annotations);
        assert_eq!(former(judge(&owner(None, &none), None, &run())), Some(None));
        assert_eq!(former(judge(&owner(Some(false), &none), None, &run())), Some(Some(false)));
        assert_eq!(judge(&owner(Some(true), &marked("r", json!(null))), None, &run()), Stand::Held(None));
        // A parent put `suspend: false` back: the mark still says what was.
        assert_eq!(former(judge(&owner(Some(false), &marked("r", json!(null))), None, &run())), Some(None));
        // An abandoned run's hold is taken over with the state that it found.
        assert_eq!(former(judge(&owner(Some(true), &marked("old", json!(false))), None, &run())), Some(Some(false)));
        assert!(matches!(judge(&owner(Some(true), &marked("x", json!(null))), None, &run()), Stand::Blocked(_)));
        let Stand::Held(Some(note)) = judge(&owner(Some(true), &none), None, &run()) else { panic!("not held") };
        assert!(note.contains("already"), "{note}");
    }

    #[test]
    fn the_first_record_of_a_run_counts() {
        let resumed = kustomization("apps", None, &json!({}));
        let was = OwnerWas::of(&resumed, Some(true));
        assert_eq!(former(judge(&resumed, Some(&was), &run())), Some(Some(true)));
    }

    #[test]
    fn an_owner_that_was_found_later_is_released_too() {
        let named = |name: &str, run: &str| kustomization(name, Some(true), &marked(run, json!(false)));
        let first = kustomization("first", None, &json!({}));
        let before = Before { owners: vec![OwnerWas::of(&first, None)], ..Before::default() };
        let found = [named("first", "r"), named("later", "r"), named("theirs", "x"), named("left", "old")];
        let owners = with_later(&before, &found[..2], &run()).unwrap();
        let shown: Vec<_> = owners.iter().map(|o| (o.name.as_str(), o.suspend)).collect();
        assert_eq!(shown, [("first", None), ("later", Some(false))]);
        assert_eq!(with_later(&before, &found[2..], &run()).unwrap(), before.owners);
    }

    #[test]
    fn an_owner_without_gitops_in_the_site_is_told() {
        assert_eq!(undeclared("k3s", &[]), []);
        assert_eq!(undeclared("k3s", &[kustomization("apps", None, &json!({}))]).len(), 1);
    }
}
