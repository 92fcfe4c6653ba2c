//! Talos' own account of a node, and its seat in etcd.

use super::super::Estate;
use super::waiting::{self, Bare};
use super::{Why, config, layer, millis};
use crate::base::clock::Clock;
use crate::base::redact;
use crate::base::survey::{
    Certificate, Disk, EtcdAlarm, EtcdMember, EtcdSeat, Extension, Layer, Memory, Module, PciDevice, Seat, Service,
    Stage, SystemDisk, Talos, TalosCluster, TalosVersion, Unmet, Volume, Waiting,
};
use crate::site;
use crate::talos::kind::{self, DiscoveredVolume, LoadedModule, MachineStatus};
use crate::talos::{self, Error, Resource, Which};

/// The extension by which the image factory names its schematic.
const SCHEMATIC: &str = "schematic";

/// A Talos cluster.
pub(super) fn cluster(name: &str, of: &site::TalosCluster) -> TalosCluster {
    let read = talos::Talosconfig::read(&of.talosconfig).and_then(|config| config.context(of.context.as_deref()));
    let context = read.as_ref().map_or_else(|_| of.context.clone(), |context| Some(context.name.clone()));
    TalosCluster {
        name: name.to_owned(),
        kubernetes: of.kubernetes.clone(),
        talosconfig: of.talosconfig.display().to_string(),
        context,
        certificate: layer(read.map(|context| {
            let certificate = context.certificate;
            Certificate { roles: certificate.roles, until: certificate.until }
        })),
    }
}

/// What Talos tells of a node.
pub(super) struct Told {
    pub(super) talos: Layer<Talos>,
    pub(super) seat: Layer<EtcdSeat>,
    /// It was asked, and nothing answered at all.
    pub(super) silent: bool,
    /// It waits for its first configuration.
    pub(super) waiting: Option<Waiting>,
}

impl Told {
    /// Of a node that is none of Talos'.
    pub(super) fn nothing() -> Self {
        Self { talos: Layer::Absent, seat: Layer::Absent, silent: false, waiting: None }
    }

    /// What helps where its machine is off.
    pub(super) fn off(&mut self, next: &str) {
        let instead = |help: &mut Option<String>| *help = Some(next.to_owned());
        if let Layer::Unknown { help, .. } = &mut self.talos {
            instead(help);
        }
        if let Layer::Unknown { help, .. } = &mut self.seat {
            instead(help);
        }
    }

    fn unknown(why: &Why, silent: bool) -> Self {
        Self { talos: why.layer(), seat: why.layer(), silent, waiting: None }
    }

    /// Of a machine that has no configuration: nothing of a node is there.
    fn waits(waiting: Waiting) -> Self {
        Self { waiting: Some(waiting), ..Self::nothing() }
    }
}

/// A node's own account, and its seat in etcd. The version is asked for first: where there is no answer nothing else is.
pub(super) async fn node(estate: &Estate, name: &str) -> Told {
    let talos = match estate.talos(name).await {
        Ok(talos) => talos,
        Err(failure) => return Told::unknown(&Why::of(&failure), false),
    };
    let what = format!("Talos node {name}");
    let version = match estate.bounded(&what, talos.version()).await {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => {
            let silent = matches!(error, Error::Unreachable { .. } | Error::NoAnswer { .. });
            // Rights are of calls: who may not ask for the version may ask etcd (os:etcd:backup).
            if matches!(error, Error::Denied { .. }) {
                let seat =
                    estate.bounded(&what, Box::pin(seat(&talos, estate))).await.unwrap_or_else(|why| why.layer());
                return Told { talos: Why::from(error).layer(), seat, silent, waiting: None };
            }
            // Who has a certificate of nobody's may be a machine without a configuration.
            if matches!(error, Error::UnknownIssuer { .. }) {
                return match estate.bounded(&what, Box::pin(waiting::ask(estate, name))).await {
                    Ok(Bare::Waits(waiting)) => Told::waits(waiting),
                    Ok(Bare::Foreign) => Told::unknown(&waiting::foreign(error), silent),
                    Ok(Bare::Unknown) | Err(_) => Told::unknown(&error.into(), silent),
                };
            }
            return Told::unknown(&error.into(), silent);
        }
        Err(why) => return Told::unknown(&why, true),
    };
    let account = Box::pin(account(&talos, &version, estate.clock));
    let seat = Box::pin(seat(&talos, estate));
    let (account, seat) = futures::join!(estate.bounded(&what, account), estate.bounded(&what, seat));
    Told { talos: layer(account), seat: seat.unwrap_or_else(|why| why.layer()), silent: false, waiting: None }
}

