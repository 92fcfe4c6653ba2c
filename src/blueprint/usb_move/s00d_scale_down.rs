//! 00d: no pod of the workload runs while its volumes and its device are moved.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::k8s::fields::owners_of;
use crate::k8s::{Kubernetes, Pod, Workload};

use super::hold::{Held, held, mark, was};
use super::params::Work;

/// Scales the workload to 0 until 10.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScaleDown {
    /// The workload.
    pub work: Work,
}

/// How many pods were asked for; an absent `spec.replicas` means 1. Also the state in the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The count.
    pub replicas: i64,
}

impl Step<Estate> for ScaleDown {
    const ID: &'static str = "00d-scale-down";
    const RISK: Risk = Risk::Reverts;
    const HOLDS_UNTIL: Option<&'static str> = Some("10-deploy-and-verify");
    type Before = Before;

    fn title(&self) -> String {
        format!("{} has no pods", self.work)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A pod that runs writes to volumes that are about to be replaced, and keeps their claims from going."
                .into(),
            "A second pod that takes the device while the first one holds it fails both.".into(),
            format!(
                "By hand: `kubectl -n {} scale {} {} --replicas 0`, with the old count written down somewhere.",
                self.work.namespace,
                self.work.kind.to_lowercase(),
                self.work.name
            ),
            "The count is kept in an annotation of the workload, so that it survives the loss of the state directory."
                .into(),
        ]
    }

    /// A pod has its grace period, and the kubelet takes its time to unmount.
    fn limit(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        Outlook::changes(System::Kubernetes, [self.work.to_string()]).stops(self.work.to_string())
    }

    fn was_at_work(&self, before: &Before) -> bool {
        before.replicas > 0
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let k8s = cx.kubernetes(&self.work.cluster).await?;
        let Some(workload) = self.find(&k8s).await? else { return Ok(Check::blocked(vec![self.work.missing()])) };
        let (before, ours) = match self.former(&workload, &seen) {
            Ok(former) => former,
            Err(problem) => return Ok(Check::blocked(vec![problem])),
        };
        if ours && workload.replicas == 0 {
            return Ok(gone(&k8s.workload_pods(&workload).await?));
        }
        if workload.scaling_deletes_claims() && workload.replicas > 0 {
            return Ok(Check::blocked(vec![Problem::new(
                format!("{} deletes its claims when it is scaled down (whenScaled: Delete)", self.work),
                "set `persistentVolumeClaimRetentionPolicy.whenScaled: Retain` first; otherwise its data goes",
            )]));
        }
        let what = format!("{} replicas", self.work);
        let change = if workload.replicas == 0 {
            Change::act(format!("{} (has no replicas) is marked as held", self.work))
        } else {
            Change::set(what, workload.replicas.to_string(), "0")
        };
        let fallen = seen.since.map(|_| fallen(&workload));
        Ok(Check::todo(vec![change], before).notes(fallen))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let k8s = cx.kubernetes(&self.work.cluster).await?;
        let Some(workload) = self.find(&k8s).await? else { return Ok(()) };
        let Ok((now, ours)) = self.former(&workload, &seen) else { return Ok(()) };
        if ours && workload.replicas == 0 {
            return Ok(());
        }
        let mark = mark(seen.run, seen.since.unwrap_or(&now))?;
        Ok(k8s.scale_to_zero(permit, &workload, &mark).await?)
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let k8s = cx.kubernetes(&self.work.cluster).await?;
        let Some(workload) = self.find(&k8s).await? else { return Ok(Check::blocked(vec![self.work.missing()])) };
        let marked = match held(&self.work.to_string(), &workload.meta, seen.run) {
            Ok(Held::No) => false,
            Ok(Held::Ours(_) | Held::Left(_)) => true,
            Ok(Held::Theirs(_, problem)) | Err(problem) => return Ok(Check::blocked(vec![problem])),
        };
        Ok(match release(workload.replicas, marked, before.replicas) {
            Release::Is => Check::done(),
            Release::Kept => Check::done().stays([format!(
                "the replicas of {} are {}, before they were {}: somebody else scaled it, and that stays",
                self.work, workload.replicas, before.replicas
            )]),
            Release::Mark if workload.replicas == before.replicas => {
                Check::todo(vec![Change::act(format!("{}: the hold's mark goes", self.work))], ())
            }
            Release::Mark => {
                Check::todo(vec![Change::act(format!("{}: the hold's mark goes", self.work))], ()).note(format!(
                    "it has {} replicas, before there were {}: somebody else scaled it, and that stays",
                    workload.replicas, before.replicas
                ))
            }
            Release::Count => {
                let change = Change::set(format!("{} replicas", self.work), "0", before.replicas.to_string());
                Check::todo(vec![change], ())
            }
        })
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let k8s = cx.kubernetes(&self.work.cluster).await?;
        let Some(workload) = self.find(&k8s).await? else { return Ok(()) };
        let marked = match held(&self.work.to_string(), &workload.meta, seen.run) {
            Ok(Held::No) => false,
            Ok(Held::Ours(_) | Held::Left(_)) => true,
            Ok(Held::Theirs(..)) | Err(_) => return Ok(()),
        };
        match release(workload.replicas, marked, before.replicas) {
            Release::Is | Release::Kept => Ok(()),
            Release::Mark => Ok(k8s.remove_workload_mark(permit, &workload).await?),
            Release::Count => Ok(k8s.restore_replicas(permit, &workload, before.replicas).await?),
        }
    }
}

