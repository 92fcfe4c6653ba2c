//! What a report tells of what belonged to the old machine, word for word, in each of the eight.

use pvemig::report::{Report, text};

use super::*;

/// A word as it is compared: what each world has of its own is told by its kind.
fn word(word: &str) -> String {
    let (head, rest) = word.split_at(word.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0));
    let (own, tail) = rest.split_at(rest.rfind(|c: char| c.is_ascii_alphanumeric()).map_or(0, |at| at + 1));
    let own = match own {
        _ if own.len() == 36 && own.matches('-').count() == 4 => "UID",
        _ if own.parse::<jiff::Timestamp>().is_ok() => "TIME",
        _ if own.ends_with("lab/kubeconfig") => "KUBECONFIG",
        _ => own,
    };
    [head, own, tail].concat()
}

/// The lines of a report's text below a step.
fn below(told: &str, step: &str) -> Vec<String> {
    let rows = told.lines().skip_while(|line| !line.contains(&format!(" {step} ")));
    let lines = rows.skip(1).take_while(|line| line.starts_with("  ├ ") || line.starts_with("  └ "));
    lines.map(|line| line[6..].split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}

/// What is told of the Node object, of its lease and of the volume that was attached, and what is left to do.
fn expected(case: Case) -> Vec<String> {
    let old = case.old;
    let attachment = if case.worker { "csi-worker" } else { "csi-mac" };
    let volume = format!("VolumeAttachment {attachment} ({VOLUME}, io.openebs.csi-mayastor)");
    if case.same_name() {
        return vec![
            format!("note: node {old} runs on the machine UID"),
            "note: its Node object stays, with its labels (UID)".into(),
            "note: its lease stays, for the new kubelet to renew: last at TIME".into(),
            format!(
                "note: {volume} names {old}, which is the new machine by now: Kubernetes keeps it where a pod there uses the volume, \
                 and detaches it where none does"
            ),
            "note: talos-mac2 of the site file is no node of kubernetes: it is not looked at".into(),
            "note: talos-worker2 of the site file is no node of kubernetes: it is not looked at".into(),
            "note: etcd has 3 voters, 3 healthy, 2 needed: 1 to spare".into(),
        ];
    }
    let left = format!(
        "note: {volume} still names {old}: Kubernetes detaches it about six minutes after its pod; by hand, once the machine is off \
         for good: `kubectl --kubeconfig /KUBECONFIG --context lab delete volumeattachment {attachment}`"
    );
    // Cordoned, and taken out of etcd; a living one is drained, hands over its lead, and is shut down.
    let call = match (case.worker, case.dead) {
        (false, true) => 4,
        (true, true) => 3,
        (false, false) => 7,
        (true, false) => 5,
    };
    let other = if case.worker { "talos-mac2" } else { "talos-worker2" };
    vec![
        format!("- kubernetes: node {old}, and what is known of the pods on it"),
        format!("- kube-node-lease: lease {old}"),
        format!("call {call} (kubernetes): DELETE nodes/{old} uid UID"),
        format!("note: attached to {old}: {volume}"),
        format!("note: lease of {old}, renewed last at TIME"),
        "note: its Node object is gone (UID)".into(),
        "note: its lease is gone, renewed last at TIME".into(),
        left.clone(),
        format!("note: {other} of the site file is no node of kubernetes: it is not looked at"),
        "note: etcd has 3 voters, 3 healthy, 2 needed: 1 to spare".into(),
        format!("note: {old} is not there any more: take it out of `nodes` in the site file, and this migration too"),
        left,
    ]
}

/// As a person reads it; `uid`: of the Node object that there was.
pub(super) fn assert_told(run: &Run, case: Case, uid: &str) {
    let told = text(&Report::of(&run.id, &run.records).unwrap().unwrap());
    let lines: Vec<String> = ["08-node-object", "10-verify"].iter().flat_map(|step| below(&told, step)).collect();
    assert_eq!(lines, expected(case), "{case:?}: {told}");
    let is = if case.same_name() { "stays, with its labels" } else { "is gone" };
    assert!(told.contains(&format!("its Node object {is} ({uid})")), "{case:?} {uid}: {told}");
}
