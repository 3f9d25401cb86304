//! Rows about machines that go on from frozen ones: how soon they answer, how many at once, what they hold.

use std::path::Path;
use std::time::{Duration, Instant};

use forkyard::{CheckpointType, Command, CreateSandbox, CreateSnapshot, ForkSandbox, Sandbox};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::bare::{Bare, bare_run};
use crate::ready::Ready;
use crate::report::Measured;
use crate::stats::Goal;
use crate::world::{MS, Outcome, World, at_once, words};

const ROUNDS: usize = 20;

/// Forks that are made at once, and how often.
const BURST: u32 = 100;
const BURSTS: usize = 2;

/// Forks whose memory is measured, and how long they have to come to rest.
const IDLE: usize = 5;
const REST: Duration = Duration::from_secs(3);

/// `create` of an image until the first command's answer, against a bare restore of the same files until the same answer.
pub async fn create_restore(world: &World) -> Outcome<Measured> {
    let files = world.template().await?;
    let (ours, bare) = creations(world, &files, &World::kind()).await?;
    Ok(Measured { row: "create_restore", goal: Goal::AtMost(1.5), ..Measured::ms(ours, bare) })
}

/// The same of a snapshot with memory.
pub async fn create_snapshot(world: &World) -> Outcome<Measured> {
    let source = world.machine().await?;
    source.run(Command::new("true")).await.map_err(words)?;
    let what = CreateSnapshot { checkpoint_type: CheckpointType::Memory, ..CreateSnapshot::default() };
    let snapshot_id = source.checkpoint(what).await.map_err(words)?.snapshot_id;
    source.terminate().await.map_err(words)?;
    let files = world.service.sandboxes.snapshots().path(&snapshot_id);
    let request = CreateSandbox { snapshot_id: Some(snapshot_id.clone()), ..CreateSandbox::default() };
    let (ours, bare) = creations(world, &files, &request).await?;
    world.client.delete_snapshot(snapshot_id.as_str()).await.map_err(words)?;
    Ok(Measured { row: "create_snapshot", goal: Goal::AtMost(1.5), ..Measured::ms(ours, bare) })
}

/// `create` out of a pool until the first command's answer, against the same bare restore. The pool is full before each.
pub async fn create_pool(world: &World) -> Outcome<Measured> {
    let files = world.template().await?;
    let pool = Ready::fill(world, 2, None).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(creation(world, &World::kind()).await?);
        pool.full().await?;
        bare.push(restoration(world, &files).await?);
    }
    let hits = pool.hits().await?;
    pool.delete().await?;
    if hits != ROUNDS as u64 {
        return Err(format!("{hits} of {ROUNDS} machines came out of the pool"));
    }
    Ok(Measured { row: "create_pool", goal: Goal::AtMost(0.25), ..Measured::ms(ours, bare) })
}

/// One call that forks a machine a hundred times, until all run, against as many bare restores, as many at once as the server
/// makes.
pub async fn burst_100(world: &World) -> Outcome<Measured> {
    let files = world.template().await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 1..=BURSTS {
        eprintln!("burst_100: round {round} of {BURSTS}");
        let source = world.machine().await?;
        let start = Instant::now();
        let request = ForkSandbox { count: BURST, ..ForkSandbox::default() };
        let forks = source.fork(request).await.map_err(words)?;
        ours.push(start.elapsed().as_secs_f64() * MS);
        let all = || forks.iter().chain([&source]);
        let answers = try_join_all(all().map(|fork| fork.run(Command::new("true")))).await.map_err(words)?;
        if forks.len() != BURST as usize || answers.iter().any(|answer| answer.exit_code != 0) {
            return Err(format!("of {BURST} forks {} answered: {answers:?}", forks.len()));
        }
        terminate(all()).await?;

        let start = Instant::now();
        let restored =
            stream::iter(0..BURST).map(|_| Bare::restore(world, &files)).buffer_unordered(at_once()?);
        let restored: Vec<Bare> = restored.try_collect().await?;
        bare.push(start.elapsed().as_secs_f64() * MS);
        for machine in restored {
            machine.end().await?;
        }
    }
    Ok(Measured { row: "burst_100", goal: Goal::AtMost(1.3), ..Measured::ms(ours, bare) })
}

/// What an idle fork holds of the host's memory, its part of what it shares included, against a bare fork, in MiB. All run at
/// the same time.
pub async fn fork_pss(world: &World) -> Outcome<Measured> {
    let files = world.template().await?;
    let (mut forks, mut machines) = (Vec::new(), Vec::new());
    for _ in 0..IDLE {
        forks.push(world.machine().await?);
        machines.push(Bare::restore(world, &files).await?);
    }
    tokio::time::sleep(REST).await;
    let ours = forks.iter().map(|fork| pss_mib(world.monitor(fork)?.pid())).collect::<Outcome<_>>()?;
    let bare = machines.iter().map(|bare| pss_mib(bare.machine.pid())).collect::<Outcome<_>>()?;
    terminate(&forks).await?;
    for machine in machines {
        machine.end().await?;
    }
    Ok(Measured { row: "fork_pss", unit: "MiB", goal: Goal::AtMost(1.2), ..Measured::ms(ours, bare) })
}

/// Creations by the API and bare restores, alternately.
async fn creations(world: &World, files: &Path, request: &CreateSandbox) -> Outcome<(Vec<f64>, Vec<f64>)> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(creation(world, request).await?);
        bare.push(restoration(world, files).await?);
    }
    Ok((ours, bare))
}

/// Milliseconds from `create` to the first command's answer.
pub async fn creation(world: &World, request: &CreateSandbox) -> Outcome<f64> {
    let start = Instant::now();
    let sandbox = world.client.create(request.clone()).await.map_err(words)?;
    sandbox.run(Command::new("true")).await.map_err(words)?;
    let took = start.elapsed().as_secs_f64() * MS;
    sandbox.terminate().await.map_err(words)?;
    Ok(took)
}

/// The same without a server.
async fn restoration(world: &World, files: &Path) -> Outcome<f64> {
    let start = Instant::now();
    let bare = Bare::restore(world, files).await?;
    bare_run(&bare.guest).await?;
    let took = start.elapsed().as_secs_f64() * MS;
    bare.end().await?;
    Ok(took)
}

/// Ends all of these at once.
pub async fn terminate<'a>(sandboxes: impl IntoIterator<Item = &'a Sandbox>) -> Outcome<()> {
    try_join_all(sandboxes.into_iter().map(Sandbox::terminate)).await.map(drop).map_err(words)
}

/// A process's proportional set size in MiB (<https://docs.kernel.org/filesystems/proc.html>, `smaps_rollup`).
pub fn pss_mib(pid: u32) -> Outcome<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(words)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("the kernel names no PSS")?;
    kib.parse::<f64>().map(|kib| kib / 1024.0).map_err(words)
}
