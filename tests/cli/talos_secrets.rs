//! No secret leaves, of an estate with Talos: planted in machine configurations and in what a VM waits to take up, and
//! then searched for in all that surveys, a reboot test with a repair, its undo, and nodes that quote what they were sent
//! show and write at `-vvv`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine;
use pvemig::lab::{self, Class, FaultEffect, FaultRule, Front, World};
use serde_json::{Value, json};

use super::expect;
use super::ground::Ground;
use super::planted::Planted;

const RUN: &str = "reboots";
const SITE: &str = "talos.yaml";
/// Its configuration asks for no modules.
const NUC: &str = "talos-nuc";
const VM: &str = "talos-vm";
/// What is planted in each machine configuration.
const EACH: usize = 23;

/// Replaces what is there once.
fn put(text: &mut String, from: &str, to: &str) {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    *text = text.replacen(from, to, 1);
}

/// A machine configuration with a secret in every place that has one.
fn config(planted: &mut Planted, node: &str, control: &str) -> String {
    let mut text = lab::load("talos-three-no-modules").unwrap().talos.nodes[node].config.clone();
    let from = planted.0.len();
    let mut plain = |place: &str| planted.plain(&format!("{node}: {place}"));
    let b64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let pem =
        |key: &str| b64(&format!("-----BEGIN ED25519 PRIVATE KEY-----\n{key}\n-----END ED25519 PRIVATE KEY-----\n"));
    put(&mut text, "token: k1v9qe.1x0d8s7m2c4b6n3z", &format!("token: {}", plain("machine.token")));
    put(&mut text, "key: LS0tLS1CRUdJTiBub3QgYSByZWFsIG9uZSBlaXRoZXI=", &format!("key: {}", pem(&plain("machine.ca"))));
    let wireguard = format!(
        "      - interface: wg0\n        wireguard: {{ privateKey: {} }}\n",
        plain("machine.network: wireguard")
    );
    put(&mut text, "      - interface: eth0\n", &format!("{wireguard}      - interface: eth0\n"));
    let arguments =
        format!("    extraKernelArgs: [\"talos.config=https://me:{}@cfg.lan/x\"]\n", plain("machine.install"));
    put(&mut text, "    wipe: false\n", &format!("    wipe: false\n{arguments}"));
    // Where 03 edits, too: a comment beside what it replaces, and a module beside those that it adds. What it replaces is
    // the control: such a value is shown, and so it is found by all the ways that a secret of the same place would take.
    let sysctls = format!(
        "  sysctls:\n    # the token here was {}\n    net.core.bpf_jit_harden: \"{control}\" # before {}\n",
        plain("comment: on a line of its own"),
        plain("comment: on the line that is edited"),
    );
    put(&mut text, "  sysctls:\n", &sysctls);
    let own = format!(
        "  kernel:\n    modules:\n      - name: uvcvideo\n        parameters: [\"key={}\"]\n  env:\n    https_proxy: \
         http://me:{}@proxy.lan\n  registries:\n    config:\n      r.lan:\n        auth: {{ username: me, password: {} }}\n  \
         files:\n    - content: |-\n        [login]\n        pass {}\n      permissions: 0o600\n      path: \
         /var/etc/x\n      op: create\n  systemDiskEncryption:\n    state:\n      provider: luks2\n      keys: [{{ slot: 0, \
         static: {{ passphrase: {} }} }}]\n  nodeAnnotations:\n    example.org/key: {}\n",
        plain("machine.kernel: parameter of a module"),
        plain("machine.env: password of a proxy"),
        plain("machine.registries: password"),
        plain("machine.files: content"),
        plain("machine.systemDiskEncryption: passphrase"),
        plain("machine.nodeAnnotations"),
    );
    put(&mut text, "\ncluster:\n", &format!("\n{own}cluster:\n"));
    let secret = format!("secret: {}", b64(&plain("cluster.secret")));
    put(&mut text, "secret: bm90IGEgcmVhbCBzZWNyZXQgb2YgYSBjbHVzdGVyLg==", &secret);
    let cluster = format!(
        "  token: {}\n  aescbcEncryptionSecret: {}\n  secretboxEncryptionSecret: {}\n  serviceAccount: {{ key: {} }}\n  \
         aggregatorCA: {{ crt: LS0t, key: {} }}\n  etcd: {{ ca: {{ crt: LS0t, key: {} }} }}\n  apiServer: {{ extraArgs: {{ \
         oidc-client-secret: {} }} }}\n  inlineManifests:\n    - name: creds\n      contents: |-\n        kind: Secret\n        \
         stringData: {{ pass: {} }}\n",
        plain("cluster.token"),
        b64(&plain("cluster.aescbcEncryptionSecret")),
        b64(&plain("cluster.secretboxEncryptionSecret")),
        pem(&plain("cluster.serviceAccount")),
        pem(&plain("cluster.aggregatorCA")),
        pem(&plain("cluster.etcd.ca")),
        plain("cluster.apiServer: argument"),
        plain("cluster.inlineManifests: contents"),
    );
    put(&mut text, "  token: i2t4w8.o1p3q5r7s9u0v2x4\n", &cluster);
    let service = plain("ExtensionServiceConfig: environment");
    text += &format!(
        "---\napiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: tailscale\nenvironment:\n  - TS_AUTHKEY={service}\n"
    );
    assert_eq!(planted.0.len() - from, EACH - 1);
    planted.token(&format!("{node}: a token of letters and digits"));
    text + &format!("  - TS_OTHER={}\n", planted.0.last().unwrap().1)
}

