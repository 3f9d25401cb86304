use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use smoltcp::socket::tcp::{Socket, State};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::guest::Guest;
use crate::limits::{HALF_CLOSED_IDLE, HANDSHAKE_DEADLINE, SNIFF_DEADLINE, SNIFF_MAX};
use crate::policy::Verdict;
use crate::sniff::{Sniffed, sniff};

/// Rounds of moving bytes before others have their turn.
const ROUNDS: usize = 8;

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides closed it.
    Done,
    /// The policy changed, or the gateway ends.
    Cut,
    /// What its client said first is not allowed.
    Refused(String),
    /// The guest reset it.
    GuestReset,
    /// The host's side broke.
    HostReset,
    /// The guest left its handshake, or a half-closed connection, unfinished.
    TimedOut,
}

/// What the guest sends.
enum Up {
    /// It waits for the name to be judged; so many bytes were looked at.
    Held { looked_at: usize, since: Option<Instant> },
    /// It goes to the host.
    Open,
    /// Its end has gone to the host.
    Shut,
    /// The host's side takes no more. What it sent before is still read.
    Broken,
}

/// Moves bytes both ways between the guest's end and the host's until the connection ends. What one side does not take is not read
/// from the other.
pub(super) struct Relay<'a> {
    guest: &'a mut Guest,
    host: &'a TcpStream,
    up: Up,
    /// The host's side has sent all it will.
    host_ended: bool,
    began: Instant,
    last_moved: Instant,
}

impl<'a> Relay<'a> {
    pub(super) fn new(guest: &'a mut Guest, host: &'a TcpStream) -> Self {
        let now = Instant::now();
        let up = Up::Held { looked_at: 0, since: None };
        Self { guest, host, up, host_ended: false, began: now, last_moved: now }
    }

    /// Moves what can be moved. True if something was.
    fn step(&mut self, context: &mut Context<'_>, wake: &mut Wake) -> Result<bool, End> {
        let flow = &self.guest.flow;
        if matches!(self.up, Up::Open) && flow.by_name.get() && flow.said.borrow().is_none() {
            self.up = Up::Held { looked_at: 0, since: None };
        }
        let outward = match self.up {
            Up::Held { looked_at, since } => self.judge(looked_at, since, wake)?,
            Up::Open => self.outward(context, wake),
            Up::Shut | Up::Broken => false,
        };
        Ok(self.inward(context, wake)? | outward)
    }

    /// Holds the first bytes until what they say is judged.
    fn judge(&mut self, looked_at: usize, since: Option<Instant>, wake: &mut Wake) -> Result<bool, End> {
        let flow = self.guest.flow.clone();
        let gateway = self.guest.gateway.clone();
        if !flow.by_name.get() {
            self.note_open();
            let spoke = self.guest.with(|socket| socket.can_recv() || has_ended(socket)).unwrap_or_default();
            if spoke {
                self.up = Up::Open;
            }
            return Ok(spoke);
        }
        let now = Instant::now();
        let looked = self.guest.with(|socket| {
            let ended = has_ended(socket);
            let capacity = socket.recv_capacity();
            let first = socket.peek(SNIFF_MAX).unwrap_or_default();
            let full = first.len() >= SNIFF_MAX.min(capacity);
            let late = since.is_some_and(|since| now >= since + SNIFF_DEADLINE);
            if first.len() == looked_at && !ended && !late {
                return None;
            }
            let said = if first.is_empty() && ended { Sniffed::Other } else { sniff(first) };
            Some((first.len(), (said != Sniffed::NeedMore || ended || full || late).then_some(said)))
        });
        let Some(Some((len, said))) = looked else {
            wake.at(since.map(|since| since + SNIFF_DEADLINE));
            return Ok(false);
        };
        let Some(said) = said else {
            let since = since.unwrap_or(now);
            self.up = Up::Held { looked_at: len, since: Some(since) };
            wake.at(Some(since + SNIFF_DEADLINE));
            return Ok(false);
        };
        if let Sniffed::Tls { sni: Some(name) } | Sniffed::Http { host: Some(name) } = &said {
            *flow.connection.name.borrow_mut() = Some(name.clone());
        }
        let verdict = gateway.rules.borrow().decide_named(flow.connection.remote, &said, &gateway.resolver);
        match verdict {
            Verdict::Refuse { rule } => return Err(End::Refused(rule)),
            Verdict::Allow { rule } | Verdict::AllowNamed { rule, .. } => {
                *flow.connection.rule.borrow_mut() = rule;
            }
        }
        *flow.said.borrow_mut() = Some(said);
        self.note_open();
        self.up = Up::Open;
        Ok(true)
    }

    /// Tells the server, once the guest has finished its handshake.
    fn note_open(&self) {
        let connection = &self.guest.flow.connection;
        let established = self.guest.with(|socket| socket.state() != State::SynReceived).unwrap_or_default();
        if established && !connection.told_open.get() {
            self.guest.gateway.opened(connection);
        }
    }

