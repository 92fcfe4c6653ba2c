//! The shape of `pvemig etcd`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(in crate::cli) struct EtcdArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: EtcdVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EtcdVerb {
    /// Take a snapshot from a healthy member, hold it against its digest, and keep it as a file
    Snapshot(SnapshotArgs),
}

#[derive(Debug, Args)]
#[command(after_help = super::RESTORE)]
pub(in crate::cli) struct SnapshotArgs {
    /// The Talos cluster, by its name in the site file [default: the only one]
    #[arg(value_name = "TALOS")]
    pub(in crate::cli) talos: Option<String>,
    /// The directory for it, which must be there, and be of this cluster, and of this build of it, alone; the file is named
    /// CLUSTER-TIME.snapshot, with `.age` where it is encrypted
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) to: PathBuf,
    /// Keep so many snapshots of this cluster and remove the oldest ones, once the new one is safe [default: keep all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) keep: Option<u32>,
    /// Encrypt it with age to this public key; may be repeated
    #[arg(long, value_name = "age1..")]
    pub(in crate::cli) recipient: Vec<String>,
    /// Encrypt it to the public keys of a file, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) recipients_file: Vec<PathBuf>,
    /// Take none: print a systemd timer and a Kubernetes CronJob that take one every night, or one part alone
    #[arg(long, value_enum, value_name = "PART", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(in crate::cli) schedule: Option<Schedule>,
}

/// What a schedule is printed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Schedule {
    /// Everything, with where it belongs
    All,
    /// The unit of systemd that takes a snapshot
    Service,
    /// The unit of systemd that begins it
    Timer,
    /// Manifests for `kubectl apply`
    Cronjob,
}
