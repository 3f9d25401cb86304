//! The guest's TCP: one `smoltcp` interface, and a socket set of one for each connection. `smoltcp` goes through a whole set for
//! each packet; with sets of one and a table of our own, a packet costs the same with one connection or a thousand.

use std::net::SocketAddr;
use std::time::Instant;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::address::{GATEWAY_IPV4, GATEWAY_IPV6, MTU, PREFIX_IPV4, PREFIX_IPV6};
use crate::outbox::Outbox;

/// The guest's end of one connection.
pub struct GuestSocket {
    set: SocketSet<'static>,
    handle: SocketHandle,
}

impl GuestSocket {
    /// One that awaits the opening segment for this address; each of its two buffers has so many bytes.
    pub fn listen(destination: SocketAddr, buffer_len: usize) -> Option<Self> {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer_len]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.listen(destination).ok()?;
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Some(Self { set, handle })
    }

    /// The socket.
    pub fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

/// When a connection has to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Once something arrives.
    Arrival,
    /// Then.
    At(Instant),
    /// Once there is room for frames again.
    Room,
}

/// The TCP stack.
pub struct Stack {
    interface: Interface,
    epoch: Instant,
    none: SocketSet<'static>,
}

impl Stack {
    /// A stack whose sequence numbers begin where the seed says.
    pub fn new(seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut unused = Outbox::default();
        let mut device = Port { incoming: None, out: &mut unused };
        let mut interface = Interface::new(config, &mut device, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let mine = [
                IpCidr::new(GATEWAY_IPV4.into(), PREFIX_IPV4),
                IpCidr::new(GATEWAY_IPV6.into(), PREFIX_IPV6),
            ];
            addresses.extend(mine);
        });
        interface.set_any_ip(true);
        Self { interface, epoch: Instant::now(), none: SocketSet::new(Vec::new()) }
    }

    /// Gives a connection an IP packet of its own.
    pub fn feed(&mut self, out: &mut Outbox, socket: &mut GuestSocket, packet: &[u8]) {
        let now = self.now();
        let mut device = Port { incoming: Some(packet), out };
        self.interface.poll_ingress_single(now, &mut device, &mut socket.set);
    }

    /// Answers a segment of no connection: with a reset, unless it is one.
    pub fn refuse(&mut self, out: &mut Outbox, packet: &[u8]) {
        let now = self.now();
        let mut device = Port { incoming: Some(packet), out };
        self.interface.poll_ingress_single(now, &mut device, &mut self.none);
    }

    /// Sends what a connection has to send.
    pub fn egress(&mut self, out: &mut Outbox, socket: &mut GuestSocket) -> Next {
        let now = self.now();
        let mut device = Port { incoming: None, out };
        while self.interface.poll_egress(now, &mut device, &mut socket.set) == PollResult::SocketStateChanged
        {
        }
        match self.interface.poll_at(now, &socket.set) {
            None => Next::Arrival,
            Some(at) if at > now => Next::At(self.epoch + std::time::Duration::from_micros(micros(at))),
            Some(_) if out.is_full() => Next::Room,
            // Nothing went although something could: not again before the clock has moved.
            Some(_) => Next::At(Instant::now() + std::time::Duration::from_millis(1)),
        }
    }

    fn now(&self) -> StackInstant {
        let passed = self.epoch.elapsed().as_micros();
        StackInstant::from_micros(i64::try_from(passed).unwrap_or(i64::MAX))
    }
}

fn micros(at: StackInstant) -> u64 {
    u64::try_from(at.total_micros()).unwrap_or_default()
}

/// What `smoltcp` takes for a network card: one packet in, the outbox out.
struct Port<'a> {
    incoming: Option<&'a [u8]>,
    out: &'a mut Outbox,
}

struct Incoming<'a>(&'a [u8]);
struct Outgoing<'a>(&'a mut Outbox);

impl Device for Port<'_> {
    type RxToken<'a>
        = Incoming<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: StackInstant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        Some((Incoming(self.incoming.take()?), Outgoing(self.out)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outgoing<'_>> {
        (!self.out.is_full()).then_some(Outgoing(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        self.0.packet(len, fill)
    }
}
