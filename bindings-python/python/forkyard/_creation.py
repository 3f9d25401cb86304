"""What `AsyncSandbox.create` returns: something to await, or to enter at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar


class Terminable(Protocol):
    """A machine, as far as this module minds."""

    def terminate(self) -> Coroutine[Any, Any, Any]:
        """Ends it."""


T = TypeVar("T", bound=Terminable)


class Creation(Awaitable[T], Generic[T]):
    """A machine that is asked for when this is awaited or entered; leaving the block ends it."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._make = make
        self._made: T | None = None

    def __await__(self) -> Generator[Any, None, T]:
        return self._make().__await__()

    async def __aenter__(self) -> T:
        self._made = await self._make()
        return self._made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._made is not None:
            await self._made.terminate()
