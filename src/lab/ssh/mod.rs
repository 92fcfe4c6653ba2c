//! The ssh front: a server for each host and each guest.
//!
//! Commands run without standard input and without a terminal; shells and subsystems are refused. The world's
//! [`SshManner`] of a machine may change while the lab runs; that restarts its server and ends its connections.

mod session;
mod shell;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::SshId;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Config, run_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::files::Keys;
use super::world::{SshManner, World};
use super::{Fronts, LabError, Shared};
use session::{Cut, Login};

/// What a server says first.
const BANNER: &str = "SSH-2.0-pvemig_lab";

/// The ports that the servers listen on, 127.0.0.1.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    /// By Proxmox node.
    pub hosts: BTreeMap<String, u16>,
    /// By virtual machine id.
    pub guests: BTreeMap<u32, u16>,
}

/// Whose server it is.
#[derive(Debug, Clone)]
enum Machine {
    Host(String),
    Guest(u32),
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "host {name}"),
            Self::Guest(vmid) => write!(f, "vm {vmid}"),
        }
    }
}

/// A server's life: from a boot of its machine to the end of it.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    manner: SshManner,
    boot_id: Option<String>,
}

impl Machine {
    /// What listens now, if anything does.
    fn life(&self, shared: &Shared) -> Option<Life> {
        let life = shared.read(|world| match self {
            Self::Host(name) => {
                let host = world.hosts.get(name).filter(|host| host.online)?;
                Some(Life { manner: host.ssh, boot_id: None })
            }
            Self::Guest(vmid) => {
                let vm = world.vms.get(vmid).filter(|_| world.guest_ssh_up(*vmid))?;
                Some(Life { manner: vm.guest.ssh, boot_id: world.boot_id(*vmid) })
            }
        });
        life.filter(|life| life.manner != SshManner::Refuses)
    }
}

/// Starts a server for each host and each guest; every one has its port for the whole life of the lab, also while its
/// machine is off (then it refuses).
///
/// # Errors
/// [`LabError`] where no port can be had.
pub async fn serve(shared: &Arc<Shared>, keys: &Keys, fronts: &mut Fronts) -> Result<Ports, LabError> {
    let user = Arc::new(keys.user.public_key().clone());
    let mut ports = Ports::default();
    let hosts = keys.hosts.iter().map(|(name, key)| (Machine::Host(name.clone()), key));
    let guests = keys.guests.iter().map(|(vmid, key)| (Machine::Guest(*vmid), key));
    for (machine, key) in hosts.chain(guests) {
        let server = Server::new(shared.clone(), machine.clone(), key, user.clone())?;
        let port = server.address.port();
        match machine {
            Machine::Host(name) => ports.hosts.insert(name, port),
            Machine::Guest(vmid) => ports.guests.insert(vmid, port),
        };
        if shared.read(|world| server.is_real(world)) {
            // Its own sshd listens there, by its process.
            fronts.spawn(async move {
                let _place = server;
                std::future::pending().await
            });
            continue;
        }
        // Whoever is up listens before anybody is told the port.
        let changes = shared.changes();
        let open = server.open()?;
        fronts.spawn(server.run(open, changes));
    }
    Ok(ports)
}

struct Server {
    shared: Arc<Shared>,
    machine: Machine,
    user: Arc<PublicKey>,
    usual: Arc<Config>,
    /// With a host key that nobody recorded.
    other: Arc<Config>,
    address: SocketAddr,
    /// Bound and never listening: it keeps the port for us while nothing listens, and the system refuses connections.
    _place: TcpSocket,
}

impl Server {
    fn new(shared: Arc<Shared>, machine: Machine, key: &PrivateKey, user: Arc<PublicKey>) -> Result<Self, LabError> {
        let place = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = place.local_addr()?;
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
        let stranger = PrivateKey::new(pair.into(), "nobody").map_err(io::Error::other)?;
        let (usual, other) = (config(key.clone()), config(stranger));
        Ok(Self { shared, machine, user, usual, other, address, _place: place })
    }

    /// A machine with a guest of its own, which nothing here stands in for.
    fn is_real(&self, world: &World) -> bool {
        matches!(&self.machine, Machine::Guest(vmid) if world.vms.get(vmid).is_some_and(|vm| vm.guest.image.is_some()))
    }

    /// Listens, if there is anything to listen now.
    fn open(&self) -> io::Result<Option<(Life, TcpListener)>> {
        let Some(life) = self.machine.life(&self.shared) else { return Ok(None) };
        Ok(Some((life, bound(self.address)?.listen(64)?)))
    }

    async fn run(self, mut open: Option<(Life, TcpListener)>, mut changes: watch::Receiver<u64>) {
        loop {
            if let Some((life, listener)) = open.take() {
                self.listen(&listener, &life, &mut changes).await;
            }
            if changes.changed().await.is_err() {
                return;
            }
            open = self.open().unwrap_or_else(|error| {
                tracing::error!(%error, machine = %self.machine, "sshd cannot listen");
                None
            });
        }
    }

    /// Serves for one life; the connections end with it.
    async fn listen(&self, listener: &TcpListener, life: &Life, changes: &mut watch::Receiver<u64>) {
        let mut connections = JoinSet::new();
        let ended = || self.machine.life(&self.shared).as_ref() != Some(life);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    while connections.try_join_next().is_some() {}
                    if let (Ok((stream, _)), false) = (accepted, ended()) {
                        connections.spawn(self.connection(stream, life.manner));
                    }
                }
                changed = changes.changed() => {
                    if changed.is_err() || ended() {
                        // The caller looks again at once: a machine that is up again by now listens again.
                        changes.mark_changed();
                        return;
                    }
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream, manner: SshManner) -> impl Future<Output = ()> + Send + 'static {
        let (shared, machine, user) = (self.shared.clone(), self.machine.clone(), self.user.clone());
        let config = if manner == SshManner::OtherHostKey { self.other.clone() } else { self.usual.clone() };
        async move {
            let served = async {
                match manner {
                    SshManner::Silent => hold(stream).await,
                    SshManner::BannerOnly => {
                        let mut stream = stream;
                        stream.write_all(format!("{BANNER}\r\n").as_bytes()).await?;
                        hold(stream).await
                    }
                    _ => {
                        let (stream, cut) = cuttable(stream)?;
                        let _ends_with_us = EndsWithUs(cut.clone());
                        let login = Login { shared, machine, manner, user, cut };
                        let session = run_stream(config, stream, login).await.map_err(io::Error::other)?;
                        session.await.map_err(io::Error::other)
                    }
                }
            };
            if let Err(error) = served.await {
                tracing::trace!(%error, "ssh connection ended");
            }
        }
    }
}

/// Cuts a connection when its server goes: russh runs each one on its own.
struct EndsWithUs(Arc<Cut>);

impl Drop for EndsWithUs {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// A socket on a port that several sockets of ours may share, of which at most one listens.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn config(key: PrivateKey) -> Arc<Config> {
    Arc::new(Config {
        server_id: SshId::Standard(BANNER.into()),
        keys: vec![key],
        // There is nobody here to keep from guessing.
        auth_rejection_time: Duration::ZERO,
        nodelay: true,
        ..Config::default()
    })
}

fn cuttable(stream: TcpStream) -> io::Result<(TcpStream, Arc<Cut>)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let cut = Cut(stream.try_clone()?);
    Ok((TcpStream::from_std(stream)?, Arc::new(cut)))
}

/// Reads until the client is gone, and says nothing.
async fn hold(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 512];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
