use serde::{Deserialize, Serialize};

use crate::{CreateSandbox, ErrorBody, ErrorCode, PoolId, SnapshotId};

/// Most machines that one pool keeps ready.
pub const MAX_READY: u32 = 1000;

/// Asks for a pool, or for another one in its place: `POST /v1/pools`, `PUT /v1/pools/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PoolSpec {
    /// An image's tag or digest. Default: `python`. Not together with `snapshot_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A snapshot that its machines go on from instead. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// Virtual CPUs of each machine, as in `POST /v1/sandboxes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory of each machine in MiB, as in `POST /v1/sandboxes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Machines that are kept ready, 1 to 1,000. Default: 1.
    #[serde(default = "default_min_ready")]
    pub min_ready: u32,
    /// Most machines of the pool at once, those that wait and those that were claimed and have not ended; beyond it none is
    /// made ready, and `POST /v1/sandboxes` makes machines as without a pool. At least `min_ready`. Default: no limit but the key's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

fn default_min_ready() -> u32 {
    1
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            image: None,
            snapshot_id: None,
            cpus: None,
            memory_mb: None,
            min_ready: default_min_ready(),
            max: None,
        }
    }
}

impl PoolSpec {
    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        let fail = |message: String| Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
        self.machine().validate()?;
        if !(1..=MAX_READY).contains(&self.min_ready) {
            return fail(format!("min_ready must be between 1 and {MAX_READY}, not {}", self.min_ready));
        }
        match self.max {
            Some(max) if max < self.min_ready => {
                fail(format!("max must be at least min_ready, which is {}, not {max}", self.min_ready))
            }
            _ => Ok(()),
        }
    }

    /// The request that each of its machines answers.
    pub fn machine(&self) -> CreateSandbox {
        CreateSandbox {
            image: self.image.clone(),
            snapshot_id: self.snapshot_id.clone(),
            cpus: self.cpus,
            memory_mb: self.memory_mb,
            ..CreateSandbox::default()
        }
    }
}

/// Machines kept ready for `POST /v1/sandboxes`, as the API shows them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pool {
    /// Its id.
    pub pool_id: PoolId,
    /// What it is to keep.
    #[serde(flatten)]
    pub spec: PoolSpec,
    /// Machines that wait to be claimed.
    pub ready: u32,
    /// Machines that are being made ready.
    pub starting: u32,
    /// Machines that were claimed and have not ended.
    pub claimed: u32,
    /// Machines that were claimed since the server started.
    pub hits: u64,
    /// Machines of its kind that were asked for, since the server started, when none was ready.
    pub misses: u64,
    /// Why it has fewer machines than it should, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was asked for: milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A project's pools, newest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PoolList {
    /// The pools.
    pub pools: Vec<Pool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let message = |spec: PoolSpec| spec.validate().unwrap_err().message;
        assert_eq!(PoolSpec::default().validate(), Ok(()));
        assert!(message(PoolSpec { min_ready: 0, ..PoolSpec::default() }).contains("between 1 and 1000"));
        let spec = PoolSpec { min_ready: 5, max: Some(4), ..PoolSpec::default() };
        assert!(message(spec).contains("at least min_ready, which is 5, not 4"));
        assert!(message(PoolSpec { cpus: Some(-1.0), ..PoolSpec::default() }).starts_with("cpus"));
    }
}
