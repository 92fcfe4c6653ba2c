//! A real guest agent behind the lab's agent calls, beside the simulated one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::permit::{Again, Notebook};
use pvemig::base::secret::Secret;
use pvemig::base::tls::{Trust, client_config};
use pvemig::guest::{Exit, Fact, Guest, Look, Route};
use pvemig::lab::{FaultEffect, FaultRule, Front, Lab, LabOptions, load};
use pvemig::proxmox::{AgentCause, Auth, Endpoint, Error, Proxmox};
use serde_json::{Value, json};

use crate::guest::place::program;

/// The simulated one, and the real one.
const SIMULATED: &str = "/nodes/pve/qemu/103";
const REAL: &str = "/nodes/still-fawn/qemu/108";
const LONG: Duration = Duration::from_secs(60);

/// The agent's own program, on this machine.
struct Qga(Child);

impl Qga {
    /// `blocked`: commands that its settings forbid.
    fn start(dir: &Path, blocked: &str) -> (Self, PathBuf) {
        assert!(Path::new("/usr/sbin/qemu-ga").exists(), "this test needs the package qemu-guest-agent");
        let state = dir.join(format!("qga{}", blocked.len()));
        std::fs::create_dir(&state).unwrap();
        let socket = state.join("socket");
        let mut qga = program("/usr/sbin/qemu-ga");
        qga.args(["-m", "unix-listen", "-p"]).arg(&socket).arg("-t").arg(&state).arg("-l").arg(state.join("log"));
        if !blocked.is_empty() {
            qga.args(["-b", blocked]);
        }
        // What programs say is compared to the letter.
        let mut running = Self(qga.env("LC_ALL", "C").spawn().unwrap());
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(running.0.try_wait().unwrap().is_none(), "qemu-ga ended: {}", state.join("log").display());
            std::thread::yield_now();
        }
        (running, socket)
    }

    fn signal(&self, signal: &str) {
        assert!(program("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Qga {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        self.0.wait().unwrap();
    }
}

struct Bench {
    lab: Lab,
    client: reqwest::Client,
    proxmox: Arc<Proxmox>,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = load("usb-move").unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().join("lab"), speed: 100 }).await.unwrap();
        let trust = Trust::Pins(vec![lab.reach().proxmox.fingerprint]);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(&trust).unwrap())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        let secret = std::fs::read_to_string(lab.dir().join("pve-token-secret")).unwrap();
        let endpoint = Endpoint {
            cluster: "home".into(),
            urls: vec![format!("https://{}", lab.reach().proxmox.address)],
            trust: Some(trust),
            auth: Auth::Token { id: "root@pam!pvemig".into(), secret: Secret::new(secret.trim()) },
            clock: Clock::fast(10),
        };
        Self { lab, client, proxmox: Arc::new(Proxmox::new(endpoint).unwrap()), dir }
    }

    fn agent(&self, socket: &Path) {
        self.lab.shared().change(|world| {
            world.vms.get_mut(&108).unwrap().guest.agent_socket = Some(socket.to_owned());
        });
    }

    /// Status and body of a call of an agent.
    async fn ask(&self, vm: &str, method: &str, call: &str, body: Value) -> (u16, Value) {
        let url = format!("https://{}/api2/json{vm}/agent/{call}", self.lab.reach().proxmox.address);
        let secret = std::fs::read_to_string(self.lab.dir().join("pve-token-secret")).unwrap();
        let request = self.client.request(method.parse().unwrap(), url);
        let request = request.header("Authorization", format!("PVEAPIToken=root@pam!pvemig={}", secret.trim()));
        let request = if body.is_object() { request.json(&body) } else { request };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    /// Runs a command to its end: the answer of the start where that is refused, else that of the end, and that of
    /// asking once more.
    async fn run(&self, vm: &str, argv: &[&str], input: Option<&str>) -> [(u16, Value); 2] {
        let body = match input {
            Some(input) => json!({ "command": argv, "input-data": input }),
            None => json!({ "command": argv }),
        };
        let begun = self.ask(vm, "POST", "exec", body).await;
        let Some(pid) = begun.1["data"]["pid"].as_i64() else { return [begun, (0, Value::Null)] };
        assert_eq!(begun.1, json!({ "data": { "pid": pid } }));
        let status = format!("exec-status?pid={pid}");
        loop {
            let end = self.ask(vm, "GET", &status, Value::Null).await;
            if end.1["data"]["exited"] != 0 {
                return [end, self.ask(vm, "GET", &status, Value::Null).await];
            }
            assert_eq!(end, (200, json!({ "data": { "exited": 0 } })));
        }
    }
}

