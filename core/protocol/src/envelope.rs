//! Enveloped messages, as gRPC and Connect frame them: one byte, a big-endian `u32` length, that many bytes.
//! (<https://connectrpc.com/docs/protocol#streaming-request>; the byte holds our frame kind instead of their flags.)

use crate::{ErrorBody, ExitStatus, ProcessInfo};

/// Bytes before an envelope's payload.
pub const ENVELOPE_HEADER_LEN: usize = 5;

/// Largest payload of one envelope, in bytes; a longer one is refused before it is buffered.
pub const MAX_ENVELOPE_LEN: usize = 1024 * 1024;

/// One envelope: a kind and its payload, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Which [`Frame`] the payload is.
    pub kind: u8,
    /// The payload.
    pub payload: &'a [u8],
}

/// A stream that does not follow the format.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The announced length is over [`MAX_ENVELOPE_LEN`].
    #[error("an envelope of {0} bytes is over the limit of {MAX_ENVELOPE_LEN}")]
    TooLong(usize),
    /// A kind that this version does not know.
    #[error("unknown envelope kind {0}")]
    UnknownKind(u8),
    /// The payload is not the JSON of its kind.
    #[error("malformed envelope: {0}")]
    Json(#[from] serde_json::Error),
}

/// What a process's output stream consists of, in this order: `Started`, output of both streams in the order in which it
/// was read, `Exited`. A stream that ends without `Exited` or `Failed` was cut, and can be taken up again at the offsets reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Kind 0: bytes the process wrote to standard output.
    Stdout(Vec<u8>),
    /// Kind 1: bytes the process wrote to standard error.
    Stderr(Vec<u8>),
    /// Kind 2: the process has ended; no frame follows.
    Exited(ExitStatus),
    /// Kind 3: the stream ends for another reason; no frame follows.
    Failed(ErrorBody),
    /// Kind 4: nothing; sent when nothing else was for a while, so that a dead connection is noticed.
    KeepAlive,
    /// Kind 5: the process, as it stands when the stream starts.
    Started(ProcessInfo),
    /// Kind 6: so many bytes of standard output and of standard error were pushed out of the ring before they could be sent.
    Dropped {
        /// Bytes of standard output.
        stdout: u64,
        /// Bytes of standard error.
        stderr: u64,
    },
}

#[derive(serde::Serialize, serde::Deserialize)]
struct DroppedBody {
    stdout: u64,
    stderr: u64,
}

impl Frame {
    /// The frame in its envelope.
    pub fn encode(&self) -> Vec<u8> {
        // Plain structs of strings and numbers: their JSON cannot fail.
        fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
            serde_json::to_vec(value).unwrap_or_default()
        }
        match self {
            Self::Stdout(data) => encode_envelope(0, data),
            Self::Stderr(data) => encode_envelope(1, data),
            Self::Exited(status) => encode_envelope(2, &json(status)),
            Self::Failed(error) => encode_envelope(3, &json(error)),
            Self::KeepAlive => encode_envelope(4, &[]),
            Self::Started(info) => encode_envelope(5, &json(info)),
            Self::Dropped { stdout, stderr } => {
                encode_envelope(6, &json(&DroppedBody { stdout: *stdout, stderr: *stderr }))
            }
        }
    }

    /// The frame that an envelope holds.
    pub fn decode(envelope: Envelope<'_>) -> Result<Self, EnvelopeError> {
        let payload = envelope.payload;
        Ok(match envelope.kind {
            0 => Self::Stdout(payload.to_vec()),
            1 => Self::Stderr(payload.to_vec()),
            2 => Self::Exited(serde_json::from_slice(payload)?),
            3 => Self::Failed(serde_json::from_slice(payload)?),
            4 => Self::KeepAlive,
            5 => Self::Started(serde_json::from_slice(payload)?),
            6 => {
                let body: DroppedBody = serde_json::from_slice(payload)?;
                Self::Dropped { stdout: body.stdout, stderr: body.stderr }
            }
            other => return Err(EnvelopeError::UnknownKind(other)),
        })
    }
}

/// A payload in its envelope. The payload must be at most [`MAX_ENVELOPE_LEN`] bytes long.
pub fn encode_envelope(kind: u8, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= MAX_ENVELOPE_LEN);
    let mut out = Vec::with_capacity(ENVELOPE_HEADER_LEN + payload.len());
    out.push(kind);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Takes a byte stream apart into frames, whatever the pieces in which it comes. Holds at most one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, data: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(data);
    }

    /// The next whole frame, or `None` until more bytes come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, EnvelopeError> {
        let rest = &self.buffer[self.start..];
        let Some((header, body)) = rest.split_at_checked(ENVELOPE_HEADER_LEN) else { return Ok(None) };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > MAX_ENVELOPE_LEN {
            return Err(EnvelopeError::TooLong(length));
        }
        let Some(payload) = body.get(..length) else { return Ok(None) };
        let frame = Frame::decode(Envelope { kind: header[0], payload })?;
        self.start += ENVELOPE_HEADER_LEN + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cutting() {
        let frames = [
            Frame::Stdout(vec![0, 255, 10]),
            Frame::KeepAlive,
            Frame::Stderr(b"e".to_vec()),
            Frame::Dropped { stdout: 7, stderr: 0 },
            Frame::Exited(ExitStatus { exit_code: Some(3), ..ExitStatus::default() }),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for step in 1..=bytes.len() {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "in pieces of {step}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_at_its_header() {
        let mut decoder = Decoder::new();
        decoder.push(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(decoder.next_frame(), Err(EnvelopeError::TooLong(_))));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let mut decoder = Decoder::new();
        decoder.push(&encode_envelope(99, b""));
        assert!(matches!(decoder.next_frame(), Err(EnvelopeError::UnknownKind(99))));
    }
}
