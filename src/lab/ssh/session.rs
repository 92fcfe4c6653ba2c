//! One login and its commands.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Pty};

use super::{Machine, shell};
use crate::lab::fault::FaultEffect;
use crate::lab::log::Entry;
use crate::lab::programs::ExecOutcome;
use crate::lab::world::{SshManner, World};
use crate::lab::{Class, Front, Shared};

/// Exit code of an ssh client whose session failed; stands in the log where there is no other.
const FAILED: u16 = 255;

/// Ends a connection from outside of russh.
#[derive(Debug)]
pub(super) struct Cut(pub(super) std::net::TcpStream);

impl Cut {
    pub(super) fn now(&self) {
        // An error means that it has ended already.
        let _gone = self.0.shutdown(Shutdown::Both);
    }
}

/// The server's side of one connection.
pub(super) struct Login {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: Machine,
    pub(super) manner: SshManner,
    pub(super) user: Arc<PublicKey>,
    pub(super) cut: Arc<Cut>,
}

impl Login {
    fn log(&self, seq: u64, class: Class, method: &str, what: &str, status: u16, fault: Option<&str>) {
        let entry = Entry { front: Front::Ssh, class, method, what, status, fault };
        self.shared.log.write(seq, self.shared.clock.timestamp(self.shared.clock.now()), &entry);
    }

    /// Whether the key is one that this machine lets in.
    fn knows(&self, user: &str, key: &PublicKey) -> bool {
        user == "root" && self.manner != SshManner::RefusesKeys && key.key_data() == self.user.key_data()
    }
}

/// What a command is to the estate. Through `qm guest exec` it is what the command inside is.
fn class(world: &World, argv: &[String]) -> Class {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let inside = match words.as_slice() {
        ["qm", "agent", _, "ping"] | ["qm", "guest", "cmd", _, "ping"] => return Class::Ping,
        ["qm", "guest", "exec", _, rest @ ..] => {
            let after_options = rest.iter().position(|word| *word == "--").map_or(4, |at| 4 + at + 1);
            argv.get(after_options..).unwrap_or_default()
        }
        _ => argv,
    };
    if world.reads_only(inside) { Class::Look } else { Class::Change }
}

fn run(shared: &Shared, machine: &Machine, argv: &[String]) -> ExecOutcome {
    shared.change(|world| match machine {
        Machine::Guest(vmid) => world.guest_exec(*vmid, argv, &[]),
        Machine::Host(host) => world.host_exec(host, argv, &[]),
    })
}

/// How an answer goes out, if at all.
enum Reply {
    Outcome(ExecOutcome, Duration),
    Refuse,
    Silence,
    Cut,
}

