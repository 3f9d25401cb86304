//! The resolver against servers of every kind.

use std::time::Instant;

use forkyard_protocol::NetworkPolicy;
use hickory_proto::op::{Edns, MessageType, OpCode};
use hickory_proto::rr::rdata::{MX, SOA};
use hickory_proto::rr::{RData, Record, RecordType};

use super::*;
use crate::policy::Operator;

mod hostile;
mod server;

use server::{Send, Server, address, alias, answer, failure, name};

const OPEN: (bool, &[&str]) = (true, &[]);

struct Bench {
    resolver: Resolver,
    refusals: Arc<Mutex<Vec<Refusal>>>,
}

fn policy((open, allow): (bool, &[&str])) -> Arc<Policy> {
    let policy = NetworkPolicy {
        allow_internet_access: open,
        allow_out: allow.iter().map(ToString::to_string).collect(),
        ..NetworkPolicy::default()
    };
    Arc::new(Policy::new(&policy, &Operator::default()).unwrap())
}

fn bench_with(rules: (bool, &[&str]), config: DnsConfig) -> Bench {
    let refusals = Arc::new(Mutex::new(Vec::new()));
    let resolver = Resolver::new(config, policy(rules), {
        let refusals = refusals.clone();
        move |refusal| refusals.lock().unwrap().push(refusal)
    });
    Bench { resolver, refusals }
}

fn bench(rules: (bool, &[&str]), servers: &[&Server]) -> Bench {
    let upstreams = servers.iter().map(|server| server.address).collect();
    // So long that a slow machine is not taken for a lost datagram.
    bench_with(rules, DnsConfig { upstreams, timeout_ms: 60_000, ..DnsConfig::default() })
}

fn query(asked: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(asked), kind));
    message
}

impl Bench {
    async fn send(&self, query: &Message, transport: Transport) -> Message {
        let bytes = self.resolver.answer(&query.to_vec().unwrap(), transport).await.expect("an answer");
        Message::from_vec(&bytes).unwrap()
    }

    /// Asks by TCP, so that nothing is truncated.
    async fn ask(&self, asked: &str, kind: RecordType) -> Message {
        self.send(&query(asked, kind), Transport::Tcp).await
    }

    async fn code(&self, asked: &str, kind: RecordType) -> ResponseCode {
        self.ask(asked, kind).await.metadata.response_code
    }

    fn given(&self, address: &str) -> Vec<String> {
        let given = self.resolver.names();
        given.of(address.parse().unwrap(), Instant::now()).map(str::to_owned).collect()
    }

    fn refusals(&self) -> Vec<(String, String)> {
        let refusals = std::mem::take(&mut *self.refusals.lock().unwrap());
        refusals.into_iter().map(|refusal| (refusal.name, refusal.rule)).collect()
    }
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().filter_map(address_of).map(|address| address.to_string()).collect()
}

#[tokio::test]
async fn an_answer_is_the_clients_own_and_is_remembered() {
    let server =
        Server::with(vec![address("pypi.org", 30, "203.0.113.1"), address("pypi.org", 30, "203.0.113.2")])
            .await;
    let bench = bench(OPEN, &[&server]);
    let reply = bench.ask("PyPI.org", RecordType::A).await;
    assert_eq!((reply.metadata.id, reply.metadata.response_code), (0x1234, ResponseCode::NoError));
    assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);
    assert!(reply.queries[0].name().eq_case(&name("PyPI.org")), "as it was asked");
    assert_eq!(addresses(&reply), ["203.0.113.1", "203.0.113.2"]);
    assert_eq!(bench.given("203.0.113.2"), ["pypi.org"]);
    bench.ask("pypi.org", RecordType::A).await;
    assert_eq!(server.asked(), 1, "the second is known");
    assert!(reply.edns.is_none());
}

#[tokio::test]
async fn aliases_give_the_name_that_was_asked_for() {
    let records = vec![
        address("c.example", 300, "203.0.113.1"),
        alias("a.example", 300, "b.example"),
        alias("b.example", 300, "c.example"),
        address("stray.example", 300, "203.0.113.9"),
        alias("stray.example", 300, "c.example"),
    ];
    let server = Server::with(records).await;
    let bench = bench(OPEN, &[&server]);
    let reply = bench.ask("a.example", RecordType::A).await;
    assert_eq!(reply.answers.len(), 3, "what was not asked for is left out");
    assert_eq!(bench.given("203.0.113.1"), ["a.example"]);
    assert_eq!(bench.given("203.0.113.9").len(), 0);
}

