use bytes::Bytes;
pub use forkyard_protocol::{ExitStatus, ProcessState};
use forkyard_protocol::{ProcessId, ProcessInfo, ProcessSpec, PtySize, SignalRequest, StdinReply};
use futures_util::{Stream, StreamExt as _};
use http::Method;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Duration, Instant, sleep};

use crate::error::{Error, ErrorCode, Result};
use crate::http::Request;
use crate::output::{OutputEvent, Progress};
use crate::sandbox::Sandbox;
use std::pin::Pin;
use std::sync::Arc;

/// Bytes of standard input that one call carries: repeated whole where the connection fails.
const STDIN_PIECE: usize = 1024 * 1024;

/// How long a start may take: an emulated machine that is asked for a thousand processes at once starts them one by one.
const START_TIMEOUT: Duration = Duration::from_mins(10);

/// How long a process whose stream keeps breaking off is taken up again before the call fails.
const MAX_CUTS: u32 = 10;

/// Shared too, so that a future that borrows a process can be sent between threads.
type Output = dyn Stream<Item = reqwest::Result<Bytes>> + Send + Sync;

/// A process in a machine, and a place in its output.
pub struct Process {
    handle: Handle,
    spec: Option<ProcessSpec>,
    progress: Progress,
    stream: Option<Pin<Box<Output>>>,
    cuts: u32,
    /// What its standard input is to be, until it has started: nothing else is written before it.
    stdin: Option<(OwnedMutexGuard<Writer>, Bytes)>,
}

/// A process, to be told things.
#[derive(Clone)]
pub struct Handle {
    sandbox: Sandbox,
    id: ProcessId,
    /// Held while a call writes, so that two do not overlap.
    writer: Arc<Mutex<Writer>>,
}

/// Under which name standard input is written, and how much was. Each handle has a name of its own, so that several programs
/// can write to one process.
#[derive(Default)]
struct Writer {
    name: String,
    offset: u64,
}

impl Process {
    /// A process that the first look at its output starts.
    pub(crate) fn attach_new(sandbox: &Sandbox, mut spec: ProcessSpec, stdin: Option<Bytes>) -> Result<Self> {
        spec.validate()?;
        let id = ProcessId::parse(&format!("{}{}", ProcessId::PREFIX, ulid::Ulid::generate()))
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        spec.id = Some(id.clone());
        let process = Self::existing(sandbox, id);
        // Nobody else has it yet, so that it is free.
        let stdin = process.handle.writer.clone().try_lock_owned().ok().zip(stdin);
        Ok(Self { spec: Some(spec), stdin, ..process })
    }

    pub(crate) fn existing(sandbox: &Sandbox, id: ProcessId) -> Self {
        let handle = Handle { sandbox: sandbox.clone(), id, writer: Arc::default() };
        Self { handle, spec: None, progress: Progress::default(), stream: None, cuts: 0, stdin: None }
    }

    /// Its id.
    pub fn id(&self) -> &ProcessId {
        &self.handle.id
    }

    /// To tell it things while somebody else reads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The next of its output; `None` after its end. Nothing is taken from the connection unless it is asked for. A cut is
    /// taken up where it was.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>> {
        loop {
            if let Some(event) = self.progress.next_event()? {
                self.cuts = 0;
                return Ok(Some(event));
            }
            if self.progress.has_ended() {
                return Ok(None);
            }
            self.started().await?;
            let Some(stream) = self.stream.as_mut() else { continue };
            match stream.next().await {
                Some(Ok(data)) => self.progress.push(&data),
                cut => {
                    self.stream = None;
                    self.progress.reconnect();
                    self.cuts += 1;
                    if self.cuts > MAX_CUTS {
                        let cause = cut.and_then(std::result::Result::err).map_or_else(
                            || Error::new(ErrorCode::Connection, "the output broke off"),
                            Error::from,
                        );
                        return Err(cause);
                    }
                    // The first time at once; a connection that keeps failing is given time.
                    sleep(Duration::from_millis(50) * (self.cuts - 1)).await;
                }
            }
        }
    }

    /// Lets go of its output, which [`Process::next`] takes up again where it was.
    pub fn detach(&mut self) {
        self.stream = None;
        self.progress.reconnect();
    }

    /// Connects to its output, and starts it where that is still to be done.
    pub(crate) async fn started(&mut self) -> Result<()> {
        if self.stream.is_some() {
            return Ok(());
        }
        let (stdout, stderr) = self.progress.offsets();
        let request = match &self.spec {
            Some(spec) => {
                let path = format!("/processes?attach=true&stdout={stdout}&stderr={stderr}");
                Request::new(Method::POST, self.handle.sandbox.path(&path)).json(spec)?
            }
            None => Request::new(
                Method::GET,
                self.handle.path(&format!("/output?stdout={stdout}&stderr={stderr}")),
            ),
        };
        let client = &self.handle.sandbox.client;
        let deadline = client.deadline().max(Instant::now() + START_TIMEOUT);
        let response = client.inner.http.open(&request, deadline).await?;
        self.stream = Some(Box::pin(response.bytes_stream()));
        if let Some((writer, stdin)) = self.stdin.take() {
            let close = self.spec.as_ref().is_some_and(|spec| spec.pty.is_none());
            // While its output is read: one that answers as it reads would wait for its reader otherwise.
            tokio::spawn(feed(self.handle.clone(), writer, stdin, close));
        }
        Ok(())
    }
}

