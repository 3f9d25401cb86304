//! What upstream said, for as long as it said.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::message::Resolution;

/// Most bytes of text in an answer that is kept.
const MAX_TEXT: usize = 2048;

struct Kept {
    resolution: Resolution,
    at: Instant,
    until: Instant,
}

impl Kept {
    /// What it takes, in records: that there is nothing takes one too.
    fn weight(&self) -> usize {
        self.resolution.records.len().max(1)
    }
}

/// Answers by what was asked.
pub(super) struct Cache {
    /// Most records in it.
    room: usize,
    used: usize,
    kept: HashMap<(Name, RecordType), Kept>,
}

impl Cache {
    pub(super) fn new(room: usize) -> Self {
        Self { room, used: 0, kept: HashMap::new() }
    }

    /// What is known, its TTLs less the time that it was kept.
    pub(super) fn get(&self, query: &Query, now: Instant) -> Option<Resolution> {
        let kept = self.kept.get(&key(query)).filter(|kept| kept.until > now)?;
        let age = u32::try_from(now.saturating_duration_since(kept.at).as_secs()).unwrap_or(u32::MAX);
        let mut resolution = kept.resolution.clone();
        for record in &mut resolution.records {
            record.decrement_ttl(age);
        }
        Some(resolution)
    }

    pub(super) fn put(&mut self, query: &Query, resolution: &Resolution, now: Instant) {
        let text: usize = resolution.records.iter().map(text_len).sum();
        let kept = Kept { resolution: resolution.clone(), at: now, until: now + resolution.ttl };
        if resolution.ttl == Duration::ZERO || text > MAX_TEXT || kept.weight() > self.room {
            return;
        }
        if let Some(old) = self.kept.remove(&key(query)) {
            self.used -= old.weight();
        }
        if self.used + kept.weight() > self.room {
            self.keep(|other| other.until > now);
        }
        while self.used + kept.weight() > self.room {
            let first = self.kept.values().map(|other| other.until).min();
            self.keep(|other| Some(other.until) > first);
        }
        self.used += kept.weight();
        self.kept.insert(key(query), kept);
    }

    fn keep(&mut self, good: impl Fn(&Kept) -> bool) {
        self.kept.retain(|_, kept| good(kept));
        self.used = self.kept.values().map(Kept::weight).sum();
    }
}

fn key(query: &Query) -> (Name, RecordType) {
    (query.name().to_lowercase(), query.query_type())
}

fn text_len(record: &Record) -> usize {
    match &record.data {
        RData::TXT(text) => text.txt_data.iter().map(|part| part.len() + 1).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::A;

    use super::*;

    fn query(name: &str) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), RecordType::A)
    }

    fn resolution(records: usize, ttl: u64) -> Resolution {
        let record =
            Record::from_rdata(Name::root(), u32::try_from(ttl).unwrap(), RData::A(A::new(203, 0, 113, 1)));
        let records = vec![record; records];
        Resolution { code: ResponseCode::NoError, records, ttl: Duration::from_secs(ttl), dangling: None }
    }

    #[test]
    fn an_answer_is_kept_for_its_ttl_and_ages() {
        let now = Instant::now();
        let mut cache = Cache::new(10);
        cache.put(&query("A.example."), &resolution(1, 30), now);
        let later = cache.get(&query("a.EXAMPLE."), now + Duration::from_secs(10)).unwrap();
        assert_eq!(later.records[0].ttl, 20);
        assert!(cache.get(&query("a.example."), now + Duration::from_secs(30)).is_none());
        assert!(cache.get(&query("b.example."), now).is_none());
        cache.put(&query("zero.example."), &resolution(1, 0), now);
        assert!(cache.get(&query("zero.example."), now).is_none());
    }

    #[test]
    fn what_ends_first_makes_room() {
        let now = Instant::now();
        let mut cache = Cache::new(10);
        cache.put(&query("short."), &resolution(4, 10), now);
        cache.put(&query("long."), &resolution(4, 20), now);
        cache.put(&query("long."), &resolution(5, 20), now);
        cache.put(&query("new."), &resolution(5, 5), now);
        assert!(cache.get(&query("short."), now).is_none());
        assert!(cache.get(&query("long."), now).is_some() && cache.get(&query("new."), now).is_some());
        cache.put(&query("huge."), &resolution(11, 30), now);
        assert!(cache.get(&query("huge."), now).is_none());
        for number in 0..100 {
            cache.put(&query(&format!("n{number}.")), &resolution(number % 4, 30), now);
            assert!(cache.used <= 10);
        }
        assert_eq!(cache.used, cache.kept.values().map(Kept::weight).sum::<usize>());
    }
}
