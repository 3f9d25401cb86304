use serde::{Deserialize, Serialize};

use crate::{ErrorBody, ErrorCode};

/// Longest time that one call waits for somebody to listen on a port, in milliseconds.
pub const MAX_PORT_WAIT_MS: u64 = 60_000;

/// Longest life of a preview, in seconds (7 days).
pub const MAX_PREVIEW_SECS: u64 = 7 * 24 * 3600;

const DEFAULT_PREVIEW_SECS: u64 = 3600;

/// A TCP port that something in a machine listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListeningPort {
    /// The port.
    pub port: u16,
    /// Whether only the machine itself could reach it over its network; tunnels reach it either way.
    pub loopback_only: bool,
}

/// The ports that something in a machine listens on, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PortList {
    /// The ports.
    pub ports: Vec<ListeningPort>,
}

/// Asks for an address at which whoever has it reaches an HTTP server in a machine: `POST /v1/sandboxes/{id}/previews`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreatePreview {
    /// The port, 1 to 65,535.
    pub port: u16,
    /// Seconds until it ends, 1 to 604,800. Default: 3,600.
    #[serde(default = "default_expires_secs")]
    pub expires_secs: u64,
}

fn default_expires_secs() -> u64 {
    DEFAULT_PREVIEW_SECS
}

impl CreatePreview {
    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        validate_port(self.port)?;
        if (1..=MAX_PREVIEW_SECS).contains(&self.expires_secs) {
            return Ok(());
        }
        let message =
            format!("expires_secs must be between 1 and {MAX_PREVIEW_SECS}, not {}", self.expires_secs);
        Err(ErrorBody::new(ErrorCode::InvalidArgument, message))
    }
}

/// Checks a port.
pub fn validate_port(port: u16) -> Result<(), ErrorBody> {
    if port > 0 {
        return Ok(());
    }
    Err(ErrorBody::new(ErrorCode::InvalidArgument, "a port must be between 1 and 65535, not 0"))
}

/// A preview. Its path is a secret: it needs no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Preview {
    /// Where it is on the server, such as `/preview/…/`; what comes after that is the path in the machine.
    pub path: String,
    /// When it ends: milliseconds since 1970.
    pub expires_at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let preview: CreatePreview = serde_json::from_str(r#"{"port": 80}"#).unwrap();
        assert_eq!(preview.expires_secs, 3600);
        preview.validate().unwrap();
        let message = |preview: CreatePreview| preview.validate().unwrap_err().message;
        assert!(message(CreatePreview { port: 0, ..preview.clone() }).contains("between 1 and 65535"));
        assert!(message(CreatePreview { expires_secs: 0, ..preview }).contains("between 1 and 604800"));
    }
}
