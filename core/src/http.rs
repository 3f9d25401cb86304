//! Requests and responses, each call bounded by its deadline, tried again where that is safe.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forkyard_protocol::{IDEMPOTENCY_KEY, REQUEST_ID};
use http::{HeaderMap, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{Error, ErrorCode, Result};
use crate::retry::RetryPolicy;

/// What one stream may have under way before it is read, in bytes.
const STREAM_WINDOW: u32 = 512 * 1024;

/// What all streams together may have under way: as much as they like, so that one that is not read stalls no other.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// A request that can be sent any number of times.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub method: Method,
    pub path: String,
    pub body: Bytes,
    pub range: Option<String>,
    pub idempotency_key: Option<String>,
    /// Whether a second run has the same effect as one. Where it has not, a call whose connection failed is not tried
    /// again: nobody knows whether it ran.
    pub repeatable: bool,
    /// Takes the body's place where it is streamed.
    pub upload: Option<Upload>,
}

/// A body that is made anew for each attempt, so that it can be streamed and tried again.
#[derive(Clone)]
pub(crate) struct Upload {
    /// Where it is known.
    size: Option<u64>,
    make: Arc<dyn Fn() -> reqwest::Body + Send + Sync>,
}

impl Upload {
    pub fn new(size: Option<u64>, make: impl Fn() -> reqwest::Body + Send + Sync + 'static) -> Self {
        Self { size, make: Arc::new(make) }
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Request {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: Bytes::new(),
            range: None,
            idempotency_key: None,
            repeatable: true,
            upload: None,
        }
    }

    pub fn json<T: serde::Serialize>(mut self, value: &T) -> Result<Self> {
        let body = serde_json::to_vec(value);
        self.body = body.map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))?.into();
        Ok(self)
    }
}

enum Answer {
    Whole(Bytes),
    Open(reqwest::Response),
}

/// One pool of connections to one server.
pub(crate) struct Http {
    url: String,
    api_key: String,
    policy: RetryPolicy,
    client: OnceCell<reqwest::Client>,
}

impl Http {
    pub fn new(url: String, api_key: String, policy: RetryPolicy) -> Self {
        Self { url, api_key, policy, client: OnceCell::new() }
    }

    /// Sends a request until it is answered, and reads the answer's JSON.
    pub async fn call<T: DeserializeOwned>(&self, request: &Request, deadline: Instant) -> Result<T> {
        let body = self.bytes(request, deadline).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Error::new(ErrorCode::Internal, format!("the server's answer cannot be read: {error}"))
        })
    }

    /// Sends a request until it is answered, and reads the answer whole.
    pub async fn bytes(&self, request: &Request, deadline: Instant) -> Result<Bytes> {
        match self.retry(request, deadline, true).await? {
            Answer::Whole(bytes) => Ok(bytes),
            Answer::Open(response) => Ok(response.bytes().await?),
        }
    }

    /// Sends a request until it is answered; the answer's body is still to come.
    pub async fn open(&self, request: &Request, deadline: Instant) -> Result<reqwest::Response> {
        match self.retry(request, deadline, false).await? {
            Answer::Open(response) => Ok(response),
            Answer::Whole(_) => Err(Error::new(ErrorCode::Internal, "the answer was read already")),
        }
    }

    /// Tries until it succeeds, the policy says to stop, or the deadline passes.
    async fn retry(&self, request: &Request, deadline: Instant, whole: bool) -> Result<Answer> {
        let mut number = 0;
        loop {
            let error = match timeout_at(deadline, self.attempt(request, whole)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => return Err(timed_out(request)),
            };
            if !request.repeatable && error.code == ErrorCode::Connection {
                return Err(error);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(delay) = self.policy.delay(number, &error, left, fastrand::f64()) else {
                return Err(error);
            };
            tracing::debug!(code = %error.code, ?delay, path = request.path, "trying again");
            sleep(delay).await;
            number += 1;
        }
    }

    /// One attempt; reading the whole body is part of it where it is wanted, so that a cut in it is tried again too.
    async fn attempt(&self, request: &Request, whole: bool) -> Result<Answer> {
        let response = self.send(request).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(Answer::Whole(Bytes::new()));
        }
        if whole { Ok(Answer::Whole(response.bytes().await?)) } else { Ok(Answer::Open(response)) }
    }

    /// Sends a request once; an answer that is an error is an error.
    async fn send(&self, request: &Request) -> Result<reqwest::Response> {
        let mut builder = self.begin(request.method.clone(), &request.path).await?;
        builder = match &request.upload {
            Some(Upload { size: Some(size), make }) => {
                builder.header(header::CONTENT_LENGTH, *size).body(make())
            }
            Some(Upload { size: None, make }) => builder.body(make()),
            None => builder.body(request.body.clone()),
        };
        if let Some(range) = &request.range {
            builder = builder.header(header::RANGE, range);
        }
        if let Some(key) = &request.idempotency_key {
            builder = builder.header(IDEMPOTENCY_KEY, key);
        }
        finish(builder, request.range.is_some()).await
    }

    /// Sends a body that cannot be made again, once; the answer's body is still to come, and may come before this one's end.
    pub async fn converse(
        &self,
        path: &str,
        body: reqwest::Body,
        deadline: Instant,
    ) -> Result<reqwest::Response> {
        let sending = async { finish(self.begin(Method::POST, path).await?.body(body), false).await };
        timeout_at(deadline, sending).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorCode::Timeout, format!("no answer to POST {path} before the deadline")))
        })
    }

    /// Where the server is.
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn begin(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder> {
        let client = self.client.get_or_try_init(|| connect(&self.url)).await?;
        Ok(client
            .request(method, format!("{}/v1{path}", self.url))
            .bearer_auth(&self.api_key)
            .header(REQUEST_ID, ulid::Ulid::generate().to_string()))
    }
}

/// Sends what is ready; an answer that is an error is an error.
async fn finish(builder: reqwest::RequestBuilder, is_ranged: bool) -> Result<reqwest::Response> {
    let response = builder.send().await?;
    let status = response.status();
    // Beyond a file's end there is nothing to read, which is no failure.
    let is_past_the_end = status == StatusCode::RANGE_NOT_SATISFIABLE && is_ranged;
    if status.is_success() || is_past_the_end {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
    let mut error = Error::from_response(status.as_u16(), &response.bytes().await?);
    // The body says it to the millisecond; a proxy on the way has the header alone.
    error.retry_after = error.retry_after.or(retry_after);
    Err(error)
}

/// The header in its form of seconds: a date would need the clocks to agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn timed_out(request: &Request) -> Error {
    let what = format!("no answer to {} {} before the deadline", request.method, request.path);
    Error::new(ErrorCode::Timeout, what)
}

/// A pool that speaks HTTP/2 from the first byte where the server does, so that a thousand calls share one connection;
/// HTTP/1.1 where it does not (behind a plain proxy). Over TLS the two agree on it by themselves.
async fn connect(url: &str) -> Result<reqwest::Client> {
    if url.starts_with("https:") {
        return Ok(builder().build()?);
    }
    let client = builder().http2_prior_knowledge().build()?;
    match client.get(format!("{url}/healthz")).send().await {
        Ok(_) => Ok(client),
        Err(error) if error.is_connect() && refused(&error) => Err(error.into()),
        Err(_) => Ok(builder().http1_only().build()?),
    }
}

fn refused(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        source = cause.source();
    }
    false
}

fn builder() -> reqwest::ClientBuilder {
    // Installed once for the process; where its owner installed another, that one stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("forkyard/", env!("CARGO_PKG_VERSION")))
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(10))
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_frame_size(128 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(20))
}
