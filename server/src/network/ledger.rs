use std::collections::VecDeque;

use forkyard_protocol::{NetworkCounters, NetworkEvent, NetworkEventList, NetworkLink};

/// Events that are kept of one machine, the newest.
pub const MAX_EVENTS: usize = 1000;

/// What happened on a machine's network, and what went through it, whatever the number of its gateways.
#[derive(Debug)]
pub struct Ledger {
    /// Tells this ledger's cursors from those of one that an earlier server had.
    epoch: u64,
    events: VecDeque<NetworkEvent>,
    /// How many events came before those that are kept.
    gone: u64,
    /// What went through gateways that have ended.
    past: NetworkCounters,
    /// What the present one said last.
    present: NetworkCounters,
    /// Whether it serves.
    pub link: NetworkLink,
}

impl Ledger {
    /// An empty one; the epoch is another for each server.
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            events: VecDeque::new(),
            gone: 0,
            past: NetworkCounters::default(),
            present: NetworkCounters::default(),
            link: NetworkLink::Down,
        }
    }

    /// Notes an event; the oldest goes where there are too many.
    pub fn note(&mut self, event: NetworkEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.gone += 1;
        }
        self.events.push_back(event);
    }

    /// Takes what the present gateway says went through it.
    pub fn count(&mut self, present: NetworkCounters) {
        self.present = present;
    }

    /// Whether connections were open when it last said so.
    pub fn is_busy(&self) -> bool {
        self.present.connections_open > 0
    }

    /// The gateway ended, and its connections with it.
    pub fn close(&mut self) {
        self.past = sum(self.past, NetworkCounters { connections_open: 0, ..self.present });
        self.present = NetworkCounters::default();
        self.link = NetworkLink::Down;
    }

    /// What went through in all.
    pub fn counters(&self) -> NetworkCounters {
        let mut counters = sum(self.past, self.present);
        counters.dropped_events = counters.dropped_events.saturating_add(self.gone);
        counters
    }

    /// The events after a cursor, or all that are kept: also where the cursor is not one of this ledger's.
    pub fn after(&self, cursor: Option<&str>) -> NetworkEventList {
        let seen = cursor.and_then(|cursor| self.position(cursor)).unwrap_or(0);
        // Those in between were too many.
        let skipped = usize::try_from(seen.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        let end = self.gone + self.events.len() as u64;
        NetworkEventList {
            events: self.events.iter().skip(skipped).cloned().collect(),
            next_cursor: (end > 0).then(|| format!("{}.{end}", self.epoch)),
        }
    }

    fn position(&self, cursor: &str) -> Option<u64> {
        let (epoch, position) = cursor.split_once('.')?;
        (epoch.parse() == Ok(self.epoch)).then(|| position.parse().ok())?
    }
}

/// Whether a text is a cursor, of this ledger or another.
pub fn is_cursor(text: &str) -> bool {
    text.split_once('.')
        .is_some_and(|(epoch, position)| epoch.parse::<u64>().is_ok() && position.parse::<u64>().is_ok())
}

fn sum(a: NetworkCounters, b: NetworkCounters) -> NetworkCounters {
    // Without `..`: a new counter breaks the build until it is summed.
    let NetworkCounters {
        bytes_out,
        bytes_in,
        connections_open,
        connections_total,
        connections_refused,
        dns_queries,
        dropped_frames,
        dropped_events,
    } = b;
    NetworkCounters {
        bytes_out: a.bytes_out.saturating_add(bytes_out),
        bytes_in: a.bytes_in.saturating_add(bytes_in),
        connections_open: a.connections_open.saturating_add(connections_open),
        connections_total: a.connections_total.saturating_add(connections_total),
        connections_refused: a.connections_refused.saturating_add(connections_refused),
        dns_queries: a.dns_queries.saturating_add(dns_queries),
        dropped_frames: a.dropped_frames.saturating_add(dropped_frames),
        dropped_events: a.dropped_events.saturating_add(dropped_events),
    }
}

#[cfg(test)]
mod tests {
    use forkyard_protocol::NetworkEventKind;

    use super::*;

    fn event(at_ms: u64) -> NetworkEvent {
        NetworkEvent {
            at_ms,
            kind: NetworkEventKind::ConnectionOpened,
            protocol: None,
            name: None,
            address: None,
            port: None,
            bytes_out: 0,
            bytes_in: 0,
            verdict: None,
            rule: None,
        }
    }

    fn times(page: &NetworkEventList) -> Vec<u64> {
        page.events.iter().map(|event| event.at_ms).collect()
    }

    #[test]
    fn a_cursor_goes_on_where_it_was() {
        let mut ledger = Ledger::new(7);
        assert_eq!(ledger.after(None), NetworkEventList::default());
        (1..=3).for_each(|at| ledger.note(event(at)));
        let page = ledger.after(None);
        assert_eq!((times(&page), page.next_cursor.as_deref()), (vec![1, 2, 3], Some("7.3")));
        let page = ledger.after(Some("7.2"));
        assert_eq!((times(&page), page.next_cursor.as_deref()), (vec![3], Some("7.3")));
        assert_eq!(times(&ledger.after(Some("7.3"))), [] as [u64; 0]);
        // Another server's, whose events this one never had.
        assert_eq!(times(&ledger.after(Some("6.3"))), [1, 2, 3]);
        assert!(is_cursor("6.3") && !is_cursor("6") && !is_cursor("a.b") && !is_cursor("-1.2"));
    }

    #[test]
    fn the_newest_are_kept_and_the_others_counted() {
        let mut ledger = Ledger::new(7);
        (0..1005).for_each(|at| ledger.note(event(at)));
        let page = ledger.after(Some("7.2"));
        assert_eq!((page.events.len(), page.events[0].at_ms), (MAX_EVENTS, 5));
        assert_eq!(times(&ledger.after(Some("7.1003"))), [1003, 1004]);
        assert_eq!(ledger.counters().dropped_events, 5);
    }

    #[test]
    fn totals_outlive_a_gateway_and_open_connections_do_not() {
        let mut ledger = Ledger::new(7);
        let some = NetworkCounters {
            bytes_out: 5,
            connections_open: 2,
            connections_total: 3,
            ..NetworkCounters::default()
        };
        ledger.count(some);
        assert!(ledger.is_busy());
        ledger.close();
        assert_eq!(ledger.counters(), NetworkCounters { connections_open: 0, ..some });
        ledger.count(some);
        let both = NetworkCounters {
            bytes_out: 10,
            connections_open: 2,
            connections_total: 6,
            ..NetworkCounters::default()
        };
        assert_eq!(ledger.counters(), both);
    }
}
