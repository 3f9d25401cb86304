//! What a pool does next: decided without I/O.

use forkyard_protocol::PoolSpec;

/// A pool's machines as they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Being made ready.
    pub starting: u32,
    /// Waiting to be claimed.
    pub ready: u32,
    /// Claimed, and alive.
    pub claimed: u32,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make one more ready.
    Start,
    /// End one that waits.
    End,
    /// Nothing, until something changes.
    Rest,
}

/// One step towards what the pool is to keep. One machine at a time: what a pool makes ready takes processors from those who
/// did not find one there.
pub fn next(spec: &PoolSpec, counts: Counts) -> Step {
    let room = spec.max.map_or(u32::MAX, |max| max.saturating_sub(counts.claimed));
    let wanted = spec.min_ready.min(room);
    match (counts.starting + counts.ready).cmp(&wanted) {
        std::cmp::Ordering::Less if counts.starting == 0 => Step::Start,
        std::cmp::Ordering::Greater => Step::End,
        _ => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(min_ready: u32, max: Option<u32>, starting: u32, ready: u32, claimed: u32) -> Step {
        let spec = PoolSpec { min_ready, max, ..PoolSpec::default() };
        next(&spec, Counts { starting, ready, claimed })
    }

    #[test]
    fn machines_are_made_ready_one_after_another() {
        assert_eq!(step(3, None, 0, 0, 50), Step::Start);
        assert_eq!(step(3, None, 1, 0, 50), Step::Rest);
        assert_eq!(step(3, None, 0, 2, 50), Step::Start);
        assert_eq!(step(3, None, 0, 3, 50), Step::Rest);
    }

    #[test]
    fn a_pool_that_was_made_smaller_ends_what_is_too_much() {
        assert_eq!(step(1, None, 0, 3, 0), Step::End);
        assert_eq!(step(1, None, 1, 1, 0), Step::End);
    }

    #[test]
    fn claimed_machines_count_against_the_most() {
        assert_eq!(step(3, Some(4), 0, 1, 2), Step::Start);
        assert_eq!(step(3, Some(4), 0, 1, 3), Step::Rest);
        assert_eq!(step(3, Some(4), 0, 1, 9), Step::End);
    }
}
