//! `qm` on a Proxmox node: the way from a host into a guest. Texts and exit codes as in qemu-server (PVE/CLI/qm.pm,
//! PVE/QemuServer/Agent.pm).

use std::time::Duration;

use crate::lab::programs::ExecOutcome;
use crate::lab::world::World;

/// A call of `qm`, as far as it is known here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Qm {
    /// `qm guest exec VMID [--timeout N] [--] PROGRAM ARG..`
    Exec { vmid: u32, timeout: Duration, argv: Vec<String> },
    /// `qm agent VMID ping` or `qm guest cmd VMID ping`
    Ping { vmid: u32 },
    /// `qm status VMID`
    Status { vmid: u32 },
    /// Anything else, with what `qm` says.
    Unknown(String),
}

/// Reads a command as one of `qm`; None where it is another program.
pub(super) fn parse(argv: &[String]) -> Option<Qm> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let (program, words) = words.split_first()?;
    if !matches!(*program, "qm" | "/usr/sbin/qm" | "/sbin/qm") {
        return None;
    }
    let number = |word: &str| word.parse::<u32>().ok();
    Some(match words {
        ["guest", "exec", vmid, rest @ ..] => match (number(vmid), exec(rest)) {
            (Some(vmid), Some((timeout, argv))) => Qm::Exec { vmid, timeout, argv },
            _ => Qm::Unknown(
                "400 Parameter verification failed.\nqm guest exec <vmid> [<extra-args>] [OPTIONS]\n".into(),
            ),
        },
        ["agent", vmid, "ping"] | ["guest", "cmd", vmid, "ping"] if number(vmid).is_some() => {
            Qm::Ping { vmid: number(vmid)? }
        }
        ["status", vmid] if number(vmid).is_some() => Qm::Status { vmid: number(vmid)? },
        [verb, ..] => Qm::Unknown(format!("ERROR: unknown command 'qm {verb}'\n")),
        [] => Qm::Unknown("ERROR: no command specified\n".into()),
    })
}

fn exec(words: &[&str]) -> Option<(Duration, Vec<String>)> {
    let mut timeout = 30;
    let mut rest = words;
    let command = loop {
        rest = match rest {
            ["--", command @ ..] => break command,
            ["--timeout" | "-timeout", seconds, tail @ ..] => {
                timeout = seconds.parse().ok()?;
                tail
            }
            ["--synchronous", "1", tail @ ..] => tail,
            [option, ..] if option.starts_with('-') => return None,
            command => break command,
        }
    };
    let argv: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    (!argv.is_empty()).then(|| (Duration::from_secs(timeout), argv))
}

impl Qm {
    /// Whether it only asks.
    pub(super) fn reads_only(&self, world: &World) -> bool {
        match self {
            Self::Exec { argv, .. } => world.reads_only(argv),
            Self::Ping { .. } | Self::Status { .. } | Self::Unknown(_) => true,
        }
    }

    /// Does it, on `host`.
    pub(super) fn run(&self, world: &mut World, host: &str) -> ExecOutcome {
        match self {
            Self::Unknown(text) => failed(text),
            Self::Status { vmid } => match here(world, host, *vmid) {
                Err(text) => failed(&text),
                Ok(running) => printed(if running { "status: running\n" } else { "status: stopped\n" }),
            },
            Self::Ping { vmid } => agent(world, host, *vmid).map_or_else(|outcome| outcome, |()| printed("")),
            Self::Exec { vmid, timeout, argv } => match agent(world, host, *vmid) {
                Err(outcome) => outcome,
                Ok(()) => inside(world, *vmid, *timeout, argv),
            },
        }
    }
}

/// Whether the machine runs; an error where this node does not have it.
fn here(world: &World, host: &str, vmid: u32) -> Result<bool, String> {
    let vm = world.vms.get(&vmid).filter(|vm| vm.node == host);
    let vm = vm.ok_or_else(|| format!("Configuration file 'nodes/{host}/qemu-server/{vmid}.conf' does not exist\n"))?;
    Ok(vm.running.is_some())
}

