//! The embedded simulated estate, speaking the real protocols on loopback.
