//! Five agents review one project at once: setup is paid once, frozen with its memory, and forked for each agent.
//!
//! A base machine gets the project and starts the reviewer, which imports its tools and waits. A snapshot with its memory is
//! taken, and five forks of it each review from one perspective, which an environment variable names. Run one by one, and all
//! at once.
//!
//! Usage: `cargo run -p forkyard --example 02_swarm [FOLDER]`, with a server running (`make serve`) that has the image
//! 'code-review'. The folder holds reviewer.py and the project. Default: `examples/python/code_review`, as seen from the
//! repository.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use forkyard::{
    CheckpointType, Client, Command, CreateSandbox, CreateSnapshot, Error, ErrorCode, Sandbox, SnapshotInfo,
    SwarmOutcome, SwarmProgress,
};
use serde::Deserialize;

const PERSPECTIVES: [&str; 5] = ["security", "complexity", "docstrings", "tests", "structure"];

/// Speaks to the reviewer that waits in the machine.
const ASK: &str = r#"until [ -p ask ]; do sleep 0.1; done; printf "%s" "$PERSPECTIVE" >ask; cat answer"#;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What the reviewer says in its one line of JSON.
#[derive(Debug, Deserialize)]
struct Review {
    perspective: String,
    score: f64,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    file: String,
    line: u64,
    message: String,
    cost: f64,
}

/// Prints what happens, and when.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn say(self, text: impl AsRef<str>) {
        println!("{:6.2} s  {}", self.0.elapsed().as_secs_f64(), text.as_ref());
    }
}

/// Has the reviewer in a machine look at the project.
async fn ask(sandbox: &Sandbox, perspective: &str) -> forkyard::Result<Vec<u8>> {
    let command = Command::new("sh").args(["-c", ASK]).env("PERSPECTIVE", perspective);
    let result = sandbox.run(command.timeout(Duration::from_mins(2))).await?;
    if result.exit_code != 0 {
        let message = format!("the reviewer failed: {}", String::from_utf8_lossy(&result.stderr));
        return Err(Error::new(ErrorCode::FailedPrecondition, message));
    }
    Ok(result.stdout)
}

async fn review(sandbox: Sandbox, perspective: &str) -> forkyard::Result<Review> {
    serde_json::from_slice(&ask(&sandbox, perspective).await?)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("the reviewer's answer: {error}")))
}

fn python_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(python_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "py") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Brings the project and the reviewer into the base, and freezes it once the reviewer has its tools.
async fn freeze(clock: Clock, base: &Sandbox, folder: &Path) -> Outcome<SnapshotInfo> {
    for path in python_files(folder)? {
        let inside = format!("/workspace/{}", path.strip_prefix(folder)?.display());
        base.files().write(inside, std::fs::read(&path)?, None).await?;
    }
    base.start(Command::new("python").args(["reviewer.py"])).await?;
    let tools = String::from_utf8(ask(base, "tools").await?)?;
    clock.say(format!("it has {}", tools.trim()));
    let memory = CreateSnapshot { checkpoint_type: CheckpointType::Memory, ..CreateSnapshot::default() };
    Ok(base.checkpoint(memory).await?)
}

/// Runs the agents, so many at once.
async fn run(
    clock: Clock,
    client: &Client,
    snapshot: &SnapshotInfo,
    concurrency: usize,
) -> forkyard::Result<SwarmOutcome<Review>> {
    let fork = CreateSandbox { snapshot_id: Some(snapshot.snapshot_id.clone()), ..CreateSandbox::default() };
    let said = AtomicUsize::new(0);
    let show = move |progress: &SwarmProgress| {
        let done = progress.succeeded + progress.failed;
        if said.fetch_max(done, Ordering::Relaxed) < done {
            clock.say(format!("  {done} of {} agents are done", progress.total));
        }
    };
    client.swarm(fork).concurrency(concurrency).on_progress(show).run(PERSPECTIVES.to_vec(), review).await
}

/// Each perspective's score, and its worst findings.
fn show_reviews(reviews: &[&Review]) {
    println!();
    for review in reviews {
        let (score, count) = (review.score, review.findings.len());
        println!("  {:<12} {score:4.1} of 10, {count} findings", review.perspective);
        for finding in review.findings.iter().take(3) {
            println!("{:16}{}:{}  {:.80}", "", finding.file, finding.line, finding.message);
        }
    }
}

/// What the lead concludes.
fn lead(reviews: &[&Review]) -> Option<String> {
    let sum: f64 = reviews.iter().map(|review| review.score).sum();
    let mean = sum / f64::from(u32::try_from(reviews.len()).ok()?);
    let worst = reviews.iter().min_by(|a, b| a.score.total_cmp(&b.score))?;
    let findings = reviews.iter().flat_map(|review| &review.findings);
    let first = findings.max_by(|a, b| a.cost.total_cmp(&b.cost))?;
    let verdict = if mean >= 8.0 { "ready to merge" } else { "not ready to merge" };
    Some(format!(
        "{mean:.1} of 10: {verdict}. Weakest is {} ({}). Begin with {}:{}: {}",
        worst.perspective, worst.score, first.file, first.line, first.message
    ))
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let clock = Clock(Instant::now());
    let folder = std::env::args().nth(1).unwrap_or_else(|| "examples/python/code_review".to_owned());
    let client = Client::builder().build()?;
    clock.say("the base: a machine with the project and a reviewer that has its tools loaded");
    let image = CreateSandbox {
        image: Some("code-review".to_owned()),
        memory_mb: Some(384),
        ..CreateSandbox::default()
    };
    let base = client.create(image).await?;
    let frozen = freeze(clock, &base, Path::new(&folder)).await;
    base.terminate().await?;
    let snapshot = frozen?;
    clock.say(format!("frozen as {}: {} MiB on disk", snapshot.snapshot_id, snapshot.size_bytes >> 20));
    let swarms = async {
        clock.say("five forks, one by one");
        let one_by_one = run(clock, &client, &snapshot, 1).await?;
        clock.say("five forks, all at once");
        Ok::<_, Error>((one_by_one, run(clock, &client, &snapshot, 5).await?))
    };
    let outcomes = swarms.await;
    client.delete_snapshot(snapshot.snapshot_id.as_str()).await?;
    let (one_by_one, at_once) = outcomes?;

    let reviews: Result<Vec<_>, _> = at_once.results.iter().map(Result::as_ref).collect();
    let reviews = reviews.map_err(Clone::clone)?;
    show_reviews(&reviews);
    let (alone, together) = (one_by_one.report.wall_secs, at_once.report.wall_secs);
    println!("\n  one by one {alone:.2} s, at once {together:.2} s: {:.2} times as fast", alone / together);
    println!("\n  the lead: {}", lead(&reviews).ok_or("the reviewers found nothing")?);
    if one_by_one.report.failed > 0 {
        return Err("not all agents succeeded".into());
    }
    Ok(())
}
