//! Another image for a node, and back to the one before.
//!
//! A node has two slots: the image goes to the one that is not in use, and a boot that fails falls back.

use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::base::fault::Effect;
use crate::base::permit::Permit;

use super::api::{Talos, images, lifecycle, machine};
use super::error::Error;
use super::machine::minor;
use super::proto::common::{ContainerDriver, ContainerdInstance, ContainerdNamespace};
use super::proto::machine as wire;

/// The first version that writes an image without anything else.
const SPLIT: (u32, u32) = (1, 13);

/// Whether a node of this version reboots by itself for another image.
pub fn reboots_for_an_image(version: &str) -> bool {
    minor(version).is_some_and(|minor| minor < SPLIT)
}

/// How far an upgrade is when its call returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upgrade {
    /// Up to 1.12: the node drains itself, writes and reboots; its events are known by this actor.
    Begun {
        /// The actor.
        actor: String,
    },
    /// From 1.13 on: the image is written. Neither was anything drained, nor etcd looked at, nor does the node reboot.
    Written,
}

/// An image, as far as a node has it before it is upgraded to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Up to 1.12: not at all, the one call does everything.
    Whole {
        /// The image's name.
        image: String,
    },
    /// From 1.13 on: it is on the node, and in none of its slots.
    Pulled {
        /// What it is called there.
        name: String,
    },
}

impl Talos {
    /// Upgrades to an installer image, by the way that the node's version has. What has to hold before (drained, etcd
    /// healthy with more than two members) is the caller's: only the way up to 1.12 looks at some of it.
    ///
    /// # Errors
    /// [`Error::InstallerFailed`], and what else keeps the node from it.
    pub async fn upgrade(&self, permit: &Permit, image: &str) -> Result<Upgrade, Error> {
        let fetched = self.fetch(permit, image).await?;
        self.put(permit, &fetched).await
    }

    /// What comes before the call that an upgrade is: no slot is written to by it.
    ///
    /// # Errors
    /// What keeps the node from it.
    pub async fn fetch(&self, permit: &Permit, image: &str) -> Result<Fetched, Error> {
        let version = self.version().await?;
        let whole = || Fetched::Whole { image: image.to_owned() };
        if reboots_for_an_image(&version.tag) {
            return Ok(whole());
        }
        match self.pull(permit, image).await {
            Ok(name) => Ok(Fetched::Pulled { name }),
            // A version without number that is older than it looks.
            Err(Error::NotImplemented { .. }) => Ok(whole()),
            Err(error) => Err(error),
        }
    }

    /// Upgrades to what was fetched.
    ///
    /// # Errors
    /// As [`Talos::upgrade`].
    pub async fn put(&self, permit: &Permit, fetched: &Fetched) -> Result<Upgrade, Error> {
        match fetched {
            Fetched::Whole { image } => self.upgrade_whole(permit, image).await,
            Fetched::Pulled { name } => self.write(permit, name).await.map(|()| Upgrade::Written),
        }
    }

    /// The way up to 1.12. The call returns when the image is pulled and found good.
    async fn upgrade_whole(&self, permit: &Permit, image: &str) -> Result<Upgrade, Error> {
        let note = self.note_once(&format!("Upgrade to {image}")).unseen();
        let request = wire::UpgradeRequest {
            image: image.to_owned(),
            preserve: false,
            stage: false,
            force: false,
            reboot_mode: wire::upgrade_request::RebootMode::Powercycle as i32,
        };
        let send = |channel| async move { Ok(machine(channel).upgrade(request).await?.into_inner()) };
        let (id, answer) = self.change(permit, self.limits.image, note, send).await?;
        let actor = self.only(answer.messages, |m| m.metadata.as_ref(), true)?.actor_id;
        self.got_actor(permit, id, &actor)?;
        Ok(Upgrade::Begun { actor })
    }

