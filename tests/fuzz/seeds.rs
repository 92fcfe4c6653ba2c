//! What the search starts from: the fixtures, hand-made inputs, and whatever has broken a reader before.

use std::path::Path;

/// Inputs by hand, a line each.
const LINES: &[(&str, &[&str])] = &[
    (
        "config-line",
        &[
            "host=1a6e:089a,usb3=1",
            "host=2-1.4,usb3=0",
            "spice",
            "mapping=coral,usb3=1",
            "0x18D1:0x9302",
            "virtio=BC:24:11:9C:31:08,bridge=vmbr0,firewall=1,tag=20",
            "local-lvm:vm-108-disk-0,discard=on,size=300G,ssd=1",
            "node=still-fawn,id=18d1:9302,path=2-1,subsystem-id=0001:0002",
            "enabled=1,fstrim_cloned_disks=1",
            "pc-q35-9.2+pve1",
            "type=pc-i440fx-6.2,viommu=intel",
            "network,disk,usb",
            "usb13",
            "usb255",
            "usb4294967296",
        ],
    ),
    (
        "upid",
        &[
            "UPID:still-fawn:0003D5E1:01A2B3C4:66A1B2C3:qmreboot:108:root@pam:",
            "UPID:pve-1:0010C3F2:1A1B2C3D4:68F0A1B2:qmconfig:108:root@pam!pvemig:",
            "UPID:pve:00000001:00000002:68F0A1B2:srvreload::root@pam:",
            "UPID:pve:+0000001:00000002:68F0A1B2:x::root@pam:",
        ],
    ),
    (
        "known-hosts",
        &[
            "pve ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ a comment",
            "[127.0.0.1]:2222,pve* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
            "@revoked * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
            "!pve,* ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ==\n@cert-authority *.lan ssh-ed25519 AAAA",
            "|1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|USECr3SWf1JUPsms5AqfD5QfxkM= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==",
            "# nothing\n\n\tpve\tssh-ed25519\tAAAA\r\n",
        ],
    ),
    (
        "pending",
        &[
            r#"[{"key":"usb0","value":"host=1a6e:089a","delete":1},{"key":"memory","value":4096,"pending":"8192"}]"#,
            r#"[{"key":"digest","value":"x"},{"key":"usb0","pending":"spice","delete":"2"}]"#,
        ],
    ),
    (
        "mark",
        &[
            r#"{"run":"7k2","host":"desk","was":{"suspend":false}}"#,
            r#"{"run":"7k2","host":"desk","was":{"replicas":1,"conditions":[null,1.5e300,"ä"]}}"#,
            r#"{"run":"","host":"","was":null}"#,
        ],
    ),
    (
        "proxmox-refusal",
        &[
            "\0\0{\"data\":null,\"message\":\"VM is locked (backup)\\n\"}",
            "\u{1}\0{\"message\":\"Permission check failed (/vms/108, VM.Config.HWType)\\n\"}",
            "d\0{\"errors\":{\"usb0\":\"hotplug problem - cannot unplug\",\"b\":{}}}",
            "d\0command 'guest-exec' failed - got timeout",
            "\u{c4}\0<html>proxy</html>",
            "d\0{\"message\":\"Agent error: Failed to execute child process\"}",
        ],
    ),
    (
        "guest-output",
        &[
            "/sys/bus/usb/devices/2-1/idVendor:1a6e\n/sys/bus/usb/devices/2-1/idProduct:089a\n/sys/bus/usb/devices/2-1/speed:5000\n",
            "/sys/bus/usb/devices/usb2/idVendor:1d6b\n/sys/bus/usb/devices/usb2/idProduct:0003\n/sys/bus/usb/devices/usb2/speed:1.5\n",
            "",
        ],
    ),
    (
        "shown-text",
        &[
            "password=hunter2&user=root%40pam",
            "Authorization: Bearer abc.def.123, Cookie: PVEAuthCookie=PVE:root@pam:66::x",
            "fatal: https://me:pw@git.lan/x.git/ and ssh://git@git.lan and http://a@b@c",
            "{\"token\":\"x y\",\\\"secret\\\":\\\"z\\\"}",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\nZk3vQ9xT1bLmC7dRw2Hs5Np8",
        ],
    ),
    (
        "manifest",
        &[
            "kind: Deployment\nmetadata: {name: frigate}\nspec:\n  replicas: 1 # one\n  template: {spec: {nodeName: preset-a}}\n",
            "# head\n---\nkind: Service\nmetadata:\n  name: frigate\n---\nkind: Deployment\nmetadata:\n  name: frigate\nspec:\n  template:\n    spec:\n      # why\n      nodeSelector:\n        a: \"b\" # c\n      runtimeClassName: nvidia\n      nodeName: \"x preset-a y\"\n      containers:\n      - name: frigate\n        image: old:1 # pinned\n",
            "kind: Deployment\nmetadata:\n  name: frigate\nspec:\n  template:\n    spec:\n      nodeName: |\n        one\n        preset-a\n      containers:\n        - image: old:1\n          name: frigate",
        ],
    ),
    (
        "disk-expression",
        &[
            "disk.serial == 'S5GXNF0R601234' || (disk.serial == \"\" && disk.size == 1024209543168u)",
            "disk.transport == \"nvme\" && !system_disk && glob('S5*', disk.model)",
            "disk.symlinks.exists(link, link.endsWith('a')) ? size(disk.serial) < 3 : disk.size / 2u > 1u * GiB",
            "WD \"BLACK\" \\ SN770",
        ],
    ),
    (
        "partition-table",
        &["EFI PART\0\0\u{1}\0\u{5c}\0\0\0\0\0\0\0\0\0\0\0\u{1}\0\0\0\0\0\0\0", "EFI PART", "no table"],
    ),
    (
        "boot-entry",
        &[
            "\u{7}\0\0\0\u{1}\0\0\0\u{4}\0T\0\0\0\u{7f}\u{1}\u{4}\0",
            "\u{7}\0\0\0\u{1}\0\0\0\u{a}\0T\0\0\0\u{1}\u{1}\u{6}\0\0\u{1d}\u{7f}\u{1}\u{4}\0",
            "\u{7}\0\0\0\u{1}\0\0\0\u{c}\0\0\0\u{4}\u{4}\u{8}\0a\0\0\0\u{7f}\u{1}\u{4}\0",
            "\u{7}\0\0\0\u{1}\0\u{2}\0",
        ],
    ),
];

