"""A terminal in a machine."""

from __future__ import annotations

from collections.abc import AsyncIterator  # sync: from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from . import _native
from ._errors import FailedPrecondition, ProcessNotFound, SandboxLost
from ._records import exit_status, load, process_info
from ._types import ExitStatus, ProcessInfo


class AsyncPty:
    """A process on a pseudo-terminal, and a place in what it shows: iterate to get its bytes as they come.

    Up to 64 viewers, in any number of programs, see and type at the same terminal (`AsyncSandbox.attach_pty`). Leaving
    an ``async with`` block kills a terminal that was started here, and lets go of one that was attached to.

    Attributes:
        exit: How it ended, once the iteration or `wait` has seen its end.
        dropped: Bytes that were lost to this viewer: more than is kept, a MiB, was shown before it read them.
    """

    def __init__(self, native: _native.Process, *, owned: bool) -> None:
        self._native = native
        self._owned = owned
        self.exit: ExitStatus | None = None
        self.dropped = 0

    async def __aenter__(self) -> AsyncPty:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned and self.exit is None:
            # It may have ended by itself, or with its machine.
            with suppress(FailedPrecondition, ProcessNotFound, SandboxLost):
                await self.kill()
        await self.detach()

    @property
    def id(self) -> str:
        """The id by which others attach to it."""
        return self._native.id

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            event = await self._native.next()
            if event is None:
                raise StopAsyncIteration
            if event[0] == "exited":
                self.exit = exit_status(load(event[1]))
                raise StopAsyncIteration
            if event[0] == "dropped":
                self.dropped += event[1]
            else:
                return event[1]

    async def wait(self) -> ExitStatus:
        """Waits for its end, passing over what it shows until then."""
        async for _ in self:
            pass
        if self.exit is None:
            raise RuntimeError("the terminal was let go of, or read to its end elsewhere")
        return self.exit

    async def write(self, data: bytes | str) -> None:
        r"""Types these bytes; text becomes UTF-8. Enter is ``"\n"``, Ctrl-C ``"\x03"``, Ctrl-D ``"\x04"``."""
        await self._native.write_stdin(data.encode() if isinstance(data, str) else bytes(data))

    async def resize(self, rows: int, cols: int) -> None:
        """Changes its size; what is in its foreground is told (``SIGWINCH``).

        Raises:
            InvalidArgument: A side is not 1 to 4,096.
            FailedPrecondition: It has ended already.
        """
        await self._native.resize(rows, cols)

    async def send_signal(self, signal: int) -> None:
        """Sends a signal to the process group in its foreground; 9 to everything that was started on it.

        Raises:
            FailedPrecondition: It has ended already.
        """
        await self._native.signal(signal)

    async def kill(self) -> None:
        """Kills everything that was started on it."""
        await self._native.signal(9)

    async def info(self) -> ProcessInfo:
        """How it stands now; `ProcessInfo.pty` is its size."""
        return process_info(load(await self._native.info()))

    async def detach(self) -> None:
        """Lets go of it: it runs on. A read that is under way ends; the next takes it up where it was."""
        await self._native.detach()
