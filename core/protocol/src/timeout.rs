use serde::{Deserialize, Serialize};

use crate::ErrorBody;
use crate::sandbox::validate_timeout;

/// Changes a machine's idle time-out: `PUT /v1/sandboxes/{id}/timeout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExtendTimeout {
    /// Seconds without any call, counted from this one on, after which an unnamed machine is terminated and a named one
    /// suspended: 1 to 2,592,000.
    pub timeout_secs: u64,
}

impl ExtendTimeout {
    /// Checks the value; the error says what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        validate_timeout(self.timeout_secs)
    }
}
