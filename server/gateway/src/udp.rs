use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Instant;

use rustix::io::Errno;
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use crate::connection::Connection;
use crate::gateway::{Gateway, Pair};
use crate::host::{self, Failure};
use crate::limits::{UDP_IDLE, UDP_UNANSWERED};
use crate::policy::Protocol;
use crate::wire::{self, Datagram, Unreachable};

/// What an ICMP error needs of the packet it is about: the longest header, and eight bytes.
const CITED: usize = 60 + 8;

/// The datagrams between one port of the guest and one remote.
pub struct UdpFlow {
    pub(crate) connection: Connection,
    socket: UdpSocket,
    dont_fragment: Cell<Option<bool>>,
    answered: Cell<bool>,
    last_used: Cell<Instant>,
    /// The beginning of the last packet that the guest sent, for errors about it.
    last_packet: RefCell<Vec<u8>>,
}

/// Opens a flow for what may pass.
pub fn open(
    gateway: &Rc<Gateway>,
    datagram: &Datagram<'_>,
    rule: String,
    name: Option<String>,
) -> Result<Rc<UdpFlow>, Unreachable> {
    let remote = datagram.destination;
    let socket = host::connect_udp(remote).map_err(|error| match Failure::from(&error) {
        Failure::Unreachable(why) => why,
        Failure::Reset => Unreachable::Host,
    })?;
    let flow = Rc::new(UdpFlow {
        connection: Connection::new(Protocol::Udp, remote, rule, name),
        socket,
        dont_fragment: Cell::new(None),
        answered: Cell::new(false),
        last_used: Cell::new(Instant::now()),
        last_packet: RefCell::default(),
    });
    let pair = (datagram.source, remote);
    gateway.udp.borrow_mut().insert(pair, flow.clone());
    gateway.opened(&flow.connection);
    tokio::task::spawn_local(serve(gateway.clone(), pair, flow.clone()));
    Ok(flow)
}

async fn serve(gateway: Rc<Gateway>, pair: Pair, flow: Rc<UdpFlow>) {
    // Cut or idle: it ends the same way.
    let _ = flow.connection.unless_cut(flow.answers(&gateway, pair)).await;
    gateway.udp.borrow_mut().remove(&pair);
    gateway.ended(&flow.connection);
}

impl UdpFlow {
    /// Sends a datagram of the guest's.
    pub fn send(&self, gateway: &Gateway, datagram: &Datagram<'_>) {
        let now = Instant::now();
        self.last_used.set(now);
        let mut last = self.last_packet.borrow_mut();
        last.clear();
        last.extend_from_slice(&datagram.packet[..datagram.packet.len().min(CITED)]);
        drop(last);
        let len = datagram.payload.len();
        if !gateway.rules.borrow_mut().outward.admit(len, now) {
            gateway.drop_frame();
            return;
        }
        match self.try_send(datagram) {
            Ok(()) => gateway.sent(&self.connection, len),
            Err(error) => self.failed(gateway, &error),
        }
    }

    fn try_send(&self, datagram: &Datagram<'_>) -> io::Result<()> {
        if self.dont_fragment.replace(Some(datagram.dont_fragment)) != Some(datagram.dont_fragment) {
            host::set_dont_fragment(&self.socket, self.connection.remote.ip(), datagram.dont_fragment)?;
        }
        match host::send_now(&self.socket, datagram.payload) {
            // An error of an earlier datagram, which the guest hears of when it is read; it clears by being reported.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                host::send_now(&self.socket, datagram.payload)
            }
            sent => sent,
        }
    }

    /// Passes on what comes back until nothing has gone either way for long enough.
    async fn answers(&self, gateway: &Gateway, pair: Pair) {
        loop {
            let idle = if self.answered.get() { UDP_IDLE } else { UDP_UNANSWERED };
            let until = self.last_used.get() + idle;
            let arrived = host::receive(&self.socket, |socket| {
                let mut scratch = gateway.scratch.borrow_mut();
                let len = host::receive_now(socket, &mut scratch)?;
                self.pass_on(gateway, pair, &scratch[..len]);
                Ok(())
            });
            match timeout_at(until.into(), arrived).await {
                Err(_) if self.last_used.get() + idle > until => {}
                Err(_) => return,
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.failed(gateway, &error),
            }
        }
    }

    fn pass_on(&self, gateway: &Gateway, pair: Pair, payload: &[u8]) {
        let now = Instant::now();
        self.last_used.set(now);
        self.answered.set(true);
        let mut out = gateway.out.borrow_mut();
        if out.is_full() || !gateway.rules.borrow_mut().inward.admit(payload.len(), now) {
            gateway.drop_frame();
            return;
        }
        gateway.ident.set(gateway.ident.get().wrapping_add(1));
        wire::datagram(&mut out, pair.1, pair.0.port(), payload, gateway.ident.get());
        gateway.got(&self.connection, payload.len());
    }

    /// Tells the guest why its last datagram did not arrive.
    fn failed(&self, gateway: &Gateway, error: &io::Error) {
        let remote = self.connection.remote.ip();
        let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::CONNREFUSED) => Unreachable::Port,
            Some(Errno::MSGSIZE) => Unreachable::TooBig(host::path_mtu(&self.socket, remote)),
            _ => match Failure::from(error) {
                Failure::Unreachable(why) => why,
                // The host's queue is full, or it has no memory: datagrams may be lost.
                Failure::Reset => {
                    gateway.drop_frame();
                    return;
                }
            },
        };
        let mut out = gateway.out.borrow_mut();
        if out.is_full() {
            gateway.drop_frame();
        } else {
            wire::unreachable(&mut out, &self.last_packet.borrow(), why);
        }
    }
}
