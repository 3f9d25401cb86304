use forkyard_protocol::{ErrorBody, ErrorCode, ProcessId, ProcessSpec, PtySize, RawPath, SignalRequest};
use http::{Method, Request, header};

use super::{GuestBody, full};

/// Where a stream of output is taken up: bytes of each stream that the caller has already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Bytes of standard output.
    pub stdout: u64,
    /// Bytes of standard error.
    pub stderr: u64,
}

/// What can be asked of a guest. Its answer is passed on as it comes.
pub enum GuestCall {
    /// Starts a process, or finds the one of the same id; with offsets, streams its output.
    StartProcess(Box<ProcessSpec>, Option<Offsets>),
    /// Lists processes.
    ListProcesses,
    /// Shows a process, waiting up to so many milliseconds for its end.
    GetProcess(ProcessId, u64),
    /// Streams a process's output.
    Output(ProcessId, Offsets),
    /// Sends a signal.
    Signal(ProcessId, SignalRequest),
    /// Changes the size of a process's terminal.
    Resize(ProcessId, PtySize),
    /// Writes to a process's standard input.
    Stdin(ProcessId, StdinPlace, GuestBody),
    /// Reads a file, or the `Range` of it.
    ReadFile(RawPath, Option<header::HeaderValue>),
    /// Replaces a file.
    WriteFile(RawPath, WriteOptions, GuestBody),
    /// Removes a file or, recursively, a folder.
    RemoveFile(RawPath, bool),
    /// A file's attributes, those of a link's target if so asked.
    StatFile(RawPath, bool),
    /// One page of a folder.
    ListFiles(RawPath, u64, Option<String>),
    /// Streams what happens in a folder and, if so asked, in all below it.
    WatchFiles(RawPath, bool),
    /// Streams a folder.
    ReadTree(RawPath),
    /// Unpacks a stream into a folder.
    WriteTree(RawPath, WriteOptions, GuestBody),
    /// Lists the ports that something listens on.
    ListPorts,
    /// Waits up to so many milliseconds until something listens on a port.
    AwaitPort(u16, u64),
    /// Connects to a port, waiting up to so many milliseconds for something to listen: the body goes there.
    Tunnel(u16, u64, GuestBody),
    /// Makes a folder.
    MakeDir(RawPath, WriteOptions),
    /// Moves a file or folder, over another if so asked.
    MoveFile(RawPath, RawPath, bool),
}

/// Where standard input is written on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StdinPlace {
    /// Bytes that the writer sent before.
    pub offset: u64,
    /// Who writes; checked.
    pub writer: Option<String>,
    /// Whether it is closed afterwards.
    pub close: bool,
}

/// How a file or folder is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub user: Option<String>,
    /// Whether missing folders above are made too.
    pub parents: bool,
}

impl GuestCall {
    /// Whether the answer is a stream of envelopes.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::StartProcess(_, Some(_)) | Self::Output(..))
    }

    /// The request as the agent understands it.
    pub fn into_request(self) -> Result<Request<GuestBody>, ErrorBody> {
        let none = || full(Vec::new());
        let (method, target, body) = match self {
            Self::StartProcess(spec, offsets) => {
                let query = offsets.map(|at| format!("?attach=true&{}", at.query())).unwrap_or_default();
                (Method::POST, format!("/processes{query}"), json(&spec)?)
            }
            Self::ListProcesses => (Method::GET, "/processes".to_owned(), none()),
            Self::GetProcess(id, wait) => (Method::GET, format!("/processes/{id}?wait_ms={wait}"), none()),
            Self::Output(id, at) => (Method::GET, format!("/processes/{id}/output?{}", at.query()), none()),
            Self::Signal(id, signal) => (Method::POST, format!("/processes/{id}/signal"), json(&signal)?),
            Self::Resize(id, size) => (Method::POST, format!("/processes/{id}/resize"), json(&size)?),
            Self::Stdin(id, place, body) => {
                (Method::PUT, format!("/processes/{id}/stdin?{}", place.query()), body)
            }
            Self::ReadFile(path, range) => {
                let mut request = build(Method::GET, &format!("/files?path={}", path.encode()), none())?;
                if let Some(range) = range {
                    request.headers_mut().insert(header::RANGE, range);
                }
                return Ok(request);
            }
            Self::WriteFile(path, options, body) => {
                (Method::PUT, format!("/files?path={}{}", path.encode(), options.query()), body)
            }
            Self::RemoveFile(path, recursive) => {
                (Method::DELETE, format!("/files?path={}&recursive={recursive}", path.encode()), none())
            }
            Self::StatFile(path, follow) => {
                (Method::GET, format!("/files/stat?path={}&follow={follow}", path.encode()), none())
            }
            Self::ListFiles(path, limit, cursor) => {
                let cursor = cursor.map(|cursor| format!("&cursor={}", encode(&cursor))).unwrap_or_default();
                (Method::GET, format!("/files/list?path={}&limit={limit}{cursor}", path.encode()), none())
            }
            Self::WatchFiles(path, recursive) => {
                (Method::GET, format!("/files/watch?path={}&recursive={recursive}", path.encode()), none())
            }
            Self::ReadTree(path) => (Method::GET, format!("/files/tree?path={}", path.encode()), none()),
            Self::WriteTree(path, options, body) => {
                (Method::PUT, format!("/files/tree?path={}{}", path.encode(), options.query()), body)
            }
            Self::ListPorts => (Method::GET, "/ports".to_owned(), none()),
            Self::AwaitPort(port, wait) => (Method::GET, format!("/tunnels/{port}?wait_ms={wait}"), none()),
            Self::Tunnel(port, wait, body) => (Method::POST, format!("/tunnels/{port}?wait_ms={wait}"), body),
            Self::MakeDir(path, options) => {
                (Method::POST, format!("/files/mkdir?path={}{}", path.encode(), options.query()), none())
            }
            Self::MoveFile(from, to, overwrite) => {
                let target =
                    format!("/files/move?from={}&to={}&overwrite={overwrite}", from.encode(), to.encode());
                (Method::POST, target, none())
            }
        };
        build(method, &target, body)
    }
}

