//! What tells one event after another, for bindings, whose objects many use at once.

use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::events::{EventStream, SandboxEvent};
use crate::watch::{FileEvent, Watch};

/// What tells one event after another.
pub trait Feed: Send + 'static {
    /// What it tells.
    type Event: Send + 'static;

    /// The next event; `None` after the last. Dropped, it loses nothing.
    fn next_event(&mut self) -> impl Future<Output = Result<Option<Self::Event>>> + Send;
}

impl Feed for Watch {
    type Event = FileEvent;

    fn next_event(&mut self) -> impl Future<Output = Result<Option<FileEvent>>> + Send {
        self.next()
    }
}

impl Feed for EventStream {
    type Event = SandboxEvent;

    fn next_event(&mut self) -> impl Future<Output = Result<Option<SandboxEvent>>> + Send {
        self.next()
    }
}

/// One that many read from: each event goes to one of them.
pub struct SharedFeed<F: Feed> {
    shared: Arc<Shared<F>>,
}

struct Shared<F: Feed> {
    feed: Mutex<Option<F>>,
    /// What was told and not taken: a wait that is dropped as it ends leaves it to the next.
    ahead: SyncMutex<Option<F::Event>>,
    closing: CancellationToken,
}

// Derived, it would ask that of the feed too.
impl<F: Feed> Clone for SharedFeed<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<F: Feed> SharedFeed<F> {
    /// Shares one.
    pub fn new(feed: F) -> Self {
        let shared = Shared {
            feed: Mutex::new(Some(feed)),
            ahead: SyncMutex::new(None),
            closing: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits until there is an event, or none will come any more; answers which. Dropped, it loses nothing.
    pub async fn has_more(&self) -> Result<bool> {
        let mut feed = self.shared.feed.lock().await;
        if self.ahead().is_some() {
            return Ok(true);
        }
        let Some(feed) = feed.as_mut() else { return Ok(false) };
        let event = tokio::select! {
            biased;
            () = self.shared.closing.cancelled() => return Ok(false),
            event = feed.next_event() => event?,
        };
        let has_more = event.is_some();
        *self.ahead() = event;
        Ok(has_more)
    }

    /// The event that there is; none where another reader was faster.
    pub fn take(&self) -> Option<F::Event> {
        self.ahead().take()
    }

    /// The next event; none after the last, or once it was closed.
    pub async fn next(&self) -> Result<Option<F::Event>> {
        while self.has_more().await? {
            if let Some(event) = self.take() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Ends it, and a wait that is under way.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.feed.lock().await.take();
        self.ahead().take();
    }

    fn ahead(&self) -> MutexGuard<'_, Option<F::Event>> {
        self.shared.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::error::{Error, ErrorCode};

    const PATIENCE: Duration = Duration::from_secs(10);

    impl Feed for mpsc::Receiver<Result<u8>> {
        type Event = u8;

        async fn next_event(&mut self) -> Result<Option<u8>> {
            self.recv().await.transpose()
        }
    }

    fn feed() -> (SharedFeed<mpsc::Receiver<Result<u8>>>, mpsc::Sender<Result<u8>>) {
        let (sender, receiver) = mpsc::channel(8);
        (SharedFeed::new(receiver), sender)
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_loses_nothing() {
        let (feed, sender) = feed();
        assert!(feed.has_more().now_or_never().is_none());
        sender.send(Ok(1)).await.unwrap();
        // It ends, and nobody takes what it found.
        assert!(feed.has_more().await.unwrap());
        sender.send(Ok(2)).await.unwrap();
        drop(sender);
        assert_eq!(feed.next().await.unwrap(), Some(1));
        assert_eq!(feed.take(), None);
        assert_eq!(feed.next().await.unwrap(), Some(2));
        assert_eq!(feed.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn closing_it_ends_a_wait_and_drops_what_it_holds() {
        let (feed, sender) = feed();
        let waiting = tokio::spawn({
            let feed = feed.clone();
            async move { feed.next().await }
        });
        // The wait has begun once the lock is taken.
        while feed.shared.feed.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        timeout(PATIENCE, feed.close()).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), None);
        assert!(sender.is_closed());
        assert_eq!(feed.next().await.unwrap(), None);
        feed.close().await;
    }

    #[tokio::test]
    async fn what_fails_may_be_asked_again() {
        let (feed, sender) = feed();
        sender.send(Err(Error::new(ErrorCode::Connection, "cut"))).await.unwrap();
        sender.send(Ok(1)).await.unwrap();
        assert_eq!(feed.next().await.unwrap_err().code, ErrorCode::Connection);
        assert_eq!(feed.next().await.unwrap(), Some(1));
    }
}
