//! The guest agent behind the API.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::front::{Call, Data, No};
use super::vm::find;
use crate::lab::world::{AgentExec, World};

/// How much the agent keeps of each kind of output (qemu-ga 7.2), and the server reads of a file.
pub(super) const OUTPUT_CAP: usize = 16 << 20;

/// How long the API waits for an agent's ping before each command.
const PING: Duration = Duration::from_secs(3);

/// Commands with their methods and the rights of PVE 9; before, all take `VM.Monitor`.
const COMMANDS: &[(&str, &str, &[&str])] = &[
    ("POST", "ping", AUDIT),
    ("GET", "info", AUDIT),
    ("GET", "get-host-name", AUDIT),
    ("GET", "get-osinfo", AUDIT),
    ("GET", "network-get-interfaces", AUDIT),
    ("POST", "exec", UNRESTRICTED),
    ("GET", "exec-status", UNRESTRICTED),
    ("GET", "file-read", &["VM.GuestAgent.FileRead", "VM.GuestAgent.Unrestricted"]),
];
const AUDIT: &[&str] = &["VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"];
const MONITOR: &[&str] = &["VM.Monitor"];
const UNRESTRICTED: &[&str] = &["VM.GuestAgent.Unrestricted"];

/// Whether there is such a command.
pub(super) fn exists(method: &str, command: &str) -> bool {
    COMMANDS.iter().any(|(m, c, _)| *m == method && *c == command)
}

/// A call of `.../agent/{command}`. The order of the checks is Proxmox's (qemu-server `PVE/QemuServer/Agent.pm`).
pub(super) async fn call(call: &Call, node: &str, vmid: &str, command: &str) -> Result<Data, No> {
    let rights = COMMANDS.iter().find(|(_, c, _)| *c == command).map_or(UNRESTRICTED, |(_, _, r)| r);
    let rights = if call.shared.read(|w| w.access.before_9()) { MONITOR } else { rights };
    call.need(&format!("/vms/{vmid}"), rights)?;
    call.proxy(node)?;
    match command {
        "exec" => call.params.accept(&["command"], &["input-data"])?,
        "exec-status" => call.params.accept(&["pid"], &[])?,
        "file-read" => call.params.accept(&["file"], &[])?,
        _ => call.params.accept(&[], &[])?,
    }
    let id = find(call, node, vmid)?;
    let (configured, running) = call
        .shared
        .read(|w| w.vms.get(&id).map_or((false, false), |vm| (vm.config.contains_key("agent"), vm.running.is_some())));
    if !configured {
        return Err(No::die("No QEMU guest agent configured"));
    }
    if !running {
        return Err(No::die(format!("VM {id} is not running")));
    }
    let socket = call.shared.read(|w| w.vms.get(&id).and_then(|vm| vm.guest.agent_socket.clone()));
    if let Some(socket) = socket {
        // A process that was started without the channel has none, whatever runs in the guest.
        if !call.shared.read(|w| w.agent_port(id)) {
            return Err(No::die("QEMU guest agent is not running"));
        }
        return super::real_agent::call(call, id, &socket, command).await;
    }
    // An agent that comes up while the ping waits answers it: requests wait in the channel.
    if call.shared.until(PING, |w| w.agent_up(id).then_some(())).await.is_none() {
        return Err(No::die("QEMU guest agent is not running"));
    }
    match command {
        "exec" => exec(call, id),
        "exec-status" => exec_status(call, id),
        "file-read" => file_read(call, id),
        simple => call.shared.read(|w| Ok(json!({ "result": answer(w, id, simple) }).into())),
    }
}

fn answer(world: &World, vmid: u32, command: &str) -> Value {
    let Some(vm) = world.vms.get(&vmid) else { return Value::Null };
    match command {
        "get-host-name" => json!({ "host-name": vm.guest.hostname }),
        "get-osinfo" => {
            json!({ "id": "debian", "name": "Debian GNU/Linux", "version-id": "12", "version": "12 (bookworm)",
            "pretty-name": "Debian GNU/Linux 12 (bookworm)", "machine": "x86_64", "kernel-release": "6.1.0-37-amd64",
            "kernel-version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1" })
        }
        "network-get-interfaces" => {
            let mac = vm.config.get("net0").and_then(|n| n.split(',').next()).and_then(|m| m.split_once('='));
            let address =
                |ip: &str, prefix: u8| json!({ "ip-address-type": "ipv4", "ip-address": ip, "prefix": prefix });
            let statistics = json!({ "rx-bytes": 0, "rx-packets": 0, "rx-errs": 0, "rx-dropped": 0,
                "tx-bytes": 0, "tx-packets": 0, "tx-errs": 0, "tx-dropped": 0 });
            json!([
                { "name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [address("127.0.0.1", 8)],
                  "statistics": statistics },
                { "name": "ens18", "hardware-address": mac.map(|(_, m)| m.to_lowercase()).unwrap_or_default(),
                  "ip-addresses": [address(&vm.guest.ip, 24)], "statistics": statistics },
            ])
        }
        "info" => {
            let names = [
                "guest-ping",
                "guest-info",
                "guest-exec",
                "guest-exec-status",
                "guest-file-open",
                "guest-file-read",
                "guest-get-host-name",
                "guest-get-osinfo",
                "guest-network-get-interfaces",
                "guest-shutdown",
            ];
            let rows: Vec<Value> = names
                .iter()
                .map(|name| {
                    let enabled =
                        vm.guest.agent.exec_allowed || !(name.starts_with("guest-exec") || name.contains("-file-"));
                    json!({ "name": name, "enabled": enabled, "success-response": *name != "guest-shutdown" })
                })
                .collect();
            json!({ "version": "7.2.22", "supported_commands": rows })
        }
        _ => json!({}),
    }
}

