use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use smoltcp::socket::tcp::{Socket, State};
use tokio::time::{Sleep, sleep_until};

use super::TcpFlow;
use crate::gateway::Gateway;
use crate::stack::Next;

/// The guest's end of a connection, as its task sees it: it sends what the stack has to send, and comes back when the stack or the
/// task has something to do. Nothing is woken while nothing is due.
pub struct Guest {
    pub(crate) gateway: Rc<Gateway>,
    pub(crate) flow: Rc<TcpFlow>,
    /// None while nothing is due: a timer that is not needed would still wake the process once.
    timer: Pin<Box<Option<Sleep>>>,
}

impl Guest {
    /// The end of an established connection.
    pub(crate) fn new(gateway: Rc<Gateway>, flow: Rc<TcpFlow>) -> Self {
        Self { gateway, flow, timer: Box::pin(None) }
    }

    /// Does something with the socket. None where there is none any more.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Socket<'static>) -> R) -> Option<R> {
        self.flow.socket.borrow_mut().as_mut().map(|socket| act(socket.tcp()))
    }

    /// Sends what is due, and has the task woken when more is, at the latest at the time given.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, latest: Option<Instant>) {
        let next = self.egress();
        if next == Next::Room {
            self.gateway.out.borrow_mut().wait(context.waker());
        }
        let at = match next {
            Next::At(at) => Some(latest.map_or(at, |latest| latest.min(at))),
            Next::Arrival | Next::Room => latest,
        };
        let Some(at) = at else {
            self.timer.set(None);
            return;
        };
        match self.timer.as_mut().as_pin_mut() {
            Some(timer) if timer.deadline() == at.into() => {}
            Some(timer) => timer.reset(at.into()),
            None => self.timer.set(Some(sleep_until(at.into()))),
        }
        if self.timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(context).is_ready()) {
            context.waker().wake_by_ref();
        }
    }

    fn egress(&self) -> Next {
        let mut socket = self.flow.socket.borrow_mut();
        let Some(socket) = socket.as_mut() else { return Next::Arrival };
        self.gateway.stack.borrow_mut().egress(&mut self.gateway.out.borrow_mut(), socket)
    }

    /// Resets the guest's end.
    pub(crate) async fn reset(&mut self) {
        self.with(Socket::abort);
        poll_fn(|context| match self.egress() {
            Next::Room => {
                self.gateway.out.borrow_mut().wait(context.waker());
                Poll::Pending
            }
            Next::Arrival | Next::At(_) => Poll::Ready(()),
        })
        .await;
    }

    /// Reads what the guest sent; 0 is its end, an error its reset, or that the connection is cut or the time over.
    pub(crate) async fn read(&mut self, room: &mut [u8], until: Instant) -> Result<usize, ()> {
        poll_fn(|context| {
            self.poll(context, until, |socket| match socket.state() {
                State::Closed | State::Listen => Poll::Ready(Err(())),
                _ if socket.can_recv() => Poll::Ready(socket.recv_slice(room).map_err(drop)),
                State::CloseWait | State::LastAck | State::Closing | State::TimeWait => Poll::Ready(Ok(0)),
                _ => Poll::Pending,
            })
        })
        .await
    }

    /// Sends all of it.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8], until: Instant) -> Result<(), ()> {
        poll_fn(|context| {
            self.poll(context, until, |socket| {
                while !bytes.is_empty() && socket.can_send() {
                    let count = socket.send_slice(bytes).map_err(drop)?;
                    bytes = &bytes[count..];
                }
                match socket.may_send() {
                    _ if bytes.is_empty() => Poll::Ready(Ok(())),
                    true => Poll::Pending,
                    false => Poll::Ready(Err(())),
                }
            })
        })
        .await
    }

    /// Ends what is sent, and waits until the guest has all of it.
    pub(crate) async fn close(&mut self, until: Instant) -> Result<(), ()> {
        self.with(Socket::close);
        poll_fn(|context| {
            self.poll(context, until, |socket| match socket.state() {
                State::Closed | State::TimeWait => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            })
        })
        .await
    }

    fn poll<R>(
        &mut self,
        context: &mut Context<'_>,
        until: Instant,
        act: impl FnOnce(&mut Socket<'static>) -> Poll<Result<R, ()>>,
    ) -> Poll<Result<R, ()>> {
        self.flow.connection.register(context.waker());
        if self.flow.connection.is_cut() || Instant::now() >= until {
            return Poll::Ready(Err(()));
        }
        let done = self.with(act).unwrap_or(Poll::Ready(Err(())));
        self.poll_send(context, Some(until));
        Poll::Ready(ready!(done))
    }
}
