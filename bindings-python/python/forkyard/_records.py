"""From the wire's JSON to records."""

from __future__ import annotations

import base64
import json
from typing import Any

from ._event_types import SandboxEvent, SandboxEventKind, SandboxEvents
from ._network_types import (
    NetworkCounters,
    NetworkEvent,
    NetworkEventKind,
    NetworkEvents,
    NetworkInfo,
    NetworkLink,
    NetworkPolicy,
)
from ._snapshot_types import CheckpointType, RetentionPolicy, SnapshotInfo, SnapshotStatus, WhenFull
from ._types import (
    Capacity,
    CreatedKey,
    ExitStatus,
    FileEvent,
    FileEventKind,
    FileInfo,
    FileKind,
    ImageInfo,
    KeyInfo,
    KeyScope,
    ListeningPort,
    PoolInfo,
    ProcessInfo,
    ProcessState,
    PtySize,
    SandboxInfo,
    SandboxStatus,
    ServerInfo,
    TreeSummary,
)


def _seconds(millis: float | None) -> float | None:
    return None if millis is None else millis / 1000


def sandbox_info(value: dict[str, Any]) -> SandboxInfo:
    """A machine's record."""
    return SandboxInfo(
        sandbox_id=value["sandbox_id"],
        status=SandboxStatus(value["status"]),
        stage=value.get("stage"),
        reason=value.get("reason"),
        name=value.get("name"),
        image=value["image"],
        image_digest=value["image_digest"],
        snapshot_id=value.get("snapshot_id"),
        cpus=value["cpus"],
        memory_mb=value["memory_mb"],
        timeout_secs=value["timeout_secs"],
        labels=value["labels"],
        created_at=value["created_at_ms"] / 1000,
        started_at=_seconds(value.get("started_at_ms")),
        ended_at=_seconds(value.get("ended_at_ms")),
    )


def snapshot_info(value: dict[str, Any]) -> SnapshotInfo:
    """A snapshot's record."""
    return SnapshotInfo(
        snapshot_id=value["snapshot_id"],
        checkpoint_type=CheckpointType(value["checkpoint_type"]),
        status=SnapshotStatus(value["status"]),
        reason=value.get("reason"),
        name=value.get("name"),
        source=value["source"],
        image=value["image"],
        image_digest=value["image_digest"],
        cpus=value["cpus"],
        memory_mb=value["memory_mb"],
        size=value["size_bytes"],
        logical_size=value["logical_size_bytes"],
        pause=value["pause_ms"] / 1000,
        labels=value["labels"],
        retain=value["retain"],
        created_at=value["created_at_ms"] / 1000,
    )


def retention(value: dict[str, Any]) -> RetentionPolicy:
    """A retention policy."""
    return RetentionPolicy(
        budget_mb=value.get("budget_mb"),
        when_full=WhenFull(value["when_full"]),
        keep_last=value.get("keep_last"),
        max_age_secs=value.get("max_age_secs"),
    )


def pool_info(value: dict[str, Any]) -> PoolInfo:
    """A pool."""
    return PoolInfo(
        pool_id=value["pool_id"],
        image=value.get("image"),
        snapshot_id=value.get("snapshot_id"),
        cpus=value.get("cpus"),
        memory_mb=value.get("memory_mb"),
        min_ready=value["min_ready"],
        max=value.get("max"),
        ready=value["ready"],
        starting=value["starting"],
        claimed=value["claimed"],
        hits=value["hits"],
        misses=value["misses"],
        reason=value.get("reason"),
        created_at=value["created_at_ms"] / 1000,
    )


def exit_status(value: dict[str, Any]) -> ExitStatus:
    """How a process ended."""
    return ExitStatus(
        exit_code=value.get("exit_code"),
        signal=value.get("signal"),
        oom_killed=value["oom_killed"],
        timed_out=value["timed_out"],
        duration=value["duration_ms"] / 1000,
        stdout_size=value["stdout_bytes"],
        stderr_size=value["stderr_bytes"],
    )


def process_info(value: dict[str, Any]) -> ProcessInfo:
    """A process's record."""
    ended, ended_before = value.get("exit"), value.get("last_exit")
    size, next_start = value.get("pty"), value.get("next_start_at_ms")
    return ProcessInfo(
        id=value["id"],
        pid=value["pid"],
        command=value["command"],
        args=value["args"],
        state=ProcessState(value["state"]),
        started_at=value["started_at_ms"] / 1000,
        exit=None if ended is None else exit_status(ended),
        pty=None if size is None else PtySize(**size),
        name=value.get("name"),
        restarts=value.get("restarts", 0),
        next_start_at=None if next_start is None else next_start / 1000,
        last_exit=None if ended_before is None else exit_status(ended_before),
        healthy=value.get("healthy"),
    )


