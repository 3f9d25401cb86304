//! Closing and opening the lid: a machine on disk that holds no memory and no processor, and goes on where it stood.
//!
//! ```text
//! suspended/<id>/     the frozen machine: as a snapshot, but for this machine alone
//! suspended/.<id>/    one that is being written
//! ```
//!
//! The record says `suspended` only once the folder is whole, and the folder goes only once the record says `running` again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{
    CheckpointType, ErrorBody, ErrorCode, ProjectId, Sandbox, SandboxEvent, SandboxEventKind, SandboxId,
    SandboxStatus, SnapshotId,
};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::checkpoint::why_not_frozen;
use super::life::Phase;
use super::manager::{Sandboxes, internal};
use super::network::require_card;
use super::order::{Order, Wish};
use super::origin::Origin;
use super::record::End;
use super::slot::Slot;
use crate::snapshot::{Contents, Folder, delete, delete_others};
use crate::store::Expect;
use crate::vmm::{Freeze, Machine};

/// How long a machine may take to be put on disk or to come back: its memory is written or mapped.
const DEADLINE: Duration = Duration::from_mins(5);

impl Sandboxes {
    /// Puts a machine on disk. One that is there already stays there.
    pub async fn suspend(&self, project: &ProjectId, id: &SandboxId) -> Result<Sandbox, ErrorBody> {
        self.order(project, id, Wish::Suspend(None)).await
    }

    /// Lets a suspended machine go on. One that runs already runs on.
    pub async fn resume(&self, project: &ProjectId, id: &SandboxId) -> Result<Sandbox, ErrorBody> {
        self.order(project, id, Wish::Resume).await
    }

    /// Puts a machine back to where a snapshot stands, under its own id and name.
    pub async fn restore(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        snapshot_id: &SnapshotId,
    ) -> Result<Sandbox, ErrorBody> {
        let view = self.registry.get(project, id)?.record().view;
        let record = self.snapshots.get(project, snapshot_id)?;
        record.admits(self.vmm.accelerator(), Some(view.cpus), Some(view.memory_mb))?;
        self.snapshots.verify(&record).await?;
        let origin = Origin::snapshot(record, &self.snapshots.path(snapshot_id));
        require_card(&self.registry.get(project, id)?.record().network, origin.devices)?;
        self.order(project, id, Wish::Restore(Box::new(origin))).await
    }

    pub(super) async fn order(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        wish: Wish,
    ) -> Result<Sandbox, ErrorBody> {
        let slot = self.registry.get(project, id)?;
        timeout(DEADLINE, slot.order(wish)).await.unwrap_or_else(|_| {
            let message = format!("sandbox {id} did not do as asked within {} seconds", DEADLINE.as_secs());
            Err(ErrorBody::new(ErrorCode::Timeout, message))
        })?;
        Ok(slot.record().view)
    }

    /// Puts a running machine on disk and ends its process. After a failure it runs on.
    pub(super) async fn put_to_disk(
        &self,
        slot: &Slot,
        machine: &dyn Machine,
        reason: Option<String>,
    ) -> Result<(), ErrorBody> {
        self.put_away(slot, machine, SandboxStatus::Suspended).await?;
        self.note(slot, |event| event.reason = reason, SandboxEventKind::Suspended);
        tracing::info!(sandbox = %slot.id(), "suspended");
        self.serve_line();
        Ok(())
    }

    /// The same, with what the machine is to be from then on: only one that is suspended gives its room away. The store has it as
    /// suspended either way.
    async fn put_away(
        &self,
        slot: &Slot,
        machine: &dyn Machine,
        status: SandboxStatus,
    ) -> Result<(), ErrorBody> {
        let _space = self.promise_space(&slot.record(), CheckpointType::Memory).await?;
        slot.update(|record| record.view.status = SandboxStatus::Suspending);
        let mut record = slot.record();
        record.view.status = SandboxStatus::Suspended;
        let written = async {
            self.write_frozen(slot, machine).await?;
            self.persist(&record, Expect::Any).await
        };
        if let Err(error) = written.await {
            self.delete_suspended(slot.id()).await;
            if error.code != ErrorCode::SandboxLost
                && let Err(error) = machine.go_on().await
            {
                // Its process has ended, which its task sees next, or its monitor is broken: its guest then says so.
                tracing::error!(sandbox = %slot.id(), %error, "a machine that was not suspended may stand still");
            }
            slot.update(|record| record.view.status = SandboxStatus::Running);
            return Err(error);
        }
        slot.set_guest(None);
        slot.set_machine(None);
        slot.network().end().await;
        if let Err(error) = machine.kill().await {
            tracing::error!(sandbox = %slot.id(), %error, "a suspended machine's process could not be ended");
        }
        if let Err(error) = self.delete_dir(slot.id()).await {
            tracing::error!(sandbox = %slot.id(), error = error.message, "a suspended machine's files remain");
        }
        slot.update(|record| record.view.status = status);
        Ok(())
    }

