//! machined: the calls of `machine.MachineService`.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::node::{Node, Run};
use crate::base::clock::Clock;
use crate::lab::{Shared, World};
use crate::talos::proto::common::Data;
use crate::talos::proto::machine::machine_service_server::MachineService;
use crate::talos::proto::machine::*;

/// A stream of answers.
pub(super) type Streamed<T> = BoxStream<'static, Result<T, Status>>;
/// What a call answers.
pub(super) type Said<T> = Result<Response<T>, Status>;

/// The services of one node.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) node: String,
    /// What it gives out as a kubeconfig.
    pub(super) kubeconfig: Arc<str>,
}

/// What is said in the name of a node that has gone down.
pub(super) fn gone() -> Status {
    Status::unavailable("error reading from server: EOF")
}

/// A stream of bytes in pieces.
pub(super) fn pieces(bytes: &[u8], size: usize) -> Streamed<Data> {
    let all: Vec<_> = bytes.chunks(size).map(|piece| Ok(Data { metadata: None, bytes: piece.to_vec() })).collect();
    stream::iter(all).boxed()
}

impl Server {
    /// Looks at the node and its present boot.
    ///
    /// # Errors
    /// UNAVAILABLE where it has just gone down.
    pub(super) fn look<T>(&self, look: impl FnOnce(&World, &Node, &Run) -> T) -> Result<T, Status> {
        let found = self.shared.read(|w| {
            let node = w.talos.nodes.get(&self.node)?;
            Some(look(w, node, node.answering(w.now)?))
        });
        found.ok_or_else(gone)
    }

    /// For how long a boot has been up by the clock of this machine, however fast the lab's time goes: who asks what time
    /// it is on the node compares that with his own clock.
    pub(super) fn up(&self, w: &World, run: &Run) -> Duration {
        w.now.saturating_sub(run.since) / self.shared.clock.speed()
    }

    /// Refuses what workers do not have.
    pub(super) fn control_plane(&self, what: &str) -> Result<(), Status> {
        if self.look(|_, _, run| run.wants.control_plane)? {
            return Ok(());
        }
        Err(Status::unimplemented(format!("{what} is only available on control plane nodes")))
    }

    fn services(&self) -> Result<Vec<ServiceInfo>, Status> {
        self.look(|w, _, run| {
            let ts = super::stamp(&self.shared, run.services_at.min(w.now));
            let one = |service: super::services::Service| ServiceInfo {
                id: service.id,
                state: service.state.to_owned(),
                events: Some(ServiceEvents {
                    events: vec![ServiceEvent {
                        msg: service.message.clone(),
                        state: service.state.to_owned(),
                        ts: Some(ts),
                    }],
                }),
                health: Some(super::stream::health(service.healthy, &service.message, Some(ts))),
            };
            w.talos_services(&self.node).into_iter().map(one).collect()
        })
    }

    fn memory_of(node: &Node) -> MemInfo {
        let pages = node.pages().unwrap_or(0);
        let free = node.memory / 10 * 6;
        MemInfo {
            memtotal: node.memory,
            memfree: free,
            memavailable: free.saturating_sub(pages * 2_048),
            hugepagestotal: pages,
            hugepagesfree: pages,
            hugepagesize: 2_048,
        }
    }
}

#[tonic::async_trait]
impl MachineService for Server {
    type DiskUsageStream = Streamed<DiskUsageInfo>;
    type DmesgStream = Streamed<Data>;
    type EtcdSnapshotStream = Streamed<Data>;
    type EventsStream = Streamed<Event>;
    type KubeconfigStream = Streamed<Data>;
    type ListStream = Streamed<FileInfo>;
    type ReadStream = Streamed<Data>;

    async fn version(&self, _: Request<()>) -> Said<VersionResponse> {
        let version = self.look(|_, node, _| Version {
            metadata: None,
            version: Some(VersionInfo {
                tag: format!("v{}", node.image().version),
                sha: "a1b2c3d4".into(),
                built: "2025-11-06T12:34:56Z".into(),
                go_version: "go1.24.9".into(),
                os: "linux".into(),
                arch: "amd64".into(),
            }),
            platform: Some(PlatformInfo {
                name: node.platform.clone(),
                mode: if node.platform == "metal" { "metal" } else { "cloud" }.into(),
            }),
        })?;
        Ok(Response::new(VersionResponse { messages: vec![version] }))
    }

    async fn service_list(&self, _: Request<()>) -> Said<ServiceListResponse> {
        let services = self.services()?;
        Ok(Response::new(ServiceListResponse { messages: vec![ServiceList { metadata: None, services }] }))
    }

    async fn memory(&self, _: Request<()>) -> Said<MemoryResponse> {
        let meminfo = self.look(|_, node, _| Self::memory_of(node))?;
        Ok(Response::new(MemoryResponse { messages: vec![Memory { metadata: None, meminfo: Some(meminfo) }] }))
    }

    async fn system_stat(&self, _: Request<()>) -> Said<SystemStatResponse> {
        let up = self.look(|w, _, run| self.up(w, run).as_secs())?;
        let boot_time = Clock::real().now().as_second().unsigned_abs().saturating_sub(up);
        Ok(Response::new(SystemStatResponse { messages: vec![SystemStat { metadata: None, boot_time }] }))
    }

    async fn disk_usage(&self, request: Request<DiskUsageRequest>) -> Said<Self::DiskUsageStream> {
        self.usage(request.get_ref()).map(Response::new)
    }

    async fn list(&self, request: Request<ListRequest>) -> Said<Self::ListStream> {
        self.listed(request.get_ref()).map(Response::new)
    }

    async fn dmesg(&self, request: Request<DmesgRequest>) -> Said<Self::DmesgStream> {
        self.kernel_log(request.get_ref()).map(Response::new)
    }

