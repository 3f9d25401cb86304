"""Processes that a machine keeps running by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from forkyard import (
    AlreadyExists,
    AsyncSandbox,
    HealthCheck,
    InvalidArgument,
    Process,
    ProcessInfo,
    ProcessState,
    Restart,
    RestartPolicy,
    Sandbox,
)

QUICK = RestartPolicy(Restart.ALWAYS, backoff=0.1)


def until(process: Process, wanted: Callable[[ProcessInfo], bool]) -> ProcessInfo:
    deadline = time.monotonic() + 60
    while not wanted(info := process.info()):
        assert time.monotonic() < deadline, info
        time.sleep(0.1)
    return info


def test_what_fails_is_started_again_with_one_id_and_one_output(sandbox: Sandbox) -> None:
    script = "n=$(cat /tmp/runs 2>/dev/null || echo 0); echo run $n; echo $((n + 1)) >/tmp/runs; test $n = 2"
    process = sandbox.start("sh", ["-c", script], name="shaky", restart=RestartPolicy(backoff=0.1))
    assert process.wait().exit_code == 0
    info = process.info()
    assert (info.name, info.restarts, info.state, info.next_start_at) == ("shaky", 2, ProcessState.EXITED, None)
    assert info.last_exit is not None
    assert info.last_exit.exit_code == 1
    output = "".join(str(event.text) for event in sandbox.process(process.id))
    assert output == "run 0\nrun 1\nrun 2\n"
    with pytest.raises(InvalidArgument, match="health_check needs a 'command' or a 'port'"):
        sandbox.start("true", health_check=HealthCheck())
    with pytest.raises(InvalidArgument, match="no standard input"):
        sandbox.start("true", stdin=True, restart="always")
    with pytest.raises(ValueError, match="sometimes"):
        sandbox.start("true", restart="sometimes")


@pytest.mark.timeout(180)
def test_a_server_is_watched_and_lives_on_in_forks_and_after_a_suspension(sandbox: Sandbox) -> None:
    check = HealthCheck(port=8099, http_path="/", interval=0.3, timeout=20, retries=2, start_period=120)
    args = ["-m", "http.server", "8099", "--bind", "127.0.0.1"]
    server = sandbox.start("python3", args, name="web", restart=QUICK, health_check=check)
    with pytest.raises(AlreadyExists, match="is called 'web' already"):
        sandbox.start("true", name="web")
    first = until(server, lambda info: info.healthy is True)
    # Whoever kills it from inside did not tell it to end.
    sandbox.run("kill", ["-9", str(first.pid)], user="root", check=True)
    again = until(server, lambda info: info.restarts >= 1 and info.healthy is True)
    assert again.pid != first.pid
    # One that stands still does not do its work.
    sandbox.run("kill", ["-STOP", str(again.pid)], user="root", check=True)
    slow = HealthCheck(port=8099, http_path="/", interval=0.3, timeout=0.5, retries=2, start_period=0)
    other = sandbox.start("sleep", ["1000"], health_check=slow)
    until(other, lambda info: info.healthy is False)
    other.kill()
    sandbox.run("kill", ["-CONT", str(again.pid)], user="root", check=True)

    [twin] = sandbox.fork(1)
    with twin:
        copy = next(info for info in twin.processes() if info.name == "web")
        assert copy.id == server.id
        process = twin.process(copy.id)
        before = until(process, lambda info: info.healthy is True)
        twin.suspend()
        twin.resume()
        twin.run("kill", ["-9", str(before.pid)], user="root", check=True)
        until(process, lambda info: info.restarts > before.restarts and info.healthy is True)
        process.kill()
        assert process.wait().signal == 9
    # The original's is another.
    assert server.info().exit is None
    server.send_signal(15)
    ended = until(server, lambda info: info.exit is not None)
    assert (ended.state, ended.healthy, ended.next_start_at) == (ProcessState.EXITED, None, None)


async def test_one_that_waits_is_told_to_end(sandbox: Sandbox) -> None:
    machine = await AsyncSandbox.connect(sandbox.sandbox_id)
    policy = RestartPolicy("on_failure", max_restarts=5, backoff=600, max_backoff=600)
    process = await machine.start("false", restart=policy)
    while (info := await process.info()).next_start_at is None:
        assert info.exit is None
    assert info.next_start_at > time.time() + 300
    assert info.state is ProcessState.RUNNING
    await process.kill()
    assert (await process.wait()).exit_code == 1
