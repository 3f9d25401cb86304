"""Processes that a machine keeps running by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Restart(str, Enum):
    """After which ends a process is started again."""

    NEVER = "never"
    """After none."""
    ON_FAILURE = "on_failure"
    """After a failure: an exit code other than 0, a signal, or a health check that failed."""
    ALWAYS = "always"
    """After all."""


@dataclass(frozen=True)
class RestartPolicy:
    """Whether and how a process is started again when it has ended.

    It is not once it was sent SIGTERM, SIGINT or SIGKILL by `AsyncProcess.send_signal` or `AsyncProcess.kill`, or its
    time-out, which counts from the first start, is over.

    Attributes:
        when: After which ends.
        max_restarts: Most restarts in a row; a run of 60 seconds or more begins a new row. None: no limit.
        backoff: Seconds before the first restart of a row, 0.1 to 3,600; each further pause is twice as long.
        max_backoff: What pauses grow to, in seconds: `backoff` to 3,600.
    """

    when: Restart | str = Restart.ON_FAILURE
    max_restarts: int | None = None
    backoff: float = 1
    max_backoff: float = 60


@dataclass(frozen=True)
class HealthCheck:
    """How a machine finds out, again and again, whether a process does its work: by a command, or by a port.

    A process that does not, and has a restart policy other than `Restart.NEVER`, is ended as one that failed.

    Attributes:
        command: A program and its arguments, which must end with 0. It runs as the process does.
        port: A TCP port of the machine's loopback, which must take a connection.
        http_path: With `port`: what is asked for by ``GET``, which must be answered with a status of 200 to 399.
        interval: Seconds from the start to the first check, and from the end of each to the next, 0.1 to 3,600.
        timeout: Seconds after which a check has failed, 0.1 to 3,600.
        retries: Failures in a row by which it is known that the process does not do its work, 1 to 100.
        start_period: Seconds from a start in which failures do not count unless there was a success before: how long
            the process may take to begin its work, 0 to 3,600.
    """

    command: Sequence[str] | None = None
    port: int | None = None
    http_path: str | None = None
    interval: float = 10
    timeout: float = 5
    retries: int = 3
    start_period: float = 30


def management(
    name: str | None, restart: RestartPolicy | Restart | str | None, health_check: HealthCheck | None
) -> str | None:
    """The wire's JSON for how a process is kept running; None where nothing is said of it."""
    said: dict[str, object] = {}
    if name is not None:
        said["name"] = name
    if restart is not None:
        policy = restart if isinstance(restart, RestartPolicy) else RestartPolicy(Restart(restart))
        said["restart"] = _known(
            when=Restart(policy.when).value,
            max_restarts=policy.max_restarts,
            backoff_ms=_millis(policy.backoff),
            max_backoff_ms=_millis(policy.max_backoff),
        )
    if health_check is not None:
        if isinstance(health_check.command, str):
            raise TypeError("command must be a list of a program and its arguments, not one string")
        said["health_check"] = _known(
            command=None if health_check.command is None else list(health_check.command),
            port=health_check.port,
            http_path=health_check.http_path,
            interval_ms=_millis(health_check.interval),
            timeout_ms=_millis(health_check.timeout),
            retries=health_check.retries,
            start_period_ms=_millis(health_check.start_period),
        )
    return json.dumps(said) if said else None


def _known(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _millis(seconds: float) -> int:
    return max(0, round(seconds * 1000))
