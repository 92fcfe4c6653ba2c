//! The control socket of a running lab, so that another process can be its hands: `DIR/control`, one JSON line for each
//! request and one for each answer.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::fault::FaultRule;
use super::world::{Place, World};
use super::{Fronts, LabError, Shared, kube};
use crate::base::wait;

/// The socket's name in a lab's folder.
pub const SOCKET: &str = "control";

/// How long another process waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a running lab can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Takes a stick out and puts it in elsewhere.
    Move {
        /// Its name in the world.
        stick: String,
        /// Where to; none: it stays in the hand.
        place: Option<Place>,
    },
    /// Puts another machine in the place of a Talos node, and starts it from its stick.
    Swap {
        /// The node.
        node: String,
    },
    /// Moves a drive of a Talos node that is off.
    Drive {
        /// Its serial number, or `NODE:SLOT`.
        which: String,
        /// A slot, `NODE:SLOT`, or `bench`.
        to: String,
    },
    /// Presses the power button of a Talos node.
    Power {
        /// The node.
        node: String,
    },
    /// Pushes what the checkout has committed, as a person would.
    Push,
    /// Adds a fault rule.
    Fault(FaultRule),
    /// Removes all fault rules; the answer has them with their counts.
    ClearFaults,
    /// The whole Proxmox side of the world, without secrets.
    State,
    /// The world as it is compared.
    Compared,
    /// Ends the lab.
    Stop,
}

/// Refuses a folder in which a lab is running.
///
/// # Errors
/// [`LabError::Second`]
pub fn refuse_second(dir: &Path) -> Result<(), LabError> {
    match std::os::unix::net::UnixStream::connect(dir.join(SOCKET)) {
        Ok(_) => Err(LabError::Second { dir: dir.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// Serves `DIR/control`.
///
/// # Errors
/// [`LabError::Io`]; also where another lab runs in this folder.
pub fn serve(shared: &Arc<Shared>, dir: &Path, fronts: &mut Fronts) -> Result<(), LabError> {
    let path = dir.join(SOCKET);
    refuse_second(dir)?;
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    let listener = UnixListener::bind(&path)?;
    let (shared, dir) = (shared.clone(), dir.to_owned());
    fronts.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            while connections.try_join_next().is_some() {}
            connections.spawn(connection(shared.clone(), dir.clone(), stream));
        }
    });
    Ok(())
}

async fn connection(shared: Arc<Shared>, dir: std::path::PathBuf, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let (answer, stop) = match serde_json::from_str::<Request>(&line) {
            Err(error) => (Err(error.to_string()), false),
            Ok(request) => {
                let stop = matches!(request, Request::Stop);
                (carry_out(&shared, &dir, request).await.map_err(|e| e.to_string()), stop)
            }
        };
        let answer = match answer {
            Ok(value) => json!({ "ok": true, "value": value }),
            Err(error) => json!({ "ok": false, "error": error }),
        };
        if write.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
            return;
        }
        if stop {
            shared.ask_to_stop();
        }
    }
}

async fn carry_out(shared: &Arc<Shared>, dir: &Path, request: Request) -> Result<Value, LabError> {
    Ok(match request {
        Request::Move { stick, place } => {
            shared.change(|world| world.move_stick(&stick, place))?;
            Value::Null
        }
        Request::Swap { node } => shared.change(|world| world.swap_machine(&node))?.into(),
        Request::Drive { which, to } => shared.change(|world| world.move_drive(&which, &to))?.into(),
        Request::Power { node } => shared.change(|world| world.press_button(&node))?.into(),
        Request::Push => kube::push(shared, dir).await?.into(),
        Request::Fault(rule) => {
            shared.add_fault(rule);
            Value::Null
        }
        Request::ClearFaults => json!(shared.clear_faults()),
        Request::State => shared.read(state),
        Request::Compared => shared.read(World::compared),
        Request::Stop => Value::Null,
    })
}

fn state(world: &World) -> Value {
    let mut copy = world.clone();
    copy.access.users.values_mut().for_each(|u| u.password.clear());
    copy.talos.nodes.values_mut().for_each(|n| n.config.clear());
    copy.access.tokens.values_mut().for_each(|t| t.secret.clear());
    json!(copy)
}

/// Asks the lab that runs in `dir`.
///
/// # Errors
/// [`LabError::NoLab`] where none runs there, or with what it says.
pub async fn ask(dir: &Path, request: &Request) -> Result<Value, LabError> {
    let said = |text: String| LabError::Control(text);
    let work = async {
        let stream = UnixStream::connect(dir.join(SOCKET)).await.map_err(|source| match source.kind() {
            // The socket of one that was killed refuses.
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => LabError::NoLab { dir: dir.to_owned() },
            _ => LabError::Unasked { dir: dir.to_owned(), source },
        })?;
        let (read, mut write) = stream.into_split();
        let line = serde_json::to_string(request).map_err(|e| said(e.to_string()))?;
        write.write_all(format!("{line}\n").as_bytes()).await?;
        let line = BufReader::new(read).lines().next_line().await?;
        let line = line.ok_or_else(|| said("nothing: it closed the connection".into()))?;
        let answer: Value = serde_json::from_str(&line).map_err(|e| said(e.to_string()))?;
        if answer.get("ok").and_then(Value::as_bool) == Some(true) {
            return Ok(answer.get("value").cloned().unwrap_or_default());
        }
        Err(said(answer.get("error").and_then(Value::as_str).unwrap_or("nothing that can be read").to_owned()))
    };
    wait::within(PATIENCE, work).await.map_err(|e| said(e.to_string()))?
}
