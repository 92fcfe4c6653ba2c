//! The Kubernetes API of the nodes: each control plane runs a server of it beside its own etcd, and it is worth what that
//! etcd is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::lab::World;

/// What the Kubernetes API is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// It reads and writes.
    Well,
    /// etcd has no room: it reads, and refuses what writes.
    Full,
    /// etcd has no leader: it listens, and neither reads nor writes.
    Headless,
    /// Nothing listens.
    Not,
}

impl World {
    /// What the Kubernetes API is good for. A server of it comes up with the kubelet, and only where its own etcd answers:
    /// it knows no other one (siderolabs/talos `controllers/k8s/control_plane_static_pod.go`, `--etcd-servers`), and a
    /// learner's serves no reads (etcd `server/etcdserver/api/v3rpc/interceptor.go`).
    pub fn kube_serving(&self) -> Serving {
        let nodes = &self.talos.nodes;
        // Of a real etcd the world knows nothing.
        if nodes.is_empty() || nodes.values().any(|node| node.etcd_at.is_some()) {
            return Serving::Well;
        }
        let etcd = &self.talos.etcd;
        let serves = |name: &&String| {
            let own = self.etcd_of(name).and_then(|member| etcd.member(member.id));
            own.is_some_and(|member| !member.learner) && self.talos_kubelet(name).is_some()
        };
        if !nodes.keys().any(|name| serves(&name)) {
            return Serving::Not;
        }
        match etcd.leader {
            None => Serving::Headless,
            Some(_) if etcd.members.iter().any(|member| member.alarm.as_deref() == Some("NOSPACE")) => Serving::Full,
            Some(_) => Serving::Well,
        }
    }

    /// Whether a node's configuration names another authority than the lab's: nobody who has the lab's talosconfig gets in.
    /// What is no certificate at all, as in the worlds' files, stands for the lab's.
    pub(super) fn talos_foreign(&self, name: &str) -> bool {
        let run = self.talos.nodes.get(name).and_then(|node| node.run.as_ref());
        let Some(named) = run.map(|run| run.wants.authority.as_str()).filter(|named| *named != self.talos.authority)
        else {
            return false;
        };
        STANDARD.decode(named).is_ok_and(|text| text.starts_with(b"-----BEGIN CERTIFICATE-----"))
    }

    /// The node's name in Kubernetes and in etcd: that of its configuration, else the one that the world has for it.
    pub fn talos_host<'w>(&'w self, name: &'w str) -> &'w str {
        let run = self.talos.nodes.get(name).and_then(|node| node.run.as_ref());
        run.map(|run| run.wants.hostname.as_str()).filter(|host| !host.is_empty()).unwrap_or(name)
    }
}
