//! TCP connections of the guest. The host's side is made first; the guest's handshake is answered once it stands.

mod guest;
mod relay;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use forkyard_protocol::NetworkEventKind;
use smoltcp::socket::tcp::State;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use self::guest::Guest;
use self::relay::{End, Relay};
use crate::connection::Connection;
use crate::gateway::{Admitted, Gateway, Pair};
use crate::host::{self, Failure};
use crate::limits::{CONNECT_DEADLINE, buffer_len};
use crate::policy::{Protocol, Verdict};
use crate::sniff::Sniffed;
use crate::stack::GuestSocket;
use crate::wire::{self, Segment, Unreachable};

/// One connection of the guest's.
pub struct TcpFlow {
    pub(crate) connection: Connection,
    /// Whether the client has to say its name first.
    by_name: Cell<bool>,
    /// What it said.
    said: RefCell<Option<Sniffed>>,
    /// The guest's end; none before the host's stands.
    pub(crate) socket: RefCell<Option<GuestSocket>>,
}

impl TcpFlow {
    /// One whose host side is yet to be made.
    pub(crate) fn new(connection: Connection, by_name: bool) -> Rc<Self> {
        Rc::new(Self {
            connection,
            by_name: Cell::new(by_name),
            said: RefCell::default(),
            socket: RefCell::default(),
        })
    }

    /// Takes a segment of this connection.
    pub(crate) fn segment(&self, gateway: &Gateway, segment: &Segment<'_>) {
        match &mut *self.socket.borrow_mut() {
            Some(socket) => {
                gateway.stack.borrow_mut().feed(&mut gateway.out.borrow_mut(), socket, segment.packet);
                self.connection.wake();
            }
            // The guest may give up before the host's side stands; that it asks again says nothing new.
            None if segment.resets => self.connection.cut(),
            None => {}
        }
    }

    /// Answers the opening segment; the guest's end exists from then on. False where there is no such handshake.
    pub(crate) fn establish(&self, gateway: &Gateway, opening: &[u8]) -> bool {
        let buffers = buffer_len(gateway.tcp.borrow().len());
        let Some(mut socket) = GuestSocket::listen(self.connection.remote, buffers) else { return false };
        gateway.stack.borrow_mut().feed(&mut gateway.out.borrow_mut(), &mut socket, opening);
        let begun = socket.tcp().state() == State::SynReceived;
        *self.socket.borrow_mut() = Some(socket);
        begun
    }

    /// Ends it if the policy is now against it.
    pub(crate) fn judge_again(&self, gateway: &Gateway) {
        if self.connection.rule.borrow().as_str() == crate::gateway::GATEWAY {
            return;
        }
        let remote = self.connection.remote;
        let rules = gateway.rules.borrow();
        let mut verdict = rules.decide(Protocol::Tcp, remote, &gateway.resolver);
        if let (Verdict::AllowNamed { .. }, Some(said)) = (&verdict, &*self.said.borrow()) {
            verdict = rules.decide_named(remote, said, &gateway.resolver);
        }
        match verdict {
            Verdict::Allow { .. } => {}
            // Its client has not spoken yet, so its name will be heard; one that spoke unheard cannot be judged.
            Verdict::AllowNamed { .. } if self.connection.bytes_out.get() == 0 => {
                self.by_name.set(true);
                self.connection.wake();
            }
            Verdict::AllowNamed { .. } | Verdict::Refuse { .. } => self.connection.cut(),
        }
    }
}

/// Begins a connection that may be made.
pub(crate) fn open(gateway: &Rc<Gateway>, segment: &Segment<'_>, admitted: Admitted) {
    let Admitted { verdict, name } = admitted;
    let (rule, by_name) = match verdict {
        Verdict::Allow { rule } | Verdict::Refuse { rule } => (rule, false),
        Verdict::AllowNamed { rule, names } => {
            tracing::trace!("{} was given for {names:?}", segment.destination);
            (rule, true)
        }
    };
    let flow = TcpFlow::new(Connection::new(Protocol::Tcp, segment.destination, rule, name), by_name);
    let pair = (segment.source, segment.destination);
    gateway.tcp.borrow_mut().insert(pair, flow.clone());
    let opening = segment.packet.to_vec();
    tokio::task::spawn_local(serve(gateway.clone(), pair, flow, opening));
}

async fn serve(gateway: Rc<Gateway>, pair: Pair, flow: Rc<TcpFlow>, opening: Vec<u8>) {
    let connect = timeout(CONNECT_DEADLINE, async {
        // The table is full of those that wait for somebody who does not answer: this one waits for a place.
        let _place = gateway.connecting.acquire().await;
        host::connect(flow.connection.remote).await
    });
    let connected = flow.connection.unless_cut(connect).await;
    let connected = connected.map(|in_time| in_time.unwrap_or(Err(Failure::Unreachable(Unreachable::Host))));
    match connected {
        Some(Ok(host)) => relay(&gateway, &flow, host, &opening).await,
        Some(Err(Failure::Unreachable(why))) => {
            wire::unreachable(&mut gateway.out.borrow_mut(), &opening, why);
        }
        Some(Err(Failure::Reset)) | None => {
            gateway.stack.borrow_mut().refuse(&mut gateway.out.borrow_mut(), &opening);
        }
    }
    gateway.tcp.borrow_mut().remove(&pair);
    gateway.ended(&flow.connection);
}

async fn relay(gateway: &Rc<Gateway>, flow: &Rc<TcpFlow>, host: TcpStream, opening: &[u8]) {
    if !flow.establish(gateway, opening) {
        host::reset(&host);
        return;
    }
    let mut guest = Guest::new(gateway.clone(), flow.clone());
    let end = Relay::new(&mut guest, &host).await;
    tracing::debug!("connection to {} ended: {end:?}", flow.connection.remote);
    match end {
        End::Done => return,
        End::Refused(rule) => {
            gateway.counters.borrow_mut().connections_refused += 1;
            *flow.connection.rule.borrow_mut() = rule;
            gateway.tell(&flow.connection, NetworkEventKind::ConnectionRefused);
        }
        End::Cut | End::GuestReset | End::HostReset | End::TimedOut => {}
    }
    host::reset(&host);
    drop(host);
    guest.reset().await;
}