/// The types of a value by path; a list is as its elements together.
fn shape(value: &Value, at: &str, into: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(list) => {
            list.iter().for_each(|one| shape(one, &format!("{at}[]"), into));
            "list"
        }
        Value::Object(map) => {
            map.iter().for_each(|(key, one)| shape(one, &format!("{at}.{key}"), into));
            "object"
        }
    };
    into.entry(at.to_owned()).or_default().insert(kind);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_agent_answers_as_the_real_one() {
    let bench = Bench::start().await;
    let (_qga, socket) = Qga::start(bench.dir.path(), "");
    bench.agent(&socket);
    // The same files on both sides.
    let path = |name: &str| bench.dir.path().join(name).to_str().unwrap().to_owned();
    let (small, large, bytes) = (path("small"), path("large"), path("bytes"));
    let texts =
        [(&small, "one\ntwo\n".to_owned()), (&large, "x".repeat(20_000_000)), (&bytes, "caf\u{e9} \u{2713}\n".into())];
    for (path, text) in &texts {
        std::fs::write(path, text).unwrap();
        bench.lab.shared().change(|world| {
            world.vms.get_mut(&103).unwrap().guest.files.insert((*path).clone(), text.clone());
        });
    }

    // Calls whose answers differ in what they say of the machine have the same shape.
    let mut compared = 0;
    for call in ["info", "get-host-name", "get-osinfo", "network-get-interfaces"] {
        let mut shapes = [SIMULATED, REAL].map(|_| BTreeMap::new());
        for (vm, into) in [SIMULATED, REAL].into_iter().zip(&mut shapes) {
            let (status, body) = bench.ask(vm, "GET", call, Value::Null).await;
            assert_eq!(status, 200, "{call}: {body}");
            shape(&body, "", into);
        }
        let [simulated, real] = shapes;
        assert!(simulated.len() >= 4, "{call}: {simulated:?}");
        assert_eq!(simulated, real, "{call}");
        compared += 1;
    }
    let names = async |vm: &str| {
        let (_, body) = bench.ask(vm, "GET", "info", Value::Null).await;
        let rows = body["data"]["result"]["supported_commands"].as_array().unwrap().clone();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let (simulated, real) = (names(SIMULATED).await, names(REAL).await);
    assert!(simulated.is_subset(&real) && simulated.len() == 10, "{simulated:?} {real:?}");

    // Commands: each answer to the letter, and that of asking again.
    let commands: Vec<(Vec<&str>, Option<&str>)> = vec![
        (vec!["true"], None),
        (vec!["false"], None),
        (vec!["/bin/echo", "a  b", "c"], None),
        (vec!["cat", &small], None),
        (vec!["cat", &bytes], None),
        (vec!["cat", &large], None),
        (vec!["cat", "/none"], None),
        (vec!["ls", "/none"], None),
        (vec!["cat", &small, "/none"], None),
        (vec!["test", "-e", "/none"], None),
        (vec!["grep", "-H", "two", &small], None),
        (vec!["sh", "-c", "echo one; cat /none; echo two"], None),
        (vec!["cat"], Some("to be read\n")),
        (vec!["cat"], Some("caf\u{e9}")),
        (vec!["cat"], Some("\u{2713}")),
        (vec!["cat"], Some("")),
        (vec!["cat"], None),
        (vec!["no-such-program"], None),
        (vec!["ls -l"], None),
        (vec![""], None),
    ];
    for (argv, input) in &commands {
        let simulated = bench.run(SIMULATED, argv, *input).await;
        let real = bench.run(REAL, argv, *input).await;
        if argv.last() == Some(&large.as_str()) {
            let end = &real[0].1["data"];
            assert_eq!((end["out-data"].as_str().unwrap().len(), &end["out-truncated"]), (16 << 20, &json!(1)));
            assert!(simulated == real, "20 MB");
        } else {
            assert_eq!(simulated, real, "{argv:?} {input:?}");
        }
        compared += 1;
    }

    // Everything else, to the letter.
    let file = |path: &str| format!("file-read?file={path}");
    let calls = [
        ("POST", "ping".to_owned()),
        ("GET", "exec-status?pid=4000000".to_owned()),
        ("GET", "exec-status".to_owned()),
        ("GET", "exec-status?pid=x".to_owned()),
        ("GET", file(&small)),
        ("GET", file(&bytes)),
        ("GET", file(&large)),
        ("GET", file("/none")),
    ];
    for (method, call) in &calls {
        let simulated = bench.ask(SIMULATED, method, call, Value::Null).await;
        let real = bench.ask(REAL, method, call, Value::Null).await;
        assert!(simulated == real, "{call}: {:.300} {:.300}", simulated.1.to_string(), real.1.to_string());
        compared += 1;
    }

    // An agent whose settings forbid to run programs.
    let (_other, socket) = Qga::start(bench.dir.path(), "guest-exec,guest-exec-status");
    bench.agent(&socket);
    bench.lab.shared().change(|world| world.vms.get_mut(&103).unwrap().guest.agent.exec_allowed = false);
    assert_eq!(bench.run(SIMULATED, &["true"], None).await, bench.run(REAL, &["true"], None).await);
    compared += 1;

    assert_eq!(compared, 4 + 20 + 8 + 1);
    println!("qemu-ga: {compared} calls compared with the simulated agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn pvemig_reaches_a_real_agent() {
    let bench = Bench::start().await;
    let (qga, socket) = Qga::start(bench.dir.path(), "");
    bench.agent(&socket);
    let proxmox = &bench.proxmox;
    let vm = proxmox.locate(108).await.unwrap();
    proxmox.agent_ping(&vm).await.unwrap();
    let info = proxmox.agent_info(&vm).await.unwrap();
    assert!(info.may_exec() && info.commands.len() > 30 && !info.version.is_empty(), "{info:?}");

    // Looks, by the routes of a guest.
    let guest = Guest::new("vm 108", vec![Route::Agent { proxmox: proxmox.clone(), vmid: 108 }], Clock::real());
    let here = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(guest.boot_id().await.unwrap().value, here.trim());
    assert!(guest.exists("/etc").await.unwrap().value);
    assert!(!guest.exists("/etc/no such thing").await.unwrap().value);
    assert_eq!(guest.file("/proc/sys/kernel/random/boot_id").await.unwrap().value, here);
    let facts = guest.facts().await.agent.unwrap();
    assert!(facts.channel.is_yes() && facts.ping.is_yes() && facts.exec.is_yes(), "{facts:?}");
    let look = |argv: &[&str]| Look::Declared { argv: argv.iter().map(|word| (*word).to_owned()).collect() };
    let both = guest.look(&look(&["sh", "-c", "echo out; echo err >&2; exit 3"])).await.unwrap().value;
    assert_eq!((both.exit, both.stdout.as_str(), both.stderr.as_str()), (Exit::Status(3), "out\n", "err\n"));
    let killed = guest.look(&look(&["sh", "-c", "kill -TERM $$"])).await.unwrap().value;
    assert_eq!(killed.exit, Exit::Status(128 + 15));
    let flood = guest.look(&look(&["sh", "-c", "yes | head -c 20000000"])).await.unwrap().value;
    assert!(flood.truncated);
    let awkward = ["it's", "a  b", "", "$HOME", "*", "caf\u{e9}", "a\nb", "\\"];
    let argv = [&["printf", "[%s]"], awkward.as_slice()].concat();
    let said = guest.look(&look(&argv)).await.unwrap().value;
    assert_eq!(said.stdout, awkward.map(|word| format!("[{word}]")).concat());
    let read = proxmox.agent_look(&vm, &["cat"], Some("what it is given")).await.unwrap();
    assert_eq!(read.stdout, b"what it is given");

    // A change, which takes longer than one answer.
    let file = bench.dir.path().join("touched");
    let script = format!("echo begun; sleep 0.3; echo done >{}", file.display());
    let (permit, notebook) = Notebook::permit();
    let done = proxmox.agent_run(&vm, &["sh", "-c", &script], Again::Once, LONG, &permit).await.unwrap();
    assert_eq!((done.exit, done.stdout.as_slice()), (0, &b"begun\n"[..]));
    assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), notebook.notes().len()), ("done\n", 1));

    let cause = |error: Error| match error {
        Error::Agent { cause, .. } => cause,
        other => panic!("{other:?}"),
    };
    let mut causes = 0;
    let mut caused = |is: bool| {
        assert!(is);
        causes += 1;
    };
    caused(matches!(cause(proxmox.agent_look(&vm, &["no-such"], None).await.unwrap_err()), AgentCause::NoProgram(_)));
    // The program has ended before it is first asked about; the answer to that is lost on the way, and the agent has
    // forgotten the program by then.
    bench.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::Delay(50_000)).path("*/agent/exec").times(1));
    bench.lab.fault(FaultRule::on(Front::Proxmox, FaultEffect::ResetAfter).path("*/agent/exec-status").times(1));
    let lost = proxmox.agent_run(&vm, &["true"], Again::Once, LONG, &permit).await.unwrap_err();
    caused(
        matches!(&lost, Error::Agent { cause: AgentCause::ResultLost(_), .. })
            || matches!(&lost, Error::LostAnswer { .. }),
    );
    bench.lab.shared().clear_faults();
    let short = Duration::from_millis(100);
    let running = proxmox.agent_run(&vm, &["sleep", "2"], Again::Once, short, &permit).await.unwrap_err();
    caused(matches!(cause(running), AgentCause::StillRunning { .. }));

    // Stopped: it takes what it is sent and says nothing; let go, it answers whoever asks then, and only that.
    qga.signal("-STOP");
    caused(matches!(cause(proxmox.agent_ping(&vm).await.unwrap_err()), AgentCause::Silent));
    let facts = guest.facts().await.agent.unwrap();
    assert!(facts.channel.is_yes() && matches!(facts.ping, Fact::No(_)), "{facts:?}");
    qga.signal("-CONT");
    // On a busy machine it takes a while to get through what waited for it.
    let mut asked = 1;
    while proxmox.agent_ping(&vm).await.is_err() {
        asked += 1;
        assert!(asked < 20, "it does not answer again");
    }
    assert_eq!(guest.boot_id().await.unwrap().value, here.trim());

    // Forbidden by its settings, and gone.
    let (blocked, socket) = Qga::start(bench.dir.path(), "guest-exec,guest-exec-status");
    bench.agent(&socket);
    caused(matches!(cause(proxmox.agent_look(&vm, &["true"], None).await.unwrap_err()), AgentCause::Disabled(_)));
    assert!(!proxmox.agent_info(&vm).await.unwrap().may_exec());
    drop(blocked);
    caused(matches!(cause(proxmox.agent_ping(&vm).await.unwrap_err()), AgentCause::Silent));
    assert_eq!(causes, 6);
    println!("qemu-ga: {causes} causes of failure through pvemig's client");
}
