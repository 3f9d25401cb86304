"""What happened to machines, listed and followed."""

from __future__ import annotations

import asyncio

import pytest

from forkyard import (
    AsyncSandbox,
    CheckpointType,
    InvalidArgument,
    Sandbox,
    SandboxClient,
    SandboxEvent,
    SandboxEventKind,
)

K = SandboxEventKind


def kinds(events: list[SandboxEvent]) -> list[SandboxEventKind]:
    return [event.kind for event in events]


@pytest.mark.timeout(180)
def test_a_life_is_told_from_its_making_to_its_end(client: SandboxClient) -> None:
    machine = Sandbox.create("base", memory_mb=256, name="told", client=client)
    begun = machine.events()
    assert (kinds(begun.events), begun.ended) == ([K.CREATED, K.STARTED], False)
    assert begun.events[0].at <= begun.events[1].at
    followed = machine.follow_events(begun.cursor)
    machine.suspend()
    machine.resume()
    snapshot = machine.checkpoint(checkpoint_type=CheckpointType.MEMORY)
    [twin] = machine.fork(1)
    machine.restore(snapshot.snapshot_id)
    assert kinds(twin.events().events) == [K.CREATED, K.STARTED]
    assert twin.events().events[0].forked_from == machine.sandbox_id
    of_snapshot = Sandbox.create(snapshot_id=snapshot.snapshot_id, client=client)
    assert of_snapshot.events().events[0].snapshot_id == snapshot.snapshot_id
    for other in (twin, of_snapshot):
        other.terminate()
    machine.terminate()
    told = list(followed)
    assert kinds(told) == [K.SUSPENDED, K.RESUMED, K.CHECKPOINTED, K.FORKED, K.RESTORED, K.TERMINATED]
    assert told[0].reason is None, "it was asked for"
    assert told[2].snapshot_id == told[4].snapshot_id == snapshot.snapshot_id
    assert told[3].forks == [twin.sandbox_id]
    assert told[5].reason == "asked for by the caller"
    listed = machine.events()
    assert (listed.events, listed.ended) == (begun.events + told, True)
    assert machine.events(listed.cursor, wait=30).events == [], "at once: nothing can come"
    Sandbox.delete_snapshot(snapshot.snapshot_id, client=client)


async def test_following_does_not_block_and_idleness_is_told(client: SandboxClient) -> None:
    machine = await AsyncSandbox.create("base", memory_mb=256, timeout_secs=3)
    with pytest.raises(InvalidArgument, match="no cursor"):
        await machine.events("x")
    with pytest.raises(InvalidArgument, match="seconds of 0 or more"):
        await machine.events(wait=-1)
    cursor = (await machine.events()).cursor
    async with machine.follow_events(cursor) as closed:
        waiting = asyncio.create_task(anext(closed, None))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(waiting, 20) is None, "closing it ends a call that waits"
    # Asking all the time keeps no machine from being idle.
    events = [event async for event in machine.follow_events()]
    assert kinds(events) == [K.CREATED, K.STARTED, K.TIMED_OUT]
    assert events[2].reason == "no call for 3 seconds"


def test_what_the_network_does_is_among_them(client: SandboxClient) -> None:
    with Sandbox.create("base", memory_mb=256, allow_out=["192.0.2.7:80"], client=client) as machine:
        assert machine.run("bash", ["-c", "exec 3<>/dev/tcp/198.51.100.7/80"]).exit_code != 0
        event = next(event for event in machine.follow_events() if event.kind is K.NETWORK)
        assert event.network is not None
        assert (event.network.address, event.network.verdict) == ("198.51.100.7", "refused")
        assert event.at == event.network.at
        listed = [event.network for event in machine.events().events if event.network]
        assert listed == machine.network_events().events
