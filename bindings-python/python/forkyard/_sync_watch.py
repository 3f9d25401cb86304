# Written by tools/unasync.py from _async_watch.py: edit that file, then run the tool.
"""What happens to files in a machine, as it happens."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from . import _native
from ._records import file_event, load
from ._types import FileEvent


class Watch:
    """Events of a watched folder: iterate to get them as they come, until the folder itself is gone.

    Leaving an ``async with`` block ends it. A cut connection raises `ConnectionFailed`: what happened meanwhile is not
    known, so watch again and look.
    """

    def __init__(self, native: _native.Feed) -> None:
        self._native = native

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FileEvent]:
        return self

    def __next__(self) -> FileEvent:
        event = load(self._native.next().wait())
        if event is None:
            raise StopIteration
        return file_event(event)

    def close(self) -> None:
        """Ends it; an iteration that waits ends too."""
        self._native.close().wait()
