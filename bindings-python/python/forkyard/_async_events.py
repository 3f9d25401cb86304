"""What happens to a machine, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator  # sync: from collections.abc import Iterator
from types import TracebackType

from . import _native
from ._event_types import SandboxEvent
from ._records import load, sandbox_event


class AsyncEventStream:
    """A machine's events: iterate to get them as they come, until the machine's end.

    Leaving an ``async with`` block ends it. It does not keep the machine from being idle.
    """

    def __init__(self, native: _native.Feed) -> None:
        self._native = native

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[SandboxEvent]:
        return self

    async def __anext__(self) -> SandboxEvent:
        event = load(await self._native.next())
        if event is None:
            raise StopAsyncIteration
        return sandbox_event(event)

    async def close(self) -> None:
        """Ends it; an iteration that waits ends too."""
        await self._native.close()
