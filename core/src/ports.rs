//! Ports that programs in a machine listen on. All goes through the server: the machine needs no network for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use forkyard_protocol::ListeningPort;
use forkyard_protocol::{CreatePreview, MAX_PORT_WAIT_MS, PortList, Preview as PreviewRecord, validate_port};
use futures_util::TryStreamExt as _;
use http::Method;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::client::Client;
use crate::error::{Error, ErrorCode, Result};
use crate::http::Request;
use crate::sandbox::Sandbox;
use crate::tunnel::Tunnel;

/// Bytes on their way into a machine that it has not taken yet.
const WINDOW: usize = 64 * 1024;

/// Connections that a forwarded port takes at once; further ones wait.
const MAX_FORWARDED: usize = 256;

/// After a failed accept (too many open files, mostly), time for connections to end.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A machine's ports.
pub struct Ports<'a> {
    pub(crate) sandbox: &'a Sandbox,
}

/// An address at which whoever has it reaches an HTTP server in a machine, without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The address; it ends with a slash, and is a secret.
    pub url: String,
    /// When it ends: milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// A port on this host that leads to one in a machine, until this is dropped.
pub struct Forward {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Ports<'_> {
    /// The TCP ports that something in the machine listens on, in their order.
    pub async fn list(&self) -> Result<Vec<ListeningPort>> {
        Ok(self.sandbox.client.get_json::<PortList>(&self.sandbox.path("/ports")).await?.ports)
    }

    /// Waits until something listens on a port, at most `patience`.
    pub async fn wait(&self, port: u16, patience: Duration) -> Result<()> {
        validate_port(port)?;
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let wait_ms = u64::try_from(left).unwrap_or(u64::MAX).min(MAX_PORT_WAIT_MS / 2);
            let path = self.sandbox.path(&format!("/tunnels/{port}?wait_ms={wait_ms}"));
            // An answer may take as long as a call may, even where nothing is left to wait for.
            let answer_by =
                Instant::now() + Duration::from_millis(wait_ms) + self.sandbox.client.inner.timeout;
            let request = Request::new(Method::GET, path);
            match self.sandbox.client.inner.http.bytes(&request, answer_by).await {
                Ok(_) => return Ok(()),
                Err(error) if error.errno.as_deref() != Some("ECONNREFUSED") => return Err(error),
                Err(error) if Instant::now() >= deadline => {
                    let message = format!("{} within {} s", error.message, patience.as_secs_f64());
                    return Err(Error::new(ErrorCode::Timeout, message));
                }
                Err(_) => {}
            }
        }
    }

    /// Connects to a port.
    pub async fn connect(&self, port: u16) -> Result<Tunnel> {
        connect(&self.sandbox.client, &self.sandbox.path(""), port).await
    }

    /// Listens on this host, on a port of the system's choice where the address has port 0, and connects whoever comes to the
    /// machine's port.
    pub async fn forward(&self, port: u16, local: impl ToSocketAddrs) -> Result<Forward> {
        validate_port(port)?;
        let failed = |error: std::io::Error| {
            Error::new(ErrorCode::InvalidArgument, format!("cannot listen on the local address: {error}"))
        };
        let listener = TcpListener::bind(local).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (client, path) = (self.sandbox.client.clone(), self.sandbox.path(""));
        let task = tokio::spawn(forward(listener, client, path, port));
        Ok(Forward { address, task })
    }

    /// An address at which whoever has it reaches the HTTP server on a port, without a key, for so long: 1 second to 7 days.
    pub async fn preview(&self, port: u16, lifetime: Duration) -> Result<Preview> {
        let request = CreatePreview { port, expires_secs: lifetime.as_secs() };
        request.validate()?;
        let call = Request::new(Method::POST, self.sandbox.path("/previews")).json(&request)?;
        let client = &self.sandbox.client;
        let made: PreviewRecord = client.inner.http.call(&call, client.deadline()).await?;
        let url = format!("{}{}", client.inner.http.url(), made.path);
        Ok(Preview { url, expires_at_ms: made.expires_at_ms })
    }

    /// The address at which the HTTP server on a port is reached with the API key (`Authorization: Bearer …`); the key is not
    /// passed on.
    pub fn url(&self, port: u16) -> Result<String> {
        validate_port(port)?;
        let path = self.sandbox.path(&format!("/ports/{port}/"));
        Ok(format!("{}/v1{path}", self.sandbox.client.inner.http.url()))
    }
}

async fn connect(client: &Client, sandbox: &str, port: u16) -> Result<Tunnel> {
    validate_port(port)?;
    // Only one direction of it is used: what is written here is the call's body, which ends when this is shut or dropped.
    let (to, body) = tokio::io::duplex(WINDOW);
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(body, WINDOW));
    let path = format!("{sandbox}/tunnels/{port}");
    let response = client.inner.http.converse(&path, body, client.deadline()).await?;
    let from = response.bytes_stream().map_err(|error| std::io::Error::other(Error::from(error)));
    Ok(Tunnel { from: Box::pin(StreamReader::new(from)), to })
}

async fn forward(listener: TcpListener, client: Client, sandbox: String, port: u16) {
    let permits = Arc::new(Semaphore::new(MAX_FORWARDED));
    // Ends them all where it is dropped itself.
    let mut connections = JoinSet::new();
    loop {
        // Never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let mut near = match listener.accept().await {
            Ok((near, _)) => near,
            Err(error) => {
                tracing::warn!(%error, "a connection to a forwarded port could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (client, sandbox) = (client.clone(), sandbox.clone());
        connections.spawn(async move {
            let _permit = permit;
            let passed = async {
                let mut far = connect(&client, &sandbox, port).await?;
                pass(&mut near, &mut far).await
            };
            if let Err(error) = passed.await {
                // Whoever connected learns of it as the other end's reset, as over a network.
                let _ = near.set_zero_linger();
                tracing::debug!(%error, port, "a connection to a forwarded port broke off");
            }
        });
    }
}

async fn pass(near: &mut TcpStream, far: &mut Tunnel) -> Result<()> {
    let broken = |error: std::io::Error| Error::new(ErrorCode::Connection, error.to_string());
    near.set_nodelay(true).map_err(broken)?;
    copy_bidirectional(near, far).await.map(drop).map_err(broken)
}

impl Forward {
    /// Where this host listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it and all its connections. Once this returns nobody is taken any more.
    pub async fn close(mut self) {
        self.task.abort();
        // It says no more than that it was aborted.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}
