//! The command line.

mod image;
mod serve;

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
    /// Build and list the images that machines are made of.
    Image(image::ImageArgs),
    /// Runs the KVM probe's instructions; started by the probe alone, which ends it if it hangs.
    #[command(name = crate::vmm::probe::CHILD_COMMAND, hide = true)]
    ProbeKvm,
}

impl Cli {
    /// Does what was asked.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Image(args) => tokio::task::spawn_blocking(|| image::run(args)).await?,
            Command::ProbeKvm => {
                crate::vmm::probe::run_child();
                Ok(())
            }
        }
    }
}
