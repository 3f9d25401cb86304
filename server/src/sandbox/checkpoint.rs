//! Machines out of machines: snapshots that are kept, and forks of a machine that runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{
    CheckpointType, CreateSnapshot, ErrorBody, ErrorCode, ForkSandbox, KeyInfo, ProjectId, SandboxEventKind,
    SandboxId, Snapshot, SnapshotId, SnapshotStatus,
};
use futures_util::future::try_join_all;
use tokio::time::timeout;

use super::life::Phase;
use super::manager::{Sandboxes, internal};
use super::network::require_card;
use super::origin::Origin;
use super::record::{Creation, End, Record};
use super::registry::{Claims, Reserved};
use super::slot::Slot;
use crate::clock::now_ms;
use crate::guest::Guest;
use crate::quota::Promised;
use crate::snapshot::{self, Contents, Folder, GuestDefaults};
use crate::store::Expect;
use crate::vmm::{Freeze, Frozen, Machine};

/// How long a machine may take to end after work with it broke off, for its end to be what is reported.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

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
        let space = self.promise_space(&slot.record(), request.checkpoint_type).await?;
        let record = self.new_snapshot(&slot.record(), request)?;
        let view = record.view.clone();
        self.snapshots.begin(record).await?;
        tokio::spawn(self.clone().write_snapshot(slot, view.clone(), space));
        Ok(view)
    }

    /// Sets space aside for what is about to be written, and refuses what would fill the disk: a full one harms every machine on
    /// it.
    pub(super) async fn promise_space(
        &self,
        machine: &Record,
        what: CheckpointType,
    ) -> Result<Promised, ErrorBody> {
        let needed_mb = match what {
            // The disk is frozen as it lies there.
            CheckpointType::Filesystem => 1,
            CheckpointType::Memory => machine.view.memory_mb,
        };
        let (space, dir) = (self.space.clone(), self.settings.machines_dir.clone());
        let promised =
            tokio::task::spawn_blocking(move || space.promise(|| crate::host::free_disk_mb(&dir), needed_mb));
        promised.await.map_err(|error| internal(&error))?
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
            accelerator: match machine.accelerator.as_str() {
                // Records of earlier versions do not say.
                "" => self.vmm.accelerator().as_str().to_owned(),
                known => known.to_owned(),
            },
            contents: Contents::default(),
            failure: None,
            devices: machine.devices,
        })
    }

    async fn write_snapshot(self: Arc<Self>, slot: Arc<Slot>, view: Snapshot, _space: Promised) {
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
            Ok(()) => {
                self.note(
                    &slot,
                    |event| event.snapshot_id = Some(id.clone()),
                    SandboxEventKind::Checkpointed,
                );
                tracing::info!(snapshot = %id, sandbox = %slot.id(), "snapshot completed");
            }
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
        request.network.as_ref().map_or(Ok(()), |policy| require_card(policy, source.record().devices))?;
        drop(source.guest()?);
        source.record().goes_on_with(self.vmm.accelerator())?;
        let _space = self.promise_space(&source.record(), CheckpointType::Memory).await?;
        let (mut new, mut all) = (Vec::new(), Vec::new());
        for record in forks_of(&source.record(), caller, &request, idempotency_key.as_deref())? {
            match self.admit(record, Claims::Forbidden, caller, Duration::ZERO).await {
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
        let made = async {
            // All at once: the store has one commit for them.
            let records = new.iter().map(|slot| async { self.persist(&slot.record(), Expect::Absent).await });
            try_join_all(records).await?;
            self.freeze_for_forks(&source).await
        };
        match made.await {
            Ok(origin) => {
                let forks = new.iter().map(|slot| slot.id().clone()).collect();
                self.note(&source, |event| event.forks = forks, SandboxEventKind::Forked);
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

/// The records of a machine's twins that are about to be made. Each has a key of its own, so that the same call finds the same.
fn forks_of(
    source: &Record,
    caller: &KeyInfo,
    request: &ForkSandbox,
    idempotency_key: Option<&str>,
) -> Result<Vec<Record>, ErrorBody> {
    let body =
        serde_json::to_string(&(&source.view.sandbox_id, request)).map_err(|error| internal(&error))?;
    let record = |number| {
        let creation = idempotency_key
            .map(|key| Creation { idempotency_key: format!("{key}#{number}"), request: body.clone() });
        Ok(Record::fork_of(source, super::manager::new_id()?, caller, request.clone(), creation))
    };
    (0..request.count).map(record).collect()
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
    if let Err(error) = machine.compact().await {
        tracing::warn!(sandbox = %slot.id(), %error, "its disk keeps all its layers");
    }
    let frozen = match what {
        Freeze::Disk => freeze_disk(&guest, machine.as_ref(), target).await,
        Freeze::Memory | Freeze::Halt => {
            machine.freeze(target.to_owned(), what).await.map_err(ErrorBody::from)
        }
    };
    match frozen {
        Ok(frozen) => Ok(frozen),
        Err(error) => Err(why_not_frozen(slot, machine.as_ref(), error).await),
    }
}

async fn freeze_disk(guest: &Guest, machine: &dyn Machine, target: &Path) -> Result<Frozen, ErrorBody> {
    guest.freeze().await?;
    let frozen = machine.freeze(target.to_owned(), Freeze::Disk).await;
    // Also after a failure: the guest is to go on.
    let thawed = guest.thaw().await;
    let frozen = frozen?;
    thawed.map_err(|error| {
        ErrorBody::new(ErrorCode::Unavailable, format!("the disk was not at rest: {}", error.message))
            .retry_after_ms(1000)
    })?;
    Ok(frozen)
}

/// What a machine could not be frozen for: its own end, where that is what broke the work off.
pub(super) async fn why_not_frozen(slot: &Slot, machine: &dyn Machine, error: ErrorBody) -> ErrorBody {
    if error.code == ErrorCode::NoSpace {
        return error;
    }
    match timeout(LAST_WORDS, machine.exited()).await {
        Ok(reason) => {
            let message = format!("sandbox {} ended while it was being frozen: {reason}", slot.id());
            ErrorBody::new(ErrorCode::SandboxLost, message)
        }
        Err(_) => error,
    }
}
