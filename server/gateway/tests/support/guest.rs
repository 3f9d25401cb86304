//! A guest of `smoltcp`'s at the other end of QEMU's socket, and its card.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use forkyard_gateway::address::{
    GATEWAY_IPV4, GATEWAY_IPV6, GUEST_IPV4, GUEST_IPV6, GUEST_MAC, PREFIX_IPV4, PREFIX_IPV6,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::PATIENCE;

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
