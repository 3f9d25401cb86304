"""What happens to files in a machine, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator  # sync: from collections.abc import Iterator
from types import TracebackType

from . import _native
from ._records import file_event, load
from ._types import FileEvent


class AsyncWatch:
    """Events of a watched folder: iterate to get them as they come, until the folder itself is gone.

    Leaving an ``async with`` block ends it. A cut connection raises `ConnectionFailed`: what happened meanwhile is not
    known, so watch again and look.
    """

    def __init__(self, native: _native.Feed) -> None:
        self._native = native

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[FileEvent]:
        return self

    async def __anext__(self) -> FileEvent:
        event = load(await self._native.next())
        if event is None:
            raise StopAsyncIteration
        return file_event(event)

    async def close(self) -> None:
        """Ends it; an iteration that waits ends too."""
        await self._native.close()
