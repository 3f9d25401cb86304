//! A language's executor: a process that makes the calls it is told.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::timeout;

use crate::wire::{Answer, Call, Order, SURFACE, Surface};

/// How long one may take to end once its input has.
const GRACE: Duration = Duration::from_secs(15);

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// An executor that runs; killed when this is dropped.
pub struct Executor {
    child: Child,
    input: AsyncMutex<ChildStdin>,
    pending: Pending,
    next_id: AtomicU64,
}

impl Executor {
    /// Starts one.
    pub fn start(command: &[String]) -> anyhow::Result<Self> {
        let [program, args @ ..] = command else { bail!("an executor's command is empty") };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the executor {program} cannot be started"))?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        let pending = Pending::default();
        tokio::spawn(read(output, pending.clone()));
        Ok(Self { child, input: AsyncMutex::new(input), pending, next_id: AtomicU64::new(1) })
    }

    /// What its language has.
    pub async fn surface(&self) -> anyhow::Result<Surface> {
        let begun = self.begin(SURFACE, None, Map::new(), false).await?;
        let answer = timeout(Duration::from_mins(1), begun.answer).await??;
        let surface = answer.returns.with_context(|| format!("no surface: {:?}", answer.error))?;
        Ok(serde_json::from_value(surface)?)
    }

    /// Begins a call.
    pub async fn begin(
        &self,
        call: &str,
        on: Option<String>,
        args: Map<String, Value>,
        cancellable: bool,
    ) -> anyhow::Result<Begun> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        self.send(&Order::Call(Call { id, call: call.to_owned(), on, args, cancellable })).await?;
        Ok(Begun { id, answer })
    }

    /// Has a call dropped by the language's own means; it answers nevertheless.
    pub async fn cancel(&self, id: u64) -> anyhow::Result<()> {
        self.send(&Order::Cancel { id, cancel: true }).await
    }

    /// Has it end by itself.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input);
        let status =
            timeout(GRACE, self.child.wait()).await.context("the executor does not end with its input")??;
        if !status.success() {
            bail!("the executor ended with {status}");
        }
        Ok(())
    }

    async fn send(&self, order: &Order) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let mut input = self.input.lock().await;
        input.write_all(&line).await.context("the executor has ended")?;
        Ok(input.flush().await?)
    }
}

/// A call that was begun.
pub struct Begun {
    /// By which it can be cancelled.
    pub id: u64,
    /// How it went; fails where the executor ended before.
    pub answer: oneshot::Receiver<Answer>,
}

async fn read(output: ChildStdout, pending: Pending) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer: Answer = match serde_json::from_str(&line) {
            Ok(answer) => answer,
            Err(error) => {
                eprintln!("the executor answered what cannot be read ({error}): {line:.200}");
                continue;
            }
        };
        let waiting = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&answer.id);
        if let Some(waiting) = waiting {
            // Nobody waits any more where the case has ended.
            let _ = waiting.send(answer);
        }
    }
    // Whoever still waits hears that nothing comes.
    pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
