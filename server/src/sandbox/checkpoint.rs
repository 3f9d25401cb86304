//! Machines out of machines: snapshots that are kept, and forks of a machine that runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{
    CheckpointType, CreateSnapshot, ErrorBody, ErrorCode, ForkSandbox, KeyInfo, ProjectId, SandboxId,
    Snapshot, SnapshotId, SnapshotStatus,
};

use super::life::Phase;
use super::manager::{Sandboxes, internal};
use super::origin::Origin;
use super::record::{Creation, End, Record};
use super::registry::{Claims, Reserved};
use super::slot::Slot;
use crate::clock::now_ms;
use crate::quota::admit_to_disk;
use crate::snapshot::{self, Contents, Folder, GuestDefaults};
use crate::store::Expect;
use crate::vmm::{Freeze, Frozen};

impl Sandboxes {
    /// Starts to freeze a running machine, which goes on running; answers the snapshot, which is `in_progress`.
    pub async fn checkpoint(
        self: &Arc<Self>,
        project: &ProjectId,
        id: &SandboxId,
        request: CreateSnapshot,
    ) -> Result<Snapshot, ErrorBody> {
        request.validate()?;
        let slot = self.awake(project, id).await?;
        // A machine that does not run is refused before anything is written.
        drop(slot.guest()?);
        self.require_space(&slot.record(), request.checkpoint_type).await?;
        let record = self.new_snapshot(&slot.record(), request)?;
        let view = record.view.clone();
        self.snapshots.begin(record).await?;
        tokio::spawn(self.clone().write_snapshot(slot, view.clone()));
        Ok(view)
    }

    /// Refuses what would fill the disk: a full one harms every machine on it.
    pub(super) async fn require_space(
        &self,
        machine: &Record,
        what: CheckpointType,
    ) -> Result<(), ErrorBody> {
        let needed_mb = match what {
            // The disk is frozen as it lies there.
            CheckpointType::Filesystem => 1,
            CheckpointType::Memory => machine.view.memory_mb,
        };
        let dir = self.settings.machines_dir.clone();
        let free = tokio::task::spawn_blocking(move || crate::host::free_disk_mb(&dir)).await;
        admit_to_disk(free.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?, needed_mb)
    }

    fn new_snapshot(&self, machine: &Record, request: CreateSnapshot) -> Result<snapshot::Record, ErrorBody> {
        let id = format!("{}{}", SnapshotId::PREFIX, ulid::Ulid::generate());
        let source = machine.view.clone();
        Ok(snapshot::Record {
            view: Snapshot {
                snapshot_id: SnapshotId::parse(&id).map_err(|error| internal(&error))?,
                checkpoint_type: request.checkpoint_type,
                status: SnapshotStatus::InProgress,
                reason: None,
                name: request.name,
                source: source.sandbox_id,
                image: source.image,
                image_digest: source.image_digest,
                cpus: source.cpus,
                memory_mb: source.memory_mb,
                size_bytes: 0,
                logical_size_bytes: 0,
                pause_ms: 0,
                labels: request.labels,
                retain: request.retain,
                created_at_ms: now_ms(),
            },
            project: machine.project.clone(),
            defaults: defaults_of(machine),
            accelerator: self.vmm.accelerator().as_str().to_owned(),
            contents: Contents::default(),
            failure: None,
            devices: machine.devices,
        })
    }

    async fn write_snapshot(self: Arc<Self>, slot: Arc<Slot>, view: Snapshot) {
        let id = view.snapshot_id;
        let what = match view.checkpoint_type {
            CheckpointType::Filesystem => Freeze::Disk,
            CheckpointType::Memory => Freeze::Memory,
        };
        let written = async {
            let folder = self.snapshots.folder(&id).await?;
            let frozen = freeze(&slot, folder.path(), what).await?;
            let pause_ms = u64::try_from(frozen.pause.as_millis()).unwrap_or(u64::MAX);
            self.snapshots.complete(&id, folder, pause_ms).await
        };
        let outcome: Result<(), ErrorBody> = written.await;
        match outcome {
            Ok(()) => tracing::info!(snapshot = %id, sandbox = %slot.id(), "snapshot completed"),
            Err(error) => {
                tracing::warn!(snapshot = %id, sandbox = %slot.id(), error = error.message, "snapshot failed");
                if let Err(error) = self.snapshots.fail(&id, &error).await {
                    tracing::error!(snapshot = %id, error = error.message, "its failure could not be recorded");
                }
            }
        }
    }

    /// Starts twins of a running machine. The same call again finds the same twins.
    pub async fn fork(
        self: &Arc<Self>,
        caller: &KeyInfo,
        id: &SandboxId,
        request: ForkSandbox,
        idempotency_key: Option<String>,
    ) -> Result<Vec<Arc<Slot>>, ErrorBody> {
        request.validate()?;
        // In a task of its own: whoever asked may go away at any moment, and what was given room must be made or given up.
        let (sandboxes, caller, id) = (self.clone(), caller.clone(), id.clone());
        let forked =
            tokio::spawn(async move { sandboxes.fork_all(&caller, &id, request, idempotency_key).await });
        forked.await.map_err(|error| internal(&error))?
    }

