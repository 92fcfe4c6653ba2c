//! What a node holds on its disk: directories, how much is in them, and etcd's own part of it.

use jiff::Timestamp;
use tonic::Streaming;

use crate::base::permit::{Permit, Thing};

use super::api::{Talos, machine};
use super::error::Error;
use super::kind::VolumeStatus;
use super::proto::common::{Data, Metadata};
use super::proto::machine as wire;
use super::resource::Resource;

/// The file in which etcd has its data.
const DATABASE: &str = "/var/lib/etcd/member/snap/db";
/// What is said of a file that is not there, by calls that are no `Read`.
const NO_FILE: &str = "no such file or directory";

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in it.
    pub name: String,
    /// In bytes; of a directory it says nothing of what is in it.
    pub size: u64,
    /// When it was written last.
    pub modified: Option<Timestamp>,
    /// It is a directory itself.
    pub is_dir: bool,
    /// What it names, where it is a symbolic link; else empty.
    pub link: String,
    /// Why the node could not look at it: nothing but its name is known then.
    pub error: Option<String>,
}

/// Which volume etcd's data is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EtcdVolume {
    /// EPHEMERAL, with everything else below /var.
    Ephemeral,
    /// One of its own (from 1.14 on, where the configuration says so).
    Own,
}

impl EtcdVolume {
    /// By what the node tells of its volumes. From 1.14 on there is one of the name `ETCD` always; it is a directory of
    /// EPHEMERAL or a partition (siderolabs/talos `internal/app/machined/pkg/controllers/block/volume_config.go`). None:
    /// neither is to be seen.
    pub fn of(volumes: &[Resource<VolumeStatus>]) -> Option<Self> {
        let kind = |id: &str| volumes.iter().find(|volume| volume.id == id).map(|volume| volume.spec.kind.as_str());
        match (kind("ETCD"), kind("EPHEMERAL")) {
            (Some("partition" | "disk"), _) => Some(Self::Own),
            (Some("directory") | None, Some("partition" | "disk")) => Some(Self::Ephemeral),
            _ => None,
        }
    }

    /// Its name, as a reset takes it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ephemeral => "EPHEMERAL",
            Self::Own => "ETCD",
        }
    }
}

/// All messages of a stream; an error in one of them is one of all.
async fn all<T>(mut stream: Streaming<T>, metadata: impl Fn(&T) -> Option<&Metadata>) -> Result<Vec<T>, tonic::Status> {
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        if let Some(metadata) = metadata(&message).filter(|metadata| !metadata.error.is_empty()) {
            return Err(tonic::Status::unknown(metadata.error.clone()));
        }
        all.push(message);
    }
    Ok(all)
}

/// What is not there is said in the words of the kernel.
fn not_there(error: Error) -> Error {
    match error {
        Error::Unexpected { at, why, .. } if why.contains(NO_FILE) => Error::NotFound { at, why },
        other => other,
    }
}

impl Talos {
    /// What is in a directory; not what is in those that are in it.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of any question.
    pub async fn dir(&self, path: &str) -> Result<Vec<Entry>, Error> {
        let ask = |channel| {
            let request = wire::ListRequest { root: path.to_owned(), recurse: true, recursion_depth: 1 };
            async move { all(machine(channel).list(request).await?.into_inner(), |m| m.metadata.as_ref()).await }
        };
        let what = format!("List {path}");
        let found = self.read(&what, ask).await.map_err(not_there)?;
        let is_root = |info: &&wire::FileInfo| matches!(info.relative_name.as_str(), "" | ".") || info.name == path;
        let Some(root) = found.iter().find(is_root) else {
            return Err(self.unreadable(&what, "the directory itself is not in it"));
        };
        if !root.error.is_empty() {
            return Err(self.kept_from(&what, &root.error));
        }
        let entry = |info: &wire::FileInfo| Entry {
            name: info.relative_name.clone(),
            size: u64::try_from(info.size).unwrap_or_default(),
            modified: Timestamp::from_second(info.modified).ok().filter(|_| info.modified > 0),
            is_dir: info.is_dir,
            link: info.link.clone(),
            error: Some(info.error.clone()).filter(|error| !error.is_empty()),
        };
        // What went while it was looked at is not there.
        let is_there = |info: &&wire::FileInfo| !is_root(info) && !info.error.contains(NO_FILE);
        Ok(found.iter().filter(is_there).filter(|info| !info.relative_name.contains('/')).map(entry).collect())
    }