    async fn read(&self, request: Request<ReadRequest>) -> Said<Self::ReadStream> {
        self.file(&request.get_ref().path).map(Response::new)
    }

    async fn events(&self, request: Request<EventsRequest>) -> Said<Self::EventsStream> {
        self.told(request.into_inner()).map(Response::new)
    }

    async fn reboot(&self, request: Request<RebootRequest>) -> Said<RebootResponse> {
        use reboot_request::Mode;
        let minor = self.look(|_, node, _| node.image().minor().1)?;
        let kexec = match Mode::try_from(request.get_ref().mode) {
            Ok(Mode::Default) => true,
            Ok(Mode::Powercycle) => false,
            Ok(Mode::Force) if minor >= 12 => true,
            // An older node knows no such number and takes it for none of those that it asks about.
            _ => true,
        };
        let actor_id = self.shared.change(|w| w.talos_reboot(&self.node, kexec));
        Ok(Response::new(RebootResponse { messages: vec![Reboot { metadata: None, actor_id }] }))
    }

    async fn shutdown(&self, request: Request<ShutdownRequest>) -> Said<ShutdownResponse> {
        self.look(|_, _, _| ())?;
        let force = request.get_ref().force;
        let actor_id = self.shared.change(|w| w.talos_shutdown(&self.node, force));
        Ok(Response::new(ShutdownResponse { messages: vec![Shutdown { metadata: None, actor_id }] }))
    }

    async fn apply_configuration(
        &self,
        request: Request<ApplyConfigurationRequest>,
    ) -> Said<ApplyConfigurationResponse> {
        let message = self.apply(&request.into_inner())?;
        Ok(Response::new(ApplyConfigurationResponse { messages: vec![message] }))
    }

    async fn upgrade(&self, request: Request<UpgradeRequest>) -> Said<UpgradeResponse> {
        let message = self.legacy_upgrade(request.into_inner()).await?;
        Ok(Response::new(UpgradeResponse { messages: vec![message] }))
    }

    async fn rollback(&self, _: Request<RollbackRequest>) -> Said<RollbackResponse> {
        self.roll_back()?;
        Ok(Response::new(RollbackResponse { messages: vec![Rollback { metadata: None }] }))
    }

    async fn etcd_member_list(&self, request: Request<EtcdMemberListRequest>) -> Said<EtcdMemberListResponse> {
        let members = self.members(request.get_ref().query_local).await?;
        Ok(Response::new(EtcdMemberListResponse { messages: vec![EtcdMembers { metadata: None, members }] }))
    }

    async fn etcd_status(&self, _: Request<()>) -> Said<EtcdStatusResponse> {
        let member_status = Some(self.member_status().await?);
        Ok(Response::new(EtcdStatusResponse { messages: vec![EtcdStatus { metadata: None, member_status }] }))
    }

    async fn etcd_alarm_list(&self, _: Request<()>) -> Said<EtcdAlarmListResponse> {
        let member_alarms = self.alarms().await?;
        Ok(Response::new(EtcdAlarmListResponse { messages: vec![EtcdAlarm { metadata: None, member_alarms }] }))
    }

    async fn etcd_remove_member_by_id(
        &self,
        request: Request<EtcdRemoveMemberByIdRequest>,
    ) -> Said<EtcdRemoveMemberByIdResponse> {
        self.remove_member(request.get_ref().member_id).await?;
        Ok(Response::new(EtcdRemoveMemberByIdResponse { messages: vec![EtcdRemoveMemberById { metadata: None }] }))
    }

    async fn etcd_leave_cluster(&self, _: Request<EtcdLeaveClusterRequest>) -> Said<EtcdLeaveClusterResponse> {
        self.leave().await?;
        Ok(Response::new(EtcdLeaveClusterResponse { messages: vec![EtcdLeaveCluster { metadata: None }] }))
    }

    async fn etcd_forfeit_leadership(
        &self,
        _: Request<EtcdForfeitLeadershipRequest>,
    ) -> Said<EtcdForfeitLeadershipResponse> {
        let member = self.forfeit().await?;
        let messages = vec![EtcdForfeitLeadership { metadata: None, member }];
        Ok(Response::new(EtcdForfeitLeadershipResponse { messages }))
    }

    async fn etcd_snapshot(&self, _: Request<EtcdSnapshotRequest>) -> Said<Self::EtcdSnapshotStream> {
        Ok(Response::new(pieces(&self.snapshot().await?, 32 * 1_024)))
    }

    async fn etcd_recover(&self, request: Request<Streaming<Data>>) -> Said<EtcdRecoverResponse> {
        self.take_snapshot(request.into_inner()).await?;
        Ok(Response::new(EtcdRecoverResponse { messages: vec![EtcdRecover { metadata: None }] }))
    }

    async fn bootstrap(&self, request: Request<BootstrapRequest>) -> Said<BootstrapResponse> {
        self.start_etcd(*request.get_ref())?;
        Ok(Response::new(BootstrapResponse { messages: vec![Bootstrap { metadata: None }] }))
    }

    async fn kubeconfig(&self, _: Request<()>) -> Said<Self::KubeconfigStream> {
        self.control_plane("kubeconfig")?;
        let archive = super::stream::archive("kubeconfig", self.kubeconfig.as_bytes());
        Ok(Response::new(pieces(&archive.map_err(|e| Status::internal(e.to_string()))?, 32 * 1_024)))
    }

    async fn reset(&self, request: Request<ResetRequest>) -> Said<ResetResponse> {
        let actor_id = self.wipe(request.get_ref())?;
        Ok(Response::new(ResetResponse { messages: vec![Reset { metadata: None, actor_id }] }))
    }
}
