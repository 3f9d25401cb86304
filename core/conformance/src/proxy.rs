//! A proxy between a client and the server that makes the faults of a [`Plan`].

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::fault::{Effect, Fault, Plan, is_like};

type Body = UnsyncBoxBody<Bytes, reqwest::Error>;

/// Headers that are of one connection alone.
const HOP_BY_HOP: [header::HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::TE, header::HOST];

/// A proxy that runs until this is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stopping: CancellationToken,
}

struct Shared {
    upstream: SocketAddr,
    client: reqwest::Client,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    /// Requests that the server has answered.
    answered: Vec<(String, String)>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Proxy {
    /// Starts one; with `http1` it speaks no HTTP/2.
    pub async fn start(upstream: SocketAddr, http1: bool) -> anyhow::Result<Self> {
        // Where it is there already, it stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().http2_prior_knowledge().tcp_nodelay(true).build()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { upstream, client, state: watch::Sender::new(State::default()) });
        let stopping = CancellationToken::new();
        tokio::spawn(accept(listener, shared.clone(), http1, stopping.clone()));
        Ok(Self { address, shared, stopping })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forgets what was, and makes these faults from now on.
    pub fn arm(&self, faults: Vec<Fault>) {
        self.shared.state.send_replace(State { plan: Plan::new(faults), answered: Vec::new() });
    }

    /// What was seen and struck since it was armed.
    pub fn plan(&self) -> Plan {
        self.shared.state.borrow().plan.clone()
    }

    /// Waits until the server has answered a request of this pattern.
    pub async fn answered(&self, pattern: &str) {
        let mut state = self.shared.state.subscribe();
        let has_come =
            |state: &State| state.answered.iter().any(|(method, path)| is_like(pattern, method, path));
        if state.wait_for(has_come).await.is_err() {
            // The proxy holds the other end.
            pending::<()>().await;
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, http1: bool, stopping: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stopping.cancelled() => return,
            Ok((stream, _)) = listener.accept() => stream,
        };
        tokio::spawn(serve(stream, shared.clone(), http1, stopping.clone()));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, http1: bool, stopping: CancellationToken) {
    if stream.set_nodelay(true).is_err() {
        return; // it is closed already
    }
    let line = Arc::new(Line { cut: stopping.child_token(), left: AtomicUsize::new(usize::MAX) });
    let io = TokioIo::new(Counted { stream, line: line.clone() });
    let service = service_fn({
        let line = line.clone();
        move |request| answer(shared.clone(), line.clone(), request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    if http1 {
        builder = builder.http1_only();
    }
    let connection = builder.serve_connection(io, service);
    tokio::select! {
        // How a connection ends is the client's to judge.
        _ = connection => {}
        () = line.cut.cancelled() => {}
    }
}

async fn answer(
    shared: Arc<Shared>,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let mut effect = None;
    shared.state.send_modify(|state| effect = state.plan.strike(&method, &path));
    match &effect {
        Some(Effect::Answer { status, retry_after, body }) => {
            return Ok(made_up(*status, *retry_after, body.as_ref()));
        }
        Some(Effect::CutBefore) => return line.cut().await,
        Some(Effect::DelayMs(delay)) => sleep(Duration::from_millis(*delay)).await,
        _ => {}
    }
    let response = match forward(&shared, request).await {
        Ok(response) => response,
        Err(error) => return Ok(made_up(502, None, Some(&error.to_string().into()))),
    };
    if effect == Some(Effect::CutAfter) {
        let (_, body) = response.into_parts();
        // Whole, so that the server has done all of it.
        let _ = body.collect().await;
        shared.state.send_modify(|state| state.answered.push((method, path)));
        return line.cut().await;
    }
    shared.state.send_modify(|state| state.answered.push((method, path)));
    match effect {
        Some(Effect::CutBody(bytes)) => line.left.store(bytes, Ordering::SeqCst),
        Some(Effect::HoldMs(hold)) => sleep(Duration::from_millis(hold)).await,
        Some(Effect::Trickle { bytes, every_ms }) => {
            return Ok(response.map(|body| trickle(body, bytes, Duration::from_millis(every_ms))));
        }
        _ => {}
    }
    Ok(response)
}

async fn forward(shared: &Shared, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().context("a request without a path")?;
    let mut headers = parts.headers;
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    let url = format!("http://{}{target}", shared.upstream);
    let sent =
        shared.client.request(parts.method, url).headers(headers).body(reqwest::Body::wrap(body)).send();
    let response: Response<reqwest::Body> = sent.await?.into();
    let mut response = response.map(http_body_util::BodyExt::boxed_unsync);
    response.headers_mut().remove(header::CONNECTION);
    Ok(response)
}

/// An answer of the proxy's own.
fn made_up(status: u16, retry_after: Option<u64>, body: Option<&serde_json::Value>) -> Response<Body> {
    let text = body.map_or_else(|| "<html>a proxy's page</html>".to_owned(), ToString::to_string);
    let full = Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(full.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn trickle(body: Body, size: usize, every: Duration) -> Body {
    let pieces = body.into_data_stream().flat_map(move |piece| {
        let pieces = match piece {
            Ok(mut data) => std::iter::from_fn(move || {
                let size = size.max(1).min(data.len());
                (size > 0).then(|| Ok(data.split_to(size)))
            })
            .collect(),
            Err(error) => vec![Err(error)],
        };
        futures_util::stream::iter(pieces)
    });
    let paced = pieces.then(move |piece| async move {
        sleep(every).await;
        piece.map(Frame::data)
    });
    StreamBody::new(paced).boxed_unsync()
}

/// A connection that can be cut.
struct Line {
    cut: CancellationToken,
    /// Bytes that may still go to the client before it is.
    left: AtomicUsize,
}

impl Line {
    /// Cuts it; there is nobody to answer then.
    async fn cut<T>(&self) -> T {
        self.cut.cancel();
        pending().await
    }
}

/// The stream of a connection that ends after so many bytes.
struct Counted {
    stream: TcpStream,
    line: Arc<Line>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let left = self.line.left.load(Ordering::SeqCst);
        if left == 0 {
            self.line.cut.cancel();
            return Poll::Pending;
        }
        let written =
            std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &data[..data.len().min(left)]))?;
        if left != usize::MAX {
            self.line.left.store(left - written, Ordering::SeqCst);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
