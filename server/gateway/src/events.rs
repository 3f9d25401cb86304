use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use forkyard_protocol::NetworkEvent;
use tokio::sync::Notify;

use crate::limits::MAX_EVENTS;

/// Events on their way to the server. They wait while there is none, so many at most.
#[derive(Default)]
pub struct Events {
    waiting: Mutex<Waiting>,
    told: Notify,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<NetworkEvent>,
    dropped: u64,
}

impl Events {
    /// Adds one, or counts it.
    pub fn push(&self, event: NetworkEvent) {
        let mut waiting = self.lock();
        if waiting.queue.len() >= MAX_EVENTS {
            waiting.dropped += 1;
            return;
        }
        waiting.queue.push_back(event);
        self.told.notify_one();
    }

    /// The oldest; it is gone once [`pop`](Self::pop) takes it.
    pub fn first(&self) -> Option<NetworkEvent> {
        self.lock().queue.front().cloned()
    }

    /// Takes the oldest away: the server has it.
    pub fn pop(&self) {
        self.lock().queue.pop_front();
    }

    /// How many were not kept.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Resolves when there is one more.
    pub async fn told(&self) {
        self.told.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds it leaves it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
