//! Keeps a machine's gateway: one task for each machine that has one, from the machine's start to its end.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forkyard_gateway::control::{FromGateway, ToGateway};
use forkyard_protocol::{
    ErrorBody, ErrorCode, NetworkCounters, NetworkEvent, NetworkEventKind, NetworkInfo, NetworkLink,
    NetworkPolicy,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::ledger::Ledger;
use super::way::{Gateway, PATIENCE, Way};
use crate::clock::now_ms;
use crate::event::Events;

/// How long a machine is without a gateway after one died, at first and at most; each death within [`STEADY`] doubles it.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));

/// A gateway that lived as long was no failure of its start.
const STEADY: Duration = Duration::from_mins(1);

/// How long after something happened the totals are asked for, and how often while connections are open: what a gateway that is
/// killed had not said is lost.
const COUNT_AFTER: Duration = Duration::from_millis(500);
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Orders that wait for the task.
const ORDERS: usize = 8;

enum Order {
    Policy(NetworkPolicy, oneshot::Sender<()>),
    Count(oneshot::Sender<()>),
}

/// A machine's network: what went through it, and the task that keeps its gateway, if it has one.
pub struct Network {
    ledger: Arc<Mutex<Ledger>>,
    events: Arc<Events>,
    task: Mutex<Option<Task>>,
}

struct Task {
    orders: mpsc::Sender<Order>,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

impl Network {
    /// None yet; what will happen on it is noted there.
    pub fn new(events: Arc<Events>) -> Self {
        Self { ledger: Arc::default(), events, task: Mutex::new(None) }
    }

    /// Has a gateway serve a machine from now on. What the guest sends from here on waits for it, so nobody else need.
    pub async fn begin(&self, way: Way) {
        let connection = way.connect().await;
        self.keep(way, Next::Start(connection)).await;
    }

    /// Takes up the gateway that an earlier server started, or starts another in its place.
    pub async fn take_up(&self, way: Way) {
        let found = match way.find().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(sandbox = %way.id, %error, "a machine's gateway cannot be taken up");
                None
            }
        };
        self.keep(way, found.map_or(Next::Restart, Next::Found)).await;
    }

    async fn keep(&self, way: Way, next: Next) {
        self.end().await;
        let (orders, waiting) = mpsc::channel(ORDERS);
        let (stop, stopped) = oneshot::channel();
        let keeper =
            Keeper { way, ledger: self.ledger.clone(), events: self.events.clone(), orders: waiting };
        let ended = tokio::spawn(keeper.run(next, stopped));
        *lock(&self.task) = Some(Task { orders, stop, ended });
    }

    /// Ends the gateway, if there is one, and waits for its end.
    pub async fn end(&self) {
        let task = lock(&self.task).take();
        let Some(Task { orders, stop, ended }) = task else { return };
        drop(orders);
        // The task is gone where the machine is.
        tell(stop);
        if let Err(error) = ended.await {
            tracing::error!(%error, "a gateway's keeper failed");
        }
    }

    /// Puts another policy in place; what it no longer allows has ended when this returns.
    pub async fn set_policy(&self, policy: NetworkPolicy) -> Result<(), ErrorBody> {
        let (done, answer) = oneshot::channel();
        self.order(Order::Policy(policy, done)).await;
        answer.await.map_err(|_| ErrorBody::new(ErrorCode::Unavailable, "the machine's network has ended"))
    }

    /// What a machine with this policy shows of its network.
    pub async fn info(&self, policy: NetworkPolicy) -> NetworkInfo {
        let (done, answer) = oneshot::channel();
        self.order(Order::Count(done)).await;
        // Where nobody answers, what was known last is shown.
        drop(timeout(PATIENCE, answer).await);
        let ledger = lock(&self.ledger);
        let mut counters = ledger.counters();
        counters.dropped_events = counters.dropped_events.saturating_add(self.events.network_gone());
        NetworkInfo { policy, counters, link: ledger.link }
    }

    async fn order(&self, order: Order) {
        let orders = lock(&self.task).as_ref().map(|task| task.orders.clone());
        if let Some(orders) = orders {
            // Dropped with the task, which its sender sees.
            drop(orders.send(order).await);
        }
    }
}

