use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use forkyard_protocol::{
    NetworkCounters, NetworkEvent, NetworkEventKind, NetworkPolicy, NetworkProtocol, NetworkVerdict,
};
use tokio::sync::Semaphore;

use crate::address::{DNS_PORT, GATEWAY_IPV4, GATEWAY_IPV6, GUEST_IPV4, GUEST_IPV6, MTU, is_gateway};
use crate::bucket::Bucket;
use crate::connection::Connection;
use crate::dns::{DnsConfig, Refusal, Resolver};
use crate::events::{Events, now_ms};
use crate::limits::{DEFAULT_CONNECTIONS, MAX_CONNECTING, MAX_CONNECTIONS};
use crate::outbox::Outbox;
use crate::ping::{self, Ping};
use crate::policy::{HOST, Operator, Policy, PolicyError, Protocol, Verdict};
use crate::sniff::Sniffed;
use crate::stack::Stack;
use crate::tcp::{self, TcpFlow};
use crate::udp::{self, UdpFlow};
use crate::wire::{self, Datagram, Echo, Inbound, Segment, Unreachable};
use crate::{host, resolve};

/// What stands as the rule where there are too many connections.
pub const LIMIT: &str = "too many connections";
/// What stands as the rule where something else than DNS is asked of the gateway.
pub const GATEWAY: &str = "the gateway itself";
/// What stands as the rule where the host cannot send echo requests for others.
pub const NO_PING: &str = "the host allows no pings";

/// The link's MTU, as ICMP says it.
#[expect(clippy::cast_possible_truncation)]
const LINK_MTU: u16 = MTU as u16;

/// A connection's ends: the guest's and the other.
pub type Pair = (SocketAddr, SocketAddr);

/// A machine's gateway. It lives on one thread, in a [`LocalSet`](tokio::task::LocalSet): each connection is a task of its own
/// there, so nothing but what moves is looked at.
pub struct Gateway {
    /// The guest's TCP.
    pub(crate) stack: RefCell<Stack>,
    /// Frames for the guest.
    pub(crate) out: RefCell<Outbox>,
    /// What may pass.
    pub(crate) rules: RefCell<Rules>,
    /// Who answers DNS.
    pub(crate) resolver: Resolver,
    /// What went through.
    pub(crate) counters: RefCell<NetworkCounters>,
    /// What the server is to hear.
    pub(crate) events: Arc<Events>,
    /// TCP connections.
    pub(crate) tcp: RefCell<HashMap<Pair, Rc<TcpFlow>>>,
    /// Places for those whose host side is being made.
    pub(crate) connecting: Semaphore,
    /// UDP flows.
    pub(crate) udp: RefCell<HashMap<Pair, Rc<UdpFlow>>>,
    /// Pings, by whom they ask and the guest's identifier.
    pub(crate) pings: RefCell<HashMap<(IpAddr, u16), Rc<Ping>>>,
    /// DNS queries that are being answered.
    pub(crate) queries: Cell<usize>,
    /// What a datagram is read into.
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// Of the last datagram that was sent in fragments.
    pub(crate) ident: Cell<u16>,
}

/// A policy and what follows from it.
pub(crate) struct Rules {
    policy: Arc<Policy>,
    operator: Operator,
    most: usize,
    /// Bytes from the guest.
    pub(crate) outward: Bucket,
    /// Bytes to the guest.
    pub(crate) inward: Bucket,
}

impl Rules {
    fn new(policy: &NetworkPolicy, operator: Operator) -> Result<Self, PolicyError> {
        let most = policy.max_connections.and_then(|most| usize::try_from(most).ok());
        let bucket = Bucket::new(policy.bandwidth_kbps, Instant::now());
        Ok(Self {
            policy: Arc::new(Policy::new(policy, &operator)?),
            operator,
            most: most.unwrap_or(DEFAULT_CONNECTIONS).min(MAX_CONNECTIONS),
            outward: bucket.clone(),
            inward: bucket,
        })
    }

    /// Judges a connection.
    pub(crate) fn decide(&self, protocol: Protocol, to: SocketAddr, resolver: &Resolver) -> Verdict {
        self.policy.decide(protocol, to, &resolver.names(), Instant::now())
    }

    /// Judges one whose client has said its name.
    pub(crate) fn decide_named(&self, to: SocketAddr, said: &Sniffed, resolver: &Resolver) -> Verdict {
        self.policy.decide_named(to, said, &resolver.names(), Instant::now())
    }
}

