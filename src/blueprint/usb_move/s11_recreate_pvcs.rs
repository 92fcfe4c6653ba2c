//! 11: the claims that are to be made anew are bound to volumes of the target.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System, Thing};
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::k8s::claim::fresh_manifest;
use crate::k8s::flux::FluxObject;
use crate::k8s::{Kubernetes, Volume};

use super::claims::{Now, Standing, is_former, leaving, leftovers, ours, stand};
use super::claims_back::{file, lost};
use super::fault::refusal;
use super::hold::known;
use super::owners::{self, Survey};
use super::params::{ClaimFate, KubeNode, Work};

/// How long a claim without holders may take to go.
pub(super) const GONE: Duration = Duration::from_secs(120);

/// Replaces claims that are bound to volumes which the target cannot use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecreatePvcs {
    /// The workload.
    pub work: Work,
    /// The node that is to have the volumes.
    pub node: KubeNode,
    /// The same node by its name in the site file, to measure what is on it.
    pub guest: String,
    /// What becomes of each claim; those that are not named stay.
    pub claims: BTreeMap<String, ClaimFate>,
}

/// The claims as they were. Between the deletion of a claim and its return this is the only copy of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// The claims that were replaced.
    pub claims: Vec<Was>,
}

/// A claim as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Was {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The object without the annotations that are its owner's; the run file `NAME.json` has them as well.
    pub manifest: Value,
    /// Name and uid of its volume; None where it had none yet.
    pub volume: Option<(String, String)>,
}

