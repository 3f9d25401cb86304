//! Which names the machine's own DNS gave it which addresses for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a name counts at the least: with a TTL of 0, or one that ends between answer and connection, rules by name would
/// work by chance.
pub const MIN_LIFE: Duration = Duration::from_mins(1);
/// How long it counts at the most.
pub const MAX_LIFE: Duration = Duration::from_hours(24);
/// Most pairs of address and name; beyond it those that would end first go.
pub const MAX_PAIRS: usize = 4096;

struct Given {
    name: Box<str>,
    until: Instant,
}

/// Address → the names that were asked for when it was answered, newest first.
#[derive(Default)]
pub struct GivenNames {
    addresses: HashMap<IpAddr, Vec<Given>>,
    pairs: usize,
}

impl GivenNames {
    /// Notes that `address` was given for `name`, the one that was asked for, whatever aliases led there; it is as
    /// [`forkyard_protocol::normal_name`] writes it.
    pub fn note(&mut self, address: IpAddr, name: &str, ttl: Duration, now: Instant) {
        let address = address.to_canonical();
        let mut until = now + ttl.clamp(MIN_LIFE, MAX_LIFE);
        if let Some(given) = self.addresses.get_mut(&address)
            && let Some(index) = given.iter().position(|given| &*given.name == name)
        {
            until = until.max(given.remove(index).until);
            self.pairs -= 1;
        }
        if self.pairs >= MAX_PAIRS {
            self.make_room(now);
        }
        self.addresses.entry(address).or_default().insert(0, Given { name: name.into(), until });
        self.pairs += 1;
    }

    /// The names that count for `address` now, newest first.
    pub fn of(&self, address: IpAddr, now: Instant) -> impl Iterator<Item = &str> {
        let given = self.addresses.get(&address.to_canonical()).map_or(&[][..], Vec::as_slice);
        given.iter().filter(move |given| given.until > now).map(|given| &*given.name)
    }

    /// Forgets what has ended and, if that is nothing, the eighth that would end first: looking through all of them for each
    /// new one would let a machine that asks much take a processor.
    fn make_room(&mut self, now: Instant) {
        self.keep(|given| given.until > now);
        if self.pairs < MAX_PAIRS {
            return;
        }
        let mut ends: Vec<Instant> = self.addresses.values().flatten().map(|given| given.until).collect();
        let mut left = MAX_PAIRS / 8;
        let (_, last, _) = ends.select_nth_unstable(left);
        let last = *last;
        self.keep(|given| {
            let goes = left > 0 && given.until <= last;
            left -= usize::from(goes);
            !goes
        });
    }

    fn keep(&mut self, mut good: impl FnMut(&Given) -> bool) {
        self.addresses.retain(|_, given| {
            given.retain(&mut good);
            !given.is_empty()
        });
        self.pairs = self.addresses.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(given: &GivenNames, address: &str, now: Instant) -> Vec<String> {
        given.of(address.parse().unwrap(), now).map(str::to_owned).collect()
    }

    #[test]
    fn a_name_counts_for_its_time() {
        let now = Instant::now();
        let mut given = GivenNames::default();
        given.note("203.0.113.1".parse().unwrap(), "zero.example", Duration::ZERO, now);
        given.note("203.0.113.1".parse().unwrap(), "long.example", Duration::from_mins(10), now);
        assert_eq!(names(&given, "203.0.113.1", now), ["long.example", "zero.example"]);
        assert_eq!(names(&given, "::ffff:203.0.113.1", now), ["long.example", "zero.example"]);
        assert_eq!(names(&given, "203.0.113.1", now + 59 * SECOND).len(), 2);
        assert_eq!(names(&given, "203.0.113.1", now + MIN_LIFE), ["long.example"]);
        assert_eq!(names(&given, "203.0.113.2", now).len(), 0);
        given.note("203.0.113.1".parse().unwrap(), "long.example", Duration::ZERO, now);
        assert_eq!(names(&given, "203.0.113.1", now + 599 * SECOND), ["long.example"], "never shortened");
        given.note("203.0.113.3".parse().unwrap(), "ever.example", Duration::MAX, now);
        assert_eq!(names(&given, "203.0.113.3", now + MAX_LIFE).len(), 0);
    }

    #[test]
    fn it_stays_small() {
        let now = Instant::now();
        let mut given = GivenNames::default();
        given.note("203.0.113.1".parse().unwrap(), "kept.example", Duration::from_hours(1), now);
        for number in 0..2 * u32::try_from(MAX_PAIRS).unwrap() {
            let address = Ipv4Addr::from_bits(0x0100_0000 + number / 3).into();
            let ttl = Duration::from_secs(61 + u64::from(number));
            given.note(address, &format!("n{number}.example"), ttl.min(3599 * SECOND), now);
            assert!(given.pairs <= MAX_PAIRS);
            assert_eq!(
                given.of(address, now).next(),
                Some(&*format!("n{number}.example")),
                "the newest is there"
            );
        }
        assert!(given.pairs > MAX_PAIRS / 2);
        assert_eq!(given.pairs, given.addresses.values().map(Vec::len).sum::<usize>());
        assert_eq!(names(&given, "203.0.113.1", now), ["kept.example"]);
    }
}
