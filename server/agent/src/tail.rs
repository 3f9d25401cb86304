use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use forkyard_protocol::PREAMBLE_LEN;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is remembered: a preamble, and what a reader may have taken beyond it.
const KEEP: usize = 4 * PREAMBLE_LEN;

/// A stream that remembers the last bytes that were read from it.
///
/// A host that comes back after a fork begins with a preamble while this end still has the session that was frozen with it. The
/// session takes the preamble for a fault and ends; found here, it begins the next one, and the host need not send another.
pub struct Tail<T> {
    inner: T,
    last: Vec<u8>,
}

impl<T> Tail<T> {
    /// Remembers from now on.
    pub fn new(inner: T) -> Self {
        Self { inner, last: Vec::with_capacity(2 * KEEP) }
    }

    /// The last bytes, which are then forgotten.
    pub fn take_last(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.last)
    }

    fn remember(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(KEEP)..];
        let old = (self.last.len() + new.len()).saturating_sub(KEEP).min(self.last.len());
        self.last.drain(..old);
        self.last.extend_from_slice(new);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tail<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.remember(&buf.filled()[before..]);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tail<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    /// A session's end is not the stream's: another may follow.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn the_last_bytes_are_remembered_however_they_were_read() {
        let stream: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for piece in [1, 7, KEEP, 8192] {
            let mut tail = Tail::new(stream.as_slice());
            let mut buffer = vec![0; piece];
            while tail.read(&mut buffer).await.unwrap() > 0 {}
            assert_eq!(tail.take_last(), stream[stream.len() - KEEP..]);
            assert!(tail.take_last().is_empty());
        }
    }
}
