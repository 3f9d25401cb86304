//! What is noted of machines that are tasks.

use std::time::Duration;

use forkyard_protocol::{CreateSandbox, PoolSpec, SandboxEventKind, SandboxEventList, SandboxId};

use super::tests::{World, caller, create};
use super::*;
use SandboxEventKind::{Created, Failed, Lost, Started, Terminated, TimedOut};

const LONG: Duration = Duration::from_secs(30);

async fn events(server: &Sandboxes, id: &SandboxId, cursor: Option<&str>) -> SandboxEventList {
    server.events(&caller().project, id, cursor, LONG).await.unwrap()
}

fn kinds(page: &SandboxEventList) -> Vec<SandboxEventKind> {
    page.events.iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn each_end_has_its_kind_and_reason() {
    let world = World::new();
    let server = world.server().await;
    let idle = create(&server, |request| request.timeout_secs = 1).await.id().clone();
    let page = events(&server, &idle, None).await;
    assert_eq!((kinds(&page), page.ended), (vec![Created, Started], false));
    // Told when it happens, without being asked again.
    let end = events(&server, &idle, page.next_cursor.as_deref()).await;
    assert_eq!((kinds(&end), end.ended), (vec![TimedOut], true));
    assert_eq!(end.events[0].reason.as_deref(), Some("no call for 1 seconds"));

    let lost = create(&server, |_| {}).await.id().clone();
    let cursor = events(&server, &lost, None).await.next_cursor;
    world.host.machine(&lost).ended.send_replace(Some("QEMU ended".to_owned()));
    let end = events(&server, &lost, cursor.as_deref()).await;
    assert_eq!((kinds(&end), end.events[0].reason.as_deref()), (vec![Lost], Some("QEMU ended")));

    let ended = create(&server, |_| {}).await.id().clone();
    server.terminate(&caller().project, &ended).await.unwrap();
    assert_eq!(kinds(&events(&server, &ended, None).await), [Created, Started, Terminated]);

    world.host.agents_are_dead.store(true, std::sync::atomic::Ordering::Relaxed);
    let slot = server.create(&caller(), CreateSandbox::default(), None).await.unwrap();
    slot.wait_for(|record| !record.is_alive()).await;
    assert_eq!(kinds(&events(&server, slot.id(), None).await), [Created, Failed]);
}

#[tokio::test]
async fn a_machine_out_of_a_pool_begins_with_its_owner() {
    let world = World::new();
    let server = world.server().await;
    let spec = PoolSpec { image: Some("python".into()), ..PoolSpec::default() };
    server.create_pool(&caller(), spec).await.unwrap();
    let waiting = loop {
        if let Some(slot) = server.registry().all().first() {
            break slot.clone();
        }
        tokio::task::yield_now().await;
    };
    waiting.wait_for(|record| record.place == super::record::Place::Ready).await;
    let slot = create(&server, |request| request.image = Some("python".into())).await;
    assert_eq!(slot.id(), waiting.id());
    assert_eq!(kinds(&events(&server, slot.id(), None).await), [Created, Started]);
}

#[tokio::test]
async fn a_life_outlives_the_server_and_a_cursor_goes_on_under_the_next() {
    let world = World::new();
    let before = world.server().await;
    let id = create(&before, |_| {}).await.id().clone();
    let gone = create(&before, |_| {}).await.id().clone();
    let page = events(&before, &id, None).await;
    before.save_events().await;
    world.host.machine(&gone).ended.send_replace(Some("killed with the server".to_owned()));
    events(&before, &gone, events(&before, &gone, None).await.next_cursor.as_deref()).await;
    before.save_events().await;

    let after = world.server().await;
    assert_eq!(events(&after, &id, None).await, page, "as it was, place by place");
    assert_eq!(kinds(&events(&after, &gone, None).await), [Created, Started, Lost]);
    after.terminate(&caller().project, &id).await.unwrap();
    let end = events(&after, &id, page.next_cursor.as_deref()).await;
    assert_eq!((kinds(&end), end.ended), (vec![Terminated], true));
}
