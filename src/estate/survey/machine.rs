//! Proxmox' layers: the VM, its agent, and the ways into its guest.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, OnceCell};

use super::super::Estate;
use super::{Why, layer};
use crate::base::fault::Failure;
use crate::base::survey::{Agent, Fact, Guest, Layer, PendingChange, Place, Vm};
use crate::guest::{self, AgentTried, Route};
use crate::proxmox::config::Props;
use crate::proxmox::{Pending, Proxmox, Resource, VmRef, VmStatus};
use crate::site::{self, Access};

/// Whom no rights are asked of (pve-access-control `PVE::RPCEnvironment::check`). His tokens have rights of their own.
const ROOT: &str = "root@pam";

/// A Proxmox cluster whose list of VMs is asked for once.
#[derive(Default)]
pub(super) struct Cluster(OnceCell<Result<Listed, Why>>);

struct Listed {
    proxmox: Arc<Proxmox>,
    rows: BTreeMap<u32, Resource>,
}

impl Cluster {
    async fn listed(&self, estate: &Estate, name: &str) -> Result<&Listed, Why> {
        let ask = async {
            let proxmox = estate.proxmox(name).await.map_err(|failure| Why::of(&failure))?;
            let rows = proxmox.resources().await?;
            let rows = rows.into_iter().filter(|row| row.kind == "qemu").map(|row| (row.vmid, row)).collect();
            Ok(Listed { proxmox, rows })
        };
        self.0.get_or_init(|| ask).await.as_ref().map_err(Clone::clone)
    }

    /// A VM, with what further questions about it go to.
    async fn vm(&self, estate: &Estate, place: &Place) -> Result<(Vm, Arc<Proxmox>, VmRef), Why> {
        estate.bounded(&vm_of(place), self.ask(estate, place)).await.and_then(|done| done)
    }

    async fn ask(&self, estate: &Estate, place: &Place) -> Result<(Vm, Arc<Proxmox>, VmRef), Why> {
        let listed = self.listed(estate, &place.proxmox).await?;
        let Some(row) = listed.rows.get(&place.vmid) else {
            let (caller, number) = (listed.proxmox.caller(), "correct its number in the site file");
            let none = format!("cluster {} has no vm {}", place.proxmox, place.vmid);
            // He sees all there are.
            let (reason, help) = if caller == ROOT {
                (none, number.to_owned())
            } else {
                (format!("{none} that {caller} may see"), format!("{number}, or give the credentials VM.Audit on it"))
            };
            return Err(Why { reason, help: Some(help) });
        };
        // The cluster says so of everything on a host that it has not heard of lately.
        if row.status == "unknown" {
            let reason = format!("host {} of cluster {} does not answer", row.node, place.proxmox);
            return Err(Why { reason, help: Some(format!("is {} on, and in the cluster?", row.node)) });
        }
        let vm = VmRef { node: row.node.clone(), vmid: row.vmid };
        let (pending, status) = futures::join!(listed.proxmox.pending(&vm), listed.proxmox.status(&vm));
        Ok((shown(&vm, &pending?, &status?), listed.proxmox.clone(), vm))
    }
}

/// A VM without a shell in it: its agent is asked whether it is there.
pub(super) async fn without_shell(estate: &Estate, cluster: &Cluster, place: &Place) -> (Layer<Vm>, Layer<Agent>) {
    let begun = estate.clock.instant();
    let (vm, proxmox, at) = match cluster.vm(estate, place).await {
        Ok(found) => found,
        Err(why) => return (why.layer(), why.layer()),
    };
    if !vm.is_running() {
        return (Layer::Known(vm), Layer::Absent);
    }
    let ping = estate.bounded_since(begun, &agent_of(place), guest::try_ping(&proxmox, &at)).await;
    let agent = ping.map(|ping| Agent {
        channel: channel(&vm),
        ping: fact(ping),
        exec: Fact::NotAsked { why: "Talos has no programs".into() },
    });
    (Layer::Known(vm), layer(agent))
}

/// A VM with its agent and the ways into its guest, which are tried side by side.
pub(super) async fn with_guest(
    estate: &Estate,
    cluster: &Cluster,
    place: &Place,
    name: &str,
    settings: &site::Node,
) -> (Layer<Vm>, Layer<Agent>, Layer<Guest>) {
    let off = Notify::new();
    let begun = estate.clock.instant();
    let machine = async {
        let found = cluster.vm(estate, place).await?;
        if !found.0.is_running() {
            // Nobody answers there: a login need not be waited for.
            off.notify_one();
            return Ok::<_, Why>((found, None));
        }
        // What is known of the VM by now stays so, however long its agent takes.
        let agent = guest::try_agent(&found.1, &found.2);
        let agent = estate.bounded_since(begun, &agent_of(place), agent).await;
        Ok((found, Some(agent)))
    };
    let ssh = async {
        if !settings.access.contains(&Access::Ssh) {
            return None;
        }
        let what = format!("ssh of node {name}");
        tokio::select! {
            answer = estate.bounded(&what, by_ssh(estate, name, settings)) => Some(answer.and_then(|done| done)),
            () = off.notified() => None,
        }
    };
    let (machine, ssh) = futures::join!(Box::pin(machine), Box::pin(ssh));
    let (vm, agent, at) = match machine {
        Ok(((vm, ..), None)) => return (Layer::Known(vm), Layer::Absent, Layer::Absent),
        Ok(((vm, _, at), Some(agent))) => (Ok(vm), agent, Some(at)),
        Err(why) => (Err(why.clone()), Err(why), None),
    };
    let ways = Ways { estate, name, settings, ssh, agent: &agent, at };
    let guest = layer(ways.first().await);
    let agent = match (&vm, agent) {
        (Ok(vm), Ok(AgentTried { ping, exec, .. })) => {
            Ok(Agent { channel: channel(vm), ping: fact(ping), exec: fact(exec) })
        }
        (Err(why), _) => Err(why.clone()),
        (_, Err(why)) => Err(why),
    };
    (layer(vm), layer(agent), guest)
}

