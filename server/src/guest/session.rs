use std::path::Path;
use std::time::Duration;

use forkyard_protocol::{ErrorBody, ErrorCode, PREAMBLE_LEN, PREAMBLE_MAGIC};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{GuestBody, broken};
use crate::clock::now_ns;
use crate::vmm::socket;

/// How long an echo may take before another preamble is sent: bytes of an earlier session may have swallowed the first. Each
/// further one gets twice as long, since a slow guest that is sent a second while it echoes the first finds no end.
pub(super) const BOOT_PATIENCE: Duration = Duration::from_millis(500);

/// The same for a guest that runs already and may be in the middle of a session that its host has left, as after a fork: that
/// session takes the preamble for a fault and ends, and the agent finds it there. An emulated guest that wakes on a busy host
/// needs tens of milliseconds for that.
pub(super) const RESTORED_PATIENCE: Duration = Duration::from_millis(200);

/// The kernel's request for what a socket's peer has not read (`SIOCOUTQ`).
const UNREAD: rustix::ioctl::Opcode = 0x5411;

/// What one stream may have under way before its reader takes it, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;

/// What all streams together may have under way: as much as 2,048 streams whose readers all stand still, so that none of
/// them can stall another.
const CONNECTION_WINDOW: u32 = 2048 * STREAM_WINDOW;

/// How often a silent guest is asked whether it lives, and how long it may take: an emulated guest under full load
/// answers late, behind what is being uploaded to it, and one that is gone is noticed by its process's end.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(1));

/// What the guest's clock showed when.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockReading {
    /// The guest's uptime.
    pub uptime_ns: u64,
    /// The host's wall clock when it learnt of it, in nanoseconds since 1970.
    pub unix_time_ns: u64,
    /// When that was.
    pub at: Instant,
}

/// Opens a session: preamble, echo, HTTP/2.
pub(super) async fn open(
    path: &Path,
    deadline: Instant,
    patience: Duration,
) -> Result<(SendRequest<GuestBody>, ClockReading), ErrorBody> {
    let opening = async {
        let mut stream = socket::connect(path).await.map_err(|error| broken(&error))?;
        let reading = greet(&mut stream, patience).await.map_err(|error| broken(&error))?;
        let sender = handshake(stream).await.map_err(|error| broken(&error))?;
        Ok((sender, reading))
    };
    timeout_at(deadline, opening).await.unwrap_or_else(|_| {
        Err(ErrorBody::new(ErrorCode::Timeout, "the guest's agent did not answer before the deadline"))
    })
}

/// Sends preambles until one is echoed; what comes before the echo belongs to an earlier session.
async fn greet(stream: &mut UnixStream, mut patience: Duration) -> std::io::Result<ClockReading> {
    loop {
        let mut preamble = [0; PREAMBLE_LEN];
        preamble[..16].copy_from_slice(&PREAMBLE_MAGIC);
        let nonce = crate::random::bytes::<16>().map_err(std::io::Error::other)?;
        preamble[16..].copy_from_slice(&nonce);
        stream.write_all(&preamble).await?;
        let mut window = [0; PREAMBLE_LEN];
        loop {
            if let Ok(found) = timeout(patience, find(stream, &mut window, preamble)).await {
                return found;
            }
            // Until a guest opens its port QEMU takes nothing. A second preamble would then lie behind the first and break
            // the session that the first one starts.
            if !has_unread(stream)? {
                break;
            }
        }
        patience *= 2;
    }
}

/// Whether the peer has yet to read some of what was sent.
fn has_unread(stream: &UnixStream) -> std::io::Result<bool> {
    // SAFETY: the kernel writes one int for this request.
    let request = unsafe { rustix::ioctl::Getter::<UNREAD, std::ffi::c_int>::new() };
    // SAFETY: the request only asks.
    Ok(unsafe { rustix::ioctl::ioctl(stream, request) }? > 0)
}

