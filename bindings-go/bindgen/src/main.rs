//! Writes the generated half of the Go module: `forkyard-bindgen-go LIBRARY DIR`.

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;
use clap::Parser;

/// Writes Go files for what a static library exports through UniFFI.
#[derive(Parser)]
struct Arguments {
    /// The library, with its symbols.
    library: Utf8PathBuf,
    /// The crate's folder, which holds its uniffi.toml; the files are written into it.
    dir: Utf8PathBuf,
}

fn main() -> Result<()> {
    let Arguments { library, dir } = Arguments::parse();
    let config = dir.join("uniffi.toml");
    let config = std::fs::read_to_string(&config).with_context(|| format!("reading {config}"))?;
    for (name, text) in forkyard_bindgen_go::generate(&library, &config)? {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}
