//! The way through the host: `qm guest exec` on the Proxmox node, over ssh.
//!
//! Shapes from qemu-server, `PVE/CLI/qm.pm`: the answer is one JSON object on standard output, of which empty ones
//! print nothing; a failure is one line on standard error; the guest's own exit status is inside the object.

use std::time::Duration;

use serde::Deserialize;

use crate::base::clock::Clock;
use crate::base::wait;

use super::command::{Exit, Output};
use super::error::Error;
use super::sessions::{Session, Sessions};
use super::ssh::SshTarget;

/// How much longer the ssh command may take than the command inside.
const MARGIN: Duration = Duration::from_secs(10);

/// What `qm guest exec` prints. Flags are 0/1 or booleans, by version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    #[serde(default)]
    exited: Flag,
    exitcode: Option<i64>,
    signal: Option<i64>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
    #[serde(default)]
    out_truncated: Flag,
    #[serde(default)]
    err_truncated: Flag,
    pid: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(from = "serde_json::Value")]
struct Flag(bool);

impl From<serde_json::Value> for Flag {
    fn from(value: serde_json::Value) -> Self {
        Self(!matches!(value, serde_json::Value::Null | serde_json::Value::Bool(false)) && value != 0 && value != "0")
    }
}

/// The name of the route.
pub(super) fn label(target: &SshTarget, vmid: u32) -> String {
    format!("{target}, qm guest exec {vmid}")
}

/// Asks on the host whether the agent answers there; nothing is run in the guest.
pub(super) async fn probe(sessions: &Sessions, target: &SshTarget, vmid: u32, clock: Clock) -> Result<Session, Error> {
    let ping = ["qm", "agent", &vmid.to_string(), "ping"].map(str::to_owned);
    let output = sessions.open(target, clock).await?.exec(&ping, wait::limit::LOOK).await?;
    if !output.ok() {
        return Err(Error::HostExec { at: label(target, vmid), why: output.summary() });
    }
    sessions.open(target, clock).await
}

/// Runs a command in the guest by way of its host.
pub(super) async fn exec(
    session: Session,
    at: &str,
    vmid: u32,
    argv: &[String],
    limit: Duration,
) -> Result<Output, Error> {
    let mut words = ["qm", "guest", "exec", &vmid.to_string(), "--timeout", &limit.as_secs().max(1).to_string(), "--"]
        .map(str::to_owned)
        .to_vec();
    words.extend_from_slice(argv);
    let output = session.exec(&words, limit + MARGIN).await?;
    read(at, &output, limit)
}

fn read(at: &str, output: &Output, limit: Duration) -> Result<Output, Error> {
    let lost = |why: String| Error::HostExecLost { at: at.to_owned(), why };
    if !output.ok() {
        let why = output.summary();
        return Err(if started_nothing(output) { Error::HostExec { at: at.to_owned(), why } } else { lost(why) });
    }
    if output.truncated {
        return Err(lost("its output is too long".into()));
    }
    let answer: Answer = serde_json::from_str(&output.stdout).map_err(|error| {
        // The place alone: the error's own text quotes what the command said.
        lost(format!("qm's answer cannot be read, from its line {} on", error.line()))
    })?;
    if !answer.exited.0 {
        let pid = answer.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        return Err(lost(format!("it{pid} did not end within {}; it keeps running", wait::show(limit))));
    }
    let exit = match (answer.exitcode, answer.signal) {
        (Some(status), _) => Exit::Status(status),
        (None, Some(signal)) => Exit::Signal(signal.to_string()),
        (None, None) => return Err(lost("qm names neither exit status nor signal".into())),
    };
    Ok(Output {
        exit,
        stdout: answer.out_data,
        stderr: answer.err_data,
        truncated: answer.out_truncated.0 || answer.err_truncated.0,
    })
}

