//! How fast the drives of a node are, measured by a pod on it: what 01a and 10 have in common.
//!
//! The pod writes a file below a folder of its own on each mounted file system, reads it back and removes it; no raw device
//! is opened. Whatever becomes of it, the pod is gone in the end: it is known by its name and the label of its run.

mod figures;
mod pod;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, bytes};
use crate::base::drives::Inventory;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Permit, System};
use crate::base::wait::Backoff;
use crate::blueprint::machine::Machine;
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Outlook, RunInfo, Seen};
use crate::estate::Estate;
use crate::k8s::Pod;
use crate::k8s::errand::{Errand, RUN};
use crate::site::fields::Sink;
use crate::talos::kind;

use super::params::{self, Measure};
use figures::{Figures, Place, SYSTEM, left_out, read};
use pod::{LOOKS, create, ended, left};

/// What the pod runs.
const SCRIPT: &str = include_str!("script.sh");
/// Where the pod has the file systems.
const ROOT: &str = "/measure";
/// Where what it leaves is taken from.
const LEAVES: &str = "/dev/termination-log";
/// The run file with the figures.
const FIGURES: &str = "figures.json";
/// How much of the system disk stays free, in percent: with less than 15 the kubelet drops images, with less than 10 it evicts
/// pods (kubernetes `pkg/kubelet/apis/config/v1beta1/defaults_linux.go`).
const KEEPS: u32 = 20;
/// Why nothing is measured.
const OFF: &str = "`measure: off`";
/// How long the pod may run.
const LIMIT: Duration = Duration::from_secs(300);

/// The pod of a step, so that it is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its name.
    pub pod: String,
}

/// A measurement of a step.
pub(super) struct Measuring<'s> {
    pub(super) machine: &'s Machine,
    /// How, by the step's fields; the site file may say otherwise by now.
    pub(super) how: &'s Option<Measure>,
    /// The step.
    pub(super) id: &'static str,
    /// The step whose figures are the ones before.
    pub(super) than: Option<&'static str>,
}

