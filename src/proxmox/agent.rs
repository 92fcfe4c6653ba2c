//! The guest agent: a way into a guest through its host, without any network.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::fault::{Effect, Fault};
use crate::base::permit::{Again, Handle, Note, Permit, System};
use crate::base::wait::{self, Backoff, limit, show};

use super::api::Proxmox;
use super::error::{AgentCause, Error};
use super::lenient;
use super::refusal::agent_said;
use super::vm::VmRef;
use super::wire::Call;

/// The server's limit of `input-data`.
const MAX_INPUT: usize = 64 * 1024;

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    /// The version of qemu-ga.
    pub version: String,
    /// Its commands, and whether the guest's settings allow them.
    pub commands: BTreeMap<String, bool>,
}

impl AgentInfo {
    /// Whether programs may be run. That there is any program is another matter (Talos has none).
    pub fn may_exec(&self) -> bool {
        ["guest-exec", "guest-exec-status"].iter().all(|name| self.commands.get(*name) == Some(&true))
    }
}

/// The end of a command in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentResult {
    /// Its exit code; 128 + n where signal n ended it, as a shell says it.
    pub exit: i32,
    /// What it wrote to its output.
    pub stdout: Vec<u8>,
    /// What it wrote to its error output.
    pub stderr: Vec<u8>,
    /// True where the agent kept only the first part of either (16 MiB).
    pub truncated: bool,
}

impl Proxmox {
    /// Asks the agent whether it is there. Takes 3 s where it is not.
    ///
    /// # Errors
    /// [`Error::Agent`] with its cause, and those of any question.
    pub async fn agent_ping(&self, vm: &VmRef) -> Result<(), Error> {
        let Err(error) = self.agent_ask(&vm.post("agent/ping")).await else { return Ok(()) };
        let vm = self.moved(vm, error).await?;
        self.agent_ask(&vm.post("agent/ping")).await.map(|_| ())
    }

