use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use forkyard_protocol::{DEFAULT_CPUS, DEFAULT_MEMORY_MB};

use crate::image::{Builder, ImageStore, Recipe};

/// The guest agent, taken in when this program was built; empty in a plain `cargo build`.
static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent"));

#[derive(Args)]
pub struct ImageArgs {
    /// Where images are kept [default: `images` in the data directory].
    #[arg(long, env = "FORKYARD_IMAGE_DIR", global = true)]
    image_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand)]
enum ImageCommand {
    /// Build images from the built-in recipes; what is up to date is left alone.
    Build {
        /// The recipes' names [default: all].
        names: Vec<String>,
        /// Build even what is up to date, with the packages' newest versions.
        #[arg(long)]
        force: bool,
        /// The guest agent's binary, static [default: the one built in].
        #[arg(long, env = "FORKYARD_AGENT")]
        agent: Option<PathBuf>,
    },
    /// List images.
    List,
    /// Have a running server boot images and freeze them, so that the first machine of each is as quick as the others.
    ///
    /// The server and the key are found as by the SDKs: `FORKYARD_URL`, `FORKYARD_API_KEY` or `FORKYARD_API_KEY_FILE`.
    Warm {
        /// Tags or digests of the images.
        #[arg(required = true)]
        images: Vec<String>,
        /// Virtual CPUs of the machines that are to be quick; each number has a template of its own.
        #[arg(long, default_value_t = DEFAULT_CPUS)]
        cpus: f64,
        /// Memory of the machines in MiB; each size has a template of its own.
        #[arg(long, default_value_t = DEFAULT_MEMORY_MB)]
        memory_mb: u64,
    },
}

/// Does what was asked.
pub async fn run(args: ImageArgs) -> anyhow::Result<()> {
    match args.command {
        ImageCommand::Warm { images, cpus, memory_mb } => {
            for image in images {
                super::warm::warm(&image, cpus, memory_mb).await?;
            }
            Ok(())
        }
        _ => tokio::task::spawn_blocking(|| build_or_list(args)).await?,
    }
}

/// Blocks.
fn build_or_list(args: ImageArgs) -> anyhow::Result<()> {
    let dir = args.image_dir.unwrap_or_else(|| crate::paths::default_data_dir().join("images"));
    match args.command {
        ImageCommand::Build { names, force, agent } => {
            let names = if names.is_empty() { Recipe::built_in_names() } else { names };
            let agent: Cow<'_, [u8]> = match agent {
                Some(path) => {
                    std::fs::read(&path).with_context(|| format!("the agent {}", path.display()))?.into()
                }
                None => AGENT.into(),
            };
            if agent.is_empty() {
                bail!("this program was built without the guest agent; name its binary with --agent");
            }
            let builder = Builder::new(&dir, &agent, &|line| println!("{line}"));
            for name in names {
                builder.build(&Recipe::built_in(&name)?, force)?;
            }
        }
        ImageCommand::Warm { .. } => {}
        ImageCommand::List => {
            for image in ImageStore::open(dir).list()? {
                println!("{}\t{}\t{} MiB", image.digest, image.tags.join(", "), image.size_bytes >> 20);
            }
        }
    }
    Ok(())
}
