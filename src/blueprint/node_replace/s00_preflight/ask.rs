//! What the preflight asks, all of it side by side.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::blueprint::finding::{Asked, asked};
use crate::blueprint::install::asked::{other_data, runs_from};
use crate::blueprint::install::disk::{Chosen, choose};
use crate::blueprint::install::{Stand, Wanted, image};
use crate::blueprint::quorum::{Etcd, look};
use crate::blueprint::rights::Weight;
use crate::estate::Estate;
use crate::k8s::Pod;
use crate::k8s::access::Right;
use crate::k8s::drain::Surroundings;
use crate::k8s::gone::Attachment;
use crate::talos::{ApplyMode, Error, Talos, Which, kind};

use super::super::rights;
use super::super::shell::{kubectl, starts_again};
use super::super::sight::{Life, life};
use super::super::swap::Swap;
use super::endpoint::{Point, points};

/// Everything that was asked.
pub(super) struct Facts {
    pub(super) wanted: Asked<Wanted>,
    pub(super) life: Asked<Life>,
    pub(super) etcd: Etcd,
    pub(super) new: Asked<New>,
    /// The roles of the talosconfig, and whether its authority is the configuration's.
    pub(super) ours: Asked<(Vec<String>, Option<bool>)>,
    pub(super) kube: Asked<Kube>,
    /// What these credentials may not do in Kubernetes.
    pub(super) lacking: Asked<Vec<Right>>,
    /// The nodes of the cluster, but for the new one, that have the new disk now. Who does not answer is not known to.
    pub(super) disk_of: Vec<String>,
    /// The command that labels the new node.
    pub(super) labels: String,
    /// What everybody reaches the cluster by.
    pub(super) points: Vec<Point>,
    /// What would start the old VM again; None: it is a machine of its own.
    pub(super) kept: Option<Asked<Vec<Problem>>>,
}

/// How the new machine stands.
pub(super) enum New {
    /// It is installed where it is to be; with what is wrong with its configuration.
    In(Option<Problem>),
    /// It runs from another disk, which is named.
    Elsewhere(String),
    /// It waits.
    Waits(Box<Waiting>),
    /// It is not there yet.
    Away,
    /// It is another cluster's.
    Foreign(Problem),
}

/// A machine that waits.
pub(super) struct Waiting {
    pub(super) disk: Result<Chosen, Problem>,
    /// Why it is not the one that is meant.
    pub(super) another: Vec<Problem>,
    pub(super) image: Option<Problem>,
    /// What it says of its configuration.
    pub(super) trial: Result<Vec<String>, String>,
}

/// What Kubernetes says.
pub(super) struct Kube {
    pub(super) round: Surroundings,
    /// On the old node.
    pub(super) pods: Vec<Pod>,
    pub(super) attached: Vec<Attachment>,
}

pub(super) async fn gather(swap: &Swap, cx: &Estate) -> Facts {
    let wanted = asked(swap.new.wanted().await);
    let kept = async {
        swap.old.vm.as_ref()?;
        Some(asked(starts_again(cx, swap).await))
    };
    let endpoint = wanted.as_ref().ok().and_then(|wanted| wanted.endpoint.as_deref());
    let (life, etcd, new, ours, kube, lacking, kept, disk_of, points) = futures::join!(
        life(cx, swap),
        look(cx, &swap.old.cluster, &swap.peers),
        new(cx, swap, wanted.as_ref().ok()),
        ours(cx, swap, wanted.as_ref().ok()),
        kubernetes(cx, swap),
        lacking(cx, swap),
        kept,
        disk_of(cx, swap),
        points(cx, swap, endpoint),
    );
    let labels = kubectl(cx, swap, &format!("label node {} KEY=VALUE", swap.new.machine.node.name));
    Facts {
        labels,
        life: asked(life),
        new: asked(new),
        ours: asked(ours),
        kube: asked(kube),
        lacking: asked(lacking),
        wanted,
        etcd,
        disk_of,
        points,
        kept,
    }
}

