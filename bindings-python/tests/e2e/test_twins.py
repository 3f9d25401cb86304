"""What a twin must have of its own, and what none may touch: random numbers, time, names, memory, files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkyard import AsyncSandbox, CheckpointType, Sandbox, SandboxClient, SnapshotInfo

TWINS = 50

# Bytes of a file that are compared at once.
BLOCK = 1 << 16

# Draws random numbers for ever, sixteen bytes each.
DRAW = """
import os, time
with open("/dev/shm/random", "ab", buffering=0) as out:
    while True:
        out.write(os.getrandom(16))
        time.sleep(0.05)
"""

# Sleeps in each way that there is: for a time, in an event loop, and until the clock on the wall is half an hour on.
SLEEP = """
import asyncio, ctypes, threading, time

class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

def note(name):
    with open("/dev/shm/woken", "a") as woken:
        woken.write(f"{name} {time.time()}\\n")

def sleep():
    time.sleep(5)
    note("sleep")

def sleep_until():
    until = Timespec(int(time.time()) + 1800, 0)
    # CLOCK_REALTIME, TIMER_ABSTIME
    assert ctypes.CDLL(None).clock_nanosleep(0, 1, ctypes.byref(until), None) == 0
    note("clock")

async def sleep_in_loop():
    await asyncio.sleep(5)
    note("loop")

for target in (sleep, sleep_until, lambda: asyncio.run(sleep_in_loop())):
    threading.Thread(target=target).start()
print("asleep")
"""

# Both ends of a connection in one program: a guest without a network has its own loopback.
TLS = """
import socket, ssl, threading

listener = socket.create_server(("127.0.0.1", 0))
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain("/workspace/cert.pem", "/workspace/key.pem")

def serve():
    connection, _ = listener.accept()
    try:
        with server.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"hello")
    except OSError as error:
        print(error)

threading.Thread(target=serve).start()
client = ssl.create_default_context(cafile="/workspace/cert.pem")
with client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="localhost") as tls:
    print(tls.recv(100).decode())
