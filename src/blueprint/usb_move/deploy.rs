//! What 10 brings about, one question each: the source has the values, the live objects carry them, the pods run.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::base::wait::{Backoff, show, within};
use crate::checkout::{Checkout, Edit};
use crate::estate::Estate;
use crate::k8s::flux::FluxObject;
use crate::k8s::meta::Condition;
use crate::k8s::pod::State;
use crate::k8s::{KubeError, Kubernetes, Pod, Workload};

use super::live;
use super::manifests::{commit_of, missing, short};
use super::params::{Gitops, Verify, Work};
use super::release;

/// How long a source may take to fetch what was pushed.
const SOURCE: Duration = Duration::from_secs(180);
/// How long the owners may take to apply it.
const LIVE: Duration = Duration::from_secs(300);
/// How long what waits for both may take.
pub const GITOPS: Duration = SOURCE.saturating_add(LIVE);
/// How long the proof in the pod may take; the first inference loads firmware.
const PROOF: Duration = Duration::from_secs(120);

/// The source that a cluster follows, held against the declared values.
#[derive(Debug)]
pub enum Source {
    /// Its artifact has them.
    Has,
    /// Not yet; how it is.
    Behind(String),
    /// Nothing will bring them.
    Blocked(Problem),
}

/// Whether the source's artifact has the declared values: its tree is read from the checkout's own clone.
///
/// # Errors
/// What keeps the API or git from answering.
pub async fn source(cx: &Estate, kube: &Kubernetes, gitops: &Gitops, edits: &[Edit]) -> Result<Source, Failure> {
    if edits.is_empty() {
        return Ok(Source::Has);
    }
    let checkout = cx.checkout(&gitops.checkout)?;
    let found = release::source(kube, gitops).await?;
    // This is asked at every poll, and the forge only where our clone does not know enough.
    let tip = match (checkout.fetched().await?, &found) {
        (Some(tip), Some(source)) if knows(&checkout, &tip, source, edits).await? => tip,
        _ => checkout.fetch().await?,
    };
    let lacking = missing(&checkout, &tip, edits).await?;
    if !lacking.is_empty() {
        let text = format!("branch {} at {} lacks declared values", checkout.branch, short(&tip));
        let problem = Problem::new(text, "`pvemig step 09a-update-manifests` shows and commits them");
        return Ok(Source::Blocked(problem.mended_by("09a-update-manifests")));
    }
    let title = format!("GitRepository {}/{}", gitops.namespace, gitops.name);
    let Some(source) = found else {
        let help = "correct `gitops.source` of the cluster in the site file";
        return Ok(Source::Blocked(Problem::new(format!("{title} is not there"), help)));
    };
    if has(&checkout, &source, edits).await? {
        return Ok(Source::Has);
    }
    if source.is_suspended() {
        let help = format!("`flux resume source git {} -n {}`", gitops.name, gitops.namespace);
        return Ok(Source::Blocked(Problem::new(format!("{title} is suspended at {}", source.artifact), help)));
    }
    Ok(Source::Behind(format!("{title} is at {}, which lacks declared values ({})", source.artifact, source.summary())))
}

/// Whether our clone has the values and the commit that the source is at: then what it has is enough until the source
/// moves on.
async fn knows(checkout: &Checkout, tip: &str, source: &FluxObject, edits: &[Edit]) -> Result<bool, Failure> {
    let Some(commit) = commit_of(&source.artifact) else { return Ok(false) };
    Ok(checkout.is_in_tip(commit).await? && missing(checkout, tip, edits).await?.is_empty())
}

/// Whether the tree at the artifact's revision has every declared value.
async fn has(checkout: &Checkout, source: &FluxObject, edits: &[Edit]) -> Result<bool, Failure> {
    let Some(commit) = commit_of(&source.artifact) else { return Ok(false) };
    // A revision that the branch does not have is another branch's, or was pushed over.
    Ok(checkout.is_in_tip(commit).await? && missing(checkout, commit, edits).await?.is_empty())
}

