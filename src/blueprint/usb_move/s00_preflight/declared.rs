//! What the site declares by commands: drivers and the proof.

use crate::base::permit::System;

use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, kube: Option<&KubeFacts>) -> Findings {
    let mut out = Findings::of(System::Ssh);
    match &p.drivers {
        None => out.note(on::DRIVERS, "the site declares no drivers: 08 looks at nothing"),
        Some(drivers) if drivers.remove.is_none() => {
            out.note(on::DRIVERS, "the site declares no command that removes the drivers: an undo leaves them");
        }
        Some(_) => {}
    }
    let mut pods = Findings::of(System::Kubernetes);
    match &p.verify {
        None => pods
            .note(on::DEPLOY, "the site declares no `verify`: 10 sees Ready pods, and not whether they use the device"),
        Some(verify) => container(p, verify.container.as_deref(), kube, &mut pods),
    }
    out.all.extend(pods.all);
    out
}

fn container(p: &Preflight, name: Option<&str>, kube: Option<&KubeFacts>, out: &mut Findings) {
    let Some(needs) = kube.and_then(|k| k.workload()?.after.needs.as_ref()) else { return };
    if let Some(name) = name.filter(|name| !needs.containers.iter().any(|c| c == name)) {
        out.problem(
            &known::CONTAINER_MISSING,
            on::DEPLOY,
            format!(
                "{} has no container {name}, in which `verify` would run; it has {}",
                p.work,
                needs.containers.join(", ")
            ),
            "correct `verify.container` of the migration in the site file",
        );
    }
}
