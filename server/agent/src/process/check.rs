//! Whether a process does its work: a command's, a port's or a server's word for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forkyard_protocol::{HealthCheck, ProcessSpec};
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::process::Process;
use super::restart::Health;
use super::run::{Run, Starter};
use super::spawn::Channel;
use crate::tunnel::connect_once;

impl Process {
    /// Checks again and again while a run lasts; returns once it is known that it does not do its work and is to end for it.
    pub(super) async fn check_health(&self, check: &HealthCheck, starter: &Starter) {
        let (mut health, began) = (Health::new(check), Instant::now());
        loop {
            sleep(Duration::from_millis(check.interval_ms)).await;
            let looked = timeout(Duration::from_millis(check.timeout_ms), self.looks_well(check, starter));
            let verdict = health.note(looked.await.unwrap_or(false), began.elapsed());
            self.lock().healthy = verdict;
            self.changed.notify_waiters();
            if verdict == Some(false) && self.spec.restarts() {
                return;
            }
        }
    }

    async fn looks_well(&self, check: &HealthCheck, starter: &Starter) -> bool {
        let Some(port) = check.port else { return self.says_well(&check.command, starter).await };
        match (connect_once(port).await, &check.http_path) {
            (Ok(_), None) => true,
            (Ok(stream), Some(path)) => answers_well(stream, port, path).await.unwrap_or(false),
            (Err(_), _) => false,
        }
    }

    /// Whether a command ends with 0. Whatever of it is left when nobody waits any more is killed.
    async fn says_well(&self, command: &[String], starter: &Starter) -> bool {
        let Some((program, args)) = command.split_first() else { return false };
        let spec = ProcessSpec {
            command: program.clone(),
            args: args.to_vec(),
            env: self.spec.env.clone(),
            cwd: self.spec.cwd.clone(),
            user: self.spec.user.clone(),
            ..ProcessSpec::default()
        };
        let started = tokio::task::block_in_place(|| starter.start(&spec));
        let Ok((run, started)) = started else { return false };
        let _leftovers = Leftovers { run, starter: starter.clone() };
        if let Channel::Pipes { outputs, .. } = started.channel {
            for output in outputs {
                let Ok(output) = pipe::Receiver::from_owned_fd(output) else { return false };
                tokio::spawn(throw_away(output));
            }
        }
        started.ended.await.is_ok_and(|status| status.exit_status() == Some(0))
    }
}

/// Whether a server answers with 200 to 399.
async fn answers_well(
    stream: TcpStream,
    port: u16,
    path: &str,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let request = Request::get(path).header(header::HOST, format!("localhost:{port}"));
    let request = request.body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Both end with this call: nothing of the answer but its status is waited for.
    tokio::select! {
        answer = sender.send_request(request) => Ok((200..400).contains(&answer?.status().as_u16())),
        ended = connection => ended.map(|()| false).map_err(Into::into),
    }
}

async fn throw_away(mut output: pipe::Receiver) {
    let mut buffer = [0; 4096];
    while output.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

struct Leftovers {
    run: Arc<Run>,
    starter: Starter,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.starter.discard(self.run.clone());
    }
}
