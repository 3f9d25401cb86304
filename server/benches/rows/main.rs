//! `make bench`: each figure is a ratio of two things measured alternately in one run, on loopback.
//!
//! `ROWS` names the rows to run, by default all; `FORKYARD_TEST_IMAGES` the images' folder; `FORKYARD_BENCH_DIR` where the
//! rows' files go.

mod client_rows;
mod file_rows;
mod machine_rows;
mod report;
mod stats;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use forkyard_server::vmm::Vmm as _;

use crate::report::{Measured, print_head, report};
use crate::world::{Outcome, World};

/// All rows; those in one group are measured together.
const GROUPS: [&[&str]; 6] = [
    &["create_restore"],
    &["run_overhead"],
    &["file_256mb_up", "file_256mb_down"],
    &["client_python_sync", "client_python_async"],
    &["gather_1000"],
    &["tti"],
];

async fn measure(world: &World, group: &[&str]) -> Outcome<Vec<Measured>> {
    Ok(match group[0] {
        "create_restore" => vec![machine_rows::create_restore(world).await?],
        "run_overhead" => vec![machine_rows::run_overhead(world).await?],
        "file_256mb_up" => file_rows::file_256mb(world).await?.into(),
        "client_python_sync" => client_rows::client_python(world).await?.into(),
        "gather_1000" => vec![client_rows::gather_1000(world).await?],
        _ => vec![machine_rows::tti(world).await?],
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(images) = std::env::var_os("FORKYARD_TEST_IMAGES").map(PathBuf::from) else {
        eprintln!("'make bench' names the images' folder in FORKYARD_TEST_IMAGES");
        return ExitCode::FAILURE;
    };
    let wanted = std::env::var("ROWS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    if let Some(unknown) = wanted.iter().find(|row| !GROUPS.concat().contains(row)) {
        eprintln!("there is no row '{unknown}'; there are: {}", GROUPS.concat().join(", "));
        return ExitCode::FAILURE;
    }
    let dir = PathBuf::from(std::env::var_os("FORKYARD_BENCH_DIR").unwrap_or_else(|| "target/bench".into()));
    let world = match std::fs::create_dir_all(&dir).map_err(world::words) {
        Ok(()) => World::new(images).await,
        Err(error) => Err(error),
    };
    let world = match world {
        Ok(world) => world,
        Err(error) => {
            eprintln!("no server could be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let machine = serde_json::json!({
        "cpus": cpus, "accel": world.vmm.accelerator().as_str(), "qemu": world.vmm.version(),
    });
    print_head();
    let mut all_hold = true;
    for group in GROUPS {
        if !wanted.is_empty() && !group.iter().any(|row| wanted.contains(row)) {
            continue;
        }
        match measure(&world, group).await {
            Ok(rows) => {
                for row in rows {
                    all_hold &= report(&dir, &machine, row.row, Ok(row));
                }
            }
            Err(reason) => {
                for row in group {
                    all_hold &= report(&dir, &machine, row, Err(reason.clone()));
                }
            }
        }
    }
    world.end().await;
    println!("{}", if all_hold { "all goals hold" } else { "not all goals hold" });
    // Figures are for people to judge: a run that measured everything has done its work.
    ExitCode::SUCCESS
}
