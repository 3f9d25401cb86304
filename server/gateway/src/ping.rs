use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use crate::connection::Connection;
use crate::gateway::{Gateway, NO_PING};
use crate::host;
use crate::limits::PING_IDLE;
use crate::policy::Protocol;
use crate::wire::{self, Echo, Unreachable};

const HEADER: usize = 8;

/// The guest's echo requests to one remote with one identifier.
pub struct Ping {
    pub(crate) connection: Connection,
    socket: UdpSocket,
    ident: u16,
    last_used: Cell<Instant>,
}

/// Begins to ask a remote that may be asked, where the host lets a process without privileges do so.
pub fn open(
    gateway: &Rc<Gateway>,
    echo: &Echo<'_>,
    rule: String,
    name: Option<String>,
) -> Result<Rc<Ping>, Unreachable> {
    let remote = (echo.destination, 0).into();
    let Ok(socket) = host::connect_ping(echo.destination) else {
        gateway.refused(Protocol::Icmp, remote, NO_PING.into());
        return Err(Unreachable::Prohibited);
    };
    let ping = Rc::new(Ping {
        connection: Connection::new(Protocol::Icmp, remote, rule, name),
        socket,
        ident: echo.ident,
        last_used: Cell::new(Instant::now()),
    });
    gateway.pings.borrow_mut().insert((echo.destination, echo.ident), ping.clone());
    gateway.opened(&ping.connection);
    tokio::task::spawn_local(serve(gateway.clone(), ping.clone()));
    Ok(ping)
}

async fn serve(gateway: Rc<Gateway>, ping: Rc<Ping>) {
    // Cut or idle: it ends the same way.
    let _ = ping.connection.unless_cut(ping.answers(&gateway)).await;
    gateway.pings.borrow_mut().remove(&(ping.connection.remote.ip(), ping.ident));
    gateway.ended(&ping.connection);
}

impl Ping {
    /// Sends a request. The kernel puts its own identifier and the checksum in.
    pub fn send(&self, gateway: &Gateway, echo: &Echo<'_>) {
        self.last_used.set(Instant::now());
        let mut message = vec![0; HEADER + echo.data.len()];
        message[HEADER..].copy_from_slice(echo.data);
        if echo.destination.is_ipv4() {
            let mut packet = Icmpv4Packet::new_unchecked(&mut message[..]);
            packet.set_msg_type(Icmpv4Message::EchoRequest);
            packet.set_echo_seq_no(echo.sequence);
        } else {
            let mut packet = Icmpv6Packet::new_unchecked(&mut message[..]);
            packet.set_msg_type(Icmpv6Message::EchoRequest);
            packet.set_echo_seq_no(echo.sequence);
        }
        match host::send_now(&self.socket, &message) {
            Ok(()) => gateway.sent(&self.connection, echo.data.len()),
            Err(error) => {
                gateway.drop_frame();
                tracing::debug!("cannot ping {}: {error}", echo.destination);
            }
        }
    }

    async fn answers(&self, gateway: &Gateway) {
        loop {
            let until = self.last_used.get() + PING_IDLE;
            let arrived = host::receive(&self.socket, |socket| {
                let mut scratch = gateway.scratch.borrow_mut();
                let len = host::receive_now(socket, &mut scratch)?;
                self.pass_on(gateway, &scratch[..len]);
                Ok(())
            });
            match timeout_at(until.into(), arrived).await {
                Err(_) if self.last_used.get() + PING_IDLE > until => {}
                Err(_) => return,
                Ok(Ok(())) => {}
                // Unanswered, as far as the guest can tell.
                Ok(Err(error)) => tracing::debug!("a ping of {}: {error}", self.connection.remote.ip()),
            }
        }
    }

    fn pass_on(&self, gateway: &Gateway, message: &[u8]) {
        let remote = self.connection.remote.ip();
        // A datagram longer than the link carries is none that the guest asked for: it sent no such request.
        let most = crate::address::MTU - if remote.is_ipv4() { 20 } else { 40 };
        let mut out = gateway.out.borrow_mut();
        let Some((header, data)) = message.split_at_checked(HEADER) else { return };
        let sequence = u16::from_be_bytes([header[6], header[7]]);
        if out.is_full() || message.len() > most {
            gateway.drop_frame();
            return;
        }
        wire::echo_reply(&mut out, remote, self.ident, sequence, data);
        gateway.got(&self.connection, data.len());
    }
}
