//! 00a: the volumes that the workload leaves behind are kept, whatever happens to their claims.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::engine::step::{Outlook, Risk, Seen, Step};
use crate::estate::Estate;
use crate::k8s::volume::ClaimRef;
use crate::k8s::{Claim, Volume, Workload};

use super::fault::refusal;
use super::params::{KubeNode, Work};

const RETAIN: &str = "Retain";

/// Sets the reclaim policy of every volume of the workload that the target cannot use to `Retain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RetainVolumes {
    /// The workload.
    pub work: Work,
    /// Claims that the site names besides those that the workload mounts.
    pub claims: Vec<String>,
    /// The node that the workload moves to.
    pub target: KubeNode,
}

/// The policies of the volumes that are not `Retain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// One for each volume.
    pub volumes: Vec<Was>,
}

/// A volume's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    /// The volume.
    pub name: String,
    /// Its uid: another volume of this name is another one.
    pub uid: String,
    /// Its policy.
    pub policy: String,
}

impl Step<Estate> for RetainVolumes {
    const ID: &'static str = "00a-retain-volumes";
    const RISK: Risk = Risk::Reverts;
    type Before = Before;

    fn title(&self) -> String {
        format!("volumes of {} that {} cannot use are kept", self.work, self.target.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "A volume with policy Delete is wiped as soon as its claim is deleted, and with it all that is on it."
                .into(),
            "By hand: `kubectl patch pv NAME -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'`.".into(),
            "A hostPath volume without node affinity holds no pod: it starts elsewhere with an empty directory.".into(),
            "Set back to Delete while it is Released, a volume is wiped at once: undo does that to Bound ones only."
                .into(),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        // Which of them that are, only the cluster tells.
        let volumes = format!("the volumes of {} that {} cannot use", self.work, self.target.name);
        Outlook::changes(System::Kubernetes, [volumes])
    }

    async fn check(&self, cx: &Estate, _seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let Some(volumes) = self.left_behind(cx).await? else {
            return Ok(Check::blocked(vec![self.work.missing()]));
        };
        let (kept, open): (Vec<_>, Vec<_>) = volumes.into_iter().partition(|v| v.reclaim_policy == RETAIN);
        let kept = kept.iter().map(|v| format!("{} is {RETAIN}", title(v)));
        if open.is_empty() {
            return Ok(Check::done().notes(kept));
        }
        let changes = open.iter().map(|v| Change::set(title(v), &v.reclaim_policy, RETAIN)).collect();
        let was =
            |v: &Volume| Was { name: v.meta.name.clone(), uid: v.meta.uid.clone(), policy: v.reclaim_policy.clone() };
        Ok(Check::todo(changes, Before { volumes: open.iter().map(was).collect() }).notes(kept))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let k8s = cx.kubernetes(&self.work.cluster).await?;
        let mut open = self.left_behind(cx).await?.unwrap_or_default();
        open.retain(|volume| volume.reclaim_policy != RETAIN);
        // All or none, and nothing that undo would not know.
        let recorded = |v: &&Volume| {
            let is = |was: &Was| was.name == v.meta.name && was.uid == v.meta.uid;
            seen.since.is_some_and(|before| before.volumes.iter().any(is))
        };
        if let Some(new) = open.iter().find(|volume| !recorded(volume)) {
            return Err(refusal(Problem::new(
                format!("{} is {}, and was not there when this step began", title(new), new.reclaim_policy),
                "the workload's volumes were changed meanwhile: `pvemig undo`, then run again",
            )));
        }
        for volume in &open {
            k8s.set_reclaim_policy(permit, volume, RETAIN).await?;
        }
        Ok(())
    }

    async fn back(&self, cx: &Estate, before: &Before, _seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let k8s = cx.kubernetes(&self.work.cluster).await?;
        let (mut changes, mut problems, mut waits, mut stays) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for was in &before.volumes {
            let volume = k8s.volume(&was.name).await?;
            let reference = volume.as_ref().and_then(|v| v.claim.as_ref());
            let claim = match reference {
                Some(claim) => k8s.claim(&claim.namespace, &claim.name).await?,
                None => None,
            };
            match way_back(was, volume.as_ref(), claim.as_ref()) {
                Way::Is => {}
                Way::Gone(note) => stays.push(note),
                Way::Set(change) => changes.push(change),
                Way::Wait(reason) => waits.push(reason),
                Way::Blocked(problem) => problems.push(problem),
            }
        }
        let check = if !problems.is_empty() {
            Check::blocked(problems)
        } else if !waits.is_empty() {
            Check::waiting(waits.join("; "))
        } else if !changes.is_empty() {
            Check::todo(changes, ())
        } else {
            Check::done()
        };
        Ok(check.stays(stays))
    }

    async fn undo(&self, cx: &Estate, before: &Before, _: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let k8s = cx.kubernetes(&self.work.cluster).await?;
        for was in &before.volumes {
            // Looked at once more right before: a volume that was released meanwhile would be wiped.
            let Some(volume) = k8s.volume(&was.name).await? else { continue };
            let Some(reference) = &volume.claim else { continue };
            let claim = k8s.claim(&reference.namespace, &reference.name).await?;
            if matches!(way_back(was, Some(&volume), claim.as_ref()), Way::Set(_)) {
                k8s.set_reclaim_policy(permit, &volume, &was.policy).await?;
            }
        }
        Ok(())
    }
}

impl RetainVolumes {
    /// The volumes of the workload's claims that serve no pod on the target; None where there is no such workload.
    async fn left_behind(&self, cx: &Estate) -> Result<Option<Vec<Volume>>, Failure> {
        let k8s = cx.kubernetes(&self.work.cluster).await?;
        // From the volume to its claim: a claim that names no volume yet would not say where that one's data is.
        let volumes_claims = async { (k8s.volumes().await, k8s.claims(Some(&self.work.namespace)).await) };
        let (workload, nodes, (volumes, claims)) = futures::join!(
            k8s.workload(&self.work.kind, &self.work.namespace, &self.work.name),
            k8s.nodes(),
            volumes_claims,
        );
        let Some(workload) = workload? else { return Ok(None) };
        let (mut volumes, nodes, claims) = (volumes?, nodes?, claims?);
        volumes.retain(|volume| {
            let Some(reference) = volume.claim.as_ref().filter(|claim| self.concerns(&workload, claim)) else {
                return false;
            };
            let claim = claims.iter().find(|claim| claim.meta.name == reference.name);
            !volume.placement_for(claim, &nodes).serves(&self.target.name)
        });
        Ok(Some(volumes))
    }

