//! 00: everything that can be known beforehand to keep a later step from its work, at once.
//!
//! The facts are gathered once, side by side where they do not depend on each other; the findings are drawn from them
//! without further questions, one file each. What a later step of the same list mends is a note.

mod ask_kubernetes;
mod ask_others;
mod ask_proxmox;
mod bindings;
mod declared;
mod drain;
mod finding;
mod gitops;
mod holders;
pub(super) mod known;
mod kube_rights;
mod machine;
mod manifests;
mod node;
mod place;
mod pve_rights;
mod volumes;
mod way;
mod workload;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::base::check::{Check, Likely};
use crate::base::fault::Failure;
use crate::base::permit::System;
use crate::checkout::Edit;
use crate::engine::step::{Risk, RunInfo, Seen, Step};
use crate::estate::Estate;

use super::device::{Attach, Device, Vm};
use super::params::{ClaimFate, Drivers, Gitops, KubeNode, Label, Needs, Params, Verify, Work};

use ask_kubernetes::KubeFacts;
use ask_others::{GitFacts, WayFacts};
use ask_proxmox::{Power, ProxmoxFacts};
use finding::{Asked, Finding, Findings, Unknown, on};

/// Looks at everything that the migration needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preflight {
    /// The VM that gets the device.
    pub vm: Vm,
    /// The VM that has it.
    pub source: Vm,
    /// The node that gets the label.
    pub node: KubeNode,
    /// The node that loses it.
    pub source_node: KubeNode,
    /// The device.
    pub device: Device,
    /// By id, port or mapping.
    pub attach: Attach,
    /// The workload.
    pub work: Work,
    /// The node label that the workload selects.
    pub label: Option<Label>,
    /// What becomes of the claims.
    pub claims: BTreeMap<String, ClaimFate>,
    /// Whether the target node is drained.
    pub drain: bool,
    /// What the workload needs besides the device.
    pub needs: Needs,
    /// The drivers.
    pub drivers: Option<Drivers>,
    /// The proof in the pod.
    pub verify: Option<Verify>,
    /// What the cluster follows.
    pub gitops: Option<Gitops>,
    /// The declared values.
    pub edits: Vec<Edit>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

impl From<&Params> for Preflight {
    fn from(p: &Params) -> Self {
        Self {
            vm: p.target.clone(),
            source: p.source.clone(),
            node: p.target_node.clone(),
            source_node: p.source_node.clone(),
            device: p.device.clone(),
            attach: p.attach,
            work: p.work.clone(),
            label: p.label.clone(),
            claims: p.claims.clone(),
            drain: p.drain,
            needs: p.needs.clone(),
            drivers: p.drivers.clone(),
            verify: p.verify.clone(),
            gitops: p.gitops.clone(),
            edits: p.edits.clone(),
        }
    }
}

impl Step<Estate> for Preflight {
    const ID: &'static str = "00-preflight";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        format!("nothing is in the way of {} and {} on {}", self.device.name, self.work, self.node.name)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "What is found half-way is found with the device in one's hand and the workload switched off.".into(),
            "Every problem names the step that it protects; where that step has nothing to do, the problem is dropped."
                .into(),
            "What a later step of this list mends is only noted: a VM that is off, a missing label, a hold of our own."
                .into(),
            "Nothing is changed: access is asked for by reviews, commands in guests come from a closed list.".into(),
        ]
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let facts = Facts::gather(self, cx).await;
        if let (Err(proxmox), Err(kube)) = (&facts.proxmox, &facts.kube) {
            let text = format!("neither Proxmox nor Kubernetes can be asked: {}; {}", proxmox.text, kube.text);
            return Err(Failure::plain(text, proxmox.help.clone().or(kube.help.clone())));
        }
        let left = facts.kube.as_ref().map(|kube| volumes::left_behind(self, kube)).unwrap_or_default();
        let power = facts.proxmox.as_ref().map_or(Power::Unknown, |f| f.power(self));
        let ends = facts.kube.as_ref().map(|kube| drain::ends(self, kube)).unwrap_or_default();
        Ok(finding::check(self.findings(&facts, seen.run)).sizes(left).likely(self.likely(power, ends)))
    }
}

