"""Arguments and answers as the suite writes them: the wire's names, milliseconds, bytes where text would lose some."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import enum
from typing import Any

from forkyard import CommandResult, FileEvent, FileInfo, ForkyardError

TIMES = ("at", "created_at", "started_at", "next_start_at", "ended_at", "modified_at", "duration", "pause")
SIZES = {"ImageInfo": ("size",), "SnapshotInfo": ("size", "logical_size")}


def raw(value: Any) -> Any:
    """Text as it is, bytes as bytes."""
    return base64.b64decode(value["$bytes"]) if isinstance(value, dict) else value


def as_bytes(data: bytes) -> dict[str, str]:
    return {"$bytes": base64.b64encode(data).decode()}


def seconds(millis: float | None) -> float | None:
    return None if millis is None else millis / 1000


def record(value: Any) -> Any:
    """A record of the package's."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, CommandResult):
        return result(value)
    if isinstance(value, list):
        return [record(one) for one in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {}
    for field in dataclasses.fields(value):
        name, member = field.name, record(getattr(value, field.name))
        if name in TIMES:
            name, member = f"{name}_ms", None if member is None else round(member * 1000)
        elif name in SIZES.get(type(value).__name__, ()):
            name = f"{name}_bytes"
        fields[name] = member
    if isinstance(value, FileEvent):
        # A keyword of the language's is no name.
        fields["from"] = fields.pop("moved_from")
    if isinstance(value, FileInfo):
        # Asked for what follows from its kind, a record must not contradict itself.
        assert (value.is_file, value.is_dir) == (fields["kind"] == "file", fields["kind"] == "directory")
        exact = value.name.encode("utf-8", "surrogateescape")
        try:
            exact.decode()
        except UnicodeDecodeError:
            fields["name"] = as_bytes(exact)
    return fields


def result(value: CommandResult) -> dict[str, Any]:
    """How a command went."""
    return {
        "process_id": value.process_id,
        "exit_code": value.exit_code,
        "signal": value.signal,
        "ok": value.ok,
        "stdout": value.stdout,
        "stderr": value.stderr,
        "stdout_bytes": as_bytes(value.stdout_bytes),
        "stderr_bytes": as_bytes(value.stderr_bytes),
        "oom_killed": value.oom_killed,
        "timed_out": value.timed_out,
        "duration_ms": round(value.duration * 1000),
    }


def failure(error: BaseException) -> dict[str, Any]:
    """What a call raised."""
    if isinstance(error, ForkyardError):
        told = {
            "code": error.code,
            "message": error.message,
            "request_id": error.request_id,
            "retry_after_ms": None if error.retry_after is None else round(error.retry_after * 1000),
            "resource": error.resource,
            "errno": error.errno_name,
        }
        ended = getattr(error, "result", None)
        return told if ended is None else {**told, "result": result(ended)}
    # Python's own words.
    codes = {ValueError: "invalid_argument", TimeoutError: "timeout", asyncio.TimeoutError: "timeout"}
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), "executor")
    return {"code": code, "message": f"{type(error).__name__}: {error}"}
