use std::time::SystemTime;

use forkyard::PoolSpec;
use forkyard::runtime::run;

use crate::{Answer, Client, Error, value};

/// PoolOptions says what machines to keep ready. Zero values stand for defaults.
#[derive(Debug, uniffi::Record)]
pub struct PoolOptions {
    /// Image is an image's tag or digest. Default: python. Not together with SnapshotID.
    pub image: String,
    /// SnapshotID is a snapshot to go on from instead of an image.
    pub snapshot_id: String,
    /// CPUs are virtual CPUs of each machine, as in [Options].
    pub cpus: f64,
    /// MemoryMB is the memory of each machine in MiB, as in [Options].
    pub memory_mb: i32,
    /// MinReady is how many machines are kept ready, 1 to 1,000; they count among the key's machines. Default: 1.
    pub min_ready: i32,
    /// Max is how many machines the pool has at most at once, claimed ones included. Beyond it none is made ready, and machines
    /// are made as without a pool. Default: no limit but the key's.
    pub max: i32,
}

impl TryFrom<PoolOptions> for PoolSpec {
    type Error = Error;

    fn try_from(options: PoolOptions) -> Answer<Self> {
        let PoolOptions { image, snapshot_id, cpus, memory_mb, min_ready, max } = options;
        let defaults = Self::default();
        Ok(Self {
            image: value::text(image),
            snapshot_id: value::id(&snapshot_id)?,
            cpus: value::cpus(cpus),
            memory_mb: value::count("MemoryMB", memory_mb)?,
            min_ready: value::count("MinReady", min_ready)?.unwrap_or(defaults.min_ready),
            max: value::count("Max", max)?,
        })
    }
}

/// PoolInfo is machines that the server keeps ready.
#[derive(Debug, uniffi::Record)]
pub struct PoolInfo {
    /// PoolID is its id, pool_….
    pub pool_id: String,
    /// Image is the image that they are made of; empty for the default, or where it is a snapshot.
    pub image: String,
    /// SnapshotID is the snapshot that they go on from instead.
    pub snapshot_id: String,
    /// CPUs are virtual CPUs of each; 0 for the default, or the snapshot's.
    pub cpus: f64,
    /// MemoryMB is the memory of each in MiB; 0 for the default, or the snapshot's.
    pub memory_mb: i32,
    /// MinReady is how many machines are kept ready.
    pub min_ready: u32,
    /// Max is how many machines the pool has at most at once; 0 for no limit but the key's.
    pub max: u32,
    /// Ready is how many machines wait to be claimed.
    pub ready: u32,
    /// Starting is how many machines are being made ready.
    pub starting: u32,
    /// Claimed is how many machines were claimed and have not ended.
    pub claimed: u32,
    /// Hits is how many machines were claimed since the server started.
    pub hits: u64,
    /// Misses is how many machines of its kind were asked for since then when none was ready.
    pub misses: u64,
    /// Reason says why it has fewer machines than it should, for people.
    pub reason: String,
    /// CreatedAt is when it was asked for.
    pub created_at: SystemTime,
}

impl From<forkyard::PoolInfo> for PoolInfo {
    fn from(info: forkyard::PoolInfo) -> Self {
        let forkyard::PoolInfo {
            pool_id,
            spec: PoolSpec { image, snapshot_id, cpus, memory_mb, min_ready, max },
            ready,
            starting,
            claimed,
            hits,
            misses,
            reason,
            created_at_ms,
        } = info;
        Self {
            pool_id: pool_id.to_string(),
            image: image.unwrap_or_default(),
            snapshot_id: snapshot_id.map(|id| id.to_string()).unwrap_or_default(),
            cpus: cpus.unwrap_or_default(),
            memory_mb: value::size(memory_mb.unwrap_or_default()),
            min_ready,
            max: max.unwrap_or_default(),
            ready,
            starting,
            claimed,
            hits,
            misses,
            reason: reason.unwrap_or_default(),
            created_at: value::time(created_at_ms),
        }
    }
}

#[uniffi::export]
impl Client {
    /// CreatePool has machines of one kind kept ready: Create hands one out where it asks for such a machine.
    pub async fn create_pool(&self, options: PoolOptions) -> Answer<PoolInfo> {
        let (client, spec) = (self.client.clone(), options.try_into()?);
        Ok(run(async move { client.create_pool(spec).await }).await?.into())
    }

    /// Pool answers a pool, with its machines counted.
    pub async fn pool(&self, pool_id: String) -> Answer<PoolInfo> {
        let client = self.client.clone();
        Ok(run(async move { client.pool(&pool_id).await }).await?.into())
    }

    /// Pools answers all pools of the project, newest first.
    pub async fn pools(&self) -> Answer<Vec<PoolInfo>> {
        let client = self.client.clone();
        Ok(run(async move { client.pools().await }).await?.into_iter().map(Into::into).collect())
    }

    /// ChangePool has a pool keep something else; machines of another kind that wait in it are ended.
    pub async fn change_pool(&self, pool_id: String, options: PoolOptions) -> Answer<PoolInfo> {
        let (client, spec) = (self.client.clone(), options.try_into()?);
        Ok(run(async move { client.change_pool(&pool_id, spec).await }).await?.into())
    }

    /// DeletePool deletes a pool and ends the machines that wait in it; those that were claimed go on.
    pub async fn delete_pool(&self, pool_id: String) -> Answer<()> {
        let client = self.client.clone();
        run(async move { client.delete_pool(&pool_id).await }).await.map_err(Error::from)
    }
}