    /// From the guest to the host.
    fn outward(&mut self, context: &mut Context<'_>, wake: &mut Wake) -> bool {
        let gateway = &self.guest.gateway;
        let waiting = self.guest.with(|socket| (socket.recv_queue(), has_ended(socket)));
        let (waiting, ended) = waiting.unwrap_or_default();
        if waiting == 0 {
            if !ended {
                return false;
            }
            self.up = match SockRef::from(self.host).shutdown(Shutdown::Write) {
                Ok(()) => Up::Shut,
                Err(_) => Up::Broken,
            };
            return true;
        }
        let offered = gateway.rules.borrow_mut().outward.offer(waiting, Instant::now());
        let most = match offered {
            Ok(most) => most,
            Err(wait) => {
                wake.at(Some(Instant::now() + wait));
                return false;
            }
        };
        let write = || {
            let written = self.guest.with(|socket| {
                socket.recv(|bytes| {
                    let written = self.host.try_write(&bytes[..bytes.len().min(most)]);
                    (*written.as_ref().unwrap_or(&0), written)
                })
            });
            written.and_then(Result::ok).unwrap_or(Err(io::ErrorKind::BrokenPipe.into()))
        };
        match when_ready(|| self.host.poll_write_ready(context), write) {
            Poll::Pending => false,
            Poll::Ready(Ok(count)) => {
                gateway.rules.borrow_mut().outward.take(count);
                gateway.sent(&self.guest.flow.connection, count);
                true
            }
            Poll::Ready(Err(_)) => {
                self.up = Up::Broken;
                true
            }
        }
    }

    /// From the host to the guest.
    fn inward(&mut self, context: &mut Context<'_>, wake: &mut Wake) -> Result<bool, End> {
        let gateway = &self.guest.gateway;
        let room = self.guest.with(|socket| {
            let room = socket.send_capacity() - socket.send_queue();
            if socket.may_send() { room } else { 0 }
        });
        let room = room.unwrap_or_default();
        if self.host_ended || room == 0 {
            return Ok(false);
        }
        let offered = gateway.rules.borrow_mut().inward.offer(room, Instant::now());
        let most = match offered {
            Ok(most) => most,
            Err(wait) => {
                wake.at(Some(Instant::now() + wait));
                return Ok(false);
            }
        };
        let read = || {
            let read = self.guest.with(|socket| {
                socket.send(|bytes| {
                    let len = bytes.len().min(most);
                    let read = self.host.try_read(&mut bytes[..len]);
                    (*read.as_ref().unwrap_or(&0), read)
                })
            });
            read.and_then(Result::ok).unwrap_or(Err(io::ErrorKind::BrokenPipe.into()))
        };
        match when_ready(|| self.host.poll_read_ready(context), read) {
            Poll::Pending => Ok(false),
            // The guest's bytes were lost on their way: an orderly end would be a lie.
            Poll::Ready(Ok(0)) if matches!(self.up, Up::Broken) => Err(End::HostReset),
            Poll::Ready(Ok(0)) => {
                self.host_ended = true;
                self.guest.with(Socket::close);
                Ok(true)
            }
            Poll::Ready(Ok(count)) => {
                gateway.rules.borrow_mut().inward.take(count);
                gateway.got(&self.guest.flow.connection, count);
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(End::HostReset),
        }
    }

    /// Whether it is over, or when it will be if nothing happens.
    fn end(&self, now: Instant) -> Result<Option<Instant>, End> {
        let state = self.guest.with(|socket| socket.state()).unwrap_or(State::Closed);
        let sent = matches!(self.up, Up::Shut | Up::Broken);
        let deadline = match state {
            State::Closed | State::TimeWait if sent && self.host_ended => return Err(End::Done),
            State::Closed | State::Listen => return Err(End::GuestReset),
            State::SynReceived => self.began + HANDSHAKE_DEADLINE,
            State::Established if !sent => return Ok(None),
            _ => self.last_moved + HALF_CLOSED_IDLE,
        };
        if now >= deadline { Err(End::TimedOut) } else { Ok(Some(deadline)) }
    }
}

impl Future for Relay<'_> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        this.guest.flow.connection.register(context.waker());
        if this.guest.flow.connection.is_cut() {
            return Poll::Ready(End::Cut);
        }
        let mut wake = Wake(None);
        let mut rounds = 0;
        loop {
            match this.step(context, &mut wake) {
                Ok(true) => this.last_moved = Instant::now(),
                Ok(false) => break,
                Err(end) => return Poll::Ready(end),
            }
            rounds += 1;
            if rounds == ROUNDS {
                context.waker().wake_by_ref();
                break;
            }
        }
        match this.end(Instant::now()) {
            Err(end) => {
                // The last acknowledgement may still be due.
                this.guest.poll_send(context, None);
                return Poll::Ready(end);
            }
            Ok(deadline) => wake.at(deadline),
        }
        this.guest.poll_send(context, wake.0);
        // Sending may have been the last that was to be done.
        this.end(Instant::now()).map_or_else(Poll::Ready, |_| Poll::Pending)
    }
}

/// When to come back at the latest.
struct Wake(Option<Instant>);

impl Wake {
    fn at(&mut self, at: Option<Instant>) {
        self.0 = match (self.0, at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// Whether the guest has sent all it will, and all of it was taken.
fn has_ended(socket: &Socket<'_>) -> bool {
    let closed =
        matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
    closed && !socket.can_recv()
}

/// Tries until it is done or has to wait.
fn when_ready(
    mut ready: impl FnMut() -> Poll<io::Result<()>>,
    mut act: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        match ready() {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => match act() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            },
        }
    }
}