/// What a command gets as its standard input: the server codes Perl characters as Latin-1 bytes and dies on anything
/// beyond.
pub(super) fn input(call: &Call) -> Result<Vec<u8>, No> {
    let input = call.params.text("input-data").unwrap_or_default();
    let stdin: Option<Vec<u8>> = input.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let wide = "Wide character in subroutine entry at /usr/share/perl5/PVE/API2/Qemu/Agent.pm line 492.";
    stdin.ok_or_else(|| No::die(wide))
}

fn exec(call: &Call, vmid: u32) -> Result<Data, No> {
    let argv = call.params.list("command");
    let stdin = input(call)?;
    call.shared.change(|w| {
        if w.vms.get(&vmid).is_none_or(|vm| !vm.guest.agent.exec_allowed) {
            return Err(No::die("Agent error: Command guest-exec has been disabled"));
        }
        let outcome = w.guest_exec(vmid, &argv, &stdin);
        if outcome.missing {
            let program = argv.first().cloned().unwrap_or_default();
            return Err(No::die(format!(
                "Agent error: Guest agent command failed, error was 'Failed to execute child process “{program}” (No such file or directory)'"
            )));
        }
        let pid = w.new_pid();
        let done_at = w.now + outcome.took;
        if !outcome.took.is_zero() {
            w.agenda.at(done_at, crate::lab::agenda::Event::Look);
        }
        if let Some(running) = w.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) {
            let record = AgentExec { exit: outcome.exit, stdout: outcome.stdout, stderr: outcome.stderr, done_at };
            running.execs.insert(pid, record);
        }
        Ok(json!({ "pid": pid }).into())
    })
}

/// One character for each byte, as the server answers: it does not decode what a program wrote.
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// What is told of a command that has ended: each kind of output where there is any, and whether it was cut off.
pub(in crate::lab) fn told(exit: i32, stdout: &[u8], stderr: &[u8]) -> Value {
    let mut row = Map::new();
    row.insert("exited".into(), 1.into());
    row.insert("exitcode".into(), exit.into());
    for (name, bytes) in [("out", stdout), ("err", stderr)] {
        if !bytes.is_empty() {
            let kept = bytes.get(..OUTPUT_CAP).unwrap_or(bytes);
            row.insert(format!("{name}-data"), latin1(kept).into());
            row.insert(format!("{name}-truncated"), u8::from(kept.len() < bytes.len()).into());
        }
    }
    Value::Object(row)
}

fn exec_status(call: &Call, vmid: u32) -> Result<Data, No> {
    let pid = call.params.integer("pid")?;
    call.shared.change(|w| {
        let now = w.now;
        let unknown = || No::die("Agent error: Invalid parameter 'pid'");
        let running = w.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()).ok_or_else(unknown)?;
        let pid = pid.and_then(|p| u32::try_from(p).ok()).ok_or_else(unknown)?;
        if running.execs.get(&pid).ok_or_else(unknown)?.done_at > now {
            return Ok(json!({ "exited": 0 }).into());
        }
        // The agent forgets a program when it has told of its end.
        let Some(done) = running.execs.remove(&pid) else { return Err(unknown()) };
        Ok(told(done.exit, &done.stdout, &done.stderr).into())
    })
}

/// What a file holds; the server stops reading after 16 MiB.
pub(super) fn content(bytes: &[u8]) -> Value {
    let read = bytes.get(..OUTPUT_CAP).unwrap_or(bytes);
    let mut row = json!({ "content": latin1(read), "bytes-read": read.len() });
    if read.len() < bytes.len() {
        row["truncated"] = 1.into();
    }
    row
}

fn file_read(call: &Call, vmid: u32) -> Result<Data, No> {
    let path = call.params.text("file").unwrap_or_default();
    call.shared.read(|w| match w.guest_file(vmid, &path) {
        Some(text) => Ok(content(text.as_bytes()).into()),
        None => {
            let why = "No such file or directory";
            Err(No::die(format!("Agent error: failed to open file '{path}' (mode: 'r'): {why}")))
        }
    })
}
