"""How a process is kept running, as the suite writes it."""

from __future__ import annotations

from typing import Any

from forkyard import HealthCheck, RestartPolicy

Args = dict[str, Any]


def managed(args: Args) -> Args:
    """A start's arguments with a policy and a check of the package's."""
    kinds = {"restart": RestartPolicy, "health_check": HealthCheck}
    return {**args, **{name: kind(**_in_seconds(args[name])) for name, kind in kinds.items() if name in args}}


def _in_seconds(args: Args) -> Args:
    return {name.removesuffix("_ms"): value / 1000 if name.endswith("_ms") else value for name, value in args.items()}
