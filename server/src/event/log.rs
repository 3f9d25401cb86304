use std::collections::VecDeque;

use forkyard_protocol::{NetworkEvent, NetworkEventList, SandboxEvent, SandboxEventKind, SandboxEventList};
use serde::{Deserialize, Serialize};

/// Events of a machine's life that are kept, the newest.
pub const MAX_LIFE: usize = 200;

/// Events of a machine's network that are kept, the newest.
pub const MAX_NETWORK: usize = 1000;

/// What happened to a machine. Its network cannot drive its life out, nor the other way round: each has room of its own, and a
/// place in the order of both.
#[derive(Debug, Default)]
pub struct Log {
    life: Ring<SandboxEvent>,
    network: Ring<NetworkEvent>,
    last: u64,
}

/// An event and its place in the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed<T> {
    /// Grows with each event of the machine, under whatever server: microseconds since 1970, or one more than the one before.
    pub place: u64,
    /// The event.
    pub event: T,
}

/// What outlives the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The events of its life.
    pub life: Vec<Placed<SandboxEvent>>,
    /// The place of the last of those that were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_gone: Option<u64>,
}

#[derive(Debug)]
struct Ring<T> {
    kept: VecDeque<Placed<T>>,
    /// How many came before those that are kept, and the place of the last of them.
    gone: u64,
    last_gone: Option<u64>,
}

impl Log {
    /// One that goes on from what an earlier server kept; whatever that one did not had its place before this time.
    pub fn of(kept: Kept, now_us: u64) -> Self {
        let last = kept.life.last().map_or(0, |last| last.place).max(now_us);
        let life = Ring { kept: kept.life.into(), last_gone: kept.last_gone, gone: 0 };
        Self { life, network: Ring::default(), last }
    }

    /// Notes an event of its life; none after its end.
    pub fn note(&mut self, event: SandboxEvent, now_us: u64) {
        if !self.has_ended() {
            let place = self.next(now_us);
            self.life.push(Placed { place, event }, MAX_LIFE);
        }
    }

    /// Notes an event of its network.
    pub fn note_network(&mut self, event: NetworkEvent, now_us: u64) {
        if !self.has_ended() {
            let place = self.next(now_us);
            self.network.push(Placed { place, event }, MAX_NETWORK);
        }
    }

    /// What is to outlive the server.
    pub fn kept(&self) -> Kept {
        Kept { life: self.life.kept.iter().cloned().collect(), last_gone: self.life.last_gone }
    }

    /// Whether nothing of its life was noted.
    pub fn is_blank(&self) -> bool {
        self.life.kept.is_empty()
    }

    /// The place of the last event of its life.
    pub fn last_of_life(&self) -> u64 {
        self.life.kept.back().map_or(0, |last| last.place)
    }

    /// The events after a cursor, or all that are kept.
    pub fn after(&self, cursor: Option<u64>) -> SandboxEventList {
        let mut events: Vec<_> =
            self.life.after(cursor).map(|placed| (placed.place, placed.event.clone())).collect();
        events.extend(
            self.network.after(cursor).map(|placed| (placed.place, of_network(placed.event.clone()))),
        );
        events.sort_by_key(|(place, _)| *place);
        let next = events.last().map(|(place, _)| *place).or(cursor);
        let is_whole = self.life.is_whole_after(cursor) && self.network.is_whole_after(cursor);
        if let Some((place, first)) = events.first().filter(|_| !is_whole) {
            events.insert(0, (*place, SandboxEvent::new(first.at_ms, SandboxEventKind::Overflow)));
        }
        SandboxEventList {
            events: events.into_iter().map(|(_, event)| event).collect(),
            next_cursor: next.map(|place| place.to_string()),
            ended: self.has_ended(),
        }
    }

    /// The events of its network after a cursor, or all that are kept.
    pub fn network_after(&self, cursor: Option<u64>) -> NetworkEventList {
        let events: Vec<_> = self.network.after(cursor).collect();
        let next = events.last().map(|placed| placed.place).or(cursor);
        NetworkEventList {
            events: events.into_iter().map(|placed| placed.event.clone()).collect(),
            next_cursor: next.map(|place| place.to_string()),
        }
    }

    /// How many events of its network were too many.
    pub fn network_gone(&self) -> u64 {
        self.network.gone
    }

    /// Whether the last event is the machine's end.
    pub fn has_ended(&self) -> bool {
        self.life.kept.back().is_some_and(|last| last.event.kind.is_end())
    }

    fn next(&mut self, now_us: u64) -> u64 {
        self.last = now_us.max(self.last + 1);
        self.last
    }
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { kept: VecDeque::new(), gone: 0, last_gone: None }
    }
}

