//! pvemig carries out infrastructure migrations on Proxmox VE and Kubernetes estates as numbered, idempotent steps
//! that survive a crash, can be undone, and can be rehearsed in an embedded simulated estate.
//!
//! The tour: [`base`] has the words, [`engine`] runs steps and keeps the journal, the providers ([`proxmox`],
//! [`guest`], [`k8s`], [`talos`], [`checkout`]) talk to the outside systems, [`site`] describes an estate, [`estate`]
//! opens it, [`lint`] says what is wrong with it, [`blueprint`] holds the migrations, [`lab`] simulates an estate at
//! the wire, [`report`] renders a journal and [`cli`] is the only part that prints.

pub mod base;
pub mod blueprint;
pub mod checkout;
pub mod cli;
pub mod engine;
pub mod estate;
pub mod guest;
pub mod k8s;
pub mod lab;
pub mod lint;
pub mod proxmox;
pub mod report;
pub mod site;
pub mod talos;