impl Offsets {
    fn query(self) -> String {
        format!("stdout={}&stderr={}", self.stdout, self.stderr)
    }
}

impl StdinPlace {
    fn query(&self) -> String {
        let writer = self.writer.as_ref().map(|writer| format!("&writer={writer}")).unwrap_or_default();
        format!("offset={}&close={}{writer}", self.offset, self.close)
    }
}

impl WriteOptions {
    fn query(&self) -> String {
        let mode = self.mode.map(|mode| format!("&mode={mode:o}")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!("&user={}", encode(user))).unwrap_or_default();
        format!("&parents={}{mode}{user}", self.parents)
    }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn json<T: serde::Serialize>(value: &T) -> Result<GuestBody, ErrorBody> {
    serde_json::to_vec(value)
        .map(full)
        .map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))
}

fn build(method: Method, target: &str, body: GuestBody) -> Result<Request<GuestBody>, ErrorBody> {
    Request::builder()
        .method(method)
        .uri(format!("http://guest{target}"))
        .body(body)
        .map_err(|error| ErrorBody::new(ErrorCode::InvalidArgument, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(call: GuestCall) -> String {
        let request = call.into_request().unwrap();
        format!("{} {}", request.method(), request.uri().path_and_query().unwrap())
    }

    #[test]
    fn calls_keep_their_bytes() {
        let path = || RawPath::new(b"/a \xff&b".to_vec()).unwrap();
        assert_eq!(
            target(GuestCall::StatFile(path(), true)),
            "GET /files/stat?path=/a%20%FF%26b&follow=true"
        );
        let options = WriteOptions { mode: Some(0o644), user: Some("a&b".into()), parents: true };
        assert_eq!(
            target(GuestCall::MakeDir(path(), options)),
            "POST /files/mkdir?path=/a%20%FF%26b&parents=true&mode=644&user=a%26b"
        );
        let cursor = Some("x=1".to_owned());
        assert_eq!(
            target(GuestCall::ListFiles(path(), 5, cursor)),
            "GET /files/list?path=/a%20%FF%26b&limit=5&cursor=x%3D1"
        );
    }

    #[test]
    fn output_is_taken_up_where_it_was_left() {
        let id = || ProcessId::parse("prc_1").unwrap();
        let at = Offsets { stdout: 5, stderr: 7 };
        assert_eq!(target(GuestCall::Output(id(), at)), "GET /processes/prc_1/output?stdout=5&stderr=7");
        let start = GuestCall::StartProcess(Box::default(), Some(at));
        assert!(start.is_stream());
        assert_eq!(target(start), "POST /processes?attach=true&stdout=5&stderr=7");
        assert!(!GuestCall::StartProcess(Box::default(), None).is_stream());
        let place = StdinPlace { offset: 3, writer: Some("w".into()), close: false };
        assert_eq!(
            target(GuestCall::Stdin(id(), place, full(Vec::new()))),
            "PUT /processes/prc_1/stdin?offset=3&close=false&writer=w"
        );
    }
}