def file_info(value: dict[str, Any]) -> FileInfo:
    """A file's attributes."""
    exact = value.get("name_base64")
    name = value["name"] if exact is None else base64.b64decode(exact).decode("utf-8", "surrogateescape")
    return FileInfo(
        name=name,
        kind=FileKind(value["kind"]),
        size=value["size"],
        mode=value["mode"],
        uid=value["uid"],
        gid=value["gid"],
        modified_at=value["modified_at_ms"] / 1000,
        target=value.get("target"),
    )


def listening_port(value: dict[str, Any]) -> ListeningPort:
    """A port that something listens on."""
    return ListeningPort(port=value["port"], loopback_only=value["loopback_only"])


def file_event(value: dict[str, Any]) -> FileEvent:
    """One thing that happened."""
    return FileEvent(
        kind=FileEventKind(value["kind"]),
        path=value["path"],
        moved_from=value.get("from"),
        is_dir=value.get("is_dir", False),
    )


def tree_summary(value: dict[str, Any]) -> TreeSummary:
    """What a folder consists of."""
    return TreeSummary(
        files=value["files"],
        folders=value["folders"],
        links=value["links"],
        bytes=value["bytes"],
        skipped=value["skipped"],
        skipped_paths=value.get("skipped_paths", []),
    )


def image_info(value: dict[str, Any]) -> ImageInfo:
    """An image."""
    return ImageInfo(digest=value["digest"], name=value["name"], tags=value["tags"], size=value["size_bytes"])


def server_info(value: dict[str, Any]) -> ServerInfo:
    """The server."""
    return ServerInfo(
        version=value["version"],
        accelerator=value["accelerator"],
        qemu=value["qemu"],
        capacity=Capacity(**value["capacity"]),
    )


def key_info(value: dict[str, Any]) -> KeyInfo:
    """An API key without its secret."""
    return KeyInfo(
        key_id=value["key_id"],
        project=value["project"],
        scope=KeyScope(value["scope"]),
        description=value["description"],
        max_sandboxes=value["max_sandboxes"],
        requests_per_second=value["requests_per_second"],
        created_at=value["created_at_ms"] / 1000,
    )


def created_key(value: dict[str, Any]) -> CreatedKey:
    """An API key with its secret."""
    return CreatedKey(api_key=value["api_key"], info=key_info(value["info"]))


def load(text: str) -> Any:
    """What a native call answered."""
    return json.loads(text)


def network_info(value: dict[str, Any]) -> NetworkInfo:
    """A machine's network."""
    policy = value["policy"]
    return NetworkInfo(
        policy=NetworkPolicy(
            allow_internet_access=policy["allow_internet_access"],
            allow_out=policy.get("allow_out", []),
            deny_out=policy.get("deny_out", []),
            max_connections=policy.get("max_connections"),
            bandwidth_kbps=policy.get("bandwidth_kbps"),
        ),
        counters=NetworkCounters(**value["counters"]),
        link=NetworkLink(value["link"]),
    )


def network_events(value: list[Any]) -> NetworkEvents:
    """What happened on a machine's network, and the cursor to go on with."""
    events, cursor = value
    return NetworkEvents([_network_event(event) for event in events], cursor)


def sandbox_events(value: dict[str, Any]) -> SandboxEvents:
    """What happened to a machine, and the cursor to go on with."""
    return SandboxEvents([sandbox_event(event) for event in value["events"]], value["cursor"], value["ended"])


def sandbox_event(value: dict[str, Any]) -> SandboxEvent:
    """One thing that happened to a machine."""
    network = value.get("network")
    return SandboxEvent(
        at=value["at_ms"] / 1000,
        kind=SandboxEventKind(value["kind"]),
        reason=value.get("reason"),
        snapshot_id=value.get("snapshot_id"),
        forked_from=value.get("forked_from"),
        forks=value.get("forks", []),
        network=None if network is None else _network_event(network),
    )


def _network_event(value: dict[str, Any]) -> NetworkEvent:
    return NetworkEvent(
        at=value["at_ms"] / 1000,
        kind=NetworkEventKind(value["kind"]),
        protocol=value.get("protocol"),
        name=value.get("name"),
        address=value.get("address"),
        port=value.get("port"),
        bytes_out=value["bytes_out"],
        bytes_in=value["bytes_in"],
        verdict=value.get("verdict"),
        rule=value.get("rule"),
    )
