use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Poll, Waker};

use forkyard_protocol::{NetworkEvent, NetworkEventKind, NetworkProtocol, NetworkVerdict};

use crate::events::now_ms;
use crate::policy::Protocol;

/// What every kind of connection has, whatever it speaks.
pub struct Connection {
    /// What it speaks.
    pub protocol: Protocol,
    /// The other end.
    pub remote: SocketAddr,
    /// What allowed it.
    pub rule: RefCell<String>,
    /// The other end's name, as far as it is known.
    pub name: RefCell<Option<String>>,
    /// Payload bytes that the guest sent.
    pub bytes_out: Cell<u64>,
    /// Payload bytes that it got.
    pub bytes_in: Cell<u64>,
    /// Whether the server was told that it is open.
    pub told_open: Cell<bool>,
    cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    /// A new one.
    pub fn new(protocol: Protocol, remote: SocketAddr, rule: String, name: Option<String>) -> Self {
        Self {
            protocol,
            remote,
            rule: RefCell::new(rule),
            name: RefCell::new(name),
            bytes_out: Cell::new(0),
            bytes_in: Cell::new(0),
            told_open: Cell::new(false),
            cut: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// What the server hears of it.
    pub fn event(&self, kind: NetworkEventKind) -> NetworkEvent {
        let refused = kind == NetworkEventKind::ConnectionRefused;
        NetworkEvent {
            at_ms: now_ms(),
            kind,
            protocol: Some(match self.protocol {
                Protocol::Tcp => NetworkProtocol::Tcp,
                Protocol::Udp => NetworkProtocol::Udp,
                Protocol::Icmp => NetworkProtocol::Icmp,
            }),
            name: self.name.borrow().clone(),
            address: Some(self.remote.ip()),
            port: (self.protocol != Protocol::Icmp).then_some(self.remote.port()),
            bytes_out: self.bytes_out.get(),
            bytes_in: self.bytes_in.get(),
            verdict: Some(if refused { NetworkVerdict::Refused } else { NetworkVerdict::Allowed }),
            rule: Some(self.rule.borrow().clone()),
        }
    }

    /// Ends it; its task sees to that.
    pub fn cut(&self) {
        self.cut.set(true);
        self.wake();
    }

    /// Whether it is to end.
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Has its task look at it again.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Notes whom to wake.
    pub fn register(&self, waker: &Waker) {
        let mut registered = self.waker.borrow_mut();
        if !registered.as_ref().is_some_and(|other| other.will_wake(waker)) {
            *registered = Some(waker.clone());
        }
    }

    /// A future's outcome, unless the connection is cut first.
    pub async fn unless_cut<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|context| {
            self.register(context.waker());
            if self.is_cut() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    }
}