impl Measuring<'_> {
    /// What stays the same in `explain` of both.
    pub(super) fn why(&self) -> Vec<String> {
        vec![
            "A pod on the node writes a file of `measure.bytes` on the system disk (/var) and on each user volume, past the page \
             cache, reads it back and removes it. It opens no raw device: a pool of Mayastor and a raw volume are not measured."
                .into(),
            format!(
                "It is left out where there is no room: as much as is written has to stay free, and {KEEPS} % of /var. etcd is on \
                 /var of a control plane, and waits for its disk for that second."
            ),
            "It needs a namespace in which Pod Security allows hostPath (kube-system does), and an image with `sh`, `dd` and `df`. \
             `measure: off` in the migration leaves it out; that counts for a run that is open, too."
                .into(),
            "By hand, in such a pod: `dd if=/dev/zero of=FILE bs=4M count=64 oflag=direct conv=fsync`, back with `iflag=direct`, \
             and `rm FILE`."
                .into(),
        ]
    }

    pub(super) fn outlook(&self) -> Outlook {
        let Some(how) = self.how else { return Outlook::default() };
        let pod = format!("a pod in {} on {}, until it has measured", how.namespace, self.machine.node.name);
        Outlook { keeps: true, ..Outlook::changes(System::Kubernetes, [pod]).longest(LIMIT) }
    }

    pub(super) async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let how = self.now(cx, seen.run);
        if how.is_none() && seen.since.is_none() {
            return Ok(Check::not_needed(OFF));
        }
        let before = Before { pod: self.pod(seen.run) };
        let figures = match (self.figures(seen.run, self.id)?, how) {
            (None, Some(how)) => {
                let (space, node) = (how.namespace, &self.machine.node.name);
                let what =
                    format!("a pod in {space} on {node} writes and reads {} on each mounted volume", bytes(how.bytes));
                return Ok(Check::todo(vec![Change::act(what)], before));
            }
            (figures, _) => figures,
        };
        let ours = match self.ours(cx, seen.run).await {
            Err(failure) if may_pass(&failure) => return Ok(Check::waiting(failure.to_string())),
            ours => ours?,
        };
        match (left(&ours), figures) {
            (Some(check), _) => check.try_map(|()| Ok(before.clone())),
            (None, Some(figures)) => Ok(self.told(seen.run, &figures)),
            (None, None) => Ok(Check::not_needed(OFF)),
        }
    }

    pub(super) async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let measured = self.figures(seen.run, self.id)?.is_some();
        let Some(how) = self.now(cx, seen.run).filter(|_| !measured) else {
            return self.remove(cx, seen.run, permit).await;
        };
        let kube = cx.kubernetes(&self.machine.node.cluster).await?;
        let (places, live) = self.places(cx).await?;
        let errand = self.errand(&how, seen.run, &places);
        let uid = match self.taken_up(cx, seen.run, &errand, permit).await? {
            Some(uid) => uid,
            None => create(&kube, &errand, permit).await?,
        };
        let told = match ended(cx, &kube, &errand, &uid, permit).await? {
            Ok(message) => read(&message, &places).map_err(|why| format!("what it left cannot be read: {why}")),
            Err(why) => Err(why),
        };
        if let Ok(volumes) = &told {
            let figures = Figures {
                taken: cx.clock().now(),
                node: self.machine.name.clone(),
                bytes: how.bytes,
                volumes: volumes.clone(),
                not_measured: live.as_ref().map_or_else(|why| vec![why.clone()], |live| left_out(&places, live)),
            };
            let text = serde_json::to_vec_pretty(&figures);
            let text = text.map_err(|error| Failure::plain(format!("{FIGURES}: {error}"), None))?;
            permit.file(FIGURES, &text)?;
        }
        kube.delete_pod(permit, (&errand.namespace, &errand.name), &uid).await?;
        told.map(drop).map_err(|why| {
            let text = format!("pod {}/{} on {} measured nothing: {why}", errand.namespace, errand.name, errand.node);
            Failure::plain(text, Some(way_out(&how)))
        })
    }

    pub(super) async fn back(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        match self.ours(cx, seen.run).await {
            Err(failure) if may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            ours => Ok(left(&ours?).unwrap_or_else(Check::done)),
        }
    }

    /// Removes what a crash has left.
    pub(super) async fn remove(&self, cx: &Estate, run: &RunInfo, permit: &Permit) -> Result<(), Failure> {
        let kube = cx.kubernetes(&self.machine.node.cluster).await?;
        for pod in self.ours(cx, run).await?.iter().filter(|pod| pod.meta.deleting.is_none()) {
            kube.delete_pod(permit, (&pod.meta.namespace, &pod.meta.name), &pod.meta.uid).await?;
        }
        Ok(())
    }

    /// How it is to be measured: by the site file as it is, so that what was wrong there can be mended for a run that is open.
    fn now(&self, cx: &Estate, run: &RunInfo) -> Option<Measure> {
        let sink = Sink::new();
        let migration = run.migration.as_deref();
        let found = migration
            .filter(|name| cx.site().migrations.get(*name).is_some_and(|found| found.blueprint == params::NAME));
        let item = found.and_then(|name| cx.site().params(name, &sink));
        item.and_then(|item| params::measured(&item)).unwrap_or_else(|| self.how.clone())
    }

    fn pod(&self, run: &RunInfo) -> String {
        format!("pvemig-measure-{}-{}", run.id, self.id.split('-').next().unwrap_or_default())
    }

    fn figures(&self, run: &RunInfo, id: &str) -> Result<Option<Figures>, Failure> {
        let unread = |why: String| {
            let help = "move that file out of the run's directory, and it is measured again".to_owned();
            Failure::plain(format!("{FIGURES} of {id} cannot be read: {why}"), Some(help))
        };
        let kept = run.file(&StepKey::new(id, None), FIGURES).map_err(|error| unread(error.to_string()))?;
        kept.map(|kept| serde_json::from_slice(&kept).map_err(|error| unread(error.to_string()))).transpose()
    }

    /// It is measured: what it came to, beside what it was before.
    fn told(&self, run: &RunInfo, figures: &Figures) -> Check<Before> {
        let before = self.than.map(|than| self.figures(run, than));
        let lines = match &before {
            None => figures.lines(None, false),
            Some(Ok(before)) => figures.lines(before.as_ref(), true),
            Some(Err(why)) => [figures.lines(None, false), vec![why.to_string()]].concat(),
        };
        lines.into_iter().fold(Check::done(), Check::note)
    }

    /// The pods of this step in this run, in whatever namespace: that of the site file may be another one since.
    async fn ours(&self, cx: &Estate, run: &RunInfo) -> Result<Vec<Pod>, Failure> {
        // Of a plan there is no run, and so no pod.
        if run.id.is_empty() {
            return Ok(Vec::new());
        }
        let name = self.pod(run);
        let own = |pod: &Pod| pod.meta.name == name && pod.meta.labels.get(RUN) == Some(&run.id);
        let kube = cx.kubernetes(&self.machine.node.cluster).await?;
        Ok(kube.pods_on(&self.machine.node.name).await?.into_iter().filter(own).collect())
    }

    /// The pod that a crash has left, where it can still tell; the others go.
    async fn taken_up(
        &self,
        cx: &Estate,
        run: &RunInfo,
        errand: &Errand,
        permit: &Permit,
    ) -> Result<Option<String>, Failure> {
        let kube = cx.kubernetes(&self.machine.node.cluster).await?;
        let mut pauses = Backoff::poll(cx.clock());
        for _ in 0..LOOKS {
            let ours = self.ours(cx, run).await?;
            let mut going = false;
            for pod in &ours {
                if pod.meta.deleting.is_some() {
                    going = true;
                } else if pod.meta.namespace == errand.namespace {
                    return Ok(Some(pod.meta.uid.clone()));
                } else {
                    kube.delete_pod(permit, (&pod.meta.namespace, &pod.meta.name), &pod.meta.uid).await?;
                }
            }
            if !going {
                return Ok(None);
            }
            permit.go_on()?;
            pauses.pause().await;
        }
        let help = format!("`kubectl get pod -A -l {RUN}={} -o yaml` shows what holds it", errand.run);
        Err(Failure::plain(format!("pod {} of this run is being deleted, and does not go", errand.name), Some(help)))
    }

    /// The file systems that are there to be measured, and the drives; why those are not known.
    async fn places(&self, cx: &Estate) -> Result<(Vec<Place>, Result<Inventory, String>), Failure> {
        let talos = self.machine.open(cx).await?;
        let (mounts, live) = futures::join!(talos.list(&kind::MOUNTS), Box::pin(cx.inventory(&self.machine.name)));
        let live = live.map_err(|why| format!("which drive is which could not be asked: {why}"));
        // A directory that is mounted as a volume has no device of its own, and is as fast as /var.
        let own = |mount: &kind::Mount| {
            mount.target.starts_with("/var/") && mount.source.starts_with("/dev/") && !mount.read_only
        };
        let mut paths: Vec<String> =
            mounts?.into_iter().map(|mount| mount.spec).filter(own).map(|m| m.target).collect();
        paths.push(SYSTEM.to_owned());
        paths.sort();
        paths.dedup();
        let places = paths.iter().filter_map(|path| Place::of(path, live.as_ref().ok())).collect();
        Ok((places, live))
    }

    fn errand(&self, how: &Measure, run: &RunInfo, places: &[Place]) -> Errand {
        let mut command: Vec<String> = ["sh", "-c", SCRIPT, "measure", ROOT, LEAVES].map(str::to_owned).into();
        command.push(how.bytes.to_string());
        let keeps = |place: &Place| if place.path == SYSTEM { KEEPS } else { 0 };
        command.extend(places.iter().map(|place| format!("{}:{}", place.name, keeps(place))));
        Errand {
            namespace: how.namespace.clone(),
            name: self.pod(run),
            run: run.id.clone(),
            node: self.machine.node.name.clone(),
            image: how.image.clone(),
            command,
            directories: places.iter().map(|at| (at.path.clone(), format!("{ROOT}/{}", at.name))).collect(),
            limit: LIMIT,
        }
    }
}

/// What an operator can do about a pod that does not measure.
fn way_out(how: &Measure) -> String {
    format!(
        "in the migration name another `measure.image` (now {}) or `measure.namespace` (now {}), or write `measure: off`; then \
         `pvemig resume`",
        how.image, how.namespace
    )
}