/// Whether `qm guest exec` ended before anything ran in the guest. Any end that is not known here may come after the
/// start: each poll for the end asks the agent again. Only the last line is qm's; those before it may come from the
/// host's own shell, and one about another program is there whatever became of this one.
fn started_nothing(output: &Output) -> bool {
    // Not the disabled guest-exec-status, which is asked after the start; nor a config that is missing or names no
    // agent: older qemu-server reads it again at each poll, and it is gone from this host when the VM has moved. Where
    // it was so from the beginning the ping before said it, and nothing was sent.
    const BEFORE: [&str; 2] = ["Failed to execute child process", "guest-exec has been disabled"];
    // The status of a shell that does not find the program (POSIX, 2.8.2).
    if output.exit == Exit::Status(127) {
        return true;
    }
    let Some(line) = output.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty()) else { return false };
    let no_qm = line == "qm: command not found" || line.ends_with(" qm: command not found");
    no_qm || BEFORE.iter().any(|text| line.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(exit: i64, stdout: &str, stderr: &str) -> Output {
        Output { exit: Exit::Status(exit), stdout: stdout.into(), stderr: stderr.into(), truncated: false }
    }

    fn read(output: &Output) -> Result<Output, Error> {
        super::read("route", output, Duration::from_secs(30))
    }

    #[test]
    fn the_answer_of_qm_is_unpacked() {
        let text = r#"{ "exitcode" : 3, "exited" : 1, "out-data" : "a\n", "err-data" : "b\n" }"#;
        let inner = read(&output(0, text, "")).unwrap();
        assert_eq!((inner.exit, inner.stdout.as_str(), inner.stderr.as_str()), (Exit::Status(3), "a\n", "b\n"));
        let killed = read(&output(0, r#"{"exited":true,"signal":9,"out-truncated":1}"#, "")).unwrap();
        assert_eq!((killed.exit, killed.truncated), (Exit::Signal("9".into()), true));
    }

    #[test]
    fn what_may_have_started_is_told_from_what_did_not() {
        let disabled = "Agent error: The command guest-exec has been disabled for this instance\n";
        let no_vm = "Configuration file 'nodes/pve/qemu-server/9.conf' does not exist\n";
        let no_program = "Agent error: Guest agent command failed, error was 'Failed to execute child process “x”'\n";
        let stale = "/root/.bashrc: line 9: foo: command not found\n";
        let before = [
            output(255, "", disabled),
            output(255, "", no_program),
            output(255, "", &format!("{stale}{no_program}\n")),
            output(127, "", "bash: line 1: qm: command not found\n"),
            output(127, "", "sh: 1: qm: not found\n"),
            output(1, "", "qm: command not found\n"),
        ];
        assert_eq!(before.len(), 6);
        for output in before {
            let error = read(&output).unwrap_err();
            assert!(!error.may_have_run(), "{output:?}: {error}");
        }
        let timeout = "VM 108 qga command 'guest-exec' failed - got timeout\n";
        let after = [
            output(255, "", timeout),
            output(255, "", &format!("{stale}{timeout}")),
            // Each poll of older versions reads the config again.
            output(2, "", no_vm),
            output(255, "", no_vm),
            output(255, "", &format!("{stale}{no_vm}\n")),
            output(255, "", "No QEMU guest agent configured\n"),
            output(255, "", &format!("{no_vm}{timeout}")),
            output(255, "", stale),
            output(255, "", "xqm: command not found\n"),
            output(255, "", "Agent error: Invalid parameter 'pid'\n"),
            output(255, "", "Agent error: PID 77 does not exist\n"),
            output(255, "", "Agent error: Command guest-exec-status has been disabled\n"),
            output(255, "", ""),
            output(0, "{\"pid\" : 77}\n", "timeout reached, returning pid\n"),
            output(0, "nonsense", ""),
            output(0, "{\"exited\":1}", ""),
        ];
        assert_eq!(after.len(), 16);
        for output in after {
            let error = read(&output).unwrap_err();
            assert!(error.may_have_run(), "{output:?}: {error}");
        }
        let running = read(&output(0, "{\"pid\" : 77}\n", "")).unwrap_err().to_string();
        assert!(running.contains("pid 77") && running.contains("keeps running"), "{running}");
    }
}
