//! Wiping a node.

use crate::base::permit::{Permit, Thing};

use super::api::{Talos, machine};
use super::error::Error;
use super::kind::{DISKS, Disk, SYSTEM_DISK};
use super::proto::machine::{ResetPartitionSpec, ResetRequest, reset_request::WipeMode};
use super::resource::Resource;

/// What a reset wipes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wipe {
    /// Volumes of the system disk by their names, `EPHEMERAL`: never empty, which would mean the whole disk.
    Volumes(Vec<String>),
    /// The whole system disk.
    SystemDisk,
    /// Other disks by their paths, `/dev/sdb`.
    UserDisks(Vec<String>),
    /// The system disk, and other disks by their paths.
    All(Vec<String>),
}

/// A reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Cordon and drain first, and leave etcd on a control plane.
    pub graceful: bool,
    /// Come up again; else it powers off.
    pub reboot: bool,
    /// What goes.
    pub wipe: Wipe,
}

impl Talos {
    /// Resets the node. What would be lost is looked up first, and each of it needs a consent by name: the disks by their
    /// serial numbers, and the member of etcd that leaves. Returns as [`Talos::reboot`].
    ///
    /// # Errors
    /// [`Error::NotFound`] where a disk that is meant is not there or has no serial number to name it by, and what keeps
    /// the node from it.
    pub async fn reset(&self, permit: &Permit, reset: &Reset) -> Result<String, Error> {
        let disks = self.list(&DISKS).await?;
        let (volumes, system, paths, mode) = match &reset.wipe {
            Wipe::Volumes(names) if names.is_empty() => {
                let why = "no volume is named; that would wipe the whole disk".into();
                return Err(Error::Setup { at: self.at(), why });
            }
            Wipe::Volumes(names) => (names.as_slice(), true, [].as_slice(), WipeMode::SystemDisk),
            Wipe::SystemDisk => ([].as_slice(), true, [].as_slice(), WipeMode::SystemDisk),
            Wipe::UserDisks(paths) => ([].as_slice(), false, paths.as_slice(), WipeMode::UserDisks),
            Wipe::All(paths) => ([].as_slice(), true, paths.as_slice(), WipeMode::All),
        };
        let mut things = Vec::new();
        if system {
            let missing =
                || Error::NotFound { at: self.at(), why: "it has no system disk: nothing is installed".into() };
            let disk = self.single(&SYSTEM_DISK).await?.ok_or_else(missing)?;
            things.push(self.disk(&disks, &disk.spec.dev_path)?);
        }
        for path in paths {
            things.push(self.disk(&disks, path)?);
        }
        if reset.graceful
            && let Some(member) = self.member_that_leaves().await?
        {
            things.push(Thing::member(&member));
        }
        for thing in &things {
            permit.may_destroy(thing)?;
        }

        let named: Vec<String> = things.iter().map(ToString::to_string).collect();
        let note = self.note_once(&format!("Reset, {} of {}", mode.as_str_name(), named.join(", ")));
        let request = ResetRequest {
            graceful: reset.graceful,
            reboot: reset.reboot,
            system_partitions_to_wipe: volumes
                .iter()
                .map(|label| ResetPartitionSpec { label: label.clone(), wipe: true })
                .collect(),
            user_disks_to_wipe: paths.to_vec(),
            mode: mode as i32,
        };
        let send = |channel| async move { Ok(machine(channel).reset(request).await?.into_inner()) };
        let (id, answer) = self.change(permit, self.limits.change, note, send).await?;
        let actor = self.only(answer.messages, |m| m.metadata.as_ref(), true)?.actor_id;
        self.got_actor(permit, id, &actor)?;
        Ok(actor)
    }

    /// A disk by its path, as a person has to name it.
    fn disk(&self, disks: &[Resource<Disk>], path: &str) -> Result<Thing, Error> {
        let not_found = |why: String| Error::NotFound { at: self.at(), why };
        let disk = disks.iter().find(|disk| disk.spec.dev_path == path);
        let disk = disk.ok_or_else(|| not_found(format!("there is no disk {path}")))?;
        let serial = &disk.spec.serial;
        if serial.is_empty() {
            return Err(not_found(format!("{path} has no serial number: it cannot be named in a consent")));
        }
        match disks.iter().filter(|other| other.spec.serial == *serial).count() {
            1 => Ok(Thing::disk(serial)),
            count => Err(not_found(format!("{count} disks have the serial number {serial} of {path}"))),
        }
    }

    /// The name of the node's member in etcd; None on a worker.
    async fn member_that_leaves(&self) -> Result<Option<String>, Error> {
        match self.own_member().await {
            Ok(name) => Ok(Some(name)),
            Err(Error::NotImplemented { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
