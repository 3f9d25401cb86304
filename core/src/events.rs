//! What happened to a machine, and what happens to it.

use std::collections::VecDeque;
use std::time::Duration;

use forkyard_protocol::SandboxEventList;
pub use forkyard_protocol::{SandboxEvent, SandboxEventKind};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::client::Client;
use crate::error::Result;
use crate::sandbox::Sandbox;

/// Longest time that the server lets one call wait for news.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// Some of a machine's events, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SandboxEvents {
    /// The events.
    pub events: Vec<SandboxEvent>,
    /// Given to the next call, it yields what came after these.
    pub cursor: Option<String>,
    /// Whether the machine has ended, so that nothing comes after these.
    pub ended: bool,
}

/// A machine's events as they happen, until its end.
pub struct EventStream {
    sandbox: Sandbox,
    cursor: Option<String>,
    page: VecDeque<SandboxEvent>,
    ended: bool,
}

impl Sandbox {
    /// What happened to the machine after a cursor, oldest first. Without a cursor, all that is kept: the newest 200 events of its
    /// life, which outlive the server, and the newest 1,000 of its network, which do not. Where there is nothing yet, waits for it
    /// at most so long, a minute and half of the client's own time-out at the most.
    pub async fn events(&self, cursor: Option<&str>, wait: Duration) -> Result<SandboxEvents> {
        let path = news_path(&self.client, &self.path("/events"), cursor, wait);
        let SandboxEventList { events, next_cursor, ended } = self.client.get_json(&path).await?;
        Ok(SandboxEvents { events, cursor: next_cursor, ended })
    }

    /// Follows the machine's events, from after a cursor or, without one, from the oldest that is kept. It does not keep the
    /// machine from being idle.
    pub fn follow_events(&self, cursor: Option<String>) -> EventStream {
        EventStream { sandbox: self.clone(), cursor, page: VecDeque::new(), ended: false }
    }
}

impl EventStream {
    /// The next event, as soon as there is one; `None` after the machine's end. A call that is given up loses nothing.
    pub async fn next(&mut self) -> Result<Option<SandboxEvent>> {
        while self.page.is_empty() && !self.ended {
            let news = self.sandbox.events(self.cursor.as_deref(), MAX_WAIT).await?;
            self.ended = news.ended;
            self.cursor = news.cursor;
            self.page = news.events.into();
        }
        Ok(self.page.pop_front())
    }
}

/// Asks for what came after a cursor. What the server says in time must also arrive in time.
pub(crate) fn news_path(client: &Client, path: &str, cursor: Option<&str>, wait: Duration) -> String {
    let wait = wait.min(MAX_WAIT).min(client.inner.timeout / 2).as_millis();
    let cursor = cursor.map(|cursor| format!("&cursor={}", utf8_percent_encode(cursor, NON_ALPHANUMERIC)));
    format!("{path}?wait_ms={wait}{}", cursor.unwrap_or_default())
}
