use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use forkyard_protocol::{ErrorBody, ErrorCode, Resource, StdinReply};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;

use super::process::Process;
use super::terminal::Terminal;
use crate::reply::os_error;

/// Writers whose places are known at once; whoever wrote the longest ago is forgotten first.
const MAX_WRITERS: usize = 64;

/// A process's input, and how far each of those who write to it has come.
pub(super) struct Input {
    sink: Option<Sink>,
    writers: Writers,
}

/// Where input goes.
pub(super) enum Sink {
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
}

/// How many bytes each writer has written. Each has a name of its own, so that two programs can type at one terminal, and each
/// of them can repeat a call whose outcome it has not heard of.
#[derive(Default)]
struct Writers {
    offsets: HashMap<String, (u64, u64)>,
    calls: u64,
}

impl Writers {
    /// How much this one has written.
    fn offset(&mut self, writer: &str) -> u64 {
        self.calls += 1;
        if let Some((offset, last)) = self.offsets.get_mut(writer) {
            *last = self.calls;
            return *offset;
        }
        if self.offsets.len() >= MAX_WRITERS {
            let oldest = self.offsets.iter().min_by_key(|(_, (_, last))| *last).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.offsets.remove(&name));
        }
        self.offsets.insert(writer.to_owned(), (0, self.calls));
        0
    }

    fn advance(&mut self, writer: &str, count: u64) {
        if let Some((offset, _)) = self.offsets.get_mut(writer) {
            *offset += count;
        }
    }
}

impl Input {
    /// An input that goes there, if anywhere.
    pub fn new(sink: Option<Sink>) -> Self {
        Self { sink, writers: Writers::default() }
    }

    /// Lets nothing more in.
    pub fn close(&mut self) {
        self.sink = None;
    }
}

impl Sink {
    async fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.write(data).await,
            Self::Terminal(terminal) => terminal.write(data).await,
        }
    }
}

impl Process {
    /// Writes to its standard input from this offset of the writer's on. What it has written already is skipped, so a call can
    /// be repeated.
    pub async fn write_stdin(
        &self,
        writer: &str,
        offset: u64,
        close: bool,
        mut body: Incoming,
    ) -> Result<StdinReply, ErrorBody> {
        let failed = |code, message: String| ErrorBody::new(code, message).about(Resource::Process);
        if close && self.spec.pty.is_some() {
            let message = "a terminal's input is not closed; send Ctrl-D (byte 4) at a line's beginning";
            return Err(failed(ErrorCode::FailedPrecondition, message.to_owned()));
        }
        let mut input = self.input.lock().await;
        let known = input.writers.offset(writer);
        if offset > known {
            let message = format!("standard input stands at {known}; {offset} would leave a gap");
            return Err(failed(ErrorCode::FailedPrecondition, message));
        }
        let (mut at, mut written) = (offset, known);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| failed(ErrorCode::InvalidArgument, error.to_string()))?;
            let Ok(mut data) = frame.into_data() else { continue };
            let skip = written.saturating_sub(at).min(data.len() as u64);
            at += data.len() as u64;
            data = data.split_off(usize::try_from(skip).unwrap_or(usize::MAX));
            while !data.is_empty() {
                let Some(sink) = input.sink.as_mut() else {
                    return Err(failed(ErrorCode::FailedPrecondition, self.why_closed()));
                };
                let count = sink
                    .write(&data)
                    .await
                    .map_err(|error| os_error(&error, Resource::Process, "standard input"))?;
                written += count as u64;
                input.writers.advance(writer, count as u64);
                data = data.split_off(count);
            }
        }
        if close {
            input.close();
        }
        Ok(StdinReply { offset: written })
    }

    fn why_closed(&self) -> String {
        if self.spec.pty.is_some() {
            return format!("process {} has ended already", self.id());
        }
        "standard input is closed; start the process with 'stdin' to have one".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_writer_has_a_place_of_its_own_and_the_oldest_is_forgotten() {
        let mut writers = Writers::default();
        assert_eq!(writers.offset("a"), 0);
        writers.advance("a", 5);
        assert_eq!((writers.offset("b"), writers.offset("a")), (0, 5));
        for other in 0..MAX_WRITERS - 1 {
            writers.offset(&other.to_string());
        }
        assert_eq!((writers.offset("a"), writers.offsets.len()), (5, MAX_WRITERS));
        assert!(!writers.offsets.contains_key("b"));
    }
}
