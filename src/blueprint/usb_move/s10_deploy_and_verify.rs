//! 10: the workload runs on the target as git says, and finds its device.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::hold::MARK;
use crate::base::permit::{Permit, System};
use crate::checkout::Edit;
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::k8s::fields::owners_of;
use crate::k8s::flux::{FluxKind, FluxObject};
use crate::k8s::{Kubernetes, Workload};

use super::deploy::{self, Old, Source};
use super::hold::{known, was as former_of};
use super::live;
use super::owners::{self, OwnerWas, Survey};
use super::params::{Gitops, KubeNode, Verify, Work};
use super::release::{self, pending};
use super::stranded::{CANNOT_GO, stranded};
use super::{s00b_suspend_gitops as suspended, s00d_scale_down as scaled};

/// Lets GitOps and the workload go again, and looks whether it works.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployAndVerify {
    /// The workload.
    pub work: Work,
    /// Where its pods are to run.
    pub node: KubeNode,
    /// What the cluster follows.
    pub gitops: Option<Gitops>,
    /// The declared values.
    pub edits: Vec<Edit>,
    /// The claims and nodes whose owners were suspended with the workload's.
    pub claims: Vec<String>,
    /// See `claims`.
    pub nodes: Vec<String>,
    /// The proof in the pod.
    pub verify: Option<Verify>,
}

/// What is there before anything is let go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The image of each container in the workload's template.
    pub images: BTreeMap<String, String>,
    /// The pods that do not count as new.
    #[serde(flatten)]
    pub old: Old,
}

/// What is still held, and how it was.
struct Held {
    /// Owners with what they were, in the order in which they were suspended.
    owners: Vec<OwnerWas>,
    /// The owners as they are.
    now: Vec<FluxObject>,
    /// The count before; None where nobody knows.
    replicas: Option<i64>,
    /// The workload carries a mark.
    marked: bool,
}

impl Step<Estate> for DeployAndVerify {
    const ID: &'static str = "10-deploy-and-verify";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} runs on {} and finds its device", self.work, self.node.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "GitOps that is let go before it has the new values puts the pod, and its new claims, on the old node."
                .into(),
            "By hand: `flux reconcile source git NAME`, `flux resume kustomization NAME`, `flux reconcile \
             kustomization NAME`, then `kubectl scale --replicas`, and `kubectl exec` for the proof."
                .into(),
            "Reconciling the root does not reconcile its children: each owner is asked.".into(),
            "A pod that is scheduled and does not start is no less stuck than a Pending one; its events say why."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        // Images may have to be pulled to a node that never had them.
        Duration::from_secs(600)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let waits = if self.gitops.is_some() { deploy::GITOPS } else { Duration::ZERO };
        Outlook::changes(System::Kubernetes, [self.work.to_string()]).longest(waits)
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        let source = async {
            match &self.gitops {
                Some(gitops) => deploy::source(cx, &kube, gitops, &self.edits).await,
                None => Ok(Source::Has),
            }
        };
        let (survey, source) = futures::join!(self.survey(&kube), source);
        let Survey { workload, owners, .. } = survey?;
        let Some(workload) = workload else { return Ok(Check::blocked(vec![self.work.missing()])) };
        let held = match self.held(owners, &workload, &seen)? {
            Ok(held) => held,
            Err(problem) => return Ok(Check::blocked(vec![problem])),
        };
        let (mut changes, mut problems, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        match source? {
            Source::Has => {}
            Source::Behind(how) => changes.push(Change::act(format!("reconcile: {how}"))),
            Source::Blocked(problem) => problems.push(problem),
        }
        for was in held.owners.iter().rev() {
            match release::judge(was, was.among(&held.now, &kube).await?.as_ref(), seen.run) {
                release::Stand::Former(note) => notes.extend(note),
                release::Stand::Held(change) => changes.push(change),
                release::Stand::Changed(problem) => problems.push(problem),
            }
        }
        if let Some(gitops) = &self.gitops {
            let lacking = live::lacking(cx, &kube, (gitops, &self.edits, &self.work)).await?;
            if !lacking.is_empty() {
                problems.extend(self.stays_suspended(&held));
            }
            changes.extend(lacking.into_iter().map(Change::act));
        }
        match scale(&workload, &held) {
            Scale::Is => {}
            Scale::Restore(count) => {
                changes.push(Change::set(format!("{} replicas", self.work), "0", count.to_string()));
            }
            Scale::Mark => changes.push(Change::act(format!("{}: the hold's mark goes", self.work))),
            Scale::Unknown => problems.push(Problem::new(
                format!("{} has 0 replicas, and no mark and no record says how many there were", self.work),
                format!(
                    "`kubectl -n {} scale {} {} --replicas COUNT`",
                    self.work.namespace,
                    self.work.kind.to_lowercase(),
                    self.work.name
                ),
            )),
        }
        notes.extend(seen.since.iter().flat_map(|since| bumped(&since.images, &images(&workload))));
        if !problems.is_empty() {
            return Ok(Check::blocked(problems).notes(notes));
        }
        if !changes.is_empty() {
            return Ok(Check::todo(changes, self.before(&kube, &workload).await?).notes(notes));
        }
        Ok(self.running(&kube, &workload, &held, seen).await?.notes(notes))
    }

