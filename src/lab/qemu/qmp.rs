//! The protocol by which a QEMU process is told what to do (QEMU `docs/interop/qmp-spec`): JSON lines; events come in
//! between.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// A connection to a QEMU process.
#[derive(Debug)]
pub(super) struct Qmp {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
    events: VecDeque<Value>,
}

impl Qmp {
    pub(super) async fn open(socket: &Path) -> io::Result<Self> {
        let (read, write) = UnixStream::connect(socket).await?.into_split();
        let mut qmp = Self { lines: BufReader::new(read).lines(), write, events: VecDeque::new() };
        qmp.line().await?; // its greeting
        qmp.ask("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// # Errors
    /// What QEMU says to it, or that it is gone.
    pub(super) async fn ask(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let mut request = json!({ "execute": command });
        if let (Some(map), false) = (request.as_object_mut(), arguments.is_null()) {
            map.insert("arguments".into(), arguments);
        }
        self.write.write_all(format!("{request}\n").as_bytes()).await?;
        loop {
            let mut line = self.line().await?;
            if line.get("event").is_some() {
                self.events.push_back(line);
            } else if let Some(error) = line.get("error") {
                return Err(io::Error::other(format!("{command}: {}", error["desc"].as_str().unwrap_or_default())));
            } else if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// The next event; may be dropped while it waits.
    pub(super) async fn event(&mut self) -> io::Result<Value> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let line = self.line().await?;
            if line.get("event").is_some() {
                return Ok(line);
            }
        }
    }

    /// Waits for an event; the others stay.
    pub(super) async fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> io::Result<()> {
        loop {
            if let Some(at) = self.events.iter().position(&wanted) {
                self.events.remove(at);
                return Ok(());
            }
            let line = self.line().await?;
            self.events.push_back(line);
        }
    }

    async fn line(&mut self) -> io::Result<Value> {
        let line = self.lines.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}
