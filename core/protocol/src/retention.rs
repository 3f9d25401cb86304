use serde::{Deserialize, Serialize};

use crate::{ErrorBody, ErrorCode};

/// Longest age at which snapshots are deleted, in seconds (ten years).
pub const MAX_AGE_SECS: u64 = 10 * 365 * 24 * 3600;

/// Which of its snapshots a project keeps: `GET`, `PUT /v1/retention`. Snapshots made with `retain` are never deleted by it; they
/// count in the budget.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RetentionPolicy {
    /// MiB on disk that the snapshots may take in all, each counted whole. Default: as much as the host has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_mb: Option<u64>,
    /// What becomes of a snapshot that the budget has no room for. Default: `refuse`.
    #[serde(default)]
    pub when_full: WhenFull,
    /// How many are kept, at least 1; the oldest beyond it are deleted. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// Seconds after which one is deleted, 1 to 315,360,000. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_secs: Option<u64>,
}

/// What becomes of a snapshot that the budget has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum WhenFull {
    /// It fails with `no_space`.
    #[default]
    Refuse,
    /// The oldest are deleted until it fits.
    DeleteOldest,
}

impl RetentionPolicy {
    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        let fail = |message: String| Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
        if self.keep_last == Some(0) {
            return fail("keep_last must be at least 1; leave it out to keep all".to_owned());
        }
        match self.max_age_secs {
            Some(age) if !(1..=MAX_AGE_SECS).contains(&age) => {
                fail(format!("max_age_secs must be between 1 and {MAX_AGE_SECS}, not {age}"))
            }
            _ => Ok(()),
        }
    }
}
