//! The machine's resolver: it asks upstream for what the policy lets it ask, gives no address away that is never reachable,
//! and remembers for which names it gave the others.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Name;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::policy::{GivenNames, Policy};

mod cache;
mod host;
mod limit;
pub mod message;
#[cfg(test)]
mod tests;
mod upstream;

pub use host::host_resolvers;
pub use message::{MAX_ANSWER, MAX_QUERY};

use cache::Cache;
use limit::{Bucket, Token};
use message::{Asked, MAX_ALIASES, Question, Resolution, Treatment, address_of, read_query, treatment};
use upstream::Upstream;

/// What stands as the rule where a machine asks more than it may.
pub const TOO_MANY: &str = "queries a second";
/// What stands as the rule where a name leads to addresses that are never reachable, and to no others.
pub const HELD_BACK: &str = "addresses that are never reachable";

/// Whom to ask, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// The resolvers to ask, in this order; see [`host_resolvers`]. Default: none, every query fails.
    pub upstreams: Vec<SocketAddr>,
    /// Queries a second that the machine may ask; twice as many in a burst. Default: 100.
    pub queries_per_second: u32,
    /// Queries that wait for upstream at once; one more fails. Default: 32.
    pub in_flight: usize,
    /// Records that are kept, some 300 bytes each. Default: 1,024.
    pub cache_records: usize,
    /// How long upstream has for an answer, in milliseconds. Default: 5,000, which is as long as clients wait.
    pub timeout_ms: u64,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            queries_per_second: 100,
            in_flight: 32,
            cache_records: 1024,
            timeout_ms: 5000,
        }
    }
}

/// How a query came, which bounds the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: an answer that is larger than the client takes is left out and marked truncated, so that it asks again
    /// by TCP.
    Udp,
    /// In a stream, which the caller puts the length before: the answer is whole.
    Tcp,
}

/// A query that was refused, for the event that tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The name that was asked for.
    pub name: String,
    /// What decided.
    pub rule: String,
    /// An address that was held back.
    pub address: Option<IpAddr>,
}

/// Answers one machine's queries.
pub struct Resolver {
    policy: Mutex<Arc<Policy>>,
    given: Mutex<GivenNames>,
    refused: Box<dyn Fn(Refusal) + Send + Sync>,
    upstream: Upstream,
    timeout: Duration,
    in_flight: Semaphore,
    bucket: Mutex<Bucket>,
    cache: Mutex<Cache>,
}

impl Resolver {
    /// A resolver that calls `refused` for what it refuses: at most once for each query, and once for a burst of too many.
    pub fn new(
        config: DnsConfig,
        policy: Arc<Policy>,
        refused: impl Fn(Refusal) + Send + Sync + 'static,
    ) -> Self {
        let rate = config.queries_per_second;
        let timeout = Duration::from_millis(config.timeout_ms);
        Self {
            policy: Mutex::new(policy),
            given: Mutex::default(),
            refused: Box::new(refused),
            timeout,
            in_flight: Semaphore::new(config.in_flight.min(Semaphore::MAX_PERMITS)),
            bucket: Mutex::new(Bucket::new(rate, rate.saturating_mul(2), Instant::now())),
            cache: Mutex::new(Cache::new(config.cache_records)),
            upstream: Upstream::new(config.upstreams, timeout),
        }
    }

