"""Machines found by their name and marks, and how long they live while nobody calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from forkyard import (
    AsyncSandbox,
    AsyncSandboxClient,
    ImageNotFound,
    InvalidArgument,
    Sandbox,
    SandboxClient,
    SandboxLost,
    SandboxStatus,
)


@pytest.fixture
def trio(client: SandboxClient) -> Iterator[list[Sandbox]]:
    """Three machines with marks."""
    machines = [
        Sandbox.create("base", memory_mb=256, labels={"team": team, "place": place, "odd": "a:b&ü"})
        for team, place in [("red", "a"), ("red", "b"), ("blue", "a")]
    ]
    yield machines
    for machine in machines:
        machine.terminate()


def test_a_list_is_filtered_and_fetched_as_it_is_read(client: SandboxClient, trio: list[Sandbox]) -> None:
    ids = [machine.sandbox_id for machine in trio]
    assert [info.sandbox_id for info in client.list(labels={"team": "red"})] == [ids[1], ids[0]]
    assert [info.sandbox_id for info in client.list(labels={"team": "red", "place": "a"})] == [ids[0]]
    assert [info.sandbox_id for info in client.iter(labels={"odd": "a:b&ü"}, page_size=1)] == ids[::-1]
    assert client.list(labels={"team": "green"}) == []
    assert client.list(labels={"team": "red"}, image="python") == []
    digest = trio[0].info().image_digest
    assert len(client.list(labels={"team": "red"}, image=digest, status=SandboxStatus.RUNNING)) == 2
    trio[0].terminate()
    left = client.list(labels={"team": "red"}, status=SandboxStatus.RUNNING)
    assert [info.sandbox_id for info in left] == [ids[1]]
    with pytest.raises(InvalidArgument, match="a label's key"):
        client.list(labels={"a:b": "c"})
    with pytest.raises(InvalidArgument, match="limit"):
        next(client.iter(page_size=0))


async def test_pages_are_read_without_blocking(client: SandboxClient, trio: list[Sandbox]) -> None:
    listing = AsyncSandboxClient().iter(labels={"team": "red"}, status=SandboxStatus.RUNNING, page_size=1)
    assert [info.sandbox_id async for info in listing] == [trio[1].sandbox_id, trio[0].sandbox_id]


def test_those_who_ask_at_once_get_the_same_machine(client: SandboxClient) -> None:
    def ask(number: int) -> Sandbox:
        # Each with its own connection, as a program of its own.
        return Sandbox.get_or_create("shared", "base", memory_mb=256, client=SandboxClient())

    with ThreadPoolExecutor(6) as pool:
        machines = list(pool.map(ask, range(6)))
    with machines[0] as machine:
        assert {other.sandbox_id for other in machines} == {machine.sandbox_id}
        assert [info.sandbox_id for info in client.list(name="shared")] == [machine.sandbox_id]
        assert machine.run("echo", ["one"]).stdout == "one\n"


def test_a_machine_that_is_there_is_taken_as_it_is_and_resumed(client: SandboxClient) -> None:
    with Sandbox.get_or_create("kept", "base", memory_mb=256, auto_resume=False) as machine:
        machine.run("sh", ["-c", "echo here >/dev/shm/note"])
        machine.suspend()
        # What does not exist is not asked for: the machine does.
        again = Sandbox.get_or_create("kept", "no-such-image", memory_mb=512)
        assert (again.sandbox_id, again.status) == (machine.sandbox_id, SandboxStatus.RUNNING)
        assert again.read_text("/dev/shm/note") == "here\n"
        assert again.info().memory_mb == 256
    # Its name is free, and what was asked for counts.
    with pytest.raises(ImageNotFound):
        Sandbox.get_or_create("kept", "no-such-image")
    with pytest.raises(InvalidArgument, match="a name must"):
        Sandbox.get_or_create("no/name")
    with Sandbox.get_or_create("kept", "base", memory_mb=256) as other:
        assert other.sandbox_id != machine.sandbox_id


async def test_one_who_waits_survives_the_end_of_the_first(client: SandboxClient) -> None:
    """The machine that the others wait for ends while it is made: they make another."""
    # Of a size that nothing else here has, so it boots, which takes seconds.
    first = asyncio.create_task(AsyncSandbox.get_or_create("again", "base", memory_mb=288))
    mine = AsyncSandboxClient()
    deadline = time.monotonic() + 30
    while not (found := await mine.list(name="again")):
        assert time.monotonic() < deadline
    second = asyncio.create_task(AsyncSandbox.get_or_create("again", "base", memory_mb=256, client=mine))
    # By then it waits; where it does not, it finds the name free.
    await asyncio.sleep(0.3)
    await mine.terminate(found[0].sandbox_id)
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], SandboxLost)
    async with await second as machine:
        assert machine.sandbox_id != found[0].sandbox_id
        assert (await machine.run("echo", ["up"])).stdout == "up\n"


def test_an_idle_time_out_is_changed_while_the_machine_runs(client: SandboxClient) -> None:
    brief = Sandbox.create("base", memory_mb=256)
    assert brief.extend_timeout(1).timeout_secs == 1
    deadline = time.monotonic() + 30
    while client.get(brief.sandbox_id).status is not SandboxStatus.TERMINATED:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.2)
    with pytest.raises(SandboxLost, match="no call for 1 seconds"):
        brief.extend_timeout(600)
    with Sandbox.create("base", memory_mb=256, name="long") as machine:
        with pytest.raises(InvalidArgument, match="timeout_secs must be between 1 and 2592000"):
            machine.extend_timeout(0)
        machine.suspend()
        assert machine.extend_timeout(1200).status is SandboxStatus.SUSPENDED
        assert machine.resume().timeout_secs == 1200
