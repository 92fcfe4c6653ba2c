//! `--schedule`: systemd and Kubernetes read what is printed, and its script does what it says.

use std::process::Command;

use super::{Nodes, there, whole};
use serde_json::Value;

use crate::cli::{Shell, Up, expect};

/// The unit's text; its command as words.
fn command(service: &str) -> Vec<String> {
    let line = service.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    line.split(' ').map(|word| word.trim_matches('"').to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_takes_the_units_and_their_command_takes_a_snapshot() {
    let nodes = Nodes::new().await;
    nodes.gives(1, &whole(1_000));
    let recipient = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    let args = |part: &str| nodes.take(&["--keep", "7", "--recipient", recipient, &format!("--schedule={part}")]);
    let units = nodes.shell.path().join("units");
    std::fs::create_dir(&units).unwrap();
    for part in ["service", "timer"] {
        let said = args(part);
        expect(&said, 0, &["[Unit]"]);
        std::fs::write(units.join(format!("pvemig-etcd-homelab.{part}")), &said.stdout).unwrap();
    }
    let service = std::fs::read_to_string(units.join("pvemig-etcd-homelab.service")).unwrap();
    let dir = nodes.dir().display().to_string();
    for line in [format!("RequiresMountsFor={dir}"), format!("ReadWritePaths=-{dir}"), "UMask=0077".into()] {
        assert!(service.lines().any(|own| own == line), "`{line}` is not in:\n{service}");
    }
    let timer = std::fs::read_to_string(units.join("pvemig-etcd-homelab.timer")).unwrap();
    for line in ["Persistent=true", "RandomizedDelaySec=30min", "WantedBy=timers.target"] {
        assert!(timer.lines().any(|own| own == line), "{timer}");
    }
    let mut verify = Command::new("systemd-analyze");
    verify
        .arg("verify")
        .args(["pvemig-etcd-homelab.service", "pvemig-etcd-homelab.timer"].map(|name| units.join(name)));
    let said = verify.output().expect("this test needs the package systemd");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    // What else is installed here is no matter of ours.
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("pvemig")).collect();
    assert!(said.status.success() && ours.is_empty(), "{text}");
    // The control: it would say so.
    std::fs::write(units.join("pvemig-etcd-homelab.service"), service.replace("Type=oneshot", "Type=onehot")).unwrap();
    let said = verify.output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("onehot"));

    // In another directory, with an environment that names nothing.
    let line = command(&service);
    assert_eq!(line[0], env!("CARGO_BIN_EXE_pvemig"));
    let said = Command::new(&line[0]).args(&line[1..]).env_clear().current_dir("/").output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(there(&nodes.dir())[0].ends_with(".snapshot.age"));

    // All in one, each with the command that puts it where it belongs.
    let all = args("all");
    let put = format!("etcd snapshot homelab --to {dir} --keep 7 --recipient {recipient} --schedule=timer | sudo tee ");
    expect(&all, 0, &[&put, "systemctl enable --now pvemig-etcd-homelab.timer", "kind: CronJob", &service]);
    expect(&args("cronjob"), 0, &["It encrypts nothing", "talosctl:v1.11.5", "notice: the CronJob encrypts nothing"]);
    expect(&nodes.take(&["--schedule=timer"]), 0, &["without `--keep` no snapshot is ever removed"]);
}

