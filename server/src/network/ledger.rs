use forkyard_protocol::{NetworkCounters, NetworkLink};

/// What went through a machine's network, whatever the number of its gateways.
#[derive(Debug)]
pub struct Ledger {
    /// What went through gateways that have ended.
    past: NetworkCounters,
    /// What the present one said last.
    present: NetworkCounters,
    /// Whether it serves.
    pub link: NetworkLink,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            past: NetworkCounters::default(),
            present: NetworkCounters::default(),
            link: NetworkLink::Down,
        }
    }
}

impl Ledger {
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
        sum(self.past, self.present)
    }
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
    use super::*;

    #[test]
    fn totals_outlive_a_gateway_and_open_connections_do_not() {
        let mut ledger = Ledger::default();
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