fn agent_of(place: &Place) -> String {
    format!("the agent of vm {} (cluster {})", place.vmid, place.proxmox)
}

fn vm_of(place: &Place) -> String {
    format!("vm {} (cluster {})", place.vmid, place.proxmox)
}

async fn by_ssh(estate: &Estate, name: &str, settings: &site::Node) -> Result<String, Why> {
    let route = estate.route(name, settings, Access::Ssh).await.map_err(|failure| Why::of(&failure))?;
    Ok(estate.machine(name, vec![route]).boot_id().await?.value)
}

/// What the ways into a guest have said.
struct Ways<'a> {
    estate: &'a Estate,
    name: &'a str,
    settings: &'a site::Node,
    ssh: Option<Result<String, Why>>,
    agent: &'a Result<AgentTried, Why>,
    at: Option<VmRef>,
}

impl Ways<'_> {
    /// The first of the site's ways that has answered; the one through the host is tried where none before it has.
    async fn first(self) -> Result<Guest, Why> {
        let mut others = Vec::new();
        let mut help = None;
        for access in &self.settings.access {
            let answer = match access {
                Access::Ssh => self.ssh.clone().unwrap_or_else(|| Err(said("it was not tried"))),
                Access::Agent => match self.agent {
                    Ok(AgentTried { boot_id: Some(id), .. }) => Ok(id.clone()),
                    Ok(AgentTried { exec: guest::Fact::No(why) | guest::Fact::Unknown(why), .. }) => Err(said(why)),
                    Ok(AgentTried { .. }) => Err(said("it told no boot id")),
                    Err(why) => Err(why.clone()),
                },
                Access::HostSsh => {
                    let what = format!("host-ssh of node {}", self.name);
                    self.estate.bounded(&what, self.through_host()).await.and_then(|done| done)
                }
            };
            match answer {
                Ok(boot_id) => return Ok(Guest { route: access.word().into(), boot_id, others }),
                Err(Why { reason, help: next }) => {
                    help = help.or(next);
                    others.push(format!("{}: {reason}", access.word()));
                }
            }
        }
        Err(Why { reason: others.join("; "), help })
    }

    async fn through_host(&self) -> Result<String, Why> {
        let at = self.at.as_ref().ok_or_else(|| said("it is not known on which host the VM is"))?;
        let of = |failure: Failure| Why::of(&failure);
        let host = self.estate.host_ssh(&self.settings.proxmox, &at.node).await.map_err(of)?;
        let host = host.ok_or_else(|| said(&format!("the site file has no ssh for host {}", at.node)))?;
        let route = Route::HostSsh { host, vmid: at.vmid };
        Ok(self.estate.machine(self.name, vec![route]).boot_id().await?.value)
    }
}

fn said(why: &str) -> Why {
    Why { reason: why.to_owned(), help: None }
}

fn fact(fact: guest::Fact) -> Fact {
    match fact {
        guest::Fact::Yes => Fact::Yes,
        guest::Fact::No(why) => Fact::No { why },
        guest::Fact::Unknown(why) => Fact::Unknown { why },
    }
}

fn channel(vm: &Vm) -> Fact {
    match (vm.agent, vm.agent_configured) {
        (true, _) => Fact::Yes,
        (false, true) => Fact::No { why: "the VM was started without it; it gets it with its next power cycle".into() },
        (false, false) => Fact::No { why: "the VM's config has no `agent`".into() },
    }
}

fn shown(at: &VmRef, config: &Pending, status: &VmStatus) -> Vm {
    let text = |value: Option<&str>| value.map(str::to_owned);
    let number = |key: &str| config.configured(key).and_then(|value| value.parse().ok());
    let lines = |begins: &[&str]| -> BTreeMap<String, String> {
        let numbered = |key: &str| {
            begins.iter().any(|begin| {
                key.strip_prefix(begin).is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
            })
        };
        let keys = config.keys.iter().filter(|(key, _)| numbered(key));
        keys.filter_map(|(key, value)| Some((key.clone(), value.configured()?.to_owned()))).collect()
    };
    let agent = |line: Option<&str>| guest::agent_channel(line).is_yes();
    let uuid = |line: &str| Some(line.parse::<Props>().ok()?.get("uuid")?.to_lowercase());
    let running = status.is_running();
    Vm {
        host: at.node.clone(),
        name: status.name.clone(),
        power: status.status.clone(),
        qemu: status.qmpstatus.clone().filter(|_| running),
        uptime_s: status.uptime.filter(|_| running),
        lock: status.lock.clone(),
        ha: status.is_ha_managed(),
        pending: config.waiting().into_iter().map(|(key, now, then)| PendingChange { key, now, then }).collect(),
        agent: agent(if running { config.value("agent") } else { config.configured("agent") }),
        agent_configured: agent(config.configured("agent")),
        memory_mib: number("memory"),
        balloon_mib: number("balloon"),
        cpu: text(config.configured("cpu")),
        boot: text(config.configured("boot")),
        // What runs is what a guest tells of; the new one comes with the next power cycle.
        smbios_uuid: if running { config.value("smbios1") } else { config.configured("smbios1") }.and_then(uuid),
        usb: lines(&["usb"]),
        hostpci: lines(&["hostpci"]),
        drives: lines(&["scsi", "virtio", "sata", "ide", "nvme"]),
    }
}
