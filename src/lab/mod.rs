//! The embedded simulated estate, speaking the real protocols on loopback.
//!
//! One [`World`] behind its fronts. A front reads it with [`Shared::read`] and changes it with [`Shared::change`];
//! what follows from a change, at once or later, is the world's own affair ([`physics`]), not the front's. The lab
//! shares no type with a client: it writes its JSON by hand, so that a misspelt field cannot be misspelt on both sides.

pub mod agenda;
mod bmc;
pub mod chassis;
pub mod clock;
pub mod compare;
pub mod control;
pub mod fault;
pub mod files;
pub mod kube;
pub mod large;
pub mod log;
pub mod machine;
pub mod nvme;
pub mod passthrough;
pub mod physics;
pub mod programs;
pub mod pve;
mod qemu;
mod reading;
mod shared;
pub mod ssh;
pub mod talos;
pub mod usb;
pub mod wire;
mod words;
pub mod world;
mod worlds;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::base::check::DriveMove;

pub use fault::{FaultEffect, FaultRule};
pub use shared::{Moment, Shared};
pub use wire::{Class, Front};
pub use world::{Place, World};
pub use worlds::{WorldName, load, names, read};

/// How a lab is started.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// The world to start from.
    pub world: World,
    /// Folder that gets the site file and all else; made if absent.
    pub dir: PathBuf,
    /// Lab seconds in one real second.
    pub speed: u32,
}

/// Why a lab does not start, or does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No world of that name.
    #[error("there is no world `{name}`; there are: {known}")]
    NoWorld {
        /// Asked for.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// A world file that does not fit.
    #[error("the world file does not fit: {0}")]
    BadWorld(String),
    /// Hands cannot do that.
    #[error("that cannot be done by hand: {0}")]
    Hands(String),
    /// Its folder cannot be made, or is none.
    #[error("{} cannot be the lab's folder", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Files or sockets.
    #[error("the lab cannot use its files or ports")]
    Io(#[from] std::io::Error),
    /// A certificate could not be made.
    #[error("the lab cannot make its certificates: {0}")]
    Tls(String),
    /// A QEMU process that was to play a machine.
    #[error("the real machine {vmid} does not run: {why}")]
    Machine {
        /// Virtual machine.
        vmid: u32,
        /// Why.
        why: String,
    },
    /// A lab runs in the folder already.
    #[error("a lab runs in {} already", dir.display())]
    Second {
        /// The folder.
        dir: PathBuf,
    },
    /// No lab runs in the folder.
    #[error("no lab runs in {}", dir.display())]
    NoLab {
        /// The folder.
        dir: PathBuf,
    },
    /// Whether a lab runs in the folder cannot be seen, or it cannot be asked.
    #[error("a lab in {} cannot be asked", dir.display())]
    Unasked {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The control socket answered with an error or not at all.
    #[error("the running lab says: {0}")]
    Control(String),
}

impl From<rcgen::Error> for LabError {
    fn from(error: rcgen::Error) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<rustls::Error> for LabError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error.to_string())
    }
}

/// The servers of a lab; they end with it.
#[derive(Debug, Default)]
pub struct Fronts(JoinSet<()>);

impl Fronts {
    /// Runs `work` for the life of the lab.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(work);
    }
}

/// A running lab. Dropping it ends its servers; the files stay.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    reach: files::Reach,
    dir: PathBuf,
    fronts: Fronts,
}

impl Lab {
    /// The world as a lab's users first meet it: machines up, claims bound, Flux at rest. Labs that are started from
    /// it need not go that way again; `dir` is written to as by [`Lab::start`] and may be thrown away.
    ///
    /// # Errors
    /// [`LabError`]
    pub fn at_rest(mut world: World, dir: &Path) -> Result<World, LabError> {
        std::fs::create_dir_all(dir)?;
        kube::prepare(&mut world, dir)?;
        let clock = clock::LabClock::start(1);
        world.begin(clock.now(), clock.timestamp(clock::LabTime::ZERO).as_second());
        world.tick(clock.now());
        Ok(world)
    }