async fn new(cx: &Estate, swap: &Swap, wanted: Option<&Wanted>) -> Result<New, Failure> {
    let bare = &swap.new;
    Ok(match bare.stand(cx).await? {
        Stand::Ours(talos) => match runs_from(&talos).await? {
            Some((_, serial)) if serial == bare.disk => New::In(differs(swap, &talos, wanted).await?),
            // Under the same name that is the old one.
            _ if swap.same_name() => New::Away,
            Some((id, serial)) => New::Elsewhere(format!("{id} ({serial})")),
            None => New::Elsewhere("an image".into()),
        },
        Stand::Waits(talos) => New::Waits(Box::new(waiting(cx, swap, &talos, wanted).await?)),
        Stand::Foreign => New::Foreign(bare.foreign()),
        Stand::Silent(_) => New::Away,
    })
}

/// What keeps a machine that is installed already from being what its file says: 06 would find that with the old one gone.
async fn differs(swap: &Swap, talos: &Talos, wanted: Option<&Wanted>) -> Result<Option<Problem>, Failure> {
    let (Some(wanted), Some(now)) = (wanted, talos.machine_config(Which::Persistent).await?) else { return Ok(None) };
    let bare = &swap.new;
    let text = match wanted.differs(now.expose()) {
        Ok(None) => return Ok(None),
        Ok(Some(_)) => {
            format!("the machine configuration of {} is not what {} comes to", bare.name(), bare.source.shown())
        }
        Err(why) => {
            format!("whether {} has the configuration of {} cannot be told: {why}", bare.name(), bare.source.shown())
        }
    };
    let help = format!("look at it: {}", bare.machine.talosctl("get machineconfig persistent -o yaml"));
    Ok(Some(Problem::new(text, help)))
}

/// The nodes that have the disk that the new machine is to be installed on.
async fn disk_of(cx: &Estate, swap: &Swap) -> Vec<String> {
    let others = swap.peers.iter().map(|peer| &peer.name).filter(|name| *name != swap.new.name());
    let has = async |name: &String| {
        let talos = cx.talos(name).await.ok()?;
        let disks = talos.list(&kind::DISKS).await.ok()?;
        disks.iter().any(|disk| disk.spec.serial == swap.new.disk).then(|| name.clone())
    };
    futures::future::join_all(others.map(has)).await.into_iter().flatten().collect()
}

async fn waiting(cx: &Estate, swap: &Swap, talos: &Talos, wanted: Option<&Wanted>) -> Result<Waiting, Failure> {
    let bare = &swap.new;
    let (disks, volumes) = futures::try_join!(talos.list(&kind::DISKS), talos.list(&kind::DISCOVERED_VOLUMES))?;
    let disk = choose(bare.name(), &bare.disk, &disks, &volumes);
    let mut another = bare.is_another(cx, talos).await?;
    another.extend(other_data(bare, talos).await?);
    let (mut image, mut trial) = (None, Ok(Vec::new()));
    if let Some(wanted) = wanted {
        image = image::amiss(bare, talos, wanted).await?;
        trial = match talos.dry_run(wanted.expose(), ApplyMode::Auto).await {
            Ok(said) => Ok(said.warnings),
            Err(Error::Invalid { why, .. }) => Err(why),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(Waiting { disk, another, image, trial })
}

async fn ours(cx: &Estate, swap: &Swap, wanted: Option<&Wanted>) -> Result<(Vec<String>, Option<bool>), Failure> {
    let talos = swap.old.open(cx).await?;
    let ca = wanted.and_then(|wanted| wanted.ca.as_deref());
    let same = ca.map(|ca| cx.talosconfig(&swap.old.cluster).map(|context| context.is_of(ca))).transpose()?;
    Ok((talos.roles().to_vec(), same))
}

async fn kubernetes(cx: &Estate, swap: &Swap) -> Result<Kube, Failure> {
    let kube = cx.kubernetes(&swap.old.node.cluster).await?;
    let (round, pods, attached) =
        futures::try_join!(kube.surroundings(), kube.pods_on(swap.host()), kube.attachments_of(swap.host()))?;
    Ok(Kube { round, pods, attached })
}

async fn lacking(cx: &Estate, swap: &Swap) -> Result<Vec<Right>, Failure> {
    let kube = cx.kubernetes(&swap.old.node.cluster).await?;
    if kube.may_do_all().await {
        return Ok(Vec::new());
    }
    let needed = rights::kubernetes(swap).into_iter().filter(|need| need.weight == Weight::Needed);
    let rights: Vec<Right> = needed.map(|need| need.right).collect();
    Ok(kube.missing_rights(&rights).await?)
}