async fn feed(process: Handle, mut writer: OwnedMutexGuard<Writer>, stdin: Bytes, close: bool) {
    // A process that ends without reading all of its input is no failure.
    if let Err(error) = process.write(&mut writer, stdin, close, true).await {
        tracing::debug!(%error, "standard input was not read whole");
    }
}

impl Handle {
    /// Its id.
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// How it stands.
    pub async fn info(&self) -> Result<ProcessInfo> {
        self.call(&Request::new(Method::GET, self.path(""))).await
    }

    /// Changes the size of its terminal.
    pub async fn resize(&self, size: PtySize) -> Result<()> {
        size.validate()?;
        let request = Request::new(Method::POST, self.path("/resize")).json(&size)?;
        self.call::<ProcessInfo>(&request).await.map(drop)
    }

    /// Sends a signal to its process group or, where it has a terminal, to the one in the foreground there; 9 to everything that
    /// it started.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        let request = Request::new(Method::POST, self.path("/signal")).json(&SignalRequest { signal })?;
        self.call::<ProcessInfo>(&request).await.map(drop)
    }

    /// Kills it and all that it started, without waiting for that.
    pub fn kill_in_background(&self) {
        let handle = self.clone();
        crate::runtime::spawn_cleanup(async move { handle.signal(9).await });
    }

    /// Writes to its standard input. Repeated after a cut, no byte comes twice.
    pub async fn write_stdin(&self, data: impl Into<Bytes>) -> Result<()> {
        self.write(&mut *self.writer.lock().await, data.into(), false, false).await
    }

    /// Closes its standard input.
    pub async fn close_stdin(&self) -> Result<()> {
        self.write(&mut *self.writer.lock().await, Bytes::new(), true, false).await
    }

    /// Writes it piece by piece; patiently, that is for as long as the process does not read.
    async fn write(&self, writer: &mut Writer, mut data: Bytes, close: bool, patient: bool) -> Result<()> {
        // What became of an earlier call that was given up is not known: as another writer none of this is taken for a part of it.
        let (mut name, mut offset) = (std::mem::take(&mut writer.name), writer.offset);
        if name.is_empty() {
            (name, offset) = (ulid::Ulid::generate().to_string(), 0);
        }
        loop {
            let piece = data.split_to(data.len().min(STDIN_PIECE));
            let last = data.is_empty();
            let path = format!("/stdin?offset={offset}&close={}&writer={name}", close && last);
            let mut request = Request::new(Method::PUT, self.path(&path));
            request.body = piece;
            offset = loop {
                match self.call::<StdinReply>(&request).await {
                    Err(error) if patient && error.code == ErrorCode::Timeout => {}
                    outcome => break outcome?.offset,
                }
            };
            if last {
                *writer = Writer { name, offset };
                return Ok(());
            }
        }
    }

    async fn call<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let client = &self.sandbox.client;
        client.inner.http.call(request, client.deadline()).await
    }

    fn path(&self, rest: &str) -> String {
        self.sandbox.path(&format!("/processes/{}{rest}", self.id))
    }
}