    async fn stir(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<(), Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        match self.workload(&kube).await? {
            Some(workload) => Ok(kube.stir_of_pods_of(&workload).await?),
            None => std::future::pending().await,
        }
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        let missing = || Failure::plain(self.work.missing().text, Some(self.work.missing().help));
        let Survey { workload, owners, .. } = self.survey(&kube).await?;
        let workload = workload.ok_or_else(missing)?;
        let held = self.held(owners, &workload, &seen)?.map_err(|p| Failure::plain(p.text, Some(p.help)))?;
        if let Some(gitops) = &self.gitops {
            // Nothing is let go before its source has what is to be applied.
            deploy::reconcile_source(cx, &kube, gitops, &self.edits, permit).await?;
        }
        release::all(&kube, &held.owners, seen.run, permit).await?;
        if let Some(gitops) = &self.gitops {
            let mut running = Vec::new();
            for owner in held.now.iter().filter(|o| o.kind != FluxKind::ImageUpdateAutomation) {
                let now = kube.flux(owner.kind, &owner.meta.namespace, &owner.meta.name).await?;
                running.extend(now.filter(|now| !now.is_suspended()));
            }
            let what = (gitops, self.edits.as_slice(), &self.work);
            deploy::reconcile_owners(cx, &kube, what, &running, permit).await?;
        }
        // GitOps may have set the count meanwhile.
        let workload = self.workload(&kube).await?.ok_or_else(missing)?;
        match scale(&workload, &held) {
            Scale::Is | Scale::Unknown => Ok(()),
            Scale::Restore(count) => Ok(kube.restore_replicas(permit, &workload, count).await?),
            Scale::Mark => Ok(kube.remove_workload_mark(permit, &workload).await?),
        }
    }

    async fn back(&self, _: &Estate, _: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        Ok(if seen.held.is_empty() {
            Check::done().stays(["what this step let go stays so: its holds were another run's".to_owned()])
        } else {
            Check::done().note("what this step let go is put back by 00b and 00d, and its values by 09a")
        })
    }
}

impl DeployAndVerify {
    async fn workload(&self, kube: &Kubernetes) -> Result<Option<Workload>, Failure> {
        Ok(kube.workload(&self.work.kind, &self.work.namespace, &self.work.name).await?)
    }

    async fn survey(&self, kube: &Kubernetes) -> Result<Survey, Failure> {
        owners::survey(kube, &self.work, &self.claims, &self.nodes).await
    }