    async fn fork_all(
        self: &Arc<Self>,
        caller: &KeyInfo,
        id: &SandboxId,
        request: ForkSandbox,
        idempotency_key: Option<String>,
    ) -> Result<Vec<Arc<Slot>>, ErrorBody> {
        let source = self.awake(&caller.project, id).await?;
        drop(source.guest()?);
        self.require_space(&source.record(), CheckpointType::Memory).await?;
        let body = serde_json::to_string(&(id, &request)).map_err(|error| internal(&error))?;
        let (mut new, mut all) = (Vec::new(), Vec::new());
        for number in 0..request.count {
            let creation = idempotency_key
                .as_ref()
                .map(|key| Creation { idempotency_key: format!("{key}#{number}"), request: body.clone() });
            let reserved = self.reserve_fork(caller, &source.record(), &request, creation).await;
            match reserved {
                Ok(Reserved::Existing(slot) | Reserved::Claimed(slot)) => all.push(slot),
                Ok(Reserved::New(slot)) => {
                    new.push(slot.clone());
                    all.push(slot);
                }
                Err(error) => {
                    self.give_up(&new, &error.message).await;
                    return Err(error);
                }
            }
        }
        if new.is_empty() {
            return Ok(all);
        }
        match self.freeze_for_forks(&source).await {
            Ok(origin) => {
                for slot in new {
                    tokio::spawn(self.clone().live(slot, Phase::Made(Box::new(origin.clone()))));
                }
                Ok(all)
            }
            Err(error) => {
                self.give_up(&new, &error.message).await;
                Err(error)
            }
        }
    }

    async fn reserve_fork(
        &self,
        caller: &KeyInfo,
        source: &Record,
        request: &ForkSandbox,
        creation: Option<Creation>,
    ) -> Result<Reserved, ErrorBody> {
        let record = Record::fork_of(source, super::manager::new_id()?, caller, request.clone(), creation);
        let reserved = self.admit(record, Claims::Forbidden, caller, Duration::ZERO).await?;
        if let Reserved::New(slot) = &reserved
            && let Err(error) = self.persist(&slot.record(), Expect::Absent).await
        {
            self.registry.forget(slot.id());
            return Err(error);
        }
        Ok(reserved)
    }

    /// Freezes a machine into a folder that lasts as long as somebody makes machines of it.
    async fn freeze_for_forks(&self, source: &Slot) -> Result<Origin, ErrorBody> {
        let name = format!("{}{}", SnapshotId::PREFIX, ulid::Ulid::generate());
        let id = SnapshotId::parse(&name).map_err(|error| internal(&error))?;
        let folder = self.snapshots.folder(&id).await?;
        freeze(source, folder.path(), Freeze::Memory).await?;
        let path = folder.path().to_owned();
        let listed = tokio::task::spawn_blocking(move || Contents::list(&path)).await;
        let contents = listed.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        let record = source.record();
        let mut origin = Origin::frozen(&contents, folder.path(), record.devices);
        origin.image.clone_from(&record.view.image);
        origin.image_digest.clone_from(&record.view.image_digest);
        origin.defaults = defaults_of(&record);
        origin.folder = Some(Arc::<Folder>::new(folder));
        Ok(origin)
    }

    /// Ends machines that were given room and will not be made.
    async fn give_up(&self, slots: &[Arc<Slot>], reason: &str) {
        for slot in slots {
            self.finish(slot, &End::Failed(reason.to_owned())).await;
        }
    }
}

/// What the processes of a machine's twins start from: what its own did.
fn defaults_of(machine: &Record) -> GuestDefaults {
    let mut defaults = machine.defaults.clone();
    defaults.env.extend(machine.env.clone());
    defaults
}

/// Freezes a machine that runs. Its file systems are at rest at that moment, or are frozen with the memory that knows about
/// them.
async fn freeze(slot: &Slot, target: &Path, what: Freeze) -> Result<Frozen, ErrorBody> {
    let (guest, _call) = slot.guest()?;
    let machine = slot.machine().ok_or_else(|| slot.record().not_running())?;
    if what != Freeze::Disk {
        return Ok(machine.freeze(target.to_owned(), what).await?);
    }
    guest.freeze().await?;
    let frozen = machine.freeze(target.to_owned(), what).await;
    // Also after a failure: the guest is to go on.
    let thawed = guest.thaw().await;
    let frozen = frozen?;
    thawed.map_err(|error| {
        ErrorBody::new(ErrorCode::Unavailable, format!("the disk was not at rest: {}", error.message))
            .retry_after_ms(1000)
    })?;
    Ok(frozen)
}
