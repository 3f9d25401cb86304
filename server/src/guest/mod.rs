//! The host's end of the agent's channel.

mod call;
mod session;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forkyard_protocol::{
    ErrorBody, ErrorCode, ErrorReply, GuestConfig, GuestHealth, MAX_JSON_BODY, ProcessId, ProcessSpec,
};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use self::call::{GuestCall, Offsets, StdinPlace, WriteOptions};
use self::session::ClockReading;
pub use self::stream::WholeEnvelopes;
use crate::clock::now_ns;
use crate::snapshot::GuestDefaults;

/// An error of a body, of whichever stream it came from.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body on its way into the guest.
pub type GuestBody = UnsyncBoxBody<Bytes, BodyError>;

/// How long a new session may take once the guest runs: the agent answers a preamble in milliseconds, but an emulated
/// guest whose processor is taken may need seconds.
const RECONNECT: Duration = Duration::from_secs(10);

/// How long a command may take that only makes a guest warm, in milliseconds: an interpreter that is read from disk for the
/// first time takes seconds under emulation.
const REHEARSAL_MS: u64 = 20_000;

/// How long two clocks that were compared are taken to agree: at 50 parts in a million they part by 3 ms in a minute.
const FRESH: Duration = Duration::from_mins(1);

/// A guest that can be talked to. Cheap to clone; all clones share one session.
#[derive(Clone)]
pub struct Guest {
    socket: PathBuf,
    reading: ClockReading,
    session: Arc<Mutex<Session>>,
}

struct Session {
    sender: SendRequest<GuestBody>,
    /// When and why the last attempt to open a new session failed.
    failure: Option<(Instant, ErrorBody)>,
}

impl Guest {
    /// Opens the channel, waiting for the guest to boot until `deadline`.
    pub async fn connect(socket: PathBuf, deadline: Instant) -> Result<Self, ErrorBody> {
        Self::open(socket, deadline, session::BOOT_PATIENCE).await
    }

    /// Opens the channel to a guest that was frozen while it ran.
    pub async fn connect_restored(socket: PathBuf, deadline: Instant) -> Result<Self, ErrorBody> {
        Self::open(socket, deadline, session::RESTORED_PATIENCE).await
    }

    async fn open(socket: PathBuf, deadline: Instant, patience: Duration) -> Result<Self, ErrorBody> {
        let (sender, reading) = session::open(&socket, deadline, patience).await?;
        Ok(Self { socket, reading, session: Arc::new(Mutex::new(Session { sender, failure: None })) })
    }

    /// Sends a request and answers the response with its body still to come. A session that was found broken is opened anew,
    /// and so is one that breaks before anything of the request was sent; what may have had an effect is never repeated.
    pub async fn send(
        &self,
        request: http::Request<GuestBody>,
    ) -> Result<http::Response<Incoming>, ErrorBody> {
        let mut unsent = match self.ready_session().await?.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match unsent.take_message() {
            Some(request) => {
                let mut sender = self.ready_session().await?;
                sender.send_request(request).await.map_err(|error| broken(&error))
            }
            None => Err(broken(unsent.error())),
        }
    }

    /// The wall clock as a guest is told it: the time and, while the two clocks cannot have drifted apart, the guest's uptime at
    /// that time. What runs for the first time in an emulated guest takes tens of milliseconds, by which its clock would be
    /// late; one that has run for longer takes the time as it comes.
    pub fn clock(&self) -> (u64, Option<u64>) {
        let is_fresh = self.reading.at.elapsed() < FRESH;
        if is_fresh { (self.reading.unix_time_ns, Some(self.reading.uptime_ns)) } else { (now_ns(), None) }
    }

    /// Tells the agent what it must know before anything else runs.
    pub async fn configure(&self, config: &GuestConfig) -> Result<GuestHealth, ErrorBody> {
        let body = serde_json::to_vec(config).map_err(|error| broken(&error))?;
        self.call(http::Method::POST, "/configure", body).await
    }

