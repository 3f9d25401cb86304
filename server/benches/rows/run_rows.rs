//! Rows about commands.

use std::time::Instant;

use forkyard::Command;

use crate::bare::bare_run;
use crate::report::Measured;
use crate::stats::Goal;
use crate::world::{MS, Outcome, World, words};

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
    Ok(Measured { row: "run_overhead", goal: Goal::AtMost(2.0), ..Measured::ms(ours, bare) })
}
