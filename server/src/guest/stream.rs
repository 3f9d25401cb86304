use bytes::{Bytes, BytesMut};
use forkyard_protocol::{ENVELOPE_HEADER_LEN, MAX_ENVELOPE_LEN};

/// Envelope kinds that end a stream (`Frame::Exited`, `Frame::Failed`).
const LAST_KINDS: [u8; 2] = [2, 3];

/// Passes a stream of envelopes on in whole ones, so that another can be appended wherever it breaks off. Holds at most
/// one envelope that is not whole yet.
#[derive(Debug, Default)]
pub struct WholeEnvelopes {
    buffer: BytesMut,
    ended: bool,
}

impl WholeEnvelopes {
    /// Adds bytes as they came; answers all whole envelopes, or an error where the stream is none of envelopes.
    pub fn push(&mut self, data: &[u8]) -> Result<Bytes, &'static str> {
        self.buffer.extend_from_slice(data);
        let mut whole = 0;
        while let Some(header) = self.buffer.get(whole..whole + ENVELOPE_HEADER_LEN) {
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            if length > MAX_ENVELOPE_LEN {
                return Err("the guest sent an envelope that is too long");
            }
            let end = whole + ENVELOPE_HEADER_LEN + length;
            if end > self.buffer.len() {
                break;
            }
            self.ended |= LAST_KINDS.contains(&header[0]);
            whole = end;
        }
        Ok(self.buffer.split_to(whole).freeze())
    }

    /// Whether the last envelope of a stream has been seen.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use forkyard_protocol::{ExitStatus, Frame};

    use super::*;

    #[test]
    fn only_whole_envelopes_pass() {
        let frames = [Frame::Stdout(vec![7; 300]), Frame::KeepAlive, Frame::Exited(ExitStatus::default())];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let mut relay = WholeEnvelopes::default();
        let mut passed = Vec::new();
        for byte in &bytes {
            assert!(!relay.has_ended());
            passed.extend_from_slice(&relay.push(std::slice::from_ref(byte)).unwrap());
        }
        assert_eq!(passed, bytes);
        assert!(relay.has_ended());
    }

    #[test]
    fn a_guest_cannot_make_the_server_hold_more() {
        assert!(WholeEnvelopes::default().push(&[0, 255, 255, 255, 255]).is_err());
    }
}
