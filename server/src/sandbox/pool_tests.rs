//! Pools and the line for room, over machines that are tasks.

use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{
    CreateSandbox, ErrorCode, KeyId, KeyInfo, Pool, PoolId, PoolSpec, ProjectId, SandboxStatus,
};
use futures_util::future::join_all;

use super::tests::{World, assert_nothing_left, caller, create};
use super::*;

/// Waits until a pool is as wanted; the test's own time is the deadline.
async fn pool_until(server: &Sandboxes, id: &PoolId, wanted: impl Fn(&Pool) -> bool) -> Pool {
    loop {
        let pool = server.pool(&caller().project, id).unwrap();
        if wanted(&pool) {
            return pool;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn filled(server: &Arc<Sandboxes>, min_ready: u32, max: Option<u32>) -> PoolId {
    let spec = PoolSpec { min_ready, max, ..PoolSpec::default() };
    let id = server.create_pool(&caller(), spec).await.unwrap().pool_id;
    pool_until(server, &id, |pool| pool.ready == min_ready).await;
    id
}

fn other_key(name: &str) -> KeyInfo {
    KeyInfo { key_id: KeyId::parse(name).unwrap(), ..caller() }
}

#[tokio::test]
async fn a_machine_that_waits_is_handed_out_once_and_its_place_is_filled() {
    let world = World::new();
    let server = world.server().await;
    let id = filled(&server, 1, None).await;
    let waiting = world.host.living();
    assert!(
        server
            .registry()
            .list(&caller().project, &ListFilter { limit: 9, ..ListFilter::default() })
            .sandboxes
            .is_empty()
    );
    assert!(server.get(&caller().project, &waiting[0]).is_err(), "it is nobody's yet");
    let labels = [("k".to_owned(), "v".to_owned())];
    let (named, labelled) = tokio::join!(
        create(&server, |request| request.name = Some("a".to_owned())),
        create(&server, |request| request.labels = labels.into()),
    );
    let both = [named, labelled];
    let claimed: Vec<_> = both.iter().filter(|slot| *slot.id() == waiting[0]).collect();
    assert_eq!(claimed.len(), 1, "one of the two");
    let pool = pool_until(&server, &id, |pool| pool.ready == 1).await;
    // The second is a hit as well if it comes so late that the first one's place is filled again.
    assert_eq!((pool.hits + pool.misses, u64::from(pool.claimed)), (2, pool.hits));
    assert!(pool.hits >= 1);
    let mut names: Vec<_> = both.iter().map(|slot| slot.record().view.name).collect();
    names.sort();
    assert_eq!(names, [None, Some("a".to_owned())], "each is as it was asked for");
    server.terminate_all().await;
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn only_machines_of_its_kind_and_project_come_from_a_pool() {
    let world = World::new();
    let server = world.server().await;
    let id = filled(&server, 1, None).await;
    let waiting = world.host.living();
    let larger = create(&server, |request| request.memory_mb = Some(600)).await;
    assert_ne!(*larger.id(), waiting[0]);
    let stranger = KeyInfo { project: ProjectId::parse("prj_2").unwrap(), ..other_key("key_2") };
    let theirs = server.create(&stranger, CreateSandbox::default(), None).await.unwrap();
    assert_ne!(*theirs.id(), waiting[0]);
    assert!(server.pool(&stranger.project, &id).is_err());
    let pool = server.pool(&caller().project, &id).unwrap();
    assert_eq!((pool.hits, pool.misses), (0, 0));
    running(&theirs).await.unwrap();
    server.terminate_all().await;
}

#[tokio::test]
async fn a_machine_that_dies_while_it_waits_is_replaced_and_one_that_dies_as_it_is_claimed_too() {
    let world = World::new();
    let server = world.server().await;
    let id = filled(&server, 1, None).await;
    let first = world.host.living()[0].clone();
    world.host.machine(&first).ended.send_replace(Some("killed".to_owned()));
    let is_another = |pool: &Pool| pool.ready == 1 && world.host.living().iter().any(|id| *id != first);
    let pool = pool_until(&server, &id, is_another).await;
    assert_eq!(pool.hits, 0);
    let second = world.host.living()[0].clone();
    // Nobody but the claimer sees this one's end: both happen before the machine's task runs again.
    world.host.machine(&second).ended.send_replace(Some("killed".to_owned()));
    let slot = create(&server, |_| {}).await;
    assert_eq!(slot.record().view.status, SandboxStatus::Running);
    server.delete_pool(&caller().project, &id).await.unwrap();
    server.terminate_all().await;
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn a_pool_is_bounded_drained_when_it_is_changed_and_gone_when_it_is_deleted() {
    let world = World::new();
    let server = world.server().await;
    let id = filled(&server, 1, Some(1)).await;
    let slot = create(&server, |_| {}).await;
    let pool = pool_until(&server, &id, |pool| pool.claimed == 1).await;
    assert_eq!((pool.ready, pool.starting), (0, 0), "its most are out");
    let other = create(&server, |_| {}).await;
    let pool = server.pool(&caller().project, &id).unwrap();
    assert_eq!((pool.hits, pool.misses, pool.claimed), (1, 1, 1), "made as without a pool");
    server.terminate(&caller().project, other.id()).await.unwrap();
    server.terminate(&caller().project, slot.id()).await.unwrap();
    pool_until(&server, &id, |pool| pool.ready == 1).await;
    let before = world.host.living();
    let spec = PoolSpec { memory_mb: Some(600), min_ready: 2, ..PoolSpec::default() };
    server.change_pool(&caller(), &id, spec).await.unwrap();
    pool_until(&server, &id, |pool| pool.ready == 2).await;
    assert!(!world.host.living().contains(&before[0]));
    let spec = PoolSpec { image: Some("none".into()), ..PoolSpec::default() };
    assert_eq!(server.change_pool(&caller(), &id, spec).await.unwrap_err().code, ErrorCode::NotFound);
    server.delete_pool(&caller().project, &id).await.unwrap();
    while !world.host.living().is_empty() || server.registry().usage(0).sandboxes > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn machines_that_wait_give_way_to_those_that_are_asked_for() {
    let world = World::new();
    let server = world.server().await;
    // The host has room for three.
    let id = filled(&server, 3, None).await;
    let larger = create(&server, |request| request.memory_mb = Some(600)).await;
    assert!(larger.record().is_alive());
    let pool = pool_until(&server, &id, |pool| pool.starting == 0 && pool.reason.is_some()).await;
    assert!(pool.reason.unwrap().contains("in use"));
    server.terminate(&caller().project, larger.id()).await.unwrap();
    let pool = pool_until(&server, &id, |pool| pool.ready == 3).await;
    assert_eq!(pool.reason, None);
    server.terminate_all().await;
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn a_server_that_comes_back_fills_its_pools_anew() {
    let world = World::new();
    let before = world.server().await;
    let id = filled(&before, 2, None).await;
    let waiting = world.host.living();
    let after = world.server().await;
    pool_until(&after, &id, |pool| pool.ready == 2).await;
    assert!(
        world.host.living().iter().all(|machine| !waiting.contains(machine)),
        "nobody knew those any more"
    );
    after.delete_pool(&caller().project, &id).await.unwrap();
    assert!(world.server().await.pools(&caller().project).pools.is_empty());
}

#[tokio::test]
async fn those_who_wait_in_line_are_served_in_turn() {
    let world = World::new();
    let server = world.server().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(create(&server, |_| {}).await);
    }
    let refused = server.create(&caller(), CreateSandbox::default(), None).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::NoCapacity);
    let (sender, mut served) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for (name, key) in [("a1", "key_1"), ("a2", "key_1"), ("b1", "key_2")] {
        let (in_line, sender) = (server.clone(), sender.clone());
        tasks.push(tokio::spawn(async move {
            let request = CreateSandbox { queue_timeout_secs: 60, ..CreateSandbox::default() };
            let slot = in_line.create(&other_key(key), request, None).await.unwrap();
            sender.send((name, slot)).unwrap();
        }));
        // Each joins the line before the next one comes.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut order = Vec::new();
    for slot in held {
        // Someone who would not wait stands behind them.
        let refused = server.create(&caller(), CreateSandbox::default(), None).await.err().unwrap();
        assert!(refused.message.contains("others wait in line"), "{refused}");
        server.terminate(&caller().project, slot.id()).await.unwrap();
        let (name, slot) = served.recv().await.unwrap();
        running(&slot).await.unwrap();
        order.push(name);
    }
    assert_eq!(order, ["a1", "b1", "a2"]);
    join_all(tasks).await;
    server.terminate_all().await;
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn who_leaves_the_line_leaves_nothing_and_who_waits_too_long_is_refused() {
    let world = World::new();
    let server = world.server().await;
    let one = KeyInfo { max_sandboxes: 1, ..caller() };
    let first = server.create(&one, CreateSandbox::default(), None).await.unwrap();
    running(&first).await.unwrap();
    let request = CreateSandbox { queue_timeout_secs: 1, ..CreateSandbox::default() };
    let gone =
        tokio::time::timeout(Duration::from_millis(50), server.create(&one, request.clone(), None)).await;
    assert!(gone.is_err(), "it waits");
    let refused = server.create(&one, request, None).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::QuotaExceeded);
    // Another key's machine is not held up.
    let other = server.create(&other_key("key_2"), CreateSandbox::default(), None).await.unwrap();
    running(&other).await.unwrap();
    server.terminate(&caller().project, first.id()).await.unwrap();
    assert_eq!(server.registry().usage(0).sandboxes, 1, "nothing was made for those who left");
    server.terminate_all().await;
    assert_nothing_left(&world, &server);
}
