//! The claims and their volumes: what the target can use, what is left behind, and what would start empty.

use crate::base::check::bytes;
use crate::base::permit::{System, Thing};
use crate::k8s::claim::Claim;
use crate::k8s::volume::{DataAt, Placement, Source, Volume};

use super::super::claims::leaving;
use super::super::params::ClaimFate;
use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::finding::{Asked, Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, f: &KubeFacts) -> Findings {
    let mut out = Findings::of(System::Kubernetes);
    let what = |kind: &str| format!("Kubernetes cluster {} for {kind}", p.work.cluster);
    let claims = out.need(on::CLAIMS, &what("claims"), &f.claims);
    let volumes = out.need(on::RETAIN, &what("volumes"), &f.volumes);
    let nodes = out.need(on::RETAIN, &what("nodes"), &f.nodes);
    let (Some(_), Some(volumes), Some(nodes)) = (claims, volumes, nodes) else { return out };
    for name in f.claim_names(p) {
        let fate = p.claims.get(&name).copied();
        let full = format!("claim {}/{name}", p.work.namespace);
        let Some((claim, volume)) = f.claim(&name) else {
            absent(p, f, (name.as_str(), fate), volumes, &mut out);
            continue;
        };
        if claim.meta.deleting.is_some() {
            let held = if claim.meta.finalizers.is_empty() { String::new() } else { ", and something holds it".into() };
            let help = format!("`kubectl describe pvc -n {} {name}` names the pods that use it", p.work.namespace);
            out.problem(&known::CLAIM_LEAVING, on::CLAIMS, format!("{full} is being deleted already{held}"), help);
        }
        match (volume, &claim.volume) {
            (Some(volume), _) => {
                let placement = volume.placement_for(Some(claim), nodes);
                let one = One { full: &full, name: &name, fate, volume, placement: &placement };
                one.judge(p, f, &mut out);
                let replaced = fate == Some(ClaimFate::Recreate) && !placement.serves(&p.node.name);
                match leaving(volume, &full) {
                    Some(problem) if replaced => out.borrowed(&known::VOLUME_LEAVING, on::CLAIMS, problem),
                    Some(_) => out.note(
                        on::CLAIMS,
                        format!("volume {} of {full} is being deleted, and goes when its claim does", volume.meta.name),
                    ),
                    None => {}
                }
                if replaced {
                    maker(p, f, claim, volumes, &full, &mut out);
                }
            }
            (None, Some(gone)) => out.problem(
                &known::VOLUME_MISSING,
                on::CLAIMS,
                format!("{full} names volume {gone}, which is not there ({})", claim.phase),
                "its data is where that volume was; delete the claim by hand if a new one may take its place",
            ),
            (None, None) => out.note(on::CLAIMS, format!("{full} is {} without a volume", claim.phase)),
        }
    }
    host_paths(p, f, &mut out);
    out
}

fn absent(
    p: &Preflight,
    f: &KubeFacts,
    (name, fate): (&str, Option<ClaimFate>),
    volumes: &[Volume],
    out: &mut Findings,
) {
    let full = format!("claim {}/{name}", p.work.namespace);
    let step = if fate == Some(ClaimFate::Recreate) { on::CLAIMS } else { on::DEPLOY };
    let text = format!("there is no {full}");
    if f.workload().is_none_or(|work| !work.after.makes_claim(name)) {
        let help = "where another run took it away, `pvemig undo` of that run brings it back; else correct the name";
        return out.problem(&known::CLAIM_MISSING, step, text, help);
    }
    let was = |v: &&Volume| v.claim.as_ref().is_some_and(|c| c.namespace == p.work.namespace && c.name == name);
    match volumes.iter().find(was).filter(|_| fate != Some(ClaimFate::Recreate)) {
        None => out.note(step, format!("{text} yet: {} makes it with its pod", p.work)),
        Some(old) => out.problem(
            &known::CLAIM_MISSING,
            step,
            format!("{text}: {} would make it anew and EMPTY, and volume {} has what it held", p.work, old.meta.name),
            format!(
                "where another run took it away, `pvemig undo` of that run brings it back; say `claims: {{ {name}: \
                 recreate }}` for a new empty volume"
            ),
        ),
    }
}