impl<T> Ring<T> {
    fn push(&mut self, placed: Placed<T>, most: usize) {
        if self.kept.len() >= most {
            self.last_gone = self.kept.pop_front().map(|oldest| oldest.place);
            self.gone += 1;
        }
        self.kept.push_back(placed);
    }

    fn after(&self, cursor: Option<u64>) -> impl Iterator<Item = &Placed<T>> {
        let seen = cursor.map_or(0, |cursor| self.kept.partition_point(|placed| placed.place <= cursor));
        self.kept.range(seen..)
    }

    fn is_whole_after(&self, cursor: Option<u64>) -> bool {
        self.last_gone.is_none_or(|gone| cursor.is_some_and(|cursor| cursor >= gone))
    }
}

fn of_network(event: NetworkEvent) -> SandboxEvent {
    let at_ms = event.at_ms;
    SandboxEvent { network: Some(event), ..SandboxEvent::new(at_ms, SandboxEventKind::Network) }
}

#[cfg(test)]
mod tests {
    use forkyard_protocol::NetworkEventKind;

    use super::*;
    use SandboxEventKind::{Created, Forked, Network, Overflow, Resumed, Started, Suspended, Terminated};

    fn life(kind: SandboxEventKind) -> SandboxEvent {
        SandboxEvent::new(7, kind)
    }

    fn network(at_ms: u64) -> NetworkEvent {
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

    fn kinds(page: &SandboxEventList) -> Vec<SandboxEventKind> {
        page.events.iter().map(|event| event.kind).collect()
    }

    fn times(page: &NetworkEventList) -> Vec<u64> {
        page.events.iter().map(|event| event.at_ms).collect()
    }

    #[test]
    fn a_cursor_goes_on_where_it_was_and_under_the_next_server_too() {
        let mut log = Log::default();
        assert_eq!(log.after(None), SandboxEventList::default());
        assert_eq!(log.network_after(None), NetworkEventList::default());
        log.note(life(Created), 100);
        log.note_network(network(1), 100);
        log.note(life(Started), 90);
        let page = log.after(None);
        assert_eq!(
            (kinds(&page), page.next_cursor.as_deref()),
            (vec![Created, Network, Started], Some("102"))
        );
        assert_eq!(kinds(&log.after(Some(100))), [Network, Started]);
        let end = log.after(Some(102));
        assert_eq!((kinds(&end), end.next_cursor.as_deref()), (vec![], Some("102")));
        let page = log.network_after(None);
        assert_eq!((times(&page), page.next_cursor.as_deref()), (vec![1], Some("101")));
        assert_eq!(log.network_after(Some(101)).next_cursor.as_deref(), Some("101"));

        let mut next = Log::of(log.kept(), 500);
        assert_eq!(kinds(&next.after(None)), [Created, Started]);
        next.note(life(Suspended), 400);
        assert_eq!(kinds(&next.after(Some(102))), [Suspended]);
        assert_eq!(kinds(&next.after(Some(500))), [Suspended]);
        // Its clock is behind: the order stays.
        let mut again = Log::of(next.kept(), 5);
        again.note(life(Resumed), 6);
        assert_eq!(kinds(&again.after(Some(501))), [Resumed]);
    }

    #[test]
    fn what_was_too_much_is_told_to_whoever_missed_it() {
        let mut log = Log::default();
        log.note(life(Created), 1);
        (0..1005).for_each(|at| log.note_network(network(at), 0));
        assert_eq!(log.network_gone(), 5);
        let page = log.after(None);
        assert_eq!(
            (page.events.len(), page.events[0].kind, page.events[1].kind),
            (MAX_NETWORK + 2, Overflow, Created)
        );
        // The places are 2 to 1006, and the first five are gone.
        assert_eq!(kinds(&log.after(Some(5)))[0], Overflow);
        let rest = log.after(Some(6));
        assert_eq!((rest.events.len(), rest.events[0].kind), (MAX_NETWORK, Network));
        assert_eq!(times(&log.network_after(Some(1005))), [1004]);
        assert_eq!(times(&log.network_after(Some(2)))[0], 5);

        (0..MAX_LIFE).for_each(|_| log.note(life(Forked), 0));
        assert!(kinds(&log.after(None)).iter().all(|kind| *kind != Created));
        assert_eq!(kinds(&Log::of(log.kept(), 0).after(None))[0], Overflow);
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let mut log = Log::default();
        log.note(life(Created), 1);
        assert!(!log.after(None).ended);
        log.note(life(Terminated), 2);
        log.note(life(Terminated), 3);
        log.note_network(network(1), 4);
        let page = log.after(None);
        assert_eq!((kinds(&page), page.ended), (vec![Created, Terminated], true));
        assert_eq!(
            log.after(Some(2)),
            SandboxEventList { events: vec![], next_cursor: Some("2".into()), ended: true }
        );
    }
}