/// How a machine comes to its next gateway.
enum Next {
    /// It gets its first, on this connection to its card.
    Start(io::Result<tokio::net::UnixStream>),
    /// It has one.
    Found(Gateway),
    /// It had one.
    Restart,
}

struct Keeper {
    way: Way,
    ledger: Arc<Mutex<Ledger>>,
    events: Arc<Events>,
    orders: mpsc::Receiver<Order>,
}

impl Keeper {
    /// Until it is told to stop, or the machine has ended.
    async fn run(mut self, mut next: Next, mut stopped: oneshot::Receiver<()>) {
        let machine = self.way.machine.clone();
        let mut delay = BACK_OFF.0;
        loop {
            let is_first = matches!(next, Next::Start(_));
            let is_new = !matches!(next, Next::Found(_));
            let gateway = match next {
                Next::Start(connection) => {
                    self.way.plug_in().await;
                    self.way.start(&self.way.policy, connection).await
                }
                Next::Found(gateway) => Ok(gateway),
                Next::Restart => self.way.start(&self.way.policy, self.way.connect().await).await,
            };
            let began = Instant::now();
            match gateway {
                Ok(mut gateway) => {
                    if is_new && !is_first {
                        self.replaced().await;
                    }
                    lock(&self.ledger).link = NetworkLink::Up;
                    let died = tokio::select! {
                        died = self.serve(&mut gateway, is_new) => Some(died),
                        _ = &mut stopped => None,
                        _ = machine.exited() => None,
                    };
                    let Some(error) = died else {
                        self.finish(gateway).await;
                        return;
                    };
                    tracing::warn!(sandbox = %self.way.id, %error, "a machine's gateway ended");
                    gateway.process.kill().await;
                    lock(&self.ledger).close();
                }
                Err(error) => {
                    tracing::error!(sandbox = %self.way.id, %error, "a machine's gateway cannot be started");
                }
            }
            delay = if began.elapsed() > STEADY { BACK_OFF.0 } else { (delay * 2).min(BACK_OFF.1) };
            tokio::select! {
                // Within the select: a machine that ends just now may take its time to say that it has no link.
                () = self.unplug() => {}
                _ = machine.exited() => return,
            }
            let again = Instant::now() + delay;
            loop {
                tokio::select! {
                    () = sleep_until(again) => break,
                    order = self.orders.recv() => match order {
                        Some(Order::Policy(policy, done)) => {
                            self.way.policy = policy;
                            tell(done);
                        }
                        Some(Order::Count(done)) => tell(done),
                        None => return,
                    },
                    _ = &mut stopped => return,
                    _ = machine.exited() => return,
                }
            }
            next = Next::Restart;
        }
    }