/// The checks before each agent call, in the server's order.
fn agent(world: &World, host: &str, vmid: u32) -> Result<(), ExecOutcome> {
    let running = here(world, host, vmid).map_err(|text| failed(&text))?;
    if !world.vms.get(&vmid).is_some_and(|vm| vm.config.contains_key("agent")) {
        return Err(failed("No QEMU guest agent configured\n"));
    }
    if !running {
        return Err(failed(&format!("VM {vmid} is not running\n")));
    }
    if !world.agent_up(vmid) {
        // The server waits 3 s for the ping that it sends first.
        return Err(ExecOutcome { took: Duration::from_secs(3), ..failed("QEMU guest agent is not running\n") });
    }
    Ok(())
}

fn inside(world: &mut World, vmid: u32, timeout: Duration, argv: &[String]) -> ExecOutcome {
    if !world.vms.get(&vmid).is_some_and(|vm| vm.guest.agent.exec_allowed) {
        return failed("Agent error: The command guest-exec has been disabled for this instance\n");
    }
    let pid = world.new_pid();
    let inner = world.guest_exec(vmid, argv, &[]);
    let program = argv.first().map_or("", String::as_str);
    if inner.exit == 127 && !matches!(program, "sh" | "/bin/sh" | "bash" | "/bin/bash") {
        return failed(&format!(
            "Agent error: Guest agent command failed, error was 'Failed to execute child process \u{201c}{program}\u{201d} \
             (No such file or directory)'\n"
        ));
    }
    if inner.took > timeout && !timeout.is_zero() {
        return ExecOutcome {
            stdout: format!("{{\n   \"pid\" : {pid}\n}}\n").into_bytes(),
            stderr: b"timeout reached, returning pid\n".to_vec(),
            changed: inner.changed,
            took: timeout,
            exit: 0,
        };
    }
    // `qm` sorts the keys and leaves empty output away.
    let data = |name: &str, bytes: &[u8]| (!bytes.is_empty()).then(|| format!("   \"{name}\" : {}", quoted(bytes)));
    let fields = [
        data("err-data", &inner.stderr),
        Some(format!("   \"exitcode\" : {}", inner.exit)),
        Some("   \"exited\" : 1".to_owned()),
        data("out-data", &inner.stdout),
    ];
    let fields: Vec<String> = fields.into_iter().flatten().collect();
    // Perl writes each character of the output as the one byte that it came as.
    let stdout = format!("{{\n{}\n}}\n", fields.join(",\n")).chars().map(|c| c as u8).collect();
    ExecOutcome { exit: 0, stdout, stderr: Vec::new(), changed: inner.changed, took: inner.took }
}

/// A JSON string with one character for each byte.
fn quoted(bytes: &[u8]) -> String {
    serde_json::Value::from(bytes.iter().map(|b| char::from(*b)).collect::<String>()).to_string()
}

fn printed(text: &str) -> ExecOutcome {
    ExecOutcome { stdout: text.as_bytes().to_vec(), ..ExecOutcome::default() }
}

fn failed(text: &str) -> ExecOutcome {
    ExecOutcome { exit: 255, stderr: text.as_bytes().to_vec(), ..ExecOutcome::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Qm> {
        super::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn qm_is_read_with_its_options() {
        let exec = |seconds, argv: &[&str]| {
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            Some(Qm::Exec { vmid: 108, timeout: Duration::from_secs(seconds), argv })
        };
        assert_eq!(parse("qm guest exec 108 --timeout 20 -- cat -n"), exec(20, &["cat", "-n"]));
        assert_eq!(parse("qm guest exec 108 uptime"), exec(30, &["uptime"]));
        assert_eq!(parse("qm guest exec 108 -- -x --timeout 1"), exec(30, &["-x", "--timeout", "1"]));
        assert_eq!(parse("/usr/sbin/qm agent 108 ping"), Some(Qm::Ping { vmid: 108 }));
        assert_eq!(parse("qm guest cmd 108 ping"), Some(Qm::Ping { vmid: 108 }));
        assert_eq!(parse("qm status 108"), Some(Qm::Status { vmid: 108 }));
        assert_eq!(parse("lsusb"), None);
        for bad in ["qm", "qm guest exec 108", "qm guest exec x ls", "qm start 108", "qm guest exec 108 --what ls"] {
            assert!(matches!(parse(bad), Some(Qm::Unknown(_))), "{bad}");
        }
    }

    #[test]
    fn bytes_are_quoted_one_by_one() {
        assert_eq!(quoted("é\"\n".as_bytes()), "\"\u{c3}\u{a9}\\\"\\n\"");
    }
}
