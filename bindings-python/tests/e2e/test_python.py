"""What is Python's own: Ctrl-C, fork, threads, event loops that come and go, pickled errors."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from forkyard import AsyncSandbox, CommandFailed, FileNotFound, Sandbox
from forkyard._errors import make_error


def test_ctrl_c_ends_the_wait_and_the_process(sandbox: Sandbox) -> None:
    program = (
        "import signal, sys; from forkyard import Sandbox\n"
        # Whoever runs the tests in the background has them ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sandbox = Sandbox.connect(sys.argv[1])\n"
        "print('waiting', flush=True)\n"
        "sandbox.run('sleep', ['7777'])\n"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", program, sandbox.sandbox_id], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waiting\n"
    wait_for(lambda: sandbox.run("pgrep", ["-f", "sleep 7777"]).ok)
    interrupted = time.monotonic()
    waiting.send_signal(signal.SIGINT)
    _, errors = waiting.communicate(timeout=10)
    assert time.monotonic() - interrupted < 2
    assert "KeyboardInterrupt" in errors
    wait_for(lambda: not sandbox.run("pgrep", ["-f", "sleep 7777"]).ok)


def test_a_forked_child_is_told_no(sandbox: Sandbox) -> None:
    assert sandbox.exists("/")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            sandbox.exists("/")
            os.write(writer, b"went on")
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    assert b"before os.fork()" in os.read(reader, 1000)
    os.close(reader)


def test_threads_and_loops_share_one_client(sandbox: Sandbox) -> None:
    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: outputs.append(sandbox.run("echo", [str(n)]).stdout)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outputs) == [f"{n}\n" for n in range(8)]

    async def once() -> str:
        machine = await AsyncSandbox.connect(sandbox.sandbox_id)
        return (await machine.run("echo", ["again"])).stdout

    assert [asyncio.run(once()) for _ in range(3)] == ["again\n"] * 3


def test_a_call_is_made_once(sandbox: Sandbox) -> None:
    call = sandbox._native.info()
    call.wait()
    with pytest.raises(RuntimeError, match="only once"):
        call.wait()


async def test_a_time_out_of_asyncios_drops_the_call(sandbox: Sandbox) -> None:
    machine = await AsyncSandbox.connect(sandbox.sandbox_id)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(machine.run("sleep", ["8888"]), 2)
    deadline = time.monotonic() + 10
    while (await machine.run("pgrep", ["-f", "sleep 8888"])).ok:
        assert time.monotonic() < deadline, "the process goes on"


def test_errors_survive_pickling(sandbox: Sandbox) -> None:
    error = make_error("not_found", "no file", "req", 1.5, "file", "ENOENT")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is FileNotFound
    assert (copy.message, copy.request_id, copy.retry_after, copy.errno_name) == ("no file", "req", 1.5, "ENOENT")
    with pytest.raises(CommandFailed) as failed:
        sandbox.run("false", check=True)
    assert pickle.loads(pickle.dumps(failed.value)).result == failed.value.result


def wait_for(condition: object, seconds: float = 20) -> None:
    """Waits until a condition holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
