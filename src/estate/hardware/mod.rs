//! What machines are made of: boards, processors, memory, and drives with what each of them is for. It only reads.
//!
//! What could not be asked is told with its reason. A drive is called spare only where everything was asked that could have
//! said otherwise.

mod host;
mod kubernetes;
mod node;
mod pci;

use std::collections::BTreeMap;

use futures::future::join_all;

use super::Estate;
use super::survey::Why;
use crate::base::drives::Inventory;
use crate::base::drives::sheet::{FORMAT, Machine, Sheet, Told, Why as Unknown};
use crate::base::fault::Failure;
use crate::site::{Host, TalosCluster, TalosNode};
use crate::talos::{self, Talos};

use kubernetes::Uses;
use node::Look;

fn told<T, E: Into<Why>>(answer: Result<T, E>) -> Told<T> {
    match answer {
        Ok(value) => Told::Is(value),
        Err(error) => unknown(error.into()),
    }
}

fn unknown<T>(why: Why) -> Told<T> {
    Told::Not(Unknown { unknown: why.reason, help: why.help })
}

impl Estate {
    /// What these Talos nodes and Proxmox hosts are made of; where none is named all nodes of the site, and the hosts of
    /// which it has slots.
    ///
    /// # Errors
    /// [`OpenError::Unknown`](super::OpenError) for what the site has not.
    pub async fn hardware(&self, only: &[String]) -> Result<Sheet, Failure> {
        let taken = self.clock.now();
        let hosts = self.site.proxmox.iter().flat_map(|(of, cluster)| cluster.hosts.iter().map(move |host| (of, host)));
        let hosts: Vec<(&String, (&String, &Host))> = hosts
            .filter(|(_, (name, host))| if only.is_empty() { !host.slots.is_empty() } else { only.contains(name) })
            .collect();
        let is_host = |name: &String| hosts.iter().any(|(_, (host, _))| *host == name);
        if let Some(name) = only.iter().find(|name| self.site.talos_node(name).is_none() && !is_host(name)) {
            return Err(self.unknown("Talos node or Proxmox host", name).into());
        }
        let all = self.site.talos.values().flat_map(|of| of.nodes.iter().map(move |(name, node)| (name, of, node)));
        let asked: Vec<(&String, &TalosCluster, &TalosNode)> =
            all.filter(|(name, ..)| only.is_empty() || only.contains(name)).collect();
        let clusters: BTreeMap<&str, ()> = asked.iter().map(|(_, of, _)| (of.kubernetes.as_str(), ())).collect();
        let looks = join_all(asked.iter().map(|(name, ..)| Box::pin(self.look(name))));
        let uses = join_all(clusters.keys().map(|name| Box::pin(async move { (*name, self.uses(name).await) })));
        let hosts =
            join_all(hosts.iter().map(|(of, (name, host))| {
                Box::pin(async move { ((*name).clone(), self.bays_of(of, name, host).await) })
            }));
        let (looks, uses, hosts) = futures::join!(looks, uses, hosts);
        let uses: BTreeMap<&str, Uses> = uses.into_iter().collect();
        let of = |((name, of, node), look): (&(&String, &TalosCluster, &TalosNode), Told<Look>)| {
            let uses = uses.get(of.kubernetes.as_str());
            let machine = |look: Look| -> Machine { look.machine(&node.slots, uses, &node.node_name) };
            ((*name).clone(), look.map(machine))
        };
        Ok(Sheet {
            pvemig: FORMAT,
            site: self.site.name.clone(),
            taken,
            nodes: asked.iter().zip(looks).map(of).collect(),
            hosts: hosts.into_iter().collect(),
        })
    }

    /// The drives of a Talos node. Of what they are for it has what could be asked: without Kubernetes what Talos tells, and
    /// [`Inventory::not_asked`] has the rest.
    ///
    /// # Errors
    /// The node, or its drives, could not be asked.
    pub async fn inventory(&self, node: &str) -> Result<Inventory, Failure> {
        let talos = self.talos(node).await?;
        let look = async { Ok(Box::pin(node::look(&talos)).await?.drives) };
        self.drives_of(node, look).await
    }

    /// As [`Estate::inventory`], of a machine that waits for its configuration, asked there: nothing of it is mounted, and it
    /// runs from no disk. Whether it is that machine is for the caller to know.
    ///
    /// # Errors
    /// As for [`Estate::inventory`].
    pub async fn inventory_waiting(&self, node: &str, waits: &Talos) -> Result<Inventory, Failure> {
        self.drives_of(node, async { Ok(Box::pin(node::drives(waits)).await) }).await
    }

    async fn drives_of(
        &self,
        node: &str,
        look: impl Future<Output = Result<node::Drives, talos::Error>>,
    ) -> Result<Inventory, Failure> {
        let (_, settings) = self.site.talos_node(node).ok_or_else(|| self.unknown("Talos node", node))?;
        let cluster = self.site.talos.values().find(|of| of.nodes.contains_key(node));
        let uses = async {
            match cluster {
                Some(of) => Some(self.uses(&of.kubernetes).await),
                None => None,
            }
        };
        let (drives, uses) = futures::join!(look, Box::pin(uses));
        let bays = drives?.answered()?.bays(&settings.slots, uses.as_ref(), &settings.node_name);
        bays.inventory().map_err(|why| Failure::plain(why.unknown.clone(), why.help.clone()))
    }

    async fn look(&self, name: &str) -> Told<Look> {
        let talos = match self.talos(name).await {
            Ok(talos) => talos,
            Err(failure) => return unknown(Why::of(&failure)),
        };
        match self.bounded(&format!("Talos node {name}"), Box::pin(node::look(&talos))).await {
            Ok(look) => told(look),
            Err(why) => unknown(why),
        }
    }
}