async fn account(talos: &talos::Talos, version: &talos::Version, clock: Clock) -> Talos {
    let since_14 = version.minor().is_some_and(|minor| minor >= (1, 14));
    let modules = if since_14 { &kind::MODULE_STATUSES } else { &kind::LOADED_MODULES };
    let boot_id = async {
        if since_14 {
            let found = talos.single(&kind::BOOT_ID).await?;
            return Ok(found.map(|resource| resource.spec.boot_id));
        }
        talos.boot_id().await.map(Some)
    };
    let (hardware, software) = futures::join!(
        Box::pin(async {
            futures::join!(
                talos.list(&kind::DISKS),
                talos.single(&kind::SYSTEM_DISK),
                talos.list(&kind::DISCOVERED_VOLUMES),
                talos.list(&kind::PCI_DEVICES),
                talos.memory(),
                talos.single(&kind::SYSTEM_INFORMATION),
                boot_id,
                ahead(talos, clock),
            )
        }),
        Box::pin(async {
            futures::join!(
                talos.single(&kind::MACHINE_STATUS),
                talos.services(),
                talos.list(&kind::EXTENSIONS),
                talos.list(&kind::MODULE_SPECS),
                talos.list(modules),
                machine_config(talos),
                talos.list(&kind::DIAGNOSTICS),
                talos.single(&kind::TIME),
            )
        }),
    );
    let (disks, system_disk, volumes, pci, memory, system, boot_id, ahead_s) = hardware;
    let (status, services, extensions, specs, loaded, config, diagnostics, time) = software;
    let (stage, ready, unmet) = stage(status);
    let (extensions, schematic) = image(extensions);
    Talos {
        version: TalosVersion {
            tag: version.tag.clone(),
            platform: version.platform.clone(),
            arch: version.arch.clone(),
        },
        stage,
        ready,
        unmet,
        services: layer(services).map(|all| all.into_iter().map(service).collect()),
        extensions,
        schematic,
        modules_configured: each(specs, |resource| resource.spec.name),
        modules_loaded: each(loaded, module),
        disks: each_some(disks, |resource| resource.spec.is_hardware().then(|| disk(resource))),
        system_disk: one(system_disk, |spec| SystemDisk { id: spec.disk_id, dev_path: spec.dev_path }),
        volumes: each_some(volumes, volume),
        pci: each(pci, pci_device),
        memory: layer(memory).map(|m| Memory {
            total: m.total,
            available: m.available,
            huge_pages: m.huge_pages,
            huge_pages_free: m.huge_pages_free,
            huge_page_size: m.huge_page_size,
        }),
        config,
        diagnostics: each(diagnostics, |resource| {
            let spec = resource.spec;
            redact::text(&std::iter::once(spec.message).chain(spec.details).collect::<Vec<_>>().join("; "))
        }),
        time_synced: one(time, |spec| spec.synced),
        ahead_s: layer(ahead_s),
        boot_id: optional(boot_id),
        system_uuid: one(system, |spec| spec.uuid.to_lowercase()),
    }
}

/// What there may be none of.
fn optional<T>(answer: Result<Option<T>, Error>) -> Layer<T> {
    match answer {
        Ok(Some(value)) => Layer::Known(value),
        // Not a matter of this node: its version does not have it.
        Ok(None) | Err(Error::NoSuchKind { .. }) => Layer::Absent,
        Err(error) => layer(Err(error)),
    }
}

pub(super) fn one<T, U>(answer: Result<Option<Resource<T>>, Error>, f: impl FnOnce(T) -> U) -> Layer<U> {
    optional(answer.map(|found| found.map(|resource| f(resource.spec))))
}

