//! `make bench`: each figure is a ratio of two things measured alternately in one run, on loopback.
//!
//! `ROWS` names the rows to run, by default all, each by its name or by the first words of it (`tti`); `FORKYARD_TEST_IMAGES` the images' folder; `FORKYARD_BENCH_DIR` where the
//! rows' files go.

mod bare;
mod bare_lid;
mod client_rows;
mod file_rows;
mod fork_rows;
mod lid_rows;
mod network_rows;
mod ready;
mod report;
mod run_rows;
mod score;
mod stats;
mod tti_rows;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use forkyard_server::vmm::Vmm as _;

use crate::report::{Measured, print_head, report};
use crate::world::{Outcome, World};

/// All rows; those in one group are measured together.
const GROUPS: &[&[&str]] = &[
    &["create_restore"],
    &["create_snapshot"],
    &["create_pool"],
    &["create_network"],
    &["burst_100"],
    &["checkpoint_pause"],
    &["suspend", "resume"],
    &["fork_pss"],
    &["run_overhead"],
    &["net_throughput_down", "net_throughput_up", "net_latency"],
    &["net_idle"],
    &["file_256mb_up", "file_256mb_down"],
    &["client_python_sync", "client_python_async", "client_node", "client_go"],
    &["gather_1000"],
    &["gather_python", "gather_node", "gather_go"],
    &["load_python", "load_node"],
    &["memory_python", "memory_node", "memory_go"],
    &["tti_sequential", "tti_staggered", "tti_burst"],
    &["tti_pool_sequential", "tti_pool_staggered", "tti_pool_burst"],
];

/// Whether a word of `ROWS` names a row: by its name, or by the first words of it.
fn names(word: &str, row: &str) -> bool {
    row.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

async fn measure(world: &World, group: &[&str]) -> Outcome<Vec<Measured>> {
    Ok(match group[0] {
        "create_restore" => vec![fork_rows::create_restore(world).await?],
        "create_snapshot" => vec![fork_rows::create_snapshot(world).await?],
        "create_pool" => vec![fork_rows::create_pool(world).await?],
        "create_network" => vec![network_rows::create_network(world).await?],
        "burst_100" => vec![fork_rows::burst_100(world).await?],
        "checkpoint_pause" => vec![lid_rows::checkpoint_pause(world).await?],
        "suspend" => lid_rows::suspend_and_resume(world).await?.into(),
        "fork_pss" => vec![fork_rows::fork_pss(world).await?],
        "run_overhead" => vec![run_rows::run_overhead(world).await?],
        "net_throughput_down" => network_rows::net(world).await?.into(),
        "net_idle" => vec![network_rows::net_idle(world).await?],
        "file_256mb_up" => file_rows::file_256mb(world).await?.into(),
        "client_python_sync" => client_rows::clients(world).await?,
        "gather_1000" => vec![client_rows::gather_1000(world).await?],
        "gather_python" => client_rows::gathers(world).await?,
        "load_python" => client_rows::loads().await?,
        "memory_python" => client_rows::memories(world).await?,
        "tti_sequential" => tti_rows::tti(world).await?.into(),
        "tti_pool_sequential" => tti_rows::tti_pool(world).await?.into(),
        other => return Err(format!("nothing measures {other}")),
    })
}

/// Measures the wanted rows and reports each; answers whether all goals hold.
async fn measure_all(world: &World, wanted: &[&str], dir: &Path) -> bool {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let machine = serde_json::json!({
        "cpus": cpus, "accel": world.vmm.accelerator().as_str(), "qemu": world.vmm.version(),
    });
    print_head();
    let mut all_hold = true;
    for group in GROUPS {
        let is_wanted = |row: &&str| wanted.iter().any(|word| names(word, row));
        if !wanted.is_empty() && !group.iter().any(is_wanted) {
            continue;
        }
        match measure(world, group).await {
            Ok(rows) => {
                for row in rows {
                    all_hold &= report(dir, &machine, row.row, Ok(row));
                }
            }
            Err(reason) => {
                for row in *group {
                    all_hold &= report(dir, &machine, row, Err(reason.clone()));
                }
            }
        }
    }
    all_hold
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(images) = std::env::var_os("FORKYARD_TEST_IMAGES").map(PathBuf::from) else {
        eprintln!("'make bench' names the images' folder in FORKYARD_TEST_IMAGES");
        return ExitCode::FAILURE;
    };
    let wanted = std::env::var("ROWS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    if let Some(unknown) = wanted.iter().find(|word| !GROUPS.concat().iter().any(|row| names(word, row))) {
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
    let all_hold = tokio::select! {
        all_hold = measure_all(&world, &wanted, &dir) => all_hold,
        // Machines outlive whoever started them.
        interrupted = tokio::signal::ctrl_c() => {
            eprintln!("interrupted: {interrupted:?}");
            false
        }
    };
    world.end().await;
    println!("{}", if all_hold { "all goals hold" } else { "not all goals hold" });
    // Figures are for people to judge: a run that measured everything has done its work.
    ExitCode::SUCCESS
}
