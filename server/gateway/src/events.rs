use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::limits::MAX_EVENTS;
use crate::seam::NetworkEvent;

/// Events on their way to the server. They wait while there is none, so many at most.
#[derive(Default)]
pub struct Events {
    queue: VecDeque<NetworkEvent>,
    dropped: u64,
}

impl Events {
    /// Adds one, or counts it.
    pub fn push(&mut self, event: NetworkEvent, told: &Notify) {
        if self.queue.len() >= MAX_EVENTS {
            self.dropped += 1;
            return;
        }
        self.queue.push_back(event);
        told.notify_one();
    }

    /// The oldest; it is gone once [`pop`](Self::pop) takes it.
    pub fn first(&self) -> Option<&NetworkEvent> {
        self.queue.front()
    }

    /// Takes the oldest away: the server has it.
    pub fn pop(&mut self) {
        self.queue.pop_front();
    }

    /// How many were not kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