    /// The agent's version and commands.
    ///
    /// # Errors
    /// [`Error::Agent`] with its cause, and those of any question.
    pub async fn agent_info(&self, vm: &VmRef) -> Result<AgentInfo, Error> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default, deserialize_with = "lenient::text")]
            version: String,
            #[serde(default)]
            supported_commands: Vec<Command>,
        }
        #[derive(Deserialize)]
        struct Command {
            name: String,
            #[serde(default, deserialize_with = "lenient::flag")]
            enabled: bool,
        }
        let call = vm.get("agent/info");
        let info: Info = self.shape(&call, self.agent_ask(&call).await?, Effect::None)?;
        let commands = info.supported_commands.into_iter().map(|command| (command.name, command.enabled)).collect();
        Ok(AgentInfo { version: info.version, commands })
    }

    /// Runs a *reading* command in the guest: an absolute path and its arguments, no shell. Only `guest::look` calls
    /// this, with a command from its closed list or one that the site declares as reading.
    ///
    /// # Errors
    /// [`Error::Agent`] with its cause; [`Error::BadRequest`] for an input that is not plain ASCII or above 64 KiB.
    pub async fn agent_look(&self, vm: &VmRef, argv: &[&str], input: Option<&str>) -> Result<AgentResult, Error> {
        let call = self.exec(vm, argv, input)?;
        let look = wait::within(limit::LOOK, async {
            let (vm, data) = match self.ask(&call).await {
                Ok(answer) => (vm.clone(), answer.data),
                Err(error) => {
                    let vm = self.moved(vm, error).await?;
                    let answer = self.ask(&self.exec(&vm, argv, input)?).await?;
                    (vm, answer.data)
                }
            };
            let pid = self.pid(&call, data, Effect::None)?;
            self.result(&vm, pid, limit::LOOK, Effect::None).await
        });
        look.await.unwrap_or_else(|elapsed| {
            Err(Error::NoAnswer { at: self.at(&call.target), why: format!("`{}`: {elapsed}", argv.join(" ")) })
        })
    }

    /// Runs a command in the guest that may change it. `again` says whether it may be run twice; the command goes into
    /// the journal as it is, so it must hold no secret. Where its end is not
    /// seen within `wait` it keeps running: there is no call that stops it.
    ///
    /// # Errors
    /// As [`Proxmox::agent_look`], and those of any change; after the start with an effect of "maybe".
    pub async fn agent_run(
        &self,
        vm: &VmRef,
        argv: &[&str],
        again: Again,
        wait: Duration,
        permit: &Permit,
    ) -> Result<AgentResult, Error> {
        let call = self.exec(vm, argv, None)?;
        let text = format!("{} {}", call.line(), argv.join(" "));
        let note = match again {
            Again::Safe => Note::safe(System::Proxmox, text),
            Again::Once => Note::once(System::Proxmox, text),
        };
        let (id, data) = self.change(&call, note, permit).await?;
        let pid = self.pid(&call, data, Effect::Maybe)?;
        self.got(&call, permit, id, &Handle::new("pid", pid.to_string()))?;
        self.result(vm, pid, wait, Effect::Maybe).await
    }

    /// An agent call whose `data` wraps `result`. The agent's own error comes with status 200 inside it.
    async fn agent_ask(&self, call: &Call) -> Result<Value, Error> {
        let mut data = self.ask(call).await?.data;
        let at = self.at(&call.target);
        let Some(result) = data.get_mut("result").map(Value::take) else {
            let why = format!("{}: there is no `result` in it", call.line());
            return Err(Error::BadAnswer { at, why, effect: Effect::None });
        };
        let Some(error) = result.get("error") else { return Ok(result) };
        let word = |key: &str| error.get(key).and_then(Value::as_str);
        let said = match (word("class"), word("desc")) {
            (Some("CommandNotFound"), Some(desc)) => return Err(self.agent(at, AgentCause::Disabled(desc.to_owned()))),
            (_, Some(desc)) => desc.to_owned(),
            _ => error.to_string(),
        };
        Err(self.agent(at, agent_said(&said)))
    }

    fn agent(&self, at: String, cause: AgentCause) -> Error {
        Error::Agent { at, cause, effect: Effect::None }
    }

    fn exec(&self, vm: &VmRef, argv: &[&str], input: Option<&str>) -> Result<Call, Error> {
        let call = vm.post("agent/exec");
        let bad = |why: &str| Error::BadRequest { at: self.at(&call.target), why: why.to_owned() };
        if argv.is_empty() {
            return Err(bad("an empty command was asked for"));
        }
        let mut body = json!({ "command": argv });
        if let (Some(input), Some(fields)) = (input, body.as_object_mut()) {
            // The server dies on characters above U+00FF and sends those below as Latin-1.
            if !input.is_ascii() {
                return Err(bad("the agent takes plain ASCII input only"));
            }
            if input.len() > MAX_INPUT {
                return Err(bad("the agent takes 64 KiB of input at most"));
            }
            fields.insert("input-data".into(), input.into());
        }
        Ok(call.json(body))
    }

    fn pid(&self, call: &Call, data: Value, effect: Effect) -> Result<i64, Error> {
        #[derive(Deserialize)]
        struct Started {
            #[serde(deserialize_with = "lenient::number")]
            pid: i64,
        }
        self.shape::<Started>(call, data, effect).map(|started| started.pid)
    }

    /// Polls for the end of `pid`. The agent forgets a finished process as soon as it has told of it, so the first
    /// final answer is the only one; one that is lost on the way cannot be had again.
    async fn result(&self, vm: &VmRef, pid: i64, wait: Duration, effect: Effect) -> Result<AgentResult, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Status {
            #[serde(default, deserialize_with = "lenient::flag")]
            exited: bool,
            #[serde(default, deserialize_with = "lenient::number_opt")]
            exitcode: Option<i32>,
            #[serde(default, deserialize_with = "lenient::number_opt")]
            signal: Option<i32>,
            #[serde(default, deserialize_with = "lenient::text_opt")]
            out_data: Option<String>,
            #[serde(default, deserialize_with = "lenient::text_opt")]
            err_data: Option<String>,
            #[serde(default, deserialize_with = "lenient::flag")]
            out_truncated: bool,
            #[serde(default, deserialize_with = "lenient::flag")]
            err_truncated: bool,
        }
        let call = vm.get("agent/exec-status").query("pid", pid.to_string());
        let start = self.clock.instant();
        let mut backoff = Backoff::by_age(self.clock, Duration::from_millis(50), Duration::from_secs(1));
        loop {
            match self.read::<Status>(&call).await {
                Ok(status) if status.exited => {
                    let Some(exit) = status.exitcode.or_else(|| status.signal.map(|signal| 128 + signal)) else {
                        let why = format!("{}: neither exit code nor signal in it", call.line());
                        return Err(Error::BadAnswer { at: self.at(&call.target), why, effect });
                    };
                    return Ok(AgentResult {
                        exit,
                        stdout: bytes(&status.out_data.unwrap_or_default()),
                        stderr: bytes(&status.err_data.unwrap_or_default()),
                        truncated: status.out_truncated || status.err_truncated,
                    });
                }
                Ok(_) => {}
                Err(error) => match after_start(&self.at(&call.target), error, pid, effect) {
                    Some(error) => return Err(error),
                    None => tracing::debug!(pid, "the agent is busy; asking again"),
                },
            }
            if start.elapsed() >= wait {
                let cause = AgentCause::StillRunning { pid, limit: show(wait) };
                return Err(Error::Agent { at: self.at(&call.target), cause, effect });
            }
            backoff.pause().await;
        }
    }
}

