//! A gateway on a thread of its own, and a guest that speaks to it: `smoltcp` on the other end of QEMU's socket.
#![allow(dead_code, missing_docs, unused_imports, reason = "each test takes what it needs")]

mod guest;
mod packets;

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use forkyard_gateway::dns::DnsConfig;
use forkyard_gateway::policy::Operator;
use forkyard_gateway::{Gateway, control, link};
use forkyard_protocol::{NetworkCounters, NetworkEvent, NetworkPolicy};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

pub use guest::Guest;
pub use packets::{echo_request, ethernet, icmp_of, ipv4, payload_of, udp, udp_payload};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub guest: Guest,
    pub control: PathBuf,
    folder: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl World {
    /// A policy that allows everything, on a host whose operator opened loopback.
    pub fn open() -> Self {
        Self::with(NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() })
    }

    pub fn with(policy: NetworkPolicy) -> Self {
        let opened = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
        Self::start(policy, Operator { extra_allow: opened, ..Operator::default() }, Vec::new())
    }

    pub fn start(policy: NetworkPolicy, operator: Operator, dns: Vec<SocketAddr>) -> Self {
        let (qemu, guest) = UnixStream::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                qemu.set_nonblocking(true).unwrap();
                listener.set_nonblocking(true).unwrap();
                let qemu = tokio::net::UnixStream::from_std(qemu).unwrap();
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                let gateway =
                    Gateway::new(&policy, operator, DnsConfig { upstreams: dns, ..DnsConfig::default() }, 7)
                        .unwrap();
                tokio::select! {
                    done = link::run(&gateway, &qemu) => done.unwrap(),
                    done = control::serve(gateway.clone(), listener) => done.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { guest: Guest::new(guest), control: path, folder, thread: Some(thread), stop: Some(stop) }
    }

    pub fn server(&self) -> Server {
        Server::connect(&self.control)
    }

    pub fn counters(&self) -> NetworkCounters {
        self.server().counters()
    }

    /// Waits until the gateway ended by itself.
    pub fn ended(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the gateway panicked");
        }
    }
}

/// The server's end of the control socket.
pub struct Server {
    reader: std::io::BufReader<UnixStream>,
    /// Events that came before an answer.
    events: VecDeque<NetworkEvent>,
}

impl Server {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: std::io::BufReader::new(stream), events: VecDeque::new() }
    }

    pub fn say(&mut self, message: &control::ToGateway) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        self.reader.get_mut().write_all(&line).unwrap();
    }

    pub fn say_raw(&mut self, line: &[u8]) {
        self.reader.get_mut().write_all(line).unwrap();
    }

    /// The next line; none once the gateway has hung up.
    pub fn hear(&mut self) -> Option<control::FromGateway> {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.reader, &mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    pub fn event(&mut self) -> NetworkEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if let control::FromGateway::Event(event) = self.hear().expect("the gateway hung up") {
                return event;
            }
        }
    }

    /// The next line that is no event.
    fn answer(&mut self) -> control::FromGateway {
        loop {
            match self.hear().expect("the gateway hung up") {
                control::FromGateway::Event(event) => self.events.push_back(event),
                answer => return answer,
            }
        }
    }

    pub fn counters(&mut self) -> NetworkCounters {
        self.say(&control::ToGateway::Counters);
        match self.answer() {
            control::FromGateway::Counters(counters) => counters,
            other => panic!("{other:?}"),
        }
    }

    pub fn set_policy(&mut self, policy: NetworkPolicy) {
        self.say(&control::ToGateway::Policy(policy));
        assert_eq!(self.answer(), control::FromGateway::PolicySet);
    }
}

/// A server on loopback; each connection is given to a thread.
pub fn serve(address: &str, act: impl Fn(std::net::TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind(address).unwrap();
    let at = listener.local_addr().unwrap();
    let act = std::sync::Arc::new(act);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, act) = (stream.unwrap(), act.clone());
            std::thread::spawn(move || act(stream));
        }
    });
    at
}

/// A resolver on loopback that gives this address for every name, until it gets nothing.
pub fn upstream(address: Ipv4Addr) -> SocketAddr {
    upstream_that(move |_| (address, 60))
}

/// One that gives what it is told to for the first query, the second, and so on: an address and how long it is good for in seconds.
pub fn upstream_that(mut gives: impl FnMut(usize) -> (Ipv4Addr, u32) + Send + 'static) -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        let mut turn = 0;
        while let Ok((count @ 1.., from)) = socket.recv_from(&mut buffer) {
            let (address, ttl) = gives(turn);
            turn += 1;
            let query = Message::from_vec(&buffer[..count]).unwrap();
            let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
            let asked = query.queries[0].clone();
            answer.add_answer(Record::from_rdata(asked.name().clone(), ttl, RData::A(A(address))));
            answer.add_query(asked);
            socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
        }
    });
    at
}

/// A query for a name's address.
pub fn query(name: &str) -> Vec<u8> {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query.to_vec().unwrap()
}

/// The addresses of an answer.
pub fn addresses(answer: &[u8]) -> Vec<Ipv4Addr> {
    let answers = Message::from_vec(answer).unwrap().answers;
    answers
        .iter()
        .filter_map(|record| if let RData::A(A(address)) = record.data { Some(address) } else { None })
        .collect()
}
