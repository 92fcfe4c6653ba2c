//! The ids of the steps, for what names a step without being it.

use crate::engine::step::Step;
use crate::estate::Estate;

pub(super) const PREFLIGHT: &str = <super::Preflight as Step<Estate>>::ID;
pub(super) const GATE: &str = <super::QuorumGate as Step<Estate>>::ID;
pub(super) const DRAIN: &str = <super::DrainNode as Step<Estate>>::ID;
pub(super) const REPAIR: &str = <super::RepairNode as Step<Estate>>::ID;
pub(super) const REBOOT: &str = <super::RebootNode as Step<Estate>>::ID;
pub(super) const VERIFY: &str = <super::VerifyBoot as Step<Estate>>::ID;
pub(super) const UNCORDON: &str = <super::UncordonNode as Step<Estate>>::ID;