    /// Pulls an image to the node; what it is called there.
    async fn pull(&self, permit: &Permit, image: &str) -> Result<String, Error> {
        let note = self.note_safe(&format!("ImageService/Pull {image}"));
        let request = wire::ImageServicePullRequest { containerd: Some(system()), image_ref: image.to_owned() };
        let send = |channel| async move {
            use wire::image_service_pull_response::Response;
            let mut stream = images(channel).pull(request).await?.into_inner();
            let (mut name, mut begun) = (None, false);
            while let Some(answer) = stream.message().await.map_err(|status| under_way(begun, status))? {
                begun = true;
                match answer.response {
                    Some(Response::Name(pulled)) => name = Some(pulled),
                    Some(Response::PullProgress(progress)) => permit.progress(&layer(&progress)),
                    None => {}
                }
            }
            Ok(name)
        };
        let (_, name) = self.change(permit, self.limits.image, note, send).await?;
        name.filter(|name| !name.is_empty()).ok_or_else(|| Error::BadAnswer {
            at: self.at(),
            why: "the pull ended without the image's name".into(),
            effect: Effect::Maybe,
        })
    }

    /// Writes a pulled image to the slot that is not in use.
    async fn write(&self, permit: &Permit, image: &str) -> Result<(), Error> {
        let note = self.note_once(&format!("LifecycleService/Upgrade to {image}")).unseen();
        let request = wire::LifecycleServiceUpgradeRequest {
            containerd: Some(system()),
            source: Some(wire::InstallArtifactsSource { image_name: image.to_owned() }),
        };
        let send = |channel| async move {
            use wire::lifecycle_service_install_progress::Response;
            let mut stream = lifecycle(channel).upgrade(request).await?.into_inner();
            let (mut code, mut said, mut begun) = (None, None, false);
            while let Some(answer) = stream.message().await.map_err(|status| under_way(begun, status))? {
                begun = true;
                match answer.progress.and_then(|progress| progress.response) {
                    Some(Response::ExitCode(exit)) => code = Some(exit),
                    Some(Response::Message(line)) => {
                        permit.progress(&line);
                        said = Some(line);
                    }
                    None => {}
                }
            }
            Ok((code, said))
        };
        match self.change(permit, self.limits.image, note, send).await?.1 {
            (Some(0), _) => Ok(()),
            (Some(code), said) => Err(Error::InstallerFailed { at: self.at(), code, said }),
            (None, _) => Err(Error::BadAnswer {
                at: self.at(),
                why: "the installer's output ended without its exit code".into(),
                effect: Effect::Maybe,
            }),
        }
    }

    /// Swaps the two slots and reboots: what an upgrade was before. Twice is back again.
    ///
    /// # Errors
    /// What keeps the node from it.
    pub async fn roll_back(&self, permit: &Permit) -> Result<(), Error> {
        let note = self.note_once("Rollback");
        let send = |channel| async { Ok(machine(channel).rollback(wire::RollbackRequest {}).await?.into_inner()) };
        let (_, answer) = self.change(permit, self.limits.change, note, send).await?;
        self.only(answer.messages, |m| m.metadata.as_ref(), true).map(drop)
    }
}

/// The end of work that has shown progress: however the node calls it, it is no refusal before anything was done.
fn under_way(begun: bool, status: Status) -> Status {
    // One with a source is not the node's word; it is a lost answer in any case.
    if !begun || std::error::Error::source(&status).is_some() {
        return status;
    }
    Status::unknown(format!("{:?} in the middle of it: {}", status.code(), status.message()))
}

/// Where installer images are kept.
fn system() -> ContainerdInstance {
    ContainerdInstance { driver: ContainerDriver::Containerd as i32, namespace: ContainerdNamespace::NsSystem as i32 }
}

fn layer(progress: &wire::ImageServicePullProgress) -> String {
    let Some(layer) = &progress.progress else { return progress.layer_id.clone() };
    let status = layer.status().as_str_name();
    format!("{} {status} {} of {}", progress.layer_id, layer.offset, layer.total)
}