pub(super) fn each_some<T, U>(
    answer: Result<Vec<Resource<T>>, Error>,
    f: impl FnMut(Resource<T>) -> Option<U>,
) -> Layer<Vec<U>> {
    optional(answer.map(|all| Some(all.into_iter().filter_map(f).collect())))
}

fn each<T, U>(answer: Result<Vec<Resource<T>>, Error>, mut f: impl FnMut(Resource<T>) -> U) -> Layer<Vec<U>> {
    each_some(answer, |resource| Some(f(resource)))
}

fn stage(status: Result<Option<Resource<MachineStatus>>, Error>) -> (Layer<Stage>, bool, Vec<Unmet>) {
    use kind::Stage as From;
    match status {
        Ok(Some(resource)) => {
            let stage = match resource.spec.stage {
                From::Booting => Stage::Booting,
                From::Installing => Stage::Installing,
                From::Maintenance => Stage::Maintenance,
                From::Running => Stage::Running,
                From::Rebooting => Stage::Rebooting,
                From::ShuttingDown => Stage::ShuttingDown,
                From::Resetting => Stage::Resetting,
                From::Upgrading => Stage::Upgrading,
                From::Unknown => Stage::Unknown,
            };
            let status = resource.spec.status;
            let unmet = status.unmet_conditions.into_iter();
            (
                Layer::Known(stage),
                status.ready,
                unmet.map(|u| Unmet { name: u.name, reason: redact::text(&u.reason) }).collect(),
            )
        }
        Ok(None) => (Layer::unknown("it has not told how far it is: it has only just begun"), false, Vec::new()),
        Err(error) => (layer(Err(error)), false, Vec::new()),
    }
}

/// Extensions, and the schematic that stands among them.
fn image(answer: Result<Vec<Resource<kind::Extension>>, Error>) -> (Layer<Vec<Extension>>, Layer<String>) {
    let all = match answer {
        Ok(all) => all,
        Err(error) => {
            let why = Why::from(error);
            return (why.layer(), why.layer());
        }
    };
    let (schematic, extensions): (Vec<_>, Vec<_>) =
        all.into_iter().map(|resource| resource.spec.metadata).partition(|extension| extension.name == SCHEMATIC);
    let extension = |e: kind::ExtensionMetadata| Extension { name: e.name, version: e.version };
    let schematic = schematic.into_iter().next().map_or(Layer::Absent, |e| Layer::Known(e.version));
    (Layer::Known(extensions.into_iter().map(extension).collect()), schematic)
}

fn service(service: talos::Service) -> Service {
    let talos::Service { id, state, healthy, message } = service;
    Service { id, state, healthy, message: redact::text(&message) }
}

fn module(resource: Resource<LoadedModule>) -> Module {
    Module { live: resource.spec.is_live(), name: resource.id }
}

/// A disk as a survey has it.
pub fn disk(resource: Resource<kind::Disk>) -> Disk {
    let spec = resource.spec;
    Disk {
        id: resource.id,
        dev_path: spec.dev_path,
        size: spec.size,
        model: spec.model,
        serial: spec.serial,
        wwid: spec.wwid,
        uuid: spec.uuid,
        bus_path: spec.bus_path,
        transport: spec.transport,
        rotational: spec.rotational,
        symlinks: spec.symlinks,
    }
}

/// What is on loop devices is the image itself.
pub(super) fn volume(resource: Resource<DiscoveredVolume>) -> Option<Volume> {
    let spec = resource.spec;
    let volume = Volume {
        id: resource.id,
        dev_path: spec.dev_path,
        parent: spec.parent,
        size: spec.size,
        content: spec.name,
        label: spec.label,
        uuid: spec.uuid,
        partition_label: spec.partition_label,
        partition_uuid: spec.partition_uuid,
        partition_index: spec.partition_index,
    };
    (!volume.disk().starts_with("loop")).then_some(volume)
}

fn pci_device(resource: Resource<kind::PciDevice>) -> PciDevice {
    let spec = resource.spec;
    PciDevice {
        address: resource.id,
        class: spec.class,
        vendor: spec.vendor,
        product: spec.product,
        class_id: spec.class_id,
        subclass_id: spec.subclass_id,
        vendor_id: spec.vendor_id,
        product_id: spec.product_id,
        driver: spec.driver,
    }
}

