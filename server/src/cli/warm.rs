//! Has a server make the template of an image, and shows how it gets on.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forkyard::{Client, CreateSandbox, Stage};
use indicatif::{ProgressBar, ProgressStyle};

/// How long the machine that becomes the template waits for room among others.
const QUEUE_TIMEOUT_SECS: u64 = 600;

/// Makes the template of an image for machines of this size, unless it is there, and proves it by a fork of it.
pub async fn warm(image: &str, cpus: f64, memory_mb: u64) -> anyhow::Result<()> {
    let client = Client::builder().build()?;
    let request = CreateSandbox {
        image: Some(image.to_owned()),
        cpus: Some(cpus),
        memory_mb: Some(memory_mb),
        queue_timeout_secs: QUEUE_TIMEOUT_SECS,
        ..CreateSandbox::default()
    };
    let began = Instant::now();
    // The first boots where there is no template; the second waits until that is written, and goes on from it.
    for _ in 0..2 {
        make_and_end(&client, image, request.clone()).await?;
    }
    let warmed = began.elapsed();
    let began = Instant::now();
    make_and_end(&client, image, request).await?;
    println!(
        "{image}: warm for {cpus} CPUs and {memory_mb} MiB after {:.1} s; a machine comes and goes in {:.2} s",
        warmed.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn make_and_end(client: &Client, image: &str, request: CreateSandbox) -> anyhow::Result<()> {
    let progress = Progress::new(image);
    let sandbox = client.create_watched(request, |stage| progress.show(stage)).await;
    let sandbox = sandbox.with_context(|| format!("no machine could be made of the image '{image}'"))?;
    sandbox.terminate().await?;
    Ok(())
}

/// A line that moves on a terminal, lines elsewhere.
struct Progress {
    image: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(image: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { image: image.to_owned(), bar }
    }

    fn show(&self, stage: Stage) {
        let what = match stage {
            Stage::Accepted => "has room",
            Stage::WaitingForTemplate => "waits until its template is looked at or written",
            Stage::WaitingForTurn => "waits for others to start",
            Stage::Booting => "boots",
            Stage::Restoring => "goes on from its template",
            Stage::Warming => "runs its programs once",
            Stage::Freezing => "is frozen",
        };
        let line = format!("{}: {what}", self.image);
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}
