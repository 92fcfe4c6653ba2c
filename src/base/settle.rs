//! A call whose answer a crash has lost, and what became of it.

use std::future::Future;

use super::fault::Failure;
use super::permit::{Handle, Note};

/// A call that has to be settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// The call as noted.
    pub note: Note,
    /// Its handle, where one was written down.
    pub handle: Option<Handle>,
    /// When it was noted.
    pub at: jiff::Timestamp,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is over (whatever its result: the check looks at the world).
    Over(String),
    /// There is no trace of it: it was never sent, or left nothing.
    NoTrace,
    /// It cannot be told; the check is repeated until Done or the step's limit.
    Unknown(String),
}

/// What the engine needs of the context that it hands to steps.
pub trait Settle: Send + Sync {
    /// Waits for the end of a call that a crash left in the air.
    fn settle(&self, lost: &Lost) -> impl Future<Output = Result<Settled, Failure>> + Send;
}
