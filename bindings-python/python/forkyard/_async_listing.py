"""A list of machines that is fetched as it is read."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator  # sync: from collections.abc import Iterator

from . import _native
from ._records import load, sandbox_info
from ._types import SandboxInfo


class AsyncSandboxListing:
    """Machines, newest first: iterate to get them; a page is fetched whenever the one before is used up.

    A machine that is made meanwhile is not in it, and none comes twice.
    """

    def __init__(self, native: _native.Listing) -> None:
        self._native = native
        self._page: deque[SandboxInfo] = deque()

    def __aiter__(self) -> AsyncIterator[SandboxInfo]:
        return self

    async def __anext__(self) -> SandboxInfo:
        while not self._page:
            page = load(await self._native.next_page())
            if page is None:
                raise StopAsyncIteration
            self._page.extend(sandbox_info(value) for value in page)
        return self._page.popleft()
