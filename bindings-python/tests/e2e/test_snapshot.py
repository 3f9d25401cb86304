"""Machines frozen once and forked often: what survives, what is each one's own, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkyard import (
    AsyncSandbox,
    CheckpointType,
    FailedPrecondition,
    InvalidArgument,
    NoSpace,
    Sandbox,
    SandboxClient,
    SandboxInfo,
    SandboxStatus,
    SnapshotCorrupt,
    SnapshotInfo,
    SnapshotNotFound,
    SnapshotStatus,
    WhenFull,
)

# An interpreter that holds state and serves it, and an open file that it goes on writing to.
SERVER = """
import http.server, os
log = open("/workspace/log", "a")
class Handler(http.server.BaseHTTPRequestHandler):
    count = 0
    def do_GET(self):
        Handler.count += 1
        log.write(f"{Handler.count}\\n"); log.flush()
        self.send_response(200); self.end_headers()
        self.wfile.write(f"{Handler.count}".encode())
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


def ask(machine: Sandbox) -> str:
    """What the program inside answers."""
    return machine.run("curl", ["-sS", "--retry", "20", "--retry-connrefused", "localhost:8000"], check=True).stdout


@pytest.fixture(scope="module")
def base(client: SandboxClient) -> Iterator[Sandbox]:
    """A machine in which a program runs that has answered twice."""
    with Sandbox.create(image="python", client=client, env={"KEPT": "yes"}, labels={"role": "base"}) as machine:
        machine.write_file("/workspace/server.py", SERVER)
        machine.start("python", ["/workspace/server.py"])
        assert [ask(machine), ask(machine)] == ["1", "2"]
        yield machine


@pytest.fixture(scope="module")
def snapshot(base: Sandbox) -> SnapshotInfo:
    """The base with its memory."""
    return base.checkpoint(CheckpointType.MEMORY, name="base", labels={"a": "b"})


def test_a_snapshot_is_described(base: Sandbox, snapshot: SnapshotInfo, client: SandboxClient) -> None:
    assert snapshot.status is SnapshotStatus.COMPLETED
    assert snapshot.checkpoint_type is CheckpointType.MEMORY
    assert (snapshot.name, snapshot.labels, snapshot.source) == ("base", {"a": "b"}, base.sandbox_id)
    assert snapshot.memory_mb == 512
    assert 0 < snapshot.size < snapshot.logical_size
    assert client.snapshot(snapshot.snapshot_id) == snapshot
    assert snapshot in client.snapshots()


def test_processes_files_and_memory_survive_and_twins_are_apart(base: Sandbox, snapshot: SnapshotInfo) -> None:
    first = Sandbox.create(snapshot_id=snapshot.snapshot_id, env={"MINE": "1"})
    second = Sandbox.create(snapshot_id=snapshot.snapshot_id)
    with first, second:
        assert [ask(first), ask(first), ask(second)] == ["3", "4", "3"]
        assert first.read_text("/workspace/log") == "1\n2\n3\n4\n"
        assert second.read_text("/workspace/log") == "1\n2\n3\n"
        assert first.run("sh", ["-c", "echo $KEPT $MINE"]).stdout == "yes 1\n"
        assert base.read_text("/workspace/log") == "1\n2\n"
        # A fork of a fork of a fork.
        again = Sandbox.create(snapshot_id=first.checkpoint(CheckpointType.MEMORY).snapshot_id)
        with again:
            assert ask(again) == "5"
            third = again.fork()[0]
            with third:
                assert ask(third) == "6"
            assert again.read_text("/workspace/log") == "1\n2\n3\n4\n5\n"


async def test_each_twin_is_its_own(snapshot: SnapshotInfo, base: Sandbox) -> None:
    twins = await asyncio.gather(*(AsyncSandbox.create(snapshot_id=snapshot.snapshot_id) for _ in range(3)))
    script = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1"
    try:
        results = await asyncio.gather(*(twin.run("sh", ["-c", script], check=True) for twin in twins))
        lines = [result.stdout.split("\n") for result in results]
        for column in zip(*lines, strict=True):
            assert len(set(column)) == len(twins) or column == ("",) * 3, column
        for twin in twins:
            before = time.time()
            clock = float((await twin.run("date", ["+%s.%N"], check=True)).stdout)
            assert before - 0.05 < clock < time.time() + 0.05
            slept = await twin.run("python", ["-c", "import time; time.sleep(0.2)"], timeout=20)
            assert slept.exit_code == 0
    finally:
        await asyncio.gather(*(twin.terminate() for twin in twins))
    assert base.run("true").exit_code == 0