#[tokio::test]
async fn aliases_that_upstream_leaves_open_are_followed() {
    let server = Server::start(|query, _| {
        let records = match query.queries[0].name().to_ascii().as_str() {
            "a.example." => vec![alias("a.example", 300, "b.example")],
            "b.example." => vec![address("b.example", 300, "203.0.113.1")],
            "round.example." => vec![alias("round.example", 300, "round.example")],
            "one.example." => vec![alias("one.example", 300, "two.example")],
            _ => vec![alias("two.example", 300, "one.example")],
        };
        vec![Send::Own(answer(query, &records).to_vec().unwrap())]
    })
    .await;
    let bench = bench(OPEN, &[&server]);
    assert_eq!(bench.ask("a.example", RecordType::A).await.answers.len(), 2);
    assert_eq!(bench.given("203.0.113.1"), ["a.example"]);
    assert_eq!(bench.code("round.example", RecordType::A).await, ResponseCode::ServFail);
    assert_eq!(bench.code("one.example", RecordType::A).await, ResponseCode::ServFail);
}

#[tokio::test]
async fn another_resolver_is_asked_where_one_fails() {
    let failing =
        Server::start(|query, _| vec![Send::Own(failure(query, ResponseCode::ServFail).to_vec().unwrap())])
            .await;
    let gone = Server::with(Vec::new()).await.address;
    let working = Server::with(vec![address("pypi.org", 300, "203.0.113.1")]).await;
    let upstreams = vec![failing.address, gone, working.address];
    let bench = bench_with(OPEN, DnsConfig { upstreams, timeout_ms: 60_000, ..DnsConfig::default() });
    assert_eq!(addresses(&bench.ask("pypi.org", RecordType::A).await), ["203.0.113.1"]);
    assert_eq!((failing.asked(), working.asked()), (1, 1));
}

#[tokio::test]
async fn a_large_answer_goes_by_tcp() {
    let records: Vec<Record> =
        (1..=60).map(|last| address("pypi.org", 300, &format!("203.0.113.{last}"))).collect();
    let server = Server::start(move |query, transport| {
        let mut message = answer(query, &records);
        if transport == Transport::Udp {
            message = message.truncate();
        }
        vec![Send::Own(message.to_vec().unwrap())]
    })
    .await;
    let bench = bench(OPEN, &[&server]);
    let plain = query("pypi.org", RecordType::A);
    let reply = bench.send(&plain, Transport::Udp).await;
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    assert_eq!(bench.given("203.0.113.60").len(), 0, "not given yet");
    let mut with_edns = plain.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    with_edns.set_edns(edns);
    let reply = bench.send(&with_edns, Transport::Udp).await;
    assert!(!reply.metadata.truncation && reply.edns.is_some(), "it fits into 1232 bytes");
    assert_eq!(bench.send(&plain, Transport::Tcp).await.answers.len(), 60);
    assert_eq!(bench.given("203.0.113.60"), ["pypi.org"]);
    assert_eq!(server.asked(), 2, "once by UDP, once by TCP");
}

#[tokio::test]
async fn names_that_are_not_allowed_are_not_asked_for() {
    let server = Server::with(vec![address("pypi.org", 300, "203.0.113.1")]).await;
    let bench = bench((false, &["pypi.org"]), &[&server]);
    assert_eq!(bench.code("secret.evil.example", RecordType::A).await, ResponseCode::Refused);
    assert_eq!(bench.code("secret.pypi.org", RecordType::TXT).await, ResponseCode::Refused);
    assert_eq!(server.asked(), 0);
    assert_eq!(bench.refusals()[0], ("secret.evil.example".to_owned(), "default".to_owned()));
    assert_eq!(bench.code("PYPI.org", RecordType::A).await, ResponseCode::NoError);
    bench.resolver.set_policy(policy((false, &[])));
    assert_eq!(
        bench.code("pypi.org", RecordType::A).await,
        ResponseCode::Refused,
        "the newest policy, cached or not"
    );
}

