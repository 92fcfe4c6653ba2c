//! What is told of a snapshot that was taken: its place on stdout, or all of it as JSON; words beside that.

use std::path::Path;

use serde::Serialize;

use crate::base::check::bytes;
use crate::cli::out::Out;
use crate::cli::session::plural;
use crate::talos::Snapshot;

use super::member::Member;
use super::press::Pressed;
use super::shelf::{Tidied, is_sealed};

/// A snapshot that was taken.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Taken<'a> {
    cluster: &'a str,
    file: &'a Path,
    /// Of the file.
    size: u64,
    sha256: &'a str,
    /// How many can decrypt it; 0: it is not encrypted.
    recipients: usize,
    node: &'a str,
    member: String,
    leader: bool,
    etcd: Content<'a>,
    talos_version: Option<&'a str>,
    passed: Vec<Passed<'a>>,
    kept: &'a [String],
    removed: &'a [String],
}

/// What is in it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Content<'a> {
    size: u64,
    /// Etcd's own, of the data before it.
    sha256: &'a str,
    /// When it began, in entries of the log; at least so much is in it.
    raft_index: u64,
    raft_term: u64,
    version: Option<&'a str>,
}

/// Somebody who gave none.
#[derive(Serialize)]
struct Passed<'a> {
    node: &'a str,
    why: &'a str,
}

/// What is said of a snapshot that was taken.
pub(super) struct Told<'a> {
    pub(super) cluster: &'a str,
    pub(super) file: &'a Path,
    pub(super) member: &'a Member,
    pub(super) snapshot: &'a Snapshot,
    pub(super) pressed: &'a Pressed,
    pub(super) others: &'a [(String, String)],
}

impl Told<'_> {
    pub(super) fn tell(&self, tidied: &Tidied, recipients: usize, keep: bool, out: &Out) -> anyhow::Result<()> {
        let Self { cluster, file, member, snapshot, pressed, others } = *self;
        let version = Some(member.status.version.as_str()).filter(|version| !version.is_empty());
        if out.json {
            let taken = Taken {
                cluster,
                file,
                size: pressed.size,
                sha256: &pressed.sha256,
                recipients,
                node: &member.node,
                member: format!("{:016x}", member.status.member),
                leader: member.status.leads(),
                etcd: Content {
                    size: snapshot.size,
                    sha256: &snapshot.sha256,
                    raft_index: member.status.raft_applied,
                    raft_term: member.status.raft_term,
                    version,
                },
                talos_version: member.version.as_deref(),
                passed: others.iter().map(|(node, why)| Passed { node, why }).collect(),
                kept: &tidied.kept,
                removed: &tidied.removed,
            };
            out.data(&format!("{:#}\n", serde_json::to_value(&taken)?))?;
        } else {
            out.data(&format!("{}\n", file.display()))?;
        }
        let of = [version.map(|v| format!("etcd {v}")), member.version.as_ref().map(|v| format!("Talos {v}"))];
        let of: String = of.into_iter().flatten().map(|text| format!(", {text}")).collect();
        let sealed = match recipients {
            0 => "not encrypted".to_owned(),
            n => format!("encrypted to {}", plural(n, "recipient")),
        };
        out.tell(
            "",
            &format!(
                "snapshot of {cluster} by {}, {}, at raft index {}{of}: {}, its digest is right; {sealed}",
                member.node,
                member.seat(),
                member.status.raft_applied,
                bytes(snapshot.size)
            ),
            2,
        );
        out.tell("  sha256 of the file: ", &pressed.sha256, 4);
        for (node, why) in others {
            out.tell("  not from ", &format!("{node}: {why}"), 4);
        }
        if keep {
            let own = file.file_name().and_then(|name| name.to_str());
            let told = |name: &String| {
                if is_sealed(name) && own != Some(name.as_str()) {
                    format!("{name}: encrypted, so that only its head can be looked at, and not whose etcd it is of")
                } else {
                    name.clone()
                }
            };
            tidied.kept.iter().for_each(|name| out.tell("  kept ", &told(name), 4));
            tidied.removed.iter().for_each(|name| out.tell("  removed ", &told(name), 4));
        }
        for name in &tidied.broken {
            out.notice(&format!("{name} is no whole snapshot: it does not count, and is left alone"));
        }
        for name in &tidied.foreign {
            out.notice(&format!(
                "{name} names no member of the etcd that was just copied: it is of another cluster of this name, or of this one \
                 before it began anew; it does not count, and is left alone. Give each cluster, and each rebuild of one, a directory \
                 of its own"
            ));
        }
        for name in &tidied.ahead {
            out.notice(&format!(
                "{name} is dated after the new one, as by a clock that was ahead: it does not count, and is left alone"
            ));
        }
        if recipients == 0 {
            out.notice("whoever reads the file has all secrets of the cluster: `--recipient age1..` encrypts it");
        }
        out.tell("  to restore: ", "`pvemig etcd snapshot --help` says how, and when not to", 4);
        Ok(())
    }
}
