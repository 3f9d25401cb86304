//! ComputeSDK's time to interactive (<https://github.com/computesdk/benchmarks>, `METHODOLOGY.md`, as of 2026): from `create`
//! to the end of the first command, of a hundred machines one after another, 200 ms apart, and all at once. A machine is ended
//! after its command, which is not counted. A failure counts against the score and is not tried again. Their command is
//! `node -v`; here it is `true`, since the image holds no Node.js.

use std::time::{Duration, Instant};

use forkyard::Command;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::ready::Ready;
use crate::report::Measured;
use crate::score::composite;
use crate::stats::Goal;
use crate::world::{MS, Outcome, World, words};

const COUNT: u32 = 100;
const STAGGER: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_mins(2);

/// How machines are asked for.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Sequential,
    Staggered,
    Burst,
}

/// Machines of an image: forks of its template.
pub async fn tti(world: &World) -> Outcome<[Measured; 3]> {
    world.template().await?;
    let bare = command_alone(world).await?;
    Ok([
        row("tti_sequential", Mode::Sequential, world, &bare).await,
        row("tti_staggered", Mode::Staggered, world, &bare).await,
        row("tti_burst", Mode::Burst, world, &bare).await,
    ])
}

/// Machines of a pool that holds a hundred, those that were claimed among them, and is full when each mode begins.
pub async fn tti_pool(world: &World) -> Outcome<[Measured; 3]> {
    world.template().await?;
    let bare = command_alone(world).await?;
    eprintln!("tti_pool: {COUNT} machines are made ready");
    let pool = Ready::fill(world, COUNT, Some(COUNT)).await?;
    let sequential = row("tti_pool_sequential", Mode::Sequential, world, &bare).await;
    pool.full().await?;
    let staggered = row("tti_pool_staggered", Mode::Staggered, world, &bare).await;
    pool.full().await?;
    let burst = row("tti_pool_burst", Mode::Burst, world, &bare).await;
    pool.delete().await?;
    Ok([sequential, staggered, burst])
}

async fn row(row: &'static str, mode: Mode, world: &World, bare: &[f64]) -> Measured {
    eprintln!("{row}: {COUNT} machines");
    let start = Instant::now();
    let outcomes = match mode {
        Mode::Sequential => {
            let mut outcomes = Vec::new();
            for number in 1..=COUNT {
                outcomes.push(interactive(world, Duration::ZERO).await);
                if number % 25 == 0 {
                    eprintln!("{row}: {number} of {COUNT}");
                }
            }
            outcomes
        }
        Mode::Staggered => join_all((0..COUNT).map(|number| interactive(world, STAGGER * number))).await,
        Mode::Burst => join_all((0..COUNT).map(|_| interactive(world, Duration::ZERO))).await,
    };
    let wall = start.elapsed().as_secs_f64();
    let times: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok().copied()).collect();
    let failures: Vec<&String> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    let score = composite(&times, failures.len());
    let mut note = format!("score {score:.2}, all ended after {wall:.1} s");
    if let Some(first) = failures.first() {
        note = format!("{note}, {} failed, the first: {first}", failures.len());
    }
    Measured { row, goal: Goal::None, note, score: Some(score), ..Measured::ms(times, bare.to_vec()) }
}

/// Milliseconds from `create` to the end of the first command, of a machine that is asked for after a delay.
async fn interactive(world: &World, delay: Duration) -> Outcome<f64> {
    sleep(delay).await;
    let start = Instant::now();
    let attempt = async {
        let sandbox = world.machine().await?;
        let ran = sandbox.run(Command::new("true")).await.map_err(words);
        Ok::<_, String>((sandbox, ran.map(|_| start.elapsed().as_secs_f64() * MS)))
    };
    let (sandbox, took) = timeout(PATIENCE, attempt).await.map_err(words)??;
    sandbox.terminate().await.map_err(words)?;
    took
}

/// The command alone in a machine that runs.
async fn command_alone(world: &World) -> Outcome<Vec<f64>> {
    let sandbox = world.machine().await?;
    let mut times = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        sandbox.run(Command::new("true")).await.map_err(words)?;
        times.push(start.elapsed().as_secs_f64() * MS);
    }
    sandbox.terminate().await.map_err(words)?;
    Ok(times)
}
