//! Against the lab's three control planes: what it asks for, and that another program reads what was encrypted.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use super::there;
use crate::cli::{Up, expect};

fn age(program: &str, args: &[&str], dir: &Path) -> Output {
    let run = Command::new(program).args(args).current_dir(dir).output();
    run.unwrap_or_else(|error| panic!("this test needs the package age: {error}"))
}

/// A key in a file of the directory, and its recipient.
fn key(dir: &Path, name: &str) -> String {
    assert!(age("age-keygen", &["-o", name], dir).status.success());
    String::from_utf8(age("age-keygen", &["-y", name], dir).stdout).unwrap().trim().to_owned()
}

#[test]
fn what_is_encrypted_is_read_by_age_and_by_nobody_else() {
    let up = Up::new("talos-three", "manual");
    let dir = up.shell.path().join("to");
    std::fs::create_dir(&dir).unwrap();
    let keys = ["one", "two", "other"].map(|name| key(up.shell.path(), name));
    std::fs::write(up.shell.path().join("recipients"), format!("# the safe\n{}\n", keys[1])).unwrap();
    let plain = up.run(&["etcd", "snapshot", "--to", "to", "--keep", "9"]);
    expect(&plain, 0, &["snapshot of homelab by talos-"]);
    let plain = std::fs::read(plain.stdout.trim()).unwrap();
    let sealed =
        up.run(&["etcd", "snapshot", "--to", "to", "--recipient", &keys[0], "--recipients-file", "recipients"]);
    expect(&sealed, 0, &["encrypted to 2 recipients"]);
    assert!(!sealed.stderr.contains("notice:"), "{}", sealed.stderr);
    let file = sealed.stdout.trim();
    assert!(file.ends_with("Z.snapshot.age"), "{file}");
    let bytes = std::fs::read(file).unwrap();
    assert!(bytes.starts_with(b"age-encryption.org/v1\n") && bytes.len() > plain.len());
    assert!(!bytes.windows(8).any(|part| part == b"lab etcd"), "the content is in it");
    for (name, reads) in [("one", true), ("two", true), ("other", false)] {
        let said = age("age", &["-d", "-i", name, file], up.shell.path());
        assert_eq!((said.status.success(), said.stdout == plain), (reads, reads), "{name}: {:?}", said.stderr);
    }
    // Both count, and no third one.
    let third = up.run(&["etcd", "snapshot", "homelab", "--to", "to", "--keep", "2", "--recipient", &keys[0]]);
    expect(&third, 0, &["  removed homelab-", "  kept homelab-"]);
    assert_eq!(third.stderr.matches("only its head can be looked at").count(), 1, "{}", third.stderr);
    assert_eq!(there(&dir).len(), 2);
    // It reads, and no more.
    assert_eq!(up.changes(), 0);
}

/// Sizes at the borders of what is sealed at a time.
#[test]
fn age_reads_every_size() {
    use pvemig::base::age::Encryptor;
    let dir = tempfile::tempdir().unwrap();
    let to = [key(dir.path(), "key").parse().unwrap()];
    const CHUNK: usize = 64 << 10;
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 17];
    for size in sizes {
        let content: Vec<u8> = (0..size).map(|n| (n % 253) as u8).collect();
        let (mut encryptor, mut file) = Encryptor::new(&to).unwrap();
        content.chunks(30_001).for_each(|piece| encryptor.write(piece, &mut file).unwrap());
        let cut = file.len();
        encryptor.finish(&mut file).unwrap();
        std::fs::write(dir.path().join("file.age"), &file).unwrap();
        let said = age("age", &["-d", "-i", "key", "file.age"], dir.path());
        assert!(said.status.success() && said.stdout == content, "{size}: {}", String::from_utf8_lossy(&said.stderr));
        // Without its end it is not taken for whole.
        std::fs::write(dir.path().join("file.age"), &file[..cut]).unwrap();
        assert!(!age("age", &["-d", "-i", "key", "file.age"], dir.path()).status.success(), "{size}");
    }
    println!("{} sizes read by age", sizes.len());
}

#[test]
fn faults_of_the_wire_are_met_with_another_member() {
    let up = Up::new("talos-three", "manual");
    std::fs::create_dir(up.shell.path().join("to")).unwrap();
    let fault = |path: &str, effect: serde_json::Value| {
        up.control(&json!("clear-faults"));
        up.control(&json!({ "fault": { "front": "talos", "path": path, "effect": effect } }));
    };
    let take = || up.run(&["etcd", "snapshot", "--to", "to"]);
    let first = up.run(&["etcd", "snapshot", "--to", "to", "--json"]);
    let first: serde_json::Value = serde_json::from_str(&first.stdout).unwrap();
    let node = first["node"].as_str().unwrap();
    for effect in [json!("reset-before"), json!("reset-after"), json!({ "status": [503, "etcd is not running"] })] {
        fault(&format!("/{node}/*EtcdSnapshot"), effect);
        expect(&take(), 0, &[&format!("notice: no snapshot from {node}: "), "snapshot of homelab by talos-"]);
    }
    fault("*EtcdSnapshot", json!("refuse"));
    expect(&take(), 1, &["the role os:etcd:backup"]);
    fault("*EtcdStatus", json!("refuse"));
    expect(&take(), 1, &["the role os:etcd:backup"]);
    // Nobody answers at all.
    fault("*", json!("reset-before"));
    let said = take();
    expect(&said, 1, &["gave a snapshot", "caused by: talos-mac: ", "caused by: talos-nuc: ", "caused by: talos-vm: "]);
    assert_eq!((there(&up.shell.path().join("to")).len(), up.changes()), (4, 0));
}