#[tokio::test]
async fn each_type_has_its_treatment() {
    let exchange = Record::from_rdata(name("pypi.org"), 300, RData::MX(MX::new(10, name("mx.pypi.org"))));
    let server = Server::with(vec![exchange]).await;
    let bench = bench(OPEN, &[&server]);
    for kind in [RecordType::HTTPS, RecordType::SVCB, RecordType::NS, RecordType::DNSKEY] {
        let reply = bench.ask("pypi.org", kind).await;
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0), "{kind}");
    }
    for kind in [RecordType::ANY, RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(bench.code("pypi.org", kind).await, ResponseCode::NotImp, "{kind}");
    }
    assert_eq!(server.asked(), 0);
    assert_eq!(bench.ask("pypi.org", RecordType::MX).await.answers.len(), 1);
    for private in ["1.0.0.10.in-addr.arpa", "254.169.254.169.IN-ADDR.arpa", "168.192.in-addr.arpa"] {
        assert_eq!(bench.code(private, RecordType::PTR).await, ResponseCode::NXDomain, "{private}");
    }
    assert_eq!(bench.code("1.113.0.203.in-addr.arpa", RecordType::PTR).await, ResponseCode::NoError);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn that_there_is_nothing_is_kept_as_long_as_upstream_says() {
    let server = Server::start(|query, _| {
        let mut message = failure(query, ResponseCode::NXDomain);
        let soa = SOA::new(name("ns.example"), name("root.example"), 1, 1, 1, 1, 60);
        if query.queries[0].name() == &name("kept.example") {
            message.add_authority(Record::from_rdata(name("example"), 60, RData::SOA(soa)));
        }
        vec![Send::Own(message.to_vec().unwrap())]
    })
    .await;
    let bench = bench(OPEN, &[&server]);
    for (asked, times) in [("kept.example", 1), ("fleeting.example", 3)] {
        for _ in 0..2 {
            assert_eq!(bench.code(asked, RecordType::A).await, ResponseCode::NXDomain);
        }
        assert_eq!(server.asked(), times, "{asked}");
    }
}

#[tokio::test]
async fn what_is_no_good_query_is_not_asked() {
    let server = Server::with(vec![address("pypi.org", 300, "203.0.113.1")]).await;
    let bench = bench(OPEN, &[&server]);
    let good = query("pypi.org", RecordType::A).to_vec().unwrap();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    for bytes in [Vec::new(), good[..11].to_vec(), changed(&|bytes| bytes[2] |= 0x80)] {
        assert_eq!(bench.resolver.answer(&bytes, Transport::Udp).await, None, "{bytes:?}");
    }
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.queries[0].set_query_class(hickory_proto::rr::DNSClass::CH);
    let mut newer = query("pypi.org", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    for (what, bytes, code) in [
        ("an update", changed(&|bytes| bytes[2] = 5 << 3), 4),
        ("no question", changed(&|bytes| bytes[5] = 0), 1),
        ("two questions", changed(&|bytes| bytes[5] = 2), 1),
        ("65,535 questions", changed(&|bytes| bytes[4..6].fill(0xff)), 1),
        ("65,535 additionals", changed(&|bytes| bytes[10..12].fill(0xff)), 1),
        ("an answer in it", changed(&|bytes| bytes[7] = 1), 1),
        ("a name that ends early", good[..20].to_vec(), 1),
        ("a name that points at itself", changed(&|bytes| bytes[12..14].copy_from_slice(&[0xc0, 12])), 1),
        ("too long", changed(&|bytes| bytes.resize(MAX_QUERY + 1, 0)), 1),
        ("another class", chaos.to_vec().unwrap(), 4),
    ] {
        let reply = bench.resolver.answer(&bytes, Transport::Udp).await.unwrap();
        assert_eq!((reply[..2].to_vec(), reply[3] & 0xf), (vec![0x12, 0x34], code), "{what}");
    }
    let reply = bench.send(&newer, Transport::Udp).await;
    assert_eq!(u16::from(reply.metadata.response_code), 16, "BADVERS");
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_machine_asks_no_more_than_it_may() {
    let server = Server::with(vec![address("pypi.org", 300, "203.0.113.1")]).await;
    let config = DnsConfig { upstreams: vec![server.address], queries_per_second: 0, ..DnsConfig::default() };
    let bench = bench_with(OPEN, config);
    assert_eq!(
        bench.code("pypi.org", RecordType::A).await,
        ResponseCode::NoError,
        "a burst is one at the least"
    );
    for _ in 0..3 {
        assert_eq!(bench.code("pypi.org", RecordType::A).await, ResponseCode::ServFail);
    }
    assert_eq!(bench.refusals(), [("pypi.org".to_owned(), TOO_MANY.to_owned())], "said once");

    let silent = Server::start(|_, _| Vec::new()).await;
    let upstreams = vec![silent.address];
    let config = DnsConfig { upstreams, in_flight: 1, timeout_ms: 500, ..DnsConfig::default() };
    let bench = bench_with(OPEN, config);
    let mut first = std::pin::pin!(bench.code("a.example", RecordType::A));
    tokio::select! {
        biased;
        code = &mut first => panic!("{code} before the second"),
        code = bench.code("b.example", RecordType::A) => assert_eq!(code, ResponseCode::ServFail),
    }
    assert_eq!(first.await, ResponseCode::ServFail);
    assert!(silent.asked() > 0);
}
