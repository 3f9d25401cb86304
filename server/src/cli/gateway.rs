use std::io::{BufRead as _, Read as _};

use anyhow::Context as _;
use forkyard_gateway::limits::MAX_CONTROL_LINE;
use forkyard_gateway::process::{Start, run as run_gateway};

/// Runs a gateway as a line of JSON on the input says, until the machine or the server ends it.
pub fn run() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_CONTROL_LINE as u64).read_line(&mut line)?;
    let start: Start = serde_json::from_str(&line).context("no start configuration on the input")?;
    run_gateway(start)
}
