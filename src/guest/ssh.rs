//! An ssh login, and commands over its connection.
//!
//! russh waits for ever by default, so every part of a login stands under one deadline; a peer that sends its banner
//! and then nothing is the case that a plain TCP timeout does not end.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{self, AuthResult, Handle, Msg};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, ChannelMsg, Preferred};
use tokio::net::TcpStream;

use crate::base::clock::Clock;
use crate::base::request::Request;
use crate::base::wait::{Elapsed, limit, within};

use super::command::{Exit, Output, quote};
use super::error::{Error, Phase};
use super::key::{self, KeySource};
use super::known_hosts::{self, Recorded, Verdict};

/// More than this of standard output or standard error is cut off.
pub const OUTPUT_CAP: usize = 1 << 20;

/// How long the channel may stay open after the exit status came: a service that the command started can hold on to
/// its output for ever.
const AFTER_EXIT: Duration = Duration::from_secs(2);

/// Where and as whom to log in.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// A name or an IP address.
    pub address: String,
    /// The port.
    pub port: u16,
    /// The login.
    pub user: String,
    /// Its key.
    pub key: KeySource,
    /// The file that records the host's key. A missing one records nothing.
    pub known_hosts: PathBuf,
    /// For connect, key exchange, authentication and the start of the command together.
    pub login_limit: Duration,
    /// For opening a channel on a connection that is kept, before a fresh login is tried.
    pub channel_limit: Duration,
}

impl SshTarget {
    /// A target with the usual deadline.
    pub fn new(
        address: impl Into<String>,
        port: u16,
        user: impl Into<String>,
        key: KeySource,
        known_hosts: PathBuf,
    ) -> Self {
        let (address, user) = (address.into(), user.into());
        let (login_limit, channel_limit) = (limit::SSH_LOGIN, limit::SSH_CHANNEL);
        Self { address, port, user, key, known_hosts, login_limit, channel_limit }
    }

    /// A login to the one is a login to the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let key = match (&self.key, &other.key) {
            (KeySource::File(one), KeySource::File(other)) => one == other,
            (KeySource::Text(one), KeySource::Text(other)) => one.expose() == other.expose(),
            _ => false,
        };
        let place = |target: &Self| (target.address.clone(), target.port, target.user.clone());
        key && place(self) == place(other) && self.known_hosts == other.known_hosts
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ssh {}@{}", self.user, self.address)?;
        if self.port == 22 { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// The one deadline over all parts of a login.
struct Deadline<'a> {
    at: &'a str,
    clock: Clock,
    left: Duration,
}

impl Deadline<'_> {
    async fn part<T>(&mut self, limit: Duration, phase: Phase, work: impl Future<Output = T>) -> Result<T, Error> {
        let begin: Instant = self.clock.instant();
        let result = within(self.left, work).await;
        self.left = self.left.saturating_sub(self.clock.instant().duration_since(begin));
        result.map_err(|Elapsed(_)| Error::TimedOut { at: self.at.to_owned(), phase, limit })
    }
}

/// Cuts the connection when it goes out of scope: russh's own reader would otherwise wait on for a silent peer.
struct Cut(std::net::TcpStream);

