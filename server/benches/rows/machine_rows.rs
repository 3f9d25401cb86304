//! Rows about making machines and running commands in them.

use std::time::Instant;

use forkyard::Command;

use crate::report::Measured;
use crate::stats::Goal;
use crate::world::{Outcome, World, bare_run, forget, words};

const MS: f64 = 1000.0;

/// `create` of an image until the first command's answer, against a bare restore of the same files until the same answer.
pub async fn create_restore(world: &World) -> Outcome<Measured> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // The first one makes the template.
    world.machine().await?.terminate().await.map_err(words)?;
    for number in 0..20 {
        let start = Instant::now();
        let sandbox = world.machine().await?;
        sandbox.run(Command::new("true")).await.map_err(words)?;
        ours.push(start.elapsed().as_secs_f64() * MS);
        sandbox.terminate().await.map_err(words)?;

        let start = Instant::now();
        let (machine, guest, dir) = world.bare_machine(number).await?;
        bare_run(&guest).await?;
        bare.push(start.elapsed().as_secs_f64() * MS);
        machine.kill().await.map_err(words)?;
        forget(&dir)?;
    }
    Ok(Measured {
        row: "create_restore",
        unit: "ms",
        goal: Goal::AtMost(1.5),
        ours,
        bare,
        note: String::new(),
    })
}

/// `run("true")` through SDK and server, against the same asked of the agent directly.
pub async fn run_overhead(world: &World) -> Outcome<Measured> {
    let sandbox = world.machine().await?;
    let guest = world.guest(&sandbox)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..110 {
        let start = Instant::now();
        sandbox.run(Command::new("true")).await.map_err(words)?;
        let mine = start.elapsed().as_secs_f64() * MS;
        let start = Instant::now();
        bare_run(&guest).await?;
        let theirs = start.elapsed().as_secs_f64() * MS;
        // The first rounds fill the guest's caches.
        if round >= 10 {
            ours.push(mine);
            bare.push(theirs);
        }
    }
    sandbox.terminate().await.map_err(words)?;
    Ok(Measured { row: "run_overhead", unit: "ms", goal: Goal::AtMost(2.0), ours, bare, note: String::new() })
}

/// ComputeSDK's method: time from `create()` to the first command's end, one after another, staggered and in a burst.
pub async fn tti(world: &World) -> Outcome<Measured> {
    const COUNT: usize = 5;
    let once = async |delay_ms: u64| {
        tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
        let start = Instant::now();
        let sandbox = world.machine().await?;
        sandbox.run(Command::new("true")).await.map_err(words)?;
        let took = start.elapsed().as_secs_f64() * MS;
        sandbox.terminate().await.map_err(words)?;
        Ok::<f64, String>(took)
    };
    let mut sequential = Vec::new();
    for _ in 0..COUNT {
        sequential.push(once(0).await?);
    }
    let staggered = futures_util::future::try_join_all((0..COUNT as u64).map(|n| once(n * 200))).await?;
    let burst = futures_util::future::try_join_all((0..COUNT).map(|_| once(0))).await?;
    let median = |samples: &[f64]| crate::stats::Summary::of(samples).map_or(0.0, |summary| summary.p50);
    let note = format!(
        "by boot, {COUNT} each; p50 sequential {:.0}, staggered {:.0}, burst {:.0}",
        median(&sequential),
        median(&staggered),
        median(&burst)
    );
    let sandbox = world.machine().await?;
    let mut bare = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        sandbox.run(Command::new("true")).await.map_err(words)?;
        bare.push(start.elapsed().as_secs_f64() * MS);
    }
    sandbox.terminate().await.map_err(words)?;
    let ours = [sequential, staggered, burst].concat();
    Ok(Measured { row: "tti", unit: "ms", goal: Goal::None, ours, bare, note })
}
