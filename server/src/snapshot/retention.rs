//! Which snapshots a project's policy deletes: decided without I/O.

use forkyard_protocol::{
    ErrorBody, ErrorCode, Resource, RetentionPolicy, Snapshot, SnapshotId, SnapshotStatus, WhenFull,
};

/// What is to go for a new snapshot of so many bytes to fit the budget; `no_space` where that is not allowed or not enough.
pub fn make_room(
    policy: &RetentionPolicy,
    snapshots: &[Snapshot],
    size_bytes: u64,
) -> Result<Vec<SnapshotId>, ErrorBody> {
    let Some(budget_mb) = policy.budget_mb else { return Ok(Vec::new()) };
    let budget = budget_mb.saturating_mul(1 << 20);
    let mut used: u64 = snapshots.iter().map(|snapshot| snapshot.size_bytes).sum();
    let mut to_go = Vec::new();
    if policy.when_full == WhenFull::DeleteOldest {
        for oldest in oldest_first(snapshots) {
            if used.saturating_add(size_bytes) <= budget {
                break;
            }
            used -= oldest.size_bytes;
            to_go.push(oldest.snapshot_id.clone());
        }
    }
    if used.saturating_add(size_bytes) <= budget {
        return Ok(to_go);
    }
    let message = format!(
        "the snapshot takes {} MiB; {} of the {budget_mb} MiB that this project's retention policy allows are in use: \
         delete snapshots that are no longer needed, or raise budget_mb",
        size_bytes.div_ceil(1 << 20),
        used.div_ceil(1 << 20),
    );
    Err(ErrorBody::new(ErrorCode::NoSpace, message).about(Resource::Snapshot))
}

/// What is to go now because it is too old, or because newer ones took its place.
pub fn surplus(policy: &RetentionPolicy, snapshots: &[Snapshot], now_ms: u64) -> Vec<SnapshotId> {
    let kept = snapshots.iter().filter(|snapshot| snapshot.status == SnapshotStatus::Completed).count();
    let keep_last = policy.keep_last.map_or(usize::MAX, |count| count as usize);
    let too_many = kept.saturating_sub(keep_last);
    let is_to_go = |(place, snapshot): &(usize, &Snapshot)| {
        *place < too_many || ends_at_ms(policy, snapshot).is_some_and(|end| end <= now_ms)
    };
    let to_go = oldest_first(snapshots).into_iter().enumerate().filter(is_to_go);
    to_go.map(|(_, snapshot)| snapshot.snapshot_id.clone()).collect()
}

/// When the next one is too old, in milliseconds since 1970.
pub fn next_end_ms(policy: &RetentionPolicy, snapshots: &[Snapshot]) -> Option<u64> {
    oldest_first(snapshots).first().and_then(|oldest| ends_at_ms(policy, oldest))
}

fn ends_at_ms(policy: &RetentionPolicy, snapshot: &Snapshot) -> Option<u64> {
    policy.max_age_secs.map(|age| snapshot.created_at_ms.saturating_add(age.saturating_mul(1000)))
}

/// Those that a policy may delete.
fn oldest_first(snapshots: &[Snapshot]) -> Vec<&Snapshot> {
    let is_deletable =
        |snapshot: &&Snapshot| snapshot.status == SnapshotStatus::Completed && !snapshot.retain;
    let mut deletable: Vec<_> = snapshots.iter().filter(is_deletable).collect();
    deletable.sort_by_key(|snapshot| (snapshot.created_at_ms, &snapshot.snapshot_id));
    deletable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::view;

    fn snapshots() -> Vec<Snapshot> {
        let make = |id: &str, created_at_ms, retain| Snapshot {
            created_at_ms,
            retain,
            size_bytes: 100 << 20,
            status: SnapshotStatus::Completed,
            ..view(id)
        };
        // Not in order, as a map gives them.
        vec![
            make("snap_b", 2000, false),
            make("snap_kept", 500, true),
            make("snap_c", 3000, false),
            make("snap_a", 1000, false),
        ]
    }

    fn ids(result: &[SnapshotId]) -> Vec<&str> {
        result.iter().map(SnapshotId::as_str).collect()
    }

    #[test]
    fn without_a_policy_all_are_kept() {
        let policy = RetentionPolicy::default();
        assert_eq!(make_room(&policy, &snapshots(), u64::MAX).unwrap(), []);
        assert_eq!(surplus(&policy, &snapshots(), u64::MAX), []);
        assert_eq!(next_end_ms(&policy, &snapshots()), None);
    }

    #[test]
    fn a_budget_refuses_or_deletes_the_oldest() {
        let refuse = RetentionPolicy { budget_mb: Some(500), ..RetentionPolicy::default() };
        assert_eq!(make_room(&refuse, &snapshots(), 100 << 20).unwrap(), []);
        let error = make_room(&refuse, &snapshots(), 101 << 20).unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace);
        assert!(error.message.contains("takes 101 MiB; 400 of the 500 MiB"), "{}", error.message);
        let delete = RetentionPolicy { when_full: WhenFull::DeleteOldest, ..refuse };
        assert_eq!(ids(&make_room(&delete, &snapshots(), 101 << 20).unwrap()), ["snap_a"]);
        assert_eq!(ids(&make_room(&delete, &snapshots(), 250 << 20).unwrap()), ["snap_a", "snap_b"]);
        let error = make_room(&delete, &snapshots(), 401 << 20).unwrap_err();
        assert!(error.message.contains("100 of the 500 MiB"), "what is retained stays: {}", error.message);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let policy = |count| RetentionPolicy { keep_last: Some(count), ..RetentionPolicy::default() };
        assert_eq!(ids(&surplus(&policy(3), &snapshots(), 0)), ["snap_a"]);
        assert_eq!(ids(&surplus(&policy(1), &snapshots(), 0)), ["snap_a", "snap_b", "snap_c"]);
        let mut unfinished = snapshots();
        unfinished[3].status = SnapshotStatus::InProgress;
        assert_eq!(ids(&surplus(&policy(3), &unfinished, 0)), [] as [&str; 0]);
    }

    #[test]
    fn old_ones_end_in_their_time() {
        let policy = RetentionPolicy { max_age_secs: Some(10), ..RetentionPolicy::default() };
        assert_eq!(next_end_ms(&policy, &snapshots()), Some(11_000));
        assert_eq!(ids(&surplus(&policy, &snapshots(), 10_999)), [] as [&str; 0]);
        assert_eq!(ids(&surplus(&policy, &snapshots(), 12_000)), ["snap_a", "snap_b"]);
    }
}
