use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{Mode, OFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A virtio-serial port as a stream. It ends when the host closes its side, and is whole again when the host comes back.
///
/// While the host is away the port signals a hang-up, which tokio takes for final: registered itself, it would be ready
/// for ever and spin. So an epoll of its own watches the port, edge-triggered, and tokio watches that.
pub struct Port {
    port: File,
    events: AsyncFd<OwnedFd>,
}

impl Port {
    /// Opens a port.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let port = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&events, port.as_fd(), epoll::EventData::new_u64(0), interest)?;
        // SAFETY: the descriptor is owned, so it stays open, and the same one, for as long as it is registered.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?;
        Ok(Self { port, events })
    }

    /// Resolves while the host's side is open.
    pub async fn host_present(&self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            self.take_events()?;
            ready.clear_ready();
            // Looked at after the events were taken: a change that comes later brings an event of its own.
            let mut ports = [PollFd::new(&self.port, PollFlags::IN)];
            poll(&mut ports, Some(&NOW))?;
            if !ports[0].revents().contains(PollFlags::HUP) {
                return Ok(());
            }
        }
    }

    fn take_events(&self) -> io::Result<()> {
        let mut events = Vec::with_capacity(1);
        epoll::wait(self.events.get_ref(), rustix::buffer::spare_capacity(&mut events), Some(&NOW))?;
        Ok(())
    }

    /// Tries an operation; where it would block, waits for the port's next event.
    fn attempt<T>(
        &self,
        cx: &mut Context<'_>,
        mut operation: impl FnMut(&File) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match operation(&self.port) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
            // Read and write share one waker: both are polled by the one task that serves the session.
            let mut ready = ready!(self.events.poll_read_ready(cx))?;
            self.take_events()?;
            ready.clear_ready();
        }
    }
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(self.attempt(cx, |mut port| port.read(buf.initialize_unfilled())))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.attempt(cx, |mut port| port.write(data))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
