//! A lab with a secret in every place that a site has for one, and the files that a run leaves behind.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use pvemig::lab::{FaultRule, Lab, LabOptions, World};
use serde_json::{Value, json};

use super::planted::{Planted, Seen};
use super::sown::world;
use super::{Said, Shell, said};
use crate::talos::pki::{NOW, Pki, talosconfig};

/// Simulated seconds in a real one.
const SPEED: u32 = 200;
/// How many talosconfigs there are, the first one good.
pub(crate) const TALOSCONFIGS: usize = 9;

/// A lab in this process, and what was planted in it and seen of it.
pub(crate) struct Ground {
    runtime: tokio::runtime::Runtime,
    pub(crate) lab: Lab,
    pub(crate) shell: Shell,
    pub(crate) planted: Planted,
    /// Values that are let out on purpose, to see that the search finds them there.
    pub(crate) control: Planted,
    pub(crate) seen: Vec<Seen>,
}

pub(crate) fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Ground {
    pub(crate) fn new() -> Self {
        let mut ground = Self::of(|planted, _| world(planted));
        ground.talosconfigs();
        ground.git();
        ground.objects();
        ground
    }

    /// Of another world, which has a `site: password` and a `site: token secret`. It gets the control's value too.
    pub(crate) fn of(world: impl FnOnce(&mut Planted, &str) -> World) -> Self {
        let (shell, mut planted, mut control) = (Shell::new(), Planted::default(), Planted::default());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let world = world(&mut planted, &control.plain("control"));
        let options = LabOptions { world, dir: shell.path().join("lab"), speed: SPEED };
        let lab = runtime.block_on(Lab::start(options)).unwrap();
        let mut ground = Self { runtime, lab, shell, planted, control, seen: Vec::new() };
        ground.programs();
        ground.environment();
        ground
    }

    fn dir(&self) -> &Path {
        self.lab.dir()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    /// Programs that write their command lines down: git, and those that give out secrets.
    fn programs(&mut self) {
        let bin = self.at("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(self.at("tmp")).unwrap();
        let argv = self.at("argv.log");
        std::fs::write(&argv, "").unwrap();
        let path = std::env::var("PATH").unwrap();
        let git = std::env::split_paths(&path).map(|dir| dir.join("git")).find(|git| git.is_file()).unwrap();
        let script = |rest: &str| format!("#!/bin/sh\nprintf '%s\\n' \"$0 $*\" >> {}\n{rest}\n", argv.display());
        write(&bin.join("git"), &script(&format!("exec {} \"$@\"", git.display())), 0o755);
        write(&bin.join("pass"), &script("cat \"$1\""), 0o755);
    }

    fn environment(&mut self) {
        // Before a cluster is built there is none.
        if let Ok(text) = std::fs::read_to_string(self.at("kubeconfig")) {
            self.planted.known("kubeconfig: token", text.split("token: ").nth(1).unwrap().trim());
        }
        let key = self.read("id_ed25519");
        let body: Vec<&str> = key.lines().filter(|line| !line.starts_with("---")).collect();
        for (n, line) in body.iter().enumerate().filter(|(_, line)| line.len() >= 12) {
            self.planted.known(&format!("ssh: private key, line {n}"), line);
        }
        let home = self.shell.path();
        let line = format!("https://ops:{}@git.lan\n", self.planted.plain("git: credentials file"));
        write(&home.join(".git-credentials"), &line, 0o600);
        let header = self.planted.plain("git: http.extraHeader");
        let config = format!(
            "[credential]\n\thelper = store\n[http]\n\textraHeader = \"Authorization: Basic {header}\"\n\
             [user]\n\tname = ops\n\temail = ops@localhost\n"
        );
        write(&home.join(".gitconfig"), &config, 0o600);
        for (name, place) in [("bad-password", "site: wrong password"), ("bad-token", "site: wrong token secret")] {
            let value = self.planted.plain(place);
            write(&self.at(name), &format!("{value}\n"), 0o600);
        }
    }

    /// A good talosconfig, and one for each mistake, with the key wherever it may stand.
    fn talosconfigs(&mut self) {
        let pki = Pki::new();
        let client = pki.client("os:admin", NOW);
        let body = client.key.lines().nth(1).unwrap();
        self.planted.known("talosconfig: key, in its PEM form", body);
        let good = talosconfig(&pki.pem(), &client);
        let value = |field: &str| good.split(&format!("        {field}: ")).nth(1).unwrap().lines().next().unwrap();
        let key = value("key");
        self.planted.known("talosconfig: key", key);
        let none = self.planted.plain("talosconfig: a key that is none");
        let proxy = self.planted.plain("talosconfig: password of its proxy");
        let other = pki.client("os:admin", NOW).key;
        self.planted.known("talosconfig: key of another certificate", other.lines().nth(1).unwrap());
        let texts = [
            good.clone(),
            good.replace(value("crt"), key),
            good.replace(value("ca"), key),
            good.replace(key, &none),
            good.replace(key, &base64::engine::general_purpose::STANDARD.encode(&none)),
            good.replace(key, &base64::engine::general_purpose::STANDARD.encode(&other)),
            good.replace("key: ", "key: [").replace("context: home", "context: [home"),
            good.replace("contexts:", &format!("contexts: {key}\nother:")),
            format!("{good}        proxy-url: http://me:{proxy}@127.0.0.1:1\n"),
        ];
        assert_eq!(texts.len(), TALOSCONFIGS);
        for (n, text) in texts.iter().enumerate() {
            write(&self.at(&format!("talosconfig-{n}")), text, 0o600);
        }
    }

    /// What stands in files of the checkout, next to what is edited.
    fn git(&mut self) {
        let planted = &mut self.planted;
        let deployment = self.lab.dir().join("checkout/apps/frigate/deployment.yaml");
        let text = std::fs::read_to_string(&deployment).unwrap();
        let env = format!(
            "          env:\n            - name: API_KEY\n              value: {}\n            - name: PLAIN\n              \
             value: {}\n",
            planted.token("Deployment: env value"),
            planted.plain("Deployment: env value without a telling name"),
        );
        let text = text.replacen("          env:\n", &env, 1).replacen(
            "    metadata:\n      labels:",
            &format!(
                "    metadata:\n      annotations:\n        example.org/key: {}\n      labels:",
                planted.plain("Deployment: annotation of its pods")
            ),
            1,
        );
        std::fs::write(&deployment, text).unwrap();
        let config = self.lab.dir().join("checkout/apps/frigate/configmap.yaml");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text
            .replace(
                "user: frigate",
                &format!("user: frigate\n      password: {}", planted.plain("ConfigMap: password in a file")),
            )
            .replace(
                "preset-nvidia-h264",
                &format!("preset-nvidia-h264 # token={}", planted.token("ConfigMap: on the line that is edited")),
            )
            .replace("rtsp://", &format!("rtsp://cam:{}@", planted.plain("ConfigMap: password in a URL")))
            .replace(
                "\ndata:\n",
                &format!("\ndata:\n  api_token: {}\n", planted.plain("ConfigMap: value with a telling name")),
            );
        std::fs::write(&config, text).unwrap();
        let checkout = self.at("checkout");
        let commit = ["-c", "user.name=Ops", "-c", "user.email=ops@localhost", "commit", "-qam", "keys"];
        for args in [&commit[..], &["push", "-q", "origin", "HEAD:main"]] {
            let done = Command::new("git").args(args).current_dir(&checkout).env("LAB_HANDS", "commit push").output();
            let done = done.unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }

    /// What stands in objects of the cluster.
    fn objects(&mut self) {
        let b64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let annotated = |value: String| {
            let applied = json!({"spec": {"env": [{"name": "TOKEN", "value": value}]}}).to_string();
            json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}}})
        };
        let planted = &mut self.planted;
        let docker =
            json!({"auths": {"ghcr.io": {"auth": b64(&format!("ops:{}", planted.plain("Secret: image pull")))}}});
        let pull = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull", "namespace": "frigate"},
            "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": b64(&docker.to_string())}});
        let mqtt = planted.token("Secret: a key that the workload names");
        let rtsp = planted.plain("Secret: another key of the same");
        let data = json!({"data": {"mqtt-password": b64(&mqtt), "rtsp-password": b64(&rtsp)}});
        let identity = json!({"data": {"identity": b64(&planted.plain("Secret: of the Flux source"))}});
        let patches = [
            ("", "Secret", "frigate", "frigate-secrets", data),
            ("", "Secret", "flux-system", "flux-system", identity),
            ("apps", "Deployment", "frigate", "frigate", annotated(planted.token("Deployment: last applied"))),
            ("", "PersistentVolumeClaim", "frigate", "frigate-config", annotated(planted.plain("Claim: last applied"))),
            (
                "",
                "PersistentVolumeClaim",
                "frigate",
                "frigate-media",
                json!({"metadata": {"annotations": {"example.org/key": planted.plain("Claim: annotation")}}}),
            ),
            ("", "Node", "", "k3s-vm-still-fawn", annotated(planted.plain("Node: annotation"))),
            (
                "source.toolkit.fluxcd.io",
                "GitRepository",
                "flux-system",
                "flux-system",
                annotated(planted.plain("Flux source: annotation")),
            ),
            (
                "kustomize.toolkit.fluxcd.io",
                "Kustomization",
                "flux-system",
                "flux-system",
                annotated(planted.plain("Kustomization: annotation")),
            ),
            (
                "",
                "ConfigMap",
                "frigate",
                "frigate-config",
                json!({"metadata": {"annotations": {"example.org/key": planted.plain("ConfigMap: annotation")}}}),
            ),
        ];
        let kubeconfig = self.read("kubeconfig");
        let shared = self.lab.shared().clone();
        self.runtime.block_on(async {
            let file = kube::config::Kubeconfig::from_yaml(&kubeconfig).unwrap();
            let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
            let client = kube::Client::try_from(config).unwrap();
            // The new pod of what was pushed runs.
            let settled = |world: &World| {
                let picture = world.compared();
                let pods = picture["kubernetes"]["pods"].as_object()?.clone();
                let workload = &picture["kubernetes"]["objects"]["Deployment frigate/frigate"];
                let new =
                    workload["spec"].to_string().contains("API_KEY") && workload["status"]["updatedReplicas"] == 1;
                (new && pods.keys().all(|pod| pod.ends_with(" ready"))).then_some(())
            };
            shared.until(Duration::from_secs(1800), settled).await.unwrap();
            let secrets: Api<DynamicObject> = api(&client, "", "Secret", "frigate");
            secrets.create(&PostParams::default(), &serde_json::from_value(pull).unwrap()).await.unwrap();
            for (group, kind, namespace, name, patch) in &patches {
                let api: Api<DynamicObject> = api(&client, group, kind, namespace);
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            }
        });
        assert_eq!(patches.len(), 9);
    }

    /// A site file beside the lab's own, changed by `edit`.
    pub(crate) fn site(&self, name: &str, edit: impl FnOnce(&mut Value)) -> String {
        let mut site: Value = serde_saphyr::from_str(&self.read("site.yaml")).unwrap();
        edit(&mut site);
        let path = self.at(name);
        std::fs::write(&path, serde_saphyr::to_string(&site).unwrap()).unwrap();
        name.to_owned()
    }

    pub(crate) fn command(&mut self, args: &[&str]) -> Command {
        let mut command = self.shell.command(args);
        let path = format!("{}:{}", self.at("bin").display(), std::env::var("PATH").unwrap());
        let proxy = "environment: user and password of a proxy";
        let known = |planted: &Planted, place: &str| planted.0.iter().find(|(p, _)| p == place).map(|(_, v)| v.clone());
        let mut value = |place: &str| known(&self.planted, place).unwrap_or_else(|| self.planted.plain(place));
        command.env("PATH", path).env("HTTPS_PROXY", format!("http://me:{}@127.0.0.1:1", value(proxy)));
        command.env("AWS_SECRET_ACCESS_KEY", value("environment: a variable that is not ours"));
        let password = known(&self.planted, "site: password").unwrap();
        command.env("PVE_PASSWORD", password).env("SSH_KEY_TEXT", self.read("id_ed25519"));
        command.env("PVE_TOKEN", known(&self.planted, "site: token secret").unwrap());
        command.env("TMPDIR", self.at("tmp")).current_dir(self.lab.dir());
        command
    }

    /// Runs the binary with a site file of the lab's folder and keeps all that it says.
    pub(crate) fn run(&mut self, site: &str, args: &[&str]) -> Said {
        let state = format!("state-{}", site.trim_end_matches(".yaml"));
        let mut command = self.command(args);
        let said = said(command.args(["-vvv", "--site", site, "--state", &state]).output().unwrap());
        self.keep(&args.join(" "), &said);
        said
    }

    pub(crate) fn keep(&mut self, name: &str, said: &Said) {
        for (channel, text) in [("standard output", &said.stdout), ("standard error", &said.stderr)] {
            self.seen.push(Seen { channel, name: name.to_owned(), text: text.clone().into_bytes() });
        }
    }

    /// A command whose events come as JSON, killed as soon as a step has told of a call.
    pub(crate) fn killed(&mut self, args: &[&str], step: &str) {
        let log = std::fs::File::create(self.at("killed.log")).unwrap();
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let (mut text, call) = (String::new(), format!("\"is\":\"call\",\"key\":\"{step}\""));
        while !text.contains(&call) {
            let line = lines.next();
            assert!(line.is_some(), "{text}{}", self.read("killed.log"));
            text += &line.unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let cut = Said { code: -1, stdout: text + &lines.collect::<String>(), stderr: self.read("killed.log") };
        self.keep(&format!("{}, killed", args[0]), &cut);
    }

    pub(crate) fn fault(&self, rule: FaultRule) {
        self.lab.fault(rule);
    }

    pub(crate) fn clear(&self) {
        self.lab.shared().clear_faults();
    }

    /// Takes what is in a folder of the lab's own for shown; how many files.
    pub(crate) fn folder(&mut self, channel: &'static str, name: &str) -> usize {
        let mut files = Vec::new();
        walk(&self.at(name), &mut files);
        for path in &files {
            let name = path.strip_prefix(self.dir()).unwrap().display().to_string();
            self.seen.push(Seen { channel, name, text: std::fs::read(path).unwrap() });
        }
        files.len()
    }

    /// Everything below the state directories and the log of command lines; the content of run files is theirs alone.
    pub(crate) fn files(&mut self) -> usize {
        let mut files = Vec::new();
        let states: Vec<_> = std::fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let is_state = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("state");
        states.iter().filter(is_state).for_each(|dir| walk(dir, &mut files));
        let (mut kept, planted) = (0, self.planted.search());
        for path in files {
            let name = path.strip_prefix(self.dir()).unwrap().display().to_string();
            self.seen.push(Seen { channel: "list of files", name: "state".into(), text: name.clone().into_bytes() });
            let text = std::fs::read(&path).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            if name.contains("/files/") {
                let dir = std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777;
                assert_eq!((mode, dir), (0o600, 0o700), "{name}");
                kept += usize::from(!planted.found(&text).is_empty());
            } else {
                let channel = if name.ends_with("journal.jsonl") { "journal" } else { "file of the state directory" };
                assert!(channel != "journal" || mode == 0o600, "{name}: {mode:o}");
                self.seen.push(Seen { channel, name, text });
            }
        }
        let text = self.read("argv.log").into_bytes();
        self.seen.push(Seen { channel: "command lines", name: "of children".into(), text });
        kept
    }
}

fn api(client: &kube::Client, group: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    // Every kind that is asked for is in a `v1`.
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    match namespace {
        "" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), out);
        } else {
            out.push(entry.path());
        }
    }
}
