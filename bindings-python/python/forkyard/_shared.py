"""What both halves of the API share: values on their way in and out."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Mapping, Sequence
from typing import TypedDict

from . import _native
from ._errors import CommandFailed, CommandTimeout
from ._snapshot_types import CheckpointType, WhenFull
from ._types import CommandResult, KeyScope, OutputEvent, OutputStream, SandboxStatus

Path = str | bytes | os.PathLike[str]
"""A path in a machine: text, in which surrogates stand for bytes that are not UTF-8, or the bytes themselves."""


class Spec(TypedDict):
    """A command as the native half takes it."""

    command: str
    args: list[str]
    env: dict[str, str] | None
    cwd: str | None
    user: str | None
    stdin: bytes | None
    open_stdin: bool
    timeout: float | None
    kill_on_cancel: bool
    management: str | None


def make_spec(
    command: str,
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
    stdin: bytes | str | None = None,
    open_stdin: bool = False,
    timeout: float | None = None,
    kill_on_cancel: bool = True,
    management: str | None = None,
) -> Spec:
    """A command as the native half takes it."""
    if isinstance(args, str):
        raise TypeError("args must be a list of arguments, not one string: write ['-c', 'code']")
    return Spec(
        command=command,
        args=list(args),
        env=None if env is None else dict(env),
        cwd=cwd,
        user=user,
        stdin=stdin.encode() if isinstance(stdin, str) else stdin,
        open_stdin=open_stdin,
        timeout=timeout,
        kill_on_cancel=kill_on_cancel,
        management=management,
    )


def terminal_spec(rows: int, cols: int, term: str, hangup_after: float | None) -> str:
    """The wire's JSON for a terminal."""
    spec: dict[str, object] = {"rows": rows, "cols": cols, "term": term}
    if hangup_after is not None:
        spec["hangup_after_ms"] = max(0, round(hangup_after * 1000))
    return json.dumps(spec)


def create_request(
    image: str | None,
    snapshot_id: str | None,
    name: str | None,
    cpus: float | None,
    memory_mb: int | None,
    timeout_secs: int,
    auto_resume: bool,
    queue_timeout_secs: int,
    env: Mapping[str, str] | None,
    labels: Mapping[str, str] | None,
    network: dict[str, object] | None,
) -> str:
    """The wire's JSON for a new machine."""
    request: dict[str, object] = {
        "timeout_secs": timeout_secs,
        "auto_resume": auto_resume,
        "queue_timeout_secs": queue_timeout_secs,
        "env": dict(env or {}),
        "labels": dict(labels or {}),
    }
    optional = {"image": image, "snapshot_id": snapshot_id, "name": name, "cpus": cpus, "memory_mb": memory_mb}
    if network is not None:
        request["network"] = network
    request.update((key, value) for key, value in optional.items() if value is not None)
    return json.dumps(request)


def network_policy(
    allow_internet_access: bool | None,
    allow_out: Sequence[str] | None,
    deny_out: Sequence[str] | None,
    max_connections: int | None,
    bandwidth_kbps: int | None,
) -> dict[str, object] | None:
    """A policy as the wire has it; None where nothing was said."""
    for name, rules in (("allow_out", allow_out), ("deny_out", deny_out)):
        if isinstance(rules, str):
            raise TypeError(f"{name} must be a list of rules, not one string: write [{rules!r}]")
    given: dict[str, object] = {
        "allow_internet_access": allow_internet_access,
        "allow_out": None if allow_out is None else list(allow_out),
        "deny_out": None if deny_out is None else list(deny_out),
        "max_connections": max_connections,
        "bandwidth_kbps": bandwidth_kbps,
    }
    return {key: value for key, value in given.items() if value is not None} or None


def pool_spec(
    image: str | None,
    snapshot_id: str | None,
    cpus: float | None,
    memory_mb: int | None,
    min_ready: int,
    max: int | None,  # noqa: A002
) -> str:
    """The wire's JSON for a pool."""
    optional = {"image": image, "snapshot_id": snapshot_id, "cpus": cpus, "memory_mb": memory_mb, "max": max}
    spec: dict[str, object] = {key: value for key, value in optional.items() if value is not None}
    return json.dumps({**spec, "min_ready": min_ready})


def sandbox_filter(
    name: str | None,
    status: SandboxStatus | None,
    image: str | None,
    labels: Mapping[str, str] | None,
    page_size: int,
) -> str:
    """The core's JSON for the machines to list."""
    request: dict[str, object] = {"labels": dict(labels or {}), "page_size": page_size}
    word = None if status is None else SandboxStatus(status).value
    optional = {"name": name, "status": word, "image": image}
    request.update((key, value) for key, value in optional.items() if value is not None)
    return json.dumps(request)


def checkpoint_request(kind: CheckpointType, name: str | None, labels: Mapping[str, str] | None, retain: bool) -> str:
    """The wire's JSON for a new snapshot."""
    request: dict[str, object] = {
        "checkpoint_type": CheckpointType(kind).value,
        "labels": dict(labels or {}),
        "retain": retain,
    }
    if name is not None:
        request["name"] = name
    return json.dumps(request)


def retention_policy(
    budget_mb: int | None, when_full: WhenFull, keep_last: int | None, max_age_secs: int | None
) -> str:
    """The wire's JSON for a retention policy."""
    policy: dict[str, object] = {"when_full": WhenFull(when_full).value}
    optional = {"budget_mb": budget_mb, "keep_last": keep_last, "max_age_secs": max_age_secs}
    policy.update((key, value) for key, value in optional.items() if value is not None)
    return json.dumps(policy)


def fork_request(
    count: int,
    env: Mapping[str, str] | None,
    labels: Mapping[str, str] | None,
    timeout_secs: int | None,
    network: dict[str, object] | None,
) -> str:
    """The wire's JSON for twins of a machine."""
    request: dict[str, object] = {"count": count, "env": dict(env or {})}
    if labels is not None:
        request["labels"] = dict(labels)
    if timeout_secs is not None:
        request["timeout_secs"] = timeout_secs
    if network is not None:
        request["network"] = network
    return json.dumps(request)


def key_request(
    project: str | None, scope: KeyScope, description: str, max_sandboxes: int, requests_per_second: int
) -> str:
    """The wire's JSON for a new key."""
    request: dict[str, object] = {
        "scope": scope.value,
        "description": description,
        "max_sandboxes": max_sandboxes,
        "requests_per_second": requests_per_second,
    }
    if project is not None:
        request["project"] = project
    return json.dumps(request)


def raw_path(path: Path) -> bytes:
    """A path's bytes."""
    path = os.fspath(path)
    return path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")


def checked(result: CommandResult, check: bool) -> CommandResult:
    """The result, unless the command's time was up, or it failed and was not to."""
    if result.timed_out:
        raise CommandTimeout(result)
    if check and not result.ok:
        raise CommandFailed(result)
    return result


class Decoders:
    """Both outputs' decoders: a character that two pieces cut in half comes whole with the second."""

    def __init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: make("replace") for stream in OutputStream}

    def event(self, stream: OutputStream, data: bytes) -> OutputEvent:
        """A piece of output with its text."""
        return OutputEvent(stream, data, self._decoders[stream].decode(data))


_default: tuple[int, _native.Client] | None = None


def default_client() -> _native.Client:
    """The client that is used where none is given: one a process, made at its first use."""
    global _default
    if _default is None or _default[0] != os.getpid():
        _default = (os.getpid(), _native.Client())
    return _default[1]
