//! A connection to a port in a machine.

use std::pin::Pin;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorCode, Result};

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

/// A connection to a port in a machine. Shutting it down ends what goes there, while what comes from there is read on. It breaks
/// off where the machine is suspended or ends; a fork does not have it.
pub struct Tunnel {
    pub(crate) from: Pin<Box<dyn AsyncRead + Send + Sync>>,
    pub(crate) to: DuplexStream,
}

/// A [`Tunnel`] as bindings hold it: one may read while another writes and a third closes it.
#[derive(Clone)]
pub struct SharedTunnel {
    from: Arc<Mutex<Option<ReadHalf<Tunnel>>>>,
    to: Arc<Mutex<Option<WriteHalf<Tunnel>>>>,
    /// What has come and was not taken: a wait that is dropped as it ends leaves it to the next.
    ahead: Arc<SyncMutex<Bytes>>,
    closing: CancellationToken,
}

impl Tunnel {
    /// For bindings, whose objects many use at once.
    pub fn share(self) -> SharedTunnel {
        let (from, to) = tokio::io::split(self);
        SharedTunnel {
            from: Arc::new(Mutex::new(Some(from))),
            to: Arc::new(Mutex::new(Some(to))),
            ahead: Arc::default(),
            closing: CancellationToken::new(),
        }
    }
}

impl SharedTunnel {
    /// Waits until something has come, or nothing more will; answers which. Dropped, it loses nothing.
    pub async fn has_more(&self) -> Result<bool> {
        let mut from = self.from.lock().await;
        if !self.ahead().is_empty() {
            return Ok(true);
        }
        let Some(from) = from.as_mut() else { return Ok(false) };
        let mut buffer = BytesMut::with_capacity(PIECE);
        tokio::select! {
            biased;
            () = self.closing.cancelled() => return Ok(false),
            read = from.read_buf(&mut buffer) => read.map_err(broken)?,
        };
        let has_more = !buffer.is_empty();
        *self.ahead() = buffer.freeze();
        Ok(has_more)
    }

    /// What has come already, at most so many bytes; empty where another reader was faster.
    pub fn take(&self, limit: usize) -> Bytes {
        let mut ahead = self.ahead();
        let size = ahead.len().min(limit);
        ahead.split_to(size)
    }

    /// What comes, at most so many bytes; empty at its end, or once it was closed.
    pub async fn read(&self, limit: usize) -> Result<Bytes> {
        while self.has_more().await? {
            let data = self.take(limit.max(1));
            if !data.is_empty() {
                return Ok(data);
            }
        }
        Ok(Bytes::new())
    }

    /// Sends as much as there is room for, once there is some, and answers how many bytes. Dropped, it has sent nothing. It needs
    /// no runtime.
    pub async fn write(&self, data: &[u8]) -> Result<usize> {
        let mut to = self.to.lock().await;
        let to = to.as_mut().ok_or_else(closed)?;
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(closed()),
            written = to.write(data) => written.map_err(broken),
        }
    }

    /// Sends all of it.
    pub async fn write_all(&self, data: &[u8]) -> Result<()> {
        let mut to = self.to.lock().await;
        let to = to.as_mut().ok_or_else(closed)?;
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(closed()),
            written = to.write_all(data) => written.map_err(broken),
        }
    }

    /// Ends what goes there; what comes from there is read on.
    pub async fn close_write(&self) -> Result<()> {
        match self.to.lock().await.take() {
            Some(mut to) => to.shutdown().await.map_err(broken),
            None => Ok(()),
        }
    }

    /// Ends it: a read that is under way finds the end, a write fails.
    pub async fn close(&self) {
        self.closing.cancel();
        self.from.lock().await.take();
        self.to.lock().await.take();
        self.ahead().clear();
    }

    fn ahead(&self) -> MutexGuard<'_, Bytes> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> Error {
    Error::new(ErrorCode::FailedPrecondition, "the connection was closed")
}

fn broken(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::new(ErrorCode::Connection, format!("the connection broke off: {error}")),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.from.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.to).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// One, and the two ends that are the machine's: what comes from there, what goes there.
    fn tunnel(room: usize) -> (SharedTunnel, DuplexStream, DuplexStream) {
        let (from, machine_says) = tokio::io::duplex(room);
        let (to, machine_hears) = tokio::io::duplex(room);
        (Tunnel { from: Box::pin(from), to }.share(), machine_says, machine_hears)
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_loses_nothing() {
        let (tunnel, mut machine, _hears) = tunnel(16);
        assert!(tunnel.has_more().now_or_never().is_none());
        machine.write_all(b"abc").await.unwrap();
        // It ends, and nobody takes what it found.
        assert!(tunnel.has_more().await.unwrap());
        machine.write_all(b"def").await.unwrap();
        drop(machine);
        assert_eq!(tunnel.read(2).await.unwrap(), "ab");
        assert_eq!(tunnel.read(9).await.unwrap(), "c");
        assert_eq!(tunnel.read(9).await.unwrap(), "def");
        assert_eq!(tunnel.read(9).await.unwrap(), "");
    }

    #[tokio::test]
    async fn closing_it_ends_what_is_under_way() {
        let (tunnel, mut machine, mut hears) = tunnel(4);
        let reading = tokio::spawn({
            let tunnel = tunnel.clone();
            async move { tunnel.read(9).await }
        });
        let writing = tokio::spawn({
            let tunnel = tunnel.clone();
            async move { tunnel.write_all(b"more than there is room for").await }
        });
        let mut heard = [0; 4];
        hears.read_exact(&mut heard).await.unwrap();
        timeout(PATIENCE, tunnel.close()).await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), "");
        assert_eq!(writing.await.unwrap().unwrap_err().code, ErrorCode::FailedPrecondition);
        assert_eq!(tunnel.write(b"x").await.unwrap_err().code, ErrorCode::FailedPrecondition);
        assert_eq!(tunnel.read(9).await.unwrap(), "");
        // The machine sees that as well.
        timeout(PATIENCE, hears.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
        assert!(machine.write_all(b"x").await.is_err());
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (tunnel, mut machine, mut hears) = tunnel(4);
        assert_eq!(tunnel.write(b"abcdef").await.unwrap(), 4);
        assert!(tunnel.write(b"g").now_or_never().is_none(), "there is no room");
        tunnel.close_write().await.unwrap();
        tunnel.close_write().await.unwrap();
        assert_eq!(tunnel.write_all(b"x").await.unwrap_err().code, ErrorCode::FailedPrecondition);
        let mut heard = Vec::new();
        timeout(PATIENCE, hears.read_to_end(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, b"abcd");
        machine.write_all(b"yes").await.unwrap();
        assert_eq!(tunnel.read(9).await.unwrap(), "yes");
        drop(machine);
        assert_eq!(tunnel.read(9).await.unwrap(), "");
    }
}