    /// Tells the guest that there is a gateway again, and that all that the one before carried is gone.
    async fn replaced(&self) {
        self.way.plug_in().await;
        self.note(NetworkEvent {
            at_ms: now_ms(),
            kind: NetworkEventKind::GatewayRestarted,
            protocol: None,
            name: None,
            address: None,
            port: None,
            bytes_out: 0,
            bytes_in: 0,
            verdict: None,
            rule: None,
        });
        // A program that only waits for an answer would wait for ever.
        match timeout(PATIENCE, self.way.guest.reset_network()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(sandbox = %self.way.id, error = error.message, "lost connections were not reset");
            }
            Err(_) => tracing::warn!(sandbox = %self.way.id, "lost connections were not reset in time"),
        }
    }

    async fn unplug(&self) {
        if let Err(error) = self.way.machine.set_link(false).await {
            tracing::debug!(sandbox = %self.way.id, %error, "the guest was not told that its link is down");
        }
    }

    /// Hears what the gateway says and tells it what it is to do, until one of both fails.
    async fn serve(&mut self, gateway: &mut Gateway, is_new: bool) -> io::Error {
        let Gateway { process, control } = gateway;
        let mut counting = Some(Instant::now() + COUNT_EVERY);
        let mut counts: Vec<oneshot::Sender<()>> = Vec::new();
        let mut policies: Vec<oneshot::Sender<()>> = Vec::new();
        let mut late: Option<Instant> = None;
        if !is_new {
            // The server before may have ended between noting a policy and putting it in place.
            policies.push(oneshot::channel().0);
            late = Some(Instant::now() + PATIENCE);
            if let Err(error) = control.say(&ToGateway::Policy(self.way.policy.clone())).await {
                return error;
            }
        }
        loop {
            let heard = tokio::select! {
                heard = control.hear() => Some(heard),
                () = process.exited() => return io::Error::other("its process ended"),
                () = sleep_until(counting.unwrap_or_else(Instant::now)), if counting.is_some() => {
                    counting = None;
                    late.get_or_insert_with(|| Instant::now() + PATIENCE);
                    if let Err(error) = control.say(&ToGateway::Counters).await {
                        return error;
                    }
                    None
                }
                () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                    return io::Error::other("it does not answer");
                }
                Some(order) = self.orders.recv() => {
                    late.get_or_insert_with(|| Instant::now() + PATIENCE);
                    let message = match order {
                        Order::Policy(policy, done) => {
                            // What comes after this one has it from the start.
                            self.way.policy = policy.clone();
                            policies.push(done);
                            ToGateway::Policy(policy)
                        }
                        Order::Count(done) => {
                            counts.push(done);
                            ToGateway::Counters
                        }
                    };
                    if let Err(error) = control.say(&message).await {
                        return error;
                    }
                    None
                }
            };
            match heard {
                None => {}
                Some(Err(error)) => return error,
                Some(Ok(FromGateway::Event(event))) => {
                    self.note(event);
                    let soon = Instant::now() + COUNT_AFTER;
                    counting = Some(counting.map_or(soon, |at| at.min(soon)));
                }
                Some(Ok(FromGateway::Counters(counters))) => {
                    late = None;
                    self.count(counters);
                    counts.drain(..).for_each(tell);
                    if lock(&self.ledger).is_busy() {
                        counting.get_or_insert_with(|| Instant::now() + COUNT_EVERY);
                    }
                }
                Some(Ok(FromGateway::PolicySet)) => {
                    late = None;
                    if !policies.is_empty() {
                        tell(policies.remove(0));
                    }
                }
                // The policy was checked before: another one was put in place than is meant.
                Some(Ok(FromGateway::Error(error))) => return io::Error::other(error),
            }
        }
    }

    /// Hears the last of what the gateway knows, and ends it.
    async fn finish(&self, mut gateway: Gateway) {
        let last = async {
            gateway.control.say(&ToGateway::Counters).await?;
            loop {
                match gateway.control.hear().await? {
                    FromGateway::Event(event) => self.note(event),
                    FromGateway::Counters(counters) => break self.count(counters),
                    FromGateway::PolicySet | FromGateway::Error(_) => {}
                }
            }
            gateway.control.say(&ToGateway::Stop).await?;
            gateway.process.exited().await;
            io::Result::Ok(())
        };
        match timeout(PATIENCE, last).await {
            Ok(Ok(())) => {}
            // It may have ended with its machine.
            Ok(Err(_)) | Err(_) => gateway.process.kill().await,
        }
        lock(&self.ledger).close();
    }

    fn note(&self, event: NetworkEvent) {
        self.events.note_network(event);
    }

    fn count(&self, counters: NetworkCounters) {
        lock(&self.ledger).count(counters);
    }
}

/// Says that something is done; whoever wanted to know may be gone.
fn tell(done: oneshot::Sender<()>) {
    let _ = done.send(());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
