//! Admission: who may have another machine, decided without I/O.

mod disk;
mod rate;

use forkyard_protocol::{ErrorBody, ErrorCode};

pub use self::disk::{DiskSpace, Promised};
pub use self::rate::TokenBucket;

/// Milliseconds after which a refused create is worth another try: about what a machine takes to end and free its memory.
const RETRY_AFTER_MS: u64 = 1000;

/// What the host gives to machines in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostBudget {
    /// Memory in MiB, overheads included.
    pub memory_mb: u64,
    /// Machines alive at once.
    pub sandboxes: u64,
}

impl HostBudget {
    /// A budget out of what the host has free now: all of it but a reserve of a tenth, at least 512 MiB, for everything else.
    pub fn from_available(available_mb: u64) -> Self {
        let reserve = (available_mb / 10).max(512);
        Self { memory_mb: available_mb.saturating_sub(reserve), sandboxes: 4096 }
    }
}

/// What living machines hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in MiB, overheads included, of all projects.
    pub memory_mb: u64,
    /// Machines of all projects.
    pub sandboxes: u64,
    /// Machines of the key that asks.
    pub of_key: u64,
}

/// Decides about one more machine for a key that has `of_key` machines alive.
pub fn admit_key(of_key: u64, limit: u64) -> Result<(), ErrorBody> {
    if of_key < limit {
        return Ok(());
    }
    let message = format!("this key has {of_key} machines alive and may have {limit}; terminate one first");
    Err(ErrorBody::new(ErrorCode::QuotaExceeded, message))
}

/// Decides about one more machine of `memory_mb` MiB, overhead included.
pub fn admit(budget: HostBudget, usage: Usage, memory_mb: u64) -> Result<(), ErrorBody> {
    if memory_mb > budget.memory_mb {
        return Err(ErrorBody::new(
            ErrorCode::InvalidArgument,
            format!(
                "the machine would take {memory_mb} MiB with its overhead, but this host gives machines {} MiB in all",
                budget.memory_mb
            ),
        ));
    }
    if usage.memory_mb + memory_mb > budget.memory_mb || usage.sandboxes >= budget.sandboxes {
        return Err(ErrorBody::new(
            ErrorCode::NoCapacity,
            format!(
                "the machine would take {memory_mb} MiB with its overhead; {} of this host's {} MiB are in use by {} machines",
                usage.memory_mb, budget.memory_mb, usage.sandboxes
            ),
        )
        .retry_after_ms(RETRY_AFTER_MS));
    }
    Ok(())
}

/// What is left free on the host's disk whatever is frozen, in MiB: records, logs and running machines need some.
const KEEP_FREE_MB: u64 = 512;

/// Decides whether so many MiB may be written to a disk of which so many are free.
pub fn admit_to_disk(free_mb: u64, needed_mb: u64) -> Result<(), ErrorBody> {
    if free_mb >= needed_mb + KEEP_FREE_MB {
        return Ok(());
    }
    let message = format!(
        "the host's disk has {free_mb} MiB free; this takes up to {needed_mb} MiB, and {KEEP_FREE_MB} MiB are left free: \
         delete snapshots, or suspended machines, that are no longer needed"
    );
    Err(ErrorBody::new(ErrorCode::NoSpace, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: HostBudget = HostBudget { memory_mb: 1000, sandboxes: 3 };

    fn code(usage: Usage, memory_mb: u64) -> Option<ErrorCode> {
        admit(BUDGET, usage, memory_mb).err().map(|error| error.code)
    }

    #[test]
    fn the_host_is_never_overcommitted() {
        let usage = Usage { memory_mb: 500, sandboxes: 1, of_key: 1 };
        assert_eq!(code(usage, 500), None);
        assert_eq!(code(usage, 501), Some(ErrorCode::NoCapacity));
        assert_eq!(code(Usage { sandboxes: 3, ..Usage::default() }, 1), Some(ErrorCode::NoCapacity));
    }

    #[test]
    fn what_can_never_fit_is_not_worth_a_retry() {
        assert_eq!(code(Usage::default(), 1001), Some(ErrorCode::InvalidArgument));
    }

    #[test]
    fn a_key_has_its_own_limit() {
        assert_eq!(admit_key(1, 2), Ok(()));
        assert_eq!(admit_key(2, 2).unwrap_err().code, ErrorCode::QuotaExceeded);
    }

    #[test]
    fn a_refusal_for_want_of_room_says_when_to_come_back() {
        let error = admit(BUDGET, Usage { memory_mb: 900, sandboxes: 1, of_key: 0 }, 200).unwrap_err();
        assert_eq!(error.retry_after_ms, Some(RETRY_AFTER_MS));
    }

    #[test]
    fn the_host_keeps_a_reserve() {
        assert_eq!(HostBudget::from_available(10_000).memory_mb, 9000);
        assert_eq!(HostBudget::from_available(1000).memory_mb, 488);
        assert_eq!(HostBudget::from_available(100).memory_mb, 0);
    }

    #[test]
    fn a_disk_is_never_filled() {
        assert!(admit_to_disk(2000, 1000).is_ok());
        let error = admit_to_disk(1400, 1000).unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace);
        assert!(error.message.contains("1400 MiB free"), "{error}");
    }
}
