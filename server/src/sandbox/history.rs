//! What happened to machines, noted as it happens and kept in the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{
    ErrorBody, NetworkEventList, ProjectId, SandboxEvent, SandboxEventKind, SandboxEventList, SandboxId,
};
use futures_util::future::join_all;

use super::manager::{Sandboxes, internal};
use super::record::{End, Record};
use super::slot::Slot;
use crate::clock::now_ms;
use crate::event::{Events, Kept};
use crate::store::{Expect, Store};

const BUCKET: &str = "events";

impl Sandboxes {
    /// What happened to a machine after a cursor; waits for news at most so long.
    pub async fn events(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        cursor: Option<&str>,
        wait: Duration,
    ) -> Result<SandboxEventList, ErrorBody> {
        self.registry.get(project, id)?.events().after(cursor, wait).await
    }

    /// What happened on a machine's network after a cursor; waits for news at most so long.
    pub async fn network_events(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        cursor: Option<&str>,
        wait: Duration,
    ) -> Result<NetworkEventList, ErrorBody> {
        self.registry.get(project, id)?.events().network_after(cursor, wait).await
    }

    /// Notes what happened to a machine just now. Nobody waits until the store has it: what a machine is and how it ended is in
    /// its record.
    pub(super) fn note(&self, slot: &Slot, change: impl FnOnce(&mut SandboxEvent), kind: SandboxEventKind) {
        let mut event = SandboxEvent::new(now_ms(), kind);
        change(&mut event);
        self.note_event(slot, event);
    }

    /// Notes a machine's end.
    pub(super) fn note_end(&self, slot: &Slot, record: &Record, end: &End) {
        let Some(mut event) = record.end_event() else { return };
        if matches!(end, End::TimedOut(_)) {
            event.kind = SandboxEventKind::TimedOut;
        }
        self.note_event(slot, event);
    }

    fn note_event(&self, slot: &Slot, event: SandboxEvent) {
        slot.events().note(event);
        tokio::spawn(save(self.store.clone(), slot.events().clone(), slot.id().clone()));
    }

    /// Waits until the store has all that was noted.
    pub(super) async fn save_events(&self) {
        let slots = self.registry.all().into_iter().filter(|slot| slot.record().is_taken());
        let saves = slots.map(|slot| save(self.store.clone(), slot.events().clone(), slot.id().clone()));
        join_all(saves).await;
    }

    /// Forgets a machine's events with the machine.
    pub(super) async fn forget_events(&self, id: &SandboxId) {
        if let Err(error) = self.store.delete(BUCKET, id.to_string(), Expect::Any).await {
            tracing::error!(sandbox = %id, %error, "an old machine's events could not be deleted");
        }
    }

    /// What the store has of machines, by their ids.
    pub(super) async fn kept_events(&self) -> Result<HashMap<String, Kept>, ErrorBody> {
        let entries = self.store.list(BUCKET).await.map_err(|error| internal(&error))?;
        let read = entries.into_iter().map(|entry| {
            let kept = serde_json::from_slice(&entry.value)
                .map_err(|error| internal(&format!("the events of {} cannot be read: {error}", entry.key)))?;
            Ok((entry.key, kept))
        });
        read.collect()
    }
}

/// A place for a machine that an earlier server knew. What that one had no time to note, or did not know how to, is in the record.
pub(super) fn restored(record: Record, kept: Kept) -> Slot {
    let slot = Slot::with(record, kept);
    let (record, events) = (slot.record(), slot.events());
    if events.is_blank() {
        events.note(record.creation_event());
        if let Some(at_ms) = record.view.started_at_ms {
            events.note(SandboxEvent::new(at_ms, SandboxEventKind::Started));
        }
    }
    if let Some(end) = record.end_event() {
        events.note(end);
    }
    slot
}

async fn save(store: Arc<dyn Store>, events: Arc<Events>, id: SandboxId) {
    let Some((kept, saving)) = events.unsaved().await else { return };
    let value = match serde_json::to_vec(&kept) {
        Ok(value) => value,
        Err(error) => return tracing::error!(sandbox = %id, %error, "a machine's events cannot be written"),
    };
    match store.put(BUCKET, id.to_string(), value, Expect::Any).await {
        Ok(_) => saving.done(),
        // The next event takes them along.
        Err(error) => tracing::error!(sandbox = %id, %error, "a machine's events could not be recorded"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use forkyard_protocol::{CreateSandbox, KeyId, KeyInfo, Scope};

    use super::super::origin::Origin;
    use super::*;
    use crate::snapshot::Contents;
    use crate::vmm::Devices;

    fn record() -> Record {
        let caller = KeyInfo {
            key_id: KeyId::parse("key_1").unwrap(),
            project: ProjectId::parse("prj_1").unwrap(),
            scope: Scope::Sandboxes,
            description: String::new(),
            max_sandboxes: 8,
            requests_per_second: 10,
            created_at_ms: 0,
        };
        let origin = Origin::frozen(&Contents::default(), Path::new(""), Devices::NOW);
        Record::pending(SandboxId::parse("sbx_1").unwrap(), &caller, CreateSandbox::default(), &origin, None)
    }

    async fn kinds(slot: &Slot) -> Vec<SandboxEventKind> {
        let page = slot.events().after(None, Duration::ZERO).await.unwrap();
        page.events.iter().map(|event| event.kind).collect()
    }

    #[tokio::test]
    async fn what_was_not_noted_is_taken_from_the_record() {
        use SandboxEventKind::{Created, Failed, Lost, Started, Terminated};
        let mut record = record();
        assert_eq!(kinds(&restored(record.clone(), Kept::default())).await, [Created]);
        End::Failed("no boot".into()).apply(&mut record);
        assert_eq!(kinds(&restored(record.clone(), Kept::default())).await, [Created, Failed]);
        record.view.started_at_ms = Some(7);
        let slot = restored(record.clone(), Kept::default());
        assert_eq!(kinds(&slot).await, [Created, Started, Lost]);
        let (kept, _saving) = slot.events().unsaved().await.unwrap();
        assert_eq!(kinds(&restored(record.clone(), kept)).await, [Created, Started, Lost], "and only once");
        End::TimedOut(7).apply(&mut record);
        let slot = restored(record, Kept::default());
        assert_eq!(kinds(&slot).await, [Created, Started, Terminated]);
        let page = slot.events().after(None, Duration::ZERO).await.unwrap();
        assert_eq!(page.events[2].reason.as_deref(), Some("no call for 7 seconds"));
    }
}