    /// Puts another policy in place, for answers that have not been given yet too. The names that were given stay.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        *held(&self.policy) = policy;
    }

    /// The names that the machine was given addresses for. To be held for a decision, not for longer.
    pub fn names(&self) -> MutexGuard<'_, GivenNames> {
        held(&self.given)
    }

    /// Answers one DNS message with one; `None` where none is due, for what is no query. It takes the time-out at the most.
    pub async fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match read_query(query) {
            Asked::Nothing => None,
            Asked::Refused(reply) => reply.to_vec().ok(),
            Asked::Question(question) => {
                let reply = match self.prepare(&question).await {
                    Ok(resolution) => self.give(&question, resolution, transport),
                    Err(code) => question.reply(code),
                };
                reply.to_vec().ok()
            }
        }
    }

    /// What the name leads to, if it may be asked for.
    async fn prepare(&self, question: &Question) -> Result<Resolution, ResponseCode> {
        let query = question.query();
        let name = text(query.name());
        match held(&self.bucket).take(Instant::now()) {
            Token::Taken => {}
            Token::JustEmpty => {
                self.refuse(name, TOO_MANY, None);
                return Err(ResponseCode::ServFail);
            }
            Token::Empty => return Err(ResponseCode::ServFail),
        }
        let policy = held(&self.policy).clone();
        if let Some(rule) = policy.unresolved(&name) {
            self.refuse(name, rule, None);
            return Err(ResponseCode::Refused);
        }
        match treatment(query.query_type()) {
            Treatment::Ask => {}
            Treatment::NoData => return Err(ResponseCode::NoError),
            Treatment::NotImplemented => return Err(ResponseCode::NotImp),
        }
        // The host's resolver may know the names of a private network, which are nobody's business.
        if let Ok(network) = query.name().to_lowercase().parse_arpa_name()
            && !policy.gives(network.addr())
        {
            self.refuse(name, HELD_BACK, Some(network.addr()));
            return Err(ResponseCode::NXDomain);
        }
        if let Some(resolution) = held(&self.cache).get(query, Instant::now()) {
            return Ok(resolution);
        }
        let _turn = self.in_flight.try_acquire().map_err(|_| ResponseCode::ServFail)?;
        let resolution = tokio::time::timeout(self.timeout, self.look_up(query)).await.ok().flatten();
        let resolution = resolution.ok_or(ResponseCode::ServFail)?;
        held(&self.cache).put(query, &resolution, Instant::now());
        Ok(resolution)
    }

    /// Asks upstream, and again for an alias that it did not follow to its end.
    async fn look_up(&self, query: &Query) -> Option<Resolution> {
        let mut whole = Resolution::read(&self.upstream.ask(query).await?, query)?;
        while let Some(alias) = whole.dangling.take() {
            let next = Query::query(alias, query.query_type());
            let rest = Resolution::read(&self.upstream.ask(&next).await?, &next)?;
            if whole.records.len() + rest.records.len() > MAX_ALIASES && rest.dangling.is_some() {
                return None;
            }
            whole.records.extend(rest.records);
            (whole.code, whole.dangling) = (rest.code, rest.dangling);
            let shortest = whole.records.iter().map(|record| record.ttl).min().unwrap_or(0);
            whole.ttl = rest.ttl.min(Duration::from_secs(u64::from(shortest)));
        }
        Some(whole)
    }

    /// Puts together what the machine gets, and notes the addresses in it.
    fn give(&self, question: &Question, resolution: Resolution, transport: Transport) -> Message {
        let policy = held(&self.policy).clone();
        let name = text(question.query().name());
        let mut reply = question.reply(resolution.code);
        let mut kept_back = None;
        let mut addresses = Vec::new();
        for record in resolution.records {
            match address_of(&record) {
                Some(address) if !policy.gives(address) => {
                    kept_back = Some(address);
                    continue;
                }
                Some(address) => addresses.push(address),
                None => {}
            }
            reply.add_answer(record);
        }
        if addresses.is_empty()
            && let Some(address) = kept_back
        {
            self.refuse(name, HELD_BACK, Some(address));
            return question.reply(ResponseCode::NXDomain);
        }
        if transport == Transport::Udp
            && reply.to_vec().is_ok_and(|bytes| bytes.len() > question.max_datagram())
        {
            return reply.truncate();
        }
        let ttl = reply.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
        let ttl = Duration::from_secs(u64::from(ttl));
        let mut given = self.names();
        for address in addresses {
            given.note(address, &name, ttl, Instant::now());
        }
        reply
    }

    fn refuse(&self, name: String, rule: &str, address: Option<IpAddr>) {
        (self.refused)(Refusal { name, rule: rule.to_owned(), address });
    }
}

/// A name as names are compared; what is no host's name keeps its escapes.
fn text(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some(bare) if !bare.is_empty() && !bare.ends_with('\\') => bare.to_owned(),
        _ => text,
    }
}

/// Nothing that holds one of these locks leaves it half changed.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
