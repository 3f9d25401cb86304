//! Calls on a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use forkyard::{
    Command, CommandResult, CreateSnapshot, ForkSandbox, HealthCheck, NetworkPolicy, OutputEvent, Process,
    PtySpec, RestartPolicy, Sandbox,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::call::{Failure, Invocation, None_, Outcome, Raw, millis};
use crate::client::Id;
use crate::objects::Object;
use crate::records::{self, list, plain};

pub async fn record(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(records::sandbox(it.sandbox()?))
}

pub async fn info(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.sandbox()?.clone().refresh().await?))
}

pub async fn in_scope(it: &Invocation<'_>) -> Outcome {
    let sandbox = it.sandbox()?;
    let outcome = run_to_end(sandbox, it.args()?).await;
    sandbox.terminate().await?;
    outcome
}

pub async fn terminate(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.sandbox()?.terminate().await?))
}

pub async fn checkpoint(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.sandbox()?.checkpoint(it.args::<CreateSnapshot>()?).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ById {
    client: String,
    id: String,
}

pub async fn delete_snapshot(it: &Invocation<'_>) -> Outcome {
    let ById { client, id } = it.args()?;
    it.client_of(&client)?.delete_snapshot(&id).await?;
    Ok(Value::Null)
}

pub async fn fork(it: &Invocation<'_>) -> Outcome {
    let forks = it.sandbox()?.fork(it.args::<ForkSandbox>()?).await?;
    Ok(list(forks, |fork| {
        let said = records::sandbox(&fork);
        it.keep(Object::Sandbox(fork), said)
    }))
}

pub async fn suspend(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.sandbox()?.suspend().await?))
}

pub async fn resume(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.sandbox()?.resume().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extend {
    timeout_secs: u64,
}

pub async fn extend_timeout(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.sandbox()?.extend_timeout(it.args::<Extend>()?.timeout_secs).await?))
}

pub async fn restore(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.sandbox()?.restore(&it.args::<Id>()?.id).await?))
}

pub async fn network(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.sandbox()?.network().await?))
}

pub async fn update_network(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.sandbox()?.update_network(&it.args::<NetworkPolicy>()?).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Events {
    cursor: Option<String>,
    #[serde(default)]
    wait_ms: u64,
}

pub async fn network_events(it: &Invocation<'_>) -> Outcome {
    let Events { cursor, wait_ms } = it.args()?;
    let (events, cursor) = it.sandbox()?.network_events(cursor.as_deref(), millis(wait_ms)).await?;
    Ok(json!({"events": events, "cursor": cursor}))
}

/// A command and how to run it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<String>,
    stdin: Option<Raw>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    check: bool,
    kill_on_cancel: Option<bool>,
}

impl Run {
    fn command(&mut self) -> Command {
        let mut command = Command::new(&self.command).args(std::mem::take(&mut self.args));
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        if let Some(cwd) = self.cwd.take() {
            command = command.cwd(cwd);
        }
        if let Some(user) = self.user.take() {
            command = command.user(user);
        }
        if let Some(Raw(stdin)) = self.stdin.take() {
            command = command.stdin(stdin);
        }
        if let Some(timeout_ms) = self.timeout_ms {
            command = command.timeout(millis(timeout_ms));
        }
        match self.kill_on_cancel {
            None => command,
            Some(kill) => command.kill_on_cancel(kill),
        }
    }
}

/// A result; a time-out, and a failure that was not to be, are errors in the other languages.
fn judged(result: &CommandResult, check: bool) -> Outcome {
    let record = records::result(result);
    let code = match result {
        CommandResult { timed_out: true, .. } => "timeout",
        CommandResult { exit_code, .. } if check && *exit_code != 0 => "command_failed",
        _ => return Ok(record),
    };
    Err(Failure(json!({"code": code, "message": "the command failed", "result": record})))
}

pub async fn run_to_end(sandbox: &Sandbox, mut run: Run) -> Outcome {
    judged(&sandbox.run(run.command()).await?, run.check)
}

pub async fn run(it: &Invocation<'_>) -> Outcome {
    run_to_end(it.sandbox()?, it.args()?).await
}

pub async fn run_on_terminal(it: &Invocation<'_>) -> Outcome {
    let mut run: Run = it.args()?;
    judged(&it.sandbox()?.run(run.command().terminal(PtySpec::default())).await?, run.check)
}

pub async fn run_streamed(it: &Invocation<'_>) -> Outcome {
    let mut run: Run = it.args()?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let hear = |event: &OutputEvent| match event {
        OutputEvent::Stdout(data) => stdout.extend_from_slice(data),
        OutputEvent::Stderr(data) => stderr.extend_from_slice(data),
        _ => {}
    };
    let mut result = judged(&it.sandbox()?.run_with(run.command(), hear).await?, run.check)?;
    result["heard"] =
        json!({"stdout": String::from_utf8_lossy(&stdout), "stderr": String::from_utf8_lossy(&stderr)});
    Ok(result)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    stdin: bool,
    timeout_ms: Option<u64>,
    name: Option<String>,
    restart: Option<RestartPolicy>,
    health_check: Option<HealthCheck>,
}

pub async fn start(it: &Invocation<'_>) -> Outcome {
    let Start { command, args, stdin, timeout_ms, name, restart, health_check } = it.args()?;
    let mut command = Command::new(command).args(args);
    if stdin {
        command = command.open_stdin();
    }
    if let Some(timeout_ms) = timeout_ms {
        command = command.timeout(millis(timeout_ms));
    }
    if let Some(name) = name {
        command = command.name(name);
    }
    if let Some(policy) = restart {
        command = command.restart(policy);
    }
    if let Some(check) = health_check {
        command = command.health_check(check);
    }
    Ok(kept(it, it.sandbox()?.start(command).await?))
}

pub async fn process(it: &Invocation<'_>) -> Outcome {
    Ok(kept(it, it.sandbox()?.process(&it.args::<Id>()?.id)?))
}

fn kept(it: &Invocation<'_>, process: Process) -> Value {
    let (handle, said) = (process.handle(), json!({"id": process.id()}));
    it.keep(Object::Process(Arc::new(Mutex::new(process)), handle), said)
}

pub async fn processes(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    let processes = it.sandbox()?.processes().await?;
    Ok(list(&processes, records::process_info))
}
