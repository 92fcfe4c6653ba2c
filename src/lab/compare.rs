//! A world as it is compared with another: without what a server sets by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kube;
use super::world::{Firmware, Vm, World};

/// What is left out of a comparison, with the reason. Kubernetes has a list of its own.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("now, zero, counter, agenda, timing", "the lab's own clockwork"),
    ("tasks", "pve tasks are a log"),
    (
        "vms.*.running",
        "pids, times and boot ids are set anew at each start; that it runs, and which host ports it holds, count",
    ),
    (
        "vms.*.config, pending, pending_delete",
        "compared as what the next start makes of them: a pending delete counts as deleted",
    ),
    ("vms.*.{shutdown,flock_until}", "pve tasks on their way"),
    ("hosts.*.devnum, sticks.*.devnum", "device numbers count plug-ins"),
    ("sticks.*.{state,present}", "a Coral's firmware is loaded by its first use"),
    (
        "mappings.*.map: which of a Coral's ids",
        "an entry has to name the one that it shows, and its first use changes it",
    ),
    (
        "talos.nodes.*.run",
        "times, boot ids and kernel names are set anew at each boot; what was booted, what is in effect, modules and the \
         stage count",
    ),
    (
        "talos.nodes.*.slots",
        "which of the two it is, and what is in the one that is not booted: an undone upgrade leaves its image there",
    ),
    (
        "talos.nodes.*.{bays,boot_entries,bmc}",
        "the board and its firmware: what is in a bay counts with the drive, and a volume of Mayastor by which of its \
         replicas are whole",
    ),
    ("talos.etcd.{leader,term,index}", "elections, and a log"),
    ("access.users.*.password, access.tokens.*.secret", "made at the start of each lab"),
];

impl Vm {
    fn compared(&self) -> Value {
        let mut config: BTreeMap<&String, &String> = self.config.iter().collect();
        config.retain(|key, _| !self.pending_delete.contains_key(*key));
        config.extend(&self.pending);
        let holds: BTreeSet<&str> =
            self.running.iter().flat_map(|r| r.usb.values()).map(|held| held.host_port.as_str()).collect();
        json!({
            "node": self.node,
            "config": config,
            "pending": self.pending.keys().collect::<Vec<_>>(),
            "runs": self.running.is_some(),
            "holds": holds,
            "lock": self.lock,
            "guest": self.guest,
        })
    }
}

impl World {
    fn compared_mappings(&self) -> Value {
        let mut text = json!(self.mappings).to_string();
        for stick in self.sticks.values() {
            if let Firmware::Coral { boot, run } = &stick.firmware {
                text = text.replace(&format!("id={run}"), &format!("id={boot}"));
            }
        }
        serde_json::from_str(&text).unwrap_or_else(|_| json!(self.mappings))
    }

    /// What two worlds are compared by; [`LEFT_OUT`] says what is missing.
    pub fn compared(&self) -> Value {
        let vms: BTreeMap<String, Value> = self.vms.iter().map(|(id, vm)| (id.to_string(), vm.compared())).collect();
        let places: BTreeMap<&String, _> = self.sticks.iter().map(|(name, stick)| (name, &stick.at)).collect();
        let hosts: BTreeMap<&String, _> =
            self.hosts.iter().map(|(name, h)| (name, (h.online, &h.files, &h.drives))).collect();
        let whole = json!({
            "hosts": hosts,
            "sticks": places,
            "vms": vms,
            "mappings": self.compared_mappings(),
            "pci_mappings": self.pci_mappings,
            "ha": self.ha,
            "quorate": !self.no_quorum,
            "acl": self.access.acl,
            "users": self.access.users.keys().collect::<Vec<_>>(),
            "tokens": self.access.tokens.keys().collect::<Vec<_>>(),
            "kubernetes": kube::compared(self),
            "talos": self.talos_compared(),
        });
        // Volumes are named after uids, and their names are in paths everywhere.
        let mut text = whole.to_string();
        for (name, plain) in kube::volume_names(self) {
            text = text.replace(&name, &plain);
        }
        serde_json::from_str(&text).unwrap_or(whole)
    }
}

#[cfg(test)]
mod tests {
    use crate::lab::{Place, load};

    #[test]
    fn what_a_server_sets_by_itself_does_not_count_and_all_else_does() {
        let mut world = load("usb-move").unwrap();
        let first = world.compared();
        world.counter += 1;
        world.vms.get_mut(&108).unwrap().running.as_mut().unwrap().pid = 4711;
        world.hosts.get_mut("still-fawn").unwrap().devnum.insert(2, 9);
        assert_eq!(world.compared(), first);
        let mapped = |entry: &str| {
            let mut world = load("usb-move-token").unwrap();
            world.mappings.get_mut("coral").unwrap().map = vec![entry.to_owned()];
            world.compared()
        };
        let run = mapped("node=pumped-piglet,id=18d1:9302,path=2-1");
        assert_eq!(mapped("node=pumped-piglet,id=1a6e:089a,path=2-1"), run);
        assert_ne!(mapped("node=pumped-piglet,id=1a6e:089a,path=2-2"), run);
        assert_ne!(mapped("node=pumped-piglet,id=0001:0002,path=2-1"), run);
        let changes: Vec<fn(&mut crate::lab::World)> = vec![
            |w| w.sticks.get_mut("coral").unwrap().at = Some(Place { host: "still-fawn".into(), port: "2-3".into() }),
            |w| drop(w.vms.get_mut(&108).unwrap().config.insert("usb0".into(), "host=1a6e:089a".into())),
            |w| drop(w.vms.get_mut(&108).unwrap().pending.insert("cores".into(), "8".into())),
            |w| assert!(w.vms.get_mut(&105).unwrap().pending_delete.insert("usb0".into(), false).is_none()),
            |w| w.vms.get_mut(&105).unwrap().running = None,
            |w| w.vms.get_mut(&105).unwrap().lock = Some("backup".into()),
            |w| assert!(w.vms.get_mut(&108).unwrap().guest.installed.insert("x".into())),
            |w| drop(w.mappings.insert("coral".into(), Default::default())),
        ];
        assert_eq!(changes.len(), 8);
        for (i, change) in changes.into_iter().enumerate() {
            let mut other = load("usb-move").unwrap();
            change(&mut other);
            assert_ne!(other.compared(), first, "change {i}");
        }
    }
}
