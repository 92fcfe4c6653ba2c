//! No secret leaves: planted wherever a site can hold one, and then every output, journal, list of files, report, log
//! and command line of a full run at `-vvv`, and of everything that goes wrong, is searched.

use std::process::Command;

use base64::Engine;
use pvemig::lab::{FaultEffect, FaultRule, Front, Place};
use serde_json::{Value, json};

use super::expect;
use super::ground::{Ground, TALOSCONFIGS, write};
use super::planted::forms;

const RUN: &str = "frigate-coral";
const SITE: &str = "site.yaml";

/// A migration that is cut, goes on, is looked at in every way, and is undone.
fn whole(ground: &mut Ground) {
    expect(&ground.run(SITE, &["site", "check"]), 0, &["good"]);
    expect(&ground.run(SITE, &["plan", RUN]), 0, &["GET /nodes"]);
    expect(&ground.run(SITE, &["plan", RUN, "--json"]), 0, &[]);
    expect(&ground.run(SITE, &["run", RUN, "--yes"]), 3, &["plug coral"]);
    ground.lab.move_stick("coral", Some(Place { host: "still-fawn".into(), port: "2-3".into() })).unwrap();
    // Killed in the middle.
    ground.killed(&["resume", "--json", "-vvv", "--site", SITE, "--state", "state-site"], "09-label-node");
    expect(&ground.run(SITE, &["resume"]), 0, &["10-deploy-and-verify"]);
    for args in [
        &["status", "--all"][..],
        &["status", "--all", "--json"],
        &["report"],
        &["report", "--format", "markdown"],
        &["report", "--json"],
        &["explain", "04"],
        &["explain", "08", "--json"],
        &["plan", RUN],
    ] {
        expect(&ground.run(SITE, args), 0, &[]);
    }
    for (n, command) in [json!(["env"]), json!(["printenv", "FRIGATE_MQTT_PASSWORD"])].into_iter().enumerate() {
        for expected in [Value::Null, json!("not in it")] {
            let site = ground.site(&format!("verify-{n}-{}.yaml", expected.is_null()), |site| {
                site["migrations"][RUN]["params"]["verify"] =
                    json!({"command": command, "expect": expected, "container": "frigate", "reads": true});
            });
            assert!(ground.run(&site, &["plan", RUN]).code <= 4);
        }
    }
    let runs: Value = serde_json::from_str(&ground.run(SITE, &["status", "--all", "--json"]).stdout).unwrap();
    let whole = runs.as_array().unwrap().iter().rev().find(|run| run["steps"].as_u64() > Some(1)).unwrap();
    let id = whole["run"].as_str().unwrap();
    expect(&ground.run(SITE, &["undo", id, "--yes", "--wait"]), 4, &["--destroy pvc/frigate/frigate-config"]);
    let consents = ["--destroy", "pvc/frigate/frigate-config", "--destroy", "pvc/frigate/frigate-media"];
    // The stick is moved back by hand, as far as a run asks for it.
    let undone = ground.run(SITE, &[&["undo", id, "--yes"][..], &consents].concat());
    assert!(matches!(undone.code, 0 | 3), "{}", undone.stderr);
    if undone.code == 3 {
        ground.lab.move_stick("coral", Some(Place { host: "pumped-piglet".into(), port: "2-1".into() })).unwrap();
        expect(&ground.run(SITE, &[&["undo", id, "--yes"][..], &consents].concat()), 0, &["undone"]);
    }
    expect(&ground.run(SITE, &["report", "--format", "markdown"]), 0, &["undone"]);
    // What the journal does not have is there again all the same.
    let was = ground.planted.0.iter().find(|(place, _)| place == "Claim: annotation").unwrap().1.clone();
    assert!(ground.lab.compared().to_string().contains(&was));
    // Given up, with a comment that is to be found again.
    let comment = ground.control.0[0].1.clone();
    ground.fault(FaultRule::on(Front::Kubernetes, FaultEffect::Echo(500)).method("PATCH"));
    expect(&ground.run(SITE, &["step", "02", "--yes"]), 1, &["the API server failed with 500"]);
    ground.clear();
    expect(&ground.run(SITE, &["abandon", "--comment", &comment]), 0, &[]);
    expect(&ground.run(SITE, &["report"]), 0, &[&comment]);
    expect(&ground.run(SITE, &["report", "--json"]), 0, &[&comment]);
}

