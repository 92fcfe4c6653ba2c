//! The ids of the steps, for what names a step without being it.

use crate::engine::step::Step;
use crate::estate::Estate;

pub(super) const PREFLIGHT: &str = <super::Preflight as Step<Estate>>::ID;
pub(super) const SNAPSHOT: &str = <super::TakeSnapshot as Step<Estate>>::ID;
pub(super) const DRAIN: &str = <super::DrainNode as Step<Estate>>::ID;
pub(super) const LEAVE: &str = <super::LeaveEtcd as Step<Estate>>::ID;
pub(super) const SHUTDOWN: &str = <super::ShutDown as Step<Estate>>::ID;
pub(super) const SWAP: &str = <super::SwapMachine as Step<Estate>>::ID;
pub(super) const APPLY: &str = <super::ApplyConfig as Step<Estate>>::ID;
pub(super) const JOIN: &str = <super::JoinCluster as Step<Estate>>::ID;
pub(super) const NODE: &str = <super::SettleNode as Step<Estate>>::ID;
pub(super) const UNCORDON: &str = <super::UncordonNode as Step<Estate>>::ID;
pub(super) const VERIFY: &str = <super::VerifyCluster as Step<Estate>>::ID;