async fn find(
    stream: &mut UnixStream,
    window: &mut [u8; PREAMBLE_LEN],
    wanted: [u8; PREAMBLE_LEN],
) -> std::io::Result<ClockReading> {
    loop {
        // Byte by byte: whatever follows the echo is HTTP/2's.
        let byte = stream.read_u8().await?;
        window.rotate_left(1);
        window[PREAMBLE_LEN - 1] = byte;
        if *window == wanted {
            let uptime_ns = stream.read_u64().await?;
            return Ok(ClockReading { uptime_ns, unix_time_ns: now_ns(), at: Instant::now() });
        }
    }
}

async fn handshake(stream: UnixStream) -> hyper::Result<SendRequest<GuestBody>> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(128 * 1024)
        .max_send_buf_size(512 * 1024)
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
    use forkyard_protocol::{GuestHealth, Preamble, echo};
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
            let preamble = loop {
                if let Some(preamble) = search.push(stream.read_u8().await.unwrap()) {
                    break preamble;
                }
            };
            stream.write_all(&echo(preamble, 1)).await.unwrap();
            let service = service_fn(|_| async {
                let health =
                    GuestHealth { version: "1".into(), processes: 3, uptime_secs: 0, uptime_ns: None };
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
        let sender = guest.session.lock().await.sender.clone();
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
        assert_eq!(guest.health().await.unwrap().processes, 3);
        agent.await.unwrap();
    }

    /// What QEMU does while a guest boots: nothing is read, then everything, and each preamble is answered.
    #[tokio::test]
    async fn a_guest_that_boots_finds_one_preamble_and_no_more() {
        let (mut host, guest) = UnixStream::pair().unwrap();
        let greeting = tokio::spawn(async move { greet(&mut host, BOOT_PATIENCE).await.map(|_| host) });
        // Longer than several preambles' patience, and not just when another would be due.
        tokio::time::sleep(BOOT_PATIENCE * 9 / 2).await;
        let mut guest = guest;
        let mut preamble = [0; PREAMBLE_LEN];
        guest.read_exact(&mut preamble).await.unwrap();
        guest.write_all(&echo(preamble, 7)).await.unwrap();
        let _host = timeout(Duration::from_millis(200), greeting)
            .await
            .expect("the first one counts")
            .unwrap()
            .unwrap();
        let mut more = [0; 1];
        let further = timeout(Duration::from_millis(50), guest.read(&mut more)).await;
        assert!(further.is_err(), "nothing follows the preamble");
    }

    #[tokio::test]
    async fn a_preamble_that_was_swallowed_is_followed_by_another() {
        let (mut host, mut guest) = UnixStream::pair().unwrap();
        let greeting = tokio::spawn(async move { greet(&mut host, BOOT_PATIENCE).await });
        let mut preambles = [[0; PREAMBLE_LEN]; 2];
        for preamble in &mut preambles {
            guest.read_exact(preamble).await.unwrap();
        }
        assert_ne!(preambles[0], preambles[1]);
        guest.write_all(&echo(preambles[1], 7)).await.unwrap();
        assert_eq!(greeting.await.unwrap().unwrap().uptime_ns, 7);
    }

    #[tokio::test]
    async fn those_who_wait_for_one_new_session_share_its_failure() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let agent = tokio::spawn(agent(UnixListener::bind(&socket).unwrap(), 1));
        let guest = Guest::connect(socket.clone(), Instant::now() + Duration::from_secs(5)).await.unwrap();
        agent.await.unwrap();
        std::fs::remove_file(&socket).unwrap();
        // Takes connections and never answers: each attempt lasts until its deadline.
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::time::pause();
        let asked = Instant::now();
        let answers = (0..50).map(|_| guest.health());
        for answer in futures_util::future::join_all(answers).await {
            assert_eq!(answer.err().map(|error| error.code), Some(ErrorCode::Timeout));
        }
        assert!(asked.elapsed() < super::super::RECONNECT * 2, "{:?}", asked.elapsed());
        drop(listener);
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
