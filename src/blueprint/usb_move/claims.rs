//! Claims on their way from one node to another: how one stands, which volumes are new, and how much is on them.

use serde_json::Value;

use crate::base::check::{self, Problem};
use crate::base::fault::Failure;
use crate::base::wait::{limit, within};
use crate::engine::step::Got;
use crate::estate::Estate;
use crate::k8s::claim::{SELECTED_NODE, fresh_manifest, rebinding_manifest};
use crate::k8s::volume::Source;
use crate::k8s::{Claim, FIELD_MANAGER, Kubernetes, Volume};

use super::s11_recreate_pvcs::Was;

/// The annotations of a claim that say how it is bound. What is in the others is its owner's, and may be anything: it
/// stays out of the journal.
const BINDING: [&str; 3] = ["volume.kubernetes.io/", "volume.beta.kubernetes.io/", "pv.kubernetes.io/"];

/// A claim as it is now, with what decides about it.
#[derive(Debug, Clone)]
pub struct Now {
    /// Its name.
    pub name: String,
    /// The claim; None where it is not there.
    pub claim: Option<Claim>,
    /// Its volume, where it has one that is there.
    pub volume: Option<Volume>,
    /// A pod on the target finds the volume's data.
    pub serves: bool,
    /// A pod with the volume may be scheduled to the target.
    pub admits: bool,
    /// The class makes volumes by itself when it is told a node.
    pub provisions: bool,
    /// The target.
    pub node: String,
    /// What was said about the claim last, where it is Pending.
    pub said: Option<String>,
}

/// How a claim stands to the target.
#[derive(Debug, PartialEq)]
pub enum Standing {
    /// The target can use it.
    Good(String),
    /// Its volume is on its way.
    Coming(String),
    /// It is to be deleted and made anew.
    Replace,
    /// It is to be made: it was deleted already.
    Create,
    /// Neither; a person must look.
    Blocked(Problem),
}

impl Now {
    /// Reads claims and what decides about each of them, in the order of their names here.
    ///
    /// # Errors
    /// What keeps the API from answering.
    pub async fn read(kube: &Kubernetes, namespace: &str, names: &[&str], node: &str) -> Result<Vec<Self>, Failure> {
        let (bound, nodes) = futures::join!(kube.claims_and_volumes(namespace), kube.nodes());
        let ((claims, volumes), nodes) = (bound, nodes?);
        let (claims, volumes) = (claims?, volumes?);
        let mut all = Vec::new();
        for name in names {
            let claim = claims.iter().find(|claim| claim.meta.name == *name);
            let volume = claim.and_then(|c| volumes.iter().find(|v| Some(&v.meta.name) == c.volume.as_ref()));
            let placement = volume.map(|volume| volume.placement_for(claim, &nodes));
            let mut now = Self {
                name: (*name).to_owned(),
                claim: claim.cloned(),
                volume: volume.cloned(),
                serves: placement.as_ref().is_some_and(|placement| placement.serves(node)),
                admits: placement.as_ref().is_some_and(|placement| placement.admits(node)),
                provisions: false,
                node: node.to_owned(),
                said: None,
            };
            if let Some(claim) = claim.filter(|claim| claim.phase == "Pending") {
                now.wait(kube, claim).await?;
            }
            all.push(now);
        }
        Ok(all)
    }

    /// What is said about a claim that waits for a volume.
    async fn wait(&mut self, kube: &Kubernetes, claim: &Claim) -> Result<(), Failure> {
        if let Some(class) = &claim.class {
            let class = kube.storage_class(class).await?;
            self.provisions = class.is_some_and(|c| c.provisioner != "kubernetes.io/no-provisioner");
        }
        let events = kube.events(&claim.meta.namespace, &claim.meta.uid).await?;
        self.said = events.first().map(ToString::to_string);
        Ok(())
    }

