//! The Talos clusters of a site file.

use rustls::pki_types::ServerName;

use crate::base::names::TalosAddress;

use super::check::Reader;
use super::fields::Item;
use super::slots::{out_of_band, slots};
use super::types::{TalosCluster, TalosNode, VmRef};
use super::values::{plain_name, section, transpose};

impl Reader {
    /// A Talos cluster; `clusters` and `kubes` are the Proxmox and Kubernetes clusters of the file.
    pub(super) fn talos(&self, item: &Item<'_>, clusters: &[String], kubes: &[String]) -> Option<TalosCluster> {
        let fields = item.fields(&["talosconfig", "context", "kubernetes", "nodes"]);
        let talosconfig =
            fields.need("talosconfig", "add `talosconfig: ~/.talos/config`").and_then(|item| self.places.path(&item));
        let context = transpose(fields.get("context").map(|item| item.text().map(str::to_owned)));
        let kubernetes = fields
            .need("kubernetes", "name one of the clusters under `kubernetes`: the one that these nodes are")
            .and_then(|item| item.name_of("a Kubernetes cluster", kubes.iter().map(String::as_str)));
        let help = "add a line like `talos-20: { address: 10.10.0.20 }` for each node, below `nodes:`";
        if let Some(nodes) = fields.need("nodes", help)
            && nodes.value().as_object().is_some_and(serde_json::Map::is_empty)
        {
            nodes.problem("a Talos cluster has at least one node", help);
        }
        let nodes = section(&fields, "nodes", |name, item| node(name, item, clusters));
        if nodes.is_empty() {
            return None;
        }
        Some(TalosCluster { talosconfig: talosconfig?, context: context?, kubernetes: kubernetes?, nodes })
    }
}

fn node(name: &str, item: &Item<'_>, clusters: &[String]) -> Option<TalosNode> {
    let fields = item.fields(&["address", "tls_name", "node_name", "vm", "slots", "out_of_band"]);
    let help = "write the node's own address; its port is 50000 where none is named";
    let address = fields.need("address", "add the node's own address, `address: 10.10.0.20`").and_then(|item| {
        item.parse::<TalosAddress>(help)?;
        item.text().map(str::to_owned)
    });
    let tls_name = transpose(fields.get("tls_name").map(|item| {
        let text = item.text()?;
        if ServerName::try_from(text).is_err() {
            let help = "write a name or address that is in the node's certificate, without a port";
            item.problem(format!("`{text}` is neither a host name nor an address"), help);
            return None;
        }
        Some(text.to_owned())
    }));
    let node_name = fields.get("node_name").map_or(Some(name.to_owned()), |item| plain_name(&item, item.text()?));
    let vm = transpose(fields.get("vm").map(|item| vm(&item, clusters)));
    let slots = slots(&fields);
    let power = transpose(fields.get("out_of_band").map(|item| out_of_band(&item)));
    if fields.get("vm").is_some() {
        if let Some(item) = fields.get("slots") {
            let help = "move `slots` to its host, below `hosts` of the Proxmox cluster";
            item.problem(format!("`{name}` is a VM: its drives are in the slots of its host"), help);
        }
        if let Some(item) = fields.get("out_of_band") {
            item.problem(format!("`{name}` is a VM: Proxmox tells whether it is on"), "leave `out_of_band` out");
        }
    }
    Some(TalosNode {
        address: address?,
        tls_name: tls_name?,
        node_name: node_name?,
        vm: vm?,
        slots: slots?,
        out_of_band: power?,
    })
}

