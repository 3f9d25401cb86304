use std::collections::BTreeMap;

use forkyard_protocol::{CheckpointType, SandboxId};

use super::*;
use crate::store::SqliteStore;
use crate::vmm::Accelerator;

fn project() -> ProjectId {
    ProjectId::parse("prj_1").unwrap()
}

pub(super) fn view(id: &str) -> Snapshot {
    Snapshot {
        snapshot_id: SnapshotId::parse(id).unwrap(),
        checkpoint_type: CheckpointType::Memory,
        status: SnapshotStatus::InProgress,
        reason: None,
        name: None,
        source: SandboxId::parse("sbx_1").unwrap(),
        image: "base".into(),
        image_digest: "sha256:0".into(),
        cpus: 1.0,
        memory_mb: 256,
        size_bytes: 0,
        logical_size_bytes: 0,
        pause_ms: 0,
        labels: BTreeMap::new(),
        retain: false,
        created_at_ms: 0,
    }
}

fn record(id: &str) -> Record {
    Record {
        view: view(id),
        project: project(),
        defaults: GuestDefaults::default(),
        accelerator: "tcg".into(),
        contents: Contents::default(),
        failure: None,
        devices: crate::vmm::Devices::NOW,
    }
}

async fn open(dir: &tempfile::TempDir) -> Snapshots {
    let store = Arc::new(SqliteStore::open(&dir.path().join("store.sqlite")).unwrap());
    Snapshots::open(dir.path().join("snapshots"), store).await.unwrap()
}

/// A snapshot of files that hold nothing that runs.
async fn completed(snapshots: &Snapshots, id: &str) -> Record {
    let new = record(id);
    let id = new.view.snapshot_id.clone();
    snapshots.begin(new).await.unwrap();
    let folder = snapshots.folder(&id).await.unwrap();
    for name in ["base.raw", "layer-0.qcow2", "ram", "state"] {
        std::fs::write(folder.path().join(name), vec![7; 10_000]).unwrap();
    }
    snapshots.complete(&id, folder, 5).await.unwrap();
    snapshots.get(&project(), &id).unwrap()
}

#[tokio::test]
async fn what_was_completed_survives_and_what_was_not_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(&dir).await;
    let kept = completed(&snapshots, "snap_1").await;
    assert_eq!((kept.contents.layers, kept.view.logical_size_bytes), (1, 20_000));
    let half = record("snap_2");
    snapshots.begin(half.clone()).await.unwrap();
    std::mem::forget(snapshots.folder(&half.view.snapshot_id).await.unwrap());
    drop(snapshots);

    let snapshots = open(&dir).await;
    let list = snapshots.list(&project()).snapshots;
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].status, list[1].status), (SnapshotStatus::Failed, SnapshotStatus::Completed));
    let folders: Vec<_> = std::fs::read_dir(dir.path().join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(folders, ["snap_1"]);
    snapshots.verify(&kept).await.unwrap();
    let other = ProjectId::parse("prj_2").unwrap();
    assert_eq!(snapshots.get(&other, &kept.view.snapshot_id).unwrap_err().code, ErrorCode::NotFound);
    snapshots.delete(&project(), &kept.view.snapshot_id).await.unwrap();
    assert!(!snapshots.path(&kept.view.snapshot_id).exists());
}

#[tokio::test]
async fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kept = completed(&open(&dir).await, "snap_1").await;
    let damage: [fn(&mut Vec<u8>); 2] = [|bytes| bytes[77] ^= 1, |bytes| bytes.truncate(9_000)];
    for name in ["ram", "state", "layer-0.qcow2"] {
        for damage in damage {
            let path = dir.path().join("snapshots/snap_1").join(name);
            let whole = std::fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let error = open(&dir).await.verify(&kept).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::SnapshotCorrupt);
            assert!(error.message.contains(name), "{error}");
            std::fs::write(&path, whole).unwrap();
        }
    }
    open(&dir).await.verify(&kept).await.unwrap();
}

#[tokio::test]
async fn what_is_baked_into_memory_cannot_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let kept = completed(&open(&dir).await, "snap_1").await;
    kept.admits(Accelerator::Tcg, None, None).unwrap();
    kept.admits(Accelerator::Tcg, Some(1.0), Some(256)).unwrap();
    let message = |result: Result<(), ErrorBody>| result.unwrap_err().message;
    assert!(message(kept.admits(Accelerator::Tcg, Some(2.0), None)).contains("cpus 1 is baked in"));
    assert!(message(kept.admits(Accelerator::Tcg, None, Some(512))).contains("memory_mb 256 is baked in"));
    assert!(message(kept.admits(Accelerator::Kvm, None, None)).contains("ran with 'tcg'"));
    // A disk boots with anything.
    let mut disk = kept.clone();
    disk.contents.files.remove("ram");
    disk.admits(Accelerator::Kvm, Some(2.0), Some(512)).unwrap();
    assert!(message(record("snap_2").admits(Accelerator::Tcg, None, None)).contains("still being made"));
}

#[tokio::test]
async fn a_policy_outlives_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let policy = RetentionPolicy { keep_last: Some(3), ..RetentionPolicy::default() };
    open(&dir).await.set_policy(&project(), policy.clone()).await.unwrap();
    let snapshots = open(&dir).await;
    assert_eq!(snapshots.policy(&project()), policy);
    assert_eq!(snapshots.policy(&ProjectId::parse("prj_2").unwrap()), RetentionPolicy::default());
}

#[tokio::test]
async fn the_oldest_failures_of_a_project_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(&dir).await;
    let kept = completed(&snapshots, "snap_000").await;
    let mut others = record("snap_001");
    others.project = ProjectId::parse("prj_2").unwrap();
    let ids = (2..=KEEP_FAILED + 4).map(|number| record(&format!("snap_{number:03}")));
    for record in [others.clone()].into_iter().chain(ids) {
        let id = record.view.snapshot_id.clone();
        snapshots.begin(record).await.unwrap();
        snapshots.fail(&id, &ErrorBody::new(ErrorCode::NoSpace, "full")).await.unwrap();
    }
    // By this server, and by the next.
    for snapshots in [snapshots, open(&dir).await] {
        let ids: Vec<_> = snapshots.list(&project()).snapshots.into_iter().map(|it| it.snapshot_id).collect();
        assert_eq!(ids.len(), KEEP_FAILED + 1);
        assert_eq!(ids[KEEP_FAILED - 1].as_str(), "snap_005");
        assert_eq!(ids[KEEP_FAILED], kept.view.snapshot_id);
        assert!(snapshots.get(&others.project, &others.view.snapshot_id).is_ok());
    }
}
