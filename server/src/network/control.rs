//! The server's end of a gateway's control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use forkyard_gateway::control::{FromGateway, ToGateway};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec};

use crate::vmm::socket;

/// Longest line that is taken, in bytes: an event has two names of 253. A gateway that a guest took over may send anything.
const MAX_LINE: usize = 16 * 1024;

/// How long a gateway may take to take a line in: it does nothing else meanwhile that lasts.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection to a gateway.
pub struct Control {
    lines: FramedRead<OwnedReadHalf, LinesCodec>,
    writer: OwnedWriteHalf,
}

impl Control {
    /// Connects; the one before is cut off.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let (reader, writer) = socket::connect(path).await?.into_split();
        Ok(Self { lines: FramedRead::new(reader, LinesCodec::new_with_max_length(MAX_LINE)), writer })
    }

    /// What the gateway says next; an error once it is gone. May be given up and asked again.
    pub async fn hear(&mut self) -> io::Result<FromGateway> {
        let line = self.lines.next().await.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(io::Error::other)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Says something.
    pub async fn say(&mut self, message: &ToGateway) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        timeout(DEADLINE, self.writer.write_all(&line)).await?
    }
}
