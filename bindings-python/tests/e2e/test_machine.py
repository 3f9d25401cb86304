"""The whole API on a real machine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from forkyard import (
    AsyncSandbox,
    CommandFailed,
    CommandTimeout,
    FailedPrecondition,
    FileKind,
    FileNotFound,
    ImageNotFound,
    InvalidArgument,
    NotFound,
    OutputStream,
    ProcessState,
    Sandbox,
    SandboxClient,
    SandboxLost,
    SandboxNotFound,
    SandboxStatus,
    Unauthenticated,
)

ROOT = Path(__file__).resolve().parents[3]


def test_a_command_runs_with_its_environment(sandbox: Sandbox) -> None:
    result = sandbox.run("sh", ["-c", "echo $K; echo e >&2; pwd; exit 3"], env={"K": "vä"}, cwd="/tmp")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "vä\n/tmp\n", "e\n")
    assert not result.ok
    assert sandbox.run("cat", stdin=b"a\0\xff").stdout_bytes == b"a\0\xff"
    assert sandbox.run("id", ["-un"]).stdout == "agent\n"
    assert sandbox.run("id", ["-un"], user="root").stdout == "root\n"


def test_what_goes_wrong_says_so(sandbox: Sandbox) -> None:
    with pytest.raises(CommandFailed, match="exited with 2: oops") as failed:
        sandbox.run("sh", ["-c", "echo oops >&2; exit 2"], check=True)
    assert failed.value.result.exit_code == 2
    with pytest.raises(CommandTimeout) as timed_out:
        sandbox.run("sh", ["-c", "echo before; sleep 60"], timeout=1)
    assert timed_out.value.result.stdout == "before\n"
    with pytest.raises(NotFound, match="no-such-program"):
        sandbox.run("no-such-program")
    with pytest.raises(FileNotFoundError) as missing:
        sandbox.read_file("/no/such/file")
    assert isinstance(missing.value, FileNotFound)
    with pytest.raises(InvalidArgument, match=r"\.\."):
        sandbox.read_file("/a/../b")
    with pytest.raises(TypeError, match="not one string"):
        sandbox.run("echo", "a b")


def test_output_comes_while_the_command_runs(sandbox: Sandbox) -> None:
    heard: list[tuple[str, float]] = []
    script = "echo one; sleep 1; echo two; echo err >&2"
    errors: list[str] = []
    result = sandbox.run(
        "sh", ["-c", script], on_stdout=lambda text: heard.append((text, time.monotonic())), on_stderr=errors.append
    )
    assert "".join(text for text, _ in heard) == result.stdout == "one\ntwo\n"
    assert errors == ["err\n"]
    assert heard[-1][1] - heard[0][1] > 0.5

    def fail(text: str) -> None:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match="begun"):
        sandbox.run("sh", ["-c", "echo begun; exec sleep 1234"], on_stdout=fail)
    deadline = time.monotonic() + 10
    while sandbox.run("pgrep", ["-f", "sleep 1234"]).ok:
        assert time.monotonic() < deadline, "the process goes on"


def test_a_process_is_talked_to_and_attached_to_again(sandbox: Sandbox) -> None:
    process = sandbox.start("sh", ["-c", "echo ready; read x; echo got $x; exec sleep 600"], stdin=True)
    first = next(process)
    assert (first.stream, first.text) == (OutputStream.STDOUT, "ready\n")
    process.write_stdin("word\n")
    again = sandbox.process(process.id)
    assert "".join([next(again).text, next(again).text]) == "ready\ngot word\n"
    assert process.info().state is ProcessState.RUNNING
    process.kill()
    assert again.wait().signal == 9
    with pytest.raises(FailedPrecondition):
        process.send_signal(15)
    assert process.id in [info.id for info in sandbox.processes()]


def test_files_of_any_name(sandbox: Sandbox, tmp_path: Path) -> None:
    for name in ["plain", "a b\nc", "\udcff\udcfe", "ü"]:
        path = f"/workspace/odd/{name}"
        assert sandbox.write_file(path, b"0123456789", mode=0o600).mode == 0o600
        assert sandbox.read_file(path, offset=3, length=4) == b"3456"
    assert [info.name for info in sandbox.list_files("/workspace/odd")] == ["a b\nc", "plain", "ü", "\udcff\udcfe"]
    sandbox.move("/workspace/odd/plain", "/workspace/odd/moved")
    assert not sandbox.exists("/workspace/odd/plain")
    assert sandbox.stat("/workspace/odd").kind is FileKind.DIRECTORY
    local = tmp_path / "local"
    local.write_bytes(os.urandom(3_000_000))
    seen: list[int] = []
    sandbox.upload(local, "/workspace/odd/up", on_progress=seen.append)
    assert seen[-1] == 3_000_000
    assert sandbox.download("/workspace/odd/up", tmp_path / "back") == 3_000_000
    assert (tmp_path / "back").read_bytes() == local.read_bytes()
    assert sandbox.make_dir("/workspace/odd/dir").is_dir
    sandbox.remove("/workspace/odd", recursive=True)
    assert not sandbox.exists("/workspace/odd")


def test_the_server_and_its_machines(client: SandboxClient, sandbox: Sandbox) -> None:
    assert client.server_info().capacity.sandboxes >= 1
    assert "python" in [tag for image in client.images() for tag in image.tags]
    assert sandbox.sandbox_id in [info.sandbox_id for info in client.list()]
    assert Sandbox.connect(sandbox.sandbox_id, client=client).info().status is SandboxStatus.RUNNING
    created = client.create_key(description="a test's")
    assert created.api_key not in repr(created)
    other = SandboxClient(os.environ["FORKYARD_URL"], created.api_key)
    assert other.get(sandbox.sandbox_id).sandbox_id == sandbox.sandbox_id
    client.revoke_key(created.info.key_id)
    with pytest.raises(Unauthenticated):
        other.list()
    stranger = client.create_key(project="prj_other")
    with pytest.raises(SandboxNotFound):
        SandboxClient(os.environ["FORKYARD_URL"], stranger.api_key).get(sandbox.sandbox_id)
    assert {key.key_id for key in client.list_keys()} >= {stranger.info.key_id}


def test_the_servers_document_is_openapi(client: SandboxClient) -> None:
    request = urllib.request.Request(
        os.environ["FORKYARD_URL"] + "/v1/openapi.json",
        headers={"Authorization": f"Bearer {os.environ['FORKYARD_API_KEY']}"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        served = json.load(response)
    validate(served)
    assert served == json.loads((ROOT / "docs/reference/openapi.json").read_text())


def test_bad_requests_are_refused_and_the_server_goes_on(client: SandboxClient) -> None:
    with pytest.raises(ImageNotFound, match="this server has"):
        Sandbox.create(image="none", client=client)
    with pytest.raises(InvalidArgument, match="cpus"):
        Sandbox.create(cpus=0, client=client)
    with pytest.raises(InvalidArgument, match="memory_mb"):
        Sandbox.create(memory_mb=1 << 20, client=client)
    with pytest.raises(InvalidArgument, match="a name must"):
        Sandbox.create(name="a/b", client=client)
    with pytest.raises(Unauthenticated):
        SandboxClient(os.environ["FORKYARD_URL"], "fy_wrong").list()


async def test_cancelling_kills_the_process(sandbox: Sandbox) -> None:
    machine = await AsyncSandbox.connect(sandbox.sandbox_id)
    started = asyncio.Event()

    async def heard(text: str) -> None:
        started.set()

    task = asyncio.create_task(machine.run("sh", ["-c", "echo on; exec sleep 4321"], on_stdout=heard))
    await asyncio.wait_for(started.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline = time.monotonic() + 10
    while (await machine.run("pgrep", ["-f", "sleep 4321"])).ok:
        assert time.monotonic() < deadline, "the process goes on"


async def test_leaving_the_block_ends_the_machine(client: SandboxClient) -> None:
    async with AsyncSandbox.create(image="base", memory_mb=256, name="brief", labels={"a": "b"}) as machine:
        assert (machine.name, machine.status) == ("brief", SandboxStatus.RUNNING)
        found = await AsyncSandbox.connect("brief")
        assert found.sandbox_id == machine.sandbox_id
        info = await machine.info()
        assert info.labels == {"a": "b"}
    assert machine.status is SandboxStatus.TERMINATED
    with pytest.raises(SandboxLost):
        await machine.run("true")


def test_the_first_example(client: SandboxClient) -> None:
    example = ROOT / "examples/python/01_first_sandbox.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "both machines are gone" in done.stdout