/// Asks the source to fetch and waits until its artifact has the declared values.
///
/// # Errors
/// It does not come, or cannot; or what keeps the API or git from answering.
pub async fn reconcile_source(
    cx: &Estate,
    kube: &Kubernetes,
    gitops: &Gitops,
    edits: &[Edit],
    permit: &Permit,
) -> Result<(), Failure> {
    let mut last = String::new();
    if let Some(source) = release::source(kube, gitops).await?.filter(|source| !source.is_suspended()) {
        kube.flux_request(permit, &source, &release::token(cx)).await?;
    }
    let work = async {
        let mut pauses = Backoff::poll(cx.clock());
        loop {
            match source(cx, kube, gitops, edits).await? {
                Source::Has => return Ok(()),
                Source::Blocked(problem) => return Err(Failure::plain(problem.text, Some(problem.help))),
                Source::Behind(how) => last = how,
            }
            permit.go_on()?;
            permit.progress(&last);
            pauses.pause().await;
        }
    };
    within(SOURCE, work).await.unwrap_or_else(|_| Err(late(&last, SOURCE, gitops)))
}

fn late(last: &str, limit: Duration, gitops: &Gitops) -> Failure {
    let help = format!("`flux get all -n {}` says more; `pvemig resume` looks again", gitops.namespace);
    Failure::plain(format!("still not so after {}: {last}", show(limit)), Some(help))
}

/// Asks the owners to reconcile and waits until the live objects carry the declared values.
///
/// # Errors
/// They do not come; or what keeps the API or git from answering.
pub async fn reconcile_owners(
    cx: &Estate,
    kube: &Kubernetes,
    (gitops, edits, work): (&Gitops, &[Edit], &Work),
    owners: &[FluxObject],
    permit: &Permit,
) -> Result<(), Failure> {
    // From the root down: a parent may have to change its child before the child can change the workload.
    let token = release::token(cx);
    for owner in owners {
        kube.flux_request(permit, owner, &token).await?;
    }
    let mut lines = live::lacking(cx, kube, (gitops, edits, work)).await?;
    let work = async {
        let mut pauses = Backoff::poll(cx.clock());
        while !lines.is_empty() {
            permit.go_on()?;
            permit.progress(&lines.join("; "));
            pauses.pause().await;
            lines = live::lacking(cx, kube, (gitops, edits, work)).await?;
        }
        Ok(())
    };
    let done = within(LIVE, work).await;
    match done {
        Ok(done) => done,
        Err(_) => {
            let mut how = lines.join("; ");
            for owner in owners {
                if let Some(now) = kube.flux(owner.kind, &owner.meta.namespace, &owner.meta.name).await? {
                    how = format!("{how}; {}", now.summary());
                }
            }
            Err(late(&how, LIVE, gitops))
        }
    }
}

/// A pod, or a whole workload, that is not as it should be.
#[derive(Debug, PartialEq)]
pub struct Unready<'p> {
    /// Why.
    pub why: String,
    /// The pod that can say more.
    pub pod: Option<&'p Pod>,
}

/// The pods from before a hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    /// The uids of those that were there although the workload is scaled to 0.
    pub pods: Vec<String>,
    /// When the hold's mark was written, RFC 3339 by the API server's clock; None where there was no mark.
    #[serde(default)]
    pub held_at: Option<String>,
}

impl Old {
    /// Whether a pod is one of them. The server writes whole seconds: one of the same second counts as new, as a
    /// workload of 0 replicas makes none.
    fn has(&self, pod: &Pod) -> bool {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let before = |at: &String| Some(time(&pod.meta.created)? < time(at)?);
        self.pods.contains(&pod.meta.uid) || self.held_at.as_ref().and_then(before).unwrap_or(false)
    }
}