#[test]
fn kubernetes_takes_the_manifests_but_for_what_talos_brings() {
    let up = Up::new("talos-three", "manual");
    let said = up.run(&["etcd", "snapshot", "--to", ".", "--keep", "7", "--schedule=cronjob"]);
    expect(&said, 0, &["image: ghcr.io/siderolabs/talosctl:v1.11.5", "patch machineconfig --patch '{\"machine\":"]);
    let (own, others): (Vec<&str>, Vec<&str>) =
        said.stdout.split("---\n").partition(|document| document.contains("talos.dev/v1alpha1"));
    assert_eq!((own.len(), others.len()), (1, 3));
    assert!(own[0].contains("kind: ServiceAccount\n") && own[0].contains("    - os:etcd:backup\n"), "{}", own[0]);
    let file = up.shell.path().join("cronjob.yaml");
    std::fs::write(&file, others.join("---\n")).unwrap();
    let kubectl = |args: &[&str]| {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("--kubeconfig").arg(up.shell.path().join("lab/kubeconfig")).args(args);
        let said = kubectl.env("HOME", up.shell.path()).output().expect("this test needs kubectl");
        assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    };
    // The lab has no schema to validate by: that is done below.
    kubectl(&["apply", "--validate=false", "-f", file.to_str().unwrap()]);
    use k8s_openapi::api::{batch, core};
    known::<core::v1::Namespace>(others[0]);
    known::<core::v1::PersistentVolumeClaim>(others[1]);
    known::<batch::v1::CronJob>(others[2]);
    let job = kubectl(&["-n", "etcd-snapshots", "get", "cronjob", "etcd-snapshot-homelab", "-o", "json"]);
    let job: k8s_openapi::api::batch::v1::CronJob = serde_json::from_str(&job).unwrap();
    let pod = job.spec.job_template.spec.unwrap().template.spec.unwrap();
    let take = &pod.init_containers.unwrap()[0];
    assert_eq!(take.args.as_ref().unwrap(), &["-n", "$(NODE)", "etcd", "snapshot", "/snapshots/.$(POD).partial"]);
    assert_eq!(take.volume_mounts.as_ref().unwrap()[0].mount_path, "/var/run/secrets/talos.dev");
    let command = pod.containers[0].command.clone().unwrap();
    assert_eq!(command[..2], ["sh", "-euc"]);
    the_script_keeps_what_is_whole(&command[2]);
}

/// Every field of a manifest is one of its kind: what is not would be left out.
fn known<K: serde::de::DeserializeOwned + serde::Serialize>(manifest: &str) {
    let written: Value = serde_saphyr::from_str(manifest).unwrap();
    let read: K = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), written);
}

/// By the shell that it is written for, in another directory than its own.
fn the_script_keeps_what_is_whole(script: &str) {
    let shell = Shell::new();
    let dir = shell.path().join("snapshots");
    std::fs::create_dir(&dir).unwrap();
    let pod = "etcd-snapshot-homelab-29382710-x7k2p";
    let run = |bytes: &[u8]| {
        std::fs::write(dir.join(format!(".{pod}.partial")), bytes).unwrap();
        let script = script.replace("cd /snapshots", &format!("cd {}", dir.display()));
        let mut busybox = Command::new("busybox");
        let said = busybox.args(["sh", "-euc", &script]).env_clear().env("POD", pod).output();
        let said = said.unwrap_or_else(|error| panic!("this test needs the package busybox-static: {error}"));
        (said.status.success(), String::from_utf8([said.stdout, said.stderr].concat()).unwrap())
    };
    let old = |day: u32| format!("homelab-2026-11-{day:02}T021700Z.snapshot");
    let foreign = ["homelab-2026-11-01T021700Z.snapshot.age", "other-2026-11-01T021700Z.snapshot", "notes"];
    // One that is not whole, and two of a clock that was ahead: neither is counted, and both stay.
    let (torn, ahead) = (old(9), ["homelab-2099-01-01T021700Z.snapshot", "homelab-2099-01-02T021700Z.snapshot"]);
    for name in foreign.into_iter().chain(ahead).map(str::to_owned).chain((1..=8).map(old)) {
        std::fs::write(dir.join(name), whole(100)).unwrap();
    }
    std::fs::write(dir.join(&torn), [0; 100]).unwrap();
    std::fs::write(dir.join(".etcd-snapshot-homelab-29382709-aaaaa.partial"), "x").unwrap();
    let (good, mut bad) = (whole(200_000), whole(200_000));
    bad[3] ^= 1;
    let before = there(&dir).len();
    let (done, text) = run(&bad);
    assert!(!done && text.contains("nothing is kept"), "{text}");
    assert_eq!(there(&dir).len(), before);
    let (done, text) = run(&good);
    assert!(done && text.contains("kept homelab-20") && text.matches("removed ").count() == 2, "{text}");
    let names = there(&dir);
    assert_eq!(names.len(), foreign.len() + ahead.len() + 1 + 7, "{names:?}");
    assert!(ahead.iter().all(|name| text.contains(&format!("{name} is dated after it"))), "{text}");
    assert!(text.contains(&format!("{torn} is not whole")) && names.contains(&torn), "{text}");
    let new = names.iter().find(|name| text.contains(&format!("kept {name}\n"))).unwrap();
    assert!(std::fs::read(dir.join(new)).unwrap() == good);
    assert!(!names.contains(&old(1)) && !names.contains(&old(2)) && names.contains(&old(3)), "{names:?}");
}