    /// Puts a running machine back to where a snapshot stands. It is put on disk as it is first, so that it is there still if what
    /// the snapshot holds does not come up, and wherever the server is killed meanwhile. Answers how that went, and where the
    /// machine stands now, if another process runs it.
    pub(super) async fn put_back(
        &self,
        slot: &Slot,
        machine: &Arc<dyn Machine>,
        origin: &Origin,
    ) -> Result<(Result<(), ErrorBody>, Option<Phase>), End> {
        if let Err(error) = self.put_away(slot, machine.as_ref(), SandboxStatus::Resuming).await {
            return Ok((Err(error), None));
        }
        let reason = match self.rise(slot, origin).await? {
            Ok(machine) => {
                let restored = |event: &mut SandboxEvent| event.snapshot_id.clone_from(&origin.snapshot_id);
                self.note(slot, restored, SandboxEventKind::Restored);
                return Ok((Ok(()), Some(Phase::Running(machine))));
            }
            Err(reason) => reason,
        };
        let failed = |what: &str| {
            let message = format!("sandbox {} could not be put back and {what}: {reason}", slot.id());
            Err(ErrorBody::new(ErrorCode::Unavailable, message).retry_after_ms(1000))
        };
        let own = self.suspended_origin(slot).await.map_err(|error| error.message);
        let risen = match own {
            Ok(own) => self.rise(slot, &own).await?,
            Err(reason) => Err(reason),
        };
        match risen {
            Ok(machine) => Ok((failed("goes on as it was"), Some(Phase::Running(machine)))),
            Err(reason) => {
                tracing::error!(sandbox = %slot.id(), reason, "a machine did not come up again");
                slot.update(|record| record.view.status = SandboxStatus::Suspended);
                self.note(slot, |event| event.reason = Some(reason.clone()), SandboxEventKind::Suspended);
                self.serve_line();
                Ok((failed("is suspended"), Some(Phase::Suspended)))
            }
        }
    }

    async fn write_frozen(&self, slot: &Slot, machine: &dyn Machine) -> Result<(), ErrorBody> {
        let (dir, name) = (self.settings.suspended_dir.clone(), slot.id().to_string());
        let folder = on_disk(move || Folder::make(&dir, &name)).await?;
        if let Err(error) = machine.freeze(folder.path().to_owned(), Freeze::Halt).await {
            return Err(why_not_frozen(slot, machine, error.into()).await);
        }
        let target = self.suspended_path(slot.id());
        on_disk(move || {
            folder.sync()?;
            folder.publish(&target)
        })
        .await
    }

