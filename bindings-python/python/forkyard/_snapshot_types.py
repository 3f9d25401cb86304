"""Snapshots as calls answer with them, and which of them are kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class CheckpointType(str, Enum):
    """What of a machine a snapshot holds."""

    FILESYSTEM = "filesystem"
    """Its disk: a machine of it boots, with any number of processors and any memory."""
    MEMORY = "memory"
    """Its disk and its memory: a machine of it goes on from the very instruction."""


class SnapshotStatus(str, Enum):
    """Where a snapshot stands."""

    IN_PROGRESS = "in_progress"
    """It is being written."""
    COMPLETED = "completed"
    """It is on disk, whole."""
    FAILED = "failed"
    """It could not be made; `SnapshotInfo.reason` says why."""


@dataclass(frozen=True)
class SnapshotInfo:
    """A machine frozen on the server's disk. It never changes once it is completed.

    Attributes:
        snapshot_id: Its id, ``snap_…``.
        checkpoint_type: What it holds.
        status: Where it stands.
        reason: Why it failed, for people.
        name: Its name, if it has one.
        source: The machine that it was taken of.
        image: The image that the machine came from.
        image_digest: The image's digest.
        cpus: Virtual CPUs of the machine.
        memory_mb: Memory of the machine in MiB.
        size: Bytes that it takes on the host's disk, its image not counted.
        logical_size: Bytes of the machine's disk and, where it is held, of its memory.
        pause: Seconds for which the machine stood still.
        labels: The caller's own marks.
        retain: Whether the project's retention policy leaves it alone.
        created_at: When it was asked for.
    """

    snapshot_id: str
    checkpoint_type: CheckpointType
    status: SnapshotStatus
    reason: str | None
    name: str | None
    source: str
    image: str
    image_digest: str
    cpus: float
    memory_mb: int
    size: int
    logical_size: int
    pause: float
    labels: dict[str, str]
    retain: bool
    created_at: float


class WhenFull(str, Enum):
    """What becomes of a snapshot that the project's budget has no room for."""

    REFUSE = "refuse"
    """It fails with `NoSpace`."""
    DELETE_OLDEST = "delete_oldest"
    """The oldest are deleted until it fits."""


@dataclass(frozen=True)
class RetentionPolicy:
    """Which of its snapshots a project keeps.

    Attributes:
        budget_mb: MiB on disk that the snapshots may take in all; None for as much as the host has.
        when_full: What becomes of a snapshot that the budget has no room for.
        keep_last: How many are kept; None for all.
        max_age_secs: Seconds after which one is deleted; None for never.
    """

    budget_mb: int | None
    when_full: WhenFull
    keep_last: int | None
    max_age_secs: int | None
