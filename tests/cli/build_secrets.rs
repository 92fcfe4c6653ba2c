//! No secret leaves by a build whose machine configurations are encrypted: what a declared command decrypts is then
//! searched for in all that plans, a run that is quoted, killed and resumed, and its undo show and write at `-vvv`.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pvemig::lab::{self, Class, FaultEffect, FaultRule, Front, World};
use serde_json::{Value, json};

use super::expect;
use super::ground::{Ground, write};
use super::planted::{Planted, Seen};

const SITE: &str = "build.yaml";
const STATE: &str = "state-build";
/// What each machine configuration has by itself, and what is planted in it besides.
const MADE: [&str; 9] = [
    "/machine/token",
    "/machine/ca/key",
    "/cluster/token",
    "/cluster/secret",
    "/cluster/secretboxEncryptionSecret",
    "/cluster/ca/key",
    "/cluster/aggregatorCA/key",
    "/cluster/serviceAccount/key",
    "/cluster/etcd/ca/key",
];
const PLANTED: usize = 3;

/// The disk of the Mac has the control's value for its serial number: a name that is shown and written everywhere.
fn world(planted: &mut Planted, control: &str) -> World {
    let world = json!({
        "extends": "talos-fresh",
        "access": {
            "users": {"root@pam": {"password": planted.awkward("site: password")}},
            "tokens": {"root@pam!pvemig": {"secret": planted.plain("site: token secret")}},
        },
    });
    let mut world = lab::read(&serde_saphyr::to_string(&world).unwrap()).unwrap();
    control.clone_into(&mut world.talos.nodes.get_mut("talos-mac").unwrap().disks[1].serial);
    world
}

/// Plants the secrets of a configuration that the lab made, adds some, and leaves it in a form that only a command opens.
fn seal(ground: &mut Ground) -> usize {
    let text = ground.read("controlplane.yaml");
    let from = ground.planted.0.len();
    let config: Value = serde_saphyr::from_multiple::<Value>(&text).unwrap().remove(0);
    for place in MADE {
        let value = config.pointer(place).and_then(Value::as_str).unwrap_or_else(|| panic!("{place}: {text}"));
        ground.planted.known(&format!("config: {place}"), value);
        let plain = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(line) = plain.as_deref().and_then(|pem| pem.lines().nth(1)) {
            ground.planted.known(&format!("config: {place}, in its PEM form"), line);
        }
    }
    let own = format!(
        "    # the former token was {}\n    env:\n        https_proxy: http://me:{}@proxy.lan\n    registries:\n        config:\n            \
         r.lan:\n                auth: {{ username: me, password: {} }}\n",
        ground.planted.plain("config: comment"),
        ground.planted.plain("config: password of a proxy"),
        ground.planted.token("config: password of a registry"),
    );
    assert_eq!(text.matches("    registries: {}\n").count(), 1, "{text}");
    let text = text.replacen("    registries: {}\n", &own, 1);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    let sealed = STANDARD.encode(gz.finish().unwrap());
    assert_eq!(ground.planted.search().found(sealed.as_bytes()), Vec::<String>::new());
    let sealed = format!("data: {sealed}\nsops:\n    mac: ENC[AES256_GCM,data:bGFi,type:str]\n    version: 3.9.4\n");
    write(&ground.at("sealed.yaml"), &sealed, 0o644);
    let unseal = "#!/bin/sh\nsed -n 's/^data: //p' \"$1\" | base64 -d | gunzip\n";
    write(&ground.at("unseal"), unseal, 0o755);
    // The clear ones are nobody's.
    for name in ["controlplane.yaml", "worker.yaml", "controlplane.sops.yaml"] {
        std::fs::remove_file(ground.at(name)).unwrap();
    }
    let control = ground.control.0[0].1.clone();
    ground.site(SITE, |site| {
        let params = &mut site["migrations"]["build"]["params"];
        params["decrypt"] = json!(["./unseal"]);
        for node in params["nodes"].as_array_mut().unwrap() {
            node["config"] = json!("./sealed.yaml");
        }
        params["nodes"][2]["disk"] = json!(control);
    });
    ground.planted.0.len() - from
}

