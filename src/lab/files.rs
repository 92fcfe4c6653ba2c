//! The files of a lab's folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::talos::node::Bay;
use super::world::World;
use super::worlds::merge;
use super::{LabError, Shared, bmc, kube, pve, ssh, talos};
use crate::base::drives::Port;

/// Everything that one needs to reach a lab's fronts.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The Proxmox front.
    pub proxmox: pve::Reach,
    /// The Kubernetes front.
    pub kubernetes: kube::Reach,
    /// The ssh front.
    pub ssh: ssh::Ports,
    /// The Talos front.
    pub talos: talos::Reach,
    /// The lab's certificate authority, PEM.
    pub authority: String,
}

/// The ssh keys of a lab: one for the user, one for each server.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The key that the site file names; every server accepts it for `root`.
    pub user: russh::keys::PrivateKey,
    /// Host keys, by Proxmox node.
    pub hosts: BTreeMap<String, russh::keys::PrivateKey>,
    /// Host keys, by virtual machine id.
    pub guests: BTreeMap<u32, russh::keys::PrivateKey>,
}

impl Keys {
    /// Makes fresh Ed25519 keys.
    ///
    /// # Errors
    /// [`LabError::Io`] where the system gives no random bytes.
    pub fn make(world: &World) -> Result<Self, LabError> {
        let fresh = |comment: &str| {
            let mut seed = [0_u8; 32];
            getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
            let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
            russh::keys::PrivateKey::new(pair.into(), comment).map_err(std::io::Error::other)
        };
        let mut keys = Self { user: fresh("pvemig lab")?, hosts: Default::default(), guests: Default::default() };
        for host in world.hosts.keys() {
            keys.hosts.insert(host.clone(), fresh(host)?);
        }
        for vmid in world.vms.keys() {
            keys.guests.insert(*vmid, fresh(&format!("vm {vmid}"))?);
        }
        Ok(keys)
    }
}

const KEY: &str = "./id_ed25519";
const KNOWN_HOSTS: &str = "./known_hosts";

