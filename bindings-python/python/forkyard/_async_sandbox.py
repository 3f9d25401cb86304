"""A machine: its life, its commands and its files."""

from __future__ import annotations

import inspect  # sync:
import json
from collections.abc import (
    Awaitable,  # sync:
    Callable,
    Mapping,
    Sequence,
)
from pathlib import Path as LocalPath
from types import TracebackType

from . import _native
from ._async_client import AsyncSandboxClient
from ._async_events import AsyncEventStream
from ._async_ports import AsyncPorts
from ._async_process import AsyncProcess
from ._async_pty import AsyncPty
from ._async_watch import AsyncWatch
from ._creation import Creation  # sync:
from ._event_types import SandboxEvents
from ._managed_types import HealthCheck, Restart, RestartPolicy, management
from ._network_types import NetworkEvents, NetworkInfo
from ._records import (
    file_info,
    load,
    network_events,
    network_info,
    process_info,
    sandbox_events,
    sandbox_info,
    snapshot_info,
    tree_summary,
)
from ._shared import (
    Path,
    checked,
    checkpoint_request,
    create_request,
    default_client,
    fork_request,
    make_spec,
    network_policy,
    raw_path,
    terminal_spec,
)
from ._snapshot_types import CheckpointType, SnapshotInfo
from ._types import (
    CommandResult,
    FileInfo,
    OutputStream,
    ProcessInfo,
    SandboxInfo,
    SandboxStatus,
    TreeSummary,
)

OnOutput = Callable[[str], Awaitable[None] | None]  # sync: OnOutput = Callable[[str], None]


