//! The host's end of the agent's channel.

mod call;
mod session;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forkyard_protocol::{
    ErrorBody, ErrorCode, ErrorReply, GuestConfig, GuestFile, GuestFiles, GuestHealth, MAX_JSON_BODY,
    MissingFiles, ProcessId, ProcessSpec, RawPath,
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

/// How far ahead a guest's clock may be set, in nanoseconds.
const MAX_AHEAD_NS: u64 = 10_000_000;

/// How often a clock is set at most. Each setting is by a reading of which the host heard sooner.
const MAX_CLOCK_SETTINGS: u32 = 4;

/// By how much the clock of a guest that was so configured is ahead, at the least: its uptime was this before the host heard of it.
fn ahead_ns(config: &GuestConfig, uptime_ns: Option<u64>, heard_at_ns: u64) -> u64 {
    let (Some(then), Some(now)) = (config.uptime_ns, uptime_ns) else { return 0 };
    let shows = config.unix_time_ns.saturating_add(now.saturating_sub(then));
    shows.saturating_sub(heard_at_ns)
}

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

    /// Tells the agent what it must know before anything else runs. Its answer shows its clock once more: where that proves that
    /// the clock was set ahead, since the host heard late of the reading that it was set by, it is told again.
    pub async fn configure(&self, config: &GuestConfig) -> Result<GuestHealth, ErrorBody> {
        let mut config = config.clone();
        let mut settings = 0;
        loop {
            let body = serde_json::to_vec(&config).map_err(|error| broken(&error))?;
            let telling = self.call(http::Method::POST, "/configure", body);
            let health: GuestHealth = Box::pin(telling).await?;
            let heard_at = now_ns();
            settings += 1;
            if settings == MAX_CLOCK_SETTINGS || ahead_ns(&config, health.uptime_ns, heard_at) <= MAX_AHEAD_NS
            {
                return Ok(health);
            }
            (config.unix_time_ns, config.uptime_ns) = (heard_at, health.uptime_ns);
        }
    }

    /// Puts files of the operator's in place. Their contents are sent only where the guest does not have them.
    pub async fn give(&self, files: &[GuestFile]) -> Result<(), ErrorBody> {
        if files.is_empty() {
            return Ok(());
        }
        let names = files.iter().map(|GuestFile { path, mode, digest, content: _ }| GuestFile {
            path: path.clone(),
            mode: *mode,
            digest: digest.clone(),
            content: None,
        });
        let missing = match self.offer(names.collect()).await {
            Err(error) if error.code == ErrorCode::NotFound => return self.write_all(files).await,
            missing => missing?,
        };
        if missing.is_empty() {
            return Ok(());
        }
        let wanted = files.iter().filter(|file| missing.contains(&file.path));
        let missing = self.offer(wanted.cloned().collect()).await?;
        if missing.is_empty() {
            Ok(())
        } else {
            Err(broken(&format!("{} are missing still", missing.join(", "))))
        }
    }

    async fn offer(&self, files: Vec<GuestFile>) -> Result<Vec<String>, ErrorBody> {
        let body = serde_json::to_vec(&GuestFiles { files }).map_err(|error| broken(&error))?;
        Ok(self.call::<MissingFiles>(http::Method::POST, "/given", body).await?.missing)
    }

    /// Writes files as any: an agent that was frozen by an earlier version knows no other way.
    async fn write_all(&self, files: &[GuestFile]) -> Result<(), ErrorBody> {
        for GuestFile { path, mode, digest: _, content } in files {
            let Some(content) = content else { continue };
            let path = RawPath::new(path.as_str()).map_err(|error| broken(&error))?;
            let user = Some("root".to_owned());
            let options = WriteOptions { mode: Some(*mode), user, parents: true };
            let call = GuestCall::WriteFile(path, options, full(content.clone()));
            read_json::<IgnoredAny>(self.send(call.into_request()?).await?).await?;
        }
        Ok(())
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

    /// Has the guest do what can be done before it has a network, so that its forks get theirs sooner.
    pub async fn prepare_network(&self) -> Result<(), ErrorBody> {
        self.call::<GuestHealth>(http::Method::POST, "/network/prepare", Vec::new()).await.map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_by_what_the_host_cannot_have_missed() {
        let told = |unix_time_ns, uptime_ns| GuestConfig {
            hostname: String::new(),
            machine_id: String::new(),
            seed_base64: String::new(),
            unix_time_ns,
            uptime_ns,
            env: [].into(),
            user: String::new(),
            cwd: String::new(),
            network: false,
        };
        // The host heard of the uptime 5 when it was 1,300 there; the second reading comes at once and shows that it was late.
        assert_eq!(ahead_ns(&told(1300, Some(5)), Some(55), 1100), 250);
        // A reading that comes later than the first proves nothing.
        assert_eq!(ahead_ns(&told(1000, Some(5)), Some(55), 1051), 0);
        assert_eq!(ahead_ns(&told(1000, Some(5)), None, 0), 0);
        assert_eq!(ahead_ns(&told(1000, None), Some(55), 0), 0);
    }
}
