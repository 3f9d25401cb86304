"""Machines that are kept ready: handed out at once, each its owner's own, refilled, drained."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable

import pytest

from forkyard import (
    AsyncSandbox,
    AsyncSandboxClient,
    CheckpointType,
    InvalidArgument,
    PoolInfo,
    PoolNotFound,
    QuotaExceeded,
    Sandbox,
    SandboxClient,
    SandboxStatus,
)

IDENTITY = (
    "cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id; head -c16 /dev/urandom | od -An -tx1; date +%s"
)


def wait_for(client: SandboxClient, pool_id: str, wanted: Callable[[PoolInfo], bool]) -> PoolInfo:
    """The pool, once it is as wanted."""
    deadline = time.monotonic() + 60
    while not wanted(pool := client.pool(pool_id)):
        assert time.monotonic() < deadline, pool
        time.sleep(0.02)
    return pool


def test_a_ready_machine_is_handed_out_and_is_its_owners_own(client: SandboxClient) -> None:
    pool = client.create_pool("python", memory_mb=256, min_ready=2, max=3)
    try:
        assert (pool.min_ready, pool.max, pool.ready) == (2, 3, 0)
        wait_for(client, pool.pool_id, lambda pool: pool.ready == 2)
        assert all(info.status is not SandboxStatus.PENDING for info in client.list()), "they are nobody's yet"
        with (
            Sandbox.create("python", memory_mb=256, name="from-pool", env={"MINE": "1"}, client=client) as first,
            Sandbox.create("python", memory_mb=256, client=client) as second,
        ):
            texts = [machine.run("sh", ["-c", IDENTITY], check=True).stdout.split("\n") for machine in (first, second)]
            assert texts[0][0] == "from-pool"
            assert all(texts[0][row] != texts[1][row] for row in range(4)), texts
            assert all(abs(int(text[4]) - time.time()) < 10 for text in texts)
            assert first.run("printenv", ["MINE"]).stdout == "1\n"
            assert second.run("printenv", ["MINE"]).exit_code == 1
            after = wait_for(client, pool.pool_id, lambda pool: pool.ready == 1)
            assert (after.hits, after.misses, after.claimed) == (2, 0, 2)
        wait_for(client, pool.pool_id, lambda pool: pool.ready == 2 and pool.claimed == 0)
    finally:
        client.delete_pool(pool.pool_id)
    with pytest.raises(PoolNotFound):
        client.pool(pool.pool_id)


def test_a_pool_of_a_snapshot_goes_on_from_it_until_the_snapshot_is_gone(client: SandboxClient) -> None:
    with Sandbox.create("python", memory_mb=256, client=client) as base:
        base.write_file("/dev/shm/state", b"kept")
        snapshot = base.checkpoint(CheckpointType.MEMORY)
    pool = client.create_pool(snapshot_id=snapshot.snapshot_id)
    try:
        wait_for(client, pool.pool_id, lambda pool: pool.ready == 1)
        with Sandbox.create(snapshot_id=snapshot.snapshot_id, client=client) as machine:
            assert machine.read_file("/dev/shm/state") == b"kept"
            assert client.pool(pool.pool_id).hits == 1
        client.delete_snapshot(snapshot.snapshot_id)
        drained = wait_for(client, pool.pool_id, lambda pool: pool.reason is not None and pool.ready == 0)
        assert "there is no snapshot" in str(drained.reason)
        changed = client.change_pool(pool.pool_id, "python", memory_mb=256)
        assert (changed.snapshot_id, changed.reason) == (None, None)
        wait_for(client, pool.pool_id, lambda pool: pool.ready == 1)
    finally:
        client.delete_pool(pool.pool_id)


def test_what_cannot_be_kept_is_refused(client: SandboxClient) -> None:
    key = client.create_key(max_sandboxes=2)
    with pytest.raises(QuotaExceeded, match="may have 2 machines"):
        SandboxClient(api_key=key.api_key).create_pool(min_ready=3)
    client.revoke_key(key.info.key_id)
    with pytest.raises(InvalidArgument, match="max must be at least min_ready"):
        client.create_pool(min_ready=2, max=1)
    with pytest.raises(PoolNotFound):
        client.change_pool("pool_none")
    assert client.pools() == []


async def test_a_burst_beyond_the_budget_waits_in_line(client: SandboxClient) -> None:
    key = client.create_key(max_sandboxes=2, description="a small one")
    async with AsyncSandboxClient(api_key=key.api_key) as small:
        with pytest.raises(QuotaExceeded):
            await asyncio.gather(*(AsyncSandbox.create(labels={"of": "burst"}, client=small) for _ in range(3)))
        for info in await small.list():
            if info.labels == {"of": "burst"}:
                await small.terminate(info.sandbox_id)

        async def work(number: int) -> str:
            async with AsyncSandbox.create(memory_mb=256, queue_timeout_secs=120, client=small) as machine:
                return (await machine.run("echo", [str(number)])).stdout

        done = await asyncio.gather(*(work(number) for number in range(6)))
    assert done == [f"{number}\n" for number in range(6)]
    client.revoke_key(key.info.key_id)


def test_an_image_is_warmed_from_the_command_line(client: SandboxClient) -> None:
    command = [os.environ["FORKYARD_BIN"], "image", "warm", "base", "--memory-mb", "320"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    stages = [line.removeprefix("base: ") for line in first.stderr.splitlines()]
    assert "boots" in stages
    assert "is frozen" in stages
    assert stages[-1] == "goes on from its template"
    assert "base: warm for 1 CPUs and 320 MiB" in first.stdout
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "boots" not in again.stderr
    missing = subprocess.run([*command, "no-such-image"], capture_output=True, text=True, timeout=60, check=False)
    assert missing.returncode != 0
    assert "no machine could be made of the image 'no-such-image'" in missing.stderr
    assert all(info.memory_mb != 320 for info in client.list() if info.status is SandboxStatus.RUNNING)