/// Everything that was asked.
struct Facts {
    proxmox: Asked<ProxmoxFacts>,
    kube: Asked<KubeFacts>,
    way: Option<WayFacts>,
    git: Option<Asked<GitFacts>>,
}

impl Facts {
    async fn gather(p: &Preflight, cx: &Estate) -> Self {
        // A guest whose VM is off is not knocked at: that takes its time and says nothing.
        let (tell, told) = oneshot::channel();
        let way = async {
            let off = told.await.unwrap_or(false);
            if off { None } else { Some(ask_others::way(p, cx).await) }
        };
        let (proxmox, way, kube, git) =
            futures::join!(ask_proxmox::ask(p, cx, tell), way, ask_kubernetes::ask(p, cx), ask_others::git(p, cx),);
        let mut facts = Self { proxmox: proxmox.map_err(Unknown::from), kube: kube.map_err(Unknown::from), way, git };
        if let (Some(Ok(git)), Ok(kube)) = (&mut facts.git, &mut facts.kube) {
            (git.known, kube.edited) =
                futures::join!(ask_others::known(p, cx, kube), ask_kubernetes::edited(p, cx, (kube.all, &git.apis)));
        }
        facts
    }
}

impl Preflight {
    /// What 04a and 05 will do, where that is known.
    fn likely(&self, power: Power, ends: drain::Ends) -> Vec<(&'static str, Likely)> {
        let (vm, node) = (format!("vm {}", self.vm.vmid), format!("node {}", self.node.name));
        let may = |what: String| Likely { what, ..Likely::default() };
        match power {
            Power::Off => vec![(on::REBOOT, Likely { sure: true, ..may(format!("{vm} is started: it is off")) })],
            Power::Stays => vec![
                (
                    on::DRAIN,
                    may(format!("{node} is drained only if {vm} does not take the device while it runs, as it should")),
                ),
                (
                    on::REBOOT,
                    may(format!(
                        "{vm} stays on, as it takes the device while it runs; power-cycled only if that fails"
                    )),
                ),
            ],
            Power::Due | Power::Coming => {
                let why = match power {
                    Power::Due => "what is configured waits for that",
                    _ => "it does not take the device while it runs",
                };
                let sure = |what: String, ends| Likely { sure: true, ends, ..may(what) };
                let drained = sure(format!("{node} is drained"), ends.drained);
                let cycled = sure(format!("{vm} is power-cycled: {why}"), ends.not_drained);
                vec![(on::DRAIN, drained), (on::REBOOT, cycled)]
            }
            Power::Unknown => Vec::new(),
        }
    }

    fn findings(&self, facts: &Facts, run: &RunInfo) -> Vec<Finding> {
        let mut all = Vec::new();
        let mut add = |findings: Findings| all.extend(findings.all);
        let power = match &facts.proxmox {
            Ok(f) => {
                add(machine::find(self, f));
                add(pve_rights::find(self, f));
                add(place::find(self, f));
                f.power(self)
            }
            Err(why) => {
                let mut out = Findings::of(System::Proxmox);
                out.unknown(on::REMOVE, &format!("Proxmox cluster {}", self.vm.cluster), why);
                add(out);
                Power::Unknown
            }
        };
        add(way::find(self, facts.way.as_ref()));
        match &facts.kube {
            Ok(f) => {
                add(workload::find(self, f, run));
                add(volumes::find(self, f));
                add(holders::find(self, f));
                add(node::find(self, f, power, run));
                add(bindings::find(self, f));
                add(drain::find(self, f, power));
                add(gitops::find(self, f, run));
                add(kube_rights::find(self, f, power));
            }
            Err(why) => {
                let mut out = Findings::of(System::Kubernetes);
                out.unknown(on::RETAIN, &format!("Kubernetes cluster {}", self.work.cluster), why);
                add(out);
            }
        }
        add(manifests::find(self, facts.git.as_ref(), facts.kube.as_ref().ok()));
        add(declared::find(self, facts.kube.as_ref().ok()));
        all
    }
}
