//! The committed code of the Talos API is what `scripts/protos` makes of `proto/`.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn files(dir: &str, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap();
    let mut out: Vec<_> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == end)).collect();
    out.sort();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of the protos, as the script makes it.
fn digest(protos: &[(String, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    for (name, text) in protos {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(text);
        hash.update([0]);
    }
    hex(&hash.finalize())
}

/// Why code is not what was made of protos with this digest.
fn wrong(code: &str, source: &str) -> Option<&'static str> {
    let Some((rest, sum)) = code.rsplit_once(", code ") else { return Some("has no last line") };
    if hex(&Sha256::digest(rest.as_bytes())) != sum.trim_end() {
        return Some("was edited");
    }
    (!rest.ends_with(&format!("from proto/ {source}"))).then_some("is older than the protos")
}

#[test]
fn the_code_is_what_was_made_of_the_protos() {
    let read = |path: &PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap());
    let protos: Vec<_> = files("proto", "proto").iter().map(read).collect();
    let made: Vec<_> = files("src/talos/proto", "rs").iter().map(read).filter(|(name, _)| name != "mod.rs").collect();
    assert_eq!((protos.len(), made.len()), (6, 5));
    let module = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/talos/proto/mod.rs")).unwrap();
    let source = digest(&protos);
    for (name, code) in &made {
        let code = String::from_utf8(code.clone()).unwrap();
        let told = "run `cargo run --manifest-path scripts/protos/Cargo.toml`";
        assert_eq!(wrong(&code, &source), None, "src/talos/proto/{name}: {told}");
        assert!(module.contains(&format!("include!(\"{name}\")")), "{name} is not part of the program");

        // The search finds what it looks for.
        assert_eq!(wrong(&code.replacen("pub ", "pub  ", 1), &source), Some("was edited"));
        let mut other = protos.clone();
        other[3].1.push(b'\n');
        assert_eq!(wrong(&code, &digest(&other)), Some("is older than the protos"));
    }
}