/// Why the pods are not all new, Ready and on `node`; None where they are.
pub fn unready<'p>(workload: &Workload, pods: &'p [Pod], node: &str, old: &Old) -> Option<Unready<'p>> {
    let whole = |why: String| Some(Unready { why, pod: None });
    if workload.observed_generation < workload.meta.generation {
        return whole(format!("{}: its controller has not seen its present spec", workload.title()));
    }
    let live: Vec<&Pod> = pods.iter().filter(|p| p.meta.deleting.is_none() && !p.is_finished()).collect();
    for pod in &live {
        let name = &pod.meta.name;
        let why = match &pod.node {
            _ if old.has(pod) => format!("pod {name} is from before the hold"),
            Some(on) if on != node => format!("pod {name} is on {on}, not on {node}"),
            _ if pod.is_ready() => continue,
            // What runs has started; its containers' states say the rest.
            Some(on) if pod.containers.iter().any(|c| !c.init && c.state == State::Running) => {
                format!("pod {name} is on {on} and is not ready")
            }
            Some(on) => format!("pod {name} is on {on} and does not start"),
            None => format!("pod {name} is Pending"),
        };
        return Some(Unready { why, pod: Some(pod) });
    }
    let count = i64::try_from(live.len()).unwrap_or(i64::MAX);
    if count < workload.replicas {
        let failure = Condition::all_of(&workload.raw)
            .into_iter()
            .find(|c| c.kind == "ReplicaFailure" && c.is_true())
            .map(|c| format!(": {}", c.message))
            .unwrap_or_default();
        return whole(format!("{} has {count} of {} pods{failure}", workload.title(), workload.replicas));
    }
    let updated = workload.raw.pointer("/status/updatedReplicas").and_then(Value::as_i64).unwrap_or(0);
    if workload.resource.kind == "Deployment" && updated < workload.replicas {
        return whole(format!("{updated} of {} pods have the present template", workload.replicas));
    }
    None
}

/// Runs the declared proof in every pod; the reason where one does not show what is expected.
///
/// # Errors
/// What keeps the API from answering, other than that the command cannot be started yet.
pub async fn unproven(
    kube: &Kubernetes,
    namespace: &str,
    pods: &[Pod],
    verify: &Verify,
) -> Result<Result<Vec<String>, String>, Failure> {
    let mut notes = Vec::new();
    for pod in pods.iter().filter(|p| p.is_ready()) {
        let name = &pod.meta.name;
        let at = (namespace, name.as_str());
        let outcome = match kube.exec(at, verify.container.as_deref(), &verify.command, PROOF).await {
            Ok(outcome) => outcome,
            Err(error) if passes(&error) => {
                return Ok(Err(format!("the proof cannot be run in pod {name}: {}", Failure::from(error))));
            }
            Err(error) => return Err(error.into()),
        };
        let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
        match proof(verify, outcome.code, &said, &String::from_utf8_lossy(&outcome.stderr)) {
            Ok(()) => notes.push(format!("the proof in pod {name} says: {}", first_line(&said))),
            Err(why) => return Ok(Err(format!("pod {name}: {why}"))),
        }
    }
    Ok(Ok(notes))
}

/// A command that could not be started or whose end was lost; kubelet and proxy answer with 5xx for a moment.
fn passes(error: &KubeError) -> bool {
    matches!(error, KubeError::Refused { .. } | KubeError::LostAnswer { .. } | KubeError::Server { .. })
}

/// Whether a command's outcome proves what it should.
fn proof(verify: &Verify, code: i32, out: &str, err: &str) -> Result<(), String> {
    if code != 0 {
        let said = if err.trim().is_empty() { out } else { err };
        let last = said.trim().lines().last().unwrap_or_default();
        return Err(format!("`{}` ended with {code}: {last}", verify.command.join(" ")));
    }
    match &verify.expect {
        Some(expect) if !out.contains(expect.as_str()) => {
            Err(format!("`{}` does not show `{expect}`: {}", verify.command.join(" "), first_line(out)))
        }
        _ => Ok(()),
    }
}

fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or("nothing");
    line.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::Resource;
    use crate::k8s::meta::Meta;
    use crate::k8s::pod::Container;
    use serde_json::json;
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    fn workload(replicas: i64, updated: i64) -> Workload {
        let raw = json!({
            "metadata": {"namespace": "frigate", "name": "frigate", "generation": 2},
            "status": {"updatedReplicas": updated, "conditions": [
                {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"},
            ]},
        });
        Workload {
            resource: Resource {
                group: Cow::Borrowed("apps"),
                version: Cow::Borrowed("v1"),
                plural: Cow::Borrowed("deployments"),
                kind: Cow::Borrowed("Deployment"),
                namespaced: true,
                replicas_in_spec: true,
            },
            meta: Meta::of(&raw),
            replicas,
            current: 0,
            ready: 0,
            observed_generation: 2,
            selector: "app=frigate".into(),
            needs: None,
            raw,
        }
    }

    fn pod(uid: &str, node: Option<&str>, ready: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        Pod {
            meta: Meta { name: format!("frigate-{uid}"), uid: uid.into(), ..Meta::default() },
            node: node.map(str::to_owned),
            phase: "Running".into(),
            why: String::new(),
            started: String::new(),
            conditions: vec![Condition { kind: "Ready".into(), status: status.into(), ..Condition::default() }],
            containers: Vec::new(),
            claims: Vec::new(),
            empty_dirs: Vec::new(),
            host_paths: Vec::new(),
            node_selector: BTreeMap::new(),
            node_affinity: None,
            tolerations: Vec::new(),
            runtime_class: None,
            devices: BTreeMap::new(),
        }
    }

    #[test]
    fn pods_must_be_new_ready_and_on_the_target() {
        let old = Old { pods: vec!["old".into()], held_at: Some("2025-01-01T00:00:10Z".into()) };
        let why =
            |workload: &Workload, pods: &[Pod]| unready(workload, pods, "target", &old).map(|unready| unready.why);
        let of = |created: &str| {
            let mut pod = pod("a", Some("target"), true);
            pod.meta.created = created.into();
            vec![pod]
        };
        let good = pod("a", Some("target"), true);
        assert_eq!(why(&workload(1, 1), std::slice::from_ref(&good)), None);
        // Its container runs: it has started.
        let mut started = pod("a", Some("target"), false);
        started.containers = vec![Container {
            name: "frigate".into(),
            init: false,
            image: String::new(),
            image_id: String::new(),
            ready: false,
            restarts: 0,
            state: State::Running,
        }];
        let table = [
            (workload(1, 1), vec![started], "is on target and is not ready"),
            (workload(1, 1), vec![pod("a", Some("source"), true)], "not on target"),
            (workload(1, 1), vec![pod("old", Some("target"), true)], "from before the hold"),
            (workload(1, 1), of("2025-01-01T00:00:09Z"), "from before the hold"),
            (workload(1, 1), vec![pod("a", None, false)], "is Pending"),
            (workload(1, 1), vec![pod("a", Some("target"), false)], "does not start"),
            (workload(1, 1), vec![], "0 of 1 pods: exceeded quota"),
            (workload(2, 2), vec![good.clone()], "1 of 2 pods"),
            (workload(1, 0), vec![good.clone()], "0 of 1 pods have the present template"),
            (Workload { observed_generation: 1, ..workload(1, 1) }, vec![good.clone()], "present spec"),
        ];
        for (workload, pods, word) in &table {
            let said = why(workload, pods).unwrap_or_default();
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(table.len(), 10);
        assert_eq!(why(&workload(1, 1), &of("2025-01-01T00:00:10Z")), None);
        // One that goes does not count, neither for nor against.
        let mut going = pod("b", Some("source"), true);
        going.meta.deleting = Some("2025-01-01T00:00:00Z".into());
        assert_eq!(why(&workload(1, 1), &[going, good]), None);
    }

    #[test]
    fn a_proof_needs_its_exit_code_and_its_words() {
        let verify = |expect: Option<&str>| Verify {
            command: vec!["list".into()],
            container: None,
            expect: expect.map(str::to_owned),
        };
        assert_eq!(proof(&verify(Some("usb")), 0, "[{'type': 'usb'}]\n", ""), Ok(()));
        assert_eq!(proof(&verify(None), 0, "", ""), Ok(()));
        assert!(proof(&verify(Some("usb")), 0, "[]", "").unwrap_err().contains("does not show `usb`"));
        assert!(proof(&verify(Some("usb")), 1, "usb", "a\nno module\n").unwrap_err().ends_with("no module"));
    }

    #[test]
    fn a_server_that_fails_for_a_moment_is_waited_for() {
        let call = || crate::k8s::error::Call { cluster: "k".into(), request: "EXEC".into(), changing: false };
        assert!(passes(&KubeError::Server { call: call(), code: 503, text: String::new() }));
        assert!(!passes(&KubeError::Forbidden { call: call(), what: String::new() }));
    }
}
