//! DNS messages, checked. Pure: what may be asked, whether an answer belongs to its query, what is in it.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Size of a message's header.
const HEADER: usize = 12;
/// The least size of a record: a root name, type, class, TTL and length.
const MIN_RECORD: usize = 11;
/// The largest query that is read; those of real programs have 300 bytes at most (a name of 255 and some options).
pub const MAX_QUERY: usize = 1024;
/// The largest answer that is taken from upstream.
pub const MAX_ANSWER: usize = 16 * 1024;
/// The largest datagram, both ways: it is not fragmented anywhere (DNS flag day 2020).
pub(super) const MAX_DATAGRAM: u16 = 1232;
/// Most records of one answer: more help nobody, and each address is remembered.
const MAX_RECORDS: usize = 64;
/// Most aliases that lead from a name to its records.
pub(super) const MAX_ALIASES: usize = 16;
/// How long an answer is kept at the most.
const MAX_TTL: u32 = 3600;
/// How long it is kept at the most that there is no answer.
const MAX_NEGATIVE_TTL: u32 = 300;

/// What a client asks.
#[derive(Debug, Clone)]
pub struct Question {
    id: u16,
    recursion_desired: bool,
    /// The largest datagram that the client takes; `None` where it does not speak EDNS.
    edns: Option<u16>,
    query: Query,
}

/// A client's message.
#[derive(Debug)]
pub enum Asked {
    /// No answer is due: it is no query.
    Nothing,
    /// It is not understood, or not done here.
    Refused(Message),
    /// It is to be answered.
    Question(Question),
}

/// What is done about a type of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Upstream is asked.
    Ask,
    /// The answer is that there is none. HTTPS and SVCB are among them: they give addresses as hints, which a client would
    /// connect to without asking, and keys that hide the SNI (ECH). Clients go on with A and AAAA.
    NoData,
    /// It is not done here: zone transfers, and queries for everything (RFC 8482).
    NotImplemented,
}

/// What is done about records of this type. MX and SRV pass: they hold names, whose addresses are asked for and judged in turn.
pub fn treatment(kind: RecordType) -> Treatment {
    match kind {
        RecordType::A
        | RecordType::AAAA
        | RecordType::CNAME
        | RecordType::MX
        | RecordType::PTR
        | RecordType::SRV
        | RecordType::TXT => Treatment::Ask,
        RecordType::ANY | RecordType::AXFR | RecordType::IXFR => Treatment::NotImplemented,
        _ => Treatment::NoData,
    }
}

/// Reads what a client sent.
pub fn read_query(bytes: &[u8]) -> Asked {
    let Some(header) = RawHeader::read(bytes) else { return Asked::Nothing };
    if header.is_response {
        return Asked::Nothing;
    }
    let refused = |code| Asked::Refused(Message::error_msg(header.id, OpCode::Query, code));
    if header.op_code != 0 {
        return refused(ResponseCode::NotImp);
    }
    let counts = header.counts;
    if counts[..3] != [1, 0, 0] || bytes.len() > MAX_QUERY || !header.fits(bytes.len()) {
        return refused(ResponseCode::FormErr);
    }
    let Ok(mut message) = Message::from_vec(bytes) else { return refused(ResponseCode::FormErr) };
    let Some(query) = message.queries.pop() else { return refused(ResponseCode::FormErr) };
    let question = Question {
        id: header.id,
        recursion_desired: message.metadata.recursion_desired,
        edns: message.edns.is_some().then(|| message.max_payload()),
        query,
    };
    if message.version() > 0 {
        return Asked::Refused(question.reply(ResponseCode::BADVERS));
    }
    if question.query.query_class() != DNSClass::IN {
        return Asked::Refused(question.reply(ResponseCode::NotImp));
    }
    Asked::Question(question)
}

impl Question {
    /// The name and type that are asked for.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// An answer without records.
    pub fn reply(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_DATAGRAM);
            message.set_edns(edns);
        }
        message
    }

    /// The largest datagram that the client takes.
    pub fn max_datagram(&self) -> usize {
        usize::from(self.edns.unwrap_or(512).clamp(512, MAX_DATAGRAM))
    }
}

