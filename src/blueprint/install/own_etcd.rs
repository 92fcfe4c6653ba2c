//! Whether another machine of the cluster has an etcd, or its data: then nobody begins a second one. What is not known is
//! no "no".

use futures::future::join_all;

use crate::base::check::Problem;
use crate::base::permit::Thing;
use crate::blueprint::quorum::Etcd;
use crate::estate::{Estate, read_config};
use crate::talos::{Error, Talos, Which, kind};

use super::bare::{Bare, Stand, still_waits};
use super::disk;

/// What a machine says of an etcd of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// It has none: it is a worker, or waits for its configuration and has no data but what may be lost.
    None,
    /// It has one, or may have one, and how that is known.
    Perhaps(String),
}

/// What each of these machines says, side by side.
pub async fn all(cx: &Estate, machines: &[Bare], given: impl Fn(&Thing) -> bool + Copy) -> Vec<(String, Own)> {
    let one = |bare: &Bare| {
        let bare = bare.clone();
        async move {
            let own = own(cx, &bare, given).await;
            (bare.name().to_owned(), own)
        }
    };
    join_all(machines.iter().map(one)).await
}

async fn own(cx: &Estate, bare: &Bare, given: impl Fn(&Thing) -> bool) -> Own {
    let asked = match bare.stand(cx).await {
        Ok(Stand::Waits(talos)) => waiting(bare, &talos, given).await,
        Ok(Stand::Ours(talos)) => configured(&talos).await,
        Ok(Stand::Foreign) => return Own::Perhaps("it has a configuration of another cluster".into()),
        Ok(Stand::Silent(why)) => return Own::Perhaps(why.to_string()),
        Err(failure) => return Own::Perhaps(failure.to_string()),
    };
    asked.unwrap_or_else(|error| Own::Perhaps(error.to_string()))
}

/// A machine that waits is the one that is meant where it has the disk that is meant. The data of an etcd stays on the
/// partition EPHEMERAL (or ETCD, from 1.14 on) of an installation whose configuration is gone.
async fn waiting(bare: &Bare, talos: &Talos, given: impl Fn(&Thing) -> bool) -> Result<Own, Error> {
    if !still_waits(talos).await? {
        return Ok(Own::Perhaps("it installs itself".into()));
    }
    let (disks, volumes) = futures::try_join!(talos.list(&kind::DISKS), talos.list(&kind::DISCOVERED_VOLUMES))?;
    if let Err(problem) = disk::choose(bare.name(), &bare.disk, &disks, &volumes) {
        return Ok(Own::Perhaps(format!("what answers there may be another machine: {}", problem.text)));
    }
    let kept = disk::with_data(&disks, &volumes).into_iter().find(|(_, serial)| !given(&Thing::disk(serial)));
    Ok(kept.map_or(Own::None, |(disk, _)| Own::Perhaps(format!("there is data of an older installation on {disk}"))))
}

/// A node that has its configuration: a service that does not run, or is not even listed, may have its data all the same,
/// on a volume that is not mounted yet, or behind a clock that is not set (siderolabs/talos `services/etcd.go`).
async fn configured(talos: &Talos) -> Result<Own, Error> {
    let config = talos.machine_config(Which::Active).await?;
    let kind = config.and_then(|config| read_config(config.expose()).ok()).map(|config| config.machine_type);
    Ok(match kind.as_deref() {
        Some("worker") => Own::None,
        _ => Own::Perhaps("it has its configuration already, and may have data of an etcd".into()),
    })
}

/// Kubernetes answers, so that an etcd lives of which no node of the site file tells.
pub fn lives(bare: &Bare, said: &str) -> Problem {
    let (name, cluster) = (bare.name(), &bare.machine.cluster);
    Problem::new(
        format!(
            "{said}: an etcd with its majority lives, and no node of {cluster} in the site file tells its members; one that \
             begins on {name} would be a second cluster"
        ),
        format!(
            "put its control planes under `talos.{cluster}.nodes` (`kubectl get nodes` names them), and {name} joins them behind the \
             gate; where that Kubernetes is another cluster's, correct `kubeconfig` or `context` of `{}` in the site file",
            bare.machine.node.cluster
        ),
    )
}

/// Discovery knows a control plane that the site file has not.
pub fn unlisted(bare: &Bare, plane: &str) -> Problem {
    let (name, cluster) = (bare.name(), &bare.machine.cluster);
    Problem::new(
        format!(
            "{plane} is a control plane of {cluster} as discovery knows it from {name}, and no node of the site file: whether it has \
             an etcd is not known"
        ),
        format!(
            "add it to `talos.{cluster}.nodes`; where that machine is gone for good, discovery forgets it after half an hour: {}",
            bare.machine.talosctl("get members")
        ),
    )
}

/// Every other machine of the cluster that has an etcd, or may have one. `asked`: those of this migration.
pub fn in_the_way(bare: &Bare, etcd: &Etcd, asked: &[(String, Own)]) -> Vec<Problem> {
    let (mut problems, cluster) = (Vec::new(), &bare.machine.cluster);
    for (name, own) in asked {
        let Own::Perhaps(how) = own else { continue };
        problems.push(Problem::new(
            format!(
                "whether {name} has an etcd is not known ({how}): a second one would be a second cluster {cluster}"
            ),
            format!(
                "look at it: {}, `pvemig survey`; where it has none that is wanted, have it \
                 wait for its first configuration, with its old disks wiped or taken out",
                etcd.talosctl(name, "list /var/lib/etcd/member")
            ),
        ));
    }
    let known = |name: &str| name == bare.name() || asked.iter().any(|(other, _)| other == name);
    for (name, why) in etcd.silent().filter(|(name, _)| !known(name)) {
        problems.push(Problem::new(
            format!("{name} is a node of {cluster} in the site file and does not answer ({why}): whether it has an etcd is not known"),
            format!("let {name} answer, or add it to `nodes` of the parameters"),
        ));
    }
    problems
}