    /// What 00b and 00d hold: by this run's record, else by the marks; `now`: the owners as they are.
    fn held(
        &self,
        now: Vec<FluxObject>,
        workload: &Workload,
        seen: &Seen<'_, Before>,
    ) -> Result<Result<Held, Problem>, Failure> {
        let recorded: Option<suspended::Before> = record(seen, "00b-suspend-gitops")?;
        let count: Option<scaled::Before> = record(seen, "00d-scale-down")?;
        let mut list = Vec::new();
        for owner in &now {
            let mark = match known(&owner.title(), &owner.meta, seen.run) {
                Ok(mark) => mark,
                Err(problem) => return Ok(Err(problem)),
            };
            match (recorded.as_ref().and_then(|b| b.of(owner)), mark) {
                (Some(was), _) => list.push(was.clone()),
                (None, Some(mark)) => match former_of(&owner.title(), &mark) {
                    Ok(suspend) => list.push(OwnerWas::of(owner, suspend)),
                    Err(problem) => return Ok(Err(problem)),
                },
                (None, None) => {}
            }
        }
        for was in recorded.into_iter().flat_map(|b| b.owners) {
            if !list.contains(&was) {
                list.push(was);
            }
        }
        let mark = match known(&self.work.to_string(), &workload.meta, seen.run) {
            Ok(mark) => mark,
            Err(problem) => return Ok(Err(problem)),
        };
        let marked = mark.is_some();
        let replicas = match (count, mark) {
            (Some(count), _) => Some(count.replicas),
            (None, Some(mark)) => match former_of::<scaled::Before>(&self.work.to_string(), &mark) {
                Ok(before) => Some(before.replicas),
                Err(problem) => return Ok(Err(problem)),
            },
            (None, None) => None,
        };
        Ok(Ok(Held { owners: list, now, replicas, marked }))
    }

    async fn before(&self, kube: &Kubernetes, workload: &Workload) -> Result<Before, Failure> {
        // The API server's own time of the mark: the same clock as that of a pod's creation.
        let mark = owners_of(&workload.meta.managed_fields, &["f:metadata", "f:annotations", &format!("f:{MARK}")]);
        let held_at = mark.first().map(|owner| owner.time.clone()).filter(|time| !time.is_empty());
        let mut old = Old { pods: Vec::new(), held_at };
        if workload.replicas == 0 {
            old.pods = kube.workload_pods(workload).await?.into_iter().map(|p| p.meta.uid).collect();
        }
        Ok(Before { images: images(workload), old })
    }

    /// Owners that somebody else has suspended: nothing brings the values while they are.
    fn stays_suspended(&self, held: &Held) -> Vec<Problem> {
        let theirs = |o: &&FluxObject| {
            o.is_suspended()
                && o.kind != FluxKind::ImageUpdateAutomation
                && held.owners.iter().find(|was| was.is(o)).is_none_or(OwnerWas::was_suspended)
        };
        let problem = |o: &FluxObject| {
            let kind = o.kind.api().1.to_lowercase();
            Problem::new(
                format!("{} was suspended before this run and stays so: it will not apply the values", o.title()),
                format!("if it may run: `flux resume {kind} {} -n {}`", o.meta.name, o.meta.namespace),
            )
        };
        held.now.iter().filter(theirs).map(problem).collect()
    }

    /// Everything is let go: do the pods run, and do they find the device?
    async fn running(
        &self,
        kube: &Kubernetes,
        workload: &Workload,
        held: &Held,
        seen: Seen<'_, Before>,
    ) -> Result<Check<Before>, Failure> {
        if workload.replicas == 0 {
            return Ok(Check::done().note(format!("{} had no replicas before and has none", self.work)));
        }
        let pods = kube.workload_pods(workload).await?;
        let old = seen.since.map(|since| since.old.clone()).unwrap_or_default();
        if let Some(unready) = deploy::unready(workload, &pods, &self.node.name, &old) {
            let mut reason = unready.why;
            if let Some(pod) = unready.pod {
                for line in kube.why_not_running(pod).await? {
                    reason = format!("{reason}; {line}");
                }
            }
            if reason.contains(CANNOT_GO) {
                let bound = stranded(kube, (&self.work, &self.node.name), workload).await?;
                if !bound.is_empty() {
                    return Ok(Check::blocked(bound).note(reason));
                }
            }
            return Ok(Check::waiting(reason));
        }
        if let Some(owner) = held.now.iter().find(|o| !o.is_suspended() && pending(o, seen.got)) {
            return Ok(Check::waiting(format!("{} has not yet handled our request", owner.title())));
        }
        let unwell = held.now.iter().filter(|o| !o.is_suspended() && !o.is_ready()).map(FluxObject::summary);
        let unwell: Vec<String> = unwell.collect();
        let Some(verify) = &self.verify else {
            return Ok(Check::done().notes(unwell).note("the migration declares no `verify`"));
        };
        Ok(match deploy::unproven(kube, &self.work.namespace, &pods, verify).await? {
            Ok(notes) => Check::done().notes(unwell).notes(notes),
            Err(why) => Check::waiting(why),
        })
    }
}