def test_forks_of_a_live_machine_run_at_once(base: Sandbox) -> None:
    forks = base.fork(3, env={"N": "x"}, labels={"role": "fork"})
    try:
        assert len({fork.sandbox_id for fork in forks}) == 3
        assert [ask(fork) for fork in forks] == ["3"] * 3
        assert all(fork.info().labels == {"role": "fork"} for fork in forks)
        assert forks[0].run("sh", ["-c", "echo $KEPT $N"]).stdout == "yes x\n"
    finally:
        for fork in forks:
            fork.terminate()


def test_a_filesystem_snapshot_boots_with_other_memory(base: Sandbox) -> None:
    base.write_file("/workspace/cached", "not synced by the guest")
    snapshot = base.checkpoint()
    assert snapshot.checkpoint_type is CheckpointType.FILESYSTEM
    with Sandbox.create(snapshot_id=snapshot.snapshot_id, memory_mb=384, cpus=2) as machine:
        assert machine.read_text("/workspace/cached") == "not synced by the guest"
        assert machine.run("nproc").stdout == "2\n"
        assert machine.run("sh", ["-c", "echo $KEPT"]).stdout == "yes\n"
        assert not machine.run("curl", ["-s", "localhost:8000"]).ok, "no process survives a boot"
    base.remove("/workspace/cached")
    Sandbox.delete_snapshot(snapshot.snapshot_id)


def test_what_is_baked_in_is_refused(snapshot: SnapshotInfo) -> None:
    with pytest.raises(InvalidArgument, match="memory_mb 512 is baked in"):
        Sandbox.create(snapshot_id=snapshot.snapshot_id, memory_mb=1024)
    with pytest.raises(InvalidArgument, match="cpus 1 is baked in"):
        Sandbox.create(snapshot_id=snapshot.snapshot_id, cpus=2)
    with pytest.raises(InvalidArgument, match="either image or snapshot_id"):
        Sandbox.create("python", snapshot_id=snapshot.snapshot_id)
    with pytest.raises(SnapshotNotFound):
        Sandbox.create(snapshot_id="snap_none")


def test_a_snapshot_can_go_while_its_forks_run(base: Sandbox, client: SandboxClient) -> None:
    snapshot = base.checkpoint(CheckpointType.MEMORY)
    with Sandbox.create(snapshot_id=snapshot.snapshot_id) as fork:
        Sandbox.delete_snapshot(snapshot.snapshot_id)
        with pytest.raises(SnapshotNotFound):
            client.snapshot(snapshot.snapshot_id)
        # Pages that nobody touched yet come from its file; those of a fork of the fork too.
        with fork.fork()[0] as again:
            for machine in (fork, again):
                counted = machine.run("sh", ["-c", "find / -xdev -type f | head -5000 | wc -l"], timeout=60)
                assert counted.stdout == "5000\n"
                assert ask(machine) == "3"


def test_a_damaged_snapshot_is_refused(base: Sandbox, server: dict[str, str]) -> None:
    snapshot = base.checkpoint(CheckpointType.MEMORY)
    ram = Path(server["DATA"], "snapshots", snapshot.snapshot_id, "ram")
    with ram.open("r+b") as file:
        file.truncate(snapshot.memory_mb * 1024 * 1024 - 4096)
    with pytest.raises(SnapshotCorrupt, match="bytes long instead of"):
        Sandbox.create(snapshot_id=snapshot.snapshot_id)
    Sandbox.delete_snapshot(snapshot.snapshot_id)


def test_a_machine_that_is_frozen_often_keeps_a_short_disk(client: SandboxClient, server: dict[str, str]) -> None:
    snapshots = []
    with Sandbox.create("base", memory_mb=256, client=client) as machine:
        for number in range(20):
            machine.run("sh", ["-c", f"echo {number} >file-{number}; echo {number} >last"], check=True)
            snapshots.append(machine.checkpoint().snapshot_id)
        twin = machine.fork()[0]
    layers = [len(list(Path(server["DATA"], "snapshots", it).glob("layer-*"))) for it in snapshots]
    # One of the template's own.
    assert layers[:15] == list(range(2, 17))
    assert max(layers) <= 17
    assert layers[-1] < 10, layers
    expected = {**{f"file-{number}": f"{number}\n" for number in range(20)}, "last": "19\n"}
    with twin:
        assert {it.name: twin.read_text(f"/workspace/{it.name}") for it in twin.list_files("/workspace")} == expected
    # Those from before and from after the merge boot alike.
    for place in (10, 19):
        with Sandbox.create(snapshot_id=snapshots[place], client=client) as machine:
            assert machine.read_text("/workspace/last") == f"{place}\n"
            assert len(machine.list_files("/workspace")) == place + 2
    for snapshot in snapshots:
        client.delete_snapshot(snapshot)