/// Each of the ways in which the site can give its secrets, right ones and wrong ones.
fn credentials(ground: &mut Ground) {
    let ticket = |password: Value| {
        move |site: &mut Value| {
            site["proxmox"]["home"]["auth"] = json!({"ticket": {"user": "root@pam", "password": password}})
        }
    };
    let token = |secret: Value| {
        move |site: &mut Value| {
            site["proxmox"]["home"]["auth"] = json!({"token": {"id": "root@pam!pvemig", "secret": secret}})
        }
    };
    let good = [
        ground.site("by-env.yaml", ticket(json!({"env": "PVE_PASSWORD"}))),
        ground.site("by-command.yaml", ticket(json!({"command": ["pass", "pve-password"]}))),
        ground.site("token-file.yaml", token(json!({"file": "./pve-token-secret"}))),
        ground.site("token-env.yaml", token(json!({"env": "PVE_TOKEN"}))),
        ground.site("token-command.yaml", token(json!({"command": ["pass", "pve-token-secret"]}))),
    ];
    for site in &good {
        expect(&ground.run(site, &["step", "03", "--vmid", "108", "--yes"]), 3, &["plug coral"]);
    }
    let wrong = [
        (ground.site("wrong.yaml", ticket(json!({"file": "./bad-password"}))), "was refused"),
        (ground.site("wrong-token.yaml", token(json!({"file": "./bad-token"}))), "was refused"),
        (
            ground.site("failing.yaml", ticket(json!({"command": ["sh", "-c", "cat pve-password; exit 3"]}))),
            "ended with",
        ),
        (
            ground.site("two-lines.yaml", token(json!({"command": ["sh", "-c", "cat pve-token-secret pve-password"]}))),
            "odd",
        ),
    ];
    for (site, words) in &wrong {
        expect(&ground.run(site, &["step", "03", "--vmid", "108", "--yes"]), 1, &[words]);
        let json = ground.run(site, &["plan", RUN, "--json"]);
        assert!(json.code <= 4, "{}", json.stdout);
    }
    // The secret itself in the site file, as it may be typed by mistake.
    let typed = ground.planted.plain("site: typed in as a password");
    let inline = ground.site("inline.yaml", ticket(json!(typed)));
    expect(&ground.run(&inline, &["site", "check"]), 2, &["only as a reference"]);
    let text = std::fs::read_to_string(ground.at("inline.yaml")).unwrap();
    std::fs::write(ground.at("broken.yaml"), text.replace(&typed, &format!("{typed}: ]"))).unwrap();
    expect(&ground.run("broken.yaml", &["site", "check"]), 2, &["not valid YAML"]);
    let typed = ground.planted.plain("site: typed in behind a token's id");
    let inline = ground.site("inline-token.yaml", |site: &mut Value| {
        site["proxmox"]["home"]["auth"] =
            json!({"token": {"id": format!("root@pam!x={typed}"), "secret": {"env": "X"}}});
    });
    expect(&ground.run(&inline, &["plan", RUN]), 2, &["not a token id"]);
    assert_eq!((good.len(), wrong.len()), (5, 4));
}

/// Whatever comes of it.
const ANY: i32 = 99;

