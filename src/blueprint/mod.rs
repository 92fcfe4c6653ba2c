//! The migrations: one folder per blueprint, one file per step.
