"""What the package's public API has, found in it, and what a call goes through."""

from __future__ import annotations

import contextvars
import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import forkyard

ENTERED = ("__enter__", "__exit__", "__aenter__", "__aexit__", "__iter__", "__next__", "__aiter__", "__anext__")
BLOCKING = (
    "EventStream",
    "Forward",
    "Ports",
    "Process",
    "Pty",
    "Sandbox",
    "SandboxClient",
    "SandboxListing",
    "Tunnel",
    "Watch",
    "swarm_sync",
)

# The methods that the call under way went through; None inside of one, which may use others.
_via: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("via", default=None)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Notes the public methods that are called meanwhile."""
    via: list[str] = []
    token = _via.set(via)
    try:
        yield via
    finally:
        _via.reset(token)


@contextmanager
def _noted(name: str) -> Iterator[None]:
    via = _via.get()
    if via is not None and name not in via:
        via.append(name)
    token = _via.set(None)
    try:
        yield
    finally:
        _via.reset(token)


def _noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with _noted(name):
                return await function(*args, **kwargs)

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with _noted(name):
            return function(*args, **kwargs)

    return called


def _note_member(kind: type, name: str, member: object) -> bool:
    full = f"{kind.__name__}.{name}"
    if isinstance(member, property) and member.fget is not None:
        setattr(kind, name, property(_noting(full, member.fget), doc=member.__doc__))
    elif isinstance(member, functools.cached_property):
        cached = functools.cached_property(_noting(full, member.func))
        cached.__set_name__(kind, name)
        setattr(kind, name, cached)
    elif isinstance(member, classmethod):
        setattr(kind, name, classmethod(_noting(full, member.__func__)))
    elif inspect.isfunction(member):
        setattr(kind, name, _noting(full, member))
    else:
        return False
    return True


def note(is_async: bool) -> list[str]:
    """Has the public methods of one half of the API note that they are called, and says which there are."""
    methods = []
    for name in forkyard.__all__:
        if name in BLOCKING if is_async else name.startswith("Async") or name == "swarm":
            continue
        value = getattr(forkyard, name)
        if inspect.isfunction(value):
            setattr(forkyard, name, _noting(name, value))
            methods.append(name)
        elif inspect.isclass(value) and not issubclass(value, (enum.Enum, BaseException)):
            for member_name, member in list(vars(value).items()):
                is_public = not member_name.startswith("_") or member_name in ENTERED
                # Other objects are made by calls alone.
                if member_name == "__init__" and name.endswith("SandboxClient") and inspect.isfunction(member):
                    setattr(value, member_name, _noting(name, member))
                    methods.append(name)
                if is_public and _note_member(value, member_name, member):
                    methods.append(f"{name}.{member_name}")
    return methods
