//! What happened to each machine: kept for whoever asks, told to whoever waits.

mod log;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forkyard_protocol::{
    ErrorBody, ErrorCode, NetworkEvent, NetworkEventList, SandboxEvent, SandboxEventList,
};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, watch};
use tokio::time::timeout;

use self::log::Log;
pub use self::log::{Kept, MAX_LIFE, MAX_NETWORK};
use crate::clock::now_us;

/// One machine's events.
pub struct Events {
    log: Mutex<Log>,
    /// How many there were since the server began.
    noted: watch::Sender<u64>,
    /// The place of the last event of its life that the store has; held while it is written.
    saved: AsyncMutex<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self::of(Kept::default())
    }
}

impl Events {
    /// Those of an earlier server, and what comes.
    pub fn of(kept: Kept) -> Self {
        let saved = kept.life.last().map_or(0, |last| last.place);
        let log = Mutex::new(Log::of(kept, now_us()));
        Self { log, noted: watch::Sender::new(0), saved: AsyncMutex::new(saved) }
    }

    /// Notes something of the machine's life.
    pub fn note(&self, event: SandboxEvent) {
        self.lock().note(event, now_us());
        self.noted.send_modify(|noted| *noted += 1);
    }

    /// Notes something of its network.
    pub fn note_network(&self, event: NetworkEvent) {
        self.lock().note_network(event, now_us());
        self.noted.send_modify(|noted| *noted += 1);
    }

    /// How many events of its network were too many to be kept.
    pub fn network_gone(&self) -> u64 {
        self.lock().network_gone()
    }

    /// Whether nothing of its life is known.
    pub fn is_blank(&self) -> bool {
        self.lock().is_blank()
    }

    /// Whether its end is known.
    pub fn has_ended(&self) -> bool {
        self.lock().has_ended()
    }

    /// The events after a cursor; where there is none yet and one can come, waits for one at most so long.
    pub async fn after(&self, cursor: Option<&str>, wait: Duration) -> Result<SandboxEventList, ErrorBody> {
        let cursor = cursor.map(place).transpose()?;
        Ok(self.news(wait, |log| log.after(cursor), |page| !page.events.is_empty() || page.ended).await)
    }

    /// The events of its network after a cursor; where there is none yet, waits for one at most so long.
    pub async fn network_after(
        &self,
        cursor: Option<&str>,
        wait: Duration,
    ) -> Result<NetworkEventList, ErrorBody> {
        let cursor = cursor.map(place).transpose()?;
        Ok(self.news(wait, |log| log.network_after(cursor), |page| !page.events.is_empty()).await)
    }

    /// What the store lacks, if it lacks anything, and the word to give once it has it.
    pub async fn unsaved(&self) -> Option<(Kept, Saving<'_>)> {
        let saved = self.saved.lock().await;
        let log = self.lock();
        let last = log.last_of_life();
        (last > *saved).then(|| (log.kept(), Saving { saved, last }))
    }

    async fn news<T>(&self, wait: Duration, page: impl Fn(&Log) -> T, is_news: impl Fn(&T) -> bool) -> T {
        let mut noted = self.noted.subscribe();
        let news = async {
            loop {
                let page = page(&self.lock());
                if is_news(&page) {
                    return page;
                }
                // The sender lives in `self`.
                drop(noted.changed().await);
            }
        };
        timeout(wait, news).await.unwrap_or_else(|_| page(&self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events on their way to the store; no others go there meanwhile.
pub struct Saving<'a> {
    saved: AsyncMutexGuard<'a, u64>,
    last: u64,
}

impl Saving<'_> {
    /// The store has them.
    pub fn done(mut self) {
        *self.saved = self.last;
    }
}

fn place(cursor: &str) -> Result<u64, ErrorBody> {
    cursor.parse().map_err(|_| {
        let message = format!("'{}' is no cursor: give one that events came with", cursor.escape_debug());
        ErrorBody::new(ErrorCode::InvalidArgument, message)
    })
}

#[cfg(test)]
mod tests {
    use forkyard_protocol::SandboxEventKind::{Created, Started, Terminated};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn whoever_waits_is_told_at_once_and_the_end_ends_the_wait() {
        let events = Events::default();
        events.note(SandboxEvent::new(1, Created));
        let cursor = events.after(None, LONG).await.unwrap().next_cursor.unwrap();
        let waiting = events.after(Some(&cursor), LONG);
        let (page, ()) = tokio::join!(waiting, async { events.note(SandboxEvent::new(2, Started)) });
        assert_eq!(page.unwrap().events, [SandboxEvent::new(2, Started)]);
        events.note(SandboxEvent::new(3, Terminated));
        let end = events.after(None, LONG).await.unwrap().next_cursor.unwrap();
        let page = events.after(Some(&end), LONG).await.unwrap();
        assert!(page.events.is_empty() && page.ended);
        for wrong in ["", "x", "-1", "7.3"] {
            let error = events.after(Some(wrong), LONG).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_is_saved_is_saved_once_and_what_failed_again() {
        let events = Events::default();
        assert!(events.unsaved().await.is_none());
        events.note(SandboxEvent::new(1, Created));
        let (kept, failed) = events.unsaved().await.unwrap();
        drop(failed);
        let (again, saving) = events.unsaved().await.unwrap();
        assert_eq!(kept, again);
        // Noted while it is written.
        events.note(SandboxEvent::new(2, Started));
        saving.done();
        let (kept, saving) = events.unsaved().await.unwrap();
        assert_eq!(kept.life.len(), 2);
        saving.done();
        assert!(events.unsaved().await.is_none());
        assert!(Events::of(kept).unsaved().await.is_none(), "the store has it");
    }
}
