"""One job on many machines: order, isolation, retries, the report, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import serving

import forkyard
from forkyard import (
    AsyncSandbox,
    CheckpointType,
    ImageNotFound,
    Sandbox,
    SandboxClient,
    SandboxStatus,
    SwarmProgress,
    TaskStatus,
)


@pytest.fixture(scope="module")
def snapshot_id(client: SandboxClient) -> Iterator[str]:
    """A machine that is set up, frozen with its memory."""
    with Sandbox.create("python", memory_mb=256, client=client) as base:
        base.write_file("/dev/shm/setup", b"done")
        snapshot = base.checkpoint(CheckpointType.MEMORY)
    yield snapshot.snapshot_id
    client.delete_snapshot(snapshot.snapshot_id)


def alive(client: SandboxClient, snapshot_id: str) -> list[str]:
    """The forks of the snapshot that have not ended."""
    ended = (SandboxStatus.TERMINATED, SandboxStatus.FAILED)
    return [it.sandbox_id for it in client.list() if it.snapshot_id == snapshot_id and it.status not in ended]


async def test_each_task_has_a_machine_and_an_error_harms_no_other(client: SandboxClient, snapshot_id: str) -> None:
    seen: list[SwarmProgress] = []
    most = 0

    async def job(sandbox: AsyncSandbox, task: int) -> str:
        nonlocal most
        most = max(most, len(alive(client, snapshot_id)))
        if task == 2:
            raise ValueError("two is odd here")
        return f"{task} {(await sandbox.run('cat', ['/dev/shm/setup'])).stdout}"

    report = await forkyard.swarm(job, range(5), snapshot_id=snapshot_id, concurrency=2, on_progress=seen.append)
    assert report.results == ["0 done", "1 done", "3 done", "4 done"]
    assert (report.succeeded, report.failed, most) == (4, 1, 2)
    failed = report.tasks[2]
    assert (failed.status, str(failed.error), failed.result) == (TaskStatus.FAILED, "two is odd here", None)
    machines = {attempt.sandbox_id for task in report.tasks for attempt in task.attempts}
    assert len(machines) == 5
    assert report.sequential > report.wall > 0
    assert report.efficiency == pytest.approx(report.speedup / 2)
    for task in report.tasks:
        for attempt in task.attempts:
            assert attempt.ready is not None
            assert attempt.ended is not None
            assert 0 <= attempt.started < attempt.ready < attempt.ended <= report.wall
    assert (seen[0].total, seen[0].starting, seen[0].waiting) == (5, 1, 4)
    assert (seen[-1].succeeded, seen[-1].failed) == (4, 1)
    assert max(progress.running for progress in seen) == 2
    assert alive(client, snapshot_id) == []


async def test_a_task_that_fails_gets_another_machine(client: SandboxClient, snapshot_id: str) -> None:
    tries: list[str] = []

    async def job(sandbox: AsyncSandbox, task: str) -> str:
        tries.append(sandbox.sandbox_id)
        if len(tries) < 3:
            await sandbox.run("false", check=True)
        return task

    report = await forkyard.swarm(job, ["a"], snapshot_id=snapshot_id, retries=2)
    assert report.results == ["a"]
    assert len(set(tries)) == 3
    assert ["exited with 1" in str(attempt.error) for attempt in report.tasks[0].attempts] == [True, True, False]


async def test_what_is_refused_is_not_tried_again(client: SandboxClient) -> None:
    async def job(sandbox: AsyncSandbox, task: int) -> None: ...

    report = await forkyard.swarm(job, [1], image="no-such-image", retries=3)
    assert isinstance(report.tasks[0].error, ImageNotFound)
    assert len(report.tasks[0].attempts) == 1
    with pytest.raises(ValueError, match="concurrency"):
        await forkyard.swarm(job, [1], concurrency=0)
    assert (await forkyard.swarm(job, [])).tasks == []


async def test_a_slow_task_is_timed_out_and_a_cancelled_swarm_leaves_nothing(
    client: SandboxClient, snapshot_id: str
) -> None:
    async def job(sandbox: AsyncSandbox, task: int) -> None:
        await sandbox.run("sleep", ["600"])

    slow = await forkyard.swarm(job, [1], snapshot_id=snapshot_id, task_timeout=0.5)
    assert isinstance(slow.tasks[0].error, TimeoutError | asyncio.TimeoutError)
    ready = asyncio.Event()

    def progress(progress: SwarmProgress) -> None:
        if progress.running == 2:
            ready.set()

    under_way = asyncio.create_task(
        forkyard.swarm(job, range(4), snapshot_id=snapshot_id, concurrency=2, on_progress=progress)
    )
    await asyncio.wait_for(ready.wait(), 60)
    assert len(alive(client, snapshot_id)) == 2
    under_way.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await under_way
    assert alive(client, snapshot_id) == []


def test_jobs_that_block_run_in_threads(client: SandboxClient, snapshot_id: str) -> None:
    both = threading.Barrier(2, timeout=60)

    def job(sandbox: Sandbox, task: int) -> str:
        both.wait()
        return sandbox.run("sh", ["-c", f"echo {task}"]).stdout

    report = forkyard.swarm_sync(job, [1, 2], snapshot_id=snapshot_id, concurrency=2)
    assert report.results == ["1\n", "2\n"]

    def interrupted(sandbox: Sandbox, task: int) -> str:
        return sandbox.run("sleep", ["600"]).stdout

    def interrupt(progress: SwarmProgress) -> None:
        if progress.running:
            client.terminate(alive(client, snapshot_id)[0])

    lost = forkyard.swarm_sync(interrupted, [1], snapshot_id=snapshot_id, on_progress=interrupt)
    assert isinstance(lost.tasks[0].error, forkyard.SandboxLost)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as at a terminal: programs that a shell starts in the background ignore it, and these tests with them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_swarm_leaves_nothing(client: SandboxClient, snapshot_id: str) -> None:
    def job(sandbox: Sandbox, task: int) -> None:
        sandbox.run("sleep", ["600"])

    def interrupt(progress: SwarmProgress) -> None:
        if progress.running == 2:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        forkyard.swarm_sync(job, range(4), snapshot_id=snapshot_id, concurrency=2, on_progress=interrupt)
    assert alive(client, snapshot_id) == []


EXAMPLE = Path(__file__).parents[3] / "examples/python/02_swarm.py"


class Lead(BaseHTTPRequestHandler):
    """A language model that always says the same, and remembers what it was asked."""

    asked: ClassVar[list[tuple[str, str | None, str]]] = []

    def do_POST(self) -> None:
        """Answers as a chat completion."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.path, self.headers["Authorization"], body))
        answer = json.dumps({"choices": [{"message": {"content": "Mend the pickle first."}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Is silent."""


@pytest.mark.timeout(300)
def test_the_example_reviews_with_five_agents_and_a_lead(client: SandboxClient) -> None:
    lead = HTTPServer(("127.0.0.1", 0), Lead)
    threading.Thread(target=lead.serve_forever, daemon=True).start()
    env = {
        **os.environ,
        "OPENAI_API_KEY": "sk-secret",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{lead.server_port}/v1",
        # No machine reaches its host.
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    }
    try:
        done = subprocess.run(
            [sys.executable, EXAMPLE], capture_output=True, text=True, timeout=280, check=False, env=env
        )
    finally:
        lead.shutdown()
        lead.server_close()
    assert done.returncode == 0, done.stdout + done.stderr
    for perspective in ("security", "complexity", "docstrings", "tests", "structure"):
        assert perspective in done.stdout
    assert "the image 'code-review' has the tools" in done.stdout
    assert "shell=True" in done.stdout, "bandit's word for it"
    assert "shipping has complexity 17" in done.stdout
    assert "by model: Mend the pickle first." in done.stdout
    [(path, authorization, body)] = Lead.asked
    assert (path, authorization) == ("/v1/chat/completions", "Bearer sk-secret")
    assert "shares a mutable default" in body
    assert "sk-secret" not in done.stdout + done.stderr
    assert all(snapshot.name != "code-review-base" for snapshot in client.snapshots())


def way_to_pypi() -> list[str]:
    """The arguments with which a server's machines reach PyPI; skips the test where this host does not."""
    rules = []
    for host in ("pypi.org", "files.pythonhosted.org"):
        try:
            with socket.create_connection((host, 443), timeout=10) as connection:
                address = ipaddress.ip_address(connection.getpeername()[0])
        except OSError as error:
            pytest.skip(f"this host does not reach {host}: {error}")
        if not address.is_global:
            rules += ["--network-allow", f"[{address}]:443" if address.version == 6 else f"{address}:443"]
    return rules


BASE_ALONE = """
import asyncio, runpy, sys
example = runpy.run_path(sys.argv[1])
async def main():
    async with await example["make_base"]() as base:
        print(await example["set_up"](base))
        print("reaches", (await base.network()).policy.allow_out)
asyncio.run(main())
"""


@pytest.mark.timeout(300)
def test_the_example_installs_its_tools_where_it_reaches_an_index() -> None:
    with serving(*way_to_pypi()) as server:
        env = {**os.environ, **server}
        env.pop("PIP_INDEX_URL", None)
        command = [sys.executable, "-c", BASE_ALONE, str(EXAMPLE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installed inside it, with pip" in done.stdout
    assert "'bandit': '1.9.4'" in done.stdout
    assert "reaches []" in done.stdout


def test_the_example_opens_nothing_but_the_index() -> None:
    way_to = runpy.run_path(str(EXAMPLE))["way_to"]
    assert way_to("https://pypi.org/simple") == ["pypi.org:443", "files.pythonhosted.org:443"]
    assert way_to("http://user:secret@mirror.example:3141/root/+simple/") == ["mirror.example:3141"]
    assert way_to("http://[2001:db8::1]/simple") == ["[2001:db8::1]:80"]
    for wrong in ("", "mirror.example", "file:///wheels"):
        with pytest.raises(ValueError, match="names no package index"):
            way_to(wrong)
