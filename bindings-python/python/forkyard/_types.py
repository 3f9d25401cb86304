"""The records that calls answer with. Times are seconds since 1970, lengths of time are seconds, memory is MiB."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property


class SandboxStatus(str, Enum):
    """Where a machine stands."""

    PENDING = "pending"
    """Being made."""
    RUNNING = "running"
    """Its agent answers."""
    SUSPENDING = "suspending"
    """Being put on disk."""
    SUSPENDED = "suspended"
    """On disk: it goes on where it stood when it is resumed."""
    RESUMING = "resuming"
    """Coming back from disk."""
    TERMINATED = "terminated"
    """Ended on purpose: by a call, its time-out or the server's end."""
    FAILED = "failed"
    """Ended by a fault; `SandboxInfo.reason` says which."""


class ProcessState(str, Enum):
    """Where a process stands."""

    RUNNING = "running"
    EXITED = "exited"


class OutputStream(str, Enum):
    """One of a process's two outputs."""

    STDOUT = "stdout"
    STDERR = "stderr"


class FileKind(str, Enum):
    """What a path names."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


class KeyScope(str, Enum):
    """What an API key may do; `ADMIN` includes `SANDBOXES`."""

    SANDBOXES = "sandboxes"
    """Make, use and end machines of its project."""
    ADMIN = "admin"
    """Also make, list and revoke keys, of any project."""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended and what it wrote.

    Attributes:
        exit_code: 0 to 255; None if a signal ended it.
        signal: The number of the signal that ended it; None if it exited by itself.
        stdout_bytes: Standard output as it was written.
        stderr_bytes: Standard error as it was written.
        oom_killed: The machine's kernel killed it, or a child of it, for want of memory.
        timed_out: It was killed since its `timeout` had passed.
        duration: Wall time from start to end in seconds, by the machine's clock.
        process_id: The id by which the machine knows it.
    """

    exit_code: int | None
    signal: int | None
    stdout_bytes: bytes
    stderr_bytes: bytes
    oom_killed: bool
    timed_out: bool
    duration: float
    process_id: str

    @cached_property
    def stdout(self) -> str:
        """Standard output as text: UTF-8, with U+FFFD in place of what is not."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @cached_property
    def stderr(self) -> str:
        """Standard error as text: UTF-8, with U+FFFD in place of what is not."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.exit_code == 0


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended: by itself with a code, or by a signal.

    Attributes:
        exit_code: 0 to 255; None if a signal ended it.
        signal: The number of the signal that ended it; None if it exited by itself.
        oom_killed: The machine's kernel killed it, or a child of it, for want of memory.
        timed_out: It was killed since its `timeout` had passed.
        duration: Wall time from start to end in seconds, by the machine's clock.
        stdout_size: Bytes written to standard output in all.
        stderr_size: Bytes written to standard error in all.
    """

    exit_code: int | None
    signal: int | None
    oom_killed: bool
    timed_out: bool
    duration: float
    stdout_size: int
    stderr_size: int


@dataclass(frozen=True)
class PtySize:
    """The size of a terminal in characters."""

    rows: int
    cols: int


@dataclass(frozen=True)
class ProcessInfo:
    """A process, running or ended.

    Attributes:
        id: Its id, by which it can be attached to.
        pid: The machine's kernel's number for it.
        command: The program as it was asked for.
        args: Its arguments.
        state: Whether it runs. One that is to be started again counts as running.
        started_at: When it started, by the machine's clock; the first time, where it was started again.
        exit: How it ended; None while it runs or is to be started again.
        pty: The size of its terminal; None where it has none.
        name: What it is called, if anything.
        restarts: How often it was started again.
        next_start_at: When it is started again, by the machine's clock; None unless it waits for that.
        last_exit: How the run before this one ended, or the last; None unless it was started again or is to be.
        healthy: Whether it does its work; None unless its health check has found out.
    """

    id: str
    pid: int
    command: str
    args: list[str]
    state: ProcessState
    started_at: float
    exit: ExitStatus | None
    pty: PtySize | None
    name: str | None
    restarts: int
    next_start_at: float | None
    last_exit: ExitStatus | None
    healthy: bool | None


@dataclass(frozen=True)
class OutputEvent:
    """A piece of output, as it came.

    Attributes:
        stream: Which output it was written to.
        data: The bytes. Output that the machine no longer held when it was asked for is missing before them.
        text: The bytes as text; a character cut in two by the pieces' border comes whole with the later one.
    """

    stream: OutputStream
    data: bytes
    text: str


@dataclass(frozen=True)
class FileInfo:
    """A file's attributes.

    Attributes:
        name: The last component of its path; bytes that are not UTF-8 stand as surrogates (`os.fsdecode`), so that
            the name can be handed back as it is.
        kind: What it is.
        size: Its size in bytes.
        mode: Its permission bits, such as 0o644.
        uid: Its owner's number.
        gid: Its group's number.
        modified_at: When its contents last changed.
        target: Where a symbolic link points, with U+FFFD in place of what is not UTF-8.
    """

    name: str
    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    modified_at: float
    target: str | None

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind is FileKind.FILE

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.kind is FileKind.DIRECTORY


class FileEventKind(str, Enum):
    """What happened to a file or folder."""

    CREATED = "created"
    """It is there now: made, or moved in from elsewhere."""
    MODIFIED = "modified"
    """Its contents changed."""
    ATTRIBUTES = "attributes"
    """Its permissions, owner or times changed."""
    MOVED = "moved"
    """It has another name now."""
    REMOVED = "removed"
    """It is gone: deleted, or moved out."""
    OVERFLOW = "overflow"
    """More happened than was kept, or than can be watched: whoever needs to know looks again."""


@dataclass(frozen=True)
class FileEvent:
    """One thing that happened below a watched folder.

    Attributes:
        kind: What happened.
        path: To what: an absolute path, with U+FFFD in place of what is not UTF-8.
        moved_from: The path before, of what was moved.
        is_dir: Whether it is a folder.
    """

    kind: FileEventKind
    path: str
    moved_from: str | None
    is_dir: bool


@dataclass(frozen=True)
class ListeningPort:
    """A TCP port that something in a machine listens on.

    Attributes:
        port: The port.
        loopback_only: Whether only the machine itself could reach it over its network; `AsyncPorts` reaches it
            either way.
    """

    port: int
    loopback_only: bool


@dataclass(frozen=True)
class TreeSummary:
    """What a folder that was sent consists of.

    Attributes:
        files: Regular files.
        folders: Folders, itself among them.
        links: Symbolic links.
        bytes: Bytes of all files.
        skipped: What was left out: devices, pipes and sockets; where a folder is fetched, also links that lead out of
            it.
        skipped_paths: The first 100 of those, relative to the folder.
    """

    files: int
    folders: int
    links: int
    bytes: int
    skipped: int
    skipped_paths: list[str]


@dataclass(frozen=True)
class SandboxInfo:
    """A machine as the server shows it.

    Attributes:
        sandbox_id: Its id, ``sbx_…``.
        status: Where it stands.
        stage: While it is being made, how far it has come, such as ``booting``.
        reason: Why it failed or was terminated, for people.
        name: Its name, if it has one.
        image: The image as it was asked for.
        image_digest: The digest that the image resolved to.
        snapshot_id: The snapshot that it went on from, if it did.
        cpus: Virtual CPUs as asked for.
        memory_mb: Memory in MiB.
        timeout_secs: Seconds without any call after which it is terminated or, if it has a name, suspended.
        labels: The caller's own marks.
        created_at: When it was asked for.
        started_at: When its agent first answered.
        ended_at: When it ended.
    """

    sandbox_id: str
    status: SandboxStatus
    stage: str | None
    reason: str | None
    name: str | None
    image: str
    image_digest: str
    snapshot_id: str | None
    cpus: float
    memory_mb: int
    timeout_secs: int
    labels: dict[str, str]
    created_at: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True)
class PoolInfo:
    """Machines that the server keeps ready for `create`.

    Attributes:
        pool_id: Its id, ``pool_…``.
        image: The image that they are made of; None for the default image, or where it is a snapshot.
        snapshot_id: The snapshot that they go on from instead.
        cpus: Virtual CPUs of each; None for the default, or the snapshot's.
        memory_mb: Memory of each in MiB; None for the default, or the snapshot's.
        min_ready: Machines that are kept ready.
        max: Most machines of the pool at once, claimed ones included; None for no limit but the key's.
        ready: Machines that wait to be claimed.
        starting: Machines that are being made ready.
        claimed: Machines that were claimed and have not ended.
        hits: Machines that were claimed since the server started.
        misses: Machines of its kind that were asked for since then when none was ready.
        reason: Why it has fewer machines than it should, for people.
        created_at: When it was asked for.
    """

    pool_id: str
    image: str | None
    snapshot_id: str | None
    cpus: float | None
    memory_mb: int | None
    min_ready: int
    max: int | None
    ready: int
    starting: int
    claimed: int
    hits: int
    misses: int
    reason: str | None
    created_at: float


@dataclass(frozen=True)
class ImageInfo:
    """An image on the server.

    Attributes:
        digest: ``sha256:`` and 64 hexadecimal digits.
        name: Its recipe's name.
        tags: Words that resolve to it, such as ``python``.
        size: Bytes that its root file system takes on the host's disk.
    """

    digest: str
    name: str
    tags: list[str]
    size: int


@dataclass(frozen=True)
class Capacity:
    """The host's budget.

    Attributes:
        memory_mb: Memory for machines in all.
        memory_used_mb: Memory that living machines hold, their own overhead on the host included.
        sandboxes: Living machines of all projects.
    """

    memory_mb: int
    memory_used_mb: int
    sandboxes: int


@dataclass(frozen=True)
class ServerInfo:
    """The server.

    Attributes:
        version: Its version.
        accelerator: ``kvm``, or ``tcg`` where machines run in software.
        qemu: QEMU's version.
        capacity: What the host has room for.
    """

    version: str
    accelerator: str
    qemu: str
    capacity: Capacity


@dataclass(frozen=True)
class KeyInfo:
    """An API key, without its secret.

    Attributes:
        key_id: Its public half, ``key_…``.
        project: The project it sees.
        scope: What it may do.
        description: What it is for.
        max_sandboxes: Machines it may have alive at once.
        requests_per_second: Requests a second it may make on average.
        created_at: When it was made.
    """

    key_id: str
    project: str
    scope: KeyScope
    description: str
    max_sandboxes: int
    requests_per_second: int
    created_at: float


@dataclass(frozen=True)
class CreatedKey:
    """A new API key with its secret, which is shown this once.

    Attributes:
        api_key: The whole key, as `SandboxClient` takes it; not part of the record's `repr`.
        info: All but the secret.
    """

    api_key: str
    info: KeyInfo

    def __repr__(self) -> str:
        return f"CreatedKey(info={self.info!r})"