    /// Also a claim that is gone: its Released volume holds what it held.
    fn concerns(&self, workload: &Workload, claim: &ClaimRef) -> bool {
        claim.namespace == self.work.namespace && (self.claims.contains(&claim.name) || mounts(workload, &claim.name))
    }
}

/// Whether a claim is one of the workload's: named in its template, or of any ordinal of a StatefulSet.
fn mounts(workload: &Workload, claim: &str) -> bool {
    workload.needs.as_ref().is_some_and(|needs| needs.claims.iter().any(|c| c == claim)) || workload.makes_claim(claim)
}

/// How a volume gets its policy back.
#[derive(Debug, PartialEq)]
enum Way {
    /// It has it.
    Is,
    /// There is no such volume any more.
    Gone(String),
    /// By a patch.
    Set(Change),
    /// It is about to be bound.
    Wait(String),
    /// Not as things are.
    Blocked(Problem),
}

fn way_back(was: &Was, volume: Option<&Volume>, claim: Option<&Claim>) -> Way {
    let Some(volume) = volume.filter(|v| v.meta.uid == was.uid) else {
        return Way::Gone(format!("volume {} is gone: its policy {} is not set back", was.name, was.policy));
    };
    let (title, now) = (title(volume), volume.reclaim_policy.as_str());
    if now == was.policy {
        return Way::Is;
    }
    if now != RETAIN {
        return Way::Blocked(Problem::new(
            format!("{title} was {}, this run set {RETAIN}, and now it is {now}", was.policy),
            "somebody else changed it: keep it so with `pvemig undo --past 00a-retain-volumes`",
        ));
    }
    let bound = claim.is_some_and(|claim| claim.is_bound() && claim.volume.as_ref() == Some(&was.name));
    match (volume.phase.as_str(), &volume.claim) {
        ("Bound", _) if bound => Way::Set(Change::set(title, RETAIN, &was.policy)),
        ("Available" | "Bound", Some(_)) if claim.is_some_and(|c| c.meta.deleting.is_none()) => {
            Way::Wait(format!("{title} is being bound"))
        }
        (phase, reference) => {
            let claim = reference.as_ref().map_or_else(|| "NS/NAME".into(), |c| format!("{}/{}", c.namespace, c.name));
            Way::Blocked(Problem::new(
                format!(
                    "{title} is {phase} and its claim is not there to stay: with {} it would be wiped, so it stays \
                     {RETAIN}",
                    was.policy
                ),
                format!(
                    "bind it again: `kubectl patch pv {} --type merge -p \
                     '{{\"spec\":{{\"claimRef\":{{\"uid\":null,\"resourceVersion\":null}}}}}}'`, then make claim {claim} \
                     anew with `volumeName: {}`; or keep it {RETAIN} with `pvemig undo --past 00a-retain-volumes`",
                    was.name, was.name
                ),
            ))
        }
    }
}

fn title(volume: &Volume) -> String {
    match &volume.claim {
        Some(claim) => format!("volume {} (claim {}/{})", volume.meta.name, claim.namespace, claim.name),
        None => format!("volume {}", volume.meta.name),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::k8s::meta::Meta;
    use crate::k8s::volume::Source;

    fn volume(phase: &str, policy: &str) -> Volume {
        let meta = Meta { name: "pvc-1".into(), uid: "u1".into(), ..Meta::default() };
        let claim = ClaimRef { namespace: "frigate".into(), name: "media".into(), uid: Some("c1".into()) };
        Volume {
            meta,
            phase: phase.into(),
            reclaim_policy: policy.into(),
            class: "local-path".into(),
            capacity: "1Gi".into(),
            claim: Some(claim),
            source: Source::HostPath("/data".into()),
            affinity: None,
            raw: json!({}),
        }
    }

    fn claim(phase: &str, deleting: bool) -> Claim {
        let deleting = deleting.then(|| "2025-01-01T00:00:00Z".to_owned());
        Claim {
            meta: Meta { deleting, ..Meta::default() },
            phase: phase.into(),
            volume: Some("pvc-1".into()),
            class: None,
            requested: "1Gi".into(),
            access_modes: Vec::new(),
            raw: json!({}),
        }
    }

    #[test]
    fn a_policy_goes_back_on_a_bound_volume_only() {
        let was = Was { name: "pvc-1".into(), uid: "u1".into(), policy: "Delete".into() };
        let bound = claim("Bound", false);
        let way = |phase, policy, claim: Option<&Claim>| way_back(&was, Some(&volume(phase, policy)), claim);
        assert!(matches!(way("Bound", "Retain", Some(&bound)), Way::Set(_)));
        assert_eq!(way("Bound", "Delete", Some(&bound)), Way::Is);
        let elsewhere = Claim { volume: Some("pvc-2".into()), ..bound.clone() };
        assert!(!matches!(way("Bound", "Retain", Some(&elsewhere)), Way::Set(_)));
        assert!(matches!(way("Available", "Retain", Some(&claim("Pending", false))), Way::Wait(_)));
        // The claim is going: as soon as it is gone the volume is released, and would be wiped.
        assert!(matches!(way("Bound", "Retain", Some(&claim("Bound", true))), Way::Blocked(_)));
        let Way::Blocked(problem) = way("Released", "Retain", None) else { panic!() };
        assert!(problem.help.contains("claimRef") && problem.help.contains("frigate/media"), "{problem:?}");
        let Way::Blocked(problem) = way("Bound", "Recycle", Some(&bound)) else { panic!() };
        assert!(["Delete", "Retain", "Recycle"].iter().all(|v| problem.text.contains(v)), "{problem:?}");
        assert!(matches!(way_back(&was, None, None), Way::Gone(_)));
        let other = Was { uid: "u2".into(), ..was.clone() };
        assert!(matches!(way_back(&other, Some(&volume("Bound", "Retain")), Some(&bound)), Way::Gone(_)));
    }

    #[test]
    fn a_stateful_set_has_the_claims_of_every_ordinal() {
        let workload = Workload {
            resource: crate::k8s::Resource {
                group: "apps".into(),
                version: "v1".into(),
                plural: "statefulsets".into(),
                kind: "StatefulSet".into(),
                namespaced: true,
                replicas_in_spec: true,
            },
            meta: Meta { name: "db".into(), labels: BTreeMap::new(), ..Meta::default() },
            replicas: 0,
            current: 0,
            ready: 0,
            observed_generation: 0,
            selector: String::new(),
            needs: None,
            raw: json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}}),
        };
        for (name, ours) in [("data-db-0", true), ("data-db-12", true), ("data-db-", false), ("data-db-x-0", false)] {
            assert_eq!(mounts(&workload, name), ours, "{name}");
        }
    }
}
