//! Agent calls of a machine that has a real agent: handed on as Proxmox does (qemu-server `PVE/API2/Qemu/Agent.pm`).

use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::agent::{self, latin1};
use super::front::{Call, Data, No};
use crate::base::wait::within;
use crate::lab::qemu::qga::Agent;

/// How long the ping before each command may take, and the command itself. A real agent lives in real time.
const PING: Duration = Duration::from_secs(3);
const COMMAND: Duration = Duration::from_secs(5);

/// How much of a file is read at a time.
const CHUNK: usize = 1 << 20;

/// A call whose rights and parameters are in order, of a machine that runs.
pub(super) async fn call(call: &Call, vmid: u32, socket: &Path, command: &str) -> Result<Data, No> {
    // Agents talk to one at a time.
    let _turn = call.shared.agents.lock().await;
    let pinged = async {
        let mut agent = Agent::open(socket).await?;
        Ok::<_, io::Error>((agent.ask("guest-ping", &Value::Null).await?, agent))
    };
    let Ok(Ok((pong, agent))) = within(PING, pinged).await else {
        return Err(No::die("QEMU guest agent is not running"));
    };
    let mut real = Real { vmid, agent };
    match command {
        "ping" => Ok(simple(pong).into()),
        "exec" => real.exec(call).await,
        "exec-status" => real.exec_status(call).await,
        "file-read" => real.file_read(call).await,
        simply => Ok(simple(real.ask(&format!("guest-{simply}"), Value::Null).await?).into()),
    }
}

/// The simple commands hand on whatever the agent said, an error as well.
fn simple(answer: Result<Value, Value>) -> Value {
    match answer {
        Ok(result) => json!({ "result": result }),
        Err(error) => json!({ "result": { "error": error } }),
    }
}

struct Real {
    vmid: u32,
    agent: Agent,
}

impl Real {
    async fn ask(&mut self, command: &str, arguments: Value) -> Result<Result<Value, Value>, No> {
        let failed = |why: &str| No::die(format!("VM {} qga command '{command}' failed - {why}", self.vmid));
        match within(COMMAND, self.agent.ask(command, &arguments)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("got timeout")),
        }
    }

    /// As [`Real::ask`], of a command whose error is the call's.
    async fn need(&mut self, command: &str, arguments: Value) -> Result<Value, No> {
        self.ask(command, arguments).await?.map_err(|error| {
            let said = error["desc"].as_str().map_or_else(|| error.to_string(), str::to_owned);
            No::die(format!("Agent error: {said}"))
        })
    }

    async fn exec(&mut self, call: &Call) -> Result<Data, No> {
        let argv = call.params.list("command");
        let (path, rest) = argv.split_first().map_or(("", &[][..]), |(path, rest)| (path.as_str(), rest));
        let mut arguments = json!({ "path": path, "arg": rest, "capture-output": true });
        if call.params.text("input-data").is_some() {
            arguments["input-data"] = STANDARD.encode(agent::input(call)?).into();
        }
        Ok(self.need("guest-exec", arguments).await?.into())
    }

    async fn exec_status(&mut self, call: &Call) -> Result<Data, No> {
        let pid = call.params.integer("pid")?;
        let mut row = self.need("guest-exec-status", json!({ "pid": pid })).await?;
        for (name, value) in row.as_object_mut().into_iter().flatten() {
            if let Some(flag) = value.as_bool() {
                *value = u8::from(flag).into();
            } else if let (true, Some(text)) = (name.ends_with("-data"), value.as_str()) {
                let bytes = STANDARD.decode(text).map_err(|error| No::die(error.to_string()))?;
                *value = latin1(&bytes).into();
            }
        }
        Ok(row.into())
    }

    async fn file_read(&mut self, call: &Call) -> Result<Data, No> {
        let path = call.params.text("file");
        let handle = self.need("guest-file-open", json!({ "path": path })).await?;
        let (mut content, mut end) = (Vec::new(), false);
        while !end && content.len() < agent::OUTPUT_CAP {
            let read = self.need("guest-file-read", json!({ "handle": handle, "count": CHUNK })).await?;
            let piece = STANDARD.decode(read["buf-b64"].as_str().unwrap_or_default());
            content.extend(piece.map_err(|error| No::die(error.to_string()))?);
            end = read["eof"].as_bool().unwrap_or(true);
        }
        self.need("guest-file-close", json!({ "handle": handle })).await?;
        let mut row = json!({ "content": latin1(&content), "bytes-read": content.len() });
        if !end {
            row["truncated"] = 1.into();
        }
        Ok(row.into())
    }
}
