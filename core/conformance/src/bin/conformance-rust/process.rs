//! Calls on a process.

use forkyard::{OutputEvent, PtySize};
use forkyard_conformance::value::bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Invocation, None_, Outcome, Raw};
use crate::records;

pub async fn id(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    let (process, handle) = it.process()?;
    Ok(json!({"id": process.lock().await.id(), "of_handle": handle.id()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    /// Reads no further than to where standard output holds this. Default: to its end.
    until: Option<String>,
}

pub async fn read(it: &Invocation<'_>) -> Outcome {
    let until = it.args::<Read>()?.until;
    let mut process = it.process()?.0.lock().await;
    let (mut stdout, mut stderr, mut dropped, mut ended) = (Vec::new(), Vec::new(), 0, Value::Null);
    while let Some(event) = process.next().await? {
        match event {
            OutputEvent::Stdout(data) => stdout.extend(data),
            OutputEvent::Stderr(data) => stderr.extend(data),
            OutputEvent::Dropped { stdout, stderr } => dropped += stdout + stderr,
            OutputEvent::Exited(status) => ended = records::exit(&status),
        }
        if until.as_ref().is_some_and(|until| String::from_utf8_lossy(&stdout).contains(until.as_str())) {
            break;
        }
    }
    Ok(json!({
        "stdout": String::from_utf8_lossy(&stdout), "stderr": String::from_utf8_lossy(&stderr),
        "stdout_bytes": bytes(&stdout), "dropped": dropped, "exit": ended,
    }))
}

pub async fn wait(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    let mut process = it.process()?.0.lock().await;
    let mut ended = Value::Null;
    while let Some(event) = process.next().await? {
        if let OutputEvent::Exited(status) = event {
            ended = records::exit(&status);
        }
    }
    Ok(ended)
}

pub async fn info(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(records::process_info(&it.process()?.1.info().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    signal: i32,
}

pub async fn send_signal(it: &Invocation<'_>) -> Outcome {
    it.process()?.1.signal(it.args::<Signal>()?.signal).await?;
    Ok(Value::Null)
}

pub async fn kill(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    it.process()?.1.signal(9).await?;
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stdin {
    data: Raw,
}

pub async fn write_stdin(it: &Invocation<'_>) -> Outcome {
    it.process()?.1.write_stdin(it.args::<Stdin>()?.data.0).await?;
    Ok(Value::Null)
}

pub async fn close_stdin(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    it.process()?.1.close_stdin().await?;
    Ok(Value::Null)
}

pub async fn resize(it: &Invocation<'_>) -> Outcome {
    it.process()?.1.resize(it.args::<PtySize>()?).await?;
    Ok(Value::Null)
}
