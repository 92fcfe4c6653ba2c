//! The pod that measures, from its making to what it leaves.

use crate::base::check::{Change, Check};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::base::wait::Backoff;
use crate::blueprint::stand::may_pass;
use crate::estate::Estate;
use crate::k8s::errand::Errand;
use crate::k8s::pod::State;
use crate::k8s::{KubeError, Kubernetes, Pod};

/// How often it is looked at with the same trouble until that is believed: an image is tried again by the kubelet itself.
const TROUBLED: u32 = 40;
/// How often it is looked at until it has to have ended, a second apart: somewhat longer than its limit.
pub(super) const LOOKS: u32 = 400;

/// What is to be said of pods that are left; None where there is none.
pub(super) fn left(ours: &[Pod]) -> Option<Check<()>> {
    let name = |pod: &Pod| format!("pod {}/{}", pod.meta.namespace, pod.meta.name);
    let there: Vec<_> = ours.iter().filter(|pod| pod.meta.deleting.is_none()).collect();
    match (ours, there.as_slice()) {
        ([], _) => None,
        ([going, ..], []) => Some(Check::waiting(format!("{} is being deleted", name(going)))),
        (_, there) => {
            Some(Check::todo(there.iter().map(|pod| Change::act(format!("{} is removed", name(pod)))).collect(), ()))
        }
    }
}

pub(super) async fn create(kube: &Kubernetes, errand: &Errand, permit: &Permit) -> Result<String, Failure> {
    let space = &errand.namespace;
    let help = match kube.run_pod(permit, errand).await {
        Ok(uid) => return Ok(uid),
        // Its rights, Pod Security, or another admission: nothing was made.
        Err(error @ (KubeError::Forbidden { .. } | KubeError::Invalid { .. } | KubeError::NotFound { .. })) => {
            let help = format!(
                "Pod Security of {space} has to allow hostPath, and these credentials what `pvemig privileges` prints; else name \
                 another `measure.namespace` in the migration, or write `measure: off`, then `pvemig resume`"
            );
            (Failure::from(error), help)
        }
        Err(error @ KubeError::Exists { .. }) => {
            let name = &errand.name;
            (
                Failure::from(error),
                format!("it is not of this run: `kubectl -n {space} get pod {name} -o yaml` tells whose it is"),
            )
        }
        Err(error) => return Err(error.into()),
    };
    Err(Failure::plain(help.0.to_string(), Some(help.1)))
}

/// What a pod has left at its end, or why it will not come to one.
pub(super) async fn ended(
    cx: &Estate,
    kube: &Kubernetes,
    errand: &Errand,
    uid: &str,
    permit: &Permit,
) -> Result<Result<String, String>, Failure> {
    let (mut pauses, mut troubled, mut said) = (Backoff::poll(cx.clock()), 0, String::new());
    for _ in 0..LOOKS {
        match kube.pod(&errand.namespace, &errand.name).await.map_err(Failure::from) {
            Err(failure) if may_pass(&failure) => said = failure.to_string(),
            Err(failure) => return Err(failure),
            Ok(found) => match state(found.as_ref().filter(|pod| pod.meta.uid == uid)) {
                Stand::Told(told) => return Ok(told),
                Stand::Troubled(why) => {
                    troubled += 1;
                    if troubled >= TROUBLED {
                        return Ok(Err(why));
                    }
                    said = why;
                }
                Stand::OnItsWay(how) => (troubled, said) = (0, how),
            },
        }
        permit.progress(&format!("pod {}: {said}", errand.name));
        permit.go_on()?;
        pauses.pause().await;
    }
    Ok(Err(format!("it does not come to an end: {said}")))
}

/// How a pod stands.
#[derive(Debug, PartialEq, Eq)]
enum Stand {
    /// What it left, or why it leaves nothing.
    Told(Result<String, String>),
    /// It will not get on unless that passes.
    Troubled(String),
    /// It waits for its turn, or runs.
    OnItsWay(String),
}

/// How much of what a program says is told.
const WORDS: usize = 200;