impl Step<Estate> for RecreatePvcs {
    const ID: &'static str = "11-recreate-pvcs";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        let names: Vec<&str> = self.recreated().collect();
        match names.as_slice() {
            [] => format!("claims of {} have volumes on {}", self.work, self.node.name),
            names => format!("claims {} of {} have volumes on {}", names.join(", "), self.work, self.node.name),
        }
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A pod whose claim is bound to another node's disk stays Pending: `volume node affinity conflict`.".into(),
            "By hand: save the claim, `kubectl delete pvc NAME`, wait until it is gone, and create it again without \
             uid, volumeName and binding annotations, with volume.kubernetes.io/selected-node set to the target."
                .into(),
            "A deletion waits, without any limit, as long as a pod names the claim, a Completed one too.".into(),
            "The new volume is empty. The old one stays, Retain and Released, and undo binds the claim to it again."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        // The provisioner's own pod has 120 s to make a directory.
        Duration::from_secs(180)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        let claims: Vec<_> = self.recreated().map(|name| format!("claim {}/{name}", self.work.namespace)).collect();
        let empties = self.recreated().map(|name| Thing::claim(&self.work.namespace, name)).collect();
        // A claim that goes, each after the other.
        let longest = GONE.saturating_mul(u32::try_from(claims.len()).unwrap_or(u32::MAX));
        Outlook { empties, longest, ..Outlook::changes(System::Kubernetes, claims) }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        if self.recreated().next().is_none() {
            return Ok(Check::not_needed("no claim is to be made anew").notes(self.left(&kube).await?));
        }
        let (mut changes, mut problems, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut waiting, mut before) = (Vec::new(), Vec::new());
        let names: Vec<&str> = self.recreated().collect();
        let (all, left) =
            futures::join!(Now::read(&kube, &self.work.namespace, &names, &self.node.name), self.left(&kube));
        for now in all? {
            let name = now.name.as_str();
            let was = seen.since.and_then(|b| b.claims.iter().find(|was| was.name == *name));
            if now.claim.is_none() && was.is_none() && self.makes(&kube, name).await? {
                notes.push(format!(
                    "there is no claim {name} yet: {} makes it with its pod, and 10 proves it",
                    self.work
                ));
                continue;
            }
            match stand(&now, was, seen.since.is_some()) {
                Standing::Good(note) => notes.push(note),
                Standing::Coming(reason) => waiting.push(reason),
                Standing::Blocked(problem) => problems.push(problem),
                Standing::Create => changes.push(self.change(name, was)),
                Standing::Replace => {
                    let recorded = was.cloned().or_else(|| now.was());
                    changes.push(self.change(name, recorded.as_ref()));
                    problems.extend(self.in_the_way(&kube, &now).await?);
                    before.extend(recorded);
                }
            }
        }
        if !changes.is_empty() {
            problems.extend(self.unguarded(&kube, seen.run, "`pvemig step 00b-suspend-gitops` suspends it").await?);
        }
        notes.extend(left?);
        let check = if !problems.is_empty() {
            Check::blocked(problems)
        } else if !changes.is_empty() {
            Check::todo(changes, seen.since.cloned().unwrap_or(Before { claims: before }))
        } else if !waiting.is_empty() {
            Check::waiting(waiting.join("; "))
        } else {
            Check::done()
        };
        Ok(check.notes(notes))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        let namespace = &self.work.namespace;
        for was in seen.since.iter().flat_map(|b| &b.claims) {
            let now = Now::read(&kube, namespace, &[&was.name], &self.node.name).await?.pop();
            let Some(now) = now else { continue };
            match stand(&now, Some(was), true) {
                Standing::Good(_) | Standing::Coming(_) => continue,
                Standing::Blocked(problem) => return Err(refusal(problem)),
                Standing::Create => {}
                Standing::Replace => {
                    // The last look before the only call that takes something away.
                    if let Some(problem) = self.in_the_way(&kube, &now).await?.into_iter().next() {
                        return Err(refusal(problem));
                    }
                    if let Some(claim) = &now.claim
                        && self.filed(seen.run, was)?.is_none()
                    {
                        permit.file(&file(was), claim.raw.to_string().as_bytes())?;
                    }
                    if now.claim.is_some_and(|c| c.meta.deleting.is_none()) {
                        kube.delete_claim(permit, (namespace, &was.name), &was.uid, false).await?;
                    }
                    kube.wait_claim_gone(namespace, &was.name, &was.uid, GONE).await?;
                }
            }
            let manifest = self.filed(seen.run, was)?.unwrap_or_else(|| was.manifest.clone());
            kube.create_claim(permit, &fresh_manifest(&manifest, &self.node.name)).await?;
        }
        Ok(())
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        let (mut changes, mut problems, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut waiting = Vec::new();
        for was in &before.claims {
            let title = format!("claim {}/{}", self.work.namespace, was.name);
            let live = kube.claim(&self.work.namespace, &was.name).await?;
            let leftover = leftovers(&kube.volumes().await?, was, seen.got, live.as_ref(), &self.node.name);
            let old = was.volume.as_ref().map(|(name, _)| name.clone());
            match &live {
                Some(now) if is_former(now, was, &self.node.name) => {
                    let left = |v: &Volume| Change::remove(format!("{title} left-over volume"), &v.meta.name);
                    changes.extend(leftover.iter().map(left));
                    if leftover.is_empty() && was.volume.is_some() && !now.is_bound() {
                        waiting.push(format!("{title} is {} on its old volume", now.phase));
                    }
                    continue;
                }
                Some(now) if now.meta.uid != was.uid && !ours(now, seen.got) => {
                    problems.push(Problem::new(
                        format!(
                            "{title} was bound to {}, this run made it anew, and now another one is there, bound to {}",
                            old.as_deref().unwrap_or("nothing"),
                            now.volume.as_deref().unwrap_or("nothing"),
                        ),
                        format!(
                            "if it may go: `kubectl delete pvc -n {} {}`, then undo",
                            self.work.namespace, was.name
                        ),
                    ));
                    continue;
                }
                Some(now) => {
                    if now.meta.uid != was.uid && now.volume != old {
                        notes.extend(self.received(cx, &kube, now).await?);
                    }
                    let holders = kube.claim_holders(&self.work.namespace, &was.name).await?;
                    problems.extend(holders.iter().filter(|h| h.blocks).map(|h| {
                        Problem::new(format!("{title} is held by {h}"), "scale its workload to 0, or delete the pod")
                    }));
                }
                None => {}
            }
            if let Some((name, uid)) = &was.volume {
                let volume = kube.volume(name).await?.filter(|volume| volume.meta.uid == *uid);
                problems.extend(lost(volume.as_ref(), &self.work.namespace, was, name));
            }
            // A claim that was deleted had its file written first.
            if live.as_ref().is_none_or(|now| now.meta.uid != was.uid) && self.filed(seen.run, was)?.is_none() {
                notes.push(format!(
                    "{title}: its run file {} is missing, so it comes back from the journal's copy, without the \
                     annotations of its owner",
                    file(was)
                ));
            }
            let from = live.and_then(|l| l.volume).unwrap_or_else(|| "none".into());
            changes.push(Change::set(format!("{title} volume"), from, old.unwrap_or_else(|| "none".into())));
        }
        if !changes.is_empty() {
            // Another step would be a later run, which would have to be undone before this one.
            let help = "suspend it by hand (`flux suspend`) until this undo is over";
            problems.extend(self.unguarded(&kube, seen.run, help).await?);
        }
        let check = if !problems.is_empty() {
            Check::blocked(problems)
        } else if !changes.is_empty() {
            Check::todo(changes, ())
        } else if !waiting.is_empty() {
            Check::waiting(waiting.join("; "))
        } else {
            Check::done()
        };
        Ok(check.notes(notes))
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let kube = cx.kubernetes(&self.work.cluster).await?;
        for was in &before.claims {
            self.rebind(&kube, was, (seen.run, seen.got), permit).await?;
        }
        Ok(())
    }