/// What this run recorded for a hold.
fn record<B: DeserializeOwned>(seen: &Seen<'_, Before>, id: &str) -> Result<Option<B>, Failure> {
    let Some(value) = seen.held.get(id) else { return Ok(None) };
    B::deserialize(value)
        .map(Some)
        .map_err(|error| Failure::plain(format!("the journal's record of {id} does not fit: {error}"), None))
}

/// What is to be done about the count.
#[derive(Debug, PartialEq, Eq)]
enum Scale {
    Is,
    Restore(i64),
    Mark,
    Unknown,
}

fn scale(workload: &Workload, held: &Held) -> Scale {
    match (workload.replicas, held.replicas) {
        (0, Some(count)) if count > 0 => Scale::Restore(count),
        // Somebody, or GitOps, has set a count: it stays.
        _ if held.marked => Scale::Mark,
        (0, None) => Scale::Unknown,
        _ => Scale::Is,
    }
}

/// The image of each container in the template.
fn images(workload: &Workload) -> BTreeMap<String, String> {
    let containers = workload.raw.pointer("/spec/template/spec/containers").and_then(serde_json::Value::as_array);
    let field = |c: &serde_json::Value, key: &str| c.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    containers.into_iter().flatten().filter_map(|c| Some((field(c, "name")?, field(c, "image")?))).collect()
}

/// A line for each image that another commit changed meanwhile: what came out of a hold all lands at once.
fn bumped(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let line = |(name, image): (&String, &String)| {
        let then = before.get(name)?;
        (then != image).then(|| format!("container {name}: image {then} became {image} meanwhile"))
    };
    now.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::Resource;
    use crate::k8s::meta::Meta;
    use serde_json::json;
    use std::borrow::Cow;

    fn workload(replicas: i64, image: &str) -> Workload {
        let raw = json!({"spec": {"template": {"spec": {"containers": [{"name": "frigate", "image": image}]}}}});
        Workload {
            resource: Resource {
                group: Cow::Borrowed("apps"),
                version: Cow::Borrowed("v1"),
                plural: Cow::Borrowed("deployments"),
                kind: Cow::Borrowed("Deployment"),
                namespaced: true,
                replicas_in_spec: true,
            },
            meta: Meta::default(),
            replicas,
            current: 0,
            ready: 0,
            observed_generation: 0,
            selector: String::new(),
            needs: None,
            raw,
        }
    }

    #[test]
    fn a_count_is_restored_only_where_it_is_still_zero() {
        let held = |replicas, marked| Held { owners: Vec::new(), now: Vec::new(), replicas, marked };
        let table = [
            (0, Some(2), true, Scale::Restore(2)),
            // The mark went with somebody's edit; the journal still knows.
            (0, Some(2), false, Scale::Restore(2)),
            // GitOps set it.
            (1, Some(2), true, Scale::Mark),
            (1, Some(2), false, Scale::Is),
            (0, Some(0), true, Scale::Mark),
            (0, Some(0), false, Scale::Is),
            (0, None, false, Scale::Unknown),
            (1, None, false, Scale::Is),
        ];
        for (now, replicas, marked, expected) in table {
            assert_eq!(scale(&workload(now, "a"), &held(replicas, marked)), expected, "{now} {replicas:?} {marked}");
        }
    }

    #[test]
    fn an_image_that_changed_meanwhile_is_told() {
        let (before, now) = (images(&workload(1, "frigate:0.14")), images(&workload(1, "frigate:0.15")));
        assert_eq!(bumped(&before, &now), ["container frigate: image frigate:0.14 became frigate:0.15 meanwhile"]);
        assert!(bumped(&before, &before).is_empty());
    }
}