struct One<'a> {
    full: &'a str,
    name: &'a str,
    fate: Option<ClaimFate>,
    volume: &'a Volume,
    placement: &'a Placement,
}

impl One<'_> {
    fn judge(&self, p: &Preflight, f: &KubeFacts, out: &mut Findings) {
        let Self { full, volume, placement, .. } = self;
        let target = p.node.name.as_str();
        let size = f.bytes.get(&volume.meta.name).map(size).unwrap_or_default();
        let what =
            format!("{full}: volume {} ({}, {}{size})", volume.meta.name, kept_in(&volume.source), data(placement));
        let loose = placement.can_start_empty();
        if let Some(node) = self.made_anew(f) {
            out.note(
                on::CLAIMS,
                format!(
                    "volume {} of {full} has its data on {node}, and node {node} was made after it: where the machine was \
                     made anew under this name, the data is gone",
                    volume.meta.name
                ),
            );
        }
        if placement.serves(target) {
            return out.note(on::CLAIMS, format!("{what} can be used on {target}"));
        }
        if self.fate == Some(ClaimFate::Recreate) {
            out.note(on::CLAIMS, format!("{what} stays as it is, and a new empty one is made on {target}"));
            if loose {
                out.note(on::RETAIN, format!("volume {} of {full} holds no pod: {}", volume.meta.name, why(volume)));
            }
            return;
        }
        let declared = match self.fate {
            Some(ClaimFate::Leave) => "the site file leaves it",
            _ => "the site file does not name it under `claims`",
        };
        let help = format!(
            "say `claims: {{ {}: recreate }}` for a new empty volume there (the old one is kept), or bring its data to {target} \
             first",
            self.name
        );
        if placement.admits(target) && placement.data == DataAt::Unknown {
            let text = format!("{what} may be used on {target}, and nobody can tell whether its data is there");
            if self.fate == Some(ClaimFate::Leave) {
                return out.note(on::DEPLOY, format!("{text}: {declared}"));
            }
            out.problem(
                &known::DATA_UNKNOWN,
                on::DEPLOY,
                format!("{text}: it may start EMPTY, without any error; {declared}"),
                format!(
                    "look into it on {target}: say `claims: {{ {}: leave }}` where its data is there or is not needed, \
                     else {help}",
                    self.name
                ),
            );
        } else if placement.admits(target) {
            out.problem(
                &known::STARTS_EMPTY,
                on::DEPLOY,
                format!("{what} would start EMPTY on {target}, without any error: {}; {declared}", why(volume)),
                help,
            );
        } else {
            let nodes = if placement.eligible.is_empty() { "no node".into() } else { placement.eligible.join(", ") };
            out.problem(
                &known::CLAIM_ON_OLD_NODE,
                on::DEPLOY,
                format!(
                    "{what} keeps its pod from {target}: it would stay Pending (affinity: {}; {nodes} may use it), and \
                     {declared}",
                    volume.affinity_text()
                ),
                help,
            );
        }
    }
}

impl One<'_> {
    /// The node that has the data, where it is younger than the volume: a name is no identity. Both times are the API
    /// server's.
    fn made_anew<'f>(&self, f: &'f KubeFacts) -> Option<&'f str> {
        let DataAt::Nodes(names) = &self.placement.data else { return None };
        let node = f.nodes.as_ref().ok()?.iter().find(|n| names.contains(&n.meta.name))?;
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
        (time(&node.meta.created)? > time(&self.volume.meta.created)?).then_some(node.meta.name.as_str())
    }
}

