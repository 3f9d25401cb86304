"""What can go wrong, one class per code of the wire."""

from __future__ import annotations

import errno as _errno
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._types import CommandResult


class ForkyardError(Exception):
    """Any failure that Forkyard reports.

    Attributes:
        message: What was wrong, what is allowed, what to do; for people.
        code: The stable word on the wire, such as ``no_capacity``.
        request_id: The request that failed, as the server logged it; None if none reached a server.
        retry_after: Seconds after which a retry makes sense, where the server said so.
        resource: The kind of thing that is missing, taken or in the wrong state: ``sandbox``, ``process``, ``file``,
            ``image``, ``user`` or ``key``.
        errno: The number of ``errno_name`` on this host, as the module `errno` has it; None if it has none.
        errno_name: The guest kernel's own word where a system call failed, such as ``ENOSPC``.
    """

    code: str
    message: str
    request_id: str | None
    retry_after: float | None
    resource: str | None
    errno: int | None
    errno_name: str | None

    def __init__(
        self,
        message: str,
        *,
        code: str = "internal",
        request_id: str | None = None,
        retry_after: float | None = None,
        resource: str | None = None,
        errno_name: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.resource = resource
        self.errno_name = errno_name
        # Linux and other hosts number the same words differently.
        self.errno = getattr(_errno, errno_name, None) if errno_name else None

    def __str__(self) -> str:
        return self.message if self.request_id is None else f"{self.message} (request {self.request_id})"

    def __reduce__(self) -> tuple[Any, ...]:
        words = (self.code, self.request_id, self.retry_after, self.resource, self.errno_name)
        return (_rebuild, (type(self), self.message, *words))


class InvalidArgument(ForkyardError):
    """A value is out of range or not well formed; the message names it and what is allowed."""


class Unauthenticated(ForkyardError):
    """No API key, or one that is not known or was revoked."""


class PermissionDenied(ForkyardError):
    """The API key, or the user inside the machine, may not do this."""


class NotFound(ForkyardError):
    """No such thing, or it belongs to another project."""


class SandboxNotFound(NotFound):
    """No such machine."""


class ProcessNotFound(NotFound):
    """No such process in the machine, or it ended too long ago."""


class FileNotFound(NotFound, FileNotFoundError):
    """No such file or folder in the machine."""


class ImageNotFound(NotFound):
    """No such image on the server."""


class SnapshotNotFound(NotFound):
    """No such snapshot in the project."""


class PoolNotFound(NotFound):
    """No such pool in the project."""


class SnapshotCorrupt(ForkyardError):
    """A snapshot's files are not what was written; nothing is made of it."""


class AlreadyExists(ForkyardError):
    """A thing of that name is there already."""


class FailedPrecondition(ForkyardError):
    """The thing is in a state that does not allow the call."""


class PayloadTooLarge(ForkyardError):
    """The body is larger than the server takes."""


class QuotaExceeded(ForkyardError):
    """A budget of the key or the project is used up."""


class RateLimited(ForkyardError):
    """Too many requests from this key; `retry_after` says when to come back."""


class NoCapacity(ForkyardError):
    """The host has no room for another machine just now; `retry_after` says when to ask again."""


class NoSpace(ForkyardError):
    """A disk is full: the machine's or the host's, as the message says."""


class Unavailable(ForkyardError):
    """The server is starting or stopping, or the machine does not answer just now."""


class SandboxLost(ForkyardError):
    """The machine is gone: it crashed, was killed or was terminated while the call ran."""


class DeadlineExceeded(ForkyardError, TimeoutError):
    """The call's time-out passed."""


class CallCancelled(ForkyardError):
    """The call was cancelled."""


class ConnectionFailed(ForkyardError, ConnectionError):
    """The server could not be reached, or the connection broke and could not be taken up again."""


class InternalError(ForkyardError):
    """A fault of Forkyard itself."""


class CommandFailed(ForkyardError):
    """A command asked for with ``check=True`` did not exit with 0.

    Attributes:
        result: What the command did, its output included.
    """

    result: CommandResult

    def __init__(self, result: CommandResult) -> None:
        super().__init__(_describe(result), code="command_failed")
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.result,))


class CommandTimeout(ForkyardError, TimeoutError):
    """A command's `timeout` passed, and it was killed in the machine.

    Attributes:
        result: What the command did until then, its output included.
    """

    result: CommandResult

    def __init__(self, result: CommandResult) -> None:
        message = f"the command was killed after its time-out ({result.duration:.1f} s)"
        super().__init__(message, code="timeout")
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.result,))


_BY_CODE: dict[str, type[ForkyardError]] = {
    "invalid_argument": InvalidArgument,
    "unauthenticated": Unauthenticated,
    "permission_denied": PermissionDenied,
    "not_found": NotFound,
    "already_exists": AlreadyExists,
    "failed_precondition": FailedPrecondition,
    "payload_too_large": PayloadTooLarge,
    "quota_exceeded": QuotaExceeded,
    "rate_limited": RateLimited,
    "no_capacity": NoCapacity,
    "no_space": NoSpace,
    "unavailable": Unavailable,
    "sandbox_lost": SandboxLost,
    "snapshot_corrupt": SnapshotCorrupt,
    "timeout": DeadlineExceeded,
    "cancelled": CallCancelled,
    "connection": ConnectionFailed,
    "internal": InternalError,
}

_NOT_FOUND: dict[str | None, type[NotFound]] = {
    "sandbox": SandboxNotFound,
    "process": ProcessNotFound,
    "file": FileNotFound,
    "image": ImageNotFound,
    "snapshot": SnapshotNotFound,
    "pool": PoolNotFound,
}


def make_error(
    code: str,
    message: str,
    request_id: str | None = None,
    retry_after: float | None = None,
    resource: str | None = None,
    errno_name: str | None = None,
) -> ForkyardError:
    """The exception for a code; a code that this version does not know becomes a plain `ForkyardError`."""
    kind = _BY_CODE.get(code, ForkyardError)
    if kind is NotFound:
        kind = _NOT_FOUND.get(resource, NotFound)
    return _rebuild(kind, message, code, request_id, retry_after, resource, errno_name)


def _rebuild(
    kind: type[ForkyardError],
    message: str,
    code: str,
    request_id: str | None,
    retry_after: float | None,
    resource: str | None,
    errno_name: str | None,
) -> ForkyardError:
    return kind(
        message,
        code=code,
        request_id=request_id,
        retry_after=retry_after,
        resource=resource,
        errno_name=errno_name,
    )


def _describe(result: CommandResult) -> str:
    """How a command ended, and the last lines it wrote to standard error."""
    if result.oom_killed:
        how = "was killed for want of memory"
    elif result.signal is not None:
        how = f"was ended by signal {result.signal}"
    else:
        how = f"exited with {result.exit_code}"
    last = "\n".join(result.stderr.strip().splitlines()[-5:])[-1000:]
    return f"the command {how}: {last}" if last else f"the command {how}"
