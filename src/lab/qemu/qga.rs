//! The protocol of the guest agent (QEMU `docs/interop/qemu-ga-ref`): JSON lines over a socket, one answer for each
//! request, in order. Requests that nobody answered are answered later, to whoever listens then; therefore each
//! connection begins with a `guest-sync-delimited`, whose answer alone is preceded by the byte 0xFF.

use std::io;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// What no JSON text holds.
const DELIMITER: u8 = 0xff;

/// A connection to an agent.
#[derive(Debug)]
pub(in crate::lab) struct Agent(BufReader<UnixStream>);

impl Agent {
    /// Connects. Waits for ever where nobody answers.
    pub(in crate::lab) async fn open(socket: &Path) -> io::Result<Self> {
        let mut agent = Self(BufReader::new(UnixStream::connect(socket).await?));
        let mut seed = [0_u8; 4];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let id = u32::from_le_bytes(seed);
        agent.0.get_mut().write_all(&[DELIMITER]).await?;
        agent.send("guest-sync-delimited", &json!({ "id": id })).await?;
        loop {
            let mut passed = Vec::new();
            agent.0.read_until(DELIMITER, &mut passed).await?;
            if passed.last() != Some(&DELIMITER) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if agent.line().await?["return"] == id {
                return Ok(agent);
            }
        }
    }

    /// Asks for something: what is in `return`, or else in `error`. Waits for ever where nobody answers.
    pub(in crate::lab) async fn ask(&mut self, command: &str, arguments: &Value) -> io::Result<Result<Value, Value>> {
        self.send(command, arguments).await?;
        let mut answer = self.line().await?;
        Ok(match answer.get_mut("error") {
            Some(error) => Err(error.take()),
            None => Ok(answer["return"].take()),
        })
    }

    /// Sends a request without waiting for its answer.
    pub(super) async fn send(&mut self, command: &str, arguments: &Value) -> io::Result<()> {
        let mut request = json!({ "execute": command });
        if let (Some(map), false) = (request.as_object_mut(), arguments.is_null()) {
            map.insert("arguments".into(), arguments.clone());
        }
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).await
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        if self.0.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_slice(&line).map_err(io::Error::other)
    }
}
