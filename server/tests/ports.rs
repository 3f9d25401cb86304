//! Ports of a real machine: by HTTP, by WebSocket, by preview, and as streams.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forkyard::{Client, Command, CreateSandbox, ErrorCode, Sandbox};
use forkyard_protocol::{CreateKey, ErrorReply};
use forkyard_server::api::{Api, router};
use forkyard_server::http_server;
use futures_util::future::join_all;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Shows requests as JSON, redirects, and echoes once it was asked to switch to WebSocket; on another port, counts bytes until
/// their end and answers with their number, and to HTTP with something else.
const SERVERS: &str = r#"
import http.server, json, socketserver, threading

class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade") == "websocket":
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "websocket")
            self.end_headers()
            while data := self.rfile.read1(65536):
                self.wfile.write(data)
            self.close_connection = True
            return
        self.answer(json.dumps({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}}).encode())

    def do_POST(self):
        self.answer(str(len(self.rfile.read(int(self.headers["Content-Length"])))).encode())

    def answer(self, body):
        self.send_response(302 if self.path == "/redirect" else 200)
        self.send_header("Location", "/there")
        self.send_header("Set-Cookie", "a=1; Path=/")
        self.send_header("Strict-Transport-Security", "max-age=1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Count(socketserver.BaseRequestHandler):
    def handle(self):
        count = 0
        while data := self.request.recv(65536):
            if data.startswith(b"GET "):
                return self.request.sendall(b"no HTTP\r\n\r\n")
            count += len(data)
        self.request.sendall(str(count).encode())

class Counter(socketserver.ThreadingTCPServer):
    request_queue_size = 64

threading.Thread(target=Counter(("127.0.0.1", 9000), Count).serve_forever).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Pages).serve_forever()
"#;