def test_a_project_keeps_what_its_policy_says(client: SandboxClient) -> None:
    key = client.create_key(project="prj_keeps", max_sandboxes=2)
    other = SandboxClient(api_key=key.api_key)

    def kept() -> set[str]:
        return {it.snapshot_id for it in other.snapshots() if it.status is SnapshotStatus.COMPLETED}

    with Sandbox.create("python", memory_mb=256, client=other) as machine:
        retained = machine.checkpoint(CheckpointType.MEMORY, retain=True)
        machine.checkpoint(CheckpointType.MEMORY)
        assert other.set_retention(keep_last=2).keep_last == 2
        newest = machine.checkpoint(CheckpointType.MEMORY)
        wait_until(lambda: kept() == {retained.snapshot_id, newest.snapshot_id})
        budget_mb = (retained.size + newest.size + newest.size // 2) >> 20
        other.set_retention(budget_mb=budget_mb)
        with pytest.raises(NoSpace, match="retention policy"):
            machine.checkpoint(CheckpointType.MEMORY)
        assert other.set_retention(budget_mb=budget_mb, when_full=WhenFull.DELETE_OLDEST) == other.retention()
        newest = machine.checkpoint(CheckpointType.MEMORY)
        assert kept() == {retained.snapshot_id, newest.snapshot_id}
        other.set_retention(max_age_secs=1)
        wait_until(lambda: kept() == {retained.snapshot_id})
        with pytest.raises(InvalidArgument, match="keep_last must be at least 1"):
            other.set_retention(keep_last=0)
        other.delete_snapshot(retained.snapshot_id)
    assert client.retention().keep_last is None, "another project's is its own"


def test_the_lid_is_closed_and_opened(base: Sandbox, client: SandboxClient) -> None:
    with base.fork()[0] as machine:
        assert machine.suspend().status is SandboxStatus.SUSPENDED
        assert machine.suspend().status is SandboxStatus.SUSPENDED
        assert machine.sandbox_id not in running_machines()
        used = client.server_info().capacity.sandboxes
        assert machine.resume().status is SandboxStatus.RUNNING
        assert client.server_info().capacity.sandboxes == used + 1
        assert ask(machine) == "3"
        machine.suspend()
        # Another program's call is enough.
        assert ask(Sandbox.connect(machine.sandbox_id)) == "4"
        before = time.time()
        clock = float(machine.run("date", ["+%s.%N"]).stdout)
        assert before - 0.05 < clock < time.time() + 0.05
        machine.suspend()
        # So is a snapshot, or a fork.
        with machine.fork()[0] as fork:
            assert ask(fork) == "5"
        machine.suspend()
    assert client.get(machine.sandbox_id).status is SandboxStatus.TERMINATED


def test_a_named_machine_is_suspended_when_it_is_idle(snapshot: SnapshotInfo, client: SandboxClient) -> None:
    machine = Sandbox.create(snapshot_id=snapshot.snapshot_id, name="sleeper", timeout_secs=1, auto_resume=False)
    with machine:
        wait_until(lambda: client.get(machine.sandbox_id).status is SandboxStatus.SUSPENDED)
        again = Sandbox.connect("sleeper")
        with pytest.raises(FailedPrecondition, match="is suspended; resume it first"):
            again.run("true")
        again.resume()
        assert ask(again) == "3"


def test_a_machine_is_put_back_in_place(base: Sandbox) -> None:
    with base.fork()[0] as machine:
        assert ask(machine) == "3"
        snapshot = machine.checkpoint(CheckpointType.MEMORY)
        assert [ask(machine), ask(machine)] == ["4", "5"]
        machine.restore(snapshot.snapshot_id)
        assert ask(machine) == "4"
        assert machine.read_text("/workspace/log") == "1\n2\n3\n4\n"
        Sandbox.delete_snapshot(snapshot.snapshot_id)


def test_the_example_goes_on_in_another_program(client: SandboxClient) -> None:
    example = Path(__file__).parents[3] / "examples/python/03_pause_and_return.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "168 primes" in done.stdout
    assert "its last prime is 997" in done.stdout
    assert all(sandbox.name is None or not sandbox.name.startswith("thinker") for sandbox in alive(client))


def alive(client: SandboxClient) -> list[SandboxInfo]:
    """The machines that have not ended."""
    ended = {SandboxStatus.TERMINATED, SandboxStatus.FAILED}
    return [sandbox for sandbox in client.list() if sandbox.status not in ended]


def running_machines() -> str:
    """The command lines of all processes."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines.append((process / "cmdline").read_text())
    return "\n".join(lines)


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits until something holds, twenty seconds at the most."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
