//! Requests to calls and answers to responses; the routes are those of `forkyard_protocol`'s table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forkyard_protocol::{
    ErrorBody, ErrorCode, GuestFiles, GuestHealth, MissingFiles, ProcessId, Query, SignalRequest,
    validate_writer,
};
use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::clock;
use crate::config::Config;
use crate::disk::Disk;
use crate::file;
use crate::given::Given;
use crate::process::{Limits, Offsets, Processes};
use crate::reply::{self, Answer, Body, invalid, json, read_json};
use crate::tunnel;

/// Longest time that one call waits for a process's end, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;

/// All that the agent knows.
pub struct Agent {
    pub config: Arc<Config>,
    pub processes: Arc<Processes>,
    disk: Disk,
    given: Given,
    /// Whether the host may change the system: not where the agent is a guest on somebody's host.
    owns_system: AtomicBool,
}

impl Agent {
    /// An agent without processes.
    pub fn new(limits: Limits, owns_system: bool) -> Self {
        Self {
            config: Arc::default(),
            processes: Processes::new(limits),
            disk: Disk::default(),
            given: Given::default(),
            owns_system: AtomicBool::new(owns_system),
        }
    }

    fn health(&self) -> Answer {
        let (processes, uptime_ns) = (self.processes.running(), clock::uptime_ns());
        json(&GuestHealth {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            processes,
            uptime_secs: uptime_ns / 1_000_000_000,
            uptime_ns: Some(uptime_ns),
        })
    }
}

/// Answers one request.
pub async fn handle(agent: Arc<Agent>, request: Request<Incoming>) -> Response<Body> {
    // In a task of its own: a panic in one call must not end the session of all others.
    match tokio::spawn(route(agent, request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => reply::error(error),
        Err(error) => reply::error(reply::internal(&error)),
    }
}

async fn route(agent: Arc<Agent>, request: Request<Incoming>) -> Answer {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (&method, segments.as_slice()) {
        (&Method::GET, ["health"]) => agent.health(),
        (&Method::POST, ["configure"]) => {
            let config = read_json(request.into_body()).await?;
            let applying = agent.clone();
            // It waits for the network card.
            let applied = tokio::task::spawn_blocking(move || {
                applying.config.apply(config, applying.owns_system.load(Ordering::Relaxed))
            });
            applied.await.map_err(|error| reply::internal(&error))??;
            agent.health()
        }
        (&Method::POST, ["given"]) => {
            let GuestFiles { files } = read_json(request.into_body()).await?;
            let owns_system = agent.owns_system.load(Ordering::Relaxed);
            json(&MissingFiles { missing: if owns_system { agent.given.take(files)? } else { Vec::new() } })
        }
        (&Method::POST, ["network", "reset"]) => {
            let resetting = agent.clone();
            let reset = tokio::task::spawn_blocking(move || resetting.config.reset_network());
            reset.await.map_err(|error| reply::internal(&error))??;
            agent.health()
        }
        (&Method::POST, ["network", "prepare"]) => {
            if agent.owns_system.load(Ordering::Relaxed) {
                Config::prepare_network()?;
            }
            agent.health()
        }
        (&Method::POST, ["freeze"]) => agent.disk.freeze().and_then(|()| agent.health()),
        (&Method::POST, ["thaw"]) => agent.disk.thaw().and_then(|()| agent.health()),
        (_, ["processes", rest @ ..]) => processes(&agent, &method, rest, &query, request).await,
        (_, ["ports"] | ["tunnels", ..]) => tunnel::route(&method, &segments, &query, request).await,
        (_, ["files", rest @ ..]) => file::route(&agent.config, &method, rest, &query, request).await,
        _ => Err(unknown(&method, &path)),
    }
}

async fn processes(
    agent: &Agent,
    method: &Method,
    rest: &[&str],
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let processes = &agent.processes;
    let find = |id: &str| {
        let id = ProcessId::parse(id).map_err(|error| invalid(error.to_string()))?;
        processes.get(&id)
    };
    match (method, rest) {
        (&Method::GET, []) => json(&processes.list()),
        (&Method::POST, []) => {
            let attach = query.flag("attach")?;
            let process =
                processes.start(&agent.config, read_json(request.into_body()).await?, attach).await?;
            if attach { process.stream(offsets(query)?) } else { json(&process.info()) }
        }
        (&Method::GET, [id]) => {
            let process = find(id)?;
            process.wait(query.number("wait_ms", 0)?.min(MAX_WAIT_MS)).await;
            json(&process.info())
        }
        (&Method::DELETE, [id]) => {
            processes.forget(&find(id)?.info().id)?;
            agent.health()
        }
        (&Method::GET, [id, "output"]) => find(id)?.stream(offsets(query)?),
        (&Method::POST, [id, "signal"]) => {
            let process = find(id)?;
            let SignalRequest { signal } = read_json(request.into_body()).await?;
            process.signal(signal)?;
            json(&process.info())
        }
        (&Method::POST, [id, "resize"]) => {
            let process = find(id)?;
            process.resize(read_json(request.into_body()).await?)?;
            json(&process.info())
        }
        (&Method::PUT, [id, "stdin"]) => {
            let process = find(id)?;
            let (offset, writer) = (query.number("offset", 0)?, query.text("writer")?);
            writer.map_or(Ok(()), validate_writer)?;
            let (writer, close) = (writer.unwrap_or_default(), query.flag("close")?);
            json(&process.write_stdin(writer, offset, close, request.into_body()).await?)
        }
        _ => Err(unknown(method, request.uri().path())),
    }
}

fn offsets(query: &Query) -> Result<Offsets, ErrorBody> {
    Ok(Offsets([query.number("stdout", 0)?, query.number("stderr", 0)?]))
}

/// The error for a call that there is not.
pub fn unknown(method: &Method, path: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("the agent has no {method} {path}"))
}
