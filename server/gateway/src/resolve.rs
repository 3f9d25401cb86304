//! The guest's DNS: messages in, messages out, over UDP and TCP.

use std::rc::Rc;
use std::time::Instant;

use crate::connection::Connection;
use crate::dns::Transport;
use crate::gateway::{GATEWAY, Gateway, Pair};
use crate::limits::{DNS_TCP_IDLE, MAX_DNS_QUERIES};
use crate::policy::Protocol;
use crate::tcp::{Guest, TcpFlow};
use crate::wire::{self, Datagram, Segment};

/// Answers a query that came as a datagram. A stub resolver asks again for one that is dropped.
pub(crate) fn answer_udp(gateway: &Rc<Gateway>, datagram: &Datagram<'_>) {
    if gateway.queries.get() >= MAX_DNS_QUERIES {
        gateway.drop_frame();
        return;
    }
    let (from, port) = (datagram.destination, datagram.source.port());
    let query = datagram.payload.to_vec();
    let asked = Asked::new(gateway);
    let gateway = gateway.clone();
    tokio::task::spawn_local(async move {
        let Some(answer) = answer(asked, &query, Transport::Udp).await else { return };
        let mut out = gateway.out.borrow_mut();
        if out.is_full() {
            gateway.drop_frame();
            return;
        }
        gateway.ident.set(gateway.ident.get().wrapping_add(1));
        wire::datagram(&mut out, from, port, &answer, gateway.ident.get());
    });
}

/// A query that is being answered, counted from when it came: those of one burst would otherwise all find the same room.
struct Asked(Rc<Gateway>);

impl Asked {
    fn new(gateway: &Rc<Gateway>) -> Self {
        gateway.counters.borrow_mut().dns_queries += 1;
        gateway.queries.set(gateway.queries.get() + 1);
        Self(gateway.clone())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.queries.set(self.0.queries.get() - 1);
    }
}

async fn answer(asked: Asked, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    asked.0.resolver.answer(query, transport).await
}

/// Answers queries that come over a connection, one after the other (RFC 7766).
pub(crate) fn open_tcp(gateway: &Rc<Gateway>, segment: &Segment<'_>) {
    let flow = TcpFlow::new(Connection::new(Protocol::Tcp, segment.destination, GATEWAY.into(), None), false);
    let pair = (segment.source, segment.destination);
    gateway.tcp.borrow_mut().insert(pair, flow.clone());
    let begun = flow.establish(gateway, segment.packet);
    tokio::task::spawn_local(serve(gateway.clone(), pair, flow, begun));
}

async fn serve(gateway: Rc<Gateway>, pair: Pair, flow: Rc<TcpFlow>, begun: bool) {
    if begun {
        let mut guest = Guest::new(gateway.clone(), flow);
        let done = match converse(&gateway, &mut guest).await {
            Ok(()) => guest.close(Instant::now() + DNS_TCP_IDLE).await,
            Err(()) => Err(()),
        };
        if done.is_err() {
            guest.reset().await;
        }
    }
    gateway.tcp.borrow_mut().remove(&pair);
}

async fn converse(gateway: &Rc<Gateway>, guest: &mut Guest) -> Result<(), ()> {
    let mut message = Vec::new();
    loop {
        let until = Instant::now() + DNS_TCP_IDLE;
        let mut len = [0; 2];
        if !fill(guest, &mut len, until).await? {
            return Ok(());
        }
        message.resize(usize::from(u16::from_be_bytes(len)), 0);
        if !fill(guest, &mut message, until).await? {
            return Err(());
        }
        // A query that is not answered is one that cannot be: there is nothing to wait for.
        let answer = answer(Asked::new(gateway), &message, Transport::Tcp).await.ok_or(())?;
        let len = u16::try_from(answer.len()).map_err(drop)?;
        let until = Instant::now() + DNS_TCP_IDLE;
        guest.write_all(&len.to_be_bytes(), until).await?;
        guest.write_all(&answer, until).await?;
    }
}

/// Reads so many bytes; false where the guest's end comes instead.
async fn fill(guest: &mut Guest, mut room: &mut [u8], until: Instant) -> Result<bool, ()> {
    while !room.is_empty() {
        let count = guest.read(room, until).await?;
        if count == 0 {
            return Ok(false);
        }
        room = &mut room[count..];
    }
    Ok(true)
}
