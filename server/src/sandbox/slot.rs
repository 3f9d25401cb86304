use std::sync::{Arc, Mutex, PoisonError};

use forkyard_protocol::{ErrorBody, Sandbox, SandboxId, SandboxStatus, Stage};
use tokio::sync::{mpsc, watch};

use super::activity::{Activity, OpenCall};
use super::order::{Order, Wish};
use super::record::{Place, Record};
use crate::event::{Events, Kept};
use crate::guest::Guest;
use crate::network::Network;
use crate::vmm::Machine;

/// Orders that wait for the machine's task; more wait to be queued.
const ORDERS: usize = 16;

/// One machine's place in memory: its record, watched by whoever waits for a change; its guest; its activity.
pub struct Slot {
    id: SandboxId,
    record: watch::Sender<Record>,
    stop: watch::Sender<Option<String>>,
    guest: Mutex<Option<Guest>>,
    machine: Mutex<Option<Arc<dyn Machine>>>,
    activity: Activity,
    events: Arc<Events>,
    network: Network,
    orders: mpsc::Sender<Order>,
    pending_orders: Mutex<Option<mpsc::Receiver<Order>>>,
}

impl Slot {
    /// A place for the record of a new machine.
    pub fn new(record: Record) -> Self {
        let made = record.is_taken().then(|| record.creation_event());
        let slot = Self::with(record, Kept::default());
        if let Some(made) = made {
            slot.events.note(made);
        }
        slot
    }

    /// A place for a record, and what happened to its machine under an earlier server.
    pub fn with(record: Record, kept: Kept) -> Self {
        let events = Arc::new(Events::of(kept));
        let (orders, pending_orders) = mpsc::channel(ORDERS);
        Self {
            id: record.view.sandbox_id.clone(),
            record: watch::Sender::new(record),
            stop: watch::Sender::new(None),
            guest: Mutex::new(None),
            machine: Mutex::new(None),
            activity: Activity::new(),
            network: Network::new(events.clone()),
            events,
            orders,
            pending_orders: Mutex::new(Some(pending_orders)),
        }
    }

    /// The machine's id.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// The record as it stands.
    pub fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// The machine's calls.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What happened to the machine.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The machine's network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The guest, and a mark that it is in use; an error where the machine is not running.
    pub fn guest(&self) -> Result<(Guest, OpenCall), ErrorBody> {
        let record = self.record.borrow();
        let guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match guest {
            Some(guest) if record.view.status == SandboxStatus::Running => Ok((guest, self.activity.begin())),
            _ => Err(record.not_running()),
        }
    }

    pub(super) fn set_guest(&self, guest: Option<Guest>) {
        *self.guest.lock().unwrap_or_else(PoisonError::into_inner) = guest;
    }

    /// The machine while it runs.
    pub fn machine(&self) -> Option<Arc<dyn Machine>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_machine(&self, machine: Option<Arc<dyn Machine>>) {
        *self.machine.lock().unwrap_or_else(PoisonError::into_inner) = machine;
    }

    /// Changes the record and wakes whoever waits for it; answers the record as it now stands.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Record {
        self.record.send_modify(change);
        self.record()
    }

    /// Says how far the machine has come on its way to its owner; one that has arrived before, and is put back to a snapshot or
    /// resumed, says so by its status.
    pub(super) fn enter(&self, stage: Stage) {
        self.record.send_if_modified(|record| {
            let is_news = record.view.status == SandboxStatus::Pending && record.view.stage != Some(stage);
            if is_news {
                record.view.stage = Some(stage);
            }
            is_news
        });
    }

    /// Gives a machine that waits in a pool to whoever this record says; `false` where it does not wait any more.
    pub(super) fn claim(&self, taken: &Record) -> bool {
        self.record.send_if_modified(|record| {
            let is_free = record.serves(taken);
            if is_free {
                let view = Sandbox { sandbox_id: record.view.sandbox_id.clone(), ..taken.view.clone() };
                *record = Record { view, pool_id: record.pool_id.clone(), ..taken.clone() };
                // Before its task learns of it, which notes that it runs.
                self.events.note(record.creation_event());
            }
            is_free
        })
    }

    /// Lets a machine that was made ready be claimed; `false` where it is to end instead.
    pub(super) fn offer(&self) -> bool {
        self.move_on(Place::Ready, |place| place == Place::Starting)
    }

    /// Keeps a machine that waits in a pool, or is made for one, from being claimed; `false` where it was claimed already.
    pub(super) fn withdraw(&self) -> bool {
        self.move_on(Place::Leaving, |place| place != Place::Taken)
    }

    fn move_on(&self, to: Place, from: impl FnOnce(Place) -> bool) -> bool {
        self.record.send_if_modified(|record| {
            let moves = from(record.place);
            if moves {
                record.place = to;
            }
            moves
        })
    }

    /// Waits until the record is as wanted.
    pub async fn wait_for(&self, wanted: impl FnMut(&Record) -> bool) -> Record {
        let mut receiver = self.record.subscribe();
        match receiver.wait_for(wanted).await {
            Ok(record) => record.clone(),
            // The sender lives in `self`.
            Err(_) => self.record(),
        }
    }

    /// Asks the machine's own task for something and waits until it is done.
    pub(super) async fn order(&self, wish: Wish) -> Result<(), ErrorBody> {
        // One that ended under an earlier server has no task.
        if !self.record.borrow().is_alive() {
            return Err(self.record().not_running());
        }
        let (order, answered) = Order::new(wish);
        // The task is gone once the machine has ended.
        self.orders.send(order).await.map_err(|_| self.record().not_running())?;
        answered.await.unwrap_or_else(|_| Err(self.record().not_running()))
    }

    /// The orders to come, for the one task that owns the machine.
    pub(super) fn take_orders(&self) -> Option<mpsc::Receiver<Order>> {
        self.pending_orders.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks for the machine's end; the first reason stays.
    pub fn stop(&self, reason: &str) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert_with(|| reason.to_owned());
            first
        });
    }

    /// Resolves once the machine's end was asked for, with the reason.
    pub(super) async fn stopped(&self) -> String {
        let mut receiver = self.stop.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender lives in `self`.
            Err(_) => String::new(),
        }
    }
}
