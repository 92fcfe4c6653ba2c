//! What `pvemig privileges` prints can be pasted: a shell takes the one half, a YAML reader the other.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Said, Shell, expect, said};

/// Writes the example's site file, edited.
fn site(shell: &Shell, edit: impl FnOnce(String) -> String) {
    let example = shell.run(&["site", "example"]).stdout;
    std::fs::write(shell.path().join("site.yaml"), edit(example)).unwrap();
}

/// The commands of a page, as a `pveum` of our own is given them.
fn commands(shell: &Shell, page: &str) -> Vec<String> {
    let pveum = shell.path().join("pveum");
    std::fs::write(&pveum, "#!/bin/sh\nprintf '[%s]' \"$@\"\necho\n").unwrap();
    std::fs::set_permissions(&pveum, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = shell.path().join("page.sh");
    std::fs::write(&script, page).unwrap();
    let path = format!("{}:/usr/bin:/bin", shell.path().display());
    let mut sh = Command::new("sh");
    sh.arg("-eu").arg(&script).env_clear().env("PATH", path).stdin(Stdio::null());
    let said = said(sh.output().unwrap());
    expect(&said, 0, &[]);
    said.stdout.lines().map(str::to_owned).collect()
}

fn printed(shell: &Shell, args: &[&str]) -> Said {
    let all: Vec<&str> = ["privileges", "frigate-coral"].into_iter().chain(args.iter().copied()).collect();
    let said = shell.run(&all);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", said.stdout);
    let wide: Vec<&str> = said.stdout.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(
        wide.is_empty() && said.stdout.lines().count() > 40 || args.contains(&"--json"),
        "{wide:#?}\n{}",
        said.stdout
    );
    said
}

#[test]
fn what_proxmox_takes_is_printed_as_commands_for_each_version() {
    let shell = Shell::new();
    site(&shell, |example| example);
    let root = printed(&shell, &["--only", "proxmox"]);
    expect(
        &root,
        0,
        &["logs in as root@pam with a password", "no role is", "root@pam's alone", "on Proxmox VE 8 instead"],
    );
    let all = commands(&shell, &root.stdout);
    let count = |all: &[String], word: &str| all.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count(&all, "[role][add]"), count(&all, "[acl][modify]")), (6, 6), "{all:#?}");
    assert_eq!(all[..2], ["[user][add][pvemig@pve]", "[user][token][add][pvemig@pve][pvemig][--privsep][1]"]);
    assert!(all.iter().all(|line| !line.contains("VM.Monitor")), "{all:#?}");
    let power = "[role][add][frigate-coral-vms-108][--privs][VM.Audit VM.PowerMgmt VM.Config.HWType VM.GuestAgent.Unrestricted]";
    assert!(all.iter().any(|line| line == power), "{all:#?}");
    let acl =
        "[acl][modify][/vms/108][--roles][frigate-coral-vms-108][--users][pvemig@pve][--tokens][pvemig@pve!pvemig]";
    assert!(all.iter().any(|line| line == acl), "{all:#?}");

    let older = commands(&shell, &printed(&shell, &["--only", "proxmox", "--pve", "8"]).stdout);
    assert_eq!(
        (older.len(), count(&older, "VM.Monitor"), count(&older, "VM.GuestAgent")),
        (all.len(), 2, 0),
        "{older:#?}"
    );

    // A token of root takes entries of its own, and its user none.
    site(&shell, |example| token(&example));
    let token = printed(&shell, &["--only", "proxmox"]);
    expect(&token, 0, &["logs in with token root@pam!pvemig", "is not root@pam itself"]);
    let all = commands(&shell, &token.stdout);
    assert_eq!((count(&all, "[--users]"), count(&all, "[--tokens][root@pam!pvemig]")), (0, 6), "{all:#?}");
}

/// The example with a token in the place of its login.
fn token(example: &str) -> String {
    let mut site: Value = serde_saphyr::from_str(example).unwrap();
    for cluster in site["proxmox"].as_object_mut().unwrap().values_mut() {
        cluster["auth"] = serde_json::json!({"token": {"id": "root@pam!pvemig", "secret": {"env": "X"}}});
    }
    site.to_string()
}

#[test]
fn what_kubernetes_takes_is_printed_as_manifests() {
    let shell = Shell::new();
    site(&shell, |example| example);
    let page = printed(&shell, &["--only", "kubernetes"]).stdout;
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&page).unwrap();
    let kinds: Vec<&str> = manifests.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    let expected =
        ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Role", "RoleBinding"];
    assert_eq!(kinds, expected);
    // The same as for programs.
    let json: Value = serde_json::from_str(&printed(&shell, &["--json"]).stdout).unwrap();
    assert_eq!(json["kubernetes"]["manifests"], Value::from(manifests.clone()));
    let rules = manifests.iter().flat_map(|one| one["rules"].as_array().cloned().unwrap_or_default());
    let verbs = |rule: &Value| {
        let named = rule["resourceNames"].as_array().map_or(1, Vec::len);
        rule["verbs"].as_array().unwrap().len() * named
    };
    let given: usize = rules.map(|rule| verbs(&rule)).sum();
    assert_eq!(given, json["kubernetes"]["rights"].as_array().unwrap().len());
    assert!(given > 30 && !page.contains("'*'") && !page.contains("\"*\""), "{page}");
    println!("{given} verbs on objects");
    assert!(json["proxmox"]["versions"].as_array().unwrap().len() == 2);

    expect(&shell.run(&["privileges", "other"]), 2, &["no migration `other`", "`frigate-coral`"]);
}