fn vm(item: &Item<'_>, clusters: &[String]) -> Option<VmRef> {
    let fields = item.fields(&["proxmox", "vmid"]);
    let proxmox = fields
        .need("proxmox", "name one of the clusters under `proxmox`")
        .and_then(|item| item.name_of("a Proxmox cluster", clusters.iter().map(String::as_str)));
    let vmid = fields.need("vmid", "add the VM's number, `vmid: 223`").and_then(|item| item.number(100..=999_999_999));
    Some(VmRef { proxmox: proxmox?, vmid: vmid? })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{problems, with};
    use super::super::{Site, example};

    /// The example with other lines for its Talos nodes.
    fn talos_nodes(lines: &[&str]) -> String {
        let (before, rest) = example().split_once("      talos-nuc:").unwrap();
        let (_, behind) = rest.split_once("node_name: talos-49 }\n").unwrap();
        let lines: String = lines.iter().map(|line| format!("      {line}\n")).collect();
        format!("{before}{lines}{behind}")
    }

    #[test]
    fn what_is_wrong_with_talos_nodes_is_said() {
        let nodes = |lines: &[&str]| problems(&talos_nodes(lines));
        let cases: &[(&[&str], &str)] = &[
            (&["a:"], "a: `address` is missing in `talos.homelab.nodes.a`"),
            (&["a: 10.0.0.1"], "a: `a` is to be a mapping, not a text"),
            (&["a: { address: }"], "a.address: `address` in `talos.homelab.nodes.a` has no value"),
            (&["a: { address: 7 }"], "a.address: `address` is to be a text, not `7`"),
            (&["a: { adress: 10.0.0.1, address: 10.0.0.2 }"], "a.adress: unknown key `adress`"),
            (&["a: { address: 10.0.0.1, vmid: 223 }"], "a.vmid: unknown key `vmid`"),
            (
                &["a: { address: root@10.0.0.1 }"],
                "a.address: `root@10.0.0.1` is not an address like 10.10.0.20, talos-20.lan:50000 or [fd00::20]:50000",
            ),
            (
                &["a: { address: \"10.0.0.1:66000\" }"],
                "a.address: `10.0.0.1:66000` is not an address like 10.10.0.20, talos-20.lan:50000 or [fd00::20]:50000",
            ),
            (
                &["a: { address: \"http://10.0.0.1\" }"],
                "a.address: `http://10.0.0.1` is not an address like 10.10.0.20, talos-20.lan:50000 or [fd00::20]:50000",
            ),
            (
                &["a: { address: x, tls_name: \"10.0.0.1:50000\" }"],
                "a.tls_name: `10.0.0.1:50000` is neither a host name nor an address",
            ),
            (&["a: { address: x, node_name: a b }"], "a.node_name: `a b` is not a name"),
            (&["\"a b\": { address: x }"], "a b: `a b` is not a name"),
            (&["a: { address: x, vm: 223 }"], "a.vm: `vm` is to be a mapping, not `223`"),
            (&["a: { address: x, vm: { vmid: 223 } }"], "a.vm: `proxmox` is missing in `talos.homelab.nodes.a.vm`"),
            (&["a: { address: x, vm: { proxmox: home } }"], "a.vm: `vmid` is missing in `talos.homelab.nodes.a.vm`"),
            (
                &["a: { address: x, vm: { proxmox: hom, vmid: 223 } }"],
                "a.vm.proxmox: `hom` is not a Proxmox cluster of this file",
            ),
            (
                &["a: { address: x, vm: { proxmox: home, vmid: 1 } }"],
                "a.vm.vmid: `vmid` is to be a whole number from 100 to 999999999, not `1`",
            ),
            (&["a: { address: x }", "b: { address: \"x:50000\" }"], "b: `b` and `a` have the same address"),
            (&["a: { address: x, node_name: b }", "b: { address: y }"], "b: `b` and `a` are the same Kubernetes node"),
            (
                &["a: { address: x, vm: { proxmox: home, vmid: 105 } }"],
                "a: `a` and `k3s-vm-pumped-piglet` are the same vm 105",
            ),
            (&["k3s-vm-still-fawn: { address: x }"], "k3s-vm-still-fawn: there is another node `k3s-vm-still-fawn`"),
        ];
        assert_eq!(cases.len(), 21);
        for (lines, expected) in cases {
            assert_eq!(nodes(lines), [format!("talos.homelab.nodes.{expected}")]);
        }
        let cases = [
            (
                with("    talosconfig: ~/.talos/config # only", "    # only"),
                "talos.homelab: `talosconfig` is missing in `talos.homelab`",
            ),
            (with("    context: homelab  ", "    context: \"\"  "), "talos.homelab.context: `context` is empty"),
            (
                with("    kubernetes: homelab  ", "    kubernetes: homelap  "),
                "talos.homelab.kubernetes: `homelap` is not a Kubernetes cluster of this file",
            ),
            (with("    kubernetes: homelab  ", "    # "), "talos.homelab: `kubernetes` is missing in `talos.homelab`"),
            (talos_nodes(&[]), "talos.homelab.nodes: `nodes` in `talos.homelab` has no value"),
            (talos_nodes(&["{}"]), "talos.homelab.nodes: a Talos cluster has at least one node"),
            (talos_nodes(&["- a"]), "talos.homelab.nodes: `nodes` is to be a mapping, not a list"),
        ];
        assert_eq!(cases.len(), 7);
        for (text, expected) in &cases {
            assert_eq!(problems(text), [*expected]);
        }
        // Over clusters too; the one with a problem of its own is looked at all the same.
        let other = "\n  other: { talosconfig: x, kubernetes: k3s, nodes: { talos-mac: { address: \"b b\" }, two: { address: 192.168.4.20 } } }\n\n# USB devices.\n";
        let found = problems(&with("\n# USB devices.\n", other));
        let expected = [
            "talos.other.nodes.talos-mac: there is another node `talos-mac`",
            "talos.other.nodes.talos-mac.address: `b b` is not an address like 10.10.0.20, talos-20.lan:50000 or [fd00::20]:50000",
            "talos.other.nodes.two: `two` and `talos-nuc` have the same address",
        ];
        assert_eq!(found, expected);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("site.yaml"), with("\n# USB devices.\n", other)).unwrap();
        let (part, problems) = Site::inspect(&dir.path().join("site.yaml")).unwrap();
        assert_eq!((part.talos_node_names.len(), problems.len(), part.is_whole()), (5, 3, false));
    }
}