/// An error of `exec-status` as that of the whole command, which has been started; None where asking again may help.
fn after_start(at: &str, error: Error, pid: i64, effect: Effect) -> Option<Error> {
    Some(match error {
        // A command that loads the guest may starve the agent for a while.
        Error::Agent { cause: AgentCause::Silent | AgentCause::TimedOut, .. } | Error::LockBusy { .. } => return None,
        Error::Agent { at, cause: AgentCause::Said(said), .. } if forgotten(&said) => {
            Error::Agent { at, cause: AgentCause::ResultLost(pid), effect }
        }
        Error::Agent { at, cause, .. } => Error::Agent { at, cause, effect },
        Error::NoAnswer { at, why } | Error::Unreachable { at, why, .. } if effect != Effect::None => {
            Error::LostAnswer { at, why: format!("the command was started (pid {pid}); {why}") }
        }
        Error::BadAnswer { at, why, .. } => Error::BadAnswer { at, why, effect },
        Error::Unexpected { at, status, why, .. } => Error::Unexpected { at, status, why, effect },
        // Whatever else keeps us from asking (a ticket that ran out, a VM that went to another node): it was started.
        other if effect != Effect::None && other.effect() == Effect::None => {
            Error::LostAnswer { at: at.to_owned(), why: format!("the command was started (pid {pid}); {other}") }
        }
        other => other,
    })
}

/// What the agent says of a pid that it does not know (any more): older and newer qemu-ga.
fn forgotten(said: &str) -> bool {
    said.contains("Invalid parameter 'pid'") || (said.contains("PID ") && said.contains("does not exist"))
}

/// The server puts each byte of a program's output into JSON as one character (U+0000 to U+00FF). A text with others
/// was decoded by a server that does it right, and is taken as it is.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).ok()).collect::<Option<Vec<u8>>>().unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_mended_byte_by_byte() {
        let wire: String = "Größe ✓\n".bytes().map(char::from).collect();
        assert_eq!(bytes(&wire), "Größe ✓\n".as_bytes());
        assert_eq!(bytes("plain"), b"plain");
        assert_eq!(bytes("already ✓"), "already ✓".as_bytes());
        assert_eq!(bytes("\u{ff}\u{0}"), [0xff, 0]);
    }
}
