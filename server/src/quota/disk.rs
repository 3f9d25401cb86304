use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use forkyard_protocol::{ErrorBody, ErrorCode};

use super::admit_to_disk;

/// Space on the host's disk that is promised to what is being written, in MiB: two who look at the same time do not both get the
/// last of it.
#[derive(Debug, Clone, Default)]
pub struct DiskSpace(Arc<Mutex<u64>>);

/// Space that is promised until this is dropped.
#[derive(Debug)]
pub struct Promised {
    space: DiskSpace,
    mb: u64,
}

impl DiskSpace {
    /// Promises space out of what `free_mb` finds. What was promised to others counts in full, however much of it they have
    /// written already. Blocks as long as `free_mb` does.
    pub fn promise(
        &self,
        free_mb: impl FnOnce() -> io::Result<u64>,
        needed_mb: u64,
    ) -> Result<Promised, ErrorBody> {
        let mut promised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free_mb = free_mb().map_err(|error| {
            ErrorBody::new(ErrorCode::Internal, format!("the host's disk cannot be looked at: {error}"))
        })?;
        admit_to_disk(free_mb.saturating_sub(*promised), needed_mb)?;
        *promised += needed_mb;
        Ok(Promised { space: self.clone(), mb: needed_mb })
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        *self.space.0.lock().unwrap_or_else(PoisonError::into_inner) -= self.mb;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_space_is_promised_once() {
        let space = DiskSpace::default();
        let take = || space.promise(|| Ok(1000), 300);
        let first = take().unwrap();
        assert_eq!(take().unwrap_err().code, ErrorCode::NoSpace);
        drop(first);
        drop(take().unwrap());
        assert_eq!(
            space.promise(|| Err(io::ErrorKind::NotFound.into()), 1).unwrap_err().code,
            ErrorCode::Internal
        );
        assert!(take().is_ok());
    }
}
