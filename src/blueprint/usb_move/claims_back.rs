//! The way back of 11: a claim bound to its old volume again, and what keeps it from there.

use serde_json::Value;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::engine::step::{Got, RunInfo, Step};
use crate::estate::Estate;
use crate::k8s::claim::rebinding_manifest;
use crate::k8s::{Claim, Kubernetes, Volume};

use super::claims::{bytes, former_manifest, is_former, leftovers, ours};
use super::s11_recreate_pvcs::{GONE, RecreatePvcs, Was};

impl RecreatePvcs {
    /// What undo would take away: how much is on the new volume.
    pub(super) async fn received(
        &self,
        cx: &Estate,
        kube: &Kubernetes,
        now: &Claim,
    ) -> Result<Option<String>, Failure> {
        let Some(name) = &now.volume else { return Ok(None) };
        let Some(volume) = kube.volume(name).await? else { return Ok(None) };
        let size = bytes(cx, &self.guest, &volume).await;
        Ok(Some(format!("the new volume {name} of claim {}/{} has {size}", self.work.namespace, now.meta.name)))
    }

    /// The whole object as it was, where this run has stored it.
    pub(super) fn filed(&self, run: &RunInfo, was: &Was) -> Result<Option<Value>, Failure> {
        let name = file(was);
        let bad = |why: String| {
            let help = "put the file back from a backup of the state directory, or take it away: then the journal's copy \
                        of the claim is used, without the annotations of its owner";
            Failure::plain(format!("the run file {name} of {} cannot be read: {why}", Self::ID), Some(help.into()))
        };
        let Some(bytes) = run.file(&Self::ID.into(), &name).map_err(|error| bad(error.to_string()))? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| bad(format!("line {}", error.line())))
    }

    pub(super) async fn rebind(
        &self,
        kube: &Kubernetes,
        was: &Was,
        (run, got): (&RunInfo, &[Got]),
        permit: &Permit,
    ) -> Result<(), Failure> {
        let at = (self.work.namespace.as_str(), was.name.as_str());
        let mut live = kube.claim(at.0, at.1).await?;
        // Which volumes are the new ones is known as long as the new claim, or its uid in the journal, is.
        let new = leftovers(&kube.volumes().await?, was, got, live.as_ref(), &self.node.name);
        if let Some(now) = &live
            && !is_former(now, was, &self.node.name)
        {
            if now.meta.uid != was.uid {
                if !ours(now, got) {
                    let text = format!("claim {}/{} is not the one that this run made", at.0, at.1);
                    return Err(Failure::plain(text, Some("`pvemig undo` says what is in the way".into())));
                }
                kube.delete_claim(permit, at, &now.meta.uid, true).await?;
            }
            kube.wait_claim_gone(at.0, at.1, &now.meta.uid, GONE).await?;
            live = None;
        }
        for volume in new {
            if volume.reclaim_policy != "Delete" {
                // Consented with the claim; what is on the disk stays there, only the object goes.
                kube.delete_volume(permit, &volume.meta.name, &volume.meta.uid, false).await?;
            }
            kube.wait_volume_gone(&volume.meta.name, &volume.meta.uid, GONE).await?;
        }
        if live.is_some() {
            return Ok(());
        }
        let recorded = self.filed(run, was)?.unwrap_or_else(|| was.manifest.clone());
        let manifest = match &was.volume {
            Some((name, uid)) => {
                let volume = kube.volume(name).await?;
                let kept = volume
                    .and_then(|v| v.claim)
                    .is_some_and(|c| (c.namespace.as_str(), c.name.as_str()) == at && c.uid.is_none());
                if !kept {
                    kube.reserve_volume(permit, name, uid, at).await?;
                }
                rebinding_manifest(&recorded, name)
            }
            None => former_manifest(&recorded),
        };
        kube.create_claim(permit, &manifest).await?;
        Ok(())
    }
}

/// The run file with a claim as it was.
pub(super) fn file(was: &Was) -> String {
    format!("{}.json", was.name)
}

/// Why the old volume cannot be had back; `volume`: the very one, where it is still there.
pub(super) fn lost(volume: Option<&Volume>, namespace: &str, was: &Was, name: &str) -> Option<Problem> {
    const GIVE_UP: &str = "give this step up with `pvemig undo --past 11-recreate-pvcs`";
    let old = format!("the old volume {name} of claim {namespace}/{}", was.name);
    let Some(volume) = volume else {
        return Some(Problem::new(format!("{old} is gone"), format!("keep the new claim: {GIVE_UP}")));
    };
    if volume.meta.deleting.is_some() {
        let by = match volume.meta.finalizers.join(", ") {
            none if none.is_empty() => String::new(),
            held => format!(", held by {held} alone"),
        };
        return Some(Problem::new(
            format!("{old} is being deleted{by}: bound again it would go with the claim, or before it"),
            format!(
                "a deletion cannot be taken back: keep a copy (`kubectl get pv {name} -o yaml`), see that it is Retain, \
                 and {GIVE_UP}; what is on its disk stays there, for a volume made anew from the copy once this one \
                 is gone"
            ),
        ));
    }
    let other = volume.claim.as_ref().filter(|c| c.namespace != namespace || c.name != was.name);
    other.map(|c| {
        Problem::new(format!("{old} is bound to {}/{} now", c.namespace, c.name), format!("free it, or {GIVE_UP}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::k8s::meta::Meta;
    use crate::k8s::volume::{ClaimRef, Source};

    #[test]
    fn an_old_volume_that_cannot_be_had_back_is_not_promised() {
        let was = Was {
            name: "media".into(),
            uid: "c1".into(),
            manifest: Value::Null,
            volume: Some(("pv-old".into(), "u1".into())),
        };
        let volume = Volume {
            meta: Meta { name: "pv-old".into(), uid: "u1".into(), ..Meta::default() },
            phase: "Released".into(),
            reclaim_policy: "Retain".into(),
            class: "local-path".into(),
            capacity: "1Gi".into(),
            claim: Some(ClaimRef { namespace: "frigate".into(), name: "media".into(), uid: Some("c1".into()) }),
            source: Source::HostPath("/data".into()),
            affinity: None,
            raw: json!({}),
        };
        let said = |volume: Option<&Volume>| lost(volume, "frigate", &was, "pv-old").map(|p| (p.text, p.help));
        assert_eq!(said(Some(&volume)), None);
        let mut leaving = volume.clone();
        leaving.meta.deleting = Some("2025-01-01T00:00:00Z".into());
        leaving.meta.finalizers = vec!["example.org/backup".into()];
        let mut elsewhere = volume.clone();
        elsewhere.claim = Some(ClaimRef { namespace: "frigate".into(), name: "other".into(), uid: None });
        let table = [
            (None, "is gone", "--past 11-recreate-pvcs"),
            (Some(&leaving), "is being deleted, held by example.org/backup alone", "kubectl get pv pv-old -o yaml"),
            (Some(&elsewhere), "is bound to frigate/other now", "free it"),
        ];
        for (volume, text, help) in table {
            let (said, helped) = said(volume).unwrap();
            assert!(said.contains(text) && helped.contains(help), "{said}\n{helped}");
        }
    }
}
