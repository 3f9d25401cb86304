"""Terminals on a real machine."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from forkyard import (
    AsyncPty,
    AsyncSandbox,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Pty,
    PtySize,
    Sandbox,
    SandboxClient,
)


def shown(pty: Pty, wanted: bytes) -> bytes:
    """What is shown until these bytes are."""
    data = b""
    for piece in pty:
        data += piece
        if wanted in data:
            return data
    raise AssertionError(f"ended without {wanted!r}: {data!r}")


async def shown_async(pty: AsyncPty, wanted: bytes) -> bytes:
    data = b""
    async for piece in pty:
        data += piece
        if wanted in data:
            return data
    raise AssertionError(f"ended without {wanted!r}: {data!r}")


def test_a_program_finds_a_terminal_of_its_own(sandbox: Sandbox) -> None:
    script = 'stty size; echo "$TERM $K $(pwd) $(id -un)"; test -w "$(tty)" && echo mine; exit 7'
    with sandbox.pty("sh", ["-c", script], rows=30, cols=100, term="vt100", env={"K": "v"}, cwd="/tmp") as pty:
        assert pty.info().pty == PtySize(30, 100)
        output = b"".join(pty)
        assert pty.exit is not None
        assert (output, pty.exit.exit_code) == (b"30 100\r\nvt100 v /tmp agent\r\nmine\r\n", 7)
        with pytest.raises(FailedPrecondition, match="ended already"):
            pty.write("x")
        with pytest.raises(FailedPrecondition, match="ended already"):
            pty.resize(1, 1)
    # The session's leader, and its foreground.
    with sandbox.pty("sh", ["-c", "ps -o pid=,sid=,tpgid=,tty= -p $$"]) as pty:
        pid, session, foreground, tty = b"".join(pty).split()
        assert pid == session == foreground
        assert tty.startswith(b"pts/")
    assert b"nosuid" in sandbox.run("grep", [" /dev/pts ", "/proc/mounts"]).stdout_bytes


def test_the_shell_takes_keys_and_a_new_size(sandbox: Sandbox) -> None:
    with sandbox.pty(env={"PS1": "$ "}) as pty:
        shown(pty, b"$ ")
        pty.resize(40, 132)
        pty.write("stty size\n")
        assert b"40 132\r\n" in shown(pty, b"40 132\r\n")
        # Ctrl-C interrupts what is in the foreground and leaves the shell.
        pty.write("sleep 1234; echo code=$?\n")
        shown(pty, b"code=$?")
        wait_for(sandbox, "sleep 1234")
        # (The kernel's own "^C" may be missing: the shell can have turned its echo off by then.)
        pty.write("\x03")
        pty.write("echo still here | tr a-z A-Z\n")
        shown(pty, b"STILL HERE")
        # And so does a signal by the API.
        pty.write("sleep 4321\n")
        wait_for(sandbox, "sleep 4321")
        pty.send_signal(2)
        pty.write("echo done | tr a-z A-Z\n")
        # Before its next prompt the shell does not take the end of input for its own.
        shown(pty, b"DONE\r\n$ ")
        pty.write("\x04")
        assert pty.wait().exit_code is not None


def wait_for(sandbox: Sandbox, command: str) -> None:
    deadline = time.monotonic() + 20
    while not sandbox.run("pgrep", ["-xf", command]).ok:
        assert time.monotonic() < deadline, f"{command} does not run"


def test_escapes_unicode_and_bytes_arrive_as_they_are(sandbox: Sandbox) -> None:
    script = r"printf '\033[2J\033[1;31mr\303\266t\033[0m\007\200\377'"
    with sandbox.pty("sh", ["-c", script]) as pty:
        assert b"".join(pty) == "\x1b[2J\x1b[1;31mröt\x1b[0m\x07".encode() + b"\x80\xff"
    every = bytes(range(256))
    script = "stty raw -echo; echo ready; head -c 256 | od -An -v -tu1 | tr -s '\\n ' ' '; echo end"
    with sandbox.pty("sh", ["-c", script]) as pty:
        shown(pty, b"ready")
        pty.write(every)
        numbers = re.findall(rb"\d+", shown(pty, b"end"))
        assert bytes(int(number) for number in numbers) == every
    # Backspace takes a whole character.
    with sandbox.pty("sh", ["-c", "stty -echo; echo ready; read x; echo got $x"]) as pty:
        shown(pty, b"ready")
        pty.write("aü\x7fb\n")
        shown(pty, b"got ab\r\n")


def test_two_viewers_see_the_same_and_both_type(sandbox: Sandbox) -> None:
    script = "stty -echo; echo ready; while read x; do echo got $x; done"
    with sandbox.pty("sh", ["-c", script]) as first, sandbox.attach_pty(first.id) as second:
        assert shown(first, b"ready\r\n") == shown(second, b"ready\r\n") == b"ready\r\n"
        first.write("one\n")
        assert shown(first, b"got one\r\n") == shown(second, b"got one\r\n")
        second.write("two\n")
        assert shown(first, b"got two\r\n") == shown(second, b"got two\r\n")
        # A third comes late, in a program of its own, and gets what was shown.
        other = Sandbox.connect(sandbox.sandbox_id, client=SandboxClient())
        third = other.attach_pty(first.id)
        assert shown(third, b"two\r\n") == b"ready\r\ngot one\r\ngot two\r\n"
        third.detach()
        first.write("three\n")
        assert shown(third, b"three\r\n") == b"got three\r\n"
        assert first.info().id in [info.id for info in sandbox.processes() if info.pty is not None]
    assert sandbox.process(first.id).wait().signal == 9


async def test_a_slow_viewer_holds_up_nobody_and_learns_what_it_lost(sandbox: Sandbox) -> None:
    machine = await AsyncSandbox.connect(sandbox.sandbox_id)
    script = "stty -opost -echo; echo ready; read x; head -c 10000000 /dev/zero | tr '\\0' a; echo; echo end"
    async with await machine.pty("sh", ["-c", script]) as quick, machine.attach_pty(quick.id) as slow:
        await shown_async(quick, b"ready\n")
        # Connected; it reads no more until the other has all.
        await shown_async(slow, b"ready\n")
        await quick.write("go\n")
        total = 10_000_000 + len("\nend\n")
        assert (await rest_of(quick), quick.dropped) == (total, 0)
        assert await rest_of(slow) + slow.dropped == total
        assert slow.dropped > 1_000_000


async def rest_of(pty: AsyncPty) -> int:
    """How many bytes are left."""
    size = 0
    async for data in pty:
        size += len(data)
    return size


def test_one_that_nobody_reads_runs_on(sandbox: Sandbox) -> None:
    script = "stty -opost; head -c 10000000 /dev/zero | tr '\\0' a; echo; echo end"
    with sandbox.pty("sh", ["-c", script]) as pty:
        # The viewer is there and stands still.
        deadline = time.monotonic() + 50
        while pty.info().exit is None:
            assert time.monotonic() < deadline, "it waits for its viewer"
            time.sleep(0.2)
        seen = b"".join(pty)
        assert pty.dropped > 1_000_000
        assert len(seen) + pty.dropped == 10_000_000 + len("\nend\n")
        assert seen.endswith(b"end\n")


def test_a_terminal_that_all_have_left_is_hung_up_if_so_asked(sandbox: Sandbox) -> None:
    pty = sandbox.pty("sh", ["-c", "echo ready; sleep 5432"], hangup_after=0.5)
    shown(pty, b"ready")
    pty.detach()
    ended = sandbox.process(pty.id).info()
    deadline = time.monotonic() + 30
    while ended.exit is None:
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.1)
        ended = sandbox.process(pty.id).info()
    assert ended.exit.signal == 1
    assert not sandbox.run("pgrep", ["-f", "sleep 5432"]).ok


async def next_of(pty: AsyncPty) -> bytes | None:
    return await anext(pty, None)


async def test_letting_go_ends_a_read_that_is_under_way(sandbox: Sandbox) -> None:
    machine = await AsyncSandbox.connect(sandbox.sandbox_id)
    async with await machine.pty("cat") as pty:
        async with machine.attach_pty(pty.id) as other:
            reading = asyncio.create_task(next_of(other))
            await pty.write("x")
            assert await reading == b"x"
            reading = asyncio.create_task(next_of(other))
            await asyncio.sleep(0.1)
        assert await asyncio.wait_for(reading, 10) is None


@pytest.mark.timeout(120)
def test_a_fork_has_the_terminal_too(client: SandboxClient) -> None:
    with Sandbox.create("base", memory_mb=256) as machine:
        pty = machine.pty("sh", ["-c", "stty -echo; echo ready; while read x; do echo got $x; done"])
        shown(pty, b"ready")
        pty.write("before\n")
        shown(pty, b"before\r\n")
        with machine.fork()[0] as twin, twin.attach_pty(pty.id) as there:
            assert shown(there, b"before\r\n") == b"ready\r\ngot before\r\n"
            there.write("twin\n")
            shown(there, b"got twin\r\n")
            pty.write("original\n")
            assert shown(pty, b"original\r\n") == b"got original\r\n"


def test_two_programs_write_to_one_process(sandbox: Sandbox) -> None:
    process = sandbox.start("cat", stdin=True)
    process.write_stdin("one\n")
    other = sandbox.process(process.id)
    other.write_stdin("two\n")
    process.write_stdin("three\n")
    other.close_stdin()
    assert b"".join(event.data for event in process) == b"one\ntwo\nthree\n"


def test_what_cannot_be_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidArgument, match="rows must be between 1 and 4096, not 0"):
        sandbox.pty(rows=0)
    with pytest.raises(InvalidArgument, match="term must be"):
        sandbox.pty(term="a b")
    with pytest.raises(InvalidArgument, match="command must be"):
        sandbox.pty(args=["-l"])
    with pytest.raises(NotFound, match="no-such-program"):
        sandbox.pty("no-such-program")
    with pytest.raises(NotFound, match="there is no process"):
        sandbox.attach_pty("prc_nowhere").write("x")
    with sandbox.pty("cat") as pty, pytest.raises(InvalidArgument, match="cols must be between 1 and 4096, not -1"):
        pty.resize(24, -1)
    process = sandbox.start("sleep", ["60"])
    with pytest.raises(FailedPrecondition, match="no terminal"):
        sandbox.attach_pty(process.id).resize(24, 80)
    process.kill()
