use serde::{Deserialize, Serialize};

/// An identifier or a name that breaks the rules; the message says which rule and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub String);

fn check(text: &str, prefix: &str, noun: &str) -> Result<(), InvalidId> {
    let body = text.strip_prefix(prefix).unwrap_or("");
    let fits = (1..=64).contains(&body.len())
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if fits {
        return Ok(());
    }
    Err(InvalidId(format!("{noun} must be '{prefix}' followed by 1 to 64 of A-Z a-z 0-9 _ -")))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $noun:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub struct $name(String);

        impl $name {
            /// What every such identifier starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Takes the text as it is, once it fits the pattern.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text, $prefix, $noun).map(|()| Self(text.to_owned()))
            }

            /// The whole identifier, prefix included.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                check(&text, $prefix, $noun).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(
    /// A machine: `sbx_` and a ULID, made by the server.
    SandboxId,
    "sbx_",
    "a sandbox id"
);
id!(
    /// A process in a machine: `prc_` and a ULID, made by the client, so that a repeated start is the same process.
    ProcessId,
    "prc_",
    "a process id"
);
id!(
    /// A tenant: `prj_` and a ULID, or `prj_default`.
    ProjectId,
    "prj_",
    "a project id"
);
id!(
    /// A snapshot: `snap_` and a ULID, made by the server.
    SnapshotId,
    "snap_",
    "a snapshot id"
);
id!(
    /// Machines kept ready: `pool_` and a ULID, made by the server.
    PoolId,
    "pool_",
    "a pool id"
);
id!(
    /// An API key's public half: `key_` and a ULID.
    KeyId,
    "key_",
    "a key id"
);

/// Checks the name of a sandbox: 1 to 63 of `a-z 0-9 -`, not starting or ending with `-` (a DNS label).
pub fn validate_name(name: &str) -> Result<(), InvalidId> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(InvalidId("a name must be 1 to 63 of a-z 0-9 -, and must not start or end with '-'".to_owned()))
}

/// Checks one label: a key of 1 to 63 of `A-Z a-z 0-9 . _ - /`, a value of at most 255 bytes without control characters.
pub fn validate_label(key: &str, value: &str) -> Result<(), InvalidId> {
    let key_fits = (1..=63).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'));
    if !key_fits {
        return Err(InvalidId("a label's key must be 1 to 63 of A-Z a-z 0-9 . _ - /".to_owned()));
    }
    if value.len() > 255 || value.chars().any(char::is_control) {
        return Err(InvalidId(format!(
            "the value of label '{key}' must be at most 255 bytes without control characters"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_when_they_come_in() {
        assert!(SandboxId::parse("sbx_01ARZ3NDEKTSV4RRFFQ69G5FAV").is_ok());
        for bad in ["", "sbx_", "prc_1", "sbx_../etc", "sbx_a b", &format!("sbx_{}", "a".repeat(65))] {
            assert!(SandboxId::parse(bad).is_err(), "{bad}");
            assert!(serde_json::from_value::<SandboxId>(serde_json::json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "my-agent-7", &"x".repeat(63)] {
            assert!(validate_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "-a", "a-", "A", "a.b", "ä", &"x".repeat(64)] {
            assert!(validate_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        assert!(validate_label("team/agent", "blue").is_ok());
        assert!(validate_label("", "x").is_err());
        assert!(validate_label("k", &"v".repeat(256)).is_err());
        assert!(validate_label("k", "a\nb").is_err());
    }
}
