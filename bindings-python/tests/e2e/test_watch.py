"""What happens to files, as it happens."""

from __future__ import annotations

import asyncio

import pytest

from forkyard import AsyncSandbox, FileEvent, FileEventKind, NotFound, Sandbox, Watch


def until(events: Watch, kind: FileEventKind, path: str) -> list[tuple[str, str]]:
    seen = []
    for event in events:
        seen.append((event.kind.value, event.path))
        if (event.kind, event.path) == (kind, path):
            return seen
    raise AssertionError(f"ended after {seen}")


def test_what_happens_below_a_folder_is_told_in_its_order(sandbox: Sandbox) -> None:
    root = "/tmp/watched"
    sandbox.make_dir(f"{root}/old")
    with sandbox.watch(root) as events:
        sandbox.run("mkdir", ["-p", f"{root}/new/deep"], check=True)
        # Whether it was there when its folder came to be watched or came after, it is told.
        until(events, FileEventKind.CREATED, f"{root}/new/deep")
        sandbox.run("mv", [f"{root}/new/deep", f"{root}/new/renamed"], check=True)
        until(events, FileEventKind.MOVED, f"{root}/new/renamed")
        sandbox.run("sh", ["-c", f"cd {root}/new/renamed; echo x > file; chmod 600 file; rm file"], check=True)
        path = f"{root}/new/renamed/file"
        seen = until(events, FileEventKind.REMOVED, path)
        assert seen == [("created", path), ("modified", path), ("attributes", path), ("removed", path)]
        sandbox.run("mv", [f"{root}/new", "/tmp/elsewhere"], check=True)
        assert next(events) == FileEvent(FileEventKind.REMOVED, f"{root}/new", None, True)
        # What was moved out is not watched any more; what is moved in is.
        sandbox.run("sh", ["-c", f"touch /tmp/elsewhere/renamed/a; mv /tmp/elsewhere {root}/back"], check=True)
        assert next(events) == FileEvent(FileEventKind.CREATED, f"{root}/back", None, True)
        until(events, FileEventKind.CREATED, f"{root}/back/renamed/a")
        sandbox.remove(root, recursive=True)
        assert list(events)[-1] == FileEvent(FileEventKind.REMOVED, root, None, True)


async def test_watching_does_not_block(sandbox: Sandbox) -> None:
    machine = await AsyncSandbox.connect(sandbox.sandbox_id)
    with pytest.raises(NotFound, match="/tmp/none: no such file"):
        await machine.watch("/tmp/none")
    await machine.make_dir("/tmp/flat/below")
    async with await machine.watch("/tmp/flat", recursive=False) as events:
        waiting = asyncio.create_task(anext(events))
        await machine.write_file("/tmp/flat/below/unseen", "x")
        await machine.run("mv", ["/tmp/flat/below", "/tmp/flat/moved"], check=True)
        wanted = FileEvent(FileEventKind.MOVED, "/tmp/flat/moved", "/tmp/flat/below", True)
        assert await asyncio.wait_for(waiting, 20) == wanted
        waiting = asyncio.create_task(anext(events, None))
        await asyncio.sleep(0)
    # Closing it ends a call that waits.
    assert await asyncio.wait_for(waiting, 20) is None
    await machine.remove("/tmp/flat", recursive=True)


@pytest.mark.timeout(120)
def test_too_much_is_told_as_an_overflow(sandbox: Sandbox) -> None:
    """More than the kernel keeps happens while nobody reads."""
    sandbox.make_dir("/tmp/busy")
    with sandbox.watch("/tmp/busy") as events:
        script = "import os\nfor n in range(100000): os.utime('/tmp/busy/' + str(n % 2))"
        sandbox.run("sh", ["-c", "touch /tmp/busy/0 /tmp/busy/1"], check=True)
        sandbox.run("python3", ["-c", script], check=True)
        assert any(event.kind is FileEventKind.OVERFLOW for event in events)
    sandbox.remove("/tmp/busy", recursive=True)