/// How much is on it, as far as that could be read in time.
fn size(asked: &Asked<u64>) -> String {
    match asked {
        Ok(size) => format!(", {}", bytes(*size)),
        Err(why) => format!(", bytes unknown ({})", why.text),
    }
}

/// What is left behind by claims that are made anew, with its bytes.
pub(super) fn left_behind(p: &Preflight, f: &KubeFacts) -> Vec<(Thing, Option<u64>)> {
    let nodes = f.nodes.as_deref().unwrap_or_default();
    let left = |(name, fate): (&String, &ClaimFate)| {
        let (claim, volume) = f.claim(name).filter(|_| *fate == ClaimFate::Recreate)?;
        let volume = volume.filter(|v| !v.placement_for(Some(claim), nodes).serves(&p.node.name))?;
        let size = f.bytes.get(&volume.meta.name).and_then(|asked| asked.as_ref().ok().copied());
        Some((Thing::claim(&p.work.namespace, name), size))
    };
    p.claims.iter().filter_map(left).collect()
}

/// Why a volume whose data is on a node holds no pod there.
fn why(volume: &Volume) -> String {
    match &volume.affinity {
        None => "it has no node affinity".to_owned(),
        Some(_) => format!("its node affinity ({}) is not enforced or admits other nodes too", volume.affinity_text()),
    }
}

fn kept_in(source: &Source) -> String {
    match source {
        Source::HostPath(path) => format!("hostPath {path}"),
        Source::Local(path) => format!("local {path}"),
        Source::Csi(driver) => format!("csi {driver}"),
        Source::Nfs(place) => format!("nfs {place}"),
        Source::Other(kind) => kind.clone(),
    }
}

fn data(placement: &Placement) -> String {
    match &placement.data {
        DataAt::Shared => "on no node's own disks".to_owned(),
        DataAt::Nodes(nodes) => format!("data on {}", nodes.join(" or ")),
        DataAt::Unknown => "nothing names the node of its data".to_owned(),
    }
}

/// Whether somebody makes the new volume.
fn maker(p: &Preflight, f: &KubeFacts, claim: &Claim, volumes: &[Volume], full: &str, out: &mut Findings) {
    let Some(class) = claim.class.as_ref().filter(|class| !class.is_empty()) else {
        return;
    };
    let Some(said) = f.classes.get(class).and_then(|c| out.need(on::CLAIMS, &format!("storage class {class}"), c))
    else {
        return;
    };
    let nodes = f.nodes.as_deref().unwrap_or_default();
    let ready = |v: &Volume| v.class == *class && v.phase == "Available" && v.placement(nodes).admits(&p.node.name);
    let text = match said {
        None => format!("{full} is of storage class {class}, which does not exist"),
        Some(made) if made.provisioner == "kubernetes.io/no-provisioner" && !volumes.iter().any(ready) => {
            format!(
                "{full} is of storage class {class}, whose volumes nobody makes, and none is free for {}",
                p.node.name
            )
        }
        Some(_) => return,
    };
    let help = format!("make a volume of that class for {}, or the class with a provisioner", p.node.name);
    out.problem(&known::NO_MAKER, on::CLAIMS, text, help);
}

/// Directories of a node that the template mounts by path: nothing of them moves.
fn host_paths(p: &Preflight, f: &KubeFacts, out: &mut Findings) {
    const SYSTEM: &[&str] = &["/dev", "/sys", "/proc", "/run", "/var/run", "/etc/localtime"];
    let needs = f.workload().and_then(|w| w.after.needs.as_ref());
    let own =
        |path: &&String| !SYSTEM.iter().any(|root| path.as_str() == *root || path.starts_with(&format!("{root}/")));
    for path in needs.iter().flat_map(|n| &n.host_paths).filter(own) {
        let text = format!("{} mounts {path} of its node: what is in it on {} stays there", p.work, p.source_node.name);
        out.note(on::CLAIMS, text);
    }
}