    /// Starts a lab: fronts on free ports of 127.0.0.1, and the files of [`files`] in `options.dir`.
    ///
    /// # Errors
    /// [`LabError`]
    pub async fn start(options: LabOptions) -> Result<Self, LabError> {
        let folder = std::fs::create_dir_all(&options.dir).and_then(|()| options.dir.canonicalize());
        let dir = folder.map_err(|source| LabError::Folder { dir: options.dir.clone(), source })?;
        // Before anything is written: its files are those of the lab that runs there.
        control::refuse_second(&dir)?;
        let mut world = options.world;
        kube::prepare(&mut world, &dir)?;
        pve::make_secrets(&mut world)?;
        pve::know_version(&mut world);
        let keys = files::Keys::make(&world)?;
        let shared = Arc::new(Shared::new(world, options.speed, &dir.join("requests.jsonl"))?);
        let authority = wire::Authority::make()?;
        let mut fronts = Fronts::default();
        fronts.spawn(shared::keep_time(shared.clone()));
        let proxmox = pve::serve(&shared, &authority, &mut fronts).await?;
        let kubernetes = kube::serve(&shared, &authority, &mut fronts).await?;
        let ssh = ssh::serve(&shared, &keys, &mut fronts).await?;
        let talos = talos::serve(&shared, &kubernetes.administrator, &authority, &mut fronts).await?;
        qemu::serve(&shared, &keys, &ssh, &dir, &mut fronts).await?;
        let reach = files::Reach { proxmox, kubernetes, ssh, talos, authority: authority.pem() };
        bmc::serve(&shared, &dir, &mut fronts)?;
        files::write(&dir, &shared, &reach, &keys)?;
        control::serve(&shared, &dir, &mut fronts)?;
        Ok(Self { shared, reach, dir, fronts })
    }

    /// The world and its clock.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Ports, fingerprints and the like.
    pub fn reach(&self) -> &files::Reach {
        &self.reach
    }

    /// The folder with the site file.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a fault rule.
    pub fn fault(&self, rule: FaultRule) {
        self.shared.add_fault(rule);
    }

    /// Takes a stick out and puts it in elsewhere; `None`: leaves it in the hand.
    ///
    /// # Errors
    /// [`LabError::Hands`] where there is no such stick, host or port, or the socket is taken.
    pub fn move_stick(&self, stick: &str, place: Option<Place>) -> Result<(), LabError> {
        self.shared.change(|world| world.move_stick(stick, place))
    }

    /// Puts another machine in the place of a Talos node; see [`World::swap_machine`].
    ///
    /// # Errors
    /// [`LabError::Hands`]
    pub fn swap(&self, node: &str) -> Result<String, LabError> {
        self.shared.change(|world| world.swap_machine(node))
    }

    /// Moves a drive as a person names it; see [`World::move_drive`].
    ///
    /// # Errors
    /// [`LabError::Hands`]
    pub fn move_drive(&self, which: &str, to: &str) -> Result<String, LabError> {
        self.shared.change(|world| world.move_drive(which, to))
    }

    /// Moves drives of a machine that is off, as a run asks for it; see [`World::hands_on_drives`].
    ///
    /// # Errors
    /// [`LabError::Hands`]
    pub fn hands_on_drives(
        &self,
        node: &str,
        moves: &[DriveMove],
        medium: Option<&str>,
        on: bool,
    ) -> Result<String, LabError> {
        self.shared.change(|world| world.hands_on_drives(node, moves, medium, on))
    }

    /// Presses the power button of a Talos node; see [`World::press_button`].
    ///
    /// # Errors
    /// [`LabError::Hands`]
    pub fn press_button(&self, node: &str) -> Result<String, LabError> {
        self.shared.change(|world| world.press_button(node))
    }

    /// Pushes a commit that another repository on this machine holds, through `DIR/checkout`, as a person would whom
    /// pvemig asks for it. Returns the branch's tip.
    ///
    /// # Errors
    /// [`LabError::Hands`] where git refuses.
    pub fn push(&self, from: &Path, commit: &str, branch: &str) -> Result<String, LabError> {
        kube::push_from(&self.dir, from, commit, branch)
    }

    /// The world without what a server sets by itself; see [`compare`].
    pub fn compared(&self) -> serde_json::Value {
        self.shared.read(World::compared)
    }

    /// Waits until a process has asked the lab to stop over its control socket.
    pub async fn stopped(&self) {
        self.shared.stopped().await;
    }

    /// Ends the servers and waits for that.
    pub async fn stop(mut self) {
        self.fronts.0.shutdown().await;
    }
}
