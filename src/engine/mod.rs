//! Runs steps and keeps the journal; knows no provider.