/// The folders of fixtures that belong to a target, and how a file of it is fed.
const FILES: &[(&str, &str)] = &[
    ("site", "site"),
    ("manifest", "checkout"),
    ("proxmox-answer", "proxmox"),
    ("pending", "proxmox"),
    ("kubernetes-answer", "kubernetes"),
    ("kubernetes-refusal", "kubernetes"),
];

/// All seeds of a target; `root` is the checkout's.
pub(crate) fn seeds(root: &Path, target: &str) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    for (_, lines) in LINES.iter().filter(|(name, _)| *name == target) {
        out.extend(lines.iter().map(|line| line.as_bytes().to_vec()));
    }
    for (_, folder) in FILES.iter().filter(|(name, _)| *name == target) {
        let mut paths: Vec<_> = files(&root.join("fixtures").join(folder));
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml")) {
            let text = std::fs::read(path).unwrap();
            out.push(match target {
                "kubernetes-refusal" => [b"\x09\0", text.as_slice()].concat(),
                _ => text,
            });
        }
    }
    if target == "journal" || target == "events" {
        let text = std::fs::read_to_string(root.join("fixtures/journals/1-usb-move.jsonl")).unwrap();
        // The first line is long and the same for all; each beginning of a run is a run.
        let lines: Vec<&str> = text.lines().collect();
        for count in [1, 2, 5, 12, 30, lines.len()] {
            out.push(lines.iter().take(count).flat_map(|line| [line, "\n"]).collect::<String>().into_bytes());
        }
        if target == "events" {
            out = short_runs();
        }
    }
    // What broke a reader once: `tests/fuzz/found/TARGET-N`.
    let mut found = files(&root.join("tests/fuzz/found"));
    found.sort();
    for path in found
        .iter()
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("{target}-"))))
    {
        out.push(std::fs::read(path).unwrap());
    }
    out
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// Runs of a small plan, an event a line.
fn short_runs() -> Vec<Vec<u8>> {
    let step = |key: &str, more: &str| format!(r#"{{"key":"{key}","title":"t","risk":"reverts","step":{{}}{more}}}"#);
    let opened = format!(
        r#"{{"is":"opened","tool":"0","site":"s","site_digest":"d","migration":null,"blueprint":"b","blueprint_version":1,"single":false,"argv":[],"host":"h","plan":[{},{},{}]}}"#,
        step("01-hold", r#","holds_until":"03-close""#),
        step("02-work", ""),
        step("03-close", ""),
    );
    let event = |is: &str, key: &str, more: &str| format!(r#"{{"is":"{is}","key":"{key}"{more}}}"#);
    let call = |key: &str, n: u8| {
        let note = r#""note":{"system":"toy","text":"x","again":"once"}"#;
        [
            event("call", key, &format!(r#","call":{n},{note}"#)),
            event("got", key, &format!(r#","call":{n},"handle":{{"kind":"uid","value":"u"}}"#)),
        ]
        .join("\n")
    };
    let done = |key: &str, n: u8| {
        [event("applying", key, r#","before":{"a":1},"changes":[]"#), call(key, n), event("applied", key, "")]
            .join("\n")
    };
    let back = |key: &str| [event("undoing", key, ""), event("undone", key, "")].join("\n");
    let all = [opened.clone(), done("01-hold", 1), done("02-work", 2), done("03-close", 3)].join("\n");
    let closed = r#"{"is":"closed","outcome":"done"}"#;
    let failed = event("failed", "02-work", r#","error":["e"],"effect":"maybe""#);
    let runs = [
        opened.clone(),
        format!("{all}\n{closed}"),
        [all.as_str(), &back("03-close"), &back("02-work"), &back("01-hold"), r#"{"is":"closed","outcome":"undone"}"#]
            .join("\n"),
        [
            opened.as_str(),
            &done("01-hold", 1),
            &event("applying", "02-work", r#","before":2,"changes":[]"#),
            &failed,
            r#"{"is":"abandoned","comment":"c"}"#,
        ]
        .join("\n"),
        [
            opened.as_str(),
            &event("checked", "01-hold", r#","answer":"todo""#),
            &event("already-so", "01-hold", r#","needless":true"#),
            &event("hold-fell", "01-hold", r#","changes":[],"notes":[]"#),
        ]
        .join("\n"),
        [
            all.as_str(),
            &event("undoing", "03-close", ""),
            &event("undo-failed", "03-close", r#","error":["e"]"#),
            &event("interrupted", "02-work", ""),
        ]
        .join("\n"),
        [
            opened.as_str(),
            &event("asked", "02-work", r#","ask":"a","before":null"#),
            r#"{"is":"consented","thing":"pvc/a/b"}"#,
        ]
        .join("\n"),
    ];
    runs.map(String::into_bytes).to_vec()
}
