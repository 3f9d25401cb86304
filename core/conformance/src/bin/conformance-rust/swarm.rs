//! One job on many machines: each task is a script for the shell.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forkyard::{Command, CreateSandbox, Error, ErrorCode, Sandbox};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Failure, Invocation, Outcome, millis};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Swarm {
    tasks: Vec<String>,
    image: Option<String>,
    snapshot_id: Option<String>,
    memory_mb: Option<u64>,
    concurrency: Option<usize>,
    retries: Option<u32>,
    task_timeout_ms: Option<u64>,
}

pub async fn swarm(it: &Invocation<'_>) -> Outcome {
    let asked: Swarm = it.args()?;
    let snapshot_id = asked.snapshot_id.as_deref().map(forkyard::SnapshotId::parse).transpose()?;
    let machine = CreateSandbox {
        image: asked.image,
        snapshot_id,
        memory_mb: asked.memory_mb,
        ..CreateSandbox::default()
    };
    let told = Arc::new(AtomicUsize::new(0));
    let mut swarm = it.client()?.swarm(machine).on_progress({
        let told = told.clone();
        move |progress| told.store(progress.succeeded + progress.failed, Ordering::SeqCst)
    });
    if let Some(concurrency) = asked.concurrency {
        swarm = swarm.concurrency(concurrency);
    }
    if let Some(retries) = asked.retries {
        swarm = swarm.retries(retries);
    }
    if let Some(task_timeout_ms) = asked.task_timeout_ms {
        swarm = swarm.task_timeout(millis(task_timeout_ms));
    }
    let outcome = swarm.run(asked.tasks, job).await?;
    let tasks: Vec<Value> = outcome
        .report
        .tasks
        .iter()
        .zip(&outcome.results)
        .map(|(task, result)| {
            let error = result.as_ref().err().map(|error| Failure::from(error.clone()).0);
            json!({"index": task.index, "status": task.status, "attempts": task.attempts.len(),
                "result": result.as_ref().ok(), "error": error})
        })
        .collect();
    let results: Vec<_> = outcome.results.iter().flatten().collect();
    let report = &outcome.report;
    Ok(json!({"succeeded": report.succeeded, "failed": report.failed, "cancelled": report.cancelled,
        "results": results, "tasks": tasks, "told": told.load(Ordering::SeqCst)}))
}

async fn job(sandbox: Sandbox, script: String) -> forkyard::Result<String> {
    let result = sandbox.run(Command::new("sh").args(["-c", &script])).await?;
    if result.exit_code != 0 {
        return Err(Error::new(ErrorCode::FailedPrecondition, format!("exited with {}", result.exit_code)));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}
