use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{
    CreateSandbox, DEFAULT_IMAGE, ErrorBody, ErrorCode, KeyInfo, ProjectId, Sandbox, SandboxId,
    SandboxStatus, SnapshotId,
};
use futures_util::future::{join_all, try_join_all};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::admission::Admission;
use super::life::Phase;
use super::network::require_card;
use super::order::Wish;
use super::origin::Origin;
use super::record::{Creation, Record};
use super::registry::{Claims, Registry, Reserved};
use super::slot::Slot;
use super::template::Templates;
use crate::image::ImageStore;
use crate::network::NetworkSettings;
use crate::pool::Pools;
use crate::quota::{DiskSpace, HostBudget};
use crate::snapshot::Snapshots;
use crate::store::{Expect, Store};
use crate::vmm::Vmm;

pub(super) const BUCKET: &str = "sandboxes";

/// How long the server's end waits for its machines' ends.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Why machines end or are put on disk with the server.
const STOPPED: &str = "the server was stopped";

/// How machines are made on this host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where each machine has its directory.
    pub machines_dir: PathBuf,
    /// Where snapshots lie, on the same file system.
    pub snapshots_dir: PathBuf,
    /// Where suspended machines lie, on the same file system.
    pub suspended_dir: PathBuf,
    /// Where templates lie, on the same file system.
    pub templates_dir: PathBuf,
    /// Bytes on disk that templates may take in all; none are made where it is zero.
    pub template_budget_bytes: u64,
    /// What machines may take in all.
    pub budget: HostBudget,
    /// How long a guest may take to boot, once it is its turn.
    pub boot_deadline: Duration,
    /// Guests that boot at once; more wait their turn, since more at once than there are processors only slow each other.
    pub concurrent_boots: usize,
    /// Environment that the operator gives to every guest, such as the package index; the caller's own wins.
    pub guest_env: BTreeMap<String, String>,
    /// What machines' networks are made of.
    pub network: Arc<NetworkSettings>,
}

/// The machines of this server.
pub struct Sandboxes {
    pub(super) settings: Settings,
    pub(super) vmm: Arc<dyn Vmm>,
    pub(super) images: ImageStore,
    pub(super) store: Arc<dyn Store>,
    pub(super) snapshots: Snapshots,
    pub(super) templates: Templates,
    pub(super) registry: Registry,
    pub(super) admission: Admission,
    pub(super) pools: Pools,
    pub(super) space: DiskSpace,
    pub(super) boots: Semaphore,
    /// Whoever makes a machine that nobody has asked for yet.
    pub(super) refills: Semaphore,
}

impl Sandboxes {
    /// Takes up what an earlier server left: adopts machines that still run, records the end of those that don't, ends
    /// strays and deletes what they left on disk.
    pub async fn open(
        settings: Settings,
        vmm: Arc<dyn Vmm>,
        images: ImageStore,
        store: Arc<dyn Store>,
    ) -> Result<Arc<Self>, ErrorBody> {
        let boots = Semaphore::new(settings.concurrent_boots);
        let snapshots = Snapshots::open(settings.snapshots_dir.clone(), store.clone()).await?;
        let pools = Pools::open(store.clone()).await?;
        let templates = Templates::new(settings.templates_dir.clone(), settings.template_budget_bytes);
        templates.clean().await?;
        let sandboxes = Arc::new(Self {
            settings,
            vmm,
            images,
            store,
            snapshots,
            templates,
            registry: Registry::default(),
            admission: Admission::default(),
            pools,
            space: DiskSpace::default(),
            boots,
            refills: Semaphore::new(1),
        });
        sandboxes.recover().await?;
        sandboxes.keep_all();
        let retaining = sandboxes.clone();
        tokio::spawn(async move { retaining.snapshots.retain().await });
        Ok(sandboxes)
    }

    /// Gives room to a new machine and starts to make it, or hands out one that waits in a pool. The same call again finds the
    /// same machine.
    pub async fn create(
        self: &Arc<Self>,
        caller: &KeyInfo,
        request: CreateSandbox,
        idempotency_key: Option<String>,
    ) -> Result<Arc<Slot>, ErrorBody> {
        request.validate()?;
        let creation = match idempotency_key {
            Some(idempotency_key) => {
                let request = serde_json::to_string(&request).map_err(|error| internal(&error))?;
                Some(Creation { idempotency_key, request })
            }
            None => None,
        };
        let origin = self.origin(&caller.project, &request).await?;
        require_card(&request.network, origin.devices)?;
        let patience = Duration::from_secs(request.queue_timeout_secs);
        let record = Record::pending(new_id()?, caller, request, &origin, creation);
        match self.admit(record, Claims::Allowed, caller, patience).await? {
            Reserved::Existing(slot) => Ok(slot),
            Reserved::Claimed(slot) => {
                let record = slot.record();
                record.pool_id.iter().for_each(|pool_id| self.pools.hit(pool_id));
                // It is in the store only once its guest knows whose it is.
                slot.wait_for(|record| record.view.status != SandboxStatus::Pending).await;
                Ok(slot)
            }
            Reserved::New(slot) => {
                let record = slot.record();
                self.pools.miss(&record.project, &record.view.image, &record.kind());
                // In a task of its own: whoever asked may go away at any moment, and the machine has room already.
                let begun = tokio::spawn(self.clone().begin(slot.clone(), origin));
                begun.await.map_err(|error| internal(&error))??;
                Ok(slot)
            }
        }
    }

