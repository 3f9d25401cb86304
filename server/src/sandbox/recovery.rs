//! What a server does about the machines of the one before it, however that one ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{ErrorBody, SandboxId, SandboxStatus};
use futures_util::future::{join_all, try_join_all};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::history::restored;
use super::life::Phase;
use super::manager::{BUCKET, Sandboxes, internal};
use super::record::{End, Record};
use super::slot::Slot;
use crate::guest::Guest;
use crate::network;
use crate::store::Expect;
use crate::vmm::Machine;

/// How long the agent of a machine that still runs may take to answer.
const ADOPT_DEADLINE: Duration = Duration::from_secs(20);

impl Sandboxes {
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), ErrorBody> {
        tokio::fs::create_dir_all(&self.settings.machines_dir).await.map_err(|error| internal(&error))?;
        let entries = self.store.list(BUCKET).await.map_err(|error| internal(&error))?;
        let mut events = self.kept_events().await?;
        let (mut left, mut suspended) = (Vec::new(), HashSet::new());
        for entry in entries {
            let record: Record = serde_json::from_slice(&entry.value)
                .map_err(|error| internal(&format!("the record of {} cannot be read: {error}", entry.key)))?;
            let kept = events.remove(&entry.key).unwrap_or_default();
            let slot = Arc::new(restored(record, kept));
            self.registry.restore(slot.clone());
            match slot.record().view.status {
                SandboxStatus::Suspended if self.is_on_disk(slot.id()) => {
                    suspended.insert(slot.id().to_string());
                    tokio::spawn(self.clone().live(slot, Phase::Suspended));
                }
                SandboxStatus::Suspended => {
                    let reason = "what it was frozen into was gone when the server came back".to_owned();
                    self.record_loss(&slot, reason).await?;
                }
                status if status.is_alive() => left.push(slot),
                _ => {}
            }
        }
        for id in events.keys().filter_map(|id| SandboxId::parse(id).ok()) {
            // Written while their machine was being forgotten.
            self.forget_events(&id).await;
        }
        // Before any of those that are taken up can be suspended anew.
        self.keep_suspended(suspended).await?;
        let adopted = join_all(left.iter().map(|slot| self.adopt(slot))).await;
        let mut keep = HashSet::new();
        for (slot, adopted) in left.iter().zip(adopted) {
            match adopted {
                Ok(machine) => {
                    keep.insert(slot.id().clone());
                    tracing::info!(sandbox = %slot.id(), pid = machine.pid(), "adopted");
                    tokio::spawn(self.clone().live(slot.clone(), Phase::Running(machine)));
                }
                Err(reason) => self.record_loss(slot, reason).await?,
            }
        }
        let (settings, dir) = (self.settings.network.clone(), self.settings.machines_dir.clone());
        let with_network =
            left.iter().filter(|slot| keep.contains(slot.id()) && slot.record().network.allows_anything());
        let with_network: Vec<_> = with_network.map(|slot| slot.id().clone()).collect();
        let swept = spawn_blocking(move || network::sweep(&settings, &dir, &with_network)).await;
        swept.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        for id in self.vmm.sweep(&self.settings.machines_dir, &keep).await? {
            tracing::warn!(sandbox = %id, "ended a machine that nobody owns");
        }
        self.delete_leftovers(&keep).await
    }

    /// Takes up a machine that still runs, or says why it is lost.
    async fn adopt(&self, slot: &Slot) -> Result<Arc<dyn Machine>, String> {
        if slot.record().view.status == SandboxStatus::Pending {
            return Err("the server ended while the machine was being made".to_owned());
        }
        let machine = match self.vmm.adopt(slot.id().clone(), self.dir(slot.id())).await {
            Ok(Some(machine)) => machine,
            Ok(None) => return Err("the machine was gone when the server came back".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let deadline = Instant::now() + ADOPT_DEADLINE;
        match Guest::connect(machine.agent_socket(), deadline).await {
            Ok(guest) => {
                // Whoever froze its disk may have ended in the middle; mostly there was nobody.
                if let Err(error) = guest.thaw().await {
                    tracing::trace!(sandbox = %slot.id(), error = error.message, "its disk was not at rest");
                }
                self.take_up_network(slot, &machine, &guest).await;
                slot.set_guest(Some(guest));
                slot.set_machine(Some(machine.clone()));
            }
            Err(error) => {
                return Err(format!("its agent did not answer when the server came back: {}", error.message));
            }
        }
        Ok(machine)
    }

    async fn record_loss(&self, slot: &Slot, reason: String) -> Result<(), ErrorBody> {
        tracing::warn!(sandbox = %slot.id(), reason, "lost");
        let end = End::Failed(reason);
        let mut record = slot.record();
        end.apply(&mut record);
        self.note_end(slot, &record, &end);
        let record = slot.update(|current| *current = record);
        self.persist(&record, Expect::Any).await
    }

    async fn delete_leftovers(&self, keep: &HashSet<SandboxId>) -> Result<(), ErrorBody> {
        let mut leftovers = Vec::new();
        let mut entries =
            tokio::fs::read_dir(&self.settings.machines_dir).await.map_err(|error| internal(&error))?;
        while let Some(entry) = entries.next_entry().await.map_err(|error| internal(&error))? {
            let id = entry.file_name().to_str().and_then(|name| SandboxId::parse(name).ok());
            // What is not named as a machine is not ours to delete.
            leftovers.extend(id.filter(|id| !keep.contains(id)));
        }
        try_join_all(leftovers.iter().map(|id| self.delete_dir(id))).await?;
        Ok(())
    }
}