/// What a kubeconfig can hold besides a token, and the programs that it can name.
fn kubeconfigs(ground: &mut Ground) {
    let server = ground.read("kubeconfig").split("server: ").nth(1).unwrap().split('\n').next().unwrap().to_owned();
    let lab: Value = serde_saphyr::from_str(&ground.read("kubeconfig")).unwrap();
    let token = lab["users"][0]["user"]["token"].as_str().unwrap().to_owned();
    let credential = |token: &str| json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}});
    let planted = &mut ground.planted;
    let exec = |script: &str, variable: &str| {
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
            "interactiveMode": "Never", "env": [{"name": "PLUGIN_KEY", "value": variable}]}})
    };
    std::fs::write(ground.lab.dir().join("credential"), credential(&token).to_string()).unwrap();
    let wrong = planted.token("kubeconfig: what a plugin gives");
    std::fs::write(ground.lab.dir().join("wrong-credential"), credential(&wrong).to_string()).unwrap();
    std::fs::write(
        ground.lab.dir().join("no-credential"),
        format!("{}: ]", planted.plain("kubeconfig: what a broken plugin gives")),
    )
    .unwrap();
    write(&ground.lab.dir().join("token-file"), &format!("{}\n", planted.plain("kubeconfig: token file")), 0o600);
    let variable = planted.plain("kubeconfig: variable of a plugin");
    let broken = planted.plain("kubeconfig: a line that is no YAML");
    let basic = planted.plain("kubeconfig: basic password");
    let other = planted.plain("kubeconfig: token of a user that is not used");
    let key = planted.plain("kubeconfig: client key");
    let key = base64::engine::general_purpose::STANDARD
        .encode(format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"));
    let userinfo = planted.plain("kubeconfig: password in the server's URL");
    let proxy = planted.plain("kubeconfig: password in the proxy's URL");
    let other_server = server.replace("https://", &format!("https://me:{userinfo}@"));
    // The user, the server, a proxy, and what the run ends with.
    let cases = [
        (exec("cat credential", &variable), &server, None, 0),
        (exec("cat wrong-credential", &variable), &server, None, 1),
        (exec("cat no-credential; exit 3", &variable), &server, None, 1),
        (exec("cat no-credential", &variable), &server, None, 1),
        (json!({"tokenFile": "token-file"}), &server, None, 1),
        (json!({"username": "me", "password": basic}), &server, None, 1),
        (json!({"client-certificate-data": key, "client-key-data": key}), &server, None, 1),
        (json!({"token": token}), &other_server, None, ANY),
        (json!({"token": token}), &server, Some(format!("http://me:{proxy}@127.0.0.1:1")), 1),
        (json!({"token": {broken: "x"}}), &server, None, 1),
    ];
    let mut tried = 0;
    for (n, (user, server, proxy, code)) in cases.iter().enumerate() {
        let mut file = lab.clone();
        file["users"][0]["user"] = user.clone();
        file["users"].as_array_mut().unwrap().push(json!({"name": "other", "user": {"token": other}}));
        file["clusters"][0]["cluster"]["server"] = json!(server);
        if let Some(proxy) = proxy {
            file["clusters"][0]["cluster"]["proxy-url"] = json!(proxy);
        }
        write(&ground.lab.dir().join(format!("kubeconfig-{n}")), &serde_saphyr::to_string(&file).unwrap(), 0o600);
        let site = ground.site(&format!("kube-{n}.yaml"), |site| {
            site["kubernetes"]["k3s"]["kubeconfig"] = json!(format!("./kubeconfig-{n}"));
        });
        let said = ground.run(&site, &["step", "02", "--yes"]);
        assert!(*code == ANY || said.code == *code, "{n}: {}", said.stderr);
        let _any = ground.run(&site, &["plan", RUN]);
        tried += 1;
    }
    assert_eq!(tried, 10);
}

