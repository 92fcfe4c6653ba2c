//! Writes the seeds of every target named on the command line to `corpus/TARGET/`.

use std::path::Path;

#[path = "../tests/fuzz/seeds.rs"]
mod seeds;

fn main() -> std::io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().unwrap_or(here);
    for target in std::env::args().skip(1) {
        let folder = here.join("corpus").join(&target);
        std::fs::create_dir_all(&folder)?;
        for (n, seed) in seeds::seeds(root, &target).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n}")), seed)?;
        }
    }
    Ok(())
}