async fn machine_config(talos: &talos::Talos) -> Layer<crate::base::survey::MachineConfig> {
    match talos.machine_config(Which::Active).await {
        Ok(Some(text)) => match config::read(text.expose()) {
            Ok(config) => Layer::Known(config),
            Err(why) => Layer::unknown(format!("the machine configuration of {}: {why}", talos.node().name)),
        },
        Ok(None) => Layer::Absent,
        Err(error) => layer(Err(error)),
    }
}

/// By how much its clock is ahead of ours: the kernel tells when it was started, and for how long it has been up.
async fn ahead(talos: &talos::Talos, clock: Clock) -> Result<i64, Why> {
    let uptime = async {
        let (before, begun) = (clock.now().as_second(), clock.instant());
        let up = talos.file("/proc/uptime").await;
        let took = clock.instant().duration_since(begun).as_secs();
        (up, (before, before.saturating_add_unsigned(took).saturating_add(1)))
    };
    let (started, (up, asked)) = futures::join!(talos.boot_time(), uptime);
    let up = String::from_utf8_lossy(&up?).split('.').next().and_then(|seconds| seconds.trim().parse::<i64>().ok());
    let started = i64::try_from(started?).ok();
    let theirs = started.zip(up).map(|(started, up)| started.saturating_add(up));
    let bad =
        || Why { reason: format!("the clock of {}: /proc/uptime is not understood", talos.node().name), help: None };
    Ok(beyond(theirs.ok_or_else(bad)?, asked))
}

/// How far a reading is outside the time in which it was made: a slow answer makes no clock late.
fn beyond(reading: i64, (before, after): (i64, i64)) -> i64 {
    if reading < before { reading.saturating_sub(before) } else { reading.saturating_sub(after).max(0) }
}

/// The node's seat; absent where it is no control plane.
async fn seat(talos: &talos::Talos, estate: &Estate) -> Layer<EtcdSeat> {
    let begun = estate.clock.instant();
    let status = match talos.etcd_status().await {
        Ok(status) => status,
        Err(Error::NotControlPlane { .. }) => return Layer::Absent,
        Err(error) => return layer(Err(error)),
    };
    let answered_ms = millis(estate.clock.instant().duration_since(begun));
    let (members, alarms) = futures::join!(talos.etcd_members(true), talos.etcd_alarms());
    let hex = |id: u64| format!("{id:016x}");
    let member = |m: talos::EtcdMember| EtcdMember { id: m.hex(), name: m.hostname, learner: m.is_learner };
    let alarm = |a: talos::EtcdAlarm| EtcdAlarm { member: hex(a.member), alarm: a.alarm };
    Layer::Known(EtcdSeat {
        id: hex(status.member),
        seat: match (status.is_learner, status.leads()) {
            (true, _) => Seat::Learner,
            (false, true) => Seat::Leader,
            (false, false) => Seat::Voter,
        },
        leader: Some(status.leader).filter(|id| *id != 0).map(hex),
        raft_term: status.raft_term,
        raft_index: status.raft_index,
        raft_applied: status.raft_applied,
        db_size: status.size,
        db_in_use: status.size_in_use,
        version: status.version,
        errors: status.errors.iter().map(|error| redact::text(error)).collect(),
        answered_ms,
        members: layer(members).map(|all| all.into_iter().map(member).collect()),
        alarms: layer(alarms).map(|all| all.into_iter().map(alarm).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_only_outside_the_time_that_its_answer_took() {
        let cases = [
            // It is told at once, and after ten seconds of three tries.
            (1_000, (1_000, 1_001), 0),
            (1_000, (1_000, 1_010), 0),
            (1_007, (1_000, 1_010), 0),
            (1_010, (1_000, 1_010), 0),
            (910, (1_000, 1_010), -90),
            (1_100, (1_000, 1_010), 90),
            (i64::MIN, (1_000, 1_010), i64::MIN),
            (i64::MAX, (-1_000, -990), i64::MAX),
        ];
        assert_eq!(cases.len(), 8);
        for (reading, asked, wanted) in cases {
            assert_eq!(beyond(reading, asked), wanted, "{reading} {asked:?}");
        }
    }
}