/// A talosconfig with its key, right and wrong, and the file that others may read.
fn talosconfigs(ground: &mut Ground) {
    let mut good = 0;
    for n in 0..=TALOSCONFIGS {
        let file = format!("talosconfig-{}", n % TALOSCONFIGS);
        if n == TALOSCONFIGS {
            std::fs::set_permissions(ground.at(&file), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        }
        let site = ground.site(&format!("talos-{n}.yaml"), |site| {
            site["talos"] = json!({"homelab": {"talosconfig": format!("./{file}"), "kubernetes": "k3s",
                "nodes": {"talos-nuc": {"address": "127.0.0.1:1"}}}});
        });
        let said = ground.run(&site, &["site", "check"]);
        assert_eq!(said.code, if n == 0 { 0 } else { 2 }, "{n}: {}", said.stderr);
        good += usize::from(said.code == 0);
        assert!(ground.run(&site, &["plan", RUN]).code <= 4);
    }
    assert_eq!(good, 1);
}

/// Servers that repeat what they were sent, each at every request.
fn echoes(ground: &mut Ground) {
    let cases: [(Front, &str, &str, u16); 6] = [
        (Front::Proxmox, "POST", "*/access/ticket", 500),
        (Front::Proxmox, "GET", "*", 500),
        (Front::Proxmox, "POST", "*/config", 500),
        (Front::Kubernetes, "GET", "*", 500),
        (Front::Kubernetes, "PATCH", "*", 502),
        (Front::Kubernetes, "*", "*", 403),
    ];
    for (front, method, path, status) in cases {
        let rule = FaultRule::on(front, FaultEffect::Echo(status)).path(path);
        ground.fault(if method == "*" { rule } else { rule.method(method) });
        let site = ground.site("echo.yaml", |_| {});
        for args in [&["plan", RUN][..], &["step", "01", "--yes"], &["step", "00d", "--yes", "--json"], &["status"]] {
            let _any = ground.run(&site, args);
        }
        let _ended = ground.run(&site, &["undo", "--yes"]);
        let hits: u32 = ground.lab.shared().clear_faults().iter().map(|rule| rule.met).sum();
        assert!(hits > 0, "{front:?} {method} {path}");
        let _given_up = ground.run(&site, &["abandon", "--comment", "an echo"]);
    }
    // A proxy in front that says the same in plain text, with all that a request can carry.
    let all = [
        ("Cookie: PVEAuthCookie=PVE:root@pam:66A1B2C3::", "answer: ticket cookie"),
        ("CSRFPreventionToken: 66A1B2C3:", "answer: CSRF token"),
        ("Authorization: PVEAPIToken=root@pam!x=", "answer: API token"),
        ("Authorization: Bearer ", "answer: bearer token"),
        ("password=", "answer: password of a form"),
        ("\"password\": \"", "answer: password in JSON"),
        ("cannot clone https://ops:", "answer: password of a URL"),
    ];
    let texts = all.map(|(head, place)| {
        let value = ground.planted.plain(place);
        let end = if head.ends_with('"') {
            "\""
        } else if head.ends_with("ops:") {
            "@git.lan"
        } else {
            ""
        };
        format!("{head}{value}{end}")
    });
    // What is known for a secret, in a URL and without a name beside it.
    let password = ground.planted.0.iter().find(|(place, _)| place == "site: password").unwrap().1.clone();
    let (_, password) = forms(&password).into_iter().find(|(form, _)| *form == "of a URL").unwrap();
    ground.fault(FaultRule::on(Front::Proxmox, FaultEffect::Status(500, format!("no page at /{password}/x"))));
    expect(&ground.run("echo.yaml", &["step", "01", "--yes"]), 4, &["no page at /…/x"]);
    ground.clear();
    for (front, its) in [(Front::Proxmox, "01"), (Front::Kubernetes, "02")] {
        for (n, text) in texts.iter().enumerate() {
            let status = if n % 2 == 0 { 500 } else { 596 };
            ground.fault(FaultRule::on(front, FaultEffect::Status(status, text.clone())));
            for step in ["01", "02"] {
                let code = ground.run("echo.yaml", &["step", step, "--yes"]).code;
                assert!(code != 0 || step != its, "{front:?} {step} {text}");
            }
            ground.clear();
        }
    }
}

/// Routes into a guest that are closed, commands that complain, and remotes that do not answer.
fn outside(ground: &mut Ground) {
    ground.fault(FaultRule::on(Front::Ssh, FaultEffect::Refuse));
    assert!(ground.run(SITE, &["plan", RUN]).code <= 4);
    ground.clear();
    let encrypted = ground.at("encrypted");
    let phrase = ground.planted.plain("ssh: passphrase");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", &phrase, "-f"]).arg(&encrypted).status();
    assert!(made.unwrap().success());
    let text = std::fs::read_to_string(&encrypted).unwrap();
    ground.planted.known("ssh: encrypted key", text.lines().nth(2).unwrap());
    let half = ground.planted.plain("ssh: a key that is none");
    write(&ground.at("half"), &format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{half}\n"), 0o600);
    for (n, key) in [
        json!({"file": "./encrypted"}),
        json!({"file": "./half"}),
        json!({"env": "SSH_KEY_TEXT"}),
        json!({"command": ["pass", "half"]}),
    ]
    .into_iter()
    .enumerate()
    {
        let site = ground.site(&format!("key-{n}.yaml"), |site| {
            site["nodes"]["k3s-vm-still-fawn"]["ssh"]["key"] = key.clone();
            site["nodes"]["k3s-vm-still-fawn"]["access"] = json!(["ssh"]);
        });
        assert!(ground.run(&site, &["plan", RUN]).code <= 4);
    }
    for (check, install, words) in [
        ("/opt/check", "/opt/install", "exit 9"),
        ("/opt/unclear", "/opt/install", "could not say"),
        ("/opt/good", "/opt/install", "done"),
    ] {
        // With the state directory whose runs left their marks: to another one they would be somebody else's.
        let site = ground.site("echo.yaml", |site| {
            site["migrations"][RUN]["params"]["drivers"] =
                json!({"check": {"command": [check], "reads": true}, "install": {"command": [install], "repeatable": true}});
        });
        for access in [None, Some(Front::Ssh)] {
            access.into_iter().for_each(|front| ground.fault(FaultRule::on(front, FaultEffect::Refuse)));
            let said = ground.run(&site, &["step", "08", "--yes"]);
            assert!(format!("{}{}", said.stdout, said.stderr).contains(words), "{}", said.stderr);
            let _any = ground.run(&site, &["abandon", "--comment", "no drivers"]);
            ground.clear();
        }
    }
    let password = ground.planted.plain("git: password in the remote's URL");
    let token = ground.planted.plain("git: token as the user of the remote's URL");
    for (n, user) in [format!("ops:{password}"), token].into_iter().enumerate() {
        let url = format!("https://{user}@127.0.0.1:1/gitops.git");
        let mut set = Command::new("git");
        set.args(["remote", "set-url", "origin", &url]).current_dir(ground.at("checkout"));
        assert!(set.status().unwrap().success());
        let site = ground.site(&format!("remote-{n}.yaml"), |_| {});
        for args in [&["plan", RUN][..], &["step", "09a", "--yes"], &["step", "10", "--yes", "--json"]] {
            let said = ground.run(&site, args);
            assert!(said.code <= 4, "{args:?} {}", said.stderr);
        }
        expect(&ground.run(&site, &["status", "--all"]), 0, &[]);
    }
}

/// What is searched finds what is there: a value that is let out on purpose, by each of the ways.
fn controls(ground: &mut Ground) {
    let value = ground.control.0[0].1.clone();
    // Named by the person: a path on git's command line, in a list of files and in a log of requests.
    let checkout = format!("checkout-{value}");
    let cloned =
        Command::new("git").args(["clone", "-q", "gitops.git", &checkout]).current_dir(ground.lab.dir()).status();
    assert!(cloned.unwrap().success());
    let left = ground.at(&format!("state-site/left-{value}"));
    std::fs::write(left, format!("x{value}y")).unwrap();
    let site = ground.site("control.yaml", |site| {
        site["checkouts"][&value] = site["checkouts"]["gitops"].take();
        site["checkouts"].as_object_mut().unwrap().remove("gitops");
        site["checkouts"][&value]["path"] = json!(format!("./{checkout}"));
        site["kubernetes"]["k3s"]["gitops"]["checkout"] = json!(value);
    });
    let said = ground.run(&site, &["plan", RUN]);
    assert!(said.code <= 4, "{}", said.stderr);
}

#[test]
fn no_secret_leaves_by_any_way() {
    let mut ground = Ground::new();
    whole(&mut ground);
    credentials(&mut ground);
    kubeconfigs(&mut ground);
    talosconfigs(&mut ground);
    echoes(&mut ground);
    outside(&mut ground);
    controls(&mut ground);
    let kept = ground.files();
    let (planted, control) = (ground.planted.search(), ground.control.search());
    let channels = [
        "standard output",
        "standard error",
        "journal",
        "list of files",
        "file of the state directory",
        "command lines",
    ];
    for channel in channels {
        let seen = ground.seen.iter().filter(|seen| seen.channel == channel);
        let found = seen.clone().filter(|seen| !control.found(&seen.text).is_empty()).count();
        println!("{channel}: {} texts searched, the control found in {found}", seen.count());
        assert!(found > 0, "the control is not found in: {channel}");
    }
    // What a pod said was told.
    let proofs = ground.seen.iter().filter(|seen| String::from_utf8_lossy(&seen.text).contains("the proof in pod"));
    assert!(proofs.count() > 0);
    let leaks = planted.leaks(&ground.seen);
    println!(
        "{} places, {} texts, {kept} run files with secrets, {} leaks",
        ground.planted.0.len(),
        ground.seen.len(),
        leaks.len()
    );
    assert!(ground.planted.0.len() > 50, "{}", ground.planted.0.len());
    assert!(kept > 0, "no run file has a secret in it");
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}
