//! Wire contracts of the Talos provider.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its stubs too")]

mod protos;