impl Gateway {
    /// A gateway with this policy, which does nothing until it is given frames. The seed makes its TCP sequence numbers.
    pub fn new(
        policy: &NetworkPolicy,
        operator: Operator,
        dns: DnsConfig,
        seed: u64,
    ) -> Result<Rc<Self>, PolicyError> {
        let rules = Rules::new(policy, operator)?;
        let events = Arc::<Events>::default();
        let hears = events.clone();
        let resolver =
            Resolver::new(dns, rules.policy.clone(), move |refusal| hears.push(dns_refused(refusal)));
        Ok(Rc::new(Self {
            stack: RefCell::new(Stack::new(seed)),
            out: RefCell::default(),
            rules: RefCell::new(rules),
            resolver,
            counters: RefCell::default(),
            events,
            tcp: RefCell::default(),
            connecting: Semaphore::new(MAX_CONNECTING),
            udp: RefCell::default(),
            pings: RefCell::default(),
            queries: Cell::new(0),
            scratch: RefCell::new(vec![0; usize::from(u16::MAX)]),
            ident: Cell::new(0),
        }))
    }

    /// Takes a frame from the guest, whatever it holds. Within a `LocalSet`.
    pub fn frame_in(self: &Rc<Self>, frame: &[u8]) {
        match wire::read(frame) {
            Ok(inbound) => self.take(inbound),
            Err(_) => self.drop_frame(),
        }
    }

    fn take(self: &Rc<Self>, inbound: Inbound<'_>) {
        let out = || self.out.borrow_mut();
        match inbound {
            // Whoever is asked for on this link is the gateway, but the guest: it looks whether its own address is free.
            Inbound::Arp(address) if address != GUEST_IPV4 => wire::arp_reply(&mut out(), address),
            Inbound::NeighbourSolicit { target, from } if target != GUEST_IPV6 && target != from => {
                wire::neighbour_advert(&mut out(), target, from);
            }
            Inbound::Arp(_) | Inbound::NeighbourSolicit { .. } | Inbound::Chatter => {}
            Inbound::Dhcp(message) => wire::dhcp_answer(&mut out(), message),
            Inbound::Segment(segment) => self.segment(&segment),
            Inbound::Datagram(datagram) => self.datagram(&datagram),
            Inbound::Echo(echo) => self.echo(&echo),
            Inbound::Unsupported(packet) => wire::unreachable(&mut out(), packet, Unreachable::Prohibited),
            Inbound::TooBig(packet) => {
                wire::unreachable(&mut out(), packet, Unreachable::TooBig(LINK_MTU));
            }
        }
    }

    fn segment(self: &Rc<Self>, segment: &Segment<'_>) {
        let flow = self.tcp.borrow().get(&(segment.source, segment.destination)).cloned();
        if let Some(flow) = flow {
            flow.segment(self, segment);
            return;
        }
        if !segment.opens {
            self.stack.borrow_mut().refuse(&mut self.out.borrow_mut(), segment.packet);
            return;
        }
        let resolver = is_gateway(segment.destination.ip()) && segment.destination.port() == DNS_PORT;
        let admitted = if resolver {
            self.room().map(|()| None)
        } else {
            self.admit(Protocol::Tcp, segment.destination)
        };
        match admitted {
            Ok(None) => resolve::open_tcp(self, segment),
            Ok(Some(admitted)) => tcp::open(self, segment, admitted),
            Err(rule) => {
                self.refused(Protocol::Tcp, segment.destination, rule);
                self.stack.borrow_mut().refuse(&mut self.out.borrow_mut(), segment.packet);
            }
        }
    }

    fn datagram(self: &Rc<Self>, datagram: &Datagram<'_>) {
        let to = datagram.destination;
        if is_gateway(to.ip()) && to.port() == DNS_PORT {
            resolve::answer_udp(self, datagram);
            return;
        }
        let flow = self.udp.borrow().get(&(datagram.source, to)).cloned();
        let flow = match flow {
            Some(flow) => Ok(flow),
            None => match self.admit(Protocol::Udp, to) {
                Ok(Some(Admitted { verdict: Verdict::Allow { rule }, name })) => {
                    udp::open(self, datagram, rule, name)
                }
                Ok(_) => Err(Unreachable::Prohibited),
                Err(rule) => {
                    self.refused(Protocol::Udp, to, rule);
                    Err(Unreachable::Prohibited)
                }
            },
        };
        match flow {
            Ok(flow) => flow.send(self, datagram),
            Err(why) => wire::unreachable(&mut self.out.borrow_mut(), datagram.packet, why),
        }
    }

    fn echo(self: &Rc<Self>, echo: &Echo<'_>) {
        let Echo { destination, ident, sequence, data, .. } = *echo;
        if destination == GATEWAY_IPV4 || destination == GATEWAY_IPV6 {
            wire::echo_reply(&mut self.out.borrow_mut(), destination, ident, sequence, data);
            return;
        }
        let ping = self.pings.borrow().get(&(destination, ident)).cloned();
        let remote = SocketAddr::new(destination, 0);
        let ping = match ping {
            Some(ping) => Ok(ping),
            None => match self.admit(Protocol::Icmp, remote) {
                Ok(Some(Admitted { verdict: Verdict::Allow { rule }, name })) => {
                    ping::open(self, echo, rule, name)
                }
                Ok(_) => Err(Unreachable::Prohibited),
                Err(rule) => {
                    self.refused(Protocol::Icmp, remote, rule);
                    Err(Unreachable::Prohibited)
                }
            },
        };
        match ping {
            Ok(ping) => ping.send(self, echo),
            Err(why) => wire::unreachable(&mut self.out.borrow_mut(), echo.packet, why),
        }
    }

