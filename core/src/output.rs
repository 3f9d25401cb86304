//! A process's output as it is collected over any number of connections: decided without I/O.

use forkyard_protocol::{Decoder, ExitStatus, Frame, ProcessInfo};

use crate::error::{Error, ErrorCode, Result};

/// What a process's output brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputEvent {
    /// Bytes that it wrote to standard output.
    Stdout(Vec<u8>),
    /// Bytes that it wrote to standard error.
    Stderr(Vec<u8>),
    /// So many bytes were lost: the process wrote more than is kept while nobody read.
    Dropped {
        /// Bytes of standard output.
        stdout: u64,
        /// Bytes of standard error.
        stderr: u64,
    },
    /// It has ended; nothing follows.
    Exited(ExitStatus),
}

/// How far a reader is. A connection that is cut is taken up at [`Progress::offsets`], so nothing comes twice and nothing
/// is left out.
#[derive(Debug, Default)]
pub struct Progress {
    decoder: Decoder,
    stdout: u64,
    stderr: u64,
    info: Option<ProcessInfo>,
    ended: bool,
}

impl Progress {
    /// A reader that goes on from these bytes of standard output and standard error.
    pub fn from_offsets(stdout: u64, stderr: u64) -> Self {
        Self { stdout, stderr, ..Self::default() }
    }

    /// Bytes of standard output and of standard error that were seen.
    pub fn offsets(&self) -> (u64, u64) {
        (self.stdout, self.stderr)
    }

    /// Forgets what is left of a connection that was cut: a frame that was not whole comes again on the next.
    pub fn reconnect(&mut self) {
        self.decoder = Decoder::new();
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, data: &[u8]) {
        self.decoder.push(data);
    }

    /// The process as it stood when the stream began.
    pub fn info(&self) -> Option<&ProcessInfo> {
        self.info.as_ref()
    }

    /// Whether the process's end was seen.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next event, or `None` until more bytes come.
    pub fn next_event(&mut self) -> Result<Option<OutputEvent>> {
        loop {
            let frame = self.decoder.next_frame();
            let frame = frame.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
            return Ok(Some(match frame {
                None => return Ok(None),
                Some(Frame::KeepAlive) => continue,
                Some(Frame::Started(info)) => {
                    self.info = Some(info);
                    continue;
                }
                Some(Frame::Stdout(data)) => {
                    self.stdout += data.len() as u64;
                    OutputEvent::Stdout(data)
                }
                Some(Frame::Stderr(data)) => {
                    self.stderr += data.len() as u64;
                    OutputEvent::Stderr(data)
                }
                Some(Frame::Dropped { stdout, stderr }) => {
                    self.stdout += stdout;
                    self.stderr += stderr;
                    OutputEvent::Dropped { stdout, stderr }
                }
                Some(Frame::Exited(status)) => {
                    self.ended = true;
                    OutputEvent::Exited(status)
                }
                Some(Frame::Failed(error)) => return Err(error.into()),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use forkyard_protocol::ErrorBody;

    use super::*;

    fn events(progress: &mut Progress) -> Vec<OutputEvent> {
        std::iter::from_fn(|| progress.next_event().unwrap()).collect()
    }

    #[test]
    fn a_cut_in_the_middle_of_a_frame_loses_nothing() {
        let mut progress = Progress::default();
        progress.push(&Frame::Stdout(b"abc".to_vec()).encode());
        progress.push(&Frame::Stdout(b"def".to_vec()).encode()[..6]);
        assert_eq!(events(&mut progress), [OutputEvent::Stdout(b"abc".to_vec())]);
        assert_eq!(progress.offsets(), (3, 0));
        progress.reconnect();
        progress.push(&Frame::Stdout(b"def".to_vec()).encode());
        progress.push(&Frame::Dropped { stdout: 4, stderr: 1 }.encode());
        progress.push(&Frame::Exited(ExitStatus::default()).encode());
        assert_eq!(events(&mut progress).len(), 3);
        assert_eq!((progress.offsets(), progress.has_ended()), ((10, 1), true));
    }

    #[test]
    fn a_lost_machine_is_an_error() {
        let mut progress = Progress::default();
        progress.push(&Frame::Failed(ErrorBody::new(ErrorCode::SandboxLost, "gone")).encode());
        assert_eq!(progress.next_event().unwrap_err().code, ErrorCode::SandboxLost);
    }
}
