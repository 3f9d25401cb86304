//! The command line.

mod doctor;
mod gateway;
mod image;
mod serve;
mod warm;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

/// Every agent task gets its own computer.
#[derive(Parser)]
#[command(name = "forkyard", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve machines until interrupted.
    Serve(serve::ServeArgs),
    /// Say what this host lacks for machines, and how to get it.
    Doctor(doctor::DoctorArgs),
    /// Build and list the images that machines are made of.
    Image(image::ImageArgs),
    /// Carries one machine's network; started by the server alone, which says how on its input.
    #[command(hide = true)]
    Gateway {
        /// The machine's directory, for whoever looks for its gateway.
        dir: PathBuf,
    },
    /// Runs the KVM probe's instructions; started by the probe alone, which ends it if it hangs.
    #[command(name = crate::vmm::probe::CHILD_COMMAND, hide = true)]
    ProbeKvm,
}

impl Cli {
    /// Does what was asked; `false` where the answer is no.
    pub fn run(self) -> anyhow::Result<bool> {
        match self.command {
            Command::Doctor(args) => return Runtime::new()?.block_on(doctor::run(args)),
            Command::Serve(args) => Runtime::new()?.block_on(serve::run(args))?,
            Command::Image(args) => Runtime::new()?.block_on(image::run(args))?,
            // It confines itself, which a runtime's threads would escape.
            Command::Gateway { dir } => {
                gateway::run().with_context(|| format!("the gateway of {}", dir.display()))?;
            }
            Command::ProbeKvm => crate::vmm::probe::run_child(),
        }
        Ok(true)
    }
}