    /// What is to be recorded of it.
    pub fn was(&self) -> Option<Was> {
        let claim = self.claim.as_ref()?;
        let mut manifest = claim.raw.clone();
        if let Some(meta) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("managedFields");
            if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|key, _| BINDING.iter().any(|prefix| key.starts_with(prefix)));
            }
        }
        Some(Was {
            name: self.name.clone(),
            uid: claim.meta.uid.clone(),
            manifest,
            volume: self.volume.as_ref().map(|v| (v.meta.name.clone(), v.meta.uid.clone())),
        })
    }
}

/// A volume that is being deleted and hangs on its claim: the volume's object goes as soon as the claim does.
pub fn leaving(volume: &Volume, claim: &str) -> Option<Problem> {
    volume.meta.deleting.as_ref()?;
    let name = &volume.meta.name;
    let by = match volume.meta.finalizers.join(", ") {
        none if none.is_empty() => String::new(),
        held => format!(", held by {held} alone"),
    };
    Some(Problem::new(
        format!("volume {name} of {claim} is being deleted{by}: it would not be kept, but go with the claim"),
        format!(
            "a deletion cannot be taken back: keep a copy (`kubectl get pv {name} -o yaml`, and of the claim), see that \
             the volume is Retain, then, with the workload at 0, delete the claim and make both anew from the copies, \
             the volume with a `claimRef` without uid"
        ),
    ))
}

/// How a claim stands, by itself (`was` None) or since this run recorded it; `begun`: the run has a record of claims.
pub fn stand(now: &Now, was: Option<&Was>, begun: bool) -> Standing {
    let name = &now.name;
    let Some(claim) = &now.claim else {
        return match was {
            Some(_) => Standing::Create,
            None => Standing::Blocked(Problem::new(
                format!("there is no claim {name}, and this run has no record of one"),
                "where another run took it away, `pvemig undo` of that run brings it back; else correct `claims` in \
                 the site file",
            )),
        };
    };
    let full = claim.meta.full_name();
    let replaced = was.is_some_and(|was| was.uid != claim.meta.uid);
    if was.is_some() && !replaced {
        return Standing::Replace;
    }
    if claim.meta.deleting.is_some() {
        return if replaced { Standing::Coming(format!("claim {full} is being deleted")) } else { first(now, begun) };
    }
    match claim.phase.as_str() {
        "Bound" if now.serves || (replaced && now.admits) => {
            let volume = claim.volume.as_deref().unwrap_or("none");
            Standing::Good(format!("claim {full} is bound to volume {volume}, which {} can use", now.node))
        }
        "Pending" if claim.selected_node().is_none_or(|n| n == now.node) => pending(now, claim),
        _ if replaced => Standing::Blocked(Problem::new(
            format!(
                "claim {full} was made anew and is {} on volume {}, which {} cannot use",
                claim.phase,
                claim.volume.as_deref().unwrap_or("none"),
                now.node
            ),
            format!(
                "look at what is on it; if it may go: `kubectl delete pvc -n {} {name}`, then resume",
                claim.meta.namespace
            ),
        )),
        _ => first(now, begun),
    }
}

/// A claim that this run has not touched and that is not usable: only a run's first look may record it.
fn first(now: &Now, begun: bool) -> Standing {
    if !begun {
        return Standing::Replace;
    }
    Standing::Blocked(Problem::new(
        format!("claim {} was usable when this step began, and is not any more", now.name),
        "finish or undo this run, and start another one",
    ))
}

fn pending(now: &Now, claim: &Claim) -> Standing {
    let full = claim.meta.full_name();
    let said = now.said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default();
    if claim.selected_node().is_some() && now.provisions {
        return Standing::Coming(format!("claim {full} is Pending{said}"));
    }
    // Nobody will act on the annotation (static volumes), or the provisioner took it away to be asked anew.
    Standing::Good(format!("claim {full} is Pending until its pod is scheduled{said}; 10 proves it"))
}

/// Whether a claim was made by pvemig: its uid was noted, or, where the answer was lost, it wrote it.
pub fn ours(claim: &Claim, got: &[Got]) -> bool {
    let wrote = |entry: &Value| entry.get("manager").and_then(Value::as_str) == Some(FIELD_MANAGER);
    noted(got, &claim.meta.uid) || claim.meta.managed_fields.iter().any(wrote)
}