impl Drop for Cut {
    fn drop(&mut self) {
        // An error means that it is cut already.
        let _gone = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection that is logged in. It is cut when the last one who has it lets go.
pub(super) struct Connection {
    handle: Handle<Gate>,
    _cut: Cut,
}

impl Connection {
    /// False where it is known to have ended.
    pub(super) fn is_open(&self) -> bool {
        !self.handle.is_closed()
    }

    /// Opens another channel.
    pub(super) async fn login(self: &Arc<Self>, target: &SshTarget, clock: Clock) -> Result<Login, Error> {
        let asked = Request::begin(clock, target, "channel");
        let (at, limit) = (target.to_string(), target.login_limit);
        let mut deadline = Deadline { at: &at, clock, left: target.channel_limit };
        let channel = self.channel(&mut deadline, target.channel_limit).await;
        asked.ended(if channel.is_ok() { "done" } else { "failed" });
        Ok(Login { channel: channel?, at, clock, left: limit, limit, connection: self.clone() })
    }

    async fn channel(&self, deadline: &mut Deadline<'_>, limit: Duration) -> Result<Channel<Msg>, Error> {
        let channel = deadline.part(limit, Phase::Login, self.handle.channel_open_session()).await?;
        channel.map_err(|error| broken(deadline.at, Phase::Login, error))
    }

    /// Takes leave, so that the server's log does not speak of a lost connection.
    pub(super) async fn farewell(self) {
        if self.handle.disconnect(russh::Disconnect::ByApplication, "", "en").await.is_ok() {
            // What it ends with is no matter.
            let _end = self.handle.await;
        }
    }
}

/// A login that has opened a channel and sent no command on it yet.
pub(super) struct Login {
    at: String,
    clock: Clock,
    left: Duration,
    limit: Duration,
    channel: Channel<Msg>,
    connection: Arc<Connection>,
}

/// Logs in; nothing is run.
pub(super) async fn login(target: &SshTarget, clock: Clock) -> Result<Login, Error> {
    let asked = Request::begin(clock, target, "login");
    let login = logged_in(target, clock).await;
    asked.ended(if login.is_ok() { "done" } else { "failed" });
    login
}

async fn logged_in(target: &SshTarget, clock: Clock) -> Result<Login, Error> {
    let at = target.to_string();
    let limit = target.login_limit;
    let key = Arc::new(key::load(&target.key).await?);
    let recorded = recorded(target, &at).await?;
    let config = Arc::new(client::Config {
        preferred: Preferred { key: Cow::Owned(recorded.algorithms()), ..Preferred::DEFAULT },
        // A dead peer is noticed after four unanswered keepalives, whatever the command's own limit is.
        keepalive_interval: Some(Duration::from_secs(5)),
        keepalive_max: 3,
        inactivity_timeout: Some(Duration::from_secs(60)),
        nodelay: true,
        ..client::Config::default()
    });

    let mut deadline = Deadline { at: &at, clock, left: limit };
    let stream = connect(target, &mut deadline).await?;
    let (stream, cut) = cuttable(stream).map_err(|error| unreachable(&at, &error))?;
    let gate = Gate { recorded };
    let exchange = client::connect_stream(config, stream, gate);
    let mut handle =
        deadline.part(limit, Phase::KeyExchange, exchange).await?.map_err(|stop| stopped(target, &at, stop))?;

    let fingerprint = key.public_key().fingerprint(HashAlg::Sha256).to_string();
    let offer = PrivateKeyWithHashAlg::new(key, None);
    let answer = deadline.part(limit, Phase::Login, handle.authenticate_publickey(&target.user, offer)).await?;
    match answer.map_err(|error| broken(&at, Phase::Login, error))? {
        AuthResult::Success => {}
        // russh reports a connection that ended meanwhile as a refusal without any method left.
        AuthResult::Failure { .. } if handle.is_closed() => {
            return Err(Error::SessionLost { at, phase: Phase::Login });
        }
        AuthResult::Failure { .. } => return Err(Error::AuthRefused { at, fingerprint }),
    }
    let connection = Arc::new(Connection { handle, _cut: cut });
    let channel = connection.channel(&mut deadline, limit).await?;
    let left = deadline.left;
    Ok(Login { at, clock, left, limit, channel, connection })
}

impl Login {
    /// Its connection, for other channels.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Closes the channel; false where the connection is gone.
    pub(super) async fn leave(&self) -> bool {
        self.channel.close().await.is_ok()
    }

    /// Runs one command and waits for its end. Another one needs another channel.
    pub(super) async fn exec(&mut self, argv: &[String], limit: Duration) -> Result<Output, Error> {
        let line = quote(argv);
        let at = || self.at.clone();
        let mut deadline = Deadline { at: &self.at, clock: self.clock, left: self.left };
        let started = deadline.part(self.limit, Phase::Start, start(&mut self.channel, &line)).await?;
        match started {
            Ok(true) => {}
            Ok(false) => return Err(Error::ExecRefused { at: at() }),
            Err(None) => return Err(Error::SessionLost { at: at(), phase: Phase::Start }),
            Err(Some(error)) => return Err(broken(&self.at, Phase::Start, error)),
        }
        let asked = Request::begin(self.clock, &self.at, &line);
        let output = match within(limit, collect(&mut self.channel)).await {
            Ok(output) => output.ok_or_else(|| Error::SessionLost { at: at(), phase: Phase::Command }),
            // The command is left to itself: killing an installation half-way is worse than not knowing its end.
            Err(Elapsed(limit)) => Err(Error::TimedOut { at: at(), phase: Phase::Command, limit }),
        }?;
        asked.ended(&output.exit);
        Ok(output)
    }
}

/// Sends the command; false where the server refuses it, `Err(None)` where the connection ended.
async fn start(channel: &mut Channel<Msg>, line: &str) -> Result<bool, Option<russh::Error>> {
    channel.exec(true, line).await.map_err(Some)?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return Ok(true),
            Some(ChannelMsg::Failure) => return Ok(false),
            Some(_) => {}
            None => return Err(None),
        }
    }
}

/// Reads to the end of the channel; None where it ended without saying how the command did.
async fn collect(channel: &mut Channel<Msg>) -> Option<Output> {
    let mut kept = Kept::default();
    let exit = loop {
        match channel.wait().await? {
            ChannelMsg::ExitStatus { exit_status } => break Exit::Status(exit_status.into()),
            ChannelMsg::ExitSignal { signal_name, .. } => break Exit::Signal(signal(&signal_name)),
            message => kept.take(&message),
        }
    };
    // Data may follow the exit status; the end of the channel is the end.
    let rest = async {
        while let Some(message) = channel.wait().await {
            kept.take(&message);
        }
    };
    if within(AFTER_EXIT, rest).await.is_err() {
        // An error means that the connection is gone.
        let _told = channel.close().await;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Output { exit, stdout: text(&kept.stdout), stderr: text(&kept.stderr), truncated: kept.truncated })
}