"""

CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost "
    "-addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2>&1"
)

# What the first command in a machine finds of its own, a line each.
IDENTITY = (
    "od -An -tx1 -N16 /dev/urandom; "
    "cat /proc/sys/kernel/hostname /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id"
)

# Uses memory and disk hard. Few processes: software runs each start slowly.
WORK = (
    "cat /dev/shm/shared shared; [ -e mine ] || [ -e /dev/shm/mine ] && echo another was here; "
    "echo $N >/dev/shm/shared; echo $N >shared; "
    "head -c 6000000 /dev/zero >/dev/shm/mine; cp /dev/shm/mine mine; sync; cat /dev/shm/shared shared"
)


@pytest.fixture(scope="module")
def base(client: SandboxClient) -> Iterator[Sandbox]:
    """A machine whose clock is an hour slow, with programs that draw random numbers and sleep."""
    with Sandbox.create("python", memory_mb=256, client=client) as machine:
        machine.write_file("/workspace/draw.py", DRAW)
        machine.write_file("/workspace/sleep.py", SLEEP)
        machine.write_file("/workspace/tls.py", TLS)
        machine.write_file("/workspace/shared", "base")
        machine.write_file("/dev/shm/shared", "base")
        machine.run("date", ["--set", "1 hour ago"], user="root", check=True)
        machine.start("python", ["draw.py"])
        yield machine


@pytest.fixture(scope="module")
def snapshot(base: Sandbox, client: SandboxClient) -> Iterator[SnapshotInfo]:
    """The base with its memory, just after the programs in it went to sleep: what is made of it wakes an hour late."""
    sleepers = iter(base.start("python", ["sleep.py"]))
    assert b"asleep" in next(sleepers).data
    snapshot = base.checkpoint(CheckpointType.MEMORY)
    assert not base.exists("/dev/shm/woken"), "frozen too late"
    yield snapshot
    client.delete_snapshot(snapshot.snapshot_id)


def test_an_hour_late_clocks_are_right_and_sleepers_wake(base: Sandbox, snapshot: SnapshotInfo) -> None:
    with Sandbox.create(snapshot_id=snapshot.snapshot_id) as fork:
        before = time.time()
        clock = float(fork.run("date", ["+%s.%N"], check=True).stdout)
        assert before - 0.05 < clock < time.time() + 0.05
        assert time.time() - float(base.run("date", ["+%s.%N"], check=True).stdout) > 3500, "the base's own is slow"
        deadline = time.monotonic() + 20
        woken: dict[str, float] = {}
        while woken.keys() != {"sleep", "loop", "clock"}:
            assert time.monotonic() < deadline, woken
            if fork.exists("/dev/shm/woken"):
                lines = fork.read_text("/dev/shm/woken").splitlines()
                woken = {name: float(at) for name, at in (line.split() for line in lines)}
        assert all(before - 5 < at < time.time() + 0.05 for at in woken.values()), woken
        # Nobody sleeps for an hour more, either.
        assert fork.run("sleep", ["0.2"], timeout=20).exit_code == 0


def test_tls_works_in_a_twin_that_comes_late(base: Sandbox, snapshot: SnapshotInfo, sandbox: Sandbox) -> None:
    sandbox.run("sh", ["-c", CERTIFICATE], check=True)
    pair = {name: sandbox.read_file(name) for name in ("/workspace/cert.pem", "/workspace/key.pem")}
    with Sandbox.create(snapshot_id=snapshot.snapshot_id) as fork:
        for machine in (base, fork):
            for name, data in pair.items():
                machine.write_file(name, data)
        assert fork.run("python", ["tls.py"], timeout=60, check=True).stdout == "hello\n"
        # Where the clock is wrong the certificate is from the future.
        late = base.run("python", ["tls.py"], timeout=60)
        assert "certificate is not yet valid" in late.stderr
    for name in pair:
        sandbox.remove(name)


async def test_a_program_that_runs_already_draws_other_numbers_in_each_twin(snapshot: SnapshotInfo) -> None:
    twins = await asyncio.gather(*(AsyncSandbox.create(snapshot_id=snapshot.snapshot_id) for _ in range(4)))
    try:
        # What the program was about to write when it was frozen is everybody's.
        starts = [(await twin.stat("/dev/shm/random")).size // 16 + 1 for twin in twins]
        draws: list[bytes] = []
        for twin, start in zip(twins, starts, strict=True):
            deadline = time.monotonic() + 20
            while len(data := await twin.read_file("/dev/shm/random")) < (start + 5) * 16:
                assert time.monotonic() < deadline
            draws += [data[at : at + 16] for at in range(start * 16, len(data) // 16 * 16, 16)]
        assert len(draws) >= 20
        assert len(set(draws)) == len(draws)
    finally:
        await asyncio.gather(*(twin.terminate() for twin in twins))


@pytest.mark.timeout(180)
async def test_fifty_twins_are_apart_and_leave_the_snapshot_as_it_was(
    base: Sandbox, snapshot: SnapshotInfo, server: dict[str, str]
) -> None:
    folder = Path(server["DATA"], "snapshots", snapshot.snapshot_id)
    before = digests(folder)
    assert before.keys() >= {"base.raw", "layer-0.qcow2", "ram", "state"}
    turn = asyncio.Semaphore(4)

    async def work(number: int) -> list[str]:
        async with turn, AsyncSandbox.create(snapshot_id=snapshot.snapshot_id) as twin:
            done = await twin.run("sh", ["-c", f"{IDENTITY}; {WORK}"], env={"N": str(number)}, check=True)
            *identity, found, wrote, again = done.stdout.replace("basebase", "basebase\n").splitlines()
            assert (found, wrote, again) == ("basebase", str(number), str(number))
            assert len(identity) == 5, identity
            return identity

    identities = await asyncio.gather(*(work(number) for number in range(TWINS)))
    for column in zip(*identities, strict=True):
        assert len(set(column)) == TWINS, column
    assert base.read_text("/dev/shm/shared") == base.read_text("/workspace/shared") == "base"
    assert not base.exists("/workspace/mine")
    assert digests(folder) == before


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file's blocks and their places, but for those of zeros: disks and memory are mostly holes.

    A hole is no sure thing: ext4 calls data what somebody has read of room that was reserved and never written.
    """
    found = {}
    for path in folder.iterdir():
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            at = block = 0
            while at < size:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                block = max(block, at // BLOCK)
                at = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                while block * BLOCK < at:
                    data = os.pread(file.fileno(), BLOCK, block * BLOCK)
                    if data.count(0) < len(data):
                        digest.update(str(block).encode())
                        digest.update(data)
                    block += 1
        found[path.name] = digest.hexdigest()
    return found
