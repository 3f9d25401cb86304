//! Rows about clients: what a language costs over the Rust core, and how much one client can have under way.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forkyard::{Command, Sandbox};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::report::Measured;
use crate::stats::Goal;
use crate::world::{MS, Outcome, World, words};

/// Calls that are under way at once.
const CALLS: usize = 1000;

/// What a language may cost over the core, in milliseconds.
const OVER_CORE_MS: f64 = 0.3;

/// What a language may have of the core's throughput at least.
const OF_CORE: f64 = 0.7;

/// What loading a package may cost an empty program, in milliseconds.
const PYTHON_LOADS_MS: f64 = 60.0;
const NODE_LOADS_MS: f64 = 40.0;
const LOADS: usize = 20;

/// Memory after 100,000 calls as a ratio to that after the first 20,000, which fill pools and caches.
const FLAT: f64 = 1.1;
const WARM: usize = 2;
const CALLS_BETWEEN: f64 = 80_000.0;

/// A language whose package is measured: it has a program that does jobs.
#[derive(Clone, Copy)]
enum Language {
    Python,
    Node,
    Go,
}

impl Language {
    /// What runs it; `make bench` names interpreters and the program that it compiled.
    fn program(self) -> Outcome<PathBuf> {
        let name = match self {
            Self::Python => "FORKYARD_BENCH_PYTHON",
            Self::Node => "FORKYARD_BENCH_NODE",
            Self::Go => "FORKYARD_BENCH_GO",
        };
        std::env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("'make bench' names {name}"))
    }

    /// What it is told before the job, below the repository.
    fn script(self) -> Option<&'static str> {
        match self {
            Self::Python => Some("bindings-python/bench/jobs.py"),
            Self::Node => Some("bindings-node/bench/jobs.mjs"),
            Self::Go => None,
        }
    }

    /// Has it do a job on a machine; it prints its samples as JSON.
    async fn samples(self, world: &World, sandbox: &Sandbox, job: &str) -> Outcome<Vec<f64>> {
        let mut command = tokio::process::Command::new(self.program()?);
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        command.args(self.script().map(|script| repository.join(script))).args([job, sandbox.id()]);
        command.env("FORKYARD_URL", &world.url).env("FORKYARD_API_KEY", &world.key);
        let output = finished(&mut command).await?;
        serde_json::from_slice(&output).map_err(words)
    }
}

/// What a program prints, once it has ended well.
async fn finished(command: &mut tokio::process::Command) -> Outcome<Vec<u8>> {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_mins(5), running);
    let output = output.await.map_err(|_| "no end within five minutes")?.map_err(words)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// 1,000 concurrent runs by `asyncio.gather`, against a bare HTTP/2 client that sends the same, in calls a second.
pub async fn gather_1000(world: &World) -> Outcome<Measured> {
    let sandbox = world.machine().await?;
    bare_calls(world, &sandbox, 50).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        ours.extend(Language::Python.samples(world, &sandbox, "gather").await?);
        bare.push(bare_calls(world, &sandbox, CALLS).await?);
    }
    sandbox.terminate().await.map_err(words)?;
    let (row, goal) = ("gather_1000", Goal::AtLeast(0.7));
    Ok(Measured { row, unit: "call/s", goal, ..Measured::ms(ours, bare) })
}

async fn bare_calls(world: &World, sandbox: &Sandbox, calls: usize) -> Outcome<f64> {
    let stream = TcpStream::connect(world.url.trim_start_matches("http://")).await.map_err(words)?;
    stream.set_nodelay(true).map_err(words)?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(words)?;
    let connection = tokio::spawn(connection);
    let start = Instant::now();
    try_join_all((0..calls).map(|_| {
        let mut sender = sender.clone();
        let request =
            http::Request::post(format!("{}/v1/sandboxes/{}/processes?attach=true", world.url, sandbox.id()))
                .header("authorization", format!("Bearer {}", world.key))
                .body(Full::new(Bytes::from_static(b"{\"command\":\"true\"}")));
        async move {
            let response = sender.send_request(request.map_err(words)?).await.map_err(words)?;
            if !response.status().is_success() {
                return Err(format!("the server answered {}", response.status()));
            }
            response.into_body().collect().await.map_err(words)
        }
    }))
    .await?;
    #[allow(clippy::cast_precision_loss)] // a thousand
    let rate = calls as f64 / start.elapsed().as_secs_f64();
    connection.abort();
    Ok(rate)
}

