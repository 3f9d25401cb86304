//! Calls on what tells one event after another: watched folders, and machines that are followed.

use std::sync::Arc;

use forkyard::{EventStream, Watch};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::call::{Failure, Invocation, None_, Outcome, Raw, millis};
use crate::objects::Object;
use crate::records::plain;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Folder {
    path: Raw,
    #[serde(default = "yes")]
    recursive: bool,
}

fn yes() -> bool {
    true
}

pub async fn watch(it: &Invocation<'_>) -> Outcome {
    let Folder { path, recursive } = it.args()?;
    let watch = it.sandbox()?.files().watch(path.0, recursive).await?;
    Ok(it.keep(Object::Watch(Arc::new(Mutex::new(Some(watch)))), json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    path: Raw,
    make: String,
}

/// It ends where it is dropped.
pub async fn watch_in_scope(it: &Invocation<'_>) -> Outcome {
    let Scope { path, make } = it.args()?;
    let files = it.sandbox()?.files();
    let mut watch = files.watch(path.0, true).await?;
    files.make_dir(make).await?;
    Ok(plain(watch.next().await?))
}

/// How many events are read. Default: all there are until the end.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    take: Option<usize>,
}

fn dropped() -> Failure {
    Failure::unasked("what told events was dropped")
}

pub async fn read_watch(it: &Invocation<'_>) -> Outcome {
    let Read { take } = it.args()?;
    let mut watch = it.watch()?.lock().await;
    let watch: &mut Watch = watch.as_mut().ok_or_else(dropped)?;
    let mut told = Vec::new();
    while take.is_none_or(|take| told.len() < take) {
        let Some(event) = watch.next().await? else { break };
        told.push(plain(event));
    }
    Ok(told.into())
}

pub async fn close_watch(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    drop(it.watch()?.lock().await.take());
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    cursor: Option<String>,
    #[serde(default)]
    wait_ms: u64,
}

pub async fn list(it: &Invocation<'_>) -> Outcome {
    let After { cursor, wait_ms } = it.args()?;
    Ok(plain(it.sandbox()?.events(cursor.as_deref(), millis(wait_ms)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    cursor: Option<String>,
}

pub async fn follow(it: &Invocation<'_>) -> Outcome {
    let events = it.sandbox()?.follow_events(it.args::<From>()?.cursor);
    Ok(it.keep(Object::Events(Arc::new(Mutex::new(Some(events)))), json!({})))
}

/// It ends where it is dropped.
pub async fn follow_in_scope(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.sandbox()?.follow_events(None).next().await?))
}

pub async fn read_events(it: &Invocation<'_>) -> Outcome {
    let Read { take } = it.args()?;
    let mut events = it.events()?.lock().await;
    let events: &mut EventStream = events.as_mut().ok_or_else(dropped)?;
    let mut told = Vec::new();
    while take.is_none_or(|take| told.len() < take) {
        let Some(event) = events.next().await? else { break };
        told.push(plain(event));
    }
    Ok(told.into())
}

pub async fn close_events(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    drop(it.events()?.lock().await.take());
    Ok(Value::Null)
}
