//! Flux: source-controller, kustomize-controller and what stands beside them.

use super::control::Round;

/// Lets Flux's controllers work.
pub(crate) fn reconcile(_round: &mut Round<'_>) {}
