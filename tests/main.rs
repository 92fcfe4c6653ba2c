//! All tests in one program: it is linked once, and its tests share the cores to the last one.

mod build;
mod checkout;
mod cli;
mod drives;
mod engine;
mod fuzz;
mod guest;
mod harness;
mod incidents;
mod k8s;
mod lab_kube;
mod lab_pve;
mod lab_talos;
mod layers;
mod lint;
mod preflight;
mod prove;
mod proxmox;
mod real_peers;
mod reboot;
mod recover;
mod replace;
mod steps;
mod survey;
mod talos;
mod talos_lab;
