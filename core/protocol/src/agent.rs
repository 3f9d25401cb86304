//! What only server and agent say to each other.
//!
//! The channel is one byte stream (a virtio-serial port). A session starts with a preamble: the host writes
//! [`PREAMBLE_MAGIC`] and 16 random bytes; the agent, once it has read them, writes the same 32 bytes back and how long its
//! system has been up, in nanoseconds, as eight bytes, the highest first; both then speak HTTP/2 (prior knowledge), the host as
//! its client. That clock is read as the last thing before it is written, so the host knows within the channel's latency what
//! the guest's clock showed when: what comes next may take an emulated guest long. Until the echo comes, the host throws away what it reads and sends a new
//! preamble from time to time: bytes of an earlier session may still be under way. The agent, while it waits for a session,
//! throws away what is not a preamble; a preamble in the middle of a session is no valid HTTP/2 frame and ends it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a preamble starts with. Read as an HTTP/2 frame header its first three bytes announce 4.6 MB, over any limit.
pub const PREAMBLE_MAGIC: [u8; 16] = *b"FORKYARD-AGENT/2";

/// Bytes of a preamble: the magic and 16 random bytes.
pub const PREAMBLE_LEN: usize = 32;

/// Bytes of what answers a preamble: the preamble and the guest's uptime.
pub const ECHO_LEN: usize = PREAMBLE_LEN + 8;

/// What answers a preamble.
pub fn echo(preamble: [u8; PREAMBLE_LEN], uptime_ns: u64) -> [u8; ECHO_LEN] {
    let mut echo = [0; ECHO_LEN];
    echo[..PREAMBLE_LEN].copy_from_slice(&preamble);
    echo[PREAMBLE_LEN..].copy_from_slice(&uptime_ns.to_be_bytes());
    echo
}

/// Finds a preamble in a stream of bytes, whatever comes before it.
#[derive(Debug, Default)]
pub struct Preamble {
    window: Vec<u8>,
}

impl Preamble {
    /// A search that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the next byte; `Some` once the last 32 bytes are a preamble.
    pub fn push(&mut self, byte: u8) -> Option<[u8; PREAMBLE_LEN]> {
        self.window.push(byte);
        let matched = self.window.len().min(PREAMBLE_MAGIC.len());
        if self.window[..matched] != PREAMBLE_MAGIC[..matched] {
            // The longest suffix that may still become a preamble. The magic's first byte stands in it nowhere else
            // but at 0 and, as part of "FORK", not again, so restarting at that byte is enough.
            let restart = self.window[1..].iter().position(|b| *b == PREAMBLE_MAGIC[0]).map(|at| at + 1);
            let rest = restart.map_or_else(Vec::new, |at| self.window.split_off(at));
            self.window.clear();
            for byte in rest {
                let found = self.push(byte);
                debug_assert!(found.is_none());
            }
            return None;
        }
        let found = <[u8; PREAMBLE_LEN]>::try_from(self.window.as_slice()).ok()?;
        self.window.clear();
        Some(found)
    }
}

/// What the host tells the agent before anything else runs: `POST /configure`, at boot, after a fork and after a resume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GuestConfig {
    /// The guest's host name.
    pub hostname: String,
    /// The content of `/etc/machine-id`: 32 hexadecimal digits.
    pub machine_id: String,
    /// Fresh randomness in base64, at least 32 bytes, fed to the guest's kernel.
    pub seed_base64: String,
    /// The wall clock: nanoseconds since 1970.
    pub unix_time_ns: u64,
    /// The guest's uptime in nanoseconds at that time. Default: it is that time now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ns: Option<u64>,
    /// Environment of every process; a process's own variables win.
    pub env: BTreeMap<String, String>,
    /// Default account of processes and owner of written files: a name or number.
    pub user: String,
    /// Default folder of processes.
    pub cwd: String,
    /// Whether the machine's network is up; its addresses are those of [`link`](crate::link). Connections that were open are
    /// reset either way: whoever carried them is gone. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
}

/// Files that the operator gives to guests: `POST /given`. Most are in place already, since forks have what their original had,
/// so their contents are left out until the guest says that it lacks them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GuestFiles {
    /// The files.
    pub files: Vec<GuestFile>,
}

/// A small file that the operator gives to guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GuestFile {
    /// Absolute path.
    pub path: String,
    /// Permission bits, such as 0o644.
    pub mode: u32,
    /// SHA-256 of the contents in hexadecimal: what the guest remembers them by.
    pub digest: String,
    /// Contents. Default: the guest is only asked whether it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// What the agent answers to [`GuestFiles`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MissingFiles {
    /// Paths of the files that are not in place as they should be, and that came without their contents.
    pub missing: Vec<String>,
}

/// What the agent answers to `GET /health` and `POST /configure`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GuestHealth {
    /// The agent's version.
    pub version: String,
    /// Processes that run.
    pub processes: u32,
    /// Seconds since the guest's kernel started.
    pub uptime_secs: u64,
    /// The guest's uptime in nanoseconds, as the last thing before the answer. Agents of earlier versions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(bytes: &[u8]) -> Vec<[u8; PREAMBLE_LEN]> {
        let mut preamble = Preamble::new();
        bytes.iter().filter_map(|byte| preamble.push(*byte)).collect()
    }

    #[test]
    fn a_preamble_is_found_after_anything() {
        let mut wanted = [7; PREAMBLE_LEN];
        wanted[..16].copy_from_slice(&PREAMBLE_MAGIC);
        for noise in [&b""[..], b"F", b"FORK", b"FORKYARD-AGENT/", b"FFFF", b"FORKYARD-AGFORKYARD", &[0; 100]]
        {
            let bytes = [noise, &wanted].concat();
            assert_eq!(search(&bytes), [wanted], "after {noise:?}");
        }
    }

    #[test]
    fn noise_is_bounded_and_yields_nothing() {
        let mut preamble = Preamble::new();
        for byte in (0..=255).cycle().take(100_000) {
            assert!(preamble.push(byte).is_none());
            assert!(preamble.window.len() < PREAMBLE_LEN);
        }
    }

    #[test]
    fn the_magic_has_one_first_byte() {
        assert!(!PREAMBLE_MAGIC[1..].contains(&PREAMBLE_MAGIC[0]));
    }
}