/// `run("true")` from each language, Python blocking and with asyncio, against the Rust core, alternately.
pub async fn clients(world: &World) -> Outcome<Vec<Measured>> {
    const JOBS: [(&str, Language, &str); 4] = [
        ("client_python_sync", Language::Python, "run_sync"),
        ("client_python_async", Language::Python, "run_async"),
        ("client_node", Language::Node, "run"),
        ("client_go", Language::Go, "run"),
    ];
    let sandbox = world.machine().await?;
    let (mut ours, mut core) = (<[Vec<f64>; 4]>::default(), Vec::new());
    for _ in 0..4 {
        for (samples, (_, language, job)) in ours.iter_mut().zip(JOBS) {
            samples.extend(language.samples(world, &sandbox, job).await?);
            for _ in 0..25 {
                let start = Instant::now();
                sandbox.run(Command::new("true")).await.map_err(words)?;
                core.push(start.elapsed().as_secs_f64() * MS);
            }
        }
    }
    sandbox.terminate().await.map_err(words)?;
    let rows = ours.into_iter().zip(JOBS);
    Ok(rows.map(|(ours, (row, ..))| Measured::difference(row, ours, core.clone(), OVER_CORE_MS)).collect())
}

/// 1,000 concurrent runs from each language, against as many from the Rust core, in calls a second.
pub async fn gathers(world: &World) -> Outcome<Vec<Measured>> {
    const ROWS: [(&str, Language); 3] =
        [("gather_python", Language::Python), ("gather_node", Language::Node), ("gather_go", Language::Go)];
    let sandbox = world.machine().await?;
    core_calls(&sandbox, 50).await?;
    let (mut ours, mut core) = (<[Vec<f64>; 3]>::default(), Vec::new());
    for _ in 0..2 {
        for (samples, (_, language)) in ours.iter_mut().zip(ROWS) {
            samples.extend(language.samples(world, &sandbox, "gather").await?);
            core.push(core_calls(&sandbox, CALLS).await?);
        }
    }
    sandbox.terminate().await.map_err(words)?;
    let row = |(ours, (row, _))| Measured {
        row,
        unit: "call/s",
        goal: Goal::AtLeast(OF_CORE),
        ..Measured::ms(ours, core.clone())
    };
    Ok(ours.into_iter().zip(ROWS).map(row).collect())
}

async fn core_calls(sandbox: &Sandbox, calls: usize) -> Outcome<f64> {
    let start = Instant::now();
    try_join_all((0..calls).map(|_| sandbox.run(Command::new("true")))).await.map_err(words)?;
    #[allow(clippy::cast_precision_loss)] // a thousand
    Ok(calls as f64 / start.elapsed().as_secs_f64())
}

/// A program that loads the package and does nothing else, against an empty one, alternately.
pub async fn loads() -> Outcome<Vec<Measured>> {
    let rows = [
        ("load_python", Language::Python, "-c", "import forkyard", PYTHON_LOADS_MS),
        ("load_node", Language::Node, "-e", "require('forkyard')", NODE_LOADS_MS),
    ];
    let mut measured = Vec::new();
    for (row, language, flag, loading, most) in rows {
        let program = language.program()?;
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..LOADS {
            for (samples, source) in [(&mut ours, loading), (&mut bare, "0")] {
                let mut command = tokio::process::Command::new(&program);
                // Node finds the package by its own name there.
                command
                    .args([flag, source])
                    .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../bindings-node"));
                let start = Instant::now();
                finished(&mut command).await?;
                samples.push(start.elapsed().as_secs_f64() * MS);
            }
        }
        measured.push(Measured::difference(row, ours, bare, most));
    }
    Ok(measured)
}

/// Memory of a program that has made 100,000 calls, against what it held after the first 20,000, in MiB.
pub async fn memories(world: &World) -> Outcome<Vec<Measured>> {
    let rows =
        [("memory_python", Language::Python), ("memory_node", Language::Node), ("memory_go", Language::Go)];
    let sandbox = world.machine().await?;
    let mut measured = Vec::new();
    for (row, language) in rows {
        let held = language.samples(world, &sandbox, "memory").await?;
        let (Some(warm), Some(last)) = (held.get(WARM - 1), held.last()) else {
            return Err(format!("{row} has too few samples"));
        };
        let slope = (last - warm) * f64::from(1 << 20) / CALLS_BETWEEN;
        let note = format!("{slope:+.1} bytes a call");
        let figures = Measured::ms(vec![*last], vec![*warm]);
        measured.push(Measured { row, unit: "MiB", goal: Goal::AtMost(FLAT), note, ..figures });
    }
    sandbox.terminate().await.map_err(words)?;
    Ok(measured)
}
