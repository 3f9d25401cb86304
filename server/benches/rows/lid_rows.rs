//! Rows about freezing machines that run: checkpoints, and the lid closed and opened.

use std::time::Instant;

use forkyard::Command;
use forkyard_server::vmm::Freeze;

use crate::bare::bare_run;
use crate::bare_lid::{BareLid, Network};
use crate::report::Measured;
use crate::stats::Goal;
use crate::world::{MS, Outcome, World, words};

const ROUNDS: usize = 15;

/// What a pause may be at most, in milliseconds.
const PAUSE_MS: f64 = 100.0;

/// Memory of the machines whose pauses are compared, in MiB.
const LARGE_MB: u64 = 2048;
const SMALL_MB: u64 = 512;

/// How long a machine of 2 GiB stands still in a checkpoint with its memory, against one of 512 MiB. Each is a new fork of its
/// template that has run one command, as users get them. `pause_ms` of the API is the same in whole milliseconds.
pub async fn checkpoint_pause(world: &World) -> Outcome<Measured> {
    for memory_mb in [LARGE_MB, SMALL_MB] {
        // The first of a kind makes its template, and so is none of its forks.
        world.machine_of(memory_mb).await?.terminate().await.map_err(words)?;
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(pause(world, LARGE_MB).await?);
        bare.push(pause(world, SMALL_MB).await?);
    }
    let row = Measured { row: "checkpoint_pause", goal: Goal::AtMost(1.3), ..Measured::ms(ours, bare) };
    Ok(row.within(PAUSE_MS))
}

async fn pause(world: &World, memory_mb: u64) -> Outcome<f64> {
    let sandbox = world.machine_of(memory_mb).await?;
    sandbox.run(Command::new("true")).await.map_err(words)?;
    let target = world.dir.path().join("frozen");
    std::fs::create_dir(&target).map_err(words)?;
    let frozen = world.monitor(&sandbox)?.freeze(target.clone(), Freeze::Memory).await.map_err(words)?;
    std::fs::remove_dir_all(&target).map_err(words)?;
    sandbox.terminate().await.map_err(words)?;
    Ok(frozen.pause.as_secs_f64() * MS)
}

/// Suspension and resumption through the API, against what QEMU itself does with memory that is shared with its file.
pub async fn suspend_and_resume(world: &World) -> Outcome<[Measured; 2]> {
    let files = world.template().await?;
    let sandbox = world.machine().await?;
    sandbox.run(Command::new("true")).await.map_err(words)?;
    let (mut lid, guest) = BareLid::open(world, &files, Network::Nobody).await?;
    bare_run(&guest).await?;
    let (mut suspend, mut resume, mut bare_suspend, mut bare_resume) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        sandbox.suspend().await.map_err(words)?;
        suspend.push(start.elapsed().as_secs_f64() * MS);
        let start = Instant::now();
        lid.suspend().await?;
        bare_suspend.push(start.elapsed().as_secs_f64() * MS);
        let start = Instant::now();
        sandbox.resume().await.map_err(words)?;
        resume.push(start.elapsed().as_secs_f64() * MS);
        let start = Instant::now();
        let guest = lid.resume(world).await?;
        bare_resume.push(start.elapsed().as_secs_f64() * MS);
        // Each wrote to its memory before it is suspended again.
        sandbox.run(Command::new("true")).await.map_err(words)?;
        bare_run(&guest).await?;
    }
    sandbox.terminate().await.map_err(words)?;
    lid.end().await?;
    let goal = Goal::AtMost(2.0);
    Ok([
        Measured { row: "suspend", goal, ..Measured::ms(suspend, bare_suspend) }.within(PAUSE_MS),
        Measured { row: "resume", goal, ..Measured::ms(resume, bare_resume) },
    ])
}