/// A query to upstream for the same, with an id that nobody can guess.
pub(super) fn upstream_query(query: &Query) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_DATAGRAM);
    message.set_edns(edns);
    message
}

/// Reads what came from upstream: `None` unless it is whole, and the answer to this query under this id.
pub fn read_answer(bytes: &[u8], id: u16, query: &Query) -> Option<Message> {
    let header = RawHeader::read(bytes)?;
    let expected = header.is_response && header.id == id && header.op_code == 0 && header.counts[0] == 1;
    if !expected || bytes.len() > MAX_ANSWER || !header.fits(bytes.len()) {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let [asked] = message.queries.as_slice() else { return None };
    let same = asked.name() == query.name()
        && asked.query_type() == query.query_type()
        && asked.query_class() == DNSClass::IN;
    (same && message.metadata.message_type == MessageType::Response).then_some(message)
}

/// What a name leads to.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// `NoError` or `NXDomain`.
    pub code: ResponseCode,
    /// The aliases from the name that was asked for, then the records of the type that was asked for.
    pub records: Vec<Record>,
    /// How long it may be kept; zero for not at all.
    pub ttl: Duration,
    /// Where the aliases end without saying what is there.
    pub dangling: Option<Name>,
}

impl Resolution {
    /// Takes what belongs to the query out of a message: the aliases from its name and the records at their end. Whatever else
    /// the message holds is left out. `None` for aliases that lead nowhere.
    pub fn read(message: &Message, query: &Query) -> Option<Self> {
        let mut records = Vec::new();
        let mut owner = query.name();
        let dangling = loop {
            let of_owner = |kind| {
                let good = move |record: &&Record| record.record_type() == kind && is_whole(record);
                message
                    .answers
                    .iter()
                    .filter(move |record| record.name == *owner && record.dns_class == DNSClass::IN)
                    .filter(good)
            };
            let before = records.len();
            records.extend(of_owner(query.query_type()).take(MAX_RECORDS).cloned());
            if records.len() > before {
                break None;
            }
            let Some(alias) = of_owner(RecordType::CNAME).next() else { break Some(owner) };
            if records.len() >= MAX_ALIASES {
                return None;
            }
            let RData::CNAME(target) = &alias.data else { return None };
            owner = &target.0;
            records.push(alias.clone());
        };
        let negative = message.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum).min(MAX_NEGATIVE_TTL)),
            _ => None,
        });
        for record in &mut records {
            record.ttl = record.ttl.min(MAX_TTL);
        }
        let shortest = records.iter().map(|record| record.ttl).min().unwrap_or(MAX_TTL);
        let code = message.metadata.response_code;
        let is_end = dangling.is_none();
        let ttl = if is_end { shortest } else { negative.unwrap_or(0).min(shortest) };
        let unsaid = !is_end && !records.is_empty() && negative.is_none() && code == ResponseCode::NoError;
        Some(Self {
            code,
            ttl: Duration::from_secs(u64::from(ttl)),
            dangling: dangling.filter(|_| unsaid).cloned(),
            records,
        })
    }
}

/// The address that a record gives, if it gives one.
pub fn address_of(record: &Record) -> Option<IpAddr> {
    match record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

/// Whether a record has the data of its type: the library takes one without any for a dynamic update.
fn is_whole(record: &Record) -> bool {
    !matches!(record.data, RData::Update0(_))
}

/// The part of a message that is looked at before the library reads it, for that reserves memory for as many questions as the
/// header announces.
struct RawHeader {
    id: u16,
    is_response: bool,
    op_code: u8,
    /// Questions, answers, authorities, additionals.
    counts: [u16; 4],
}

impl RawHeader {
    fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let word = |index: usize| u16::from_be_bytes([header[index], header[index + 1]]);
        Some(Self {
            id: word(0),
            is_response: header[2] & 0x80 != 0,
            op_code: header[2] >> 3 & 0xf,
            counts: [word(4), word(6), word(8), word(10)],
        })
    }

    /// Whether so many records can be in so many bytes.
    fn fits(&self, length: usize) -> bool {
        let records: usize = self.counts[1..].iter().map(|count| usize::from(*count)).sum();
        records * MIN_RECORD <= length
    }
}
