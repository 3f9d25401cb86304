//! The resolvers that the gateway asks. Hostile ones too: what does not belong to the query is as if it had not come.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{MAX_ANSWER, MAX_DATAGRAM, read_answer, upstream_query};

/// Into how many tries the whole time is cut: a datagram may be lost, a resolver gone.
const TRIES: u32 = 3;
/// How often each is asked.
const ROUNDS: usize = 2;
/// Most datagrams that are looked at for one that fits.
const MAX_STRAYS: usize = 64;

/// Resolvers, in the order in which they are asked.
#[derive(Debug)]
pub(super) struct Upstream {
    servers: Vec<SocketAddr>,
    patience: Duration,
}

impl Upstream {
    /// `whole` is how long a query may take, whoever is asked for it.
    pub(super) fn new(servers: Vec<SocketAddr>, whole: Duration) -> Self {
        Self { servers, patience: whole / TRIES }
    }

    /// The first answer that says what is there, or that nothing is; `None` if none says it. It takes a new port and a new id
    /// for each try.
    pub(super) async fn ask(&self, query: &Query) -> Option<Message> {
        for server in self.servers.iter().cycle().take(self.servers.len() * ROUNDS) {
            if let Ok(Ok(answer)) = timeout(self.patience, ask_one(*server, query)).await
                && matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
            {
                return Some(answer);
            }
        }
        None
    }
}

async fn ask_one(server: SocketAddr, query: &Query) -> io::Result<Message> {
    let message = upstream_query(query);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let answer = over_udp(server, &bytes, message.metadata.id, query).await?;
    if answer.metadata.truncation {
        return over_tcp(server, &bytes, message.metadata.id, query).await;
    }
    Ok(answer)
}

async fn over_udp(server: SocketAddr, bytes: &[u8], id: u16, query: &Query) -> io::Result<Message> {
    let any = match server.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected: the kernel drops what comes from elsewhere.
    socket.connect(server).await?;
    socket.send(bytes).await?;
    // One byte more than may come, so that what was cut off is seen to be too long.
    let mut buffer = vec![0; usize::from(MAX_DATAGRAM) + 1];
    for _ in 0..MAX_STRAYS {
        let length = socket.recv(&mut buffer).await?;
        if length <= usize::from(MAX_DATAGRAM)
            && let Some(answer) = read_answer(&buffer[..length], id, query)
        {
            return Ok(answer);
        }
    }
    Err(io::Error::other("too many datagrams that answer something else"))
}

async fn over_tcp(server: SocketAddr, bytes: &[u8], id: u16, query: &Query) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_ANSWER {
        return Err(io::Error::other("an answer that is too long"));
    }
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).await?;
    read_answer(&buffer, id, query).ok_or_else(|| io::Error::other("an answer to something else"))
}
