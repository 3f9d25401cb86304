//! Pools: machines of one kind that run and wait, so that whoever asks for one gets it at once.
//!
//! The pools' records are here; their machines are the sandboxes' ([`crate::sandbox`]), whose keeper makes them ready.

mod plan;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forkyard_protocol::{
    ErrorBody, ErrorCode, KeyInfo, Pool as View, PoolId, PoolSpec, ProjectId, Resource, SnapshotId,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::plan::{Counts, Step, next};
use crate::clock::now_ms;
use crate::store::{Expect, Store};

const BUCKET: &str = "pools";

/// Most pools of one project.
const MAX_POOLS: usize = 64;

/// A pool as the store holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub pool_id: PoolId,
    /// What it is to keep.
    pub spec: PoolSpec,
    /// The key that asked for it, whose budget its waiting machines hold.
    pub owner: KeyInfo,
    /// When it was asked for: milliseconds since 1970.
    pub created_at_ms: u64,
}

/// What makes machines alike before anybody has used them: one can be handed out for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// The image's digest.
    pub image_digest: String,
    /// The snapshot that it went on from, if it did.
    pub snapshot_id: Option<SnapshotId>,
    /// Whole virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
}

/// One pool.
pub struct Pool {
    record: Mutex<Record>,
    /// What its machines were when its keeper last looked: the image's name, and their kind.
    kept: Mutex<Option<(String, Kind)>>,
    reason: Mutex<Option<String>>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Told whenever its keeper has something to look at.
    pub changed: Notify,
    /// Cancelled once it is deleted, or the server stops.
    pub closed: CancellationToken,
}

impl Pool {
    fn new(record: Record) -> Self {
        Self {
            record: Mutex::new(record),
            kept: Mutex::new(None),
            reason: Mutex::new(None),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            changed: Notify::new(),
            closed: CancellationToken::new(),
        }
    }

    /// Its record as it stands.
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Says why it has fewer machines than it should, or that it has them.
    pub fn explain(&self, reason: Option<String>) {
        *lock(&self.reason) = reason;
    }

    /// Notes what it keeps from now on.
    pub fn keep(&self, image: String, kind: Kind) {
        *lock(&self.kept) = Some((image, kind));
    }

    /// Whether a machine of this image and kind should be ready in it. What an image's name stands for may have changed since
    /// its keeper last looked.
    fn should_have(&self, image: &str, kind: &Kind) -> bool {
        lock(&self.kept).as_ref().is_some_and(|(name, kept)| {
            let digest = if name == image { &kind.image_digest } else { &kept.image_digest };
            Kind { image_digest: digest.clone(), ..kept.clone() } == *kind
        })
    }

    /// What the API shows of it.
    pub fn view(&self, counts: Counts) -> View {
        let Record { pool_id, spec, owner: _, created_at_ms } = self.record();
        let Counts { starting, ready, claimed } = counts;
        View {
            pool_id,
            spec,
            ready,
            starting,
            claimed,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            reason: lock(&self.reason).clone(),
            created_at_ms,
        }
    }
}

/// The pools of this server, all records in memory; every change is in the store before it counts.
pub struct Pools {
    store: Arc<dyn Store>,
    pools: Mutex<HashMap<PoolId, Arc<Pool>>>,
}

