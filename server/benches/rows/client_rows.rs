//! Rows about clients: what a language costs over the Rust core, and how much one client can have under way.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use bytes::Bytes;
use forkyard::{Command, Sandbox};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::report::Measured;
use crate::stats::Goal;
use crate::world::{Outcome, World, words};

/// Calls that are under way at once.
const CALLS: usize = 1000;

/// What a language may cost over the core, in milliseconds.
const OVER_CORE_MS: f64 = 0.3;

/// Runs a script of `bindings-python/bench` on a machine; it prints its samples as JSON.
async fn python(world: &World, sandbox: &Sandbox, script: &str) -> Outcome<Vec<f64>> {
    let python = std::env::var_os("FORKYARD_BENCH_PYTHON").ok_or("'make bench' names the interpreter")?;
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../bindings-python/bench");
    let running = tokio::process::Command::new(python)
        .arg(dir.join(script))
        .arg(sandbox.id())
        .env("FORKYARD_URL", &world.url)
        .env("FORKYARD_API_KEY", &world.key)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_mins(5), running);
    let output = output.await.map_err(|_| "no end within five minutes")?.map_err(words)?;
    if !output.status.success() {
        return Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(words)
}

/// 1,000 concurrent runs by `asyncio.gather`, against a bare HTTP/2 client that sends the same, in calls a second.
pub async fn gather_1000(world: &World) -> Outcome<Measured> {
    let sandbox = world.machine().await?;
    bare_calls(world, &sandbox, 50).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        ours.extend(python(world, &sandbox, "gather.py").await?);
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

/// `run("true")` from Python, blocking and with asyncio, against the Rust core, alternately.
pub async fn client_python(world: &World) -> Outcome<[Measured; 2]> {
    let sandbox = world.machine().await?;
    let (mut blocking, mut asyncio, mut core) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..4 {
        blocking.extend(python(world, &sandbox, "run_sync.py").await?);
        for _ in 0..50 {
            let start = Instant::now();
            sandbox.run(Command::new("true")).await.map_err(words)?;
            core.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        asyncio.extend(python(world, &sandbox, "run_async.py").await?);
    }
    sandbox.terminate().await.map_err(words)?;
    let row = |row, ours: Vec<f64>| Measured::difference(row, ours, core.clone(), OVER_CORE_MS);
    Ok([row("client_python_sync", blocking), row("client_python_async", asyncio)])
}
