//! Servers that do as they are told: an ssh server with one manner, and TCP servers that are no ssh servers.

use std::sync::{Arc, Mutex};

use russh::server::{self, Auth, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::place::Place;

/// What a scripted server does with a command.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// Answers as a Proxmox host.
    Host,
    /// A guest that shows half of a USB device first, and all of it from then on.
    HalfUsb,
    /// A guest with NVMe drives: each list of them is the next one of these, and all of them are blank.
    Drives(&'static [String]),
    /// Refuses to run anything.
    Refuse,
    /// The connection ends before it says whether the command was started.
    CutBefore,
    /// The connection ends after the command was started.
    CutAfter,
    /// The command never ends.
    Hang,
    /// As [`Manner::Host`], but for the second command: [`Manner::CutBefore`].
    CutSecond,
    /// As [`Manner::Host`], but for the second command: [`Manner::Hang`].
    HangSecond,
}

#[derive(Clone)]
pub(crate) struct Scripted {
    manner: Manner,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub(crate) async fn start(place: &Place, manner: Manner) -> (u16, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(server::Config { keys: vec![place.host.clone()], ..server::Config::default() });
        let handler = Self { manner, asked: asked.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, handler) = (config.clone(), handler.clone());
                tokio::spawn(async move { server::run_stream(config, stream, handler).await?.await });
            }
        });
        (port, asked)
    }
}

impl server::Handler for Scripted {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: server::ChannelOpenHandle,
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
        let line = String::from_utf8(data.to_vec()).unwrap();
        let count = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(line.clone());
            if matches!(self.manner, Manner::Drives(_)) {
                asked.iter().filter(|line| line.starts_with("find ")).count()
            } else {
                asked.len()
            }
        };
        match self.manner {
            Manner::CutSecond if count == 2 => return Err(russh::Error::Disconnect),
            Manner::HangSecond if count == 2 => return session.channel_success(channel),
            Manner::Refuse => return session.channel_failure(channel),
            Manner::CutBefore => return Err(russh::Error::Disconnect),
            Manner::CutAfter => {
                session.channel_success(channel)?;
                return session.disconnect(russh::Disconnect::ByApplication, "", "en");
            }
            Manner::Hang => return session.channel_success(channel),
            Manner::Host | Manner::HalfUsb | Manner::Drives(_) | Manner::CutSecond | Manner::HangSecond => {}
        }
        session.channel_success(channel)?;
        let drives = match self.manner {
            Manner::Drives(_) if line.starts_with("od ") => Some(" 00".repeat(16_384)),
            Manner::Drives(lists) => Some(lists[(count - 1).min(lists.len() - 1)].clone()),
            _ => None,
        };
        let (out, exit) = match line.split_once(" -- ") {
            _ if drives.is_some() => (drives.unwrap_or_default(), 0),
            _ if matches!(self.manner, Manner::HalfUsb) => {
                let device = "/sys/bus/usb/devices/2-1";
                let rest = format!("{device}/idProduct:089a\n{device}/speed:5000\n");
                let first = count == 1;
                (format!("{device}/idVendor:1a6e\n{}", if first { "" } else { &rest }), 0)
            }
            None if line == "qm agent 108 ping" => (String::new(), 0),
            Some((_, "false")) => (r#"{ "exitcode": 1, "exited": 1 }"#.to_owned(), 0),
            Some((_, inside)) => (serde_json::json!({ "exitcode": 0, "exited": 1, "out-data": inside }).to_string(), 0),
            None => ("unknown command\n".to_owned(), 255),
        };
        session.data(channel, out)?;
        session.exit_status_request(channel, exit)?;
        session.eof(channel)?;
        session.close(channel)
    }
}

/// A TCP server that is no ssh server.
pub(crate) async fn raw<F>(manner: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(manner(stream));
        }
    });
    port
}

/// Reads until the other side is gone, and says nothing.
pub(crate) async fn hold(mut stream: TcpStream) {
    let mut buffer = [0; 512];
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}
