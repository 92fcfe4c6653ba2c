//! Access to guests and hosts: ssh, the guest agent, and the way from one to the other.
//!
//! A [`Guest`] has routes, tried in order inside one call. A question ([`Guest::look`]) may go to the next route
//! whatever happened to it on the way. A change ([`Guest::run`]) goes to the first route that lets us in, and is never
//! handed to a second one after it may have run, unless it is declared repeatable. A route that was silent lately is
//! tried after the others. The ssh connections stay open between the commands: see [`Sessions`].

mod agent;
mod by_host;
mod command;
mod error;
mod host;
mod key;
pub mod known_hosts;
mod look;
mod nvme;
mod sessions;
mod silent;
mod ssh;
mod tried;

pub use agent::{AgentFacts, AgentTried, Fact, agent_channel, try_agent, try_ping};
pub use by_host::{ByHost, Targets};
pub use command::{Command, Exit, Output, Seen, quote};
pub use error::{Error, Phase};
pub use key::KeySource;
pub use look::{GuestUsb, Look, usb_devices};
pub use nvme::{drive_parts, nvme_drives};
pub use sessions::Sessions;
pub use silent::Silent;
pub use ssh::{OUTPUT_CAP, SshTarget};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::fault::{Effect, Failure};
use crate::base::permit::{Note, Permit, System};
use crate::base::wait::{Backoff, Elapsed, within};
use crate::proxmox::Proxmox;

use tried::Tried;

/// A machine that commands can be run on: a VM's guest, or a host.
#[derive(Debug, Clone)]
pub struct Guest {
    name: String,
    entrances: Vec<Entrance>,
    clock: Clock,
    silent: Silent,
    sessions: Sessions,
}

/// A way in.
#[derive(Debug, Clone)]
pub enum Route {
    /// ssh to the machine itself.
    Ssh(SshTarget),
    /// The guest agent, by the Proxmox API.
    Agent {
        /// The cluster.
        proxmox: Arc<Proxmox>,
        /// The VM.
        vmid: u32,
    },
    /// ssh to the Proxmox host of a VM, and `qm guest exec` there.
    HostSsh {
        /// The host that runs the VM.
        host: SshTarget,
        /// The VM.
        vmid: u32,
    },
    /// One that cannot be tried, with the reason; it answers with it.
    Closed {
        /// The kind of route, as in the site file.
        kind: &'static str,
        /// Why.
        why: String,
        /// What to do about it.
        help: Option<String>,
        /// Waiting does not mend it.
        lasting: bool,
    },
}

impl Route {
    /// A route of this kind that could not be opened.
    pub fn closed(kind: &'static str, failure: &Failure) -> Self {
        let fault = failure.fault();
        Self::Closed { kind, why: failure.to_string(), help: fault.help(), lasting: !fault.retryable() }
    }

    /// The error of a closed route.
    fn refusal(&self, why: &str, help: Option<&String>, lasting: bool) -> Error {
        Error::Closed { at: self.label(), why: why.to_owned(), help: help.cloned(), lasting }
    }

    /// Its name in notes and errors.
    pub fn label(&self) -> String {
        match self {
            Self::Ssh(target) => target.to_string(),
            Self::Agent { proxmox, vmid } => format!("agent of vm {vmid} (cluster {})", proxmox.cluster()),
            Self::HostSsh { host, vmid } => host::label(host, *vmid),
            Self::Closed { kind, .. } => (*kind).to_owned(),
        }
    }
}

/// Where a way in begins: a route, or one that is found when its turn comes.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// This one.
    At(Route),
    /// ssh to the host on which the VM is by then.
    ByHost(ByHost),
}

impl From<Route> for Entrance {
    fn from(route: Route) -> Self {
        Self::At(route)
    }
}

impl Entrance {
    /// The route that it is now.
    async fn route(&self) -> Cow<'_, Route> {
        match self {
            Self::ByHost(by) => Cow::Owned(by.find().await),
            Self::At(route) => Cow::Borrowed(route),
        }
    }

    /// The route to where the VM is by now, where the host of `route` has not let anybody in.
    async fn elsewhere<T>(&self, route: &Route, answer: &Result<T, Error>) -> Option<Route> {
        let Self::ByHost(by) = self else { return None };
        if !matches!(answer, Err(Error::HostExec { .. } | Error::HostExecLost { .. })) {
            return None;
        }
        by.find_now().await.filter(|now| now.label() != route.label())
    }

    /// Its name in notes and errors.
    fn label(&self) -> String {
        match self {
            Self::ByHost(by) => by.to_string(),
            Self::At(route) => route.label(),
        }
    }
}

impl Guest {
    /// A machine by its name in the site file and the ways into it, most wanted first.
    pub fn new(name: impl Into<String>, ways: Vec<impl Into<Entrance>>, clock: Clock) -> Self {
        let entrances = ways.into_iter().map(Into::into).collect();
        Self { name: name.into(), entrances, clock, silent: Silent::default(), sessions: Sessions::default() }
    }

