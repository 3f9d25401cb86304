# Written by tools/unasync.py from _async_events.py: edit that file, then run the tool.
"""What happens to a machine, as it happens."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from . import _native
from ._event_types import SandboxEvent
from ._records import load, sandbox_event


class EventStream:
    """A machine's events: iterate to get them as they come, until the machine's end.

    Leaving an ``async with`` block ends it. It does not keep the machine from being idle.
    """

    def __init__(self, native: _native.Feed) -> None:
        self._native = native

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[SandboxEvent]:
        return self

    def __next__(self) -> SandboxEvent:
        event = load(self._native.next().wait())
        if event is None:
            raise StopIteration
        return sandbox_event(event)

    def close(self) -> None:
        """Ends it; an iteration that waits ends too."""
        self._native.close().wait()
