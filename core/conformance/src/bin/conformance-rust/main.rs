//! The Rust executor: makes the calls that the driver asks for, one line each, through the public API of `forkyard`.

mod call;
mod client;
mod events;
mod files;
mod objects;
mod ports;
mod process;
mod pty;
mod records;
mod sandbox;
mod surface;
mod swarm;

use std::collections::HashMap;
use std::io::{Write as _, stdin, stdout};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use forkyard_conformance::wire::{Answer, Call, Order, SURFACE};
use tokio::sync::oneshot;

use crate::call::Invocation;
use crate::objects::Objects;

/// How long what cancelled calls left behind may take to be cleaned up at the end.
const SETTLE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let (answers, writing) = mpsc::channel();
    let writer = std::thread::spawn(move || write(&writing));
    let runtime = tokio::runtime::Runtime::new()?;
    let objects = Arc::new(Objects::default());
    let mut under_way: HashMap<u64, oneshot::Sender<()>> = HashMap::new();
    for line in stdin().lines() {
        match serde_json::from_str(&line?)? {
            Order::Call(call) => {
                let (cancel, cancelled) = oneshot::channel();
                under_way.retain(|_, cancel| !cancel.is_closed());
                under_way.insert(call.id, cancel);
                runtime.spawn(perform(call, objects.clone(), cancelled, answers.clone()));
            }
            Order::Cancel { id, .. } => {
                if let Some(cancel) = under_way.remove(&id) {
                    // One that has just ended need not be.
                    let _ = cancel.send(());
                }
            }
        }
    }
    drop(answers);
    runtime.shutdown_timeout(SETTLE);
    forkyard::runtime::settle(SETTLE);
    writer.join().unwrap_or_else(|_| anyhow::bail!("the writer panicked"))
}

async fn perform(
    call: Call,
    objects: Arc<Objects>,
    cancelled: oneshot::Receiver<()>,
    answers: mpsc::Sender<Answer>,
) {
    let (id, name) = (call.id, call.call.clone());
    let outcome = if name == SURFACE {
        surface::surface()
    } else {
        let invocation = Invocation::new(&objects, call);
        tokio::select! {
            outcome = async { call::dispatch(&name, &invocation?).await } => outcome,
            // Dropped: that is how a call is cancelled in Rust.
            Ok(()) = cancelled => Err(call::Failure::cancelled()),
        }
    };
    let via = call::via(&name).unwrap_or_default().iter().map(|&method| method.to_owned()).collect();
    let (returns, error) = match outcome {
        Ok(value) => (Some(value), None),
        Err(failure) => (None, Some(failure.0)),
    };
    // The writer ends last.
    let _ = answers.send(Answer { id, returns, error, via });
}

fn write(answers: &mpsc::Receiver<Answer>) -> anyhow::Result<()> {
    for answer in answers {
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        let mut output = stdout().lock();
        output.write_all(&line)?;
        output.flush()?;
    }
    Ok(())
}
