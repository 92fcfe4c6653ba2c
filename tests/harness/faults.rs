//! What goes wrong with a call, and many estates in which it does at once.

use std::future::Future;

use futures::StreamExt;
use pvemig::lab::FaultEffect;

/// So many estates at once: most of the time is waiting for an answer that does not come.
const AT_ONCE: usize = 4;

/// The rules of the proof: a clear no, an error, silence, an effect without an answer.
pub fn rules() -> [FaultEffect; 4] {
    [FaultEffect::Refuse, FaultEffect::Status(500, "injected".into()), FaultEffect::Hang, FaultEffect::ResetAfter]
}

/// What became of each case; some go on side by side.
pub async fn each<Case, Of: Future>(
    cases: impl IntoIterator<Item = Case>,
    of: impl FnMut(Case) -> Of,
) -> Vec<Of::Output> {
    futures::stream::iter(cases).map(of).buffer_unordered(AT_ONCE).collect().await
}
