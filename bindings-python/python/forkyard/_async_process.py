"""A process in a machine."""

from __future__ import annotations

from collections.abc import AsyncIterator  # sync: from collections.abc import Iterator

from . import _native
from ._records import (
    exit_status,
    load,
    process_info,
)
from ._shared import (
    Decoders,
)
from ._types import (
    ExitStatus,
    OutputEvent,
    OutputStream,
    ProcessInfo,
)


class AsyncProcess:
    """A process in a machine, and a place in its output: iterate to get its pieces as they come.

    Attributes:
        exit: How it ended, once the iteration or `wait` has seen its end.
        dropped: Bytes of output that were lost, since nobody read them while the machine had room for them.
    """

    def __init__(self, native: _native.Process) -> None:
        self._native = native
        self._decoders = Decoders()
        self.exit: ExitStatus | None = None
        self.dropped = 0

    @property
    def id(self) -> str:
        """The id by which it can be attached to again."""
        return self._native.id

    def __aiter__(self) -> AsyncIterator[OutputEvent]:
        return self

    async def __anext__(self) -> OutputEvent:
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
                return self._decoders.event(OutputStream(event[0]), event[1])

    async def wait(self) -> ExitStatus:
        """Waits for its end, passing over what output is left."""
        async for _ in self:
            pass
        if self.exit is None:
            raise RuntimeError("the process's output was read to its end elsewhere")
        return self.exit

    async def info(self) -> ProcessInfo:
        """How it stands now."""
        return process_info(load(await self._native.info()))

    async def send_signal(self, signal: int) -> None:
        """Sends a signal to its process group; 9 to everything that it started.

        After SIGTERM, SIGINT or SIGKILL it is not started again, whatever its restart policy says.

        Raises:
            FailedPrecondition: It has ended already, or waits for its next start, which only those three end.
        """
        await self._native.signal(signal)

    async def kill(self) -> None:
        """Kills it and everything that it started; it is not started again."""
        await self._native.signal(9)

    async def write_stdin(self, data: bytes | str) -> None:
        """Writes to its standard input. It must have been started with ``stdin=True``."""
        await self._native.write_stdin(data.encode() if isinstance(data, str) else bytes(data))

    async def close_stdin(self) -> None:
        """Closes its standard input."""
        await self._native.close_stdin()