impl Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        if self.knows(user, offer.public_key) {
            return Ok(Auth::Accept);
        }
        let (seq, what) = (self.shared.log.next(), format!("{}: {user}", self.machine));
        self.log(seq, Class::Login, "login", &what, FAILED, None);
        Ok(Auth::reject())
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        if !self.knows(user, key.public_key) {
            return Ok(Auth::reject());
        }
        let (seq, what) = (self.shared.log.next(), format!("{}: {user}", self.machine));
        let effect = self.shared.meet_fault(Front::Ssh, "login", &what, Class::Login);
        let name = effect.as_ref().map(name);
        match effect {
            None | Some(FaultEffect::Stale) => self.log(seq, Class::Login, "login", &what, 0, None),
            Some(FaultEffect::Delay(ms)) => {
                self.shared.clock.pause(Duration::from_millis(ms)).await;
                self.log(seq, Class::Login, "login", &what, 0, name);
            }
            Some(
                FaultEffect::Refuse | FaultEffect::Echo(_) | FaultEffect::Status(..) | FaultEffect::StatusAfter(..),
            ) => {
                self.log(seq, Class::Login, "login", &what, FAILED, name);
                return Ok(Auth::reject());
            }
            Some(FaultEffect::Hang | FaultEffect::HangAfter) => {
                self.log(seq, Class::Login, "login", &what, 0, name);
                std::future::pending::<()>().await;
            }
            Some(FaultEffect::ResetBefore | FaultEffect::ResetAfter) => {
                self.log(seq, Class::Login, "login", &what, 0, name);
                self.cut.now();
                return Err(russh::Error::Disconnect);
            }
        }
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let line = String::from_utf8_lossy(data).into_owned();
        let seq = self.shared.log.next();
        let argv = shell::argv(&line);
        let class = self.shared.read(|world| class(world, &argv));
        let what = format!("{}: {line}", self.machine);
        let effect = self.shared.meet_fault(Front::Ssh, "exec", &what, class);
        let fault = effect.as_ref().map(name);
        let run = || run(&self.shared, &self.machine, &argv);
        let failed =
            |text: &str| ExecOutcome { exit: 255, stderr: format!("{text}\n").into_bytes(), ..Default::default() };
        let (status, reply) = match effect {
            Some(FaultEffect::Refuse) => (FAILED, Reply::Refuse),
            Some(FaultEffect::Hang) => (0, Reply::Silence),
            Some(FaultEffect::ResetBefore) => (0, Reply::Cut),
            Some(FaultEffect::HangAfter) => (exit(&run()), Reply::Silence),
            Some(FaultEffect::ResetAfter) => (exit(&run()), Reply::Cut),
            Some(FaultEffect::Echo(_)) => (FAILED, Reply::Outcome(failed(&line), Duration::ZERO)),
            Some(FaultEffect::Status(_, text)) => (FAILED, Reply::Outcome(failed(&text), Duration::ZERO)),
            Some(FaultEffect::StatusAfter(_, text)) => {
                let _lost = run();
                (FAILED, Reply::Outcome(failed(&text), Duration::ZERO))
            }
            None | Some(FaultEffect::Stale | FaultEffect::Delay(_)) => {
                let outcome = run();
                let late = if let Some(FaultEffect::Delay(ms)) = effect { ms } else { 0 };
                (exit(&outcome), Reply::Outcome(outcome, Duration::from_millis(late)))
            }
        };
        self.log(seq, class, "exec", &what, status, fault);
        match reply {
            Reply::Refuse => session.channel_failure(channel),
            Reply::Silence => Ok(()),
            Reply::Cut => {
                self.cut.now();
                Err(russh::Error::Disconnect)
            }
            Reply::Outcome(outcome, late) => {
                session.channel_success(channel)?;
                let cut = (self.manner == SshManner::Cuts).then(|| self.cut.clone());
                let (shared, handle) = (self.shared.clone(), session.handle());
                // Beside the session, which has to go on answering keepalives while a command takes its time.
                tokio::spawn(async move {
                    shared.clock.pause(outcome.took + late).await;
                    match cut {
                        Some(cut) => cut.now(),
                        None => send(&handle, channel, outcome).await,
                    }
                });
                Ok(())
            }
        }
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }
}

async fn send(handle: &Handle, channel: ChannelId, outcome: ExecOutcome) {
    let status = u32::from(exit(&outcome));
    // Each fails only where the client is gone, and then there is nobody to tell.
    let sent = async {
        if !outcome.stdout.is_empty() {
            handle.data(channel, outcome.stdout).await.ok()?;
        }
        if !outcome.stderr.is_empty() {
            handle.extended_data(channel, 1, outcome.stderr).await.ok()?;
        }
        handle.exit_status_request(channel, status).await.ok()?;
        handle.eof(channel).await.ok()?;
        handle.close(channel).await.ok()
    };
    if sent.await.is_none() {
        tracing::debug!("the ssh client left before its answer");
    }
}

/// An exit code as the wire has it.
fn exit(outcome: &ExecOutcome) -> u16 {
    u16::from(outcome.exit.to_le_bytes()[0])
}

fn name(effect: &FaultEffect) -> &'static str {
    match effect {
        FaultEffect::Refuse => "refuse",
        FaultEffect::Delay(_) => "delay",
        FaultEffect::Hang => "hang",
        FaultEffect::HangAfter => "hang-after",
        FaultEffect::Echo(_) => "echo",
        FaultEffect::Status(..) => "status",
        FaultEffect::StatusAfter(..) => "status-after",
        FaultEffect::ResetBefore => "reset-before",
        FaultEffect::ResetAfter => "reset-after",
        FaultEffect::Stale => "stale",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn through_qm_a_command_is_what_it_is_inside() {
        let mut world = World::default();
        world.reading_commands.push(vec!["/opt/check".into(), "--dry".into()]);
        let class = |line: &str| class(&world, &shell::argv(line));
        assert_eq!(class("cat /etc/hostname"), Class::Look);
        assert_eq!(class("/opt/check --dry now"), Class::Look);
        assert_eq!(class("/opt/check now"), Class::Change);
        assert_eq!(class("qm agent 108 ping"), Class::Ping);
        assert_eq!(class("qm guest exec 108 --timeout 20 -- /opt/check --dry now"), Class::Look);
        assert_eq!(class("qm guest exec 108 -- apt-get install x"), Class::Change);
        assert_eq!(class("qm guest exec 108 cat /etc/hostname"), Class::Look);
        assert_eq!(class("qm start 108"), Class::Change);
        assert_eq!(class("cat /a | tee /b"), Class::Change);
    }
}