    /// With what is known of ways in: those that were silent lately, and the connections that are open.
    #[must_use]
    pub fn knowing(self, silent: Silent, sessions: Sessions) -> Self {
        Self { silent, sessions, ..self }
    }

    /// The entrances in the order in which they are tried now, and why some of them come last.
    fn in_order(&self) -> (Vec<&Entrance>, Tried) {
        let mut tried = Tried::default();
        let (mut now, mut last) = (Vec::new(), Vec::new());
        for entrance in &self.entrances {
            match self.silent.lately(&entrance.label(), self.clock) {
                Some(why) => {
                    tried.left_out.push((entrance.label(), why));
                    last.push(entrance);
                }
                None => now.push(entrance),
            }
        }
        now.extend(last);
        (now, tried)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks a question. A status other than 0 is an answer, not an error.
    ///
    /// # Errors
    /// Where no route answers: that route's error where there is one route, else [`Error::AllRoutes`].
    pub async fn look(&self, look: &Look) -> Result<Seen<Output>, Error> {
        self.ask(look, Ok).await
    }

    /// The USB devices that the machine sees, with their speeds.
    ///
    /// # Errors
    /// As [`Guest::look`]; an answer that is no whole list counts as none.
    pub async fn usb(&self) -> Result<Seen<Vec<GuestUsb>>, Error> {
        self.ask(&Look::UsbList, |output| usb_devices(&output)).await
    }

    /// The kernel's boot id; another one after each boot.
    ///
    /// # Errors
    /// As [`Guest::look`].
    pub async fn boot_id(&self) -> Result<Seen<String>, Error> {
        self.ask(&Look::BootId, |output| Ok(look::text("the boot id", output)?.trim().to_owned())).await
    }

    /// Whether a path exists.
    ///
    /// # Errors
    /// As [`Guest::look`].
    pub async fn exists(&self, path: &str) -> Result<Seen<bool>, Error> {
        self.ask(&Look::Exists(path.to_owned()), |output| look::existence(path, &output)).await
    }

    /// A file's content.
    ///
    /// # Errors
    /// As [`Guest::look`]; a file that is not there, or longer than 1 MiB.
    pub async fn file(&self, path: &str) -> Result<Seen<String>, Error> {
        self.ask(&Look::File(path.to_owned()), |output| look::text(path, output)).await
    }

    /// The bytes below a directory, on its own file system.
    ///
    /// # Errors
    /// As [`Guest::look`]; a directory that could not be read as a whole.
    pub async fn disk_use(&self, path: &str) -> Result<Seen<u64>, Error> {
        self.ask(&Look::DiskUse(path.to_owned()), |output| look::disk_use(path, &output)).await
    }

    async fn ask<T>(&self, look: &Look, read: impl Fn(Output) -> Result<T, Error>) -> Result<Seen<T>, Error> {
        let argv = look.argv()?;
        sendable(&argv)?;
        let (entrances, mut tried) = self.in_order();
        for entrance in entrances {
            let mut way = entrance.route().await;
            let mut answer = self.ask_by(&way, &argv, look).await.and_then(&read);
            if let Some(now) = entrance.elsewhere(&way, &answer).await {
                way = Cow::Owned(now);
                answer = self.ask_by(&way, &argv, look).await.and_then(&read);
            }
            // A device that comes or goes while the list is made leaves half an entry.
            let mut pauses = Backoff::new(self.clock, Duration::from_millis(200), Duration::from_secs(1));
            for _ in 0..2 {
                if !matches!((look, &answer), (Look::UsbList | Look::NvmeList, Err(Error::BadAnswer { .. }))) {
                    break;
                }
                pauses.pause().await;
                answer = self.ask_by(&way, &argv, look).await.and_then(&read);
            }
            self.silent.heard(&entrance.label(), &answer, self.clock);
            match answer {
                Ok(value) => return Ok(tried.seen(value, entrance, &way)),
                Err(error) => tried.push(entrance, &way, error),
            }
        }
        Err(tried.error(&self.name, Effect::None))
    }

    async fn ask_by(&self, route: &Route, argv: &[String], look: &Look) -> Result<Output, Error> {
        match route {
            Route::Ssh(target) => self.sessions.open(target, self.clock).await?.exec(argv, look.limit()).await,
            Route::Agent { proxmox, vmid } => {
                let answer = within(look.limit(), agent::look(proxmox, *vmid, argv)).await;
                answer.unwrap_or_else(|Elapsed(limit)| {
                    Err(Error::TimedOut { at: route.label(), phase: Phase::Command, limit })
                })
            }
            Route::HostSsh { host, vmid } => {
                let session = self.sessions.open(host, self.clock).await?;
                host::exec(session, &route.label(), *vmid, argv, look.limit()).await
            }
            Route::Closed { why, help, lasting, .. } => Err(route.refusal(why, help.as_ref(), *lasting)),
        }
    }

    /// Runs a command that may change something, by the first route that lets us in. A status other than 0 is an
    /// answer, not an error.
    ///
    /// # Errors
    /// [`Error::LostAnswer`] where it may have run and its end is not known; [`Error::Refused`] where the permit
    /// stopped it; otherwise as [`Guest::look`].
    pub async fn run(&self, command: &Command, permit: &Permit) -> Result<Seen<Output>, Error> {
        sendable(&command.argv)?;
        let (entrances, mut tried) = self.in_order();
        for entrance in entrances {
            let mut way = entrance.route().await;
            let mut answer = self.run_by(&way, command, permit).await;
            if answer.as_ref().is_err_and(|error| !error.may_have_run())
                && let Some(now) = entrance.elsewhere(&way, &answer).await
            {
                way = Cow::Owned(now);
                answer = self.run_by(&way, command, permit).await;
            }
            self.silent.heard(&entrance.label(), &answer, self.clock);
            match answer {
                Ok(output) => return Ok(tried.seen(output, entrance, &way)),
                Err(Error::Refused(refused)) => return Err(refused.into()),
                Err(error) if error.may_have_run() && !command.repeatable => {
                    return Err(Error::LostAnswer {
                        guest: self.name.clone(),
                        command: quote(&command.argv),
                        route: way.label(),
                        source: Box::new(error),
                    });
                }
                Err(error) => tried.push(entrance, &way, error),
            }
        }
        // Only a repeatable command comes here after it may have run.
        let lost = tried.failures.iter().any(|(_, error)| error.may_have_run());
        Err(tried.error(&self.name, if lost { Effect::Maybe } else { Effect::None }))
    }

    /// Tries each kind of route by itself; nothing is changed, and no failure is an error here.
    pub async fn facts(&self) -> Facts {
        let mut facts = Facts { ssh: None, agent: None };
        let routes = self.entrances.iter().filter_map(|entrance| match entrance {
            Entrance::At(route) => Some(route),
            Entrance::ByHost(_) => None,
        });
        for route in routes {
            match route {
                Route::Ssh(target) if facts.ssh.is_none() => {
                    facts.ssh = Some(match self.silent.lately(&route.label(), self.clock) {
                        Some(why) => Fact::Unknown(why),
                        None => {
                            // A channel that opens now shows that its server is there, and lets in whom it let in before.
                            let session = self.sessions.open(target, self.clock).await;
                            self.silent.heard(&route.label(), &session, self.clock);
                            match session {
                                Ok(session) => {
                                    session.leave().await;
                                    Fact::Yes
                                }
                                Err(error @ Error::TimedOut { .. }) => Fact::Unknown(error.line()),
                                Err(error) => Fact::No(error.line()),
                            }
                        }
                    });
                }
                Route::Agent { proxmox, vmid } if facts.agent.is_none() => {
                    facts.agent = Some(agent::facts(proxmox, *vmid).await);
                }
                Route::Closed { kind: "ssh", why, .. } if facts.ssh.is_none() => {
                    facts.ssh = Some(Fact::Unknown(why.clone()));
                }
                Route::Closed { kind: "agent", why, .. } if facts.agent.is_none() => {
                    let unknown = || Fact::Unknown(why.clone());
                    facts.agent = Some(AgentFacts { channel: unknown(), ping: unknown(), exec: unknown() });
                }
                _ => {}
            }
        }
        facts
    }

    async fn run_by(&self, route: &Route, command: &Command, permit: &Permit) -> Result<Output, Error> {
        let note = || {
            let text = format!("{} ({}): {}", self.name, route.label(), quote(&command.argv));
            if command.repeatable { Note::safe(System::Ssh, text) } else { Note::once(System::Ssh, text) }
        };
        match route {
            Route::Ssh(target) => {
                let session = self.sessions.open(target, self.clock).await?;
                permit.note(&note())?;
                session.exec(&command.argv, command.limit).await
            }
            // The client of the Proxmox API writes its own line.
            Route::Agent { proxmox, vmid } => agent::run(proxmox, *vmid, command, permit).await,
            Route::HostSsh { host, vmid } => {
                let session = host::probe(&self.sessions, host, *vmid, self.clock).await?;
                permit.note(&note())?;
                host::exec(session, &route.label(), *vmid, &command.argv, command.limit).await
            }
            Route::Closed { why, help, lasting, .. } => Err(route.refusal(why, help.as_ref(), *lasting)),
        }
    }
}

/// What is known of the ways into a machine. A field is None where the site names no such route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The server has just opened a channel, on the connection that is kept or with a login.
    pub ssh: Option<Fact>,
    /// The guest agent.
    pub agent: Option<AgentFacts>,
}

fn sendable(argv: &[String]) -> Result<(), Error> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Error::BadCommand { what: "the command has no program".into() });
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(Error::BadCommand { what: format!("`{}` holds a zero byte", quote(argv).escape_default()) });
    }
    Ok(())
}