struct World {
    address: String,
    key: String,
    client: Client,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (images, dir) = common::folders();
        let service = Arc::new(common::service(&dir, images).await);
        let key = service.keys.create(CreateKey::default(), common::caller().project).await.unwrap().api_key;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stopping = CancellationToken::new();
        let api = Api { service, stopping: stopping.clone() };
        tokio::spawn(http_server::serve(listener, router(api), stopping));
        let client = Client::builder().url(format!("http://{address}")).api_key(&key).build().unwrap();
        Self { address, key, client, _dir: dir }
    }

    /// Sends a request by HTTP/1.1, over a connection of its own.
    async fn ask(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = request.header("host", &self.address).body(Full::new(body.into())).unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        let key = format!("Bearer {}", self.key);
        self.ask(Request::get(path).header("authorization", key), "").await
    }

    /// Switches to WebSocket at this path, whose request has these lines.
    async fn switch(&self, path: &str, lines: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: yard\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{lines}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(stream.read_u8().await.unwrap()));
        }
        let head = head.to_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket\r\n"), "{head}");
        stream
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    fn refused(&self) -> (ErrorCode, String) {
        let error = serde_json::from_slice::<ErrorReply>(&self.body).unwrap().error;
        assert_eq!(self.status.as_u16(), error.code.http_status());
        (error.code, error.message)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_reached_by_those_who_may() {
    let world = World::new().await;
    let request = CreateSandbox { memory_mb: Some(256), ..CreateSandbox::default() };
    let sandbox = world.client.create(request).await.unwrap();
    let early = sandbox.ports().wait(8000, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(early.code, ErrorCode::Timeout, "{early}");
    assert_eq!(sandbox.ports().list().await.unwrap(), []);
    let _servers = sandbox.start(Command::new("python3").args(["-c", SERVERS])).await.unwrap();
    sandbox.ports().wait(8000, Duration::from_mins(1)).await.unwrap();
    let ports = sandbox.ports().list().await.unwrap();
    let ports: Vec<_> = ports.iter().map(|port| (port.port, port.loopback_only)).collect();
    assert_eq!(ports, [(8000, true), (9000, true)]);
    pages(&world, &sandbox).await;
    previews(&world, &sandbox).await;
    tunnels(&sandbox).await;
    forwards(&sandbox).await;
    sandbox.terminate().await.unwrap();
}

async fn pages(world: &World, sandbox: &Sandbox) {
    let base = format!("/v1/sandboxes/{}/ports/8000", sandbox.id());
    let answer = world.get(&format!("{base}/a%2Fb/%C3%BC//?q=%20&r")).await;
    let shown = answer.json();
    assert_eq!(shown["path"], "/a%2Fb/%C3%BC//?q=%20&r", "as it was sent");
    assert_eq!(shown["headers"]["authorization"], serde_json::Value::Null, "the key stays here");
    assert!(!String::from_utf8_lossy(&answer.body).contains(&world.key));
    assert_eq!(shown["headers"]["host"], "localhost:8000");
    assert_eq!(shown["headers"]["x-forwarded-prefix"], *base);
    assert_eq!(shown["headers"]["x-forwarded-host"], *world.address);
    assert_eq!(answer.headers["set-cookie"], format!("a=1; Path={base}/"));
    assert!(!answer.headers.contains_key("strict-transport-security"));
    assert_eq!(world.get(&base).await.json()["path"], "/");
    let moved = world.get(&format!("{base}/redirect")).await;
    assert_eq!(
        (moved.status, &moved.headers["location"]),
        (StatusCode::FOUND, &format!("{base}/there").parse().unwrap())
    );
    let key = format!("Bearer {}", world.key);
    let post = Request::post(format!("{base}/x")).header("authorization", &key);
    assert_eq!(world.ask(post, vec![7; 3_000_000]).await.body, "3000000");
    let mut socket = world.switch(&format!("{base}/ws"), &format!("Authorization: {key}\r\n")).await;
    echo(&mut socket).await;
    let (code, _) = world.ask(Request::get(format!("{base}/")), "").await.refused();
    assert_eq!(code, ErrorCode::Unauthenticated);
    let (code, message) = world.get(&format!("/v1/sandboxes/{}/ports/81/", sandbox.id())).await.refused();
    assert_eq!(
        (code, message.as_str()),
        (ErrorCode::Unavailable, "nothing listens on port 81 in the machine")
    );
    for bad in ["0", "65536", "x"] {
        let (code, _) = world.get(&format!("/v1/sandboxes/{}/ports/{bad}/", sandbox.id())).await.refused();
        assert_eq!(code, ErrorCode::InvalidArgument);
    }
    let (code, message) = world.get(&format!("/v1/sandboxes/{}/ports/9000/", sandbox.id())).await.refused();
    assert_eq!(code, ErrorCode::Unavailable, "{message}");
    assert!(message.contains("gave no HTTP answer"), "{message}");
}

async fn previews(world: &World, sandbox: &Sandbox) {
    let made = sandbox.ports().preview(8000, Duration::from_mins(1)).await.unwrap();
    let path = made.url.strip_prefix(&format!("http://{}", world.address)).unwrap();
    let get = async |path: &str| world.ask(Request::get(path), "").await;
    let shown = world
        .ask(Request::get(format!("{path}in?a=b")).header("authorization", "Basic own"), "")
        .await
        .json();
    assert_eq!(
        (&shown["path"], &shown["headers"]["authorization"]),
        (&"/in?a=b".into(), &"Basic own".into())
    );
    assert_eq!(shown["headers"]["x-forwarded-prefix"], path.trim_end_matches('/'));
    let bare = get(path.trim_end_matches('/')).await;
    assert_eq!(
        (bare.status, bare.headers["location"].to_str().unwrap()),
        (StatusCode::PERMANENT_REDIRECT, path)
    );
    echo(&mut world.switch(&format!("{path}ws"), "").await).await;
    // Another port, a later end, another machine: none of it is signed.
    for (from, to) in [(".8000.", ".9000."), (".8000.", ".22."), ("sbx_0", "sbx_1")] {
        let (code, _) = get(&path.replacen(from, to, 1)).await.refused();
        assert_eq!(code, ErrorCode::Unauthenticated);
    }
    let brief = sandbox.ports().preview(8000, Duration::from_secs(1)).await.unwrap();
    let brief = brief.url.strip_prefix(&format!("http://{}", world.address)).unwrap().to_owned();
    let ended = async {
        // It ends by the clock.
        while get(&brief).await.status == StatusCode::OK {}
        get(&brief).await.refused()
    };
    let (code, message) = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    assert_eq!(code, ErrorCode::Unauthenticated);
    assert!(message.contains("has expired"), "{message}");
    let long = sandbox.ports().preview(8000, Duration::from_hours(24 * 8)).await.unwrap_err();
    assert!(long.message.contains("between 1 and 604800"), "{long}");
}

async fn tunnels(sandbox: &Sandbox) {
    let mut tunnel = sandbox.ports().connect(9000).await.unwrap();
    count(&mut tunnel, 5_000_003).await;
    let none = sandbox.ports().connect(81).await.err().expect("nothing listens");
    assert_eq!((none.code, none.errno.as_deref()), (ErrorCode::FailedPrecondition, Some("ECONNREFUSED")));
    // One that nobody reads on ends in the machine too.
    let open = sandbox.ports().connect(8000).await.unwrap();
    drop(open);
    let gone = Command::new("sh").args([
        "-c",
        "for i in $(seq 100); do grep -q ' 0100007F:1F90 [0-9A-F:]* 01 ' /proc/net/tcp || exit 0; sleep 0.1; done; exit 1",
    ]);
    assert_eq!(sandbox.run(gone).await.unwrap().exit_code, 0);
}

async fn forwards(sandbox: &Sandbox) {
    let forward = sandbox.ports().forward(9000, "127.0.0.1:0").await.unwrap();
    let address = forward.address();
    join_all((0..20).map(|number| async move {
        count(&mut TcpStream::connect(address).await.unwrap(), 10_000 + number).await;
    }))
    .await;
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(b"x").await.unwrap();
    forward.close().await;
    // It takes nobody any more, and what was open is cut.
    let cut = tokio::time::timeout(Duration::from_secs(10), open.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

async fn echo(socket: &mut TcpStream) {
    for word in ["one", "two"] {
        socket.write_all(word.as_bytes()).await.unwrap();
        let mut back = [0; 3];
        socket.read_exact(&mut back).await.unwrap();
        assert_eq!(back, word.as_bytes());
    }
    socket.shutdown().await.unwrap();
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
}

/// Sends so many bytes and their end, and reads their number.
async fn count(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: usize) {
    stream.write_all(&vec![7; bytes]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, bytes.to_string());
}
