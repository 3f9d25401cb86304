use std::path::PathBuf;

use clap::Args;

use crate::doctor::{Finding, Severity, examine, gather};
use crate::image::ImageStore;
use crate::vmm::probe;

#[derive(Args)]
pub struct DoctorArgs {
    /// The server's data directory [default: /var/lib/forkyard as root, else ~/.local/share/forkyard].
    #[arg(long, env = "FORKYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where images are kept [default: `images` in the data directory].
    #[arg(long, env = "FORKYARD_IMAGE_DIR")]
    image_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Says what the host lacks; `false` where machines cannot run.
pub async fn run(args: DoctorArgs) -> anyhow::Result<bool> {
    let data_dir = args.data_dir.unwrap_or_else(crate::paths::default_data_dir);
    let images = ImageStore::open(args.image_dir.unwrap_or_else(|| data_dir.join("images")));
    let mut helper = tokio::process::Command::new(std::env::current_exe()?);
    helper.arg(probe::CHILD_COMMAND);
    let findings = examine(&gather(&data_dir, &images, helper).await);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        findings.iter().for_each(print);
    }
    Ok(findings.iter().all(|finding| finding.severity != Severity::Problem))
}

fn print(finding: &Finding) {
    let mark = match finding.severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Problem => "PROBLEM",
    };
    println!("{mark:<8} {:<12} {}", finding.check, finding.message);
    if let Some(remedy) = &finding.remedy {
        println!("{:<21} -> {remedy}", "");
    }
}
