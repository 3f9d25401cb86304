//! What hostile bytes must not do: one function for each way in, for libFuzzer (`fuzz_targets/`) and for the seeded loop of
//! `cargo test` (`tests/fuzz.rs`). A new one is a function here, a line in [`TARGETS`], and for libFuzzer a file in
//! `fuzz_targets/` and its `[[bin]]`. In `server/gateway`, `cargo +nightly fuzz run frames` goes on until it finds something.

pub mod frames;

use std::sync::Arc;

use forkyard_gateway::dns::message::{Resolution, address_of, read_answer};
use forkyard_gateway::dns::{DnsConfig, Resolver, Transport};
use forkyard_gateway::policy::{Operator, Policy};
use forkyard_gateway::sniff::{MAX_SNIFF, Sniffed};
use forkyard_protocol::NetworkPolicy;
use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};

/// A way in, and what good bytes look like.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Panics if the bytes do what they must not.
    pub run: fn(&[u8]),
    /// Bytes to begin from.
    pub seeds: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "dns_query", run: dns_query, seeds: &[A_QUERY, HTTPS_QUERY] },
    Target { name: "dns_answer", run: dns_answer, seeds: &[A_ANSWER, NO_DATA] },
    Target {
        name: "sniff",
        run: sniff,
        seeds: &[HELLO, REQUEST, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"],
    },
    Target {
        name: "frames",
        run: frames::frames,
        seeds: &[frames::NEIGHBOURS, frames::PINGS, frames::REFUSED, frames::QUERY, frames::CONVERSATION],
    },
    Target { name: "dhcp", run: frames::dhcp, seeds: &[frames::DISCOVER, frames::REQUEST] },
];

/// `a.example A`, with EDNS.
pub const A_QUERY: &[u8] =
    b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x01a\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";
/// `1.0.0.10.in-addr.arpa HTTPS`.
pub const HTTPS_QUERY: &[u8] =
    b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x011\x010\x010\x0210\x07in-addr\x04arpa\0\0\x41\0\x01";
/// `a.example` is `b.example` is 203.0.113.1 and 10.0.0.1.
pub const A_ANSWER: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x03\0\0\0\0\x01a\x07example\0\0\x01\0\x01\
    \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x0e\
    \xc0\x27\0\x01\0\x01\0\0\0\0\0\x04\xcb\0\x71\x01\
    \xc0\x27\0\x01\0\x01\0\0\0\0\0\x04\x0a\0\0\x01";
/// There is no such name, and an SOA says for how long.
pub const NO_DATA: &[u8] = b"\x12\x34\x81\x83\0\x01\0\0\0\x01\0\0\x01a\x07example\0\0\x01\0\x01\
    \xc0\x0e\0\x06\0\x01\0\0\0\x3c\0\x19\x01n\xc0\x0e\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x3c";
/// A request with a body.
pub const REQUEST: &[u8] = b"GET http://a.example/ HTTP/1.1\r\nAccept: */*\r\nHost: a.example:80\r\n\r\nbody";
/// A TLS 1.2 hello in two records, for `a.example`.
pub const HELLO: &[u8] = b"\x16\x03\x01\0\x06\x01\0\0\x51\x03\x03\
    \x16\x03\x01\0\x4f00000000000000000000000000000000\0\0\x02\xc0\x2b\x01\0\0\x26\
    \0\0\0\x0e\0\x0c\0\0\x09a.example\0\x0d\0\x04\0\x02\x04\x03\0\x0a\0\x04\0\x02\0\x1d\0\x17\0\0";

/// A guest's query: the answer is one to it, and fits.
pub fn dns_query(bytes: &[u8]) {
    thread_local! {
        static RESOLVER: (tokio::runtime::Runtime, Resolver) = resolver();
    }
    RESOLVER.with(|(runtime, resolver)| {
        let answer = runtime.block_on(resolver.answer(bytes, Transport::Udp));
        let Some(answer) = answer else {
            assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0, "a query without an answer");
            return;
        };
        assert_eq!(answer[..2], bytes[..2], "the id");
        assert!(answer[2] & 0x80 != 0, "no response");
        assert!(answer.len() <= 512, "{} bytes without a record", answer.len());
        hickory_proto::op::Message::from_vec(&answer).expect("an answer that can be read");
    });
}

/// A resolver with nobody to ask.
fn resolver() -> (tokio::runtime::Runtime, Resolver) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let rules = NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() };
    let policy = Policy::new(&rules, &Operator::default()).expect("a policy");
    let config = DnsConfig { queries_per_second: u32::MAX, ..DnsConfig::default() };
    (runtime, Resolver::new(config, Arc::new(policy), drop))
}

/// An upstream's answer, its id guessed: what is taken from it belongs to the question, and is bounded.
pub fn dns_answer(bytes: &[u8]) {
    let Some(id) = bytes.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return };
    let name = Name::from_ascii("a.example.").expect("a name");
    for kind in [RecordType::A, RecordType::AAAA, RecordType::CNAME, RecordType::TXT] {
        let query = Query::query(name.clone(), kind);
        let Some(message) = read_answer(bytes, id, &query) else { continue };
        let Some(resolution) = Resolution::read(&message, &query) else { continue };
        assert!(resolution.records.len() <= 80, "{} records", resolution.records.len());
        assert!(
            resolution.records.first().is_none_or(|first| first.name == name),
            "a record of another name"
        );
        let foreign = |kind: RecordType| kind != RecordType::A && kind != RecordType::AAAA;
        assert!(!foreign(kind) || resolution.records.iter().all(|record| address_of(record).is_none()));
    }
}

/// What a client says first: however it is cut, the verdict is the same, and there is one in the end.
pub fn sniff(bytes: &[u8]) {
    let whole = forkyard_gateway::sniff::sniff(bytes);
    assert!(bytes.len() < MAX_SNIFF || whole != Sniffed::NeedMore, "no end");
    let cut = bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    for length in [cut % (bytes.len() + 1), bytes.len().saturating_sub(1), 1.min(bytes.len())] {
        let part = forkyard_gateway::sniff::sniff(&bytes[..length]);
        assert!(
            part == Sniffed::NeedMore || part == whole,
            "{length} bytes are {part:?}, and all are {whole:?}"
        );
    }
    let name = match &whole {
        Sniffed::Tls { sni } => sni,
        Sniffed::Http { host } => host,
        Sniffed::NeedMore | Sniffed::Other => &None,
    };
    assert_eq!(name.as_deref().and_then(forkyard_protocol::normal_name).as_ref(), name.as_ref(), "no name");
}
