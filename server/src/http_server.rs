//! Connections: HTTP/1.1 and HTTP/2 on one port, each bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;

/// Calls at once on one HTTP/2 connection: one client drives all its machines over a single one.
const MAX_STREAMS: u32 = 4096;

/// What one upload may have under way before the guest takes it, in bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// What all streams of a connection may have under way: as much as all of them together, so that one that stands still
/// stalls no other. Filled only by clients that send to guests that do not read.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Largest piece of a body: with HTTP/2's default of 16 KiB an upload spends its time on frames.
const MAX_FRAME: u32 = 128 * 1024;

/// How long a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long open calls may go on once the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// After a failed accept (too many open files, mostly), time for connections to end.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then gives open calls a grace to end in.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let builder = builder();
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("calls were still open at the end");
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(2 * MAX_FRAME as usize)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