/// Writes the files.
///
/// # Errors
/// [`LabError::Io`]
pub fn write(dir: &Path, shared: &Arc<Shared>, reach: &Reach, keys: &Keys) -> Result<(), LabError> {
    let (site, access) = shared.read(|w| (site(w, reach, dir), w.access.clone()));
    let yaml = serde_saphyr::to_string(&site).map_err(std::io::Error::other)?;
    let key = keys.user.to_openssh(russh::keys::ssh_key::LineEnding::LF).map_err(std::io::Error::other)?;
    let public = keys.user.public_key().to_openssh().map_err(std::io::Error::other)?;
    let mine = site_token(&site).or_else(|| access.tokens.keys().next().cloned()).unwrap_or_default();
    let secret = access.tokens.get(&mine).map(|t| t.secret.clone()).unwrap_or_default();
    let password = access.users.get("root@pam").map(|u| u.password.clone()).unwrap_or_default();
    put(dir, "site.yaml", &yaml, 0o644)?;
    put(dir, "pve-root-ca.pem", &reach.authority, 0o644)?;
    put(dir, "pve-password", &format!("{password}\n"), 0o600)?;
    put(dir, "pve-token-secret", &format!("{secret}\n"), 0o600)?;
    put(dir, "id_ed25519", &key, 0o600)?;
    put(dir, "id_ed25519.pub", &format!("{public}\n"), 0o644)?;
    put(dir, "known_hosts", &known_hosts(reach, keys)?, 0o644)?;
    // Before there is a cluster there is none; a node that is to join one has files of its own too.
    if reach.talos.made.is_empty() || shared.read(|w| !w.talos.etcd.members.is_empty()) {
        put(dir, "kubeconfig", &reach.kubernetes.kubeconfig, 0o600)?;
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let mut lines = vec![
        ("LAB_DIR", dir.display().to_string()),
        ("SITE", path("site.yaml")),
        ("PVEMIG_SITE", path("site.yaml")),
        ("PVEMIG_STATE", path("state")),
        ("PVE_URL", format!("https://{}", reach.proxmox.address)),
        ("PVE_FINGERPRINT", reach.proxmox.fingerprint.to_string()),
        ("PVE_CA", path("pve-root-ca.pem")),
        ("PVE_TOKEN", format!("{mine}={secret}")),
        ("PVE_USER", "root@pam".to_owned()),
        ("PVE_PASSWORD_FILE", path("pve-password")),
        ("KUBECONFIG", path("kubeconfig")),
        ("SSH_KEY", path("id_ed25519")),
        ("SSH_KNOWN_HOSTS", path("known_hosts")),
        ("REQUESTS", path("requests.jsonl")),
    ];
    if !reach.talos.nodes.is_empty() {
        put(dir, "talosconfig", &reach.talos.talosconfig, 0o600)?;
        for (name, text, mode) in &reach.talos.made {
            put(dir, name, text, *mode)?;
        }
        let nodes: Vec<String> = reach.talos.nodes.iter().map(|(name, address)| format!("{name}={address}")).collect();
        lines.extend([("TALOSCONFIG", path("talosconfig")), ("TALOS_NODES", nodes.join(" "))]);
    }
    let mut env: String = lines.iter().map(|(k, v)| format!("{k}='{}'\n", v.replace('\'', "'\\''"))).collect();
    // What programs look for by itself; the rest is for scripts.
    let exported = ["PVEMIG_SITE", "PVEMIG_STATE", "KUBECONFIG", "TALOSCONFIG"];
    let exported: Vec<_> = exported.into_iter().filter(|name| lines.iter().any(|(k, _)| k == name)).collect();
    env += &format!("export {}\n", exported.join(" "));
    put(dir, "env", &env, 0o600)
}

/// Writes a file with its mode from the first byte on.
fn put(dir: &Path, name: &str, text: &str, mode: u32) -> Result<(), LabError> {
    let path = dir.join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn known_hosts(reach: &Reach, keys: &Keys) -> Result<String, LabError> {
    let hosts = reach.ssh.hosts.iter().filter_map(|(name, port)| Some((keys.hosts.get(name)?, port)));
    let guests = reach.ssh.guests.iter().filter_map(|(vmid, port)| Some((keys.guests.get(vmid)?, port)));
    let mut text = String::new();
    for (key, port) in hosts.chain(guests) {
        let line = key.public_key().to_openssh().map_err(std::io::Error::other)?;
        // Type and key, without the comment.
        let line: Vec<&str> = line.split(' ').take(2).collect();
        text += &format!("[127.0.0.1]:{port} {}\n", line.join(" "));
    }
    Ok(text)
}

fn ssh_to(port: u16) -> Value {
    json!({ "address": "127.0.0.1", "port": port, "user": "root", "key": { "file": KEY }, "known_hosts": KNOWN_HOSTS })
}

/// The token that the site file names.
fn site_token(site: &Value) -> Option<String> {
    site.pointer("/proxmox/home/auth/token/id").and_then(Value::as_str).map(str::to_owned)
}

/// The world's own part of the site file, with addresses and what all sites of a lab share.
fn site(world: &World, reach: &Reach, dir: &Path) -> Value {
    let hosts: BTreeMap<&String, Value> = world
        .hosts
        .iter()
        .map(|(name, host)| {
            let mut of = reach.ssh.hosts.get(name).map_or(json!({}), |port| json!({ "ssh": ssh_to(*port) }));
            // A person reads the ports of a host's slots off its board's block diagram.
            let slot = |(name, bay): (&String, &Bay)| {
                let port = Port::of(&bay.bus).map(|port| port.to_string());
                (name.clone(), json!({ "position": bay.position, "port": port }))
            };
            if let (false, Some(map)) = (host.bays.is_empty(), of.as_object_mut()) {
                map.insert("slots".into(), host.bays.iter().map(slot).collect::<serde_json::Map<_, _>>().into());
            }
            (name, of)
        })
        .collect();
    // The nodes of its own are Talos's alone, or k3s in VMs.
    let pure = !reach.talos.nodes.is_empty() && world.site.get("nodes").is_none();
    let kubernetes = if pure { world.talos.cluster.as_str() } else { "k3s" };
    let vmid = |node: &str| world.site.pointer(&format!("/nodes/{node}/vmid")).and_then(Value::as_u64);
    let names = world.site.get("nodes").and_then(Value::as_object).into_iter().flat_map(|nodes| nodes.keys());
    let nodes: BTreeMap<&String, Value> = names
        .map(|name| {
            let port = vmid(name).and_then(|id| u32::try_from(id).ok()).and_then(|id| reach.ssh.guests.get(&id));
            let mut node =
                json!({ "proxmox": "home", "kubernetes": kubernetes, "access": ["ssh", "agent", "host-ssh"] });
            if let (Some(port), Some(map)) = (port, node.as_object_mut()) {
                map.insert("ssh".into(), ssh_to(*port));
            }
            (name, node)
        })
        .collect();
    let mut site = json!({
        "version": 1,
        "name": world.name,
        "state": "./state",
        "proxmox": { "home": {
            "urls": [format!("https://{}", reach.proxmox.address)],
            "fingerprints": [reach.proxmox.fingerprint.to_string()],
            "hosts": hosts,
        } },
        "kubernetes": { kubernetes: { "kubeconfig": "./kubeconfig", "context": "lab" } },
        "nodes": nodes,
    });
    let mut part = |pointer: &str, key: &str, value: Value| {
        let at = site.pointer_mut(pointer).and_then(Value::as_object_mut);
        at.map(|map| map.insert(key.to_owned(), value));
    };
    if world.kube.is_followed() {
        let source = json!({ "namespace": "flux-system", "name": "flux-system" });
        part(
            &format!("/kubernetes/{kubernetes}"),
            "gitops",
            json!({ "kind": "flux", "checkout": "gitops", "source": source }),
        );
        let author = json!({ "name": "pvemig", "email": "pvemig@localhost" });
        let checkout =
            json!({ "path": "./checkout", "remote": "origin", "branch": "main", "push": true, "author": author });
        part("", "checkouts", json!({ "gitops": checkout }));
    }
    if !reach.talos.nodes.is_empty() {
        part("", "talos", json!({ &world.talos.cluster: talos(world, reach, kubernetes, dir) }));
    }
    merge(&mut site, world.site.clone());
    site
}

/// The Talos cluster of a site file. All nodes are at one address, so each is held against its own in its certificate.
fn talos(world: &World, reach: &Reach, kubernetes: &str, dir: &Path) -> Value {
    let node = |(name, at): (&String, &std::net::SocketAddr)| {
        let of = world.talos.nodes.get(name)?;
        let mut node = json!({ "address": at.to_string() });
        let map = node.as_object_mut()?;
        if !of.ip.is_empty() {
            map.insert("tls_name".into(), json!(of.ip));
        }
        if let Some(vmid) = of.vmid {
            map.insert("vm".into(), json!({ "proxmox": "home", "vmid": vmid }));
        }
        if !of.bays.is_empty() {
            let slots = of.bays.iter().map(|(name, bay)| (name.clone(), json!({ "position": bay.position })));
            map.insert("slots".into(), slots.collect::<serde_json::Map<_, _>>().into());
        }
        if of.bmc {
            let file = dir.join(bmc::FOLDER).join(name).display().to_string();
            let power = json!({ "command": ["cat", file], "on": "is on", "off": "is off" });
            map.insert("out_of_band".into(), json!({ "power": power }));
        }
        Some((name.clone(), node))
    };
    let nodes: serde_json::Map<String, Value> = reach.talos.nodes.iter().filter_map(node).collect();
    json!({ "talosconfig": "./talosconfig", "context": "lab", "kubernetes": kubernetes, "nodes": nodes })
}