class AsyncSandbox:
    """A machine of one's own: an isolated microVM that runs commands and keeps files until it is terminated.

    Leaving an ``async with`` block terminates it.
    """

    def __init__(self, native: _native.Sandbox) -> None:
        self._native = native
        self._record = sandbox_info(load(native.record))

    @classmethod
    def create(
        cls,
        image: str | None = None,
        *,
        snapshot_id: str | None = None,
        name: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        timeout_secs: int = 600,
        auto_resume: bool = True,
        queue_timeout_secs: int = 0,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        allow_internet_access: bool = False,
        allow_out: Sequence[str] = (),
        deny_out: Sequence[str] = (),
        max_connections: int | None = None,
        bandwidth_kbps: int | None = None,
        client: AsyncSandboxClient | None = None,
    ) -> Creation[AsyncSandbox]:  # sync: ) -> Sandbox:
        """Makes a machine and waits until it runs; where the host has no room, waits for it for two minutes.

        Args:
            image: An image's tag or digest. Default: ``python``.
            snapshot_id: A snapshot to go on from instead of an image.
            name: A name, unique in the project. A machine with a name is suspended at its idle time-out.
            cpus: Virtual CPUs, above 0 and at most 64; part of one is a whole one. Default: 1, or the snapshot's.
            memory_mb: Memory in MiB, 128 to 524,288. Default: 512, or the snapshot's.
            timeout_secs: Seconds without any call after which it is terminated or, if it has a name, suspended.
            auto_resume: Whether a call to it resumes it when it is suspended.
            queue_timeout_secs: Seconds to wait for room in line with others, at most 3,600, where the host has none or
                the key may have no more machines; the keys' lines are served in turn.
            env: Environment of every process in it.
            labels: The caller's own marks, at most 64.
            allow_internet_access: Whether it may reach what no rule names. Without it and `allow_out`, nothing.
            allow_out: What it may reach whatever else is said: rules as in `NetworkPolicy`.
            deny_out: What it may not reach unless `allow_out` names it.
            max_connections: Most connections at once, 1 to 4,096. Default: the server's limit.
            bandwidth_kbps: Kilobits a second in each direction, at least 8. Default: the server's limit.
            client: The server to ask. Default: one found by the environment (`AsyncSandboxClient`).

        Raises:
            InvalidArgument: A value is out of range, or other CPUs or memory than those of a memory snapshot.
            ImageNotFound: The server has no such image.
            SnapshotNotFound: The project has no such snapshot.
            SnapshotCorrupt: The snapshot's files are damaged.
            NoCapacity: The host had no room for it in time.
            QuotaExceeded: The key may have no more machines.
        """
        network = network_policy(allow_internet_access, allow_out, deny_out, max_connections, bandwidth_kbps)
        request = create_request(
            image,
            snapshot_id,
            name,
            cpus,
            memory_mb,
            timeout_secs,
            auto_resume,
            queue_timeout_secs,
            env,
            labels,
            network,
        )

        async def make() -> AsyncSandbox:
            native = default_client() if client is None else client._native
            return cls(await native.create(request))  # sync: return cls(native.create(request).wait())

        return Creation(make)  # sync: return make()

    @classmethod
    async def connect(cls, name_or_id: str, *, client: AsyncSandboxClient | None = None) -> AsyncSandbox:
        """A machine that is there already, by its name or id.

        Raises:
            NotFound: None that runs has this name, or none this id.
        """
        native = default_client() if client is None else client._native
        return cls(await native.connect(name_or_id))  # sync: return cls(native.connect(name_or_id).wait())

    @classmethod
    async def get_or_create(
        cls,
        name: str,
        image: str | None = None,
        *,
        snapshot_id: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        timeout_secs: int = 600,
        auto_resume: bool = True,
        queue_timeout_secs: int = 0,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        allow_internet_access: bool = False,
        allow_out: Sequence[str] = (),
        deny_out: Sequence[str] = (),
        max_connections: int | None = None,
        bandwidth_kbps: int | None = None,
        client: AsyncSandboxClient | None = None,
    ) -> AsyncSandbox:
        """The machine of this name, running: the one that is there, resumed if it is suspended, or else a new one.

        However many programs ask at once, one machine is made and all get it. One that is there is taken **as it is**:
        the other arguments, which are those of `create`, say only what a new one is made of, and are not compared with
        it (`info` says what it is). Cancelling this call ends no machine, since others may have it already.

        Raises:
            InvalidArgument: A value is out of range.
            ImageNotFound: None has this name, and the server has no such image.
            SnapshotNotFound: None has this name, and the project has no such snapshot.
            NoCapacity: The host had no room for it in time.
            QuotaExceeded: None has this name, and the key may have no more machines.
        """
        network = network_policy(allow_internet_access, allow_out, deny_out, max_connections, bandwidth_kbps)
        request = create_request(
            image,
            snapshot_id,
            name,
            cpus,
            memory_mb,
            timeout_secs,
            auto_resume,
            queue_timeout_secs,
            env,
            labels,
            network,
        )
        found = default_client() if client is None else client._native
        made = await found.get_or_create(name, request)  # sync: made = found.get_or_create(name, request).wait()
        return cls(made)

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.terminate()

    @property
    def sandbox_id(self) -> str:
        """Its id, ``sbx_…``."""
        return self._record.sandbox_id

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""
        return self._record.name

    @property
    def status(self) -> SandboxStatus:
        """Where it stood when the server was last asked (`info`, `terminate`)."""
        return self._record.status

    @property
    def ports(self) -> AsyncPorts:
        """Its ports: servers in it are reached there."""
        return AsyncPorts(self._native)

    async def info(self) -> SandboxInfo:
        """Its record as it is now."""
        self._record = sandbox_info(load(await self._native.info()))
        return self._record

    async def terminate(self) -> SandboxInfo:
        """Ends it and waits for its end; ending one that has ended answers how it ended."""
        self._record = sandbox_info(load(await self._native.terminate()))
        return self._record

    async def checkpoint(
        self,
        checkpoint_type: CheckpointType = CheckpointType.FILESYSTEM,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        retain: bool = False,
    ) -> SnapshotInfo:
        """Freezes the machine, which goes on running, and waits until the snapshot is on disk.

        Machines are made of it with `create(snapshot_id=…)`, any number of them.

        Args:
            checkpoint_type: The disk alone, or the memory too.
            name: A name for people.
            labels: The caller's own marks, at most 64.
            retain: Whether the project's retention policy leaves it alone (`AsyncSandboxClient.set_retention`).

        Raises:
            NoSpace: The host's disk, or the project's budget for snapshots, is full; nothing is left of the attempt.
        """
        request = checkpoint_request(checkpoint_type, name, labels, retain)
        return snapshot_info(load(await self._native.checkpoint(request)))

    async def fork(
        self,
        count: int = 1,
        *,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        allow_internet_access: bool | None = None,
        allow_out: Sequence[str] | None = None,
        deny_out: Sequence[str] | None = None,
        max_connections: int | None = None,
        bandwidth_kbps: int | None = None,
    ) -> list[AsyncSandbox]:
        """Starts twins of the machine, each with its memory, its processes and its disk, and waits until they run.

        Args:
            count: How many, 1 to 1,000.
            env: Added to the machine's environment, for processes that start in the twins.
            labels: The twins' marks. Default: the machine's.
            timeout_secs: The twins' idle time-out. Default: the machine's.
            allow_internet_access: Where this or one of the following is given, they are all of the twins' policy, as in
                `create`. Default: the twins may reach what the machine may.
            allow_out: The same.
            deny_out: The same.
            max_connections: The same.
            bandwidth_kbps: The same.

        Raises:
            NoCapacity: The host has no room for all of them; none is left.
            SandboxLost: The machine, or one of the twins on its way, ended; none is left.
            QuotaExceeded: The key may have no more machines.
        """
        network = network_policy(allow_internet_access, allow_out, deny_out, max_connections, bandwidth_kbps)
        request = fork_request(count, env, labels, timeout_secs, network)
        return [type(self)(native) for native in await self._native.fork(request)]

    async def network(self) -> NetworkInfo:
        """What the machine may reach, and what went through."""
        return network_info(load(await self._native.network()))

    async def update_network(
        self,
        *,
        allow_internet_access: bool = False,
        allow_out: Sequence[str] = (),
        deny_out: Sequence[str] = (),
        max_connections: int | None = None,
        bandwidth_kbps: int | None = None,
    ) -> NetworkInfo:
        """Has the machine reach something else from now on: what is given here, in place of all that was given before.

        Connections that it may no longer have are reset before this returns. A suspended machine finds it when it is
        resumed.

        Args:
            allow_internet_access: As in `create`.
            allow_out: As in `create`.
            deny_out: As in `create`.
            max_connections: As in `create`.
            bandwidth_kbps: As in `create`.

        Raises:
            InvalidArgument: A rule is none, or a number is out of range.
            FailedPrecondition: The machine goes on from a snapshot of before machines had a network.
        """
        policy = network_policy(allow_internet_access, allow_out, deny_out, max_connections, bandwidth_kbps)
        return network_info(load(await self._native.update_network(json.dumps(policy or {}))))

    async def network_events(self, cursor: str | None = None, *, wait: float = 0) -> NetworkEvents:
        """What happened on the machine's network, oldest first: the newest 1,000 events, or those after a cursor.

        The server keeps them in its memory, until it ends.

        Args:
            cursor: Only what came after the events that had it (`NetworkEvents.cursor`).
            wait: Seconds to wait for the next event where there is none yet, at most 60 and half of the client's
                time-out.

        Raises:
            InvalidArgument: The cursor is none.
        """
        return network_events(load(await self._native.network_events(cursor, wait)))

    async def events(self, cursor: str | None = None, *, wait: float = 0) -> SandboxEvents:
        """What happened to the machine from its making to its end, oldest first: all that is kept, or what came after.

        The newest 200 events of its life are kept, also when the server is started anew, and the newest 1,000 of its
        network, in the server's memory.

        Args:
            cursor: Only what came after the events that had it (`SandboxEvents.cursor`).
            wait: Seconds to wait for the next event where there is none yet, at most 60 and half of the client's
                time-out.

        Raises:
            InvalidArgument: The cursor is none.
        """
        return sandbox_events(load(await self._native.events(cursor, wait)))

    def follow_events(self, cursor: str | None = None) -> AsyncEventStream:
        """The machine's events as they happen, until its end, from the oldest that is kept.

        Args:
            cursor: Only what came after the events that had it (`SandboxEvents.cursor`).
        """
        return AsyncEventStream(self._native.follow_events(cursor))

    async def suspend(self) -> SandboxInfo:
        """Puts the machine on disk: it holds no memory and no processor until it is resumed.

        `resume` does that and, unless it was made otherwise, so does the next call to it, from any program.

        Raises:
            NoSpace: The host's disk is full; the machine runs on.
        """
        self._record = sandbox_info(load(await self._native.suspend()))
        return self._record

    async def resume(self) -> SandboxInfo:
        """Lets a suspended machine go on where it stood; where the host has no room, waits for it for two minutes."""
        self._record = sandbox_info(load(await self._native.resume()))
        return self._record

    async def extend_timeout(self, timeout_secs: int) -> SandboxInfo:
        """Gives the machine another idle time-out, which counts from this call on; one that is suspended stays so.

        Args:
            timeout_secs: Seconds without any call after which it is terminated or, if it has a name, suspended: 1 to
                2,592,000. It may be shorter than the one before.

        Raises:
            InvalidArgument: The value is out of range.
            SandboxLost: The machine is gone.
        """
        self._record = sandbox_info(load(await self._native.extend_timeout(timeout_secs)))
        return self._record

    async def restore(self, snapshot_id: str) -> SandboxInfo:
        """Puts the machine back to where a snapshot stands, under its own id and name; what it did since is gone.

        Raises:
            SnapshotNotFound: The project has no such snapshot.
            InvalidArgument: The snapshot holds memory of a machine with other CPUs or memory.
            NoSpace: The host's disk is full: what the machine did is kept there until the snapshot has come up.
            Unavailable: The snapshot did not come up; the machine goes on as it was.
        """
        self._record = sandbox_info(load(await self._native.restore(snapshot_id)))
        return self._record

    @classmethod
    async def delete_snapshot(cls, snapshot_id: str, *, client: AsyncSandboxClient | None = None) -> None:
        """Deletes a snapshot; machines that came from it go on.

        Raises:
            SnapshotNotFound: There is none of this id in the project.
        """
        native = default_client() if client is None else client._native
        await native.delete_snapshot(snapshot_id)  # sync: native.delete_snapshot(snapshot_id).wait()

    async def run(
        self,
        command: str,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: bytes | str | None = None,
        timeout: float | None = None,
        check: bool = False,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        kill_on_cancel: bool = True,
    ) -> CommandResult:
        """Runs a program to its end. However often the connection is cut, it runs once, and all of its output arrives.

        Args:
            command: The program: a path, or a name looked up in ``PATH``. No shell is involved.
            args: Its arguments.
            env: Variables added to the machine's environment.
            cwd: The folder to start in. Default: the image's, such as ``/workspace``.
            user: The account. Default: the image's, such as ``agent``.
            stdin: What it reads from standard input. Default: nothing.
            timeout: Seconds after which it and all that it started are killed in the machine.
            check: Whether to raise where it does not exit with 0.
            on_stdout: Called with each piece of standard output as it comes, as text.
            on_stderr: The same for standard error.
            kill_on_cancel: Whether to kill it if this call is cancelled or interrupted.

        Raises:
            CommandTimeout: Its time was up; `result` has what it wrote until then.
            CommandFailed: `check`, and it did not exit with 0.
            NotFound: No such program, folder or user in the machine.
            SandboxLost: The machine is gone.
        """
        spec = make_spec(
            command,
            args,
            env=env,
            cwd=cwd,
            user=user,
            stdin=stdin,
            timeout=timeout,
            kill_on_cancel=kill_on_cancel,
        )
        if on_stdout is None and on_stderr is None:
            return checked(CommandResult(*await self._native.run(spec)), check)
        # It has its id before it is there: an interruption at any moment finds what to kill.
        process = AsyncProcess(self._native.prepare(spec))
        outputs: dict[OutputStream, list[bytes]] = {stream: [] for stream in OutputStream}
        callbacks = {OutputStream.STDOUT: on_stdout, OutputStream.STDERR: on_stderr}
        try:
            async for event in process:
                outputs[event.stream].append(event.data)
                callback = callbacks[event.stream]
                if callback is not None and event.text:
                    outcome = callback(event.text)  # sync: callback(event.text)
                    if inspect.isawaitable(outcome):  # sync:
                        await outcome  # sync:
        except BaseException:
            # Also when a callback fails: nobody is left to hear the rest.
            if kill_on_cancel:
                process._native.kill_in_background()
            raise
        ended = await process.wait() if process.exit is None else process.exit
        result = CommandResult(
            ended.exit_code,
            ended.signal,
            b"".join(outputs[OutputStream.STDOUT]),
            b"".join(outputs[OutputStream.STDERR]),
            ended.oom_killed,
            ended.timed_out,
            ended.duration,
            process.id,
        )
        return checked(result, check)

    async def start(
        self,
        command: str,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: bool = False,
        timeout: float | None = None,
        name: str | None = None,
        restart: RestartPolicy | Restart | str | None = None,
        health_check: HealthCheck | None = None,
    ) -> AsyncProcess:
        """Starts a program and leaves it running. Its output is kept in a ring of 3 MiB until somebody reads it.

        With a restart policy the machine keeps it running by itself, whoever is connected, also after a resume and in
        its forks. It is one process with one id and one output, whatever the number of its runs.

        Args:
            command: The program, as in `run`.
            args: Its arguments.
            env: Variables added to the machine's environment.
            cwd: The folder to start in.
            user: The account.
            stdin: Whether to leave standard input open for `AsyncProcess.write_stdin`.
            timeout: Seconds after which it and all that it started are killed in the machine.
            name: What it is called in `processes`: 1 to 63 of ``a-z 0-9 -``, of no other that has not ended.
            restart: Whether it is started again when it has ended, such as ``"always"``; not with `stdin`.
            health_check: How the machine finds out whether it does its work.

        Raises:
            AlreadyExists: A process of this name has not ended.
        """
        spec = make_spec(
            command,
            args,
            env=env,
            cwd=cwd,
            user=user,
            open_stdin=stdin,
            timeout=timeout,
            kill_on_cancel=True,
            management=management(name, restart, health_check),
        )
        return AsyncProcess(await self._native.start(spec))

    def process(self, process_id: str) -> AsyncProcess:
        """A process that is there already, its output from the oldest that is kept."""
        return AsyncProcess(self._native.process(process_id))

    async def pty(
        self,
        command: str | None = None,
        args: Sequence[str] = (),
        *,
        rows: int = 24,
        cols: int = 80,
        term: str = "xterm-256color",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        hangup_after: float | None = None,
    ) -> AsyncPty:
        """Starts a program on a pseudo-terminal, as at a screen and keyboard, and leaves it running.

        Args:
            command: The program, as in `run`. Default: the account's shell.
            args: Its arguments.
            rows: The terminal's rows, 1 to 4,096.
            cols: The terminal's columns, 1 to 4,096.
            term: What it understands: the variable ``TERM``.
            env: Variables added to the machine's environment.
            cwd: The folder to start in.
            user: The account, to which the terminal belongs too.
            timeout: Seconds after which it and all that it started are killed in the machine.
            hangup_after: Seconds without any viewer, at most a day, after which it is hung up. A viewer whose
                connection is cut needs some for the next. Default: never.

        Raises:
            InvalidArgument: A value is out of range.
            NotFound: No such program, folder or user in the machine.
            NoCapacity: 32 terminals run in the machine already.
        """
        spec = make_spec(command or "", args, env=env, cwd=cwd, user=user, timeout=timeout, kill_on_cancel=True)
        terminal = terminal_spec(rows, cols, term, hangup_after)
        return AsyncPty(await self._native.pty(spec, terminal), owned=True)

    def attach_pty(self, pty_id: str) -> AsyncPty:
        """A terminal that is there already, by its id, also one that a fork has of its original.

        What it showed comes first, as far as it is kept: the last MiB. Whether it is there shows with the first call.
        """
        return AsyncPty(self._native.process(pty_id), owned=False)

    async def processes(self) -> list[ProcessInfo]:
        """All processes that run or ended lately, oldest first."""
        return [process_info(value) for value in load(await self._native.processes())]

    async def read_file(self, path: Path, *, offset: int | None = None, length: int | None = None) -> bytes:
        """A file's contents, or `length` bytes of them from `offset` on.

        Raises:
            FileNotFound: There is no such file.
        """
        return await self._native.read_file(raw_path(path), offset, length)

    async def read_text(self, path: Path) -> str:
        """A file's contents as text: UTF-8, with U+FFFD in place of what is not."""
        return (await self.read_file(path)).decode("utf-8", "replace")

    async def write_file(self, path: Path, data: bytes | str, *, mode: int | None = None) -> FileInfo:
        """Replaces a file's contents as a whole, making missing folders; until then the old contents stay.

        Args:
            path: The file.
            data: Its new contents; text becomes UTF-8.
            mode: Its permission bits. Default: those of the file that it replaces, else 0o644.

        Raises:
            NoSpace: The machine's disk is full.
        """
        data = data.encode() if isinstance(data, str) else bytes(data)
        return file_info(load(await self._native.write_file(raw_path(path), data, mode)))

    async def upload(
        self,
        local: str | LocalPath,
        remote: Path,
        *,
        mode: int | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> FileInfo:
        """Sends a local file, streamed. `on_progress` is called with the bytes sent so far, from another thread."""
        return file_info(load(await self._native.upload(str(local), raw_path(remote), mode, on_progress)))

    async def download(
        self, remote: Path, local: str | LocalPath, *, on_progress: Callable[[int], object] | None = None
    ) -> int:
        """Fetches a file, streamed; answers its size. `on_progress` is told the bytes so far, from another thread."""
        return await self._native.download(raw_path(remote), str(local), on_progress)

    async def upload_dir(
        self, local: str | LocalPath, remote: Path, *, on_progress: Callable[[int], object] | None = None
    ) -> TreeSummary:
        """Sends a local folder with all that is in it, streamed.

        One that is not there appears as a whole, with what is missing above it. Into one that is there everything is
        put, each file as a whole, over what has the same name; nothing is removed. All of it belongs to the image's
        user; permission bits and times are kept, links are kept as links.

        Args:
            local: The folder.
            remote: Where it shall be.
            on_progress: Called with the bytes of the stream so far, from another thread; after a cut, from 0 again.

        Raises:
            NoSpace: The machine's disk is full.
            ForkyardError: The message names the file that could not be read or written.
        """
        return tree_summary(load(await self._native.upload_dir(str(local), raw_path(remote), on_progress)))

    async def download_dir(
        self, remote: Path, local: str | LocalPath, *, on_progress: Callable[[int], object] | None = None
    ) -> TreeSummary:
        """Fetches a folder with all that is in it, streamed, as `upload_dir` sends one; it belongs to the caller.

        The machine is not trusted: nothing lands outside `local`, and links that lead out of it are left out and
        counted.

        Raises:
            NotFound: The machine has no such folder.
            ForkyardError: The message names the file that could not be read or written.
        """
        return tree_summary(load(await self._native.download_dir(raw_path(remote), str(local), on_progress)))

    async def watch(self, path: Path, *, recursive: bool = True) -> AsyncWatch:
        """Watches a folder, from its return on. The machine is not idle meanwhile.

        Args:
            path: The folder.
            recursive: Whether all below it is watched too: up to 8,192 folders, links not followed.

        Raises:
            NotFound: There is no such folder.
            FailedPrecondition: It has more folders than can be watched.
            NoCapacity: 64 folders of the machine are watched already.
        """
        return AsyncWatch(await self._native.watch_files(raw_path(path), recursive))

    async def list_files(self, path: Path) -> list[FileInfo]:
        """A folder's entries, by name."""
        return [file_info(value) for value in load(await self._native.list_files(raw_path(path)))]

    async def stat(self, path: Path) -> FileInfo:
        """A file's attributes, those of a link's target."""
        return file_info(load(await self._native.stat(raw_path(path))))

    async def exists(self, path: Path) -> bool:
        """Whether there is something of this name."""
        try:
            await self.stat(path)
        except FileNotFoundError:
            return False
        return True

    async def make_dir(self, path: Path) -> FileInfo:
        """Makes a folder and what is missing above it; one that is there is as wanted."""
        return file_info(load(await self._native.make_dir(raw_path(path))))

    async def move(self, source: Path, target: Path, *, overwrite: bool = False) -> FileInfo:
        """Moves a file or folder."""
        return file_info(load(await self._native.move_file(raw_path(source), raw_path(target), overwrite)))

    async def remove(self, path: Path, *, recursive: bool = False) -> None:
        """Removes a file or, with `recursive`, a folder and all that is in it."""
        await self._native.remove(raw_path(path), recursive)