fn noted(got: &[Got], uid: &str) -> bool {
    got.iter().any(|g| g.handle.kind == "uid" && g.handle.value == uid)
}

/// The volumes that were made for a claim of this run: those of the claims whose uids it has noted. Volumes that
/// earlier moves left behind carry the same claim's name and are not among them.
pub fn new_volumes(all: &[Volume], was: &Was, got: &[Got]) -> Vec<Volume> {
    let old = was.volume.as_ref().map(|(name, _)| name);
    let new = |volume: &&Volume| {
        Some(&volume.meta.name) != old
            && volume.claim.as_ref().is_some_and(|c| {
                c.name == was.name && c.uid.as_ref().is_some_and(|uid| *uid != was.uid && noted(got, uid))
            })
    };
    all.iter().filter(new).cloned().collect()
}

/// True for the claim as it was: never taken away, bound to its old volume again, or, where it had none, made anew
/// without the target in it.
pub fn is_former(now: &Claim, was: &Was, target: &str) -> bool {
    let back = match &was.volume {
        Some((old, _)) => now.volume.as_ref() == Some(old),
        None => {
            now.meta.uid == was.uid || now.selected_node() != Some(target) || selected(&was.manifest) == Some(target)
        }
    };
    now.meta.deleting.is_none() && back
}

/// The volumes that undo takes away: those made for the claims of this run, and that of the claim which is there now,
/// but for the old one and for what a claim without a volume got after it was brought back.
pub fn leftovers(all: &[Volume], was: &Was, got: &[Got], live: Option<&Claim>, target: &str) -> Vec<Volume> {
    let mut new = new_volumes(all, was, got);
    let Some(now) = live else { return new };
    if is_former(now, was, target) {
        let its_own = |v: &Volume| v.claim.as_ref().and_then(|c| c.uid.as_ref()) == Some(&now.meta.uid);
        new.retain(|v| was.volume.is_some() || !its_own(v));
    } else if now.meta.uid != was.uid {
        let old = was.volume.as_ref().map(|(name, _)| name);
        let known = |v: &&Volume| !new.iter().any(|n| n.meta.name == v.meta.name);
        let its_own = |v: &&Volume| Some(&v.meta.name) == now.volume.as_ref() && Some(&v.meta.name) != old;
        new.extend(all.iter().filter(its_own).filter(known).cloned().collect::<Vec<_>>());
    }
    new
}

fn selected(manifest: &Value) -> Option<&str> {
    manifest.get("metadata")?.get("annotations")?.get(SELECTED_NODE)?.as_str()
}

/// A recorded claim that had no volume, as a manifest for a new one: for the node that it was meant for, if any.
pub fn former_manifest(recorded: &Value) -> Value {
    if let Some(node) = selected(recorded) {
        return fresh_manifest(recorded, node);
    }
    let mut manifest = rebinding_manifest(recorded, "");
    if let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) {
        spec.shift_remove("volumeName");
    }
    manifest
}

