use std::path::Path;
use std::time::Duration;

use forkyard_protocol::{ErrorBody, ErrorCode, PREAMBLE_LEN, PREAMBLE_MAGIC};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{GuestBody, broken};

/// How long an echo may take before another preamble is sent. The first one waits in QEMU until the guest opens its port,
/// so this matters only where bytes of an earlier session swallowed it.
const PREAMBLE_PATIENCE: Duration = Duration::from_secs(1);

/// What one stream may have under way before its reader takes it, in bytes.
const STREAM_WINDOW: u32 = 128 * 1024;

/// What all streams together may have under way: as much as 2,048 streams whose readers all stand still, so that none of
/// them can stall another.
const CONNECTION_WINDOW: u32 = 2048 * STREAM_WINDOW;

/// How often a silent guest is asked whether it lives, and how long it may take: an emulated guest under full load
/// answers late, and one that is gone is noticed by its process's end.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(1));

/// Opens a session: preamble, echo, HTTP/2.
pub(super) async fn open(socket: &Path, deadline: Instant) -> Result<SendRequest<GuestBody>, ErrorBody> {
    let opening = async {
        let mut stream = UnixStream::connect(socket).await.map_err(|error| broken(&error))?;
        greet(&mut stream).await.map_err(|error| broken(&error))?;
        handshake(stream).await.map_err(|error| broken(&error))
    };
    timeout_at(deadline, opening).await.unwrap_or_else(|_| {
        Err(ErrorBody::new(ErrorCode::Timeout, "the guest's agent did not answer before the deadline"))
    })
}

/// Sends preambles until one is echoed; what comes before the echo belongs to an earlier session.
async fn greet(stream: &mut UnixStream) -> std::io::Result<()> {
    loop {
        let mut preamble = [0; PREAMBLE_LEN];
        preamble[..16].copy_from_slice(&PREAMBLE_MAGIC);
        let nonce = crate::random::bytes::<16>().map_err(std::io::Error::other)?;
        preamble[16..].copy_from_slice(&nonce);
        stream.write_all(&preamble).await?;
        if let Ok(found) = timeout(PREAMBLE_PATIENCE, find(stream, preamble)).await {
            return found;
        }
    }
}

async fn find(stream: &mut UnixStream, wanted: [u8; PREAMBLE_LEN]) -> std::io::Result<()> {
    let mut window = [0; PREAMBLE_LEN];
    loop {
        // Byte by byte: whatever follows the echo is HTTP/2's.
        let byte = stream.read_u8().await?;
        window.rotate_left(1);
        window[PREAMBLE_LEN - 1] = byte;
        if window == wanted {
            return Ok(());
        }
    }
}

async fn handshake(stream: UnixStream) -> hyper::Result<SendRequest<GuestBody>> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(64 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a guest's session ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use forkyard_protocol::{GuestHealth, Preamble};
    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::net::UnixListener;

    use super::super::Guest;
    use super::*;

    /// What the fake agent writes before it listens: the rest of an earlier session.
    const STALE: &[u8] = b"stale FORKYARD-AGENT/1 bytes of an earlier session";

    async fn agent(listener: UnixListener, sessions: usize) {
        for _ in 0..sessions {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(STALE).await.unwrap();
            let mut search = Preamble::new();
            let echo = loop {
                if let Some(echo) = search.push(stream.read_u8().await.unwrap()) {
                    break echo;
                }
            };
            stream.write_all(&echo).await.unwrap();
            let service = service_fn(|_| async {
                let health = GuestHealth { version: "1".into(), processes: 3, uptime_secs: 0 };
                let body = Full::new(bytes::Bytes::from(serde_json::to_vec(&health).unwrap()));
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            // One session lasts until its first answer is out, then is cut.
            drop(timeout(Duration::from_millis(200), connection).await);
        }
    }

    #[tokio::test]
    async fn a_session_starts_behind_stale_bytes_and_a_broken_one_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let agent = tokio::spawn(agent(UnixListener::bind(&socket).unwrap(), 2));
        let guest = Guest::connect(socket, Instant::now() + Duration::from_secs(5)).await.unwrap();
        assert_eq!(guest.health().await.unwrap().processes, 3);
        // Resolves when the fake agent has cut the first session.
        let session = guest.session.lock().await.clone();
        while !session.is_closed() {
            tokio::task::yield_now().await;
        }
        assert_eq!(guest.health().await.unwrap().processes, 3);
        agent.await.unwrap();
    }

    #[tokio::test]
    async fn a_guest_that_never_answers_meets_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let _listener = UnixListener::bind(&socket).unwrap();
        let result = Guest::connect(socket, Instant::now() + Duration::from_millis(50)).await;
        assert_eq!(result.err().map(|error| error.code), Some(ErrorCode::Timeout));
    }
}
