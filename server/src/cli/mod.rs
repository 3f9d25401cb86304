//! The command line.

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
}

impl Cli {
    /// Does what was asked.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve::run(args).await,
        }
    }
}
