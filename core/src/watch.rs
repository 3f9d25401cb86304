//! What happens to files in a machine, as it happens.

use std::time::Duration;

use forkyard_protocol::{ErrorReply, MAX_EVENT_LEN};
pub use forkyard_protocol::{FileEvent, FileEventKind};
use http::Method;
use tokio::time::timeout;

use crate::error::{Error, ErrorCode, Result};
use crate::files::Files;
use crate::http::Request;

/// Silence after which the connection counts as dead: the machine gives a sign of life every 15 seconds.
const SILENCE: Duration = Duration::from_mins(1);

/// Events of a watched folder, from its beginning on. Dropping it ends the watch.
pub struct Watch {
    response: reqwest::Response,
    lines: Lines,
}

impl Files<'_> {
    /// Watches a folder, with all below it if so told, and returns once it is watched: up to 8,192 folders. What is changed from
    /// then on is told in its order, and no machine is idle while it is watched. A fork does not have its original's watches.
    pub async fn watch(&self, path: impl AsRef<[u8]>, recursive: bool) -> Result<Watch> {
        let target = format!("{}&recursive={recursive}", self.target("/watch", path)?);
        let client = &self.sandbox.client;
        let response = client.inner.http.open(&Request::new(Method::GET, target), client.deadline()).await?;
        Ok(Watch { response, lines: Lines::default() })
    }
}

impl Watch {
    /// The next event; `None` once the folder itself is gone. Where the connection was cut, that is an error: whoever needs to
    /// know what happened meanwhile watches again and looks.
    pub async fn next(&mut self) -> Result<Option<FileEvent>> {
        loop {
            if let Some(line) = self.lines.next() {
                return parse(&line).map(Some);
            }
            let piece = timeout(SILENCE, self.response.chunk()).await.map_err(|_| {
                let message = format!("the machine gave no sign of life for {} seconds", SILENCE.as_secs());
                Error::new(ErrorCode::Connection, message)
            })?;
            let Some(piece) = piece? else { return Ok(None) };
            self.lines.push(&piece)?;
        }
    }
}

fn parse(line: &[u8]) -> Result<FileEvent> {
    if let Ok(reply) = serde_json::from_slice::<ErrorReply>(line) {
        return Err(reply.error.into());
    }
    serde_json::from_slice(line)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("an event cannot be read: {error}")))
}

/// Takes a stream apart into its lines, whatever the pieces in which it comes.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    start: usize,
}

impl Lines {
    fn push(&mut self, data: &[u8]) -> Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() > MAX_EVENT_LEN {
            return Err(Error::new(ErrorCode::Internal, "an event is too long"));
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// The next whole line that says something.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let rest = &self.buffer[self.start..];
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let line = rest[..end].to_vec();
            self.start += end + 1;
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_any_cutting() {
        let stream = b"\n{\"a\":1}\n\n\n{\"b\":2}\nrest";
        for step in 1..=stream.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for piece in stream.chunks(step) {
                lines.push(piece).unwrap();
                while let Some(line) = lines.next() {
                    seen.push(line);
                }
            }
            assert_eq!(seen, [&b"{\"a\":1}"[..], b"{\"b\":2}"], "in pieces of {step}");
        }
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_EVENT_LEN + 1]).unwrap();
        assert!(lines.push(b"x").is_err());
    }
}
