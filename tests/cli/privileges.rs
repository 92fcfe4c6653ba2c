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
    let root = printed(&shell, &["--only", "proxmox", "--with-optional"]);
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

    // Pasted as it is, the page gives the least: the rest is said, and is no command.
    let page = printed(&shell, &["--only", "proxmox"]);
    expect(
        &page,
        0,
        &["the least that a run needs", "Optional. Without it: whether the cluster has quorum", "# pveum"],
    );
    let least = commands(&shell, &page.stdout);
    assert_eq!((count(&least, "[role][add]"), count(&least, "[acl][modify]")), (3, 3), "{least:#?}");
    assert!(least.iter().all(|line| all.contains(line)) && least.contains(&power.to_owned()), "{least:#?}");
    assert_eq!((count(&all, "[role][modify]"), count(&least, "[role][modify]")), (5, 0), "{all:#?}");
    assert_eq!((count(&all, "Sys."), count(&least, "Sys.")), (2, 0), "{least:#?}");

    let older = ["--only", "proxmox", "--pve", "8", "--with-optional"];
    let older = commands(&shell, &printed(&shell, &older).stdout);
    assert_eq!(
        (older.len(), count(&older, "VM.Monitor"), count(&older, "VM.GuestAgent")),
        (all.len(), 2, 0),
        "{older:#?}"
    );

    // A token of root takes entries of its own, and its user none.
    site(&shell, |example| token(&example));
    let token = printed(&shell, &["--only", "proxmox", "--with-optional"]);
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
    let verbs = |rule: &Value| {
        let named = rule["resourceNames"].as_array().map_or(1, Vec::len);
        rule["verbs"].as_array().unwrap().len() * named
    };
    let mut given = Vec::new();
    for more in [&[][..], &["--with-optional"]] {
        let page = printed(&shell, &[&["--only", "kubernetes"][..], more].concat()).stdout;
        let manifests: Vec<Value> = serde_saphyr::from_multiple(&page).unwrap();
        let kinds: Vec<&str> = manifests.iter().map(|one| one["kind"].as_str().unwrap()).collect();
        let expected =
            ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Role", "RoleBinding"];
        assert_eq!(kinds, expected);
        // The same as for programs.
        let json: Value = serde_json::from_str(&printed(&shell, &[&["--json"][..], more].concat()).stdout).unwrap();
        assert_eq!(json["kubernetes"]["manifests"], Value::from(manifests.clone()));
        assert!(json["proxmox"]["versions"].as_array().unwrap().len() == 2);
        let rules = manifests.iter().flat_map(|one| one["rules"].as_array().cloned().unwrap_or_default());
        let verbs: usize = rules.map(|rule| verbs(&rule)).sum();
        let rights = json["kubernetes"]["rights"].as_array().unwrap();
        let wanted = rights.iter().filter(|right| !more.is_empty() || right["needed"] == true).count();
        assert_eq!(verbs, wanted);
        assert!(verbs > 30 && !page.contains("'*'") && !page.contains("\"*\""), "{page}");
        // What is left out is said all the same.
        assert!(page.contains("    resources: [secrets]") != more.is_empty(), "{page}");
        assert!(page.contains("Optional. Without it: a secret that the pods name"), "{page}");
        given.push(verbs);
    }
    assert!(given[0] < given[1]);
    println!("{} verbs on objects, {} with what can be done without", given[0], given[1]);

    expect(&shell.run(&["privileges", "other"]), 2, &["no migration `other`", "`frigate-coral`"]);
}

#[test]
fn a_reboot_test_takes_a_role_of_talos_as_well() {
    let shell = Shell::new();
    site(&shell, |example| example);
    let all = shell.run(&["privileges", "talos-reboots"]);
    expect(
        &all,
        0,
        &[
            "== Talos cluster homelab",
            "talosctl config new --roles os:admin --crt-ttl 24h",
            "resources: [pods/eviction]",
            "VM.Audit VM.PowerMgmt",
            "/vms/223",
        ],
    );
    assert!(all.stdout.lines().all(|line| line.chars().count() <= 80), "{}", all.stdout);
    let only = shell.run(&["privileges", "talos-reboots", "--only", "talos", "--json"]);
    let said: Value = serde_json::from_str(&only.stdout).unwrap();
    assert_eq!((said["talos"]["role"].as_str(), said.get("proxmox")), (Some("os:admin"), None));
    assert!(said["talos"]["needs"].as_array().unwrap().len() > 5);
    // One that asks no Talos says nothing of it.
    let none = shell.run(&["privileges", "frigate-coral"]);
    assert!(none.code == 0 && !none.stdout.contains("Talos"), "{}", none.stdout);
}
