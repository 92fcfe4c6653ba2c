//! Git checkouts: the only module that may spawn `git`.
