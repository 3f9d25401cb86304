//! Takes in the guest agent that `FORKYARD_AGENT_BIN` names, so that the server is one file. Without it (a plain
//! `cargo build`) the server asks for `--agent` when it builds an image.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=FORKYARD_AGENT_BIN");
    let target = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("agent");
    match std::env::var_os("FORKYARD_AGENT_BIN").filter(|path| !path.is_empty()) {
        Some(agent) => {
            println!("cargo::rerun-if-changed={}", PathBuf::from(&agent).display());
            std::fs::copy(&agent, &target).expect("FORKYARD_AGENT_BIN names the agent's binary");
        }
        None => std::fs::write(&target, []).expect("OUT_DIR is writable"),
    }
}
