//! What is below `/var` and `/opt` of a node, and its firmware's variables, as it is listed and measured (siderolabs/talos `internal/app/machined`, `List`
//! and `DiskUsage`; `pkg/archiver/walker.go`).

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use tonic::Status;

use super::board;
use super::efivars;
use super::node::Node;
use super::server::{Server, Streamed};
use crate::lab::World;
use crate::talos::proto::machine::{DiskUsageInfo, DiskUsageRequest, FileInfo, ListRequest};

/// What Talos and the kubelet have on every node, with its size.
const OWN: &[(&str, u64)] = &[
    ("/opt/cni/bin/loopback", 3_987_456),
    ("/var/lib/cni/results/cache", 1_204),
    ("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/1f2a", 1_204_811_776),
    ("/var/lib/kubelet/config.yaml", 1_911),
    ("/var/lib/kubelet/pods/6b8f/volumes/kubernetes.io~empty-dir/cache/data", 40_960),
    ("/var/log/audit/kube/kube-apiserver.log", 31_457_280),
    ("/var/log/containers/kube-apiserver.log", 2_097_152),
    ("/var/log/pods/kube-system_kube-apiserver/0.log", 2_097_152),
];
/// Directories that are there with nothing in them too.
const EMPTY: &[&str] = &["/var/lib/etcd", "/var/mnt", "/var/run"];
/// Where etcd has its files.
const ETCD: &str = "/var/lib/etcd/member";

/// A file: its size, and when it was written.
type File = (u64, i64);

impl Server {
    /// All files that can be listed.
    fn tree(&self, w: &World, node: &Node) -> BTreeMap<String, File> {
        let now = super::stamp(&self.shared, w.now).seconds;
        let mut all: BTreeMap<String, File> = BTreeMap::new();
        all.extend(OWN.iter().map(|(path, size)| ((*path).to_owned(), (*size, now))));
        all.extend(node.data.iter().map(|(path, size)| (path.clone(), (*size, now))));
        let size = |bytes: &Vec<u8>| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        all.extend(efivars::files(node).iter().map(|(path, bytes)| (path.clone(), (size(bytes), now))));
        if let Some(member) = node.member {
            let etcd = w.talos.etcd_with(member);
            let at = etcd.quiet.map_or(now, |at| super::stamp(&self.shared, at).seconds);
            all.insert(format!("{ETCD}/snap/db"), (etcd.size, at));
            all.insert(format!("{ETCD}/wal/0000000000000000-0000000000000000.wal"), (64_000_000, at));
        }
        all
    }

    /// What is in a directory, itself first, down to a depth.
    pub(super) fn listed(&self, request: &ListRequest) -> Result<Streamed<FileInfo>, Status> {
        let depth = match (request.recurse, request.recursion_depth) {
            (false, _) => 1,
            (true, n) if n <= 0 => usize::MAX,
            (true, n) => usize::try_from(n).unwrap_or(1),
        };
        if request.root == board::PCI {
            return self.look(|w, node, run| board::listed(node, run, super::stamp(&self.shared, w.now).seconds));
        }
        let (files, now) = self.look(|w, node, _| (self.tree(w, node), super::stamp(&self.shared, w.now).seconds))?;
        let entries = entries(&files, &request.root)?;
        let of = |path: &String| {
            let relative = path.strip_prefix(request.root.as_str()).unwrap_or_default().trim_start_matches('/');
            let file = files.get(path);
            FileInfo {
                metadata: None,
                name: path.clone(),
                size: i64::try_from(file.map_or(4_096, |file| file.0)).unwrap_or(i64::MAX),
                modified: file.map_or(now, |file| file.1),
                is_dir: file.is_none(),
                error: String::new(),
                link: String::new(),
                relative_name: if relative.is_empty() { ".".into() } else { relative.to_owned() },
            }
        };
        let deep = |entry: &FileInfo| entry.relative_name != "." && entry.relative_name.split('/').count() > depth;
        let all: Vec<_> = entries.iter().map(of).filter(|entry| !deep(entry)).map(Ok).collect();
        Ok(stream::iter(all).boxed())
    }

    /// How much directories hold.
    pub(super) fn usage(&self, request: &DiskUsageRequest) -> Result<Streamed<DiskUsageInfo>, Status> {
        let files = self.look(|w, node, _| self.tree(w, node))?;
        let mut all = Vec::new();
        for path in &request.paths {
            let below = files.iter().filter(|(file, _)| file.starts_with(&format!("{path}/")) || *file == path);
            let size: u64 = below.map(|(_, (size, _))| size).sum();
            let error = match entries(&files, path) {
                Ok(_) => String::new(),
                Err(status) => status.message().to_owned(),
            };
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            let name = path.clone();
            all.push(Ok(DiskUsageInfo { metadata: None, name, size, error, relative_name: ".".into() }));
        }
        Ok(stream::iter(all).boxed())
    }
}

/// A path and everything below it.
fn entries(files: &BTreeMap<String, File>, root: &str) -> Result<BTreeSet<String>, Status> {
    let mut all: BTreeSet<String> = EMPTY.iter().map(|path| (*path).to_owned()).collect();
    for path in files.keys() {
        all.insert(path.clone());
    }
    for path in all.clone() {
        let mut rest = path.as_str();
        while let Some((above, _)) = rest.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
            all.insert(above.to_owned());
            rest = above;
        }
    }
    all.retain(|path| path == root || path.starts_with(&format!("{root}/")));
    if all.is_empty() { Err(Status::unknown(format!("lstat {root}: no such file or directory"))) } else { Ok(all) }
}
