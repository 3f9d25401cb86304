use forkyard::{Error, PoolSpec};
use napi_derive::napi;

use super::snapshot::snapshot_id;
use crate::value::{number, whole, whole_or_none};

/// Machines that the server keeps ready for `Sandbox.create`.
#[napi(object, object_from_js = false)]
pub struct PoolInfo {
    /// Its id, `pool_…`.
    pub pool_id: String,
    /// The image that they are made of; absent for the default image, or where it is a snapshot.
    pub image: Option<String>,
    /// The snapshot that they go on from instead.
    pub snapshot_id: Option<String>,
    /// Virtual CPUs of each; absent for the default, or the snapshot's.
    pub cpu: Option<f64>,
    /// Memory of each in MiB; absent for the default, or the snapshot's.
    pub memory_mb: Option<f64>,
    /// Machines that are kept ready.
    pub min_ready: u32,
    /// Most machines of the pool at once, claimed ones included; absent for no limit but the key's.
    pub max: Option<u32>,
    /// Machines that wait to be claimed.
    pub ready: u32,
    /// Machines that are being made ready.
    pub starting: u32,
    /// Machines that were claimed and have not ended.
    pub claimed: u32,
    /// Machines that were claimed since the server started.
    pub hits: f64,
    /// Machines of its kind that were asked for since then when none was ready.
    pub misses: f64,
    /// Why it has fewer machines than it should, for people.
    pub reason: Option<String>,
    /// When it was asked for: milliseconds since 1970.
    pub created_at_ms: f64,
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
            pool_id: pool_id.into(),
            image,
            snapshot_id: snapshot_id.map(Into::into),
            cpu: cpus,
            memory_mb: memory_mb.map(number),
            min_ready,
            max,
            ready,
            starting,
            claimed,
            hits: number(hits),
            misses: number(misses),
            reason,
            created_at_ms: number(created_at_ms),
        }
    }
}

/// What a pool is to keep ready.
#[napi(object, object_to_js = false)]
pub struct PoolRequest {
    /// An image's tag or digest. Default: `python`. Not together with `snapshotId`.
    pub image: Option<String>,
    /// A snapshot to go on from instead of an image.
    pub snapshot_id: Option<String>,
    /// Virtual CPUs of each, as in `Sandbox.create`.
    pub cpu: Option<f64>,
    /// Memory of each in MiB, as in `Sandbox.create`.
    pub memory_mb: Option<f64>,
    /// Machines that are kept ready, 1 to 1,000; they count among the key's machines. Default: 1.
    pub min_ready: Option<f64>,
    /// Most machines of the pool at once, claimed ones included. Beyond it none is made ready, and machines are made as
    /// without a pool. Default: no limit but the key's.
    pub max: Option<f64>,
}

impl TryFrom<PoolRequest> for PoolSpec {
    type Error = Error;

    fn try_from(request: PoolRequest) -> Result<Self, Error> {
        let PoolRequest { image, snapshot_id: snapshot, cpu, memory_mb, min_ready, max } = request;
        let default = Self::default();
        Ok(Self {
            image,
            snapshot_id: snapshot.map(snapshot_id).transpose()?,
            cpus: cpu,
            memory_mb: whole_or_none("memoryMb", memory_mb)?,
            min_ready: min_ready.map_or(Ok(default.min_ready), |value| whole("minReady", value))?,
            max: whole_or_none("max", max)?,
        })
    }
}
