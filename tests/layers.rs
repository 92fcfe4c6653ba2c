//! Who may import whom: the whole table. It reads every `crate::` path in `src/` and fails on an edge that is not in it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const TABLE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("proxmox", &["base"]),
    ("k8s", &["base"]),
    ("talos", &["base"]),
    ("checkout", &["base"]),
    ("lint", &["base"]),
    ("site", &["base"]),
    ("guest", &["base", "proxmox"]),
    ("estate", &["base", "site", "proxmox", "guest", "k8s", "talos", "checkout"]),
    ("engine", &["base"]),
    ("blueprint", &["base", "engine", "estate", "site", "proxmox", "guest", "k8s", "talos", "checkout"]),
    ("lab", &["base", "site", "talos"]),
    ("report", &["base", "engine"]),
    (
        "cli",
        &[
            "base",
            "engine",
            "estate",
            "site",
            "proxmox",
            "guest",
            "k8s",
            "talos",
            "checkout",
            "blueprint",
            "lab",
            "lint",
            "report",
        ],
    ),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The folders that a text names by `crate::FOLDER` or inside `crate::{...}`.
fn imports(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && c.is_alphabetic() => {
                        found.push(word(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push(word(rest));
        }
    }
    found
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let text = "use crate::base::x;\nuse crate::{engine::{a, b}, lab};\n// crate::comment\nlet y = crate::site::f();";
    assert_eq!(imports(text), ["base", "engine", "lab", "site"]);
}

#[test]
fn every_import_is_in_the_table() {
    let table: BTreeMap<_, _> = TABLE.iter().copied().collect();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let (mut edges, mut wrong) = (0, Vec::new());
    for file in &files {
        let inside = file.strip_prefix(&src).unwrap();
        let folder = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        if inside.components().count() == 1 {
            continue; // lib.rs and main.rs
        }
        let allowed = table.get(folder).unwrap_or_else(|| panic!("folder `{folder}` is not in the table"));
        for import in imports(&std::fs::read_to_string(file).unwrap()) {
            edges += 1;
            if import != folder && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports crate::{import}", inside.display()));
            }
        }
    }
    assert!(edges > 20, "only {edges} imports were found: the search is broken");
    assert!(wrong.is_empty(), "{wrong:#?}");
    for folder in table.keys() {
        assert!(src.join(folder).is_dir(), "the table names `{folder}`, which does not exist");
    }
}

#[test]
fn the_lab_knows_the_protos_of_talos_and_not_the_client() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lab"), &mut files);
    let mut named = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, found) in text.match_indices("crate::talos") {
            named += 1;
            let rest = &text[at + found.len()..];
            assert!(rest.starts_with("::proto::"), "{} names the client", file.display());
        }
        let group = text.match_indices("crate::{").filter(|(at, _)| imports(&text[*at..]).contains(&"talos".into()));
        assert_eq!(group.count(), 0, "{}", file.display());
    }
    assert!(named > 10, "only {named} were found: the search is broken");
}

#[test]
fn permits_are_minted_by_the_engine_alone() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mints = |name: &str| -> Vec<String> {
        let has = |f: &&PathBuf| std::fs::read_to_string(f).unwrap().contains(name);
        let mut found: Vec<_> =
            files.iter().filter(has).map(|f| f.strip_prefix(&src).unwrap().display().to_string()).collect();
        found.sort();
        found
    };
    assert_eq!(mints("Permit::mint("), ["engine/run.rs", "engine/undo.rs"]);
    // The notebook's permit writes to no journal: only tests may use it.
    assert_eq!(mints("Notebook::permit"), Vec::<String>::new());
    // Programs that are run without a permit: only what is known, or declared, to read.
    assert_eq!(mints(".agent_look("), ["guest/agent.rs"]);
    assert_eq!(mints("kube.exec("), ["blueprint/usb_move/deploy.rs"]);
}
