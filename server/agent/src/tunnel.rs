//! Ports that programs in the guest listen on: which there are, and connections to them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use forkyard_protocol::{ErrorBody, ErrorCode, ListeningPort, PortList, Query, validate_port};
use futures_util::TryStreamExt as _;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::io::ReaderStream;

use crate::api::unknown;
use crate::reply::{Answer, internal, invalid, json, nothing};

/// Connections at once.
const MAX_TUNNELS: usize = 512;

/// How long a port may take to take a connection that it does not refuse.
const CONNECT: Duration = Duration::from_secs(10);

/// How often a port that nobody listens on is tried: the kernel tells nobody when that changes.
const RETRY: Duration = Duration::from_millis(50);

/// Longest time that one call waits for somebody to listen, in milliseconds.
const MAX_WAIT_MS: u64 = forkyard_protocol::MAX_PORT_WAIT_MS;

/// Bytes that are read from a connection at once.
const PIECE: usize = 64 * 1024;

static TUNNELS: Semaphore = Semaphore::const_new(MAX_TUNNELS);

/// Answers a call below `/ports` and `/tunnels`.
pub async fn route(method: &Method, rest: &[&str], query: &Query, request: Request<Incoming>) -> Answer {
    match (method, rest) {
        (&Method::GET, ["ports"]) => list(),
        (&Method::GET | &Method::POST, ["tunnels", port]) => {
            let port: u16 = port.parse().map_err(|_| invalid(format!("'{port}' is no port")))?;
            validate_port(port)?;
            let wait = Duration::from_millis(query.number("wait_ms", 0)?.min(MAX_WAIT_MS));
            if method == Method::GET {
                return connect(port, wait).await.map(|_| nothing());
            }
            open(port, wait, request.into_body()).await
        }
        _ => Err(unknown(method, request.uri().path())),
    }
}

/// Connects to a port of the guest's own, waiting so long for somebody to listen there. The request's body goes to it and what
/// comes from it is the answer's body, both at once; each ends where its side ends.
async fn open(port: u16, wait: Duration, body: Incoming) -> Answer {
    let permit = TUNNELS.try_acquire().map_err(|_| {
        let message = format!("{MAX_TUNNELS} connections to the machine's ports are open already");
        ErrorBody::new(ErrorCode::NoCapacity, message).retry_after_ms(1000)
    })?;
    let stream = connect(port, wait).await?;
    stream.set_nodelay(true).map_err(|error| internal(&error))?;
    let (from, to) = stream.into_split();
    tokio::spawn(send(body, to));
    let pieces = ReaderStream::with_capacity(from, PIECE).map_ok(hyper::body::Frame::data);
    // The permit is the answer's: it goes with it.
    let pieces = pieces.inspect_ok(move |_| _ = &permit);
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    Ok(response)
}

/// Passes a body on; its end shuts this half of the connection, while the other is read on.
async fn send(mut body: Incoming, mut to: OwnedWriteHalf) {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            // Whoever sent it is gone, and with it whoever reads the answer: the connection is not ended but dropped.
            to.forget();
            return;
        };
        if let Ok(data) = frame.into_data()
            && to.write_all(&data).await.is_err()
        {
            // The other half meets the same, and says so.
            return;
        }
    }
}

async fn connect(port: u16, wait: Duration) -> Result<TcpStream, ErrorBody> {
    let deadline = Instant::now() + wait;
    loop {
        let error = match connect_once(port).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::ConnectionRefused {
            let message = format!("port {port} in the machine takes no connection: {error}");
            return Err(ErrorBody::new(ErrorCode::Unavailable, message));
        }
        if Instant::now() + RETRY > deadline {
            let message = format!("nothing listens on port {port} in the machine");
            return Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).errno("ECONNREFUSED"));
        }
        sleep(RETRY).await;
    }
}

/// Servers listen on one of the two loopbacks, or on both.
pub async fn connect_once(port: u16) -> io::Result<TcpStream> {
    let deadline = Instant::now() + CONNECT;
    let mut refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        match timeout_at(deadline, TcpStream::connect(SocketAddr::new(address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            // A guest without IPv6 has no such address.
            Ok(Err(error)) if address.is_ipv6() && error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Ok(Err(error)) => refused = error,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(refused)
}

/// The ports that something listens on.
fn list() -> Answer {
    let mut ports = BTreeMap::<u16, bool>::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A kernel without IPv6 has no table of it.
        let Ok(rows) = std::fs::read_to_string(table) else { continue };
        for (port, loopback) in rows.lines().filter_map(listening) {
            *ports.entry(port).or_insert(true) &= loopback;
        }
    }
    let ports = ports.into_iter().map(|(port, loopback_only)| ListeningPort { port, loopback_only });
    json(&PortList { ports: ports.collect() })
}

/// A row of the kernel's table (`proc_net_tcp(5)`), if its socket listens: the port, and whether on a loopback alone.
fn listening(row: &str) -> Option<(u16, bool)> {
    const LISTEN: &str = "0A";
    let mut fields = row.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    // Addresses stand as words in this machine's byte order.
    let loopback = matches!(address, "0100007F" | "00000000000000000000000001000000");
    (state == LISTEN).then_some((u16::from_str_radix(port, 16).ok()?, loopback))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_is_read_from_the_kernels_table() {
        let rest = "00000000:00000000 00:00000000 00000000     0        0 19 1 0 100 0 0 10 0";
        let row =
            |local: &str, state: &str| listening(&format!("   0: {local} 00000000:0000 {state} {rest}"));
        assert_eq!(row("0100007F:1F90", "0A"), Some((8080, true)));
        assert_eq!(row("00000000:0050", "0A"), Some((80, false)));
        assert_eq!(row("00000000000000000000000001000000:0016", "0A"), Some((22, true)));
        assert_eq!(row("0100007F:1F90", "01"), None);
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue"), None);
    }
}
