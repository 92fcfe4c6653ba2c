//! The ids of the steps, for what names a step without being it.

use crate::engine::step::Step;
use crate::estate::Estate;

pub(super) const PREFLIGHT: &str = <super::Preflight as Step<Estate>>::ID;
pub(super) const SAVE: &str = <super::SaveCopy as Step<Estate>>::ID;
pub(super) const WIPE: &str = <super::WipeEtcd as Step<Estate>>::ID;
pub(super) const RECOVER: &str = <super::Recover as Step<Estate>>::ID;
pub(super) const JOIN: &str = <super::Rejoin as Step<Estate>>::ID;
pub(super) const VERIFY: &str = <super::VerifyRecovery as Step<Estate>>::ID;
