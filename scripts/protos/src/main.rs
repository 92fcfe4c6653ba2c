//! Makes the Rust code of the Talos API from proto/.

use std::error::Error;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let (from, to) = (root.join("proto"), root.join("src/talos/proto"));
    let protos = files(&from, "proto")?;
    let fresh = std::env::temp_dir().join(format!("pvemig-protos-{}", std::process::id()));
    std::fs::create_dir_all(&fresh)?;
    tonic_prost_build::configure()
        .out_dir(&fresh)
        .emit_rerun_if_changed(false)
        .compile_fds(protox::compile(&protos, [&from])?)?;

    let source = digest(&protos)?;
    for old in files(&to, "rs")? {
        if old.file_name().is_some_and(|name| name != "mod.rs") {
            std::fs::remove_file(old)?;
        }
    }
    for made in files(&fresh, "rs")? {
        let name = made.file_name().unwrap_or_default().to_string_lossy().replace(".rs", "").replace('.', "_");
        let code = std::fs::read_to_string(&made)?;
        // The last line says what the rest has to be.
        let code = format!("{code}// Made by scripts/protos from proto/ {source}");
        let sum = hex(&Sha256::digest(code.as_bytes()));
        std::fs::write(to.join(format!("{name}.rs")), format!("{code}, code {sum}\n"))?;
        println!("{name}.rs");
    }
    std::fs::remove_dir_all(fresh)?;
    Ok(())
}

/// The files of a directory that end so, in order.
fn files(dir: &Path, end: &str) -> Result<Vec<PathBuf>, std::io::Error> {
    let entries = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    let mut out: Vec<_> = entries.into_iter().filter(|path| path.extension().is_some_and(|e| e == end)).collect();
    out.sort();
    Ok(out)
}

/// The SHA-256 over names and contents, each with a zero byte behind it.
fn digest(files: &[PathBuf]) -> Result<String, std::io::Error> {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update(std::fs::read(file)?);
        hash.update([0]);
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