/// The world, with secrets in two of its nodes.
fn world(planted: &mut Planted, control: &str) -> World {
    let configs = [NUC, VM].map(|node| config(planted, node, control));
    let [nuc, vm] = configs.map(|text| json!({ "config": text }));
    let mut said = |place: &str, head: &str| format!("{head}{}", planted.plain(&format!("vm 223: {place}")));
    let holds = json!({
        "description": said("description", "root password: "),
        "cipassword": said("cloud-init password", ""),
    });
    let waits = json!({
        "description": said("pending description", "the root password is now "),
        "cipassword": said("pending cloud-init password", ""),
        "args": said("pending arguments", "-vnc :1,password="),
        "tags": "x",
    });
    let world = json!({
        "extends": "talos-three-no-modules",
        "access": {
            "users": {"root@pam": {"password": planted.awkward("site: password")}},
            "tokens": {"root@pam!pvemig": {"secret": planted.plain("site: token secret")}},
        },
        "vms": {"223": {"config": holds, "pending": waits}},
        "talos": {"nodes": {NUC: nuc, VM: vm}},
    });
    lab::read(&serde_saphyr::to_string(&world).unwrap()).unwrap()
}

fn stored(ground: &Ground, node: &str) -> String {
    ground.lab.shared().read(|world| world.talos.nodes[node].config.clone())
}

/// A reboot test that mends a configuration: cut in the middle, finished, looked at in every way, and undone.
fn whole(ground: &mut Ground) {
    let former = stored(ground, NUC);
    expect(&ground.run(SITE, &["site", "check"]), 0, &["good"]);
    expect(&ground.run(SITE, &["survey"]), 0, &["L01", "pending"]);
    let survey = ground.run(SITE, &["survey", "--json"]);
    expect(&survey, 0, &[]);
    let survey: Value = serde_json::from_str(&survey.stdout).unwrap();
    let pending = survey["nodes"].as_array().unwrap().iter().find_map(|node| node["vm"]["known"]["pending"].as_array());
    let keys: Vec<&str> = pending.unwrap().iter().map(|change| change["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["args", "cipassword", "description", "tags"]);
    expect(&ground.run(SITE, &["plan", RUN]), 0, &["03 adds NVIDIA's kernel modules"]);
    expect(&ground.run(SITE, &["plan", RUN, "--json"]), 0, &[]);
    let run = ["run", RUN, "--yes", "--json", "-vvv", "--site", SITE, "--state", "state-talos"];
    ground.killed(&run, "03-repair@talos-nuc");
    expect(&ground.run(SITE, &["resume"]), 0, &["06-uncordon@talos-vm"]);
    assert!(stored(ground, NUC).contains("nvidia_modeset"));
    for args in [
        &["status", "--all"][..],
        &["status", "--all", "--json"],
        &["report"],
        &["report", "--format", "markdown"],
        &["report", "--json"],
        &["explain", "03-repair"],
        &["survey", NUC, VM],
        &["survey", "--json"],
        &["plan", RUN],
    ] {
        expect(&ground.run(SITE, args), 0, &[]);
    }
    let runs: Value = serde_json::from_str(&ground.run(SITE, &["status", "--all", "--json"]).stdout).unwrap();
    let id = runs.as_array().unwrap().last().unwrap()["run"].as_str().unwrap();
    expect(&ground.run(SITE, &["undo", id, "--yes"]), 0, &["undone, but for what stays:"]);
    assert_eq!(stored(ground, NUC), former);
    // What undo needs is in a run file, all of it.
    let kept = before_images(ground);
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(std::fs::read_to_string(kept).unwrap(), former);
}

/// The run files with a machine configuration as it was.
fn before_images(ground: &Ground) -> Vec<PathBuf> {
    fn walk(dir: PathBuf, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => walk(entry.path(), out),
                false if entry.file_name().to_string_lossy().contains("machineconfig") => out.push(entry.path()),
                false => {}
            }
        }
    }
    let mut out = Vec::new();
    walk(ground.at("state-talos"), &mut out);
    out
}

