//! Programs in containers: a closed set.

use std::time::Duration;

use serde_json::Value;

use super::call::Target;
use super::json::{self, flag, list, text};
use super::kinds;
use crate::lab::World;
use crate::lab::world::Firmware;

/// What a program said. No exit code: there is no such program.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) exit: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) took: Duration,
}

impl Said {
    fn out(text: impl Into<Vec<u8>>) -> Self {
        Self { exit: Some(0), stdout: text.into(), ..Self::default() }
    }

    fn code(exit: i32) -> Self {
        Self { exit: Some(exit), ..Self::default() }
    }

    fn failed(exit: i32, text: String) -> Self {
        Self { exit: Some(exit), stderr: text.into_bytes(), ..Self::default() }
    }
}

fn words(argv: &[String]) -> Vec<&str> {
    argv.iter().map(String::as_str).collect()
}

/// Whether a command writes its input to its output as it comes.
pub(crate) fn copies_stdin(argv: &[String]) -> bool {
    matches!(words(argv).as_slice(), ["cat"] | ["cat", "-"] | ["sh" | "bash", "-c", "cat"])
}

/// Whether a command reads its input to the end.
pub(crate) fn reads_stdin(argv: &[String]) -> bool {
    matches!(words(argv).as_slice(), ["wc", "-c"])
}

/// Runs a command in a container of a pod.
pub(crate) fn run(world: &mut World, target: &Target, argv: &[String], input: &[u8]) -> Said {
    let Ok(pod) = super::read::find(&world.kube, target) else { return Said::code(137) };
    let mut said = match words(argv).as_slice() {
        ["python3" | "python", "-c", script] if script.contains("list_edge_tpus") => {
            let mut said = Said::out(tpus(world, &pod));
            said.took = Duration::from_millis(800);
            said
        }
        ["true"] => Said::code(0),
        ["false"] => Said::code(1),
        ["env"] => Said::out(environment(world, &pod).iter().map(|(k, v)| format!("{k}={v}\n")).collect::<String>()),
        ["printenv", name] => match environment(world, &pod).into_iter().find(|(key, _)| key == name) {
            Some((_, value)) => Said::out(format!("{value}\n")),
            None => Said::code(1),
        },
        ["hostname"] => Said::out(format!("{}\n", json::name(&pod))),
        ["echo", words @ ..] => Said::out(format!("{}\n", words.join(" "))),
        ["cat" | "sh" | "bash", ..] if copies_stdin(argv) => Said::code(0),
        ["wc", "-c"] => Said::out(format!("{}\n", input.len())),
        ["sh" | "bash", "-c", line] => return shell(world, target, line, input),
        ["du", "-sb" | "-s", path] => match volume_at(world, &pod, path) {
            Some(bytes) => Said::out(format!("{bytes}\t{path}\n")),
            None => Said::failed(1, format!("du: cannot access '{path}': No such file or directory\n")),
        },
        _ => return Said::default(),
    };
    said.took += Duration::from_millis(100);
    said
}

/// A shell that knows `exit N` and the other programs, one after the other with `;`.
fn shell(world: &mut World, target: &Target, line: &str, input: &[u8]) -> Said {
    let mut all = Said::code(0);
    for part in line.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let argv: Vec<String> = part.split_whitespace().map(str::to_owned).collect();
        if let ["exit", code] = words(&argv).as_slice() {
            all.exit = Some(code.parse().unwrap_or(2));
            return all;
        }
        let (argv, to_stderr) = match words(&argv).as_slice() {
            [before @ .., ">&2" | "1>&2"] => (before.iter().map(|w| (*w).to_owned()).collect(), true),
            _ => (argv.clone(), false),
        };
        let said = run(world, target, &argv, input);
        all.took += said.took;
        let out = if to_stderr { &mut all.stderr } else { &mut all.stdout };
        out.extend_from_slice(&said.stdout);
        all.stderr.extend_from_slice(&said.stderr);
        if said.exit.is_none() {
            all.stderr.extend_from_slice(format!("sh: 1: {}: not found\n", argv.join(" ")).as_bytes());
        }
        all.exit = Some(said.exit.unwrap_or(127));
    }
    all
}

/// The variables of a pod's first container, those from Secrets too.
fn environment(world: &World, pod: &Value) -> Vec<(String, String)> {
    use base64::Engine;
    let of_secret = |from: &Value| {
        let secret = world.kube.store.get(kinds::secrets(), json::namespace(pod), text(from, "/name"))?;
        let data = json::map(secret, "/data")?.get(text(from, "/key"))?.as_str()?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let one = |variable: &Value| {
        let value = match variable.pointer("/valueFrom/secretKeyRef") {
            Some(from) => of_secret(from)?,
            None => text(variable, "/value").to_owned(),
        };
        Some((text(variable, "/name").to_owned(), value))
    };
    list(pod, "/spec/containers/0/env").iter().filter_map(one).collect()
}

/// What `print(list_edge_tpus())` of pycoral prints: the accelerators on a super-speed bus that the container can open.
fn tpus(world: &World, pod: &Value) -> String {
    let privileged = list(pod, "/spec/containers").iter().any(|c| flag(c, "/securityContext/privileged"));
    let mounted = list(pod, "/spec/volumes").iter().any(|v| text(v, "/hostPath/path") == "/dev/bus/usb");
    let ids: Vec<&str> = world
        .sticks
        .values()
        .filter_map(|s| match &s.firmware {
            Firmware::Coral { boot, run } => Some([boot.as_str(), run.as_str()]),
            Firmware::Plain { .. } => None,
        })
        .flatten()
        .collect();
    let vmid = world.vm_of_node(text(pod, "/spec/nodeName")).filter(|_| privileged || mounted);
    let found: Vec<String> = vmid
        .map(|v| world.guest_usb(v))
        .unwrap_or_default()
        .iter()
        .filter(|d| d.speed >= 5_000 && ids.contains(&d.id.as_str()))
        .map(|d| format!("{{'type': 'usb', 'path': '/sys/bus/usb/devices/{}'}}", d.port()))
        .collect();
    format!("[{}]\n", found.join(", "))
}

/// The bytes in the claim that is mounted at a path.
fn volume_at(world: &World, pod: &Value, path: &str) -> Option<u64> {
    let mounts = list(pod, "/spec/containers").iter().flat_map(|c| list(c, "/volumeMounts"));
    let name =
        mounts.into_iter().find(|m| text(m, "/mountPath") == path.trim_end_matches('/')).map(|m| text(m, "/name"))?;
    let volume = list(pod, "/spec/volumes").iter().find(|v| text(v, "/name") == name)?;
    let store = &world.kube.store;
    let claim = store.get(kinds::claims(), json::namespace(pod), text(volume, "/persistentVolumeClaim/claimName"))?;
    let volume = store.get(kinds::volumes(), "", text(claim, "/spec/volumeName"))?;
    let vm = world.vms.get(&world.vm_of_node(text(pod, "/spec/nodeName"))?)?;
    vm.guest.used.get(super::control::local_path(volume)).copied()
}
