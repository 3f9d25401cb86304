use forkyard_protocol::SandboxId;
use tokio::sync::watch;

use super::activity::Activity;
use super::record::Record;

/// One machine's place in memory: its record, watched by whoever waits for a change, and its activity.
pub struct Slot {
    id: SandboxId,
    record: watch::Sender<Record>,
    activity: Activity,
}

impl Slot {
    /// A place for this record.
    pub fn new(record: Record) -> Self {
        Self {
            id: record.view.sandbox_id.clone(),
            record: watch::Sender::new(record),
            activity: Activity::new(),
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

    /// Changes the record and wakes whoever waits for it; answers the record as it now stands.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Record {
        self.record.send_modify(change);
        self.record()
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
}
