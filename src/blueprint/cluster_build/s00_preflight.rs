//! 00: everything that can be known beforehand to keep a machine from becoming a node, of all of them at once.

use std::path::{Path, PathBuf};

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::base::check::Check;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::System;
use crate::blueprint::finding::{self, Asked, Finding, Findings, asked};
use crate::blueprint::install::asked::{by_its_own, chosen, other_data, unattended, unconsented};
use crate::blueprint::install::{Bare, Stand, Wanted, image, medium, own_etcd};
use crate::blueprint::quorum::{Peer, living, look, votes};
use crate::engine::step::{Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::{ApplyMode, Error, Talos};

use super::params::Params;
use super::{known, on, rights};

/// Looks at everything that all machines need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preflight {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The machines, in the order of their turns.
    pub machines: Vec<Bare>,
    /// All nodes of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// The files that 06 writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
}

/// Nothing is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {}

/// What was asked about one machine.
struct Facts {
    wanted: Asked<Wanted>,
    /// What it is like, and what it says of its configuration.
    found: Asked<Found>,
    /// The roles of the talosconfig, and whether its authority is the configuration's.
    ours: Asked<(Vec<String>, Option<bool>)>,
}

/// How it stands.
enum Found {
    /// It waits: the findings about it.
    Waits(Findings),
    /// Anything else is the business of 01.
    Other,
}

impl From<&Params> for Preflight {
    fn from(p: &Params) -> Self {
        Self { cluster: p.cluster.clone(), machines: p.machines.clone(), peers: p.peers.clone(), files: Vec::new() }
    }
}

impl Step<Estate> for Preflight {
    const ID: &'static str = "00-preflight";
    const RISK: Risk = Risk::Reads;
    type Before = Before;

    fn title(&self) -> String {
        let names: Vec<&str> = self.machines.iter().map(Bare::name).collect();
        format!("nothing is in the way of making {} nodes of {}", names.join(", "), self.cluster)
    }

    fn why(&self) -> Vec<String> {
        vec![
            "Every configuration is read, and each machine that waits is asked whether it would take its own (a dry run), before \
             the first of them is installed."
                .into(),
            "The talosconfig must be of the authority that the configurations name: once a machine has one, there is no other way \
             to it."
                .into(),
            "Every problem names the step and the node that it protects; where that step has begun, it is dropped.".into(),
        ]
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let facts = join_all(self.machines.iter().map(|bare| gather(cx, bare, seen.run)));
        let (facts, lives) = futures::join!(facts, self.lives(cx));
        let mut all = self.findings(facts);
        all.extend(lives.all);
        let mut out = Findings::of(System::Local);
        for (file, (text, help)) in self.files.iter().filter_map(|file| Some((file, unwritable(file)?))) {
            out.problem(
                &known::UNWRITABLE,
                on::KUBECONFIG,
                format!("{} cannot be written: {text}", file.display()),
                help,
            );
        }
        all.extend(out.all);
        Ok(finding::check(all))
    }
}

async fn gather(cx: &Estate, bare: &Bare, run: &RunInfo) -> Facts {
    let wanted = asked(bare.wanted().await);
    let found = asked(found(cx, bare, wanted.as_ref().ok(), run).await);
    let ours = async {
        let talos = bare.machine.open(cx).await?;
        let ca = wanted.as_ref().ok().and_then(|wanted| wanted.ca.as_deref());
        let same = ca.map(|ca| cx.talosconfig(&bare.machine.cluster).map(|context| context.is_of(ca))).transpose()?;
        Ok::<_, Failure>((talos.roles().to_vec(), same))
    };
    let ours = asked(ours.await);
    Facts { wanted, found, ours }
}

async fn found(cx: &Estate, bare: &Bare, wanted: Option<&Wanted>, run: &RunInfo) -> Result<Found, Failure> {
    let Stand::Waits(talos) = bare.stand(cx).await? else { return Ok(Found::Other) };
    let mut out = Findings::of(System::Talos);
    // What 01 of each machine would ask in its turn, of all at once.
    disks(bare, &talos, run, &mut out).await?;
    let apply = at(on::APPLY, bare);
    for problem in bare.is_another(cx, &talos).await? {
        out.borrowed(&known::ANOTHER, apply.clone(), problem);
    }
    if let Some(note) = medium::comes_first(cx, bare).await? {
        out.note(apply.clone(), note);
    }
    let Some(wanted) = wanted else { return Ok(Found::Waits(out)) };
    if let Some(problem) = image::amiss(bare, &talos, wanted).await? {
        out.borrowed(&known::IMAGE, apply.clone(), problem);
    }
    match talos.dry_run(wanted.expose(), ApplyMode::Auto).await {
        Ok(trial) => trial.warnings.iter().for_each(|line| out.note(apply.clone(), format!("{}: {line}", bare.name()))),
        Err(Error::Invalid { why, .. }) => out.problem(
            &known::REFUSED,
            apply,
            format!("{} would not take its configuration: {why}", bare.name()),
            format!("correct {}", bare.source.shown()),
        ),
        Err(error) => return Err(error.into()),
    }
    Ok(Found::Waits(out))
}

