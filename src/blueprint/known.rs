//! Findings that more than one preflight has.

use super::Known;

/// A question without an answer.
pub static CANNOT_ASK: Known = Known {
    name: "cannot-ask",
    steps: &[],
    means: "A question that a step needs an answer to got none: a system is silent, refuses, or takes too long.",
    matters: "Unknown is not no: what is not seen beforehand shows with the workload switched off.",
    by_hand: "Ask the same by hand (`pvesh get /version`, `kubectl get nodes`, `ssh`), mend that, and look again.",
};

/// A right in Kubernetes.
pub static RIGHT_KUBERNETES: Known = Known {
    name: "kubernetes-right-lacking",
    steps: &[],
    means: "The kubeconfig's user may not do what a later step does; access reviews said so.",
    matters: "The step would be refused half-way, with everything before it done.",
    by_hand: "`kubectl auth can-i VERB RESOURCE -n NAMESPACE`; give the user a role with these verbs, or name another context in the site file.",
};

/// A privilege in Proxmox.
pub static PRIVILEGE: Known = Known {
    name: "proxmox-privilege-lacking",
    steps: &[],
    means: "The Proxmox user or token lacks a privilege that a later call needs.",
    matters: "The call would be refused half-way.",
    by_hand: "`pveum user permissions USER`; a role with it on the path; a token with privilege separation needs it itself.",
};
