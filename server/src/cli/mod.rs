//! The command line.

mod doctor;
mod image;
mod serve;
mod warm;

use clap::{Parser, Subcommand};

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
    /// Runs the KVM probe's instructions; started by the probe alone, which ends it if it hangs.
    #[command(name = crate::vmm::probe::CHILD_COMMAND, hide = true)]
    ProbeKvm,
}

impl Cli {
    /// Does what was asked; `false` where the answer is no.
    pub async fn run(self) -> anyhow::Result<bool> {
        match self.command {
            Command::Doctor(args) => return doctor::run(args).await,
            Command::Serve(args) => serve::run(args).await?,
            Command::Image(args) => image::run(args).await?,
            Command::ProbeKvm => crate::vmm::probe::run_child(),
        }
        Ok(true)
    }
}