    /// Asks the agent whether it is well.
    pub async fn health(&self) -> Result<GuestHealth, ErrorBody> {
        self.call(http::Method::GET, "/health", Vec::new()).await
    }

    /// Runs a command to its end as a caller would, and leaves no trace of it but what it made warm: pages in the guest's
    /// memory and, in software, translated code.
    pub async fn rehearse(&self, command: &[String], defaults: &GuestDefaults) -> Result<(), ErrorBody> {
        let (program, args) = command.split_first().ok_or_else(|| broken(&"a command has no program"))?;
        let id = ProcessId::parse("prc_rehearsal").map_err(|error| broken(&error))?;
        let spec = ProcessSpec {
            id: Some(id.clone()),
            command: program.clone(),
            args: args.to_vec(),
            env: defaults.env.clone(),
            user: Some(defaults.user.clone()).filter(|user| !user.is_empty()),
            cwd: Some(defaults.cwd.clone()).filter(|cwd| !cwd.is_empty()),
            timeout_ms: Some(REHEARSAL_MS),
            ..ProcessSpec::default()
        };
        let start = GuestCall::StartProcess(Box::new(spec), Some(Offsets::default()));
        let response = self.send(start.into_request()?).await?;
        if !response.status().is_success() {
            return read_json::<IgnoredAny>(response).await.map(drop);
        }
        // The stream ends with the process.
        let output = Limited::new(response.into_body(), MAX_JSON_BODY).collect().await;
        output.map_err(|error| broken(&error))?;
        self.call::<GuestHealth>(http::Method::DELETE, &format!("/processes/{id}"), Vec::new())
            .await
            .map(drop)
    }

    /// Resets the guest's connections over its network card.
    pub async fn reset_network(&self) -> Result<(), ErrorBody> {
        self.call::<GuestHealth>(http::Method::POST, "/network/reset", Vec::new()).await.map(drop)
    }

    /// Puts the guest's file system at rest for a moment; [`Guest::thaw`] ends it.
    pub async fn freeze(&self) -> Result<(), ErrorBody> {
        self.call::<GuestHealth>(http::Method::POST, "/freeze", Vec::new()).await.map(drop)
    }

    /// Lets the guest's file system go on; an error where it went on before.
    pub async fn thaw(&self) -> Result<(), ErrorBody> {
        self.call::<GuestHealth>(http::Method::POST, "/thaw", Vec::new()).await.map(drop)
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: http::Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ErrorBody> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://guest{path}"))
            .body(full(body))
            .map_err(|error| broken(&error))?;
        read_json(self.send(request).await?).await
    }

    async fn ready_session(&self) -> Result<SendRequest<GuestBody>, ErrorBody> {
        let asked = Instant::now();
        let mut session = self.session.lock().await;
        // `ready` waits while the connection lives and fails at once where it does not.
        if !session.sender.is_closed() && session.sender.ready().await.is_ok() {
            return Ok(session.sender.clone());
        }
        // Who waited while an attempt failed shares its outcome: one after another, each would wait for its own.
        if let Some((at, error)) = &session.failure
            && *at >= asked
        {
            return Err(error.clone());
        }
        match session::open(&self.socket, Instant::now() + RECONNECT, session::BOOT_PATIENCE).await {
            Ok((sender, _)) => {
                *session = Session { sender: sender.clone(), failure: None };
                Ok(sender)
            }
            Err(error) => {
                session.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// A body that is there as a whole.
pub fn full(data: impl Into<Bytes>) -> GuestBody {
    Full::new(data.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A response's JSON, or the error that it holds.
pub async fn read_json<T: serde::de::DeserializeOwned>(
    response: http::Response<Incoming>,
) -> Result<T, ErrorBody> {
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_JSON_BODY).collect().await.map_err(|error| broken(&error))?;
    let body = body.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| broken(&format!("malformed answer: {error}")));
    }
    Err(match serde_json::from_slice::<ErrorReply>(&body) {
        Ok(reply) => reply.error,
        Err(_) => broken(&format!("status {status} without an error")),
    })
}

fn broken(error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, format!("the guest's agent cannot be reached: {error}"))
}