    /// Whether there may be one more connection.
    fn room(&self) -> Result<(), String> {
        let open = self.tcp.borrow().len() + self.udp.borrow().len() + self.pings.borrow().len();
        if open < self.rules.borrow().most { Ok(()) } else { Err(LIMIT.into()) }
    }

    /// Whether a new connection may be made, now; the rule that is against it otherwise.
    fn admit(&self, protocol: Protocol, to: SocketAddr) -> Result<Option<Admitted>, String> {
        if is_gateway(to.ip()) {
            return Err(GATEWAY.into());
        }
        self.room()?;
        let rules = self.rules.borrow();
        let verdict = rules.decide(protocol, to, &self.resolver);
        if let Verdict::Refuse { rule } = verdict {
            return Err(rule);
        }
        // A name that the guest chose may stand for any address, and the policy need not know the host's.
        if !rules.policy.opens(to) && host::is_own(to).unwrap_or(true) {
            return Err(HOST.into());
        }
        let name = self.resolver.names().of(to.ip(), Instant::now()).next().map(ToOwned::to_owned);
        Ok(Some(Admitted { verdict, name }))
    }

    /// Tells the server that a connection was refused.
    pub(crate) fn refused(&self, protocol: Protocol, to: SocketAddr, rule: String) {
        self.counters.borrow_mut().connections_refused += 1;
        let connection = Connection::new(protocol, to, rule, None);
        self.tell(&connection, NetworkEventKind::ConnectionRefused);
    }

    /// Tells the server what happened to a connection.
    pub(crate) fn tell(&self, connection: &Connection, kind: NetworkEventKind) {
        self.events.push(connection.event(kind));
    }

    /// Counts a connection that is open from now on.
    pub(crate) fn opened(&self, connection: &Connection) {
        let mut counters = self.counters.borrow_mut();
        counters.connections_open += 1;
        counters.connections_total += 1;
        connection.told_open.set(true);
        self.tell(connection, NetworkEventKind::ConnectionOpened);
    }

    /// Counts one that is no more.
    pub(crate) fn ended(&self, connection: &Connection) {
        if connection.told_open.get() {
            self.counters.borrow_mut().connections_open -= 1;
            self.tell(connection, NetworkEventKind::ConnectionEnded);
        }
    }

    /// Counts payload that the guest sent.
    pub(crate) fn sent(&self, connection: &Connection, bytes: usize) {
        connection.bytes_out.set(connection.bytes_out.get() + bytes as u64);
        self.counters.borrow_mut().bytes_out += bytes as u64;
    }

    /// Counts payload that it got.
    pub(crate) fn got(&self, connection: &Connection, bytes: usize) {
        connection.bytes_in.set(connection.bytes_in.get() + bytes as u64);
        self.counters.borrow_mut().bytes_in += bytes as u64;
    }

    /// Counts a frame or datagram that goes nowhere.
    pub(crate) fn drop_frame(&self) {
        self.counters.borrow_mut().dropped_frames += 1;
    }

    /// What went through so far.
    pub fn counters(&self) -> NetworkCounters {
        NetworkCounters { dropped_events: self.events.dropped(), ..*self.counters.borrow() }
    }

    /// Puts another policy in place. What it no longer allows ends at once.
    pub fn set_policy(&self, policy: &NetworkPolicy) -> Result<(), PolicyError> {
        let operator = self.rules.borrow().operator.clone();
        let rules = Rules::new(policy, operator)?;
        self.resolver.set_policy(rules.policy.clone());
        *self.rules.borrow_mut() = rules;
        for flow in self.tcp.borrow().values() {
            flow.judge_again(self);
        }
        let rules = self.rules.borrow();
        let udp = self.udp.borrow();
        let pings = self.pings.borrow();
        let others =
            udp.values().map(|flow| &flow.connection).chain(pings.values().map(|ping| &ping.connection));
        for connection in others {
            let verdict = rules.decide(connection.protocol, connection.remote, &self.resolver);
            if !matches!(verdict, Verdict::Allow { .. }) {
                connection.cut();
            }
        }
        Ok(())
    }
}

/// A connection that may be made.
pub(crate) struct Admitted {
    /// On what condition.
    pub(crate) verdict: Verdict,
    /// The name that DNS gave its address for.
    pub(crate) name: Option<String>,
}

/// What the server hears of a query that was refused.
fn dns_refused(refusal: Refusal) -> NetworkEvent {
    let Refusal { name, rule, address } = refusal;
    NetworkEvent {
        at_ms: now_ms(),
        kind: NetworkEventKind::DnsRefused,
        protocol: Some(NetworkProtocol::Dns),
        name: Some(name),
        address,
        port: None,
        bytes_out: 0,
        bytes_in: 0,
        verdict: Some(NetworkVerdict::Refused),
        rule: Some(rule),
    }
}