fn ground() -> (Ground, usize) {
    let mut ground = Ground::of(world);
    let key = ground.read("talosconfig").split("key: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let planted = seal(&mut ground);
    ground.planted.known("talosconfig: key", &key);
    (ground, planted)
}

/// A command line with all consents of the build.
fn with_consents(ground: &Ground, args: &[&str]) -> Vec<String> {
    let disks = ["S5GXNF0R601234", "talos-vm-root", ground.control.0[0].1.as_str()];
    let given = disks.iter().flat_map(|disk| ["--destroy".to_owned(), format!("disk/{disk}")]);
    args.iter().map(|arg| (*arg).to_owned()).chain(given).collect()
}

fn run(ground: &mut Ground, args: &[&str]) -> super::Said {
    let args = with_consents(ground, args);
    ground.run(SITE, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Nodes that quote what they are sent, a kill in the middle, and the end.
fn build(ground: &mut Ground) {
    expect(&ground.run(SITE, &["site", "check"]), 0, &["good"]);
    expect(&run(ground, &["plan", "build"]), 0, &["01-check-disks@talos-mac"]);
    expect(&run(ground, &["plan", "build", "--json"]), 0, &[]);
    let mut quoted = 0;
    for class in [Class::Read, Class::Change] {
        ground.fault(FaultRule::on(Front::Talos, FaultEffect::Echo(400)).path("*ApplyConfiguration*").class(class));
        let failed = run(ground, &["run", "build", "--yes"]);
        let hits: u32 = ground.lab.shared().clear_faults().iter().map(|rule| rule.met).sum();
        assert!(hits > 0 && [1, 4].contains(&failed.code), "{class:?} {} {}", failed.code, failed.stderr);
        expect(&ground.run(SITE, &["report"]), 0, &[]);
        expect(&ground.run(SITE, &["abandon", "--comment", "a node that quotes"]), 0, &[]);
        quoted += 1;
    }
    assert_eq!(quoted, 2);
    let args = ["run", "build", "--yes", "--json", "-vvv", "--site", SITE, "--state", STATE];
    let args = with_consents(ground, &args);
    ground.killed(&args.iter().map(String::as_str).collect::<Vec<_>>(), "02-apply-config@talos-vm");
    expect(&ground.run(SITE, &["resume"]), 0, &["08-safekeeping", "done"]);
    for args in [
        &["status", "--all"][..],
        &["status", "--all", "--json"],
        &["report"],
        &["report", "--format", "markdown"],
        &["report", "--json"],
        &["explain", "02-apply-config"],
        &["survey"],
        &["survey", "--json"],
        &["plan", "build"],
        &["run", "build", "--yes"],
    ] {
        expect(&ground.run(SITE, args), 0, &[]);
    }
}

/// What the search finds, but for the credentials in the files that are there to have them.
fn leaks(ground: &Ground) -> Vec<String> {
    let planted = ground.planted.search();
    let own = |seen: &Seen, place: &str| {
        ["talosconfig", "kubeconfig"]
            .iter()
            .any(|of| matches!(seen.channel, "safe" | "run file") && seen.name.contains(of) && place.starts_with(of))
    };
    let of = |seen: &Seen| {
        let found = planted.found(&seen.text).into_iter().filter(|place| !own(seen, place));
        found.map(|place| format!("{}: {}: {place}", seen.channel, seen.name)).collect::<Vec<_>>()
    };
    ground.seen.iter().flat_map(of).collect()
}

/// All files of the runs, which for a build have no secret of a configuration either.
fn files(ground: &mut Ground) -> usize {
    ground.files();
    let runs = format!("{STATE}/homelab/runs");
    let all: Vec<_> = std::fs::read_dir(ground.at(&runs)).unwrap().map(|run| run.unwrap().file_name()).collect();
    let of = |run: &std::ffi::OsString| format!("{runs}/{}/files", run.to_string_lossy());
    let with_files: Vec<String> = all.iter().map(of).filter(|dir| ground.at(dir).is_dir()).collect();
    with_files.iter().map(|dir| ground.folder("run file", dir)).sum()
}

#[test]
fn no_secret_of_an_encrypted_configuration_leaves_by_a_build() {
    let (mut ground, sealed) = ground();
    assert!(sealed >= MADE.len() + PLANTED + 5, "{sealed}");
    build(&mut ground);
    let token =
        ground.read("kubeconfig").split("token: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    ground.planted.known("kubeconfig: token", &token);
    let safe = ground.folder("safe", "safe");
    let before = files(&mut ground);
    let runs: Value = serde_json::from_str(&ground.run(SITE, &["status", "--all", "--json"]).stdout).unwrap();
    let ids: Vec<&str> = runs.as_array().unwrap().iter().filter_map(|run| run["run"].as_str()).collect();
    assert_eq!(ids.len(), 4, "{runs:#}");
    // The killed one; behind it is the one that had nothing to do.
    let id = ids[2].to_owned();
    let past = ["talos-nuc", "talos-vm", "talos-mac"].map(|node| format!("02-apply-config@{node}"));
    expect(&ground.run(SITE, &["undo", &id, "--yes"]), 4, &["cannot be undone"]);
    let [nuc, vm, mac] = &past;
    let back = ["undo", &id, "--yes", "--past", nuc, "--past", vm, "--past", mac];
    expect(&ground.run(SITE, &back), 0, &["etcd stays as it has begun"]);
    let (after, temporary) = (files(&mut ground), ground.folder("temporary file", "tmp"));
    let control = ground.control.search();
    for channel in ["standard output", "standard error", "journal", "safe", "run file"] {
        let seen = ground.seen.iter().filter(|seen| seen.channel == channel);
        let found = seen.clone().filter(|seen| !control.found(&seen.text).is_empty()).count();
        println!("{channel}: {} texts searched, the control found in {found}", seen.count());
        assert!(found > 0, "the control is not found in: {channel}");
    }
    let leaks = leaks(&ground);
    let places = ground.planted.0.len();
    println!(
        "{places} places, {safe} files kept, {before}+{after} run files, {temporary} temporary ones: {} leaks",
        leaks.len()
    );
    assert!(safe >= 4 && before > 4 && after >= before, "{safe} {before} {after}");
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}