async fn disks(bare: &Bare, talos: &Talos, run: &RunInfo, out: &mut Findings) -> Result<(), Failure> {
    let key = || at(on::DISKS, bare);
    if let Some(install) = unattended(talos).await? {
        out.borrowed(&known::BY_ITSELF, key(), by_its_own(bare.name(), &install));
        return Ok(());
    }
    match chosen(bare, talos).await? {
        Err(problem) => out.borrowed(&known::DISK, key(), problem),
        Ok(chosen) => {
            other_data(bare, talos).await?.into_iter().for_each(|problem| out.borrowed(&known::DATA, key(), problem));
            let lacks = unconsented(bare, &chosen, |thing| run.consents.contains(thing));
            lacks.into_iter().for_each(|problem| out.borrowed(&known::CONSENT, key(), problem));
        }
    }
    Ok(())
}

/// Why a file cannot be put in its place, and what helps; nothing is written to find out.
fn unwritable(file: &Path) -> Option<(String, String)> {
    let place = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let dir = place.parent().filter(|dir| !dir.as_os_str().is_empty())?;
    let shown = dir.display();
    match std::fs::metadata(dir) {
        Ok(found) if !found.is_dir() => {
            return Some((format!("{shown} is no directory"), "correct the path in the site file".into()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some((format!("there is no directory {shown}"), format!("`mkdir -p -m 700 {shown}`")));
        }
        _ => {}
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let denied = rustix::fs::access(dir, access).err()?;
    let why = std::io::Error::from(denied);
    Some((
        format!("{shown}: {why}"),
        format!("make {shown} a place that you may write: `ls -ld {shown}`, `findmnt -T {shown}`"),
    ))
}

fn at(id: &str, bare: &Bare) -> StepKey {
    StepKey::new(id, Some(bare.name()))
}

impl Preflight {
    /// An etcd of which the site file names nobody.
    async fn lives(&self, cx: &Estate) -> Findings {
        let mut out = Findings::of(System::Kubernetes);
        if let Some(first) = self.machines.first().filter(|_| !self.peers.is_empty())
            && votes(&look(cx, &self.cluster, &self.peers).await).is_none()
            && let Some(said) = living(cx, &first.machine.node.cluster).await
        {
            out.borrowed(&known::LIVING, on::BOOTSTRAP, own_etcd::lives(first, &said));
        }
        out
    }

    fn findings(&self, facts: Vec<Facts>) -> Vec<Finding> {
        let (mut all, mut out) = (Vec::new(), Findings::of(System::Talos));
        let mut cluster: Option<(String, String)> = None;
        for (turn, (bare, facts)) in self.machines.iter().zip(facts).enumerate() {
            let (name, apply) = (bare.name(), at(on::APPLY, bare));
            match &facts.wanted {
                Err(why) => {
                    let help = why.help.clone().unwrap_or_else(|| "correct `config` of the node".into());
                    out.problem(&known::SOURCE, apply.clone(), format!("{name}: {}", why.text), help);
                }
                Ok(wanted) => {
                    if let Some(text) = image::unknown(name, wanted) {
                        out.note(apply.clone(), text);
                    }
                    if turn == 0 && !wanted.is_control_plane() {
                        let kind = &wanted.facts.machine_type;
                        let text = format!("{name} is the first of `nodes`, and its configuration is that of a {kind}");
                        out.problem(&known::FIRST, on::BOOTSTRAP, text, "put a control plane first in `nodes`");
                    }
                    match (&cluster, &wanted.cluster) {
                        (None, Some(id)) => cluster = Some((name.to_owned(), id.clone())),
                        (Some((first, id)), own) if own.as_ref() != Some(id) => out.problem(
                            &known::CLUSTERS,
                            apply.clone(),
                            format!(
                                "the configurations of {first} and {name} are of two clusters (`cluster.id` differs)"
                            ),
                            "make both from the same secrets",
                        ),
                        _ => {}
                    }
                }
            }
            match facts.ours {
                Err(why) => out.unknown(apply.clone(), &format!("the talosconfig of {}", self.cluster), &why),
                Ok((roles, same)) => {
                    if same == Some(false) {
                        out.problem(
                            &known::AUTHORITY,
                            apply.clone(),
                            format!(
                                "the talosconfig of {} is of another authority than the configuration of {name}",
                                self.cluster
                            ),
                            "name the talosconfig that was made with these configurations in the site file",
                        );
                    }
                    if !roles.iter().any(|role| role == rights::ROLE) {
                        out.problem(
                            &known::ROLE,
                            on::BOOTSTRAP,
                            format!(
                                "the talosconfig's certificate has the roles {}, and {} is needed",
                                roles.join(", "),
                                rights::ROLE
                            ),
                            "name a talosconfig with that role in the site file",
                        );
                    }
                }
            }
            match facts.found {
                Err(why) => out.unknown(apply, &format!("{name} how it stands"), &why),
                Ok(Found::Waits(found)) => all.extend(found.all),
                Ok(Found::Other) => {}
            }
        }
        all.extend(out.all);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_written_is_told_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        assert_eq!((unwritable(&at("file")), unwritable(&at("new"))), (None, None));
        assert!(unwritable(&at("none/config")).unwrap().1.contains("mkdir -p -m 700"));
        assert!(unwritable(&at("file/config")).unwrap().0.contains("is no directory"));
        // Nobody writes there, root neither.
        assert!(unwritable(Path::new("/proc/1/config")).is_some());
    }
}
