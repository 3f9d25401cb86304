use std::io;
use std::sync::Arc;

use forkyard_protocol::{PREAMBLE_LEN, Preamble, echo};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::api::{self, Agent};
use crate::clock;
use crate::tail::Tail;

/// Calls at once in one session.
const MAX_STREAMS: u32 = 2048;

/// What one upload may have under way before it is taken, in bytes.
const STREAM_WINDOW: u32 = 512 * 1024;

/// As much as all streams together, so that one that stands still stalls no other.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// Serves sessions, one after another, until the stream ends or fails. Processes outlive them.
pub async fn serve<T>(stream: T, agent: Arc<Agent>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = Tail::new(stream);
    loop {
        let preamble = await_preamble(&mut stream).await?;
        if let Err(error) = serve_one(&mut stream, preamble, agent.clone()).await {
            eprintln!("forkyard-agent: a session ended: {error}");
        }
    }
}

/// Serves one session: echo, then HTTP/2 until it ends.
async fn serve_one<T>(mut stream: T, preamble: [u8; PREAMBLE_LEN], agent: Arc<Agent>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&echo(preamble, clock::uptime_ns())).await?;
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

/// Throws away everything until a preamble has come. It may have been what ended the session before: a host that left without
/// a word, as in a fork, and came back.
async fn await_preamble(stream: &mut Tail<impl AsyncRead + Unpin>) -> io::Result<[u8; PREAMBLE_LEN]> {
    let mut search = Preamble::new();
    let before = stream.take_last();
    if let Some(found) = before.iter().filter_map(|byte| search.push(*byte)).last() {
        return Ok(found);
    }
    loop {
        // Byte by byte: whatever follows the preamble is HTTP/2's.
        let found = search.push(stream.read_u8().await?);
        if let Some(found) = found {
            stream.take_last();
            return Ok(found);
        }
    }
}