fn state(pod: Option<&Pod>) -> Stand {
    let Some(pod) = pod else { return Stand::Told(Err("somebody has deleted it".into())) };
    let own = pod.containers.first().map(|container| (&container.state, container.image.as_str()));
    let why = || if pod.why.is_empty() { pod.trouble().join("; ") } else { pod.why.clone() };
    match own {
        Some((State::Ended { code: 0, message, .. }, _)) => Stand::Told(Ok(message.clone())),
        Some((State::Ended { code, reason, message }, _)) => {
            let words: String = message.chars().take(WORDS).collect();
            let parts = [pod.why.clone(), format!("it ended with {code} ({reason})"), words];
            Stand::Told(Err(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")))
        }
        // The node would not have it, or its time was over before it began.
        _ if pod.is_finished() => Stand::Told(Err(format!("the node does not run it: {}", why()))),
        Some((State::Waiting { reason, message }, image)) => match reason.as_str() {
            "" | "ContainerCreating" | "PodInitializing" => Stand::OnItsWay(why()),
            "InvalidImageName" | "ErrImageNeverPull" => Stand::Told(Err(format!("image {image}: {reason}: {message}"))),
            "ErrImagePull" | "ImagePullBackOff" => {
                Stand::Troubled(format!("image {image} cannot be pulled: {reason}: {message}"))
            }
            _ => Stand::Troubled(format!("{reason}: {message}")),
        },
        Some((State::Running, _)) => Stand::OnItsWay("it measures".into()),
        Some((State::Unknown, _)) | None => Stand::OnItsWay(why()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        let pod = json!({"metadata": {"namespace": "n", "name": "p", "uid": "u"}, "status": status,
            "spec": {"nodeName": "talos-nuc", "containers": [{"name": "errand", "image": "i:1"}]}});
        Pod::from_api(pod).unwrap()
    }

    fn with(phase: &str, state: Value) -> Stand {
        let own =
            json!({"name": "errand", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state});
        super::state(Some(&pod(json!({"phase": phase, "containerStatuses": [own]}))))
    }

    #[test]
    fn a_pod_is_waited_for_as_long_as_it_may_come_to_an_end() {
        let waits = |reason: &str| with("Pending", json!({"waiting": {"reason": reason, "message": "why"}}));
        let told = |text: &str| Stand::Told(Err(text.to_owned()));
        let troubled = |text: &str| Stand::Troubled(text.to_owned());
        let ended = |code: i32, message: &str| {
            with("Failed", json!({"terminated": {"exitCode": code, "reason": "Error", "message": message}}))
        };
        let figures = json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": "{}"}});
        let evicted = json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active"});
        let cases = [
            (with("Succeeded", figures), Stand::Told(Ok("{}".into()))),
            (ended(143, ""), told("it ended with 143 (Error)")),
            (ended(127, "sh: not found"), told("it ended with 127 (Error): sh: not found")),
            (super::state(Some(&pod(evicted))), told("the node does not run it: DeadlineExceeded: Pod was active")),
            (super::state(None), told("somebody has deleted it")),
            (waits("InvalidImageName"), told("image i:1: InvalidImageName: why")),
            (waits("ErrImagePull"), troubled("image i:1 cannot be pulled: ErrImagePull: why")),
            (waits("ImagePullBackOff"), troubled("image i:1 cannot be pulled: ImagePullBackOff: why")),
            (waits("CreateContainerConfigError"), troubled("CreateContainerConfigError: why")),
            (waits("ContainerCreating"), Stand::OnItsWay("errand: ContainerCreating: why".into())),
            (with("Running", json!({"running": {}})), Stand::OnItsWay("it measures".into())),
        ];
        assert_eq!(cases.len(), 11);
        for (is, expected) in cases {
            assert_eq!(is, expected);
        }
        // No kubelet has taken it.
        let Stand::OnItsWay(why) = super::state(Some(&pod(json!({"phase": "Pending"})))) else { panic!() };
        assert!(why.contains("the kubelet says nothing yet") || why.contains("not scheduled"), "{why}");
        // A program that says too much is cut short.
        assert!(matches!(ended(1, &"x".repeat(4_000)), Stand::Told(Err(text)) if text.len() < 300));
    }
}
