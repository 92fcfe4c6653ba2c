//! Runs steps and keeps the journal. It knows no provider and no estate: only steps, and a context to hand to them.
//!
//! * [`step`]: what a step is, typed where people write it, erased where it is stored;
//! * [`outlook`]: what a step says of itself before its turn;
//! * [`event`], [`journal`], [`store`]: the append-only record and where it lives;
//! * [`state`]: the fold over events, one transition function;
//! * [`run`]: forwards; [`undo`]: backwards; [`plan`]: looking only;
//! * [`lately`]: one look for every question that is put in its time;
//! * [`history`]: how long steps usually take;
//! * `stir`: being asked again before the next look is due;
//! * [`point`]: the named places at which a run may be cut.

mod ask;
mod damaged;
pub mod event;
pub mod fold;
pub mod history;
mod hold;
pub mod journal;
pub mod lately;
mod lock;
pub mod outlook;
pub mod plan;
pub mod point;
pub mod recorder;
pub mod run;
mod settle;
pub mod state;
pub mod step;
mod stir;
pub mod store;
pub mod undo;

#[cfg(test)]
mod tests;
