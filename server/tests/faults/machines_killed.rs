//! `kill -9` of QEMU: calls say at once what happened, records say why, nothing is left.

use forkyard::{
    CreateSnapshot, ErrorCode, ForkSandbox, PoolSpec, Sandbox, SandboxStatus, SnapshotInfo, SnapshotStatus,
};
use rustix::process::{Signal, kill_process};

use crate::common::server::{machine_processes, names, process_of, until};
use crate::world::{PROMPT, World, assert_counts_on, lost, memory, sh};

/// Waits for a moment in a call that has not ended yet.
async fn at<T>(call: &tokio::task::JoinHandle<T>, mut moment: impl FnMut() -> bool) {
    until("the moment comes before the call ends", async || {
        assert!(!call.is_finished(), "it ended too early");
        moment()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_killed_in_the_middle() {
    let world = World::new().await;
    let snapshot = world.snapshot().await;
    checkpoints(&world, &snapshot).await;
    forks(&world, &snapshot).await;
    suspensions(&world, &snapshot).await;
    restores(&world, &snapshot).await;
    pools(&world, &snapshot).await;
    world.assert_source_runs_on().await;
    world.source.terminate().await.unwrap();
}

/// The record of a machine that was killed says so.
async fn assert_lost(world: &World, machine: &Sandbox) {
    let failed = async || !world.client.get(machine.id()).await.unwrap().status.is_alive();
    until("the loss is noticed", failed).await;
    let record = world.client.get(machine.id()).await.unwrap();
    assert_eq!(record.status, SandboxStatus::Failed);
    assert!(record.reason.clone().unwrap().contains("signal: 9"), "{record:?}");
    world.assert_accounted(0).await;
}

async fn checkpoints(world: &World, snapshot: &SnapshotInfo) {
    for request in [memory(), memory(), CreateSnapshot::default()] {
        let machine = world.fork_of(snapshot).await;
        let before = world.client.snapshots().await.unwrap().len();
        let freezing = machine.clone();
        let call = tokio::spawn(async move { freezing.checkpoint(request).await });
        at(&call, || names(&world.dir().join("snapshots")).iter().any(|name| name.starts_with('.'))).await;
        world.kill_machine(machine.id());
        let error = lost(call).await;
        assert!(error.message.contains("signal: 9"), "{error}");
        assert_lost(world, &machine).await;
        let snapshots = world.client.snapshots().await.unwrap();
        assert_eq!(snapshots.len(), before + 1);
        assert_eq!(snapshots[0].status, SnapshotStatus::Failed, "the newest is first");
        assert!(snapshots[0].reason.clone().unwrap().contains("signal: 9"), "{:?}", snapshots[0]);
    }
}

async fn forks(world: &World, snapshot: &SnapshotInfo) {
    let machine = world.fork_of(snapshot).await;
    let fork = |of: &Sandbox| {
        let of = of.clone();
        let request = ForkSandbox { count: 3, ..ForkSandbox::default() };
        tokio::spawn(async move { of.fork(request).await.map(|forks| forks.len()) })
    };
    // One of the twins as it comes up: the call fails with its reason, and the others are ended.
    let call = fork(&machine);
    let others = [world.source.id(), machine.id()];
    let twin = || machine_processes(world.dir()).into_iter().find(|(_, id)| !others.contains(&id.as_str()));
    at(&call, || twin().is_some()).await;
    kill_process(twin().unwrap().0, Signal::KILL).unwrap();
    let error = lost(call).await;
    assert!(error.message.contains("signal: 9"), "{error}");
    world.assert_accounted(0).await;
    // The original while it is frozen.
    let call = fork(&machine);
    at(&call, || names(&world.dir().join("snapshots")).iter().any(|name| name.starts_with('.'))).await;
    world.kill_machine(machine.id());
    let error = lost(call).await;
    assert!(error.message.contains("signal: 9"), "{error}");
    assert_lost(world, &machine).await;
}

async fn suspensions(world: &World, snapshot: &SnapshotInfo) {
    let machine = world.fork_of(snapshot).await;
    sh(&machine, "echo kept >/dev/shm/mark").await;
    machine.suspend().await.unwrap();
    let resuming = machine.clone();
    let call = tokio::spawn(async move { resuming.resume().await });
    at(&call, || process_of(world.dir(), machine.id()).is_some()).await;
    world.kill_machine(machine.id());
    let error = tokio::time::timeout(PROMPT, call).await.expect("at once").unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("stays suspended") && error.message.contains("signal: 9"), "{error}");
    world.assert_accounted(0).await;
    machine.resume().await.unwrap();
    assert_eq!(sh(&machine, "cat /dev/shm/mark").await, "kept\n");
    assert_counts_on(&machine).await;

    let suspending = machine.clone();
    let call = tokio::spawn(async move { suspending.suspend().await });
    at(&call, || names(&world.dir().join("suspended")).iter().any(|name| name.starts_with('.'))).await;
    world.kill_machine(machine.id());
    lost(call).await;
    assert_lost(world, &machine).await;
}

async fn restores(world: &World, snapshot: &SnapshotInfo) {
    let machine = world.fork_of(snapshot).await;
    sh(&machine, "echo changed >/dev/shm/mark").await;
    let restore = || {
        let (machine, id) = (machine.clone(), snapshot.snapshot_id.to_string());
        tokio::spawn(async move { machine.restore(&id).await })
    };
    // What takes its place as it comes up: the machine goes on as it was.
    let first = process_of(world.dir(), machine.id());
    let call = restore();
    at(&call, || process_of(world.dir(), machine.id()).is_some_and(|pid| Some(pid) != first)).await;
    world.kill_machine(machine.id());
    let error = tokio::time::timeout(PROMPT, call).await.expect("at once").unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("goes on as it was") && error.message.contains("signal: 9"), "{error}");
    assert_eq!(sh(&machine, "cat /dev/shm/mark").await, "changed\n");
    assert_counts_on(&machine).await;
    world.assert_accounted(0).await;
    restore().await.unwrap().unwrap();
    assert_eq!(sh(&machine, "cat /dev/shm/mark").await, "here\n");
    // The machine itself, before it was put away.
    let call = restore();
    at(&call, || names(&world.dir().join("suspended")).iter().any(|name| name.starts_with('.'))).await;
    world.kill_machine(machine.id());
    lost(call).await;
    assert_lost(world, &machine).await;
}

async fn pools(world: &World, snapshot: &SnapshotInfo) {
    let spec = PoolSpec { snapshot_id: Some(snapshot.snapshot_id.clone()), ..PoolSpec::default() };
    let pool = world.client.create_pool(spec).await.unwrap();
    let waiting = || machine_processes(world.dir()).into_iter().find(|(_, id)| *id != world.source.id());
    let ready = async || world.client.pool(pool.pool_id.as_str()).await.unwrap().ready == 1;
    // As it is made ready, and as it waits.
    for is_ready in [false, true] {
        until("a machine is made", async || waiting().is_some() && (!is_ready || ready().await)).await;
        let (first, _) = waiting().unwrap();
        kill_process(first, Signal::KILL).unwrap();
        until("another is made", async || waiting().is_some_and(|(pid, _)| pid != first)).await;
    }
    until("it is ready", ready).await;
    world.assert_accounted(1).await;
    world.client.delete_pool(pool.pool_id.as_str()).await.unwrap();
    until("nobody waits any more", async || names(&world.dir().join("machines")).len() == 1).await;
    world.assert_accounted(0).await;
}
