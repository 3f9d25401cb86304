"""What happened to a machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ._network_types import NetworkEvent


class SandboxEventKind(str, Enum):
    """What happened."""

    CREATED = "created"
    """It was given room."""
    STARTED = "started"
    """It runs for the first time."""
    SUSPENDED = "suspended"
    """It was put on disk."""
    RESUMED = "resumed"
    """It goes on from there."""
    CHECKPOINTED = "checkpointed"
    """It was frozen into a snapshot, and ran on."""
    FORKED = "forked"
    """Twins of it were started."""
    RESTORED = "restored"
    """It was put back to where a snapshot stands."""
    NETWORK = "network"
    """Something happened on its network."""
    OVERFLOW = "overflow"
    """More happened before the next event than was kept."""
    TERMINATED = "terminated"
    """It was ended on purpose. The last event, as are the three below."""
    TIMED_OUT = "timed_out"
    """It was ended since nobody had called it for its idle time-out."""
    FAILED = "failed"
    """It did not come up."""
    LOST = "lost"
    """It had run, and ended by a fault."""


@dataclass(frozen=True)
class SandboxEvent:
    """One thing that happened to a machine.

    Attributes:
        at: When, in seconds since 1970.
        kind: What.
        reason: Why, for people: of each end, and of a suspension that nobody asked for.
        snapshot_id: The snapshot that it is about; of `CREATED`, the one that the machine was made of.
        forked_from: Of `CREATED`, whose twin it was made as.
        forks: Of `FORKED`, the twins.
        network: Of `NETWORK`, what happened there.
    """

    at: float
    kind: SandboxEventKind
    reason: str | None
    snapshot_id: str | None
    forked_from: str | None
    forks: list[str]
    network: NetworkEvent | None


@dataclass(frozen=True)
class SandboxEvents:
    """Some of a machine's events, oldest first.

    Attributes:
        events: The events.
        cursor: Given to the next call, it yields what came after these.
        ended: Whether the machine has ended, so that nothing comes after these.
    """

    events: list[SandboxEvent]
    cursor: str | None
    ended: bool
