//! `nvme-move`: drives of a Talos node go into other slots, by the hands of a person, and are known again by what they are.

mod anew;
mod behind;
pub mod diagnose;
mod fold_back;
mod known;
mod left_off;
mod measure;
pub mod params;
mod readiness;
mod remembered;
mod replicas;
mod rights;
mod s00_preflight;
mod s01_backup;
mod s01a_measure_before;
mod s02_drain;
mod s02a_leave_etcd;
mod s03_in_the_way;
mod s03_of_a_vm;
mod s03_replaced;
mod s03_shutdown;
mod s04_asked;
mod s04_in_its_host;
mod s04_move_drives;
mod s04a_follow_passthrough;
mod s05_verify_disks;
mod s06_apply_config;
mod s06a_install;
mod s06b_join;
mod s06c_remove_old_member;
mod s07_verify_volumes;
mod s08_uncordon;
mod s09_validate;
mod s10_measure;
mod sight;
mod stands;
mod volumes;
mod way_out;

use super::{Blueprint, BoxedStep, Given, Row};
use crate::site::Site;
use crate::site::fields::Item;

use params::Params;

pub use anew::Anew;
pub use s00_preflight::Preflight;
pub use s01_backup::Backup;
pub use s01a_measure_before::MeasureBefore;
pub use s02_drain::DrainNode;
pub use s02a_leave_etcd::LeaveEtcd;
pub use s03_shutdown::ShutDown;
pub use s04_move_drives::MoveDrives;
pub use s04a_follow_passthrough::FollowPassthrough;
pub use s05_verify_disks::VerifyDisks;
pub use s06_apply_config::ApplyConfig;
pub use s06a_install::InstallNode;
pub use s06b_join::JoinCluster;
pub use s06c_remove_old_member::RemoveOldMember;
pub use s07_verify_volumes::VerifyVolumes;
pub use s08_uncordon::UncordonNode;
pub use s09_validate::Validate;
pub use s10_measure::MeasureAfter;

/// The blueprint.
pub const BLUEPRINT: Blueprint = Blueprint {
    name: params::NAME,
    version: 1,
    summary: "move the NVMe drives of a Talos node into other slots, by hand, and know each of them again",
    world: "nvme-data",
    rows: ROWS,
    findings: known::ALL,
    params: params::PARAMS,
    build,
    alone,
    fold_back: fold_back::fold_back,
    rights: |site, item| Some(rights::of(&Params::read(site, item)?)),
    usually: |site, item| Some(params::usually(Params::read(site, item)?.plan.scenario)),
};

const NODE: super::Flag = ("node", "/machine/name", "the node, by its name in the site file");

const ROWS: &[Row] = &[
    Row::of::<Preflight>(&[], &[]),
    Row::of::<Backup>(&[], &[NODE]).stays(),
    Row::of::<MeasureBefore>(&[], &[NODE]),
    Row::of::<DrainNode>(&[], &[NODE]),
    Row::of::<LeaveEtcd>(&[], &[NODE]),
    Row::of::<ShutDown>(&[], &[NODE]).off(),
    Row::of::<MoveDrives>(&[], &[NODE]).asks(),
    Row::of::<FollowPassthrough>(&[], &[NODE]),
    Row::of::<VerifyDisks>(&[], &[NODE]),
    Row::of::<ApplyConfig>(&[], &[NODE]),
    Row::of::<InstallNode>(&[], &[NODE]),
    Row::of::<JoinCluster>(&[], &[NODE]),
    Row::of::<RemoveOldMember>(&[], &[NODE]),
    Row::of::<VerifyVolumes>(&[], &[NODE]),
    Row::of::<UncordonNode>(&[], &[NODE]),
    Row::of::<Validate>(&[], &[NODE]),
    Row::of::<MeasureAfter>(&[], &[NODE]),
];

