//! Calls on a terminal.

use std::collections::BTreeMap;
use std::sync::Arc;

use forkyard::{Command, Pty, PtyEvent, PtySize, PtySpec, Sandbox};
use forkyard_conformance::value::bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::call::{Failure, Invocation, None_, Outcome, Raw, millis};
use crate::client::Id;
use crate::objects::Object;
use crate::records;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<String>,
    rows: Option<u16>,
    cols: Option<u16>,
    term: Option<String>,
    hangup_after_ms: Option<u64>,
    timeout_ms: Option<u64>,
}

async fn started(sandbox: &Sandbox, asked: Start) -> forkyard::Result<Pty> {
    let command = match asked.command {
        None => Command::shell(),
        Some(program) => Command::new(program),
    };
    let mut command = command.args(asked.args);
    for (name, value) in asked.env {
        command = command.env(name, value);
    }
    if let Some(cwd) = asked.cwd {
        command = command.cwd(cwd);
    }
    if let Some(user) = asked.user {
        command = command.user(user);
    }
    if let Some(timeout_ms) = asked.timeout_ms {
        command = command.timeout(millis(timeout_ms));
    }
    let default = PtySpec::default();
    let terminal = PtySpec {
        rows: asked.rows.unwrap_or(default.rows),
        cols: asked.cols.unwrap_or(default.cols),
        term: asked.term.unwrap_or(default.term),
        hangup_after_ms: asked.hangup_after_ms,
    };
    sandbox.pty(command, terminal).await
}

fn kept(it: &Invocation<'_>, pty: Pty) -> Value {
    let said = json!({"id": pty.id()});
    it.keep(Object::Pty(Arc::new(Mutex::new(Some(pty)))), said)
}

pub async fn start(it: &Invocation<'_>) -> Outcome {
    Ok(kept(it, started(it.sandbox()?, it.args()?).await?))
}

pub async fn attach(it: &Invocation<'_>) -> Outcome {
    Ok(kept(it, it.sandbox()?.attach_pty(&it.args::<Id>()?.id)?))
}

/// A terminal lives as long as a value only where its owner says so: there is no block for it.
pub async fn in_scope(it: &Invocation<'_>) -> Outcome {
    let pty = started(it.sandbox()?, it.args()?).await?;
    pty.signal(9).await?;
    Ok(json!({"id": pty.id()}))
}

/// Does something with a terminal that was not let go of.
macro_rules! with {
    ($it:ident, $pty:ident) => {
        let mut held = $it.pty()?.lock().await;
        let Some($pty) = held.as_mut() else {
            return Err(Failure::unasked("the terminal was let go of"));
        };
    };
}

pub async fn id(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    with!(it, pty);
    Ok(json!({"id": pty.id()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    /// Reads no further than to where it shows this. Default: to its end.
    until: Option<String>,
}

pub async fn read(it: &Invocation<'_>) -> Outcome {
    let until = it.args::<Read>()?.until;
    with!(it, pty);
    let (mut shown, mut dropped, mut ended) = (Vec::new(), 0, Value::Null);
    while let Some(event) = pty.next().await? {
        match event {
            PtyEvent::Output(data) => shown.extend(data),
            PtyEvent::Dropped(count) => dropped += count,
            PtyEvent::Exited(status) => ended = records::exit(&status),
        }
        if until.as_ref().is_some_and(|until| String::from_utf8_lossy(&shown).contains(until.as_str())) {
            break;
        }
    }
    Ok(json!({
        "shown": String::from_utf8_lossy(&shown), "shown_bytes": bytes(&shown), "dropped": dropped, "exit": ended,
    }))
}

pub async fn wait(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    with!(it, pty);
    Ok(records::exit(&pty.wait().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    data: Raw,
}

pub async fn write(it: &Invocation<'_>) -> Outcome {
    let data = it.args::<Write>()?.data.0;
    with!(it, pty);
    pty.write(data).await?;
    Ok(Value::Null)
}

pub async fn resize(it: &Invocation<'_>) -> Outcome {
    let size: PtySize = it.args()?;
    with!(it, pty);
    pty.resize(size).await?;
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    signal: i32,
}

pub async fn send_signal(it: &Invocation<'_>) -> Outcome {
    let signal = it.args::<Signal>()?.signal;
    with!(it, pty);
    pty.signal(signal).await?;
    Ok(Value::Null)
}

pub async fn kill(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    with!(it, pty);
    pty.handle().signal(9).await?;
    Ok(Value::Null)
}

pub async fn info(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    with!(it, pty);
    Ok(records::process_info(&pty.info().await?))
}

/// Dropping it is how it is let go of.
pub async fn detach(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    drop(it.pty()?.lock().await.take());
    Ok(Value::Null)
}
