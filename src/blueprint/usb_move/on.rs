//! The ids of the steps, for what names a step without being it.

use crate::engine::step::Step;
use crate::estate::Estate;

pub(super) const PREFLIGHT: &str = <super::Preflight as Step<Estate>>::ID;
pub(super) const RETAIN: &str = <super::RetainVolumes as Step<Estate>>::ID;
pub(super) const SUSPEND: &str = <super::SuspendGitops as Step<Estate>>::ID;
pub(super) const SCALE: &str = <super::ScaleDown as Step<Estate>>::ID;
pub(super) const REMOVE: &str = <super::RemoveUsb as Step<Estate>>::ID;
pub(super) const UNLABEL: &str = <super::RemoveLabel as Step<Estate>>::ID;
pub(super) const HOST: &str = <super::CheckHostHardware as Step<Estate>>::ID;
pub(super) const ADD: &str = <super::AddUsb as Step<Estate>>::ID;
pub(super) const DRAIN: &str = <super::DrainNode as Step<Estate>>::ID;
pub(super) const REBOOT: &str = <super::RebootVm as Step<Estate>>::ID;
pub(super) const WAIT: &str = <super::WaitForVm as Step<Estate>>::ID;
pub(super) const UNCORDON: &str = <super::UncordonNode as Step<Estate>>::ID;
pub(super) const GUEST: &str = <super::CheckVmHardware as Step<Estate>>::ID;
pub(super) const DRIVERS: &str = <super::InstallDrivers as Step<Estate>>::ID;
pub(super) const LABEL: &str = <super::LabelNode as Step<Estate>>::ID;
pub(super) const MANIFESTS: &str = <super::UpdateManifests as Step<Estate>>::ID;
pub(super) const CLAIMS: &str = <super::RecreatePvcs as Step<Estate>>::ID;
pub(super) const DEPLOY: &str = <super::DeployAndVerify as Step<Estate>>::ID;