/// A node, or what is before it, that quotes what it was sent: when it is asked for a trial, and when it is to do it.
fn quoting(ground: &mut Ground) {
    let config = stored(ground, NUC);
    let line = |of: &str| config.lines().find(|line| line.contains(of)).unwrap().to_owned();
    let (token, pass, comment) = (line("  token: "), line("        pass "), line("# the token"));
    let value = token.trim().trim_start_matches("token: ");
    let said = [
        FaultEffect::Echo(400),
        FaultEffect::Status(400, format!("unknown keys found during decoding:\nmachine:\n{config}")),
        FaultEffect::Status(400, format!("yaml: line 9: cannot decode {token:?}, {pass:?} and {comment:?}")),
        FaultEffect::Status(
            400,
            format!("this config change can't be applied in immediate mode\ndiff: - {token}\n+ {pass}"),
        ),
        FaultEffect::Status(500, base64::engine::general_purpose::STANDARD.encode(value)),
    ];
    let mut told = 0;
    for class in [Class::Read, Class::Change] {
        for effect in &said {
            let path = "/talos-nuc/*ApplyConfiguration*";
            ground.fault(FaultRule::on(Front::Talos, effect.clone()).path(path).class(class));
            let failed = ground.run(SITE, &["step", "03-repair", "--node", NUC, "--yes"]);
            let hits: u32 = ground.lab.shared().clear_faults().iter().map(|rule| rule.met).sum();
            assert!(hits > 0, "{class:?} {effect:?} {}", failed.stderr);
            expect(&failed, 1, &["03-repair"]);
            expect(&ground.run(SITE, &["report"]), 0, &[]);
            expect(&ground.run(SITE, &["abandon", "--comment", "a node that quotes"]), 0, &[]);
            told += 1;
        }
    }
    assert_eq!((told, stored(ground, NUC)), (10, config));
}

/// Configurations that cannot be read or edited, with secrets around the place.
fn unreadable(ground: &mut Ground) {
    let good = stored(ground, NUC);
    let token = good.lines().find(|line| line.contains("  token: ")).unwrap();
    let broken = [
        good.replacen(token, &format!("{token}: ]"), 1),
        good.replacen(token, &format!("{token}\n{token}"), 1),
        good.replacen("  kernel:\n", "  kernel: &k\n", 1).replacen(
            "  nodeAnnotations:\n",
            "  x: *k\n  nodeAnnotations:\n",
            1,
        ),
        good.replacen("  sysctls:\n", "  sysctls: *nobody\n  was:\n", 1),
        format!("[{}]", good.lines().map(|line| format!("{line:?}")).collect::<Vec<_>>().join(", ")),
    ];
    let mut tried = 0;
    for text in &broken {
        assert_ne!(*text, good);
        ground.lab.shared().change(|world| {
            let node = world.talos.nodes.get_mut(NUC).unwrap();
            node.run.as_mut().unwrap().active.clone_from(text);
        });
        expect(&ground.run(SITE, &["survey", "--json", NUC]), 0, &[]);
        expect(&ground.run(SITE, &["survey"]), 0, &[NUC]);
        assert!(ground.run(SITE, &["plan", RUN]).code <= 4);
        let _any = ground.run(SITE, &["step", "03-repair", "--node", NUC, "--yes"]);
        let _given_up = ground.run(SITE, &["abandon", "--comment", "not to be read"]);
        tried += 1;
    }
    assert_eq!(tried, 5);
}

#[test]
fn no_secret_of_a_machine_configuration_leaves_by_any_way() {
    let mut ground = Ground::of(world);
    let key = ground.read("talosconfig").split("key: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    ground.planted.known("talosconfig: key", &key);
    ground.site(SITE, |site| site["migrations"][RUN]["params"]["nodes"] = json!([NUC, VM]));
    whole(&mut ground);
    quoting(&mut ground);
    unreadable(&mut ground);
    let (planted, control) = (ground.planted.search(), ground.control.search());
    // All of the node's are in the run file: where they are, the search finds them.
    let before = std::fs::read(&before_images(&ground)[0]).unwrap();
    let found = planted.found(&before);
    // Some of the forms of a value are the same.
    let places: BTreeSet<&str> = found.iter().filter_map(|place| Some(place.rsplit_once(" (")?.0)).collect();
    assert_eq!(places.iter().filter(|place| place.starts_with(NUC)).count(), EACH, "{found:#?}");
    let kept = ground.files();
    for channel in ["standard output", "standard error", "journal"] {
        let seen = ground.seen.iter().filter(|seen| seen.channel == channel);
        let found = seen.clone().filter(|seen| !control.found(&seen.text).is_empty()).count();
        println!("{channel}: {} texts searched, the control found in {found}", seen.count());
        assert!(found > 0, "the control is not found in: {channel}");
    }
    let leaks = planted.leaks(&ground.seen);
    let (places, texts) = (ground.planted.0.len(), ground.seen.len());
    println!("{places} places, {texts} texts, {kept} run files with secrets, {} leaks", leaks.len());
    assert!(places > 2 * EACH && kept > 0, "{places} {kept}");
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}
