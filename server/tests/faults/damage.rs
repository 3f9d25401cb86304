//! A full disk, damaged files, memory that another accelerator made.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use forkyard::{
    CreateSnapshot, ErrorCode, ForkSandbox, PoolSpec, SandboxStatus, SnapshotInfo, SnapshotStatus,
};
use rustix::process::{Resource, Rlimit, prlimit};

use crate::common::server::names;
use crate::world::{World, memory, of, sh};

/// Bytes that the server may write to a file: fewer than a machine's memory, more than everything else that it writes.
const TOO_FEW: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_or_read_is_refused_and_harms_nobody() {
    let mut world = World::new().await;
    full(&world).await;
    let snapshot = world.snapshot().await;
    damaged(&mut world, &snapshot).await;
    foreign(&mut world, &snapshot).await;
    world.source.terminate().await.unwrap();
    world.assert_accounted(0).await;
}

/// Writes fail in the middle as on a full disk: a limit on the size of files says so with another number, at the same place.
async fn full(world: &World) {
    let other = world.source.fork(ForkSandbox::default()).await.unwrap().remove(0);
    let dirs = || [world.source.id(), other.id()].map(|id| names(&world.dir().join("machines").join(id)));
    let before = dirs();
    let server = Some(world.server().pid());
    let limit = Rlimit { current: Some(TOO_FEW), maximum: None };
    let unlimited = prlimit(server, Resource::Fsize, limit).unwrap();
    let refused = [
        world.source.checkpoint(memory()).await.map(drop),
        world.source.suspend().await.map(drop),
        world.source.fork(ForkSandbox { count: 2, ..ForkSandbox::default() }).await.map(drop),
    ];
    for outcome in refused {
        let error = outcome.unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace, "{error}");
        assert!(error.message.contains("the host's disk"), "{error}");
    }
    world.assert_source_runs_on().await;
    assert_eq!(world.client.get(world.source.id()).await.unwrap().status, SandboxStatus::Running);
    assert_eq!(sh(&other, "cat mark").await, "here\n");
    world.assert_accounted(0).await;
    assert_eq!(dirs(), before, "nothing is left of the attempts");
    let snapshots = world.client.snapshots().await.unwrap();
    assert_eq!(
        snapshots.iter().map(|snapshot| snapshot.status).collect::<Vec<_>>(),
        [SnapshotStatus::Failed]
    );
    prlimit(server, Resource::Fsize, unlimited).unwrap();
    other.suspend().await.unwrap();
    assert_eq!(sh(&other, "cat mark").await, "here\n");
    other.terminate().await.unwrap();
}

/// Turns one bit of a file over, or back, in the first page that holds something.
fn flip(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap() + 77;
    let mut byte = [0];
    // Of a file of which nothing was written, in the middle.
    at = at.min(file.metadata().unwrap().len() / 2);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

async fn damaged(world: &mut World, snapshot: &SnapshotInfo) {
    let files = ["ram", "state", "layer-0.qcow2"].map(|name| world.path_of(snapshot, name));
    // By a server that has not read them yet.
    world.restart(|_| {}).await;
    for path in &files {
        flip(path);
        for error in [
            world.client.create(of(snapshot)).await.err().expect("refused"),
            world.source.restore(snapshot.snapshot_id.as_str()).await.unwrap_err(),
        ] {
            assert_eq!(error.code, ErrorCode::SnapshotCorrupt, "{error}");
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(error.message.contains(&format!("the contents of {name} have changed")), "{error}");
        }
        flip(path);
    }
    assert_eq!(names(&world.dir().join("machines")), [world.source.id()], "no machine is half restored");
    world.assert_source_runs_on().await;
    // Whole, they make a machine. One that is cut short is found by a server that has read them too.
    world.fork_of(snapshot).await.terminate().await.unwrap();
    for path in &files {
        let length = std::fs::metadata(path).unwrap().len();
        let file = File::options().write(true).open(path).unwrap();
        let mut last = [0];
        File::open(path).unwrap().read_exact_at(&mut last, length - 1).unwrap();
        file.set_len(length - 1).unwrap();
        let error = world.client.create(of(snapshot)).await.err().expect("refused");
        assert_eq!(error.code, ErrorCode::SnapshotCorrupt, "{error}");
        assert!(error.message.contains("bytes long instead of"), "{error}");
        file.write_all_at(&last, length - 1).unwrap();
    }
    world.fork_of(snapshot).await.terminate().await.unwrap();
    world.assert_accounted(0).await;
}

/// Rewrites a record of the store, while no server has it.
fn rewrite(dir: &Path, bucket: &str, key: &str, from: &str, to: &str) {
    let store = rusqlite::Connection::open(dir.join("store.sqlite")).unwrap();
    let of = (bucket, key);
    let select = "select value from documents where bucket = ?1 and key = ?2";
    let value: Vec<u8> = store.query_row(select, of, |row| row.get(0)).unwrap();
    let text = String::from_utf8(value).unwrap();
    let changed = text.replace(&format!(r#""accelerator":"{from}""#), &format!(r#""accelerator":"{to}""#));
    assert_ne!(changed, text);
    let update = "update documents set value = ?3 where bucket = ?1 and key = ?2";
    assert_eq!(store.execute(update, (bucket, key, changed.into_bytes())).unwrap(), 1);
}

/// Memory goes on only with what ran it; a disk boots with anything.
async fn foreign(world: &mut World, snapshot: &SnapshotInfo) {
    let disk = world.source.checkpoint(CreateSnapshot::default()).await.unwrap();
    let asleep = world.fork_of(snapshot).await;
    sh(&asleep, "echo asleep >/dev/shm/mark").await;
    asleep.suspend().await.unwrap();
    let all = [
        ("snapshots", snapshot.snapshot_id.to_string()),
        ("snapshots", disk.snapshot_id.to_string()),
        ("sandboxes", asleep.id().to_owned()),
    ];
    world.restart(|dir| all.iter().for_each(|(bucket, key)| rewrite(dir, bucket, key, "tcg", "kvm"))).await;
    let pool = PoolSpec { snapshot_id: Some(snapshot.snapshot_id.clone()), ..PoolSpec::default() };
    for error in [
        world.client.create(of(snapshot)).await.err().expect("refused"),
        world.source.restore(snapshot.snapshot_id.as_str()).await.unwrap_err(),
        world.client.create_pool(pool).await.unwrap_err(),
        asleep.resume().await.unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::FailedPrecondition, "{error}");
        let says = "a machine that ran with 'kvm'; this host runs machines with 'tcg'";
        assert!(error.message.contains(says), "{error}");
    }
    let machine = world.client.create(of(&disk)).await.unwrap();
    assert_eq!(sh(&machine, "cat mark").await, "here\n");
    machine.terminate().await.unwrap();
    world.assert_source_runs_on().await;
    world.assert_accounted(0).await;
    // On the host that it came from it goes on.
    world.restart(|dir| all.iter().for_each(|(bucket, key)| rewrite(dir, bucket, key, "kvm", "tcg"))).await;
    assert_eq!(sh(&asleep, "cat /dev/shm/mark").await, "asleep\n");
    asleep.terminate().await.unwrap();
    for id in [&snapshot.snapshot_id, &disk.snapshot_id] {
        world.client.delete_snapshot(id.as_str()).await.unwrap();
    }
}