    /// Waits for a suspended machine to be wanted again, or to be ended.
    pub(super) async fn rest(
        &self,
        slot: &Slot,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<Arc<dyn Machine>, End> {
        loop {
            let order = tokio::select! {
                reason = slot.stopped() => return Err(End::Terminated(reason)),
                order = orders.recv() => order,
            };
            let Some(order) = order else { return Err(End::Failed("nobody owns it any more".to_owned())) };
            let origin = match &order.wish {
                Wish::Suspend(_) => {
                    order.answer(Ok(()));
                    continue;
                }
                Wish::SetTimeout(secs) => {
                    let outcome = self.change_timeout(slot, *secs).await;
                    order.answer(outcome);
                    continue;
                }
                Wish::Resume => self.suspended_origin(slot).await,
                Wish::Restore(origin) => Ok((**origin).clone()),
                Wish::Network(policy) => {
                    let outcome = self.note_network(slot, policy).await;
                    order.answer(outcome);
                    continue;
                }
            };
            let woken = match origin {
                Ok(origin) => self.wake(slot, &origin).await,
                Err(error) => Ok(Err(error)),
            };
            match woken {
                Ok(Ok(machine)) => {
                    match &order.wish {
                        Wish::Restore(origin) => {
                            let restored =
                                |event: &mut SandboxEvent| event.snapshot_id.clone_from(&origin.snapshot_id);
                            self.note(slot, restored, SandboxEventKind::Restored);
                        }
                        _ => self.note(slot, |_| (), SandboxEventKind::Resumed),
                    }
                    order.answer(Ok(()));
                    return Ok(machine);
                }
                Ok(Err(error)) => order.answer(Err(error)),
                Err(end) => {
                    order.answer(Err(slot.record().not_running()));
                    return Err(end);
                }
            }
        }
    }

    /// Starts a suspended machine; where that fails it stays suspended, unless its end was asked for meanwhile.
    async fn wake(&self, slot: &Slot, origin: &Origin) -> Result<Result<Arc<dyn Machine>, ErrorBody>, End> {
        let overhead = self.vmm.overhead_mb();
        if let Err(error) = self.registry.readmit(slot, self.settings.budget, overhead) {
            return Ok(Err(error));
        }
        let reason = match self.rise(slot, origin).await? {
            Ok(machine) => return Ok(Ok(machine)),
            Err(reason) => reason,
        };
        slot.update(|record| record.view.status = SandboxStatus::Suspended);
        self.serve_line();
        let message = format!("sandbox {} could not be resumed and stays suspended: {reason}", slot.id());
        Ok(Err(ErrorBody::new(ErrorCode::Unavailable, message).retry_after_ms(1000)))
    }

    /// Starts a machine that is on disk and has room. The other outcome says why it did not come up; it is on disk still.
    async fn rise(&self, slot: &Slot, origin: &Origin) -> Result<Result<Arc<dyn Machine>, String>, End> {
        match self.bring_up(slot, origin).await {
            Ok(machine) => {
                self.delete_suspended(slot.id()).await;
                drop(slot.activity().begin());
                Ok(Ok(machine))
            }
            Err(End::Failed(reason)) => match self.delete_dir(slot.id()).await {
                Ok(()) => Ok(Err(reason)),
                Err(error) => Err(End::Failed(error.message)),
            },
            Err(end) => Err(end),
        }
    }

    /// What a suspended machine goes on from.
    async fn suspended_origin(&self, slot: &Slot) -> Result<Origin, ErrorBody> {
        let record = slot.record();
        record.goes_on_with(self.vmm.accelerator())?;
        let path = self.suspended_path(slot.id());
        on_disk(move || Ok(Origin::frozen(&Contents::list(&path)?, &path, record.devices))).await
    }

    /// A machine of this project for a call that needs it running: one that is suspended is resumed, if it is to be.
    pub async fn awake(&self, project: &ProjectId, id: &SandboxId) -> Result<Arc<Slot>, ErrorBody> {
        let slot = self.registry.get(project, id)?;
        if slot.record().wakes() {
            self.resume(project, id).await?;
        }
        Ok(slot)
    }

    /// Whether a machine's frozen files are there, whole.
    pub(super) fn is_on_disk(&self, id: &SandboxId) -> bool {
        self.suspended_path(id).is_dir()
    }

    /// Deletes all that was frozen but these machines: of suspensions that did not come to their end, or of machines that went
    /// on from there.
    pub(super) async fn keep_suspended(&self, keep: HashSet<String>) -> Result<(), ErrorBody> {
        let dir = self.settings.suspended_dir.clone();
        on_disk(move || delete_others(&dir, SandboxId::PREFIX, &keep)).await
    }

    pub(super) async fn delete_suspended(&self, id: &SandboxId) {
        let path = self.suspended_path(id);
        let deleted = on_disk(move || delete(&path)).await;
        if let Err(error) = deleted {
            tracing::error!(sandbox = %id, error = error.message, "what it was frozen into could not be deleted");
        }
    }

    fn suspended_path(&self, id: &SandboxId) -> PathBuf {
        self.settings.suspended_dir.join(id.as_str())
    }
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ErrorBody> {
    let done = spawn_blocking(work).await.map_err(|error| internal(&error))?;
    done.map_err(|error| {
        let code = if crate::host::is_full(&error) { ErrorCode::NoSpace } else { ErrorCode::Internal };
        ErrorBody::new(code, format!("the host's disk: {error}"))
    })
}
