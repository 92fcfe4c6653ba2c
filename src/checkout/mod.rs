//! Git checkouts: the only module that may spawn `git`.
//!
//! The person's own checkout is only ever read, and without git's optional locks, so that not even its index file is
//! touched. Everything else happens in a bare clone of our own under the state directory: the branch is fetched into
//! it, commits are made there on top of the remote's tip without a work tree, and they are pushed from there. Where
//! pushing is not allowed the commit stays on a branch of that clone and [`Checkout::push_by_hand`] says the command
//! with which the person brings it to the remote through their own checkout.
//!
//! [`edit`] is the pure half: which values a file is to have, whether it has them, and a new text in which only those
//! lines differ.

mod commit;
pub mod edit;
mod error;
mod git;
pub mod live;
mod read;

pub use crate::base::yaml::path::Path;
pub use commit::{Made, Reverted};
pub use edit::{Difference, Edit, Found, Object, diff};
pub use error::CheckoutError;
pub use read::{Checkout, Status};

#[cfg(test)]
mod tests;
