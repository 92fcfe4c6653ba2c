//! Upgrades: the one call up to 1.12, and pull and write since 1.13. An image comes into the slot that is not booted.

use std::time::Duration;

use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};

use super::etcd::No;
use super::node::{Going, Image, Talos};
use super::server::{Said, Server, Streamed};
use crate::talos::proto::machine::image_service_server::ImageService;
use crate::talos::proto::machine::lifecycle_service_server::LifecycleService;
use crate::talos::proto::machine::*;

/// The schematic of the image factory without any extension.
const VANILLA: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

impl Talos {
    /// The image behind an installer's name.
    ///
    /// # Errors
    /// The registry's answer.
    pub fn image(&self, reference: &str) -> Result<Image, String> {
        let unknown =
            || format!("failed to pull image {reference:?}: failed to resolve reference: {reference}: not found");
        let (name, version) = reference.rsplit_once(":v").ok_or_else(unknown)?;
        let mut numbers = version.split(['.', '-']).take(3).map(|n| n.parse::<u32>().ok());
        let (Some(Some(1)), Some(Some(minor)), Some(Some(_))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return Err(unknown());
        };
        let image = |schematic: &str, extensions: Vec<String>| Image {
            version: version.to_owned(),
            schematic: schematic.to_owned(),
            extensions,
            broken: self.broken.contains(version),
            signed: name.split('/').any(|part| part.ends_with("-secureboot")),
        };
        let factory = if self.factory.is_empty() { "factory.talos.dev" } else { self.factory.as_str() };
        match name.split('/').collect::<Vec<_>>().as_slice() {
            // It was last published for 1.13.
            ["ghcr.io", "siderolabs", "installer"] if minor <= 13 => Ok(image("", Vec::new())),
            [host, installer, id]
                if *host == factory && installer.trim_end_matches("-secureboot").ends_with("installer") =>
            {
                let extensions = self.schematics.get(*id).cloned();
                let extensions = extensions.or_else(|| (*id == VANILLA).then(Vec::new)).ok_or_else(unknown)?;
                Ok(image(id, extensions))
            }
            _ => Err(unknown()),
        }
    }
}

impl Server {
    fn pulled(&self, reference: &str) -> Result<Image, String> {
        self.shared.read(|w| w.talos.image(reference))
    }

    async fn pause(&self, pick: impl FnOnce(&super::node::Timing) -> u64) {
        let ms = self.shared.read(|w| pick(&w.talos.timing));
        self.shared.clock.pause(Duration::from_millis(ms)).await;
    }

    /// What a control plane looks at before an upgrade.
    fn etcd_permits(&self) -> Result<(), String> {
        self.shared.read(|w| {
            let etcd = w.etcd_at(&self.node);
            if etcd.leader.is_none() {
                return Err(format!("failed to acquire upgrade mutex: {}", No::NoLeader.text()));
            }
            let failed = |text: String| Err(format!("error validating etcd for upgrade: {text}"));
            if etcd.members.len() == 2 {
                return failed("etcd member count(2) is insufficient to maintain quorum if upgrade commences".into());
            }
            let up = w.etcd_up();
            for member in &etcd.members {
                if member.name.is_empty() {
                    return failed(format!(
                        "etcd member {:016x} is not started, all members must be running to perform an upgrade",
                        member.id
                    ));
                }
                if !up.contains(&member.id) {
                    return failed(format!(
                        "etcd member {:016x} is not healthy; all members must be healthy to perform an upgrade: error \
                         building etcd client: context deadline exceeded",
                        member.id
                    ));
                }
            }
            Ok(())
        })
    }

