//! A gateway on a thread of its own, and a guest that speaks to it: `smoltcp` on the other end of QEMU's socket.
#![allow(dead_code, missing_docs, reason = "each test takes what it needs")]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forkyard_gateway::address::{
    GATEWAY_IPV4, GATEWAY_IPV6, GATEWAY_MAC, GUEST_IPV4, GUEST_IPV6, GUEST_MAC, PREFIX_IPV4, PREFIX_IPV6,
};
use forkyard_gateway::dns::DnsConfig;
use forkyard_gateway::policy::Operator;
use forkyard_gateway::{Gateway, control, link};
use forkyard_protocol::{NetworkCounters, NetworkEvent, NetworkPolicy};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, IpCidr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

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

/// A machine's network card.
pub struct Card {
    stream: UnixStream,
    inbox: Vec<u8>,
    start: usize,
    scratch: Vec<u8>,
    /// Frames that could not be written at once.
    outbox: Vec<u8>,
}

impl Card {
    fn new(stream: UnixStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { stream, inbox: Vec::new(), start: 0, scratch: vec![0; 256 * 1024], outbox: Vec::new() }
    }

    fn read(&mut self) {
        self.inbox.drain(..self.start);
        self.start = 0;
        let count = match self.stream.read(&mut self.scratch) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        self.inbox.extend_from_slice(&self.scratch[..count]);
    }

    fn next_frame(&mut self) -> Option<std::ops::Range<usize>> {
        let len = *self.inbox[self.start..].first_chunk::<4>()?;
        let from = self.start + 4;
        let to = from + u32::from_be_bytes(len) as usize;
        if self.inbox.len() < to {
            return None;
        }
        self.start = to;
        Some(from..to)
    }

    fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn wait(&self, timeout: Duration) {
        let mut wanted = PollFlags::IN;
        if !self.outbox.is_empty() {
            wanted |= PollFlags::OUT;
        }
        let timeout = Timespec::try_from(timeout).unwrap();
        poll(&mut [PollFd::new(&self.stream, wanted)], Some(&timeout)).unwrap();
    }
}

pub struct Taken(Vec<u8>);
pub struct Sent<'a>(&'a mut Vec<u8>);

impl Device for Card {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Taken, Sent<'_>)> {
        let range = self.next_frame()?;
        Some((Taken(self.inbox[range].to_vec()), Sent(&mut self.outbox)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sent<'_>> {
        (self.outbox.len() < 64 * 1024).then_some(Sent(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        // What the gateway sends is checked in tests that look at single frames.
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

impl RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        self.0.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        let start = self.0.len();
        self.0.resize(start + len, 0);
        fill(&mut self.0[start..])
    }
}

pub struct Guest {
    card: Card,
    interface: Interface,
    pub sockets: SocketSet<'static>,
    next_port: u16,
}

impl Guest {
    pub fn new(stream: UnixStream) -> Self {
        let mut card = Card::new(stream);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        config.random_seed = 1;
        let mut interface = Interface::new(config, &mut card, smoltcp::time::Instant::now());
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST_IPV4.into(), PREFIX_IPV4)).unwrap();
            addresses.push(IpCidr::new(GUEST_IPV6.into(), PREFIX_IPV6)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY_IPV4).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_IPV6).unwrap();
        Self { card, interface, sockets: SocketSet::new(Vec::new()), next_port: 40_000 }
    }