    fn undo_destroys(&self, before: &Before) -> Vec<Thing> {
        before.claims.iter().map(|was| Thing::claim(&self.work.namespace, &was.name)).collect()
    }
}

impl RecreatePvcs {
    fn recreated(&self) -> impl Iterator<Item = &str> {
        self.claims.iter().filter(|(_, fate)| **fate == ClaimFate::Recreate).map(|(name, _)| name.as_str())
    }

    /// Whether the workload's controller makes a claim where there is none.
    async fn makes(&self, kube: &Kubernetes, claim: &str) -> Result<bool, Failure> {
        let workload = kube.workload(&self.work.kind, &self.work.namespace, &self.work.name).await?;
        Ok(workload.is_some_and(|workload| workload.makes_claim(claim)))
    }

    fn change(&self, name: &str, was: Option<&Was>) -> Change {
        let old = was.and_then(|was| was.volume.as_ref()).map_or("none", |(volume, _)| volume);
        let what = format!("claim {}/{name} volume", self.work.namespace);
        Change::set(what, format!("{old} (kept)"), format!("a new one on {}", self.node.name))
    }

    /// What keeps a claim from being deleted without loss and without waiting for ever.
    async fn in_the_way(&self, kube: &Kubernetes, now: &Now) -> Result<Vec<Problem>, Failure> {
        let mut problems = Vec::new();
        let title = format!("claim {}/{}", self.work.namespace, now.name);
        match (&now.volume, now.claim.as_ref().and_then(|c| c.volume.as_ref())) {
            (Some(volume), _) if volume.reclaim_policy != "Retain" => problems.push(
                Problem::new(
                    format!("volume {} of {title} would go with it: it is {}", volume.meta.name, volume.reclaim_policy),
                    format!("`pvemig step 00a-retain-volumes` sets {} to Retain", volume.meta.name),
                )
                .mended_by("00a-retain-volumes"),
            ),
            (None, Some(name)) => problems.push(Problem::new(
                format!("{title} is bound to volume {name}, which is not there"),
                "say `leave` for this claim in the site file, or delete it by hand",
            )),
            _ => {}
        }
        problems.extend(now.volume.as_ref().and_then(|volume| leaving(volume, &title)));
        let pods = kube.pods_in(&self.work.namespace).await?;
        let workload = kube.workload(&self.work.kind, &self.work.namespace, &self.work.name).await?;
        let own = match &workload {
            Some(workload) => kube.workload_pods(workload).await?,
            None => Vec::new(),
        };
        for holder in crate::k8s::claim::holders(&now.name, &pods).into_iter().filter(|h| h.blocks) {
            let text = format!("{title} is held by {holder}");
            let problem = if own.iter().any(|pod| pod.meta.uid == holder.uid) {
                Problem::new(text, "`pvemig step 00d-scale-down` scales the workload to 0").mended_by("00d-scale-down")
            } else {
                let delete = format!("kubectl delete pod -n {} {}", self.work.namespace, holder.pod);
                Problem::new(text, format!("end what it belongs to, or `{delete}`; a finished pod holds it as well"))
            };
            problems.push(problem);
        }
        Ok(problems)
    }

    /// Owners that would make a deleted claim anew, on any node; and holds of somebody who is at work elsewhere, for
    /// whom these claims are as they were.
    async fn unguarded(&self, kube: &Kubernetes, run: &RunInfo, help: &str) -> Result<Vec<Problem>, Failure> {
        let claims: Vec<String> = self.recreated().map(str::to_owned).collect();
        let Survey { subjects, owners, .. } = owners::survey(kube, &self.work, &claims, &[]).await?;
        let problem = |owner: &FluxObject| {
            let text = format!("{} is not suspended and could make the claims anew", owner.title());
            Problem::new(text, help).mended_by("00b-suspend-gitops")
        };
        let mut problems: Vec<_> = owners.iter().filter(|o| !o.is_suspended()).map(problem).collect();
        let workload = subjects.iter().filter(|s| s.kind == self.work.kind && s.meta.name == self.work.name);
        let metas = workload.map(|s| (self.work.to_string(), &s.meta));
        for (what, meta) in metas.chain(owners.iter().map(|owner| (owner.title(), &owner.meta))) {
            problems.extend(known(&what, meta, run).err());
        }
        Ok(problems)
    }

    /// A line for each claim of the workload that stays as it is.
    async fn left(&self, kube: &Kubernetes) -> Result<Vec<String>, Failure> {
        let Some(workload) = kube.workload(&self.work.kind, &self.work.namespace, &self.work.name).await? else {
            return Ok(Vec::new());
        };
        let all = workload.claims(workload.replicas.max(1));
        let left = all.into_iter().filter(|name| !self.recreated().any(|r| r == name));
        Ok(left.map(|name| format!("claim {}/{name} stays as it is", self.work.namespace)).collect())
    }
}