impl ScaleDown {
    async fn find(&self, k8s: &Kubernetes) -> Result<Option<Workload>, Failure> {
        Ok(k8s.workload(&self.work.kind, &self.work.namespace, &self.work.name).await?)
    }

    /// The count to go back to, and whether this run's mark is up.
    fn former(&self, workload: &Workload, seen: &Seen<'_, Before>) -> Result<(Before, bool), Problem> {
        let what = self.work.to_string();
        let now = Before { replicas: workload.replicas };
        match held(&what, &workload.meta, seen.run)? {
            Held::No => Ok((now, false)),
            Held::Ours(mark) => Ok((was(&what, &mark)?, true)),
            // Somebody scaled up since that run: then this count is the one to go back to.
            Held::Left(_) if workload.replicas > 0 => Ok((now, false)),
            Held::Left(mark) => Ok((was(&what, &mark)?, false)),
            Held::Theirs(_, problem) => Err(problem),
        }
    }
}

/// What has to be done to release the hold.
#[derive(Debug, PartialEq, Eq)]
enum Release {
    /// Nothing.
    Is,
    /// Nothing: somebody else scaled it.
    Kept,
    /// The mark goes, the count stays.
    Mark,
    /// The count is set back and the mark goes.
    Count,
}

fn release(now: i64, marked: bool, before: i64) -> Release {
    match (now, marked) {
        (now, false) if now == before => Release::Is,
        (now, true) if now == before || now != 0 => Release::Mark,
        (0, _) => Release::Count,
        _ => Release::Kept,
    }
}

/// Done when no pod is left that runs or may still write.
fn gone(pods: &[Pod]) -> Check<Before> {
    let (finished, left): (Vec<_>, Vec<_>) = pods.iter().partition(|p| p.is_finished() && p.meta.deleting.is_none());
    let finished: Vec<_> = finished
        .iter()
        .map(|p| format!("pod {} is finished ({}) and stays; it still holds its claims", p.meta.full_name(), p.phase))
        .collect();
    if left.is_empty() {
        return Check::done().notes(finished);
    }
    let state = |p: &&Pod| {
        let on = p.node.as_ref().map(|n| format!(" on {n}")).unwrap_or_default();
        let how = match (&p.meta.deleting, p.meta.finalizers.as_slice()) {
            (None, _) => "not yet being deleted".to_owned(),
            (Some(at), []) => format!("being deleted, grace until {at}"),
            (Some(_), held) => format!("being deleted, held by finalizers {}", held.join(", ")),
        };
        format!("pod {}{on} ({how})", p.meta.name)
    };
    Check::waiting(format!("still there: {}", left.iter().map(state).collect::<Vec<_>>().join(", "))).notes(finished)
}

fn fallen(workload: &Workload) -> String {
    let owners = owners_of(&workload.meta.managed_fields, &["f:spec", "f:replicas"]);
    match owners.first() {
        Some(owner) => format!("`spec.replicas` was last written by {owner}"),
        None => "who wrote `spec.replicas` is not recorded".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_somebody_set_is_not_overwritten() {
        assert_eq!(release(0, true, 2), Release::Count);
        assert_eq!(release(0, false, 2), Release::Count);
        assert_eq!(release(2, false, 2), Release::Is);
        // Half-way: a kind with `scale` gets its count first.
        assert_eq!(release(2, true, 2), Release::Mark);
        assert_eq!(release(3, true, 2), Release::Mark);
        assert_eq!(release(3, false, 2), Release::Kept);
        assert_eq!(release(0, false, 0), Release::Is);
        assert_eq!(release(0, true, 0), Release::Mark);
    }
}