    pub fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        self.connect_with(to, 64 * 1024)
    }

    pub fn connect_with(&mut self, to: SocketAddr, buffer: usize) -> SocketHandle {
        let room = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(room(), room());
        socket.set_nagle_enabled(false);
        self.next_port += 1;
        // For loopback, `smoltcp` would choose a loopback address to come from.
        let from =
            SocketAddr::new(if to.is_ipv4() { GUEST_IPV4.into() } else { GUEST_IPV6.into() }, self.next_port);
        socket.connect(self.interface.context(), to, from).unwrap();
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn turn(&mut self) {
        self.card.read();
        self.interface.poll(smoltcp::time::Instant::now(), &mut self.card, &mut self.sockets);
        self.card.flush();
    }

    /// Goes on until it is so.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.turn();
            if is_so(self) {
                self.turn();
                return;
            }
            assert!(Instant::now() < deadline, "not in time: {what}");
            let delay = self.interface.poll_delay(smoltcp::time::Instant::now(), &self.sockets);
            let delay = delay.map_or(Duration::from_millis(100), Duration::from);
            self.card.wait(delay.min(Duration::from_millis(100)));
        }
    }

    pub fn established(&mut self, to: SocketAddr) -> SocketHandle {
        let handle = self.connect(to);
        self.until("connected", |guest| guest.tcp(handle).may_send());
        handle
    }

    pub fn send(&mut self, handle: SocketHandle, mut bytes: &[u8]) {
        self.until("sent", |guest| {
            if let Ok(count) = guest.tcp(handle).send_slice(bytes) {
                bytes = &bytes[count..];
            }
            bytes.is_empty()
        });
    }

    /// Reads so many bytes.
    pub fn read(&mut self, handle: SocketHandle, len: usize) -> Vec<u8> {
        let mut got = Vec::new();
        self.until("read", |guest| {
            let mut piece = vec![0; len - got.len()];
            if guest.tcp(handle).can_recv() {
                let count = guest.tcp(handle).recv_slice(&mut piece).unwrap();
                got.extend_from_slice(&piece[..count]);
            }
            got.len() == len
        });
        got
    }

    pub fn is_closed(&mut self, handle: SocketHandle) -> bool {
        self.tcp(handle).state() == tcp::State::Closed
    }

    /// The other end has sent all it will, and the guest has read it.
    pub fn at_end(&mut self, handle: SocketHandle) -> bool {
        let state = self.tcp(handle).state();
        !self.tcp(handle).can_recv()
            && matches!(
                state,
                tcp::State::CloseWait | tcp::State::LastAck | tcp::State::Closing | tcp::State::TimeWait
            )
    }

    /// Sends a frame as it is.
    pub fn frame(&mut self, frame: &[u8]) {
        self.card.outbox.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_be_bytes());
        self.card.outbox.extend_from_slice(frame);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.card.flush();
            if self.card.outbox.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "the gateway takes no frame");
            self.card.wait(Duration::from_millis(100));
        }
    }

    /// The next frame that is like this.
    pub fn frame_where<R>(&mut self, mut like: impl FnMut(&[u8]) -> Option<R>) -> R {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(range) = self.card.next_frame() {
                if let Some(found) = like(&self.card.inbox[range]) {
                    return found;
                }
            }
            assert!(Instant::now() < deadline, "no such frame came");
            self.card.wait(Duration::from_millis(100));
            self.card.read();
        }
    }

    /// Sends bytes as they are, no frames.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.card.outbox.extend_from_slice(bytes);
        self.card.flush();
    }

    /// Sends bytes as they are; false where the gateway has not taken them within a second.
    pub fn try_raw(&mut self, bytes: &[u8]) -> bool {
        self.card.outbox.extend_from_slice(bytes);
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            self.card.flush();
            if self.card.outbox.is_empty() {
                return true;
            }
            let timeout = Timespec::try_from(Duration::from_millis(100)).unwrap();
            poll(&mut [PollFd::new(&self.card.stream, PollFlags::OUT)], Some(&timeout)).unwrap();
        }
        false
    }

    /// Reads until all that was to be sent is sent.
    pub fn finish_raw(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.card.outbox.is_empty() {
            assert!(Instant::now() < deadline, "the gateway takes no frame");
            self.card.read();
            self.card.flush();
            self.card.wait(Duration::from_millis(10));
        }
    }
}

/// A frame from the guest.
pub fn ethernet(protocol: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress(GUEST_MAC));
    frame.set_dst_addr(EthernetAddress(GATEWAY_MAC));
    frame.set_ethertype(protocol);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

/// An IPv4 packet.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 20 + payload.len()];
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
    bytes[20..].copy_from_slice(payload);
    bytes
}

/// A UDP datagram of the guest's, in a frame.
pub fn udp(from_port: u16, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("IPv4 only") };
    let repr = UdpRepr { src_port: from_port, dst_port: to.port() };
    let mut bytes = vec![0; 8 + payload.len()];
    let (from, dst) = (GUEST_IPV4.into(), (*to.ip()).into());
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &from,
        &dst,
        payload.len(),
        |room| room.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    ethernet(EthernetProtocol::Ipv4, &ipv4(GUEST_IPV4, *to.ip(), IpProtocol::Udp, &bytes))
}

/// The payload of an IPv4 packet of this protocol in a frame to the guest, and who it is from, all checksums right.
pub fn payload_of(frame: &[u8], protocol: IpProtocol) -> Option<(Ipv4Addr, Vec<u8>)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    assert_eq!(frame.dst_addr().0, GUEST_MAC);
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    assert!(packet.verify_checksum() && packet.dst_addr() == GUEST_IPV4);
    (packet.next_header() == protocol).then(|| (packet.src_addr(), packet.payload().to_vec()))
}

/// The type and code of an ICMP error to the guest.
pub fn icmp_of(frame: &[u8]) -> Option<(u8, u8)> {
    let (_, icmp) = payload_of(frame, IpProtocol::Icmp)?;
    assert!(smoltcp::wire::Icmpv4Packet::new_checked(&icmp[..]).unwrap().verify_checksum());
    Some((icmp[0], icmp[1]))
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
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count @ 1.., from)) = socket.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..count]).unwrap();
            let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
            let asked = query.queries[0].clone();
            answer.add_answer(Record::from_rdata(asked.name().clone(), 60, RData::A(A(address))));
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

/// What a datagram to the guest holds, whom it is from and for which port.
pub fn udp_payload(frame: &[u8]) -> Option<(SocketAddr, u16, Vec<u8>)> {
    let (from, bytes) = payload_of(frame, IpProtocol::Udp)?;
    let packet = UdpPacket::new_checked(&bytes[..]).unwrap();
    assert!(packet.verify_checksum(&from.into(), &GUEST_IPV4.into()));
    Some(((from, packet.src_port()).into(), packet.dst_port(), packet.payload().to_vec()))
}
