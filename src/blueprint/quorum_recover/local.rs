//! What else is on the volume that etcd's data is on: a reset takes all of it, and with Kubernetes down nobody but the node
//! tells.

use futures::future::try_join_all;

use crate::base::check::bytes;
use crate::base::fault::Failure;
use crate::talos::kind::{MOUNTS, VOLUME_STATUSES};
use crate::talos::{Error, EtcdVolume, Talos};

/// What Talos, containerd and the kubelet have there, and make anew (siderolabs/talos
/// `internal/app/machined/pkg/controllers/block/volume_config.go`, and the overlays of `/opt`). What is not in it is
/// somebody's: a name too few is a question too many, and loses nothing.
const OWN: &[(&str, &[&str])] = &[
    ("/var", &["lib", "log", "run", "mnt", "system"]),
    ("/var/lib", &["cni", "containerd", "etcd", "kubelet"]),
    ("/var/mnt", &[]),
    // An overlay whose upper part is on it.
    ("/opt", &["cni", "containerd"]),
];

/// Which volume goes, and what of others is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    /// The volume.
    pub(super) volume: EtcdVolume,
    /// Directories and files with their sizes.
    pub(super) data: Vec<(String, String)>,
}

/// Looks at one node.
///
/// # Errors
/// What keeps it from answering, and that it tells of no volume that its etcd could be on.
pub(super) async fn look(talos: &Talos) -> Result<Local, Failure> {
    let Some(volume) = EtcdVolume::of(&talos.list(&VOLUME_STATUSES).await?) else {
        let name = &talos.node().name;
        let text = format!("{name} tells of no volume that /var/lib/etcd could be on");
        return Err(Failure::plain(text, Some("see `talosctl get volumestatus`".into())));
    };
    if volume == EtcdVolume::Own {
        return Ok(Local { volume, data: Vec::new() });
    }
    let mounts = talos.list(&MOUNTS).await?;
    // A volume that is a directory is mounted too, and has its data on EPHEMERAL: it has no device of its own.
    let device = |path: &str| {
        let mount = mounts.iter().find(|mount| mount.spec.target == path)?;
        Some(mount.spec.source.as_str()).filter(|source| source.starts_with("/dev/"))
    };
    let mounted = |path: &str| device(path).is_some_and(|own| device("/var").is_some_and(|of| of != own));
    let mut found = Vec::new();
    for (dir, own) in OWN {
        let entries = match talos.dir(dir).await {
            Err(Error::NotFound { .. }) => continue,
            other => other?,
        };
        for entry in entries.into_iter().filter(|entry| !own.contains(&entry.name.as_str())) {
            let path = format!("{dir}/{}", entry.name);
            // A volume of its own stays.
            if !mounted(&path) {
                found.push((path, entry));
            }
        }
    }
    let sized = found.into_iter().map(|(path, entry)| async move {
        if let Some(error) = entry.error {
            return Ok(Some((path, format!("what it has is not known ({error})"))));
        }
        if !entry.is_dir {
            return Ok::<_, Error>(Some((path, bytes(entry.size))));
        }
        match talos.dir(&path).await {
            Ok(within) if within.is_empty() => return Ok(None),
            Ok(_) => {}
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let size = talos.disk_usage(&path).await;
        let size = size.map_or_else(|error| format!("its size is not known ({error})"), bytes);
        Ok(Some((path, size)))
    });
    Ok(Local { volume, data: try_join_all(sized).await?.into_iter().flatten().collect() })
}
