//! The agent on this host, spoken to over a Unix socket as the server speaks to it over a port.

mod folder;
mod managed;
mod terminal;
mod watch;

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use bytes::Bytes;
use forkyard_protocol::{
    Decoder, ECHO_LEN, ErrorCode, ErrorReply, ExitStatus, FileList, FileStat, Frame, PREAMBLE_LEN,
    PREAMBLE_MAGIC, ProcessInfo, RawPath, StdinReply, echo,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

struct Agent {
    child: Child,
    dir: tempfile::TempDir,
}

type Session = SendRequest<Full<Bytes>>;

impl Agent {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Signals as in a guest: what is started in the background ignores some, and so would all that the agent starts.
        let child = Command::new("env")
            .args(["--default-signal=HUP,INT,QUIT", env!("CARGO_BIN_EXE_forkyard-agent"), "--listen"])
            .arg(dir.path().join("agent"))
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    async fn session(&self) -> Session {
        let socket = self.dir.path().join("agent");
        let mut stream = loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let mut preamble = [3; PREAMBLE_LEN];
        preamble[..16].copy_from_slice(&PREAMBLE_MAGIC);
        stream.write_all(b"noise of an earlier session").await.unwrap();
        stream.write_all(&preamble).await.unwrap();
        let mut answer = [0; ECHO_LEN];
        stream.read_exact(&mut answer).await.unwrap();
        let uptime_ns = u64::from_be_bytes(answer[PREAMBLE_LEN..].try_into().unwrap());
        assert_eq!(answer, echo(preamble, uptime_ns));
        assert!(uptime_ns > 0);
        let connection = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (session, connection) = connection.await.unwrap();
        tokio::spawn(connection);
        session
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A host that left without a word, as in a fork, is heard in the middle of the session that it left.
#[tokio::test]
async fn a_preamble_in_the_middle_of_a_session_begins_the_next() {
    let agent = Agent::start();
    agent.session().await;
    let mut stream = UnixStream::connect(agent.dir.path().join("agent")).await.unwrap();
    for nonce in [4, 5] {
        let mut preamble = [nonce; PREAMBLE_LEN];
        preamble[..16].copy_from_slice(&PREAMBLE_MAGIC);
        stream.write_all(&preamble).await.unwrap();
        let mut seen = Vec::new();
        // What the session before still had to say comes first.
        while !seen.ends_with(&preamble) {
            seen.push(stream.read_u8().await.unwrap());
        }
    }
}

async fn send(session: &Session, request: &str, body: impl Into<Bytes>) -> http::Response<Incoming> {
    let (method, target) = request.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(format!("http://guest{target}"));
    let mut session = session.clone();
    session.ready().await.unwrap();
    session.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
}

async fn call<T: serde::de::DeserializeOwned>(session: &Session, request: &str, body: impl Into<Bytes>) -> T {
    let response = send(session, request, body).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{request}: {status} {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

async fn refused(session: &Session, request: &str, body: impl Into<Bytes>) -> ErrorReply {
    let response = send(session, request, body).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let reply: ErrorReply = serde_json::from_slice(&body).unwrap();
    assert_eq!(reply.error.code.http_status(), status.as_u16());
    reply
}

fn spec(id: &str, script: &str) -> Value {
    json!({ "id": id, "command": "sh", "args": ["-c", script] })
}

#[derive(Default)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    dropped: u64,
    exit: Option<ExitStatus>,
}

/// Reads a stream of frames until its end, or until so many bytes of standard output have come.
async fn read(response: http::Response<Incoming>, at_most: usize) -> Output {
    assert_eq!(response.status(), StatusCode::OK);
    let (mut body, mut decoder, mut output) = (response.into_body(), Decoder::new(), Output::default());
    while let Some(frame) = body.frame().await {
        decoder.push(frame.unwrap().data_ref().unwrap());
        while let Some(frame) = decoder.next_frame().unwrap() {
            assert!(output.exit.is_none(), "a frame after the last");
            match frame {
                Frame::Stdout(data) => output.stdout.extend(data),
                Frame::Stderr(data) => output.stderr.extend(data),
                Frame::Dropped { stdout, .. } => output.dropped += stdout,
                Frame::Exited(status) => output.exit = Some(status),
                Frame::Started(_) | Frame::KeepAlive => {}
                Frame::Failed(error) => panic!("{error}"),
            }
        }
        if output.stdout.len() >= at_most {
            break;
        }
    }
    output
}

async fn run(session: &Session, spec: Value) -> Output {
    let response = send(session, "POST /processes?attach=true", spec.to_string()).await;
    let output = read(response, usize::MAX).await;
    assert!(output.exit.is_some(), "the stream was cut");
    output
}

#[tokio::test]
async fn output_codes_and_signals_arrive_exactly() {
    let agent = Agent::start();
    let session = agent.session().await;
    let output = run(&session, spec("prc_1", r"printf 'a\000\377'; printf e >&2; exit 7")).await;
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"a\0\xff"[..], &b"e"[..]));
    let exit = output.exit.unwrap();
    assert_eq!((exit.exit_code, exit.signal, exit.stdout_bytes, exit.stderr_bytes), (Some(7), None, 3, 1));
    let exit = run(&session, spec("prc_2", "kill -9 $$")).await.exit.unwrap();
    assert_eq!((exit.exit_code, exit.signal), (None, Some(9)));
    let output = run(&session, spec("prc_3", "true")).await;
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
}

#[tokio::test]
async fn ten_megabytes_arrive_whole_and_a_cut_is_taken_up() {
    let agent = Agent::start();
    let session = agent.session().await;
    let script =
        "i=0; while [ $i -lt 160 ]; do head -c 65536 /dev/zero | tr '\\0' a; i=$((i+1)); done; echo done >&2";
    let response = send(&session, "POST /processes?attach=true", spec("prc_1", script).to_string()).await;
    let first = read(response, 3_000_000).await;
    // The connection is cut here: its session is dropped with whatever was under way.
    drop(session);
    let session = agent.session().await;
    let target = format!("POST /processes?attach=true&stdout={}&stderr=0", first.stdout.len());
    let rest = read(send(&session, &target, spec("prc_1", script).to_string()).await, usize::MAX).await;
    assert_eq!((first.stdout.len() + rest.stdout.len(), rest.dropped), (160 * 65536, 0));
    assert_eq!(rest.exit.unwrap().exit_code, Some(0));
    assert_eq!(rest.stderr, b"done\n");
}

#[tokio::test]
async fn a_repeated_start_is_the_same_process() {
    let agent = Agent::start();
    let session = agent.session().await;
    let script = format!("echo once >> {}", agent.path("log"));
    run(&session, spec("prc_1", &script)).await;
    run(&session, spec("prc_1", &script)).await;
    assert_eq!(std::fs::read_to_string(agent.path("log")).unwrap(), "once\n");
    let other = refused(&session, "POST /processes", spec("prc_1", "true").to_string()).await;
    assert_eq!(other.error.code, ErrorCode::AlreadyExists);
}

#[tokio::test]
async fn without_a_reader_the_oldest_output_goes_and_the_process_goes_on() {
    let agent = Agent::start();
    let session = agent.session().await;
    let script = "head -c 5000000 /dev/zero; echo end";
    let _: ProcessInfo = call(&session, "POST /processes", spec("prc_1", script).to_string()).await;
    let info: ProcessInfo = call(&session, "GET /processes/prc_1?wait_ms=20000", "").await;
    assert_eq!(info.exit.unwrap().stdout_bytes, 5_000_004);
    let output = read(send(&session, "GET /processes/prc_1/output", "").await, usize::MAX).await;
    assert!(output.dropped > 1_000_000);
    assert_eq!(output.dropped + output.stdout.len() as u64, 5_000_004);
    assert!(output.stdout.ends_with(b"end\n"));
}

#[tokio::test]
async fn time_is_up_even_for_what_ignores_it() {
    let agent = Agent::start();
    let session = agent.session().await;
    let mut stubborn = spec("prc_1", "trap '' TERM; echo on; while :; do sleep 1; done");
    stubborn["timeout_ms"] = json!(200);
    let output = run(&session, stubborn).await;
    let exit = output.exit.unwrap();
    assert_eq!((exit.signal, exit.timed_out, output.stdout.as_slice()), (Some(9), true, &b"on\n"[..]));
}

#[tokio::test]
async fn children_that_stay_behind_hold_up_nothing() {
    let agent = Agent::start();
    let session = agent.session().await;
    let output = run(&session, spec("prc_1", "sleep 30 & echo started")).await;
    assert_eq!(output.stdout, b"started\n");
    assert_eq!(output.exit.unwrap().exit_code, Some(0));
    let ended = refused(&session, "POST /processes/prc_1/signal", r#"{"signal": 9}"#).await;
    assert_eq!(ended.error.code, ErrorCode::FailedPrecondition);
}

#[tokio::test]
async fn standard_input_is_written_once() {
    let agent = Agent::start();
    let session = agent.session().await;
    let spec = json!({ "id": "prc_1", "command": "cat", "stdin": true });
    let _: ProcessInfo = call(&session, "POST /processes", spec.to_string()).await;
    let put =
        async |target: &str, body: &'static str| call::<StdinReply>(&session, target, body).await.offset;
    assert_eq!(put("PUT /processes/prc_1/stdin?offset=0", "hello").await, 5);
    assert_eq!(put("PUT /processes/prc_1/stdin?offset=0", "hello").await, 5);
    assert_eq!(put("PUT /processes/prc_1/stdin?offset=3", "lo wor").await, 9);
    let gap = refused(&session, "PUT /processes/prc_1/stdin?offset=20", "x").await;
    assert_eq!(gap.error.code, ErrorCode::FailedPrecondition);
    assert_eq!(put("PUT /processes/prc_1/stdin?offset=9&close=true", "ld").await, 11);
    let output = read(send(&session, "GET /processes/prc_1/output", "").await, usize::MAX).await;
    assert_eq!(output.stdout, b"hello world");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let agent = Agent::start();
    let session = agent.session().await;
    let start = async |spec: Value| refused(&session, "POST /processes", spec.to_string()).await.error;
    let missing = start(json!({ "id": "prc_1", "command": "no-such-program" })).await;
    assert_eq!((missing.code, missing.errno.as_deref()), (ErrorCode::NotFound, Some("ENOENT")));
    let user = start(json!({ "id": "prc_1", "command": "true", "user": "nobody-of-that-name" })).await;
    assert!(user.message.contains("nobody-of-that-name"));
    let cwd = start(json!({ "id": "prc_1", "command": "true", "cwd": "/no/such/folder" })).await;
    assert!(cwd.message.contains("/no/such/folder"));
    assert_eq!(refused(&session, "GET /processes/prc_1", "").await.error.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn files_of_any_name_move_both_ways() {
    let agent = Agent::start();
    let session = agent.session().await;
    for name in [&b"plain"[..], b"a b\nc", b"\xff\xfe", "ü".as_bytes()] {
        let path = RawPath::new([agent.path("").as_bytes(), name].concat()).unwrap().encode();
        let stat: FileStat = call(&session, &format!("PUT /files?path={path}&mode=600"), "0123456789").await;
        assert_eq!((stat.size, stat.mode), (10, 0o600));
        let part = Request::get(format!("http://guest/files?path={path}")).header("range", "bytes=3-5");
        let response = session.clone().send_request(part.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(response.headers()["content-range"], "bytes 3-5/10");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "345");
    }
    let listed = format!("GET /files/list?path={}&limit=3", agent.path(""));
    let page: FileList = call(&session, &listed, "").await;
    assert_eq!(page.entries.len(), 3);
    let cursor = page.next_cursor.unwrap();
    let rest: FileList = call(&session, &format!("{listed}&cursor={cursor}"), "").await;
    assert_eq!((rest.entries.len(), rest.next_cursor), (2, None));
    assert_eq!(rest.entries[1].name_base64.as_deref(), Some("//4="));
}

#[tokio::test]
async fn a_files_mode_is_not_its_new_folders() {
    let agent = Agent::start();
    let session = agent.session().await;
    let folder = agent.path("new");
    let file: FileStat =
        call(&session, &format!("PUT /files?path={folder}/f&parents=true&mode=640"), "1").await;
    assert_eq!(file.mode, 0o640);
    let above: FileStat = call(&session, &format!("GET /files/stat?path={folder}"), "").await;
    assert_eq!(above.mode & 0o700, 0o700);
}

#[tokio::test]
async fn folders_are_made_moved_and_removed() {
    let agent = Agent::start();
    let session = agent.session().await;
    let (a, b) = (agent.path("a"), agent.path("b"));
    let _: FileStat = call(&session, &format!("POST /files/mkdir?path={a}/x/y&parents=true"), "").await;
    let _: FileStat = call(&session, &format!("PUT /files?path={a}/x/y/f"), "1").await;
    let _: FileStat = call(&session, &format!("POST /files/move?from={a}&to={b}"), "").await;
    let code = async |request: String| refused(&session, &request, "").await.error;
    let not_empty = code(format!("DELETE /files?path={b}")).await;
    assert_eq!(not_empty.errno.as_deref(), Some("ENOTEMPTY"));
    assert_eq!(code(format!("GET /files?path={b}")).await.errno.as_deref(), Some("EISDIR"));
    assert_eq!(code(format!("GET /files/stat?path={a}")).await.code, ErrorCode::NotFound);
    assert_eq!(code(format!("POST /files/mkdir?path={b}")).await.code, ErrorCode::AlreadyExists);
    assert_eq!(send(&session, &format!("DELETE /files?path={b}&recursive=true"), "").await.status(), 204);
    assert!(!Path::new(&b).exists());
}