impl Pools {
    /// Reads the records.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, ErrorBody> {
        let mut pools = HashMap::new();
        for entry in store.list(BUCKET).await.map_err(|error| internal(&error))? {
            let record: Record = serde_json::from_slice(&entry.value)
                .map_err(|error| internal(&format!("the record of {} cannot be read: {error}", entry.key)))?;
            pools.insert(record.pool_id.clone(), Arc::new(Pool::new(record)));
        }
        Ok(Self { store, pools: Mutex::new(pools) })
    }

    /// Notes a new pool.
    pub async fn create(&self, owner: &KeyInfo, spec: PoolSpec) -> Result<Arc<Pool>, ErrorBody> {
        admit(&spec, owner)?;
        let of_project =
            lock(&self.pools).values().filter(|pool| pool.record().owner.project == owner.project).count();
        if of_project >= MAX_POOLS {
            let message = format!("a project has at most {MAX_POOLS} pools; delete one first");
            return Err(ErrorBody::new(ErrorCode::QuotaExceeded, message).about(Resource::Pool));
        }
        let id = format!("{}{}", PoolId::PREFIX, ulid::Ulid::generate());
        let record = Record {
            pool_id: PoolId::parse(&id).map_err(|error| internal(&error))?,
            spec,
            owner: owner.clone(),
            created_at_ms: now_ms(),
        };
        self.persist(&record, Expect::Absent).await?;
        let pool = Arc::new(Pool::new(record.clone()));
        lock(&self.pools).insert(record.pool_id, pool.clone());
        Ok(pool)
    }

    /// Has a pool keep something else from now on.
    pub async fn change(
        &self,
        caller: &KeyInfo,
        id: &PoolId,
        spec: PoolSpec,
    ) -> Result<Arc<Pool>, ErrorBody> {
        let pool = self.get(&caller.project, id)?;
        admit(&spec, caller)?;
        let record = Record { spec, owner: caller.clone(), ..pool.record() };
        self.persist(&record, Expect::Any).await?;
        *lock(&pool.record) = record;
        pool.explain(None);
        pool.changed.notify_one();
        Ok(pool)
    }

    /// A pool of this project; another's does not exist.
    pub fn get(&self, project: &ProjectId, id: &PoolId) -> Result<Arc<Pool>, ErrorBody> {
        let pool = self.all().get(id).filter(|pool| pool.record().owner.project == *project).cloned();
        pool.ok_or_else(|| {
            ErrorBody::new(ErrorCode::NotFound, format!("there is no pool {id}")).about(Resource::Pool)
        })
    }

    /// A project's pools, newest first.
    pub fn list(&self, project: &ProjectId) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> =
            self.all().values().filter(|pool| pool.record().owner.project == *project).cloned().collect();
        pools.sort_by(|a, b| b.record().pool_id.cmp(&a.record().pool_id));
        pools
    }

    /// Deletes a pool; its keeper ends the machines that wait in it.
    pub async fn delete(&self, project: &ProjectId, id: &PoolId) -> Result<(), ErrorBody> {
        let pool = self.get(project, id)?;
        self.store.delete(BUCKET, id.to_string(), Expect::Any).await.map_err(|error| internal(&error))?;
        self.all().remove(id);
        pool.closed.cancel();
        Ok(())
    }

    /// Every pool, by id.
    pub fn all(&self) -> MutexGuard<'_, HashMap<PoolId, Arc<Pool>>> {
        lock(&self.pools)
    }

    /// Has a keeper look at its pool again.
    pub fn look_again_at(&self, id: &PoolId) {
        self.all().get(id).inspect(|pool| pool.changed.notify_one());
    }

    /// Has every keeper look at its pool again.
    pub fn look_again(&self) {
        self.all().values().for_each(|pool| pool.changed.notify_one());
    }

    /// Counts a machine that was claimed, and has its place filled.
    pub fn hit(&self, id: &PoolId) {
        if let Some(pool) = self.all().get(id) {
            pool.hits.fetch_add(1, Ordering::Relaxed);
            pool.changed.notify_one();
        }
    }

    /// Counts a machine that some pool should have had ready. The pool may have what an image's tag no longer means: it looks
    /// again.
    pub fn miss(&self, project: &ProjectId, image: &str, kind: &Kind) {
        let is_like =
            |pool: &&Arc<Pool>| pool.record().owner.project == *project && pool.should_have(image, kind);
        if let Some(pool) = self.all().values().find(is_like) {
            pool.misses.fetch_add(1, Ordering::Relaxed);
            pool.changed.notify_one();
        }
    }

    async fn persist(&self, record: &Record, expect: Expect) -> Result<(), ErrorBody> {
        let value = serde_json::to_vec(record).map_err(|error| internal(&error))?;
        let put = self.store.put(BUCKET, record.pool_id.to_string(), value, expect).await;
        put.map(drop).map_err(|error| internal(&error))
    }
}

/// Refuses a pool that its owner's key could never fill.
fn admit(spec: &PoolSpec, owner: &KeyInfo) -> Result<(), ErrorBody> {
    spec.validate()?;
    if spec.min_ready <= owner.max_sandboxes {
        return Ok(());
    }
    let message = format!(
        "min_ready is {}, but this key may have {} machines alive, those that wait in pools included",
        spec.min_ready, owner.max_sandboxes
    );
    Err(ErrorBody::new(ErrorCode::QuotaExceeded, message).about(Resource::Pool))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn internal(error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}
