//! Folders as tar streams: what SDK and guest agent send each other. Plain threads and plain reads; callers bring the channel.
//!
//! Neither end trusts the other. What is unpacked lands inside its folder, whatever names and links the stream has and
//! whoever changes the folder meanwhile, and nothing of the stream is held that has no bound.
//!
//! The last entry is a header that other programs pass over: a summary, or the error that ended the stream early. A stream
//! that is cut has neither.

mod entry;
mod folder;
mod pack;
mod path;
mod trailer;
mod unpack;

use std::io;
use std::path::PathBuf;

use forkyard_protocol::ErrorBody;

pub use self::pack::pack;
pub use self::unpack::{Unpack, unpack};

/// Most files, folders and links of one stream.
pub const MAX_ENTRIES: u64 = 1_000_000;

/// Why a folder was not packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A system call failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file it was about.
        path: PathBuf,
        /// The kernel's word.
        error: io::Error,
    },
    /// The stream holds what is not taken.
    #[error("{0}")]
    Refused(String),
    /// The other end could not go on.
    #[error("{0}")]
    Told(ErrorBody),
    /// The stream broke off, or could not be written.
    #[error("the stream broke off: {0}")]
    Broken(io::Error),
}

fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> TreeError {
    move |error| TreeError::Io { path: path.into(), error }
}

#[cfg(test)]
mod tests;