    /// Pulls the image, looks at etcd, and begins the sequence `upgrade`.
    pub(super) async fn legacy_upgrade(&self, request: UpgradeRequest) -> Result<Upgrade, Status> {
        let control_plane = self.look(|_, _, run| run.wants.control_plane)?;
        if request.stage {
            return Err(Status::unimplemented("the lab does not implement staged upgrades"));
        }
        let image = self
            .pulled(&request.image)
            .map_err(|text| Status::unknown(format!("error validating installer image {:?}: {text}", request.image)))?;
        self.pause(|timing| timing.pull).await;
        if control_plane && !request.force {
            self.etcd_permits().map_err(Status::unknown)?;
        }
        let kexec = request.reboot_mode != i32::from(upgrade_request::RebootMode::Powercycle);
        self.look(|_, _, _| ())?;
        let actor_id = self.shared.change(|w| {
            let actor = w.talos_sequence(&self.node, "upgrade", Going::Upgrading, false, true);
            let run = w.talos.nodes.get_mut(&self.node).and_then(|node| node.run.as_mut());
            // Where another sequence holds the lock nothing is written.
            if let Some(run) = run.filter(|run| run.going == Some(Going::Upgrading) && run.writing.is_none()) {
                run.writing = Some((image, kexec));
            }
            actor
        });
        Ok(Upgrade { metadata: None, ack: "Upgrade request received".into(), actor_id })
    }

    /// The other slot is booted from now on, beginning with a reboot.
    pub(super) fn roll_back(&self) -> Result<(), Status> {
        self.look(|_, _, _| ())?;
        self.shared.change(|w| {
            if !w.talos_revert(&self.node) {
                return Err(Status::unknown("cannot rollback to \"\", label does not exist"));
            }
            w.talos_sequence(&self.node, "reboot", Going::Rebooting { kexec: true }, true, false);
            Ok(())
        })
    }

    /// A service that came with 1.13.
    fn since_13(&self, service: &str) -> Result<(), Status> {
        if self.look(|_, node, _| node.image().since(13))? {
            return Ok(());
        }
        Err(Status::unimplemented(format!("unknown service machine.{service}")))
    }
}

#[tonic::async_trait]
impl ImageService for Server {
    type PullStream = Streamed<ImageServicePullResponse>;

    async fn pull(&self, request: Request<ImageServicePullRequest>) -> Said<Self::PullStream> {
        use image_service_pull_layer_progress::Status as Layer;
        use image_service_pull_response::Response as Part;
        self.since_13("ImageService")?;
        let name = request.into_inner().image_ref;
        let image = self.pulled(&name);
        let told = |status: Layer| {
            let progress = ImageServicePullLayerProgress { status: status.into(), offset: 0, total: 0, elapsed: None };
            let progress = ImageServicePullProgress { layer_id: "sha256:5f2c".into(), progress: Some(progress) };
            Ok(ImageServicePullResponse { response: Some(Part::PullProgress(progress)) })
        };
        let server = self.clone();
        let last = async move {
            image.map_err(Status::not_found)?;
            server.pause(|timing| timing.pull).await;
            server.shared.change(|w| {
                let node = w.talos.nodes.get_mut(&server.node);
                node.map(|node| node.images.insert(name.clone()));
            });
            Ok(ImageServicePullResponse { response: Some(Part::Name(name)) })
        };
        let first = stream::iter([told(Layer::Downloading), told(Layer::DownloadComplete)]);
        Ok(Response::new(first.chain(stream::once(last)).boxed()))
    }
}

#[tonic::async_trait]
impl LifecycleService for Server {
    type UpgradeStream = Streamed<LifecycleServiceUpgradeResponse>;

    async fn upgrade(&self, request: Request<LifecycleServiceUpgradeRequest>) -> Said<Self::UpgradeStream> {
        use lifecycle_service_install_progress::Response as Part;
        self.since_13("LifecycleService")?;
        let name = request.into_inner().source.map(|source| source.image_name).unwrap_or_default();
        if name.is_empty() {
            return Err(Status::invalid_argument("source image is required"));
        }
        if !self.look(|_, node, _| node.images.contains(&name))? {
            return Err(Status::not_found(format!("image {name:?}: not found")));
        }
        if self.look(|_, _, run| run.going.is_some())? {
            return Err(Status::failed_precondition("another sequence is in progress"));
        }
        let image = self.pulled(&name).map_err(Status::not_found)?;
        let told = |part: Part| {
            let progress = Some(LifecycleServiceInstallProgress { response: Some(part) });
            Ok(LifecycleServiceUpgradeResponse { progress })
        };
        let server = self.clone();
        let last = async move {
            server.pause(|timing| timing.write).await;
            server.shared.change(|w| w.talos_write(&server.node, image));
            told(Part::ExitCode(0))
        };
        let first = told(Part::Message(format!("running Talos installer {name}")));
        Ok(Response::new(stream::iter([first]).chain(stream::once(last)).boxed()))
    }
}