fn build(site: &Site, item: &Item<'_>) -> Option<Vec<BoxedStep>> {
    let p = Params::read(site, item)?;
    let machine = || p.machine.clone();
    let (peers, plan, anew) = (|| p.peers.clone(), || p.plan.clone(), || p.anew.clone());
    let mut steps: Vec<BoxedStep> = vec![
        Box::new(Preflight::from(&p)),
        Box::new(Backup { machine: machine(), peers: peers(), plan: plan(), recipients: p.recipients.clone() }),
        Box::new(MeasureBefore { machine: machine(), measure: p.measure.clone() }),
        Box::new(DrainNode { machine: machine(), plan: Some(plan()) }),
    ];
    if let Some(anew) = anew() {
        steps.push(Box::new(LeaveEtcd { machine: machine(), peers: peers(), anew }));
    }
    let without_api = p.without_api;
    steps.extend([
        Box::new(ShutDown { machine: machine(), peers: peers(), plan: plan(), without_api, anew: anew() }) as BoxedStep,
        Box::new(MoveDrives {
            machine: machine(),
            peers: peers(),
            plan: plan(),
            medium: p.medium.clone(),
            anew: anew(),
            seen: std::sync::Arc::default(),
        }),
        Box::new(VerifyDisks { machine: machine(), plan: plan(), anew: anew() }),
    ]);
    steps.extend(ApplyConfig::of(&p).map(|step| Box::new(step) as BoxedStep));
    if let Some(anew) = p.anew.as_ref() {
        let (worker, own) = (anew.bare.source.is_of_a_worker(), || anew.clone());
        steps.extend([
            Box::new(InstallNode { anew: own(), peers: peers(), plan: plan() }) as BoxedStep,
            Box::new(JoinCluster { anew: own(), peers: peers() }),
            Box::new(RemoveOldMember { machine: machine(), peers: peers(), worker }),
        ]);
    }
    steps.push(Box::new(VerifyVolumes::from(&p)));
    steps.push(Box::new(UncordonNode { machine: machine() }));
    steps.push(Box::new(Validate::from(&p)));
    steps.push(Box::new(MeasureAfter { machine: machine(), measure: p.measure.clone() }));
    if p.machine.vm.is_some() {
        let at = steps.iter().position(|step| step.id() == on::VERIFY).unwrap_or(steps.len());
        steps.insert(at, Box::new(FollowPassthrough { machine: machine(), plan: plan() }));
    }
    Some(steps)
}

fn alone(_: &Site, _: &str, _: &Given) -> Result<BoxedStep, Vec<String>> {
    Err(vec!["it needs more than flags can say: a migration in the site file".into()])
}

/// The ids of the steps, for what names a step without being it.
mod on {
    use crate::engine::step::Step;
    use crate::estate::Estate;

    pub(super) const PREFLIGHT: &str = <super::Preflight as Step<Estate>>::ID;
    pub(super) const BACKUP: &str = <super::Backup as Step<Estate>>::ID;
    pub(super) const MEASURE: &str = <super::MeasureBefore as Step<Estate>>::ID;
    pub(super) const DRAIN: &str = <super::DrainNode as Step<Estate>>::ID;
    pub(super) const LEAVE: &str = <super::LeaveEtcd as Step<Estate>>::ID;
    pub(super) const SHUTDOWN: &str = <super::ShutDown as Step<Estate>>::ID;
    pub(super) const MOVE: &str = <super::MoveDrives as Step<Estate>>::ID;
    pub(super) const FOLLOW: &str = <super::FollowPassthrough as Step<Estate>>::ID;
    pub(super) const VERIFY: &str = <super::VerifyDisks as Step<Estate>>::ID;
    pub(super) const APPLY: &str = <super::ApplyConfig as Step<Estate>>::ID;
    pub(super) const INSTALL: &str = <super::InstallNode as Step<Estate>>::ID;
    pub(super) const JOIN: &str = <super::JoinCluster as Step<Estate>>::ID;
    pub(super) const REMOVE: &str = <super::RemoveOldMember as Step<Estate>>::ID;
    pub(super) const VOLUMES: &str = <super::VerifyVolumes as Step<Estate>>::ID;
    pub(super) const UNCORDON: &str = <super::UncordonNode as Step<Estate>>::ID;
    pub(super) const VALIDATE: &str = <super::Validate as Step<Estate>>::ID;
    pub(super) const MEASURE_AGAIN: &str = <super::MeasureAfter as Step<Estate>>::ID;
}
