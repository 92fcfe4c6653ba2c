//! The ids of the steps, for what names a step without being it.

use crate::engine::step::Step;
use crate::estate::Estate;

pub(super) const PREFLIGHT: &str = <super::Preflight as Step<Estate>>::ID;
pub(super) const DISKS: &str = <super::CheckDisks as Step<Estate>>::ID;
pub(super) const APPLY: &str = <super::ApplyConfig as Step<Estate>>::ID;
pub(super) const INSTALLED: &str = <super::WaitInstalled as Step<Estate>>::ID;
pub(super) const BOOTSTRAP: &str = <super::Bootstrap as Step<Estate>>::ID;
pub(super) const JOIN: &str = <super::JoinCluster as Step<Estate>>::ID;
pub(super) const KUBECONFIG: &str = <super::MergeKubeconfig as Step<Estate>>::ID;
pub(super) const VERIFY: &str = <super::VerifyCluster as Step<Estate>>::ID;
pub(super) const KEEP: &str = <super::Safekeeping as Step<Estate>>::ID;