    /// What the node says of one path of those that it looked at.
    fn kept_from(&self, what: &str, why: &str) -> Error {
        match why.contains(NO_FILE) {
            true => Error::NotFound { at: self.at(), why: why.to_owned() },
            false => self.unreadable(what, why),
        }
    }

    /// How much a directory holds, in bytes.
    ///
    /// # Errors
    /// As [`Talos::dir`].
    pub async fn disk_usage(&self, path: &str) -> Result<u64, Error> {
        let ask = |channel| {
            let paths = vec![path.to_owned()];
            let request = wire::DiskUsageRequest { recursion_depth: 1, all: false, threshold: 0, paths };
            async move { all(machine(channel).disk_usage(request).await?.into_inner(), |m| m.metadata.as_ref()).await }
        };
        let what = format!("DiskUsage {path}");
        let found = self.read(&what, ask).await.map_err(not_there)?;
        // It comes last, when all of it was counted.
        let is_own = |info: &&wire::DiskUsageInfo| info.name.trim_end_matches('/') == path;
        let Some(own) = found.iter().rev().find(is_own) else {
            return Err(self.unreadable(&what, "the directory itself is not in it"));
        };
        if let Some(failed) = found.iter().filter(is_own).find(|info| !info.error.is_empty()) {
            return Err(self.kept_from(&what, &failed.error));
        }
        // What could not be looked at was not counted: the sum is too small, by nobody knows how much.
        match found.iter().find(|info| !info.error.is_empty() && !info.error.contains(NO_FILE)) {
            Some(failed) => Err(self.unreadable(&what, &format!("{}: {}", failed.name, failed.error))),
            None => Ok(u64::try_from(own.size).unwrap_or_default()),
        }
    }

    /// The file in which etcd has its data, byte for byte: of one that is at work it may be torn, and no digest is behind it.
    /// Its whole length is held in memory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Denied`] (it takes os:admin), and those of any question.
    pub async fn etcd_database(&self) -> Result<Vec<u8>, Error> {
        let mut client = machine(self.questions());
        let ask = async {
            let request = wire::ReadRequest { path: DATABASE.to_owned() };
            let stream: Streaming<Data> = client.read(request).await?.into_inner();
            super::file::joined(stream).await
        };
        self.once(&format!("Read {DATABASE}"), self.limits.snapshot, ask).await
    }

    /// Wipes the volume that etcd's data is on, and nothing else, and has the node come up again; nothing is drained, and
    /// etcd is not told. `things` is what is lost with it, by names that a person has given. Returns as [`Talos::reboot`].
    ///
    /// # Errors
    /// A thing without consent, and what keeps the node from it.
    pub async fn wipe_etcd(&self, permit: &Permit, volume: EtcdVolume, things: &[Thing]) -> Result<String, Error> {
        if things.is_empty() {
            return Err(Error::Setup { at: self.at(), why: "what is lost with its etcd was not named".into() });
        }
        for thing in things {
            permit.may_destroy(thing)?;
        }
        let named: Vec<String> = things.iter().map(ToString::to_string).collect();
        let note = self.note_once(&format!("Reset, {} of {}", volume.label(), named.join(", ")));
        let request = wire::ResetRequest {
            graceful: false,
            reboot: true,
            system_partitions_to_wipe: vec![wire::ResetPartitionSpec { label: volume.label().to_owned(), wipe: true }],
            user_disks_to_wipe: Vec::new(),
            mode: wire::reset_request::WipeMode::SystemDisk as i32,
        };
        let send = |channel| async move { Ok(machine(channel).reset(request).await?.into_inner()) };
        let (id, answer) = self.change(permit, self.limits.change, note, send).await?;
        let actor = self.only(answer.messages, |m| m.metadata.as_ref(), true)?.actor_id;
        self.got_actor(permit, id, &actor)?;
        Ok(actor)
    }
}