#[derive(Default)]
struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    truncated: bool,
}

impl Kept {
    fn take(&mut self, message: &ChannelMsg) {
        let (into, data) = match message {
            ChannelMsg::Data { data } => (&mut self.stdout, data),
            // 1 is standard error, the only other stream there is (RFC 4254 section 5.2).
            ChannelMsg::ExtendedData { data, ext: 1 } => (&mut self.stderr, data),
            _ => return,
        };
        let room = OUTPUT_CAP.saturating_sub(into.len());
        into.extend(data.iter().take(room));
        self.truncated |= data.len() > room;
    }
}

fn signal(signal: &russh::Sig) -> String {
    match signal {
        russh::Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

async fn recorded(target: &SshTarget, at: &str) -> Result<Recorded, Error> {
    let path = &target.known_hosts;
    let text = match tokio::fs::read(path).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(Error::KnownHosts { at: at.to_owned(), path: path.clone(), source }),
    };
    let recorded = Recorded::read(&text, &target.address, target.port);
    if recorded.only_unverifiable() {
        let scan = format!("ssh-keyscan -t ed25519 -p {} {}", target.port, target.address);
        return Err(Error::HostKeyRsa { at: at.to_owned(), path: path.clone(), scan });
    }
    Ok(recorded)
}

async fn connect(target: &SshTarget, deadline: &mut Deadline<'_>) -> Result<TcpStream, Error> {
    let (at, limit) = (deadline.at, target.login_limit);
    let not_found = |why: String| Error::NameNotFound { at: at.to_owned(), name: target.address.clone(), why };
    let lookup = tokio::net::lookup_host((target.address.as_str(), target.port));
    let found = deadline.part(limit, Phase::Name, lookup).await?.map_err(|error| not_found(error.to_string()))?;
    let mut last = not_found("it has no address".into());
    for address in found {
        match deadline.part(limit, Phase::Connect, TcpStream::connect(address)).await? {
            Ok(stream) => return Ok(stream),
            Err(error) => last = unreachable(at, &error),
        }
    }
    Err(last)
}

fn unreachable(at: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Error::ConnectionRefused { at: at.to_owned() },
        _ => Error::Unreachable { at: at.to_owned(), why: error.to_string() },
    }
}

fn cuttable(stream: TcpStream) -> std::io::Result<(TcpStream, Cut)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let cut = Cut(stream.try_clone()?);
    Ok((TcpStream::from_std(stream)?, cut))
}

/// Lets a host key pass or stops the connection with the reason.
struct Gate {
    recorded: Recorded,
}

/// Why the key exchange ended early.
#[derive(Debug)]
enum Stop {
    Ssh(russh::Error),
    Certificate,
    Key { verdict: Verdict, key: String, fingerprint: String, remarks: Vec<String> },
}

impl From<russh::Error> for Stop {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for Gate {
    type Error = Stop;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Stop> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Err(Stop::Certificate) };
        match self.recorded.judge(key) {
            Verdict::Known => Ok(true),
            verdict => Err(Stop::Key {
                verdict,
                key: key.to_openssh().map_err(russh::Error::from)?,
                fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
                remarks: self.recorded.remarks(),
            }),
        }
    }
}

fn stopped(target: &SshTarget, at: &str, stop: Stop) -> Error {
    let (at, path) = (at.to_owned(), target.known_hosts.clone());
    let name = known_hosts::name(&target.address, target.port);
    match stop {
        Stop::Ssh(error) => broken(&at, Phase::KeyExchange, error),
        Stop::Certificate => Error::HostCertificate { at },
        Stop::Key { verdict, key, fingerprint, remarks } => match verdict {
            Verdict::Changed { line } => Error::HostKeyChanged { at, path, line, name, fingerprint },
            Verdict::Revoked { line } => Error::HostKeyRevoked { at, path, line },
            Verdict::Known | Verdict::Unknown => {
                Error::HostKeyUnknown { at, path, line: format!("{name} {key}"), fingerprint, remarks }
            }
        },
    }
}

fn broken(at: &str, phase: Phase, error: russh::Error) -> Error {
    let at = at.to_owned();
    match error {
        russh::Error::NoCommonAlgo { kind, ours, theirs } => {
            let what = match kind {
                AlgorithmKind::Kex => "key exchange method",
                AlgorithmKind::Key => "host key type",
                AlgorithmKind::Cipher => "cipher",
                AlgorithmKind::Compression => "compression",
                AlgorithmKind::Mac => "message authentication code",
            };
            Error::NoCommonAlgorithm { at, what, ours: ours.join(", "), theirs: theirs.join(", ") }
        }
        russh::Error::IO(_)
        | russh::Error::HUP
        | russh::Error::Disconnect
        | russh::Error::SendError
        | russh::Error::RecvError
        | russh::Error::KeepaliveTimeout
        | russh::Error::InactivityTimeout => Error::SessionLost { at, phase },
        error => Error::Protocol { at, phase, source: Box::new(error) },
    }
}
