use std::io;
use std::sync::Arc;

use forkyard_protocol::{PREAMBLE_LEN, Preamble};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::api::{self, Agent};

/// Calls at once in one session.
const MAX_STREAMS: u32 = 2048;

/// What one upload may have under way before it is taken, in bytes.
const STREAM_WINDOW: u32 = 512 * 1024;

/// As much as all streams together, so that one that stands still stalls no other.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// Serves one session: preamble, echo, HTTP/2 until it ends. Processes outlive it.
pub async fn serve<T>(mut stream: T, agent: Arc<Agent>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let preamble = await_preamble(&mut stream).await?;
    stream.write_all(&preamble).await?;
    stream.flush().await?;
    let service = service_fn(move |request| {
        let agent = agent.clone();
        async move { Ok::<_, std::convert::Infallible>(api::handle(agent, request).await) }
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(128 * 1024)
        .max_send_buf_size(128 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

/// Throws away everything until a preamble has come.
async fn await_preamble(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; PREAMBLE_LEN]> {
    let mut search = Preamble::new();
    loop {
        // Byte by byte: whatever follows the preamble is HTTP/2's.
        if let Some(found) = search.push(stream.read_u8().await?) {
            return Ok(found);
        }
    }
}