/// How much is on a volume of a node, in words; why it is not known, where it is not.
pub async fn bytes(cx: &Estate, node: &str, volume: &Volume) -> String {
    let (Source::HostPath(path) | Source::Local(path)) = &volume.source else {
        return "bytes unknown: it is not a directory of a node".into();
    };
    let measure = async {
        let guest = cx.guest(node).await?;
        Ok::<u64, Failure>(guest.disk_use(path).await?.value)
    };
    match within(limit::MEASURE, measure).await {
        Ok(Ok(size)) => format!("{} in {path}", check::bytes(size)),
        Ok(Err(failure)) => format!("bytes unknown: {failure}"),
        Err(elapsed) => format!("bytes unknown: {elapsed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::permit::{Handle, Note, System};
    use crate::k8s::meta::Meta;
    use crate::k8s::volume::ClaimRef;
    use serde_json::json;

    fn now(uid: &str, phase: &str, volume: Option<&str>) -> Now {
        let raw = json!({"metadata": {
            "namespace": "frigate", "name": "config", "uid": uid, "managedFields": [{"manager": "flux"}],
        }});
        let claim = Claim {
            meta: Meta::of(&raw),
            phase: phase.into(),
            volume: volume.map(str::to_owned),
            class: Some("local-path".into()),
            requested: "1Gi".into(),
            access_modes: vec!["ReadWriteOnce".into()],
            raw,
        };
        Now {
            name: "config".into(),
            claim: Some(claim),
            volume: None,
            serves: false,
            admits: false,
            provisions: true,
            node: "target".into(),
            said: None,
        }
    }

    fn was() -> Was {
        Was { name: "config".into(), uid: "old".into(), manifest: json!({}), volume: Some(("pv".into(), "pvu".into())) }
    }

    fn gone() -> Now {
        Now { claim: None, ..now("", "", None) }
    }

    fn selecting(node: &str) -> Now {
        let mut pending = now("new", "Pending", None);
        if let Some(claim) = &mut pending.claim {
            claim.meta.annotations.insert(SELECTED_NODE.into(), node.into());
        }
        pending
    }

    fn volume(name: &str, uid: Option<&str>) -> Volume {
        Volume {
            meta: Meta { name: name.into(), ..Meta::default() },
            phase: "Released".into(),
            reclaim_policy: "Delete".into(),
            class: "local-path".into(),
            capacity: "1Gi".into(),
            claim: Some(ClaimRef { namespace: "frigate".into(), name: "config".into(), uid: uid.map(str::to_owned) }),
            source: Source::HostPath("/x".into()),
            affinity: None,
            raw: json!({}),
        }
    }

    fn got(uid: &str) -> Got {
        let at = "2025-01-01T00:00:00Z".parse().unwrap();
        Got { note: Note::safe(System::Kubernetes, "x"), handle: Handle::new("uid", uid), at }
    }

    fn word(standing: &Standing) -> &'static str {
        match standing {
            Standing::Good(_) => "good",
            Standing::Coming(_) => "coming",
            Standing::Replace => "replace",
            Standing::Create => "create",
            Standing::Blocked(_) => "blocked",
        }
    }

    #[test]
    fn every_state_of_a_claim_has_its_answer() {
        let was = was();
        let bound = |uid: &str, serves: bool, admits: bool| Now { serves, admits, ..now(uid, "Bound", Some("x")) };
        let static_class = Now { provisions: false, ..selecting("target") };
        let mut deleting = bound("old", false, false);
        if let Some(claim) = &mut deleting.claim {
            claim.meta.deleting = Some("2025-01-01T00:00:00Z".into());
        }
        // state, recorded, begun, answer
        let table: &[(Now, Option<&Was>, bool, &str)] = &[
            (bound("old", true, true), None, false, "good"),
            (bound("old", false, false), None, false, "replace"),
            (bound("old", false, true), None, false, "replace"),
            (bound("old", false, false), None, true, "blocked"),
            (now("old", "Lost", Some("x")), None, false, "replace"),
            (now("old", "Pending", None), None, false, "good"),
            (selecting("source"), None, false, "replace"),
            (selecting("target"), None, false, "coming"),
            (gone(), None, false, "blocked"),
            (deleting.clone(), None, false, "replace"),
            (bound("old", false, false), Some(&was), true, "replace"),
            (deleting, Some(&was), true, "replace"),
            (gone(), Some(&was), true, "create"),
            (selecting("target"), Some(&was), true, "coming"),
            (static_class, Some(&was), true, "good"),
            (now("new", "Pending", None), Some(&was), true, "good"),
            (bound("new", true, true), Some(&was), true, "good"),
            (bound("new", false, true), Some(&was), true, "good"),
            (bound("new", false, false), Some(&was), true, "blocked"),
        ];
        for (i, (now, was, begun, expected)) in table.iter().enumerate() {
            assert_eq!(word(&stand(now, *was, *begun)), *expected, "row {i}");
        }
        assert_eq!(table.len(), 19);
    }

    #[test]
    fn a_recorded_claim_keeps_everything_but_who_wrote_it() {
        let recorded = now("old", "Bound", Some("x")).was().unwrap();
        assert_eq!(recorded.manifest.pointer("/metadata/uid"), Some(&json!("old")));
        assert_eq!(recorded.manifest.pointer("/metadata/managedFields"), None);
        assert_eq!(gone().was(), None);
    }

    #[test]
    fn only_volumes_of_this_runs_claims_are_new() {
        let all = [
            volume("pv", Some("new")),
            volume("new", Some("new")),
            volume("earlier", Some("gone")),
            volume("kept", None),
        ];
        let names: Vec<_> =
            new_volumes(&all, &was(), &[got("new"), got("old")]).into_iter().map(|v| v.meta.name).collect();
        assert_eq!(names, ["new"]);
        assert!(new_volumes(&all, &was(), &[]).is_empty());
    }

    #[test]
    fn a_claim_is_ours_by_its_uid_or_by_its_writer() {
        let claim = |manager: &str| {
            let raw = json!({"metadata": {"uid": "u", "managedFields": [{"manager": manager}]}});
            Claim { meta: Meta::of(&raw), raw, ..now("u", "Bound", None).claim.unwrap() }
        };
        assert!(ours(&claim(FIELD_MANAGER), &[]));
        assert!(!ours(&claim("kustomize-controller"), &[]));
    }

    #[test]
    fn a_claim_without_a_volume_goes_back_to_where_it_was_meant_for() {
        let recorded = |node: &str| json!({"metadata": {"name": "c", "namespace": "n", "annotations": {SELECTED_NODE: node}}, "spec": {"a": 1}});
        let none = json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"volumeName": "x", "a": 1}});
        assert_eq!(former_manifest(&none)["spec"], json!({"a": 1}));
        assert_eq!(selected(&former_manifest(&none)), None);
        assert_eq!(selected(&former_manifest(&recorded("source"))), Some("source"));

        let was = Was { volume: None, manifest: recorded("source"), ..was() };
        let claim = |now: Now| now.claim.unwrap();
        let pending = |node: &str| claim(selecting(node));
        assert!(!is_former(&pending("target"), &was, "target"), "what the run made");
        assert!(is_former(&pending("source"), &was, "target"), "what undo made");
        assert!(is_former(&claim(now("new", "Pending", None)), &was, "target"));
        // It is bound by and by, and that volume is nothing of what the run left.
        let mut bound = pending("source");
        (bound.phase, bound.volume) = ("Bound".into(), Some("late".into()));
        assert!(is_former(&bound, &was, "target"));
        let all = [volume("late", Some("new")), volume("made", Some("first"))];
        let names = |left: Vec<Volume>| left.into_iter().map(|v| v.meta.name).collect::<Vec<_>>();
        let got = [got("new"), got("first")];
        assert_eq!(names(leftovers(&all, &was, &got, Some(&bound), "target")), ["made"]);
    }

    #[test]
    fn the_old_volume_is_never_left_over() {
        let was = was();
        let all = [volume("pv", Some("again")), volume("fresh", Some("made"))];
        let names = |now: &Now, got: &[Got]| {
            let left = leftovers(&all, &was, got, now.claim.as_ref(), "target");
            left.into_iter().map(|v| v.meta.name).collect::<Vec<_>>()
        };
        let mut rebound = now("again", "Bound", Some("pv"));
        assert!(names(&rebound, &[]).is_empty());
        if let Some(claim) = &mut rebound.claim {
            claim.meta.deleting = Some("2025-01-01T00:00:00Z".into());
        }
        assert!(names(&rebound, &[]).is_empty(), "it is bound to the old volume, and somebody deletes it");
        assert_eq!(names(&rebound, &[got("made")]), ["fresh"]);
        let made = now("made", "Bound", Some("fresh"));
        assert_eq!(names(&made, &[]), ["fresh"], "the answer with its uid was lost");
        assert_eq!(names(&made, &[got("made")]), ["fresh"]);
    }
}