    /// Notes a machine that was given room and starts to make it.
    async fn begin(self: Arc<Self>, slot: Arc<Slot>, origin: Origin) -> Result<(), ErrorBody> {
        if let Err(error) = self.persist(&slot.record(), Expect::Absent).await {
            self.registry.forget(slot.id());
            self.serve_line();
            return Err(error);
        }
        tokio::spawn(self.live(slot, Phase::Made(Box::new(origin))));
        Ok(())
    }

    /// A machine of this project.
    pub fn get(&self, project: &ProjectId, id: &SandboxId) -> Result<Arc<Slot>, ErrorBody> {
        self.registry.get(project, id)
    }

    /// All machines.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What machines may take in all.
    pub fn budget(&self) -> HostBudget {
        self.settings.budget
    }

    /// The images that machines are made of.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// What runs the machines.
    pub fn vmm(&self) -> &Arc<dyn Vmm> {
        &self.vmm
    }

    /// Ends a machine and waits for its end. Ending one that has ended answers how it ended.
    pub async fn terminate(&self, project: &ProjectId, id: &SandboxId) -> Result<Sandbox, ErrorBody> {
        let slot = self.registry.get(project, id)?;
        slot.stop("asked for by the caller");
        let ended = slot.wait_for(|record| !record.is_alive());
        match timeout(SHUTDOWN, ended).await {
            Ok(record) => Ok(record.view),
            Err(_) => {
                Err(internal(&format!("sandbox {id} did not end within {} seconds", SHUTDOWN.as_secs())))
            }
        }
    }

    /// Suspends every named machine and ends the others, for the server's own end.
    pub async fn terminate_all(&self) {
        self.pools.all().values().for_each(|pool| pool.closed.cancel());
        let running = self.registry.all().into_iter().filter(|slot| slot.record().view.status.holds_memory());
        let ends = running.map(|slot| async move {
            // A named machine outlives the server too.
            if slot.record().view.name.is_some() {
                match timeout(SHUTDOWN, slot.order(Wish::Suspend(Some(STOPPED.to_owned())))).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => {
                        tracing::error!(sandbox = %slot.id(), error = error.message, "not suspended");
                    }
                    Err(_) => tracing::error!(sandbox = %slot.id(), "not suspended in time"),
                }
            }
            slot.stop(STOPPED);
            if timeout(SHUTDOWN, slot.wait_for(|record| !record.is_alive())).await.is_err() {
                tracing::error!(sandbox = %slot.id(), "the machine did not end in time");
            }
        });
        join_all(ends).await;
        self.save_events().await;
    }

    pub(super) async fn persist(&self, record: &Record, expect: Expect) -> Result<(), ErrorBody> {
        let value = serde_json::to_vec(record).map_err(|error| internal(&error))?;
        let key = record.view.sandbox_id.to_string();
        self.store.put(BUCKET, key, value, expect).await.map_err(|error| internal(&error))?;
        Ok(())
    }

    /// What a new machine is to be made of.
    pub(super) async fn origin(
        &self,
        project: &ProjectId,
        request: &CreateSandbox,
    ) -> Result<Origin, ErrorBody> {
        if let Some(id) = &request.snapshot_id {
            let record = self.snapshots.get(project, id)?;
            record.admits(self.vmm.accelerator(), request.cpus, request.memory_mb)?;
            self.snapshots.verify(&record).await?;
            return Ok(Origin::snapshot(record, &self.snapshots.path(id)));
        }
        let name = request.image.clone().unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
        let images = self.images.clone();
        let resolved = tokio::task::spawn_blocking(move || images.resolve(&name)).await;
        Origin::image(resolved.map_err(|error| internal(&error))??, request)
    }

    /// Deletes a snapshot; machines that came from it go on, and pools of it are told.
    pub async fn delete_snapshot(&self, project: &ProjectId, id: &SnapshotId) -> Result<(), ErrorBody> {
        self.snapshots.delete(project, id).await?;
        self.pools.look_again();
        Ok(())
    }

    /// The snapshots of this server.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }
}

/// Waits until a machine runs; the error says why it will not.
pub async fn running(slot: &Slot) -> Result<Sandbox, ErrorBody> {
    let record = slot.wait_for(|record| record.view.status != SandboxStatus::Pending).await;
    if record.is_alive() { Ok(record.view) } else { Err(record.not_running()) }
}

/// Waits until the twins that one call asked for run. Where one does not come up none is left: whoever asked hears of none.
pub async fn all_running(slots: &[Arc<Slot>]) -> Result<Vec<Sandbox>, ErrorBody> {
    let made = try_join_all(
        slots.iter().map(|slot| async move { running(slot).await.map_err(|error| (slot, error)) }),
    );
    let (failed, error) = match made.await {
        Ok(views) => return Ok(views),
        Err(failure) => failure,
    };
    // One that ran and has ended since is no reason to end the others: the call may be a repetition.
    if failed.record().view.started_at_ms.is_none() {
        for slot in slots {
            slot.stop("another fork of the same call did not come up");
        }
        let ended = join_all(slots.iter().map(|slot| slot.wait_for(|record| !record.is_alive())));
        if timeout(SHUTDOWN, ended).await.is_err() {
            tracing::error!("forks of a call that failed did not end in time");
        }
    }
    Err(error)
}

pub(super) fn new_id() -> Result<SandboxId, ErrorBody> {
    let text = format!("{}{}", SandboxId::PREFIX, ulid::Ulid::generate());
    SandboxId::parse(&text).map_err(|error| internal(&error))
}

pub(super) fn internal(error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}
