//! Calls on a machine's files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forkyard::{Files, OnProgress};
use forkyard_conformance::value::bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Failure, Invocation, Outcome, Raw};
use crate::records::{file, list as listed, plain};

fn files<'a>(it: &'a Invocation<'_>) -> Result<Files<'a>, Failure> {
    Ok(it.sandbox()?.files())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    path: Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    path: Raw,
    offset: Option<u64>,
    length: Option<u64>,
}

pub async fn read(it: &Invocation<'_>) -> Outcome {
    let Read { path, offset, length } = it.args()?;
    let data = match (offset, length) {
        (None, None) => files(it)?.read(path.0).await?,
        (offset, length) => {
            files(it)?.read_range(path.0, offset.unwrap_or(0), length.unwrap_or(u64::MAX)).await?
        }
    };
    Ok(bytes(&data))
}

pub async fn read_text(it: &Invocation<'_>) -> Outcome {
    let data = files(it)?.read(it.args::<At>()?.path.0).await?;
    Ok(String::from_utf8_lossy(&data).into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    path: Raw,
    data: Raw,
    mode: Option<u32>,
}

pub async fn write(it: &Invocation<'_>) -> Outcome {
    let Write { path, data, mode } = it.args()?;
    Ok(file(files(it)?.write(path.0, data.0, mode).await?))
}

pub async fn list(it: &Invocation<'_>) -> Outcome {
    Ok(listed(files(it)?.list(it.args::<At>()?.path.0).await?, file))
}

pub async fn stat(it: &Invocation<'_>) -> Outcome {
    Ok(file(files(it)?.stat(it.args::<At>()?.path.0).await?))
}

pub async fn exists(it: &Invocation<'_>) -> Outcome {
    Ok(files(it)?.exists(it.args::<At>()?.path.0).await?.into())
}

pub async fn make_dir(it: &Invocation<'_>) -> Outcome {
    Ok(file(files(it)?.make_dir(it.args::<At>()?.path.0).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    source: Raw,
    target: Raw,
    #[serde(default)]
    overwrite: bool,
}

pub async fn rename(it: &Invocation<'_>) -> Outcome {
    let Move { source, target, overwrite } = it.args()?;
    Ok(file(files(it)?.rename(source.0, target.0, overwrite).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    path: Raw,
    #[serde(default)]
    recursive: bool,
}

pub async fn remove(it: &Invocation<'_>) -> Outcome {
    let Remove { path, recursive } = it.args()?;
    files(it)?.remove(path.0, recursive).await?;
    Ok(Value::Null)
}

/// The last that was told of a transfer.
fn progress() -> (Arc<AtomicU64>, OnProgress) {
    let told = Arc::new(AtomicU64::new(0));
    let on_progress = told.clone();
    (told, Arc::new(move |sent| on_progress.store(sent, Ordering::SeqCst)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upload {
    local: PathBuf,
    remote: Raw,
    mode: Option<u32>,
}

pub async fn upload(it: &Invocation<'_>) -> Outcome {
    let Upload { local, remote, mode } = it.args()?;
    let (told, on_progress) = progress();
    let mut record = file(files(it)?.upload(local, remote.0, mode, Some(on_progress)).await?);
    record["told"] = told.load(Ordering::SeqCst).into();
    Ok(record)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Download {
    remote: Raw,
    local: PathBuf,
}

pub async fn download(it: &Invocation<'_>) -> Outcome {
    let Download { remote, local } = it.args()?;
    let (told, on_progress) = progress();
    let size = files(it)?.download(remote.0, local, Some(on_progress)).await?;
    Ok(json!({"size": size, "told": told.load(Ordering::SeqCst)}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    remote: Raw,
    local: PathBuf,
}

pub async fn upload_dir(it: &Invocation<'_>) -> Outcome {
    let Tree { remote, local } = it.args()?;
    let (told, on_progress) = progress();
    let mut summary = plain(files(it)?.upload_dir(local, remote.0, Some(on_progress)).await?);
    summary["told"] = told.load(Ordering::SeqCst).into();
    Ok(summary)
}

pub async fn download_dir(it: &Invocation<'_>) -> Outcome {
    let Tree { remote, local } = it.args()?;
    let (told, on_progress) = progress();
    let mut summary = plain(files(it)?.download_dir(remote.0, local, Some(on_progress)).await?);
    summary["told"] = told.load(Ordering::SeqCst).into();
    Ok(summary)
}
